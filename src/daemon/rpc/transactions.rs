//! Calls about transactions: the mempool's, those that are to be sent, and what they pay.

use bitcoin::{BlockHash, Txid, hex::FromHex};
use serde_json::{Value, json};

use super::{
    Rpc, RpcError,
    answers::{FeeEstimate, MempoolTxids},
};

/// Transactions asked for in one batch: at 400 kB each (the relay limit), 800 characters a kB, 51 MB.
const RAW_BATCH: usize = 64;
/// Bitcoin Core's `RPC_INVALID_ADDRESS_OR_KEY`: no such transaction, no such block.
const NOT_FOUND: i32 = -5;

impl Rpc {
    /// All transactions of the node's mempool, and the number of the next ZMQ message about them.
    pub fn mempool_txids(&self) -> Result<MempoolTxids, RpcError> {
        self.ask("getrawmempool", &[json!(false), json!(true)])
    }

    /// The same, if it belongs to the block `tip`; `None` if the node's best block is another.
    pub fn mempool_txids_at(&self, tip: &BlockHash) -> Result<Option<MempoolTxids>, RpcError> {
        let call = ("getrawmempool", vec![json!(false), json!(true)]);
        let Some(answers) = self.batch_at(tip, vec![call])? else {
            return Ok(None);
        };
        let answer = answers.into_iter().next();
        let answer = answer.ok_or_else(|| RpcError::garbage("getrawmempool"))??;
        serde_json::from_value(answer)
            .map(Some)
            .map_err(|_| RpcError::garbage("getrawmempool"))
    }

    /// Transactions that are in the mempool (never confirmed ones) while `tip` is the best block; `None`
    /// if another is. In the order of the txids, and `None` where one is not in the mempool. Bound their
    /// number: they come in one exchange.
    #[allow(clippy::type_complexity)] // three plain layers: for all, for each, its bytes
    pub fn mempool_transactions_at(
        &self,
        tip: &BlockHash,
        txids: &[Txid],
    ) -> Result<Option<Vec<Option<Vec<u8>>>>, RpcError> {
        let calls = txids.iter().flat_map(|txid| {
            // A transaction index would give confirmed ones too.
            let entry = ("getmempoolentry", vec![json!(txid)]);
            let bytes = ("getrawtransaction", vec![json!(txid), json!(0)]);
            [entry, bytes]
        });
        let Some(answers) = self.batch_at(tip, calls.collect())? else {
            return Ok(None);
        };
        let mut found = Vec::with_capacity(txids.len());
        let mut answers = answers.into_iter();
        while let (Some(entry), Some(bytes)) = (answers.next(), answers.next()) {
            let bytes = raw_transaction(bytes)?;
            found.push(match entry {
                Ok(_) => bytes,
                Err(error) if is_not_found(&error) => None,
                Err(error) => return Err(error),
            });
        }
        Ok(Some(found))
    }

    /// In the order of the txids; `None` where the transaction is in the mempool no more. (A node with a
    /// transaction index gives confirmed ones too.)
    pub fn raw_transactions(&self, txids: &[Txid]) -> Result<Vec<Option<Vec<u8>>>, RpcError> {
        let mut found = Vec::with_capacity(txids.len());
        for chunk in txids.chunks(RAW_BATCH) {
            let calls: Vec<_> = chunk
                .iter()
                .map(|txid| ("getrawtransaction", vec![json!(txid), json!(0)]))
                .collect();
            for answer in self.batch(&calls)? {
                found.push(raw_transaction(answer)?);
            }
        }
        Ok(found)
    }

    pub fn broadcast(&self, raw_tx_hex: &str) -> Result<String, RpcError> {
        self.ask("sendrawtransaction", &[json!(raw_tx_hex)])
    }

    pub fn submit_package(&self, raw_txs_hex: &[String]) -> Result<Value, RpcError> {
        self.ask("submitpackage", &[json!(raw_txs_hex)])
    }

    pub fn test_mempool_accept(&self, raw_txs_hex: &[String]) -> Result<Value, RpcError> {
        self.ask("testmempoolaccept", &[json!(raw_txs_hex)])
    }

    /// BTC/kvB, or `None` where the node has no estimate. Cached until [`Rpc::drop_fee_cache`].
    pub fn estimate_fee(&self, blocks: u16, mode: Option<&str>) -> Result<Option<f64>, RpcError> {
        self.inner.fees.estimate(blocks, mode, |mode| {
            let mut params = vec![json!(blocks)];
            params.extend(mode.map(|mode| json!(mode)));
            let answer: FeeEstimate = self.ask("estimatesmartfee", &params)?;
            Ok(answer.feerate.filter(|rate| *rate >= 0.0))
        })
    }

    /// Forgets all estimates. To be called at each new block, before anyone is told of it: who then asks
    /// gets the new estimate.
    pub fn drop_fee_cache(&self) {
        self.inner.fees.clear();
    }

    pub fn mempool_info(&self) -> Result<Value, RpcError> {
        self.ask("getmempoolinfo", &[])
    }

    /// BTC/kvB
    pub fn relay_fee(&self) -> Result<f64, RpcError> {
        self.network_info().map(|info| info.relay_fee)
    }

    /// `getrawtransaction txid 1 [blockhash]`
    pub fn transaction_verbose(
        &self,
        txid: &Txid,
        block: Option<&BlockHash>,
    ) -> Result<Value, RpcError> {
        let mut params = vec![json!(txid), json!(1)];
        params.extend(block.map(|hash| json!(hash)));
        self.ask("getrawtransaction", &params)
    }

    /// A batch between two looks at the best block; `None` unless both show `tip`. The node works
    /// through a batch in order.
    fn batch_at(
        &self,
        tip: &BlockHash,
        calls: Vec<(&str, Vec<Value>)>,
    ) -> Result<Option<Vec<Result<Value, RpcError>>>, RpcError> {
        let look = || ("getbestblockhash", Vec::new());
        let framed: Vec<_> = std::iter::once(look())
            .chain(calls)
            .chain(std::iter::once(look()))
            .collect();
        let mut answers = self.batch(&framed)?;
        let after = answers.pop();
        let before = (!answers.is_empty()).then(|| answers.remove(0));
        for answer in [before, after] {
            let garbage = || RpcError::garbage("getbestblockhash");
            let best: BlockHash =
                serde_json::from_value(answer.ok_or_else(garbage)??).map_err(|_| garbage())?;
            if best != *tip {
                return Ok(None);
            }
        }
        Ok(Some(answers))
    }
}

/// The bytes in an answer to `getrawtransaction`; `None` where the node does not have it.
pub(super) fn raw_transaction(
    answer: Result<Value, RpcError>,
) -> Result<Option<Vec<u8>>, RpcError> {
    let garbage = || RpcError::garbage("getrawtransaction");
    match answer {
        Ok(Value::String(hex)) => Vec::<u8>::from_hex(&hex).map(Some).map_err(|_| garbage()),
        Ok(_) => Err(garbage()),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// True of the node's word that it has no such transaction or block.
pub(super) fn is_not_found(error: &RpcError) -> bool {
    matches!(
        error,
        RpcError::Refused {
            code: NOT_FOUND,
            ..
        }
    )
}
