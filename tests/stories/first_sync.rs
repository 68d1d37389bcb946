//! The first sync, from each block source.

use crate::{
    ambra::Ambra,
    node::{Node, NodeOptions},
    oracle::compare_all,
    random_chain::RandomChain,
};

/// Some blocks, some stale blocks, some unconfirmed.
fn lived_on(node: &Node, seed: u64) -> RandomChain<'_> {
    let mut chain = RandomChain::new(node, seed);
    for _ in 0..12 {
        chain.step();
    }
    println!("{}", chain.reorg(5));
    for _ in 0..3 {
        chain.step();
    }
    chain
}

#[test]
fn first_sync_answers_alike_from_each_block_source() {
    // 1. A node whose block files are scrambled, and that serves REST.
    let node = Node::start(NodeOptions {
        rest: true,
        ..NodeOptions::default()
    });
    let mut chain = lived_on(&node, 11);

    // 2. A server for each source; all agree with the oracle, and so with each other.
    for source in ["files", "rest", "rpc", "auto"] {
        println!("block source {source}");
        let mut ambra = Ambra::start_with(&node, &["--block-source", source]);
        compare_all(&mut chain.oracle, &node, &mut ambra.client());
        ambra.stop();
    }
}

#[test]
fn first_sync_reads_block_files_that_are_not_scrambled() {
    let node = Node::start(NodeOptions {
        xor: false,
        ..NodeOptions::default()
    });
    let mut chain = lived_on(&node, 12);
    let ambra = Ambra::start_with(&node, &["--block-source", "files"]);
    compare_all(&mut chain.oracle, &node, &mut ambra.client());
}

#[test]
fn first_sync_of_a_node_with_the_genesis_block_alone() {
    let node = Node::start(NodeOptions::default());
    let ambra = Ambra::start(&node);
    let tip = ambra.tip();
    assert_eq!(tip["height"], 0);

    // The first blocks come one by one, and are followed.
    let mut chain = RandomChain::new(&node, 13);
    compare_all(&mut chain.oracle, &node, &mut ambra.client());
}

#[test]
fn first_sync_waits_for_a_node_that_is_away() {
    // 1. The server starts, and there is no node.
    let node = Node::not_yet_started(NodeOptions::default());
    let mut ambra = Ambra::start_unseen(&node, &[]);
    ambra.wait_until_it_says("bitcoind");
    assert!(ambra.is_running(), "it waits for its node");

    // 2. The node comes.
    node.launch();
    let mut chain = RandomChain::new(&node, 14);
    ambra.wait_until_listening();
    ambra.wait_until_synced(&node);
    compare_all(&mut chain.oracle, &node, &mut ambra.client());
}

#[test]
fn sigterm_ends_the_server_while_it_waits_for_its_node() {
    let node = Node::not_yet_started(NodeOptions::default());
    let mut ambra = Ambra::start_unseen(&node, &[]);
    ambra.wait_until_it_says("bitcoind");
    ambra.stop();
}
