//! Either side goes away and comes back.

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    ambra::{Ambra, SYNC_PATIENCE},
    compare::compare_all,
    node::{Node, NodeOptions},
    oracle::Oracle,
    patience::until,
    random_chain::RandomChain,
    treasury::Treasury,
};

/// Attempts to see a stop that nothing else holds up.
const STOPS: usize = 5;

#[test]
fn the_server_restarts_and_goes_on_where_it_was() {
    let node = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&node, 21);
    let mut ambra = Ambra::start(&node);

    // 1. Off and on, and nothing happened meanwhile.
    ambra.stop();
    ambra.launch();
    ambra.wait_until_synced(&node);
    compare_all(&mut chain.oracle, &node, &mut ambra.client());

    // 2. Off, blocks and transactions come, on.
    ambra.stop();
    (0..8).for_each(|_| println!("{}", chain.step()));
    ambra.launch();
    ambra.wait_until_synced(&node);
    compare_all(&mut chain.oracle, &node, &mut ambra.client());

    // 3. Off, a reorg, on: to the same height, deeper, and to a lower height.
    for depth in [1, 6, 20] {
        ambra.stop();
        println!("{}", chain.reorg(depth));
        ambra.launch();
        ambra.wait_until_synced(&node);
        compare_all(&mut chain.oracle, &node, &mut ambra.client());
    }
    ambra.stop();
    node.invalidate(&node.block_at(node.height() - 3));
    ambra.launch();
    ambra.wait_until_synced(&node);
    compare_all(&mut chain.oracle, &node, &mut ambra.client());
}

/// Clients that subscribe again by themselves are back at once; one of them (npm's @electrum-cash/network) ends
/// its program when a subscription is refused.
#[test]
fn a_wallet_that_is_back_at_once_after_a_restart_is_not_refused() {
    let node = Node::start(NodeOptions::default());
    node.mine(10, &Treasury::elsewhere());
    let mut ambra = Ambra::start(&node);
    for _ in 0..3 {
        ambra.stop();
        node.mine(40, &Treasury::elsewhere());
        ambra.launch();
        let script = json!(["00".repeat(32)]);
        let status = ambra
            .client()
            .call("blockchain.scripthash.subscribe", script);
        assert_eq!(status, Ok(Value::Null));
    }
}

#[test]
fn sigterm_ends_the_server_within_two_seconds_with_clients_connected() {
    let node = Node::start(NodeOptions::default());
    node.mine(10, &Treasury::elsewhere());
    let mut ambra = Ambra::start(&node);
    // A busy machine may hold up one stop, not all of them.
    let mut took = Vec::new();
    let stopped = (0..STOPS).any(|_| {
        let mut client = ambra.client();
        client.ask("blockchain.headers.subscribe", json!([]));
        let mut half_a_line = TcpStream::connect(ambra.address()).unwrap();
        half_a_line.write_all(b"{\"id\": 1, ").unwrap();
        let asked = Instant::now();
        ambra.stop();
        took.push(asked.elapsed());
        assert_eq!(client.read_line(), None, "the connection ends with it");
        ambra.launch();
        took.last() < Some(&Duration::from_secs(2))
    });
    assert!(stopped, "SIGTERM ended it only after {took:?}");
}

#[test]
fn the_node_restarts_and_the_server_stays_up() {
    for zmq in [true, false] {
        let node = Node::start(NodeOptions {
            zmq,
            ..NodeOptions::default()
        });
        let mut chain = RandomChain::new(&node, 22);
        println!("{}", chain.step());
        let mut ambra = Ambra::start(&node);
        let mut client = ambra.client();

        // 1. The node goes. What is known is still answered.
        node.stop();
        let tip = client.ask("blockchain.headers.subscribe", json!([]));
        assert!(tip["height"].is_u64());

        // 2. It comes back, with another cookie, and a block is mined.
        node.launch();
        node.mine(1, &Treasury::elsewhere());
        compare_all(&mut chain.oracle, &node, &mut client);

        // 3. Once more, and life goes on.
        node.stop();
        node.launch();
        for _ in 0..4 {
            println!("{}", chain.step());
            compare_all(&mut chain.oracle, &node, &mut client);
        }
        assert!(ambra.is_running());
    }
}

#[test]
fn a_killed_node_that_forgot_blocks_is_followed_back() {
    let node = Node::start(NodeOptions::default());
    node.mine(110, &Treasury::elsewhere());
    node.stop();
    node.launch();
    let mut ambra = Ambra::start(&node);
    let mut client = ambra.client();

    // 1. Blocks that the node does not live to write down.
    node.mine(20, &Treasury::elsewhere());
    ambra.wait_until_synced(&node);
    node.kill();
    node.launch();
    println!("after the kill the node is at {}", node.height());

    // 2. The server follows it back, and forward again.
    ambra.wait_until_synced(&node);
    let mut oracle = Oracle::new();
    compare_all(&mut oracle, &node, &mut client);
    node.mine(30, &Treasury::elsewhere());
    compare_all(&mut oracle, &node, &mut client);
    assert!(ambra.is_running());
}

#[test]
fn two_servers_do_not_share_a_database() {
    let node = Node::start(NodeOptions::default());
    node.mine(3, &Treasury::elsewhere());
    let mut first = Ambra::start(&node);
    let mut second = first.twin();
    let status = until(SYNC_PATIENCE, || second.exit_status());
    let status = status.expect("the second does not stay");
    assert!(!status.success(), "it ended with {status}");
    assert!(first.is_running());
    first.wait_until_synced(&node);
}
