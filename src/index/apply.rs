//! Blocks come and go: the only writing after the first sync.

use std::sync::atomic::Ordering;

use rocksdb::{ColumnFamily, WriteBatch};

use super::{
    BlockRow, Index, IndexError,
    families::{META, META_PACKED_END, META_TIP},
    hash_rows::{HISTORY, TXID},
    options::durably,
    rows::BlockRows,
    schema::{HistoryRow, TipRow, TxPositionRow, TxidRow},
};
use crate::chain::{Height, TxNum};

impl Index {
    /// Takes blocks away from the tip, the highest first, then adds blocks on top of what is left, in
    /// chain order: all in one atomic batch, so that a kill in a reorg leaves the old branch or the new
    /// one. The same code makes what goes and what comes.
    pub fn apply(&self, disconnect: &[BlockRows], connect: &[BlockRows]) -> Result<(), IndexError> {
        let mut batch = WriteBatch::default();
        for rows in disconnect {
            self.each_row(rows, |family, key, _value| batch.delete_cf(family, key));
        }
        for rows in connect {
            self.each_row(rows, |family, key, value| batch.put_cf(family, key, value));
        }
        match (connect.last(), disconnect.last()) {
            (Some(rows), _) => {
                let tip = TipRow {
                    height: rows.height,
                    hash: rows.block.hash,
                    next_tx: rows.next_tx(),
                };
                batch.put_cf(self.family(META), META_TIP, tip.encode());
            }
            (None, Some(rows)) => self.put_tip_below(&mut batch, rows.height)?,
            (None, None) => return Ok(()),
        }
        let lowest = disconnect.last().map(|rows| rows.block.first_tx);
        if let Some(first) = lowest {
            self.lower_packed_end(&mut batch, first);
        }
        self.db.write(batch)?;
        self.iterators.forget();
        if let Some(first) = lowest {
            self.packed_end.fetch_min(first.0, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Finds all rows of the block at `height` and of all above it without their bytes: one scan over all rows.
    /// For a reorg whose stale blocks the node no longer has. Nothing is written, so that questions are answered
    /// while it lasts; [`Index::truncate`] then is short.
    pub fn find_above(&self, height: Height) -> Result<Truncation, IndexError> {
        let mut batch = WriteBatch::default();
        let Some(block) = self.block(height)? else {
            return Ok(Truncation {
                batch,
                first: TxNum(u32::MAX),
            });
        };
        self.truncate_hashes(block.first_tx, &mut batch)?;
        for (name, first) in [
            (TxPositionRow::FAMILY, TxPositionRow::key(block.first_tx)),
            (BlockRow::FAMILY, BlockRow::key(height)),
        ] {
            let mut rows = self.db.raw_iterator_cf(self.family(name));
            rows.seek(first);
            while let Some(key) = rows.key() {
                batch.delete_cf(self.family(name), key);
                rows.next();
            }
            rows.status()?;
        }
        self.put_tip_below(&mut batch, height)?;
        self.lower_packed_end(&mut batch, block.first_tx);
        Ok(Truncation {
            batch,
            first: block.first_tx,
        })
    }

    /// Takes away what [`Index::find_above`] found. Nothing may have been written in between.
    pub fn truncate(&self, found: Truncation) -> Result<(), IndexError> {
        self.db.write_opt(found.batch, &durably())?;
        self.iterators.forget();
        self.packed_end.fetch_min(found.first.0, Ordering::AcqRel);
        Ok(())
    }

    /// Packed rows from `first` on do not count any more.
    fn lower_packed_end(&self, batch: &mut WriteBatch, first: TxNum) {
        if first < self.packed_end() {
            batch.put_cf(self.family(META), META_PACKED_END, first.0.to_le_bytes());
        }
    }

    fn put_tip_below(&self, batch: &mut WriteBatch, height: Height) -> Result<(), IndexError> {
        let meta = self.family(META);
        match height
            .checked_sub(1)
            .map(|below| self.block(below))
            .transpose()?
            .flatten()
        {
            Some(block) => {
                let next_tx = TxNum(block.first_tx.0 + block.tx_count);
                let tip = TipRow {
                    height: height - 1,
                    hash: block.hash,
                    next_tx,
                };
                batch.put_cf(meta, META_TIP, tip.encode());
            }
            None => batch.delete_cf(meta, META_TIP),
        }
        Ok(())
    }

    /// Hands each row's family, key and value to `f`: put and delete cannot differ.
    fn each_row<'a>(&'a self, rows: &BlockRows, mut f: impl FnMut(&'a ColumnFamily, &[u8], &[u8])) {
        let mut key = [0; 16];
        let history = self.family(HISTORY.single);
        rows.history
            .iter()
            .for_each(|row: &HistoryRow| f(history, row.encode(&mut key), &[]));
        let txid = self.family(TXID.single);
        rows.txid
            .iter()
            .for_each(|row: &TxidRow| f(txid, row.encode(&mut key), &[]));
        let positions = self.family(TxPositionRow::FAMILY);
        for (last, value) in &rows.tx_position {
            f(positions, &TxPositionRow::key(*last), value);
        }
        let value = rows.block.encode_value();
        f(
            self.family(BlockRow::FAMILY),
            &BlockRow::key(rows.height),
            &value,
        );
    }
}

/// Rows that are to go, and the tip that is then left: for [`Index::truncate`].
pub struct Truncation {
    batch: WriteBatch,
    /// The first transaction that goes.
    first: TxNum,
}
