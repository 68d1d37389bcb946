//! A mempool that is full: the node throws out who pays least, and the wallet sees it go and come again.

use std::collections::HashMap;

use bitcoin::{Amount, Transaction};
use serde_json::{Value, json};

use crate::{
    ambra::Ambra,
    client::Client,
    compare::{CATCH_UP_PATIENCE, compare_all},
    locks::{Coin, Kind, Lock, output, pay},
    node::{Node, NodeOptions},
    oracle::{Oracle, script_hash},
    patience::until,
    treasury::{Treasury, coins_to},
};

const SCRIPT: &str = "blockchain.scripthash.subscribe";
const BROADCAST: &str = "blockchain.transaction.broadcast";

/// Bytes of each transaction that fills the mempool: 80 of them are more than it takes.
const BALLAST: usize = 90_000;

/// Bytes of an output to a taproot key. (Data that nobody spends is not relayed by every node.)
const OUTPUT: usize = 43;

/// Pays itself, with so many bytes that nobody needs.
fn ballast(coin: &Coin, number: u32, fee: u64) -> Transaction {
    let change = Lock::new(Kind::P2wpkh, 1_000 + number);
    let small = Amount::from_sat(600);
    let count = BALLAST / OUTPUT;
    let kept = coin.value - Amount::from_sat(fee) - small * count as u64;
    let mut outputs = vec![output(&Lock::new(Kind::P2tr, 2_000), small); count];
    outputs.push(output(&change, kept));
    pay(std::slice::from_ref(coin), outputs)
}

#[track_caller]
fn wait_for_entries(client: &mut Client, name: &str, count: usize) {
    let seen = until(CATCH_UP_PATIENCE, || {
        let mempool = client.ask("blockchain.scripthash.get_mempool", json!([name]));
        (mempool.as_array().map(Vec::len) == Some(count)).then_some(())
    });
    assert!(seen.is_some(), "never {count} unconfirmed transactions");
}

/// Fills the node's mempool beside a wallet's payment.
fn fill_and_come_again(zmq: bool) {
    let node = Node::start(NodeOptions {
        zmq,
        small_mempool: true,
        ..NodeOptions::default()
    });
    let mut treasury = Treasury::mine(&node);
    // 1. Eighty coins, one for each transaction that fills the mempool.
    let locks: Vec<Lock> = (0..80)
        .map(|number| Lock::new(Kind::P2wpkh, 500 + number))
        .collect();
    let coin = treasury.coin();
    let each = coin.value / 100;
    let outputs = locks.iter().map(|lock| output(lock, each)).collect();
    let split = pay(&[coin], outputs);
    node.mine_exactly(&Treasury::elsewhere(), &[&split]);
    let coins: Vec<Coin> = locks
        .iter()
        .flat_map(|lock| coins_to(&split, lock))
        .collect();
    let ambra = Ambra::start(&node);
    let mut client = ambra.client();
    let (mine, yours) = (Lock::new(Kind::P2wpkh, 1), Lock::new(Kind::P2tr, 2));
    let (name, other) = (script_hash(&mine.script()), script_hash(&yours.script()));
    for name in [&name, &other] {
        assert_eq!(client.ask(SCRIPT, json!([name])), Value::Null);
    }

    // 2. A payment that pays little for its place, and one that spends it and pays no more.
    let payment = treasury.payment(&mine, 500_000);
    node.send(&payment).unwrap();
    let coin = coins_to(&payment, &mine).remove(0);
    let child = treasury.payment_from(&coin, &yours, 100_000, 1_000);
    node.send(&child).unwrap();
    wait_for_entries(&mut client, &name, 2);
    wait_for_entries(&mut client, &other, 1);

    // 3. The mempool fills with better payers, until the node throws both out.
    let mut filled = 0;
    for (number, coin) in (0..).zip(&coins) {
        let fee = 2_000_000 + u64::from(number) * 1_000;
        node.send(&ballast(coin, number, fee)).unwrap();
        filled += 1;
        if node.unconfirmed(&payment.compute_txid()).is_none() {
            break;
        }
    }
    assert!(
        node.unconfirmed(&payment.compute_txid()).is_none(),
        "the mempool never filled"
    );
    println!("thrown out after {filled} transactions of {BALLAST} bytes");

    // 4. The wallet is told that both are gone, and why the payment cannot come back now.
    let mut told = HashMap::new();
    let gone = until(CATCH_UP_PATIENCE, || {
        client.ask("server.ping", json!([]));
        for push in client.take_notifications() {
            let name = push.params[0].as_str().expect("a name").to_owned();
            told.insert(name, push.params[1].clone());
        }
        let is_gone = |name: &String| told.get(name) == Some(&Value::Null);
        (is_gone(&name) && is_gone(&other)).then_some(())
    });
    assert!(gone.is_some(), "{told:?}");
    wait_for_entries(&mut client, &name, 0);
    wait_for_entries(&mut client, &other, 0);
    compare_all(&mut Oracle::new(), &node, &mut ambra.client());
    let hex = bitcoin::consensus::encode::serialize_hex(&payment);
    let refusal = client
        .call(BROADCAST, json!([hex]))
        .expect_err("it pays too little");
    assert!(refusal.to_string().contains("mempool min fee"), "{refusal}");

    // 5. A block makes room. Two days later what the node asked for when it was full has gone down; the same payment
    // is sent again, and comes.
    client.take_notifications();
    let tip = node.rpc("getblockheader", json!([node.best_block()]));
    let later = tip["time"].as_u64().unwrap() + 2 * 24 * 60 * 60;
    node.mine(1, &Treasury::elsewhere());
    node.rpc("setmocktime", json!([later]));
    let mut answer = Ok(Value::Null);
    until(CATCH_UP_PATIENCE, || {
        answer = client.call(BROADCAST, json!([hex]));
        answer.is_ok().then_some(())
    });
    assert_eq!(answer, Ok(json!(payment.compute_txid())));
    let push = client.wait_for_push(SCRIPT, CATCH_UP_PATIENCE);
    assert_eq!(push[0], json!(name));
    assert_ne!(push[1], Value::Null);
    wait_for_entries(&mut client, &name, 1);
    compare_all(&mut Oracle::new(), &node, &mut ambra.client());
}

#[test]
fn a_wallet_sees_its_payment_thrown_out_of_a_full_mempool_and_come_again() {
    fill_and_come_again(true);
}

#[test]
fn a_full_mempool_is_followed_without_zmq_too() {
    fill_and_come_again(false);
}
