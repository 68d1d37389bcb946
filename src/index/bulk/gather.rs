//! A chunk's rows in memory: one gatherer a thread, each row 8 bytes in the bucket of its first byte.
//!
//! ```text
//! row of a bucket, 64 bits:   40 bits of the prefix behind the first byte ‖ 24 bits of TxNum − chunk's first TxNum
//! ```
//!
//! Sorting these numbers sorts the rows.

use bitcoin::{Txid, hashes::Hash};

use super::{CHUNK_TXS_MAX, GatheredBlock, TX_BITS};
use crate::{
    chain::{
        BlockPlace, BlockView, Height, Node, ParseError, ScriptHash, SpentReader, TxNum, TxView,
        block_hash,
    },
    index::{
        BlockRow, BlockVisitor, TxPlace,
        rows::visit_block,
        schema::{FlatPosition, HashRow, SCRIPT_PREFIX_LEN, TXID_PREFIX_LEN, leading_bits},
    },
};

/// Rows are put into buckets by the first byte of their hash.
pub const BUCKETS: usize = 256;

/// Bits of a prefix in a bucket: 48 without the first byte's.
const REST_BITS: u32 = 40;

/// Rows of a page. Memory grows by pages, so that nothing is moved and nothing is reserved in vain.
const PAGE_ROWS: usize = 1024;

/// The rows of one bucket, in pages.
#[derive(Default)]
pub struct Bucket {
    pages: Vec<Vec<u64>>,
}

impl Bucket {
    /// Returns the bytes that had to be reserved.
    #[inline]
    fn push(&mut self, row: u64) -> usize {
        match self.pages.last_mut() {
            Some(page) if page.len() < PAGE_ROWS => {
                page.push(row);
                0
            }
            _ => {
                let mut page = Vec::with_capacity(PAGE_ROWS);
                page.push(row);
                self.pages.push(page);
                PAGE_ROWS * size_of::<u64>()
            }
        }
    }

    /// Moves all rows to `out`.
    pub fn drain_into(&mut self, out: &mut Vec<u64>) {
        for page in self.pages.drain(..) {
            out.extend_from_slice(&page);
        }
    }
}

/// The number in a bucket of the row whose hash begins with `prefix` (of `LEN` bytes), and the bucket.
#[inline]
fn pack<const LEN: usize>(prefix: u64, tx: u32) -> (u8, u64) {
    let bits = prefix << (REST_BITS + 8 - 8 * LEN as u32);
    let bucket = (bits >> REST_BITS) as u8;
    (bucket, bits << (64 - REST_BITS) | u64::from(tx))
}

/// The row of a number in a bucket.
#[inline]
pub fn unpack<const LEN: usize>(bucket: usize, packed: u64, base: TxNum) -> HashRow<LEN> {
    let bits = (bucket as u64) << REST_BITS | packed >> TX_BITS;
    let prefix = bits >> (REST_BITS + 8 - 8 * LEN as u32);
    HashRow {
        prefix,
        tx: TxNum(base.0 + (packed as u32 & (CHUNK_TXS_MAX - 1))),
    }
}

/// One thread's part of a chunk.
pub struct Gatherer {
    pub(super) history: Vec<Bucket>,
    pub(super) txid: Vec<Bucket>,
    blocks: Vec<GatheredBlock>,
    bytes: usize,
    /// Prefixes of the scripts of the transaction in hand.
    tx_scripts: Vec<u64>,
    /// Rows of the block in hand: bucket and row.
    block_history: Vec<(u8, u64)>,
    block_txid: Vec<(u8, u64)>,
    positions: Vec<u8>,
    merkle_row: Vec<Node>,
}

impl Default for Gatherer {
    fn default() -> Gatherer {
        let buckets = || (0..BUCKETS).map(|_| Bucket::default()).collect();
        Gatherer {
            history: buckets(),
            txid: buckets(),
            blocks: Vec::new(),
            bytes: 0,
            tx_scripts: Vec::new(),
            block_history: Vec::new(),
            block_txid: Vec::new(),
            positions: Vec::new(),
            merkle_row: Vec::new(),
        }
    }
}

impl Gatherer {
    /// Bytes of memory that the rows take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a block. `base` is the chunk's first TxNum, `first_tx` the block's. After an error nothing
    /// has been added.
    pub fn add(
        &mut self,
        height: Height,
        base: TxNum,
        first_tx: TxNum,
        place: BlockPlace,
        block: &BlockView,
        spent: SpentReader,
    ) -> Result<(), ParseError> {
        let out_of_range = ParseError::Range {
            what: "the number of transactions in a chunk",
            at: 0,
        };
        let local = first_tx
            .0
            .checked_sub(base.0)
            .ok_or_else(|| out_of_range.clone())?;
        if local
            .checked_add(block.tx_count)
            .is_none_or(|end| end > CHUNK_TXS_MAX)
        {
            return Err(out_of_range);
        }
        if block.bytes.len() > FlatPosition::BLOCK_BYTES_MAX {
            return Err(ParseError::Range {
                what: "the size of a block",
                at: 0,
            });
        }
        self.tx_scripts.clear();
        self.block_history.clear();
        self.block_txid.clear();
        self.positions.clear();
        let mut visitor = Visitor {
            gatherer: self,
            local,
        };
        visit_block(height, block, spent, &mut visitor)?;
        for &(bucket, row) in &self.block_history {
            self.bytes += self.history[usize::from(bucket)].push(row);
        }
        for &(bucket, row) in &self.block_txid {
            self.bytes += self.txid[usize::from(bucket)].push(row);
        }
        let positions: Box<[u8]> = self.positions.as_slice().into();
        let merkle_row: Box<[Node]> = self.merkle_row.as_slice().into();
        self.bytes += positions.len() + size_of_val(&*merkle_row) + size_of::<GatheredBlock>();
        let row = BlockRow {
            header: *block.header,
            hash: block_hash(block.header),
            first_tx,
            tx_count: block.tx_count,
            place,
        };
        self.blocks.push(GatheredBlock {
            height,
            row,
            positions,
            merkle_row,
        });
        Ok(())
    }

    pub(super) fn take_blocks(&mut self) -> Vec<GatheredBlock> {
        self.bytes = 0;
        std::mem::take(&mut self.blocks)
    }
}

struct Visitor<'a> {
    gatherer: &'a mut Gatherer,
    local: u32,
}

impl BlockVisitor for Visitor<'_> {
    #[inline]
    fn script(&mut self, script: ScriptHash) {
        self.gatherer
            .tx_scripts
            .push(leading_bits::<SCRIPT_PREFIX_LEN>(&script.0));
    }

    #[inline]
    fn transaction(&mut self, _tx: &TxView, txid: &Txid, place: TxPlace) {
        let Gatherer {
            block_history,
            block_txid,
            tx_scripts,
            positions,
            ..
        } = &mut *self.gatherer;
        tx_scripts.sort_unstable();
        tx_scripts.dedup();
        let history = tx_scripts.drain(..);
        block_history.extend(history.map(|prefix| pack::<SCRIPT_PREFIX_LEN>(prefix, self.local)));
        let prefix = leading_bits::<TXID_PREFIX_LEN>(txid.as_byte_array());
        block_txid.push(pack::<TXID_PREFIX_LEN>(prefix, self.local));
        let position = FlatPosition {
            offset: place.offset,
            check: place.check,
        };
        positions.extend_from_slice(&position.encode());
        self.local += 1;
    }

    fn merkle_row(&mut self, row: &[Node]) {
        self.gatherer.merkle_row.clear();
        self.gatherer.merkle_row.extend_from_slice(row);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packed_rows_come_back_and_keep_their_order(
            a: [u8; 32], b: [u8; 32], txs in (0..CHUNK_TXS_MAX, 0..CHUNK_TXS_MAX), base in 0u32..1 << 31,
        ) {
            let base = TxNum(base);
            let [a, b] = [(a, txs.0), (b, txs.1)].map(|(hash, tx)| {
                let prefix = leading_bits::<SCRIPT_PREFIX_LEN>(&hash);
                let (bucket, packed) = pack::<SCRIPT_PREFIX_LEN>(prefix, tx);
                let row = HashRow { prefix, tx: TxNum(base.0 + tx) };
                assert_eq!(unpack::<SCRIPT_PREFIX_LEN>(bucket.into(), packed, base), row);
                (row, (bucket, packed))
            });
            prop_assert_eq!(a.0.cmp(&b.0), a.1.cmp(&b.1));
        }
    }
}
