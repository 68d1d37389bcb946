//! A real bitcoind on regtest: its own directory, its own ports, gone when dropped.

use std::{
    cell::RefCell,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bitcoin::{Block, BlockHash, Script, Transaction, Txid, consensus::encode};
use rand::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{ambra::copy_folder, patience::until};

/// Long enough for a busy machine; a node on regtest answers in milliseconds.
const RPC_PATIENCE: Duration = Duration::from_secs(120);
const START_PATIENCE: Duration = Duration::from_secs(60);

/// What a story wants of its node.
#[derive(Clone, Copy, Debug)]
pub struct NodeOptions {
    pub zmq: bool,
    pub rest: bool,
    /// Block files scrambled with the key in `xor.dat`.
    pub xor: bool,
    /// Small block files, that can be pruned by hand.
    pub prunes: bool,
    /// Small block files (64 KiB), so that there are many.
    pub small_files: bool,
    /// A mempool of 5 MB, the smallest that bitcoind takes.
    pub small_mempool: bool,
}

impl Default for NodeOptions {
    fn default() -> NodeOptions {
        NodeOptions {
            zmq: true,
            rest: false,
            xor: true,
            prunes: false,
            small_files: false,
            small_mempool: false,
        }
    }
}

/// An error that bitcoind answered.
#[derive(Debug)]
pub struct RpcError {
    pub code: i64,
    pub message: String,
}

pub struct Node {
    options: NodeOptions,
    dir: TempDir,
    rpc_port: u16,
    zmq_port: u16,
    process: RefCell<Option<Child>>,
}

impl Node {
    /// A running node with the genesis block only.
    pub fn start(options: NodeOptions) -> Node {
        let mut node = Node::not_yet_started(options);
        // Someone else may take a port between its choice and its use.
        for _ in 0..5 {
            match node.try_launch() {
                Ok(()) => return node,
                Err(why) => eprintln!("bitcoind did not start, trying other ports: {why}"),
            }
            node.rpc_port = free_port();
            node.zmq_port = free_port();
        }
        panic!("bitcoind does not start:\n{}", node.log_tail());
    }

    /// Starts a stopped node again, on the same ports.
    pub fn launch(&self) {
        if let Err(why) = self.try_launch() {
            panic!("bitcoind does not start: {why}\n{}", self.log_tail());
        }
    }

    /// Chooses ports for a node, but does not start it: for a server that comes up first.
    pub fn not_yet_started(options: NodeOptions) -> Node {
        Node {
            options,
            dir: tempfile::tempdir().expect("a temporary directory"),
            rpc_port: free_port(),
            zmq_port: free_port(),
            process: RefCell::new(None),
        }
    }

    /// Another node that knows the chain of this one, which must have stopped; not yet started.
    pub fn with_the_past_of(other: &Node) -> Node {
        let node = Node::not_yet_started(other.options);
        copy_folder(other.dir(), node.dir());
        node
    }

    fn try_launch(&self) -> Result<(), String> {
        let mut process = self.spawn();
        match self.wait_until_ready(&mut process) {
            Ok(()) => {
                self.process.replace(Some(process));
                Ok(())
            }
            Err(why) => {
                let _ = process.kill();
                let _ = process.wait();
                Err(why)
            }
        }
    }

    fn spawn(&self) -> Child {
        assert!(self.process.borrow().is_none(), "the node runs already");
        let mut command = Command::new(bitcoind());
        command
            .arg("-regtest")
            .arg(format!("-datadir={}", self.dir.path().display()))
            .arg(format!("-rpcport={}", self.rpc_port))
            .args(["-server=1", "-listen=0", "-dnsseed=0", "-connect=0"])
            .args(["-txindex=0", "-fallbackfee=0.0001", "-acceptnonstdtxn=1"])
            .args(["-mempoolexpiry=1", "-par=1", "-dbcache=16"])
            .arg(format!("-rest={}", u8::from(self.options.rest)))
            .arg(format!("-blocksxor={}", u8::from(self.options.xor)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if self.options.prunes {
            command.arg("-prune=1");
        }
        if self.options.prunes || self.options.small_files {
            command.arg("-fastprune");
        }
        if self.options.small_mempool {
            command.arg("-maxmempool=5");
        }
        if self.options.zmq {
            for topic in ["hashblock", "sequence"] {
                command.arg(format!("-zmqpub{topic}=tcp://127.0.0.1:{}", self.zmq_port));
            }
        }
        command.spawn().expect("bitcoind can be run")
    }

    fn wait_until_ready(&self, process: &mut Child) -> Result<(), String> {
        let ready = until(START_PATIENCE, || {
            if let Ok(Some(status)) = process.try_wait() {
                return Some(Err(format!("it ended with {status}")));
            }
            // It answers before it has read its old mempool; a story wants it still.
            let mempool = self.try_rpc("getmempoolinfo", json!([])).ok()?;
            (mempool["loaded"] == true).then_some(Ok(()))
        });
        ready.unwrap_or_else(|| Err(format!("no answer within {START_PATIENCE:?}")))
    }

    /// Starts a stopped node and holds it in its warm-up, as one that loads a large chain: it takes connections, and
    /// answers each call with error −28. [`Node::end_warm_up`] must follow.
    pub fn launch_into_warm_up(&self) {
        // It reads its list of banned addresses then; this one says nothing until it is written to.
        let _ = fs::remove_file(self.banned());
        let made = Command::new("mkfifo").arg(self.banned()).status();
        assert!(made.expect("mkfifo can be run").success());
        let process = self.spawn();
        self.process.replace(Some(process));
        let in_warm_up = until(START_PATIENCE, || {
            let answer = self.try_rpc("getblockcount", json!([]));
            let words = answer.err().filter(|error| error.code == -28)?.message;
            words.contains("banlist").then_some(())
        });
        assert!(in_warm_up.is_some(), "no warm-up:\n{}", self.log_tail());
    }

    /// Lets it go on to its end.
    pub fn end_warm_up(&self) {
        fs::write(self.banned(), "{\"banned_nets\": []}").expect("bitcoind reads it");
        fs::remove_file(self.banned()).expect("it can be removed");
        let mut process = self.process.take().expect("the node runs");
        let ready = self.wait_until_ready(&mut process);
        self.process.replace(Some(process));
        ready.unwrap_or_else(|why| panic!("bitcoind does not start: {why}\n{}", self.log_tail()));
    }

    fn banned(&self) -> PathBuf {
        let folder = self.dir.path().join("regtest");
        fs::create_dir_all(&folder).expect("a folder");
        folder.join("banlist.json")
    }

    /// Ends it in good order.
    pub fn stop(&self) {
        self.rpc("stop", json!([]));
        let mut process = self.process.take().expect("the node runs");
        until(START_PATIENCE, || process.try_wait().ok().flatten())
            .expect("bitcoind ends after `stop`");
    }

    /// SIGKILL: what it had not written is lost.
    pub fn kill(&self) {
        let mut process = self.process.take().expect("the node runs");
        process.kill().expect("bitcoind can be killed");
        process.wait().expect("bitcoind has ended");
    }

    /// What it is started with next time.
    pub fn set_options(&mut self, options: NodeOptions) {
        self.options = options;
    }

    /// Forgets its whole chain, while it is stopped: next time it is another node at the same place.
    pub fn forget_all(&self) {
        assert!(self.process.borrow().is_none(), "the node runs");
        fs::remove_dir_all(self.dir.path().join("regtest")).expect("its folder can be removed");
    }

    /// Lets it stand still while `meanwhile` happens: it takes connections, and says nothing.
    pub fn while_it_stands_still(&self, meanwhile: impl FnOnce()) {
        let signal = |name: &str| {
            let process = self.process.borrow();
            let pid = process.as_ref().expect("the node runs").id().to_string();
            let sent = Command::new("kill").args([name, &pid]).status();
            assert!(sent.expect("kill can be run").success());
        };
        signal("-STOP");
        meanwhile();
        signal("-CONT");
    }

    /// bitcoind's data directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn rpc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.rpc_port)
    }

    /// Where its ZMQ messages come from, as it tells it itself.
    pub fn zmq_address(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.zmq_port)
    }

    /// What a program says to log in: the value of the header `Authorization`.
    pub fn authorization(&self) -> String {
        let cookie = fs::read(self.dir.path().join("regtest/.cookie")).expect("a cookie");
        format!("Basic {}", base64(cookie.trim_ascii()))
    }

    /// The result of a call that must succeed.
    #[track_caller]
    pub fn rpc(&self, method: &str, params: Value) -> Value {
        match self.try_rpc(method, params) {
            Ok(result) => result,
            Err(error) => panic!("{method}: {} (code {})", error.message, error.code),
        }
    }

    /// The result of a call that may be refused. Network trouble is an error with code 0.
    pub fn try_rpc(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        let trouble = |message: String| RpcError { code: 0, message };
        let cookie = fs::read_to_string(self.dir.path().join("regtest/.cookie"))
            .map_err(|error| trouble(format!("cookie: {error}")))?;
        let body = json!({"jsonrpc": "1.0", "id": 0, "method": method, "params": params});
        let reply = post(self.rpc_port, &cookie, &body.to_string())
            .map_err(|error| trouble(format!("connection: {error}")))?;
        let mut reply: Value = serde_json::from_slice(&reply)
            .map_err(|error| trouble(format!("not JSON ({error}): {reply:?}")))?;
        match reply["error"].take() {
            Value::Null => Ok(reply["result"].take()),
            error => Err(RpcError {
                code: error["code"].as_i64().unwrap_or(0),
                message: error["message"].as_str().unwrap_or_default().to_owned(),
            }),
        }
    }

    pub fn height(&self) -> u32 {
        let height = self.rpc("getblockcount", json!([]));
        u32::try_from(height.as_u64().expect("a number")).expect("a height")
    }

    pub fn best_block(&self) -> BlockHash {
        parse(&self.rpc("getbestblockhash", json!([])))
    }

    pub fn block_at(&self, height: u32) -> BlockHash {
        parse(&self.rpc("getblockhash", json!([height])))
    }

    pub fn block(&self, hash: &BlockHash) -> Block {
        let hex = self.rpc("getblock", json!([hash, 0]));
        encode::deserialize_hex(hex.as_str().expect("hexadecimal")).expect("a block")
    }

    /// A transaction of the mempool; `None` if it just left.
    pub fn unconfirmed(&self, txid: &Txid) -> Option<Transaction> {
        let hex = self.try_rpc("getrawtransaction", json!([txid, 0])).ok()?;
        Some(encode::deserialize_hex(hex.as_str().expect("hexadecimal")).expect("a transaction"))
    }

    /// Into the mempool; bitcoind's reason where it is refused.
    pub fn send(&self, transaction: &Transaction) -> Result<Txid, RpcError> {
        let hex = encode::serialize_hex(transaction);
        // No limit to the fee: these coins are cheap.
        self.try_rpc("sendrawtransaction", json!([hex, 0]))
            .map(|txid| parse(&txid))
    }

    /// Mines `count` blocks with what the mempool has, the reward to `script`.
    pub fn mine(&self, count: u32, script: &Script) -> Vec<BlockHash> {
        let hashes = self.rpc("generatetodescriptor", json!([count, descriptor(script)]));
        hashes
            .as_array()
            .expect("hashes")
            .iter()
            .map(parse)
            .collect()
    }

    /// Mines one block with just these transactions, in this order.
    pub fn mine_exactly(&self, script: &Script, transactions: &[&Transaction]) -> BlockHash {
        let hex: Vec<String> = transactions
            .iter()
            .map(|transaction| encode::serialize_hex(*transaction))
            .collect();
        let reply = self.rpc("generateblock", json!([descriptor(script), hex]));
        parse(&reply["hash"])
    }

    pub fn invalidate(&self, hash: &BlockHash) {
        self.rpc("invalidateblock", json!([hash]));
    }

    pub fn reconsider(&self, hash: &BlockHash) {
        self.rpc("reconsiderblock", json!([hash]));
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.dir.path().join("regtest/debug.log")).unwrap_or_default();
        let lines: Vec<String> = BufReader::new(&log[..])
            .lines()
            .map_while(Result::ok)
            .collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn descriptor(script: &Script) -> String {
    format!("raw({})", script.to_hex_string())
}

fn parse<T: std::str::FromStr>(value: &Value) -> T {
    let text = value.as_str().expect("a string");
    match text.parse() {
        Ok(parsed) => parsed,
        Err(_) => panic!("bitcoind answered {text}"),
    }
}

/// A port that nobody listens on, below the range from which the system takes ports for outgoing
/// connections, so that it is likely to stay free while a node restarts.
pub fn free_port() -> u16 {
    loop {
        let port = rand::rng().random_range(16_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// `$BITCOIND`, else the first in `$PATH`, else what `contrib/bitcoind.sh` fetched.
pub fn bitcoind() -> PathBuf {
    if let Some(path) = std::env::var_os("BITCOIND") {
        return PathBuf::from(path);
    }
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bitcoind/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([fetched])
        .map(|folder| folder.join("bitcoind"))
        .find(|program| program.is_file())
        .expect("no bitcoind: run contrib/bitcoind.sh once, or set BITCOIND to the program's path")
}

/// One HTTP request on a connection of its own. bitcoind answers errors with other codes than 200,
/// and says in the body what they are.
fn post(port: u16, cookie: &str, body: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(RPC_PATIENCE))?;
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Basic {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        base64(cookie.trim().as_bytes()),
        body.len(),
    )?;
    let mut reader = BufReader::new(stream);
    let mut length = None;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && line != "\r\n" {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
        line.clear();
    }
    let length = length.ok_or_else(|| std::io::Error::other("a reply without a length"))?;
    let mut reply = vec![0; length];
    reader.read_exact(&mut reply)?;
    Ok(reply)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0u8; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let group = u32::from_be_bytes(group);
        for digit in 0..4 {
            if digit > chunk.len() {
                text.push('=');
            } else {
                text.push(char::from(
                    DIGITS[(group >> (18 - 6 * digit)) as usize & 63],
                ));
            }
        }
    }
    text
}

#[test]
fn base64_is_that_of_the_rfc() {
    // RFC 4648, section 10.
    for (plain, coded) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foobar", "Zm9vYmFy"),
    ] {
        assert_eq!(base64(plain.as_bytes()), coded);
    }
}
