//! The index: which transactions touch a script, where a transaction lies, what the chain is.
//!
//! `schema` are the rows as types, `families` what they are kept under, `rows` makes them from a block (pure), `db` keeps them with `hash_rows`, `positions` (in `flat`
//! those of the first sync) and `options`. `bulk` builds the whole index at the speed of the disk by `ready_files`, `apply` follows the tip.
//! `beside`, `copy`, `inspect` and `fingerprint` are for those who check an index or take it elsewhere, `folder` and
//! `error` for when it cannot be used, `memory` for what it takes, `open_count` for who leaves the process. Only this room knows RocksDB.

mod apply;
mod beside;
mod bulk;
mod copy;
mod db;
mod error;
mod families;
mod fingerprint;
mod flat;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod hash_rows;
mod inspect;
mod memory;
mod merkle_rows;
mod open_count;
mod options;
mod packed;
mod positions;
mod ready_files;
mod rows;
pub mod schema;
#[cfg(test)]
mod tests;
mod walk;

use bitcoin::{BlockHash, Txid, hashes::Hash};

pub use apply::Truncation;
pub use beside::Beside;
pub use bulk::{Bulk, CHUNK_TXS_MAX, Finish, Gatherer};
pub use db::Index;
pub use error::IndexError;
pub use families::FOLDER as DATABASE;
pub use fingerprint::FamilyFingerprint;
pub use folder::has_database;
pub use inspect::{Column, HashRows, Seen};
pub use memory::DatabaseMemory;
pub use merkle_rows::MERKLE_GROUP_BITS;
pub use open_count::wait_until_closed;
pub use positions::{BlockTxs, TxPlaces};
pub use rows::{BlockRows, BlockVisitor, visit_block};
pub use schema::TipRow;

use crate::chain::{BlockPlace, HeaderBytes, TxNum, TxView};

/// A row of the `block` column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRow {
    pub header: HeaderBytes,
    pub hash: BlockHash,
    /// The coinbase's number.
    pub first_tx: TxNum,
    pub tx_count: u32,
    pub place: BlockPlace,
}

/// Where a transaction lies in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxPlace {
    /// From the block's first byte.
    pub offset: u32,
    pub size: u32,
    /// What [`TxPlace::fits`] goes by.
    pub check: u8,
}

impl TxPlace {
    /// The txid's last byte, which answers for all but the witnesses, and the sum (XOR) of all bytes, which answers for
    /// those and costs next to nothing.
    pub(crate) fn check_of(tx: &TxView, txid: &Txid) -> u8 {
        let [.., last] = txid.to_byte_array();
        tx.bytes.iter().fold(last, |sum, byte| sum ^ byte)
    }

    /// False if what was read here is not what was indexed. Of other transactions one in 256 passes
    /// (`docs/decisions/0004-damage-after-indexing.md`).
    pub fn fits(&self, tx: &TxView, txid: &Txid) -> bool {
        self.check == TxPlace::check_of(tx, txid)
    }
}
