//! Where transactions lie in their blocks: of the first sync's in a file ([`super::flat`]), of those since then in rows.

use std::ops::Range;

use super::{
    BlockRow, Index, IndexError, TxPlace,
    flat::position_at,
    schema::{DamagedRow, FlatPosition, POSITIONS_PER_ROW, TxPositionRow},
    walk::Walk,
};
use crate::chain::TxNum;

/// A step of an iterator costs a fraction of a seek.
const STEPS_MAX: u32 = 3;

/// Where two questions are for transactions as near to each other as this, more are expected, and a whole window is read from
/// the file. (Unit tests have small chains.)
const FLAT_NEAR: u32 = FLAT_WINDOW / 2;
const FLAT_WINDOW: u32 = if cfg!(test) { 8 } else { 1024 };

/// The transactions of a block, among which one is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockTxs {
    pub first: TxNum,
    /// Not included.
    pub end: TxNum,
    /// Of the whole block.
    pub bytes: u32,
}

impl BlockRow {
    /// Its transactions.
    pub fn txs(&self) -> BlockTxs {
        BlockTxs {
            first: self.first_tx,
            // A block whose numbers run out is refused before it has a row.
            end: TxNum(self.first_tx.0.saturating_add(self.tx_count)),
            bytes: self.place.size,
        }
    }
}

impl BlockTxs {
    pub fn numbers(&self) -> Range<u32> {
        self.first.0..self.end.0
    }

    pub fn contains(&self, n: TxNum) -> bool {
        self.first <= n && n < self.end
    }
}

impl Index {
    /// Looks for places. Cheap for ascending numbers.
    pub fn tx_places(&self) -> TxPlaces<'_> {
        TxPlaces {
            index: self,
            rows: None,
            current: None,
            window: Window::default(),
        }
    }

    /// The places of a block's transactions.
    pub fn places_of(&self, block: &BlockTxs) -> Result<Vec<TxPlace>, IndexError> {
        let mut places = self.tx_places();
        let numbers = block.numbers().map(TxNum);
        numbers
            .map(|n| places.get_in(n, block)?.ok_or_else(|| damaged().into()))
            .collect()
    }

    /// True of a transaction whose place is in the first sync's file.
    pub fn is_flat(&self, n: TxNum) -> bool {
        n < self.packed_end()
    }
}

fn damaged() -> DamagedRow {
    DamagedRow {
        family: TxPositionRow::FAMILY,
    }
}

/// Looks up places of ascending transaction numbers.
pub struct TxPlaces<'a> {
    index: &'a Index,
    /// Made when a row lies near the one before, and from then on used. It stands at the current row.
    rows: Option<Walk<'a>>,
    current: Option<TxPositionRow>,
    window: Window,
}

impl<'a> TxPlaces<'a> {
    /// Where a transaction lies in its block; `None` where it is not one of the block's, or the index has no place of it.
    pub fn get_in(&mut self, n: TxNum, block: &BlockTxs) -> Result<Option<TxPlace>, IndexError> {
        if !block.contains(n) {
            return Ok(None);
        }
        if self.index.is_flat(n) {
            return self.get_flat(n, block).map(Some);
        }
        if let Some(place) = self.known(n) {
            return Ok(Some(place));
        }
        if self.rows.is_some() || self.is_near(n) {
            return self.get_near(n);
        }
        // A row belongs to one block, so its key is known: to get it takes half of what it takes to make an iterator
        // and to seek.
        let Some(last) = TxPositionRow::last_in_row(n, block.first, block.end) else {
            return Ok(None);
        };
        let key = TxPositionRow::key(last);
        let family = self.index.family(TxPositionRow::FAMILY);
        self.current = match self.index.db.get_pinned_cf(family, key)? {
            Some(value) => Some(TxPositionRow::decode(&key, &value)?),
            None => None,
        };
        Ok(self.known(n))
    }

    fn get_flat(&mut self, n: TxNum, block: &BlockTxs) -> Result<TxPlace, IndexError> {
        let is_last = n.0 + 1 == block.end.0;
        let count = if is_last { 1 } else { 2 };
        let mut read = [0; 2 * FlatPosition::LEN];
        let read = &mut read[..count * FlatPosition::LEN];
        self.window.read(self.index, n, read)?;
        let (entries, _) = read.as_chunks();
        let (position, next) = (entries[0], entries.get(1));
        let end = next.map_or(block.bytes, |next| FlatPosition::decode(*next).offset);
        let place = FlatPosition::decode(position).place(end, block.bytes);
        Ok(place.ok_or_else(damaged)?)
    }

    fn get_near(&mut self, n: TxNum) -> Result<Option<TxPlace>, IndexError> {
        let is_there = self.steps_to(n);
        let rows = self.iterator();
        if !is_there {
            rows.seek(TxPositionRow::key(n));
        }
        rows.status()?;
        self.current = match rows.item() {
            Some((key, value)) => Some(TxPositionRow::decode(key, value)?),
            None => None,
        };
        Ok(self.known(n))
    }

    fn known(&self, n: TxNum) -> Option<TxPlace> {
        self.current.as_ref().and_then(|row| row.get(n))
    }

    fn iterator(&mut self) -> &mut Walk<'a> {
        let index = self.index;
        self.rows
            .get_or_insert_with(|| index.walk(TxPositionRow::FAMILY))
    }

    /// A step to the row of this transaction costs less than to look for it.
    fn is_near(&self, n: TxNum) -> bool {
        const REACH: u32 = STEPS_MAX * POSITIONS_PER_ROW as u32;
        let row = self.current.as_ref();
        row.is_some_and(|row| n > row.last && n.0 - row.last.0 <= REACH)
    }

    /// Goes to the row of a transaction that lies little further on. Where it gives up, `false`.
    fn steps_to(&mut self, n: TxNum) -> bool {
        if !self.is_near(n) {
            return false;
        }
        let Some(rows) = &mut self.rows else {
            return false;
        };
        let key = TxPositionRow::key(n);
        for _ in 0..STEPS_MAX {
            rows.next();
            if rows.key().is_none_or(|at| at >= &key[..]) {
                return true;
            }
        }
        false
    }
}

/// A part of the file, for questions about neighbours.
#[derive(Default)]
struct Window {
    /// What was asked for last.
    before: Option<TxNum>,
    first: u32,
    bytes: Vec<u8>,
}

impl Window {
    /// Reads what stands for some transactions from `n` on.
    fn read(&mut self, index: &Index, n: TxNum, out: &mut [u8]) -> Result<(), IndexError> {
        let before = self.before.replace(n);
        if self.copy(n, out) {
            return Ok(());
        }
        let is_near = before.is_some_and(|before| before <= n && n.0 - before.0 <= FLAT_NEAR);
        let left = index.packed_end().0.saturating_sub(n.0);
        let bytes = FLAT_WINDOW.min(left) as usize * FlatPosition::LEN;
        if !is_near || bytes < out.len() {
            return index.positions.read(position_at(n), out);
        }
        self.first = n.0;
        self.bytes.resize(bytes, 0);
        let read = index.positions.read(position_at(n), &mut self.bytes);
        if read.is_err() {
            self.bytes.clear();
        }
        read?;
        self.copy(n, out);
        Ok(())
    }

    /// False where the window does not hold all of it.
    fn copy(&self, n: TxNum, out: &mut [u8]) -> bool {
        let at =
            n.0.checked_sub(self.first)
                .map(|at| at as usize * FlatPosition::LEN);
        let held = at.and_then(|at| self.bytes.get(at..)?.get(..out.len()));
        held.map(|held| out.copy_from_slice(held)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::rows::Positions;

    #[test]
    fn the_last_of_a_row_is_known_from_the_block_alone() {
        let first = TxNum(1000);
        for count in [1, 63, 64, 65, 128, 200] {
            let end = TxNum(first.0 + count);
            let mut positions = Positions::default();
            for n in first.0..end.0 {
                let place = TxPlace {
                    offset: n,
                    size: 1,
                    check: 0,
                };
                positions.push(TxNum(n), place);
            }
            let rows = positions.finish(TxNum(end.0 - 1));
            for n in (first.0..end.0).map(TxNum) {
                let row = rows.iter().find(|(last, _)| *last >= n);
                assert_eq!(
                    TxPositionRow::last_in_row(n, first, end),
                    row.map(|(last, _)| *last)
                );
            }
            for n in [TxNum(first.0 - 1), end] {
                assert_eq!(TxPositionRow::last_in_row(n, first, end), None);
            }
        }
    }
}
