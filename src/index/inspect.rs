//! The rows as they lie there, well formed or not: for those who check them.

use std::ops::ControlFlow;

use rocksdb::ReadOptions;

use super::{
    BlockRow, Index, IndexError,
    flat::position_at,
    hash_rows::{Forms, HISTORY, TXID},
    packed::Group,
    schema::{FlatPosition, HashRow, SCRIPT_PREFIX_LEN, TXID_PREFIX_LEN, TxPositionRow},
};
use crate::chain::TxNum;

/// How much of a file is read at once where all rows are read.
const READ_AHEAD_BYTES: usize = 2 << 20;

/// The column families whose rows stand for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    TxPosition,
    Block,
}

/// The rows that say "this transaction concerns this hash".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashRows {
    History,
    Txid,
}

impl HashRows {
    pub fn name(self) -> &'static str {
        self.forms().single
    }

    fn forms(self) -> Forms {
        match self {
            HashRows::History => HISTORY,
            HashRows::Txid => TXID,
        }
    }
}

/// What lies under a key.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// A row that questions find: the prefix as a number, and the transaction's number.
    Row { prefix: u64, tx: u32 },
    /// A row that no question finds: it lies among those that may change, and belongs among those that may not.
    Hidden,
    /// No row, or a group that is not in order.
    Damaged { family: &'static str, key: &'a [u8] },
}

type Each<'a> = dyn FnMut(Seen<'_>) -> ControlFlow<()> + 'a;

/// Told the key and the value of each row, until it has enough.
type EachRow<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

impl Index {
    /// The keys from `from` on and below `below`, with their values, in order.
    pub fn inspect(
        &self,
        column: Column,
        from: &[u8],
        below: Option<&[u8]>,
        each: EachRow<'_>,
    ) -> Result<(), IndexError> {
        let family = match column {
            Column::TxPosition => TxPositionRow::FAMILY,
            Column::Block => BlockRow::FAMILY,
        };
        self.each_raw(family, from, below, each)
    }

    /// What the first sync's file says of `count` transactions from `first` on.
    pub fn inspect_flat(&self, first: TxNum, count: u32) -> Result<Vec<FlatPosition>, IndexError> {
        let mut bytes = vec![0; count as usize * FlatPosition::LEN];
        self.positions.read(position_at(first), &mut bytes)?;
        let (entries, _) = bytes.as_chunks();
        Ok(entries.iter().copied().map(FlatPosition::decode).collect())
    }

    /// The transactions (first and last) whose part of that file is not as it was written. `each` hears how many bytes
    /// were read, and may end it.
    pub fn inspect_flat_sums(
        &self,
        each: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Vec<(TxNum, TxNum)>, IndexError> {
        let mut spoilt = Vec::new();
        let mut next = TxNum::ZERO;
        for section in self.flat_sections()? {
            match section.is_whole(&self.positions, each)? {
                Some(true) => {}
                Some(false) => spoilt.push((section.first, TxNum(section.end.0 - 1))),
                None => return Ok(spoilt),
            }
            next = section.end;
        }
        if next < self.packed_end() {
            spoilt.push((next, TxNum(self.packed_end().0 - 1)));
        }
        Ok(spoilt)
    }

    /// All rows whose keys begin with this byte, in both forms.
    pub fn inspect_hashes(
        &self,
        rows: HashRows,
        byte: u8,
        each: &mut Each,
    ) -> Result<(), IndexError> {
        match rows {
            HashRows::History => self.inspect_forms::<SCRIPT_PREFIX_LEN>(HISTORY, byte, each),
            HashRows::Txid => self.inspect_forms::<TXID_PREFIX_LEN>(TXID, byte, each),
        }
    }

    fn inspect_forms<const LEN: usize>(
        &self,
        forms: Forms,
        byte: u8,
        each: &mut Each,
    ) -> Result<(), IndexError> {
        // An empty key would be the very first.
        let from: &[u8] = if byte == 0 { &[] } else { &[byte] };
        let below = byte.checked_add(1).map(|byte| [byte]);
        let below = below.as_ref().map(|byte| &byte[..]);
        let packed_end = self.packed_end();
        let mut is_over = false;
        let mut tell = |seen: Seen<'_>| {
            let flow = each(seen);
            is_over |= flow.is_break();
            flow
        };
        self.each_raw(forms.single, from, below, &mut |key, value| {
            let row = HashRow::<LEN>::decode(key).filter(|_| value.is_empty());
            tell(match row {
                Some(row) if row.tx < packed_end => Seen::Hidden,
                Some(row) => Seen::Row {
                    prefix: row.prefix,
                    tx: row.tx.0,
                },
                None => Seen::Damaged {
                    family: forms.single,
                    key,
                },
            })
        })?;
        if is_over {
            return Ok(());
        }
        let mut before: Option<HashRow<LEN>> = None;
        self.each_raw(forms.packed, from, below, &mut |key, value| {
            let Some(rows) = group::<LEN>(key, value, before) else {
                let family = forms.packed;
                return each(Seen::Damaged { family, key });
            };
            before = rows.last().copied();
            for row in rows.iter().filter(|row| row.tx < packed_end) {
                let (prefix, tx) = (row.prefix, row.tx.0);
                each(Seen::Row { prefix, tx })?;
            }
            ControlFlow::Continue(())
        })
    }

    fn each_raw(
        &self,
        family: &'static str,
        from: &[u8],
        below: Option<&[u8]>,
        each: EachRow<'_>,
    ) -> Result<(), IndexError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size(READ_AHEAD_BYTES);
        if let Some(below) = below {
            options.set_iterate_upper_bound(below);
        }
        let mut rows = self.db.raw_iterator_cf_opt(self.family(family), options);
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if each(key, value).is_break() {
                return Ok(());
            }
            rows.next();
        }
        Ok(rows.status()?)
    }

    /// For tests: puts any row in any column family, or takes it away.
    #[cfg(test)]
    pub fn spoil(&self, family: &str, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => self.db.put_cf(self.family(family), key, value).unwrap(),
            None => self.db.delete_cf(self.family(family), key).unwrap(),
        }
    }

    /// For tests: all keys and values of a column family.
    #[cfg(test)]
    pub fn all_of(&self, family: &'static str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = Vec::new();
        let each = &mut |key: &[u8], value: &[u8]| {
            all.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        };
        self.each_raw(family, &[], None, each).unwrap();
        all
    }
}

/// The rows of a group, if they ascend, follow on the group before, and end with the key's.
fn group<const LEN: usize>(
    key: &[u8],
    value: &[u8],
    before: Option<HashRow<LEN>>,
) -> Option<Vec<HashRow<LEN>>> {
    let last = HashRow::<LEN>::decode(key)?;
    let rows: Vec<HashRow<LEN>> = Group::<LEN>::of(value)?.collect::<Result<_, _>>().ok()?;
    let ascends = rows.is_sorted_by(|a, b| a < b);
    let follows = before.is_none_or(|before| rows.first() > Some(&before));
    (ascends && follows && rows.last() == Some(&last)).then_some(rows)
}
