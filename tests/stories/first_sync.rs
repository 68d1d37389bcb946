//! The first sync, from each block source.

use std::time::Duration;

use bitcoin::Amount;
use rand::Rng;
use serde_json::json;

use crate::{
    ambra::Ambra,
    compare::compare_all,
    locks::{Kind, Lock, output, pay},
    node::{Node, NodeOptions},
    oracle::Oracle,
    random_chain::RandomChain,
    treasury::{Treasury, coins_to},
};

/// Many blocks of all kinds, so deep that they are indexed in bulk; after them some that come one by
/// one; some stale blocks, some unconfirmed transactions.
fn lived_on(node: &Node, seed: u64) -> RandomChain<'_> {
    let mut chain = RandomChain::new(node, seed);
    for _ in 0..60 {
        chain.step();
    }
    println!("{}", chain.reorg(5));
    node.mine(110, &Treasury::elsewhere());
    for _ in 0..8 {
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

#[test]
fn first_sync_is_killed_anywhere_and_goes_on_rightly() {
    let node = Node::start(NodeOptions::default());
    let mut chain = lived_on(&node, 15);
    for life in 1..=10 {
        // 1. A new database; killed twice while it is filled (that takes some hundredths of a second).
        let mut ambra = Ambra::start_unseen(&node, &[]);
        for _ in 0..2 {
            let moment = Duration::from_millis(chain.rng.random_range(5..120));
            // This is no wait for a condition: the moment is the point.
            std::thread::sleep(moment);
            ambra.kill();
            println!("life {life}: killed after {moment:?}");
            ambra.launch_unseen();
        }

        // 2. The third time it may finish.
        ambra.wait_until_listening();
        ambra.wait_until_synced(&node);
        compare_all(&mut chain.oracle, &node, &mut ambra.client());
    }
}

#[test]
fn first_sync_of_a_node_that_has_pruned_its_blocks_says_so_and_waits() {
    let node = Node::start(NodeOptions {
        prunes: true,
        ..NodeOptions::default()
    });
    // With `-fastprune` a block file holds 64 KiB.
    node.mine(1_200, &Treasury::elsewhere());
    node.rpc("pruneblockchain", json!([800]));
    let mut ambra = Ambra::start_unseen(&node, &[]);
    ambra.wait_until_it_says("pruned");
    assert!(ambra.is_running(), "it waits");
    ambra.stop();
}

#[test]
fn a_torn_end_of_the_write_ahead_log_costs_time_and_not_truth() {
    let node = Node::start(NodeOptions::default());
    let mut chain = lived_on(&node, 16);
    let mut ambra = Ambra::start(&node);
    compare_all(&mut chain.oracle, &node, &mut ambra.client());
    for tear in [1, 7, 100, 1_000, 5_000] {
        // 1. Some blocks are indexed, and power fails.
        (0..3).for_each(|_| chain.mine_block());
        ambra.wait_until_synced(&node);
        ambra.kill();

        // 2. The end of what it wrote last is lost.
        ambra.tear_write_ahead_log(tear);

        // 3. It starts, and is right.
        ambra.launch();
        ambra.wait_until_synced(&node);
        compare_all(&mut chain.oracle, &node, &mut ambra.client());
    }
}

#[test]
fn first_sync_does_not_mistake_what_a_stale_block_spent_for_what_its_brother_spent() {
    // Undo data in rev files are told apart by a checksum over the parent's hash and themselves: those of
    // two blocks on one parent both fit each of them.
    let node = Node::start(NodeOptions::default());
    let mut treasury = Treasury::mine(&node);
    let locks = [Kind::P2wpkh, Kind::P2pkh, Kind::P2tr].map(|kind| Lock::new(kind, 1));
    for lock in &locks {
        node.send(&treasury.payment(lock, 500_000)).unwrap();
    }
    node.mine(1, &Treasury::elsewhere());
    let payments = node.block(&node.best_block()).txdata;

    // 1. Three blocks on one parent; each spends one coin of another script.
    for lock in &locks {
        let coin = payments.iter().flat_map(|tx| coins_to(tx, lock)).next();
        let coin = coin.expect("a payment to each");
        let back = output(&Lock::new(Kind::P2wpkh, 2), Amount::from_sat(499_000));
        if lock.script() != locks[0].script() {
            node.invalidate(&node.best_block());
        }
        node.mine_exactly(&Treasury::elsewhere(), &[&pay(&[coin], vec![back])]);
    }
    let mut oracle = Oracle::new();

    // 2. Indexed one by one.
    let ambra = Ambra::start_with(&node, &["--block-source", "files"]);
    compare_all(&mut oracle, &node, &mut ambra.client());

    // 3. Indexed in bulk.
    node.mine(120, &Treasury::elsewhere());
    let ambra = Ambra::start_with(&node, &["--block-source", "files"]);
    compare_all(&mut oracle, &node, &mut ambra.client());
}
