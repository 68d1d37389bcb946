//! From a block and the outputs that it spends to its index rows: pure, and complete without any
//! other block.

use std::collections::HashSet;

use bitcoin::{OutPoint, Txid, hashes::Hash};

use super::{
    BlockRow, TxPlace,
    merkle_rows::MERKLE_GROUP_BITS,
    schema::{DamagedRow, FlatPosition, HistoryRow, POSITIONS_PER_ROW, TxPositionRow, TxidRow},
};
use crate::chain::{
    BlockPlace, BlockView, Height, MERKLE_ROOT_AT, Node, ParseError, ScriptHash, SpentReader,
    TxNum, TxView, block_hash, is_unspendable, merkle_root, merkle_row_over_groups,
};

/// Room that is reserved for txids at once, whatever number a block claims.
const TXS_EXPECTED_MAX: u32 = 1 << 14;

/// Told of a block's transactions, one after the other.
pub trait BlockVisitor {
    /// The transaction in hand pays this script, or spends an output of it. Told once for each output
    /// and input.
    fn script(&mut self, script: ScriptHash);

    /// All scripts of the transaction have been told.
    fn transaction(&mut self, tx: &TxView, txid: &Txid, place: TxPlace);

    /// The row of the block's merkle tree that stands over groups of transactions ([`MERKLE_GROUP_BITS`]); told last, of a block
    /// that is well.
    fn merkle_row(&mut self, _row: &[Node]) {}
}

/// Walks through a block with the outputs that it spends. The genesis block's coinbase cannot be
/// spent; none of its scripts is told.
///
/// # Correctness
/// At the end the transactions are held against the header's merkle root, so a bit that has flipped on
/// disk is an error here, not a wrong row: what was told of a block counts only once this returns.
pub fn visit_block(
    height: Height,
    block: &BlockView,
    mut spent: SpentReader,
    visitor: &mut impl BlockVisitor,
) -> Result<(), ParseError> {
    // The number of transactions is known before any row is made: a wrong undo record costs nothing.
    if spent.txs_left() != block.tx_count as usize - 1 {
        return Err(ParseError::Mismatch {
            what: "another number of transactions",
        });
    }
    let mut is_coinbase = true;
    let mut txids = Vec::with_capacity(block.tx_count.min(TXS_EXPECTED_MAX) as usize);
    block.for_each_tx(|offset, tx| {
        if !is_coinbase {
            if spent.next_tx()? != tx.input_count {
                return Err(ParseError::Mismatch {
                    what: "another number of inputs",
                });
            }
            for _ in 0..tx.input_count {
                let (_value, script) = spent.next_output()?;
                visitor.script(ScriptHash::new(script));
            }
        }
        if height > 0 {
            for output in tx.outputs().filter(|output| !is_unspendable(output.script)) {
                visitor.script(ScriptHash::new(output.script));
            }
        }
        is_coinbase = false;
        let txid = tx.txid();
        txids.push(txid.to_byte_array());
        visitor.transaction(&tx, &txid, tx_place(offset, &tx, &txid)?);
        Ok(())
    })?;
    spent.finish()?;
    let row = merkle_row_over_groups(txids, MERKLE_GROUP_BITS);
    if merkle_root(row.clone()).is_none_or(|root| root != block.header[MERKLE_ROOT_AT]) {
        return Err(ParseError::Mismatch {
            what: "the header commits to other transactions",
        });
    }
    visitor.merkle_row(&row);
    Ok(())
}

fn tx_place(offset: usize, tx: &TxView, txid: &Txid) -> Result<TxPlace, ParseError> {
    let narrow = |number: usize| {
        u32::try_from(number).map_err(|_| ParseError::Range {
            what: "a transaction",
            at: offset,
        })
    };
    Ok(TxPlace {
        offset: narrow(offset)?,
        size: narrow(tx.bytes.len())?,
        check: TxPlace::check_of(tx, txid),
    })
}

/// Collects the `tx_position` rows of one block.
#[derive(Default)]
pub struct Positions {
    rows: Vec<(TxNum, Vec<u8>)>,
    first_offset: u32,
    sizes: Vec<u32>,
    checks: Vec<u8>,
}

impl Positions {
    /// The next transaction, whose number is `n`.
    pub fn push(&mut self, n: TxNum, place: TxPlace) {
        if self.sizes.is_empty() {
            self.first_offset = place.offset;
        }
        self.sizes.push(place.size);
        self.checks.push(place.check);
        if self.sizes.len() == POSITIONS_PER_ROW {
            self.close(n);
        }
    }

    /// The block is over; `last` is its last transaction's number. Takes the rows out.
    pub fn finish(&mut self, last: TxNum) -> Vec<(TxNum, Vec<u8>)> {
        if !self.sizes.is_empty() {
            self.close(last);
        }
        std::mem::take(&mut self.rows)
    }

    fn close(&mut self, last: TxNum) {
        self.rows.push((
            last,
            TxPositionRow::encode_value(self.first_offset, &self.sizes, &self.checks),
        ));
        self.sizes.clear();
        self.checks.clear();
    }
}

/// All that a block adds to the index when it is connected, and all that goes with it when it is
/// disconnected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRows {
    pub height: Height,
    pub block: BlockRow,
    pub history: Vec<HistoryRow>,
    pub txid: Vec<TxidRow>,
    /// Keys (the last transaction's number) and values.
    pub tx_position: Vec<(TxNum, Vec<u8>)>,
    /// The full hashes of all scripts in it.
    pub scripts: HashSet<ScriptHash>,
    pub txids: Vec<Txid>,
    /// What it spends.
    pub spent: Vec<OutPoint>,
    /// Its outputs.
    pub created: Vec<OutPoint>,
}

impl BlockRows {
    /// The rows of the block at `height` whose coinbase has the number `first_tx`.
    pub fn of(
        height: Height,
        first_tx: TxNum,
        place: BlockPlace,
        block: &BlockView,
        spent: SpentReader,
    ) -> Result<BlockRows, ParseError> {
        let next = first_tx
            .checked_add(block.tx_count)
            .ok_or(ParseError::Range {
                what: "the number of transactions in the chain",
                at: 0,
            })?;
        let row = BlockRow {
            header: *block.header,
            hash: block_hash(block.header),
            first_tx,
            tx_count: block.tx_count,
            place,
        };
        let mut collector = Collector {
            n: first_tx,
            positions: Positions::default(),
            tx_scripts: Vec::new(),
            rows: BlockRows {
                height,
                block: row,
                history: Vec::new(),
                txid: Vec::new(),
                tx_position: Vec::new(),
                scripts: HashSet::new(),
                txids: Vec::new(),
                spent: Vec::new(),
                created: Vec::new(),
            },
        };
        visit_block(height, block, spent, &mut collector)?;
        let mut rows = collector.rows;
        rows.tx_position = collector.positions.finish(TxNum(next.0 - 1));
        Ok(rows)
    }

    /// The places as the first sync's file has them.
    pub fn flat_positions(&self) -> Result<Vec<FlatPosition>, DamagedRow> {
        let mut positions = Vec::with_capacity(self.block.tx_count as usize);
        for (last, value) in &self.tx_position {
            let row = TxPositionRow::decode(&TxPositionRow::key(*last), value)?;
            let places = (row.first().0..=row.last.0).filter_map(|n| row.get(TxNum(n)));
            positions.extend(places.map(|place| FlatPosition {
                offset: place.offset,
                check: place.check,
            }));
        }
        Ok(positions)
    }

    /// The row of its merkle tree as the first sync's file has it.
    pub fn merkle_row(&self) -> Vec<Node> {
        let txids = self.txids.iter().map(|txid| txid.to_byte_array());
        merkle_row_over_groups(txids.collect(), MERKLE_GROUP_BITS)
    }

    /// The number that the next block's coinbase gets.
    pub fn next_tx(&self) -> TxNum {
        TxNum(self.block.first_tx.0 + self.block.tx_count)
    }
}

struct Collector {
    n: TxNum,
    positions: Positions,
    tx_scripts: Vec<ScriptHash>,
    rows: BlockRows,
}

impl BlockVisitor for Collector {
    fn script(&mut self, script: ScriptHash) {
        self.tx_scripts.push(script);
    }

    fn transaction(&mut self, tx: &TxView, txid: &Txid, place: TxPlace) {
        let n = self.n;
        let first_row = self.rows.history.len();
        let history = self
            .tx_scripts
            .iter()
            .map(|script| HistoryRow::of_script(script, n));
        self.rows.history.extend(history);
        // Once per transaction, also where two scripts share a prefix.
        self.rows.history[first_row..].sort_unstable();
        let mut kept = first_row;
        for index in first_row..self.rows.history.len() {
            let row = self.rows.history[index];
            if kept == first_row || self.rows.history[kept - 1] != row {
                self.rows.history[kept] = row;
                kept += 1;
            }
        }
        self.rows.history.truncate(kept);
        self.rows.scripts.extend(self.tx_scripts.drain(..));

        self.rows.txid.push(TxidRow::of_txid(txid, n));
        self.rows.txids.push(*txid);
        self.rows.spent.extend(
            tx.inputs()
                .filter(|input| !input.is_coinbase())
                .map(|input| OutPoint {
                    txid: Txid::from_byte_array(*input.txid),
                    vout: input.vout,
                }),
        );
        let outputs = 0..tx.output_count as u32;
        self.rows
            .created
            .extend(outputs.map(|vout| OutPoint { txid: *txid, vout }));
        self.positions.push(n, place);
        self.n = TxNum(n.0.wrapping_add(1));
    }
}
