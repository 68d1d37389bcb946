//! bitcoind's RPC: blocking calls, each with a deadline. Used from blocking threads only.
use serde_json::Value;

/// What a caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The node is away, loading, or overloaded: wait and try again. The text says which.
    #[error("{0}")]
    Unavailable(String),
    /// The node understood and refused: its code and its own words.
    #[error("{message} (code {code})")]
    Refused { code: i32, message: String },
}

/// A handle on the node's RPC; cheap to clone, shared by threads.
#[derive(Clone)]
pub struct Rpc {}

#[allow(unused_variables)]
impl Rpc {
    /// Any method: the generic call.
    pub fn call(&self, method: &str, params: &[Value]) -> Result<Value, RpcError> {
        unimplemented!()
    }
    pub fn broadcast(&self, raw_tx_hex: &str) -> Result<String, RpcError> {
        unimplemented!()
    }
    pub fn submit_package(&self, raw_txs_hex: &[String]) -> Result<Value, RpcError> {
        unimplemented!()
    }
    pub fn test_mempool_accept(&self, raw_txs_hex: &[String]) -> Result<Value, RpcError> {
        unimplemented!()
    }
    /// BTC/kvB, or `None` where the node has no estimate. Cached until the next block by the implementation.
    pub fn estimate_fee(&self, blocks: u16, mode: Option<&str>) -> Result<Option<f64>, RpcError> {
        unimplemented!()
    }
    pub fn mempool_info(&self) -> Result<Value, RpcError> {
        unimplemented!()
    }
    /// BTC/kvB
    pub fn relay_fee(&self) -> Result<f64, RpcError> {
        unimplemented!()
    }
    /// `getrawtransaction txid 1 [blockhash]`
    pub fn transaction_verbose(
        &self,
        txid: &bitcoin::Txid,
        block: Option<&bitcoin::BlockHash>,
    ) -> Result<Value, RpcError> {
        unimplemented!()
    }
}
