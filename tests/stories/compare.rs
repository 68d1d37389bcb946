//! What the server tells, held against what the oracle knows.

use std::{collections::HashMap, fmt::Write as _, time::Duration};

use bitcoin::{Block, Script, ScriptBuf, Transaction, Txid, consensus::encode, hashes::Hash};
use serde_json::{Value, json};

use crate::{
    client::Client,
    node::Node,
    oracle::{Facts, Moment, Oracle, script_hash, sort_unconfirmed_coins},
    patience::until,
};

/// How long the server may take to see what the node has seen, on a busy machine.
pub const CATCH_UP_PATIENCE: Duration = Duration::from_secs(60);
/// Requests in one batch.
const BATCH: usize = 50;
/// Differences shown before "and more".
const SHOWN: usize = 6;

/// [`compare_scripts`], and all transactions, proofs and headers.
#[track_caller]
pub fn compare_all(oracle: &mut Oracle, node: &Node, client: &mut Client) {
    let moment = compare_scripts(oracle, node, client);
    compare_transactions(&moment, client);
    compare_headers(&moment, client);
}

/// Asks everything of every script, and compares with what is true. The node must be still; the
/// server gets [`CATCH_UP_PATIENCE`] until its statuses agree, then all must.
#[track_caller]
pub fn compare_scripts(oracle: &mut Oracle, node: &Node, client: &mut Client) -> Moment {
    let moment = oracle.read(node);
    let facts = moment.facts(&oracle.scripts);
    let scripts: Vec<&ScriptBuf> = oracle.scripts.iter().collect();
    wait_for_statuses(&moment, &facts, &scripts, client);
    let mut differences = Vec::new();
    for (method, part) in PARTS {
        let answers = ask_for_each(client, method, &scripts);
        for (script, mut answer) in scripts.iter().zip(answers) {
            if let (Ok(Value::Array(coins)), "listunspent") = (&mut answer, method) {
                sort_unconfirmed_coins(coins);
            }
            let expected = part(&facts[script.as_script()]);
            if answer.as_ref() != Ok(&expected) {
                differences.push(difference(script, method, &expected, &answer));
            }
        }
    }
    assert_none(differences, &moment);
    moment
}

/// Like [`compare_scripts`], for a server whose disk has failed: each answer is right, or it is an error. How
/// many were errors.
#[track_caller]
pub fn compare_or_refused(oracle: &mut Oracle, node: &Node, client: &mut Client) -> usize {
    let moment = oracle.read(node);
    let facts = moment.facts(&oracle.scripts);
    let scripts: Vec<&ScriptBuf> = oracle.scripts.iter().collect();
    let (mut refused, mut differences) = (0, Vec::new());
    // The mempool may come a little later than the tip; then once more.
    until(CATCH_UP_PATIENCE, || {
        (refused, differences) = (0, Vec::new());
        for (method, part) in PARTS {
            let answers = ask_for_each(client, method, &scripts);
            for (script, mut answer) in scripts.iter().zip(answers) {
                if let (Ok(Value::Array(coins)), "listunspent") = (&mut answer, method) {
                    sort_unconfirmed_coins(coins);
                }
                let expected = part(&facts[script.as_script()]);
                match &answer {
                    Err(_) => refused += 1,
                    Ok(answer) if *answer == expected => {}
                    Ok(_) => differences.push(difference(script, method, &expected, &answer)),
                }
            }
        }
        differences.is_empty().then_some(())
    });
    assert_none(differences, &moment);
    refused
}

type Part = fn(&Facts) -> Value;

const PARTS: [(&str, Part); 5] = [
    ("get_history", |facts| json!(facts.history)),
    ("get_mempool", |facts| json!(facts.mempool)),
    ("listunspent", |facts| json!(facts.unspent)),
    ("get_balance", |facts| facts.balance.clone()),
    ("subscribe", |facts| facts.status.clone()),
];

fn wait_for_statuses(
    moment: &Moment,
    facts: &HashMap<&Script, Facts>,
    scripts: &[&ScriptBuf],
    client: &mut Client,
) {
    let (height, _) = moment.tip();
    let header = encode::serialize_hex(&moment.chain[height as usize].1.header);
    let tip = json!({"height": height, "hex": header});
    let mut last = Vec::new();
    let agreed = until(CATCH_UP_PATIENCE, || {
        last.clear();
        let told = client.call("blockchain.headers.subscribe", json!([]));
        if told.as_ref() != Ok(&tip) {
            last.push(format!("tip: expected {tip}, got {told:?}"));
            return None;
        }
        let answers = ask_for_each(client, "subscribe", scripts);
        for (script, answer) in scripts.iter().zip(answers) {
            let expected = &facts[script.as_script()].status;
            if answer.as_ref() != Ok(expected) {
                last.push(difference(script, "subscribe", expected, &answer));
            }
        }
        last.is_empty().then_some(())
    });
    if agreed.is_none() {
        // The histories tell more than the statuses.
        let answers = ask_for_each(client, "get_history", scripts);
        for (script, answer) in scripts.iter().zip(answers) {
            let expected = json!(facts[script.as_script()].history);
            if answer.as_ref() != Ok(&expected) {
                last.push(difference(script, "get_history", &expected, &answer));
            }
        }
        last.reverse();
        last.insert(0, format!("still wrong after {CATCH_UP_PATIENCE:?}"));
        assert_none(last, moment);
    }
}

fn ask_for_each(
    client: &mut Client,
    method: &str,
    scripts: &[&ScriptBuf],
) -> Vec<Result<Value, Value>> {
    let method = format!("blockchain.scripthash.{method}");
    let mut answers = Vec::new();
    for some in scripts.chunks(BATCH) {
        let requests: Vec<(&str, Value)> = some
            .iter()
            .map(|script| (method.as_str(), json!([script_hash(script)])))
            .collect();
        answers.extend(client.batch(&requests));
    }
    answers
}

fn difference(
    script: &Script,
    method: &str,
    expected: &Value,
    answer: &Result<Value, Value>,
) -> String {
    let mut text = format!(
        "{method} of {} ({})\n",
        script_hash(script),
        script.to_asm_string()
    );
    match (expected, answer) {
        (Value::Array(expected), Ok(Value::Array(got))) => {
            let missing = expected.iter().filter(|entry| !got.contains(entry));
            missing.for_each(|entry| writeln!(text, "    missing {entry}").expect("a string"));
            let wrong = got.iter().filter(|entry| !expected.contains(entry));
            wrong.for_each(|entry| writeln!(text, "    wrong   {entry}").expect("a string"));
            if expected.len() == got.len() && expected.iter().all(|entry| got.contains(entry)) {
                let orders = format!("    order   {expected:?}\n    got     {got:?}\n");
                text.push_str(&orders);
            }
        }
        (expected, Ok(got)) => {
            write!(text, "    expected {expected}\n    got      {got}\n").expect("a string");
        }
        (_, Err(error)) => writeln!(text, "    error {error}").expect("a string"),
    }
    text
}

#[track_caller]
fn assert_none(differences: Vec<String>, moment: &Moment) {
    if differences.is_empty() {
        return;
    }
    let (height, hash) = moment.tip();
    let mut text = format!(
        "{} differences at height {height}, block {hash}, {} unconfirmed transactions:\n",
        differences.len(),
        moment.mempool.len()
    );
    for difference in differences.iter().take(SHOWN) {
        text.push_str(difference);
        text.push('\n');
    }
    if differences.len() > SHOWN {
        text.push_str("and more\n");
    }
    panic!("{text}");
}

/// Every transaction's bytes, and the proof that it lies where it should.
fn compare_transactions(moment: &Moment, client: &mut Client) {
    let mut differences = Vec::new();
    let mut expect = |what: String, expected: Value, answer: &Result<Value, Value>| {
        if answer.as_ref() != Ok(&expected) {
            differences.push(format!("{what}: expected {expected}, got {answer:?}"));
        }
    };
    let blocks = (1u32..).zip(moment.chain.iter().skip(1));
    let confirmed: Vec<(Txid, u32, usize, &Transaction)> = blocks
        .flat_map(|(height, (_, block))| {
            let transactions = block.txdata.iter().enumerate();
            transactions.map(move |(position, transaction)| {
                (transaction.compute_txid(), height, position, transaction)
            })
        })
        .collect();
    for some in confirmed.chunks(BATCH) {
        let mut requests = Vec::new();
        for (txid, height, position, _) in some {
            requests.push(("blockchain.transaction.get", json!([txid])));
            requests.push(("blockchain.transaction.get_merkle", json!([txid, height])));
            requests.push((
                "blockchain.transaction.id_from_pos",
                json!([height, position]),
            ));
        }
        let answers = client.batch(&requests);
        for ((txid, height, position, transaction), answers) in some.iter().zip(answers.chunks(3)) {
            let hex = encode::serialize_hex(*transaction);
            expect(format!("transaction.get {txid}"), json!(hex), &answers[0]);
            let block = &moment.chain[*height as usize].1;
            let proof = json!({"block_height": height, "pos": position,
                               "merkle": branch(block, *position)});
            expect(format!("get_merkle {txid}"), proof, &answers[1]);
            let what = format!("id_from_pos {height} {position}");
            expect(what, json!(txid), &answers[2]);
        }
    }
    for unconfirmed in &moment.mempool {
        let txid = unconfirmed.txid;
        let hex = encode::serialize_hex(&*unconfirmed.transaction);
        let answer = client.call("blockchain.transaction.get", json!([txid]));
        expect(format!("transaction.get {txid}"), json!(hex), &answer);
    }
    assert_none(differences, moment);
}

/// The hashes beside the way from a transaction up to the block's merkle root.
fn branch(block: &Block, mut position: usize) -> Vec<String> {
    let mut level: Vec<Txid> = block.txdata.iter().map(|tx| tx.compute_txid()).collect();
    let mut branch = Vec::new();
    while level.len() > 1 {
        if level.len() % 2 == 1 {
            level.push(level[level.len() - 1]);
        }
        branch.push(level[position ^ 1].to_string());
        position /= 2;
        level = level
            .chunks(2)
            .map(|pair| {
                let both = [pair[0].to_byte_array(), pair[1].to_byte_array()].concat();
                Txid::from_raw_hash(bitcoin::hashes::sha256d::Hash::hash(&both))
            })
            .collect();
    }
    branch
}

/// All headers, from the genesis block to the tip.
fn compare_headers(moment: &Moment, client: &mut Client) {
    let headers = moment.chain.iter().map(|(_, block)| &block.header);
    let hex: String = headers.map(encode::serialize_hex).collect();
    let count = moment.chain.len();
    let reply = client.ask("blockchain.block.headers", json!([0, count + 5]));
    assert_eq!(reply["count"], count, "the number of headers");
    assert_eq!(reply["hex"], hex, "the headers");
}
