//! What the index is held against: the node.

use std::time::Duration;

use bitcoin::{Amount, BlockHash, Network};
use serde_json::json;

use super::{
    chain::Listed,
    coins::{CoinChange, coin_change},
};
use crate::{
    chain::{BlockView, Height, SpentOutputs, block_hash},
    daemon::{
        files::{BlockFiles, previous},
        rpc::{Rpc, RpcError},
        source::BlockSource,
    },
};

/// The node's set of unspent outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coins {
    /// Of the block that it was counted at.
    pub height: Height,
    pub hash: BlockHash,
    pub count: u64,
    pub satoshis: u64,
}

/// A block's bytes, and where they came from.
pub enum Fetched {
    /// From where the index says that they lie; a complaint where a part of them had to come from the node.
    Files {
        bytes: Vec<u8>,
        spent: SpentOutputs,
        complaint: Option<String>,
    },
    Node {
        bytes: Vec<u8>,
        spent: SpentOutputs,
    },
    /// The node does not have it (any more).
    Nowhere {
        cause: String,
    },
}

/// What is true. An error is text for the user: it ends the check.
pub trait Truth: Sync {
    fn tip(&self) -> Result<(Height, BlockHash), String>;

    /// Of the best chain, all of them.
    fn hashes(&self, start: Height, count: u32) -> Result<Vec<BlockHash>, String>;

    /// From where the index says, if that is a file; else from the node.
    fn block(&self, listed: &Listed) -> Result<Fetched, String>;

    /// From the node itself.
    fn fetch(&self, listed: &Listed) -> Result<Fetched, String>;

    /// Transactions from the genesis block up to this block; `None` if the node does not tell.
    fn tx_count(&self, hash: &BlockHash) -> Result<Option<u64>, String>;

    /// `None` if the node does not tell.
    fn coins(&self) -> Result<Option<Coins>, String>;

    /// What the blocks of these heights do to the set of unspent outputs; `None` if they do not follow on
    /// `parent`.
    fn changes(
        &self,
        from: Height,
        to: Height,
        parent: &BlockHash,
    ) -> Result<Option<Vec<CoinChange>>, String>;

    fn is_mainnet(&self) -> bool;
}

/// How long the node may count its outputs: minutes on a fast disk, more on a slow one.
pub const COUNT_PATIENCE: Duration = Duration::from_secs(2 * 3600);

/// The node, with its files where they can be read.
pub struct Node {
    pub source: BlockSource,
    pub rpc: Rpc,
    /// The same, with [`COUNT_PATIENCE`].
    pub patient: Rpc,
    pub network: Network,
}

impl Node {
    /// The block's bytes and what it spends, from where the index says.
    fn by_files(&self, files: &BlockFiles, listed: &Listed) -> Result<Fetched, String> {
        let mut bytes = Vec::new();
        files
            .block(&listed.place, &mut bytes)
            .map_err(|error| error.to_string())?;
        let block = BlockView::parse(&bytes).map_err(|error| error.to_string())?;
        if block_hash(block.header) != listed.hash {
            return Err(format!(
                "another block lies at offset {} of blk{:05}.dat",
                listed.place.offset, listed.place.file
            ));
        }
        let (mut complaint, mut undo) = (None, Vec::new());
        let spent = if listed.tx_count == 1 {
            SpentOutputs::none()
        } else if listed.place.is_undo_unsure() {
            self.source
                .fetch_spent(&listed.hash)
                .map_err(|error| error.to_string())?
        } else {
            match files.undo(
                &listed.place,
                block.header,
                listed.tx_count,
                None,
                &mut undo,
            ) {
                Ok(found) => {
                    if listed.place.undo_size > 0 && found != listed.place {
                        complaint = Some("its undo data lie elsewhere".to_owned());
                    }
                    SpentOutputs::Undo(undo)
                }
                Err(error) => {
                    complaint = Some(error.to_string());
                    self.source
                        .fetch_spent(&listed.hash)
                        .map_err(|error| error.to_string())?
                }
            }
        };
        Ok(Fetched::Files {
            bytes,
            spent,
            complaint,
        })
    }

    fn by_node(&self, hash: &BlockHash, tx_count: u32) -> Result<Fetched, String> {
        let fetched = self.source.fetch(hash).and_then(|bytes| {
            let spent = match tx_count {
                1 => SpentOutputs::none(),
                _ => self.source.fetch_spent(hash)?,
            };
            Ok((bytes, spent))
        });
        match fetched {
            Ok((bytes, spent)) => Ok(Fetched::Node { bytes, spent }),
            Err(cause) => {
                // It answers, so it is the block that is missing.
                self.rpc
                    .best_block_hash()
                    .map_err(|error| error.to_string())?;
                Ok(Fetched::Nowhere {
                    cause: cause.to_string(),
                })
            }
        }
    }
}

impl Truth for Node {
    fn tip(&self) -> Result<(Height, BlockHash), String> {
        let hash = self.rpc.best_block_hash().map_err(text)?;
        let info = self.rpc.block_header_info(&hash).map_err(text)?;
        Ok((info.height, hash))
    }

    fn hashes(&self, start: Height, count: u32) -> Result<Vec<BlockHash>, String> {
        self.rpc.block_hashes(start, count).map_err(text)
    }

    fn block(&self, listed: &Listed) -> Result<Fetched, String> {
        let files = self.source.files().filter(|_| listed.place.is_in_file());
        let Some(files) = files else {
            return self.fetch(listed);
        };
        match self.by_files(files, listed) {
            Ok(fetched) => Ok(fetched),
            Err(cause) => match self.fetch(listed)? {
                Fetched::Node { bytes, spent } => Ok(Fetched::Files {
                    bytes,
                    spent,
                    complaint: Some(cause),
                }),
                other => Ok(other),
            },
        }
    }

    fn fetch(&self, listed: &Listed) -> Result<Fetched, String> {
        self.by_node(&listed.hash, listed.tx_count)
    }

    fn tx_count(&self, hash: &BlockHash) -> Result<Option<u64>, String> {
        let stats = self.rpc.call("getchaintxstats", &[json!(1), json!(hash)]);
        match stats {
            Ok(stats) => Ok(stats["txcount"].as_u64()),
            // The genesis block alone, or a block of a branch that was left.
            Err(RpcError::Refused { .. }) => Ok(None),
            Err(error) => Err(text(error)),
        }
    }

    fn coins(&self) -> Result<Option<Coins>, String> {
        let set = match self.patient.call("gettxoutsetinfo", &[json!("none")]) {
            Ok(set) => set,
            Err(RpcError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(text(error)),
        };
        let read = || {
            let amount = Amount::from_btc(set["total_amount"].as_f64()?).ok()?;
            Some(Coins {
                height: u32::try_from(set["height"].as_u64()?).ok()?,
                hash: set["bestblock"].as_str()?.parse().ok()?,
                count: set["txouts"].as_u64()?,
                satoshis: amount.to_sat(),
            })
        };
        Ok(read())
    }

    fn changes(
        &self,
        from: Height,
        to: Height,
        parent: &BlockHash,
    ) -> Result<Option<Vec<CoinChange>>, String> {
        let (mut changes, mut parent) = (Vec::new(), *parent);
        for (height, hash) in (from..).zip(self.hashes(from, to - from + 1)?) {
            let bytes = self
                .source
                .fetch(&hash)
                .map_err(|error| error.to_string())?;
            let block = BlockView::parse(&bytes).map_err(|error| error.to_string())?;
            if previous(block.header) != parent {
                return Ok(None);
            }
            let spent = match block.tx_count {
                1 => SpentOutputs::none(),
                _ => self
                    .source
                    .fetch_spent(&hash)
                    .map_err(|error| error.to_string())?,
            };
            changes.push(coin_change(height, &block, &spent).map_err(|error| error.to_string())?);
            parent = hash;
        }
        Ok(Some(changes))
    }

    fn is_mainnet(&self) -> bool {
        self.network == Network::Bitcoin
    }
}

fn text(error: RpcError) -> String {
    error.to_string()
}
