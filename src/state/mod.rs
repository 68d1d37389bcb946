//! What may be answered at one moment: a [`View`] of index and mempool that belong together.
//!
//! - `table`, `headers`: the chain in memory: 16 bytes a block, and the tree over all header hashes.
//! - `archive`: the door to index and block bytes. `query` reads a script's transactions through it, `proofs`
//!   a block's.
//! - `cache`: what is known of scripts. Its `# Concurrency` tells how answers stay true while blocks come and go.
//! - `view`: the questions. `publish`: the one writer's side. `subscriptions`: who hears of what.
mod archive;
mod cache;
mod checked;
mod headers;
mod proofs;
mod publish;
mod query;
mod subscriptions;
mod table;
mod view;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64};

use bitcoin::{BlockHash, Txid};

use self::{
    archive::Archive,
    cache::ScriptCache,
    proofs::BlockTrees,
    publish::Cell,
    query::{Helpers, LargeTxs},
};
use crate::chain::{HeaderBytes, Height};
pub use publish::{Publish, StateLimits};
pub use subscriptions::{Changed, Subscriber, SubscriptionCounts, Subscriptions};
pub use view::View;

/// The best block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    pub height: Height,
    pub hash: BlockHash,
    pub header: HeaderBytes,
}

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The first sync (or a catch-up) runs. Text for the wallet, e.g. "indexing: 61 % done, about 47 minutes left".
    #[error("{0}")]
    Syncing(String),
    /// The history has more entries than `max_history` allows.
    #[error("the history has over {limit} entries")]
    TooLarge { limit: usize },
    /// It takes more than [`Ask::rows_max`] or [`Ask::list_max`] allow: to be asked again where it holds up nobody.
    #[error("the question is long")]
    Long,
    /// The asker is gone; stop working.
    #[error("cancelled")]
    Cancelled,
    /// Of this block's bytes some are not those that were indexed. Asked again after the archive has healed it.
    #[error("block {0} is damaged")]
    Damaged(Height),
    /// Block data cannot be had now (node away, file unreadable). For the log; the wallet hears only "unavailable".
    #[error("{0}")]
    Unavailable(String),
}

/// Limits and the stop sign of one question.
#[derive(Clone, Default)]
pub struct Ask {
    /// Most entries that a history may have; `None`: no limit (loopback).
    pub max_history: Option<usize>,
    /// Most index rows whose transactions may be read for it; `None`: any number. Unlike `max_history` this counts
    /// candidates, so that a long history is turned away before anything of it is read.
    pub rows_max: Option<usize>,
    /// Most entries that may be listed.
    pub list_max: Option<usize>,
    /// Set when the asking client has gone.
    pub cancelled: Option<Arc<std::sync::atomic::AtomicBool>>,
}

/// Where a transaction was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTx {
    pub bytes: Vec<u8>,
    /// Height and position in the block; `None` in the mempool.
    pub confirmed: Option<(Height, u32)>,
}

/// State of an outpoint, as protocol 1.7 tells it. Heights: 0 and −1 for the mempool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutpointStatus {
    pub funder_height: Option<i64>,
    pub spender: Option<(Txid, i64)>,
}

/// A transaction of the mempool as `mempool.recent` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecentTx {
    pub txid: Txid,
    pub fee: u64,
    pub vsize: u64,
}

/// The shared state: cheap to clone.
#[derive(Clone)]
pub struct State {
    core: Arc<Core>,
    cell: Arc<Cell>,
}

/// What all Views share.
struct Core {
    archive: Box<dyn Archive>,
    genesis: BlockHash,
    genesis_header: HeaderBytes,
    cache: ScriptCache,
    trees: BlockTrees,
    larges: LargeTxs,
    helpers: Helpers,
    subscriptions: Subscriptions,
    /// Raised before rows are deleted.
    reorgs: AtomicU64,
}

/// Why a question to one View is not answered.
enum Stop {
    /// A reorg or a newer View overtook it: ask the newest.
    Outdated,
    Query(QueryError),
}

impl From<QueryError> for Stop {
    fn from(error: QueryError) -> Stop {
        Stop::Query(error)
    }
}

/// What is kept of scripts in memory, and how often that was enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheFigures {
    pub bytes: usize,
    pub bytes_max: usize,
    /// Questions about scripts that memory answered.
    pub hits: u64,
    /// Those that read the disk.
    pub misses: u64,
    /// Of merkle trees of blocks.
    pub proof_bytes: u64,
    /// Of large transactions.
    pub large_tx_bytes: u64,
}

/// Locks, also where a thread panicked while it held the lock: what this room's locks guard is whole
/// between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
