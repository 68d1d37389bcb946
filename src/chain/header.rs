//! Block headers, as 80 bytes and as the members that old clients ask for.

use bitcoin::{BlockHash, block::Header, consensus::encode, hashes::Hash};
use sha2::{Digest, Sha256};

use super::{Height, ParseError};

/// A header's length on the wire and on disk.
pub const HEADER_LEN: usize = 80;
/// Where a header has the root over its block's transactions.
pub const MERKLE_ROOT_AT: std::ops::Range<usize> = 36..68;

/// A header as the chain has it.
pub type HeaderBytes = [u8; HEADER_LEN];

/// The block's name: SHA256d of its header.
pub fn block_hash(header: &HeaderBytes) -> BlockHash {
    BlockHash::from_byte_array(Sha256::digest(Sha256::digest(header)).into())
}

/// The header's members (version, previous hash, merkle root, time, bits, nonce).
pub fn deserialize_header(height: Height, header: &HeaderBytes) -> Result<Header, ParseError> {
    encode::deserialize(header).map_err(|_| ParseError::Header { height })
}
