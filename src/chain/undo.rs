//! The outputs that a block spends: what makes a block's index rows complete by themselves.
//!
//! bitcoind keeps them in `rev*.dat` as undo data (Bitcoin Core `undo.h`, `compressor.h`) and gives them
//! by REST as `/rest/spenttxouts` (Bitcoin Core `rest.cpp`, `SerializeBlockUndo`). Both are read in
//! place, one script after the other, in the order of the block's inputs.

use bitcoin::{BlockHash, hashes::Hash, secp256k1::PublicKey};
use sha2::{Digest, Sha256};

use super::block::{Cursor, ParseError};

/// A block's spent outputs, in the form in which the node gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpentOutputs {
    /// A record of a rev file: compressed scripts, nothing for the coinbase.
    Undo(Vec<u8>),
    /// The answer of `/rest/spenttxouts`: whole outputs, an empty list for the coinbase.
    Rest(Vec<u8>),
}

impl SpentOutputs {
    /// The spent outputs of a block that has only a coinbase.
    pub fn none() -> SpentOutputs {
        SpentOutputs::Undo(vec![0])
    }

    pub fn reader(&self) -> Result<SpentReader<'_>, ParseError> {
        match self {
            SpentOutputs::Undo(bytes) => SpentReader::undo(bytes),
            SpentOutputs::Rest(bytes) => SpentReader::rest(bytes),
        }
    }
}

/// The checksum that follows an undo record: SHA256d of the previous block's hash and the record
/// (Bitcoin Core `BlockManager::WriteBlockUndo`).
pub fn undo_checksum(previous: &BlockHash, undo: &[u8]) -> [u8; 32] {
    let once = Sha256::new()
        .chain_update(previous.as_byte_array())
        .chain_update(undo)
        .finalize();
    Sha256::digest(once).into()
}

/// Reads spent outputs from the front: [`SpentReader::next_tx`], then as many times
/// [`SpentReader::next_output`] as it said.
pub struct SpentReader<'a> {
    cursor: Cursor<'a>,
    is_undo: bool,
    txs_left: usize,
    /// Where a compressed script is written out in full.
    scratch: Vec<u8>,
}

impl<'a> SpentReader<'a> {
    pub fn undo(bytes: &'a [u8]) -> Result<SpentReader<'a>, ParseError> {
        SpentReader::new(bytes, true)
    }

    pub fn rest(bytes: &'a [u8]) -> Result<SpentReader<'a>, ParseError> {
        let mut reader = SpentReader::new(bytes, false)?;
        // The coinbase's empty list.
        if reader.next_tx()? != 0 {
            return Err(ParseError::Mismatch {
                what: "the coinbase spends something",
            });
        }
        Ok(reader)
    }

    fn new(bytes: &'a [u8], is_undo: bool) -> Result<SpentReader<'a>, ParseError> {
        let mut cursor = Cursor::new(bytes);
        let txs_left = cursor.compact_size()?;
        Ok(SpentReader {
            cursor,
            is_undo,
            txs_left,
            scratch: Vec::new(),
        })
    }

    /// How many transactions are still to come.
    pub fn txs_left(&self) -> usize {
        self.txs_left
    }

    /// The number of inputs of the next transaction.
    #[inline]
    pub fn next_tx(&mut self) -> Result<usize, ParseError> {
        self.txs_left = self.txs_left.checked_sub(1).ok_or(ParseError::Mismatch {
            what: "too few transactions",
        })?;
        self.cursor.compact_size()
    }

    /// The script of the next spent output of this transaction, and its value in satoshis.
    #[inline]
    pub fn next_output(&mut self) -> Result<(u64, &[u8]), ParseError> {
        if self.is_undo {
            let code = self.varint()?;
            if code >> 1 > 0 {
                // A transaction version that old releases wrote; today a zero.
                self.varint()?;
            }
            let value = decompress_amount(self.varint()?);
            Ok((value, self.compressed_script()?))
        } else {
            let value = self.cursor.u64()?;
            let len = self.cursor.compact_size()?;
            Ok((value, self.cursor.take(len)?))
        }
    }

    /// An error where anything is left.
    pub fn finish(self) -> Result<(), ParseError> {
        if self.txs_left > 0 || !self.cursor.is_at_end() {
            return Err(ParseError::Mismatch {
                what: "too many transactions",
            });
        }
        Ok(())
    }

    /// Bitcoin Core's VARINT: base 128, most significant digit first, each but the last less one.
    #[inline]
    fn varint(&mut self) -> Result<u64, ParseError> {
        let at = self.cursor.at();
        let out_of_range = ParseError::Range {
            what: "a number",
            at,
        };
        let mut number = 0u64;
        loop {
            let byte = self.cursor.u8()?;
            if number > u64::MAX >> 7 {
                return Err(out_of_range);
            }
            number = (number << 7) | u64::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
            number = number.checked_add(1).ok_or_else(|| out_of_range.clone())?;
        }
    }

    /// A script as Bitcoin Core's `ScriptCompression` writes it.
    #[inline]
    fn compressed_script(&mut self) -> Result<&[u8], ParseError> {
        /// The kinds of script that have a short form.
        const SPECIAL_KINDS: u64 = 6;
        let at = self.cursor.at();
        let kind = self.varint()?;
        if kind >= SPECIAL_KINDS {
            let len = usize::try_from(kind - SPECIAL_KINDS).map_err(|_| ParseError::Range {
                what: "a script's length",
                at,
            })?;
            return self.cursor.take(len);
        }
        self.scratch.clear();
        match kind {
            0 => {
                self.scratch.extend_from_slice(&[0x76, 0xa9, 20]);
                self.scratch.extend_from_slice(self.cursor.take(20)?);
                self.scratch.extend_from_slice(&[0x88, 0xac]);
            }
            1 => {
                self.scratch.extend_from_slice(&[0xa9, 20]);
                self.scratch.extend_from_slice(self.cursor.take(20)?);
                self.scratch.push(0x87);
            }
            2 | 3 => {
                self.scratch.extend_from_slice(&[33, kind as u8]);
                self.scratch.extend_from_slice(self.cursor.take(32)?);
                self.scratch.push(0xac);
            }
            _ => {
                let mut compressed = [kind as u8 - 2; 33];
                compressed[1..].copy_from_slice(self.cursor.take(32)?);
                let key = PublicKey::from_slice(&compressed).map_err(|_| ParseError::Range {
                    what: "a public key",
                    at,
                })?;
                self.scratch.push(65);
                self.scratch
                    .extend_from_slice(&key.serialize_uncompressed());
                self.scratch.push(0xac);
            }
        }
        Ok(&self.scratch)
    }
}

/// Bitcoin Core's `DecompressAmount`.
fn decompress_amount(compressed: u64) -> u64 {
    if compressed == 0 {
        return 0;
    }
    let mut rest = compressed - 1;
    let exponent = rest % 10;
    rest /= 10;
    let digits = if exponent < 9 {
        let last = rest % 9 + 1;
        rest / 9 * 10 + last
    } else {
        rest + 1
    };
    // What no honest node wrote must not bring the server down.
    digits.saturating_mul(10u64.pow(exponent as u32))
}
