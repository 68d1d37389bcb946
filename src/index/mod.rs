//! The index: which transactions touch a script, where a transaction lies, what the chain is.
#![allow(unused_variables)]
use bitcoin::{BlockHash, Txid};

use crate::chain::{BlockPlace, HeaderBytes, Height, ScriptHash, TxNum};

/// The database failed: corrupt, full, or gone. For the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct IndexError(pub String);

/// A row of the `block` column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRow {
    pub header: HeaderBytes,
    pub hash: BlockHash,
    /// The coinbase's number.
    pub first_tx: TxNum,
    pub tx_count: u32,
    pub place: BlockPlace,
}

/// Where a transaction lies in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxPlace {
    /// From the block's first byte.
    pub offset: u32,
    pub size: u32,
}

pub struct Index {}

impl Index {
    /// Candidates: all transactions that touch a script whose hash has the same prefix, ascending,
    /// `from <= n < below`. Strangers may be among them.
    pub fn touching(
        &self,
        script: &ScriptHash,
        from: TxNum,
        below: TxNum,
    ) -> impl Iterator<Item = Result<TxNum, IndexError>> + '_ {
        std::iter::from_fn(|| unimplemented!())
    }
    /// Candidates: all transactions whose txid has the same prefix.
    pub fn numbered(
        &self,
        txid: &Txid,
        below: TxNum,
    ) -> impl Iterator<Item = Result<TxNum, IndexError>> + '_ {
        std::iter::from_fn(|| unimplemented!())
    }
    /// Where transaction `n` lies in its block. For many ascending numbers use one [`Index::tx_places`] cursor.
    pub fn tx_place(&self, n: TxNum) -> Result<Option<TxPlace>, IndexError> {
        unimplemented!()
    }
    /// A cursor that remembers the chunk it is in: cheap for ascending numbers.
    pub fn tx_places(&self) -> TxPlaces<'_> {
        unimplemented!()
    }
    /// All places of `count` transactions from `first` on (a block's).
    pub fn tx_places_of(&self, first: TxNum, count: u32) -> Result<Vec<TxPlace>, IndexError> {
        unimplemented!()
    }
    pub fn block(&self, height: Height) -> Result<Option<BlockRow>, IndexError> {
        unimplemented!()
    }
    /// Rows of the heights from `start` on, ascending.
    pub fn blocks_from(
        &self,
        start: Height,
    ) -> impl Iterator<Item = Result<(Height, BlockRow), IndexError>> + '_ {
        std::iter::from_fn(|| unimplemented!())
    }
}

pub struct TxPlaces<'a> {
    _index: std::marker::PhantomData<&'a Index>,
}

impl TxPlaces<'_> {
    pub fn get(&mut self, n: TxNum) -> Result<Option<TxPlace>, IndexError> {
        unimplemented!()
    }
}
