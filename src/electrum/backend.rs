//! What a session asks: the state and the node, behind traits, so that tests bring their own.

use std::{future::Future, pin::Pin, sync::Arc};

use bitcoin::{BlockHash, OutPoint, TxOut, Txid};
use serde_json::Value;

use crate::{
    chain::{
        Balance, HeaderBytes, Height, History, MempoolEntry, MerkleProof, ScriptHash, Status,
        Unspent,
    },
    daemon::rpc::{Rpc, RpcError},
    state::{
        Ask, Changed, FoundTx, OutpointStatus, QueryError, RecentTx, State, Subscriber, Tip, View,
    },
};

use super::Stats;

/// Everything that a session needs.
pub trait Backend: Send + Sync {
    /// The newest consistent moment.
    fn answers(&self) -> Arc<dyn Answers>;
    /// A new subscriber; dropping it ends its subscriptions.
    fn listener(&self) -> Arc<dyn Listener>;
    fn node(&self) -> &dyn Node;
    fn stats(&self) -> &Stats;
}

/// One consistent moment: see [`View`].
pub trait Answers: Send + Sync {
    fn tip(&self) -> Tip;
    fn genesis(&self) -> BlockHash;
    fn progress(&self) -> Option<String>;
    fn header(&self, height: Height) -> Result<Option<HeaderBytes>, QueryError>;
    fn headers(&self, start: Height, count: u32) -> Result<Vec<u8>, QueryError>;
    fn header_proof(&self, height: Height, cp_height: Height) -> Result<MerkleProof, QueryError>;
    fn is_in_memory(&self, script: &ScriptHash) -> bool;
    fn status(&self, script: &ScriptHash, ask: &Ask) -> Result<Option<Status>, QueryError>;
    fn history(&self, script: &ScriptHash, ask: &Ask) -> Result<History, QueryError>;
    fn mempool(&self, script: &ScriptHash, ask: &Ask) -> Result<Vec<MempoolEntry>, QueryError>;
    fn balance(&self, script: &ScriptHash, ask: &Ask) -> Result<Balance, QueryError>;
    fn unspent(&self, script: &ScriptHash, ask: &Ask) -> Result<Vec<Unspent>, QueryError>;
    fn transaction(&self, txid: &Txid) -> Result<Option<FoundTx>, QueryError>;
    fn position(&self, txid: &Txid) -> Result<Option<(Height, u32)>, QueryError>;
    fn merkle_proof(&self, txid: &Txid, height: Height) -> Result<Option<MerkleProof>, QueryError>;
    fn txid_at(
        &self,
        height: Height,
        position: u32,
    ) -> Result<Option<(Txid, MerkleProof)>, QueryError>;
    fn output(&self, outpoint: &OutPoint) -> Result<Option<(TxOut, Height)>, QueryError>;
    fn outpoint_status(
        &self,
        outpoint: &OutPoint,
        script: &ScriptHash,
        ask: &Ask,
    ) -> Result<OutpointStatus, QueryError>;
    fn fee_histogram(&self) -> Arc<Vec<(f64, u64)>>;
    fn recent(&self) -> Vec<RecentTx>;
}

/// Waits for a change. Dropping it loses nothing.
pub type Change<'a> = Pin<Box<dyn Future<Output = Changed> + Send + 'a>>;

/// One session's subscriptions: see [`Subscriber`].
pub trait Listener: Send + Sync {
    fn subscribe(&self, script: ScriptHash);
    fn unsubscribe(&self, script: &ScriptHash) -> bool;
    fn watch(&self, outpoint: OutPoint);
    fn unwatch(&self, outpoint: &OutPoint) -> bool;
    fn watch_tip(&self);
    fn changed(&self) -> Change<'_>;
}

/// The node's RPC, blocking: see [`Rpc`].
pub trait Node: Send + Sync {
    fn call(&self, method: &str, params: &[Value]) -> Result<Value, RpcError>;
    fn broadcast(&self, raw_tx_hex: &str) -> Result<String, RpcError>;
    fn submit_package(&self, raw_txs_hex: &[String]) -> Result<Value, RpcError>;
    fn test_mempool_accept(&self, raw_txs_hex: &[String]) -> Result<Value, RpcError>;
    fn estimate_fee(&self, blocks: u16, mode: Option<&str>) -> Result<Option<f64>, RpcError>;
    fn mempool_info(&self) -> Result<Value, RpcError>;
    fn relay_fee(&self) -> Result<f64, RpcError>;
    fn transaction_verbose(
        &self,
        txid: &Txid,
        block: Option<&BlockHash>,
    ) -> Result<Value, RpcError>;
}

/// The real one.
pub struct Live {
    pub state: State,
    pub rpc: Rpc,
    pub stats: Arc<Stats>,
}

impl Backend for Live {
    fn answers(&self) -> Arc<dyn Answers> {
        self.state.view()
    }
    fn listener(&self) -> Arc<dyn Listener> {
        Arc::new(self.state.subscriptions().subscriber())
    }
    fn node(&self) -> &dyn Node {
        &self.rpc
    }
    fn stats(&self) -> &Stats {
        &self.stats
    }
}

impl Answers for View {
    fn tip(&self) -> Tip {
        View::tip(self)
    }
    fn genesis(&self) -> BlockHash {
        View::genesis(self)
    }
    fn progress(&self) -> Option<String> {
        View::progress(self)
    }
    fn header(&self, height: Height) -> Result<Option<HeaderBytes>, QueryError> {
        View::header(self, height)
    }
    fn headers(&self, start: Height, count: u32) -> Result<Vec<u8>, QueryError> {
        View::headers(self, start, count)
    }
    fn header_proof(&self, height: Height, cp_height: Height) -> Result<MerkleProof, QueryError> {
        View::header_proof(self, height, cp_height)
    }
    fn is_in_memory(&self, script: &ScriptHash) -> bool {
        View::is_in_memory(self, script)
    }
    fn status(&self, script: &ScriptHash, ask: &Ask) -> Result<Option<Status>, QueryError> {
        View::status(self, script, ask)
    }
    fn history(&self, script: &ScriptHash, ask: &Ask) -> Result<History, QueryError> {
        View::history(self, script, ask)
    }
    fn mempool(&self, script: &ScriptHash, ask: &Ask) -> Result<Vec<MempoolEntry>, QueryError> {
        View::mempool(self, script, ask)
    }
    fn balance(&self, script: &ScriptHash, ask: &Ask) -> Result<Balance, QueryError> {
        View::balance(self, script, ask)
    }
    fn unspent(&self, script: &ScriptHash, ask: &Ask) -> Result<Vec<Unspent>, QueryError> {
        View::unspent(self, script, ask)
    }
    fn transaction(&self, txid: &Txid) -> Result<Option<FoundTx>, QueryError> {
        View::transaction(self, txid)
    }
    fn position(&self, txid: &Txid) -> Result<Option<(Height, u32)>, QueryError> {
        View::position(self, txid)
    }
    fn merkle_proof(&self, txid: &Txid, height: Height) -> Result<Option<MerkleProof>, QueryError> {
        View::merkle_proof(self, txid, height)
    }
    fn txid_at(
        &self,
        height: Height,
        position: u32,
    ) -> Result<Option<(Txid, MerkleProof)>, QueryError> {
        View::txid_at(self, height, position)
    }
    fn output(&self, outpoint: &OutPoint) -> Result<Option<(TxOut, Height)>, QueryError> {
        View::output(self, outpoint)
    }
    fn outpoint_status(
        &self,
        outpoint: &OutPoint,
        script: &ScriptHash,
        ask: &Ask,
    ) -> Result<OutpointStatus, QueryError> {
        View::outpoint_status(self, outpoint, script, ask)
    }
    fn fee_histogram(&self) -> Arc<Vec<(f64, u64)>> {
        View::fee_histogram(self)
    }
    fn recent(&self) -> Vec<RecentTx> {
        View::recent(self)
    }
}

impl Listener for Subscriber {
    fn subscribe(&self, script: ScriptHash) {
        Subscriber::subscribe(self, script);
    }
    fn unsubscribe(&self, script: &ScriptHash) -> bool {
        Subscriber::unsubscribe(self, script)
    }
    fn watch(&self, outpoint: OutPoint) {
        Subscriber::watch(self, outpoint);
    }
    fn unwatch(&self, outpoint: &OutPoint) -> bool {
        Subscriber::unwatch(self, outpoint)
    }
    fn watch_tip(&self) {
        Subscriber::watch_tip(self);
    }
    fn changed(&self) -> Change<'_> {
        Box::pin(Subscriber::changed(self))
    }
}

impl Node for Rpc {
    fn call(&self, method: &str, params: &[Value]) -> Result<Value, RpcError> {
        Rpc::call(self, method, params)
    }
    fn broadcast(&self, raw_tx_hex: &str) -> Result<String, RpcError> {
        Rpc::broadcast(self, raw_tx_hex)
    }
    fn submit_package(&self, raw_txs_hex: &[String]) -> Result<Value, RpcError> {
        Rpc::submit_package(self, raw_txs_hex)
    }
    fn test_mempool_accept(&self, raw_txs_hex: &[String]) -> Result<Value, RpcError> {
        Rpc::test_mempool_accept(self, raw_txs_hex)
    }
    fn estimate_fee(&self, blocks: u16, mode: Option<&str>) -> Result<Option<f64>, RpcError> {
        Rpc::estimate_fee(self, blocks, mode)
    }
    fn mempool_info(&self) -> Result<Value, RpcError> {
        Rpc::mempool_info(self)
    }
    fn relay_fee(&self) -> Result<f64, RpcError> {
        Rpc::relay_fee(self)
    }
    fn transaction_verbose(
        &self,
        txid: &Txid,
        block: Option<&BlockHash>,
    ) -> Result<Value, RpcError> {
        Rpc::transaction_verbose(self, txid, block)
    }
}
