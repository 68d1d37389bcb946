//! What a wallet sees of its coins, from payment to confirmation, and back.

use bitcoin::{Amount, Transaction};
use serde_json::{Value, json};

use crate::{
    client::Client,
    compare::{CATCH_UP_PATIENCE, compare_all, compare_scripts},
    locks::{Kind, Lock, output, pay},
    node::NodeOptions,
    oracle::{Oracle, script_hash},
    patience::until,
    stage::Stage,
    treasury::{FEE, Treasury, coins_to},
};

/// The history of a lock, once it is as expected: pairs of txid and height.
#[track_caller]
fn expect_history(client: &mut Client, lock: &Lock, expected: &[(&Transaction, i64)]) {
    let expected: Vec<(Value, Value)> = expected
        .iter()
        .map(|(transaction, height)| (json!(transaction.compute_txid()), json!(height)))
        .collect();
    let mut last = Vec::new();
    until(CATCH_UP_PATIENCE, || {
        let name = script_hash(&lock.script());
        let history = client.ask("blockchain.scripthash.get_history", json!([name]));
        let entries = history.as_array().expect("a list").iter();
        last = entries
            .map(|entry| (entry["tx_hash"].clone(), entry["height"].clone()))
            .collect();
        (last == expected).then_some(())
    });
    assert_eq!(last, expected, "history (left) and what it should be");
}

#[track_caller]
fn expect_balance(client: &mut Client, lock: &Lock, confirmed: i64, unconfirmed: i64) {
    let name = script_hash(&lock.script());
    let balance = client.ask("blockchain.scripthash.get_balance", json!([name]));
    let expected = json!({"confirmed": confirmed, "unconfirmed": unconfirmed});
    assert_eq!(balance, expected);
}

#[test]
fn a_payment_is_received_confirmed_and_spent_through_a_chain_of_unconfirmed() {
    let Stage {
        node,
        mut treasury,
        ambra: _ambra,
        mut client,
        ..
    } = Stage::set(NodeOptions::default());
    let mut oracle = Oracle::new();
    let mine = Lock::new(Kind::P2tr, 1);
    let yours = Lock::new(Kind::P2pkh, 2);
    expect_history(&mut client, &mine, &[]);

    // 1. Receive.
    let received = treasury.payment(&mine, 1_000_000);
    node.send(&received).unwrap();
    expect_history(&mut client, &mine, &[(&received, 0)]);
    expect_balance(&mut client, &mine, 0, 1_000_000);

    // 2. Confirm.
    node.mine(1, &Treasury::elsewhere());
    let height = i64::from(node.height());
    expect_history(&mut client, &mine, &[(&received, height)]);
    expect_balance(&mut client, &mine, 1_000_000, 0);

    // 3. Spend it, spend the change, and the change's change, all unconfirmed.
    let mut chain = Vec::new();
    let mut last = received.clone();
    for sats in [100_000, 50_000, 25_000] {
        let coins = coins_to(&last, &mine);
        let sum: Amount = coins.iter().map(|coin| coin.value).sum();
        let change = sum - Amount::from_sat(sats + FEE);
        let outputs = vec![
            output(&yours, Amount::from_sat(sats)),
            output(&mine, change),
        ];
        last = pay(&coins, outputs);
        node.send(&last).unwrap();
        chain.push(last.clone());
    }
    // The first spends a confirmed coin: height 0. The others: −1, by txid.
    let mut children = [&chain[1], &chain[2]];
    children.sort_by_key(|transaction| transaction.compute_txid().to_string());
    let expected = [
        (&received, height),
        (&chain[0], 0),
        (children[0], -1),
        (children[1], -1),
    ];
    expect_history(&mut client, &mine, &expected);
    expect_balance(&mut client, &mine, 1_000_000, -175_000 - 3 * FEE as i64);
    expect_balance(&mut client, &yours, 0, 175_000);
    compare_scripts(&mut oracle, &node, &mut client);

    // 4. The first of the chain confirms: the second's inputs are confirmed now, −1 becomes 0.
    node.mine_exactly(&Treasury::elsewhere(), &[&chain[0]]);
    let expected = [
        (&received, height),
        (&chain[0], height + 1),
        (&chain[1], 0),
        (&chain[2], -1),
    ];
    expect_history(&mut client, &mine, &expected);
    compare_scripts(&mut oracle, &node, &mut client);

    // 5. All confirm in one block, in their order there.
    node.mine_exactly(&Treasury::elsewhere(), &[&chain[1], &chain[2]]);
    let expected = [
        (&received, height),
        (&chain[0], height + 1),
        (&chain[1], height + 2),
        (&chain[2], height + 2),
    ];
    expect_history(&mut client, &mine, &expected);
    expect_balance(&mut client, &mine, 825_000 - 3 * FEE as i64, 0);
    compare_all(&mut oracle, &node, &mut client);
}

#[test]
fn a_replaced_payment_disappears_with_its_children() {
    let Stage {
        node,
        mut treasury,
        ambra: _ambra,
        mut client,
        mine,
        yours,
    } = Stage::set(NodeOptions::default());

    // 1. A payment, and a child that spends it.
    let coin = treasury.coin();
    let first = treasury.payment_from(&coin, &mine, 500_000, FEE);
    node.send(&first).unwrap();
    let coins = coins_to(&first, &mine);
    let child = pay(&coins, vec![output(&yours, Amount::from_sat(400_000))]);
    node.send(&child).unwrap();
    expect_history(&mut client, &mine, &[(&first, 0), (&child, -1)]);
    expect_history(&mut client, &yours, &[(&child, -1)]);

    // 2. Another payment from the same coin, with a higher fee.
    let second = treasury.payment_from(&coin, &mine, 300_000, 200_000);
    node.send(&second).unwrap();
    expect_history(&mut client, &mine, &[(&second, 0)]);
    expect_history(&mut client, &yours, &[]);
    expect_balance(&mut client, &mine, 0, 300_000);

    // 3. It is mined, and nothing of the first is left.
    node.mine(1, &Treasury::elsewhere());
    let height = i64::from(node.height());
    expect_history(&mut client, &mine, &[(&second, height)]);
    compare_all(&mut Oracle::new(), &node, &mut client);
}

#[test]
fn a_payment_that_conflicts_with_a_mined_one_disappears() {
    let Stage {
        node,
        mut treasury,
        ambra: _ambra,
        mut client,
        mine,
        yours,
    } = Stage::set(NodeOptions::default());
    let coin = treasury.coin();
    let relayed = treasury.payment_from(&coin, &mine, 500_000, FEE);
    let mined = treasury.payment_from(&coin, &yours, 600_000, FEE);

    node.send(&relayed).unwrap();
    expect_history(&mut client, &mine, &[(&relayed, 0)]);
    node.mine_exactly(&Treasury::elsewhere(), &[&mined]);
    expect_history(&mut client, &mine, &[]);
    expect_history(&mut client, &yours, &[(&mined, i64::from(node.height()))]);
    compare_all(&mut Oracle::new(), &node, &mut client);
}

#[test]
fn a_payment_that_expires_in_the_mempool_disappears() {
    for stage in Stage::told_and_untold() {
        let Stage {
            node,
            mut treasury,
            ambra: _ambra,
            mut client,
            mine,
            yours,
        } = stage;

        // 1. A payment that nobody mines for an hour (`-mempoolexpiry=1`).
        let old = treasury.payment(&mine, 500_000);
        node.send(&old).unwrap();
        expect_history(&mut client, &mine, &[(&old, 0)]);
        let time = node.rpc("getblockheader", json!([node.best_block()]))["time"]
            .as_u64()
            .unwrap();
        node.rpc("setmocktime", json!([time + 2 * 3600]));

        // 2. The node looks for old ones when a new one comes.
        let new = treasury.payment(&yours, 500_000);
        node.send(&new).unwrap();
        expect_history(&mut client, &yours, &[(&new, 0)]);
        expect_history(&mut client, &mine, &[]);
        compare_scripts(&mut Oracle::new(), &node, &mut client);
    }
}

#[test]
fn a_reorg_takes_payments_back_and_mines_them_elsewhere() {
    for stage in Stage::told_and_untold() {
        let Stage {
            node,
            mut treasury,
            ambra: _ambra,
            mut client,
            yours,
            ..
        } = stage;
        let mut oracle = Oracle::new();
        let mine = Lock::new(Kind::NumberInP2wsh, 1);

        // 1. One payment in each of two blocks.
        let first = treasury.payment(&mine, 500_000);
        let second = treasury.payment(&yours, 600_000);
        node.mine_exactly(&Treasury::elsewhere(), &[&first]);
        let height = i64::from(node.height());
        node.mine_exactly(&Treasury::elsewhere(), &[&second]);
        expect_history(&mut client, &mine, &[(&first, height)]);
        expect_history(&mut client, &yours, &[(&second, height + 1)]);

        // 2. The last block is replaced by one of the same height without it.
        node.invalidate(&node.best_block());
        node.mine_exactly(&mine.script(), &[]);
        let reward = node.block(&node.best_block()).txdata[0].clone();
        expect_history(&mut client, &yours, &[(&second, 0)]);
        expect_history(
            &mut client,
            &mine,
            &[(&first, height), (&reward, height + 1)],
        );
        compare_all(&mut oracle, &node, &mut client);

        // 3. Both are taken back, and mined the other way round in a longer branch.
        node.invalidate(&node.block_at(height as u32));
        node.mine_exactly(&Treasury::elsewhere(), &[&second]);
        node.mine_exactly(&Treasury::elsewhere(), &[]);
        node.mine_exactly(&Treasury::elsewhere(), &[&first]);
        expect_history(&mut client, &yours, &[(&second, height)]);
        expect_history(&mut client, &mine, &[(&first, height + 2)]);
        compare_all(&mut oracle, &node, &mut client);

        // 4. A deep one, deeper than what is new since the start.
        node.invalidate(&node.block_at(60));
        node.mine(80, &yours.script());
        compare_all(&mut oracle, &node, &mut client);
    }
}
