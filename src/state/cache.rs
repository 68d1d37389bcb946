//! What is known of scripts that were asked for: shared by all sessions, bounded in bytes, kept true by
//! reading only what later blocks add.
//!
//! # Concurrency
//! What is known of a script (its slot's [`Known`]) holds all its rows below `upto`. It is right for a View
//! that ends at `next_tx` if no row of the script lies between the two; so what matters is to learn of
//! every such row, without looking for it.
//!
//! *A block arrives.* [`super::State::publish`] takes four steps: (1) `announced` becomes the new
//! `next_tx`; (2) the slots of the scripts that the block touched are marked with it (`touched`); (3) the
//! View is stored; (4) the subscribers are told. An asker first loads a View, then takes the slot out of the
//! map, then looks: the slot is fine if `touched <= upto`, else the rows from `upto` on are read. When a
//! slot is made, `touched` starts at `announced`.
//! A slot that is in the map at step 2 gets its mark, before anyone can hold the View. A slot that is made
//! later is made after step 1, so it starts marked (its shard's lock orders the two): then what is read on
//! an older View ends below the mark, and whoever holds the new View reads on. A slot that was thrown out
//! of the map gets no marks any more; but whoever still holds it loaded their View before they took it, and
//! all marks up to that View were there.
//!
//! *Two ask at once.* Who finds the slot busy waits; they never compute the same twice. A busy slot is left
//! with what it held before, whatever happens to the one who works on it.
//!
//! *The asker's View is old.* If what is known holds rows that its View does not have, the whole question is
//! put to the newest View: each answer is true of one moment, if not always of the moment first looked at.
//!
//! *A reorg.* Rows are only ever added, but in a reorg. Before the first row goes, the number of reorgs is
//! raised ([`super::State::begin_reorg`]); who has read rows compares it with their View's after reading, and
//! asks the newest View again if they differ: so nothing that was read among vanishing rows is ever
//! answered or kept. A View lists where the last reorgs forked off (`cuts`); what is known from before them is
//! cut back to the fork when it is next looked at, or forgotten if it has rows above it. Numbers are used
//! again after a reorg; a mark of the new branch lies above the fork, so above the `upto` that was cut back.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{Ask, CacheFigures, QueryError, Stop, lock, query::Addition, query::Found};
use crate::chain::{ScriptHash, TxNum};

/// Parts of the cache that are locked apart.
const SHARDS: usize = 64;
/// What a slot costs without what is found: its row in the map and in the queue with their free room,
/// and the slot.
const SLOT_BYTES: usize = 224;
/// A waiting asker looks this often whether its client has gone.
const CANCEL_POLL: Duration = Duration::from_millis(50);
/// A script that needs more than this part of the bound is not kept.
const LARGEST_PART: usize = 2;
/// When the bound is passed, this part of it is freed at once.
const FREED_PART: usize = 16;

/// What a View says of its rows.
pub(super) struct Moment<'a> {
    pub next_tx: TxNum,
    /// Reorgs before it.
    pub reorgs: u64,
    /// The last reorgs: their number, and the first transaction number above the fork.
    pub cuts: &'a [(u64, TxNum)],
}

impl Moment<'_> {
    /// The lowest fork since the reorg numbered `since`.
    fn cut_since(&self, since: u64) -> TxNum {
        if self
            .cuts
            .first()
            .is_none_or(|(oldest, _)| *oldest > since + 1)
        {
            // Too long ago to tell.
            return TxNum::ZERO;
        }
        let later = self.cuts.iter().filter(|(reorg, _)| *reorg > since);
        later.map(|(_, fork)| *fork).min().unwrap_or(TxNum::MAX)
    }
}

/// What is known of a script.
struct Known {
    /// All rows below are in `found`.
    upto: TxNum,
    reorgs: u64,
    /// Set if all that is known is that there are more entries than this.
    entries_over: Option<usize>,
    /// `None`: no transaction.
    found: Option<Box<Found>>,
}

impl Known {
    fn last(&self) -> Option<TxNum> {
        self.found.as_ref().and_then(|found| found.last)
    }

    fn bytes(&self) -> usize {
        let found = self.found.as_ref();
        found.map_or(0, |found| size_of::<Found>() + found.bytes())
    }

    /// Takes back what a reorg took back.
    fn cut_back(self, moment: &Moment<'_>) -> Option<Known> {
        if self.reorgs >= moment.reorgs {
            return Some(self);
        }
        let fork = moment.cut_since(self.reorgs);
        if self.last() >= Some(fork) || self.entries_over.is_some() {
            return None;
        }
        Some(Known {
            upto: self.upto.min(fork),
            reorgs: moment.reorgs,
            ..self
        })
    }
}

/// A script's place in the cache.
pub(super) struct Slot {
    /// There may be rows of the script from [`Known::upto`] up to this number.
    touched: AtomicU32,
    /// Looked at since the queue last came by.
    is_used: AtomicBool,
    /// What it counts for; changed under its shard's lock.
    bytes: AtomicUsize,
    inside: Mutex<Inside>,
    ready: Condvar,
}

#[derive(Default)]
struct Inside {
    is_busy: bool,
    known: Option<Known>,
}

/// What must be done before a slot can answer.
enum Fit {
    Ready,
    /// Rows from this number on are to be read.
    Behind(TxNum),
    /// The View is older than what is known.
    Ahead,
    TooLarge(usize),
}

impl Inside {
    fn fit(&mut self, touched: TxNum, moment: &Moment<'_>, ask: &Ask) -> Fit {
        self.known = self.known.take().and_then(|known| known.cut_back(moment));
        let Some(known) = &self.known else {
            return Fit::Behind(TxNum::ZERO);
        };
        if known.reorgs > moment.reorgs || known.last() >= Some(moment.next_tx) {
            return Fit::Ahead;
        }
        match (known.entries_over, ask.max_history) {
            (Some(over), Some(limit)) if limit <= over => return Fit::TooLarge(limit),
            (Some(_), _) => return Fit::Behind(TxNum::ZERO),
            _ => {}
        }
        if touched > known.upto && moment.next_tx > known.upto {
            return Fit::Behind(known.upto);
        }
        Fit::Ready
    }
}

impl Slot {
    fn new(touched: TxNum) -> Slot {
        Slot {
            touched: AtomicU32::new(touched.0),
            is_used: AtomicBool::new(true),
            bytes: AtomicUsize::new(SLOT_BYTES),
            inside: Mutex::default(),
            ready: Condvar::new(),
        }
    }

    fn touched(&self) -> TxNum {
        TxNum(self.touched.load(Ordering::SeqCst))
    }

    /// See [`ScriptCache::with_found`]; `has_read` is set where something was read.
    fn answer<T>(
        &self,
        moment: &Moment<'_>,
        ask: &Ask,
        has_read: &mut bool,
        read: &dyn Fn(TxNum, &Found) -> Result<Addition, Stop>,
        answer: &mut dyn FnMut(&Found) -> Result<T, QueryError>,
    ) -> Result<T, Stop> {
        let mut inside = lock(&self.inside);
        loop {
            if inside.is_busy {
                inside = wait(&self.ready, inside);
                ask.check_cancelled()?;
                continue;
            }
            match inside.fit(self.touched(), moment, ask) {
                Fit::Ahead => return Err(Stop::Outdated),
                Fit::TooLarge(limit) => return Err(QueryError::TooLarge { limit }.into()),
                Fit::Ready => {
                    let nothing = Found::default();
                    let known = inside.known.as_ref();
                    let found = known.and_then(|known| known.found.as_deref());
                    return Ok(answer(found.unwrap_or(&nothing))?);
                }
                Fit::Behind(from) => {
                    *has_read = true;
                    inside.is_busy = true;
                    let work = Work {
                        slot: self,
                        known: inside.known.take(),
                    };
                    drop(inside);
                    extend(work, from, moment, read)?;
                    inside = lock(&self.inside);
                }
            }
        }
    }
}

/// Takes what is known out of a busy slot, and puts something back in any case.
struct Work<'a> {
    slot: &'a Slot,
    known: Option<Known>,
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let mut inside = lock(&self.slot.inside);
        inside.known = self.known.take();
        inside.is_busy = false;
        drop(inside);
        self.slot.ready.notify_all();
    }
}

#[derive(Default)]
struct Shard {
    slots: HashMap<ScriptHash, Arc<Slot>>,
    /// Every script of `slots` once; who comes to the front unused goes.
    queue: VecDeque<ScriptHash>,
}

pub(super) struct ScriptCache {
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
    bytes_max: usize,
    bytes: AtomicUsize,
    hits: AtomicU64,
    misses: AtomicU64,
    /// `next_tx` of the View that is there, or about to be.
    announced: AtomicU32,
    /// The shard from which memory is next freed; locked by the one who frees.
    hand: Mutex<usize>,
}

impl ScriptCache {
    pub fn new(bytes_max: usize) -> ScriptCache {
        ScriptCache {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            bytes_max,
            bytes: AtomicUsize::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            announced: AtomicU32::new(0),
            hand: Mutex::default(),
        }
    }

    fn shard(&self, script: &ScriptHash) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(script) as usize % SHARDS]
    }

    /// What all slots take, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn figures(&self) -> CacheFigures {
        CacheFigures {
            bytes: self.bytes(),
            bytes_max: self.bytes_max,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            proof_bytes: 0,
            large_tx_bytes: 0,
        }
    }

    /// A View that ends at `next_tx` is about to be stored, with rows of these scripts.
    pub fn announce<'a>(&self, next_tx: TxNum, touched: impl IntoIterator<Item = &'a ScriptHash>) {
        self.announced.store(next_tx.0, Ordering::SeqCst);
        for script in touched {
            if let Some(slot) = lock(self.shard(script)).slots.get(script) {
                slot.touched.fetch_max(next_tx.0, Ordering::SeqCst);
            }
        }
    }

    /// True if the script's confirmed part is known for this moment, or known to be too large.
    pub fn is_known(&self, script: &ScriptHash, moment: &Moment<'_>) -> bool {
        let slot = lock(self.shard(script)).slots.get(script).cloned();
        slot.is_some_and(|slot| {
            let mut inside = match slot.inside.try_lock() {
                Ok(inside) => inside,
                Err(_) => return false,
            };
            !inside.is_busy
                && matches!(
                    inside.fit(slot.touched(), moment, &Ask::default()),
                    Fit::Ready
                )
        })
    }

    /// Hands what is found of the script to `answer`. What is missing is had from `read`: the rows from a
    /// number on, up to the moment's end, as an addition to what was found before.
    pub fn with_found<T>(
        &self,
        script: &ScriptHash,
        moment: &Moment<'_>,
        ask: &Ask,
        is_pinned: &dyn Fn(&ScriptHash) -> bool,
        read: &dyn Fn(TxNum, &Found) -> Result<Addition, Stop>,
        answer: &mut dyn FnMut(&Found) -> Result<T, QueryError>,
    ) -> Result<T, Stop> {
        let slot = self.slot(script);
        let mut has_read = false;
        let result = slot.answer(moment, ask, &mut has_read, read, answer);
        let counter = if has_read { &self.misses } else { &self.hits };
        counter.fetch_add(1, Ordering::Relaxed);
        if has_read {
            self.settle(script, &slot);
            self.make_room(is_pinned);
        }
        result
    }

    fn slot(&self, script: &ScriptHash) -> Arc<Slot> {
        let mut shard = lock(self.shard(script));
        if let Some(slot) = shard.slots.get(script) {
            slot.is_used.store(true, Ordering::Relaxed);
            return slot.clone();
        }
        let slot = Arc::new(Slot::new(TxNum(self.announced.load(Ordering::SeqCst))));
        shard.slots.insert(*script, slot.clone());
        shard.queue.push_back(*script);
        self.bytes.fetch_add(SLOT_BYTES, Ordering::Relaxed);
        slot
    }

    /// Counts a slot anew.
    fn settle(&self, script: &ScriptHash, slot: &Arc<Slot>) {
        let mut shard = lock(self.shard(script));
        if !shard
            .slots
            .get(script)
            .is_some_and(|other| Arc::ptr_eq(other, slot))
        {
            return;
        }
        let known = match lock(&slot.inside) {
            inside if inside.is_busy => return,
            inside => inside.known.as_ref().map_or(0, Known::bytes),
        };
        let bytes = SLOT_BYTES + known;
        let old = slot.bytes.swap(bytes, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_sub(old, Ordering::Relaxed);
        if bytes > self.bytes_max / LARGEST_PART {
            self.remove(&mut shard, script);
            shard.queue.retain(|other| other != script);
        }
    }

    /// Takes a script out of the map, not out of the queue.
    fn remove(&self, shard: &mut Shard, script: &ScriptHash) {
        if let Some(slot) = shard.slots.remove(script) {
            self.bytes
                .fetch_sub(slot.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Throws out what was not used lately: first what nobody is subscribed to, then, only if that is not
    /// enough, the others.
    fn make_room(&self, is_pinned: &dyn Fn(&ScriptHash) -> bool) {
        if self.bytes() <= self.bytes_max {
            return;
        }
        let Ok(mut hand) = self.hand.try_lock() else {
            return;
        };
        let goal = self.bytes_max - self.bytes_max / FREED_PART;
        for spare_pinned in [true, false] {
            // Twice around: the first time takes the marks of use away.
            for _ in 0..2 * SHARDS {
                *hand = (*hand + 1) % SHARDS;
                let mut shard = lock(&self.shards[*hand]);
                for _ in 0..shard.queue.len() {
                    if self.bytes() <= goal {
                        return;
                    }
                    let Some(script) = shard.queue.pop_front() else {
                        break;
                    };
                    let Some(slot) = shard.slots.get(&script) else {
                        continue;
                    };
                    let stays = slot.is_used.swap(false, Ordering::Relaxed)
                        || spare_pinned && is_pinned(&script);
                    if stays {
                        shard.queue.push_back(script);
                    } else {
                        self.remove(&mut shard, &script);
                    }
                }
            }
        }
    }
}

/// Reads what is missing and puts it into the slot.
fn extend(
    mut work: Work<'_>,
    from: TxNum,
    moment: &Moment<'_>,
    read: &dyn Fn(TxNum, &Found) -> Result<Addition, Stop>,
) -> Result<(), Stop> {
    let nothing = Found::default();
    let known = work.known.as_ref();
    let found = known.and_then(|known| known.found.as_deref());
    match read(from, found.unwrap_or(&nothing)) {
        Ok(addition) => {
            let mut found = work.known.take().and_then(|known| known.found);
            if !addition.is_empty() {
                found.get_or_insert_default().add(addition);
            }
            work.known = Some(Known {
                upto: moment.next_tx,
                reorgs: moment.reorgs,
                entries_over: None,
                found,
            });
            Ok(())
        }
        Err(stop) => {
            let has_found = work
                .known
                .as_ref()
                .is_some_and(|known| known.found.is_some());
            if let (Stop::Query(QueryError::TooLarge { limit }), false) = (&stop, has_found) {
                work.known = Some(Known {
                    upto: TxNum::ZERO,
                    reorgs: moment.reorgs,
                    entries_over: Some(*limit),
                    found: None,
                });
            }
            Err(stop)
        }
    }
}

fn wait<'a>(condition: &Condvar, guard: MutexGuard<'a, Inside>) -> MutexGuard<'a, Inside> {
    condition
        .wait_timeout(guard, CANCEL_POLL)
        .unwrap_or_else(PoisonError::into_inner)
        .0
}
