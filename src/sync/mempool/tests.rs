use bitcoin::{
    Sequence, Transaction, TxIn, Witness, absolute, consensus::encode, hashes::Hash, transaction,
};

use super::*;

fn output(value: u64) -> TxOut {
    TxOut {
        value: Amount::from_sat(value),
        script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
    }
}

fn spending(outpoints: &[OutPoint], value: u64) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: outpoints
            .iter()
            .map(|outpoint| TxIn {
                previous_output: *outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            })
            .collect(),
        output: vec![output(value)],
    }
}

fn first_output(tx: &Transaction) -> OutPoint {
    OutPoint::new(tx.compute_txid(), 0)
}

/// The confirmed chain: outputs of transactions whose id is one byte 32 times.
fn outpoint(n: u8) -> OutPoint {
    OutPoint::new(Txid::from_byte_array([n; 32]), 0)
}

fn confirmed(outpoint: &OutPoint) -> Option<TxOut> {
    let bytes = outpoint.txid.to_byte_array();
    let is_known = bytes[0] < 100 && bytes.iter().all(|byte| *byte == bytes[0]);
    is_known.then(|| output(1_000))
}

fn fetched(txs: &[&Transaction]) -> Vec<(Txid, Vec<u8>)> {
    txs.iter()
        .map(|tx| (tx.compute_txid(), encode::serialize(*tx)))
        .collect()
}

fn ids(added: &[NewTx]) -> Vec<Txid> {
    let txid = |new: &NewTx| TxView::parse(&new.bytes).unwrap().txid();
    added.iter().map(txid).collect()
}

fn txid(n: u8) -> Txid {
    Txid::from_byte_array([n; 32])
}

fn added(n: u8, sequence: u64) -> ZmqEvent {
    let txid = txid(n);
    ZmqEvent::TxAdded { txid, sequence }
}

fn removed(n: u8, sequence: u64) -> ZmqEvent {
    let txid = txid(n);
    ZmqEvent::TxRemoved { txid, sequence }
}

#[test]
fn transactions_come_out_parents_first_with_all_that_they_spend() {
    let parent = spending(&[outpoint(1)], 900);
    let child = spending(&[first_output(&parent), outpoint(2)], 800);
    let grandchild = spending(&[first_output(&child), first_output(&parent)], 700);
    let (new, unresolved) = resolve(
        fetched(&[&grandchild, &child, &parent]),
        &Mempool::default(),
        &confirmed,
    );
    let expected = [&parent, &child, &grandchild].map(Transaction::compute_txid);
    assert_eq!(ids(&new), expected);
    assert_eq!(new[1].spent, [output(900), output(1_000)]);
    assert_eq!(new[2].spent, [output(800), output(900)]);
    assert!(unresolved.is_empty());
}

#[test]
fn inputs_are_found_in_the_mempool_before_the_chain_is_asked() {
    let parent = spending(&[outpoint(1)], 900);
    let child = spending(&[first_output(&parent)], 800);
    let mut mempool = Mempool::default();
    let (new, _) = resolve(fetched(&[&parent]), &mempool, &confirmed);
    mempool.apply(&[], new);
    let (new, _) = resolve(fetched(&[&child]), &mempool, &|_| panic!("was asked"));
    assert_eq!(new[0].spent, [output(900)]);
}

#[test]
fn one_whose_input_is_not_found_waits_and_so_do_its_children() {
    let lost = spending(&[outpoint(200)], 900);
    let child = spending(&[first_output(&lost), outpoint(1)], 800);
    let other = spending(&[outpoint(2)], 700);
    let (new, unresolved) = resolve(
        fetched(&[&child, &lost, &other]),
        &Mempool::default(),
        &confirmed,
    );
    assert_eq!(ids(&new), [other.compute_txid()]);
    let waiting = [&lost, &child].map(Transaction::compute_txid);
    assert_eq!(unresolved, HashSet::from(waiting));
}

#[test]
fn bytes_that_are_not_the_transaction_asked_for_are_left_out() {
    let tx = spending(&[outpoint(1)], 900);
    let lies = vec![
        (txid(7), encode::serialize(&tx)),
        (txid(8), b"nonsense".to_vec()),
    ];
    let (new, unresolved) = resolve(lies, &Mempool::default(), &confirmed);
    assert!(new.is_empty());
    assert_eq!(unresolved, HashSet::from([txid(7), txid(8)]));
}

#[test]
fn an_output_that_a_fellow_does_not_have_is_not_made_up() {
    let parent = spending(&[outpoint(1)], 900);
    let missing = OutPoint::new(parent.compute_txid(), 5);
    let child = spending(&[missing], 800);
    let (new, unresolved) = resolve(fetched(&[&parent, &child]), &Mempool::default(), &confirmed);
    assert_eq!(ids(&new), [parent.compute_txid()]);
    assert_eq!(unresolved, HashSet::from([child.compute_txid()]));
}

#[test]
fn a_listing_says_what_goes_and_what_comes_and_the_unresolved_come_last() {
    let (stays, goes) = (spending(&[outpoint(1)], 1), spending(&[outpoint(2)], 2));
    let mut mempool = Mempool::default();
    let (new, _) = resolve(fetched(&[&stays, &goes]), &mempool, &confirmed);
    mempool.apply(&[], new);
    let listed = [txid(5), stays.compute_txid(), txid(6)];
    let (removed, missing) = compare(&mempool, &listed, &HashSet::from([txid(5)]));
    assert_eq!(removed, [goes.compute_txid()]);
    assert_eq!(missing, [txid(6), txid(5)]);
}

#[test]
fn the_last_message_about_a_transaction_counts() {
    let events = [added(1, 10), removed(1, 11), removed(2, 12), added(2, 13)];
    let (told, is_complete) = told(&events, Some(10));
    assert!(is_complete);
    assert_eq!(told.order, [txid(1), txid(2)]);
    let (removed, missing) = told.against(&Mempool::default());
    assert_eq!((removed, missing), (vec![], vec![txid(2)]));
}

#[test]
fn messages_older_than_the_listing_are_skipped() {
    let (told, _) = told(&[removed(1, 9), added(2, 10)], Some(10));
    assert_eq!(told.order, [txid(2)]);
}

#[test]
fn before_the_first_listing_and_after_a_loss_a_poll_is_called_for() {
    assert!(!told(&[added(1, 1)], None).1);
    assert!(!told(&[added(1, 1), ZmqEvent::Missed], Some(0)).1);
    assert!(told(&[ZmqEvent::BlockChanged], Some(0)).1);
}

#[test]
fn polls_keep_to_a_twentieth_of_the_time_and_to_their_bounds() {
    let now = Instant::now();
    let mut pace = Pace::default();
    assert_eq!(pace.next_poll_in(false, now), Duration::ZERO);
    for (cost_ms, pause_ms) in [(1, 500), (50, 1_000), (9_000, 30_000)] {
        pace.polled(Duration::from_millis(cost_ms), now);
        assert_eq!(
            pace.next_poll_in(false, now),
            Duration::from_millis(pause_ms)
        );
    }
    let later = now + Duration::from_secs(29);
    assert_eq!(pace.next_poll_in(false, later), Duration::from_secs(1));
}

#[test]
fn zmq_makes_polls_rare_unless_something_is_missing() {
    let now = Instant::now();
    let mut pace = Pace::default();
    pace.polled(Duration::from_millis(1), now);
    assert_eq!(pace.next_poll_in(true, now), Duration::from_secs(10));
    pace.is_due = true;
    assert_eq!(pace.next_poll_in(true, now), Duration::from_millis(500));
    pace.has_backlog = true;
    assert_eq!(pace.next_poll_in(true, now), Duration::ZERO);
    pace.failed(now);
    assert_eq!(pace.next_poll_in(true, now), Duration::from_millis(500));
}
