//! Why a wallet gets an error: a closed list, each with its wire code and text.
//!
//! Electrum 4.8 disconnects on −32601 and −32603, so neither may ever come of load, of a sync that
//! runs, or of a node that is away: those are codes 1 and 2. −32603 is never sent. What went wrong
//! inside is for the log; here stands only what a wallet's owner can use.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{daemon::rpc::RpcError, state::QueryError};

use super::{json, version::Version};

/// An error reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not JSON, or not UTF-8.
    #[error("parse error: this is not JSON")]
    Parse,
    /// JSON, but no request.
    #[error("invalid request: {0}")]
    Request(&'static str),
    /// No version has it, or not the session's.
    #[error("{0}")]
    Method(String),
    /// A parameter is missing, too much, or not of its kind.
    #[error("invalid parameters: {0}")]
    Params(String),
    /// Well formed, but it cannot be had: beyond the tip, not in that block, negotiated twice.
    #[error("{0}")]
    Bad(String),
    /// More entries than this server answers to this client.
    #[error("the history has over {limit} entries, more than this server answers")]
    TooLarge { limit: usize },
    /// A transaction that the node does not want.
    #[error("the transaction was rejected by network rules.\n\n{message}\n[{raw_tx}]")]
    Rejected { message: String, raw_tx: String },
    /// A package of transactions that the node does not want.
    #[error("the tx package was rejected by network rules.\n\n{message}.")]
    PackageRejected { message: String },
    /// Not yet: the first sync, or a catch-up, runs.
    #[error("{0}")]
    Syncing(String),
    /// Code 2 with the node's own words, or that it is away.
    #[error("{0}")]
    Daemon(String),
    /// The asker has gone: nothing is sent.
    #[error("cancelled")]
    Cancelled,
    /// It takes longer than it may where it was asked, and is asked again elsewhere: nothing is sent.
    #[error("the history is long; please try again")]
    Long,
}

impl Refusal {
    /// Names of the kinds of errors, for counting.
    pub const KINDS: [&'static str; 11] = [
        "parse",
        "request",
        "method",
        "params",
        "bad",
        "too_large",
        "rejected",
        "package_rejected",
        "syncing",
        "daemon",
        "cancelled",
    ];

    /// Its place in [`Refusal::KINDS`].
    pub fn kind(&self) -> usize {
        match self {
            Refusal::Parse => 0,
            Refusal::Request(_) => 1,
            Refusal::Method(_) => 2,
            Refusal::Params(_) => 3,
            Refusal::Bad(_) => 4,
            Refusal::TooLarge { .. } | Refusal::Long => 5,
            Refusal::Rejected { .. } => 6,
            Refusal::PackageRejected { .. } => 7,
            Refusal::Syncing(_) => 8,
            Refusal::Daemon(_) => 9,
            Refusal::Cancelled => 10,
        }
    }

    /// The code on the wire.
    pub fn code(&self, version: Version) -> i32 {
        match self {
            Refusal::Parse => -32700,
            Refusal::Request(_) => -32600,
            Refusal::Method(_) => -32601,
            Refusal::Params(_) => -32602,
            Refusal::TooLarge { .. } if version >= Version::V1_7 => 10001,
            Refusal::TooLarge { .. }
            | Refusal::Bad(_)
            | Refusal::Rejected { .. }
            | Refusal::PackageRejected { .. }
            | Refusal::Syncing(_)
            | Refusal::Cancelled
            | Refusal::Long => 1,
            Refusal::Daemon(_) => 2,
        }
    }

    /// The `error` member's object.
    pub fn write(&self, version: Version, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"code\":");
        json::integer(out, i64::from(self.code(version)));
        out.extend_from_slice(b",\"message\":");
        json::text(out, &self.to_string());
        out.push(b'}');
    }
}

/// Says in the log that histories are refused: once a minute at most, for a client may ask again and again.
fn log_too_large(limit: usize) {
    const PAUSE: Duration = Duration::from_secs(60);
    static TOLD: Mutex<Option<Instant>> = Mutex::new(None);
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.is_none_or(|told| told.elapsed() > PAUSE) {
        *told = Some(Instant::now());
        tracing::warn!(
            "a history of over {limit} entries was refused: that is the limit for clients of other machines"
        );
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Refusal {
        match error {
            QueryError::Syncing(text) => Refusal::Syncing(text),
            QueryError::TooLarge { limit } => {
                log_too_large(limit);
                Refusal::TooLarge { limit }
            }
            QueryError::Long => Refusal::Long,
            QueryError::Cancelled => Refusal::Cancelled,
            QueryError::Damaged(_) | QueryError::Unavailable(_) => {
                let cause = error;
                tracing::warn!("a question could not be answered: {cause}");
                Refusal::Daemon(
                    "the server cannot read block data now; please try again".to_owned(),
                )
            }
        }
    }
}

impl From<RpcError> for Refusal {
    fn from(error: RpcError) -> Refusal {
        match error {
            RpcError::Unavailable(why) | RpcError::WrongLogin(why) => {
                tracing::warn!("the node did not answer a wallet's question: {why}");
                Refusal::Daemon("the node is not available now; please try again".to_owned())
            }
            RpcError::Refused { message, .. } => Refusal::Daemon(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_load_nor_sync_nor_a_missing_node_disconnects_electrum() {
        let refusals: [Refusal; 6] = [
            QueryError::Syncing("indexing: 61 % done".to_owned()).into(),
            QueryError::TooLarge { limit: 5 }.into(),
            QueryError::Cancelled.into(),
            QueryError::Unavailable("read /x: error 5".to_owned()).into(),
            RpcError::Unavailable("connection refused".to_owned()).into(),
            RpcError::Refused {
                code: -25,
                message: "no".to_owned(),
            }
            .into(),
        ];
        for refusal in refusals {
            for version in Version::DEFINED {
                let code = refusal.code(version);
                assert!([1, 2, 10001].contains(&code), "{refusal:?}: {code}");
            }
        }
    }

    #[test]
    fn internal_words_do_not_reach_the_wallet() {
        let refusals: [Refusal; 3] = [
            RpcError::WrongLogin("http://user:password@host/secret".to_owned()).into(),
            QueryError::Unavailable("read /secret/path".to_owned()).into(),
            RpcError::Unavailable("http://user:password@host".to_owned()).into(),
        ];
        for refusal in refusals {
            let text = refusal.to_string();
            assert!(
                !text.contains("secret") && !text.contains("password"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_code_of_a_large_history_is_the_versions() {
        let refusal = Refusal::TooLarge { limit: 10 };
        assert_eq!(refusal.code(Version::V1_6), 1);
        assert_eq!(refusal.code(Version::V1_7), 10001);
    }

    #[test]
    fn a_rejected_transaction_is_told_as_the_reference_server_tells_it() {
        let refusal = Refusal::Rejected {
            message: "min relay fee not met".to_owned(),
            raw_tx: "00".to_owned(),
        };
        let mut out = Vec::new();
        refusal.write(Version::V1_4, &mut out);
        let told = r#"{"code":1,"message":"the transaction was rejected by network rules.\n\nmin relay fee not met\n[00]"}"#;
        assert_eq!(String::from_utf8(out).unwrap(), told);
    }
}
