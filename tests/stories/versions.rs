//! Every method in every protocol version: its answer where the version has it, −32601 where not.
//!
//! Which version has what is written here a second time, from the protocol's documents, so that the
//! server's own table is checked by another.

use bitcoin::{Address, Network, Transaction, consensus::encode};
use serde_json::{Value, json};

use crate::{
    ambra::Ambra,
    client::Client,
    compare::{CATCH_UP_PATIENCE, compare_all},
    locks::{Kind, Lock},
    node::{Node, NodeOptions},
    oracle::{Facts, Moment, Oracle, script_hash},
    patience::until,
    treasury::Treasury,
};

const VERSIONS: [&str; 10] = [
    "1.0", "1.1", "1.2", "1.3", "1.4", "1.4.1", "1.4.2", "1.4.3", "1.6", "1.7",
];
const METHOD_NOT_FOUND: i64 = -32601;

/// A place in [`VERSIONS`].
fn place(version: &str) -> usize {
    let place = VERSIONS.iter().position(|known| *known == version);
    place.expect("a known version")
}

/// A method, the versions that have it (first and last), and what it answers.
struct Row {
    method: &'static str,
    versions: (&'static str, &'static str),
    params: Value,
    expected: Expected,
}

enum Expected {
    Exactly(Value),
    /// Named, for the message.
    Such(&'static str, fn(&Value) -> bool),
    /// The node's word may be anything; no answer is asked for, only that the method is there.
    Known,
}

fn row(
    method: &'static str,
    versions: (&'static str, &'static str),
    params: Value,
    expected: Expected,
) -> Row {
    Row {
        method,
        versions,
        params,
        expected,
    }
}

/// One confirmed payment and an unconfirmed one to the same script.
struct Scene {
    moment: Moment,
    lock: Lock,
    facts: Facts,
    confirmed: Transaction,
    height: u32,
}

impl Scene {
    fn header(&self, height: usize) -> String {
        encode::serialize_hex(&self.moment.chain[height].1.header)
    }

    fn headers(&self, heights: std::ops::Range<usize>) -> Vec<String> {
        heights.map(|height| self.header(height)).collect()
    }

    /// As protocol 1.0 shows it.
    fn taken_apart(&self, height: usize) -> Value {
        let header = &self.moment.chain[height].1.header;
        json!({
            "block_height": height,
            "version": header.version.to_consensus(),
            "prev_block_hash": header.prev_blockhash,
            "merkle_root": header.merkle_root,
            "timestamp": header.time,
            "bits": header.bits.to_consensus(),
            "nonce": header.nonce,
        })
    }

    fn rows(&self) -> Vec<Row> {
        [
            self.script_rows(),
            self.header_rows(),
            self.transaction_rows(),
            server_rows(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn script_rows(&self) -> Vec<Row> {
        use Expected::Exactly;
        let script = self.lock.script();
        let address = Address::from_script(&script, Network::Regtest).expect("an address");
        let address = json!([address.to_string()]);
        let name = json!([script_hash(&script)]);
        let hex = json!([script.to_hex_string()]);
        let facts = &self.facts;
        let (old, hashes, new) = (("1.0", "1.2"), ("1.1", "1.6"), ("1.7", "1.7"));
        let mut rows = Vec::new();
        for (by_address, by_hash, by_script, answer, answer_now) in [
            (
                "blockchain.address.get_balance",
                "blockchain.scripthash.get_balance",
                "blockchain.scriptpubkey.get_balance",
                facts.balance.clone(),
                facts.balance.clone(),
            ),
            (
                "blockchain.address.get_history",
                "blockchain.scripthash.get_history",
                "blockchain.scriptpubkey.get_history",
                json!(facts.history),
                json!({"history": facts.history}),
            ),
            (
                "blockchain.address.get_mempool",
                "blockchain.scripthash.get_mempool",
                "blockchain.scriptpubkey.get_mempool",
                json!(facts.mempool),
                json!({"history": facts.mempool}),
            ),
            (
                "blockchain.address.listunspent",
                "blockchain.scripthash.listunspent",
                "blockchain.scriptpubkey.listunspent",
                json!(facts.unspent),
                json!({"utxos": facts.unspent}),
            ),
            (
                "blockchain.address.subscribe",
                "blockchain.scripthash.subscribe",
                "blockchain.scriptpubkey.subscribe",
                facts.status.clone(),
                facts.status.clone(),
            ),
        ] {
            rows.push(row(
                by_address,
                old,
                address.clone(),
                Exactly(answer.clone()),
            ));
            rows.push(row(by_hash, hashes, name.clone(), Exactly(answer)));
            rows.push(row(by_script, new, hex.clone(), Exactly(answer_now)));
        }
        rows.push(row(
            "blockchain.scripthash.unsubscribe",
            ("1.4.2", "1.6"),
            name,
            Exactly(json!(true)),
        ));
        rows.push(row(
            "blockchain.scriptpubkey.unsubscribe",
            new,
            hex,
            Exactly(json!(true)),
        ));
        rows
    }

    fn header_rows(&self) -> Vec<Row> {
        use Expected::Exactly;
        let subscribe = "blockchain.headers.subscribe";
        let (tip, _) = self.moment.tip();
        let apart = self.taken_apart(tip as usize);
        let whole = json!({"height": tip, "hex": self.header(tip as usize)});
        let headers = "blockchain.block.headers";
        let joined = self.headers(3..8).concat();
        vec![
            row(subscribe, ("1.0", "1.2"), json!([]), Exactly(apart.clone())),
            row(subscribe, ("1.3", "1.7"), json!([]), Exactly(whole.clone())),
            row(subscribe, ("1.2", "1.3"), json!([true]), Exactly(whole)),
            row(subscribe, ("1.2", "1.3"), json!([false]), Exactly(apart)),
            row(
                "blockchain.numblocks.subscribe",
                ("1.0", "1.0"),
                json!([]),
                Exactly(json!(tip)),
            ),
            row(
                "blockchain.block.get_header",
                ("1.0", "1.3"),
                json!([7]),
                Exactly(self.taken_apart(7)),
            ),
            row(
                "blockchain.block.get_chunk",
                ("1.0", "1.3"),
                json!([0]),
                Exactly(json!(self.headers(0..tip as usize + 1).concat())),
            ),
            row(
                "blockchain.block.header",
                ("1.3", "1.7"),
                json!([7]),
                Exactly(json!(self.header(7))),
            ),
            row(
                headers,
                ("1.2", "1.4.3"),
                json!([3, 5]),
                Exactly(json!({"count": 5, "hex": joined, "max": 2016})),
            ),
            row(
                headers,
                ("1.6", "1.7"),
                json!([3, 5]),
                Exactly(json!({"count": 5, "headers": self.headers(3..8), "max": 2016})),
            ),
        ]
    }

    fn transaction_rows(&self) -> Vec<Row> {
        use Expected::{Exactly, Known, Such};
        let always = ("1.0", "1.7");
        let txid = self.confirmed.compute_txid();
        let hex = encode::serialize_hex(&self.confirmed);
        let script = self.lock.script();
        let address = Address::from_script(&script, Network::Regtest).expect("an address");
        let block = &self.moment.chain[self.height as usize].1;
        let coinbase = block.txdata[0].compute_txid();
        let is_ours = |output: &bitcoin::TxOut| output.script_pubkey == script;
        let vout = self.confirmed.output.iter().position(is_ours);
        let outpoint = json!([txid, vout, script.to_hex_string()]);
        vec![
            row(
                "blockchain.transaction.get",
                always,
                json!([txid]),
                Exactly(json!(hex)),
            ),
            row(
                "blockchain.transaction.get",
                ("1.2", "1.7"),
                json!([txid, true]),
                Such("verbose", |answer| answer["confirmations"] == 1),
            ),
            row(
                "blockchain.transaction.get_merkle",
                always,
                json!([txid, self.height]),
                Exactly(json!({"block_height": self.height, "pos": 1, "merkle": [coinbase]})),
            ),
            row(
                "blockchain.transaction.id_from_pos",
                ("1.4", "1.7"),
                json!([self.height, 1]),
                Exactly(json!(txid)),
            ),
            row(
                "blockchain.transaction.id_from_pos",
                ("1.4", "1.7"),
                json!([self.height, 1, true]),
                Exactly(json!({"tx_hash": txid, "merkle": [coinbase]})),
            ),
            row(
                "blockchain.utxo.get_address",
                ("1.0", "1.0"),
                json!([txid, vout]),
                Exactly(json!(address.to_string())),
            ),
            row(
                "blockchain.transaction.broadcast",
                always,
                json!([hex]),
                Known,
            ),
            row(
                "blockchain.transaction.broadcast_package",
                ("1.6", "1.7"),
                json!([[hex]]),
                Known,
            ),
            row(
                "blockchain.transaction.testmempoolaccept",
                ("1.7", "1.7"),
                json!([[hex]]),
                Such("a verdict", |answer| answer[0]["allowed"] == false),
            ),
            row(
                "blockchain.outpoint.get_status",
                ("1.7", "1.7"),
                outpoint.clone(),
                Exactly(json!({"funder_height": self.height})),
            ),
            row(
                "blockchain.outpoint.subscribe",
                ("1.7", "1.7"),
                outpoint.clone(),
                Exactly(json!({"funder_height": self.height})),
            ),
            row(
                "blockchain.outpoint.unsubscribe",
                ("1.7", "1.7"),
                json!([outpoint[0], outpoint[1]]),
                Exactly(json!(true)),
            ),
        ]
    }
}

fn server_rows() -> Vec<Row> {
    use Expected::{Exactly, Known, Such};
    let always = ("1.0", "1.7");
    vec![
        row(
            "blockchain.estimatefee",
            always,
            json!([6]),
            Such("a fee or −1", |answer| answer.as_f64().is_some()),
        ),
        row(
            "blockchain.relayfee",
            ("1.0", "1.4.3"),
            json!([]),
            Such("a fee", |answer| answer.as_f64() > Some(0.0)),
        ),
        row(
            "mempool.get_info",
            ("1.6", "1.7"),
            json!([]),
            Such("three fees", |answer| {
                ["mempoolminfee", "minrelaytxfee", "incrementalrelayfee"]
                    .iter()
                    .all(|name| answer[name].as_f64() > Some(0.0))
            }),
        ),
        row(
            "mempool.get_fee_histogram",
            ("1.2", "1.7"),
            json!([]),
            Such("a list", Value::is_array),
        ),
        row(
            "mempool.recent",
            ("1.7", "1.7"),
            json!([]),
            Such("one transaction", |answer| {
                answer.as_array().is_some_and(|list| list.len() == 1)
                    && answer[0]["fee"] == crate::treasury::FEE
            }),
        ),
        row(
            "server.banner",
            always,
            json!([]),
            Such("text", Value::is_string),
        ),
        row(
            "server.donation_address",
            always,
            json!([]),
            Such("text", Value::is_string),
        ),
        row(
            "server.peers.subscribe",
            always,
            json!([]),
            Exactly(json!([])),
        ),
        row(
            "server.features",
            ("1.1", "1.7"),
            json!([]),
            Such("features", |answer| {
                answer["genesis_hash"].is_string() && answer["protocol_min"] == "1.0"
            }),
        ),
        row("server.add_peer", ("1.1", "1.7"), json!([{}]), Known),
        row(
            "server.ping",
            ("1.2", "1.6"),
            json!([]),
            Exactly(Value::Null),
        ),
        row(
            "server.ping",
            ("1.7", "1.7"),
            json!([4, "ab"]),
            Such("padding", |answer| answer["data"].is_string()),
        ),
    ]
}

/// Whether the documents leave it open that a version has the method.
fn may_be_there(method: &str, version: &str) -> bool {
    // They harm nobody at 1.0, and the reference server had them.
    let early = method.starts_with("blockchain.scripthash.") && !method.ends_with("unsubscribe");
    let early = early || ["server.features", "server.add_peer"].contains(&method);
    early && version == "1.0"
}

/// A connection that agreed on this version.
fn at(ambra: &Ambra, version: &str) -> Client {
    let mut client = Client::connect_silently(ambra.address());
    let answer = client.ask("server.version", json!(["versions", version]));
    match version {
        "1.0" => assert!(answer.is_string(), "1.0 answers with a string: {answer}"),
        _ => assert_eq!(answer[1], version, "the agreed version"),
    }
    client
}

#[test]
fn every_method_answers_in_its_versions_and_is_unknown_in_the_others() {
    // 1. A payment in the last block, and another unconfirmed.
    let node = Node::start(NodeOptions::default());
    let mut treasury = Treasury::mine(&node);
    let ambra = Ambra::start_with(&node, &["--protocol-max", "1.7"]);
    let lock = Lock::new(Kind::P2wpkh, 1);
    let confirmed = treasury.payment(&lock, 700_000);
    node.mine_exactly(&Treasury::elsewhere(), &[&confirmed]);
    node.send(&treasury.payment(&lock, 800_000)).unwrap();
    let mut oracle = Oracle::new();
    compare_all(&mut oracle, &node, &mut ambra.client());
    let moment = oracle.read(&node);
    let script = lock.script();
    let scene = Scene {
        facts: moment.facts([&script])[script.as_script()].clone(),
        height: node.height(),
        lock,
        confirmed,
        moment,
    };

    // 2. Each method in each version.
    let rows = scene.rows();
    let mut wrong = Vec::new();
    for version in VERSIONS {
        let mut client = at(&ambra, version);
        for row in &rows {
            let has = |row: &Row| {
                (place(row.versions.0)..=place(row.versions.1)).contains(&place(version))
            };
            let answer = client.call(row.method, row.params.clone());
            let is_unknown =
                answer.as_ref().err().map(|error| &error["code"]) == Some(&json!(METHOD_NOT_FOUND));
            if has(row) {
                let is_right = match (&row.expected, &answer) {
                    (Expected::Exactly(value), Ok(answer)) => answer == value,
                    (Expected::Such(_, is_such), Ok(answer)) => is_such(answer),
                    (Expected::Known, _) => !is_unknown,
                    (_, Err(_)) => false,
                };
                if !is_right {
                    let expected = match &row.expected {
                        Expected::Exactly(value) => value.to_string(),
                        Expected::Such(name, _) => (*name).to_owned(),
                        Expected::Known => "any".to_owned(),
                    };
                    let call = format!("{version} {} {}", row.method, row.params);
                    wrong.push(format!("{call}: expected {expected}, got {answer:?}"));
                }
            } else if !rows
                .iter()
                .any(|other| other.method == row.method && has(other))
                && !is_unknown
                && !may_be_there(row.method, version)
            {
                wrong.push(format!("{version} {}: not unknown: {answer:?}", row.method));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_address_is_pushed_as_it_was_given() {
    let node = Node::start(NodeOptions::default());
    let mut treasury = Treasury::mine(&node);
    let ambra = Ambra::start(&node);
    let mut client = at(&ambra, "1.1");
    for (number, kind) in [Kind::P2pkh, Kind::NestedP2wpkh, Kind::P2wpkh, Kind::P2tr]
        .into_iter()
        .enumerate()
    {
        // 1. Subscribed by address; bech32 may be written in capitals too.
        let lock = Lock::new(kind, number as u32);
        let address = Address::from_script(&lock.script(), Network::Regtest).expect("an address");
        let mut address = address.to_string();
        if matches!(kind, Kind::P2wpkh) {
            address = address.to_uppercase();
        }
        let method = "blockchain.address.subscribe";
        assert_eq!(client.ask(method, json!([address])), Value::Null);

        // 2. Pushed under the same name.
        let payment = treasury.payment(&lock, 500_000);
        node.send(&payment).unwrap();
        let params = client.wait_for_push(method, CATCH_UP_PATIENCE);
        assert_eq!(params[0], address);
        assert!(params[1].is_string());
    }

    // 3. An address of another network is refused in words.
    let foreign = json!(["1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"]);
    let refused = client.call("blockchain.address.get_balance", foreign);
    let error = refused.expect_err("no regtest address");
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|words| !words.is_empty())
    );
}

#[test]
fn a_refused_broadcast_is_told_as_each_version_tells_it() {
    let node = Node::start(NodeOptions::default());
    let mut treasury = Treasury::mine(&node);
    let ambra = Ambra::start(&node);
    let lock = Lock::new(Kind::P2wpkh, 1);
    let coin = treasury.coin();
    let good = treasury.payment_from(&coin, &lock, 500_000, 1_000);
    let too_late = treasury.payment_from(&coin, &lock, 600_000, 500);
    node.send(&good).unwrap();
    let hex = json!([encode::serialize_hex(&too_late)]);
    let method = "blockchain.transaction.broadcast";

    // 1. At 1.0 the node's words are the result.
    let told = at(&ambra, "1.0").ask(method, hex.clone());
    assert!(
        told.as_str().is_some_and(|words| words.contains("fee")),
        "{told}"
    );

    // 2. From 1.1 on they are an error.
    for version in ["1.1", "1.4", "1.6"] {
        let error = at(&ambra, version).call(method, hex.clone());
        let error = error.expect_err("refused");
        assert_eq!(error["code"], 1, "{version}: {error}");
        let words = error["message"].as_str().expect("words");
        assert!(words.contains("fee"), "{version}: {words}");
    }

    // 3. What is accepted is answered with its txid.
    let next = treasury.payment(&lock, 500_000);
    let hex = json!([encode::serialize_hex(&next)]);
    let txid = json!(next.compute_txid());
    assert_eq!(at(&ambra, "1.6").ask(method, hex), txid);
    let seen = until(CATCH_UP_PATIENCE, || node.unconfirmed(&next.compute_txid()));
    assert_eq!(seen, Some(next));
}
