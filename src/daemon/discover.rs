//! Finds the node: its RPC, its credentials, its network, its block files.
//!
//! What the person said goes first; what they did not say is looked for where bitcoind puts it, with
//! `bitcoin.conf` read for what it tells. The last word about the network is the node's own.
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use bitcoin::Network;

mod error;
pub use error::DiscoverError;

use super::{
    bitcoin_conf::{BitcoinConf, network_of_chain},
    rpc::{Rpc, RpcAuth, RpcConfig, RpcError},
};

/// For the one question to each node: one that starts up answers at once that it does.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// What the person said about the node; all of it may be left unsaid.
#[derive(Clone, Default)]
pub struct Wanted {
    pub network: Option<Network>,
    pub daemon_dir: Option<PathBuf>,
    /// `http://HOST` or `http://HOST:PORT`.
    pub rpc_url: Option<String>,
    pub cookie_file: Option<PathBuf>,
    pub user_password: Option<(String, String)>,
    pub blocks_dir: Option<PathBuf>,
}

/// Where the node is.
#[derive(Clone, Debug)]
pub struct NodeLocation {
    /// `http://HOST:PORT`
    pub rpc_url: String,
    pub auth: RpcAuth,
    /// As the node said.
    pub network: Network,
    /// The folder of its `blk*.dat`, where there is one on this machine.
    pub blocks_dir: Option<PathBuf>,
}

/// Looks once, and asks each node that may be the one. Where [`DiscoverError::is_passing`], look again later.
/// Blocks.
pub fn discover(wanted: &Wanted) -> Result<NodeLocation, DiscoverError> {
    look(wanted, &|url, auth| {
        let rpc = Rpc::new(RpcConfig {
            url: url.to_owned(),
            auth: auth.clone(),
            timeout: ASK_TIMEOUT,
        });
        rpc.blockchain_info().map(|info| info.chain)
    })
}

/// `ask` gives the chain's name as the node tells it.
fn look(
    wanted: &Wanted,
    ask: &dyn Fn(&str, &RpcAuth) -> Result<String, RpcError>,
) -> Result<NodeLocation, DiscoverError> {
    let mut tried = Vec::new();
    let mut misfit = None;
    for candidate in candidates(wanted)? {
        match ask(&candidate.url, &candidate.auth) {
            Ok(chain) => match settle(wanted, &candidate, chain) {
                Ok(location) => return Ok(location),
                Err(error) => misfit = Some(error),
            },
            Err(error) => tried.push((candidate.url, error)),
        }
    }
    if let Some(misfit) = misfit {
        return Err(misfit);
    }
    // A login out of `bitcoin.conf` is read again at the next look: the person may be about to restart the node.
    let is_refused = |(_, error): &&(String, RpcError)| matches!(error, RpcError::WrongLogin(_));
    match tried.iter().find(is_refused) {
        Some((url, _)) if wanted.user_password.is_some() => {
            Err(DiscoverError::WrongLogin { url: url.clone() })
        }
        Some(_) | None => Err(DiscoverError::NoAnswer { tried }),
    }
}

/// A place to ask at.
#[derive(Clone)]
struct Candidate {
    url: String,
    auth: RpcAuth,
    /// The data directory that it was found in.
    dir: Option<PathBuf>,
}

/// The location of a node that has told its chain.
fn settle(
    wanted: &Wanted,
    candidate: &Candidate,
    chain: String,
) -> Result<NodeLocation, DiscoverError> {
    let url = candidate.url.clone();
    let Some(found) = network_of_chain(&chain) else {
        return Err(DiscoverError::UnknownChain { url, chain });
    };
    if let Some(wanted) = wanted.network.filter(|wanted| *wanted != found) {
        return Err(DiscoverError::WrongNetwork { url, wanted, found });
    }
    // By the node's own word: the folder that led here may be another network's.
    let blocks_dir = wanted.blocks_dir.clone().or_else(|| {
        let dir = candidate.dir.as_deref()?;
        let blocks = Folder::of(dir, found).blocks_dir();
        blocks.is_dir().then_some(blocks)
    });
    Ok(NodeLocation {
        rpc_url: url,
        auth: candidate.auth.clone(),
        network: found,
        blocks_dir,
    })
}

/// Networks in the order in which they are tried.
const NETWORKS: [Network; 5] = [
    Network::Bitcoin,
    Network::Testnet4,
    Network::Signet,
    Network::Testnet,
    Network::Regtest,
];

fn candidates(wanted: &Wanted) -> Result<Vec<Candidate>, DiscoverError> {
    let looked = data_dirs(wanted);
    let mut dirs: Vec<&PathBuf> = Vec::new();
    let mut closed = None;
    for dir in &looked {
        match std::fs::metadata(dir) {
            Ok(found) if found.is_dir() => dirs.push(dir),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                closed = Some(DiscoverError::DataDirClosed {
                    path: dir.clone(),
                    error,
                });
            }
            Ok(_) | Err(_) => {}
        }
    }
    let given = given_auth(wanted);

    let mut found: Vec<Candidate> = Vec::new();
    let mut cookies = Vec::new();
    let mut unreadable = None;
    for dir in &dirs {
        for (rank, network) in networks(wanted, dir).into_iter().enumerate() {
            let folder = Folder::of(dir, network);
            let url = match &wanted.rpc_url {
                Some(url) => with_port(url, network),
                None => folder.rpc_url(),
            };
            let auth = match given.clone().or_else(|| folder.login()) {
                Some(auth) => auth,
                None => {
                    let cookie = folder.cookie_file();
                    if rank == 0 {
                        cookies.push(cookie.clone());
                    }
                    match cookie_exists(&cookie) {
                        Ok(true) => RpcAuth::CookieFile(cookie),
                        Ok(false) => continue,
                        Err(error) => {
                            // The likeliest network's comes first.
                            unreadable.get_or_insert(error);
                            continue;
                        }
                    }
                }
            };
            // The same place with the same credentials is asked once.
            if given.is_some() && found.iter().any(|other| other.url == url) {
                continue;
            }
            found.push(Candidate {
                url,
                auth,
                dir: Some((*dir).clone()),
            });
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    if let Some(error) = unreadable {
        return Err(error);
    }
    match (&wanted.rpc_url, given) {
        (Some(url), Some(auth)) => {
            let networks = wanted.network.map_or(NETWORKS.to_vec(), |n| vec![n]);
            let mut urls: Vec<_> = networks.iter().map(|n| with_port(url, *n)).collect();
            urls.dedup();
            let candidate = |url| Candidate {
                url,
                auth: auth.clone(),
                dir: None,
            };
            Ok(urls.into_iter().map(candidate).collect())
        }
        (Some(url), None) if dirs.is_empty() => {
            Err(DiscoverError::NoCredentials { url: url.clone() })
        }
        (None, Some(auth)) if dirs.is_empty() && wanted.daemon_dir.is_none() => {
            // Credentials, but no data directory: a node on this machine that another user runs.
            let networks = wanted.network.map_or(NETWORKS.to_vec(), |n| vec![n]);
            let candidate = |network: Network| Candidate {
                url: local_url("127.0.0.1", usual_rpc_port(network)),
                auth: auth.clone(),
                dir: None,
            };
            Ok(networks.into_iter().map(candidate).collect())
        }
        (_, _) if dirs.is_empty() => Err(closed.unwrap_or(DiscoverError::NoDataDir { looked })),
        (_, _) => Err(DiscoverError::NoCookie {
            looked: cookies,
            others: wanted.network.is_none(),
        }),
    }
}

fn given_auth(wanted: &Wanted) -> Option<RpcAuth> {
    match (&wanted.user_password, &wanted.cookie_file) {
        (Some((user, password)), _) => Some(RpcAuth::UserPass(user.clone(), password.clone())),
        (None, Some(path)) => Some(RpcAuth::CookieFile(path.clone())),
        (None, None) => None,
    }
}

/// # Security
/// A node on another machine is not asked with the cookie of one on this machine, which would tell it the
/// cookie.
fn data_dirs(wanted: &Wanted) -> Vec<PathBuf> {
    match (&wanted.daemon_dir, &wanted.rpc_url) {
        (Some(dir), _) => vec![dir.clone()],
        (None, Some(url)) if !is_loopback(url) => Vec::new(),
        (None, _) => usual_data_dirs(),
    }
}

/// The networks to look for in a data directory: the one that was asked for, else all, first the one that
/// its `bitcoin.conf` starts.
fn networks(wanted: &Wanted, dir: &Path) -> Vec<Network> {
    if let Some(network) = wanted.network {
        return vec![network];
    }
    let mut networks = NETWORKS.to_vec();
    if let Some(first) = BitcoinConf::load(dir, None).network() {
        networks.sort_by_key(|network| *network != first);
    }
    networks
}

/// The network that is likely meant, where no node tells: the one that was asked for, else the one that the first
/// `bitcoin.conf` starts.
pub fn likely_network(wanted: &Wanted) -> Network {
    let dirs = data_dirs(wanted);
    let dir = dirs.iter().find(|dir| dir.is_dir());
    let first = dir.and_then(|dir| networks(wanted, dir).into_iter().next());
    first.or(wanted.network).unwrap_or(Network::Bitcoin)
}

/// False if it is not there; an error if it is and cannot be read.
fn cookie_exists(path: &Path) -> Result<bool, DiscoverError> {
    match std::fs::File::open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(DiscoverError::CookieUnreadable {
                path: path.to_owned(),
                error,
            })
        }
        Err(_) => Ok(false),
    }
}

/// The network's own folder in a data directory.
pub(super) fn network_folder(dir: &Path, network: Network) -> PathBuf {
    match network {
        Network::Bitcoin => dir.to_owned(),
        Network::Testnet => dir.join("testnet3"),
        Network::Testnet4 => dir.join("testnet4"),
        Network::Signet => dir.join("signet"),
        Network::Regtest => dir.join("regtest"),
    }
}

/// A network's part of a data directory, as its `bitcoin.conf` arranges it.
struct Folder {
    network: Network,
    /// The data directory; `datadir` may have moved it.
    base: PathBuf,
    conf: BitcoinConf,
}

impl Folder {
    fn of(dir: &Path, network: Network) -> Self {
        let conf = BitcoinConf::load(dir, Some(network));
        let is_used = |base: &Path| {
            let folder = network_folder(base, network);
            folder.join("blocks").is_dir() || folder.join(".cookie").exists()
        };
        // `-datadir` on bitcoind's command line goes before its file's, and only the folders tell which one it was.
        let base = match conf.get(Some(network), "datadir").map(|to| dir.join(to)) {
            Some(moved) if is_used(&moved) || !is_used(dir) => moved,
            Some(_) | None => dir.to_owned(),
        };
        Self {
            network,
            base,
            conf,
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.conf.get(Some(self.network), key)
    }

    fn blocks_dir(&self) -> PathBuf {
        let dir = match self.get("blocksdir") {
            Some(moved) => self.base.join(moved),
            None => self.base.clone(),
        };
        network_folder(&dir, self.network).join("blocks")
    }

    fn cookie_file(&self) -> PathBuf {
        let name = self.get("rpccookiefile").unwrap_or(".cookie");
        network_folder(&self.base, self.network).join(name)
    }

    /// With a password in its file bitcoind makes no cookie.
    fn login(&self) -> Option<RpcAuth> {
        let password = self.get("rpcpassword").filter(|p| !p.is_empty())?;
        let user = self.get("rpcuser").unwrap_or_default();
        Some(RpcAuth::UserPass(user.to_owned(), password.to_owned()))
    }

    /// bitcoind listens on loopback, unless `rpcbind` (which counts with `rpcallowip` only) says otherwise.
    fn rpc_url(&self) -> String {
        let port = self.get("rpcport").and_then(|port| port.parse().ok());
        let port = port.unwrap_or(usual_rpc_port(self.network));
        let bound = self
            .get("rpcallowip")
            .and_then(|_| self.get("rpcbind"))
            .and_then(|bind| bound_address(bind, port));
        let (host, port) = bound.unwrap_or_else(|| ("127.0.0.1".to_owned(), port));
        local_url(&host, port)
    }
}

fn local_url(host: &str, port: u16) -> String {
    format!("http://{host}:{port}")
}

/// Where to reach what `rpcbind` binds: any address is reached by loopback.
fn bound_address(bind: &str, port: u16) -> Option<(String, u16)> {
    if let Ok(address) = bind.parse::<std::net::SocketAddr>() {
        return Some((reached_by(address.ip()), address.port()));
    }
    let bare = bind.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<std::net::IpAddr>() {
        return Some((reached_by(ip), port));
    }
    None
}

fn reached_by(ip: std::net::IpAddr) -> String {
    use std::net::IpAddr;
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// `nDefaultPort` of the RPC (Bitcoin Core's `chainparamsbase.cpp`).
pub(super) fn usual_rpc_port(network: Network) -> u16 {
    match network {
        Network::Bitcoin => 8332,
        Network::Testnet => 18332,
        Network::Testnet4 => 48332,
        Network::Signet => 38332,
        Network::Regtest => 18443,
    }
}

/// `http://HOST[:PORT]` with the network's usual port where it has none.
fn with_port(url: &str, network: Network) -> String {
    let authority = authority(url);
    let has_port = match authority.rsplit_once(']') {
        Some((_, after)) => after.starts_with(':'),
        None => authority.contains(':'),
    };
    if has_port {
        format!("http://{authority}")
    } else {
        format!("http://{authority}:{}", usual_rpc_port(network))
    }
}

fn authority(url: &str) -> &str {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    rest.split('/').next().unwrap_or(rest)
}

fn is_loopback(url: &str) -> bool {
    let authority = authority(url);
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(':').next(),
    };
    let host = host.unwrap_or_default();
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// Where bitcoind and its packages keep their data on this platform.
fn usual_data_dirs() -> Vec<PathBuf> {
    let mut usual: Vec<Option<PathBuf>> = Vec::new();
    if cfg!(target_os = "macos") {
        usual.push(dirs::data_dir().map(|d| d.join("Bitcoin")));
    } else if cfg!(windows) {
        // From Bitcoin Core 28 on the local one (bitcoin/bitcoin#27064).
        usual.push(dirs::data_local_dir().map(|d| d.join("Bitcoin")));
        usual.push(dirs::data_dir().map(|d| d.join("Bitcoin")));
    } else {
        usual.push(dirs::home_dir().map(|d| d.join(".bitcoin")));
        usual.push(dirs::home_dir().map(|d| d.join("snap/bitcoin-core/common/.bitcoin")));
        usual.push(Some("/var/lib/bitcoind".into()));
        usual.push(Some("/var/lib/bitcoin".into()));
    }
    usual.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
