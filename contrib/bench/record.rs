//! What the generator knows of its chain, as JSON lines: the answers that a server must give.
//!
//! Nothing here uses Ambra's code, so that both cannot be wrong in the same way.
#![allow(dead_code)] // Each program uses its own part.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    Chain(Chain),
    Script(Script),
    Tx(Tx),
    Coin(Coin),
}

/// The first line: the chain as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Chain {
    pub seed: u64,
    pub height: u32,
    pub tip: String,
    /// Coinbases included, the genesis block's not.
    pub transactions: u64,
    pub inputs: u64,
    pub outputs: u64,
    pub scripts: u64,
    pub bytes: u64,
}

/// A sampled script and all that a server should say of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Script {
    pub scripthash: String,
    pub script: String,
    /// How many transactions touch it.
    pub entries: u32,
    pub status: String,
    /// In satoshis.
    pub confirmed: u64,
    pub unspent: u32,
    pub unspent_digest: String,
}

/// A sampled transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tx {
    pub txid: String,
    pub height: u32,
    pub position: u32,
}

/// An unspent output that a mempool lets anyone spend by its witness script.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Coin {
    pub txid: String,
    pub vout: u32,
    pub value: u64,
    pub witness_script: String,
}

/// All lines of a record, by kind.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub chain: Option<Chain>,
    pub scripts: Vec<Script>,
    pub txs: Vec<Tx>,
    pub coins: Vec<Coin>,
}

impl Record {
    pub fn read(path: &Path) -> io::Result<Record> {
        let mut record = Record::default();
        for line in BufReader::with_capacity(1 << 20, File::open(path)?).lines() {
            match serde_json::from_str(&line?)? {
                Line::Chain(chain) => record.chain = Some(chain),
                Line::Script(script) => record.scripts.push(script),
                Line::Tx(tx) => record.txs.push(tx),
                Line::Coin(coin) => record.coins.push(coin),
            }
        }
        Ok(record)
    }
}

/// An unspent output, as it goes into a digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unspent {
    /// As it is displayed.
    pub txid: String,
    pub vout: u32,
    pub height: u32,
    pub value: u64,
}

/// SHA-256 over `txid:vout:height:value;` of each, sorted, since servers may order a transaction's
/// outputs as they like.
pub fn unspent_digest(mut unspent: Vec<Unspent>) -> String {
    unspent.sort();
    let mut sha256 = Sha256::new();
    for Unspent {
        txid,
        vout,
        height,
        value,
    } in unspent
    {
        sha256.update(format!("{txid}:{vout}:{height}:{value};"));
    }
    hex(&sha256.finalize())
}

/// What happens to a sampled script while the chain is made.
#[derive(Default)]
pub struct Follower {
    script: Vec<u8>,
    entries: u32,
    last: Option<[u8; 32]>,
    status: Sha256,
    unspent: BTreeMap<([u8; 32], u32), (u64, u32)>,
}

impl Follower {
    pub fn new(script: Vec<u8>) -> Follower {
        Follower {
            script,
            ..Follower::default()
        }
    }

    pub fn pay(&mut self, txid: [u8; 32], vout: u32, value: u64, height: u32) {
        self.touch(txid, height);
        self.unspent.insert((txid, vout), (value, height));
    }

    pub fn spend(&mut self, by: [u8; 32], height: u32, txid: [u8; 32], vout: u32) {
        self.touch(by, height);
        self.unspent.remove(&(txid, vout));
    }

    /// A transaction counts once, however often it touches.
    fn touch(&mut self, txid: [u8; 32], height: u32) {
        if self.last != Some(txid) {
            self.last = Some(txid);
            self.entries += 1;
            self.status
                .update(format!("{}:{height}:", hex_reversed(&txid)));
        }
    }

    pub fn finish(self) -> Script {
        let unspent: Vec<Unspent> = self
            .unspent
            .iter()
            .map(|(&(txid, vout), &(value, height))| Unspent {
                txid: hex_reversed(&txid),
                vout,
                height,
                value,
            })
            .collect();
        Script {
            scripthash: hex_reversed(&Sha256::digest(&self.script).into()),
            script: hex(&self.script),
            entries: self.entries,
            status: hex(&self.status.finalize()),
            confirmed: unspent.iter().map(|unspent| unspent.value).sum(),
            unspent: unspent.len() as u32,
            unspent_digest: unspent_digest(unspent),
        }
    }
}

pub fn write_line(to: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *to, line)?;
    to.write_all(b"\n")
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// As txids, block hashes and script hashes are displayed.
pub fn hex_reversed(bytes: &[u8; 32]) -> String {
    let mut reversed = *bytes;
    reversed.reverse();
    hex(&reversed)
}
