//! All rows of an index in a few numbers, for comparing two.

use std::ops::ControlFlow;

use sha2::{Digest, Sha256};

use super::{
    BlockRow, Index, IndexError, TxPlace,
    hash_rows::{HISTORY, TXID},
    schema::TxPositionRow,
};
use crate::chain::TxNum;

impl Index {
    /// Of every kind of rows but `meta`'s, for comparing two indexes: hash rows count the same in either form, and so do
    /// places.
    pub fn fingerprint(&self) -> Result<Vec<FamilyFingerprint>, IndexError> {
        let mut key = [0; 16];
        let mut history = Fingerprint::of(HISTORY.single);
        self.scan_history(&mut |row| {
            history.add(row.encode(&mut key), &[]);
            ControlFlow::Continue(())
        })?;
        let mut txid = Fingerprint::of(TXID.single);
        self.scan_txids(&mut |row| {
            txid.add(row.encode(&mut key), &[]);
            ControlFlow::Continue(())
        })?;
        let mut places = Fingerprint::of(TxPositionRow::FAMILY);
        self.scan_places(&mut |n, place| {
            let numbers = [place.offset, place.size, place.check.into()];
            let value = numbers.map(u32::to_le_bytes);
            places.add(&n.0.to_be_bytes(), value.as_flattened());
        })?;
        let mut blocks = Fingerprint::of(BlockRow::FAMILY);
        self.each_of(BlockRow::FAMILY, |key, value| {
            blocks.add(key, value);
            Ok(())
        })?;
        Ok(vec![
            history.finish(),
            txid.finish(),
            places.finish(),
            blocks.finish(),
        ])
    }

    /// All places, those in the file first.
    fn scan_places(&self, each: &mut dyn FnMut(TxNum, &TxPlace)) -> Result<(), IndexError> {
        for block in self.blocks_from(0) {
            let (_, block) = block?;
            if !self.is_flat(block.first_tx) {
                break;
            }
            let txs = block.txs();
            let places = self.places_of(&txs)?;
            for (n, place) in txs.numbers().zip(&places) {
                each(TxNum(n), place);
            }
        }
        self.each_of(TxPositionRow::FAMILY, |key, value| {
            let row = TxPositionRow::decode(key, value)?;
            for n in row.first().0..=row.last.0 {
                if let Some(place) = row.get(TxNum(n)) {
                    each(TxNum(n), &place);
                }
            }
            Ok(())
        })
    }

    fn each_of(
        &self,
        family: &str,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        let mut rows = self.db.raw_iterator_cf(self.family(family));
        rows.seek_to_first();
        while let Some((key, value)) = rows.item() {
            each(key, value)?;
            rows.next();
        }
        Ok(rows.status()?)
    }
}

/// All rows of a column family in one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyFingerprint {
    pub name: &'static str,
    pub rows: u64,
    /// Over all keys and values, each with its length before it.
    pub sha256: [u8; 32],
}

/// Sums up rows for [`FamilyFingerprint`].
struct Fingerprint {
    name: &'static str,
    rows: u64,
    hash: Sha256,
}

impl Fingerprint {
    fn of(name: &'static str) -> Fingerprint {
        Fingerprint {
            name,
            rows: 0,
            hash: Sha256::new(),
        }
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows += 1;
        for part in [key, value] {
            self.hash.update((part.len() as u32).to_le_bytes());
            self.hash.update(part);
        }
    }

    fn finish(self) -> FamilyFingerprint {
        FamilyFingerprint {
            name: self.name,
            rows: self.rows,
            sha256: self.hash.finalize().into(),
        }
    }
}
