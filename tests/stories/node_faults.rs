//! A node that fails in every way that was thought of: Ambra says so, waits, and is never wrong.

use std::time::{Duration, Instant};

use ambra::daemon::rpc::RpcConfig;
use serde_json::json;

use crate::{
    ambra::{Ambra, SYNC_PATIENCE, copy_folder},
    compare::{CATCH_UP_PATIENCE, compare_all},
    locks::{Kind, Lock},
    long::number,
    node::{Node, NodeOptions},
    oracle::Oracle,
    patience::until,
    random_chain::RandomChain,
    same_index::compare_index,
    slow_road::slow_road,
    spoiler::{Relay, Spoiler},
    treasury::Treasury,
};

/// Mines until so many more exchanges are spoilt: what has nothing to ask is not answered wrongly.
fn mine_until_spoilt(chain: &mut RandomChain, spoiler: &Spoiler, count: usize) {
    let enough = spoiler.spoilt() + count;
    let seen = until(SYNC_PATIENCE, || {
        chain.mine_block();
        until(Duration::from_millis(500), || {
            (spoiler.spoilt() >= enough).then_some(())
        })
    });
    assert!(seen.is_some(), "{} of {enough} faults", spoiler.spoilt());
}

fn seed() -> u64 {
    let seed = number("STORIES_SEED").unwrap_or_else(rand::random);
    println!("seed {seed}");
    seed
}

#[test]
fn a_node_that_answers_garbage_halves_and_refusals_is_followed_rightly_all_the_same() {
    for source in ["files", "rpc"] {
        let seed = seed();
        println!("block source {source}");
        let node = Node::start(NodeOptions::default());
        let mut chain = RandomChain::new(&node, seed);
        (0..15).for_each(|_| drop(chain.step()));
        let spoiler = Spoiler::between(&node, seed);
        let url = spoiler.url();
        let mut ambra = Ambra::start_at(&node, &url, &["--block-source", source]);

        // 1. At the tip, while a third of all exchanges is spoilt.
        spoiler.spoil(33);
        for round in 0..4 {
            (0..4).for_each(|_| println!("{}", chain.step()));
            if round == 2 {
                println!("{}", chain.reorg(4));
            }
        }
        // Some faults fall into what follows, whatever was spoilt so far.
        mine_until_spoilt(&mut chain, &spoiler, 10);

        // 2. All is well again, and every answer is right.
        spoiler.spoil(0);
        compare_all(&mut chain.oracle, &node, &mut ambra.client());
        assert!(ambra.is_running());

        // 3. The same from the start, in the first sync.
        ambra.stop();
        spoiler.spoil(20);
        let mut fresh = Ambra::start_unseen_at(&node, &url, &["--block-source", source]);
        mine_until_spoilt(&mut chain, &spoiler, 5);
        assert!(fresh.is_running(), "it waits for a better answer");
        spoiler.spoil(0);
        fresh.wait_until_listening();
        compare_all(&mut chain.oracle, &node, &mut fresh.client());
        compare_index(&fresh, &node);
        assert!(fresh.is_running());
    }
}

/// Lets things happen until so many more messages are spoilt.
fn step_until_spoilt(chain: &mut RandomChain, relay: &Relay, count: usize) {
    let enough = relay.spoilt() + count;
    let seen = until(SYNC_PATIENCE, || {
        println!("{}", chain.step());
        (relay.spoilt() >= enough).then_some(())
    });
    assert!(seen.is_some(), "{} of {enough} messages", relay.spoilt());
}

#[test]
fn zmq_messages_that_are_lost_doubled_and_late_make_nothing_wrong() {
    let seed = seed();
    let node = Node::start(NodeOptions::default());
    let relay = Relay::of(&node, seed);
    let spoiler = Spoiler::that_leads_to(&relay, &node, seed);
    let mut chain = RandomChain::new(&node, seed);
    (0..10).for_each(|_| drop(chain.step()));
    let mut ambra = Ambra::start_at(&node, &spoiler.url(), &[]);
    ambra.wait_until_it_says(&format!("ZMQ at {}", relay.address()));

    // 1. Their numbers tell that something was lost.
    relay.spoil(60, false);
    for _ in 0..4 {
        step_until_spoilt(&mut chain, &relay, 6);
        compare_all(&mut chain.oracle, &node, &mut ambra.client());
    }

    // 2. Nothing tells it: the slow poll behind the messages finds out.
    relay.spoil(60, true);
    step_until_spoilt(&mut chain, &relay, 12);
    println!("{}", chain.reorg(3));
    compare_all(&mut chain.oracle, &node, &mut ambra.client());
    assert!(ambra.is_running());
}

#[test]
fn a_node_that_comes_back_without_zmq_or_with_it_is_followed() {
    let mut node = Node::start(NodeOptions::default());
    node.mine(110, &Treasury::elsewhere());
    let mut ambra = Ambra::start(&node);
    let mut client = ambra.client();
    for zmq in [false, true] {
        node.stop();
        node.set_options(NodeOptions {
            zmq,
            ..NodeOptions::default()
        });
        node.launch();
        node.mine(3, &Treasury::elsewhere());
        compare_all(&mut Oracle::new(), &node, &mut client);
    }
    assert!(ambra.is_running());
}

/// Answers that a client must get while the node stands still.
const ANSWERS_MEANWHILE: usize = 100;

/// Silent for a while; nothing is asked of it that it must answer meanwhile, but what only it knows.
fn stand_still(silence: Duration) {
    let node = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&node, 44);
    (0..10).for_each(|_| drop(chain.step()));
    let mut ambra = Ambra::start_with(&node, &["--block-source", "files"]);
    compare_all(&mut chain.oracle, &node, &mut ambra.client());
    println!("{}", chain.step());
    chain.mine_block();
    let mut client = ambra.client();
    let any = json!(["00".repeat(32)]);
    node.while_it_stands_still(|| {
        // 1. One client asks what only the node knows, and waits for it. Another does not notice.
        let mut patient = ambra.client();
        patient.send(r#"{"id":"fee","method":"blockchain.estimatefee","params":[6]}"#);
        let began = Instant::now();
        let mut longest = Duration::ZERO;
        let mut answers = 0;
        // It stands still until these are there: none of them can have come from it.
        while began.elapsed() < silence || answers < ANSWERS_MEANWHILE {
            let asked = Instant::now();
            client.ask("blockchain.scripthash.get_history", any.clone());
            client.ask("blockchain.headers.subscribe", json!([]));
            longest = longest.max(asked.elapsed());
            assert!(longest < RpcConfig::TIMEOUT, "{longest:?}");
            answers += 2;
            std::thread::sleep(Duration::from_millis(20));
        }
        println!("{answers} answers, longest wait {longest:?}");
    });
    // 2. It goes on, and so does the server.
    compare_all(&mut chain.oracle, &node, &mut client);
    chain.mine_block();
    compare_all(&mut chain.oracle, &node, &mut client);
    assert!(ambra.is_running());
}

#[test]
fn a_node_that_stands_still_for_seconds_holds_up_only_what_it_alone_knows() {
    stand_still(Duration::from_secs(4));
}

/// Beyond the deadlines of all calls.
#[test]
#[ignore = "takes a minute and a half: contrib/enemies.sh"]
fn a_node_that_stands_still_beyond_every_deadline_is_waited_for() {
    stand_still(Duration::from_secs(75));
}

#[test]
fn a_password_that_the_node_refuses_ends_the_server_with_words() {
    let node = Node::start(NodeOptions::default());
    let login = ["--rpc-user", "ali", "--rpc-password", "open-sesame"];
    let mut ambra = Ambra::start_unseen(&node, &login);
    let (status, said) = ambra.wait_until_it_ends();
    assert_eq!(status.code(), Some(1));
    assert!(
        said.contains("correct --rpc-user and --rpc-password"),
        "{said}"
    );
    assert!(!said.contains("open-sesame"));
}

#[test]
fn a_node_rolled_back_to_a_shorter_branch_and_then_to_the_old_one_is_followed() {
    let node = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&node, 41);
    (0..20).for_each(|_| drop(chain.step()));
    node.mine(200, &Treasury::elsewhere());
    let mut ambra = Ambra::start(&node);
    let mut client = ambra.client();

    // 1. Down by 205 blocks, and nothing new.
    let first = node.block_at(node.height() - 204);
    node.invalidate(&first);
    compare_all(&mut chain.oracle, &node, &mut client);

    // 2. Another branch, shorter than what there was.
    node.mine(20, &Lock::new(Kind::P2tr, 41).script());
    compare_all(&mut chain.oracle, &node, &mut client);

    // 3. The old branch again.
    node.reconsider(&first);
    compare_all(&mut chain.oracle, &node, &mut client);
    compare_index(&ambra, &node);
    assert!(ambra.is_running());
}

#[test]
fn a_node_that_comes_back_with_another_chain_and_without_the_old_blocks_is_followed() {
    for source in ["files", "rpc"] {
        let node = Node::start(NodeOptions::default());
        let mut chain = RandomChain::new(&node, 42);
        (0..20).for_each(|_| drop(chain.step()));
        let mut ambra = Ambra::start_with(&node, &["--block-source", source]);
        let mut client = ambra.client();

        // All blocks that the index knows are gone, with their files; the node begins anew, and has fewer.
        node.stop();
        node.forget_all();
        node.launch();
        node.mine(60, &Treasury::elsewhere());
        let mut oracle = Oracle::new();
        compare_all(&mut oracle, &node, &mut client);
        // What was paid on the old chain is paid no more.
        oracle.scripts.append(&mut chain.oracle.scripts);
        node.mine(100, &Treasury::elsewhere());
        compare_all(&mut oracle, &node, &mut client);
        assert!(ambra.is_running(), "block source {source}");
    }
}

#[test]
fn a_chain_that_the_node_loses_while_it_is_first_read_is_looked_at_again() {
    // The node comes back without the blocks that are being read: with others at their heights, or with a chain that ends
    // before them.
    for has_others in [true, false] {
        let node = Node::start(NodeOptions::default());
        node.mine(40, &Treasury::elsewhere());
        node.stop();
        let past = tempfile::tempdir().expect("a temporary directory");
        copy_folder(node.dir(), past.path());
        node.launch();
        node.mine(60, &Treasury::elsewhere());
        let to = node.rpc_url().trim_start_matches("http://").parse();
        let road = slow_road(to.expect("an address"), Duration::from_millis(60));
        let url = format!("http://{}", road.begins);
        let mut ambra = Ambra::start_unseen_at(&node, &url, &["--block-source", "rpc"]);
        ambra.wait_until_it_says("first sync: 91 blocks");
        node.kill();
        node.forget_all();
        if has_others {
            node.launch();
            node.mine(120, &Lock::new(Kind::P2tr, 46).script());
        } else {
            copy_folder(past.path(), node.dir());
            node.launch();
        }
        road.free();
        ambra.wait_until_it_says("has another chain now");
        ambra.wait_until_listening();
        ambra.wait_until_synced(&node);
        compare_index(&ambra, &node);
        assert!(ambra.is_running());
    }
}

#[test]
fn another_node_at_the_same_place_is_told_of_and_changes_nothing() {
    let node = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&node, 45);
    (0..10).for_each(|_| drop(chain.step()));
    // An index with fewer blocks than these is soon made anew, and follows whatever there is.
    node.mine(1_000, &Treasury::elsewhere());
    let other = Node::start(NodeOptions::default());
    other.mine(30, &Lock::new(Kind::P2tr, 45).script());
    let spoiler = Spoiler::between(&node, 45);
    let mut ambra = Ambra::start_at(&node, &spoiler.url(), &[]);
    let mut client = ambra.client();
    compare_all(&mut chain.oracle, &node, &mut client);

    // 1. Another chain's node answers: it is said, and nothing is taken away.
    spoiler.answer_as(&other);
    ambra.wait_until_it_says("share their first block only");
    let known = chain.oracle.scripts.iter().next().unwrap().clone();
    let history = json!([crate::oracle::script_hash(&known)]);
    let before = client.ask("blockchain.scripthash.get_history", history);
    assert!(before.is_array());
    assert_eq!(
        client.ask("blockchain.headers.subscribe", json!([]))["height"],
        node.height()
    );

    // 2. The former one is back, with a block more.
    chain.mine_block();
    spoiler.answer_as(&node);
    compare_all(&mut chain.oracle, &node, &mut client);
    assert!(!ambra.said().contains("reorganization"), "{}", ambra.said());
    assert!(ambra.is_running());
}

#[test]
fn a_node_that_prunes_under_the_server_is_told_of_and_new_blocks_are_followed() {
    let mut node = Node::start(NodeOptions {
        prunes: true,
        ..NodeOptions::default()
    });
    let mut treasury = Treasury::mine(&node);
    // Small block files take a while to fill.
    node.mine(900, &Treasury::elsewhere());
    let mut ambra = Ambra::start(&node);
    let mut client = ambra.client();
    let old = node.block(&node.block_at(1)).txdata[0].compute_txid();
    let question = "blockchain.transaction.get";
    assert!(client.call(question, json!([old])).is_ok());

    // 1. What is gone is an error, not an answer of something else; the rest is answered. (Files that were open are
    // closed when the next block comes, so that their room is free.)
    let pruned = node.rpc("pruneblockchain", json!([700]));
    println!("pruned up to {pruned}");
    let gone = until(CATCH_UP_PATIENCE, || {
        node.mine(1, &Treasury::elsewhere());
        ambra.wait_until_at_tip(&node);
        client.call(question, json!([old])).err()
    });
    let gone = gone.expect("a transaction that no file has");
    assert_eq!(gone["code"], 2, "{gone}");
    ambra.wait_until_at_tip(&node);
    let young = node.block(&node.best_block()).txdata[0].compute_txid();
    assert!(client.call(question, json!([young])).is_ok());

    // 2. Blocks go on.
    let payment = treasury.payment(&Lock::new(Kind::P2tr, 3), 5_000);
    node.send(&payment).unwrap();
    node.mine(2, &Treasury::elsewhere());
    ambra.wait_until_at_tip(&node);
    let hex = bitcoin::consensus::encode::serialize_hex(&payment);
    let txid = json!([payment.compute_txid()]);
    assert_eq!(client.ask(question, txid.clone()), hex);

    // 3. Also after a restart of both, by whatever way blocks come then.
    node.stop();
    node.set_options(NodeOptions {
        prunes: true,
        rest: true,
        ..NodeOptions::default()
    });
    node.launch();
    ambra.stop();
    ambra.launch();
    node.mine(2, &Treasury::elsewhere());
    ambra.wait_until_at_tip(&node);
    assert_eq!(ambra.client().ask(question, txid), hex);
    assert!(ambra.is_running());
}
