//! The block table: which numbers a block's transactions have and where its bytes lie, in memory.
//!
//! 16 bytes a block, 15 MB for a million. It is cheap to clone (a View has its own): full chunks are shared.

use std::sync::Arc;

use crate::{
    chain::{BlockPlace, Height, TxNum},
    index::{BlockRow, BlockTxs},
};

/// Values in a chunk. A clone copies less than one chunk.
const CHUNK: usize = 1024;

/// A vector whose clones share all but their last, unfinished chunk.
#[derive(Clone, Debug)]
pub(super) struct Chunked<T> {
    full: Arc<Vec<Arc<[T]>>>,
    tail: Vec<T>,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Chunked {
            full: Arc::default(),
            tail: Vec::new(),
        }
    }
}

impl<T: Copy> Chunked<T> {
    pub fn len(&self) -> usize {
        self.full.len() * CHUNK + self.tail.len()
    }

    pub fn get(&self, at: usize) -> Option<&T> {
        match self.full.get(at / CHUNK) {
            Some(chunk) => chunk.get(at % CHUNK),
            None => self.tail.get(at - self.full.len() * CHUNK),
        }
    }

    pub fn push(&mut self, value: T) {
        self.tail.push(value);
        if self.tail.len() == CHUNK {
            Arc::make_mut(&mut self.full).push(self.tail.as_slice().into());
            self.tail.clear();
        }
    }

    pub fn truncate(&mut self, len: usize) {
        let chunks = len / CHUNK;
        if let Some(cut) = self.full.get(chunks) {
            self.tail.clear();
            self.tail.extend_from_slice(&cut[..len % CHUNK]);
            Arc::make_mut(&mut self.full).truncate(chunks);
        } else {
            self.tail.truncate(len - self.full.len() * CHUNK);
        }
    }

    /// How many values at the front satisfy `is_before`; those that do must stand before those that do not.
    pub fn partition_point(&self, mut is_before: impl FnMut(&T) -> bool) -> usize {
        let chunks = self
            .full
            .partition_point(|chunk| chunk.last().is_some_and(&mut is_before));
        let rest: &[T] = self.full.get(chunks).map_or(&self.tail, |chunk| chunk);
        chunks * CHUNK + rest.partition_point(is_before)
    }
}

/// What the table holds of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    first_tx: TxNum,
    file: u32,
    offset: u32,
    size: u32,
}

/// A block as the table knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableBlock {
    pub height: Height,
    pub first_tx: TxNum,
    /// The number after the last transaction's.
    pub end_tx: TxNum,
    /// Where the block lies; its undo data are not known here.
    pub place: BlockPlace,
}

impl TableBlock {
    pub fn contains(&self, n: TxNum) -> bool {
        self.first_tx <= n && n < self.end_tx
    }

    /// As the index looks for one of them.
    pub fn txs(&self) -> BlockTxs {
        BlockTxs {
            first: self.first_tx,
            end: self.end_tx,
            bytes: self.place.size,
        }
    }

    pub fn tx_count(&self) -> u32 {
        self.end_tx.0 - self.first_tx.0
    }

    /// The position in the block of a transaction that it contains.
    pub fn position(&self, n: TxNum) -> u32 {
        n.0 - self.first_tx.0
    }
}

/// All blocks of the best chain, from the genesis block on.
#[derive(Clone, Debug, Default)]
pub(super) struct BlockTable {
    blocks: Chunked<Record>,
    next_tx: TxNum,
}

impl BlockTable {
    /// The number of blocks: the tip's height and one.
    pub fn len(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// The first number that no transaction has yet.
    pub fn next_tx(&self) -> TxNum {
        self.next_tx
    }

    pub fn push(&mut self, row: &BlockRow) {
        self.blocks.push(Record {
            first_tx: row.first_tx,
            file: row.place.file,
            offset: row.place.offset,
            size: row.place.size,
        });
        // The index refuses a block whose numbers run out (see `TxNum`).
        self.next_tx = TxNum(row.first_tx.0.saturating_add(row.tx_count));
    }

    /// Keeps the first `len` blocks.
    pub fn truncate(&mut self, len: u32) {
        if let Some(cut) = self.blocks.get(len as usize) {
            self.next_tx = cut.first_tx;
            self.blocks.truncate(len as usize);
        }
    }

    pub fn block(&self, height: Height) -> Option<TableBlock> {
        let record = self.blocks.get(height as usize)?;
        let next = self.blocks.get(height as usize + 1);
        Some(TableBlock {
            height,
            first_tx: record.first_tx,
            end_tx: next.map_or(self.next_tx, |next| next.first_tx),
            place: BlockPlace {
                file: record.file,
                offset: record.offset,
                size: record.size,
                undo_offset: 0,
                undo_size: 0,
            },
        })
    }

    /// The block that contains the transaction numbered `n`.
    pub fn block_of(&self, n: TxNum) -> Option<TableBlock> {
        if n >= self.next_tx {
            return None;
        }
        let blocks_up_to = self.blocks.partition_point(|block| block.first_tx <= n);
        self.block(blocks_up_to.checked_sub(1)? as Height)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(first_tx: u32, tx_count: u32) -> BlockRow {
        BlockRow {
            header: [0; 80],
            hash: bitcoin::hashes::Hash::all_zeros(),
            first_tx: TxNum(first_tx),
            tx_count,
            place: BlockPlace {
                file: first_tx / 7,
                offset: first_tx,
                size: tx_count,
                undo_offset: 0,
                undo_size: 0,
            },
        }
    }

    proptest! {
        #[test]
        fn chunks_behave_as_a_vector(steps in prop::collection::vec((0usize..4000, any::<bool>()), 1..8)) {
            let (mut chunked, mut plain) = (Chunked::default(), Vec::new());
            let mut clones = Vec::new();
            for (amount, grow) in steps {
                if grow {
                    for _ in 0..amount {
                        chunked.push(plain.len() * 3);
                        plain.push(plain.len() * 3);
                    }
                } else {
                    let len = plain.len().saturating_sub(amount);
                    chunked.truncate(len);
                    plain.truncate(len);
                }
                prop_assert_eq!(chunked.len(), plain.len());
                for at in 0..plain.len() + 2 {
                    prop_assert_eq!(chunked.get(at), plain.get(at));
                }
                for bound in [0, 1, 3071, 3072, 3073, 5000] {
                    prop_assert_eq!(
                        chunked.partition_point(|&value| value < bound),
                        plain.partition_point(|&value| value < bound)
                    );
                }
                clones.push((chunked.clone(), plain.clone()));
            }
            for (chunked, plain) in clones {
                prop_assert!((0..plain.len() + 1).all(|at| chunked.get(at) == plain.get(at)));
            }
        }
    }

    #[test]
    fn every_transaction_is_found_in_its_block_before_and_after_a_truncation() {
        let mut table = BlockTable::default();
        assert_eq!(table.block_of(TxNum(0)), None);
        let counts: Vec<u32> = (0..3000).map(|height| 1 + height * 7 % 5).collect();
        for &count in &counts {
            table.push(&row(table.next_tx().0, count));
        }
        for len in [3000, 2048, 2047, 1024, 5] {
            table.truncate(len);
            let mut n = 0;
            for (height, &count) in counts.iter().take(len as usize).enumerate() {
                for position in 0..count {
                    let block = table.block_of(TxNum(n)).unwrap();
                    assert_eq!(
                        (block.height, block.position(TxNum(n))),
                        (height as u32, position)
                    );
                    assert_eq!(block.tx_count(), count);
                    n += 1;
                }
            }
            assert_eq!((table.next_tx(), table.len()), (TxNum(n), len));
            assert_eq!(table.block_of(TxNum(n)), None);
        }
    }
}
