//! The block rows: a chain, and the node's.

use std::{ops::ControlFlow, sync::Mutex};

use bitcoin::{BlockHash, hex::DisplayHex};

use super::{Fault, Faults, Report, Truth, VerifyError, Watch, blame, unreadable};
use crate::{
    chain::{BlockPlace, Height, TxNum, block_hash},
    daemon::files::previous,
    index::{BlockRow, Column, Index, TipRow},
};

/// Hashes asked of the node at once.
const BATCH: u32 = 1000;

/// Rows between two looks at the stop sign.
const ROWS_PER_LOOK: usize = 1 << 14;

/// What is needed of a block row: 64 bytes each, 60 MB for mainnet.
#[derive(Clone, Copy)]
pub struct Listed {
    pub hash: BlockHash,
    pub first_tx: TxNum,
    pub tx_count: u32,
    pub place: BlockPlace,
}

/// All blocks, from the genesis block up.
pub struct Chain {
    pub blocks: Vec<Listed>,
    /// The number behind the last transaction.
    pub next_tx: TxNum,
}

/// Reads all block rows; `None` where they do not say which transaction belongs to which block.
pub fn check(
    index: &Index,
    tip: &TipRow,
    faults: &Mutex<Faults>,
    watch: &dyn Watch,
) -> Result<Option<Chain>, VerifyError> {
    let mut blocks: Vec<Listed> = Vec::with_capacity(tip.height as usize + 1);
    let mut next_tx = TxNum::ZERO;
    let mut is_whole = true;
    let family = BlockRow::FAMILY;
    let read = index.inspect(Column::Block, &[], None, &mut |key, value| {
        let height = blocks.len() as Height;
        let row = BlockRow::decode_key(key)
            .and_then(|height| Ok((height, BlockRow::decode_value(value)?)));
        let Ok((found, row)) = row else {
            let key = key.as_hex().to_string();
            blame(faults, Fault::Damaged { family, key });
            is_whole = false;
            return ControlFlow::Break(());
        };
        if found != height {
            blame(faults, Fault::Gap { height });
            is_whole = false;
            return ControlFlow::Break(());
        }
        check_row(height, &row, blocks.last(), next_tx, faults);
        let Some(next) = next_tx.checked_add(row.tx_count) else {
            is_whole = false;
            return ControlFlow::Break(());
        };
        blocks.push(Listed {
            hash: row.hash,
            first_tx: next_tx,
            tx_count: row.tx_count,
            place: row.place,
        });
        next_tx = next;
        if blocks.len().is_multiple_of(ROWS_PER_LOOK) {
            watch.done(blocks.len() as u64, u64::from(tip.height) + 1);
            if watch.is_stopped() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    if watch.is_stopped() {
        return Err(VerifyError::Stopped);
    }
    if let Err(error) = read {
        unreadable(faults, family, error)?;
        is_whole = false;
    }
    let last = blocks.last().map(|block| (block.hash, next_tx));
    if is_whole
        && (last != Some((tip.hash, tip.next_tx)) || blocks.len() != tip.height as usize + 1)
    {
        let last = (blocks.len() as Height).saturating_sub(1);
        let tip = tip.height;
        blame(faults, Fault::Tip { tip, last });
    }
    Ok((is_whole && !blocks.is_empty()).then_some(Chain { blocks, next_tx }))
}

fn check_row(
    height: Height,
    row: &BlockRow,
    below: Option<&Listed>,
    next_tx: TxNum,
    faults: &Mutex<Faults>,
) {
    if block_hash(&row.header) != row.hash {
        let what = "its header does not hash to the hash beside it";
        blame(faults, Fault::Header { height, what });
    }
    if below.is_some_and(|below| previous(&row.header) != below.hash) {
        let what = "its header does not follow on the block below";
        blame(faults, Fault::Header { height, what });
    }
    if row.first_tx != next_tx {
        let (expected, found) = (next_tx.0, row.first_tx.0);
        blame(
            faults,
            Fault::Number {
                height,
                expected,
                found,
            },
        );
    }
    if row.tx_count == 0 {
        let what = "it has no transactions";
        blame(faults, Fault::Header { height, what });
    }
}

/// Each block is the node's, up to where their chains part.
pub fn compare_with_node(
    chain: &Chain,
    truth: &dyn Truth,
    faults: &Mutex<Faults>,
    report: &mut Report,
    watch: &dyn Watch,
) -> Result<(), VerifyError> {
    let (node_height, _) = truth.tip().map_err(VerifyError::Node)?;
    report.node_height = node_height;
    let count = (chain.blocks.len() as u32).min(node_height + 1);
    let mut differing = Vec::new();
    for start in (0..count).step_by(BATCH as usize) {
        if watch.is_stopped() {
            return Err(VerifyError::Stopped);
        }
        let batch = BATCH.min(count - start);
        let hashes = truth.hashes(start, batch).map_err(VerifyError::Node)?;
        let ours = &chain.blocks[start as usize..];
        let differs = (start..).zip(ours.iter().zip(&hashes));
        differing.extend(
            differs
                .filter(|(_, (ours, node))| ours.hash != **node)
                .map(|(height, _)| height),
        );
        watch.done(u64::from(start + batch), count.into());
    }
    // A branch that was left differs from some height up to the end; anything else is no chain.
    let fork = differing.first().and_then(|first| first.checked_sub(1));
    let is_branch = fork.is_some() && differing.iter().copied().eq(differing[0]..count);
    if is_branch {
        report.fork = fork;
    } else {
        for height in differing {
            let what = "another hash";
            blame(faults, Fault::NotTheNodes { height, what });
        }
        if node_height + 1 < chain.blocks.len() as u32 {
            report.fork = Some(node_height);
        }
    }
    Ok(())
}
