//! The one writer's side: each change of chain or mempool becomes a new View.

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bitcoin::BlockHash;
use tokio::sync::watch;

use super::{
    CacheFigures, Core, QueryError, State, Subscriptions, Tip, View,
    archive::{Archive, Disk},
    cache::ScriptCache,
    headers::HeaderTree,
    lock,
    proofs::BlockTrees,
    query::{Helpers, LargeTxs},
    table::BlockTable,
    view::header_leaf,
};
use crate::{
    chain::{HeaderBytes, Height, TxNum, block_hash},
    daemon::source::{BlockSource, SourceKind},
    index::{BlockRow, Index},
    mempool::{Mempool, Touched},
};

/// How long a question waits for the end of a reorg.
const REORG_WAIT_MAX: Duration = Duration::from_secs(10);

/// Threads that help to read long histories where blocks are asked of the node: with the one whom they help
/// two less than exchanges may run at once (`EXCHANGES_MAX` in `daemon/http.rs`).
const NODE_HELPERS: usize = 5;

/// Bounds of what is kept in memory for faster answers.
#[derive(Clone, Copy, Debug)]
pub struct StateLimits {
    /// Histories and coins of scripts that were asked for.
    pub cache_bytes: usize,
    /// Merkle trees of blocks that were asked for.
    pub merkle_bytes: u64,
    /// Large transactions that questions about scripts met.
    pub large_tx_bytes: u64,
    /// Threads that help to read long histories; `None`: one less than there are cores, or as many as the node may
    /// be asked by at a time.
    pub helpers: Option<usize>,
}

impl Default for StateLimits {
    fn default() -> Self {
        StateLimits {
            cache_bytes: 256 << 20,
            merkle_bytes: 64 << 20,
            large_tx_bytes: 32 << 20,
            helpers: None,
        }
    }
}

/// A change of chain, mempool, or both.
#[derive(Default)]
pub struct Publish {
    /// Blocks at and above this height are gone; their rows were deleted after [`State::begin_reorg`].
    pub disconnected_from: Option<Height>,
    /// Blocks that follow, in order; their rows are in the index.
    pub connected: Vec<BlockRow>,
    /// The mempool that belongs to the new tip: without what the blocks confirmed.
    pub mempool: Mempool,
    /// What the blocks (connected and disconnected) and the mempool's change touched.
    pub touched: Touched,
}

/// Where the newest View is.
pub(super) struct Cell {
    newest: ArcSwap<View>,
    /// Locked by the one who makes the next View.
    writer: Mutex<()>,
    /// For those who wait for the end of a reorg.
    stored: (Mutex<()>, Condvar),
    /// Whether script questions are answered: no sync is at work.
    in_step: watch::Sender<bool>,
}

impl Cell {
    pub fn newest(&self) -> Arc<View> {
        self.newest.load_full()
    }

    /// The newest View that no reorg is taking rows from.
    pub fn settled_view(&self, core: &Core) -> Result<Arc<View>, QueryError> {
        let deadline = Instant::now() + REORG_WAIT_MAX;
        let mut guard = lock(&self.stored.0);
        loop {
            let view = self.newest();
            if view.reorgs == core.reorgs.load(Ordering::SeqCst) {
                return Ok(view);
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return Err(QueryError::Unavailable(
                    "a reorganization takes long".to_owned(),
                ));
            };
            guard = self
                .stored
                .1
                .wait_timeout(guard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn store(&self, view: View) {
        let _guard = lock(&self.stored.0);
        self.newest.store(Arc::new(view));
        self.stored.1.notify_all();
    }
}

impl State {
    /// Reads the block table from the index. `genesis` is the genesis block's header.
    pub fn new(
        index: Arc<Index>,
        source: Arc<BlockSource>,
        genesis: HeaderBytes,
        limits: StateLimits,
    ) -> Result<State, QueryError> {
        let helpers = match source.kind() {
            SourceKind::Files => None,
            // They wait for the node more than they work. Others are to find it free now and then.
            SourceKind::Rest | SourceKind::Rpc => Some(NODE_HELPERS),
        };
        let limits = StateLimits {
            helpers: limits.helpers.or(helpers),
            ..limits
        };
        State::over(Box::new(Disk { index, source }), genesis, limits)
    }

    pub(super) fn over(
        archive: Box<dyn Archive>,
        genesis: HeaderBytes,
        limits: StateLimits,
    ) -> Result<State, QueryError> {
        let helpers = limits
            .helpers
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from) - 1);
        let core = Arc::new(Core {
            archive,
            genesis: block_hash(&genesis),
            genesis_header: genesis,
            cache: ScriptCache::new(limits.cache_bytes),
            trees: BlockTrees::new(limits.merkle_bytes),
            larges: LargeTxs::new(limits.large_tx_bytes),
            helpers: Helpers::new(helpers),
            subscriptions: Subscriptions::new(),
            reorgs: AtomicU64::new(0),
        });
        let chain = load(&core)?;
        core.cache.announce(chain.table.next_tx(), []);
        let cell = Arc::new_cyclic(|cell| Cell {
            newest: ArcSwap::from_pointee(View {
                core: core.clone(),
                cell: cell.clone(),
                reorgs: 0,
                cuts: Arc::default(),
                table: chain.table,
                tree: chain.tree,
                headers: None,
                tip: chain.tip,
                mempool: Mempool::default(),
                histogram: Default::default(),
                progress: None,
            }),
            writer: Mutex::default(),
            stored: Default::default(),
            in_step: watch::Sender::new(true),
        });
        Ok(State { core, cell })
    }

    /// The newest view. While the first sync runs: headers and mempool-free answers work, script questions give
    /// [`QueryError::Syncing`].
    pub fn view(&self) -> Arc<View> {
        self.cell.newest()
    }

    pub fn cache_figures(&self) -> CacheFigures {
        CacheFigures {
            proof_bytes: self.core.trees.bytes(),
            large_tx_bytes: self.core.larges.bytes(),
            ..self.core.cache.figures()
        }
    }

    pub fn subscriptions(&self) -> &Subscriptions {
        &self.core.subscriptions
    }

    /// To be called before rows are deleted from the index, each time; [`State::publish`] (or
    /// [`State::reload`]) ends it. In between, questions that need the disk wait.
    pub fn begin_reorg(&self) {
        let _writer = lock(&self.cell.writer);
        self.core.reorgs.fetch_add(1, Ordering::SeqCst);
    }

    /// Makes a change visible, and tells those whom it concerns. The index has it already: memory moves
    /// after disk.
    pub fn publish(&self, change: Publish) -> Result<(), QueryError> {
        let _writer = lock(&self.cell.writer);
        let mut view = self.cell.newest().successor();
        let kept = change.disconnected_from.unwrap_or(view.table.len());
        if kept < view.table.len() && self.core.reorgs.load(Ordering::SeqCst) == view.reorgs {
            // Rows went without a word. Those who read them meanwhile cannot be helped any more, but
            // what is kept can.
            self.core.reorgs.fetch_add(1, Ordering::SeqCst);
        }
        let tip_before = view.tip;
        if change.disconnected_from.is_some() || !change.connected.is_empty() {
            view.headers = None;
            view.table.truncate(kept);
            view.tree
                .truncate(kept, &|from, to| read_leaves(&*self.core.archive, from, to))?;
        }
        let reorgs = self.core.reorgs.load(Ordering::SeqCst);
        if reorgs != view.reorgs {
            view.add_cut(reorgs, view.table.next_tx());
        }
        for row in &change.connected {
            view.table.push(row);
            view.tree.push(header_leaf(&row.header));
        }
        view.tip = match (change.connected.last(), view.table.len()) {
            (Some(row), len) => tip_of(len - 1, row),
            (None, _) if change.disconnected_from.is_none() => view.tip,
            (None, len) => read_tip(&self.core, len)?,
        };
        view.mempool = change.mempool;
        let is_chain_changed = view.tip != tip_before;
        if is_chain_changed {
            self.core
                .cache
                .announce(view.table.next_tx(), &change.touched.scripts);
        }
        self.cell.store(view);
        self.core.subscriptions.announce(
            is_chain_changed,
            &change.touched.scripts,
            &change.touched.outpoints,
        );
        Ok(())
    }

    /// Reads everything anew from the index, after rows were written in another way than block by block.
    /// Nothing that was kept in memory counts any more.
    pub fn reload(&self, mempool: Mempool) -> Result<(), QueryError> {
        let _writer = lock(&self.cell.writer);
        let reorgs = self.core.reorgs.fetch_add(1, Ordering::SeqCst) + 1;
        let chain = load(&self.core)?;
        let mut view = self.cell.newest().successor();
        view.add_cut(reorgs, TxNum::ZERO);
        view.table = chain.table;
        view.tree = chain.tree;
        view.tip = chain.tip;
        view.headers = None;
        view.mempool = mempool;
        self.core.cache.announce(view.table.next_tx(), []);
        self.cell.store(view);
        self.core.subscriptions.announce(true, [], []);
        Ok(())
    }

    /// Sets (or takes away) the text that tells how far the sync is.
    pub fn set_progress(&self, progress: Option<String>) {
        let _writer = lock(&self.cell.writer);
        let mut view = self.cell.newest().successor();
        let in_step = progress.is_none();
        view.progress = progress;
        self.cell.store(view);
        self.cell.in_step.send_replace(in_step);
    }

    /// True while no sync is at work; for those who wait for its end.
    pub fn in_step(&self) -> watch::Receiver<bool> {
        self.cell.in_step.subscribe()
    }

    /// All headers from the genesis block's on, while the first sync runs: questions about headers and the
    /// tip are answered from them until the next [`State::publish`] or [`State::reload`].
    pub fn set_headers(&self, headers: Arc<Vec<HeaderBytes>>) {
        let Some(last) = headers.last() else {
            return;
        };
        let _writer = lock(&self.cell.writer);
        let mut view = self.cell.newest().successor();
        view.tip = Tip {
            height: (headers.len() - 1) as Height,
            hash: block_hash(last),
            header: *last,
        };
        view.tree = HeaderTree::default();
        headers
            .iter()
            .for_each(|header| view.tree.push(header_leaf(header)));
        view.headers = Some(headers);
        self.cell.store(view);
        self.core.subscriptions.announce(true, [], []);
    }
}

/// What the index says of the chain.
struct Chain {
    table: BlockTable,
    tree: HeaderTree,
    tip: Tip,
}

fn load(core: &Core) -> Result<Chain, QueryError> {
    let mut chain = Chain {
        table: BlockTable::default(),
        tree: HeaderTree::default(),
        tip: genesis_tip(core),
    };
    let mut is_complete = true;
    core.archive.blocks_from(0, &mut |height, row| {
        is_complete = height == chain.table.len() && row.first_tx == chain.table.next_tx();
        if !is_complete {
            return ControlFlow::Break(());
        }
        chain.table.push(&row);
        chain.tree.push(hash_leaf(row.hash));
        chain.tip = tip_of(height, &row);
        ControlFlow::Continue(())
    })?;
    if !is_complete {
        return Err(QueryError::Unavailable(format!(
            "the index has a gap above block {}; start once with --rebuild: the old one is deleted, and a new one \
             built from the node",
            chain.tip.height
        )));
    }
    if chain.table.len() == 0 {
        chain.tree.push(header_leaf(&core.genesis_header));
    }
    Ok(chain)
}

fn hash_leaf(hash: BlockHash) -> [u8; 32] {
    bitcoin::hashes::Hash::to_byte_array(hash)
}

fn tip_of(height: Height, row: &BlockRow) -> Tip {
    Tip {
        height,
        hash: row.hash,
        header: row.header,
    }
}

fn genesis_tip(core: &Core) -> Tip {
    Tip {
        height: 0,
        hash: core.genesis,
        header: core.genesis_header,
    }
}

/// The tip of the first `len` blocks of the index.
fn read_tip(core: &Core, len: u32) -> Result<Tip, QueryError> {
    let Some(height) = len.checked_sub(1) else {
        return Ok(genesis_tip(core));
    };
    let row = core
        .archive
        .block_row(height)?
        .ok_or_else(|| QueryError::Unavailable(format!("the index has no block {height}")))?;
    Ok(tip_of(height, &row))
}

fn read_leaves(
    archive: &dyn Archive,
    from: Height,
    to: Height,
) -> Result<Vec<[u8; 32]>, QueryError> {
    let mut leaves = Vec::new();
    if from == to {
        return Ok(leaves);
    }
    archive.blocks_from(from, &mut |height, row| {
        leaves.push(hash_leaf(row.hash));
        match height + 1 < to {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    Ok(leaves)
}
