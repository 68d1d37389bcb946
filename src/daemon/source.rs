//! Block bytes and spent outputs, from files, REST or RPC: the same bytes from each.

use std::sync::Arc;

use bitcoin::BlockHash;

use super::{files::BlockFiles, rest::Rest, rpc::Rpc};
use crate::chain::{BlockPlace, HeaderBytes, SpentOutputs};

/// Memory for whole blocks that REST or RPC gave, in bytes: about 60 of mainnet's.
const BLOCK_CACHE_BYTES: u64 = 96 << 20;

/// Why a block cannot be had now.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// Where blocks come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    Files,
    Rest,
    Rpc,
}

impl SourceKind {
    pub fn name(self) -> &'static str {
        match self {
            SourceKind::Files => "files",
            SourceKind::Rest => "REST",
            SourceKind::Rpc => "RPC",
        }
    }
}

#[derive(Clone)]
struct BlockBytes;

impl quick_cache::Weighter<BlockHash, Arc<Vec<u8>>> for BlockBytes {
    fn weight(&self, _: &BlockHash, block: &Arc<Vec<u8>>) -> u64 {
        block.len() as u64 + 64
    }
}

/// Reads blocks; shared by all threads.
pub struct BlockSource {
    files: Option<BlockFiles>,
    rest: Option<Rest>,
    rpc: Rpc,
    blocks: quick_cache::sync::Cache<BlockHash, Arc<Vec<u8>>, BlockBytes>,
}

impl BlockSource {
    /// The best of what is given: files, else REST, else RPC. What fails is asked of the next.
    pub fn new(files: Option<BlockFiles>, rest: Option<Rest>, rpc: Rpc) -> BlockSource {
        let blocks = quick_cache::sync::Cache::with_weighter(256, BLOCK_CACHE_BYTES, BlockBytes);
        BlockSource {
            files,
            rest,
            rpc,
            blocks,
        }
    }

    pub fn kind(&self) -> SourceKind {
        match (&self.files, &self.rest) {
            (Some(_), _) => SourceKind::Files,
            (None, Some(_)) => SourceKind::Rest,
            (None, None) => SourceKind::Rpc,
        }
    }

    pub fn rest(&self) -> Option<&Rest> {
        self.rest.as_ref()
    }

    pub fn files(&self) -> Option<&BlockFiles> {
        self.files.as_ref()
    }

    /// `size` bytes from `offset` in a block: `out` is cleared and filled. Files: one positioned read.
    /// REST and RPC: from a bounded cache of whole blocks, each fetched once for all who wait.
    pub fn read_part(
        &self,
        hash: &dyn Fn() -> Result<BlockHash, SourceError>,
        place: &BlockPlace,
        offset: u32,
        size: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), SourceError> {
        if let Some(files) = self
            .files
            .as_ref()
            .filter(|_| place.file != BlockPlace::NOWHERE)
        {
            match files.part(place, offset, size, out) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::debug!("{error}; asking the node"),
            }
        }
        let hash = hash()?;
        let block = self
            .blocks
            .get_or_insert_with(&hash, || self.fetch(&hash).map(Arc::new))?;
        let part = block
            .get(offset as usize..)
            .and_then(|rest| rest.get(..size as usize))
            .ok_or_else(|| SourceError(format!("block {hash} is shorter than the index says")))?;
        out.clear();
        out.extend_from_slice(part);
        Ok(())
    }

    /// A whole block.
    pub fn block(&self, hash: &BlockHash, place: &BlockPlace) -> Result<Vec<u8>, SourceError> {
        if let Some(files) = self
            .files
            .as_ref()
            .filter(|_| place.file != BlockPlace::NOWHERE)
        {
            let mut out = Vec::new();
            match files.block(place, &mut out) {
                Ok(()) => return Ok(out),
                Err(error) => tracing::warn!("{error}; asking the node for block {hash}"),
            }
        }
        self.fetch(hash)
    }

    /// The outputs that a block spends.
    pub fn spent(
        &self,
        hash: &BlockHash,
        header: &HeaderBytes,
        tx_count: u32,
        place: &BlockPlace,
    ) -> Result<(SpentOutputs, BlockPlace), SourceError> {
        if tx_count == 1 {
            return Ok((SpentOutputs::none(), *place));
        }
        if let Some(files) = self
            .files
            .as_ref()
            .filter(|_| place.file != BlockPlace::NOWHERE && !place.is_undo_unsure())
        {
            let mut out = Vec::new();
            match files.undo(place, header, tx_count, None, &mut out) {
                Ok(place) => return Ok((SpentOutputs::Undo(out), place)),
                Err(error) => tracing::warn!("{error}; asking the node for block {hash}"),
            }
        }
        Ok((self.fetch_spent(hash)?, *place))
    }

    /// A whole block from the node, not from files.
    pub fn fetch(&self, hash: &BlockHash) -> Result<Vec<u8>, SourceError> {
        if let Some(rest) = &self.rest {
            match rest.block(hash) {
                Ok(block) => return Ok(block),
                Err(error) => tracing::debug!("REST: {error}; asking RPC for block {hash}"),
            }
        }
        self.rpc
            .block(hash)
            .map_err(|error| SourceError(error.to_string()))
    }

    /// Spent outputs from the node, not from files.
    pub fn fetch_spent(&self, hash: &BlockHash) -> Result<SpentOutputs, SourceError> {
        if let Some(rest) = &self.rest {
            match rest.spent(hash) {
                Ok(Some(spent)) => return Ok(spent),
                Ok(None) => {
                    tracing::debug!("REST has no spent outputs; asking RPC for block {hash}")
                }
                Err(error) => tracing::debug!("REST: {error}; asking RPC for block {hash}"),
            }
        }
        self.rpc
            .spent(hash)
            .map_err(|error| SourceError(error.to_string()))
    }
}
