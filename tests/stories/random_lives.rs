//! The oracle test: chains that live at random, and after each step every script ever seen is asked
//! for everything.

use bitcoin::Amount;
use serde_json::json;

use crate::{
    ambra::Ambra,
    compare::{compare_all, compare_scripts},
    long::{number, report},
    node::{Node, NodeOptions},
    oracle::Facts,
    random_chain::RandomChain,
    watcher::Watcher,
};

/// Of each random life.
const STEPS: u32 = 40;
/// Transactions and headers are compared only now and then: they hardly change.
const STEPS_TO_FULL_CHECK: u32 = 8;

fn oracle_agrees_through_a_random_life(
    seed: u64,
    steps: u32,
    options: NodeOptions,
    arguments: &[&str],
) -> usize {
    let node = Node::start(options);
    let mut chain = RandomChain::new(&node, seed);
    (0..5).for_each(|_| {
        chain.step();
    });
    let ambra = Ambra::start_with(&node, arguments);
    let mut client = ambra.client();
    let mut watcher = Watcher::new(ambra.client());
    for number in 1..=steps {
        let moment = chain.oracle.read(&node);
        watcher.watch(&chain.oracle.scripts);
        drop(moment);
        println!("{number}. {}", chain.step());
        let moment = chain.oracle.read(&node);
        watcher.expect(&moment.facts(&chain.oracle.scripts));
        if number % STEPS_TO_FULL_CHECK == 0 {
            compare_all(&mut chain.oracle, &node, &mut client);
            // What is asked for the first time is not what was kept up to date.
            compare_scripts(&mut chain.oracle, &node, &mut ambra.client());
        } else {
            compare_scripts(&mut chain.oracle, &node, &mut client);
        }
    }
    chain.oracle.scripts.len()
}

#[test]
fn the_oracles_sums_are_the_nodes() {
    let node = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&node, 5);
    for number in 1..=2 * STEPS {
        println!("{number}. {}", chain.step());
        let moment = chain.oracle.read(&node);
        let facts = moment.facts(&chain.oracle.scripts);
        let confirmed = |facts: &Facts| facts.balance["confirmed"].as_u64();
        let sum: u64 = facts.values().filter_map(confirmed).sum();
        let set = node.rpc("gettxoutsetinfo", json!(["none"]));
        let total = set["total_amount"].as_f64().expect("bitcoins");
        assert_eq!(Amount::from_sat(sum), Amount::from_btc(total).unwrap());
    }
}

#[test]
fn oracle_agrees_with_zmq_and_block_files() {
    oracle_agrees_through_a_random_life(
        1,
        STEPS,
        NodeOptions::default(),
        &["--block-source", "files"],
    );
}

#[test]
fn oracle_agrees_without_zmq_over_rpc() {
    let options = NodeOptions {
        zmq: false,
        xor: false,
        ..NodeOptions::default()
    };
    oracle_agrees_through_a_random_life(2, STEPS, options, &["--block-source", "rpc"]);
}

#[test]
fn oracle_agrees_over_rest() {
    let options = NodeOptions {
        rest: true,
        ..NodeOptions::default()
    };
    oracle_agrees_through_a_random_life(3, STEPS, options, &["--block-source", "rest"]);
}

#[test]
fn oracle_agrees_with_what_the_server_chooses_itself() {
    oracle_agrees_through_a_random_life(4, STEPS, NodeOptions::default(), &[]);
}

/// `STORIES_SEED=7 STORIES_STEPS=5000 cargo test --release --test stories for_long -- --ignored`
#[test]
#[ignore = "as long as it is told to be"]
fn oracle_agrees_for_long() {
    let seed = number("STORIES_SEED").unwrap_or_else(rand::random);
    let steps = number("STORIES_STEPS").unwrap_or(1_000) as u32;
    let node_options = NodeOptions {
        zmq: seed.is_multiple_of(2),
        ..NodeOptions::default()
    };
    let source = ["files", "rpc", "auto"][(seed % 3) as usize];
    let options = ["--block-source", source];
    let scripts = oracle_agrees_through_a_random_life(seed, steps, node_options, &options);
    report(
        "random lives",
        &json!({"steps": steps, "scripts": scripts, "seed": seed, "block_source": source}),
    );
}
