//! The map against brute force over the plain list of its transactions.

use std::collections::{BTreeMap, HashSet};

use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, absolute,
    consensus::encode, transaction,
};
use proptest::prelude::*;

use super::*;

/// As many scripts as the random transactions pay to; the last is OP_RETURN.
const SCRIPTS: u8 = 5;

fn script(n: u8) -> ScriptBuf {
    if n == SCRIPTS - 1 {
        ScriptBuf::from_bytes(vec![0x6a, 1, n])
    } else {
        ScriptBuf::from_bytes(vec![0x51, n])
    }
}

fn script_hash(n: u8) -> ScriptHash {
    ScriptHash::new(script(n).as_bytes())
}

fn txout(script_number: u8, value: u64) -> TxOut {
    TxOut {
        value: Amount::from_sat(value),
        script_pubkey: script(script_number),
    }
}

/// A confirmed output: its script and value follow from its number.
fn confirmed(n: u8) -> (OutPoint, TxOut) {
    let outpoint = OutPoint::new(Txid::from_byte_array([n; 32]), u32::from(n));
    (outpoint, txout(n % (SCRIPTS - 1), 10_000 + u64::from(n)))
}

fn transaction(inputs: &[OutPoint], outputs: Vec<TxOut>, witness_len: usize) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: inputs
            .iter()
            .map(|outpoint| TxIn {
                previous_output: *outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::from_slice(&vec![vec![7u8; witness_len]; witness_len.min(1)]),
            })
            .collect(),
        output: outputs,
    }
}

/// A transaction with what it spends.
#[derive(Clone, Debug)]
struct Known {
    txid: Txid,
    tx: Transaction,
    spent: Vec<TxOut>,
}

impl Known {
    fn new(spent: Vec<(OutPoint, TxOut)>, outputs: Vec<TxOut>, witness_len: usize) -> Known {
        let (inputs, spent): (Vec<_>, _) = spent.into_iter().unzip();
        let tx = transaction(&inputs, outputs, witness_len);
        let txid = tx.compute_txid();
        Known { txid, tx, spent }
    }

    fn output(&self, vout: u32) -> (OutPoint, TxOut) {
        let outpoint = OutPoint::new(self.txid, vout);
        (outpoint, self.tx.output[vout as usize].clone())
    }

    fn new_tx(&self) -> NewTx {
        NewTx {
            bytes: encode::serialize(&self.tx),
            spent: self.spent.clone(),
        }
    }

    fn fee(&self) -> u64 {
        let received: u64 = self.spent.iter().map(|out| out.value.to_sat()).sum();
        let paid: u64 = self.tx.output.iter().map(|out| out.value.to_sat()).sum();
        received.saturating_sub(paid)
    }

    fn inputs(&self) -> impl Iterator<Item = (OutPoint, &TxOut)> {
        let outpoints = self.tx.input.iter().map(|input| input.previous_output);
        outpoints.zip(&self.spent)
    }

    fn touches(&self, script_number: u8) -> bool {
        let script = script(script_number);
        self.spent
            .iter()
            .chain(&self.tx.output)
            .any(|out| out.script_pubkey == script)
    }
}

/// All answers there are, worked out the slow way.
#[derive(Clone, Debug, PartialEq)]
struct Answers {
    txids: HashSet<Txid>,
    entries: BTreeMap<Txid, (u64, bool)>,
    history: Vec<Vec<Txid>>,
    unspent: Vec<HashSet<(OutPoint, u64)>>,
    spends: Vec<HashSet<(OutPoint, u64, Txid)>>,
    balance: Vec<i64>,
    spenders: BTreeMap<OutPoint, Txid>,
    outputs: BTreeMap<OutPoint, TxOut>,
    waiting_vsize: u64,
}

impl Answers {
    fn expected(present: &[Known], outpoints: &[OutPoint]) -> Answers {
        let txids: HashSet<Txid> = present.iter().map(|known| known.txid).collect();
        let height = |known: &Known| {
            known
                .inputs()
                .any(|(outpoint, _)| txids.contains(&outpoint.txid))
        };
        let spender = |outpoint: &OutPoint| {
            let spends = |known: &&Known| known.inputs().any(|(input, _)| input == *outpoint);
            present.iter().filter(spends).map(|known| known.txid).min()
        };
        let mut answers = Answers {
            entries: present
                .iter()
                .map(|known| (known.txid, (known.fee(), height(known))))
                .collect(),
            txids: txids.clone(),
            history: Vec::new(),
            unspent: Vec::new(),
            spends: Vec::new(),
            balance: Vec::new(),
            spenders: outpoints
                .iter()
                .filter_map(|outpoint| Some((*outpoint, spender(outpoint)?)))
                .collect(),
            outputs: BTreeMap::new(),
            waiting_vsize: present.iter().map(|known| known.tx.vsize() as u64).sum(),
        };
        for number in 0..SCRIPTS {
            let hidden = number == SCRIPTS - 1;
            let locking = script(number);
            let touching: Vec<&Known> = present
                .iter()
                .filter(|known| !hidden && known.touches(number))
                .collect();
            let mut history: Vec<_> = touching
                .iter()
                .map(|known| (height(known), known.txid.to_string(), known.txid))
                .collect();
            history.sort();
            answers
                .history
                .push(history.into_iter().map(|(_, _, txid)| txid).collect());
            let mut unspent = HashSet::new();
            let mut spends = HashSet::new();
            let mut balance = 0i64;
            for known in touching {
                for (vout, out) in (0u32..).zip(&known.tx.output) {
                    if out.script_pubkey == locking {
                        balance += out.value.to_sat() as i64;
                        let outpoint = OutPoint::new(known.txid, vout);
                        if spender(&outpoint).is_none() {
                            unspent.insert((outpoint, out.value.to_sat()));
                        }
                    }
                }
                for (outpoint, out) in known.inputs() {
                    if out.script_pubkey == locking {
                        balance -= out.value.to_sat() as i64;
                        spends.insert((outpoint, out.value.to_sat(), known.txid));
                    }
                }
            }
            answers.unspent.push(unspent);
            answers.spends.push(spends);
            answers.balance.push(balance);
        }
        for known in present {
            for (vout, out) in (0u32..).zip(&known.tx.output) {
                answers
                    .outputs
                    .insert(OutPoint::new(known.txid, vout), out.clone());
            }
        }
        answers
    }

    fn given(mempool: &Mempool, outpoints: &[OutPoint], all: &[Known]) -> Answers {
        let scripts = || (0..SCRIPTS).map(script_hash);
        let entries = all.iter().filter_map(|known| mempool.entry(&known.txid));
        let histogram = mempool.fee_histogram();
        Answers {
            txids: mempool.txids().into_iter().collect(),
            entries: entries
                .map(|entry| (entry.txid, (entry.fee, entry.has_unconfirmed_inputs)))
                .collect(),
            history: scripts()
                .map(|script| mempool.history(&script))
                .map(|entries| entries.into_iter().map(|entry| entry.txid).collect())
                .collect(),
            unspent: scripts()
                .map(|script| mempool.unspent(&script))
                .map(|unspent| {
                    let outpoint = |coin: &Unspent| OutPoint::new(coin.txid, coin.vout);
                    unspent
                        .iter()
                        .map(|coin| (outpoint(coin), coin.value))
                        .collect()
                })
                .collect(),
            spends: scripts()
                .map(|script| mempool.spends(&script))
                .map(|spends| {
                    spends
                        .into_iter()
                        .map(|spend| (spend.outpoint, spend.value, spend.spender))
                        .collect()
                })
                .collect(),
            balance: scripts()
                .map(|script| mempool.balance_change(&script))
                .collect(),
            spenders: outpoints
                .iter()
                .filter_map(|outpoint| Some((*outpoint, mempool.spender(outpoint)?)))
                .collect(),
            outputs: outpoints
                .iter()
                .filter_map(|outpoint| Some((*outpoint, mempool.output(outpoint)?)))
                .collect(),
            waiting_vsize: histogram.iter().map(|(_, vsize)| vsize).sum(),
        }
    }
}

/// Transactions that spend confirmed outputs, each other's outputs, and the same ones several times.
fn universe() -> impl Strategy<Value = Vec<Known>> {
    let inputs = prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..4);
    let outputs = prop::collection::vec((0..SCRIPTS, 0u64..6_000), 1..4);
    prop::collection::vec((inputs, outputs, 0usize..3), 1..12).prop_map(|recipes| {
        let mut all: Vec<Known> = Vec::new();
        for (inputs, outputs, witness_len) in recipes {
            let mut spent: Vec<(OutPoint, TxOut)> = Vec::new();
            for (is_child, index) in inputs {
                let coin = if is_child && !all.is_empty() {
                    let parent = &all[index.index(all.len())];
                    parent.output(index.index(parent.tx.output.len()) as u32)
                } else {
                    confirmed(index.index(8) as u8)
                };
                if !spent.iter().any(|(outpoint, _)| *outpoint == coin.0) {
                    spent.push(coin);
                }
            }
            let outputs = outputs
                .into_iter()
                .map(|(script, value)| txout(script, value))
                .collect();
            let known = Known::new(spent, outputs, witness_len);
            if !all.iter().any(|other| other.txid == known.txid) {
                all.push(known);
            }
        }
        all
    })
}

/// What is removed and what is added, by number; the same may come up twice or in both.
type Change = (Vec<prop::sample::Index>, Vec<prop::sample::Index>);

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let some = || prop::collection::vec(any::<prop::sample::Index>(), 0..5);
    prop::collection::vec((some(), some()), 1..12)
}

proptest! {
    #[test]
    fn every_answer_is_what_brute_force_gives_after_any_changes(
        all in universe(),
        changes in changes(),
    ) {
        let mut outpoints: Vec<OutPoint> = (0..8).map(|n| confirmed(n).0).collect();
        for known in &all {
            outpoints.extend((0..4).map(|vout| OutPoint::new(known.txid, vout)));
        }
        let mut mempool = Mempool::default();
        let mut present: Vec<Known> = Vec::new();
        for (removed, added) in changes {
            let removed: Vec<Txid> = removed.iter().map(|i| i.get(&all).txid).collect();
            let added: Vec<&Known> = added.iter().map(|i| i.get(&all)).collect();
            let before = Answers::expected(&present, &outpoints);
            let kept = mempool.clone();

            let touched = mempool.apply(
                &removed,
                added.iter().map(|known| known.new_tx()).collect(),
            );

            let was_present: HashSet<Txid> = present.iter().map(|known| known.txid).collect();
            present.retain(|known| !removed.contains(&known.txid));
            for known in added {
                if !present.iter().any(|other| other.txid == known.txid) {
                    present.push(known.clone());
                }
            }
            let after = Answers::expected(&present, &outpoints);
            prop_assert_eq!(&Answers::given(&mempool, &outpoints, &all), &after);
            prop_assert_eq!(&Answers::given(&kept, &outpoints, &all), &before);
            prop_assert_eq!(mempool.len(), present.len());
            prop_assert_eq!(mempool.is_empty(), present.is_empty());

            // Exactly: all of those that came, went or changed height.
            let now_present: HashSet<Txid> = present.iter().map(|known| known.txid).collect();
            let mut expected = Touched::default();
            for known in &all {
                let id = &known.txid;
                let stayed = was_present.contains(id) && now_present.contains(id);
                if stayed && before.entries[id] == after.entries[id]
                    || !was_present.contains(id) && !now_present.contains(id)
                {
                    continue;
                }
                let scripts = (0..SCRIPTS - 1).filter(|number| known.touches(*number));
                expected.scripts.extend(scripts.map(script_hash));
                expected.outpoints.extend(known.inputs().map(|(outpoint, _)| outpoint));
                let vouts = 0..known.tx.output.len() as u32;
                expected.outpoints.extend(vouts.map(|vout| OutPoint::new(*id, vout)));
            }
            prop_assert_eq!(&touched, &expected);
            // And so whatever answer changed, its script or outpoint is among them.
            for number in 0..SCRIPTS {
                let n = usize::from(number);
                let heights = |answers: &Answers| -> Vec<_> {
                    answers.history[n].iter().map(|txid| (*txid, answers.entries[txid])).collect()
                };
                if heights(&before) != heights(&after)
                    || before.unspent[n] != after.unspent[n]
                    || before.spends[n] != after.spends[n]
                    || before.balance[n] != after.balance[n]
                {
                    prop_assert!(touched.scripts.contains(&script_hash(number)));
                }
            }
            for outpoint in &outpoints {
                if before.spenders.get(outpoint) != after.spenders.get(outpoint)
                    || before.outputs.get(outpoint) != after.outputs.get(outpoint)
                {
                    prop_assert!(touched.outpoints.contains(outpoint));
                }
            }
        }
        // Nothing is left behind when all have gone.
        let txids = mempool.txids();
        mempool.apply(&txids, Vec::new());
        prop_assert!(mempool.by_script.is_empty() && mempool.spenders.is_empty());
        prop_assert!(mempool.by_arrival.is_empty() && mempool.rates.is_empty());
    }

    #[test]
    fn bytes_that_are_no_transaction_change_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut mempool = Mempool::default();
        let spent = vec![txout(0, 1)];
        prop_assume!(TxView::parse(&bytes).is_err());
        let touched = mempool.apply(&[], vec![NewTx { bytes, spent }]);
        prop_assert_eq!(touched, Touched::default());
        prop_assert!(mempool.is_empty());
    }

    #[test]
    fn rates_of_the_histogram_descend_strictly(all in universe()) {
        let mut mempool = Mempool::default();
        mempool.apply(&[], all.iter().map(Known::new_tx).collect());
        let rates: Vec<f64> = mempool.fee_histogram().iter().map(|(rate, _)| *rate).collect();
        prop_assert!(rates.windows(2).all(|pair| pair[0] > pair[1]), "{rates:?}");
    }
}

fn mempool_of(known: &[&Known]) -> Mempool {
    let mut mempool = Mempool::default();
    mempool.apply(&[], known.iter().map(|known| known.new_tx()).collect());
    mempool
}

#[test]
fn a_transaction_without_all_its_spent_outputs_is_left_out() {
    let known = Known::new(vec![confirmed(0), confirmed(1)], vec![txout(0, 1)], 0);
    let mut new = known.new_tx();
    new.spent.pop();
    let mut mempool = Mempool::default();
    mempool.apply(&[], vec![new]);
    assert!(mempool.is_empty());
}

#[test]
fn a_parent_that_comes_after_its_child_turns_the_childs_height() {
    let parent = Known::new(vec![confirmed(0)], vec![txout(1, 500)], 0);
    let child = Known::new(vec![parent.output(0), confirmed(3)], vec![txout(2, 400)], 1);
    let mut mempool = mempool_of(&[&child]);
    assert_eq!(mempool.history(&script_hash(2))[0].height(), 0);

    let touched = mempool.apply(&[], vec![parent.new_tx()]);

    assert_eq!(mempool.history(&script_hash(2))[0].height(), -1);
    // Script 3 is the child's alone.
    assert!(touched.scripts.contains(&script_hash(3)));
    let touched = mempool.apply(&[parent.txid], Vec::new());
    assert_eq!(mempool.history(&script_hash(2))[0].height(), 0);
    assert!(touched.scripts.contains(&script_hash(3)));
}

#[test]
fn a_replacement_that_comes_before_its_victim_goes_keeps_the_output_spent() {
    let victim = Known::new(vec![confirmed(0)], vec![txout(1, 500)], 0);
    let replacement = Known::new(vec![confirmed(0)], vec![txout(1, 400)], 0);
    let mut mempool = mempool_of(&[&victim, &replacement]);
    mempool.apply(&[victim.txid], Vec::new());
    assert_eq!(mempool.spender(&confirmed(0).0), Some(replacement.txid));
    assert_eq!(mempool.spends(&script_hash(0)).len(), 1);
}

#[test]
fn fees_and_sizes_are_those_of_bip_141() {
    let known = Known::new(vec![confirmed(0)], vec![txout(1, 9_000)], 75);
    let mempool = mempool_of(&[&known]);
    let vsize = known.tx.vsize() as u64;
    assert!(known.tx.total_size() as u64 > vsize);
    assert_eq!(mempool.recent(), [(known.txid, 1_000, vsize)]);
    assert_eq!(mempool.fee_histogram().len(), 1);
    let bytes = encode::serialize(&known.tx);
    assert_eq!(
        mempool.transaction(&known.txid).as_deref(),
        Some(&bytes[..])
    );
}

#[test]
fn an_absurd_sum_of_outputs_gives_no_fee_and_no_panic() {
    let outputs = vec![txout(1, u64::MAX), txout(1, u64::MAX)];
    let known = Known::new(vec![confirmed(0)], outputs, 0);
    let mempool = mempool_of(&[&known]);
    assert_eq!(mempool.recent()[0].1, 0);
    assert_eq!(mempool.balance_change(&script_hash(1)), i64::MAX);
}

#[test]
fn the_newest_ten_are_told_newest_first() {
    let mut mempool = Mempool::default();
    let all: Vec<Known> = (0..12)
        .map(|n| Known::new(vec![confirmed(n)], vec![txout(1, u64::from(n))], 0))
        .collect();
    for known in &all {
        mempool.apply(&[], vec![known.new_tx()]);
    }
    let told: Vec<Txid> = mempool.recent().iter().map(|(txid, ..)| *txid).collect();
    let newest: Vec<Txid> = all.iter().rev().take(10).map(|known| known.txid).collect();
    assert_eq!(told, newest);
}

#[test]
fn a_block_takes_its_transactions_and_all_that_it_makes_impossible() {
    let mined = Known::new(vec![confirmed(0)], vec![txout(1, 500)], 0);
    let child = Known::new(vec![mined.output(0)], vec![txout(1, 400)], 0);
    let conflict = Known::new(vec![confirmed(1)], vec![txout(2, 500)], 0);
    let grandchild = Known::new(
        vec![conflict.output(0), mined.output(0)],
        vec![txout(2, 3)],
        0,
    );
    let other = Known::new(vec![confirmed(2)], vec![txout(2, 500)], 0);
    let mempool = mempool_of(&[&mined, &child, &conflict, &grandchild, &other]);

    let block = HashSet::from([mined.txid, Txid::from_byte_array([9; 32])]);
    let taken = mempool.taken_by_block(&block, [confirmed(0).0, confirmed(1).0]);

    assert_eq!(
        taken.into_iter().collect::<HashSet<_>>(),
        HashSet::from([mined.txid, conflict.txid, grandchild.txid])
    );
}
