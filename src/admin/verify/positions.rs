//! The `tx_position` rows: every transaction lies in its block, one behind the other, without a gap.

use std::{ops::ControlFlow, sync::Mutex};

use bitcoin::hex::DisplayHex;

use super::{Fault, Faults, VerifyError, Watch, blame, chain::Chain, unreadable};
use crate::{
    chain::{HEADER_LEN, TxNum},
    index::{Column, Index, schema::TxPositionRow},
};

/// Rows between two looks at the stop sign.
const ROWS_PER_LOOK: u64 = 1 << 14;

/// Reads all rows; says how many there are.
pub fn check(
    index: &Index,
    chain: &Chain,
    faults: &Mutex<Faults>,
    watch: &dyn Watch,
) -> Result<u64, VerifyError> {
    let family = TxPositionRow::FAMILY;
    let mut rows = 0u64;
    let mut walk = Walk {
        chain,
        height: 0,
        next: TxNum::ZERO,
        offset: first_offset(chain, 0),
    };
    let read = index.inspect(Column::TxPosition, &[], None, &mut |key, value| {
        rows += 1;
        match TxPositionRow::decode(key, value) {
            Ok(row) => walk.row(&row, faults),
            Err(_) => {
                let key = key.as_hex().to_string();
                blame(faults, Fault::Damaged { family, key });
            }
        }
        if rows.is_multiple_of(ROWS_PER_LOOK) {
            watch.done(walk.next.0.into(), chain.next_tx.0.into());
            if watch.is_stopped() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    if watch.is_stopped() {
        return Err(VerifyError::Stopped);
    }
    match read {
        Ok(()) => walk.end(faults),
        Err(error) => unreadable(faults, family, error)?,
    }
    Ok(rows)
}

/// Where a block's first transaction begins: behind the header and the number of transactions (CompactSize).
fn first_offset(chain: &Chain, height: usize) -> u32 {
    let count_len = match chain.blocks.get(height).map_or(0, |block| block.tx_count) {
        0..0xfd => 1,
        0xfd..0x1_0000 => 3,
        0x1_0000.. => 5,
    };
    HEADER_LEN as u32 + count_len
}

/// As far as the rows have come.
struct Walk<'a> {
    chain: &'a Chain,
    height: usize,
    /// The transaction that is due.
    next: TxNum,
    /// Where it begins in its block.
    offset: u32,
}

impl Walk<'_> {
    fn row(&mut self, row: &TxPositionRow, faults: &Mutex<Faults>) {
        let (first, last) = (row.first().0, row.last.0);
        let complain = |from: u32, to: u32, what: &'static str| {
            blame(faults, Fault::Position { from, to, what });
        };
        if last >= self.chain.next_tx.0 {
            return complain(first, last, "lie above the tip");
        }
        if first > self.next.0 {
            complain(self.next.0, first - 1, "have no place");
            self.skip_to(first);
        } else if first < self.next.0 {
            complain(first, self.next.0 - 1, "have two places");
            self.skip_to(first);
        }
        let Some(block) = self.chain.blocks.get(self.height) else {
            return;
        };
        let end = block.first_tx.0 + block.tx_count;
        if last >= end {
            complain(first, last, "are in one row, and in two blocks");
            return self.skip_to(last + 1);
        }
        let size = row
            .sizes
            .iter()
            .try_fold(0u32, |sum, &size| sum.checked_add(size));
        let behind = size.and_then(|size| row.first_offset.checked_add(size));
        // After a fault the offset is not known until the next block.
        let is_known = self.offset > 0;
        match behind {
            Some(behind) if !is_known || row.first_offset == self.offset => {
                if last + 1 == end && behind != block.place.size {
                    complain(first, last, "do not end where their block ends");
                }
                self.offset = if is_known { behind } else { 0 };
            }
            _ => {
                complain(first, last, "do not lie behind those before them");
                self.offset = 0;
            }
        }
        self.next = TxNum(last + 1);
        if self.next.0 == end {
            self.height += 1;
            self.offset = first_offset(self.chain, self.height);
        }
    }

    /// Goes on at another transaction than the one that is due.
    fn skip_to(&mut self, n: u32) {
        let after = self
            .chain
            .blocks
            .partition_point(|block| block.first_tx.0 <= n);
        self.height = after.saturating_sub(1);
        self.next = TxNum(n);
        let starts = self.chain.blocks.get(self.height);
        let is_first = starts.is_some_and(|block| block.first_tx.0 == n);
        self.offset = if is_first {
            first_offset(self.chain, self.height)
        } else {
            0
        };
    }

    fn end(&self, faults: &Mutex<Faults>) {
        if self.next < self.chain.next_tx {
            let (from, to) = (self.next.0, self.chain.next_tx.0 - 1);
            let what = "have no place";
            blame(faults, Fault::Position { from, to, what });
        }
    }
}
