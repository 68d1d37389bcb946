//! Following the tip: blocks come and go, the mempool changes, each change becomes a View.
//!
//! One thread writes. It is woken by the node (ZMQ, else a long poll) and, behind both, by the clock:
//! a message that is lost costs seconds, never the truth.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bitcoin::{BlockHash, OutPoint, TxOut};

use super::{
    RETRY, Stats, Stop, SyncError,
    branch::{BATCH_BLOCKS_MAX, Branches, about_heights},
    mempool::{Feed, Look},
    step::{Step, decide, find_fork},
    wake::Wakes,
};
use crate::{
    chain::{Height, TxNum},
    daemon::{rpc::Rpc, source::BlockSource, zmq::ZmqEvent},
    index::{BlockRow, BlockRows, Index, TipRow},
    mempool::{Mempool, Touched},
    state::{Publish, State},
};

/// How often the node's best block is asked for, whatever else tells of it.
const BLOCK_POLL: Duration = Duration::from_secs(5);

/// A node in its initial download that is more blocks than this behind the index, on the index's own branch, builds its
/// chain anew (`-reindex`): it comes back, and what it will have again is not taken away.
const BEHIND_MAX: Height = 100;

/// An index with so many blocks that shares none but the first with the node's chain is another chain's: all signets
/// have the same genesis block, and so have all regtests.
const OTHER_CHAIN_BLOCKS: Height = 1000;

/// Between two lines of the log while many blocks are connected.
const CATCH_UP_LOG: Duration = Duration::from_secs(10);

/// A node has a shorter chain than before only while someone takes blocks away by hand (`invalidateblock`, one call for each) and
/// the better branch is on its way: by itself it leaves a branch for one with more work, in one step. So long the longer
/// one is waited for, else wallets would be told of a chain that shrinks, which some cannot follow (BDK keeps a block until
/// another one takes its height).
const SHORTER_WAIT: Duration = Duration::from_secs(1);

/// Between two looks meanwhile.
const SHORTER_POLL: Duration = Duration::from_millis(20);

/// So many rounds in a row may find that the chain changed under them; then it is said, and waited.
const CHANGES_MAX: u32 = 5;

/// The one writer.
pub struct Writer {
    index: Arc<Index>,
    branches: Branches,
    rpc: Rpc,
    state: State,
    mempool: Mempool,
    feed: Feed,
    stop: Stop,
    stats: Arc<Stats>,
    /// The last complaint about the node, so that it is made once.
    complaint: Option<String>,
    caught_up: bool,
    last_log: Instant,
}

impl Writer {
    pub fn new(
        index: Arc<Index>,
        source: Arc<BlockSource>,
        rpc: Rpc,
        state: State,
        stop: Stop,
        stats: Arc<Stats>,
    ) -> Writer {
        Writer {
            feed: Feed::new(rpc.clone()),
            branches: Branches::new(index.clone(), source, rpc.clone(), stats.clone()),
            index,
            rpc,
            state,
            mempool: Mempool::default(),
            stop,
            stats,
            complaint: None,
            caught_up: false,
            last_log: Instant::now(),
        }
    }

    /// Follows the node until the stop sign. An error means that nothing more can be written.
    pub fn run(&mut self, wakes: &Wakes) -> Result<(), SyncError> {
        let mut events = Vec::new();
        let mut changes = 0;
        loop {
            self.stats.beat();
            let hears_mempool = wakes.hears_mempool.load(Ordering::Relaxed);
            match self.round(&events, hears_mempool) {
                Ok(()) => {
                    changes = 0;
                    self.complain(None);
                }
                // The node is in the midst of a reorganization: nothing is wrong.
                Err(SyncError::ChainChanged) if changes < CHANGES_MAX && !self.stop.is_set() => {
                    changes += 1;
                    tracing::debug!("{}", SyncError::ChainChanged);
                    continue;
                }
                Err(SyncError::Stopped) => return Ok(()),
                Err(error @ (SyncError::Index(_) | SyncError::TooManyTransactions)) => {
                    return Err(error);
                }
                Err(error) => {
                    self.complain(Some(error.to_string()));
                    if self.stop.wait(RETRY) {
                        return Ok(());
                    }
                }
            }
            forget(&mut events, self.complaint.is_some());
            let pause = match &self.complaint {
                Some(_) => Duration::ZERO,
                None => self.feed.next_poll_in(hears_mempool).min(BLOCK_POLL),
            };
            if !wakes.gather(pause, &mut events) {
                return Ok(());
            }
            if self.stop.is_set() {
                return Ok(());
            }
        }
    }

    /// Connects all blocks that the node has, leaves the mempool alone, and gives the height it came to.
    pub fn catch_up(&mut self) -> Result<Height, SyncError> {
        loop {
            self.stats.beat();
            match self.follow_chain() {
                Ok(tip) => return Ok(tip.height),
                Err(
                    error @ (SyncError::Stopped
                    | SyncError::Index(_)
                    | SyncError::TooManyTransactions),
                ) => return Err(error),
                Err(error) => self.complain(Some(error.to_string())),
            }
            if self.stop.wait(RETRY) {
                return Err(SyncError::Stopped);
            }
        }
    }

    /// Once around: the chain first, then the mempool that belongs to it.
    fn round(&mut self, events: &[ZmqEvent], hears_mempool: bool) -> Result<(), SyncError> {
        let tip = self.follow_chain()?;
        let mut looks = Vec::new();
        let state = self.state.clone();
        let stats = self.stats.clone();
        let confirmed = move |outpoint: &OutPoint| {
            stats.beat();
            confirmed_output(&state, outpoint)
        };
        if !events.is_empty() {
            looks.push(
                self.feed
                    .on_events(&tip.hash, events, &self.mempool, &confirmed)?,
            );
            self.take_in(looks.pop())?;
        }
        if self.feed.next_poll_in(hears_mempool).is_zero() {
            looks.push(self.feed.poll(&tip.hash, &self.mempool, &confirmed)?);
            self.take_in(looks.pop())?;
        }
        if !self.caught_up {
            self.caught_up = true;
            self.state.set_progress(None);
            tracing::info!("in step with the node at block {}", tip.height);
        }
        Ok(())
    }

    fn take_in(&mut self, look: Option<Look>) -> Result<(), SyncError> {
        // Another tip: the next round follows it; the node has said so, or will.
        let Some(Look::Diff(diff)) = look else {
            return Ok(());
        };
        if diff.is_empty() {
            return Ok(());
        }
        let touched = self.mempool.apply(&diff.removed, diff.added);
        let mempool = self.mempool.clone();
        Ok(self.state.publish(Publish {
            mempool,
            touched,
            ..Publish::default()
        })?)
    }

    /// Step by step until our tip is the node's.
    fn follow_chain(&mut self) -> Result<TipRow, SyncError> {
        let mut shorter_since = None;
        loop {
            if self.stop.is_set() {
                return Err(SyncError::Stopped);
            }
            let ours = self.index.tip()?;
            let best = self.best_block()?;
            let step = decide(ours.map(|tip| (tip.height, tip.hash)), best, |top| {
                self.fork(top)
            })?;
            match (step, ours) {
                (Step::Idle, Some(tip)) => return Ok(tip),
                (Step::Connect { to }, Some(tip)) => {
                    self.connect(tip.height + 1, tip.next_tx, to)?
                }
                (Step::Reorganize { fork, to }, Some(tip)) => {
                    self.check_rollback(tip, fork, to)?;
                    if to < tip.height {
                        let since = shorter_since.get_or_insert_with(Instant::now);
                        if since.elapsed() < SHORTER_WAIT {
                            self.stats.beat();
                            self.stop.wait(SHORTER_POLL);
                            continue;
                        }
                    }
                    shorter_since = None;
                    self.reorganize(tip, fork, to)?;
                }
                (Step::Begin { to }, _) => self.connect(0, TxNum::ZERO, to)?,
                (Step::Idle | Step::Connect { .. } | Step::Reorganize { .. }, None) => {
                    return Err(SyncError::Node("the node has no blocks".into()));
                }
            }
        }
    }

    fn best_block(&self) -> Result<(Height, BlockHash), SyncError> {
        let hash = self.rpc.best_block_hash()?;
        if let Some(tip) = self.index.tip()?.filter(|tip| tip.hash == hash) {
            return Ok((tip.height, hash));
        }
        Ok((self.rpc.block_header_info(&hash)?.height, hash))
    }

    fn fork(&self, top: Height) -> Result<Height, SyncError> {
        let agrees = |height| -> Result<bool, SyncError> {
            let ours = self.index.block(height)?.map(|block| block.hash);
            let theirs = self.rpc.block_hash(height).map_err(about_heights)?;
            Ok(ours == Some(theirs))
        };
        let fork = find_fork(top, agrees)?;
        if fork == 0 && !agrees(0)? {
            return Err(SyncError::Node(
                "another node answers now, one of another chain; nothing is changed until the former one is back"
                    .into(),
            ));
        }
        Ok(fork)
    }

    /// An error where the node has gone back for a reason that will pass, or is not ours.
    fn check_rollback(&self, tip: TipRow, fork: Height, to: Height) -> Result<(), SyncError> {
        if fork == 0 && to > 0 && tip.height >= OTHER_CHAIN_BLOCKS {
            return Err(SyncError::Node(
                "the node's chain and the index share their first block only (another signet?); nothing is changed \
                 until the former node is back; to follow this one, choose another --db-dir, or start once with \
                 --rebuild"
                    .into(),
            ));
        }
        let is_behind = fork == to && tip.height - to > BEHIND_MAX;
        if is_behind && self.rpc.blockchain_info()?.initial_block_download {
            return Err(SyncError::Node(format!(
                "the node is back at block {to}, as if it built its chain anew; the index keeps its {} blocks",
                tip.height
            )));
        }
        Ok(())
    }

    /// Connects blocks from `first` on, up to `to` or as many as fit a batch.
    fn connect(&mut self, first: Height, first_tx: TxNum, to: Height) -> Result<(), SyncError> {
        let parent = first
            .checked_sub(1)
            .map(|below| self.index.block(below))
            .transpose()?
            .flatten();
        let branch = self
            .branches
            .coming(parent.map(|block| block.hash), first, first_tx, to)?;
        if to - first > 2 * BATCH_BLOCKS_MAX && self.last_log.elapsed() > CATCH_UP_LOG {
            self.last_log = Instant::now();
            tracing::info!("catching up: block {first} of {to}");
        }
        self.index.apply(&[], &branch)?;
        self.publish(None, &[], &branch)
    }

    /// Leaves a branch for another. The new branch is fetched before the old one goes.
    fn reorganize(&mut self, tip: TipRow, fork: Height, to: Height) -> Result<(), SyncError> {
        let depth = tip.height - fork;
        tracing::info!("reorganization: {depth} blocks above block {fork} are stale");
        let lowest = fork.max(tip.height.saturating_sub(BATCH_BLOCKS_MAX)) + 1;
        let stale = self.branches.stale(tip.height, lowest);
        let parent = self.index.block(lowest - 1)?;
        let parent = parent
            .ok_or_else(|| SyncError::Node(format!("block {} is not indexed", lowest - 1)))?;
        let next_tx = TxNum(parent.first_tx.0 + parent.tx_count);
        let branch = if lowest == fork + 1 && to >= lowest {
            self.branches
                .coming(Some(parent.hash), lowest, next_tx, to)?
        } else {
            Vec::new()
        };
        // A deep one comes in pieces, of which the last reaches the fork.
        if stale.is_err() || lowest == fork + 1 {
            self.stats.reorgs.fetch_add(1, Ordering::Relaxed);
        }
        match stale {
            Ok(stale) => {
                self.state.begin_reorg();
                self.index.apply(&stale, &branch)?;
                self.publish(Some(lowest), &stale, &branch)
            }
            Err(error) => {
                // A node that is away has lost nothing: wait for it instead.
                self.rpc.best_block_hash()?;
                tracing::warn!("{error}; taking stale rows away by a scan of the whole index");
                // The scan is long on a large index: until it is over, questions are answered as before.
                let _unhurried = self.stats.unhurried();
                let found = self.index.find_above(fork + 1)?;
                self.state.begin_reorg();
                self.index.truncate(found)?;
                self.stats
                    .disconnected
                    .fetch_add(depth.into(), Ordering::Relaxed);
                Ok(self.state.reload(self.mempool.clone())?)
            }
        }
    }

    /// Makes blocks that came and went visible, with the mempool that is left.
    fn publish(
        &mut self,
        disconnected_from: Option<Height>,
        stale: &[BlockRows],
        connected: &[BlockRows],
    ) -> Result<(), SyncError> {
        // The node has dropped them too.
        let mined = connected
            .iter()
            .flat_map(|rows| &rows.txids)
            .copied()
            .collect();
        let spent = connected.iter().flat_map(|rows| &rows.spent).copied();
        let gone = self.mempool.taken_by_block(&mined, spent);
        let mut touched = self.mempool.apply(&gone, Vec::new());
        stale
            .iter()
            .chain(connected)
            .for_each(|rows| add_touched(&mut touched, rows));
        if !connected.is_empty() {
            // Fees are the node's to tell anew before wallets hear of the block (protocol 1.6, estimatefee).
            self.rpc.drop_fee_cache();
        }
        let count = |blocks: &[BlockRows]| u64::try_from(blocks.len()).unwrap_or(u64::MAX);
        let relaxed = Ordering::Relaxed;
        self.stats.connected.fetch_add(count(connected), relaxed);
        self.stats.disconnected.fetch_add(count(stale), relaxed);
        let connected: Vec<BlockRow> = connected.iter().map(|rows| rows.block).collect();
        let mempool = self.mempool.clone();
        Ok(self.state.publish(Publish {
            disconnected_from,
            connected,
            mempool,
            touched,
        })?)
    }

    /// Says what is wrong with the node once, and that it is over.
    fn complain(&mut self, complaint: Option<String>) {
        match (&self.complaint, &complaint) {
            (None, Some(text)) => tracing::warn!("{text}; trying again until it answers"),
            (Some(before), Some(text)) if before != text => tracing::warn!("{text}"),
            (Some(_), None) => tracing::info!("the node answers again"),
            _ => {}
        }
        self.stats.set_complaint(complaint.clone());
        self.complaint = complaint;
    }
}

/// The round is over. Of one that failed it is not known how far it came with what it was told.
fn forget(events: &mut Vec<ZmqEvent>, has_failed: bool) {
    let is_lost = has_failed && !events.is_empty();
    events.clear();
    if is_lost {
        events.push(ZmqEvent::Missed);
    }
}

fn add_touched(touched: &mut Touched, rows: &BlockRows) {
    touched.scripts.extend(&rows.scripts);
    touched
        .outpoints
        .extend(rows.spent.iter().chain(&rows.created));
}

fn confirmed_output(state: &State, outpoint: &OutPoint) -> Option<TxOut> {
    match state.view().output(outpoint) {
        Ok(found) => found.map(|(output, _height)| output),
        Err(error) => {
            tracing::debug!("an output cannot be read: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_round_was_told_is_looked_for_by_the_next_one() {
        for (told, has_failed, left) in [
            (vec![ZmqEvent::BlockChanged; 3], false, vec![]),
            (
                vec![ZmqEvent::BlockChanged; 3],
                true,
                vec![ZmqEvent::Missed],
            ),
            (vec![], true, vec![]),
        ] {
            let mut events = told;
            forget(&mut events, has_failed);
            assert_eq!(events, left);
        }
    }
}
