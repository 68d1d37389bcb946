//! What a node that is none might answer, given to what reads it.

use bitcoincore_rpc::jsonrpc::Response;
use serde_json::Value;

use super::{
    answers, sorted, spent,
    transactions::{is_not_found, raw_transaction},
};
use crate::chain::SpentOutputs;

/// `which` names the reader.
pub fn answer(which: u8, bytes: &[u8]) {
    match which % 8 {
        0 => drop(serde_json::from_slice::<answers::ChainInfo>(bytes)),
        1 => drop(serde_json::from_slice::<answers::NetworkInfo>(bytes)),
        2 => drop(serde_json::from_slice::<answers::BlockHeaderInfo>(bytes)),
        3 => drop(serde_json::from_slice::<Vec<answers::ZmqNotification>>(
            bytes,
        )),
        4 => drop(serde_json::from_slice::<answers::MempoolTxids>(bytes)),
        5 => drop(serde_json::from_slice::<answers::FeeEstimate>(bytes)),
        6 => envelope(bytes),
        _ => spent_of(bytes),
    }
}

fn envelope(bytes: &[u8]) {
    let Ok(responses) = serde_json::from_slice::<Vec<Response>>(bytes) else {
        return;
    };
    for response in responses {
        let answer = response.result::<Value>();
        let answer = raw_transaction(answer.map_err(|error| sorted(error, "a call")));
        let _ = answer.is_err_and(|error| is_not_found(&error));
    }
}

/// What is made of `getblock` 3 must be what REST would have said.
fn spent_of(bytes: &[u8]) {
    let Ok(block) = serde_json::from_slice::<spent::Block<'_>>(bytes) else {
        return;
    };
    let Ok(bytes) = spent::rest_bytes(&block) else {
        return;
    };
    let spent = SpentOutputs::Rest(bytes);
    let Ok(mut reader) = spent.reader() else {
        return;
    };
    while reader.txs_left() > 0 {
        for _ in 0..reader.next_tx().expect("our own bytes") {
            reader.next_output().expect("our own bytes");
        }
    }
    reader.finish().expect("our own bytes");
}
