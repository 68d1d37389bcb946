//! What the owner of the server decides about sessions.

use std::sync::{Arc, atomic::AtomicUsize};

use bitcoin::Network;

use super::version::Version;

/// One for all sessions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The software's name in `server.version` and `server.features`, e.g. "Ambra/0.1.0".
    pub server_name: String,
    /// The newest version offered.
    pub protocol_max: Version,
    /// Whose addresses are read and written.
    pub network: Network,
    pub banner: String,
    pub donation_address: String,
    /// Where the server can be reached, as far as it knows.
    pub services: Vec<Service>,
    /// Most requests of a batch. Their replies are kept until the last one is there.
    pub batch_requests_max: usize,
    /// Most bytes of a batch's replies: what is asked for beyond is refused. A batch of 20,000 could ask
    /// for 20,000 times 8 MB.
    pub batch_reply_bytes_max: usize,
    /// Most scripts and outpoints that a session may subscribe to; each costs about 150 bytes here
    /// and as much in the shared state.
    pub subscriptions_max: usize,
    /// The same of all sessions together.
    pub all_subscriptions_max: usize,
    /// How many there are now, of all sessions.
    pub subscriptions: Arc<AtomicUsize>,
    /// Most entries of a history for clients of other machines; `None`: no limit. Clients of this machine
    /// have none.
    pub remote_history_max: Option<usize>,
}

impl Settings {
    /// The newest version offered: never one that does not exist yet.
    pub fn newest(&self) -> Version {
        self.protocol_max.min(Version::NEWEST)
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            server_name: concat!("Ambra/", env!("CARGO_PKG_VERSION")).to_owned(),
            protocol_max: Version::V1_6,
            network: Network::Bitcoin,
            banner: "Welcome to your own Electrum server.".to_owned(),
            donation_address: String::new(),
            services: Vec::new(),
            batch_requests_max: 20_000,
            batch_reply_bytes_max: 64_000_000,
            subscriptions_max: 500_000,
            all_subscriptions_max: 2_000_000,
            subscriptions: Arc::default(),
            remote_history_max: Some(1_000_000),
        }
    }
}

/// A way to reach the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub kind: ServiceKind,
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    Tcp,
    Tls,
    Ws,
    Wss,
}

impl ServiceKind {
    /// As `server.features` names its port.
    pub fn port_member(self) -> &'static str {
        match self {
            ServiceKind::Tcp => "tcp_port",
            ServiceKind::Tls => "ssl_port",
            ServiceKind::Ws => "ws_port",
            ServiceKind::Wss => "wss_port",
        }
    }

    /// As other servers' `services` name it.
    pub fn scheme(self) -> &'static str {
        match self {
            ServiceKind::Tcp => "tcp",
            ServiceKind::Tls => "ssl",
            ServiceKind::Ws => "ws",
            ServiceKind::Wss => "wss",
        }
    }
}
