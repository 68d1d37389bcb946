//! The mempool: a pure map, cheap to clone (persistent), that says what each change touched.
//!
//! It holds what it is given and believes none of it: a child may come before its parent, two
//! transactions may spend the same output, a transaction may be removed that never came. Every answer
//! is a function of the set of transactions alone, so that no order of changes can leave it wrong.
//!
//! # Memory
//! The map holds what the node's mempool holds, and the node bounds that by `maxmempool` (300 MB,
//! counted in its own memory, not in serialized bytes). Beside the bytes, reckon here with about 500
//! bytes for a transaction, 260 for an input and 180 for an output: script hashes, values, and their
//! rows in the ordered sets. Measured: 100,000 transactions of 372 bytes, with two inputs and two
//! outputs each, take 177 MB. A clone shares all but what has changed since.

mod fees;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
};

use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut, Txid, hashes::Hash};
use imbl::{HashMap, OrdMap, OrdSet};
use tracing::debug;

use crate::chain::{Input, MempoolEntry, ScriptHash, TxView, Unspent, is_unspendable};
use fees::Rate;

/// As many transactions as [`Mempool::recent`] tells of.
const RECENT_MAX: usize = 10;

/// Which scripts and outpoints a change touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    pub scripts: HashSet<ScriptHash>,
    pub outpoints: HashSet<OutPoint>,
}

/// A transaction to be added, with the outputs that its inputs spend (same order).
#[derive(Clone, Debug)]
pub struct NewTx {
    pub bytes: Vec<u8>,
    pub spent: Vec<TxOut>,
}

/// Cloning is cheap: a View keeps one.
#[derive(Clone, Default)]
pub struct Mempool {
    txs: HashMap<Txid, Arc<Tx>>,
    /// Who pays or spends from a script.
    by_script: OrdSet<(ScriptHash, Txid)>,
    /// Who spends an outpoint. More than one where a replacement came before its victim went.
    spenders: OrdSet<(OutPoint, Txid)>,
    by_arrival: OrdMap<u64, Txid>,
    /// Virtual bytes at each fee rate.
    rates: OrdMap<Rate, u64>,
    next_arrival: u64,
    /// Made of `rates` when first asked for after a change.
    histogram: OnceLock<Vec<(f64, u64)>>,
}

/// An input of an unconfirmed transaction that spends an output of the asked script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MempoolSpend {
    pub outpoint: OutPoint,
    pub value: u64,
    pub spender: Txid,
}

/// A transaction, and what is asked of it.
struct Tx {
    bytes: Arc<[u8]>,
    /// In satoshis.
    fee: u64,
    vsize: u64,
    rate: Rate,
    arrival: u64,
    /// What is spent, and from where.
    inputs: Box<[(OutPoint, Coin)]>,
    outputs: Box<[Coin]>,
}

/// An output, without its place.
struct Coin {
    /// `None` where the script is not indexed.
    script: Option<ScriptHash>,
    /// In satoshis.
    value: u64,
}

impl Coin {
    fn new(script: &[u8], value: u64) -> Coin {
        Coin {
            script: (!is_unspendable(script)).then(|| ScriptHash::new(script)),
            value,
        }
    }

    fn pays(&self, script: &ScriptHash) -> bool {
        self.script.as_ref() == Some(script)
    }
}

impl Tx {
    /// `None` where the bytes are no transaction, or the spent outputs are not as many as its inputs.
    fn new(new: &NewTx, arrival: u64) -> Option<(Txid, Tx)> {
        let view = TxView::parse(&new.bytes).ok()?;
        if view.input_count != new.spent.len() {
            return None;
        }
        let inputs: Box<[_]> = view
            .inputs()
            .map(|input: Input<'_>| input.outpoint())
            .zip(&new.spent)
            .map(|(outpoint, spent)| {
                let coin = Coin::new(spent.script_pubkey.as_bytes(), spent.value.to_sat());
                (outpoint, coin)
            })
            .collect();
        let outputs: Box<[_]> = view
            .outputs()
            .map(|output| Coin::new(output.script, output.value))
            .collect();
        let received = inputs
            .iter()
            .fold(0u64, |sum, (_, coin)| sum.saturating_add(coin.value));
        let paid = outputs
            .iter()
            .fold(0u64, |sum, coin| sum.saturating_add(coin.value));
        let fee = received.saturating_sub(paid);
        let vsize = view.weight().div_ceil(4);
        let tx = Tx {
            bytes: Arc::from(new.bytes.as_slice()),
            fee,
            vsize,
            rate: Rate::new(fee, vsize),
            arrival,
            inputs,
            outputs,
        };
        Some((view.txid(), tx))
    }

    /// All indexed scripts that it pays or spends from; one may come up several times.
    fn scripts(&self) -> impl Iterator<Item = ScriptHash> + '_ {
        let spent = self.inputs.iter().map(|(_, coin)| coin);
        spent.chain(&self.outputs).filter_map(|coin| coin.script)
    }

    /// Its outputs with their numbers.
    fn numbered_outputs(&self) -> impl Iterator<Item = (u32, &Coin)> {
        (0u32..).zip(self.outputs.iter())
    }
}

impl Touched {
    fn add(&mut self, txid: Txid, tx: &Tx) {
        self.scripts.extend(tx.scripts());
        self.outpoints
            .extend(tx.inputs.iter().map(|(outpoint, _)| *outpoint));
        self.outpoints.extend(
            tx.numbered_outputs()
                .map(|(vout, _)| OutPoint { txid, vout }),
        );
    }
}

impl Mempool {
    /// Removes, then adds (in any order; parents are found among what is there and what is added).
    /// `touched` includes scripts of descendants whose −1/0 height changed.
    ///
    /// The work grows with the change, not with the mempool.
    pub fn apply(&mut self, removed: &[Txid], added: Vec<NewTx>) -> Touched {
        let mut removed: HashSet<Txid> = removed
            .iter()
            .copied()
            .filter(|txid| self.contains(txid))
            .collect();
        let mut fresh: Vec<(Txid, Tx)> = Vec::with_capacity(added.len());
        let mut seen = HashSet::with_capacity(added.len());
        for new in &added {
            let Some((txid, tx)) = Tx::new(new, self.next_arrival) else {
                debug!(
                    bytes = new.bytes.len(),
                    "what was to be added to the mempool is no transaction"
                );
                continue;
            };
            // What goes and comes again has not changed; nor has what comes twice.
            if !removed.remove(&txid) && !self.contains(&txid) && seen.insert(txid) {
                self.next_arrival = self.next_arrival.saturating_add(1);
                fresh.push((txid, tx));
            }
        }

        // Those that stay, but whose parent comes or goes: their height may flip.
        let children: HashSet<Txid> = removed
            .iter()
            .chain(fresh.iter().map(|(txid, _)| txid))
            .flat_map(|parent| self.children(parent))
            .filter(|child| !removed.contains(child))
            .collect();
        let had_unconfirmed: Vec<(Txid, bool)> = children
            .into_iter()
            .filter_map(|child| {
                let tx = self.txs.get(&child)?;
                Some((child, self.has_unconfirmed_inputs(tx)))
            })
            .collect();

        let mut touched = Touched::default();
        for txid in &removed {
            if let Some(tx) = self.remove(txid) {
                touched.add(*txid, &tx);
            }
        }
        for (txid, tx) in fresh {
            touched.add(txid, &tx);
            self.insert(txid, tx);
        }
        for (child, before) in had_unconfirmed {
            let stayed = self.txs.get(&child);
            if let Some(tx) = stayed.filter(|tx| self.has_unconfirmed_inputs(tx) != before) {
                touched.add(child, tx);
            }
        }
        self.histogram = OnceLock::new();
        touched
    }

    /// What a block takes out: its own transactions, and those that spend what it spent, with all that
    /// descend from the latter. Hand it to [`Mempool::apply`].
    pub fn taken_by_block(
        &self,
        mined: &HashSet<Txid>,
        spent: impl IntoIterator<Item = OutPoint>,
    ) -> Vec<Txid> {
        let mut taken: HashSet<Txid> = mined
            .iter()
            .copied()
            .filter(|txid| self.contains(txid))
            .collect();
        let mut conflicting: Vec<Txid> = spent
            .into_iter()
            .flat_map(|outpoint| self.spenders_of(outpoint))
            .filter(|txid| !mined.contains(txid))
            .collect();
        while let Some(txid) = conflicting.pop() {
            if taken.insert(txid) {
                conflicting.extend(self.children(&txid));
            }
        }
        taken.into_iter().collect()
    }

    pub fn contains(&self, txid: &Txid) -> bool {
        self.txs.contains_key(txid)
    }

    pub fn txids(&self) -> Vec<Txid> {
        self.txs.keys().copied().collect()
    }

    pub fn len(&self) -> usize {
        self.txs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.txs.is_empty()
    }

    /// Raw bytes.
    pub fn transaction(&self, txid: &Txid) -> Option<Arc<[u8]>> {
        self.txs.get(txid).map(|tx| Arc::clone(&tx.bytes))
    }

    pub fn output(&self, outpoint: &OutPoint) -> Option<TxOut> {
        let tx = self.txs.get(&outpoint.txid)?;
        let vout = usize::try_from(outpoint.vout).ok()?;
        let output = TxView::parse(&tx.bytes).ok()?.outputs().nth(vout)?;
        Some(TxOut {
            value: Amount::from_sat(output.value),
            script_pubkey: ScriptBuf::from_bytes(output.script.to_vec()),
        })
    }

    pub fn entry(&self, txid: &Txid) -> Option<MempoolEntry> {
        self.txs.get(txid).map(|tx| self.entry_of(*txid, tx))
    }

    /// In the canonical order (see [`MempoolEntry::canonical_key`]).
    pub fn history(&self, script: &ScriptHash) -> Vec<MempoolEntry> {
        let mut entries: Vec<_> = self
            .touching(script)
            .map(|(txid, tx)| self.entry_of(txid, tx))
            .collect();
        entries.sort_by_cached_key(MempoolEntry::canonical_key);
        entries
    }

    /// Outputs to the script that no mempool transaction spends. By transaction as in
    /// [`Mempool::history`], then by number.
    pub fn unspent(&self, script: &ScriptHash) -> Vec<Unspent> {
        let mut touching: Vec<_> = self.touching(script).collect();
        touching.sort_by_cached_key(|(txid, tx)| self.entry_of(*txid, tx).canonical_key());
        let mut found = Vec::new();
        for (txid, tx) in touching {
            let paid = tx.numbered_outputs().filter(|(_, coin)| coin.pays(script));
            found.extend(paid.filter_map(|(vout, coin)| {
                let is_unspent = self.spender(&OutPoint { txid, vout }).is_none();
                is_unspent.then_some(Unspent {
                    txid,
                    vout,
                    value: coin.value,
                    height: 0,
                })
            }));
        }
        found
    }

    /// All inputs in the mempool that spend outputs (confirmed or not) of the script.
    pub fn spends(&self, script: &ScriptHash) -> Vec<MempoolSpend> {
        let mut found = Vec::new();
        for (spender, tx) in self.touching(script) {
            let spent = tx.inputs.iter().filter(|(_, coin)| coin.pays(script));
            found.extend(spent.map(|(outpoint, coin)| MempoolSpend {
                outpoint: *outpoint,
                value: coin.value,
                spender,
            }));
        }
        found
    }

    /// Received minus spent by mempool transactions, in satoshis.
    pub fn balance_change(&self, script: &ScriptHash) -> i64 {
        let mut change = 0i128;
        for (_, tx) in self.touching(script) {
            let received = tx.outputs.iter().filter(|coin| coin.pays(script));
            change += received.map(|coin| i128::from(coin.value)).sum::<i128>();
            let spent = tx.inputs.iter().filter(|(_, coin)| coin.pays(script));
            change -= spent.map(|(_, coin)| i128::from(coin.value)).sum::<i128>();
        }
        i64::try_from(change).unwrap_or(if change < 0 { i64::MIN } else { i64::MAX })
    }

    pub fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.spenders_of(*outpoint).next()
    }

    /// (sat/vB, vsize), strictly descending; see protocol `mempool.get_fee_histogram`.
    pub fn fee_histogram(&self) -> Vec<(f64, u64)> {
        self.histogram
            .get_or_init(|| {
                fees::histogram(self.rates.iter().rev().map(|(rate, size)| (*rate, *size)))
            })
            .clone()
    }

    /// (sat/vB, vsize) strictly ascending: every rate that there is, cut to tenths of a satoshi.
    pub fn by_rate(&self) -> Vec<(f64, u64)> {
        let rates = self.rates.iter();
        rates
            .map(|(rate, size)| (rate.sat_per_vbyte(), *size))
            .collect()
    }

    /// Newest first: txid, fee, vsize; at most ten.
    pub fn recent(&self) -> Vec<(Txid, u64, u64)> {
        let newest = self.by_arrival.iter().rev().take(RECENT_MAX);
        newest
            .filter_map(|(_, txid)| self.txs.get(txid).map(|tx| (*txid, tx.fee, tx.vsize)))
            .collect()
    }

    fn insert(&mut self, txid: Txid, tx: Tx) {
        for script in tx.scripts() {
            self.by_script.insert((script, txid));
        }
        for (outpoint, _) in &tx.inputs {
            self.spenders.insert((*outpoint, txid));
        }
        self.by_arrival.insert(tx.arrival, txid);
        let size = self.rates.entry(tx.rate).or_insert(0);
        *size = size.saturating_add(tx.vsize);
        self.txs.insert(txid, Arc::new(tx));
    }

    fn remove(&mut self, txid: &Txid) -> Option<Arc<Tx>> {
        let tx = self.txs.remove(txid)?;
        for script in tx.scripts() {
            self.by_script.remove(&(script, *txid));
        }
        for (outpoint, _) in &tx.inputs {
            self.spenders.remove(&(*outpoint, *txid));
        }
        self.by_arrival.remove(&tx.arrival);
        match self
            .rates
            .get(&tx.rate)
            .map(|size| size.saturating_sub(tx.vsize))
        {
            Some(left) if left > 0 => self.rates.insert(tx.rate, left),
            _ => self.rates.remove(&tx.rate),
        };
        Some(tx)
    }

    /// The transactions that pay or spend from the script, each once.
    fn touching(&self, script: &ScriptHash) -> impl Iterator<Item = (Txid, &Tx)> {
        self.by_script
            .range((*script, first_txid())..=(*script, last_txid()))
            .filter_map(|(_, txid)| self.txs.get(txid).map(|tx| (*txid, tx.as_ref())))
    }

    fn spenders_of(&self, outpoint: OutPoint) -> impl Iterator<Item = Txid> {
        self.spenders
            .range((outpoint, first_txid())..=(outpoint, last_txid()))
            .map(|(_, spender)| *spender)
    }

    /// Those that spend an output of `parent`; one may come up several times.
    fn children(&self, parent: &Txid) -> impl Iterator<Item = Txid> {
        let first = OutPoint::new(*parent, 0);
        let last = OutPoint::new(*parent, u32::MAX);
        self.spenders
            .range((first, first_txid())..=(last, last_txid()))
            .map(|(_, child)| *child)
    }

    fn entry_of(&self, txid: Txid, tx: &Tx) -> MempoolEntry {
        MempoolEntry {
            txid,
            fee: tx.fee,
            has_unconfirmed_inputs: self.has_unconfirmed_inputs(tx),
        }
    }

    fn has_unconfirmed_inputs(&self, tx: &Tx) -> bool {
        tx.inputs
            .iter()
            .any(|(outpoint, _)| self.contains(&outpoint.txid))
    }
}

/// The ends of a range over all transactions, in whichever order [`Txid`] has in Rust.
fn first_txid() -> Txid {
    Txid::from_byte_array([0; 32])
}

fn last_txid() -> Txid {
    Txid::from_byte_array([0xff; 32])
}
