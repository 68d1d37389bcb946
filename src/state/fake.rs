//! A chain in memory, made of real blocks, behind the same door as the disk. Its prefixes are a few bits
//! short, so that most candidates are strangers.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use bitcoin::{
    Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Txid, Witness,
    absolute::LockTime,
    block::{Header, Version},
    consensus::encode::serialize,
    hashes::Hash,
    transaction,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{
    QueryError,
    archive::{Archive, Places},
    lock,
    table::TableBlock,
};
use crate::{
    chain::{BlockPlace, Height, ScriptHash, TxNum, is_unspendable},
    index::{BlockRow, TxPlace},
    mempool::Touched,
};

/// Called before each read of a block's bytes.
type Hook = Box<dyn FnMut() + Send>;

#[derive(Clone, Default)]
pub struct FakeArchive {
    rows: Arc<RwLock<Rows>>,
    pub reads: Arc<AtomicUsize>,
    pub on_read: Arc<Mutex<Option<Hook>>>,
}

#[derive(Default)]
struct Rows {
    blocks: Vec<(BlockRow, Vec<u8>)>,
    places: Vec<TxPlace>,
    history: BTreeSet<(u8, TxNum)>,
    txids: BTreeSet<(u8, TxNum)>,
}

fn script_prefix(script: &ScriptHash) -> u8 {
    script.0[0] & 3
}

fn txid_prefix(txid: &Txid) -> u8 {
    txid.as_byte_array()[0] & 7
}

impl FakeArchive {
    /// Adds a block's rows; gives its row and what it touched.
    pub fn connect(
        &self,
        block: &Block,
        spent: &dyn Fn(&OutPoint) -> TxOut,
    ) -> (BlockRow, Touched) {
        let mut rows = self.rows.write().unwrap();
        let bytes = serialize(block);
        let is_genesis = rows.blocks.is_empty();
        let first_tx = TxNum(rows.places.len() as u32);
        let mut touched = Touched::default();
        let mut offset = 81;
        assert!(
            block.txdata.len() < 0xfd,
            "the count of transactions takes one byte"
        );
        for tx in &block.txdata {
            let n = TxNum(rows.places.len() as u32);
            let size = serialize(tx).len() as u32;
            rows.places.push(TxPlace { offset, size });
            offset += size;
            if is_genesis {
                continue;
            }
            rows.txids.insert((txid_prefix(&tx.compute_txid()), n));
            let mut scripts: Vec<ScriptBuf> = tx
                .output
                .iter()
                .map(|output| output.script_pubkey.clone())
                .collect();
            if !tx.is_coinbase() {
                for input in &tx.input {
                    scripts.push(spent(&input.previous_output).script_pubkey);
                    touched.outpoints.insert(input.previous_output);
                }
            }
            for script in scripts
                .iter()
                .filter(|script| !is_unspendable(script.as_bytes()))
            {
                let script = ScriptHash::new(script.as_bytes());
                touched.scripts.insert(script);
                rows.history.insert((script_prefix(&script), n));
            }
        }
        assert_eq!(offset as usize, bytes.len());
        let row = BlockRow {
            header: serialize(&block.header).try_into().unwrap(),
            hash: block.block_hash(),
            first_tx,
            tx_count: block.txdata.len() as u32,
            place: BlockPlace {
                file: rows.blocks.len() as u32,
                offset: 0,
                size: bytes.len() as u32,
                undo_offset: 0,
                undo_size: 0,
            },
        };
        rows.blocks.push((row, bytes));
        (row, touched)
    }

    /// Deletes the rows from a height on.
    pub fn disconnect(&self, from: Height) {
        let mut rows = self.rows.write().unwrap();
        let first = rows.blocks[from as usize].0.first_tx;
        rows.blocks.truncate(from as usize);
        rows.places.truncate(first.0 as usize);
        rows.history.retain(|(_, n)| *n < first);
        rows.txids.retain(|(_, n)| *n < first);
    }

    fn numbers(rows: &BTreeSet<(u8, TxNum)>, prefix: u8, from: TxNum, below: TxNum) -> Vec<TxNum> {
        if from >= below {
            return Vec::new();
        }
        rows.range((prefix, from)..(prefix, below))
            .map(|(_, n)| *n)
            .collect()
    }
}

impl Archive for FakeArchive {
    fn touching(
        &self,
        script: &ScriptHash,
        from: TxNum,
        below: TxNum,
        each: &mut dyn FnMut(TxNum) -> ControlFlow<()>,
    ) -> Result<(), QueryError> {
        let found = Self::numbers(
            &self.rows.read().unwrap().history,
            script_prefix(script),
            from,
            below,
        );
        let _ = found.into_iter().try_for_each(each);
        Ok(())
    }

    fn numbered(&self, txid: &Txid, below: TxNum) -> Result<Vec<TxNum>, QueryError> {
        let rows = self.rows.read().unwrap();
        Ok(Self::numbers(
            &rows.txids,
            txid_prefix(txid),
            TxNum::ZERO,
            below,
        ))
    }

    fn places(&self) -> Places<'_> {
        Box::new(|n| {
            let place = self.rows.read().unwrap().places.get(n.0 as usize).copied();
            place.ok_or_else(|| QueryError::Unavailable(format!("no place of {n}")))
        })
    }

    fn block_row(&self, height: Height) -> Result<Option<BlockRow>, QueryError> {
        let rows = self.rows.read().unwrap();
        Ok(rows.blocks.get(height as usize).map(|(row, _)| *row))
    }

    fn blocks_from(
        &self,
        start: Height,
        each: &mut dyn FnMut(Height, BlockRow) -> ControlFlow<()>,
    ) -> Result<(), QueryError> {
        let rows = self.rows.read().unwrap();
        let found = rows.blocks.iter().zip(0..).skip(start as usize);
        let _ = found
            .into_iter()
            .try_for_each(|((row, _), height)| each(height, *row));
        Ok(())
    }

    fn read(
        &self,
        block: &TableBlock,
        offset: u32,
        size: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), QueryError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let hook = lock(&self.on_read).take();
        if let Some(mut hook) = hook {
            hook();
        }
        let rows = self.rows.read().unwrap();
        let part = rows
            .blocks
            .get(block.place.file as usize)
            .and_then(|(_, bytes)| bytes.get(offset as usize..(offset + size) as usize))
            .ok_or_else(|| QueryError::Unavailable("no such bytes".to_owned()))?;
        out.clear();
        out.extend_from_slice(part);
        Ok(())
    }
}

/// A chain that grows at random: few scripts, so that each has much to tell.
#[derive(Clone)]
pub struct FakeChain {
    pub blocks: Vec<Block>,
    pub scripts: Vec<ScriptBuf>,
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
            random: StdRng::seed_from_u64(seed),
            extra_nonce: 0,
        };
        chain.grow(0);
        chain
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
        let coinbase = self.transaction(vec![coinbase_input], 5_000_000_000);
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
}
