//! Rows of the first sync, up to 128 to a key: a third less room than one key a row takes even compressed, and
//! nothing to decompress.
//!
//! ```text
//! key    LEN + 4     the group's last row, as a row of its own would be (schema::HashRow)
//! value  1           bytes of a first TxNum, 1 to 4
//!        then for each row, ascending:
//!        1–8         LEB128 of (difference × 2 + 1) if the hash differs from the row's before: of the prefixes,
//!                    for the first row from 0; then the TxNum, little-endian, in so many bytes;
//!                    of (difference × 2) if the hash is the same: of the TxNums
//! ```
//!
//! The first group at or after a row's key is the one that may hold the row. Why: `docs/decisions/0003-packed-rows.md`.
use super::schema::{HashRow, read_leb128, write_leb128};
use crate::chain::TxNum;

/// Most rows of a group: a look-up decodes half of them on average, which takes a fraction of a microsecond. Unit tests
/// have small chains, and their scripts shall have rows in many groups too.
pub const ROWS_PER_GROUP: usize = if cfg!(test) { 5 } else { 128 };

/// Puts ascending rows into groups.
pub struct Packer<const LEN: usize> {
    /// Bytes of a first TxNum.
    width: usize,
    value: Vec<u8>,
    count: usize,
    last: HashRow<LEN>,
}

impl<const LEN: usize> Packer<LEN> {
    /// For rows whose TxNums are all below `end`.
    pub fn new(end: TxNum) -> Packer<LEN> {
        let bits = u32::BITS - end.0.saturating_sub(1).leading_zeros();
        Packer {
            width: bits.div_ceil(8).max(1) as usize,
            value: Vec::with_capacity(ROWS_PER_GROUP * 8),
            count: 0,
            last: HashRow {
                prefix: 0,
                tx: TxNum::ZERO,
            },
        }
    }

    /// Adds a row behind those before. A group that is full goes to `put` as key and value.
    #[inline]
    pub fn push<E>(
        &mut self,
        row: HashRow<LEN>,
        put: impl FnOnce(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        debug_assert!(self.count == 0 || self.last < row, "rows ascend");
        if self.count > 0 && row.prefix == self.last.prefix {
            let difference = row.tx.0 - self.last.tx.0;
            write_leb128(&mut self.value, u64::from(difference) << 1);
        } else {
            let before = if self.count == 0 {
                self.value.push(self.width as u8);
                0
            } else {
                self.last.prefix
            };
            write_leb128(&mut self.value, (row.prefix - before) << 1 | 1);
            self.value
                .extend_from_slice(&row.tx.0.to_le_bytes()[..self.width]);
        }
        self.last = row;
        self.count += 1;
        if self.count == ROWS_PER_GROUP {
            self.close(put)?;
        }
        Ok(())
    }

    /// Hands over what is left.
    pub fn finish<E>(mut self, put: impl FnOnce(&[u8], &[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.count > 0 {
            self.close(put)?;
        }
        Ok(())
    }

    fn close<E>(&mut self, put: impl FnOnce(&[u8], &[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut key = [0; 16];
        put(self.last.encode(&mut key), &self.value)?;
        self.value.clear();
        self.count = 0;
        Ok(())
    }
}

/// The rows of one group, in order.
pub struct Group<'a, const LEN: usize> {
    rest: &'a [u8],
    width: usize,
    row: HashRow<LEN>,
    is_first: bool,
}

impl<'a, const LEN: usize> Group<'a, LEN> {
    /// Of the group's value; `None` where it is none.
    pub fn of(value: &'a [u8]) -> Option<Group<'a, LEN>> {
        let (&width, rest) = value.split_first()?;
        (1..=4).contains(&width).then_some(Group {
            rest,
            width: width.into(),
            row: HashRow {
                prefix: 0,
                tx: TxNum::ZERO,
            },
            is_first: true,
        })
    }

    /// The next row; `Some(None)` behind the last, `None` where the bytes are no rows.
    #[inline]
    fn step(&mut self) -> Option<Option<HashRow<LEN>>> {
        if self.rest.is_empty() {
            return Some(None);
        }
        let number = read_leb128(&mut self.rest)?;
        let (difference, is_other_hash) = (number >> 1, number & 1 == 1);
        if is_other_hash {
            let (tx, rest) = self.rest.split_at_checked(self.width)?;
            self.rest = rest;
            let prefix = self.row.prefix.checked_add(difference)?;
            if prefix >> (8 * LEN) != 0 || (difference == 0 && !self.is_first) {
                return None;
            }
            let mut bytes = [0; 4];
            bytes[..self.width].copy_from_slice(tx);
            self.row = HashRow {
                prefix,
                tx: TxNum(u32::from_le_bytes(bytes)),
            };
        } else {
            if self.is_first || difference == 0 {
                return None;
            }
            let difference = u32::try_from(difference).ok()?;
            self.row.tx = TxNum(self.row.tx.0.checked_add(difference)?);
        }
        self.is_first = false;
        Some(Some(self.row))
    }
}

impl<const LEN: usize> Iterator for Group<'_, LEN> {
    type Item = Result<HashRow<LEN>, NotAGroup>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.step() {
            Some(row) => row.map(Ok),
            None => {
                self.rest = &[];
                Some(Err(NotAGroup))
            }
        }
    }
}

/// The bytes are not what [`Packer`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAGroup;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    type Row = HashRow<6>;
    type Groups = Vec<(Vec<u8>, Vec<u8>)>;

    fn pack(rows: &[Row], end: TxNum) -> Groups {
        let mut groups = Groups::new();
        let mut packer = Packer::<6>::new(end);
        for &row in rows {
            let put = |key: &[u8], value: &[u8]| {
                groups.push((key.to_vec(), value.to_vec()));
                Ok::<_, Infallible>(())
            };
            packer.push(row, put).unwrap();
        }
        let put = |key: &[u8], value: &[u8]| {
            groups.push((key.to_vec(), value.to_vec()));
            Ok::<_, Infallible>(())
        };
        packer.finish(put).unwrap();
        groups
    }

    /// Few hashes, so that many rows share one.
    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let prefix = prop_oneof![0u64..4, 0..1u64 << 48, Just((1 << 48) - 1)];
        let row = (prefix, any::<u32>()).prop_map(|(prefix, tx)| HashRow {
            prefix,
            tx: TxNum(tx >> 1),
        });
        prop::collection::btree_set(row, 0..400).prop_map(|rows| rows.into_iter().collect())
    }

    proptest! {
        #[test]
        fn rows_come_back_in_groups_whose_key_is_their_last(rows in rows()) {
            let end = rows.iter().map(|row| row.tx.0 + 1).max().unwrap_or(0);
            let mut found = Vec::new();
            for (key, value) in pack(&rows, TxNum(end)) {
                let group: Vec<Row> = Group::of(&value).unwrap().map(Result::unwrap).collect();
                prop_assert!(group.len() <= ROWS_PER_GROUP);
                prop_assert_eq!(Row::decode(&key), group.last().copied());
                found.extend(group);
            }
            prop_assert_eq!(found, rows);
        }

        #[test]
        fn any_bytes_are_ascending_rows_or_refused(value: Vec<u8>) {
            if let Some(group) = Group::<6>::of(&value) {
                let rows: Vec<Row> = group.map_while(Result::ok).collect();
                prop_assert!(rows.is_sorted_by(|a, b| a < b));
            }
        }
    }

    #[test]
    fn numbers_take_the_bytes_that_the_greatest_needs() {
        for (end, width) in [
            (0, 1),
            (1, 1),
            (256, 1),
            (257, 2),
            (1 << 24, 3),
            (u32::MAX, 4),
        ] {
            assert_eq!(Packer::<6>::new(TxNum(end)).width, width, "{end}");
        }
    }

    #[test]
    fn what_is_no_group_is_refused() {
        // No width, a width of 5, a row that ends early, a first row of no hash, twice the same row.
        assert!(Group::<6>::of(&[]).is_none());
        assert!(Group::<6>::of(&[5]).is_none());
        for value in [&[2, 3, 1][..], &[1, 2], &[1, 3, 9, 0], &[1, 3, 9, 1, 9]] {
            assert!(
                Group::<6>::of(value).unwrap().any(|row| row.is_err()),
                "{value:?}"
            );
        }
    }
}
