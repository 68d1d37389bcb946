//! `ambra verify`: the index held against itself and against the node.
//!
//! 1. `chain`: every block row: headers link, hash to what stands beside them, and are the node's; transaction
//!    numbers run on; the tip is the last of them.
//! 2. `positions`: every transaction has one place, and a block's places fill the block.
//! 3. `sums`: all rows of `history` and `txid` are read once, and summed up by the block they belong to. Every
//!    transaction has one `txid` row.
//! 4. `blocks`: of a sample of blocks, or of all, the rows are made again from the node's bytes and compared
//!    with those sums: a row that is missing shows, and one that is too many.
//! 5. `totals`: the number of transactions, and with all blocks the number and the sum of unspent outputs, are
//!    what the node counts.
//!
//! Nothing is written. A server may use the index meanwhile: what is checked is the index of one moment.

mod blocks;
mod chain;
mod coins;
mod positions;
mod report;
mod sums;
#[cfg(test)]
mod tests;
mod totals;
mod truth;

use std::{collections::BTreeSet, sync::Mutex};

pub use report::{Fault, Report};
pub use truth::{COUNT_PATIENCE, Coins, Fetched, Node, Truth};

use crate::{
    chain::Height,
    index::{Index, IndexError},
};

/// How many blocks are made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    All,
    /// So many, chosen at random, and the newest.
    Sample(u32),
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub blocks: Blocks,
    /// Chooses the sample; the same seed chooses the same blocks of the same chain.
    pub seed: u64,
    pub threads: usize,
}

/// Told how far it is; says whether to stop.
pub trait Watch: Sync {
    fn phase(&self, text: &str);
    fn done(&self, done: u64, all: u64);
    fn is_stopped(&self) -> bool;
}

/// Why the check could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("stopped before the end; nothing can be said")]
    Stopped,
    #[error(
        "the first sync is not complete yet, so there is nothing to check; a server goes on with it"
    )]
    NoTip,
    #[error("the node could not be asked: {0}")]
    Node(String),
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Checks the index. Faults are in the report; an error means that it could not be finished.
pub fn verify(
    index: &Index,
    truth: &dyn Truth,
    options: &Options,
    watch: &dyn Watch,
) -> Result<Report, VerifyError> {
    let tip = index.tip()?.ok_or(VerifyError::NoTip)?;
    let faults = Mutex::<Faults>::default();
    let mut report = Report::new(tip, options);
    watch.phase("headers");
    let chain = chain::check(index, &tip, &faults, watch)?;
    let Some(chain) = chain else {
        // Without the numbers of transactions no row can be told which block it belongs to.
        report.is_cut_short = true;
        return Ok(report.with(faults));
    };
    chain::compare_with_node(&chain, truth, &faults, &mut report, watch)?;
    watch.phase("places of transactions");
    report.positions = positions::check(index, &chain, &faults, watch)?;
    watch.phase("rows of scripts and transactions");
    let sums = sums::gather(index, &chain, options.threads, &faults, watch)?;
    (report.history, report.txids) = (sums.history.rows(), sums.txid.rows());
    sums.check_txids(&chain, &faults);
    let heights = chosen(&chain, options);
    watch.phase(&format!("{} blocks from the node's bytes", heights.len()));
    let made = blocks::check(
        index, truth, &chain, &sums, &heights, options, &faults, watch,
    )?;
    report.blocks = made.blocks;
    watch.phase("the node's totals");
    totals::check(truth, &chain, &made, &faults, &mut report)?;
    Ok(report.with(faults))
}

/// The heights that are made again, ascending.
fn chosen(chain: &chain::Chain, options: &Options) -> Vec<Height> {
    let count = chain.blocks.len() as Height;
    match options.blocks {
        Blocks::Sample(wanted) if wanted < count => {
            let mut random = Random(options.seed);
            let mut heights = BTreeSet::from([count - 1]);
            while heights.len() < wanted.max(1) as usize {
                heights.insert((random.next() % u64::from(count)) as Height);
            }
            heights.into_iter().collect()
        }
        Blocks::Sample(_) | Blocks::All => (0..count).collect(),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): numbers for a sample, the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }
}

/// SplitMix64's mixing step: each bit of the number changes half of the result's.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// What was found: the first of them, and how many there are.
#[derive(Default)]
struct Faults {
    shown: Vec<Fault>,
    count: u64,
}

impl Faults {
    /// Faults that are kept to be told; more are counted.
    const SHOWN_MAX: usize = 100;

    fn push(&mut self, fault: Fault) {
        self.count += 1;
        if self.shown.len() < Self::SHOWN_MAX {
            self.shown.push(fault);
        }
    }
}

/// Adds a fault, from whichever thread.
fn blame(faults: &Mutex<Faults>, fault: Fault) {
    faults
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .push(fault);
}

/// A part of the database that RocksDB itself finds damaged is a fault that was found; all else ends the check.
fn unreadable(
    faults: &Mutex<Faults>,
    family: &'static str,
    error: IndexError,
) -> Result<(), VerifyError> {
    match error {
        IndexError::Corrupt(cause) => {
            blame(faults, Fault::Unreadable { family, cause });
            Ok(())
        }
        error => Err(error.into()),
    }
}
