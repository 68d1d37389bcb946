//! All rows of an index in a few numbers, for comparing two.

use std::ops::ControlFlow;

use sha2::{Digest, Sha256};

use super::{
    BlockRow, Index, IndexError,
    hash_rows::{HISTORY, TXID},
    schema::TxPositionRow,
};

impl Index {
    /// Of every kind of rows but `meta`'s, for comparing two indexes: hash rows count the same in either form.
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
        let mut all = vec![history.finish(), txid.finish()];
        for name in [TxPositionRow::FAMILY, BlockRow::FAMILY] {
            let mut fingerprint = Fingerprint::of(name);
            let mut rows = self.db.raw_iterator_cf(self.family(name));
            rows.seek_to_first();
            while let Some((key, value)) = rows.item() {
                fingerprint.add(key, value);
                rows.next();
            }
            rows.status()?;
            all.push(fingerprint.finish());
        }
        Ok(all)
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
