//! What the mempool has to drop and to take in, worked out from what the node lists or says by ZMQ.
//!
//! # Correctness
//! The diff belongs to one block. The node is asked for its best block before and after what it tells of
//! its mempool, in the same exchange; if either is not the block that Ambra's index has reached, nothing
//! is told and the tip is to be followed first. So a transaction that a newer block holds does not vanish
//! before that block is shown, and one that is shown as mined does not come back as unconfirmed.
//!
//! A ZMQ message is older or newer than a listing. The node numbers both: messages with a number below
//! the listing's are in it already, and are skipped.
//!
//! A transaction enters only when all outputs that it spends are known, and after its parents. One whose
//! inputs cannot be found now is left for the next round.
//!
//! # Memory
//! A round fetches at most [`FETCH_TXS_MAX`] transactions and stops after [`FETCH_BYTES_MAX`]: at most
//! 32 MiB and one batch (64 transactions of at most 400 kB, 26 MB), twice that in hexadecimal. What is left
//! comes in the next round, at once. The listing takes 100 bytes a transaction.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf, TxOut, Txid};
use tracing::debug;

use crate::{
    chain::TxView,
    daemon::{
        rpc::{Rpc, RpcError},
        zmq::ZmqEvent,
    },
    mempool::{Mempool, NewTx},
};

/// Transactions that one round fetches.
pub const FETCH_TXS_MAX: usize = 4096;
/// Bytes after which a round fetches no more.
pub const FETCH_BYTES_MAX: usize = 32 << 20;
/// Transactions in one exchange.
const FETCH_BATCH: usize = 64;
/// Transactions that ZMQ messages make fetch at once; where there are more, a poll is cheaper.
const EVENT_TXS_MAX: usize = 256;

/// A change for [`Mempool::apply`].
#[derive(Clone, Debug, Default)]
pub struct Diff {
    pub removed: Vec<Txid>,
    /// Parents first.
    pub added: Vec<NewTx>,
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }
}

/// What a look at the node's mempool gave.
#[derive(Clone, Debug)]
pub enum Look {
    /// It belongs to the block that was asked for.
    Diff(Diff),
    /// The node's best block is another one: follow it, then look again.
    OtherTip,
}

/// Finds an output that the confirmed chain has, spent or not.
pub type Confirmed<'a> = &'a dyn Fn(&OutPoint) -> Option<TxOut>;

/// Watches the node's mempool.
pub struct Feed {
    rpc: Rpc,
    pace: Pace,
    /// Of the newest listing; `None` before the first.
    sequence: Option<u64>,
    /// Those whose inputs could not be found in the last round: fetched last in the next.
    unresolved: HashSet<Txid>,
}

impl Feed {
    pub fn new(rpc: Rpc) -> Feed {
        Feed {
            rpc,
            pace: Pace::default(),
            sequence: None,
            unresolved: HashSet::new(),
        }
    }

    /// Compares `mempool` with what the node lists. `tip` is the block that the index has reached.
    pub fn poll(
        &mut self,
        tip: &BlockHash,
        mempool: &Mempool,
        confirmed: Confirmed<'_>,
    ) -> Result<Look, RpcError> {
        let began = Instant::now();
        let look = self.look(tip, mempool, confirmed);
        match look {
            Ok(Look::Diff(_)) => self.pace.polled(began.elapsed(), Instant::now()),
            Ok(Look::OtherTip) | Err(_) => self.pace.failed(Instant::now()),
        }
        look
    }

    /// Takes in what ZMQ said, transaction by transaction. What cannot be decided so is left to a poll,
    /// which then is due soon.
    pub fn on_events(
        &mut self,
        tip: &BlockHash,
        events: &[ZmqEvent],
        mempool: &Mempool,
        confirmed: Confirmed<'_>,
    ) -> Result<Look, RpcError> {
        let (told, is_complete) = told(events, self.sequence);
        self.pace.is_due |= !is_complete;
        let (removed, missing) = told.against(mempool);
        if missing.len() > EVENT_TXS_MAX {
            self.pace.is_due = true;
            return Ok(Look::Diff(Diff {
                removed,
                added: Vec::new(),
            }));
        }
        let mut fetched = Vec::with_capacity(missing.len());
        for chunk in missing.chunks(FETCH_BATCH) {
            match self.rpc.mempool_transactions_at(tip, chunk) {
                Ok(Some(found)) => fetched.extend(pairs(chunk, found)),
                other => {
                    self.pace.is_due = true;
                    return other.map(|_| Look::OtherTip);
                }
            }
        }
        let (added, unresolved) = resolve(fetched, mempool, confirmed);
        self.pace.is_due |= !unresolved.is_empty();
        Ok(Look::Diff(Diff { removed, added }))
    }

    /// How long until the next [`Feed::poll`]; zero if it is due. `hears_zmq`: the mempool's changes come
    /// by ZMQ now.
    pub fn next_poll_in(&self, hears_zmq: bool) -> Duration {
        self.pace.next_poll_in(hears_zmq, Instant::now())
    }

    fn look(
        &mut self,
        tip: &BlockHash,
        mempool: &Mempool,
        confirmed: Confirmed<'_>,
    ) -> Result<Look, RpcError> {
        let Some(listing) = self.rpc.mempool_txids_at(tip)? else {
            return Ok(Look::OtherTip);
        };
        let (removed, missing) = compare(mempool, &listing.txids, &self.unresolved);
        let mut fetched = Vec::new();
        let mut bytes = 0;
        let mut asked = 0;
        for chunk in missing.chunks(FETCH_BATCH) {
            if asked >= FETCH_TXS_MAX || bytes >= FETCH_BYTES_MAX {
                break;
            }
            // They were in the mempool that belongs to `tip`. One that was mined since comes from a node
            // with a transaction index, and may: the next block takes it out.
            let found = self.rpc.raw_transactions(chunk)?;
            asked += chunk.len();
            bytes += found.iter().flatten().map(Vec::len).sum::<usize>();
            fetched.extend(pairs(chunk, found));
        }
        let (added, unresolved) = resolve(fetched, mempool, confirmed);
        if !unresolved.is_empty() {
            debug!(
                count = unresolved.len(),
                "unconfirmed transactions wait for their inputs to be found"
            );
        }
        // Those of which nothing new can be had do not make a backlog: they wait for the next round.
        self.pace.has_backlog = asked < missing.len() && !added.is_empty();
        self.pace.is_due = !unresolved.is_empty();
        self.unresolved = unresolved;
        self.sequence = Some(listing.sequence);
        Ok(Look::Diff(Diff { removed, added }))
    }
}

/// Those that came, with their txids.
fn pairs(
    txids: &[Txid],
    found: Vec<Option<Vec<u8>>>,
) -> impl Iterator<Item = (Txid, Vec<u8>)> + '_ {
    let pairs = txids.iter().copied().zip(found);
    pairs.filter_map(|(txid, bytes)| bytes.map(|bytes| (txid, bytes)))
}

/// What to drop, and what to fetch: in the node's order, but those that could not be resolved the last
/// time at the end, so that they hold nobody up.
fn compare(
    mempool: &Mempool,
    listed: &[Txid],
    unresolved: &HashSet<Txid>,
) -> (Vec<Txid>, Vec<Txid>) {
    let known: HashSet<&Txid> = listed.iter().collect();
    let mut removed = mempool.txids();
    removed.retain(|txid| !known.contains(txid));
    let missing = listed
        .iter()
        .copied()
        .filter(|txid| !mempool.contains(txid));
    let (again, mut missing): (Vec<Txid>, Vec<Txid>) =
        missing.partition(|txid| unresolved.contains(txid));
    missing.extend(again);
    (removed, missing)
}

/// What ZMQ messages come down to: each transaction's last state, in the order of first mention.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    order: Vec<Txid>,
    /// True: it is in the mempool.
    is_there: HashMap<Txid, bool>,
}

impl Told {
    fn against(&self, mempool: &Mempool) -> (Vec<Txid>, Vec<Txid>) {
        let is_there = |txid: &Txid| self.is_there.get(txid) == Some(&true);
        let changed = self.order.iter().copied();
        let (missing, removed) = changed
            .filter(|txid| is_there(txid) != mempool.contains(txid))
            .partition(is_there);
        (removed, missing)
    }
}

/// Sums up messages that are newer than the listing with the number `sequence`; false if they do not
/// tell all.
fn told(events: &[ZmqEvent], sequence: Option<u64>) -> (Told, bool) {
    let Some(listed) = sequence else {
        return (Told::default(), false);
    };
    let mut told = Told::default();
    let mut is_complete = true;
    for event in events {
        let (txid, sequence, is_there) = match *event {
            ZmqEvent::TxAdded { txid, sequence } => (txid, sequence, true),
            ZmqEvent::TxRemoved { txid, sequence } => (txid, sequence, false),
            ZmqEvent::BlockChanged => continue,
            ZmqEvent::Missed => {
                is_complete = false;
                continue;
            }
        };
        if sequence >= listed && told.is_there.insert(txid, is_there).is_none() {
            told.order.push(txid);
        }
    }
    (told, is_complete)
}

/// Finds what each transaction spends: in its fellows, in the mempool, in the confirmed chain. Gives
/// those of which all is known, parents first, and the rest.
fn resolve(
    fetched: Vec<(Txid, Vec<u8>)>,
    mempool: &Mempool,
    confirmed: Confirmed<'_>,
) -> (Vec<NewTx>, HashSet<Txid>) {
    let views: HashMap<Txid, TxView<'_>> = fetched
        .iter()
        .filter_map(|(txid, bytes)| Some((*txid, TxView::parse(bytes).ok()?)))
        .filter(|(txid, view)| view.txid() == *txid)
        .collect();
    let mut unresolved: HashSet<Txid> = fetched.iter().map(|(txid, _)| *txid).collect();

    // How many parents among its fellows each still waits for, and who waits for whom.
    let mut waits_for: HashMap<Txid, usize> = HashMap::new();
    let mut children: HashMap<Txid, Vec<Txid>> = HashMap::new();
    for (txid, view) in &views {
        let parents: HashSet<Txid> = view
            .inputs()
            .map(|input| input.outpoint().txid)
            .filter(|parent| unresolved.contains(parent))
            .collect();
        waits_for.insert(*txid, parents.len());
        for parent in parents {
            children.entry(parent).or_default().push(*txid);
        }
    }
    let in_order = fetched.iter().map(|(txid, _)| *txid);
    let mut ready: VecDeque<Txid> = in_order
        .filter(|txid| waits_for.get(txid) == Some(&0))
        .collect();

    let fellow = |outpoint: &OutPoint| -> Option<TxOut> {
        let vout = usize::try_from(outpoint.vout).ok()?;
        let output = views.get(&outpoint.txid)?.outputs().nth(vout)?;
        Some(TxOut {
            value: Amount::from_sat(output.value),
            script_pubkey: ScriptBuf::from_bytes(output.script.to_vec()),
        })
    };
    let find = |outpoint: OutPoint| {
        fellow(&outpoint)
            .or_else(|| mempool.output(&outpoint))
            .or_else(|| confirmed(&outpoint))
    };
    let mut resolved = Vec::with_capacity(views.len());
    while let Some(txid) = ready.pop_front() {
        let Some(view) = views.get(&txid) else {
            continue;
        };
        let spent: Option<Vec<TxOut>> = view.inputs().map(|input| find(input.outpoint())).collect();
        let Some(spent) = spent else {
            continue;
        };
        unresolved.remove(&txid);
        resolved.push((txid, spent));
        for child in children.remove(&txid).unwrap_or_default() {
            if let Some(count) = waits_for.get_mut(&child) {
                *count -= 1;
                if *count == 0 {
                    ready.push_back(child);
                }
            }
        }
    }
    drop(views);
    let mut bytes_of: HashMap<Txid, Vec<u8>> = fetched.into_iter().collect();
    let added = resolved.into_iter().filter_map(|(txid, spent)| {
        let bytes = bytes_of.remove(&txid)?;
        Some(NewTx { bytes, spent })
    });
    (added.collect(), unresolved)
}

/// When to poll.
#[derive(Clone, Debug, Default)]
struct Pace {
    /// How long the last poll took, and when it ended.
    last: Option<(Duration, Instant)>,
    /// The last poll left transactions unfetched.
    has_backlog: bool,
    /// Something is known to be missing: ZMQ is no reason to wait.
    is_due: bool,
}

impl Pace {
    /// A poll may take one twentieth of the time.
    const COST_FACTOR: u32 = 20;
    const SHORTEST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);
    /// While ZMQ tells of changes, polls only find what it lost.
    const SHORTEST_WITH_ZMQ: Duration = Duration::from_secs(10);

    fn polled(&mut self, cost: Duration, now: Instant) {
        self.last = Some((cost, now));
    }

    /// Nothing came of it: the next poll is due soon.
    fn failed(&mut self, now: Instant) {
        *self = Pace {
            last: Some((Duration::ZERO, now)),
            has_backlog: false,
            is_due: true,
        };
    }

    fn next_poll_in(&self, hears_zmq: bool, now: Instant) -> Duration {
        let Some((cost, ended)) = self.last else {
            return Duration::ZERO;
        };
        if self.has_backlog {
            return Duration::ZERO;
        }
        let mut pause = cost
            .saturating_mul(Pace::COST_FACTOR)
            .clamp(Pace::SHORTEST, Pace::LONGEST);
        if hears_zmq && !self.is_due {
            pause = pause.max(Pace::SHORTEST_WITH_ZMQ);
        }
        pause.saturating_sub(now.saturating_duration_since(ended))
    }
}

#[cfg(test)]
mod tests;
