//! An answer shows one moment: what is being mined is in the mempool or in the chain, never in both,
//! never in neither.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::{Value, json};

use crate::{
    client::Client,
    compare::compare_scripts,
    locks::{Kind, Lock},
    oracle::{Oracle, script_hash},
    stage::Stage,
    treasury::{FEE, Treasury, coins_to},
};

const ROUNDS: usize = 20;
const PAYMENTS_IN_A_ROUND: usize = 4;

/// Asks without a pause while payments to one script come and confirm; no coin is spent, nothing is
/// replaced, so that whatever was once seen must be seen ever after.
fn ask_until_done(client: &mut Client, name: &str, done: &AtomicBool) -> usize {
    let mut seen: HashSet<String> = HashSet::new();
    let (mut least_sum, mut least_height, mut answers) = (0, 0, 0);
    while !done.load(Ordering::Relaxed) {
        let history = client.ask("blockchain.scripthash.get_history", json!([name]));
        let entries = history.as_array().expect("a list").iter();
        let txids: Vec<String> = entries.map(|entry| entry["tx_hash"].to_string()).collect();
        let now: HashSet<String> = txids.iter().cloned().collect();
        assert_eq!(now.len(), txids.len(), "one appears twice: {history}");
        assert!(now.is_superset(&seen), "one is in neither: {history}");
        seen = now;

        let balance = client.ask("blockchain.scripthash.get_balance", json!([name]));
        let part = |name: &str| balance[name].as_i64().expect("satoshis");
        let sum = part("confirmed") + part("unconfirmed");
        assert!(sum >= least_sum, "the sum fell from {least_sum}: {balance}");
        least_sum = sum;

        let coins = client.ask("blockchain.scripthash.listunspent", json!([name]));
        let values = coins.as_array().expect("a list").iter();
        let sum: i64 = values.filter_map(|coin| coin["value"].as_i64()).sum();
        assert!(
            sum >= least_sum,
            "coins of {sum} after a balance of {least_sum}"
        );
        least_sum = sum;

        let tip = client.ask("blockchain.headers.subscribe", json!([]));
        let height = tip["height"].as_i64().expect("a height");
        assert!(height >= least_height, "the tip went back to {height}");
        let confirmed = |entry: &Value| entry["height"].as_i64().expect("a height") <= height;
        let history = history.as_array().expect("a list");
        assert!(history.iter().all(confirmed), "above the tip");
        least_height = height;
        answers += 1;
    }
    answers
}

/// Ends the askers, also when the story fails: the scope waits for them.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_transaction_is_never_seen_twice_nor_lost_while_it_is_mined() {
    for stage in Stage::told_and_untold() {
        let Stage {
            node,
            mut treasury,
            ambra,
            client: mut subscribed,
            mine: lock,
            ..
        } = stage;
        let name = script_hash(&lock.script());
        let done = AtomicBool::new(false);
        subscribed.ask("blockchain.scripthash.subscribe", json!([name]));
        let mut clients = [ambra.client(), subscribed];
        thread::scope(|scope| {
            let askers: Vec<_> = clients
                .iter_mut()
                .map(|client| scope.spawn(|| ask_until_done(client, &name, &done)))
                .collect();
            let asking = Done(&done);
            // The change of one payment is the coin of the next.
            let change = Lock::new(Kind::P2wpkh, 0);
            let mut coin = treasury.coin();
            for _ in 0..ROUNDS {
                for _ in 0..PAYMENTS_IN_A_ROUND {
                    let payment = treasury.payment_from(&coin, &lock, 10_000, FEE);
                    node.send(&payment).unwrap();
                    coin = coins_to(&payment, &change).remove(0);
                }
                node.mine(1, &Treasury::elsewhere());
            }
            let mut oracle = Oracle::new();
            let mut client = ambra.client();
            if !askers.iter().any(|asker| asker.is_finished()) {
                compare_scripts(&mut oracle, &node, &mut client);
            }
            drop(asking);
            for asker in askers {
                let answers = asker.join().expect("all answers were of one moment");
                println!("{answers} rounds of answers");
                assert!(answers > 0);
            }
        });
    }
}
