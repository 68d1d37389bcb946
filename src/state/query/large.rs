//! Large transactions, which many scripts share: batches of exchanges, coinjoins, payouts of pools. To read one, to
//! hash it and to look for a script among its outputs costs as much as a hundred usual ones do; so what questions
//! want of the last ones is kept.

use std::sync::{Arc, OnceLock};

use bitcoin::{OutPoint, Txid};
use quick_cache::{Weighter, sync::Cache};

use super::{Scratch, is_same};
use crate::{
    chain::{Cursor, Output, ScriptHash, Sha256Many, TxNum, TxView, is_unspendable},
    index::TxPlace,
    state::{QueryError, archive::Archive, checked::checked, table::TableBlock},
};

/// A transaction of so many bytes is large: a hundred outputs. Tests have small chains, and some of their transactions
/// shall be large too.
const LARGE_BYTES: u32 = if cfg!(any(test, feature = "one-byte-prefixes")) {
    250
} else {
    4 << 10
};

/// Whether the transaction at this place is kept as a large one.
pub fn is_large(place: &TxPlace) -> bool {
    place.size >= LARGE_BYTES
}

/// What a kept transaction takes besides its inputs and outputs.
const ENTRY_BYTES: usize = 240;
/// What an output takes besides its own bytes: where it ends, and two tags.
const OUTPUT_BYTES: usize = 3 * size_of::<u32>();

/// What is wanted of a large transaction.
pub struct LargeTx {
    pub txid: Txid,
    /// What it spends.
    pub inputs: Box<[OutPoint]>,
    /// Its outputs as they are serialized, one after the other, and where each ends.
    outputs: Box<[u8]>,
    ends: Box<[u32]>,
    /// Of the scripts' ends: four thousand are passed over in a microsecond.
    tags: Box<[u32]>,
    /// The first bytes of the scripts' hashes, once somebody has looked for a script that only its hash is known of.
    hash_tags: OnceLock<Box<[u32]>>,
}

fn tag_of(script: &[u8]) -> u32 {
    script.last_chunk().copied().map_or(0, u32::from_le_bytes)
}

fn tag_of_hash([a, b, c, d, ..]: [u8; 32]) -> u32 {
    u32::from_le_bytes([a, b, c, d])
}

/// Where the tag stands.
fn places_of(tag: u32, tags: &[u32]) -> impl Iterator<Item = usize> {
    /// So many are compared without a branch.
    const TOGETHER: usize = 64;
    tags.chunks(TOGETHER)
        .zip((0..).step_by(TOGETHER))
        .filter(move |(some, _)| {
            some.iter()
                .fold(false, |is_there, other| is_there | (*other == tag))
        })
        .flat_map(|(some, first)| (first..).zip(some))
        .filter(move |(_, other)| **other == tag)
        .map(|(place, _)| place)
}

impl LargeTx {
    fn new(tx: &TxView<'_>, txid: Txid) -> LargeTx {
        let inputs = tx.inputs().filter(|input| !input.is_coinbase());
        let outputs = tx.output_bytes();
        let mut cursor = Cursor::new(outputs);
        let mut ends = Vec::with_capacity(tx.output_count);
        let mut tags = Vec::with_capacity(tx.output_count);
        while let Ok(output) = Output::read(&mut cursor) {
            tags.push(tag_of(output.script));
            // A transaction has four million bytes at most.
            ends.push(cursor.at() as u32);
        }
        LargeTx {
            txid,
            inputs: inputs.map(|input| input.outpoint()).collect(),
            outputs: outputs.into(),
            ends: ends.into(),
            tags: tags.into(),
            hash_tags: OnceLock::new(),
        }
    }

    /// An output, if there is one of this number.
    fn output(&self, vout: usize) -> Option<Output<'_>> {
        let end = *self.ends.get(vout)?;
        let start = vout.checked_sub(1).map_or(0, |before| self.ends[before]);
        let bytes = self.outputs.get(start as usize..end as usize)?;
        Output::read(&mut Cursor::new(bytes)).ok()
    }

    pub fn script(&self, vout: usize) -> Option<&[u8]> {
        self.output(vout).map(|output| output.script)
    }

    /// The outputs with this script: number and value.
    pub fn paying(&self, script: &[u8]) -> impl Iterator<Item = (u32, u64)> {
        places_of(tag_of(script), &self.tags).filter_map(move |vout| {
            let output = self.output(vout)?;
            is_same(output.script, script).then_some((vout as u32, output.value))
        })
    }

    /// The script with this hash, if an output has it that can be spent.
    pub fn script_of(&self, hash: &ScriptHash) -> Option<&[u8]> {
        let tags = self.hash_tags.get_or_init(|| {
            let mut hashes = Sha256Many::single();
            let scripts = (0..self.ends.len()).filter_map(|vout| self.script(vout));
            scripts.for_each(|script| hashes.push(&[script]));
            hashes.finish().into_iter().map(tag_of_hash).collect()
        });
        places_of(tag_of_hash(hash.0), tags)
            .filter_map(|vout| self.script(vout))
            .find(|script| !is_unspendable(script) && ScriptHash::new(script) == *hash)
    }

    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + self.inputs.len() * size_of::<OutPoint>()
            + self.ends.len() * OUTPUT_BYTES
            + self.outputs.len()
    }
}

#[derive(Clone)]
struct LargeTxBytes;

impl Weighter<(u64, TxNum), Arc<LargeTx>> for LargeTxBytes {
    fn weight(&self, _: &(u64, TxNum), tx: &Arc<LargeTx>) -> u64 {
        tx.bytes() as u64
    }
}

/// Large transactions that were asked for, bounded in bytes. The key has the number of reorgs before the View, so that no
/// stale block's transaction is ever found.
pub struct LargeTxs {
    txs: Cache<(u64, TxNum), Arc<LargeTx>, LargeTxBytes>,
}

impl LargeTxs {
    pub fn new(bytes_max: u64) -> LargeTxs {
        /// What one of a few hundred outputs takes, for the cache's first estimate.
        const USUAL_BYTES: u64 = 16 << 10;
        let txs = (bytes_max / USUAL_BYTES) as usize;
        LargeTxs {
            txs: Cache::with_weighter(txs, bytes_max, LargeTxBytes),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.txs.weight()
    }

    /// The transaction at this place of the block; read once for all who ask at the same time.
    pub fn get(
        &self,
        archive: &dyn Archive,
        reorgs: u64,
        n: TxNum,
        block: &TableBlock,
        place: &TxPlace,
    ) -> Result<Arc<LargeTx>, QueryError> {
        self.txs.get_or_insert_with(&(reorgs, n), || {
            let mut scratch = Scratch::take();
            let bytes = scratch.room(place.size as usize);
            archive.read(block, place.offset, bytes)?;
            let (tx, txid) = checked(block, place, bytes)?;
            Ok(Arc::new(LargeTx::new(&tx, txid)))
        })
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{
        Amount, ScriptBuf, Transaction, TxIn, TxOut, absolute::LockTime,
        consensus::encode::serialize, hashes::Hash, transaction::Version,
    };
    use proptest::prelude::*;

    use super::*;

    /// Few scripts, alike in their ends and different in their lengths, empty ones and some that nobody can spend.
    fn script() -> impl Strategy<Value = ScriptBuf> {
        let bytes = prop_oneof![
            prop::collection::vec(0u8..3, 0..6),
            (0u8..4).prop_map(|n| vec![n, 7, 7, 7, 7, 7, 7, 7, 7]),
            (0u8..2).prop_map(|n| vec![0x6a, n]),
        ];
        bytes.prop_map(ScriptBuf::from_bytes)
    }

    fn transaction(scripts: &[ScriptBuf], inputs: u32) -> Transaction {
        let input = |n| TxIn {
            previous_output: OutPoint::new(Txid::from_byte_array([n as u8 + 1; 32]), n),
            ..TxIn::default()
        };
        let output = |(n, script): (u64, &ScriptBuf)| TxOut {
            value: Amount::from_sat(n),
            script_pubkey: script.clone(),
        };
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: (0..inputs).map(input).collect(),
            output: (0..).zip(scripts).map(output).collect(),
        }
    }

    proptest! {
        #[test]
        fn a_large_transaction_tells_of_each_script_what_its_outputs_tell(
            scripts in prop::collection::vec(script(), 1..300),
            strangers in prop::collection::vec(script(), 1..20),
            inputs in 1u32..5,
        ) {
            let tx = transaction(&scripts, inputs);
            let bytes = serialize(&tx);
            let large = LargeTx::new(&TxView::parse(&bytes).unwrap(), tx.compute_txid());
            let spent: Vec<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
            prop_assert_eq!(&large.inputs[..], &spent[..]);
            for (vout, script) in scripts.iter().enumerate() {
                prop_assert_eq!(large.script(vout), Some(script.as_bytes()));
            }
            prop_assert_eq!(large.script(scripts.len()), None);
            for script in scripts.iter().chain(&strangers) {
                let outputs = (0u32..).zip(&tx.output);
                let expected: Vec<(u32, u64)> = outputs
                    .filter(|(_, output)| output.script_pubkey == *script)
                    .map(|(vout, output)| (vout, output.value.to_sat()))
                    .collect();
                let found: Vec<(u32, u64)> = large.paying(script.as_bytes()).collect();
                let is_there = !expected.is_empty() && !script.is_op_return();
                prop_assert_eq!(found, expected);
                let hash = ScriptHash::new(script.as_bytes());
                prop_assert_eq!(large.script_of(&hash), is_there.then_some(script.as_bytes()));
            }
        }
    }
}
