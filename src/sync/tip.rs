//! Following the tip: blocks come and go, the mempool changes, each change becomes a View.
//!
//! One thread writes. It is woken by the node (ZMQ, else a long poll) and, behind both, by the clock:
//! a message that is lost costs seconds, never the truth.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use bitcoin::{BlockHash, OutPoint, TxOut};

use super::{
    Stats, Stop, SyncError,
    mempool::{Feed, Look},
    places::Places,
};
use crate::{
    chain::{BlockPlace, BlockView, Height, TxNum},
    daemon::{
        rpc::{Rpc, RpcError},
        source::BlockSource,
        zmq::ZmqEvent,
    },
    index::{BlockRow, BlockRows, Index, TipRow},
    mempool::{Mempool, Touched},
    state::{Publish, State},
};

/// Blocks that go into one batch, and into one View, at most.
const BATCH_BLOCKS_MAX: u32 = 32;

/// Bytes of blocks in one batch; the block that passes the bound is still in it.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// How often the node's best block is asked for, whatever else tells of it.
const BLOCK_POLL: Duration = Duration::from_secs(5);

/// How long a call for a new block waits at the node.
const LONG_POLL: Duration = Duration::from_secs(30);

/// A node in its initial download that is more blocks than this behind the index, on the index's own branch, builds its
/// chain anew (`-reindex`): it comes back, and what it will have again is not taken away.
const BEHIND_MAX: Height = 100;

/// An index with so many blocks that shares none but the first with the node's chain is another chain's: all signets
/// have the same genesis block, and so have all regtests.
const OTHER_CHAIN_BLOCKS: Height = 1000;

/// Between two attempts where the node does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Between two lines of the log while many blocks are connected.
const CATCH_UP_LOG: Duration = Duration::from_secs(10);

/// A transaction that is replaced leaves the mempool just before the other one comes, and the node tells of both in
/// two messages. So long the second is waited for, else wallets would be told of a payment that is gone and,
/// a moment later, of one that is there; some do not even read a status of `null` in a push.
const REPLACEMENT_WAIT: Duration = Duration::from_millis(200);

/// So many rounds in a row may find that the chain changed under them; then it is said, and waited.
const CHANGES_MAX: u32 = 5;

/// Messages that may wait for the writer; more count as one "look at everything".
const WAKES_MAX: usize = 8192;

/// What wakes the writer.
#[derive(Clone, Copy, Debug)]
pub enum Wake {
    Zmq(ZmqEvent),
    /// The long poll saw another best block.
    Block,
    Stop,
}

/// The others' end: wakes the writer.
#[derive(Clone)]
pub struct Waker {
    wakes: SyncSender<Wake>,
    is_overflown: Arc<AtomicBool>,
}

impl Waker {
    pub fn wake(&self, wake: Wake) {
        if let Err(TrySendError::Full(_)) = self.wakes.try_send(wake) {
            self.is_overflown.store(true, Ordering::Relaxed);
        }
    }
}

/// What wakes the writer, as the writer sees it.
pub struct Wakes {
    wakes: Receiver<Wake>,
    is_overflown: Arc<AtomicBool>,
    /// True while the mempool's changes come by ZMQ.
    pub hears_mempool: Arc<AtomicBool>,
}

/// Both ends.
pub fn wakes() -> (Waker, Wakes) {
    let (sender, receiver) = sync_channel(WAKES_MAX);
    let is_overflown = Arc::<AtomicBool>::default();
    let waker = Waker {
        wakes: sender,
        is_overflown: is_overflown.clone(),
    };
    (
        waker,
        Wakes {
            wakes: receiver,
            is_overflown,
            hears_mempool: Arc::default(),
        },
    )
}

/// What is to be done about the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Our tip is the node's.
    Idle,
    /// Blocks follow on our tip, up to this height.
    Connect { to: Height },
    /// Our branch has been left: all above `fork` goes, and blocks up to `to` come.
    Reorganize { fork: Height, to: Height },
    /// Not even the genesis block is there yet.
    Begin { to: Height },
}

/// Decides from our tip and the node's best block. `fork` is the highest height, at most our tip's and
/// the node's, where both have the same block; asked for only where it matters.
pub fn decide<E>(
    ours: Option<(Height, BlockHash)>,
    best: (Height, BlockHash),
    fork: impl FnOnce(Height) -> Result<Height, E>,
) -> Result<Step, E> {
    let Some((height, hash)) = ours else {
        return Ok(Step::Begin { to: best.0 });
    };
    if hash == best.1 {
        return Ok(Step::Idle);
    }
    let fork = fork(height.min(best.0))?;
    Ok(match fork {
        fork if fork < height => Step::Reorganize { fork, to: best.0 },
        _ if best.0 > height => Step::Connect { to: best.0 },
        _ => Step::Idle,
    })
}

/// The highest height at most `top` where two chains agree, by halving: below the fork they agree, above
/// they don't. Both have the same genesis block.
pub fn find_fork<E>(
    top: Height,
    mut agrees: impl FnMut(Height) -> Result<bool, E>,
) -> Result<Height, E> {
    // Most reorgs are one or two blocks deep: step down in growing strides first.
    let (mut low, mut high, mut stride) = (0, top + 1, 1);
    let mut probe = top;
    while probe > 0 {
        if agrees(probe)? {
            low = probe;
            break;
        }
        high = probe;
        probe = probe.saturating_sub(stride);
        stride *= 2;
    }
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if agrees(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// A height that the node named a moment ago is above its tip now, where a reorganization takes blocks away
/// before the new ones come (`invalidateblock` does so block by block).
fn about_heights(error: RpcError) -> SyncError {
    /// Bitcoin Core's `RPC_INVALID_PARAMETER`: "Block height out of range".
    const OUT_OF_RANGE: i32 = -8;
    match error {
        RpcError::Refused { code, .. } if code == OUT_OF_RANGE => SyncError::ChainChanged,
        error => error.into(),
    }
}

/// The one writer.
pub struct Writer {
    index: Arc<Index>,
    source: Arc<BlockSource>,
    rpc: Rpc,
    state: State,
    mempool: Mempool,
    feed: Feed,
    places: Option<Places>,
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
            index,
            source,
            rpc,
            state,
            mempool: Mempool::default(),
            places: None,
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
            events.clear();
            let pause = match &self.complaint {
                Some(_) => Duration::ZERO,
                None => self.feed.next_poll_in(hears_mempool).min(BLOCK_POLL),
            };
            let mut next = wakes.wakes.recv_timeout(pause);
            // All that has come by now is one round's work.
            let mut replacement_until = None;
            loop {
                match next {
                    Ok(Wake::Zmq(event)) => events.push(event),
                    Ok(Wake::Block) | Err(RecvTimeoutError::Timeout) => {}
                    Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
                match wakes.wakes.try_recv() {
                    Ok(wake) => next = Ok(wake),
                    Err(TryRecvError::Empty) => {
                        if !matches!(events.last(), Some(ZmqEvent::TxRemoved { .. })) {
                            break;
                        }
                        let until = *replacement_until
                            .get_or_insert_with(|| Instant::now() + REPLACEMENT_WAIT);
                        let left = until.saturating_duration_since(Instant::now());
                        match wakes.wakes.recv_timeout(left) {
                            Ok(wake) => next = Ok(wake),
                            Err(RecvTimeoutError::Timeout) => break,
                            Err(RecvTimeoutError::Disconnected) => return Ok(()),
                        }
                    }
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            if wakes.is_overflown.swap(false, Ordering::Relaxed) {
                events.push(ZmqEvent::Missed);
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
        let branch = self.branch(parent.map(|block| block.hash), first, first_tx, to)?;
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
        let stale = self.stale_rows(tip.height, lowest);
        let parent = self.index.block(lowest - 1)?;
        let parent = parent
            .ok_or_else(|| SyncError::Node(format!("block {} is not indexed", lowest - 1)))?;
        let next_tx = TxNum(parent.first_tx.0 + parent.tx_count);
        let branch = if lowest == fork + 1 && to >= lowest {
            self.branch(Some(parent.hash), lowest, next_tx, to)?
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

    /// The rows of our blocks from `top` down to `lowest`, made again from the stale blocks' bytes.
    fn stale_rows(&self, top: Height, lowest: Height) -> Result<Vec<BlockRows>, SyncError> {
        let mut stale = Vec::new();
        for height in (lowest..=top).rev() {
            let Some(block) = self.index.block(height)? else {
                return Err(SyncError::Node(format!("block {height} is not indexed")));
            };
            stale.push(self.rows(height, block.first_tx, &block.hash, block.place)?);
        }
        Ok(stale)
    }

    /// The rows of the node's blocks from `first` on, each built on the one before.
    fn branch(
        &mut self,
        mut parent: Option<BlockHash>,
        first: Height,
        mut first_tx: TxNum,
        to: Height,
    ) -> Result<Vec<BlockRows>, SyncError> {
        let mut branch: Vec<BlockRows> = Vec::new();
        let mut bytes = 0;
        let count = (to - first + 1).min(BATCH_BLOCKS_MAX);
        let hashes = self.rpc.block_hashes(first, count).map_err(about_heights)?;
        for (height, hash) in (first..).zip(hashes) {
            self.stats.beat();
            let place = self.place(&hash);
            let rows = self.rows(height, first_tx, &hash, place)?;
            if parent
                .is_some_and(|parent| crate::daemon::files::previous(&rows.block.header) != parent)
            {
                // The node has just reorganized; what is there is a chain all the same.
                break;
            }
            first_tx = rows.next_tx();
            parent = Some(hash);
            bytes += rows.block.place.size as usize;
            branch.push(rows);
            if bytes >= BATCH_BYTES_MAX {
                break;
            }
        }
        if branch.is_empty() {
            return Err(SyncError::ChainChanged);
        }
        Ok(branch)
    }

    fn place(&mut self, hash: &BlockHash) -> BlockPlace {
        let nowhere = BlockPlace {
            file: BlockPlace::NOWHERE,
            offset: 0,
            size: 0,
            undo_offset: 0,
            undo_size: 0,
        };
        let Some(files) = self.source.files() else {
            return nowhere;
        };
        let index = &self.index;
        let places = self.places.get_or_insert_with(|| {
            let tip = index
                .tip()
                .ok()
                .flatten()
                .and_then(|tip| index.block(tip.height).ok().flatten());
            let file = tip
                .map(|block| block.place.file)
                .filter(|&file| file != BlockPlace::NOWHERE);
            Places::new(file.unwrap_or(0))
        });
        match places.find(files, hash) {
            Ok(Some(place)) => place,
            Ok(None) => {
                tracing::debug!("block {hash} is in no file; asking the node for it");
                nowhere
            }
            Err(error) => {
                tracing::warn!("{error}; asking the node for block {hash}");
                nowhere
            }
        }
    }

    fn rows(
        &self,
        height: Height,
        first_tx: TxNum,
        hash: &BlockHash,
        mut place: BlockPlace,
    ) -> Result<BlockRows, SyncError> {
        let bad = |error| SyncError::BadBlock {
            height,
            hash: *hash,
            error,
        };
        let read = |place: &mut BlockPlace| {
            let bytes = self.source.block(hash, place)?;
            if place.file == BlockPlace::NOWHERE {
                place.size = bytes.len() as u32;
            }
            let block = BlockView::parse(&bytes).map_err(bad)?;
            let (spent, found) = self
                .source
                .spent(hash, block.header, block.tx_count, place)?;
            let rows = BlockRows::of(
                height,
                first_tx,
                found,
                &block,
                spent.reader().map_err(bad)?,
            )
            .map_err(bad)?;
            if rows.block.hash != *hash {
                return Err(SyncError::Node(format!(
                    "another block lies where block {hash} should"
                )));
            }
            Ok(rows)
        };
        match read(&mut place) {
            Err(error @ (SyncError::BadBlock { .. } | SyncError::Node(_)))
                if place.file != BlockPlace::NOWHERE =>
            {
                tracing::warn!(
                    "block {height} ({place}) cannot be read from the files: {error}; asking the node for it"
                );
                let bytes = self.source.fetch(hash)?;
                let block = BlockView::parse(&bytes).map_err(bad)?;
                let spent = match block.tx_count {
                    1 => crate::chain::SpentOutputs::none(),
                    _ => self.source.fetch_spent(hash)?,
                };
                BlockRows::of(
                    height,
                    first_tx,
                    self.source.place_again(place, &bytes),
                    &block,
                    spent.reader().map_err(bad)?,
                )
                .map_err(bad)
            }
            read => read,
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

/// Waits at the node for new blocks and wakes the writer; for nodes that tell nothing by ZMQ. Ends with
/// the stop sign, at the latest when its call returns.
pub fn long_poll(rpc: &Rpc, waker: &Waker, stop: &Stop) {
    let mut known = None;
    while !stop.is_set() {
        let best = match known {
            Some(known) => rpc.wait_for_new_block(&known, LONG_POLL),
            None => rpc.best_block_hash(),
        };
        match best {
            Ok(best) => {
                if known != Some(best) {
                    waker.wake(Wake::Block);
                }
                known = Some(best);
            }
            Err(error) => {
                tracing::debug!("waiting for a new block: {error}");
                known = None;
                stop.wait(RETRY);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bitcoin::hashes::Hash;
    use proptest::prelude::*;

    use super::*;

    fn hash(number: u8) -> BlockHash {
        BlockHash::from_byte_array([number; 32])
    }

    proptest! {
        #[test]
        fn the_fork_is_found_with_few_questions(top in 0u32..1_000_000, below in 0u32..1_000_000) {
            let fork = top.saturating_sub(below);
            let mut questions = 0;
            let found = find_fork(top, |height| {
                questions += 1;
                Ok::<_, Infallible>(height <= fork)
            });
            prop_assert_eq!(found, Ok(fork));
            prop_assert!(questions <= 2 * 20 + 2, "{} questions", questions);
        }
    }

    #[test]
    fn a_height_that_is_gone_is_no_trouble_of_the_node() {
        let refused = |code| RpcError::Refused {
            code,
            message: "Block height out of range".to_owned(),
        };
        assert!(matches!(
            about_heights(refused(-8)),
            SyncError::ChainChanged
        ));
        assert!(matches!(about_heights(refused(-1)), SyncError::Node(_)));
        let away = RpcError::Unavailable("no answer".to_owned());
        assert!(matches!(about_heights(away), SyncError::Node(_)));
    }

    #[test]
    fn each_relation_of_the_two_tips_has_its_step() {
        let decide = |ours, best, fork| decide(ours, best, |_| Ok::<_, Infallible>(fork)).unwrap();
        let ours = Some((7, hash(7)));
        assert_eq!(decide(None, (3, hash(3)), 0), Step::Begin { to: 3 });
        assert_eq!(decide(ours, (7, hash(7)), 7), Step::Idle);
        assert_eq!(decide(ours, (9, hash(9)), 7), Step::Connect { to: 9 });
        assert_eq!(
            decide(ours, (9, hash(9)), 5),
            Step::Reorganize { fork: 5, to: 9 }
        );
        assert_eq!(
            decide(ours, (7, hash(8)), 6),
            Step::Reorganize { fork: 6, to: 7 }
        );
        // The node was rolled back.
        assert_eq!(
            decide(ours, (4, hash(4)), 4),
            Step::Reorganize { fork: 4, to: 4 }
        );
    }
}
