//! What the node answers, as far as Ambra needs it. Members that a release adds or drops do no harm.

use bitcoin::{BlockHash, Txid};
use serde::{Deserialize, Deserializer};

use crate::chain::Height;

/// `getblockchaininfo`.
#[derive(Clone, Debug, Deserialize)]
pub struct ChainInfo {
    /// `main`, `test`, `testnet4`, `signet` or `regtest`.
    pub chain: String,
    pub blocks: Height,
    /// Height of the best header; 0 where the node knows none yet.
    #[serde(deserialize_with = "height_or_none_yet")]
    pub headers: Height,
    #[serde(rename = "bestblockhash")]
    pub best_block_hash: BlockHash,
    #[serde(rename = "initialblockdownload")]
    pub initial_block_download: bool,
    /// From 0 to 1.
    #[serde(rename = "verificationprogress")]
    pub verification_progress: f64,
    /// In bytes.
    #[serde(default)]
    pub size_on_disk: u64,
    #[serde(default)]
    pub pruned: bool,
    /// The lowest block that is kept, of a pruned node.
    #[serde(default, rename = "pruneheight")]
    pub prune_height: Option<Height>,
    /// In hexadecimal; of a signet.
    #[serde(default)]
    pub signet_challenge: Option<String>,
}

/// Bitcoin Core says −1 before it has read a header.
fn height_or_none_yet<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Height, D::Error> {
    let height = i64::deserialize(deserializer)?;
    Ok(Height::try_from(height).unwrap_or(0))
}

/// `getnetworkinfo`.
#[derive(Clone, Debug, Deserialize)]
pub struct NetworkInfo {
    /// As 290400 for 29.4.0.
    pub version: u32,
    /// As `/Satoshi:29.4.0/Knots:20260508/`.
    pub subversion: String,
    /// In BTC/kvB.
    #[serde(rename = "relayfee")]
    pub relay_fee: f64,
    /// Peers.
    #[serde(default)]
    pub connections: u32,
}

/// `getblockheader`, in words.
#[derive(Clone, Debug, Deserialize)]
pub struct BlockHeaderInfo {
    pub height: Height,
    /// −1 of a block that is not on the best chain.
    pub confirmations: i64,
    #[serde(rename = "nTx")]
    pub n_tx: u32,
    /// `None` of the genesis block.
    #[serde(default, rename = "previousblockhash")]
    pub previous: Option<BlockHash>,
}

/// An entry of `getzmqnotifications`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ZmqNotification {
    /// As `pubhashblock`.
    #[serde(rename = "type")]
    pub kind: String,
    /// As `tcp://127.0.0.1:28332`.
    pub address: String,
}

/// `getrawmempool` with its sequence number.
#[derive(Clone, Debug, Deserialize)]
pub struct MempoolTxids {
    pub txids: Vec<Txid>,
    /// The ZMQ messages with lower numbers are in `txids` already.
    #[serde(rename = "mempool_sequence")]
    pub sequence: u64,
}

/// `waitfornewblock`.
#[derive(Deserialize)]
pub(super) struct BlockRef {
    pub hash: BlockHash,
}

/// `estimatesmartfee`.
#[derive(Deserialize)]
pub(super) struct FeeEstimate {
    #[serde(default)]
    pub feerate: Option<f64>,
}
