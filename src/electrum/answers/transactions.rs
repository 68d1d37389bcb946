//! Transactions: their bytes, where they stand, and the proof of it.

use bitcoin::{Address, BlockHash, Txid};

use crate::{
    chain::{ScriptHash, block_hash},
    daemon::rpc::RpcError,
    electrum::{Refusal, json, params::Args},
};

use super::{Question, headers::header_at, scripts::outpoint};

/// Bitcoin Core's `RPC_INVALID_ADDRESS_OR_KEY`: it has no such transaction.
const NOT_FOUND: i32 = -5;

/// Bitcoin Core's words for it where it has a `txindex`; wallets look for them (Sparrow for how they begin).
fn unknown() -> Refusal {
    Refusal::Daemon("No such mempool or blockchain transaction.".to_owned())
}

/// `blockchain.transaction.get(tx_hash, verbose=false)`
pub fn get(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let txid = args.txid(0)?;
    if args.flag(1) {
        let block = confirmed_in(question, &txid)?.map(|(_, hash)| hash);
        let verbose = question.node().transaction_verbose(&txid, block.as_ref());
        let verbose = verbose.map_err(|error| match error {
            // Its own words would send a wallet's owner to a setting of the node's that Ambra does not need.
            RpcError::Refused {
                code: NOT_FOUND, ..
            } if block.is_none() => unknown(),
            error => error.into(),
        })?;
        json::serde(out, &verbose);
        return Ok(());
    }
    let found = question.view.transaction(&txid)?.ok_or_else(unknown)?;
    json::hex(out, &found.bytes);
    Ok(())
}

/// `blockchain.transaction.get` of 1.0 and 1.1: no more than the bytes. 1.0's second argument, the
/// height, is ignored.
pub fn get_bytes(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let found = question
        .view
        .transaction(&args.txid(0)?)?
        .ok_or_else(unknown)?;
    json::hex(out, &found.bytes);
    Ok(())
}

/// `blockchain.transaction.get_merkle(tx_hash, height)`; like Fulcrum, it finds the height where none
/// is given.
pub fn merkle(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let txid = args.txid(0)?;
    let height = match args.height(1) {
        Ok(height) => height,
        Err(_) => match question.view.position(&txid)? {
            Some((height, _)) => height,
            None => return Err(Refusal::Bad(format!("tx {txid} is in no block"))),
        },
    };
    let proof = question
        .view
        .merkle_proof(&txid, height)?
        .ok_or_else(|| Refusal::Bad(format!("tx {txid} not in block at height {height}")))?;
    out.extend_from_slice(b"{\"block_height\":");
    json::integer(out, height);
    out.extend_from_slice(b",\"merkle\":");
    json::hashes(out, &proof.branch);
    out.extend_from_slice(b",\"pos\":");
    json::integer(out, proof.position);
    out.push(b'}');
    Ok(())
}

/// `blockchain.transaction.id_from_pos(height, tx_pos, merkle=false)`
pub fn id_from_position(
    question: &Question,
    args: &Args,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let height = args.height(0)?;
    let position = args.height(1)?;
    let (txid, proof) = question.view.txid_at(height, position)?.ok_or_else(|| {
        Refusal::Bad(format!(
            "no tx at position {position} in block at height {height}"
        ))
    })?;
    if !args.flag(2) {
        json::txid(out, &txid);
        return Ok(());
    }
    out.extend_from_slice(b"{\"tx_hash\":");
    json::txid(out, &txid);
    out.extend_from_slice(b",\"merkle\":");
    json::hashes(out, &proof.branch);
    out.push(b'}');
    Ok(())
}

/// `blockchain.transaction.get_height(tx_hash)`: 0 in the mempool, null where unknown.
pub fn height(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let found = question.view.transaction(&args.txid(0)?)?;
    match found.map(|found| found.confirmed) {
        Some(Some((height, _))) => json::integer(out, height),
        Some(None) => out.push(b'0'),
        None => out.extend_from_slice(b"null"),
    }
    Ok(())
}

/// `blockchain.transaction.get_confirmed_blockhash(tx_hash, include_header=false)`
pub fn confirmed_block(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let txid = args.txid(0)?;
    let (height, hash) = confirmed_in(question, &txid)?
        .ok_or_else(|| Refusal::Bad(format!("tx {txid} is in no block")))?;
    out.extend_from_slice(b"{\"block_hash\":");
    json::hash(out, hash.as_ref());
    out.extend_from_slice(b",\"block_height\":");
    json::integer(out, height);
    if args.flag(1) {
        out.extend_from_slice(b",\"block_header\":");
        json::hex(out, &header_at(question, height)?);
    }
    out.push(b'}');
    Ok(())
}

fn confirmed_in(question: &Question, txid: &Txid) -> Result<Option<(u32, BlockHash)>, Refusal> {
    let Some((height, _)) = question.view.position(txid)? else {
        return Ok(None);
    };
    let header = header_at(question, height)?;
    Ok(Some((height, block_hash(&header))))
}

/// `blockchain.utxo.get_address(tx_hash, index)`: null where there is no such output, or no address.
pub fn output_address(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let output = question.view.output(&outpoint(args)?)?;
    let address = output.and_then(|(output, _)| {
        Address::from_script(&output.script_pubkey, question.settings.network).ok()
    });
    match address {
        Some(address) => json::text(out, &address.to_string()),
        None => out.extend_from_slice(b"null"),
    }
    Ok(())
}

/// `blockchain.utxo.get_info(tx_hash, out_n)`: null where it is spent or was never there.
pub fn output_info(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let outpoint = outpoint(args)?;
    let null = |out: &mut Vec<u8>| out.extend_from_slice(b"null");
    let Some((output, height)) = question.view.output(&outpoint)? else {
        null(out);
        return Ok(());
    };
    let script = ScriptHash::new(output.script_pubkey.as_bytes());
    let status = question
        .view
        .outpoint_status(&outpoint, &script, &question.ask)?;
    if status.spender.is_some() {
        null(out);
        return Ok(());
    }
    out.push(b'{');
    if height > 0 {
        out.extend_from_slice(b"\"confirmed_height\":");
        json::integer(out, height);
        out.push(b',');
    }
    out.extend_from_slice(b"\"scripthash\":");
    json::hash(out, &script.0);
    out.extend_from_slice(b",\"value\":");
    json::integer(out, output.value.to_sat());
    out.push(b'}');
    Ok(())
}
