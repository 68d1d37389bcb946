//! The places of transactions: every transaction lies in its block, one behind the other, without a gap.

use std::{ops::ControlFlow, sync::Mutex};

use bitcoin::hex::DisplayHex;

use super::{Fault, Faults, VerifyError, Watch, blame, chain::Chain, unreadable};
use crate::{
    chain::{HEADER_LEN, TxNum},
    index::{
        Column, Index,
        schema::{FlatPosition, TxPositionRow},
    },
};

/// Rows between two looks at the stop sign.
const ROWS_PER_LOOK: u64 = 1 << 14;

/// Reads all places; says how many there are.
pub fn check(
    index: &Index,
    chain: &Chain,
    faults: &Mutex<Faults>,
    watch: &dyn Watch,
) -> Result<u64, VerifyError> {
    Ok(check_flat(index, chain, faults, watch)? + check_rows(index, chain, faults, watch)?)
}

/// Those in the first sync's file.
fn check_flat(
    index: &Index,
    chain: &Chain,
    faults: &Mutex<Faults>,
    watch: &dyn Watch,
) -> Result<u64, VerifyError> {
    let family = TxPositionRow::FAMILY;
    let complain = |from: u32, to: u32, what: &'static str| {
        blame(faults, Fault::Position { from, to, what });
    };
    let mut each = |_bytes: u64| match watch.is_stopped() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    match index.inspect_flat_sums(&mut each) {
        Ok(spoilt) => {
            for (from, to) in spoilt {
                complain(
                    from.0,
                    to.0,
                    "are in a part of the file that is not as it was written",
                );
            }
        }
        Err(error) => unreadable(faults, family, error)?,
    }
    let mut count = 0u64;
    for (height, block) in chain.blocks.iter().enumerate() {
        if !index.is_flat(block.first_tx) {
            break;
        }
        if watch.is_stopped() {
            return Err(VerifyError::Stopped);
        }
        let found = match index.inspect_flat(block.first_tx, block.tx_count) {
            Ok(found) => found,
            Err(error) => {
                unreadable(faults, family, error)?;
                break;
            }
        };
        if !fills(&found, first_offset(chain, height), block.place.size) {
            let last = block.first_tx.0 + block.tx_count.saturating_sub(1);
            complain(block.first_tx.0, last, "do not fill their block");
        }
        count += u64::from(block.tx_count);
        watch.done(count, chain.next_tx.0.into());
    }
    Ok(count)
}

/// Whether transactions that begin at these places fill a block of so many bytes, whose first begins at `first`.
fn fills(positions: &[FlatPosition], first: u32, block_bytes: u32) -> bool {
    let offsets = positions.iter().map(|position| position.offset);
    offsets.clone().next() == Some(first)
        && offsets.is_sorted_by(|one, next| one < next)
        && positions
            .last()
            .is_some_and(|last| last.offset < block_bytes)
}

/// Those in rows.
fn check_rows(
    index: &Index,
    chain: &Chain,
    faults: &Mutex<Faults>,
    watch: &dyn Watch,
) -> Result<u64, VerifyError> {
    let family = TxPositionRow::FAMILY;
    let flat_blocks = chain
        .blocks
        .partition_point(|block| index.is_flat(block.first_tx));
    let flat_end = chain
        .blocks
        .get(flat_blocks)
        .map_or(chain.next_tx, |block| block.first_tx);
    let (mut rows, mut places) = (0u64, 0u64);
    let mut walk = Walk {
        chain,
        height: flat_blocks,
        flat_end,
        next: flat_end,
        offset: first_offset(chain, flat_blocks),
    };
    let read = index.inspect(Column::TxPosition, &[], None, &mut |key, value| {
        rows += 1;
        match TxPositionRow::decode(key, value) {
            Ok(row) => {
                places += row.sizes.len() as u64;
                walk.row(&row, faults);
            }
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
    Ok(places)
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
    /// Those below have their place in the file.
    flat_end: TxNum,
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
        if first < self.flat_end.0 {
            return complain(
                first,
                last,
                "have a row, and belong in the first sync's file",
            );
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
