//! Files beside RocksDB's, of entries of one size that are found by their number alone. The first sync writes them.
//!
//! - [`POSITIONS`]: where transactions lie in their blocks, four bytes for each ([`FlatPosition`]). Why:
//!   `docs/decisions/0006-flat-positions.md`.
//! - [`MERKLE`]: of each block's merkle tree the row over groups of 64 transactions. Why: `docs/decisions/0007-merkle-rows.md`.
//!
//! # Correctness
//! The first sync adds to the files, chunk by chunk; each chunk is on disk before the mark counts on it, and what lies behind
//! the mark goes when the sync goes on. Afterwards they never change: blocks at the tip have rows in RocksDB. As of packed rows
//! only what is below `packed_end` counts. `meta` has a checksum of each chunk of places. A question does not look at it: what is
//! read at a wrong place is held against the place's own check, and refused. A row of a merkle tree is held against the block's header.

use std::{
    fs::{File, OpenOptions},
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    ops::{ControlFlow, Range},
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

/// Their names, among RocksDB's files: who copies those has them too.
pub(super) const POSITIONS: &str = "tx_position.flat";
pub(super) const MERKLE: &str = "merkle.flat";

const COPY_BYTES: usize = 1 << 20;

/// The file's name, and the file in RocksDB's folder.
pub(super) struct FlatFile {
    name: &'static str,
    path: PathBuf,
    /// Opened with the index, or when it is first read.
    file: OnceLock<File>,
}

/// Where transaction `n` has its place in [`POSITIONS`], in bytes.
pub(super) fn position_at(n: TxNum) -> u64 {
    u64::from(n.0) * FlatPosition::LEN as u64
}

impl FlatFile {
    pub fn in_folder(folder: &Path, name: &'static str) -> FlatFile {
        FlatFile {
            name,
            path: folder.join(name),
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
        let name = self.name;
        match cause.kind() {
            std::io::ErrorKind::NotFound => {
                IndexError::Corrupt(format!("its file {name} is missing"))
            }
            std::io::ErrorKind::UnexpectedEof => {
                IndexError::Corrupt(format!("its file {name} ends early"))
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

    /// Opens the file, and keeps it open: what becomes of its folder's rights then is no matter. An error where it has fewer
    /// bytes.
    pub fn check_reaches(&self, end: u64) -> Result<(), IndexError> {
        if end == 0 {
            return Ok(());
        }
        let metadata = self.file()?.metadata();
        match metadata
            .map_err(|cause| self.error("cannot look at", cause))?
            .len()
        {
            bytes if bytes >= end => Ok(()),
            _ => Err(self.error("", std::io::ErrorKind::UnexpectedEof.into())),
        }
    }

    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), IndexError> {
        let read = self.file()?.read_exact_at(out, at);
        read.map_err(|cause| self.error("cannot read", cause))
    }

    /// Adds a chunk that begins at `at`, durably; what lay there goes. The chunk's checksum.
    pub fn append<'a>(
        &self,
        at: u64,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> Result<[u8; Section::SUM_LEN], IndexError> {
        let write = || {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false);
            let mut file = file.open(&self.path)?;
            file.set_len(at)?;
            file.seek(SeekFrom::End(0))?;
            let mut file = BufWriter::with_capacity(COPY_BYTES, file);
            let mut hash = Sha256::new();
            for part in parts {
                hash.update(part);
                file.write_all(part)?;
            }
            file.into_inner()?.sync_all()?;
            if at == 0
                && let Some(folder) = self.path.parent()
            {
                File::open(folder)?.sync_all()?;
            }
            Ok(sum(hash))
        };
        write().map_err(|cause| self.error("cannot write", cause))
    }

    /// The checksum of these bytes. `each` hears how many were read, and may end it: then `None`.
    pub fn sum(
        &self,
        bytes: Range<u64>,
        each: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Option<[u8; Section::SUM_LEN]>, IndexError> {
        let mut read = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(bytes.start))?;
            let mut file = BufReader::new(file.take(bytes.end.saturating_sub(bytes.start)));
            let (mut hash, mut buffer) = (Sha256::new(), vec![0; COPY_BYTES]);
            loop {
                let count = file.read(&mut buffer)?;
                if count == 0 {
                    return Ok(Some(sum(hash)));
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

/// A part of [`POSITIONS`] that was written at once.
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

    /// Whether it is as it was written; `None` where `each` ended it.
    pub fn is_whole(
        &self,
        file: &FlatFile,
        each: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Option<bool>, IndexError> {
        let bytes = position_at(self.first)..position_at(self.end);
        let sum = file.sum(bytes, each)?;
        Ok(sum.map(|sum| sum == self.sum))
    }

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
        let flat = FlatFile::in_folder(folder.path(), POSITIONS);
        let entries = |numbers: std::ops::Range<u32>| -> Vec<u8> {
            numbers.flat_map(u32::to_le_bytes).collect()
        };
        let add = |base: u32, numbers: std::ops::Range<u32>| {
            let (first, end) = (TxNum(base), TxNum(base + numbers.len() as u32));
            let bytes = entries(numbers);
            let (one, other) = bytes.split_at(bytes.len() / 3);
            let sum = flat.append(position_at(first), [one, other].into_iter());
            let sum = sum.unwrap();
            Section { first, end, sum }
        };
        let first = add(0, 0..10);
        add(10, 500..900);
        let second = add(10, 10..25);
        let mut all = vec![0; 100];
        flat.read(0, &mut all).unwrap();
        assert_eq!(all, entries(0..25));
        assert_eq!(flat.bytes().unwrap(), 100);
        assert!(flat.read(96, &mut [0; 8]).is_err());
        assert!(flat.check_reaches(100).is_ok());
        assert!(flat.check_reaches(101).is_err());

        // One bit, in either.
        let go_on = &mut |_: u64| ControlFlow::Continue(());
        for (spoilt, whole, at) in [(first, second, 39), (second, first, 40)] {
            all[at] ^= 1;
            std::fs::write(flat.path(), &all).unwrap();
            assert_eq!(spoilt.is_whole(&flat, go_on).unwrap(), Some(false));
            assert_eq!(whole.is_whole(&flat, go_on).unwrap(), Some(true));
            all[at] ^= 1;
        }
        let stop = &mut |_: u64| ControlFlow::Break(());
        assert_eq!(first.is_whole(&flat, stop).unwrap(), None);
    }
}
