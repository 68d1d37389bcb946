//! Where transactions lie in their blocks.

use super::{
    Index, IndexError, TxPlace,
    schema::{DamagedRow, POSITIONS_PER_ROW, TxPositionRow},
};
use crate::chain::TxNum;

impl Index {
    /// Where transaction `n` lies in its block. For many ascending numbers use one cursor
    /// ([`Index::tx_places`]).
    pub fn tx_place(&self, n: TxNum) -> Result<Option<TxPlace>, IndexError> {
        self.tx_places().get(n)
    }

    /// A cursor that remembers the row it is in: cheap for ascending numbers.
    pub fn tx_places(&self) -> TxPlaces<'_> {
        let rows = self.db.raw_iterator_cf(self.family(TxPositionRow::FAMILY));
        TxPlaces {
            rows,
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
    rows: rocksdb::DBRawIterator<'a>,
    current: Option<TxPositionRow>,
}

impl TxPlaces<'_> {
    pub fn get(&mut self, n: TxNum) -> Result<Option<TxPlace>, IndexError> {
        if let Some(place) = self.current.as_ref().and_then(|row| row.get(n)) {
            return Ok(Some(place));
        }
        if !self.steps_to(n) {
            self.rows.seek(TxPositionRow::key(n));
        }
        self.rows.status()?;
        self.current = match self.rows.item() {
            Some((key, value)) => Some(TxPositionRow::decode(key, value)?),
            None => None,
        };
        Ok(self.current.as_ref().and_then(|row| row.get(n)))
    }

    /// Goes to the row of a transaction that lies little further on: a step costs a fraction of a seek. Where
    /// it gives up, `false`.
    fn steps_to(&mut self, n: TxNum) -> bool {
        const STEPS_MAX: u32 = 3;
        const REACH: u32 = STEPS_MAX * POSITIONS_PER_ROW as u32;
        let Some(row) = &self.current else {
            return false;
        };
        if n <= row.last || n.0 - row.last.0 > REACH {
            return false;
        }
        let key = TxPositionRow::key(n);
        for _ in 0..STEPS_MAX {
            self.rows.next();
            if self.rows.key().is_none_or(|at| at >= &key[..]) {
                return true;
            }
        }
        false
    }
}
