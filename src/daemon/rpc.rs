//! bitcoind's RPC: blocking calls, each with a deadline. Used from blocking threads only.
//!
//! The protocol's envelope is `bitcoincore-rpc`'s; the answers are our own small structs, since that
//! crate's typed ones break whenever a release of the node changes a member. The transport is our own,
//! for exact deadlines, several connections at once, and a cookie that may change under us.

mod answers;
mod credentials;
mod fees;
#[cfg(any(test, feature = "fuzzing"))]
mod fuzz;
mod spent;
#[cfg(test)]
mod tests;
mod transactions;
mod transport;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bitcoin::{BlockHash, hex::FromHex};
use bitcoincore_rpc::jsonrpc::{Client, Request};
use serde::de::DeserializeOwned;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

pub use super::error::RpcError;
use super::{
    Stats,
    http::{Http, without_user},
};
use crate::chain::{HEADER_LEN, HeaderBytes, Height, SpentOutputs, block_hash};
pub use answers::{BlockHeaderInfo, ChainInfo, MempoolTxids, NetworkInfo, ZmqNotification};
use credentials::Credentials;
pub use credentials::RpcAuth;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use fuzz::answer as fuzz;
use transport::{NodeTransport, sorted};

/// Headers or hashes asked for in one batch.
const HEADER_BATCH: usize = 500;
/// A long poll's longest time.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// What a long poll may take beyond its own time.
const WAIT_MARGIN: Duration = Duration::from_secs(5);

/// Bitcoin Core's `RPC_MISC_ERROR`: among others, parameters that this release does not take.
const MISC_ERROR: i32 = -1;

/// Where the node's RPC is, and how to log in.
#[derive(Clone, Debug)]
pub struct RpcConfig {
    /// As `http://127.0.0.1:8332`. A user part in it is ignored.
    pub url: String,
    pub auth: RpcAuth,
    /// For each call.
    pub timeout: Duration,
}

impl RpcConfig {
    /// The deadline of a call where nothing else is wished.
    pub const TIMEOUT: Duration = Duration::from_secs(30);
}

/// A handle on the node's RPC; cheap to clone, shared by threads.
#[derive(Clone)]
pub struct Rpc {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    transport: NodeTransport,
    fees: fees::Cache,
    /// Set once the node has refused the second parameter of `waitfornewblock`.
    wait_takes_no_tip: AtomicBool,
}

impl Rpc {
    pub fn new(config: RpcConfig) -> Rpc {
        let transport = NodeTransport {
            http: Arc::new(Http::new()),
            url: without_user(&config.url).into(),
            credentials: Arc::new(Credentials::new(config.auth)),
            deadline: config.timeout,
            takes_turns: true,
        };
        Rpc {
            inner: Arc::new(Inner {
                client: Client::with_transport(transport.clone()),
                transport,
                fees: fees::Cache::default(),
                wait_takes_no_tip: AtomicBool::new(false),
            }),
        }
    }

    /// Where the node's RPC is: `http://HOST:PORT/`, without credentials.
    pub fn url(&self) -> &str {
        &self.inner.transport.url
    }

    /// Counters of this handle and its clones.
    pub fn stats(&self) -> &Stats {
        &self.inner.transport.http.stats
    }

    /// Any method: the generic call.
    pub fn call(&self, method: &str, params: &[Value]) -> Result<Value, RpcError> {
        self.ask(method, params)
    }

    /// Several calls in one exchange; the answers are in the order of the calls. Bound their number:
    /// they share one deadline and one answer.
    pub fn batch(
        &self,
        calls: &[(&str, Vec<Value>)],
    ) -> Result<Vec<Result<Value, RpcError>>, RpcError> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let params: Vec<Box<RawValue>> = calls
            .iter()
            .map(|(method, params)| to_raw_value(params).map_err(|_| RpcError::garbage(method)))
            .collect::<Result<_, _>>()?;
        let requests: Vec<Request<'_>> = calls
            .iter()
            .zip(&params)
            .map(|((method, _), params)| self.inner.client.build_request(method, Some(params)))
            .collect();
        let name = calls.first().map_or("", |(method, _)| *method);
        let answers = self.inner.client.send_batch(&requests);
        let answers = answers.map_err(|error| sorted(error, name))?;
        answers
            .into_iter()
            .map(|answer| match answer {
                Some(answer) => Ok(answer.result().map_err(|error| sorted(error, name))),
                None => Err(RpcError::garbage(name)),
            })
            .collect()
    }

    pub fn blockchain_info(&self) -> Result<ChainInfo, RpcError> {
        self.ask("getblockchaininfo", &[])
    }

    pub fn network_info(&self) -> Result<NetworkInfo, RpcError> {
        self.ask("getnetworkinfo", &[])
    }

    /// Empty where the node publishes nothing, or was built without ZMQ.
    pub fn zmq_notifications(&self) -> Result<Vec<ZmqNotification>, RpcError> {
        const METHOD_NOT_FOUND: i32 = -32601;
        match self.ask("getzmqnotifications", &[]) {
            Err(RpcError::Refused {
                code: METHOD_NOT_FOUND,
                ..
            }) => Ok(Vec::new()),
            result => result,
        }
    }

    pub fn best_block_hash(&self) -> Result<BlockHash, RpcError> {
        self.ask("getbestblockhash", &[])
    }

    /// Of the best chain.
    pub fn block_hash(&self, height: Height) -> Result<BlockHash, RpcError> {
        self.ask("getblockhash", &[json!(height)])
    }

    /// The hashes of `count` blocks from `start` on; an error where the chain ends before.
    pub fn block_hashes(&self, start: Height, count: u32) -> Result<Vec<BlockHash>, RpcError> {
        let heights: Vec<Height> = (start..start.saturating_add(count)).collect();
        self.ask_all("getblockhash", &heights, HEADER_BATCH, |height| {
            vec![json!(height)]
        })
    }

    pub fn block_header(&self, hash: &BlockHash) -> Result<HeaderBytes, RpcError> {
        let hex: String = self.ask("getblockheader", &[json!(hash), json!(false)])?;
        header_bytes(hash, &hex)
    }

    /// In the order of the hashes.
    pub fn block_headers(&self, hashes: &[BlockHash]) -> Result<Vec<HeaderBytes>, RpcError> {
        let params = |hash: &BlockHash| vec![json!(hash), json!(false)];
        let answers: Vec<String> = self.ask_all("getblockheader", hashes, HEADER_BATCH, params)?;
        let pairs = hashes.iter().zip(&answers);
        pairs.map(|(hash, hex)| header_bytes(hash, hex)).collect()
    }

    pub fn block_header_info(&self, hash: &BlockHash) -> Result<BlockHeaderInfo, RpcError> {
        self.ask("getblockheader", &[json!(hash), json!(true)])
    }

    /// In the order of the hashes.
    pub fn block_header_infos(
        &self,
        hashes: &[BlockHash],
    ) -> Result<Vec<BlockHeaderInfo>, RpcError> {
        let params = |hash: &BlockHash| vec![json!(hash), json!(true)];
        self.ask_all("getblockheader", hashes, HEADER_BATCH, params)
    }

    /// A block's bytes.
    pub fn block(&self, hash: &BlockHash) -> Result<Vec<u8>, RpcError> {
        let answer = self.ask_raw("getblock", &[json!(hash), json!(0)])?;
        let hex: &str =
            serde_json::from_str(answer.get()).map_err(|_| RpcError::garbage("getblock"))?;
        let bytes = Vec::<u8>::from_hex(hex).map_err(|_| RpcError::garbage("getblock"))?;
        if !is_block(hash, &bytes) {
            return Err(RpcError::garbage("getblock"));
        }
        Ok(bytes)
    }

    /// What a block spends. The node must be Bitcoin Core 23 or newer.
    pub fn spent(&self, hash: &BlockHash) -> Result<SpentOutputs, RpcError> {
        let answer = self.ask_raw("getblock", &[json!(hash), json!(3)])?;
        let block: spent::Block<'_> =
            serde_json::from_str(answer.get()).map_err(|_| RpcError::garbage("getblock"))?;
        match spent::rest_bytes(&block) {
            Ok(bytes) => Ok(SpentOutputs::Rest(bytes)),
            Err(spent::Fault::Garbage) => Err(RpcError::garbage("getblock")),
            Err(spent::Fault::NoPrevouts) => Err(RpcError::Refused {
                code: MISC_ERROR,
                message: "the node does not tell what its blocks spend: \
                          that takes Bitcoin Core 23 or newer, and undo data"
                    .into(),
            }),
        }
    }

    /// Waits until the best block is another than `known`, at most for `timeout`; gives the best block,
    /// be it a new one or not. Uses a connection and a deadline of its own.
    pub fn wait_for_new_block(
        &self,
        known: &BlockHash,
        timeout: Duration,
    ) -> Result<BlockHash, RpcError> {
        // For the node, 0 means for ever.
        let timeout = timeout.min(WAIT_MAX);
        let millis = u64::try_from(timeout.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let waiter = Client::with_transport(NodeTransport {
            deadline: timeout.saturating_add(WAIT_MARGIN),
            takes_turns: false,
            ..self.inner.transport.clone()
        });
        let wait = |params: &[Value]| -> Result<BlockHash, RpcError> {
            let answer = raw_call(&waiter, "waitfornewblock", params)?;
            let block: answers::BlockRef = serde_json::from_str(answer.get())
                .map_err(|_| RpcError::garbage("waitfornewblock"))?;
            Ok(block.hash)
        };
        if !self.inner.wait_takes_no_tip.load(Ordering::Relaxed) {
            // With `current_tip` (Bitcoin Core 29) no block can slip in before the wait begins.
            match wait(&[json!(millis), json!(known)]) {
                Err(RpcError::Refused {
                    code: MISC_ERROR, ..
                }) => self.inner.wait_takes_no_tip.store(true, Ordering::Relaxed),
                result => return result,
            }
        }
        match self.best_block_hash()? {
            best if best == *known => wait(&[json!(millis)]),
            best => Ok(best),
        }
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, params: &[Value]) -> Result<T, RpcError> {
        let answer = self.ask_raw(method, params)?;
        serde_json::from_str(answer.get()).map_err(|_| RpcError::garbage(method))
    }

    fn ask_raw(&self, method: &str, params: &[Value]) -> Result<Box<RawValue>, RpcError> {
        raw_call(&self.inner.client, method, params)
    }

    /// The same method for many arguments; the first refusal ends it.
    fn ask_all<A, T: DeserializeOwned>(
        &self,
        method: &str,
        arguments: &[A],
        batch_len: usize,
        params: impl Fn(&A) -> Vec<Value>,
    ) -> Result<Vec<T>, RpcError> {
        let mut found = Vec::with_capacity(arguments.len());
        for chunk in arguments.chunks(batch_len) {
            let calls: Vec<_> = chunk.iter().map(|a| (method, params(a))).collect();
            for answer in self.batch(&calls)? {
                let value = serde_json::from_value(answer?);
                found.push(value.map_err(|_| RpcError::garbage(method))?);
            }
        }
        Ok(found)
    }
}

fn raw_call(client: &Client, method: &str, params: &[Value]) -> Result<Box<RawValue>, RpcError> {
    let params = to_raw_value(params).map_err(|_| RpcError::garbage(method))?;
    client
        .call(method, Some(&params))
        .map_err(|error| sorted(error, method))
}

/// True if the bytes begin with the header of that name.
pub(super) fn is_block(hash: &BlockHash, bytes: &[u8]) -> bool {
    let header = bytes.first_chunk::<HEADER_LEN>();
    header.is_some_and(|header| block_hash(header) == *hash)
}

fn header_bytes(hash: &BlockHash, hex: &str) -> Result<HeaderBytes, RpcError> {
    let header = HeaderBytes::from_hex(hex).ok();
    header
        .filter(|header| is_block(hash, header))
        .ok_or_else(|| RpcError::garbage("getblockheader"))
}
