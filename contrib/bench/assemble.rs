//! Blocks from transactions: coinbase, witness commitment, merkle root, proof of work; and the file.

use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, Sender},
};

use sha2::{Digest, Sha256};

/// Regtest's network magic, which begins each record of a block file.
const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
/// Regtest's target in compact form: any hash whose highest bit is 0 will do.
const BITS: u32 = 0x207f_ffff;
/// Regtest's genesis block, as it stands in the next header.
const GENESIS: [u8; 32] = [
    0x06, 0x22, 0x6e, 0x46, 0x11, 0x1a, 0x0b, 0x59, 0xca, 0xaf, 0x12, 0x60, 0x43, 0xeb, 0x5b, 0xbf,
    0x28, 0xc3, 0x4f, 0x3a, 0x5e, 0x33, 0x2a, 0x1f, 0xc7, 0xb2, 0xb7, 0x3c, 0xf1, 0x88, 0x91, 0x0f,
];
/// The time of block 0, in Unix seconds; each further block is ten minutes younger.
const START_TIME: u32 = 1_600_000_000;
const BLOCK_SECONDS: u32 = 600;

pub type Hash = [u8; 32];

/// The transactions of a block, of which the coinbase is still to be made.
pub struct Draft {
    pub height: u32,
    /// One after the other.
    pub bytes: Vec<u8>,
    /// Where each ends.
    pub ends: Vec<usize>,
    pub txids: Vec<Hash>,
    /// What the coinbase pays: satoshis and script.
    pub payouts: Vec<(u64, Vec<u8>)>,
}

/// How a chain came out.
pub struct Written {
    pub tip: Hash,
    pub bytes: u64,
}

/// Makes a block of each draft and writes its record; tells each coinbase's txid.
pub fn assemble(
    drafts: Receiver<Draft>,
    coinbases: Sender<Hash>,
    mut file: impl Write,
) -> io::Result<Written> {
    let mut tip = GENESIS;
    let mut written = 0;
    for draft in drafts {
        let mut wtxids = vec![[0; 32]];
        let mut start = 0;
        for (&end, txid) in draft.ends.iter().zip(&draft.txids) {
            let tx = &draft.bytes[start..end];
            // BIP 144's marker: a transaction without witnesses has its txid for wtxid.
            let has_witness = tx[4] == 0;
            wtxids.push(if has_witness { sha256d(tx) } else { *txid });
            start = end;
        }
        let (coinbase, coinbase_id) = coinbase(&draft, merkle_root(wtxids));
        // The one who waits for it may have ended.
        let _ = coinbases.send(coinbase_id);

        let mut txids = vec![coinbase_id];
        txids.extend_from_slice(&draft.txids);
        let tx_count = txids.len();
        let header = mine(draft.height, tip, merkle_root(txids));
        tip = sha256d(&header);

        let mut count = Vec::new();
        compact_size(tx_count, &mut count);
        let size = header.len() + count.len() + coinbase.len() + draft.bytes.len();
        file.write_all(&MAGIC)?;
        file.write_all(&(size as u32).to_le_bytes())?;
        for part in [&header[..], &count, &coinbase, &draft.bytes] {
            file.write_all(part)?;
        }
        written += 8 + size as u64;
    }
    file.flush()?;
    Ok(Written {
        tip,
        bytes: written,
    })
}

/// The coinbase with its witness, and its txid. BIP 34: the height; BIP 141: the commitment.
fn coinbase(draft: &Draft, witness_root: Hash) -> (Vec<u8>, Hash) {
    let mut body = Vec::new();
    body.push(1);
    body.extend_from_slice(&[0; 32]);
    body.extend_from_slice(&u32::MAX.to_le_bytes());
    let mut script = height_push(draft.height);
    script.extend_from_slice(b"\x0bambra-bench");
    body.push(script.len() as u8);
    body.extend_from_slice(&script);
    body.extend_from_slice(&u32::MAX.to_le_bytes());

    compact_size(draft.payouts.len() + 1, &mut body);
    for (value, script) in &draft.payouts {
        body.extend_from_slice(&value.to_le_bytes());
        body.push(script.len() as u8);
        body.extend_from_slice(script);
    }
    let reserved = [0; 32];
    let mut commitment = witness_root.to_vec();
    commitment.extend_from_slice(&reserved);
    body.extend_from_slice(&0u64.to_le_bytes());
    body.extend_from_slice(&[38, 0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed]);
    body.extend_from_slice(&sha256d(&commitment));

    let (version, lock_time) = (2u32.to_le_bytes(), [0; 4]);
    let bare = [&version[..], &body, &lock_time].concat();
    let full = [
        &version[..],
        &[0, 1],
        &body,
        &[1, 32],
        &reserved,
        &lock_time,
    ]
    .concat();
    (full, sha256d(&bare))
}

/// A height as BIP 34 wants it and Bitcoin Core's `CScript() << nHeight` writes it.
fn height_push(height: u32) -> Vec<u8> {
    if let 1..=16 = height {
        return vec![0x50 + height as u8];
    }
    let mut bytes: Vec<u8> = height.to_le_bytes().to_vec();
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    if bytes.last().is_some_and(|&byte| byte >= 0x80) {
        bytes.push(0);
    }
    bytes.insert(0, bytes.len() as u8);
    bytes
}

fn mine(height: u32, previous: Hash, merkle_root: Hash) -> [u8; 80] {
    let mut header = [0; 80];
    header[..4].copy_from_slice(&0x2000_0000u32.to_le_bytes());
    header[4..36].copy_from_slice(&previous);
    header[36..68].copy_from_slice(&merkle_root);
    let time = START_TIME + height * BLOCK_SECONDS;
    header[68..72].copy_from_slice(&time.to_le_bytes());
    header[72..76].copy_from_slice(&BITS.to_le_bytes());
    for nonce in 0u32.. {
        header[76..].copy_from_slice(&nonce.to_le_bytes());
        if sha256d(&header)[31] < 0x7f {
            break;
        }
    }
    header
}

pub fn merkle_root(mut row: Vec<Hash>) -> Hash {
    while row.len() > 1 {
        row = row
            .chunks(2)
            .map(|pair| sha256d(&[pair[0], *pair.last().unwrap_or(&pair[0])].concat()))
            .collect();
    }
    row[0]
}

pub fn sha256d(bytes: &[u8]) -> Hash {
    Sha256::digest(Sha256::digest(bytes)).into()
}

pub fn compact_size(number: usize, to: &mut Vec<u8>) {
    match number {
        0..=0xfc => to.push(number as u8),
        0xfd..=0xffff => {
            to.push(0xfd);
            to.extend_from_slice(&(number as u16).to_le_bytes());
        }
        _ => {
            to.push(0xfe);
            to.extend_from_slice(&(number as u32).to_le_bytes());
        }
    }
}
