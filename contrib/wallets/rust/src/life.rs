//! The life of a wallet that is made of a library.

use std::collections::BTreeMap;

use electrum_client::bitcoin::{
    BlockHash, ScriptBuf, Transaction, Txid,
    consensus::encode,
    hashes::{Hash, sha256},
};
use serde_json::json;

use crate::stage::{Result, Stage, must, same, wait};

const COIN: u64 = 100_000_000;

/// What a library does for a wallet.
pub trait Carrier {
    /// Connects (again), and subscribes to headers; the server's name and the protocol.
    fn open(&mut self) -> Result<(String, String)>;
    /// The newest tip that was told.
    fn tip(&mut self) -> Result<(u64, BlockHash)>;
    fn subscribe(&mut self, script: &ScriptBuf) -> Result<Option<String>>;
    /// The newest status that was pushed, if one was since it was asked for.
    fn pushed(&mut self, script: &ScriptBuf) -> Result<Option<String>>;
    fn history(&mut self, script: &ScriptBuf) -> Result<Vec<(Txid, i64)>>;
    fn balance(&mut self, script: &ScriptBuf) -> Result<(u64, i64)>;
    fn coins(&mut self, script: &ScriptBuf) -> Result<Vec<(Txid, u64)>>;
    fn transaction(&mut self, txid: Txid) -> Result<Transaction>;
    /// Whether the proof of this place in the chain holds.
    fn is_proved(&mut self, txid: Txid, height: u64) -> Result<bool>;
    fn broadcast(&mut self, transaction: &Transaction) -> Result<Txid>;
    /// Whether the library knows that the connection has ended.
    fn is_open(&mut self) -> bool;
    /// What this library has beside all that; steps of their own.
    fn more(&mut self, stage: &mut Stage, scripts: &[ScriptBuf]) -> Result<()>;
}

/// What the wallet remembers: the last status told of each script.
struct Books<'a> {
    carrier: &'a mut dyn Carrier,
    statuses: BTreeMap<ScriptBuf, Option<String>>,
}

impl Books<'_> {
    fn subscribe(&mut self, script: &ScriptBuf) -> Result<Option<String>> {
        let status = self.carrier.subscribe(script)?;
        self.statuses.insert(script.clone(), status.clone());
        Ok(status)
    }

    /// Until a script's history is this, and its last status says so too.
    fn wait_for_history(&mut self, script: &ScriptBuf, expected: &[(Txid, i64)]) -> Result<()> {
        let mut last = Vec::new();
        let reached = wait("history", || {
            if let Some(status) = self.carrier.pushed(script)? {
                self.statuses.insert(script.clone(), Some(status));
            }
            last = self.carrier.history(script)?;
            let is_told = self.statuses[script] == status_of(&last);
            Ok((last == expected && is_told).then_some(()))
        });
        reached.map_err(|error| format!("{error}: {last:?}, not {expected:?}").into())
    }

    fn wait_for_tip(&mut self, stage: &mut Stage) -> Result<()> {
        wait("the node's tip", || {
            let tip = stage.act("tip", json!({}))?;
            let (height, hash) = self.carrier.tip()?;
            Ok((tip["height"] == height && tip["hash"] == hash.to_string()).then_some(()))
        })
    }
}

/// The protocol's status of a history.
fn status_of(history: &[(Txid, i64)]) -> Option<String> {
    let text: String = history
        .iter()
        .map(|(txid, height)| format!("{txid}:{height}:"))
        .collect();
    (!text.is_empty()).then(|| sha256::Hash::hash(text.as_bytes()).to_string())
}

fn payment(stage: &mut Stage, name: &str, members: serde_json::Value) -> Result<Transaction> {
    let hex = stage.text(name, members, "hex")?;
    Ok(encode::deserialize_hex(&hex)?)
}

fn is_in_mempool(stage: &mut Stage, txid: &Txid) -> Result<bool> {
    let pool = stage.act("rpc", json!({"method": "getrawmempool"}))?;
    Ok(pool
        .as_array()
        .is_some_and(|pool| pool.contains(&json!(txid))))
}

/// An address of the purse and its script.
fn lock(stage: &mut Stage, kind: &str) -> Result<(String, ScriptBuf)> {
    let lock = stage.act("purse_address", json!({"kind": kind}))?;
    let script = lock["script"].as_str().ok_or("no script")?;
    let address = lock["address"].as_str().ok_or("no address")?;
    Ok((address.to_owned(), ScriptBuf::from_hex(script)?))
}

fn pay(stage: &mut Stage, address: &str, sats: u64) -> Result<Txid> {
    let payment = json!({"address": address, "sats": sats});
    Ok(stage.text("pay", payment, "txid")?.parse()?)
}

fn mine(stage: &mut Stage) -> Result<i64> {
    let tip = stage.act("mine", json!({}))?;
    Ok(tip["height"].as_i64().ok_or("no height")?)
}

pub fn live(stage: &mut Stage, carrier: &mut dyn Carrier) -> Result<()> {
    // 0. A wallet with a past: one payment to each of three kinds of script.
    let mut past = Vec::new();
    for kind in ["bech32", "bech32m", "p2sh-segwit"] {
        let (address, script) = lock(stage, kind)?;
        past.push((script, pay(stage, &address, COIN)?));
    }
    let start = mine(stage)?;
    let scripts: Vec<ScriptBuf> = past.iter().map(|(script, _)| script.clone()).collect();
    let mut books = Books {
        carrier,
        statuses: BTreeMap::new(),
    };

    stage.step("connect", |stage| {
        let (name, protocol) = books.carrier.open()?;
        stage.act("about", json!({"protocol": protocol}))?;
        books.wait_for_tip(stage)?;
        Ok(format!("{name}, protocol {protocol}"))
    })?;

    stage.step("restore", |_| {
        for script in &scripts {
            must(
                books.subscribe(script)?.is_some(),
                "a used script has a status",
            )?;
        }
        Ok(String::new())
    })?;

    stage.step("sync", |_| {
        for (script, txid) in &past {
            books.wait_for_history(script, &[(*txid, start)])?;
            same(books.carrier.balance(script)?, (COIN, 0), "balance")?;
            same(books.carrier.coins(script)?, vec![(*txid, COIN)], "coins")?;
            same(
                books.carrier.transaction(*txid)?.compute_txid(),
                *txid,
                "txid",
            )?;
            must(
                books.carrier.is_proved(*txid, start as u64)?,
                "the proof holds",
            )?;
        }
        Ok(String::new())
    })?;

    let (address, script) = lock(stage, "bech32")?;
    let mut paid = (Txid::all_zeros(), 0);
    stage.step("receive", |stage| {
        same(
            books.subscribe(&script)?,
            None,
            "status of an unused script",
        )?;
        paid.0 = pay(stage, &address, COIN / 2)?;
        books.wait_for_history(&script, &[paid])?;
        same(
            books.carrier.balance(&script)?,
            (0, COIN as i64 / 2),
            "balance",
        )?;
        Ok(String::new())
    })?;

    stage.step("receive a replaced one", |stage| {
        paid.0 = stage
            .text("bump", json!({"txid": paid.0}), "txid")?
            .parse()?;
        books.wait_for_history(&script, &[paid])?;
        Ok(String::new())
    })?;

    stage.step("confirm", |stage| {
        paid.1 = mine(stage)?;
        books.wait_for_tip(stage)?;
        books.wait_for_history(&script, &[paid])?;
        same(books.carrier.balance(&script)?, (COIN / 2, 0), "balance")?;
        Ok(String::new())
    })?;

    let mut sent = Txid::all_zeros();
    stage.step("send", |stage| {
        let to = stage.text("address", json!({}), "")?;
        let spend = json!({"script": script.to_hex_string(), "address": to, "sats": COIN / 10});
        let transaction = payment(stage, "purse_spend", spend)?;
        sent = books.carrier.broadcast(&transaction)?;
        same(sent, transaction.compute_txid(), "txid")?;
        must(is_in_mempool(stage, &sent)?, "the node has it")?;
        books.wait_for_history(&script, &[paid, (sent, 0)])?;
        Ok(String::new())
    })?;

    stage.step("replace", |stage| {
        let transaction = payment(stage, "purse_bump", json!({"txid": sent}))?;
        let first = sent;
        sent = books.carrier.broadcast(&transaction)?;
        must(is_in_mempool(stage, &sent)?, "the node has it")?;
        must(!is_in_mempool(stage, &first)?, "the first is gone")?;
        books.wait_for_history(&script, &[paid, (sent, 0)])?;
        let mut broken = transaction.clone();
        broken.input[0].sequence.0 ^= 1;
        let refused = books.carrier.broadcast(&broken);
        must(refused.is_err(), "a broken transaction is refused")?;
        Ok("a broken transaction is refused".to_owned())
    })?;

    let mut confirmed = (sent, 0);
    stage.step("reorg", |stage| {
        confirmed.1 = mine(stage)?;
        books.wait_for_history(&script, &[paid, confirmed])?;
        stage.act("reorg", json!({}))?;
        books.wait_for_tip(stage)?;
        books.wait_for_history(&script, &[paid, (sent, 0)])?;
        confirmed.1 = mine(stage)?;
        books.wait_for_tip(stage)?;
        books.wait_for_history(&script, &[paid, confirmed])?;
        Ok(String::new())
    })?;

    books.carrier.more(stage, &scripts)?;

    stage.step("restart", |stage| {
        stage.act("stop_ambra", json!({}))?;
        wait("it hears of the end", || {
            Ok((!books.carrier.is_open()).then_some(()))
        })?;
        let next = pay(stage, &address, COIN / 4)?;
        stage.act("start_ambra", json!({}))?;
        books.carrier.open()?;
        books.subscribe(&script)?;
        books.wait_for_history(&script, &[paid, confirmed, (next, 0)])?;
        let height = mine(stage)?;
        books.wait_for_tip(stage)?;
        books.wait_for_history(&script, &[paid, confirmed, (next, height)])?;
        Ok(String::new())
    })
}
