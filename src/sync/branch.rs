//! Blocks' rows, of the branch that is coming and of the one that is left, from the files or from the node.

use std::sync::Arc;

use bitcoin::BlockHash;

use super::{Stats, SyncError, places::Places};
use crate::{
    chain::{BlockPlace, BlockView, Height, TxNum},
    daemon::{
        rpc::{Rpc, RpcError},
        source::BlockSource,
    },
    index::{BlockRows, Index},
};

/// A height that the node named a moment ago is above its tip now, where a reorganization takes blocks away
/// before the new ones come (`invalidateblock` does so block by block).
pub fn about_heights(error: RpcError) -> SyncError {
    /// Bitcoin Core's `RPC_INVALID_PARAMETER`: "Block height out of range".
    const OUT_OF_RANGE: i32 = -8;
    match error {
        RpcError::Refused { code, .. } if code == OUT_OF_RANGE => SyncError::ChainChanged,
        error => error.into(),
    }
}

/// Blocks that go into one batch, and into one View, at most.
pub const BATCH_BLOCKS_MAX: u32 = 32;

/// Bytes of blocks in one batch; the block that passes the bound is still in it.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Makes blocks' rows.
pub struct Branches {
    index: Arc<Index>,
    source: Arc<BlockSource>,
    rpc: Rpc,
    places: Option<Places>,
    stats: Arc<Stats>,
}

impl Branches {
    pub fn new(
        index: Arc<Index>,
        source: Arc<BlockSource>,
        rpc: Rpc,
        stats: Arc<Stats>,
    ) -> Branches {
        Branches {
            index,
            source,
            rpc,
            places: None,
            stats,
        }
    }

    /// The rows of our blocks from `top` down to `lowest`, made again from the stale blocks' bytes.
    pub fn stale(&self, top: Height, lowest: Height) -> Result<Vec<BlockRows>, SyncError> {
        let mut stale = Vec::new();
        for height in (lowest..=top).rev() {
            let Some(block) = self.index.block(height)? else {
                return Err(SyncError::Node(format!("block {height} is not indexed")));
            };
            stale.push(self.rows(height, block.first_tx, &block.hash, block.place)?);
        }
        Ok(stale)
    }

    /// The rows of the node's blocks from `first` on, each built on the one before: up to `to`, or as many as fit
    /// a batch.
    pub fn coming(
        &mut self,
        mut parent: Option<BlockHash>,
        first: Height,
        mut first_tx: TxNum,
        to: Height,
    ) -> Result<Vec<BlockRows>, SyncError> {
        let mut branch: Vec<BlockRows> = Vec::new();
        let mut bytes = 0;
        let count = (to - first + 1).min(BATCH_BLOCKS_MAX);
        let hashes = self.rpc.block_hashes(first, count).map_err(about_heights)?;
        for (height, hash) in (first..).zip(hashes) {
            self.stats.beat();
            let place = self.place(&hash);
            let rows = self.rows(height, first_tx, &hash, place)?;
            if parent
                .is_some_and(|parent| crate::daemon::files::previous(&rows.block.header) != parent)
            {
                // The node has just reorganized; what is there is a chain all the same.
                break;
            }
            first_tx = rows.next_tx();
            parent = Some(hash);
            bytes += rows.block.place.size as usize;
            branch.push(rows);
            if bytes >= BATCH_BYTES_MAX {
                break;
            }
        }
        if branch.is_empty() {
            return Err(SyncError::ChainChanged);
        }
        Ok(branch)
    }

    fn place(&mut self, hash: &BlockHash) -> BlockPlace {
        let nowhere = BlockPlace::in_no_file(0);
        let Some(files) = self.source.files() else {
            return nowhere;
        };
        let index = &self.index;
        let places = self.places.get_or_insert_with(|| {
            let tip = index
                .tip()
                .ok()
                .flatten()
                .and_then(|tip| index.block(tip.height).ok().flatten());
            let place = tip.map(|block| block.place);
            let place = place.filter(BlockPlace::is_in_file);
            Places::new(place.map_or(0, |place| place.file))
        });
        match places.find(files, hash) {
            Ok(Some(place)) => place,
            Ok(None) => {
                tracing::debug!("block {hash} is in no file; asking the node for it");
                nowhere
            }
            Err(error) => {
                tracing::warn!("{error}; asking the node for block {hash}");
                nowhere
            }
        }
    }

    fn rows(
        &self,
        height: Height,
        first_tx: TxNum,
        hash: &BlockHash,
        mut place: BlockPlace,
    ) -> Result<BlockRows, SyncError> {
        let bad = |error| SyncError::BadBlock {
            height,
            hash: *hash,
            error,
        };
        let read = |place: &mut BlockPlace| {
            let bytes = self.source.block(hash, place)?;
            if !place.is_in_file() {
                place.size = bytes.len() as u32;
            }
            let block = BlockView::parse(&bytes).map_err(bad)?;
            let (spent, found) = self
                .source
                .spent(hash, block.header, block.tx_count, place)?;
            let rows = BlockRows::of(
                height,
                first_tx,
                found,
                &block,
                spent.reader().map_err(bad)?,
            )
            .map_err(bad)?;
            if rows.block.hash != *hash {
                return Err(SyncError::Node(format!(
                    "another block lies where block {hash} should"
                )));
            }
            Ok(rows)
        };
        match read(&mut place) {
            Err(error @ (SyncError::BadBlock { .. } | SyncError::Node(_)))
                if place.is_in_file() =>
            {
                tracing::warn!(
                    "block {height} ({place}) cannot be read from the files: {error}; asking the node for it"
                );
                let bytes = self.source.fetch(hash)?;
                let block = BlockView::parse(&bytes).map_err(bad)?;
                let spent = match block.tx_count {
                    1 => crate::chain::SpentOutputs::none(),
                    _ => self.source.fetch_spent(hash)?,
                };
                BlockRows::of(
                    height,
                    first_tx,
                    self.source.place_again(place, &bytes),
                    &block,
                    spent.reader().map_err(bad)?,
                )
                .map_err(bad)
            }
            read => read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_height_that_is_gone_is_no_trouble_of_the_node() {
        let refused = |code| RpcError::Refused {
            code,
            message: "Block height out of range".to_owned(),
        };
        assert!(matches!(
            about_heights(refused(-8)),
            SyncError::ChainChanged
        ));
        assert!(matches!(about_heights(refused(-1)), SyncError::Node(_)));
        let away = RpcError::Unavailable("no answer".to_owned());
        assert!(matches!(about_heights(away), SyncError::Node(_)));
    }
}
