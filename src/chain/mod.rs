//! The chain's own words, pure: numbers, hashes, and the parsers of what a node stores.
//!
//! Nothing here reads a file, a socket or a clock. All parsers borrow from the bytes they are given,
//! check every length, and return an error on anything that Bitcoin Core would not have written.

mod block;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod header;
mod history;
mod merkle;
mod numbers;
mod place;
mod script;
mod sha256d;
mod undo;

pub use block::{BlockView, Cursor, Input, Inputs, Output, Outputs, ParseError, TxView};
pub use header::{HEADER_LEN, HeaderBytes, MERKLE_ROOT_AT, block_hash, deserialize_header};
pub use history::{
    Balance, Confirmed, History, MempoolEntry, Status, StatusHasher, Unspent, status_of,
};
pub use merkle::{
    MerkleProof, Node, merkle_branch, merkle_root, merkle_row_over_groups, parent as merkle_parent,
};
pub use numbers::{Height, TxNum};
pub use place::BlockPlace;
pub use script::{ScriptHash, is_unspendable};
pub use sha256d::{Sha256Many, merkle_row_above};
pub use undo::{SpentOutputs, SpentReader, undo_checksum};
