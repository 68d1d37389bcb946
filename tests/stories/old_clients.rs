//! Sessions of clients that no package registry has (old ones, and wallets with windows), byte for byte: `tests/wallets/*.transcript`.
//!
//! A transcript is read line by line:
//!
//! - `> …` is sent, `< …` is the reply to it, to the last byte;
//! - `<? …` is a part of the reply: what is given of objects must be there, and be so;
//! - `<< …` is a push that came or comes; those that come together are told in any order;
//! - `! pay NAME SATS` pays the client's address, unconfirmed; `! replace NAME NEW` puts a payment with a higher fee in
//!   its place; `! mine` takes all into a block; `! refused NAME` makes a transaction that the node does not take;
//!   `! closed` is the connection's end;
//! - `# …` is for the reader.
//!
//! `{word}` stands for what the node, not the server, says: see `Transcript::look`.

use std::{collections::BTreeMap, fs, path::Path};

use bitcoin::{Address, Network, Transaction, consensus::encode};
use serde_json::{Value, json};

use crate::{
    ambra::Ambra,
    client::Client,
    locks::{Coin, Kind, Lock},
    node::{Node, NodeOptions},
    oracle::{script_hash, status_of},
    treasury::{FEE, Treasury},
};

struct Transcript<'a> {
    node: &'a Node,
    treasury: Treasury,
    client: Client,
    lock: Lock,
    words: BTreeMap<String, String>,
    /// What the client's address has: its payments, and the height of each.
    payments: Vec<(Transaction, Coin, u32)>,
    pushes: Vec<String>,
}

impl Transcript<'_> {
    fn play(&mut self, text: &str) {
        self.look();
        for (number, line) in (1..).zip(text.lines()) {
            let line = self.fill(line);
            let Some((mark, rest)) = line.split_once(' ') else {
                assert!(line.is_empty(), "line {number}: {line}");
                continue;
            };
            match mark {
                "#" => {}
                ">" => self.client.send(rest),
                "<" => assert_eq!(self.reply(number), rest, "line {number}"),
                "<?" => self.expect_part(number, rest),
                "<<" => self.expect_push(number, rest),
                "!" => self.act(number, rest),
                _ => panic!("line {number}: {line}"),
            }
        }
        assert_eq!(self.pushes, [""; 0], "pushes that the transcript has not");
    }

    fn read(&mut self, number: u32) -> String {
        let line = self.client.read_line();
        line.unwrap_or_else(|| panic!("line {number}: no line; pushed: {:#?}", self.pushes))
    }

    fn reply(&mut self, number: u32) -> String {
        loop {
            let line = self.read(number);
            if !line.contains("\"method\":") {
                return line;
            }
            self.pushes.push(line);
        }
    }

    fn expect_part(&mut self, number: u32, part: &str) {
        let reply = self.reply(number);
        let [told, part] = [&reply, part].map(|text| serde_json::from_str(text).expect("JSON"));
        assert!(has(&told, &part), "line {number}: {told}, without {part}");
    }

    fn expect_push(&mut self, number: u32, expected: &str) {
        loop {
            if let Some(place) = self.pushes.iter().position(|push| push == expected) {
                self.pushes.remove(place);
                return;
            }
            let line = self.read(number);
            self.pushes.push(line);
        }
    }

    fn act(&mut self, number: u32, words: &str) {
        let words: Vec<&str> = words.split(' ').collect();
        match words[..] {
            ["pay", name, sats] => {
                let coin = self.treasury.coin();
                self.pay(name, coin, sats.parse().expect("satoshis"), FEE);
            }
            ["replace", name, new] => {
                let txid = &self.words[name];
                let place = self
                    .payments
                    .iter()
                    .position(|(payment, ..)| payment.compute_txid().to_string() == *txid);
                let (payment, coin, _) = self.payments.remove(place.expect("a payment"));
                let sats = payment.output[0].value.to_sat();
                self.pay(new, coin, sats, 10 * FEE);
            }
            ["refused", name] => {
                let coin = self.treasury.coin();
                let free = self.treasury.payment_from(&coin, &self.lock, 1_000, 0);
                let refused = self.node.send(&free).expect_err("it pays no fee");
                self.word(&format!("{name}_hex"), encode::serialize_hex(&free));
                self.word(&format!("{name}_reason"), refused.message);
            }
            ["mine"] => {
                self.node.mine(1, &Treasury::elsewhere());
                let height = self.node.height();
                for payment in self.payments.iter_mut().filter(|payment| payment.2 == 0) {
                    payment.2 = height;
                }
            }
            ["closed"] => assert_eq!(self.client.read_line(), None, "line {number}"),
            _ => panic!("line {number}: {words:?}"),
        }
        self.look();
    }

    fn pay(&mut self, name: &str, coin: Coin, sats: u64, fee: u64) {
        let payment = self.treasury.payment_from(&coin, &self.lock, sats, fee);
        self.node.send(&payment).expect("the node takes it");
        self.word(name, payment.compute_txid().to_string());
        self.word(&format!("{name}_hex"), encode::serialize_hex(&payment));
        self.payments.push((payment, coin, 0));
    }

    fn word(&mut self, name: &str, value: impl Into<Value>) {
        let text = match value.into() {
            Value::String(text) => text,
            other => other.to_string(),
        };
        self.words.insert(name.to_owned(), text);
    }

    /// What the node says now.
    fn look(&mut self) {
        let node = self.node;
        let best = node.best_block();
        let header = node.rpc("getblockheader", json!([best]));
        for name in [
            "height",
            "version",
            "time",
            "nonce",
            "merkleroot",
            "previousblockhash",
        ] {
            self.word(name, header[name].clone());
        }
        let bits = header["bits"].as_str().expect("hexadecimal");
        self.word("bits", u32::from_str_radix(bits, 16).expect("bits"));
        self.word("header", node.rpc("getblockheader", json!([best, false])));
        self.word("block", best.to_string());
        self.word(
            "stranger",
            script_hash(&Lock::new(Kind::P2wpkh, 2).script()),
        );
        self.word("nobodys", "00".repeat(32));
        self.word("genesis", node.block_at(0).to_string());
        self.word(
            "coinbase",
            node.block(&best).txdata[0].compute_txid().to_string(),
        );
        let fee = node.rpc("getmempoolinfo", json!([]))["minrelaytxfee"].as_f64();
        self.word("relayfee", fee.expect("a fee").to_string());
        self.word("server", concat!("Ambra/", env!("CARGO_PKG_VERSION")));
        let script = self.lock.script();
        let address = Address::from_script(&script, Network::Regtest).expect("an address");
        self.word("address", address.to_string());
        self.word("script_hash", script_hash(&script));
        let history: Vec<Value> = self
            .payments
            .iter()
            .map(
                |(payment, _, height)| json!({"tx_hash": payment.compute_txid(), "height": height}),
            )
            .collect();
        self.word("status", status_of(&history));
    }

    fn fill(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (name, value) in &self.words {
            line = line.replace(&format!("{{{name}}}"), value);
        }
        // The first chunk is all there is; long, and seldom asked for.
        if line.contains("{chunk}") {
            let header = |height| {
                let header = json!([self.node.block_at(height), false]);
                let header = self.node.rpc("getblockheader", header);
                header.as_str().expect("hexadecimal").to_owned()
            };
            let chunk: String = (0..=self.node.height()).map(header).collect();
            line = line.replace("{chunk}", &chunk);
        }
        line
    }
}

/// Whether all members of a part are there; lists have the same length.
fn has(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(name, part)| whole.get(name).is_some_and(|whole| has(whole, part))),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len()
                && whole.iter().zip(part).all(|(whole, part)| has(whole, part))
        }
        _ => whole == part,
    }
}

fn play(name: &str) {
    play_with(name, &[]);
}

/// With these options of Ambra's besides.
fn play_with(name: &str, options: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/wallets")
        .join(name);
    let text = fs::read_to_string(path).expect("a transcript");
    let node = Node::start(NodeOptions::default());
    let treasury = Treasury::mine(&node);
    let ambra = Ambra::start_with(&node, options);
    let mut transcript = Transcript {
        node: &node,
        treasury,
        client: Client::connect_silently(ambra.address()),
        lock: Lock::new(Kind::P2pkh, 1),
        words: BTreeMap::new(),
        payments: Vec::new(),
        pushes: Vec::new(),
    };
    transcript.play(&text);
}

#[test]
fn a_client_of_1_0_hears_what_its_specification_says() {
    play("1.0.transcript");
}

#[test]
fn a_client_that_never_says_its_version_is_served() {
    play("silent.transcript");
}

#[test]
fn a_client_of_1_1_hears_what_its_specification_says() {
    play("1.1.transcript");
}

#[test]
fn a_client_of_1_2_hears_what_its_specification_says() {
    play("1.2.transcript");
}

#[test]
fn a_client_of_1_3_hears_what_its_specification_says() {
    play("1.3.transcript");
}

#[test]
fn sparrow_is_answered() {
    play("sparrow.transcript");
}

#[test]
fn sparrow_is_answered_in_batches() {
    // A name that it knows, in the words that it looks for.
    let name = ["--server-name", "Fulcrum 1.12.0"];
    play_with("sparrow-batches.transcript", &name);
}

#[test]
fn bluewallet_is_answered() {
    play("bluewallet.transcript");
}

#[test]
fn nunchuk_is_answered() {
    play("nunchuk.transcript");
}
