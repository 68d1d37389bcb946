//! What may be answered at one moment: a [`View`] of index and mempool that belong together.
mod subscriptions;

use std::sync::Arc;

use bitcoin::{BlockHash, OutPoint, Txid};

use crate::chain::{
    Balance, HeaderBytes, Height, History, MempoolEntry, MerkleProof, ScriptHash, Status, Unspent,
};
pub use subscriptions::{Changed, Subscriber, Subscriptions};

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
    /// The asker is gone; stop working.
    #[error("cancelled")]
    Cancelled,
    /// Block data cannot be had now (node away, file unreadable). For the log; the wallet hears only "unavailable".
    #[error("{0}")]
    Unavailable(String),
}

/// Limits and the stop sign of one question.
#[derive(Clone, Default)]
pub struct Ask {
    /// Most entries that a history may have; `None`: no limit (loopback).
    pub max_history: Option<usize>,
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
pub struct State {}

impl State {
    /// The newest view. While the first sync runs: headers and mempool-free answers work, script questions give
    /// [`QueryError::Syncing`].
    pub fn view(&self) -> Arc<View> {
        unimplemented!()
    }

    pub fn subscriptions(&self) -> &Subscriptions {
        unimplemented!()
    }
}

/// One consistent moment.
pub struct View {}

#[allow(unused_variables)]
impl View {
    pub fn tip(&self) -> Tip {
        unimplemented!()
    }
    /// The genesis block's hash.
    pub fn genesis(&self) -> BlockHash {
        unimplemented!()
    }
    /// Progress text while syncing (for the banner), `None` afterwards.
    pub fn progress(&self) -> Option<String> {
        unimplemented!()
    }
    pub fn header(&self, height: Height) -> Result<Option<HeaderBytes>, QueryError> {
        unimplemented!()
    }
    /// Headers side by side from `start`, at most `count`, fewer at the tip, empty beyond it.
    pub fn headers(&self, start: Height, count: u32) -> Result<Vec<u8>, QueryError> {
        unimplemented!()
    }
    /// Branch of the header at `height` in the tree of all header hashes 0..=`cp_height`; both must be <= tip and height <= cp_height.
    pub fn header_proof(
        &self,
        height: Height,
        cp_height: Height,
    ) -> Result<MerkleProof, QueryError> {
        unimplemented!()
    }

    /// True if questions about this script are answered from memory, without disk (run them inline); else run them on the pool.
    pub fn is_in_memory(&self, script: &ScriptHash) -> bool {
        unimplemented!()
    }
    pub fn status(&self, script: &ScriptHash, ask: &Ask) -> Result<Option<Status>, QueryError> {
        unimplemented!()
    }
    pub fn history(&self, script: &ScriptHash, ask: &Ask) -> Result<History, QueryError> {
        unimplemented!()
    }
    pub fn mempool(&self, script: &ScriptHash, ask: &Ask) -> Result<Vec<MempoolEntry>, QueryError> {
        unimplemented!()
    }
    pub fn balance(&self, script: &ScriptHash, ask: &Ask) -> Result<Balance, QueryError> {
        unimplemented!()
    }
    pub fn unspent(&self, script: &ScriptHash, ask: &Ask) -> Result<Vec<Unspent>, QueryError> {
        unimplemented!()
    }

    /// Confirmed or in the mempool.
    pub fn transaction(&self, txid: &Txid) -> Result<Option<FoundTx>, QueryError> {
        unimplemented!()
    }
    /// Height and position of a confirmed transaction.
    pub fn position(&self, txid: &Txid) -> Result<Option<(Height, u32)>, QueryError> {
        unimplemented!()
    }
    /// `None` where the block has no such transaction (or there is no such block).
    pub fn merkle_proof(
        &self,
        txid: &Txid,
        height: Height,
    ) -> Result<Option<MerkleProof>, QueryError> {
        unimplemented!()
    }
    /// The transaction at a position of a block, with its branch. `None`: no such block or position.
    pub fn txid_at(
        &self,
        height: Height,
        position: u32,
    ) -> Result<Option<(Txid, MerkleProof)>, QueryError> {
        unimplemented!()
    }
    /// The output, and the height of its transaction (0 in the mempool), spent or not.
    pub fn output(
        &self,
        outpoint: &OutPoint,
    ) -> Result<Option<(bitcoin::TxOut, Height)>, QueryError> {
        unimplemented!()
    }
    /// `script` must be the script hash of the outpoint's script (the client's hint); `None` hint mismatch gives default.
    pub fn outpoint_status(
        &self,
        outpoint: &OutPoint,
        script: &ScriptHash,
        ask: &Ask,
    ) -> Result<OutpointStatus, QueryError> {
        unimplemented!()
    }

    /// (sat/vB, vsize) strictly descending.
    pub fn fee_histogram(&self) -> Arc<Vec<(f64, u64)>> {
        unimplemented!()
    }
    /// The newest ten.
    pub fn recent(&self) -> Vec<RecentTx> {
        unimplemented!()
    }
}
