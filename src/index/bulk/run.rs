//! A run: one chunk's `history` and `txid` rows on disk, sorted within each bucket.
//!
//! ```text
//! sections   one for each family and bucket that has rows, in any order: the rows of the bucket,
//!            ascending, each as LEB128 of its difference from the one before
//! directory  512 × (offset, bytes, rows: 8 bytes each, little-endian; checksum: 8 bytes, the first of
//!            the section's SHA-256), history's buckets, then txid's
//! trailer    TxNum behind the last (4), SHA-256 of directory and that number (32), "ambrarun" (8)
//! ```
//!
//! The file's name says its first TxNum: `run-0000000000`. It is written under another name and
//! renamed when it is on disk.

use std::{
    fs::File,
    io::{BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use sha2::{Digest, Sha256};

use super::{
    Gatherer, IndexError, file_error,
    gather::{BUCKETS, Bucket},
};
use crate::{
    chain::TxNum,
    index::schema::{read_leb128, write_leb128},
};

const MAGIC: &[u8; 8] = b"ambrarun";
const ENTRY_LEN: usize = 32;
const DIRECTORY_LEN: usize = 2 * BUCKETS * ENTRY_LEN;
const TRAILER_LEN: usize = 4 + 32 + 8;

/// How much of a section is read at once: at least and at most. Reading takes turns between the runs, and on a hard disk each turn is
/// a seek.
const READ_BYTES: std::ops::RangeInclusive<usize> = 64 << 10..=8 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Section {
    offset: u64,
    bytes: u64,
    rows: u64,
    checksum: [u8; 8],
}

/// Which of the two families that runs hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    History,
    Txid,
}

/// A complete run.
pub struct Run {
    path: PathBuf,
    file: File,
    base: TxNum,
    end: TxNum,
    sections: Vec<Section>,
}

/// The first TxNum of the run with this file name.
pub fn base_of(path: &Path) -> Option<TxNum> {
    path.file_name()?
        .to_str()?
        .strip_prefix("run-")?
        .parse()
        .ok()
        .map(TxNum)
}

/// Sorts what the gatherers hold and writes it as one run, durably.
pub fn write(
    folder: &Path,
    base: TxNum,
    end: TxNum,
    gatherers: &mut [Gatherer],
    threads: usize,
) -> Result<Run, IndexError> {
    let unfinished = folder.join("unfinished");
    let error = |cause| file_error("cannot write", &unfinished, cause);
    let out = File::create(&unfinished).map_err(error)?;
    let out = Mutex::new((BufWriter::with_capacity(1 << 20, out), 0u64));
    // Each bucket of each gatherer goes to the thread that sorts this bucket.
    let mut parts: Vec<Vec<&mut Bucket>> = (0..2 * BUCKETS).map(|_| Vec::new()).collect();
    for gatherer in gatherers {
        let buckets = gatherer.history.iter_mut().chain(&mut gatherer.txid);
        parts
            .iter_mut()
            .zip(buckets)
            .for_each(|(part, bucket)| part.push(bucket));
    }
    let parts: Vec<_> = parts.into_iter().map(Mutex::new).collect();
    let next = AtomicUsize::new(0);
    let sort = || -> Result<Vec<(usize, Section)>, std::io::Error> {
        let (mut rows, mut bytes, mut sections) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(number) else {
                return Ok(sections);
            };
            let mut part = part.lock().expect("no thread panicked with a bucket");
            rows.clear();
            part.iter_mut()
                .for_each(|bucket| bucket.drain_into(&mut rows));
            if rows.is_empty() {
                continue;
            }
            rows.sort_unstable();
            rows.dedup();
            bytes.clear();
            let mut before = 0;
            for &row in &rows {
                write_leb128(&mut bytes, row - before);
                before = row;
            }
            let checksum = checksum(&bytes);
            let mut out = out.lock().expect("no thread panicked while writing");
            let (file, offset) = &mut *out;
            file.write_all(&bytes)?;
            let section = Section {
                offset: *offset,
                bytes: bytes.len() as u64,
                rows: rows.len() as u64,
                checksum,
            };
            *offset += section.bytes;
            sections.push((number, section));
        }
    };
    let written: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(sort)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("sorting does not panic"))
            .collect()
    });
    let mut sections = vec![Section::default(); 2 * BUCKETS];
    for part in written {
        for (number, section) in part.map_err(error)? {
            sections[number] = section;
        }
    }
    let (mut file, _) = out.into_inner().expect("no thread panicked while writing");
    let mut directory = Vec::with_capacity(DIRECTORY_LEN + TRAILER_LEN);
    for section in &sections {
        for number in [section.offset, section.bytes, section.rows] {
            directory.extend_from_slice(&number.to_le_bytes());
        }
        directory.extend_from_slice(&section.checksum);
    }
    directory.extend_from_slice(&end.0.to_le_bytes());
    let digest = Sha256::digest(&directory);
    directory.extend_from_slice(&digest);
    directory.extend_from_slice(MAGIC);
    file.write_all(&directory).map_err(error)?;
    let file = file
        .into_inner()
        .map_err(|cause| error(cause.into_error()))?;
    file.sync_all().map_err(error)?;
    let path = folder.join(format!("run-{:010}", base.0));
    std::fs::rename(&unfinished, &path).map_err(error)?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(error)?;
    Run::open(&path, base)
}

impl Run {
    pub fn open(path: &Path, base: TxNum) -> Result<Run, IndexError> {
        let error = |cause| file_error("cannot read", path, cause);
        let damaged = || IndexError::DamagedRun {
            path: path.to_owned(),
            folder: path
                .parent()
                .and_then(Path::parent)
                .unwrap_or(path)
                .to_owned(),
        };
        let file = File::open(path).map_err(error)?;
        let len = file.metadata().map_err(error)?.len();
        let tail_len = DIRECTORY_LEN + TRAILER_LEN;
        let at = len.checked_sub(tail_len as u64).ok_or_else(damaged)?;
        let mut tail = vec![0; tail_len];
        file.read_exact_at(&mut tail, at).map_err(error)?;
        let (signed, rest) = tail.split_at(DIRECTORY_LEN + 4);
        if rest[..32] != *Sha256::digest(signed) || rest[32..] != *MAGIC {
            return Err(damaged());
        }
        let (directory, end) = signed.split_at(DIRECTORY_LEN);
        let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
        let sections: Vec<Section> = directory
            .chunks_exact(ENTRY_LEN)
            .map(|entry| Section {
                offset: word(&entry[..8]),
                bytes: word(&entry[8..16]),
                rows: word(&entry[16..24]),
                checksum: word(&entry[24..]).to_le_bytes(),
            })
            .collect();
        let end = TxNum(end.try_into().map(u32::from_le_bytes).unwrap_or_default());
        if sections
            .iter()
            .any(|section| section.offset.saturating_add(section.bytes) > at)
        {
            return Err(damaged());
        }
        Ok(Run {
            path: path.to_owned(),
            file,
            base,
            end,
            sections,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn base(&self) -> TxNum {
        self.base
    }

    /// The number behind its last transaction.
    pub fn end(&self) -> TxNum {
        self.end
    }

    /// How many rows it holds of a bucket.
    pub fn rows(&self, kind: Kind, bucket: usize) -> u64 {
        self.section(kind, bucket).rows
    }

    fn section(&self, kind: Kind, bucket: usize) -> &Section {
        match kind {
            Kind::History => &self.sections[bucket],
            Kind::Txid => &self.sections[BUCKETS + bucket],
        }
    }

    /// Reads a bucket's rows, ascending. `memory` is how many bytes the reader may take, if they are enough.
    pub fn read(&self, kind: Kind, bucket: usize, memory: usize) -> SectionReader<'_> {
        let section = *self.section(kind, bucket);
        SectionReader {
            run: self,
            section,
            rows_left: section.rows,
            bytes_left: section.bytes,
            read_bytes: memory.clamp(*READ_BYTES.start(), *READ_BYTES.end()),
            buffer: Vec::new(),
            at: 0,
            before: 0,
            hash: Sha256::new(),
        }
    }
}

/// The rows of one bucket of a run.
pub struct SectionReader<'a> {
    run: &'a Run,
    section: Section,
    rows_left: u64,
    /// Bytes that have not been read from the file.
    bytes_left: u64,
    /// How much is read at once.
    read_bytes: usize,
    buffer: Vec<u8>,
    at: usize,
    before: u64,
    hash: Sha256,
}

impl SectionReader<'_> {
    /// The next row; an error where the section's bytes are not those that were written.
    #[inline]
    pub fn next(&mut self) -> Result<Option<u64>, IndexError> {
        /// Longest LEB128 of 64 bits.
        const ROW_BYTES_MAX: usize = 10;
        if self.rows_left == 0 {
            return Ok(None);
        }
        if self.buffer.len() - self.at < ROW_BYTES_MAX && self.bytes_left > 0 {
            self.fill()?;
        }
        let mut rest = &self.buffer[self.at..];
        let before_len = rest.len();
        let difference = read_leb128(&mut rest).ok_or_else(|| self.damaged())?;
        self.at += before_len - rest.len();
        self.before = self
            .before
            .checked_add(difference)
            .ok_or_else(|| self.damaged())?;
        self.rows_left -= 1;
        if self.rows_left == 0 && self.hash.clone().finalize()[..8] != self.section.checksum {
            return Err(self.damaged());
        }
        Ok(Some(self.before))
    }

    fn fill(&mut self) -> Result<(), IndexError> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let kept = self.buffer.len();
        let count = usize::try_from(self.bytes_left)
            .unwrap_or(self.read_bytes)
            .min(self.read_bytes);
        self.buffer.resize(kept + count, 0);
        let offset = self.section.offset + self.section.bytes - self.bytes_left;
        self.run
            .file
            .read_exact_at(&mut self.buffer[kept..], offset)
            .map_err(|cause| file_error("cannot read", &self.run.path, cause))?;
        self.hash.update(&self.buffer[kept..]);
        self.bytes_left -= count as u64;
        Ok(())
    }

    pub fn damaged(&self) -> IndexError {
        let path = self.run.path.clone();
        let folder = path
            .parent()
            .and_then(Path::parent)
            .unwrap_or(&path)
            .to_owned();
        IndexError::DamagedRun { path, folder }
    }
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let digest = Sha256::digest(bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    first
}
