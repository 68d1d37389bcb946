//! Reading a script's transactions: exact answers from candidates that may be strangers.
//!
//! A candidate belongs to the script if one of its outputs pays it, or one of its inputs spends an output
//! that was found to pay it. So outputs are matched in any order, by several threads, and inputs in chain
//! order, by one.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    ops::ControlFlow,
    sync::{
        Condvar, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use bitcoin::{OutPoint, Txid};

use super::{
    Ask, QueryError,
    archive::{Archive, Places},
    lock,
    table::{BlockTable, TableBlock},
};
use crate::{
    chain::{Confirmed, ScriptHash, StatusHasher, TxNum, TxView, is_unspendable},
    index::TxPlace,
};

/// Candidates that one thread reads in one go.
const PIECE: usize = 512;
/// Pieces that may be read ahead of the one that is next in chain order: bounds the memory of a question,
/// whatever the length of the history (16 pieces of transactions of 500 bytes: 4 MB).
const PIECES_AHEAD: usize = 16;
/// Bytes between two wanted transactions that are rather read than skipped.
const GAP_BYTES: u32 = 4 << 10;
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

/// A confirmed output that nothing confirmed spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coin {
    pub txid: Txid,
    pub vout: u32,
    /// The number of its transaction.
    pub tx: TxNum,
    /// In satoshis.
    pub value: u64,
}

impl Coin {
    pub fn outpoint(&self) -> OutPoint {
        OutPoint {
            txid: self.txid,
            vout: self.vout,
        }
    }
}

/// What the confirmed transactions say of a script.
#[derive(Clone, Default)]
pub(super) struct Found {
    pub confirmed: std::sync::Arc<Vec<Confirmed>>,
    /// By transaction, then output.
    pub coins: Vec<Coin>,
    /// The coins' sum, in satoshis.
    pub balance: u64,
    /// After all of `confirmed`.
    pub hasher: StatusHasher,
    /// The number of the last of `confirmed`.
    pub last: Option<TxNum>,
    /// The locking script, once it has been seen.
    pub script: Option<Box<[u8]>>,
}

/// What later transactions add to [`Found`].
#[derive(Default)]
pub(super) struct Addition {
    confirmed: Vec<Confirmed>,
    /// Old coins that are spent.
    spent: OutPoints<()>,
    /// New coins, in order.
    coins: Vec<Coin>,
    balance: u64,
    hasher: StatusHasher,
    last: Option<TxNum>,
    script: Option<Box<[u8]>>,
}

impl Addition {
    pub fn is_empty(&self) -> bool {
        self.confirmed.is_empty()
    }
}

impl Found {
    pub fn add(&mut self, addition: Addition) {
        if addition.confirmed.is_empty() {
            return;
        }
        if self.confirmed.is_empty() {
            self.confirmed = std::sync::Arc::new(addition.confirmed);
        } else {
            // Copies only where an answer is being written from the old history at this moment.
            std::sync::Arc::make_mut(&mut self.confirmed).extend(addition.confirmed);
        }
        if !addition.spent.is_empty() {
            self.coins
                .retain(|coin| !addition.spent.contains_key(&coin.outpoint()));
        }
        if self.coins.is_empty() {
            self.coins = addition.coins;
        } else {
            self.coins.extend(addition.coins);
        }
        self.balance = addition.balance;
        self.hasher = addition.hasher;
        self.last = addition.last;
        self.script = addition.script;
    }

    /// Memory behind the pointers, in bytes.
    pub fn bytes(&self) -> usize {
        self.confirmed.capacity() * size_of::<Confirmed>()
            + self.coins.capacity() * size_of::<Coin>()
            + self.script.as_ref().map_or(0, |script| script.len())
    }
}

/// A txid is a hash already: eight of its bytes are as good as any function of them. To make many
/// outpoints of one script fall together, one would have to find many transactions whose ids share 64 bits.
#[derive(Clone, Copy, Default)]
pub(super) struct OutPointHasher(u64);

impl Hasher for OutPointHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some((eight, _)) = bytes.split_first_chunk() {
            self.0 ^= u64::from_le_bytes(*eight);
        }
    }

    fn write_u32(&mut self, vout: u32) {
        // An odd factor: different outputs of one transaction stay different.
        self.0 = self
            .0
            .wrapping_add(u64::from(vout).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }

    /// The length of the array that comes next says nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

pub(super) type OutPoints<V> = HashMap<OutPoint, V, BuildHasherDefault<OutPointHasher>>;

/// What a question is put to.
pub(super) struct Reader<'a> {
    pub archive: &'a dyn Archive,
    pub table: &'a BlockTable,
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
            return **known == *script;
        }
        let is_it = !is_unspendable(script) && ScriptHash::new(script) == *self.hash;
        if is_it {
            self.script.get_or_init(|| script.into());
        }
        is_it
    }
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
        let mut piece = Piece {
            txs: Vec::with_capacity(candidates.len()),
            inputs: Vec::with_capacity(2 * candidates.len()),
            outputs: Vec::with_capacity(candidates.len()),
        };
        self.for_each_tx(candidates, |n, _, tx| {
            for (vout, output) in (0..).zip(tx.outputs()) {
                if target.is_paid_by(output.script) {
                    piece.outputs.push((vout, output.value));
                }
            }
            let spends = tx.inputs().filter(|input| !input.is_coinbase());
            piece.inputs.extend(spends.map(|input| input.outpoint()));
            piece.txs.push(ReadTx {
                n,
                txid: tx.txid(),
                inputs_end: piece.inputs.len(),
                outputs_end: piece.outputs.len(),
            });
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(piece)
    }

    /// Reads transactions, in ascending order; those that lie close together in one read.
    pub fn for_each_tx(
        &self,
        numbers: &[TxNum],
        mut visit: impl FnMut(TxNum, &TableBlock, TxView<'_>) -> Result<ControlFlow<()>, QueryError>,
    ) -> Result<(), QueryError> {
        let mut places: Places<'_> = self.archive.places();
        let mut bytes = Vec::new();
        let mut run: Vec<(TxNum, TxPlace)> = Vec::new();
        let mut numbers = numbers.iter().copied();
        let mut next = numbers.next();
        let mut in_block: Option<TableBlock> = None;
        while let Some(first) = next {
            let block = match in_block {
                Some(block) if block.contains(first) => block,
                _ => self.table.block_of(first).ok_or_else(|| {
                    QueryError::Unavailable(format!("no block has transaction {first}"))
                })?,
            };
            in_block = Some(block);
            // From the first one's place on, as far as the neighbours lie close together.
            run.clear();
            let (mut start, mut end) = (0, 0);
            while let Some(n) = next.filter(|&n| block.contains(n)) {
                let place = places(n)?;
                let place_end = place.offset.saturating_add(place.size);
                if run.is_empty() {
                    (start, end) = (place.offset, place_end);
                } else if place.offset < end {
                    // So it is where a reorg comes between: the question is put again.
                    return Err(QueryError::Unavailable(format!(
                        "transaction {n} lies before its predecessor"
                    )));
                } else if place.offset > end.saturating_add(GAP_BYTES)
                    || place_end - start.min(place_end) > RUN_BYTES
                {
                    break;
                } else {
                    end = end.max(place_end);
                }
                run.push((n, place));
                next = numbers.next();
            }
            self.archive.read(&block, start, end - start, &mut bytes)?;
            for (n, place) in &run {
                let at = (place.offset - start) as usize;
                let tx = bytes.get(at..at + place.size as usize).unwrap_or_default();
                if visit(*n, &block, TxView::parse(tx)?)?.is_break() {
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
            self.for_each_tx(candidates, |n, _, tx| {
                if tx.inputs().any(|input| input.outpoint() == *outpoint) {
                    spender = Some((n, tx.txid()));
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
        let mut piece = 16;
        self.archive
            .touching(script, from, self.table.next_tx(), &mut |n| {
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

/// Pieces in the making.
struct Board {
    inside: Mutex<BoardInside>,
    changed: Condvar,
}

struct BoardInside {
    /// The first piece that nobody has taken.
    untaken: usize,
    /// The piece that is to be merged next.
    merged: usize,
    pieces: Vec<Option<Result<Piece, QueryError>>>,
    is_stopped: bool,
}

enum Turn<'a> {
    Merge(Result<Piece, QueryError>),
    Read(Taken<'a>),
}

/// A piece that this thread is to read. Others wait for it: so it is put back in any case.
struct Taken<'a> {
    board: &'a Board,
    at: usize,
}

impl Taken<'_> {
    fn put(self, piece: Result<Piece, QueryError>) {
        lock(&self.board.inside).pieces[self.at] = Some(piece);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        lock(&self.board.inside).pieces[self.at]
            .get_or_insert_with(|| Err(QueryError::Unavailable("a reader failed".to_owned())));
        self.board.changed.notify_all();
    }
}

impl BoardInside {
    fn take(&mut self) -> Option<usize> {
        let may_take =
            self.untaken < self.pieces.len() && self.untaken <= self.merged + PIECES_AHEAD;
        may_take.then(|| {
            self.untaken += 1;
            self.untaken - 1
        })
    }
}

impl Board {
    fn new(pieces: &[Vec<TxNum>]) -> Board {
        Board {
            inside: Mutex::new(BoardInside {
                untaken: 0,
                merged: 0,
                pieces: pieces.iter().map(|_| None).collect(),
                is_stopped: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// A piece to read; `None` when there is no more to do.
    fn take_or_wait(&self) -> Option<Taken<'_>> {
        let mut inside = lock(&self.inside);
        loop {
            if inside.is_stopped || inside.untaken == inside.pieces.len() {
                return None;
            }
            if let Some(at) = inside.take() {
                return Some(Taken { board: self, at });
            }
            inside = wait(&self.changed, inside);
        }
    }

    /// The piece that is next in order, or one to read meanwhile.
    fn get_or_take(&self, next: usize) -> Turn<'_> {
        let mut inside = lock(&self.inside);
        inside.merged = next;
        self.changed.notify_all();
        loop {
            if let Some(piece) = inside.pieces[next].take() {
                return Turn::Merge(piece);
            }
            if let Some(at) = inside.take() {
                return Turn::Read(Taken { board: self, at });
            }
            inside = wait(&self.changed, inside);
        }
    }
}

fn wait<'a, T>(
    condition: &Condvar,
    guard: std::sync::MutexGuard<'a, T>,
) -> std::sync::MutexGuard<'a, T> {
    condition
        .wait(guard)
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct StopBoard<'a>(&'a Board);

impl Drop for StopBoard<'_> {
    fn drop(&mut self) {
        lock(&self.0.inside).is_stopped = true;
        self.0.changed.notify_all();
    }
}

/// Pieces put together in chain order.
struct Merge<'a> {
    table: &'a BlockTable,
    history_max: Option<usize>,
    known: &'a Found,
    /// The block of the transaction that was added last.
    block: Option<TableBlock>,
    /// Outputs that pay the script and are not spent yet: all new ones, and those old ones that the
    /// transactions of the piece at hand spend (or all, for long additions).
    funded: OutPoints<(TxNum, u64)>,
    has_all_old: bool,
    addition: Addition,
}

impl<'a> Merge<'a> {
    fn new(reader: &Reader<'a>, known: &'a Found) -> Merge<'a> {
        Merge {
            table: reader.table,
            history_max: reader.ask.max_history,
            known,
            block: None,
            funded: OutPoints::default(),
            has_all_old: known.coins.is_empty(),
            addition: Addition {
                balance: known.balance,
                hasher: known.hasher.clone(),
                last: known.last,
                ..Addition::default()
            },
        }
    }

    /// Many transactions come: look old coins up instead of passing over all of them for each piece.
    fn expect_many(&mut self) {
        if !self.has_all_old {
            let old = self.known.coins.iter();
            self.funded
                .extend(old.map(|coin| (coin.outpoint(), (coin.tx, coin.value))));
            self.has_all_old = true;
        }
    }

    fn add(&mut self, piece: &Piece) -> Result<(), QueryError> {
        if !self.has_all_old && !piece.inputs.is_empty() {
            let inputs: OutPoints<()> = piece.inputs.iter().map(|input| (*input, ())).collect();
            for coin in &self.known.coins {
                let outpoint = coin.outpoint();
                if inputs.contains_key(&outpoint) && !self.addition.spent.contains_key(&outpoint) {
                    self.funded.insert(outpoint, (coin.tx, coin.value));
                }
            }
        }
        let (mut inputs_start, mut outputs_start) = (0, 0);
        for tx in &piece.txs {
            let inputs = &piece.inputs[inputs_start..tx.inputs_end];
            let outputs = &piece.outputs[outputs_start..tx.outputs_end];
            (inputs_start, outputs_start) = (tx.inputs_end, tx.outputs_end);
            let mut touches = !outputs.is_empty();
            for input in inputs {
                if let Some((funder, value)) = self.funded.remove(input) {
                    touches = true;
                    self.addition.balance = self.addition.balance.saturating_sub(value);
                    if self.known.last >= Some(funder) {
                        self.addition.spent.insert(*input, ());
                    }
                }
            }
            for &(vout, value) in outputs {
                let outpoint = OutPoint {
                    txid: tx.txid,
                    vout,
                };
                // Before BIP 30 two coinbases came twice; their first outputs are lost.
                if let Some((_, lost)) = self.funded.insert(outpoint, (tx.n, value)) {
                    self.addition.balance = self.addition.balance.saturating_sub(lost);
                }
                self.addition.balance = self.addition.balance.saturating_add(value);
            }
            if touches {
                self.add_entry(tx)?;
            }
        }
        Ok(())
    }

    fn add_entry(&mut self, tx: &ReadTx) -> Result<(), QueryError> {
        let block = match self.block {
            Some(block) if block.contains(tx.n) => block,
            _ => self.table.block_of(tx.n).ok_or_else(|| {
                QueryError::Unavailable(format!("no block has transaction {}", tx.n))
            })?,
        };
        self.block = Some(block);
        let entries = self.known.confirmed.len() + self.addition.confirmed.len();
        if let Some(limit) = self.history_max.filter(|&limit| entries >= limit) {
            return Err(QueryError::TooLarge { limit });
        }
        let entry = Confirmed {
            txid: tx.txid,
            height: block.height,
        };
        self.addition.hasher.confirmed(&entry);
        self.addition.confirmed.push(entry);
        self.addition.last = Some(tx.n);
        Ok(())
    }

    fn finish(mut self, script: Option<Box<[u8]>>) -> Addition {
        let is_new = |tx: TxNum| self.known.last < Some(tx);
        self.addition.coins = self
            .funded
            .iter()
            .filter(|(_, (tx, _))| is_new(*tx))
            .map(|(outpoint, &(tx, value))| Coin {
                txid: outpoint.txid,
                vout: outpoint.vout,
                tx,
                value,
            })
            .collect();
        self.addition
            .coins
            .sort_unstable_by_key(|coin| (coin.tx, coin.vout));
        self.addition.confirmed.shrink_to_fit();
        self.addition.script = script;
        self.addition
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
