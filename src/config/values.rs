//! Single values: how each is written, and what is refused.
use std::{path::PathBuf, str::FromStr};

use bitcoin::Network;
use clap::builder::{OsStringValueParser, TypedValueParser};
use tracing_subscriber::filter::{LevelFilter, Targets};

/// The first sync's memory by default: on a machine of 4 GiB it leaves room for bitcoind.
pub(super) const SYNC_MEMORY_DEFAULT: MebiBytes = MebiBytes(1024);
/// Below this the runs get so short that the files of a sync are too many.
const SYNC_MEMORY_MIN: MebiBytes = MebiBytes(64);
/// The block cache by default.
pub(super) const CACHE_MEMORY_DEFAULT: MebiBytes = MebiBytes(256);
const CACHE_MEMORY_MIN: MebiBytes = MebiBytes(8);
/// 1 TiB. More is a slip of the unit (bytes for MiB).
const MEMORY_MAX: MebiBytes = MebiBytes(1024 * 1024);

/// More is a slip; no machine that runs this has more cores.
const THREADS_MAX: usize = 1024;

/// What a machine can give, as typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Profile {
    /// A Raspberry Pi, a node box: bitcoind beside it wants most of 4 GiB, and cores too.
    Small,
    #[default]
    Default,
    /// A desktop or server with 16 GiB and more.
    Large,
}

impl Profile {
    pub const fn sync_memory(self) -> MebiBytes {
        match self {
            Self::Small => MebiBytes(256),
            Self::Default => SYNC_MEMORY_DEFAULT,
            Self::Large => MebiBytes(4096),
        }
    }

    pub const fn cache_memory(self) -> MebiBytes {
        match self {
            Self::Small => MebiBytes(64),
            Self::Default => CACHE_MEMORY_DEFAULT,
            Self::Large => MebiBytes(2048),
        }
    }

    /// Of the first sync, on a machine with so many cores.
    pub fn threads(self, cores: usize) -> usize {
        match self {
            Self::Small => (cores / 2).max(1),
            Self::Default | Self::Large => cores.max(1),
        }
    }
}

pub(super) fn profile(text: &str) -> Result<Profile, String> {
    match text {
        "small" => Ok(Profile::Small),
        "default" => Ok(Profile::Default),
        "large" => Ok(Profile::Large),
        _ => Err("it is one of small, default, large".to_owned()),
    }
}

pub(super) fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=THREADS_MAX).contains(&n) => Ok(n),
        _ => Err(format!("give a number between 1 and {THREADS_MAX}")),
    }
}

/// Longest server name, in bytes; wallets show it on one line.
const SERVER_NAME_MAX: usize = 128;
/// Longest banner, in bytes; wallets show it in a console.
const BANNER_MAX: usize = 16 * 1024;

/// An amount of memory as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MebiBytes(pub usize);

impl MebiBytes {
    pub fn bytes(self) -> usize {
        self.0.saturating_mul(1024 * 1024)
    }
}

fn memory(text: &str, min: MebiBytes) -> Result<MebiBytes, String> {
    let max = MEMORY_MAX;
    match text.parse::<usize>() {
        Ok(n) if (min.0..=max.0).contains(&n) => Ok(MebiBytes(n)),
        _ => Err(format!(
            "give a number of MiB between {} and {}",
            min.0, max.0
        )),
    }
}

pub(super) fn sync_memory(text: &str) -> Result<MebiBytes, String> {
    memory(text, SYNC_MEMORY_MIN)
}

pub(super) fn cache_memory(text: &str) -> Result<MebiBytes, String> {
    memory(text, CACHE_MEMORY_MIN)
}

/// Networks as options and folders name them.
pub const NETWORKS: [(&str, Network); 5] = [
    ("main", Network::Bitcoin),
    ("testnet", Network::Testnet),
    ("testnet4", Network::Testnet4),
    ("signet", Network::Signet),
    ("regtest", Network::Regtest),
];

pub(super) fn network(text: &str) -> Result<Network, String> {
    NETWORKS
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, network)| *network)
        .ok_or_else(|| "it is one of main, testnet, testnet4, signet, regtest".to_owned())
}

/// What `--network` calls it.
pub fn network_name(network: Network) -> &'static str {
    match network {
        Network::Bitcoin => "main",
        Network::Testnet => "testnet",
        Network::Testnet4 => "testnet4",
        Network::Signet => "signet",
        Network::Regtest => "regtest",
    }
}

/// Where blocks are read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockSourceChoice {
    /// The best that works: files, else REST, else RPC.
    #[default]
    Auto,
    Files,
    Rest,
    Rpc,
}

pub(super) fn block_source(text: &str) -> Result<BlockSourceChoice, String> {
    match text {
        "auto" => Ok(BlockSourceChoice::Auto),
        "files" => Ok(BlockSourceChoice::Files),
        "rest" => Ok(BlockSourceChoice::Rest),
        "rpc" => Ok(BlockSourceChoice::Rpc),
        _ => Err("it is one of auto, files, rest, rpc".to_owned()),
    }
}

/// Where the status page listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdminListen {
    /// On this machine, at the network's usual port.
    #[default]
    Usual,
    /// Nowhere.
    Off,
    /// `HOST:PORT`.
    At(String),
}

pub(super) fn admin_listen(text: &str) -> Result<AdminListen, String> {
    if text == "off" {
        return Ok(AdminListen::Off);
    }
    let is_named = |host: &str| !host.is_empty() && (!host.contains(':') || host.starts_with('['));
    match text.rsplit_once(':') {
        Some((host, port))
            if is_named(host) && !text.contains('/') && port.parse::<u16>().is_ok() =>
        {
            Ok(AdminListen::At(text.to_owned()))
        }
        _ => Err("give HOST:PORT, like 127.0.0.1:50009 or [::1]:50009, or off".to_owned()),
    }
}

pub(super) fn admin_host(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_plain) {
        return Err(
            "give a name alone, like node.example.org, without http:// and without a port"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Human,
    Json,
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err("it is human or json".to_owned()),
    }
}

/// A path. A leading `~/` is the home directory: no shell expands it in a file, nor after
/// `--option=`, and a folder named `~` is in nobody's mind.
pub(super) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(|text| {
        let path = PathBuf::from(text);
        match (path.strip_prefix("~"), dirs::home_dir()) {
            (Ok(below), Some(home)) => home.join(below),
            (Err(_), _) | (_, None) => path,
        }
    })
}

/// `http://HOST:PORT` or `http://HOST`, without a path and without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RpcUrl(pub String);

impl FromStr for RpcUrl {
    type Err = String;

    /// # Security
    /// The text may hold a password, so the error never repeats it (clap does: see the layers' errors,
    /// which leave values out).
    fn from_str(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "write it as http://HOST:PORT";
        let rest = text
            .strip_prefix("http://")
            .ok_or_else(|| SHAPE.to_owned())?;
        if rest.contains('@') {
            return Err(
                "leave user and password out of the URL: --rpc-user and --rpc-password take them"
                    .to_owned(),
            );
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let port = host_and_port(authority).ok_or_else(|| SHAPE.to_owned())?.1;
        if authority.contains('/') || port == Some(0) {
            return Err(SHAPE.to_owned());
        }
        Ok(Self(format!("http://{authority}")))
    }
}

/// `HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT`; `None` for anything else.
fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            match after {
                "" => (host, None),
                after => (host, Some(after.strip_prefix(':')?)),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_host_char = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    if host.is_empty() || !host.chars().all(is_host_char) {
        return None;
    }
    match port {
        Some(port) => Some((host, Some(port.parse().ok()?))),
        None => Some((host, None)),
    }
}

/// A listener's URL, checked for its shape. Port 0 asks the system for a free one.
pub(super) fn listen_url(text: &str) -> Result<String, String> {
    const SHAPE: &str = "write it as tcp://HOST:PORT (or tls://, ws://, wss://), or as unix:PATH";
    if let Some(path) = text.strip_prefix("unix:") {
        return match path {
            "" => Err(SHAPE.to_owned()),
            _ => Ok(text.to_owned()),
        };
    }
    let authority = ["tcp://", "tls://", "ws://", "wss://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .ok_or_else(|| SHAPE.to_owned())?;
    match host_and_port(authority) {
        Some((_, Some(_))) => Ok(text.to_owned()),
        Some((_, None)) => Err(format!("the port is missing: {SHAPE}")),
        None => Err(SHAPE.to_owned()),
    }
}

/// The index's format, as `--version` tells it. A test of the joiner keeps it and the index's own alike.
pub const INDEX_FORMAT: u32 = 4;

/// What a browser sends as `Origin` (RFC 6454): scheme, host and perhaps a port; nothing behind them.
pub(super) fn origin(text: &str) -> Result<String, String> {
    const SHAPE: &str = "write it as https://HOST or http://HOST:PORT, or * for all";
    let authority = match text.split_once("://") {
        _ if text == "*" => return Ok(text.to_owned()),
        Some((scheme, authority)) if is_scheme(scheme) => authority,
        Some(_) | None => return Err(SHAPE.to_owned()),
    };
    host_and_port(authority).ok_or_else(|| SHAPE.to_owned())?;
    // Browsers send it in small letters.
    Ok(text.to_ascii_lowercase())
}

/// Besides http and https there are those of apps and of browser extensions.
fn is_scheme(text: &str) -> bool {
    let is_scheme_char = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    !text.is_empty() && text.chars().all(is_scheme_char)
}

/// The versions that may be the newest one offered. The method table has them too; a test of the joiner keeps
/// the two alike.
pub const PROTOCOL_VERSIONS: [&str; 10] = [
    "1.0", "1.1", "1.2", "1.3", "1.4", "1.4.1", "1.4.2", "1.4.3", "1.6", "1.7",
];

pub(super) fn protocol_version(text: &str) -> Result<String, String> {
    if PROTOCOL_VERSIONS.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(format!("it is one of {}", PROTOCOL_VERSIONS.join(", ")))
    }
}

pub(super) fn server_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > SERVER_NAME_MAX || text.chars().any(char::is_control) {
        return Err(format!("give one line of 1 to {SERVER_NAME_MAX} bytes"));
    }
    Ok(text.to_owned())
}

pub(super) fn banner(text: &str) -> Result<String, String> {
    if text.len() > BANNER_MAX {
        return Err(format!("give at most {BANNER_MAX} bytes"));
    }
    Ok(text.to_owned())
}

/// The rooms whose level can be set by name.
const ROOMS: [&str; 9] = [
    "admin", "chain", "daemon", "electrum", "index", "mempool", "server", "state", "sync",
];

/// How much is logged: one level for all, and levels of single rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevels {
    all: LevelFilter,
    rooms: Vec<(&'static str, LevelFilter)>,
}

impl Default for LogLevels {
    fn default() -> Self {
        Self {
            all: LevelFilter::INFO,
            rooms: Vec::new(),
        }
    }
}

impl LogLevels {
    pub(super) fn only_warnings() -> Self {
        Self {
            all: LevelFilter::WARN,
            rooms: Vec::new(),
        }
    }

    /// As a filter of what is logged.
    ///
    /// # Security
    /// Libraries never log below a warning, whatever the level: at their finer levels HTTP clients
    /// show headers, and ours hold the node's credentials.
    pub fn filter(&self) -> Targets {
        let libraries = self.all.min(LevelFilter::WARN);
        let mut filter = Targets::new()
            .with_default(libraries)
            .with_target("ambra", self.all);
        for (room, level) in &self.rooms {
            filter = filter.with_target(format!("ambra::{room}"), *level);
        }
        filter
    }
}

impl FromStr for LogLevels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let level = |word: &str| match word {
            "error" => Ok(LevelFilter::ERROR),
            "warn" => Ok(LevelFilter::WARN),
            "info" => Ok(LevelFilter::INFO),
            "debug" => Ok(LevelFilter::DEBUG),
            "trace" => Ok(LevelFilter::TRACE),
            _ => Err("levels are error, warn, info, debug, trace".to_owned()),
        };
        let mut levels = Self::default();
        for part in text.split(',') {
            match part.split_once('=') {
                None => levels.all = level(part)?,
                Some((room, word)) => {
                    let room = ROOMS
                        .into_iter()
                        .find(|name| *name == room)
                        .ok_or_else(|| format!("rooms are {}", ROOMS.join(", ")))?;
                    levels.rooms.push((room, level(word)?));
                }
            }
        }
        Ok(levels)
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn every_network_has_its_name_and_back() {
        for (name, value) in NETWORKS {
            assert_eq!(network(name), Ok(value));
            assert_eq!(network_name(value), name);
        }
        assert!(network("mainnet").unwrap_err().contains("main, testnet"));
    }

    #[test]
    fn an_rpc_url_is_http_host_and_port() {
        for (text, kept) in [
            ("http://127.0.0.1:8332", "http://127.0.0.1:8332"),
            ("http://node.local:8332/", "http://node.local:8332"),
            ("http://[::1]:8332", "http://[::1]:8332"),
            ("http://node", "http://node"),
        ] {
            assert_eq!(text.parse(), Ok(RpcUrl(kept.to_owned())), "{text}");
        }
        for text in [
            "127.0.0.1:8332",
            "https://127.0.0.1:8332",
            "http://",
            "http://:8332",
            "http://host:99999",
            "http://host:0",
            "http://host:8332/wallet/x",
            "http://[zz]:8332",
            "http://a b:8332",
        ] {
            assert!(text.parse::<RpcUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_in_the_rpc_url_is_refused_and_not_repeated() {
        let error = "http://me:hunter2@host:8332".parse::<RpcUrl>().unwrap_err();
        assert!(error.contains("--rpc-password"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_listener_has_a_scheme_and_a_port_or_is_a_unix_socket() {
        for text in [
            "tcp://127.0.0.1:50001",
            "tls://0.0.0.0:50002",
            "ws://[::]:50003",
            "wss://node.local:0",
            "unix:/run/ambra.sock",
        ] {
            assert_eq!(listen_url(text), Ok(text.to_owned()));
        }
        for text in ["127.0.0.1:50001", "http://127.0.0.1:1", "tcp://", "unix:"] {
            assert!(listen_url(text).is_err(), "{text}");
        }
        assert!(listen_url("tcp://host").unwrap_err().contains("port"));
    }

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for (text, kept) in [
            ("https://Wallet.example", "https://wallet.example"),
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("*", "*"),
        ] {
            assert_eq!(origin(text), Ok(kept.to_owned()), "{text}");
        }
        for text in [
            "wallet.example",
            "https://",
            "https://a/b",
            "",
            "null",
            "://a",
            "https://*",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_outside_its_bounds_is_refused_with_the_bounds() {
        assert_eq!(sync_memory("64"), Ok(MebiBytes(64)));
        for text in ["63", "1048577", "-1", "1g", ""] {
            let error = sync_memory(text).unwrap_err();
            assert!(error.contains("between 64 and 1048576"), "{text}: {error}");
        }
        assert!(cache_memory("7").is_err());
        assert_eq!(cache_memory("8").map(MebiBytes::bytes), Ok(8 << 20));
    }

    #[test]
    fn a_protocol_version_is_two_or_three_numbers() {
        assert!(protocol_version("1.4").is_ok());
        assert!(protocol_version("1.4.2").is_ok());
        for text in ["1", "1.4.2.1", "1.x", "1.4b", "", "1."] {
            assert!(protocol_version(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_and_banners_have_bounds() {
        assert!(server_name(&"x".repeat(SERVER_NAME_MAX)).is_ok());
        assert!(server_name(&"x".repeat(SERVER_NAME_MAX + 1)).is_err());
        assert!(server_name("").is_err());
        assert!(server_name("two\nlines").is_err());
        assert!(banner(&"x".repeat(BANNER_MAX)).is_ok());
        assert!(banner(&"x".repeat(BANNER_MAX + 1)).is_err());
    }

    #[test]
    fn levels_are_set_for_all_and_by_room() {
        let filter = "warn,sync=debug".parse::<LogLevels>().unwrap().filter();
        assert!(filter.would_enable("ambra::sync::tip", &Level::DEBUG));
        assert!(!filter.would_enable("ambra::state", &Level::INFO));
        assert!(filter.would_enable("ambra::state", &Level::WARN));
    }

    #[test]
    fn libraries_never_log_below_a_warning() {
        let filter = "trace".parse::<LogLevels>().unwrap().filter();
        assert!(filter.would_enable("ambra::daemon", &Level::TRACE));
        assert!(!filter.would_enable("ureq_proto", &Level::INFO));
        let filter = "error".parse::<LogLevels>().unwrap().filter();
        assert!(!filter.would_enable("ureq_proto", &Level::WARN));
    }

    #[test]
    fn a_level_or_room_that_is_none_is_refused_with_the_list() {
        let error = "verbose".parse::<LogLevels>().unwrap_err();
        assert!(error.contains("error, warn, info"), "{error}");
        let error = "info,snyc=debug".parse::<LogLevels>().unwrap_err();
        assert!(error.contains("sync"), "{error}");
        assert!("info,sync=loud".parse::<LogLevels>().is_err());
    }
}
