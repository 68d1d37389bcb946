//! How long it takes until a client hears of a transaction or a block that the node has taken.

use std::{
    collections::HashMap,
    sync::mpsc::{self, Receiver},
    time::{Duration, Instant},
};

use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, absolute,
    consensus::encode, hex::FromHex, transaction,
};
use bitcoincore_rpc::{Client as Rpc, RpcApi};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    client::{Client, Failure},
    load::{self, Request, percentile},
    random::Random,
    record::{Coin, hex, hex_reversed},
};

/// A push that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(40);
/// A server that needs longer to take all subscriptions is not asked for its pushes.
const SUBSCRIBING_MAX: Duration = Duration::from_secs(60);
/// What a transaction pays to the miner, in satoshis.
const FEE: u64 = 2_000;

/// A script without history, which a client waits for.
#[derive(Clone, Debug)]
pub struct Target {
    script: ScriptBuf,
    scripthash: String,
}

/// A notification of a script, and when it came.
struct Push {
    at: Instant,
    scripthash: String,
    status: Option<String>,
}

/// Connections that wait for scripts and for headers.
pub struct Watch {
    pushes: Receiver<Push>,
    headers: Receiver<(Instant, u64)>,
    targets: Vec<Target>,
}

impl Watch {
    /// Subscribes to the tip, to new scripts, and to so many others, on some connections.
    pub fn start(
        address: &str,
        target_count: usize,
        others: usize,
        connections: usize,
        random: &mut Random,
    ) -> Result<Watch, Failure> {
        let targets: Vec<Target> = (0..target_count)
            .map(|_| {
                let mut bytes = vec![0, 20];
                random.bytes(20, &mut bytes);
                Target {
                    scripthash: hex_reversed(&Sha256::digest(&bytes).into()),
                    script: ScriptBuf::from_bytes(bytes),
                }
            })
            .collect();
        let mut requests: Vec<Request> = targets
            .iter()
            .map(|target| subscribe(&target.scripthash))
            .collect();
        for _ in 0..others {
            let mut bytes = Vec::new();
            random.bytes(32, &mut bytes);
            requests.push(subscribe(&hex(&bytes)));
        }
        let started = Instant::now();
        let (push_to, pushes) = mpsc::channel();
        let (header_to, headers) = mpsc::channel();
        for connection in 0..connections {
            let mut client = Client::negotiated(address)?;
            let which: Vec<usize> = (connection..requests.len()).step_by(connections).collect();
            // A slow server may need longer than one measurement is given.
            for some in which.chunks(500) {
                if started.elapsed() > SUBSCRIBING_MAX {
                    let count = requests.len();
                    return Err(
                        format!("{count} subscriptions took over {SUBSCRIBING_MAX:?}").into(),
                    );
                }
                let answered = load::pipeline(&mut client, &requests, some, 50)?;
                if answered.len() != some.len() {
                    return Err("a subscription was not answered".into());
                }
            }
            if connection == 0 {
                client.call("blockchain.headers.subscribe", &json!([]))?;
            }
            client.stream().set_read_timeout(None)?;
            let (push_to, header_to) = (push_to.clone(), header_to.clone());
            // The threads end with their connections, at the latest with the server.
            std::thread::spawn(move || {
                while let Ok(line) = client.read_line() {
                    let at = Instant::now();
                    let Ok(message) = serde_json::from_slice::<Value>(line) else {
                        return;
                    };
                    let params = &message["params"];
                    let is_told = if message["method"] == "blockchain.headers.subscribe" {
                        let height = params[0]["height"].as_u64().unwrap_or(0);
                        header_to.send((at, height)).is_ok()
                    } else {
                        push_to
                            .send(Push {
                                at,
                                scripthash: params[0].as_str().unwrap_or_default().to_owned(),
                                status: params[1].as_str().map(str::to_owned),
                            })
                            .is_ok()
                    };
                    if !is_told {
                        return;
                    }
                }
            });
        }
        Ok(Watch {
            pushes,
            headers,
            targets,
        })
    }

    fn push_of(&self, target: &Target) -> Result<Push, Failure> {
        loop {
            let push = self.pushes.recv_timeout(PATIENCE)?;
            if push.scripthash == target.scripthash {
                return Ok(push);
            }
        }
    }
}

fn subscribe(scripthash: &str) -> Request {
    Request::new(
        "blockchain.scripthash.subscribe",
        json!([scripthash]).to_string(),
    )
}

/// A transaction that sends a coin to a target.
fn send(rpc: &Rpc, coin: &Coin, target: &Target) -> Result<(String, Txid), Failure> {
    let transaction = Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(coin.txid.parse()?, coin.vout),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[Vec::from_hex(&coin.witness_script)?]),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(coin.value - FEE),
            script_pubkey: target.script.clone(),
        }],
    };
    let bytes = encode::serialize_hex(&transaction);
    let _txid: Value = rpc.call("sendrawtransaction", &[json!(bytes)])?;
    Ok((bytes, transaction.compute_txid()))
}

fn must_tell(push: &Push, txid: &Txid, height: u64) -> Result<(), Failure> {
    let status = hex(&Sha256::digest(format!("{txid}:{height}:")));
    if push.status.as_deref() == Some(status.as_str()) {
        return Ok(());
    }
    Err(format!("the push says {:?}, it must be {status}", push.status).into())
}

/// Median and worst time from `sendrawtransaction` to the push.
pub fn of_transactions(
    rpc: &Rpc,
    watch: &Watch,
    coins: &mut impl Iterator<Item = Coin>,
) -> Result<(Duration, Duration), Failure> {
    const LONGEST: Duration = Duration::from_secs(45);
    let started = Instant::now();
    let mut times = Vec::new();
    for target in &watch.targets {
        if started.elapsed() > LONGEST {
            break;
        }
        let coin = coins.next().ok_or("no coin is left")?;
        let sent = Instant::now();
        let (_, txid) = send(rpc, &coin, target)?;
        let push = watch.push_of(target)?;
        must_tell(&push, &txid, 0)?;
        times.push(push.at.duration_since(sent));
        // Not in step with anything that the server does at intervals.
        std::thread::sleep(Duration::from_millis(20 + times.len() as u64 * 7 % 31));
    }
    Ok((percentile(&mut times, 50), percentile(&mut times, 100)))
}

/// What a block brought: the time from `submitblock` to the header's push, to the last script's push,
/// and until the node's own answer.
pub struct BlockPush {
    pub header: Duration,
    pub last_status: Duration,
    pub node: Duration,
}

/// Sends `count` transactions to as many targets, puts them into one block, and waits for all pushes.
pub fn of_block(
    rpc: &Rpc,
    watch: &Watch,
    coins: &mut impl Iterator<Item = Coin>,
    count: usize,
) -> Result<BlockPush, Failure> {
    let mut waiting: HashMap<String, Txid> = HashMap::new();
    let mut txids = Vec::new();
    for target in watch.targets.iter().take(count) {
        let coin = coins.next().ok_or("no coin is left")?;
        let (_, txid) = send(rpc, &coin, target)?;
        waiting.insert(target.scripthash.clone(), txid);
        txids.push(txid.to_string());
    }
    // The pushes of the mempool come first.
    let mut unconfirmed = waiting.clone();
    while !unconfirmed.is_empty() {
        let push = watch.pushes.recv_timeout(PATIENCE)?;
        unconfirmed.remove(&push.scripthash);
    }
    let output = "raw(51)";
    let made: Value = rpc.call(
        "generateblock",
        &[json!(output), json!(txids), json!(false)],
    )?;
    let height = rpc.get_block_count()? + 1;
    while watch.pushes.try_recv().is_ok() || watch.headers.try_recv().is_ok() {}

    let submitted = Instant::now();
    let refused: Value = rpc.call("submitblock", &[made["hex"].clone()])?;
    let node = submitted.elapsed();
    if !refused.is_null() {
        return Err(format!("the node refuses the block: {refused}").into());
    }
    let (header, _) = loop {
        let header = watch.headers.recv_timeout(PATIENCE)?;
        if header.1 == height {
            break header;
        }
    };
    let mut last = submitted;
    while !waiting.is_empty() {
        let push = watch.pushes.recv_timeout(PATIENCE)?;
        if let Some(txid) = waiting.get(&push.scripthash)
            && must_tell(&push, txid, height).is_ok()
        {
            waiting.remove(&push.scripthash);
            last = push.at;
        }
    }
    Ok(BlockPush {
        header: header.duration_since(submitted),
        last_status: last.duration_since(submitted),
        node,
    })
}
