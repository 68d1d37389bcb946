//! What is true, by brute force: all of the node's blocks and its mempool are walked, output by
//! output, and nothing is remembered but what cannot change.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt::Write as _,
    sync::Arc,
    time::Duration,
};

use bitcoin::{
    Amount, Block, BlockHash, OutPoint, Script, ScriptBuf, Transaction, Txid,
    consensus::encode,
    hashes::{Hash, sha256},
};
use serde_json::{Value, json};

use crate::{client::Client, node::Node, patience::until};

/// How long the server may take to see what the node has seen.
pub const CATCH_UP_PATIENCE: Duration = Duration::from_secs(20);
/// Requests in one batch.
const BATCH: usize = 50;
/// Differences shown before "and more".
const SHOWN: usize = 6;

/// Reads the node; blocks and transactions, once read, stay the same.
pub struct Oracle {
    blocks: HashMap<BlockHash, Arc<Block>>,
    transactions: HashMap<Txid, Arc<Transaction>>,
    /// Every script that any block or mempool transaction ever had, on stale branches too.
    pub scripts: BTreeSet<ScriptBuf>,
}

/// The node's chain and mempool at one moment.
pub struct Moment {
    /// From the genesis block up.
    pub chain: Vec<(BlockHash, Arc<Block>)>,
    pub mempool: Vec<Unconfirmed>,
}

#[derive(Clone)]
pub struct Unconfirmed {
    pub txid: Txid,
    pub transaction: Arc<Transaction>,
    pub fee: u64,
    /// Those of its inputs' transactions that are in the mempool too.
    pub parents: Vec<Txid>,
}

/// What the protocol tells of one script, as the JSON of version 1.4.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    pub history: Vec<Value>,
    pub mempool: Vec<Value>,
    pub unspent: Vec<Value>,
    pub balance: Value,
    pub status: Value,
}

impl Oracle {
    pub fn new() -> Oracle {
        Oracle {
            blocks: HashMap::new(),
            transactions: HashMap::new(),
            scripts: BTreeSet::new(),
        }
    }

    /// Chain and mempool; the caller keeps the node still meanwhile.
    pub fn read(&mut self, node: &Node) -> Moment {
        let mut chain = Vec::new();
        let mut hash = node.best_block();
        while hash != BlockHash::all_zeros() {
            let block = match self.blocks.get(&hash) {
                Some(block) => Arc::clone(block),
                None => {
                    let block = Arc::new(node.block(&hash));
                    block.txdata.iter().for_each(|tx| self.note_scripts(tx));
                    self.blocks.insert(hash, Arc::clone(&block));
                    block
                }
            };
            let previous = block.header.prev_blockhash;
            chain.push((hash, block));
            hash = previous;
        }
        chain.reverse();
        let mempool = self.read_mempool(node);
        Moment { chain, mempool }
    }

    fn read_mempool(&mut self, node: &Node) -> Vec<Unconfirmed> {
        let listing = node.rpc("getrawmempool", json!([true]));
        let entries = listing.as_object().expect("an object");
        let unconfirmed = entries.iter().map(|(txid, entry)| {
            let txid: Txid = txid.parse().expect("a txid");
            let transaction = match self.transactions.get(&txid) {
                Some(transaction) => Arc::clone(transaction),
                None => {
                    let transaction = node.unconfirmed(&txid).expect("the node is still");
                    self.note_scripts(&transaction);
                    let transaction = Arc::new(transaction);
                    self.transactions.insert(txid, Arc::clone(&transaction));
                    transaction
                }
            };
            let fee = entry["fees"]["base"].as_f64().expect("a fee");
            let parents = entry["depends"].as_array().expect("parents");
            let txids = parents.iter().map(|txid| txid.as_str().expect("a txid"));
            Unconfirmed {
                txid,
                transaction,
                fee: Amount::from_btc(fee).expect("a fee").to_sat(),
                parents: txids.map(|txid| txid.parse().expect("a txid")).collect(),
            }
        });
        unconfirmed.collect()
    }

    fn note_scripts(&mut self, transaction: &Transaction) {
        let scripts = transaction
            .output
            .iter()
            .map(|output| &output.script_pubkey);
        self.scripts.extend(scripts.cloned());
    }
}

impl Moment {
    pub fn tip(&self) -> (u32, BlockHash) {
        let (hash, _) = self.chain.last().expect("a genesis block");
        (self.chain.len() as u32 - 1, *hash)
    }

    /// What is true of each of these scripts.
    pub fn facts<'a>(
        &self,
        scripts: impl IntoIterator<Item = &'a ScriptBuf>,
    ) -> HashMap<&'a Script, Facts> {
        let mut books = Books::default();
        for (height, (_, block)) in self.chain.iter().enumerate().skip(1) {
            for transaction in &block.txdata {
                books.confirm(transaction, height as i64);
            }
        }
        let mut left: Vec<&Unconfirmed> = self.mempool.iter().collect();
        // Parents before children: take those whose parents are done until none is left.
        let mut done = HashSet::new();
        while !left.is_empty() {
            let before = left.len();
            left.retain(|unconfirmed| {
                let is_ready = unconfirmed.parents.iter().all(|txid| done.contains(txid));
                if is_ready {
                    done.insert(unconfirmed.txid);
                    books.add_unconfirmed(unconfirmed);
                }
                !is_ready
            });
            assert!(left.len() < before, "the node's mempool lacks a parent");
        }
        scripts
            .into_iter()
            .map(|script| (script.as_script(), books.facts(script)))
            .collect()
    }
}

/// Who touched what, as the walk goes on.
#[derive(Default)]
struct Books {
    outputs: HashMap<OutPoint, (ScriptBuf, u64)>,
    pages: HashMap<ScriptBuf, Page>,
}

#[derive(Default)]
struct Page {
    confirmed: Vec<(Txid, i64)>,
    /// Height, txid as displayed, fee.
    unconfirmed: Vec<(i64, String, u64)>,
    /// In chain order.
    coins: Vec<(OutPoint, u64, i64)>,
    balance: i64,
    unconfirmed_balance: i64,
}

impl Books {
    fn confirm(&mut self, transaction: &Transaction, height: i64) {
        let txid = transaction.compute_txid();
        for (script, change) in self.move_coins(transaction, txid, height) {
            let page = self.pages.entry(script).or_default();
            page.confirmed.push((txid, height));
            page.balance += change;
        }
    }

    fn add_unconfirmed(&mut self, unconfirmed: &Unconfirmed) {
        let txid = unconfirmed.txid;
        let height = if unconfirmed.parents.is_empty() {
            0
        } else {
            -1
        };
        for (script, change) in self.move_coins(&unconfirmed.transaction, txid, 0) {
            let page = self.pages.entry(script).or_default();
            let entry = (height, txid.to_string(), unconfirmed.fee);
            page.unconfirmed.push(entry);
            page.unconfirmed_balance += change;
        }
    }

    /// Takes what is spent, adds what is made; each script touched, with the change of its balance.
    fn move_coins(
        &mut self,
        transaction: &Transaction,
        txid: Txid,
        height: i64,
    ) -> HashMap<ScriptBuf, i64> {
        let mut touched: HashMap<ScriptBuf, i64> = HashMap::new();
        if !transaction.is_coinbase() {
            for input in &transaction.input {
                let outpoint = input.previous_output;
                let (script, value) = self.outputs.remove(&outpoint).expect("an unspent output");
                let page = self.pages.get_mut(&script).expect("a script that was paid");
                page.coins.retain(|(coin, _, _)| *coin != outpoint);
                *touched.entry(script).or_default() -= value as i64;
            }
        }
        for (vout, output) in (0..).zip(&transaction.output) {
            // OP_RETURN: nobody can spend it, so nobody owns it.
            if output.script_pubkey.as_bytes().first() == Some(&0x6a) {
                continue;
            }
            let script = output.script_pubkey.clone();
            let value = output.value.to_sat();
            let outpoint = OutPoint { txid, vout };
            let page = self.pages.entry(script.clone()).or_default();
            page.coins.push((outpoint, value, height));
            self.outputs.insert(outpoint, (script.clone(), value));
            *touched.entry(script).or_default() += value as i64;
        }
        touched
    }

    fn facts(&self, script: &Script) -> Facts {
        let empty = Page::default();
        let page = self.pages.get(script).unwrap_or(&empty);
        let mut unconfirmed = page.unconfirmed.clone();
        // Height 0 before −1, then as the txid is displayed.
        unconfirmed.sort_by(|a, b| (b.0, &a.1).cmp(&(a.0, &b.1)));
        let confirmed = page.confirmed.iter();
        let history: Vec<Value> = confirmed
            .map(|(txid, height)| json!({"tx_hash": txid, "height": height}))
            .collect();
        let mempool: Vec<Value> = unconfirmed
            .iter()
            .map(|(height, txid, fee)| json!({"tx_hash": txid, "height": height, "fee": fee}))
            .collect();
        let history = [history, mempool.clone()].concat();
        let coins = page.coins.iter();
        let mut unspent: Vec<Value> = coins
            .map(|(outpoint, value, height)| {
                json!({"tx_hash": outpoint.txid, "tx_pos": outpoint.vout,
                       "value": value, "height": height})
            })
            .collect();
        sort_unconfirmed_coins(&mut unspent);
        Facts {
            status: status_of(&history),
            history,
            mempool,
            unspent,
            balance: json!({"confirmed": page.balance, "unconfirmed": page.unconfirmed_balance}),
        }
    }
}

/// The protocol leaves open how unconfirmed coins are ordered at the end of the list.
fn sort_unconfirmed_coins(unspent: &mut [Value]) {
    let confirmed = unspent.partition_point(|coin| coin["height"] != 0);
    unspent[confirmed..].sort_by_key(|coin| coin.to_string());
}

/// The status of a history as the protocol shows it.
pub fn status_of(history: &[Value]) -> Value {
    if history.is_empty() {
        return Value::Null;
    }
    let mut text = String::new();
    for entry in history {
        let txid = entry["tx_hash"].as_str().expect("a txid");
        write!(text, "{txid}:{}:", entry["height"]).expect("a string takes all");
    }
    json!(sha256::Hash::hash(text.as_bytes()).to_string())
}

/// The name of a script in the protocol.
pub fn script_hash(script: &Script) -> String {
    let mut hash = sha256::Hash::hash(script.as_bytes()).to_byte_array();
    hash.reverse();
    sha256::Hash::from_byte_array(hash).to_string()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oracle_computes_the_specifications_status() {
        // protocol-basics, section "Status".
        let history = [
            json!({"tx_hash": "a6c9c361bd0bc536d6a22648efbf8f9b200e425ef6c3a7a9669dc444c532a347", "height": 2472}),
            json!({"tx_hash": "9c42f84b2fcdaff676ba25d9d4941741cc0d1a01cce0c23fdc4c0b2afa38431c", "height": 2473}),
            json!({"tx_hash": "770f2d4371b3fabb902dd9a103e2dd005fcd3971181078fca4a2a1d6ff127b30", "height": 2473}),
            json!({"tx_hash": "80b19848aed792565ab7c5a79b7c2a00fbf985741579396ebe0ab6098e607311", "height": 0, "fee": 200}),
            json!({"tx_hash": "e02a1dadfa83b996b24175df807b271ea5d02937ef5b35c195fac1e1bdc3198f", "height": 0, "fee": 300}),
            json!({"tx_hash": "bb4c8ab438c13b89ca80d1d5bee25b0b6b7f55673f4d801998ba97db161d9e85", "height": -1, "fee": 200}),
        ];
        let status = "78e96c6562cafa71c115503b9411fdfdc595a45031e2ab76ff75162fe1b0590d";
        assert_eq!(status_of(&history), json!(status));
        assert_eq!(status_of(&[]), Value::Null);
    }

    #[test]
    fn the_oracle_names_scripts_as_the_specification_does() {
        let script =
            ScriptBuf::from_hex("76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac").unwrap();
        let name = "8b01df4e368ea28f8dc0423bcf7a4923e3a12d307c875e47a0cfbf90b5c39161";
        assert_eq!(script_hash(&script), name);
    }

    #[test]
    fn the_oracle_orders_unconfirmed_by_height_and_then_as_displayed() {
        let mut page = Page::default();
        // The bytes as stored would order these two the other way round.
        let (low, high) = ("11".repeat(31) + "99", "22".repeat(31) + "00");
        page.unconfirmed = vec![
            (-1, "00".repeat(32), 1),
            (0, high.clone(), 2),
            (0, low.clone(), 3),
        ];
        let mut books = Books::default();
        books.pages.insert(ScriptBuf::new(), page);
        let facts = books.facts(Script::new());
        let order: Vec<&str> = facts
            .mempool
            .iter()
            .map(|entry| entry["tx_hash"].as_str().unwrap())
            .collect();
        assert_eq!(order, [low, high, "00".repeat(32)]);
    }
}
