//! Block bytes and spent outputs, from files, REST or RPC.
#![allow(unused_variables)]
use bitcoin::BlockHash;

use crate::chain::{BlockPlace, SpentOutputs};

/// Why a block cannot be had now.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// Reads blocks; shared by all threads.
pub struct BlockSource {}

impl BlockSource {
    /// A part of a block, appended to nothing: `out` is cleared and filled with `size` bytes from `offset` in the block.
    /// Files: one positioned read. REST/RPC: from a bounded cache of whole blocks, fetched once for all who wait.
    pub fn read_part(
        &self,
        hash: &dyn Fn() -> Result<BlockHash, SourceError>,
        place: &BlockPlace,
        offset: u32,
        size: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), SourceError> {
        unimplemented!()
    }
    pub fn block(&self, hash: &BlockHash, place: &BlockPlace) -> Result<Vec<u8>, SourceError> {
        unimplemented!()
    }
    pub fn spent(&self, hash: &BlockHash, place: &BlockPlace) -> Result<SpentOutputs, SourceError> {
        unimplemented!()
    }
}
