//! What is true, by brute force: all of the node's blocks and its mempool are walked, output by
//! output, and nothing is remembered but what cannot change.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt::Write as _,
    sync::Arc,
};

use bitcoin::{
    Amount, Block, BlockHash, OutPoint, Script, ScriptBuf, Transaction, Txid,
    hashes::{Hash, sha256},
};
use serde_json::{Value, json};

use crate::node::Node;

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
pub fn sort_unconfirmed_coins(unspent: &mut [Value]) {
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
