//! The rows of script hashes and txids, in both their forms: many to a key as the first sync writes them
//! ([`super::packed`]), one to a key as blocks at the tip bring them.
//!
//! # Correctness
//! Packed rows never change. Only those below `packed_end` count; a reorganization that goes deeper than the
//! first sync's end lowers that number, in the batch that lowers the tip. So every packed row that counts is
//! lower than every row of its own, and the two forms, one after the other, are in chain order.
use std::{ops::ControlFlow, sync::atomic::Ordering};

use bitcoin::{Txid, hashes::Hash};
use rocksdb::WriteBatch;

use super::{
    Index, IndexError,
    packed::Group,
    schema::{
        DamagedRow, HashRow, HistoryRow, SCRIPT_PREFIX_LEN, TXID_PREFIX_LEN, TxidRow, leading_bits,
    },
    walk::Walk,
};
use crate::chain::{ScriptHash, TxNum};

/// The two column families of one kind of rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forms {
    pub single: &'static str,
    pub packed: &'static str,
}

pub(super) const HISTORY: Forms = Forms {
    single: "history",
    packed: "history_packed",
};

pub(super) const TXID: Forms = Forms {
    single: "txid",
    packed: "txid_packed",
};

impl Index {
    /// Candidates: all transactions that touch a script whose hash has the same prefix, ascending,
    /// `from <= n < below`. Strangers may be among them.
    pub fn touching(
        &self,
        script: &ScriptHash,
        from: TxNum,
        below: TxNum,
    ) -> impl Iterator<Item = Result<TxNum, IndexError>> + '_ {
        let prefix = leading_bits::<SCRIPT_PREFIX_LEN>(&script.0);
        self.with_prefix::<SCRIPT_PREFIX_LEN>(HISTORY, prefix, from, below)
    }

    /// Candidates: all transactions whose txid has the same prefix, ascending, `n < below`.
    pub fn numbered(
        &self,
        txid: &Txid,
        below: TxNum,
    ) -> impl Iterator<Item = Result<TxNum, IndexError>> + '_ {
        let prefix = leading_bits::<TXID_PREFIX_LEN>(txid.as_byte_array());
        self.with_prefix::<TXID_PREFIX_LEN>(TXID, prefix, TxNum::ZERO, below)
    }

    /// All `history` rows, in the order of their prefixes, until `each` has enough.
    pub fn scan_history(
        &self,
        each: &mut dyn FnMut(HistoryRow) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        self.scan::<SCRIPT_PREFIX_LEN>(HISTORY, each)
    }

    /// All `txid` rows, in the order of their prefixes, until `each` has enough.
    pub fn scan_txids(
        &self,
        each: &mut dyn FnMut(TxidRow) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        self.scan::<TXID_PREFIX_LEN>(TXID, each)
    }

    /// Packed rows from this number on do not count.
    pub(super) fn packed_end(&self) -> TxNum {
        TxNum(self.packed_end.load(Ordering::Acquire))
    }

    fn with_prefix<const LEN: usize>(
        &self,
        forms: Forms,
        prefix: u64,
        from: TxNum,
        below: TxNum,
    ) -> impl Iterator<Item = Result<TxNum, IndexError>> + '_ {
        let packed_end = self.packed_end();
        let is_packed = from < packed_end.min(below);
        let packed = is_packed
            .then(|| Packed::<LEN>::of_prefix(self, forms, prefix, from, packed_end.min(below)));
        let packed = packed.into_iter().flatten();
        // Looked for only when the packed rows are over.
        let single = (below > packed_end).then_some(from.max(packed_end));
        let single = single.into_iter().flat_map(move |from| {
            self.single_with_prefix::<LEN>(forms.single, prefix, from, below)
        });
        packed.map(|row| row.map(|row| row.tx)).chain(single)
    }

    fn single_with_prefix<const LEN: usize>(
        &self,
        family: &'static str,
        prefix: u64,
        from: TxNum,
        below: TxNum,
    ) -> impl Iterator<Item = Result<TxNum, IndexError>> + '_ {
        let mut start = [0; 16];
        let mut rows = self.walk(family);
        rows.seek(HashRow::<LEN> { prefix, tx: from }.encode(&mut start));
        std::iter::from_fn(move || {
            let Some(key) = rows.key() else {
                return rows.status().err().map(|error| Err(error.into()));
            };
            let row = HashRow::<LEN>::decode(key).ok_or(DamagedRow { family });
            if row.is_ok_and(|row| row.prefix != prefix || row.tx >= below) {
                return None;
            }
            rows.next();
            Some(row.map(|row| row.tx).map_err(IndexError::from))
        })
        .fuse()
    }

    /// Both forms, merged.
    fn scan<const LEN: usize>(
        &self,
        forms: Forms,
        each: &mut dyn FnMut(HashRow<LEN>) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        let mut packed = Packed::<LEN>::all(self, forms).peekable();
        let mut singles = self.walk_once(forms.single);
        singles.seek_to_first();
        loop {
            let single = match singles.key() {
                Some(key) => Some(HashRow::<LEN>::decode(key).ok_or(DamagedRow {
                    family: forms.single,
                })?),
                None => None,
            };
            singles.status()?;
            let is_packed_next = match (packed.peek(), single) {
                (Some(Ok(row)), Some(single)) => *row < single,
                (Some(_), _) => true,
                (None, _) => false,
            };
            let row = if is_packed_next {
                packed.next().transpose()?
            } else {
                if single.is_some() {
                    singles.next();
                }
                single
            };
            let Some(row) = row else {
                return Ok(());
            };
            if each(row).is_break() {
                return Ok(());
            }
        }
    }

    /// Takes away the rows from `first` on, whosever they are.
    pub(super) fn truncate_hashes(
        &self,
        first: TxNum,
        batch: &mut WriteBatch,
    ) -> Result<(), IndexError> {
        self.truncate_singles::<SCRIPT_PREFIX_LEN>(HISTORY, first, batch)?;
        self.truncate_singles::<TXID_PREFIX_LEN>(TXID, first, batch)
    }

    fn truncate_singles<const LEN: usize>(
        &self,
        forms: Forms,
        first: TxNum,
        batch: &mut WriteBatch,
    ) -> Result<(), IndexError> {
        let family = forms.single;
        let mut rows = self.walk_once(family);
        rows.seek_to_first();
        while let Some(key) = rows.key() {
            let row = HashRow::<LEN>::decode(key).ok_or(DamagedRow { family })?;
            if row.tx >= first {
                batch.delete_cf(self.family(family), key);
            }
            rows.next();
        }
        Ok(rows.status()?)
    }
}

/// Walks through packed rows, group by group.
struct Packed<'a, const LEN: usize> {
    groups: Walk<'a>,
    family: &'static str,
    /// Those of the group in hand that are wanted, the next one last.
    rows: Vec<HashRow<LEN>>,
    wanted: Wanted,
    end: TxNum,
    is_over: bool,
}

#[derive(Clone, Copy)]
enum Wanted {
    All,
    Prefix { prefix: u64, from: TxNum },
}

impl<'a, const LEN: usize> Packed<'a, LEN> {
    fn of_prefix(
        index: &'a Index,
        forms: Forms,
        prefix: u64,
        from: TxNum,
        end: TxNum,
    ) -> Packed<'a, LEN> {
        let mut groups = index.walk(forms.packed);
        let mut key = [0; 16];
        groups.seek(HashRow::<LEN> { prefix, tx: from }.encode(&mut key));
        Packed {
            groups,
            family: forms.packed,
            rows: Vec::new(),
            wanted: Wanted::Prefix { prefix, from },
            end,
            is_over: false,
        }
    }

    fn all(index: &'a Index, forms: Forms) -> Packed<'a, LEN> {
        let mut groups = index.walk_once(forms.packed);
        groups.seek_to_first();
        Packed {
            groups,
            family: forms.packed,
            rows: Vec::new(),
            wanted: Wanted::All,
            end: index.packed_end(),
            is_over: false,
        }
    }

    /// Takes the wanted rows of the group at the iterator, and steps on.
    fn take_group(&mut self) -> Result<(), IndexError> {
        let family = self.family;
        let damaged = || DamagedRow { family };
        let Some((key, value)) = self.groups.item() else {
            self.is_over = true;
            return Ok(self.groups.status()?);
        };
        let last = HashRow::<LEN>::decode(key).ok_or_else(damaged)?;
        let group = Group::<LEN>::of(value).ok_or_else(damaged)?;
        for row in group {
            let row = row.map_err(|_| damaged())?;
            if row > last {
                return Err(damaged().into());
            }
            if let Wanted::Prefix { prefix, from } = self.wanted {
                if row.prefix > prefix {
                    break;
                }
                if row.prefix < prefix || row.tx < from {
                    continue;
                }
            }
            if row.tx < self.end {
                self.rows.push(row);
            }
        }
        self.rows.reverse();
        match self.wanted {
            // The group's last row is behind what is wanted: there is no more.
            Wanted::Prefix { prefix, .. } if last.prefix > prefix || last.tx >= self.end => {
                self.is_over = true;
            }
            Wanted::Prefix { .. } | Wanted::All => self.groups.next(),
        }
        Ok(())
    }
}

impl<const LEN: usize> Iterator for Packed<'_, LEN> {
    type Item = Result<HashRow<LEN>, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.pop() {
                return Some(Ok(row));
            }
            if self.is_over {
                return None;
            }
            if let Err(error) = self.take_group() {
                self.is_over = true;
                self.rows.clear();
                return Some(Err(error));
            }
        }
    }
}
