//! Building the whole index: an external sort, so that every row is written in its final place.
//!
//! Blocks are taken chunk by chunk, as many as fit the memory that is allowed. A chunk's `history` and
//! `txid` rows are sorted and written to one *run* ([`run`]); its places of transactions and `block` rows are in
//! order as they come, and go to their file and the database at once. After each chunk a mark is set, durably: a kill
//! at any moment loses at most one chunk. When all blocks are in, the runs are merged into sorted
//! files ([`merge`]) that the database takes in whole. Nothing passes through a write-ahead log, a
//! memtable or a compaction.

mod gather;
mod merge;
mod run;

use std::{
    fs,
    path::{Path, PathBuf},
};

pub use gather::Gatherer;

use super::{
    BlockRow, Index, IndexError,
    error::file_error,
    families::{Family, META_POSITION_SUMS, RUNS_FOLDER},
    flat::{Section, position_at},
    ready_files::SortedFile,
    schema::TipRow,
};
use crate::chain::{Height, Node, TxNum};

/// Bits of a transaction's number within its chunk.
const TX_BITS: u32 = 24;

/// Most transactions in a chunk.
pub const CHUNK_TXS_MAX: u32 = 1 << TX_BITS;

const META_MARK: &[u8] = b"sync_mark";
const META_STAGE: &[u8] = b"sync_merged";

/// A first sync in the making.
pub struct Bulk<'a> {
    index: &'a Index,
    folder: PathBuf,
    /// The last block of the last complete chunk.
    mark: Option<TipRow>,
    runs: Vec<run::Run>,
}

impl<'a> Bulk<'a> {
    /// Goes on with the sync that a former process began, or begins one; `None` where the index is
    /// complete up to a tip already.
    pub fn resume(index: &'a Index) -> Result<Option<Bulk<'a>>, IndexError> {
        let folder = index.path().join(RUNS_FOLDER);
        if index.tip()?.is_some() {
            remove_folder(&folder)?;
            return Ok(None);
        }
        fs::create_dir_all(&folder).map_err(|cause| IndexError::File {
            action: "cannot make the folder",
            path: folder.clone(),
            cause,
        })?;
        let mark = index
            .meta(META_MARK)?
            .map(|value| TipRow::decode(&value))
            .transpose()?;
        if let Some(mark) = &mark {
            index.check_block_is_there(mark)?;
            index.check_flat(mark.next_tx)?;
        }
        let mut bulk = Bulk {
            index,
            folder,
            mark,
            runs: Vec::new(),
        };
        bulk.open_runs()?;
        Ok(Some(bulk))
    }

    /// The runs below the mark, in chain order; files of a chunk that was not completed go.
    fn open_runs(&mut self) -> Result<(), IndexError> {
        let marked = self.mark.map_or(TxNum::ZERO, |mark| mark.next_tx);
        let entries =
            fs::read_dir(&self.folder).map_err(|cause| self.file_error("cannot read", cause))?;
        for entry in entries {
            let path = entry
                .map_err(|cause| self.file_error("cannot read", cause))?
                .path();
            let base = run::base_of(&path).filter(|&base| base < marked);
            match base {
                Some(base) => self.runs.push(run::Run::open(&path, base)?),
                None => remove_file(&path)?,
            }
        }
        self.runs.sort_by_key(run::Run::base);
        // Each run begins where the one before it ended, and the last ends at the mark.
        let mut next = TxNum::ZERO;
        for run in &self.runs {
            if run.base() != next {
                return Err(self.damaged(run.path().to_owned()));
            }
            next = run.end();
        }
        if next != marked && !self.is_merged()? {
            return Err(self.damaged(self.folder.join("(missing)")));
        }
        Ok(())
    }

    /// The last block that is safe on disk.
    pub fn mark(&self) -> Option<TipRow> {
        self.mark
    }

    /// The number of the next block's coinbase.
    pub fn next_tx(&self) -> TxNum {
        self.mark.map_or(TxNum::ZERO, |mark| mark.next_tx)
    }

    /// The chain has another branch now: forget all and start over.
    pub fn restart(&mut self) -> Result<(), IndexError> {
        self.runs.clear();
        self.index.set_meta(&[
            (META_MARK, None),
            (META_STAGE, None),
            (META_POSITION_SUMS, None),
        ])?;
        for family in [Family::History, Family::Txid, Family::Block] {
            self.index.clear(family)?;
        }
        self.mark = None;
        remove_folder(&self.folder)?;
        fs::create_dir_all(&self.folder).map_err(|cause| self.file_error("cannot make", cause))
    }

    /// Makes a chunk safe: what the gatherers hold of the blocks up to `tip`. They are empty
    /// afterwards, and can be used again.
    ///
    /// `threads` is how many cores may sort.
    pub fn finish_chunk(
        &mut self,
        gatherers: &mut [Gatherer],
        tip: TipRow,
        threads: usize,
    ) -> Result<(), IndexError> {
        let base = self.next_tx();
        let run = run::write(&self.folder, base, tip.next_tx, gatherers, threads)?;
        let mut blocks: Vec<_> = gatherers
            .iter_mut()
            .flat_map(Gatherer::take_blocks)
            .collect();
        blocks.sort_unstable_by_key(|block| block.height);
        let positions = blocks.iter().map(|block| &block.positions[..]);
        let sum = self.index.positions.append(position_at(base), positions)?;
        self.index.add_merkle_rows(base, &blocks)?;
        let mut sections = self.index.flat_sections()?;
        // What an earlier first sync may have left does not count.
        sections.retain(|section| section.end <= base);
        sections.push(Section {
            first: base,
            end: tip.next_tx,
            sum,
        });
        let headers = self.write_ordered(Family::Block, "blocks.sst", |file| {
            for block in &blocks {
                file.put(&BlockRow::key(block.height), &block.row.encode_value())?;
            }
            Ok(())
        })?;
        self.index.ingest(Family::Block, vec![headers])?;
        self.index.set_meta(&[
            (META_MARK, Some(&tip.encode())),
            (META_POSITION_SUMS, Some(&Section::encode_all(&sections))),
        ])?;
        self.runs.push(run);
        self.mark = Some(tip);
        Ok(())
    }

    /// All blocks are in: sorts the runs into the database and makes the mark its tip. `progress` is
    /// told the share that is done, from 0 to 1. `memory` is in bytes.
    pub fn finish(
        mut self,
        threads: usize,
        memory: usize,
        is_stopped: &(dyn Fn() -> bool + Sync),
        progress: &(dyn Fn(f64) + Sync),
    ) -> Result<Finish, IndexError> {
        let Some(mark) = self.mark else {
            return Ok(Finish::Complete);
        };
        if !self.is_merged()? {
            let files = match merge::merge(
                &self.folder,
                &self.runs,
                threads,
                memory,
                is_stopped,
                progress,
            )? {
                Some(files) => files,
                None => return Ok(Finish::Stopped),
            };
            // Each family's files are taken in all at once. A kill in between leaves one of the two
            // complete; what is there already is not taken in again.
            for (family, files) in [(Family::History, files.history), (Family::Txid, files.txid)] {
                if self.index.is_empty(family) {
                    self.index.ingest(family, files)?;
                }
            }
            self.index.set_meta(&[(META_STAGE, Some(b"yes"))])?;
        }
        self.index.complete(&mark, &[META_MARK, META_STAGE])?;
        self.runs.clear();
        remove_folder(&self.folder)?;
        Ok(Finish::Complete)
    }

    fn is_merged(&self) -> Result<bool, IndexError> {
        // What was taken in last must be there: the end of RocksDB's MANIFEST may be lost where its log is not.
        Ok(self.index.meta(META_STAGE)?.is_some() && !self.index.is_empty(Family::Txid))
    }

    fn write_ordered(
        &self,
        family: Family,
        name: &str,
        put: impl FnOnce(&mut SortedFile) -> Result<(), IndexError>,
    ) -> Result<PathBuf, IndexError> {
        let path = self.folder.join(name);
        let options = SortedFile::options(family);
        let mut file = SortedFile::create(&options, &path)?;
        put(&mut file)?;
        file.finish()?;
        Ok(path)
    }

    fn file_error(&self, action: &'static str, cause: std::io::Error) -> IndexError {
        file_error(action, &self.folder, cause)
    }

    fn damaged(&self, path: PathBuf) -> IndexError {
        IndexError::DamagedRun {
            path,
            folder: self.index.path().to_owned(),
        }
    }
}

/// How [`Bulk::finish`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    Complete,
    /// Asked to stop; the next process merges anew.
    Stopped,
}

fn remove_file(path: &Path) -> Result<(), IndexError> {
    fs::remove_file(path).map_err(|cause| file_error("cannot remove", path, cause))
}

fn remove_folder(path: &Path) -> Result<(), IndexError> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(file_error("cannot remove", path, cause))
        }
        _ => Ok(()),
    }
}

/// A block that a chunk holds.
pub(super) struct GatheredBlock {
    pub height: Height,
    pub row: BlockRow,
    /// As they go to the file.
    pub positions: Box<[u8]>,
    /// Of its merkle tree, see [`super::merkle_rows`].
    pub merkle_row: Box<[Node]>,
}

/// Reads these bytes as a run's sections and directory: its trailer's digest and mark are made to fit.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(bytes: &[u8]) {
    use sha2::{Digest, Sha256};
    const DIRECTORY_LEN: usize = 2 * gather::BUCKETS * 32;
    // The fuzzer's bytes are the directory's first entries and what the sections hold.
    let (entries, sections) = bytes.split_at(bytes.len().min(4 * 32));
    let mut file = sections.to_vec();
    let mut directory = vec![0; DIRECTORY_LEN];
    directory[..entries.len()].copy_from_slice(entries);
    directory.extend_from_slice(&7u32.to_le_bytes());
    let digest = Sha256::digest(&directory);
    file.extend_from_slice(&directory);
    file.extend_from_slice(&digest);
    file.extend_from_slice(b"ambrarun");
    // Tests run on several threads of one process, fuzzers in several processes.
    let (process, thread) = (std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(format!("ambra-fuzz-run-{process}-{thread:?}"));
    let written = fs::write(&path, &file);
    written.expect("the temporary directory takes a file");
    if let Ok(run) = run::Run::open(&path, TxNum(0)) {
        for kind in [run::Kind::History, run::Kind::Txid] {
            for bucket in 0..gather::BUCKETS {
                let mut reader = run.read(kind, bucket, 0);
                while let Ok(Some(_)) = reader.next() {}
            }
        }
    }
    let _ = fs::remove_file(&path);
}
