//! The names of column families and of `meta`'s rows, and of the folders that they lie in.

use super::{
    BlockRow,
    hash_rows::{HISTORY, TXID},
    schema::TxPositionRow,
};

/// Of RocksDB's files, within the index's folder.
pub const FOLDER: &str = "rocksdb";
/// Of the first sync's runs, within the index's folder.
pub(super) const RUNS_FOLDER: &str = "sync";

/// What the index says of itself.
pub(super) const META: &str = "meta";
/// All of them.
pub(super) const FAMILIES: [&str; 7] = [
    HISTORY.single,
    HISTORY.packed,
    TXID.single,
    TXID.packed,
    TxPositionRow::FAMILY,
    BlockRow::FAMILY,
    META,
];

pub(super) const META_FORMAT: &[u8] = b"format";
pub(super) const META_PREFIXES: &[u8] = b"prefixes";
pub(super) const META_GENESIS: &[u8] = b"genesis";
pub(super) const META_TIP: &[u8] = b"tip";
pub(super) const META_PACKED_END: &[u8] = b"packed_end";
/// Checksums of the first sync's places of transactions, see [`super::flat`].
pub(super) const META_POSITION_SUMS: &[u8] = b"position_sums";

/// The column families that ready files can be made for; of hash rows the packed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    History,
    Txid,
    Block,
}

impl Family {
    pub(super) fn name(self) -> &'static str {
        match self {
            Family::History => HISTORY.packed,
            Family::Txid => TXID.packed,
            Family::Block => BlockRow::FAMILY,
        }
    }
}
