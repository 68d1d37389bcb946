//! Reading a script's transactions: exact answers from candidates that may be strangers.
//!
//! A candidate belongs to the script if one of its outputs pays it, or one of its inputs spends an output
//! that was found to pay it. So outputs are matched in any order, by several threads, and inputs in chain
//! order, by one.
//!
//! Here transactions are read. `large` keeps those that many scripts share, `board` shares a long history among threads,
//! `merge` puts together what they read, `found` is what comes of it.

mod board;
mod found;
mod large;
mod merge;
mod scratch;

use std::{
    ops::ControlFlow,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use bitcoin::{OutPoint, Txid, hashes::Hash};

use super::{
    Ask, QueryError,
    archive::{Archive, Places},
    checked::checked,
    table::{BlockTable, TableBlock},
};
use crate::{
    chain::{ScriptHash, TxNum, TxView, is_unspendable},
    index::TxPlace,
};

use board::{Board, StopBoard, Turn};
pub(super) use found::{Addition, Found, OutPoints};
pub(super) use large::LargeTxs;
use large::{LargeTx, is_large};
use merge::Merge;
pub(super) use scratch::Scratch;

/// Candidates that one thread reads in one go.
const PIECE: usize = 512;
/// Pieces that may be read ahead of the one that is next in chain order: bounds the memory of a question,
/// whatever the length of the history (16 pieces of transactions of 500 bytes: 4 MB).
const PIECES_AHEAD: usize = 16;
/// Of so few candidates all transactions are held in memory at once, if they have so few bytes together (tests have small
/// ones, and shall meet both cases).
const FEW: usize = 32;
const FEW_BYTES: usize = if cfg!(test) { 2 << 10 } else { 4 << 20 };
/// Most bytes read at once, but for a single transaction that is larger.
const RUN_BYTES: u32 = 1 << 20;

/// Threads that help with long histories, of all questions together: one less than there are cores, so
/// that a second long question costs the short ones no more than the first.
pub(super) struct Helpers {
    free: AtomicUsize,
}

impl Helpers {
    pub fn new(count: usize) -> Helpers {
        Helpers {
            free: AtomicUsize::new(count),
        }
    }

    /// Takes all that are free.
    fn take(&self) -> TakenHelpers<'_> {
        TakenHelpers {
            helpers: self,
            count: self.free.swap(0, Ordering::AcqRel),
        }
    }
}

struct TakenHelpers<'a> {
    helpers: &'a Helpers,
    count: usize,
}

impl Drop for TakenHelpers<'_> {
    fn drop(&mut self) {
        self.helpers.free.fetch_add(self.count, Ordering::AcqRel);
    }
}

/// What a question is put to.
pub(super) struct Reader<'a> {
    pub archive: &'a dyn Archive,
    pub table: &'a BlockTable,
    /// Reorgs before the View.
    pub reorgs: u64,
    pub larges: &'a LargeTxs,
    pub helpers: &'a Helpers,
    pub ask: &'a Ask,
}

/// The transactions of some neighbouring candidates, as far as they matter: flat, so that a transaction
/// costs no allocation.
#[derive(Default)]
struct Piece {
    txs: Vec<ReadTx>,
    inputs: Vec<OutPoint>,
    /// Outputs that pay the script: output number and value.
    outputs: Vec<(u32, u64)>,
}

struct ReadTx {
    n: TxNum,
    txid: Txid,
    /// Where its inputs and outputs end in the piece's.
    inputs_end: usize,
    outputs_end: usize,
}

/// The script, known by its hash from the start and by its bytes from the first output that pays it.
struct Target<'a> {
    hash: &'a ScriptHash,
    script: OnceLock<Box<[u8]>>,
}

impl Target<'_> {
    fn is_paid_by(&self, script: &[u8]) -> bool {
        if let Some(known) = self.script.get() {
            return is_same(known, script);
        }
        let is_it = !is_unspendable(script) && ScriptHash::new(script) == *self.hash;
        if is_it {
            self.script.get_or_init(|| script.into());
        }
        is_it
    }
}

/// Scripts are alike in their first bytes, and differ in those of a hash.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.last_chunk::<8>() == other.last_chunk::<8>() && one == other
}

impl Piece {
    fn for_candidates(count: usize) -> Piece {
        Piece {
            txs: Vec::with_capacity(count),
            inputs: Vec::with_capacity(2 * count),
            outputs: Vec::with_capacity(count),
        }
    }

    /// Adds the next transaction, of whose outputs those are kept that satisfy `is_paid`.
    fn push(&mut self, n: TxNum, tx: &TxView<'_>, txid: Txid, is_paid: impl Fn(&[u8]) -> bool) {
        for (vout, output) in (0..).zip(tx.outputs()) {
            if is_paid(output.script) {
                self.outputs.push((vout, output.value));
            }
        }
        let spends = tx.inputs().filter(|input| !input.is_coinbase());
        self.inputs.extend(spends.map(|input| input.outpoint()));
        self.end_tx(n, txid);
    }

    fn push_large(&mut self, n: TxNum, tx: &LargeTx, script: Option<&[u8]>) {
        let paying = script.into_iter().flat_map(|script| tx.paying(script));
        self.outputs.extend(paying);
        self.inputs.extend_from_slice(&tx.inputs);
        self.end_tx(n, tx.txid);
    }

    fn end_tx(&mut self, n: TxNum, txid: Txid) {
        self.txs.push(ReadTx {
            n,
            txid,
            inputs_end: self.inputs.len(),
            outputs_end: self.outputs.len(),
        });
    }
}

/// One of few candidates.
enum Candidate<'a> {
    Usual(TxView<'a>, Txid),
    Large(Arc<LargeTx>),
}

impl Candidate<'_> {
    fn txid(&self) -> &Txid {
        match self {
            Candidate::Usual(_, txid) => txid,
            Candidate::Large(tx) => &tx.txid,
        }
    }

    fn output_count(&self) -> usize {
        match self {
            Candidate::Usual(tx, _) => tx.output_count,
            Candidate::Large(_) => usize::MAX,
        }
    }

    fn script(&self, vout: u32) -> Option<&[u8]> {
        match self {
            Candidate::Usual(tx, _) => tx.outputs().nth(vout as usize).map(|output| output.script),
            Candidate::Large(tx) => tx.script(vout as usize),
        }
    }
}

/// Finds the output of these transactions that pays the script, if there is one, by hashing few others.
fn find_script(target: &Target<'_>, candidates: &[(TxNum, Candidate<'_>)]) {
    // Most scripts are paid once and spent once: then an input of one candidate names the output of another.
    let is_named = |txid: &[u8; 32], vout: u32| {
        let candidates = candidates.iter().map(|(_, candidate)| candidate);
        let mut funders = candidates.filter(|candidate| candidate.txid().as_byte_array() == txid);
        let script = funders.next().and_then(|funder| funder.script(vout));
        script.is_some_and(|script| target.is_paid_by(script))
    };
    let is_found = candidates.iter().any(|(_, candidate)| match candidate {
        Candidate::Usual(tx, _) => tx.inputs().any(|input| is_named(input.txid, input.vout)),
        Candidate::Large(tx) => tx
            .inputs
            .iter()
            .any(|input| is_named(input.txid.as_byte_array(), input.vout)),
    });
    if is_found {
        return;
    }
    // Else it is in each of them, and soonest found in the one with the fewest outputs.
    let mut by_outputs: Vec<_> = candidates.iter().map(|(_, candidate)| candidate).collect();
    by_outputs.sort_unstable_by_key(|candidate| candidate.output_count());
    let _ = by_outputs.iter().any(|candidate| match candidate {
        Candidate::Usual(tx, _) => tx.outputs().any(|output| target.is_paid_by(output.script)),
        Candidate::Large(tx) => {
            let script = tx.script_of(target.hash);
            script.is_some_and(|script| target.is_paid_by(script))
        }
    });
}

impl Reader<'_> {
    fn check_cancelled(&self) -> Result<(), QueryError> {
        self.ask.check_cancelled()
    }

    /// What the rows from `from` up to the View's end add to what is known.
    pub fn read(
        &self,
        script: &ScriptHash,
        from: TxNum,
        known: &Found,
    ) -> Result<Addition, QueryError> {
        let target = Target {
            hash: script,
            script: known
                .script
                .clone()
                .map_or_else(OnceLock::new, OnceLock::from),
        };
        let mut merge = Merge::new(self, known);
        let mut candidates = Vec::new();
        let mut rows = 0usize;
        let mut stopped = Ok(());
        let mut pieces = Vec::new();
        self.archive
            .touching(script, from, self.table.next_tx(), &mut |n| {
                candidates.push(n);
                rows += 1;
                if self.ask.rows_max.is_some_and(|max| rows > max) {
                    stopped = Err(QueryError::Long);
                    return ControlFlow::Break(());
                }
                if candidates.len() == PIECE {
                    pieces.push(std::mem::take(&mut candidates));
                    stopped = self.check_cancelled();
                    if stopped.is_err() {
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            })?;
        stopped?;
        pieces.push(candidates);
        if rows <= PIECE {
            for piece in &pieces {
                merge.add(&self.read_piece(&target, piece)?)?;
            }
        } else {
            merge.expect_many();
            self.read_long(&target, &pieces, &mut merge)?;
        }
        Ok(merge.finish(target.script.into_inner()))
    }

    /// Several threads read pieces; this one merges them in order, and reads too while it would wait.
    fn read_long(
        &self,
        target: &Target<'_>,
        pieces: &[Vec<TxNum>],
        merge: &mut Merge<'_>,
    ) -> Result<(), QueryError> {
        let board = Board::new(pieces);
        let taken = self.helpers.take();
        let count = taken.count.min(pieces.len() - 1);
        std::thread::scope(|scope| {
            // Whatever happens here, the helpers end.
            let _stop = StopBoard(&board);
            for _ in 0..count {
                scope.spawn(|| {
                    while let Some(taken) = board.take_or_wait() {
                        let piece = self.read_piece(target, &pieces[taken.at]);
                        taken.put(piece);
                    }
                });
            }
            for next in 0..pieces.len() {
                let piece = loop {
                    match board.get_or_take(next) {
                        Turn::Merge(piece) => break piece?,
                        Turn::Read(taken) => {
                            let piece = self.read_piece(target, &pieces[taken.at]);
                            taken.put(piece);
                        }
                    }
                };
                merge.add(&piece)?;
            }
            Ok(())
        })
    }

    fn read_piece(&self, target: &Target<'_>, candidates: &[TxNum]) -> Result<Piece, QueryError> {
        self.check_cancelled()?;
        if candidates.len() <= FEW
            && target.script.get().is_none()
            && let Some(piece) = self.read_few(target, candidates)?
        {
            return Ok(piece);
        }
        let mut piece = Piece::for_candidates(candidates.len());
        self.for_each_tx(candidates, |n, tx, txid| {
            piece.push(n, &tx, txid, |script| target.is_paid_by(script));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(piece)
    }

    /// The transactions of few candidates; `None` where they are too large to be held at once.
    fn read_few(
        &self,
        target: &Target<'_>,
        candidates: &[TxNum],
    ) -> Result<Option<Piece>, QueryError> {
        let mut places = self.archive.places();
        let mut found = Vec::with_capacity(candidates.len());
        let (mut all, mut size) = (0usize, 0usize);
        for &n in candidates {
            let block = self.block_of(n)?;
            let place = places(&block, n)?;
            all = all.saturating_add(place.size as usize);
            if !is_large(&place) {
                size += place.size as usize;
            }
            found.push((n, block, place, None));
        }
        if all > FEW_BYTES {
            return Ok(None);
        }
        // The large ones before this thread's room is taken: it is read into for each of them.
        for (n, block, place, large) in &mut found {
            if is_large(place) {
                let (archive, reorgs) = (self.archive, self.reorgs);
                *large = Some(self.larges.get(archive, reorgs, *n, block, place)?);
            }
        }
        let mut scratch = Scratch::take();
        let mut rest = scratch.room(size);
        let mut txs = Vec::with_capacity(found.len());
        for (n, block, place, large) in found {
            if let Some(large) = large {
                txs.push((n, Candidate::Large(large)));
                continue;
            }
            let (bytes, after) = rest.split_at_mut(place.size as usize);
            rest = after;
            self.archive.read(&block, place.offset, bytes)?;
            let (tx, txid) = checked(&block, &place, bytes)?;
            txs.push((n, Candidate::Usual(tx, txid)));
        }
        find_script(target, &txs);
        let mut piece = Piece::for_candidates(txs.len());
        // Even if none of them pays it, they may spend what earlier pieces pay.
        let script = target.script.get().map(|script| &**script);
        for (n, candidate) in &txs {
            match candidate {
                Candidate::Usual(tx, txid) => piece.push(*n, tx, *txid, |paid| {
                    script.is_some_and(|script| is_same(script, paid))
                }),
                Candidate::Large(tx) => piece.push_large(*n, tx, script),
            }
        }
        Ok(Some(piece))
    }

    fn block_of(&self, n: TxNum) -> Result<TableBlock, QueryError> {
        let block = self.table.block_of(n);
        block.ok_or_else(|| QueryError::Unavailable(format!("no block has transaction {n}")))
    }

    /// Reads transactions, in ascending order; those that lie close together in one read.
    pub fn for_each_tx(
        &self,
        numbers: &[TxNum],
        mut visit: impl FnMut(TxNum, TxView<'_>, Txid) -> Result<ControlFlow<()>, QueryError>,
    ) -> Result<(), QueryError> {
        let mut places: Places<'_> = self.archive.places();
        let gap_bytes = self.archive.gap_bytes();
        let mut scratch = Scratch::take();
        let mut run: Vec<(TxNum, TxPlace)> = Vec::new();
        let mut numbers = numbers.iter().copied();
        let mut next = numbers.next();
        let mut in_block: Option<TableBlock> = None;
        while let Some(first) = next {
            let block = match in_block {
                Some(block) if block.contains(first) => block,
                _ => self.block_of(first)?,
            };
            in_block = Some(block);
            // From the first one's place on, as far as the neighbours lie close together.
            run.clear();
            let (mut start, mut end) = (0, 0);
            while let Some(n) = next.filter(|&n| block.contains(n)) {
                let place = places(&block, n)?;
                let place_end = place.offset.saturating_add(place.size);
                if run.is_empty() {
                    (start, end) = (place.offset, place_end);
                } else if place.offset < end {
                    // So it is where a reorg comes between: the question is put again.
                    return Err(QueryError::Unavailable(format!(
                        "transaction {n} lies before its predecessor: if this comes again, `ambra verify` tells more, and a \
                         start with --rebuild mends it"
                    )));
                } else if place.offset > end.saturating_add(gap_bytes)
                    || place_end - start.min(place_end) > RUN_BYTES
                {
                    break;
                } else {
                    end = end.max(place_end);
                }
                run.push((n, place));
                next = numbers.next();
            }
            let bytes = scratch.room((end - start) as usize);
            self.archive.read(&block, start, bytes)?;
            for (n, place) in &run {
                let at = (place.offset - start) as usize;
                let tx = bytes.get(at..at + place.size as usize).unwrap_or_default();
                let (tx, txid) = checked(&block, place, tx)?;
                if visit(*n, tx, txid)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The confirmed transaction after number `after` that spends the outpoint, which pays the script.
    pub fn spender(
        &self,
        script: &ScriptHash,
        outpoint: &OutPoint,
        after: TxNum,
    ) -> Result<Option<(TxNum, Txid)>, QueryError> {
        let mut spender = None;
        let mut candidates = Vec::new();
        let mut search = |candidates: &mut Vec<TxNum>| {
            self.check_cancelled()?;
            self.for_each_tx(candidates, |n, tx, txid| {
                if tx.inputs().any(|input| input.outpoint() == *outpoint) {
                    spender = Some((n, txid));
                    return Ok(ControlFlow::Break(()));
                }
                Ok(ControlFlow::Continue(()))
            })?;
            candidates.clear();
            Ok::<_, QueryError>(spender.is_some())
        };
        let mut found = Ok(false);
        let Some(from) = after.checked_add(1) else {
            return Ok(None);
        };
        // A coin is often spent soon: small pieces first.
        let (mut piece, mut rows) = (16, 0);
        self.archive
            .touching(script, from, self.table.next_tx(), &mut |n| {
                rows += 1;
                if self.ask.rows_max.is_some_and(|max| rows > max) {
                    found = Err(QueryError::Long);
                    return ControlFlow::Break(());
                }
                candidates.push(n);
                if candidates.len() < piece {
                    return ControlFlow::Continue(());
                }
                piece = (2 * piece).min(PIECE);
                found = search(&mut candidates);
                match found {
                    Ok(false) => ControlFlow::Continue(()),
                    _ => ControlFlow::Break(()),
                }
            })?;
        if !found? {
            search(&mut candidates)?;
        }
        Ok(spender)
    }
}

impl Ask {
    pub(super) fn check_cancelled(&self) -> Result<(), QueryError> {
        let cancelled = self.cancelled.as_ref();
        match cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
            true => Err(QueryError::Cancelled),
            false => Ok(()),
        }
    }
}
