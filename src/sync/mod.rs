//! The one writer: the first sync, then the chain's tip and the mempool, step by step.

mod branch;
pub mod first;
pub mod mempool;
mod places;
mod plan;
pub mod progress;
pub mod relocate;
pub mod start;
mod stats;
mod step;
pub mod tip;
pub mod wake;

pub use stats::{FirstSyncProgress, Stats};

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bitcoin::BlockHash;

use crate::{
    chain::{Height, ParseError},
    daemon::{files::FilesError, rpc::RpcError, source::SourceError},
    index::IndexError,
    state::QueryError,
};

/// Between two attempts where the node does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Why the writer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Asked to stop; not a fault.
    #[error("stopped")]
    Stopped,
    /// The node is away or does not answer as it should: wait and try again.
    #[error("{0}")]
    Node(String),
    /// What was asked about is no more: look at the chain again, at once.
    #[error("the chain changed while it was read")]
    ChainChanged,
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Nothing can be written: stop.
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(
        "block {height} ({hash}) cannot be read: {error}; the node's copy of it may be damaged"
    )]
    BadBlock {
        height: Height,
        hash: BlockHash,
        error: ParseError,
    },
    #[error("the chain has more transactions than the index can number (4,294,967,295)")]
    TooManyTransactions,
    #[error("a thread of the first sync panicked")]
    Panicked,
}

impl From<RpcError> for SyncError {
    fn from(error: RpcError) -> SyncError {
        SyncError::Node(error.to_string())
    }
}

impl From<SourceError> for SyncError {
    fn from(error: SourceError) -> SyncError {
        SyncError::Node(error.to_string())
    }
}

impl From<QueryError> for SyncError {
    fn from(error: QueryError) -> SyncError {
        SyncError::Node(error.to_string())
    }
}

/// The stop sign: set once, seen by all.
#[derive(Clone, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    pub fn set(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    pub fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the time given, or for the sign; true if it is set.
    pub fn wait(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut is_set = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_set {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return false;
            };
            is_set = self
                .0
                .1
                .wait_timeout(is_set, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}
