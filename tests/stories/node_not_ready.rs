//! A node that is there and not ready: in its warm-up, or still downloading the chain. What the terminal, the page, health
//! and the doctor say meanwhile, and that all goes on by itself afterwards.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    ambra::{Ambra, SYNC_PATIENCE},
    node::{Node, NodeOptions},
    patience::until,
    status_page::{ON_ANY_PORT, metric, status, wait_for_health},
    treasury::Treasury,
};

/// The status that the page shows, when it has these words.
#[track_caller]
fn wait_for_words(ambra: &Ambra, member: &str, words: &str) -> Value {
    let mut last = Value::Null;
    let said = until(SYNC_PATIENCE, || {
        last = status(ambra);
        let text = last.pointer(member)?.as_str()?;
        text.contains(words).then_some(())
    });
    assert!(said.is_some(), "{member} has no {words:?}: {last:#}");
    last
}

/// What the doctor says under this name.
fn doctor(ambra: &Ambra, name: &str) -> String {
    let (_, text) = ambra.run(&["doctor", "--json"]);
    let report: Value = serde_json::from_str(&text).expect("the doctor's JSON");
    let checks = report["checks"].as_array().expect("a list");
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("{name}: {report:#}"));
    format!("{} {} {}", check["level"], check["says"], check["mend"])
}

#[test]
fn a_node_in_its_warm_up_is_waited_for_and_its_own_words_are_told() {
    const WORDS: &str = "the node is starting: Loading banlist";
    let node = Node::start(NodeOptions::default());
    node.mine(130, &Treasury::elsewhere());
    node.stop();

    // 1. Ambra starts while it loads: so say the terminal, the page, health and the doctor. Nothing is at fault.
    node.launch_into_warm_up();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut ambra = Ambra::in_folder(&node, folder, &ON_ANY_PORT);
    ambra.launch_unseen();
    ambra.wait_until_it_says(WORDS);
    let told = wait_for_words(&ambra, "/sync/text", WORDS);
    assert_eq!(told["stage"], "waiting", "{told:#}");
    let why = wait_for_health(&ambra, 503);
    assert!(why.contains(WORDS), "{why}");
    let told = doctor(&ambra, "node");
    assert!(told.contains(WORDS) && told.contains("wait: "), "{told}");
    assert!(!ambra.said().contains("is bitcoind running?"));

    // 2. It is done: so is Ambra, by itself.
    node.end_warm_up();
    ambra.wait_until_listening();
    ambra.wait_until_synced(&node);
    wait_for_health(&ambra, 200);

    // 3. The node is restarted under a server that runs: it says so, and what it has is answered.
    node.stop();
    node.launch_into_warm_up();
    let told = wait_for_words(&ambra, "/node/error", WORDS);
    assert_eq!(told["node"]["state"], "away", "{told:#}");
    let why = wait_for_health(&ambra, 503);
    assert!(why.contains(WORDS), "{why}");
    let any_script = "00".repeat(32);
    let balance = ("blockchain.scripthash.get_balance", json!([any_script]));
    ambra.client().ask(balance.0, balance.1);
    node.end_warm_up();
    wait_for_health(&ambra, 200);
    node.mine(1, &Treasury::elsewhere());
    ambra.wait_until_synced(&node);
}

#[test]
fn a_node_that_downloads_the_chain_is_waited_for_with_how_far_it_is() {
    // 1. A chain of the day before yesterday, of which a new node has the headers: it calls itself in initial download.
    let old = Node::start(NodeOptions::default());
    let now = old.rpc(
        "getblockheader",
        json!([old.mine(1, &Treasury::elsewhere())[0]]),
    );
    let two_days = 2 * 24 * 3600;
    let then = now["time"].as_u64().expect("a time") - two_days;
    old.invalidate(&old.best_block());
    old.rpc("setmocktime", json!([then]));
    old.mine(140, &Treasury::elsewhere());
    let blocks: Vec<String> = (1..=old.height())
        .map(|height| {
            let hex = old.rpc("getblock", json!([old.block_at(height), 0]));
            hex.as_str().expect("hexadecimal").to_owned()
        })
        .collect();
    let new = Node::start(NodeOptions::default());
    for block in &blocks {
        new.rpc("submitheader", json!([block[..160]]));
    }
    let info = new.rpc("getblockchaininfo", json!([]));
    assert_eq!(info["initialblockdownload"], true, "{info:#}");
    assert_eq!(
        (&info["blocks"], &info["headers"]),
        (&json!(0), &json!(140))
    );

    // 2. Ambra waits, and says how far the node is wherever one looks.
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut ambra = Ambra::in_folder(&new, folder, &ON_ANY_PORT);
    ambra.launch_unseen();
    ambra.wait_until_it_says("the node is still downloading the chain: 0.0 %, block 0 of 140");
    let at = |height: u32| format!("block {height} of 140");
    let told = wait_for_words(&ambra, "/sync/text", &at(0));
    assert_eq!(told["stage"], "waiting", "{told:#}");
    // The page's own look at the node comes every few seconds.
    let looked = until(SYNC_PATIENCE, || {
        let node = status(&ambra)["node"].take();
        (node["initial_block_download"] == true && node["headers"] == 140).then_some(())
    });
    assert!(looked.is_some(), "{:#}", status(&ambra));
    let why = wait_for_health(&ambra, 503);
    assert!(why.contains("downloading") && why.contains(&at(0)), "{why}");
    let told = doctor(&ambra, "chain");
    assert!(told.contains("warn") && told.contains(&at(0)), "{told}");
    assert_eq!(metric(&ambra, "ambra_node_headers"), Some(140.0));

    // 3. The figure goes with the node.
    for block in &blocks[..60] {
        new.rpc("submitblock", json!([block]));
    }
    wait_for_words(&ambra, "/sync/text", &format!("42.9 %, {}", at(60)));
    assert!(!ambra.said().contains("first sync: "), "{}", ambra.said());

    // 4. The node has all. It still calls itself in initial download, for its newest block is old; Ambra does not wait for that.
    for block in &blocks[60..] {
        new.rpc("submitblock", json!([block]));
    }
    let info = new.rpc("getblockchaininfo", json!([]));
    assert_eq!(info["initialblockdownload"], true, "{info:#}");
    ambra.wait_until_listening();
    ambra.wait_until_synced(&new);
    wait_for_health(&ambra, 200);
}
