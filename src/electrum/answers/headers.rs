//! Block headers.

use bitcoin::BlockHash;
use serde_json::Value;

use crate::{
    chain::{HEADER_LEN, HeaderBytes, Height, MerkleProof, block_hash},
    electrum::{
        Refusal, json,
        params::{Arg, Args},
        version::Version,
    },
    state::{QueryError, Tip},
};

use super::Question;

/// Most headers of one answer: a retarget period. Also the size of a chunk.
pub const HEADERS_MAX: u32 = 2016;

/// `blockchain.block.header(height, cp_height=0)`
pub fn header(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let height = args.height(0)?;
    let cp_height = args.height_or_zero(1);
    let header = header_at(question, height)?;
    if cp_height == 0 {
        json::hex(out, &header);
        return Ok(());
    }
    let proof = proof(question, height, cp_height)?;
    out.extend_from_slice(b"{\"header\":");
    json::hex(out, &header);
    write_proof(out, &proof);
    out.push(b'}');
    Ok(())
}

/// `blockchain.block.headers(start_height, count, cp_height=0)`: side by side in `hex`, from 1.6 on
/// one by one in `headers`.
pub fn headers(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let start = args.height(0)?;
    let asked = args.height(1)?.min(HEADERS_MAX);
    let cp_height = args.height_or_zero(2);
    let bytes = question.view.headers(start, asked)?;
    let count = (bytes.len() / HEADER_LEN) as Height;
    let proof = match count {
        0 => None,
        _ if cp_height == 0 => None,
        _ => Some(proof(question, start + (count - 1), cp_height)?),
    };
    out.extend_from_slice(b"{\"count\":");
    json::integer(out, count);
    if question.version() >= Version::V1_6 {
        out.extend_from_slice(b",\"headers\":[");
        for (index, header) in bytes.chunks_exact(HEADER_LEN).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json::hex(out, header);
        }
        out.push(b']');
    } else {
        out.extend_from_slice(b",\"hex\":");
        json::hex(out, &bytes);
    }
    out.extend_from_slice(b",\"max\":");
    json::integer(out, HEADERS_MAX);
    if let Some(proof) = proof {
        write_proof(out, &proof);
    }
    out.push(b'}');
    Ok(())
}

/// `blockchain.block.get_header(height)`
pub fn deserialized(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let height = args.height(0)?;
    let header = header_at(question, height)?;
    out.push(b'{');
    write_members(out, height, &header);
    out.push(b'}');
    Ok(())
}

/// `blockchain.block.get_chunk(index)`
pub fn chunk(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let start = u64::from(args.height(0)?) * u64::from(HEADERS_MAX);
    let bytes = match Height::try_from(start) {
        Ok(start) => question.view.headers(start, HEADERS_MAX)?,
        Err(_) => Vec::new(),
    };
    json::hex(out, &bytes);
    Ok(())
}

/// `blockchain.header.get(block_hash)`: by hash or by height.
pub fn by_hash(question: &Question, args: &Args, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let height = match args.get(0) {
        Arg::Block(hash) => height_of(question, hash)?,
        _ => args.height(0)?,
    };
    let header = header_at(question, height)?;
    write_raw(out, height, &header);
    Ok(())
}

/// The node knows where a block stands; whether it is on this server's chain, the view says.
fn height_of(question: &Question, hash: &BlockHash) -> Result<Height, Refusal> {
    let unknown = || Refusal::Bad(format!("no block {hash} in the chain"));
    let header = question
        .node()
        .call("getblockheader", &[Value::String(hash.to_string())]);
    let header = match header {
        Ok(header) => header,
        Err(crate::daemon::rpc::RpcError::Refused { .. }) => return Err(unknown()),
        Err(away) => return Err(away.into()),
    };
    let height = header
        .get("height")
        .and_then(Value::as_u64)
        .and_then(|height| Height::try_from(height).ok())
        .ok_or_else(unknown)?;
    match question.view.header(height)? {
        Some(header) if block_hash(&header) == *hash => Ok(height),
        _ => Err(unknown()),
    }
}

pub fn header_at(question: &Question, height: Height) -> Result<HeaderBytes, Refusal> {
    question
        .view
        .header(height)?
        .ok_or_else(|| Refusal::Bad(format!("no block at height {height}")))
}

fn proof(question: &Question, height: Height, cp_height: Height) -> Result<MerkleProof, Refusal> {
    let tip = question.view.tip().height;
    if height > cp_height || cp_height > tip {
        return Err(Refusal::Bad(format!(
            "header height {height} <= cp_height {cp_height} <= chain height {tip} must hold"
        )));
    }
    question
        .view
        .header_proof(height, cp_height)
        .map_err(|error: QueryError| error.into())
}

fn write_proof(out: &mut Vec<u8>, proof: &MerkleProof) {
    out.extend_from_slice(b",\"branch\":");
    json::hashes(out, &proof.branch);
    out.extend_from_slice(b",\"root\":");
    json::hash(out, &proof.root);
}

/// How a session hears of the tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TipShape {
    /// `hex` and `height`.
    Raw,
    /// The header's members.
    Deserialized,
    /// Both at once, for a session that agreed on no version.
    Both,
}

/// The object that `blockchain.headers.subscribe` gives.
pub fn write_tip(out: &mut Vec<u8>, tip: &Tip, shape: TipShape) {
    match shape {
        TipShape::Raw => write_raw(out, tip.height, &tip.header),
        TipShape::Deserialized | TipShape::Both => {
            out.push(b'{');
            write_members(out, tip.height, &tip.header);
            if shape == TipShape::Both {
                out.extend_from_slice(b",\"height\":");
                json::integer(out, tip.height);
                out.extend_from_slice(b",\"hex\":");
                json::hex(out, &tip.header);
            }
            out.push(b'}');
        }
    }
}

fn write_raw(out: &mut Vec<u8>, height: Height, header: &HeaderBytes) {
    out.extend_from_slice(b"{\"height\":");
    json::integer(out, height);
    out.extend_from_slice(b",\"hex\":");
    json::hex(out, header);
    out.push(b'}');
}

/// Deserialized headers (protocol-removed). Version and bits are unsigned, as ElectrumX told them.
fn write_members(out: &mut Vec<u8>, height: Height, header: &HeaderBytes) {
    let word = |offset: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&header[offset..offset + 4]);
        u32::from_le_bytes(bytes)
    };
    let hash = |offset: usize| {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(&header[offset..offset + 32]);
        bytes
    };
    out.extend_from_slice(b"\"block_height\":");
    json::integer(out, height);
    out.extend_from_slice(b",\"version\":");
    json::integer(out, word(0));
    out.extend_from_slice(b",\"prev_block_hash\":");
    json::hash(out, &hash(4));
    out.extend_from_slice(b",\"merkle_root\":");
    json::hash(out, &hash(36));
    out.extend_from_slice(b",\"timestamp\":");
    json::integer(out, word(68));
    out.extend_from_slice(b",\"bits\":");
    json::integer(out, word(72));
    out.extend_from_slice(b",\"nonce\":");
    json::integer(out, word(76));
}
