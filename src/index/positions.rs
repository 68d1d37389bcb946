//! Where transactions lie in their blocks.

use super::{
    Index, IndexError, TxPlace,
    schema::{DamagedRow, POSITIONS_PER_ROW, TxPositionRow},
    walk::Walk,
};
use crate::chain::TxNum;

/// A step of an iterator costs a fraction of a seek.
const STEPS_MAX: u32 = 3;

impl Index {
    /// Where transaction `n` lies in its block. For many ascending numbers use one cursor
    /// ([`Index::tx_places`]).
    pub fn tx_place(&self, n: TxNum) -> Result<Option<TxPlace>, IndexError> {
        self.tx_places().get(n)
    }

    /// A cursor that remembers the row it is in: cheap for ascending numbers.
    pub fn tx_places(&self) -> TxPlaces<'_> {
        TxPlaces {
            index: self,
            rows: None,
            current: None,
        }
    }

    /// The places of `count` transactions from `first` on (a block's).
    pub fn tx_places_of(&self, first: TxNum, count: u32) -> Result<Vec<TxPlace>, IndexError> {
        let mut cursor = self.tx_places();
        let numbers = first.0..first.0.saturating_add(count);
        numbers
            .map(|n| {
                cursor.get(TxNum(n))?.ok_or(
                    DamagedRow {
                        family: TxPositionRow::FAMILY,
                    }
                    .into(),
                )
            })
            .collect()
    }
}

/// Looks up places of ascending transaction numbers.
pub struct TxPlaces<'a> {
    index: &'a Index,
    /// Made when a row lies near the one before, and from then on used. It stands at the current row.
    rows: Option<Walk<'a>>,
    current: Option<TxPositionRow>,
}

impl<'a> TxPlaces<'a> {
    pub fn get(&mut self, n: TxNum) -> Result<Option<TxPlace>, IndexError> {
        if let Some(place) = self.known(n) {
            return Ok(Some(place));
        }
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

    /// The same of a transaction in the block whose transactions are `first` to `end` (not included). A row
    /// belongs to one block, so its key is known: to get it takes half of what it takes to make an iterator
    /// and to seek.
    pub fn get_in(
        &mut self,
        n: TxNum,
        first: TxNum,
        end: TxNum,
    ) -> Result<Option<TxPlace>, IndexError> {
        if let Some(place) = self.known(n) {
            return Ok(Some(place));
        }
        if self.rows.is_some() || self.is_near(n) {
            return self.get(n);
        }
        let Some(last) = TxPositionRow::last_in_row(n, first, end) else {
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
