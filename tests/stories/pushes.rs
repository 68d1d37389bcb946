//! What the server tells by itself.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    ambra::Ambra,
    client::Client,
    compare::CATCH_UP_PATIENCE,
    locks::{Kind, Lock},
    node::{Node, NodeOptions},
    oracle::{script_hash, status_of},
    stage::Stage,
    treasury::{FEE, Treasury, coins_to},
};

const HEADERS: &str = "blockchain.headers.subscribe";
const SCRIPT: &str = "blockchain.scripthash.subscribe";
/// Long enough for what should not come, to come.
const SILENCE: Duration = Duration::from_millis(1500);
/// Less than so long a shorter chain of the node is waited out.
const SHORTER_PATIENCE: Duration = Duration::from_millis(800);

/// The next push for this script: its status must be that of the history that is answered now.
#[track_caller]
fn expect_push(client: &mut Client, name: &str) -> Value {
    let params = client.wait_for_push(SCRIPT, CATCH_UP_PATIENCE);
    assert_eq!(params[0], name);
    let history = client.ask("blockchain.scripthash.get_history", json!([name]));
    let history: Vec<Value> = history.as_array().expect("a list").clone();
    assert_eq!(params[1], status_of(&history), "pushed, and history");
    Value::Array(history)
}

#[track_caller]
fn expect_silence(client: &mut Client) {
    let deadline = Instant::now() + SILENCE;
    if let Some(push) = client.take_notification(deadline) {
        panic!("a push without news: {push:?}");
    }
}

#[test]
fn every_change_is_pushed_and_nothing_else() {
    for stage in Stage::told_and_untold() {
        let Stage {
            node,
            mut treasury,
            ambra,
            mut client,
            mine,
            yours,
        } = stage;
        let (name, other) = (script_hash(&mine.script()), script_hash(&yours.script()));
        assert_eq!(client.ask(SCRIPT, json!([name])), Value::Null);

        // 1. A transaction enters the mempool.
        let coin = treasury.coin();
        let first = treasury.payment_from(&coin, &mine, 500_000, FEE);
        node.send(&first).unwrap();
        let history = expect_push(&mut client, &name);
        assert_eq!(history[0]["height"], 0);

        // 2. It is replaced, again and again; never is it told that nothing is there, though the node tells of
        // the old one and of the new one in two messages. (electrum-client of Rust fails at a push of null.)
        let mut txid = Value::Null;
        for fees in (50..=1_500).step_by(50) {
            let next = treasury.payment_from(&coin, &mine, 500_000, fees * FEE);
            node.send(&next).unwrap();
            txid = json!(next.compute_txid());
            let history = expect_push(&mut client, &name);
            assert_eq!(
                history,
                json!([{"tx_hash": txid, "height": 0, "fee": fees * FEE}])
            );
        }

        // 3. It confirms.
        node.mine(1, &Treasury::elsewhere());
        let history = expect_push(&mut client, &name);
        assert_eq!(history, json!([{"tx_hash": txid, "height": node.height()}]));

        // 4. A block and a transaction that have nothing to do with it: silence.
        let stranger = treasury.payment(&yours, 500_000);
        node.send(&stranger).unwrap();
        node.mine(1, &Treasury::elsewhere());
        expect_silence(&mut client);

        // 5. A chain of two; when the parent confirms, the child's −1 becomes 0.
        client.ask(SCRIPT, json!([other]));
        let parent = treasury.payment(&mine, 400_000);
        let coins = coins_to(&parent, &mine);
        let child = treasury.payment_from(&coins[0], &yours, 300_000, FEE);
        node.send(&parent).unwrap();
        node.send(&child).unwrap();
        wait_for_heights(&mut client, &other, &[-1]);
        client.take_notifications();
        node.mine_exactly(&Treasury::elsewhere(), &[&parent]);
        wait_for_heights(&mut client, &other, &[0]);

        // 6. A reorg takes the parent back.
        let block = node.best_block();
        node.invalidate(&block);
        wait_for_heights(&mut client, &other, &[-1]);

        // 7. After unsubscribing: silence.
        wait_for_tip(&mut ambra.client(), &node);
        for script in [&name, &other] {
            let method = "blockchain.scripthash.unsubscribe";
            assert_eq!(client.ask(method, json!([script])), true);
            assert_eq!(client.ask(method, json!([script])), false);
        }
        client.take_notifications();
        node.mine(1, &Treasury::elsewhere());
        wait_for_tip(&mut ambra.client(), &node);
        expect_silence(&mut client);
    }
}

#[test]
fn a_payment_that_the_node_drops_is_pushed_as_gone() {
    for stage in Stage::told_and_untold() {
        let Stage {
            node,
            mut treasury,
            ambra: _ambra,
            mut client,
            mine,
            yours,
        } = stage;
        let name = script_hash(&mine.script());
        assert_eq!(client.ask(SCRIPT, json!([name])), Value::Null);

        // 1. A payment enters.
        node.send(&treasury.payment(&mine, 500_000)).unwrap();
        assert_eq!(expect_push(&mut client, &name)[0]["height"], 0);

        // 2. It is too old (`-mempoolexpiry=1`); the node drops such ones when another comes.
        let header = node.rpc("getblockheader", json!([node.best_block()]));
        let time = header["time"].as_u64().unwrap();
        node.rpc("setmocktime", json!([time + 2 * 3600]));
        node.send(&treasury.payment(&yours, 500_000)).unwrap();
        assert_eq!(expect_push(&mut client, &name), json!([]));
    }
}

/// Until the unconfirmed entries of the script's history stand at these heights, and a push said so.
#[track_caller]
fn wait_for_heights(client: &mut Client, name: &str, expected: &[i64]) {
    let deadline = Instant::now() + CATCH_UP_PATIENCE;
    loop {
        let Some(push) = client.take_notification(deadline) else {
            panic!("no push told of {expected:?} in {name}");
        };
        if push.params[0] != name {
            continue;
        }
        let history = client.ask("blockchain.scripthash.get_history", json!([name]));
        let entries = history.as_array().expect("a list");
        if push.params[1] != status_of(entries) {
            // A later push tells of what was answered now.
            continue;
        }
        let unconfirmed = entries.iter().filter_map(|entry| entry["height"].as_i64());
        if unconfirmed
            .filter(|height| *height <= 0)
            .eq(expected.iter().copied())
        {
            return;
        }
    }
}

#[track_caller]
fn wait_for_tip(client: &mut Client, node: &Node) {
    let best = node.rpc("getblockheader", json!([node.best_block(), false]));
    let mut tip = client.ask(HEADERS, json!([]));
    while tip["hex"] != best {
        tip = client.wait_for_push(HEADERS, CATCH_UP_PATIENCE)[0].clone();
    }
}

#[test]
fn blocks_are_pushed_to_each_client_also_after_a_reorg_to_the_same_height() {
    for zmq in [true, false] {
        let node = Node::start(NodeOptions {
            zmq,
            ..NodeOptions::default()
        });
        node.mine(5, &Treasury::elsewhere());
        let ambra = Ambra::start(&node);
        let mut clients = [ambra.client(), ambra.client()];
        for client in &mut clients {
            client.ask(HEADERS, json!([]));
        }
        let mut silent = ambra.client();
        silent.ask("server.ping", json!([]));

        // 1. One block.
        node.mine(1, &Treasury::elsewhere());
        let best = node.rpc("getblockheader", json!([node.best_block(), false]));
        for client in &mut clients {
            let params = client.wait_for_push(HEADERS, CATCH_UP_PATIENCE);
            assert_eq!(params, json!([{"height": 6, "hex": best}]));
        }

        // 2. Several at once: the last is told, those before it may be.
        node.mine(4, &Treasury::elsewhere());
        clients
            .iter_mut()
            .for_each(|client| expect_tip_push(client, &node));

        // 3. Another block at the same height.
        node.invalidate(&node.best_block());
        node.mine(1, &Lock::new(Kind::P2pkh, 1).script());
        assert_eq!(node.height(), 10);
        clients
            .iter_mut()
            .for_each(|client| expect_tip_push(client, &node));

        // 4. Who did not subscribe hears nothing.
        expect_silence(&mut silent);
    }
}

#[test]
fn a_chain_that_shrinks_block_by_block_on_its_way_to_a_better_one_is_not_told_of() {
    const DEPTH: u32 = 3;
    for zmq in [true, false] {
        let node = Node::start(NodeOptions {
            zmq,
            ..NodeOptions::default()
        });
        node.mine(10, &Treasury::elsewhere());
        let ambra = Ambra::start(&node);
        let mut client = ambra.client();
        wait_for_tip(&mut client, &node);

        // 1. Three blocks go, one call for each, and three others come: one push tells of the last.
        let mut is_proved = false;
        for round in 1..=10 {
            wait_for_tip(&mut client, &node);
            client.take_notifications();
            let began = Instant::now();
            for _ in 0..DEPTH {
                node.invalidate(&node.best_block());
            }
            for _ in 0..DEPTH {
                node.mine_exactly(&Lock::new(Kind::P2pkh, round).script(), &[]);
            }
            let took = began.elapsed();
            let best = node.rpc("getblockheader", json!([node.best_block(), false]));
            let told = client.wait_for_push(HEADERS, CATCH_UP_PATIENCE);
            // A machine that was slower than Ambra is patient has proved nothing.
            if took < SHORTER_PATIENCE {
                assert_eq!(told, json!([{"height": 10, "hex": best}]));
                is_proved = true;
                break;
            }
        }
        assert!(is_proved, "never were the blocks there within a second");

        // 2. A chain that stays shorter is told of all the same.
        node.invalidate(&node.best_block());
        expect_tip_push(&mut client, &node);
        assert_eq!(node.height(), 9);
    }
}

/// Until the node's best block is pushed.
#[track_caller]
fn expect_tip_push(client: &mut Client, node: &Node) {
    let best = node.rpc("getblockheader", json!([node.best_block(), false]));
    while client.wait_for_push(HEADERS, CATCH_UP_PATIENCE)[0]["hex"] != best {}
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let Stage {
        node,
        mut treasury,
        ambra,
        mut client,
        mine,
        ..
    } = Stage::set(NodeOptions::default());

    // 1. A client asks for much, and reads nothing.
    let mut deaf = ambra.client();
    deaf.ask(HEADERS, json!([]));
    for id in 0..2_000 {
        let params = json!([0, 100]);
        let request = json!({"id": id, "method": "blockchain.block.headers", "params": params});
        if deaf.try_send(&request.to_string()).is_none() {
            // The server may end such a connection.
            break;
        }
    }

    // 2. Another hears of a payment and a block all the same.
    let name = script_hash(&mine.script());
    client.ask(SCRIPT, json!([name]));
    let payment = treasury.payment(&mine, 500_000);
    node.send(&payment).unwrap();
    expect_push(&mut client, &name);
    node.mine(1, &Treasury::elsewhere());
    let history = expect_push(&mut client, &name);
    assert_eq!(history[0]["height"], node.height());
}
