//! The first sync: all blocks but the newest, chunk by chunk, on all cores.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bitcoin::BlockHash;

use super::{Stop, SyncError};
use crate::{
    chain::{BlockPlace, BlockView, HeaderBytes, Height, ParseError, SpentReader, TxNum},
    daemon::{
        files::{BlockFiles, ScannedBlock, previous},
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

/// Share of the allowed memory that rows may take; the rest is for blocks in hand and for sorting.
const ROWS_SHARE: f64 = 0.7;

/// Calls of one JSON-RPC batch.
const BATCH_CALLS: u32 = 1000;

/// A block that is to be indexed.
#[derive(Clone, Copy, Debug)]
pub struct PlannedBlock {
    pub hash: BlockHash,
    pub tx_count: u32,
    pub first_tx: TxNum,
    pub place: BlockPlace,
    /// Which of its rev file's records is probably its own.
    rank: u32,
}

/// Told how far the sync is.
pub trait Progress: Sync {
    fn phase(&self, text: &str);
    /// Work done and to be done: bytes of blocks (files), else transactions.
    fn blocks(&self, height: Height, done_bytes: u64, all_bytes: u64, done_txs: u64, all_txs: u64);
    fn merging(&self, share: f64);
}

/// The blocks from genesis to `target`, in order, each with its place where the files have it; and
/// their headers.
pub fn plan(
    source: &BlockSource,
    rpc: &Rpc,
    target: Height,
    threads: usize,
    stop: &Stop,
) -> Result<(Vec<PlannedBlock>, Vec<HeaderBytes>), SyncError> {
    let (mut plan, headers) = match source.files() {
        Some(files) => plan_by_files(files, rpc, target, threads, stop)?,
        None => plan_by_node(rpc, target, stop)?,
    };
    let mut next = TxNum::ZERO;
    let mut ranks: HashMap<u32, u32> = HashMap::new();
    for (height, block) in plan.iter_mut().enumerate() {
        block.first_tx = next;
        next = next
            .checked_add(block.tx_count)
            .ok_or(SyncError::TooManyTransactions)?;
        // Every block but the genesis block has an undo record.
        if height > 0 {
            let rank = ranks.entry(block.place.file).or_default();
            block.rank = *rank;
            *rank += 1;
        }
    }
    Ok((plan, headers))
}

/// Scans all files for block headers, then follows them back from the target.
fn plan_by_files(
    files: &BlockFiles,
    rpc: &Rpc,
    target: Height,
    threads: usize,
    stop: &Stop,
) -> Result<(Vec<PlannedBlock>, Vec<HeaderBytes>), SyncError> {
    let numbers = files.numbers()?;
    let next = AtomicUsize::new(0);
    let scanned: Mutex<HashMap<BlockHash, ScannedBlock>> = Mutex::default();
    let scan = || {
        while let Some(&number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.is_set() {
                return Err(SyncError::Stopped);
            }
            match files.scan(number, 0) {
                Ok((blocks, _)) => scanned
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(blocks.into_iter().map(|block| (block.hash, block))),
                Err(error) => tracing::warn!("{error}; its blocks are asked of the node"),
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        // Scanning waits for the disk more than it computes.
        let workers: Vec<_> = (0..threads * 4).map(|_| scope.spawn(scan)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or(Err(SyncError::Panicked)))
    })?;
    let mut scanned = scanned.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut plan = Vec::with_capacity(target as usize + 1);
    let mut headers = Vec::with_capacity(target as usize + 1);
    let mut hash = rpc.block_hash(target)?;
    for _ in 0..=target {
        let (header, tx_count, place) = match scanned.remove(&hash) {
            Some(block) => (block.header, block.tx_count, block.place),
            None => {
                if stop.is_set() {
                    return Err(SyncError::Stopped);
                }
                (
                    rpc.block_header(&hash)?,
                    rpc.block_header_info(&hash)?.n_tx,
                    nowhere(),
                )
            }
        };
        plan.push(PlannedBlock {
            hash,
            tx_count,
            first_tx: TxNum::ZERO,
            place,
            rank: 0,
        });
        headers.push(header);
        hash = previous(&header);
    }
    plan.reverse();
    headers.reverse();
    // What is left is stale, or above the target.
    let with_stale_child: HashSet<BlockHash> =
        scanned.values().map(ScannedBlock::previous).collect();
    for (block, header) in plan.iter_mut().zip(&headers) {
        if with_stale_child.contains(&previous(header)) {
            block.place = block.place.with_unsure_undo();
        }
    }
    Ok((plan, headers))
}

fn nowhere() -> BlockPlace {
    BlockPlace {
        file: BlockPlace::NOWHERE,
        offset: 0,
        size: 0,
        undo_offset: 0,
        undo_size: 0,
    }
}

/// Asks the node for hashes, headers and transaction counts.
fn plan_by_node(
    rpc: &Rpc,
    target: Height,
    stop: &Stop,
) -> Result<(Vec<PlannedBlock>, Vec<HeaderBytes>), SyncError> {
    let mut plan = Vec::with_capacity(target as usize + 1);
    let mut headers = Vec::with_capacity(target as usize + 1);
    let mut start = 0;
    while start <= target {
        if stop.is_set() {
            return Err(SyncError::Stopped);
        }
        let count = BATCH_CALLS.min(target - start + 1);
        let hashes = rpc.block_hashes(start, count)?;
        headers.extend(rpc.block_headers(&hashes)?);
        let infos = rpc.block_header_infos(&hashes)?;
        plan.extend(
            hashes
                .into_iter()
                .zip(infos)
                .map(|(hash, info)| PlannedBlock {
                    hash,
                    tx_count: info.n_tx,
                    first_tx: TxNum::ZERO,
                    place: nowhere(),
                    rank: 0,
                }),
        );
        start += count;
    }
    Ok((plan, headers))
}

/// Indexes all planned blocks. Returns at once where they are indexed already.
pub fn run(
    mut bulk: Bulk,
    plan: &[PlannedBlock],
    source: &BlockSource,
    memory: usize,
    threads: usize,
    stop: &Stop,
    progress: &dyn Progress,
) -> Result<(), SyncError> {
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
        let end = gather(
            &mut gatherers,
            plan,
            start,
            source,
            memory,
            stop,
            &totals,
            progress,
        )?;
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
#[allow(clippy::too_many_arguments)]
fn gather(
    gatherers: &mut [Gatherer],
    plan: &[PlannedBlock],
    start: usize,
    source: &BlockSource,
    memory: usize,
    stop: &Stop,
    totals: &Totals,
    progress: &dyn Progress,
) -> Result<usize, SyncError> {
    let rows_bytes_max = (memory as f64 * ROWS_SHARE) as usize;
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
                    source,
                    &mut buffers,
                    stop,
                )
                .inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
                let bytes = totals
                    .done_bytes
                    .fetch_add(block.place.size.into(), Ordering::Relaxed);
                let txs = totals
                    .done_txs
                    .fetch_add(block.tx_count.into(), Ordering::Relaxed);
                progress.blocks(height as Height, bytes, totals.bytes, txs, totals.txs);
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
    source: &BlockSource,
    buffers: &mut Buffers,
    stop: &Stop,
) -> Result<(), SyncError> {
    if let Some(files) = source
        .files()
        .filter(|_| planned.place.file != BlockPlace::NOWHERE)
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
    let mut is_first = true;
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
        if is_first {
            tracing::warn!("the node does not give block {height}: {error}; trying again");
            is_first = false;
        }
        if stop.wait(Duration::from_secs(1)) {
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
