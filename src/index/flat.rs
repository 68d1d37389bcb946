//! Where the first sync's transactions lie in their blocks: a file beside RocksDB's, four bytes for each ([`FlatPosition`]),
//! found by its number alone. Why: `docs/decisions/0006-flat-positions.md`.
//!
//! # Correctness
//! The first sync adds to the file, chunk by chunk; each chunk is on disk before the mark counts on it, and what lies behind
//! the mark goes when the sync goes on. Afterwards the file never changes: blocks at the tip have rows in RocksDB. As of packed rows
//! only those below `packed_end` count. `meta` has a checksum of each chunk. A question does not look at it: what is read at a wrong place is held against
//! the place's own check, and refused.

use std::{
    fs::{File, OpenOptions},
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    ops::ControlFlow,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use sha2::{Digest, Sha256};

use super::{
    IndexError,
    error::file_error,
    schema::{DamagedRow, FlatPosition},
};
use crate::chain::TxNum;

/// Its name, among RocksDB's files: who copies those has it too.
pub(super) const FILE: &str = "tx_position.flat";

const COPY_BYTES: usize = 1 << 20;

/// Of RocksDB's folder.
pub(super) struct FlatFile {
    path: PathBuf,
    /// Opened when it is first read.
    file: OnceLock<File>,
}

fn offset(n: TxNum) -> u64 {
    u64::from(n.0) * FlatPosition::LEN as u64
}

impl FlatFile {
    pub fn in_folder(folder: &Path) -> FlatFile {
        FlatFile {
            path: folder.join(FILE),
            file: OnceLock::new(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self) -> Result<&File, IndexError> {
        match self.file.get() {
            Some(file) => Ok(file),
            None => {
                let opened = File::open(&self.path);
                let file = opened.map_err(|cause| self.error("cannot open", cause))?;
                Ok(self.file.get_or_init(|| file))
            }
        }
    }

    fn error(&self, action: &'static str, cause: std::io::Error) -> IndexError {
        match cause.kind() {
            std::io::ErrorKind::NotFound => {
                IndexError::Corrupt(format!("its file {FILE} is missing"))
            }
            std::io::ErrorKind::UnexpectedEof => {
                IndexError::Corrupt(format!("its file {FILE} ends early"))
            }
            _ => file_error(action, &self.path, cause),
        }
    }

    /// Bytes of the file; 0 where there is none.
    pub fn bytes(&self) -> Result<u64, IndexError> {
        match std::fs::metadata(&self.path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(cause) => Err(self.error("cannot look at", cause)),
        }
    }

    /// An error where the file does not hold all transactions below `end`.
    pub fn check_reaches(&self, end: TxNum) -> Result<(), IndexError> {
        match self.bytes()? {
            bytes if bytes >= offset(end) => Ok(()),
            0 => Err(self.error("", std::io::ErrorKind::NotFound.into())),
            _ => Err(self.error("", std::io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Reads what stands for the transactions from `first` on.
    pub fn read(&self, first: TxNum, out: &mut [u8]) -> Result<(), IndexError> {
        let read = self.file()?.read_exact_at(out, offset(first));
        read.map_err(|cause| self.error("cannot read", cause))
    }

    /// Adds a chunk whose first transaction is `base`, durably; what lay there goes. The chunk's checksum.
    pub fn append<'a>(
        &self,
        base: TxNum,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> Result<[u8; Section::SUM_LEN], IndexError> {
        self.check_reaches(base)?;
        let write = || {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false);
            let mut file = file.open(&self.path)?;
            file.set_len(offset(base))?;
            file.seek(SeekFrom::End(0))?;
            let mut file = BufWriter::with_capacity(COPY_BYTES, file);
            let mut hash = Sha256::new();
            for part in parts {
                hash.update(part);
                file.write_all(part)?;
            }
            file.into_inner()?.sync_all()?;
            if base == TxNum::ZERO
                && let Some(folder) = self.path.parent()
            {
                File::open(folder)?.sync_all()?;
            }
            Ok(sum(hash))
        };
        write().map_err(|cause| self.error("cannot write", cause))
    }

    /// Reads this section; whether it is as it was written. `each` hears how many bytes were read, and may end it: then `None`.
    pub fn is_whole(
        &self,
        section: &Section,
        each: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Option<bool>, IndexError> {
        let mut read = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(offset(section.first)))?;
            let bytes = offset(section.end).saturating_sub(offset(section.first));
            let mut file = BufReader::new(file.take(bytes));
            let (mut hash, mut buffer) = (Sha256::new(), vec![0; COPY_BYTES]);
            loop {
                let count = file.read(&mut buffer)?;
                if count == 0 {
                    return Ok(Some(sum(hash) == section.sum));
                }
                hash.update(&buffer[..count]);
                if each(count as u64).is_break() {
                    return Ok(None);
                }
            }
        };
        read().map_err(|cause| self.error("cannot read", cause))
    }
}

fn sum(hash: Sha256) -> [u8; Section::SUM_LEN] {
    let mut sum = [0; Section::SUM_LEN];
    sum.copy_from_slice(&hash.finalize()[..Section::SUM_LEN]);
    sum
}

/// A part of the file that was written at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub first: TxNum,
    /// Not included.
    pub end: TxNum,
    /// The first bytes of its SHA-256.
    pub sum: [u8; Section::SUM_LEN],
}

impl Section {
    pub const SUM_LEN: usize = 8;

    /// The value of `meta`'s row `position_sums`:
    ///
    /// ```text
    /// for each section, in order:
    /// 4   TxNum behind its last, little-endian
    /// 8   its checksum
    /// ```
    pub fn encode_all(sections: &[Section]) -> Vec<u8> {
        let each = sections.iter().flat_map(|section| {
            let end = section.end.0.to_le_bytes();
            end.into_iter().chain(section.sum)
        });
        each.collect()
    }

    pub fn decode_all(value: &[u8]) -> Result<Vec<Section>, DamagedRow> {
        const LEN: usize = 4 + Section::SUM_LEN;
        let damaged = DamagedRow { family: "meta" };
        let mut first = TxNum::ZERO;
        let (entries, rest) = value.as_chunks::<LEN>();
        if !rest.is_empty() {
            return Err(damaged);
        }
        let sections = entries.iter().map(|[a, b, c, d, sum @ ..]| {
            let section = Section {
                first,
                end: TxNum(u32::from_le_bytes([*a, *b, *c, *d])),
                sum: *sum,
            };
            first = section.end;
            (section.first < section.end)
                .then_some(section)
                .ok_or(damaged)
        });
        sections.collect()
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hex::DisplayHex;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sections_come_back(lengths in prop::collection::vec((1u32..1 << 24, any::<[u8; 8]>()), 0..20)) {
            let mut first = TxNum::ZERO;
            let sections: Vec<Section> = lengths
                .into_iter()
                .map(|(length, sum)| {
                    let end = TxNum(first.0 + length);
                    let section = Section { first, end, sum };
                    first = end;
                    section
                })
                .collect();
            let value = Section::encode_all(&sections);
            prop_assert_eq!(Section::decode_all(&value), Ok(sections));
        }

        #[test]
        fn any_bytes_are_sections_that_ascend_or_refused(value: Vec<u8>) {
            if let Ok(sections) = Section::decode_all(&value) {
                prop_assert!(sections.iter().all(|section| section.first < section.end));
                prop_assert_eq!(Section::encode_all(&sections), value);
            }
        }
    }

    #[test]
    fn the_documents_example_is_what_is_written() {
        let section = Section {
            first: TxNum::ZERO,
            end: TxNum(68),
            sum: sum(Sha256::new_with_prefix([7; 4 * 68])),
        };
        let hex = Section::encode_all(&[section]).to_lower_hex_string();
        let document = include_str!("../../docs/schema.md");
        let lines = document.lines().map(|line| line.replace(' ', ""));
        let line = format!("metaposition_sums:{hex}");
        assert!(lines.into_iter().any(|found| found == line), "{line}");
    }

    #[test]
    fn what_is_added_stands_behind_what_was_there_and_what_was_not_completed_goes() {
        let folder = tempfile::tempdir().unwrap();
        let flat = FlatFile::in_folder(folder.path());
        let entries = |numbers: std::ops::Range<u32>| -> Vec<u8> {
            numbers.flat_map(u32::to_le_bytes).collect()
        };
        let add = |base: u32, numbers: std::ops::Range<u32>| {
            let (first, end) = (TxNum(base), TxNum(base + numbers.len() as u32));
            let bytes = entries(numbers);
            let (one, other) = bytes.split_at(bytes.len() / 3);
            let sum = flat.append(TxNum(base), [one, other].into_iter())?;
            Ok::<_, IndexError>(Section { first, end, sum })
        };
        assert!(add(3, 0..1).is_err(), "nothing to stand behind");
        let first = add(0, 0..10).unwrap();
        add(10, 500..900).unwrap();
        let second = add(10, 10..25).unwrap();
        let mut all = vec![0; 100];
        flat.read(TxNum(0), &mut all).unwrap();
        assert_eq!(all, entries(0..25));
        assert_eq!(flat.bytes().unwrap(), 100);
        assert!(flat.read(TxNum(24), &mut [0; 8]).is_err());
        assert!(flat.check_reaches(TxNum(25)).is_ok());
        assert!(flat.check_reaches(TxNum(26)).is_err());

        // One bit, in either.
        let go_on = &mut |_: u64| ControlFlow::Continue(());
        for (spoilt, whole, at) in [(first, second, 39), (second, first, 40)] {
            all[at] ^= 1;
            std::fs::write(flat.path(), &all).unwrap();
            assert_eq!(flat.is_whole(&spoilt, go_on).unwrap(), Some(false));
            assert_eq!(flat.is_whole(&whole, go_on).unwrap(), Some(true));
            all[at] ^= 1;
        }
        let stop = &mut |_: u64| ControlFlow::Break(());
        assert_eq!(flat.is_whole(&first, stop).unwrap(), None);
    }
}
