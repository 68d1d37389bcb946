//! What is known of the node: asked every few seconds by a thread of its own, which may wait for it.

use std::time::SystemTime;

use serde::Serialize;

use super::warnings::unix_seconds;
use crate::{chain::Height, daemon::rpc::Rpc};

/// Whether the node answered last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Not asked yet.
    #[default]
    Unknown,
    Up,
    Away,
}

/// The node, as it told last.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NodeReport {
    pub state: NodeState,
    /// Why there was no answer.
    pub error: Option<String>,
    /// When it was asked last, in Unix seconds.
    pub asked: Option<u64>,
    /// When it answered last.
    pub answered: Option<u64>,
    /// As `/Satoshi:29.4.0/`.
    pub version: Option<String>,
    pub peers: Option<u32>,
    pub blocks: Option<Height>,
    pub headers: Option<Height>,
    /// From 0 to 1: the node's own estimate.
    pub verification_progress: Option<f64>,
    pub initial_block_download: Option<bool>,
}

/// Asks the node. Where it does not answer, what it told before is kept.
pub fn ask(rpc: &Rpc, before: &NodeReport) -> NodeReport {
    let answers = rpc
        .blockchain_info()
        .and_then(|chain| rpc.network_info().map(|network| (chain, network)));
    let now = unix_seconds(SystemTime::now());
    match answers {
        Ok((chain, network)) => NodeReport {
            state: NodeState::Up,
            error: None,
            asked: Some(now),
            answered: Some(now),
            version: Some(network.subversion),
            peers: Some(network.connections),
            blocks: Some(chain.blocks),
            headers: Some(chain.headers),
            verification_progress: Some(chain.verification_progress.clamp(0.0, 1.0)),
            initial_block_download: Some(chain.initial_block_download),
        },
        Err(error) => NodeReport {
            state: NodeState::Away,
            error: Some(error.to_string()),
            asked: Some(now),
            ..before.clone()
        },
    }
}
