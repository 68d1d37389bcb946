//! Configuration: `Args` as typed, [`Config`] as meant.
//!
//! Nobody else reads the command line, the environment or the file.
mod args;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod layers;
mod limits;
#[cfg(test)]
mod reference;
mod report;
#[cfg(test)]
mod tests;
mod values;
mod verbs;

use std::{ffi::OsString, fmt, path::PathBuf};

use bitcoin::Network;

use args::{Args, Settings};
pub use layers::Origin;
pub use limits::Limits;
pub use report::Report;
pub use values::{
    AdminListen, BlockSourceChoice, INDEX_FORMAT, LogFormat, LogLevels, NETWORKS,
    PROTOCOL_VERSIONS, network_name,
};
pub use verbs::{BlocksToVerify, Command, Snapshot, Verify};

/// The folder of all networks' indexes, within the platform's data directory.
const DATA_FOLDER: &str = "ambra";

/// The settings file that is read where none is named, in a folder of the same name in the platform's configuration
/// directory.
const USUAL_FILE: &str = "ambra.toml";

/// What the process is to do, and how.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub command: Command,
    pub config: Config,
    /// What `ambra config` prints.
    pub report: Report,
}

impl Invocation {
    /// From the process's own command line and environment, and the settings file.
    pub fn from_process() -> Result<Self, ConfigError> {
        let usual_file = dirs::config_dir().map(|dir| dir.join(DATA_FOLDER).join(USUAL_FILE));
        Self::from_sources(std::env::args_os(), std::env::vars_os(), usual_file)
    }

    /// `argv` with the program's name first. Reads the file that `--conf` names, else `usual_file` if it is there, and
    /// nothing else.
    pub fn from_sources<A, E>(
        argv: A,
        environment: E,
        usual_file: Option<PathBuf>,
    ) -> Result<Self, ConfigError>
    where
        A: IntoIterator,
        A::Item: Into<OsString>,
        E: IntoIterator<Item = (OsString, OsString)>,
    {
        let argv = argv.into_iter().map(Into::into);
        let layers = layers::layers(argv, environment, usual_file.as_deref())?;
        let command = layers.args.command.clone().unwrap_or(Command::Serve);
        let config = Config::from_args(layers.args)?;
        let report = Report::new(layers.given, layers.file, usual_file, &config);
        Ok(Self {
            command,
            config,
            report,
        })
    }
}

/// What is in force. Paths and texts are as given, defaults filled in; what depends on the network
/// is asked for with it, since it may only be known from the node.
#[derive(Clone, Debug)]
pub struct Config {
    /// `None`: the network that the node is on.
    pub network: Option<Network>,
    pub daemon_dir: Option<PathBuf>,
    /// `http://HOST` or `http://HOST:PORT`.
    pub daemon_rpc_url: Option<String>,
    pub cookie_file: Option<PathBuf>,
    pub rpc_login: Option<RpcLogin>,
    pub block_source: BlockSourceChoice,
    pub blocks_dir: Option<PathBuf>,
    /// Holds a subfolder for each network, see [`Config::db_dir`].
    pub db_root: PathBuf,
    /// The index is to be deleted before it is opened.
    pub rebuild: bool,
    pub sync_memory_bytes: usize,
    pub cache_memory_bytes: usize,
    /// Of the first sync.
    pub threads: usize,
    /// As typed and checked; empty: the default, see [`Config::listen_urls`].
    pub listen: Vec<String>,
    pub tls: Option<TlsFiles>,
    /// Origins of web pages that may speak with ws:// and wss:// listeners; `*`: all.
    pub allow_origin: Vec<String>,
    pub limits: Limits,
    pub protocol_max: Option<String>,
    pub server_name: Option<String>,
    pub banner: Option<String>,
    pub admin_listen: AdminListen,
    /// Names under which the status page is known besides, in the header `Host`.
    pub admin_host: Vec<String>,
    pub log_levels: LogLevels,
    pub log_format: LogFormat,
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The node's user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct RpcLogin {
    pub user: String,
    pub password: String,
}

/// # Security
/// A `Config` may be printed; a password may not.
impl fmt::Debug for RpcLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RpcLogin(hidden)")
    }
}

/// A certificate that the person brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Why there is no configuration. The text is for the person who typed it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Also `--help` and `--version`: clap prints them and knows the exit code.
    #[error(transparent)]
    Usage(clap::Error),
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{}, line {line}: {message}", path.display())]
    Syntax {
        path: PathBuf,
        line: usize,
        message: String,
    },
    #[error("{origin}: there is no such setting; the nearest is {nearest}")]
    UnknownKey { origin: Origin, nearest: String },
    #[error("{origin}: {reason}")]
    Value { origin: Origin, reason: String },
    /// Settings that do not go together.
    #[error("{0}")]
    Conflict(&'static str),
}

impl Config {
    fn from_args(args: Args) -> Result<Self, ConfigError> {
        let Settings {
            network,
            daemon_dir,
            daemon_rpc_url,
            cookie_file,
            rpc_user,
            rpc_password,
            block_source,
            blocks_dir,
            db_dir,
            profile,
            sync_memory,
            cache_memory,
            threads,
            listen,
            tls_cert,
            tls_key,
            allow_origin,
            protocol_max,
            server_name,
            banner,
            admin_listen,
            admin_host,
            limits,
            log_level,
            log_format,
        } = args.settings;
        let rpc_login = match (rpc_user, rpc_password) {
            (Some(user), Some(password)) => Some(RpcLogin { user, password }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(ConfigError::Conflict(
                    "--rpc-user and --rpc-password go together: give both, or none to use the node's cookie",
                ));
            }
        };
        if rpc_login.is_some() && cookie_file.is_some() {
            return Err(ConfigError::Conflict(
                "--cookie-file and --rpc-user exclude each other: leave one out",
            ));
        }
        let tls = match (tls_cert, tls_key) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(ConfigError::Conflict(
                    "--tls-cert and --tls-key go together: give both or none",
                ));
            }
        };
        // The local one: an index of 50 GB has no place in a roaming profile.
        // # Security: whoever asks an index something does not want it deleted, and who wants that is to be told no.
        if args.rebuild && !matches!(&args.command, None | Some(Command::Serve | Command::Sync)) {
            return Err(ConfigError::Conflict(
                "--rebuild deletes the index: it goes with `ambra` alone and with `ambra sync`, which build it anew",
            ));
        }
        let db_root = db_dir
            .or_else(|| dirs::data_local_dir().map(|dir| dir.join(DATA_FOLDER)))
            .ok_or(ConfigError::Conflict(
                "this user has no home directory: say with --db-dir where the index goes",
            ))?;
        let profile = profile.unwrap_or_default();
        Ok(Self {
            network,
            daemon_dir,
            daemon_rpc_url: daemon_rpc_url.map(|url| url.0),
            cookie_file,
            rpc_login,
            block_source: block_source.unwrap_or_default(),
            blocks_dir,
            db_root,
            rebuild: args.rebuild,
            sync_memory_bytes: sync_memory.unwrap_or(profile.sync_memory()).bytes(),
            cache_memory_bytes: cache_memory.unwrap_or(profile.cache_memory()).bytes(),
            threads: threads.unwrap_or_else(|| profile.threads(cores())),
            listen,
            tls,
            allow_origin,
            limits,
            protocol_max,
            server_name,
            banner,
            admin_listen: admin_listen.unwrap_or_default(),
            admin_host,
            log_levels: log_level.unwrap_or_else(|| match &args.command {
                Some(command) if command.is_question() => LogLevels::only_warnings(),
                Some(_) | None => LogLevels::default(),
            }),
            log_format: log_format.unwrap_or_default(),
        })
    }

    /// The index of a network.
    pub fn db_dir(&self, network: Network) -> PathBuf {
        self.db_root.join(network_name(network))
    }

    /// Where wallets connect: what was asked for, or loopback on the network's usual port.
    pub fn listen_urls(&self, network: Network) -> Vec<String> {
        if self.listen.is_empty() {
            vec![format!("tcp://127.0.0.1:{}", usual_port(network))]
        } else {
            self.listen.clone()
        }
    }

    /// Where the status page listens if nothing else is said: on this machine only.
    pub fn admin_usual(&self, network: Network) -> String {
        format!("127.0.0.1:{}", usual_port(network) + ADMIN_PORT_OFFSET)
    }
}

/// From a network's usual port for wallets to the status page's. Other servers take the next ones for TLS and
/// WebSocket (50002, 50003, 50004); nobody is known to use this one, on no network.
const ADMIN_PORT_OFFSET: u16 = 8;

/// The TCP port on which wallets expect a server of this network.
pub fn usual_port(network: Network) -> u16 {
    match network {
        Network::Bitcoin => 50001,
        Network::Testnet => 60001,
        Network::Testnet4 => 40001,
        Network::Signet => 60601,
        Network::Regtest => 60401,
    }
}

/// Completions of the command line, for a shell to read.
pub fn completions(shell: clap_complete::Shell) -> String {
    let mut text = Vec::new();
    let mut command = args::with_offers(args::command());
    clap_complete::generate(shell, &mut command, "ambra", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The manual page, as roff: one page for all commands.
pub fn man_page() -> String {
    let man = clap_mangen::Man::new(args::command()).date(env!("BUILD_DATE"));
    let mut text: Vec<u8> = Vec::new();
    let mut render = || -> std::io::Result<()> {
        man.render_title(&mut text)?;
        man.render_name_section(&mut text)?;
        man.render_synopsis_section(&mut text)?;
        text.extend_from_slice(b".SH COMMANDS\n");
        for command in report::commands() {
            let [usage, about] =
                [command.usage, command.about].map(|text| text.replace('-', "\\-"));
            text.extend_from_slice(format!(".TP\n\\fB{usage}\\fR\n{about}\n").as_bytes());
        }
        man.render_options_section(&mut text)?;
        man.render_extra_section(&mut text)?;
        man.render_version_section(&mut text)
    };
    // Writing to memory does not fail.
    let _ = render();
    String::from_utf8_lossy(&text).into_owned()
}
