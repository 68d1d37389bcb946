//! The node is rolled back by hundreds of blocks, and goes another way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    ambra::Ambra,
    client::Client,
    compare::compare_all,
    long::report,
    node::{Node, NodeOptions},
    oracle::script_hash,
    random_chain::RandomChain,
    same_index::compare_index,
    treasury::Treasury,
};

const DEPTH: u32 = 300;

/// Asks the whole time; how many answers came, how many refusals, and the longest wait.
struct Asker {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<(u64, Vec<String>, Duration)>,
}

impl Asker {
    fn start(ambra: &Ambra, scripts: Vec<String>) -> Asker {
        let stop = Arc::new(AtomicBool::new(false));
        let mut client = Client::connect(ambra.address());
        let is_stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut answers, mut refusals, mut longest) = (0, Vec::new(), Duration::ZERO);
            for script in scripts.iter().cycle() {
                if is_stopped.load(Ordering::Relaxed) {
                    break;
                }
                let asked = Instant::now();
                match client.call("blockchain.scripthash.get_history", json!([script])) {
                    Ok(_) => answers += 1,
                    Err(error) => refusals.push(error.to_string()),
                }
                longest = longest.max(asked.elapsed());
            }
            (answers, refusals, longest)
        });
        Asker { stop, thread }
    }

    fn finish(self) -> (u64, Vec<String>, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the asker is well")
    }
}

#[test]
fn a_node_that_is_rolled_back_by_300_blocks_and_goes_another_way_is_followed() {
    // 1. A long chain.
    let node = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&node, 95);
    (0..20).for_each(|_| drop(chain.step()));
    for _ in 0..DEPTH / 6 {
        node.mine(5, &Treasury::elsewhere());
        chain.step();
        chain.mine_block();
    }
    let mut ambra = Ambra::start(&node);
    compare_all(&mut chain.oracle, &node, &mut ambra.client());
    let scripts = chain.oracle.scripts.iter();
    let asker = Asker::start(&ambra, scripts.map(|script| script_hash(script)).collect());

    // 2. Back by 300 blocks, and the server with it.
    let top = node.height();
    chain.leave(node.block_at(top - DEPTH + 1));
    assert_eq!(node.height(), top - DEPTH);
    ambra.wait_until_synced(&node);
    compare_all(&mut chain.oracle, &node, &mut ambra.client());

    // 3. Another branch, longer than the one that was left.
    for _ in 0..DEPTH / 10 {
        chain.mine_block();
        node.mine(10, &Treasury::elsewhere());
    }
    ambra.wait_until_synced(&node);
    let (answers, refusals, longest) = asker.finish();
    compare_all(&mut chain.oracle, &node, &mut ambra.client());
    compare_index(&ambra, &node);
    assert!(ambra.is_running());

    // 4. Meanwhile questions were answered, or refused in clear words.
    println!(
        "{answers} answers, {} refusals, longest {longest:?}",
        refusals.len()
    );
    assert!(answers > 0);
    for refusal in &refusals {
        assert!(refusal.contains("try again"), "{refusal}");
    }
    report(
        "rolled back by 300 blocks",
        &json!({"answers": answers, "refusals": refusals.len(), "longest_ms": longest.as_millis() as u64}),
    );
}

#[test]
fn a_node_that_builds_its_chain_anew_is_waited_for_and_nothing_is_taken_away() {
    const DAY: u64 = 24 * 60 * 60;
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).expect("a clock");
    let long_ago = now.as_secs() - 30 * DAY;
    // 1. A chain whose newest block is old: a node that starts with it calls itself in initial download.
    let node = Node::start(NodeOptions::default());
    node.rpc("setmocktime", json!([long_ago]));
    node.mine(260, &Treasury::elsewhere());
    node.stop();
    node.launch();
    let info = node.rpc("getblockchaininfo", json!([]));
    assert_eq!(info["initialblockdownload"], true);
    let mut ambra = Ambra::start(&node);
    let tip = ambra.tip();

    // 2. It is back at an early block, as when it reindexes. (It takes its blocks away one by one, which a reindexing
    // node does not.)
    let first = node.block_at(60);
    ambra.while_it_stands_still(|| node.invalidate(&first));
    ambra.wait_until_it_says("built its chain anew");
    assert_eq!(ambra.tip(), tip);

    // 3. It comes forward again: nothing was taken away.
    node.reconsider(&first);
    ambra.wait_until_it_says("the node answers again");
    ambra.wait_until_synced(&node);
    assert!(!ambra.said().contains("reorganization"), "{}", ambra.said());
    assert!(ambra.is_running());

    // 4. A branch of its own is another matter.
    node.rpc("setmocktime", json!([long_ago + DAY]));
    node.invalidate(&first);
    node.mine(210, &Treasury::elsewhere());
    ambra.wait_until_synced(&node);
    assert!(ambra.said().contains("reorganization"));
    compare_index(&ambra, &node);
}

#[test]
fn stale_blocks_that_no_node_has_any_more_are_taken_away_by_a_scan() {
    // 1. Two nodes with one past.
    let first = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&first, 96);
    (0..20).for_each(|_| drop(chain.step()));
    first.stop();
    let second = Node::with_the_past_of(&first);
    first.launch();
    second.launch();

    // 2. The server follows the first for some blocks; more than one batch.
    (0..20).for_each(|_| drop(chain.step()));
    first.mine(40, &Treasury::elsewhere());
    let mut ambra = Ambra::start(&first);
    let scripts = chain
        .oracle
        .scripts
        .iter()
        .map(|script| script_hash(script));
    let scripts: Vec<String> = scripts.collect();
    ambra.stop();
    drop(chain);
    drop(first);

    // 3. The second is another way, and knows nothing of those blocks.
    let mut chain = RandomChain::new(&second, 97);
    (0..10).for_each(|_| drop(chain.step()));
    let mut ambra = Ambra::in_folder(&second, ambra.folder(), &[]);
    ambra.launch();
    let asker = Asker::start(&ambra, scripts);
    ambra.wait_until_synced(&second);
    let (answers, refusals, _) = asker.finish();
    assert!(ambra.said().contains("by a scan"), "{}", ambra.said());
    compare_all(&mut chain.oracle, &second, &mut ambra.client());
    compare_index(&ambra, &second);
    println!("{answers} answers, refusals: {refusals:?}");
}
