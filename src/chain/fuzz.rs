//! What is fuzzed of this room: the parsers of a block, of a transaction and of what a block spends.
//!
//! rust-bitcoin reads the same bytes by other code; where both take them, both must say the same.

use bitcoin::{Block, Transaction, consensus::deserialize, hashes::Hash};

use super::{BlockView, ParseError, SpentReader, TxView};

/// A block: its frame, its transactions, and all that is asked of each.
pub fn block(bytes: &[u8]) {
    let parsed = BlockView::parse(bytes).and_then(|block| {
        let mut txids = Vec::new();
        block.for_each_tx(|at, tx| {
            assert_eq!(&bytes[at..at + tx.bytes.len()], tx.bytes);
            look_at(&tx);
            txids.push(tx.txid());
            Ok::<_, ParseError>(())
        })?;
        Ok(txids)
    });
    let theirs = deserialize::<Block>(bytes).ok();
    if let (Ok(txids), Some(theirs)) = (&parsed, &theirs) {
        let expected = theirs.txdata.iter().map(Transaction::compute_txid);
        assert!(expected.eq(txids.iter().copied()));
    }
    let is_empty = theirs.as_ref().is_some_and(|block| block.txdata.is_empty());
    assert!(parsed.is_ok() || theirs.is_none() || is_empty);
}

/// A transaction that fills the bytes.
pub fn transaction(bytes: &[u8]) {
    let parsed = TxView::parse(bytes);
    let theirs = deserialize::<Transaction>(bytes).ok();
    if let Ok(tx) = &parsed {
        look_at(tx);
    }
    if let Some(theirs) = theirs {
        let tx = parsed.expect("rust-bitcoin takes it");
        assert_eq!(tx.txid(), theirs.compute_txid());
        assert_eq!(tx.weight(), theirs.weight().to_wu());
        let inputs = theirs.input.iter().map(|input| input.previous_output);
        assert!(inputs.eq(tx.inputs().map(|input| input.outpoint())));
        let outputs = theirs.output.iter();
        let outputs =
            outputs.map(|output| (output.value.to_sat(), output.script_pubkey.as_bytes()));
        assert!(outputs.eq(tx.outputs().map(|output| (output.value, output.script))));
    }
}

fn look_at(tx: &TxView) {
    let _ = (tx.txid(), tx.weight());
    assert_eq!(tx.inputs().count(), tx.input_count);
    assert_eq!(tx.outputs().count(), tx.output_count);
    for input in tx.inputs() {
        let _ = (input.is_coinbase(), input.outpoint());
    }
}

/// The outputs that a block spends: the first byte says whether as undo data or as REST gives them.
pub fn spent(bytes: &[u8]) {
    let Some((form, bytes)) = bytes.split_first() else {
        return;
    };
    let reader = match form & 1 {
        0 => SpentReader::undo(bytes),
        _ => SpentReader::rest(bytes),
    };
    let _ = reader.and_then(read_spent);
}

fn read_spent(mut reader: SpentReader) -> Result<(), ParseError> {
    while reader.txs_left() > 0 {
        for _ in 0..reader.next_tx()? {
            reader.next_output()?;
        }
    }
    reader.finish()
}

/// The block with the merkle root that its transactions make, so that what lies behind that check is
/// reached too; `None` where it is no block.
pub fn with_own_merkle_root(bytes: &[u8]) -> Option<Vec<u8>> {
    let block = BlockView::parse(bytes).ok()?;
    let mut txids = Vec::new();
    block
        .for_each_tx(|_, tx| {
            txids.push(tx.txid().to_byte_array());
            Ok::<_, ParseError>(())
        })
        .ok()?;
    let root = super::merkle_root(txids)?;
    let mut bytes = bytes.to_vec();
    bytes.get_mut(super::MERKLE_ROOT_AT)?.copy_from_slice(&root);
    Some(bytes)
}
