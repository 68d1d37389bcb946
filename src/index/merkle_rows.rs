//! Of each of the first sync's blocks the row of its merkle tree that stands over groups of 64 transactions: a proof needs it
//! and one group, instead of the whole block. Why: `docs/decisions/0007-merkle-rows.md`.
//!
//! # Correctness
//! What is read here is believed only if it leads to the root in the block's header. So the file needs no checksum, and an index
//! without it answers the same, from whole blocks.

use std::ops::Range;

use super::{BlockTxs, Index, IndexError, bulk::GatheredBlock};
use crate::chain::{Height, Node, TxNum};

/// The row stands over groups of 2^6 transactions. Unit tests have small blocks.
pub const MERKLE_GROUP_BITS: u32 = if cfg!(test) { 1 } else { 6 };

const NODE_LEN: u64 = size_of::<Node>() as u64;
const UNUSED: Node = [0; 32];

/// Where the row of the block at this height begins in the file, in nodes. A block has a node for each group of its own, the
/// last of which may not be full: with one more for each block no row meets the next.
fn start(height: Height, first_tx: TxNum) -> u64 {
    u64::from(first_tx.0 >> MERKLE_GROUP_BITS) + u64::from(height)
}

fn nodes_of(txs: &BlockTxs) -> usize {
    txs.numbers().len().div_ceil(1 << MERKLE_GROUP_BITS)
}

impl Index {
    /// What the file says of this block; `None` where it says nothing. Not to be believed without its header.
    pub fn merkle_row(&self, height: Height, txs: &BlockTxs) -> Option<Vec<Node>> {
        if !self.is_flat(txs.first) {
            return None;
        }
        let mut row = vec![UNUSED; nodes_of(txs)];
        let at = NODE_LEN * start(height, txs.first);
        let read = self.merkle.read(at, row.as_flattened_mut());
        read.is_ok().then_some(row)
    }

    /// Adds the rows of a chunk's blocks, which are in chain order, and whose first transaction is `base`.
    pub(super) fn add_merkle_rows(
        &self,
        base: TxNum,
        blocks: &[GatheredBlock],
    ) -> Result<(), IndexError> {
        let Some(first) = blocks.first() else {
            return Ok(());
        };
        let begin = start(first.height, base);
        let mut next = begin;
        let mut parts: Vec<&[u8]> = Vec::with_capacity(2 * blocks.len());
        for block in blocks {
            let unused: Range<u64> = next..start(block.height, block.row.first_tx);
            next = unused.end + block.merkle_row.len() as u64;
            parts.extend(unused.map(|_| &UNUSED[..]));
            parts.push(block.merkle_row.as_flattened());
        }
        self.merkle.append(NODE_LEN * begin, parts.into_iter())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_row_meets_the_next_and_few_nodes_are_unused(counts in prop::collection::vec(1u32..300, 1..50)) {
            let mut first = TxNum::ZERO;
            let mut end = 0;
            for (height, count) in (0..).zip(counts) {
                let txs = BlockTxs { first, end: TxNum(first.0 + count), bytes: 0 };
                let begin = start(height, first);
                prop_assert!((end..=end + 1).contains(&begin));
                end = begin + nodes_of(&txs) as u64;
                first = txs.end;
            }
        }
    }
}
