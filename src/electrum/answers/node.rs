//! What only the node can say: fees, and whether it takes a transaction.

use serde_json::{Value, json};

use crate::{
    daemon::rpc::RpcError,
    electrum::{Refusal, json, params::Args},
};

use super::Question;

/// Bitcoin Core estimates for 1 to 1008 blocks; what lies outside means the nearest.
const ESTIMATE_BLOCKS: std::ops::RangeInclusive<i64> = 1..=1008;

/// `estimate_mode` of `estimatesmartfee`. A closed list, so that no client fills the node's cache.
const ESTIMATE_MODES: [&str; 3] = ["ECONOMICAL", "CONSERVATIVE", "UNSET"];

/// `blockchain.estimatefee(number, mode=None)`
pub fn estimate_fee(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let blocks = args
        .number(0)?
        .clamp(*ESTIMATE_BLOCKS.start(), *ESTIMATE_BLOCKS.end());
    let mode = match args.text(1) {
        None => None,
        Some(asked) => Some(
            ESTIMATE_MODES
                .into_iter()
                .find(|mode| mode.eq_ignore_ascii_case(asked))
                .ok_or_else(|| {
                    Refusal::Params("mode should be ECONOMICAL, CONSERVATIVE or UNSET".to_owned())
                })?,
        ),
    };
    let blocks = u16::try_from(blocks).unwrap_or(u16::MAX);
    match question.node().estimate_fee(blocks, mode)? {
        Some(rate) => json::float(out, rate),
        None => out.extend_from_slice(b"-1"),
    }
    Ok(())
}

/// `blockchain.relayfee()`
pub fn relay_fee(question: &Question, _: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    json::float(out, question.node().relay_fee()?);
    Ok(())
}

/// `mempool.get_info()`
pub fn mempool_info(question: &Question, _: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let info = question.node().mempool_info()?;
    let rate = |name: &str| info.get(name).and_then(Value::as_f64);
    let (Some(mempool_min), Some(relay_min)) = (rate("mempoolminfee"), rate("minrelaytxfee"))
    else {
        return Err(Refusal::Daemon(
            "the node's mempool information has no fee rates".to_owned(),
        ));
    };
    // Nodes before Bitcoin Core 24 do not tell the increment; it was the relay fee by default.
    let increment = rate("incrementalrelayfee").unwrap_or(relay_min);
    out.extend_from_slice(b"{\"mempoolminfee\":");
    json::float(out, mempool_min);
    out.extend_from_slice(b",\"minrelaytxfee\":");
    json::float(out, relay_min);
    out.extend_from_slice(b",\"incrementalrelayfee\":");
    json::float(out, increment);
    out.push(b'}');
    Ok(())
}

/// `blockchain.transaction.broadcast(raw_tx)`
pub fn broadcast(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let raw_tx = raw_tx(args)?;
    match question.node().broadcast(raw_tx) {
        Ok(txid) => json::text(out, &txid),
        Err(RpcError::Refused { message, .. }) => {
            return Err(Refusal::Rejected {
                message,
                raw_tx: raw_tx.to_owned(),
            });
        }
        Err(away) => return Err(away.into()),
    }
    Ok(())
}

/// The same in 1.0: "the server must not return an error, but instead return the error message
/// string as the result".
pub fn broadcast_1_0(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    match question.node().broadcast(raw_tx(args)?) {
        Ok(text) | Err(RpcError::Refused { message: text, .. }) => json::text(out, &text),
        Err(away) => return Err(away.into()),
    }
    Ok(())
}

fn raw_tx(args: &Args) -> Result<&str, Refusal> {
    args.text(0)
        .ok_or_else(|| Refusal::Params("raw_tx is missing".to_owned()))
}

/// `blockchain.transaction.broadcast_package(raw_txs, verbose=false)`
pub fn broadcast_package(
    question: &Question,
    args: &Args,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let reply = match question.node().submit_package(args.texts(0)?) {
        Ok(reply) => reply,
        Err(RpcError::Refused { message, .. }) => {
            return Err(Refusal::PackageRejected { message });
        }
        Err(away) => return Err(away.into()),
    };
    if args.flag(1) {
        json::serde(out, &reply);
        return Ok(());
    }
    // The node's results are keyed by wtxid; wallets are told txids.
    let results = reply.get("tx-results").and_then(Value::as_object);
    let errors: Vec<Value> = results
        .into_iter()
        .flat_map(|results| results.values())
        .filter_map(|result| {
            let error = result.get("error")?;
            Some(json!({ "txid": result.get("txid"), "error": error }))
        })
        .collect();
    let success = reply.get("package_msg").and_then(Value::as_str) == Some("success");
    let mut told = json!({ "success": success });
    if !errors.is_empty() {
        told["errors"] = Value::Array(errors);
    }
    json::serde(out, &told);
    Ok(())
}

/// `blockchain.transaction.testmempoolaccept(raw_txs)`
pub fn test_mempool_accept(
    question: &Question,
    args: &Args,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let reply = question.node().test_mempool_accept(args.texts(0)?)?;
    let told: Vec<Value> = reply
        .as_array()
        .into_iter()
        .flatten()
        .map(|result| {
            let mut told = json!({ "txid": result.get("txid"), "wtxid": result.get("wtxid") });
            if let Some(Value::Bool(allowed)) = result.get("allowed") {
                told["allowed"] = Value::Bool(*allowed);
            }
            let reason = ["package-error", "reject-details", "reject-reason"]
                .into_iter()
                .filter_map(|name| result.get(name))
                .find(|reason| reason.as_str().is_some_and(|text| !text.is_empty()));
            if let Some(reason) = reason {
                told["reason"] = reason.clone();
            }
            told
        })
        .collect();
    json::serde(out, &told);
    Ok(())
}

/// `mempool.get_fee_histogram()`
pub fn fee_histogram(question: &Question, _: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    json::array(out, &question.view.fee_histogram(), |out, (rate, vsize)| {
        out.push(b'[');
        json::float(out, *rate);
        out.push(b',');
        json::integer(out, *vsize);
        out.push(b']');
    });
    Ok(())
}

/// `mempool.recent()`
pub fn recent(question: &Question, _: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    json::array(out, &question.view.recent(), |out, recent| {
        out.extend_from_slice(b"{\"txid\":");
        json::txid(out, &recent.txid);
        out.extend_from_slice(b",\"fee\":");
        json::integer(out, recent.fee);
        out.extend_from_slice(b",\"vsize\":");
        json::integer(out, recent.vsize);
        out.push(b'}');
    });
    Ok(())
}
