//! A View: one moment of index and mempool, and every question that a wallet can ask of it.
//!
//! Here are those about headers and transactions, in `scripts` those about scripts.

mod scripts;

use std::{
    ops::ControlFlow,
    sync::{Arc, OnceLock, Weak, atomic::Ordering},
};

use bitcoin::{BlockHash, OutPoint, TxOut, Txid, consensus::encode, hashes::Hash};

use super::{
    Ask, Cell, Core, FoundTx, OutpointStatus, QueryError, RecentTx, Stop, Tip, cache::Moment,
    headers::HeaderTree, proofs::Blocks, query::Reader, table::BlockTable,
};
use crate::{
    chain::{HeaderBytes, Height, MerkleProof, Node, ScriptHash, TxNum, block_hash},
    mempool::Mempool,
};

/// How often a question that a reorg or a newer View overtook is put again, to the newest View.
const ATTEMPTS_MAX: usize = 16;
/// A transaction of the mempool is looked for among the entries of the last so many blocks: it may be in both
/// only until the mempool has been told of the block.
const OVERLAP_BLOCKS: u32 = 1000;

/// How many damaged blocks one question has healed at most; those that are left are the next one's.
const HEALED_MAX: usize = 64;

/// Most reorgs whose forks a View remembers.
const CUTS_MAX: usize = 64;

/// One consistent moment.
pub struct View {
    pub(super) core: Arc<Core>,
    /// Where the newest View is. Weak: the cell holds a View.
    pub(super) cell: Weak<Cell>,
    /// Reorgs before this View, and where the last of them forked off.
    pub(super) reorgs: u64,
    pub(super) cuts: Arc<Vec<(u64, TxNum)>>,
    pub(super) table: BlockTable,
    pub(super) tree: HeaderTree,
    /// While the first sync runs: all headers, of which the index has no rows yet.
    pub(super) headers: Option<Arc<Vec<HeaderBytes>>>,
    pub(super) tip: Tip,
    pub(super) mempool: Mempool,
    pub(super) histogram: OnceLock<Arc<Vec<(f64, u64)>>>,
    pub(super) progress: Option<String>,
}

impl View {
    /// The same moment, to be changed into the next.
    pub(super) fn successor(&self) -> View {
        View {
            core: self.core.clone(),
            cell: self.cell.clone(),
            reorgs: self.reorgs,
            cuts: self.cuts.clone(),
            table: self.table.clone(),
            tree: self.tree.clone(),
            headers: self.headers.clone(),
            tip: self.tip,
            mempool: self.mempool.clone(),
            histogram: OnceLock::new(),
            progress: self.progress.clone(),
        }
    }

    /// Records a reorg: the numbers from `fork` on have other transactions now.
    pub(super) fn add_cut(&mut self, reorgs: u64, fork: TxNum) {
        let mut cuts = self.cuts.to_vec();
        // Reorgs that were announced, but took nothing away, count as well.
        cuts.extend((self.reorgs + 1..=reorgs).map(|reorg| (reorg, fork)));
        cuts.drain(..cuts.len().saturating_sub(CUTS_MAX));
        self.cuts = Arc::new(cuts);
        self.reorgs = reorgs;
    }

    pub fn tip(&self) -> Tip {
        self.tip
    }

    /// The genesis block's hash.
    pub fn genesis(&self) -> BlockHash {
        self.core.genesis
    }

    /// Progress text while syncing (for the banner), `None` afterwards.
    pub fn progress(&self) -> Option<String> {
        self.progress.clone()
    }

    pub fn header(&self, height: Height) -> Result<Option<HeaderBytes>, QueryError> {
        if height == self.tip.height {
            return Ok(Some(self.tip.header));
        }
        let headers = self.headers(height, 1)?;
        Ok(headers.first_chunk().copied())
    }

    /// Headers side by side from `start`, at most `count`, fewer at the tip, empty beyond it.
    pub fn headers(&self, start: Height, count: u32) -> Result<Vec<u8>, QueryError> {
        self.newest_if_overtaken(|view| {
            let end = start
                .saturating_add(count)
                .min(view.tip.height.saturating_add(1));
            let mut bytes = Vec::with_capacity(80 * end.saturating_sub(start) as usize);
            view.for_each_header(start, end, |header, _| bytes.extend_from_slice(header))?;
            Ok(bytes)
        })
    }

    /// Branch of the header at `height` in the tree of all header hashes 0..=`cp_height`; both must be <= tip and height <= cp_height.
    pub fn header_proof(
        &self,
        height: Height,
        cp_height: Height,
    ) -> Result<MerkleProof, QueryError> {
        self.newest_if_overtaken(|view| {
            let proof = view.tree.proof(height, cp_height, &|from, to| {
                let mut hashes = Vec::new();
                view.for_each_header(from, to, |header, hash| {
                    let hash = hash.unwrap_or_else(|| block_hash(header));
                    hashes.push(hash.to_byte_array());
                })?;
                Ok(hashes)
            });
            view.unless_overtaken(proof)
        })
    }

    /// Visits the headers from `start` to `end` (not included), with their hashes where these are at hand.
    fn for_each_header(
        &self,
        start: Height,
        end: Height,
        mut visit: impl FnMut(&HeaderBytes, Option<BlockHash>),
    ) -> Result<(), QueryError> {
        if start >= end {
            return Ok(());
        }
        if let Some(headers) = &self.headers {
            let end = headers.len().min(end as usize);
            let headers = headers.get(start as usize..end).unwrap_or_default();
            headers.iter().for_each(|header| visit(header, None));
            return Ok(());
        }
        if self.table.len() == 0 {
            // Nothing is indexed yet: there is the genesis block.
            visit(&self.tip.header, Some(self.tip.hash));
            return Ok(());
        }
        let mut wanted = start;
        self.core.archive.blocks_from(start, &mut |height, row| {
            if height != wanted {
                return ControlFlow::Break(());
            }
            visit(&row.header, Some(row.hash));
            wanted += 1;
            if wanted == end {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if wanted != end {
            return Err(QueryError::Unavailable(format!(
                "the index has no block {wanted}"
            )));
        }
        Ok(())
    }

    /// Confirmed or in the mempool. While a sync runs, what is not there yet is [`QueryError::Syncing`].
    pub fn transaction(&self, txid: &Txid) -> Result<Option<FoundTx>, QueryError> {
        self.newest_if_overtaken(|view| {
            let found = view.unless_overtaken(view.blocks().find(txid))?;
            if let Some((n, bytes)) = found {
                return Ok(Some(FoundTx {
                    bytes,
                    confirmed: view.height_and_position(n),
                }));
            }
            let unconfirmed = view.mempool.transaction(txid);
            view.unless_syncing(unconfirmed.map(|bytes| FoundTx {
                bytes: bytes.to_vec(),
                confirmed: None,
            }))
        })
    }

    /// Height and position of a confirmed transaction.
    pub fn position(&self, txid: &Txid) -> Result<Option<(Height, u32)>, QueryError> {
        self.newest_if_overtaken(|view| {
            let found = view.unless_overtaken(view.blocks().find(txid))?;
            view.unless_syncing(found.and_then(|(n, _)| view.height_and_position(n)))
        })
    }

    /// `None` where the block has no such transaction (or there is no such block).
    pub fn merkle_proof(
        &self,
        txid: &Txid,
        height: Height,
    ) -> Result<Option<MerkleProof>, QueryError> {
        self.check_synced()?;
        self.newest_if_overtaken(|view| view.unless_overtaken(view.blocks().proof_of(txid, height)))
    }

    /// The transaction at a position of a block, with its branch. `None`: no such block or position.
    pub fn txid_at(
        &self,
        height: Height,
        position: u32,
    ) -> Result<Option<(Txid, MerkleProof)>, QueryError> {
        self.newest_if_overtaken(|view| {
            view.unless_syncing(view.unless_overtaken(view.blocks().at(height, position))?)
        })
    }

    /// The output, and the height of its transaction (0 in the mempool), spent or not.
    pub fn output(&self, outpoint: &OutPoint) -> Result<Option<(TxOut, Height)>, QueryError> {
        let Some(found) = self.transaction(&outpoint.txid)? else {
            return Ok(None);
        };
        let tx: bitcoin::Transaction = encode::deserialize(&found.bytes)
            .map_err(|error| QueryError::Unavailable(format!("{}: {error}", outpoint.txid)))?;
        let height = found.confirmed.map_or(0, |(height, _)| height);
        let mut outputs = tx.output.into_iter();
        let output = outputs.nth(outpoint.vout as usize);
        Ok(output.map(|output| (output, height)))
    }

    /// `script` must be the script hash of the outpoint's script (the client's hint); a hint that is not gives the default.
    pub fn outpoint_status(
        &self,
        outpoint: &OutPoint,
        script: &ScriptHash,
        ask: &Ask,
    ) -> Result<OutpointStatus, QueryError> {
        self.check_synced()?;
        self.newest_if_overtaken(|view| {
            let found = view.unless_overtaken(view.blocks().find(&outpoint.txid))?;
            let (bytes, funder) = match &found {
                Some((n, bytes)) => (&bytes[..], Some(*n)),
                None => match view.mempool.transaction(&outpoint.txid) {
                    Some(bytes) => return Ok(view.unconfirmed_outpoint(outpoint, script, &bytes)),
                    None => return Ok(OutpointStatus::default()),
                },
            };
            let Some(funder) = funder.filter(|_| pays(bytes, outpoint.vout, script)) else {
                return Ok(OutpointStatus::default());
            };
            let confirmed = view.confirmed_spender(outpoint, script, funder, ask);
            let spender = match view.unless_overtaken(confirmed)? {
                Some((n, txid)) => view
                    .table
                    .block_of(n)
                    .map(|block| (txid, i64::from(block.height))),
                None => view.unconfirmed_spender(outpoint),
            };
            Ok(OutpointStatus {
                funder_height: view.table.block_of(funder).map(|block| block.height.into()),
                spender,
            })
        })
    }

    /// (sat/vB, vsize) strictly descending.
    pub fn fee_histogram(&self) -> Arc<Vec<(f64, u64)>> {
        self.histogram
            .get_or_init(|| Arc::new(self.mempool.fee_histogram()))
            .clone()
    }

    /// Unconfirmed transactions, and their virtual bytes at each fee rate: (sat/vB, vsize) ascending.
    pub fn mempool_by_rate(&self) -> (usize, Vec<(f64, u64)>) {
        (self.mempool.len(), self.mempool.by_rate())
    }

    /// The newest ten.
    pub fn recent(&self) -> Vec<RecentTx> {
        let recent = self.mempool.recent().into_iter();
        recent
            .map(|(txid, fee, vsize)| RecentTx { txid, fee, vsize })
            .collect()
    }

    // What the questions have in common.

    fn check_synced(&self) -> Result<(), QueryError> {
        match &self.progress {
            Some(text) => Err(QueryError::Syncing(text.clone())),
            None => Ok(()),
        }
    }

    /// Nothing may mean "not yet".
    fn unless_syncing<T>(&self, found: Option<T>) -> Result<Option<T>, Stop> {
        if found.is_none() {
            self.check_synced()?;
        }
        Ok(found)
    }

    fn moment(&self) -> Moment<'_> {
        Moment {
            next_tx: self.table.next_tx(),
            reorgs: self.reorgs,
            cuts: &self.cuts,
        }
    }

    fn blocks(&self) -> Blocks<'_> {
        Blocks {
            archive: &*self.core.archive,
            table: &self.table,
            reorgs: self.reorgs,
            trees: &self.core.trees,
        }
    }

    fn reader<'a>(&'a self, ask: &'a Ask) -> Reader<'a> {
        Reader {
            archive: &*self.core.archive,
            table: &self.table,
            reorgs: self.reorgs,
            larges: &self.core.larges,
            helpers: &self.core.helpers,
            ask,
        }
    }

    fn height_and_position(&self, n: TxNum) -> Option<(Height, u32)> {
        let block = self.table.block_of(n)?;
        Some((block.height, block.position(n)))
    }

    /// Passes on what was read, unless rows may have gone meanwhile. See the cache's `# Concurrency`.
    fn unless_overtaken<T>(&self, read: Result<T, QueryError>) -> Result<T, Stop> {
        if self.core.reorgs.load(Ordering::SeqCst) != self.reorgs {
            return Err(Stop::Outdated);
        }
        Ok(read?)
    }

    /// Puts a question to this View, and to the newest one where this one is overtaken.
    fn newest_if_overtaken<T>(
        &self,
        question: impl Fn(&View) -> Result<T, Stop>,
    ) -> Result<T, QueryError> {
        let mut newer: Option<Arc<View>> = None;
        let (mut overtaken, mut healed) = (0, 0);
        while overtaken < ATTEMPTS_MAX {
            let view = newer.as_deref().unwrap_or(self);
            match question(view) {
                Ok(answer) => return Ok(answer),
                Err(Stop::Query(QueryError::Damaged(height))) if healed < HEALED_MAX => {
                    healed += 1;
                    let block = view.table.block(height);
                    let block = block.ok_or(QueryError::Damaged(height))?;
                    view.core.archive.heal(&block)?;
                }
                Err(Stop::Query(error)) => return Err(error),
                Err(Stop::Outdated) => {
                    overtaken += 1;
                    let cell = self.cell.upgrade().ok_or_else(|| {
                        QueryError::Unavailable("the server is stopping".to_owned())
                    })?;
                    newer = Some(cell.settled_view(&self.core)?);
                }
            }
        }
        Err(QueryError::Unavailable(
            "the chain changes faster than it can be read".to_owned(),
        ))
    }

    fn confirmed_spender(
        &self,
        outpoint: &OutPoint,
        script: &ScriptHash,
        funder: TxNum,
        ask: &Ask,
    ) -> Result<Option<(TxNum, Txid)>, QueryError> {
        if self.core.cache.is_known(script, &self.moment()) {
            let is_coin = self.with_found(script, ask, |found| {
                Ok(found.coins.iter().any(|coin| coin.outpoint() == *outpoint))
            });
            if let Ok(true) = is_coin {
                return Ok(None);
            }
        }
        self.reader(ask).spender(script, outpoint, funder)
    }

    fn unconfirmed_height(&self, txid: &Txid) -> i64 {
        let entry = self.mempool.entry(txid);
        entry.map_or(0, |entry| entry.height().into())
    }

    fn unconfirmed_spender(&self, outpoint: &OutPoint) -> Option<(Txid, i64)> {
        let spender = self.mempool.spender(outpoint)?;
        Some((spender, self.unconfirmed_height(&spender)))
    }

    fn unconfirmed_outpoint(
        &self,
        outpoint: &OutPoint,
        script: &ScriptHash,
        bytes: &[u8],
    ) -> OutpointStatus {
        if !pays(bytes, outpoint.vout, script) {
            return OutpointStatus::default();
        }
        OutpointStatus {
            funder_height: Some(self.unconfirmed_height(&outpoint.txid)),
            spender: self.unconfirmed_spender(outpoint),
        }
    }
}

/// True if the transaction's output `vout` pays the script.
fn pays(tx: &[u8], vout: u32, script: &ScriptHash) -> bool {
    crate::chain::TxView::parse(tx).is_ok_and(|tx| {
        let mut outputs = tx.outputs();
        let output = outputs.nth(vout as usize);
        output.is_some_and(|output| ScriptHash::new(output.script) == *script)
    })
}

/// A header's hash as a leaf of the tree of headers.
pub(super) fn header_leaf(header: &HeaderBytes) -> Node {
    block_hash(header).to_byte_array()
}
