//! The first sync: all blocks but the newest, chunk by chunk, on all cores.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{Stop, SyncError, branch::about_heights, plan::PlannedBlock};
use crate::{
    chain::{BlockView, Height, ParseError, SpentReader, TxNum},
    daemon::{
        files::BlockFiles,
        rpc::Rpc,
        source::{BlockSource, SourceKind},
    },
    index::{Bulk, Gatherer, TipRow},
};

/// Blocks nearest to the tip that are connected one by one: they may yet be reorganized away, and a
/// reorganization while the first sync runs then costs nothing. A deeper one is undone afterwards, like
/// any other.
pub const LIVE_BLOCKS: Height = 10;

/// A thread takes blocks of at least so many bytes at a time; 8 MB keeps a disk's head in place.
const RUN_BYTES: u64 = 8 << 20;

/// Blocks of a run whose sizes are not known beforehand (REST, RPC).
const RUN_BLOCKS_UNKNOWN: usize = 4;

/// Between two tries to get a block that the node does not give.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Tries after which a node whose chain has become too short for a block is believed: one that was killed may yet
/// get its newest blocks again.
const TRIES_MAX: u32 = 10;

/// Share of the allowed memory that rows may take; the rest is for blocks in hand and for sorting.
const ROWS_SHARE: f64 = 0.7;

/// Told how far the sync is.
pub trait Progress: Sync {
    fn phase(&self, text: &str);
    /// Work done and to be done: bytes of blocks (files), else transactions.
    fn blocks(&self, height: Height, done_bytes: u64, all_bytes: u64, done_txs: u64, all_txs: u64);
    fn merging(&self, share: f64);
}

/// What all of a first sync needs.
pub struct Course<'a> {
    pub plan: &'a [PlannedBlock],
    pub source: &'a BlockSource,
    pub rpc: &'a Rpc,
    /// Bytes.
    pub memory: usize,
    pub threads: usize,
    pub stop: &'a Stop,
    pub progress: &'a dyn Progress,
}

/// Indexes all planned blocks. Returns at once where they are indexed already, and with [`SyncError::ChainChanged`] where
/// one of them cannot be had any more: then they are to be planned again.
pub fn run(mut bulk: Bulk, course: &Course) -> Result<(), SyncError> {
    let Course {
        plan,
        source,
        memory,
        threads,
        stop,
        progress,
        ..
    } = *course;
    if let Some(mark) = bulk.mark() {
        let planned = plan.get(mark.height as usize);
        if planned.is_some_and(|block| block.hash == mark.hash) {
            tracing::info!("going on with the first sync at block {}", mark.height + 1);
        } else {
            tracing::warn!(
                "the chain has changed below block {}; starting the first sync again",
                mark.height
            );
            bulk.restart()?;
        }
    }
    // Workers that wait for the node's answers are no load on this side.
    let workers = match source.kind() {
        SourceKind::Files => threads,
        SourceKind::Rest | SourceKind::Rpc => threads * 2,
    };
    let mut gatherers: Vec<Gatherer> = (0..workers).map(|_| Gatherer::default()).collect();
    let totals = Totals::new(plan);
    loop {
        let start = bulk.mark().map_or(0, |mark| mark.height as usize + 1);
        if start >= plan.len() {
            break;
        }
        let end = gather(&mut gatherers, course, start, &totals)?;
        let last = &plan[end - 1];
        let next_tx = TxNum(last.first_tx.0 + last.tx_count);
        let tip = TipRow {
            height: (end - 1) as Height,
            hash: last.hash,
            next_tx,
        };
        bulk.finish_chunk(&mut gatherers, tip, threads)?;
        tracing::debug!("blocks up to {} are safe on disk", tip.height);
    }
    drop(gatherers);
    progress.merging(0.0);
    let end = bulk.finish(threads, memory, &|| stop.is_set(), &|share| {
        progress.merging(share);
    })?;
    match end {
        crate::index::Finish::Complete => Ok(()),
        crate::index::Finish::Stopped => Err(SyncError::Stopped),
    }
}

/// How much there is to do, summed up from the front.
struct Totals {
    bytes: u64,
    txs: u64,
    done_bytes: AtomicU64,
    done_txs: AtomicU64,
}

impl Totals {
    fn new(plan: &[PlannedBlock]) -> Totals {
        Totals {
            bytes: plan.iter().map(|block| u64::from(block.place.size)).sum(),
            txs: plan.iter().map(|block| u64::from(block.tx_count)).sum(),
            done_bytes: AtomicU64::new(0),
            done_txs: AtomicU64::new(0),
        }
    }
}

/// Fills the gatherers from block `start` on, until the memory is used up; returns the height behind the last.
fn gather(
    gatherers: &mut [Gatherer],
    course: &Course,
    start: usize,
    totals: &Totals,
) -> Result<usize, SyncError> {
    let Course { plan, stop, .. } = *course;
    let rows_bytes_max = (course.memory as f64 * ROWS_SHARE) as usize;
    let base = plan[start].first_tx;
    let sum = |f: fn(&PlannedBlock) -> u64| plan[..start].iter().map(f).sum::<u64>();
    totals
        .done_bytes
        .store(sum(|block| block.place.size.into()), Ordering::Relaxed);
    totals
        .done_txs
        .store(sum(|block| block.tx_count.into()), Ordering::Relaxed);
    let (next, used, failed) = (
        Mutex::new(start),
        AtomicUsize::new(0),
        AtomicBool::new(false),
    );
    let take = || {
        if stop.is_set() || failed.load(Ordering::Relaxed) {
            return None;
        }
        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *next;
        let mut bytes = 0;
        while let Some(block) = plan.get(*next) {
            let fits = block.first_tx.0 - base.0 + block.tx_count <= crate::index::CHUNK_TXS_MAX;
            let is_enough = bytes >= RUN_BYTES
                || (block.place.size == 0 && *next - first >= RUN_BLOCKS_UNKNOWN);
            let is_full = *next > start && used.load(Ordering::Relaxed) >= rows_bytes_max;
            if !fits || is_enough || is_full {
                break;
            }
            bytes += u64::from(block.place.size);
            *next += 1;
        }
        (first < *next).then_some(first..*next)
    };
    let work = |gatherer: &mut Gatherer| {
        let mut buffers = Buffers::default();
        while let Some(heights) = take() {
            let before = gatherer.bytes();
            for height in heights {
                let block = &plan[height];
                add_block(
                    gatherer,
                    height as Height,
                    base,
                    block,
                    course,
                    &mut buffers,
                )
                .inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
                let bytes = totals
                    .done_bytes
                    .fetch_add(block.place.size.into(), Ordering::Relaxed);
                let txs = totals
                    .done_txs
                    .fetch_add(block.tx_count.into(), Ordering::Relaxed);
                course
                    .progress
                    .blocks(height as Height, bytes, totals.bytes, txs, totals.txs);
            }
            used.fetch_add(gatherer.bytes() - before, Ordering::Relaxed);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = gatherers
            .iter_mut()
            .map(|gatherer| scope.spawn(|| work(gatherer)))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or(Err(SyncError::Panicked)))
    })?;
    if stop.is_set() {
        return Err(SyncError::Stopped);
    }
    Ok(next.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What a thread reads into, again and again.
#[derive(Default)]
struct Buffers {
    block: Vec<u8>,
    undo: Vec<u8>,
}

/// Adds one block from the files; where they do not give it or are not sure of it, or what they give is
/// damaged, from the node.
fn add_block(
    gatherer: &mut Gatherer,
    height: Height,
    base: TxNum,
    planned: &PlannedBlock,
    course: &Course,
    buffers: &mut Buffers,
) -> Result<(), SyncError> {
    let source = course.source;
    if let Some(files) = source
        .files()
        .filter(|_| planned.place.is_in_file())
        .filter(|_| !planned.place.is_undo_unsure() || planned.tx_count == 1)
    {
        match add_from_files(gatherer, height, base, planned, files, buffers) {
            Ok(()) => return Ok(()),
            Err(error) => {
                tracing::warn!(
                    "block {height} ({}) cannot be read: {error}; asking the node for it",
                    planned.place
                );
            }
        }
    }
    let (mut is_first, mut tries_too_high) = (true, 0);
    loop {
        let fetched = source.fetch(&planned.hash).and_then(|block| {
            let spent = if planned.tx_count == 1 {
                crate::chain::SpentOutputs::none()
            } else {
                source.fetch_spent(&planned.hash)?
            };
            Ok((block, spent))
        });
        let error = match fetched {
            Ok((bytes, spent)) => {
                let place = source.place_again(planned.place, &bytes);
                let added = BlockView::parse(&bytes).and_then(|block| {
                    check_is_planned(&block, planned)?;
                    gatherer.add(
                        height,
                        base,
                        planned.first_tx,
                        place,
                        &block,
                        spent.reader()?,
                    )
                });
                match added {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        return Err(SyncError::BadBlock {
                            height,
                            hash: planned.hash,
                            error,
                        });
                    }
                }
            }
            Err(error) => error,
        };
        if std::mem::take(&mut is_first) {
            tracing::warn!("the node does not give block {height}: {error}; trying again");
        }
        let is_gone = match course.rpc.block_hash(height).map_err(about_heights) {
            Ok(hash) => hash != planned.hash,
            Err(SyncError::ChainChanged) => {
                tries_too_high += 1;
                tries_too_high >= TRIES_MAX
            }
            // It is away, or starting.
            Err(_) => false,
        };
        if is_gone {
            return Err(SyncError::ChainChanged);
        }
        if course.stop.wait(TRY_AGAIN) {
            return Err(SyncError::Stopped);
        }
    }
}

fn add_from_files(
    gatherer: &mut Gatherer,
    height: Height,
    base: TxNum,
    planned: &PlannedBlock,
    files: &BlockFiles,
    buffers: &mut Buffers,
) -> Result<(), SyncError> {
    files.block(&planned.place, &mut buffers.block)?;
    let bad = |error| SyncError::BadBlock {
        height,
        hash: planned.hash,
        error,
    };
    let block = BlockView::parse(&buffers.block).map_err(bad)?;
    check_is_planned(&block, planned).map_err(bad)?;
    if planned.tx_count == 1 {
        let spent = SpentReader::undo(&[0]).map_err(bad)?;
        return gatherer
            .add(height, base, planned.first_tx, planned.place, &block, spent)
            .map_err(bad);
    }
    let near = Some(planned.rank as usize);
    let place = files.undo(
        &planned.place,
        block.header,
        planned.tx_count,
        near,
        &mut buffers.undo,
    )?;
    let spent = SpentReader::undo(&buffers.undo).map_err(bad)?;
    gatherer
        .add(height, base, planned.first_tx, place, &block, spent)
        .map_err(bad)
}

/// The bytes are those of the planned block, and its transactions are those that its header commits to as
/// far as their number goes.
fn check_is_planned(block: &BlockView, planned: &PlannedBlock) -> Result<(), ParseError> {
    if crate::chain::block_hash(block.header) != planned.hash || block.tx_count != planned.tx_count
    {
        return Err(ParseError::Mismatch {
            what: "it is another block",
        });
    }
    Ok(())
}
