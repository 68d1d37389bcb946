//! Why a node is not found, in words that say what to do.
use std::path::PathBuf;

use bitcoin::Network;

use crate::daemon::rpc::RpcError;

/// Why the node was not found, and the one thing that mends it.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    #[error(
        "found no data directory of bitcoind: looked at {}. Say where it is with --daemon-dir DIR, \
         or for a node on another machine --daemon-rpc-url http://HOST:PORT with --rpc-user and --rpc-password",
        list(looked)
    )]
    NoDataDir { looked: Vec<PathBuf> },
    #[error(
        "this user may not look into {}: {error}. Run as bitcoind's user, or open the folders to this one",
        path.display()
    )]
    DataDirClosed {
        path: PathBuf,
        error: std::io::Error,
    },
    /// One of each data directory is named: that of the network which its `bitcoin.conf` starts.
    #[error(
        "bitcoind does not run, or keeps its cookie elsewhere: looked for {}{}. Start it, \
         or say where it is with --daemon-dir DIR or --cookie-file FILE",
        list(looked),
        match others {
            true => ", and for other networks' beside it",
            false => "",
        }
    )]
    NoCookie { looked: Vec<PathBuf>, others: bool },
    #[error(
        "this user may not read bitcoind's cookie {}: {error}. Run as bitcoind's user, or put \
         rpccookieperms=group into bitcoin.conf and this user into bitcoind's group",
        path.display()
    )]
    CookieUnreadable {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error(
        "no credentials for the node at {url}: give --rpc-user and --rpc-password, or --cookie-file FILE"
    )]
    NoCredentials { url: String },
    #[error(
        "the node at {url} refuses the user name or the password: correct --rpc-user and --rpc-password, \
         or leave both out to log in by the node's cookie"
    )]
    WrongLogin { url: String },
    #[error("{}{}", match starting(tried) { true => "", false => "no node answers: " }, tried_list(tried))]
    NoAnswer { tried: Vec<(String, RpcError)> },
    #[error(
        "--network {} was asked for, but the node at {url} is on {}: leave --network out, or point at the other node",
        wanted.to_core_arg(),
        found.to_core_arg()
    )]
    WrongNetwork {
        url: String,
        wanted: Network,
        found: Network,
    },
    #[error("the node at {url} is on a chain called {chain}, which Ambra does not know")]
    UnknownChain { url: String, chain: String },
}

impl DiscoverError {
    /// True where waiting may help; else only the person can.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NoCookie { .. } | Self::NoAnswer { .. } => true,
            Self::NoDataDir { .. }
            | Self::DataDirClosed { .. }
            | Self::CookieUnreadable { .. }
            | Self::NoCredentials { .. }
            | Self::WrongLogin { .. }
            | Self::WrongNetwork { .. }
            | Self::UnknownChain { .. } => false,
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    paths.join(", ")
}

/// True if one of them answers already, and says that it is not ready.
fn starting(tried: &[(String, RpcError)]) -> bool {
    tried.iter().any(|(_, error)| error.is_starting())
}

/// Each node's words, with its URL where they do not name it; of one that starts, those alone.
fn tried_list(tried: &[(String, RpcError)]) -> String {
    let only_starting = starting(tried);
    let tried: Vec<_> = tried
        .iter()
        .filter(|(_, error)| !only_starting || error.is_starting())
        .map(|(url, error)| {
            let words = error.to_string();
            match words.contains(url.as_str()) {
                true => words,
                false => format!("{url}: {words}"),
            }
        })
        .collect();
    tried.join("; ")
}
