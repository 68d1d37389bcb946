//! An index held against one that is built afresh: row by row, every column family.

use ambra::index::{Beside, FamilyFingerprint};
use bitcoin::BlockHash;

use crate::{ambra::Ambra, node::Node};

/// What an index holds, read while its server runs.
#[derive(Debug, PartialEq)]
pub struct Rows {
    /// Of `history`, `txid` and `tx_position`: all keys and values.
    families: Vec<FamilyFingerprint>,
    /// Of `block`: header, hash, first transaction, number of transactions. Where a block lies in the files is left out:
    /// that of undo data may be known or not, and is checked wherever it is used.
    blocks: Vec<([u8; 80], BlockHash, u32, u32)>,
}

impl Rows {
    pub fn of(ambra: &Ambra, node: &Node) -> Rows {
        let index = Beside::open(&ambra.index_folder(), &node.block_at(0)).expect("an index");
        let tip = index.tip().expect("a readable tip").expect("a tip");
        assert_eq!(tip.hash, node.best_block(), "the index's tip");
        let blocks = index.blocks_from(0).map(|row| {
            let (_, row) = row.expect("a readable row");
            (row.header, row.hash, row.first_tx.0, row.tx_count)
        });
        let blocks = blocks.collect();
        let mut families = index.fingerprint().expect("readable rows");
        families.retain(|family| family.name != "block");
        Rows { families, blocks }
    }
}

/// The server's index is the one that another server builds from nothing now. The node must be still, and the
/// server caught up.
#[track_caller]
pub fn compare_index(ambra: &Ambra, node: &Node) {
    let fresh = Ambra::start(node);
    assert_eq!(Rows::of(ambra, node), Rows::of(&fresh, node));
}
