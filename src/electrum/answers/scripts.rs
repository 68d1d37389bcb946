//! What is known of a script: by its hash, by an address, or by the script itself.

use bitcoin::OutPoint;

use crate::{
    chain::{Confirmed, Height, MempoolEntry, Status, Unspent},
    electrum::{Refusal, json, params::Args, version::Version},
    state::OutpointStatus,
};

use super::Question;

/// Bytes of JSON that an entry of a history takes, about.
const ENTRY_BYTES: usize = 112;

pub fn balance(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let balance = question.view.balance(&args.script(0)?, &question.ask)?;
    out.extend_from_slice(b"{\"confirmed\":");
    json::integer(out, balance.confirmed);
    out.extend_from_slice(b",\"unconfirmed\":");
    json::integer(out, balance.unconfirmed);
    out.push(b'}');
    Ok(())
}

/// With Fulcrum's range of heights: from the first (inclusive) to the second (exclusive); −1, the
/// default, stands for all that follows and the mempool.
pub fn history(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let from = args.height_or_zero(1);
    let to = args.number_or(2, -1);
    let below = u32::try_from(to).unwrap_or(Height::MAX);
    if from > below {
        return Err(Refusal::Params(
            "from_height <= to_height must hold".to_owned(),
        ));
    }
    let history = question.view.history(&args.script(0)?, &question.ask)?;
    let confirmed = &history.confirmed[..];
    let start = confirmed.partition_point(|entry| entry.height < from);
    let end = confirmed.partition_point(|entry| to == -1 || entry.height < below);
    let mempool = if to == -1 { &history.mempool[..] } else { &[] };
    wrap(question, out, "history", |out| {
        write_history(out, confirmed.get(start..end).unwrap_or(&[]), mempool);
    });
    Ok(())
}

pub fn mempool(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let mempool = question.view.mempool(&args.script(0)?, &question.ask)?;
    wrap(question, out, "history", |out| {
        write_history(out, &[], &mempool)
    });
    Ok(())
}

pub fn unspent(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let unspent = question.view.unspent(&args.script(0)?, &question.ask)?;
    wrap(question, out, "utxos", |out| {
        out.reserve(unspent.len() * (ENTRY_BYTES + 32));
        json::array(out, &unspent, write_unspent);
    });
    Ok(())
}

/// From 1.7 on a list is a member of an object.
fn wrap(question: &Question, out: &mut Vec<u8>, member: &str, list: impl FnOnce(&mut Vec<u8>)) {
    let in_object = question.version() >= Version::V1_7;
    if in_object {
        out.extend_from_slice(b"{\"");
        out.extend_from_slice(member.as_bytes());
        out.extend_from_slice(b"\":");
    }
    list(out);
    if in_object {
        out.push(b'}');
    }
}

fn write_history(out: &mut Vec<u8>, confirmed: &[Confirmed], mempool: &[MempoolEntry]) {
    out.reserve((confirmed.len() + mempool.len()) * ENTRY_BYTES);
    out.push(b'[');
    let mut separator: &[u8] = b"";
    for entry in confirmed {
        out.extend_from_slice(separator);
        separator = b",";
        out.extend_from_slice(b"{\"height\":");
        json::integer(out, entry.height);
        out.extend_from_slice(b",\"tx_hash\":");
        json::txid(out, &entry.txid);
        out.push(b'}');
    }
    for entry in mempool {
        out.extend_from_slice(separator);
        separator = b",";
        out.extend_from_slice(b"{\"height\":");
        json::integer(out, entry.height());
        out.extend_from_slice(b",\"tx_hash\":");
        json::txid(out, &entry.txid);
        out.extend_from_slice(b",\"fee\":");
        json::integer(out, entry.fee);
        out.push(b'}');
    }
    out.push(b']');
}

fn write_unspent(out: &mut Vec<u8>, coin: &Unspent) {
    out.extend_from_slice(b"{\"height\":");
    json::integer(out, coin.height);
    out.extend_from_slice(b",\"tx_hash\":");
    json::txid(out, &coin.txid);
    out.extend_from_slice(b",\"tx_pos\":");
    json::integer(out, coin.vout);
    out.extend_from_slice(b",\"value\":");
    json::integer(out, coin.value);
    out.push(b'}');
}

/// The result of a subscription: a status or null.
pub fn write_status(out: &mut Vec<u8>, status: Option<&Status>) {
    match status {
        Some(status) => json::hex(out, &status.0),
        None => out.extend_from_slice(b"null"),
    }
}

/// `blockchain.outpoint.get_status(tx_hash, txout_idx, spk_hint)`
pub fn outpoint_status(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let status =
        question
            .view
            .outpoint_status(&outpoint(args)?, &args.script(2)?, &question.ask)?;
    write_outpoint_status(out, &status);
    Ok(())
}

/// The outpoint of the first two parameters. An index beyond 32 bits is one that no transaction has.
pub fn outpoint(args: &Args) -> Result<OutPoint, Refusal> {
    Ok(OutPoint {
        txid: args.txid(0)?,
        vout: args.height(1)?,
    })
}

pub fn write_outpoint_status(out: &mut Vec<u8>, status: &OutpointStatus) {
    out.push(b'{');
    if let Some(height) = status.funder_height {
        out.extend_from_slice(b"\"funder_height\":");
        json::integer(out, height);
        if let Some((txid, height)) = &status.spender {
            out.extend_from_slice(b",\"spender_txhash\":");
            json::txid(out, txid);
            out.extend_from_slice(b",\"spender_height\":");
            json::integer(out, *height);
        }
    }
    out.push(b'}');
}
