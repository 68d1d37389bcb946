//! A block read in place: no copy, no allocation, every length checked.
//!
//! The format is Bitcoin Core's serialization (BIP 144 for witnesses).

use bitcoin::{BlockHash, Txid, hashes::Hash};
use sha2::{Digest, Sha256};

use super::{
    header::{HEADER_LEN, HeaderBytes, MERKLE_ROOT_AT, block_hash},
    merkle::{Node, merkle_root, parent},
    sha256d::Sha256Many,
};

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("the data end early, at byte {at}")]
    End { at: usize },
    #[error("{what} at byte {at} is out of range")]
    Range { what: &'static str, at: usize },
    #[error("{count} bytes too many")]
    Trailing { count: usize },
    #[error("these are not the bytes of the block with this hash")]
    OtherBlock,
    #[error("the header of block {height} cannot be read")]
    Header { height: super::Height },
    #[error("the spent outputs do not belong to this block: {what}")]
    Mismatch { what: &'static str },
}

/// Reads from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    /// How many bytes have been read.
    pub fn at(&self) -> usize {
        self.at
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], ParseError> {
        let end = self
            .at
            .checked_add(count)
            .ok_or(ParseError::End { at: self.at })?;
        let taken = self.bytes.get(self.at..end).ok_or(ParseError::End {
            at: self.bytes.len(),
        })?;
        self.at = end;
        Ok(taken)
    }

    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], ParseError> {
        let (taken, _) = self.bytes[self.at..]
            .split_first_chunk()
            .ok_or(ParseError::End {
                at: self.bytes.len(),
            })?;
        self.at += N;
        Ok(taken)
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, ParseError> {
        self.array::<1>().map(|bytes| bytes[0])
    }

    #[inline]
    pub fn u32(&mut self) -> Result<u32, ParseError> {
        self.array().map(|bytes| u32::from_le_bytes(*bytes))
    }

    #[inline]
    pub fn u64(&mut self) -> Result<u64, ParseError> {
        self.array().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// A CompactSize (Bitcoin Core `serialize.h`), at most `MAX_SIZE`. Nearly all take one byte.
    #[inline(always)]
    pub fn compact_size(&mut self) -> Result<usize, ParseError> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0xfd => {
                self.at += 1;
                Ok(byte.into())
            }
            _ => self.long_compact_size(),
        }
    }

    #[cold]
    fn long_compact_size(&mut self) -> Result<usize, ParseError> {
        /// Bitcoin Core's bound on anything serialized, in bytes.
        const MAX_SIZE: u64 = 0x0200_0000;
        let at = self.at;
        let size = match self.u8()? {
            0xfd => u64::from(u16::from_le_bytes(*self.array()?)),
            0xfe => u64::from(self.u32()?),
            0xff => self.u64()?,
            byte => u64::from(byte),
        };
        usize::try_from(size)
            .ok()
            .filter(|_| size <= MAX_SIZE)
            .ok_or(ParseError::Range { what: "a size", at })
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// What has been read since `start`.
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }
}

/// A block's bytes, of which the header and the number of transactions have been read.
#[derive(Clone, Copy, Debug)]
pub struct BlockView<'a> {
    pub header: &'a HeaderBytes,
    pub tx_count: u32,
    /// All bytes, from the header on.
    pub bytes: &'a [u8],
    transactions_at: usize,
}

impl<'a> BlockView<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<BlockView<'a>, ParseError> {
        let mut cursor = Cursor::new(bytes);
        let header = cursor.array::<HEADER_LEN>()?;
        let at = cursor.at();
        let tx_count = u32::try_from(cursor.compact_size()?)
            .ok()
            .filter(|&count| count > 0)
            .ok_or(ParseError::Range {
                what: "a number of transactions",
                at,
            })?;
        Ok(BlockView {
            header,
            tx_count,
            bytes,
            transactions_at: cursor.at(),
        })
    }

    /// An error where these are not the bytes of the block with this hash: its header is another, or its transactions
    /// or their witnesses are not those that it commits to (BIP 141).
    pub fn check(&self, hash: &BlockHash) -> Result<(), ParseError> {
        let (mut txids, mut wtxids) = (Vec::new(), Vec::new());
        let (mut commitment, mut has_witness) = (None, false);
        self.for_each_tx(|_, tx| {
            txids.push(tx.txid().to_byte_array());
            if wtxids.is_empty() {
                commitment = tx.witness_commitment();
                wtxids.push([0; 32]);
            } else {
                has_witness |= tx.has_witness;
                wtxids.push(Sha256::digest(Sha256::digest(tx.bytes)).into());
            }
            Ok::<_, ParseError>(())
        })?;
        let is_it = block_hash(self.header) == *hash
            && merkle_root(txids).is_some_and(|root| root == self.header[MERKLE_ROOT_AT]);
        let are_witnesses = match commitment {
            Some((reserved, expected)) => {
                merkle_root(wtxids).is_some_and(|root| parent(&root, &reserved) == expected)
            }
            None => !has_witness,
        };
        match is_it && are_witnesses {
            true => Ok(()),
            false => Err(ParseError::OtherBlock),
        }
    }

    /// Hands each transaction to `visit`, with its offset from the block's first byte; an error where
    /// the block does not end with its last transaction.
    pub fn for_each_tx<E: From<ParseError>>(
        &self,
        mut visit: impl FnMut(usize, TxView<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut cursor = Cursor::new(self.bytes);
        cursor.take(self.transactions_at)?;
        for _ in 0..self.tx_count {
            let at = cursor.at();
            let tx = TxView::read(&mut cursor)?;
            visit(at, tx)?;
        }
        match self.bytes.len() - cursor.at() {
            0 => Ok(()),
            count => Err(ParseError::Trailing { count }.into()),
        }
    }
}

/// A transaction's bytes, parsed to the end.
#[derive(Clone, Copy, Debug)]
pub struct TxView<'a> {
    /// All bytes, witnesses included.
    pub bytes: &'a [u8],
    pub input_count: usize,
    pub output_count: usize,
    /// Inputs and outputs with both their counts: what a txid is made of, but for version and lock time.
    body: &'a [u8],
    /// Where the outputs' count stands in `body`.
    outputs_at: usize,
    has_witness: bool,
}

impl<'a> TxView<'a> {
    /// Parses a transaction that must fill `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<TxView<'a>, ParseError> {
        let mut cursor = Cursor::new(bytes);
        let tx = TxView::read(&mut cursor)?;
        match bytes.len() - cursor.at() {
            0 => Ok(tx),
            count => Err(ParseError::Trailing { count }),
        }
    }

    /// Parses the transaction at the cursor and leaves the cursor behind it.
    pub fn read(cursor: &mut Cursor<'a>) -> Result<TxView<'a>, ParseError> {
        let start = cursor.at();
        cursor.u32()?; // version
        let mut body_at = cursor.at();
        let mut input_count = cursor.compact_size()?;
        let has_witness = input_count == 0;
        if has_witness {
            // BIP 144: a marker byte 0, then a flag byte 1.
            let at = cursor.at();
            if cursor.u8()? != 1 {
                return Err(ParseError::Range {
                    what: "a witness flag",
                    at,
                });
            }
            body_at = cursor.at();
            input_count = cursor.compact_size()?;
        }
        for _ in 0..input_count {
            cursor.take(36)?;
            let script_len = cursor.compact_size()?;
            cursor.take(script_len + 4)?;
        }
        let outputs_at = cursor.at() - body_at;
        let output_count = cursor.compact_size()?;
        for _ in 0..output_count {
            cursor.take(8)?;
            let script_len = cursor.compact_size()?;
            cursor.take(script_len)?;
        }
        let body = cursor.since(body_at);
        if has_witness {
            for _ in 0..input_count {
                for _ in 0..cursor.compact_size()? {
                    let item_len = cursor.compact_size()?;
                    cursor.take(item_len)?;
                }
            }
        }
        cursor.u32()?; // lock time
        let bytes = cursor.since(start);
        Ok(TxView {
            bytes,
            input_count,
            output_count,
            body,
            outputs_at,
            has_witness,
        })
    }

    /// SHA256d over the transaction without its witnesses.
    pub fn txid(&self) -> Txid {
        let once = if self.has_witness {
            let (version, lock_time) = (&self.bytes[..4], &self.bytes[self.bytes.len() - 4..]);
            Sha256::new()
                .chain_update(version)
                .chain_update(self.body)
                .chain_update(lock_time)
                .finalize()
        } else {
            Sha256::digest(self.bytes)
        };
        Txid::from_byte_array(Sha256::digest(once).into())
    }

    /// Adds what [`TxView::txid`] hashes.
    pub fn push_to(&self, sha256d: &mut Sha256Many) {
        if self.has_witness {
            let (version, lock_time) = (&self.bytes[..4], &self.bytes[self.bytes.len() - 4..]);
            sha256d.push(&[version, self.body, lock_time]);
        } else {
            sha256d.push(&[self.bytes]);
        }
    }

    /// BIP 141: three times the size without witnesses, and once the size with them.
    pub fn weight(&self) -> u64 {
        // The body lacks the version and the lock time.
        let base_size = self.body.len() + 8;
        3 * base_size as u64 + self.bytes.len() as u64
    }

    /// Of a coinbase, what its witness and one of its outputs say of the block's witnesses (BIP 141): the reserved value, and
    /// the hash of the witnesses' root with it.
    fn witness_commitment(&self) -> Option<(Node, Node)> {
        const HEADER: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
        // The witness is the reserved value alone: one item of 32 bytes, before the lock time.
        let (witness, _lock_time) = self.bytes.split_last_chunk::<4>()?;
        let (_, reserved) = witness.split_last_chunk::<32>()?;
        let said = self
            .outputs()
            .filter_map(|output| output.script.strip_prefix(&HEADER)?.first_chunk().copied());
        // The last one counts.
        said.last()
            .filter(|_| self.has_witness)
            .map(|said| (*reserved, said))
    }

    pub fn inputs(&self) -> Inputs<'a> {
        let mut cursor = Cursor::new(self.body);
        let _count = cursor.compact_size();
        Inputs {
            cursor,
            left: self.input_count,
        }
    }

    pub fn outputs(&self) -> Outputs<'a> {
        let mut cursor = Cursor::new(&self.body[self.outputs_at..]);
        let _count = cursor.compact_size();
        Outputs {
            cursor,
            left: self.output_count,
        }
    }

    /// All outputs as they are serialized, without their number before them.
    pub fn output_bytes(&self) -> &'a [u8] {
        self.outputs().cursor.rest()
    }
}

/// What an input spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input<'a> {
    /// The spent transaction's id, in internal byte order.
    pub txid: &'a [u8; 32],
    pub vout: u32,
}

impl Input<'_> {
    /// True of the one input of a coinbase, which spends nothing.
    pub fn is_coinbase(&self) -> bool {
        self.vout == u32::MAX && self.txid == &[0; 32]
    }

    pub fn outpoint(&self) -> bitcoin::OutPoint {
        bitcoin::OutPoint {
            txid: Txid::from_byte_array(*self.txid),
            vout: self.vout,
        }
    }
}

/// An output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output<'a> {
    /// In satoshis.
    pub value: u64,
    pub script: &'a [u8],
}

impl<'a> Output<'a> {
    /// Parses the output at the cursor and leaves the cursor behind it.
    #[inline]
    pub fn read(cursor: &mut Cursor<'a>) -> Result<Output<'a>, ParseError> {
        let value = cursor.u64()?;
        let script_len = cursor.compact_size()?;
        let script = cursor.take(script_len)?;
        Ok(Output { value, script })
    }
}

/// A transaction's inputs, in order. They were parsed once with the transaction, so none is missing.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

impl<'a> Iterator for Inputs<'a> {
    type Item = Input<'a>;

    fn next(&mut self) -> Option<Input<'a>> {
        self.left = self.left.checked_sub(1)?;
        let txid = self.cursor.array().ok()?;
        let vout = self.cursor.u32().ok()?;
        let script_len = self.cursor.compact_size().ok()?;
        self.cursor.take(script_len + 4).ok()?;
        Some(Input { txid, vout })
    }
}

/// A transaction's outputs, in order. They were parsed once with the transaction, so none is missing.
#[derive(Clone, Debug)]
pub struct Outputs<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

impl<'a> Iterator for Outputs<'a> {
    type Item = Output<'a>;

    fn next(&mut self) -> Option<Output<'a>> {
        self.left = self.left.checked_sub(1)?;
        Output::read(&mut self.cursor).ok()
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{
        Block, OutPoint, ScriptBuf, Witness, blockdata::block::WitnessCommitment,
        consensus::encode::serialize,
    };

    use super::*;
    use crate::chain::fake::FakeChain;

    /// A block with witnesses, and with the commitment to them that its coinbase has.
    fn with_witnesses() -> Block {
        let mut chain = FakeChain::new(3, 5);
        (0..4).for_each(|_| chain.grow(5));
        let mut block = chain.blocks.pop().unwrap();
        for tx in &mut block.txdata[1..] {
            tx.input[0].witness = Witness::from_slice(&[[7u8; 70]]);
        }
        let reserved = [9; 32];
        block.txdata[0].input[0].previous_output = OutPoint::null();
        block.txdata[0].input[0].witness = Witness::from_slice(&[reserved]);
        let root = block.witness_root().unwrap();
        let commitment: WitnessCommitment = Block::compute_witness_commitment(&root, &reserved);
        let script = [
            &[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed],
            &commitment.to_byte_array()[..],
        ];
        let mut output = block.txdata[0].output[0].clone();
        output.script_pubkey = ScriptBuf::from_bytes(script.concat());
        block.txdata[0].output.push(output);
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        block
    }

    #[test]
    fn any_byte_of_a_block_that_is_another_is_seen_witnesses_too() {
        let block = with_witnesses();
        assert!(block.check_witness_commitment(), "so says the library");
        let (hash, bytes) = (block.block_hash(), serialize(&block));
        let check = |bytes: &[u8]| BlockView::parse(bytes).and_then(|block| block.check(&hash));
        assert_eq!(check(&bytes), Ok(()));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0x20;
            assert!(check(&other).is_err(), "byte {at}");
        }

        // Without witnesses nothing commits to any.
        let mut plain = block.clone();
        plain
            .txdata
            .iter_mut()
            .for_each(|tx| tx.input[0].witness.clear());
        plain.txdata[0].output.pop();
        plain.header.merkle_root = plain.compute_merkle_root().unwrap();
        let hash = plain.block_hash();
        let check = |block: &Block| {
            let bytes = serialize(block);
            BlockView::parse(&bytes).and_then(|block| block.check(&hash))
        };
        assert_eq!(check(&plain), Ok(()));
        plain.txdata[1].input[0].witness = Witness::from_slice(&[[7u8; 70]]);
        assert_eq!(check(&plain), Err(ParseError::OtherBlock));
    }
}
