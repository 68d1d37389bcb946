//! What the first sync reads: each block with its number and its place.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bitcoin::BlockHash;

use super::{Stop, SyncError};
use crate::{
    chain::{BlockPlace, HeaderBytes, Height, TxNum},
    daemon::{
        files::{BlockFiles, ScannedBlock, previous},
        rpc::Rpc,
        source::BlockSource,
    },
};

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
    pub(super) rank: u32,
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
                    BlockPlace::in_no_file(0),
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
                    place: BlockPlace::in_no_file(0),
                    rank: 0,
                }),
        );
        start += count;
    }
    Ok((plan, headers))
}
