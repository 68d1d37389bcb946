//! What the disk knows: index rows and block bytes. The one door of this room to both, so that its tests
//! can stand on blocks in memory.

use std::{ops::ControlFlow, sync::Arc};

use bitcoin::Txid;

use super::{QueryError, table::TableBlock};
use crate::{
    chain::{Height, Node, ScriptHash, TxNum},
    daemon::source::{BlockSource, SourceError, SourceKind},
    index::{BlockRow, Index, IndexError, TxPlace},
};

/// Finds a transaction's place in the block that contains it; cheap for ascending numbers.
pub(super) type Places<'a> = Box<dyn FnMut(&TableBlock, TxNum) -> Result<TxPlace, QueryError> + 'a>;

/// See [`Index`] and [`BlockSource`] for what each question means.
pub(super) trait Archive: Send + Sync {
    fn touching(
        &self,
        script: &ScriptHash,
        from: TxNum,
        below: TxNum,
        each: &mut dyn FnMut(TxNum) -> ControlFlow<()>,
    ) -> Result<(), QueryError>;

    fn numbered(
        &self,
        txid: &Txid,
        below: TxNum,
        each: &mut dyn FnMut(TxNum) -> Result<ControlFlow<()>, QueryError>,
    ) -> Result<(), QueryError>;

    fn places(&self) -> Places<'_>;

    fn block_row(&self, height: Height) -> Result<Option<BlockRow>, QueryError>;

    fn blocks_from(
        &self,
        start: Height,
        each: &mut dyn FnMut(Height, BlockRow) -> ControlFlow<()>,
    ) -> Result<(), QueryError>;

    /// The row of the block's merkle tree over groups of transactions ([`crate::index::MERKLE_GROUP_BITS`]), where it is
    /// known. To be held against the header.
    fn merkle_row(&self, block: &TableBlock) -> Option<Vec<Node>>;

    /// Fills `out` with the block's bytes from `offset` on.
    fn read(&self, block: &TableBlock, offset: u32, out: &mut [u8]) -> Result<(), QueryError>;

    /// Some of the block's bytes are not those that were indexed: sees to it that they are read from elsewhere. An error
    /// where that is not possible.
    fn heal(&self, block: &TableBlock) -> Result<(), QueryError>;

    /// Bytes between two wanted parts that are rather read than skipped.
    fn gap_bytes(&self) -> u32;
}

/// The index and the node's blocks.
pub(super) struct Disk {
    pub index: Arc<Index>,
    pub source: Arc<BlockSource>,
}

impl From<IndexError> for QueryError {
    fn from(error: IndexError) -> QueryError {
        QueryError::Unavailable(error.to_string())
    }
}

impl From<SourceError> for QueryError {
    fn from(error: SourceError) -> QueryError {
        QueryError::Unavailable(error.to_string())
    }
}

impl Archive for Disk {
    fn touching(
        &self,
        script: &ScriptHash,
        from: TxNum,
        below: TxNum,
        each: &mut dyn FnMut(TxNum) -> ControlFlow<()>,
    ) -> Result<(), QueryError> {
        for n in self.index.touching(script, from, below) {
            if each(n?).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn numbered(
        &self,
        txid: &Txid,
        below: TxNum,
        each: &mut dyn FnMut(TxNum) -> Result<ControlFlow<()>, QueryError>,
    ) -> Result<(), QueryError> {
        for n in self.index.numbered(txid, below) {
            if each(n?)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn places(&self) -> Places<'_> {
        let mut places = self.index.tx_places();
        Box::new(move |block, n| {
            let place = places.get_in(n, &block.txs())?;
            place.ok_or_else(|| {
                QueryError::Unavailable(format!("the index has no place of transaction {n}"))
            })
        })
    }

    fn block_row(&self, height: Height) -> Result<Option<BlockRow>, QueryError> {
        Ok(self.index.block(height)?)
    }

    fn blocks_from(
        &self,
        start: Height,
        each: &mut dyn FnMut(Height, BlockRow) -> ControlFlow<()>,
    ) -> Result<(), QueryError> {
        for row in self.index.blocks_from(start) {
            let (height, row) = row?;
            if each(height, row).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn merkle_row(&self, block: &TableBlock) -> Option<Vec<Node>> {
        self.index.merkle_row(block.height, &block.txs())
    }

    fn read(&self, block: &TableBlock, offset: u32, out: &mut [u8]) -> Result<(), QueryError> {
        let hash = || match self.index.block(block.height) {
            Ok(Some(row)) => Ok(row.hash),
            Ok(None) => Err(SourceError(format!(
                "the index has no block {}",
                block.height
            ))),
            Err(error) => Err(SourceError(error.to_string())),
        };
        Ok(self.source.read_part(&hash, &block.place, offset, out)?)
    }

    fn heal(&self, block: &TableBlock) -> Result<(), QueryError> {
        match self.index.block(block.height)? {
            Some(row) => Ok(self.source.distrust(&row.hash, &block.place)?),
            None => Err(QueryError::Unavailable(format!(
                "the index has no block {}",
                block.height
            ))),
        }
    }

    fn gap_bytes(&self) -> u32 {
        match self.source.kind() {
            // A read of a file costs as much as copying some kilobytes.
            SourceKind::Files => 4 << 10,
            // An exchange with the node costs as much as a quarter of a megabyte.
            SourceKind::Rest | SourceKind::Rpc => 256 << 10,
        }
    }
}
