//! The mempool: a pure map, cheap to clone (persistent), that says what each change touched.
#![allow(unused_variables)]
use std::{collections::HashSet, sync::Arc};

use bitcoin::{OutPoint, TxOut, Txid};

use crate::chain::{MempoolEntry, ScriptHash, Unspent};

/// Which scripts and outpoints a change touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    pub scripts: HashSet<ScriptHash>,
    pub outpoints: HashSet<OutPoint>,
}

/// A transaction to be added, with the outputs that its inputs spend (same order).
#[derive(Clone, Debug)]
pub struct NewTx {
    pub bytes: Vec<u8>,
    pub spent: Vec<TxOut>,
}

/// Cloning is cheap: a View keeps one.
#[derive(Clone, Default)]
pub struct Mempool {}

/// An input of an unconfirmed transaction that spends an output of the asked script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MempoolSpend {
    pub outpoint: OutPoint,
    pub value: u64,
    pub spender: Txid,
}

impl Mempool {
    /// Removes, then adds (in any order; parents are found among what is there and what is added).
    /// `touched` includes scripts of descendants whose −1/0 height changed.
    pub fn apply(&mut self, removed: &[Txid], added: Vec<NewTx>) -> Touched {
        unimplemented!()
    }
    pub fn contains(&self, txid: &Txid) -> bool {
        unimplemented!()
    }
    pub fn txids(&self) -> Vec<Txid> {
        unimplemented!()
    }
    pub fn len(&self) -> usize {
        unimplemented!()
    }
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
    /// Raw bytes.
    pub fn transaction(&self, txid: &Txid) -> Option<Arc<[u8]>> {
        unimplemented!()
    }
    pub fn output(&self, outpoint: &OutPoint) -> Option<TxOut> {
        unimplemented!()
    }
    pub fn entry(&self, txid: &Txid) -> Option<MempoolEntry> {
        unimplemented!()
    }
    /// In the canonical order (see [`MempoolEntry::canonical_key`]).
    pub fn history(&self, script: &ScriptHash) -> Vec<MempoolEntry> {
        unimplemented!()
    }
    /// Outputs to the script that no mempool transaction spends.
    pub fn unspent(&self, script: &ScriptHash) -> Vec<Unspent> {
        unimplemented!()
    }
    /// All inputs in the mempool that spend outputs (confirmed or not) of the script.
    pub fn spends(&self, script: &ScriptHash) -> Vec<MempoolSpend> {
        unimplemented!()
    }
    /// Received minus spent by mempool transactions, in satoshis.
    pub fn balance_change(&self, script: &ScriptHash) -> i64 {
        unimplemented!()
    }
    pub fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        unimplemented!()
    }
    /// (sat/vB, vsize), strictly descending; see protocol `mempool.get_fee_histogram`.
    pub fn fee_histogram(&self) -> Vec<(f64, u64)> {
        unimplemented!()
    }
    /// Newest first: txid, fee, vsize; at most ten.
    pub fn recent(&self) -> Vec<(Txid, u64, u64)> {
        unimplemented!()
    }
}
