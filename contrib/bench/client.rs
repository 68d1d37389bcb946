//! A plain blocking Electrum client: lines of JSON over TCP.
#![allow(dead_code)] // Each program uses its own part.

use std::{
    error::Error,
    io::{self, BufRead, BufReader, Write},
    net::TcpStream,
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::record::{Script, Unspent, unspent_digest};

pub type Failure = Box<dyn Error + Send + Sync>;

/// No answer takes so long.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Client {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    line: Vec<u8>,
    next_id: u64,
}

/// A line from the server; the result is not parsed until someone looks.
#[derive(Deserialize)]
pub struct Reply<'a> {
    pub id: Option<u64>,
    pub method: Option<&'a str>,
    #[serde(borrow)]
    pub params: Option<&'a RawValue>,
    #[serde(borrow)]
    pub result: Option<&'a RawValue>,
    #[serde(borrow)]
    pub error: Option<&'a RawValue>,
}

impl Reply<'_> {
    pub fn result(&self) -> Result<&str, Failure> {
        match (self.error, self.result) {
            (None, Some(result)) => Ok(result.get()),
            (None, None) => Ok("null"),
            (Some(error), _) => Err(format!("the server says {error}").into()),
        }
    }
}

impl Client {
    pub fn connect(address: &str) -> io::Result<Client> {
        let writer = TcpStream::connect(address)?;
        writer.set_nodelay(true)?;
        writer.set_read_timeout(Some(PATIENCE))?;
        let reader = BufReader::with_capacity(1 << 16, writer.try_clone()?);
        Ok(Client {
            reader,
            writer,
            line: Vec::new(),
            next_id: 0,
        })
    }

    /// Connects and says which protocol we speak.
    pub fn negotiated(address: &str) -> Result<Client, Failure> {
        let mut client = Client::connect(address)?;
        client.call("server.version", &json!(["ambra-bench", "1.4"]))?;
        Ok(client)
    }

    pub fn stream(&self) -> &TcpStream {
        &self.writer
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, lines: &[u8]) -> io::Result<()> {
        self.writer.write_all(lines)
    }

    /// The next line, as bytes.
    pub fn read_line(&mut self) -> io::Result<&[u8]> {
        self.line.clear();
        if self.reader.read_until(b'\n', &mut self.line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(&self.line)
    }

    /// True where the next line, or a part of it, is here already.
    pub fn has_buffered(&self) -> bool {
        !self.reader.buffer().is_empty()
    }

    /// The line that was read last.
    pub fn last(&self) -> Result<Reply<'_>, Failure> {
        Ok(serde_json::from_slice(&self.line)?)
    }

    pub fn read(&mut self) -> Result<Reply<'_>, Failure> {
        self.read_line()?;
        self.last()
    }

    /// One request and its answer, as JSON text; notifications in between are passed over.
    pub fn call_raw(&mut self, method: &str, params: &Value) -> Result<String, Failure> {
        self.next_id += 1;
        let id = self.next_id;
        let request = format!("{{\"id\":{id},\"method\":\"{method}\",\"params\":{params}}}\n");
        self.send(request.as_bytes())?;
        loop {
            let reply = self.read()?;
            if reply.id == Some(id) {
                return Ok(reply.result()?.to_owned());
            }
        }
    }

    pub fn call(&mut self, method: &str, params: &Value) -> Result<Value, Failure> {
        Ok(serde_json::from_str(&self.call_raw(method, params)?)?)
    }
}

#[derive(Deserialize)]
pub struct HistoryEntry {
    pub tx_hash: String,
    pub height: i64,
}

#[derive(Deserialize)]
struct UnspentEntry {
    tx_hash: String,
    tx_pos: u32,
    height: u32,
    value: u64,
}

#[derive(Deserialize)]
struct Balance {
    confirmed: u64,
    unconfirmed: i64,
}

/// An error that says where answer and record differ.
pub fn must_equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    script: &Script,
    told: T,
    recorded: T,
) -> Result<(), Failure> {
    if told == recorded {
        return Ok(());
    }
    Err(format!(
        "{what} of {} is {told:?}, the record says {recorded:?}",
        script.scripthash
    )
    .into())
}

pub fn check_status(script: &Script, result: &str) -> Result<(), Failure> {
    let status: Option<&str> = serde_json::from_str(result)?;
    must_equal("the status", script, status, Some(script.status.as_str()))
}

pub fn check_history(script: &Script, result: &str) -> Result<(), Failure> {
    use sha2::{Digest, Sha256};
    let history: Vec<HistoryEntry> = serde_json::from_str(result)?;
    must_equal(
        "the number of entries",
        script,
        history.len(),
        script.entries as usize,
    )?;
    let mut sha256 = Sha256::new();
    for HistoryEntry { tx_hash, height } in &history {
        sha256.update(format!("{tx_hash}:{height}:"));
    }
    let status = crate::record::hex(&sha256.finalize());
    must_equal("the history", script, status, script.status.clone())
}

pub fn check_balance(script: &Script, result: &str) -> Result<(), Failure> {
    let balance: Balance = serde_json::from_str(result)?;
    must_equal(
        "the balance",
        script,
        (balance.confirmed, balance.unconfirmed),
        (script.confirmed, 0),
    )
}

pub fn check_unspent(script: &Script, result: &str) -> Result<(), Failure> {
    let unspent: Vec<UnspentEntry> = serde_json::from_str(result)?;
    must_equal(
        "the number of unspent outputs",
        script,
        unspent.len(),
        script.unspent as usize,
    )?;
    let digest = unspent_digest(
        unspent
            .into_iter()
            .map(|entry| Unspent {
                txid: entry.tx_hash,
                vout: entry.tx_pos,
                height: entry.height,
                value: entry.value,
            })
            .collect(),
    );
    must_equal(
        "the unspent outputs",
        script,
        digest,
        script.unspent_digest.clone(),
    )
}

/// All four answers about a script.
pub fn check_script(client: &mut Client, script: &Script) -> Result<(), Failure> {
    let params = json!([script.scripthash]);
    let mut ask =
        |method: &str| client.call_raw(&format!("blockchain.scripthash.{method}"), &params);
    check_status(script, &ask("subscribe")?)?;
    check_history(script, &ask("get_history")?)?;
    check_balance(script, &ask("get_balance")?)?;
    check_unspent(script, &ask("listunspent")?)
}
