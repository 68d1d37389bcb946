//! bitcoind's REST interface (its option `rest=1`): blocks and what they spend, as plain bytes, several
//! at once. Blocking calls, each with a deadline.

use std::{sync::Arc, time::Duration};

use bitcoin::BlockHash;
use serde::Deserialize;

use super::{
    http::{Exchange, Http, Reply, without_user},
    rpc::{RpcError, is_block},
};
use crate::chain::{HEADER_LEN, HeaderBytes, SpentOutputs, block_hash};

/// Bitcoin Core's `MAX_BLOCK_SERIALIZED_SIZE`, in bytes.
const BLOCK_MAX: u64 = 4_000_000;
/// What a block can spend: 24,390 inputs (a megabyte without witnesses, 41 bytes each) of scripts of at
/// most 10,000 bytes (longer ones cannot be spent), which makes 244 MB.
const SPENT_MAX: u64 = 256 << 20;
/// The node gives no more headers at once.
const HEADERS_MAX: u32 = 2000;
/// For small JSON answers, in bytes.
const JSON_MAX: u64 = 1 << 20;

/// A handle on the node's REST interface; cheap to clone, shared by threads.
#[derive(Clone)]
pub struct Rest {
    http: Arc<Http>,
    /// Ends without a slash.
    base_url: Arc<str>,
    deadline: Duration,
}

impl Rest {
    /// The deadline of a call where nothing else is wished.
    pub const TIMEOUT: Duration = Duration::from_secs(30);

    /// Of the node at `base_url`, as `http://127.0.0.1:8332`: the same as for RPC.
    pub fn new(base_url: &str) -> Rest {
        Rest::with_timeout(base_url, Rest::TIMEOUT)
    }

    pub fn with_timeout(base_url: &str, deadline: Duration) -> Rest {
        Rest {
            http: Arc::new(Http::new()),
            base_url: without_user(base_url).trim_end_matches('/').into(),
            deadline,
        }
    }

    /// True if the node serves blocks and what they spend. Asks for both once.
    pub fn available(&self) -> Result<bool, RpcError> {
        #[derive(Deserialize)]
        struct Info {
            #[serde(rename = "bestblockhash")]
            best: BlockHash,
        }
        let Some(reply) = self.get("chaininfo.json", JSON_MAX)? else {
            return Ok(false);
        };
        let info: Info = serde_json::from_slice(&reply.body).map_err(|_| garbage("chaininfo"))?;
        Ok(self.spent(&info.best)?.is_some())
    }

    /// A block's bytes.
    pub fn block(&self, hash: &BlockHash) -> Result<Vec<u8>, RpcError> {
        match self.get(&format!("block/{hash}.bin"), BLOCK_MAX)? {
            Some(reply) if is_block(hash, &reply.body) => Ok(reply.body),
            Some(_) => Err(garbage("block")),
            None => Err(not_served()),
        }
    }

    /// What a block spends; `None` where the node has no `/rest/spenttxouts`.
    pub fn spent(&self, hash: &BlockHash) -> Result<Option<SpentOutputs>, RpcError> {
        let reply = self.get(&format!("spenttxouts/{hash}.bin"), SPENT_MAX)?;
        Ok(reply.map(|reply| SpentOutputs::Rest(reply.body)))
    }

    /// `size` bytes of a block from `offset` on; `None` where the node has no `/rest/blockpart`.
    pub fn block_part(
        &self,
        hash: &BlockHash,
        offset: u32,
        size: u32,
    ) -> Result<Option<Vec<u8>>, RpcError> {
        let path = format!("blockpart/{hash}.bin?offset={offset}&size={size}");
        match self.get(&path, u64::from(size))? {
            Some(reply) if reply.body.len() as u64 == u64::from(size) => Ok(Some(reply.body)),
            Some(_) => Err(garbage("blockpart")),
            None => Ok(None),
        }
    }

    /// Headers of the best chain, from the block `first` on: at most `count`, at most 2,000, fewer at the
    /// tip.
    pub fn headers(&self, first: &BlockHash, count: u32) -> Result<Vec<HeaderBytes>, RpcError> {
        let count = count.min(HEADERS_MAX);
        let path = format!("headers/{count}/{first}.bin");
        let bytes_max = u64::from(count) * HEADER_LEN as u64;
        let reply = self.get(&path, bytes_max)?.ok_or_else(not_served)?;
        let headers: Vec<HeaderBytes> = reply
            .body
            .chunks(HEADER_LEN)
            .map(HeaderBytes::try_from)
            .collect::<Result<_, _>>()
            .map_err(|_| garbage("headers"))?;
        if headers
            .first()
            .is_some_and(|header| block_hash(header) != *first)
        {
            return Err(garbage("headers"));
        }
        Ok(headers)
    }

    /// `None` where the node has no such endpoint.
    fn get(&self, path: &str, answer_max: u64) -> Result<Option<Reply>, RpcError> {
        let url = format!("{}/rest/{path}", self.base_url);
        let reply = self.http.exchange(&Exchange {
            url: &url,
            authorization: None,
            body: None,
            deadline: self.deadline,
            answer_max,
        })?;
        match reply.status {
            200 => Ok(Some(reply)),
            // An endpoint that is there says what was not found; one that is not says nothing.
            404 if reply.body.is_empty() => Ok(None),
            400 | 404 => Err(RpcError::Refused {
                code: i32::from(reply.status),
                message: reply.words(),
            }),
            _ => Err(reply.refusal()),
        }
    }
}

fn garbage(endpoint: &str) -> RpcError {
    RpcError::Unavailable(format!(
        "the node's answer to /rest/{endpoint} cannot be understood"
    ))
}

fn not_served() -> RpcError {
    RpcError::Refused {
        code: 404,
        message: "the node serves no REST: its option rest=1 is not set".into(),
    }
}
