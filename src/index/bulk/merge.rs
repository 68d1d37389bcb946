//! From runs to the database's own sorted files: every row is written once, where it stays.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    ops::Range,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::{
    IndexError, TX_BITS,
    gather::{BUCKETS, unpack},
    run::{Kind, Run},
};
use crate::{
    chain::TxNum,
    index::{
        families::Family,
        packed::Packer,
        ready_files::SortedFile,
        schema::{SCRIPT_PREFIX_LEN, TXID_PREFIX_LEN},
    },
};

/// About how many rows one file holds: some 100 MB on disk.
const FILE_ROWS: u64 = 16 << 20;

/// At least so many files a thread, so that all are busy to the end.
const FILES_PER_THREAD: u64 = 4;

/// Rows between two looks at the stop sign.
const ROWS_PER_LOOK: u64 = 1 << 16;

/// The files of the two families, in key order.
pub struct Files {
    pub history: Vec<PathBuf>,
    pub txid: Vec<PathBuf>,
}

struct Job {
    kind: Kind,
    buckets: Range<usize>,
    path: PathBuf,
}

/// Merges all runs with at most about `memory` bytes for reading them; `None` where it was stopped.
pub fn merge(
    folder: &Path,
    runs: &[Run],
    threads: usize,
    memory: usize,
    is_stopped: &(dyn Fn() -> bool + Sync),
    progress: &(dyn Fn(f64) + Sync),
) -> Result<Option<Files>, IndexError> {
    let jobs: Vec<Job> = [(Kind::History, "history"), (Kind::Txid, "txid")]
        .into_iter()
        .flat_map(|(kind, name)| {
            let parts = split(kind, runs, threads);
            parts
                .into_iter()
                .enumerate()
                .map(move |(number, buckets)| Job {
                    kind,
                    buckets,
                    path: folder.join(format!("{name}-{number:05}.sst")),
                })
        })
        .collect();
    let total: u64 = count(Kind::History, 0..BUCKETS, runs) + count(Kind::Txid, 0..BUCKETS, runs);
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let look = |rows: u64| {
        let done = done.fetch_add(rows, Ordering::Relaxed) + rows;
        progress(done as f64 / total.max(1) as f64);
        !is_stopped()
    };
    let memory = memory / (threads.max(1) * runs.len().max(1));
    let work = || -> Result<bool, IndexError> {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let went_on = match job.kind {
                Kind::History => {
                    write::<SCRIPT_PREFIX_LEN>(Family::History, job, runs, memory, &look)?
                }
                Kind::Txid => write::<TXID_PREFIX_LEN>(Family::Txid, job, runs, memory, &look)?,
            };
            if !went_on {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let ends: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("merging does not panic"))
            .collect()
    });
    for end in ends {
        if !end? {
            return Ok(None);
        }
    }
    let of = |kind| {
        jobs.iter()
            .filter(|job| job.kind == kind)
            .map(|job| job.path.clone())
            .collect()
    };
    Ok(Some(Files {
        history: of(Kind::History),
        txid: of(Kind::Txid),
    }))
}

fn count(kind: Kind, buckets: Range<usize>, runs: &[Run]) -> u64 {
    buckets
        .map(|bucket| runs.iter().map(|run| run.rows(kind, bucket)).sum::<u64>())
        .sum()
}

/// Which buckets go into which file. No file is without rows.
fn split(kind: Kind, runs: &[Run], threads: usize) -> Vec<Range<usize>> {
    let total = count(kind, 0..BUCKETS, runs);
    let target = FILE_ROWS
        .min(total / (threads as u64 * FILES_PER_THREAD).max(1))
        .max(1);
    let (mut parts, mut start, mut rows) = (Vec::new(), 0, 0);
    for bucket in 0..BUCKETS {
        rows += count(kind, bucket..bucket + 1, runs);
        if rows >= target || (bucket + 1 == BUCKETS && rows > 0) {
            parts.push(start..bucket + 1);
            (start, rows) = (bucket + 1, 0);
        }
    }
    parts
}

/// Writes one file; false where it was stopped.
fn write<const LEN: usize>(
    family: Family,
    job: &Job,
    runs: &[Run],
    memory: usize,
    look: &dyn Fn(u64) -> bool,
) -> Result<bool, IndexError> {
    let options = SortedFile::options(family);
    let mut file = SortedFile::create(&options, &job.path)?;
    let mut packer = Packer::<LEN>::new(runs.last().map_or(TxNum::ZERO, Run::end));
    let mut rows = 0;
    let mut last = None;
    for bucket in job.buckets.clone() {
        // In the heap: the next row's prefix bits, then the run: runs are in chain order, so rows of
        // one prefix come out in chain order.
        let mut readers: Vec<_> = runs
            .iter()
            .map(|run| run.read(job.kind, bucket, memory))
            .collect();
        let mut heap = BinaryHeap::with_capacity(runs.len());
        for (number, reader) in readers.iter_mut().enumerate() {
            if let Some(row) = reader.next()? {
                heap.push(Reverse((row >> TX_BITS, number, row)));
            }
        }
        while let Some(Reverse((_, number, mut row))) = heap.pop() {
            let base = runs[number].base();
            // With one run, or a busy script, the next row is of the same run: no need for the heap.
            let next = heap
                .peek()
                .map_or((u64::MAX, usize::MAX), |next| (next.0.0, next.0.1));
            loop {
                let unpacked = unpack::<LEN>(bucket, row, base);
                // A damaged section may be told by its checksum only when its last row has been read.
                if last.is_some_and(|last| unpacked <= last) {
                    return Err(readers[number].damaged());
                }
                last = Some(unpacked);
                packer.push(unpacked, |key, value| file.put(key, value))?;
                rows += 1;
                if rows == ROWS_PER_LOOK {
                    if !look(rows) {
                        return Ok(false);
                    }
                    rows = 0;
                }
                let Some(following) = readers[number].next()? else {
                    break;
                };
                row = following;
                let here = row >> TX_BITS;
                if (here, number) > next {
                    heap.push(Reverse((here, number, row)));
                    break;
                }
            }
        }
    }
    packer.finish(|key, value| file.put(key, value))?;
    file.finish()?;
    Ok(look(rows))
}
