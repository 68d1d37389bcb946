//! What a wallet asks: transactions, proofs, headers; and its whole first sync.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bitcoin::{Transaction, block::Header, consensus::encode, hashes::Hash, hex::FromHex};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    client::{Client, Failure, HistoryEntry, Reply, check_status},
    load::{self, Request},
    random::Random,
    record::{Script, Tx, hex},
};

pub fn get_transaction(tx: &Tx) -> Request {
    Request::new("blockchain.transaction.get", json!([tx.txid]).to_string())
}

pub fn check_transaction(tx: &Tx, result: &str) -> Result<(), Failure> {
    let transaction: &str = serde_json::from_str(result)?;
    let transaction: Transaction = encode::deserialize_hex(transaction)?;
    let txid = transaction.compute_txid().to_string();
    if txid == tx.txid {
        return Ok(());
    }
    Err(format!("asked for {}, got {txid}", tx.txid).into())
}

pub fn get_merkle(tx: &Tx) -> Request {
    let params = json!([tx.txid, tx.height]).to_string();
    Request::new("blockchain.transaction.get_merkle", params)
}

#[derive(Deserialize)]
struct Proof {
    merkle: Vec<String>,
    pos: u32,
    block_height: u32,
}

/// Recomputes the root.
pub fn check_merkle(tx: &Tx, roots: &BTreeMap<u32, [u8; 32]>, result: &str) -> Result<(), Failure> {
    let proof: Proof = serde_json::from_str(result)?;
    let mut hash = reversed(&tx.txid)?;
    let mut position = proof.pos;
    for other in &proof.merkle {
        let other = reversed(other)?;
        let pair = if position & 1 == 0 {
            [hash, other].concat()
        } else {
            [other, hash].concat()
        };
        hash = Sha256::digest(Sha256::digest(pair)).into();
        position >>= 1;
    }
    let is_right = roots.get(&tx.height) == Some(&hash)
        && (proof.pos, proof.block_height) == (tx.position, tx.height);
    if is_right {
        return Ok(());
    }
    Err(format!("the proof of {} does not hold", tx.txid).into())
}

fn reversed(text: &str) -> Result<[u8; 32], Failure> {
    let mut bytes = <[u8; 32]>::from_hex(text)?;
    bytes.reverse();
    Ok(bytes)
}

/// The merkle roots of all blocks.
pub fn merkle_roots(client: &mut Client, tip: u32) -> Result<BTreeMap<u32, [u8; 32]>, Failure> {
    const HEADERS_AT_ONCE: u32 = 2016;
    let mut roots = BTreeMap::new();
    let mut height = 0;
    while height <= tip {
        let headers = client.call(
            "blockchain.block.headers",
            &json!([height, HEADERS_AT_ONCE]),
        )?;
        let bytes = Vec::from_hex(headers["hex"].as_str().ok_or("no headers")?)?;
        if bytes.is_empty() {
            return Err("a header is missing".into());
        }
        for header in bytes.chunks(80) {
            let header: Header = encode::deserialize(header)?;
            roots.insert(height, header.merkle_root.to_byte_array());
            height += 1;
        }
    }
    Ok(roots)
}

/// 1,000 subscriptions, of which these scripts are used; then their histories, transactions, proofs
/// and headers, each kind of request without waiting for single answers.
pub fn first_sync(address: &str, used: &[&Script]) -> Result<Duration, Failure> {
    const SUBSCRIPTIONS: usize = 1_000;
    let mut random = Random::new(4, 0);
    let mut scripthashes: Vec<String> = used
        .iter()
        .map(|script| script.scripthash.clone())
        .collect();
    while scripthashes.len() < SUBSCRIPTIONS {
        let mut bytes = Vec::new();
        random.bytes(32, &mut bytes);
        scripthashes.push(hex(&bytes));
    }
    let about = |method: &'static str, scripthashes: &[String]| -> Vec<Request> {
        scripthashes
            .iter()
            .map(|scripthash| Request::new(method, json!([scripthash]).to_string()))
            .collect()
    };

    let started = Instant::now();
    let mut client = Client::negotiated(address)?;
    client.call("blockchain.headers.subscribe", &json!([]))?;
    let mut statuses = Vec::new();
    let requests = about("blockchain.scripthash.subscribe", &scripthashes);
    for line in all(&mut client, &requests)? {
        statuses.push(line);
    }
    let requests = about(
        "blockchain.scripthash.get_history",
        &scripthashes[..used.len()],
    );
    let mut entries = BTreeSet::new();
    for line in all(&mut client, &requests)? {
        let reply: Reply = serde_json::from_slice(&line)?;
        let history: Vec<HistoryEntry> = serde_json::from_str(reply.result()?)?;
        for entry in history {
            entries.insert((u32::try_from(entry.height)?, entry.tx_hash));
        }
    }
    let mut requests = Vec::new();
    for (height, txid) in &entries {
        let tx = Tx {
            txid: txid.clone(),
            height: *height,
            position: 0,
        };
        requests.push(get_transaction(&tx));
        requests.push(get_merkle(&tx));
    }
    let heights: BTreeSet<u32> = entries.iter().map(|(height, _)| *height).collect();
    for height in heights {
        let params = json!([height]).to_string();
        requests.push(Request::new("blockchain.block.header", params));
    }
    let answers = all(&mut client, &requests)?;
    let elapsed = started.elapsed();

    if answers.len() != requests.len() {
        return Err("an answer is missing".into());
    }
    for line in answers {
        serde_json::from_slice::<Reply>(&line)?.result()?;
    }
    for line in statuses {
        let reply: Reply = serde_json::from_slice(&line)?;
        let number = reply.id.ok_or("an answer without id")? as usize;
        match used.get(number) {
            Some(script) => check_status(script, reply.result()?)?,
            None if reply.result()? == "null" => {}
            None => return Err("an unused script has a status".into()),
        }
    }
    Ok(elapsed)
}

fn all(client: &mut Client, requests: &[Request]) -> Result<Vec<Vec<u8>>, Failure> {
    let which: Vec<usize> = (0..requests.len()).collect();
    load::pipeline(client, requests, &which, 100)
}
