//! Chains of real blocks for tests: they parse, their hashes and merkle roots are right; nobody signed
//! them.

use bitcoin::{
    Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness,
    absolute::LockTime,
    block::{Header, Version},
    consensus::encode::serialize,
    hashes::Hash,
    transaction,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{Height, ScriptHash, SpentOutputs, is_unspendable, undo_checksum};

/// A chain that grows at random: few scripts, so that each has much to tell.
#[derive(Clone)]
pub struct FakeChain {
    pub blocks: Vec<Block>,
    pub scripts: Vec<ScriptBuf>,
    /// The next block's coinbase, if it is not to be a new one.
    pub next_coinbase: Option<Transaction>,
    random: StdRng,
    extra_nonce: u64,
}

impl FakeChain {
    pub fn new(seed: u64, scripts: usize) -> FakeChain {
        let mut chain = FakeChain {
            blocks: Vec::new(),
            scripts: (0..scripts as u16)
                .map(|n| {
                    let mut hash = [7; 20];
                    hash[..2].copy_from_slice(&n.to_le_bytes());
                    ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array(hash))
                })
                .collect(),
            next_coinbase: None,
            random: StdRng::seed_from_u64(seed),
            extra_nonce: 0,
        };
        chain.grow(0);
        chain
    }

    /// From here on another branch than a clone's.
    pub fn reseed(&mut self, seed: u64) {
        self.random = StdRng::seed_from_u64(seed);
        self.extra_nonce += 1 << 32;
    }

    pub fn hashes(&self) -> Vec<ScriptHash> {
        self.scripts
            .iter()
            .map(|script| ScriptHash::new(script.as_bytes()))
            .collect()
    }

    /// Unspent outputs, but for the genesis block's.
    pub fn unspent(&self) -> Vec<(OutPoint, TxOut)> {
        let mut unspent = Vec::new();
        for tx in self.blocks.iter().skip(1).flat_map(|block| &block.txdata) {
            unspent.retain(|(outpoint, _)| {
                !tx.input
                    .iter()
                    .any(|input| input.previous_output == *outpoint)
            });
            let txid = tx.compute_txid();
            for (vout, output) in (0..).zip(&tx.output) {
                unspent.push((OutPoint { txid, vout }, output.clone()));
            }
        }
        unspent.retain(|(_, output)| !is_unspendable(output.script_pubkey.as_bytes()));
        unspent
    }

    pub fn output(&self, outpoint: &OutPoint) -> TxOut {
        let all = self.blocks.iter().flat_map(|block| &block.txdata);
        let tx = all.rev().find(|tx| tx.compute_txid() == outpoint.txid);
        tx.unwrap().output[outpoint.vout as usize].clone()
    }

    fn some_script(&mut self) -> ScriptBuf {
        if self.random.random_ratio(1, 8) {
            return ScriptBuf::new_op_return([self.random.random::<u8>()]);
        }
        self.scripts.choose(&mut self.random).unwrap().clone()
    }

    /// A transaction that spends some of `unspent` and adds its own outputs to it.
    pub fn spend(&mut self, unspent: &mut Vec<(OutPoint, TxOut)>) -> Transaction {
        let mut value = 0;
        let mut inputs = Vec::new();
        for _ in 0..self.random.random_range(1..3) {
            if unspent.is_empty() {
                break;
            }
            let at = self.random.random_range(0..unspent.len());
            let (outpoint, output) = unspent.swap_remove(at);
            value += output.value.to_sat();
            let witness = match self.random.random_ratio(1, 2) {
                true => Witness::from_slice(&[vec![1; self.random.random_range(0..90)]]),
                false => Witness::new(),
            };
            inputs.push(TxIn {
                previous_output: outpoint,
                sequence: Sequence::ZERO,
                witness,
                ..TxIn::default()
            });
        }
        let tx = self.transaction(inputs, value);
        let txid = tx.compute_txid();
        for (vout, output) in (0..).zip(&tx.output) {
            if !is_unspendable(output.script_pubkey.as_bytes()) {
                unspent.push((OutPoint { txid, vout }, output.clone()));
            }
        }
        tx
    }

    fn transaction(&mut self, input: Vec<TxIn>, value: u64) -> Transaction {
        let outputs = self.random.random_range(1..4);
        let output = (0..outputs)
            .map(|_| TxOut {
                value: Amount::from_sat(value / outputs),
                script_pubkey: self.some_script(),
            })
            .collect();
        Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input,
            output,
        }
    }

    /// Adds a block with a coinbase and `txs` transactions.
    pub fn grow(&mut self, txs: usize) {
        self.grow_with(Vec::new(), txs);
    }

    /// Adds a block with a coinbase, the transactions of `included`, and `txs` others.
    pub fn grow_with(&mut self, included: Vec<Transaction>, txs: usize) {
        self.extra_nonce += 1;
        let coinbase_input = TxIn {
            script_sig: ScriptBuf::from_bytes(self.extra_nonce.to_le_bytes().to_vec()),
            ..TxIn::default()
        };
        let new = self.transaction(vec![coinbase_input], 5_000_000_000);
        let coinbase = self.next_coinbase.take().unwrap_or(new);
        let mut txdata = vec![coinbase];
        let mut unspent = self.unspent();
        for tx in included {
            unspent.retain(|(outpoint, _)| {
                !tx.input
                    .iter()
                    .any(|input| input.previous_output == *outpoint)
            });
            txdata.push(tx);
        }
        for _ in 0..txs {
            if unspent.is_empty() {
                break;
            }
            txdata.push(self.spend(&mut unspent));
        }
        let mut block = Block {
            header: Header {
                version: Version::TWO,
                prev_blockhash: self
                    .blocks
                    .last()
                    .map_or(BlockHash::all_zeros(), Block::block_hash),
                merkle_root: TxMerkleNode::all_zeros(),
                time: 1,
                bits: bitcoin::CompactTarget::from_consensus(0x207f_ffff),
                nonce: self.random.random(),
            },
            txdata,
        };
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        self.blocks.push(block);
    }

    /// What the inputs of a block spend, transaction by transaction, without the coinbase.
    pub fn spent(&self, height: Height) -> Vec<Vec<TxOut>> {
        let txs = self.blocks[height as usize].txdata.iter().skip(1);
        txs.map(|tx| {
            tx.input
                .iter()
                .map(|input| self.output(&input.previous_output))
                .collect()
        })
        .collect()
    }

    /// As `/rest/spenttxouts` gives it.
    pub fn spent_by_rest(&self, height: Height) -> SpentOutputs {
        let mut bytes = Vec::new();
        let spent = self.spent(height);
        bytes.extend(serialize(&bitcoin::VarInt(spent.len() as u64 + 1)));
        bytes.push(0);
        for outputs in spent {
            bytes.extend(serialize(&outputs));
        }
        SpentOutputs::Rest(bytes)
    }

    /// As a rev file has it: the data, and the checksum behind them.
    pub fn undo(&self, height: Height) -> (Vec<u8>, [u8; 32]) {
        let mut bytes = Vec::new();
        let spent = self.spent(height);
        bytes.extend(serialize(&bitcoin::VarInt(spent.len() as u64)));
        for outputs in spent {
            bytes.extend(serialize(&bitcoin::VarInt(outputs.len() as u64)));
            for output in outputs {
                // Height 1, no coinbase, and the zero that stands for a version.
                write_varint(&mut bytes, 2);
                bytes.push(0);
                write_varint(&mut bytes, compress_amount(output.value.to_sat()));
                write_compressed(&mut bytes, output.script_pubkey.as_bytes());
            }
        }
        let checksum = undo_checksum(&self.blocks[height as usize].header.prev_blockhash, &bytes);
        (bytes, checksum)
    }
}

/// Bitcoin Core's VARINT.
pub fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = vec![(number & 0x7f) as u8];
    while number > 0x7f {
        number = (number >> 7) - 1;
        digits.push((number & 0x7f) as u8 | 0x80);
    }
    out.extend(digits.iter().rev());
}

/// Bitcoin Core's `CompressAmount`.
pub fn compress_amount(amount: u64) -> u64 {
    if amount == 0 {
        return 0;
    }
    let (mut rest, mut exponent) = (amount, 0);
    while rest % 10 == 0 && exponent < 9 {
        rest /= 10;
        exponent += 1;
    }
    match exponent {
        0..9 => 1 + (rest / 10 * 9 + rest % 10 - 1) * 10 + exponent,
        _ => 1 + (rest - 1) * 10 + 9,
    }
}

/// Bitcoin Core's `ScriptCompression`.
pub fn write_compressed(out: &mut Vec<u8>, script: &[u8]) {
    match script {
        [0x76, 0xa9, 20, hash @ .., 0x88, 0xac] if hash.len() == 20 => {
            out.push(0);
            out.extend(hash);
        }
        [0xa9, 20, hash @ .., 0x87] if hash.len() == 20 => {
            out.push(1);
            out.extend(hash);
        }
        [33, sign @ (2 | 3), x @ .., 0xac] if x.len() == 32 => {
            out.push(*sign);
            out.extend(x);
        }
        [65, 4, key @ .., 0xac] if key.len() == 64 => {
            out.push(4 | (key[63] & 1));
            out.extend(&key[..32]);
        }
        _ => {
            write_varint(out, script.len() as u64 + 6);
            out.extend(script);
        }
    }
}
