//! From an index in any state to one that follows the tip: waits for a node that is not ready, then the
//! first sync if it is due.

use std::{sync::Arc, time::Duration};

use bitcoin::Network;

use super::{
    Stats, Stop, SyncError,
    first::{self, Course, LIVE_BLOCKS, Progress},
    plan::plan,
    progress::Reporter,
};
use crate::{
    chain::Height,
    daemon::{
        rpc::{ChainInfo, Rpc},
        source::BlockSource,
    },
    index::{Bulk, Index},
    mempool::Mempool,
    state::State,
};

/// Between two looks at a node that is not ready.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// So few headers ahead of its blocks, and a node counts as ready.
const HEADERS_AHEAD_MAX: Height = 10;

/// What the first sync needs.
pub struct FirstSync {
    pub index: Arc<Index>,
    pub source: Arc<BlockSource>,
    pub rpc: Rpc,
    pub state: State,
    pub network: Network,
    /// For rows, in bytes.
    pub memory: usize,
    pub threads: usize,
    pub stop: Stop,
    pub stats: Arc<Stats>,
}

impl FirstSync {
    /// Returns when the index has all but the newest blocks, at once if it had them before.
    pub fn run(&self) -> Result<(), SyncError> {
        let _unhurried = self.stats.unhurried();
        let mut complaint = String::new();
        loop {
            match self.attempt() {
                Err(SyncError::Node(error)) => {
                    let error = error.to_string();
                    if error != complaint {
                        tracing::warn!("{error}; waiting");
                        self.stats.set_complaint(Some(error.clone()));
                        complaint = error;
                    }
                    if self.stop.wait(LOOK_AGAIN) {
                        return Err(SyncError::Stopped);
                    }
                }
                Err(SyncError::ChainChanged) => {
                    tracing::warn!("the node has another chain now; looking at it again");
                    if self.stop.wait(LOOK_AGAIN) {
                        return Err(SyncError::Stopped);
                    }
                }
                ended => {
                    self.stats.set_complaint(None);
                    return ended;
                }
            }
        }
    }

    fn attempt(&self) -> Result<(), SyncError> {
        if self.index.tip()?.is_some() {
            // What an interrupted end of a sync left behind goes.
            Bulk::resume(&self.index)?;
            return Ok(());
        }
        let info = self.ready_node()?;
        let target = info.blocks.saturating_sub(LIVE_BLOCKS);
        if let Some(lowest) = info.prune_height.filter(|&lowest| lowest > 0) {
            return Err(SyncError::Node(format!(
                "the node is pruned: its blocks below {lowest} are gone, and the index needs them all; \
                 set prune=0 in bitcoin.conf and let the node download the chain again"
            )));
        }
        let Some(bulk) = Bulk::resume(&self.index)? else {
            return Ok(());
        };
        if target == 0 {
            return Ok(());
        }
        let reporter = Reporter::new(self.state.clone(), self.stats.clone());
        reporter.phase("looking for the blocks");
        let (plan, headers) = plan(&self.source, &self.rpc, target, self.threads, &self.stop)?;
        self.state.set_headers(Arc::new(headers));
        let txs = plan.last().map_or(0, |last| {
            u64::from(last.first_tx.0) + u64::from(last.tx_count)
        });
        tracing::info!(
            "first sync: {} blocks with {txs} transactions, by {}",
            plan.len(),
            self.source.kind().name()
        );
        let began = std::time::Instant::now();
        let ended = first::run(
            bulk,
            &Course {
                plan: &plan,
                source: &self.source,
                rpc: &self.rpc,
                memory: self.memory,
                threads: self.threads,
                stop: &self.stop,
                progress: &reporter,
            },
        );
        reporter.finish();
        ended?;
        self.state.reload(Mempool::default())?;
        tracing::info!(
            "first sync: done in {:.1} s, {:.1} MB of index",
            began.elapsed().as_secs_f64(),
            self.index.size() as f64 / 1e6
        );
        Ok(())
    }

    /// Waits until the node has its chain.
    fn ready_node(&self) -> Result<ChainInfo, SyncError> {
        let mut has_told = false;
        loop {
            let info = self.rpc.blockchain_info()?;
            let is_incomplete = is_downloading(&info, self.network);
            self.stats.set_node_is_incomplete(is_incomplete);
            if !is_incomplete {
                return Ok(info);
            }
            let text = format!(
                "the node is still downloading the chain: {:.1} %, block {} of {}",
                downloaded(&info) * 100.0,
                info.blocks,
                info.headers
            );
            if !has_told {
                tracing::info!("{text}; waiting for it");
                has_told = true;
            }
            self.state.set_progress(Some(text));
            if self.stop.wait(LOOK_AGAIN) {
                return Err(SyncError::Stopped);
            }
        }
    }
}

/// The share of the chain that the node has. Its own estimate goes by transactions, of which most are in late blocks; on
/// a chain that it knows no figures of (regtest) it is no estimate.
pub fn downloaded(info: &ChainInfo) -> f64 {
    let by_blocks = f64::from(info.blocks) / f64::from(info.headers.max(1));
    info.verification_progress.min(by_blocks)
}

/// True while the node lacks blocks that it will have. One without a fresh block calls itself in initial download, on
/// regtest for ever; one that has all blocks whose headers it knows is as ready as it gets.
pub fn is_downloading(info: &ChainInfo, network: Network) -> bool {
    let lacks_blocks = info.blocks + HEADERS_AHEAD_MAX < info.headers;
    let has_none = info.blocks == 0 && network != Network::Regtest;
    info.initial_block_download && (lacks_blocks || has_none)
}
