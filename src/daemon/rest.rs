//! bitcoind's REST interface (its option `rest=1`): blocks and what they spend, as plain bytes, several
//! at once. Blocking calls, each with a deadline.

use std::{sync::Arc, time::Duration};

use bitcoin::BlockHash;
use serde::Deserialize;

use super::{
    Stats,
    error::RpcError,
    http::{Exchange, Http, Reply, without_user},
    rpc::is_block,
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

    /// Counters of this handle and its clones.
    pub fn stats(&self) -> &Stats {
        &self.http.stats
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

#[cfg(test)]
mod tests {
    use bitcoin::{constants::genesis_block, hashes::Hash};
    use serde_json::json;

    use super::*;
    use crate::daemon::fake::{Answer, FakeNode};

    fn rest_of(node: &FakeNode) -> Rest {
        Rest::with_timeout(&node.url(), Duration::from_millis(500))
    }

    fn genesis() -> (BlockHash, Vec<u8>) {
        let block = genesis_block(bitcoin::Network::Regtest);
        (block.block_hash(), bitcoin::consensus::serialize(&block))
    }

    fn not_there() -> Answer {
        Answer::Http(404, Vec::new())
    }

    #[test]
    fn a_block_and_a_part_of_it_are_plain_bytes() {
        let (hash, bytes) = genesis();
        let node = FakeNode::new([
            Answer::Http(200, bytes.clone()),
            Answer::Http(200, bytes[80..100].to_vec()),
            Answer::Http(200, bytes[80..99].to_vec()),
            Answer::Http(200, bytes[80..101].to_vec()),
            not_there(),
        ]);
        let rest = rest_of(&node);
        assert_eq!(rest.block(&hash), Ok(bytes.clone()));
        let part = || rest.block_part(&hash, 80, 20);
        assert_eq!(part(), Ok(Some(bytes[80..100].to_vec())));
        assert!(matches!(part(), Err(RpcError::Unavailable(_))));
        assert!(matches!(part(), Err(RpcError::Unavailable(_))));
        assert_eq!(part(), Ok(None));
        let lines: Vec<_> = node.asked().into_iter().map(|asked| asked.line).collect();
        assert_eq!(lines[0], format!("GET /rest/block/{hash}.bin HTTP/1.1"));
        let part = format!("GET /rest/blockpart/{hash}.bin?offset=80&size=20 HTTP/1.1");
        assert_eq!(lines[1], part);
    }

    #[test]
    fn a_node_without_rest_or_without_spent_outputs_is_found_out() {
        let info = || {
            Answer::Http(
                200,
                json!({"bestblockhash": genesis().0}).to_string().into(),
            )
        };
        let available = |answers: Vec<Answer>| rest_of(&FakeNode::new(answers)).available();
        assert_eq!(available(vec![not_there()]), Ok(false));
        assert_eq!(available(vec![info(), not_there()]), Ok(false));
        assert_eq!(
            available(vec![info(), Answer::Http(200, vec![1, 0])]),
            Ok(true)
        );
        let loading = Answer::Http(
            503,
            b"Service temporarily unavailable: Loading block index".to_vec(),
        );
        let words = available(vec![loading; 3]).unwrap_err().to_string();
        assert_eq!(
            words,
            "the node is not ready: Service temporarily unavailable: Loading block index"
        );
    }

    #[test]
    fn a_block_that_the_node_has_no_more_is_a_refusal_with_its_words() {
        let words = b"Block not available (pruned data)\r\n".to_vec();
        let node = FakeNode::new([Answer::Http(404, words)]);
        let refused = RpcError::Refused {
            code: 404,
            message: "Block not available (pruned data)".into(),
        };
        assert_eq!(rest_of(&node).block(&genesis().0), Err(refused));
    }

    #[test]
    fn another_block_garbage_half_a_reply_and_too_much_are_no_block() {
        let (hash, bytes) = genesis();
        let other = BlockHash::from_byte_array([1; 32]);
        let node = FakeNode::new([Answer::Http(200, bytes)]);
        assert_eq!(rest_of(&node).block(&other), Err(garbage("block")));
        let half = Answer::Raw("HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\nhalf");
        for answer in [
            Answer::Http(200, Vec::new()),
            half,
            Answer::Http(200, vec![0; 4_000_001]),
            Answer::Silence,
        ] {
            let node = FakeNode::new([answer.clone(), answer]);
            let result = rest_of(&node).block(&hash);
            assert!(
                matches!(result, Err(RpcError::Unavailable(_))),
                "{result:?}"
            );
        }
    }

    #[test]
    fn headers_begin_with_the_one_asked_for_and_are_whole() {
        let (hash, bytes) = genesis();
        let header = bytes[..80].to_vec();
        let node = FakeNode::new([
            Answer::Http(200, header.clone()),
            Answer::Http(200, header[..79].to_vec()),
            Answer::Http(200, vec![0; 80]),
        ]);
        let rest = rest_of(&node);
        assert_eq!(
            rest.headers(&hash, 5).unwrap(),
            [HeaderBytes::try_from(&header[..]).unwrap()]
        );
        assert_eq!(rest.headers(&hash, 5), Err(garbage("headers")));
        assert_eq!(rest.headers(&hash, 5), Err(garbage("headers")));
    }
}
