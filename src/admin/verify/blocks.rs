//! Blocks made again from the node's bytes, and held against the index's rows, in both directions.

use std::{
    collections::{BTreeMap, HashSet},
    ops::ControlFlow,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{
    Fault, Faults, Options, Truth, VerifyError, Watch, blame,
    chain::{Chain, Listed},
    coins::{CoinChange, coin_change},
    sums::{Finder, Sum, Sums, Told, each_row},
    truth::Fetched,
    unreadable,
};
use crate::{
    chain::{BlockView, Height, ParseError, SpentOutputs, TxNum},
    index::{
        BlockRows, Column, HashRows, Index,
        schema::{HashRow, TxPositionRow},
    },
};

/// Blocks with wrong rows whose missing and superfluous rows are counted one by one.
const EXPLAINED_MAX: usize = 50;

/// What was made again.
pub struct Made {
    pub blocks: u64,
    /// By height, of all blocks; `None` where only some were made.
    pub coins: Option<Vec<CoinChange>>,
}

#[allow(clippy::too_many_arguments)] // the two sides, what was found of each, and whom it tells
pub fn check(
    index: &Index,
    truth: &dyn Truth,
    chain: &Chain,
    sums: &Sums,
    heights: &[Height],
    options: &Options,
    faults: &Mutex<Faults>,
    watch: &dyn Watch,
) -> Result<Made, VerifyError> {
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let wrong = Mutex::new(BTreeMap::new());
    let is_all = heights.len() == chain.blocks.len();
    let coins = Mutex::new(vec![
        CoinChange::default();
        if is_all { heights.len() } else { 0 }
    ]);
    let is_missing = AtomicU64::new(0);
    let work = || -> Result<(), VerifyError> {
        while let Some(&height) = heights.get(next.fetch_add(1, Ordering::Relaxed)) {
            if watch.is_stopped() {
                return Err(VerifyError::Stopped);
            }
            let listed = &chain.blocks[height as usize];
            let Some((rows, change)) = make(truth, height, listed, faults)? else {
                is_missing.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            if rows.block.tx_count != listed.tx_count {
                let what = "another number of transactions";
                blame(faults, Fault::NotTheNodes { height, what });
                continue;
            }
            check_positions(index, &rows, faults)?;
            check_merkle_row(index, &rows, faults);
            let (mut history, mut txid) = (Sum::default(), Sum::default());
            plain(&rows.history).for_each(|row| history.add(row));
            plain(&rows.txid).for_each(|row| txid.add(row));
            if history != sums.history.of(height) || txid != sums.txid.of(height) {
                let mut wrong = wrong.lock().unwrap_or_else(PoisonError::into_inner);
                // Some are kept to be told in detail.
                let is_explained = wrong.len() < EXPLAINED_MAX;
                wrong.insert(height, is_explained.then_some(rows));
            }
            if is_all {
                let mut coins = coins.lock().unwrap_or_else(PoisonError::into_inner);
                coins[height as usize] = change;
            }
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            watch.done(done, heights.len() as u64);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.threads.max(1))
            .map(|_| scope.spawn(work))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a check does not panic"))
    })?;
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !wrong.is_empty() {
        watch.phase("which rows are wrong");
        explain(index, chain, &wrong, faults, watch)?;
    }
    let is_complete = is_all && is_missing.into_inner() == 0;
    let coins = coins.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Made {
        blocks: done.into_inner(),
        coins: is_complete.then_some(coins),
    })
}

/// A block's rows from the node's bytes; `None` where it cannot be had at all.
fn make(
    truth: &dyn Truth,
    height: Height,
    listed: &Listed,
    faults: &Mutex<Faults>,
) -> Result<Option<(BlockRows, CoinChange)>, VerifyError> {
    let first = truth.block(listed).map_err(VerifyError::Node)?;
    let place = |cause: String| blame(faults, Fault::Place { height, cause });
    if let Fetched::Files { complaint, .. } = &first
        && let Some(cause) = complaint
    {
        place(cause.clone());
    }
    let fetched = match first {
        Fetched::Files { bytes, spent, .. } => match rows(height, listed, &bytes, &spent) {
            Ok(made) => return Ok(Some(made)),
            // The files lie; the node itself is asked.
            Err(error) => {
                place(error.to_string());
                truth.fetch(listed).map_err(VerifyError::Node)?
            }
        },
        fetched => fetched,
    };
    match fetched {
        Fetched::Files { bytes, spent, .. } | Fetched::Node { bytes, spent } => {
            match rows(height, listed, &bytes, &spent) {
                Ok(made) => Ok(Some(made)),
                Err(error) => {
                    place(format!("the node's own bytes: {error}"));
                    Ok(None)
                }
            }
        }
        Fetched::Nowhere { cause } => {
            place(cause);
            Ok(None)
        }
    }
}

fn rows(
    height: Height,
    listed: &Listed,
    bytes: &[u8],
    spent: &SpentOutputs,
) -> Result<(BlockRows, CoinChange), ParseError> {
    let block = BlockView::parse(bytes)?;
    let rows = BlockRows::of(
        height,
        listed.first_tx,
        listed.place,
        &block,
        spent.reader()?,
    )?;
    if rows.block.hash != listed.hash {
        return Err(ParseError::Mismatch {
            what: "it is another block",
        });
    }
    let change = coin_change(height, &block, spent)?;
    Ok((rows, change))
}

/// The block's places are just these.
fn check_positions(
    index: &Index,
    rows: &BlockRows,
    faults: &Mutex<Faults>,
) -> Result<(), VerifyError> {
    let (first, next) = (rows.block.first_tx, rows.next_tx());
    let complain = || {
        let what = "have other places than in the node's block";
        let (from, to) = (first.0, next.0 - 1);
        blame(faults, Fault::Position { from, to, what });
    };
    if index.is_flat(first) {
        match index.inspect_flat(first, rows.block.tx_count) {
            Ok(found) if rows.flat_positions().ok().as_ref() == Some(&found) => {}
            Ok(_) => complain(),
            Err(error) => return unreadable(faults, TxPositionRow::FAMILY, error),
        }
        return Ok(());
    }
    let mut expected = rows.tx_position.iter();
    let mut is_same = true;
    let (from, below) = (TxPositionRow::key(first), TxPositionRow::key(next));
    let read = index.inspect(
        Column::TxPosition,
        &from,
        Some(&below),
        &mut |key, value| {
            let row = expected.next();
            is_same &= row.is_some_and(|(last, expected)| {
                (&TxPositionRow::key(*last)[..], &expected[..]) == (key, value)
            });
            ControlFlow::Continue(())
        },
    );
    if let Err(error) = read {
        return unreadable(faults, TxPositionRow::FAMILY, error);
    }
    if !is_same || expected.next().is_some() {
        complain();
    }
    Ok(())
}

/// What the first sync wrote of the block's merkle tree is what it is.
fn check_merkle_row(index: &Index, rows: &BlockRows, faults: &Mutex<Faults>) {
    let (height, txs) = (rows.height, rows.block.txs());
    if index.is_flat(txs.first) && index.merkle_row(height, &txs) != Some(rows.merkle_row()) {
        blame(faults, Fault::MerkleRow { height });
    }
}

/// Counts, of blocks with wrong rows, what is missing and what is too many: one more pass over the rows.
fn explain(
    index: &Index,
    chain: &Chain,
    wrong: &BTreeMap<Height, Option<BlockRows>>,
    faults: &Mutex<Faults>,
    watch: &dyn Watch,
) -> Result<(), VerifyError> {
    let finder = Finder::new(chain);
    let (history, txid) = (HashRows::History, HashRows::Txid);
    let of_history = |rows: &BlockRows| plain(&rows.history).collect();
    let of_txid = |rows: &BlockRows| plain(&rows.txid).collect();
    compare(index, history, wrong, of_history, &finder, faults, watch)?;
    compare(index, txid, wrong, of_txid, &finder, faults, watch)?;
    for (&height, rows) in wrong {
        if rows.is_none() {
            let what = "other rows than the index";
            blame(faults, Fault::NotTheNodes { height, what });
        }
    }
    Ok(())
}

/// Rows as numbers: prefix and transaction.
fn plain<const LEN: usize>(rows: &[HashRow<LEN>]) -> impl Iterator<Item = (u64, u32)> + '_ {
    rows.iter().map(|row| (row.prefix, row.tx.0))
}

fn compare(
    index: &Index,
    kind: HashRows,
    wrong: &BTreeMap<Height, Option<BlockRows>>,
    rows_of: impl Fn(&BlockRows) -> HashSet<(u64, u32)>,
    finder: &Finder,
    faults: &Mutex<Faults>,
    watch: &dyn Watch,
) -> Result<(), VerifyError> {
    let explained = wrong
        .iter()
        .filter_map(|(height, rows)| Some((*height, rows.as_ref()?)));
    let mut missing: BTreeMap<Height, HashSet<(u64, u32)>> = explained
        .map(|(height, rows)| (height, rows_of(rows)))
        .collect();
    let mut extra: BTreeMap<Height, u64> = BTreeMap::new();
    // Damaged and hidden rows have been told of.
    let told = Told::default();
    for byte in 0..=u8::MAX {
        if watch.is_stopped() {
            return Err(VerifyError::Stopped);
        }
        each_row(index, kind, byte, &told, &mut |row| {
            if let Some(height) = finder.height(TxNum(row.1))
                && let Some(rows) = missing.get_mut(&height)
                && !rows.remove(&row)
            {
                *extra.entry(height).or_default() += 1;
            }
            ControlFlow::Continue(())
        })?;
    }
    for (height, missing) in missing {
        let missing = missing.len() as u64;
        let extra = extra.get(&height).copied().unwrap_or(0);
        if missing + extra > 0 {
            let family = kind.name();
            blame(
                faults,
                Fault::Rows {
                    height,
                    family,
                    missing,
                    extra,
                },
            );
        }
    }
    Ok(())
}
