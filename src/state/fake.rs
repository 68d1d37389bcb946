//! A chain in memory, made of real blocks, behind the same door as the disk. Its prefixes are a few bits
//! short, so that most candidates are strangers.

use std::{
    collections::BTreeSet,
    ops::{ControlFlow, Range},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use bitcoin::{
    Block, OutPoint, ScriptBuf, TxOut, Txid, consensus::encode::serialize, hashes::Hash,
};

use super::{
    QueryError,
    archive::{Archive, Places},
    lock,
    table::TableBlock,
};
use crate::{
    chain::{
        BlockPlace, Height, Node, ScriptHash, TxNum, TxView, is_unspendable, merkle_row_over_groups,
    },
    index::{BlockRow, MERKLE_GROUP_BITS, TxPlace},
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
    /// What the node has of them, if it has its own.
    whole: Option<Vec<Vec<u8>>>,
    is_node_damaged: bool,
    places: Vec<TxPlace>,
    merkle_rows: Vec<Vec<Node>>,
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
            let tx_bytes = serialize(tx);
            let size = tx_bytes.len() as u32;
            let view = TxView::parse(&tx_bytes).unwrap();
            rows.places.push(TxPlace {
                offset,
                size,
                check: TxPlace::check_of(&view, &view.txid()),
            });
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
        let txids = block.txdata.iter().map(|tx| tx.compute_txid());
        let row = txids.map(|txid| txid.to_byte_array()).collect();
        rows.merkle_rows
            .push(merkle_row_over_groups(row, MERKLE_GROUP_BITS));
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
        rows.merkle_rows.truncate(from as usize);
        rows.history.retain(|(_, n)| *n < first);
        rows.txids.retain(|(_, n)| *n < first);
    }

    /// Flips a bit of each byte in the range, of a block's.
    pub fn spoil(&self, height: Height, bytes: Range<usize>) {
        let mut rows = self.rows.write().unwrap();
        let block = &mut rows.blocks[height as usize].1;
        block[bytes].iter_mut().for_each(|byte| *byte ^= 0x10);
    }

    /// From now on the node has what the blocks are at this moment.
    pub fn copy_for_node(&self) {
        let mut rows = self.rows.write().unwrap();
        rows.whole = Some(rows.blocks.iter().map(|block| block.1.clone()).collect());
    }

    /// True if this byte of the block has changed, and its transaction's check byte is the same.
    pub fn passes_by_chance(&self, height: Height, at: usize) -> bool {
        let rows = self.rows.read().unwrap();
        let (row, bytes) = &rows.blocks[height as usize];
        let places = &rows.places[row.first_tx.0 as usize..][..row.tx_count as usize];
        places.iter().any(|place| {
            let range = place.offset as usize..(place.offset + place.size) as usize;
            range.contains(&at)
                && TxView::parse(&bytes[range]).is_ok_and(|tx| place.fits(&tx, &tx.txid()))
        })
    }

    /// All blocks are again what the node has.
    pub fn restore(&self) {
        let mut rows = self.rows.write().unwrap();
        let whole = rows.whole.clone().unwrap();
        for (block, whole) in rows.blocks.iter_mut().zip(whole) {
            block.1 = whole;
        }
    }

    pub fn node_is_damaged_too(&self, is_damaged: bool) {
        self.rows.write().unwrap().is_node_damaged = is_damaged;
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

    fn numbered(
        &self,
        txid: &Txid,
        below: TxNum,
        each: &mut dyn FnMut(TxNum) -> Result<ControlFlow<()>, QueryError>,
    ) -> Result<(), QueryError> {
        let rows = self.rows.read().unwrap();
        let found = Self::numbers(&rows.txids, txid_prefix(txid), TxNum::ZERO, below);
        drop(rows);
        for n in found {
            if each(n)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn places(&self) -> Places<'_> {
        Box::new(|block, n| {
            assert!(block.contains(n), "{n} is looked for in another block");
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

    fn heal(&self, block: &TableBlock) -> Result<(), QueryError> {
        let mut rows = self.rows.write().unwrap();
        let Some(whole) = rows.whole.as_ref().filter(|_| !rows.is_node_damaged) else {
            return Err(QueryError::Unavailable("the node's too".to_owned()));
        };
        let height = block.height as usize;
        let bytes = whole[height].clone();
        assert!(rows.blocks[height].1 != bytes, "the block is well");
        rows.blocks[height].1 = bytes;
        Ok(())
    }

    fn gap_bytes(&self) -> u32 {
        4 << 10
    }

    fn merkle_row(&self, block: &TableBlock) -> Option<Vec<Node>> {
        let rows = self.rows.read().unwrap();
        let mut row = rows.merkle_rows.get(block.height as usize)?.clone();
        // Of some blocks it is known, of some it is not, and of some it is wrong.
        match block.height % 4 {
            0 | 1 => Some(row),
            2 => {
                row[0][7] ^= 1;
                Some(row)
            }
            _ => None,
        }
    }

    fn read(&self, block: &TableBlock, offset: u32, out: &mut [u8]) -> Result<(), QueryError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let hook = lock(&self.on_read).take();
        if let Some(mut hook) = hook {
            hook();
        }
        let rows = self.rows.read().unwrap();
        let part = rows
            .blocks
            .get(block.place.file as usize)
            .and_then(|(_, bytes)| bytes.get(offset as usize..offset as usize + out.len()))
            .ok_or_else(|| QueryError::Unavailable("no such bytes".to_owned()))?;
        out.copy_from_slice(part);
        Ok(())
    }
}
