//! What a check found, in words.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use super::{Blocks, Faults, Options};
use crate::{chain::Height, index::TipRow};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{family}: the files cannot be read: {cause}")]
    Unreadable { family: &'static str, cause: String },
    #[error("{family}: a row is damaged (key {key})")]
    Damaged { family: &'static str, key: String },
    #[error("block: there is no row for height {height}")]
    Gap { height: Height },
    #[error("block {height}: {what}")]
    Header { height: Height, what: &'static str },
    #[error("block {height}: its first transaction has the number {found}, not {expected}")]
    Number {
        height: Height,
        expected: u32,
        found: u32,
    },
    #[error("meta: the tip is block {tip} in meta, and block {last} by the rows")]
    Tip { tip: Height, last: Height },
    #[error("block {height}: the node's block has {what}")]
    NotTheNodes { height: Height, what: &'static str },
    #[error(
        "merkle.flat: what it has of block {height} is missing or wrong; proofs are right all the same, and take longer"
    )]
    MerkleRow { height: Height },
    #[error("tx_position: transactions {from} to {to} {what}")]
    Position {
        from: u32,
        to: u32,
        what: &'static str,
    },
    #[error("{family}: {count} rows of transactions above the tip")]
    AboveTip { family: &'static str, count: u64 },
    #[error("history, txid: {count} rows lie where no question looks for them")]
    Hidden { count: u64 },
    #[error("txid: block {height} has {expected} transactions, and {found} rows")]
    TxidRows {
        height: Height,
        expected: u32,
        found: u32,
    },
    #[error("{family}: of block {height}, {missing} rows are missing and {extra} are too many")]
    Rows {
        height: Height,
        family: &'static str,
        missing: u64,
        extra: u64,
    },
    #[error("block {height}: it cannot be read where the index says that it lies: {cause}")]
    Place { height: Height, cause: String },
    #[error("the node counts {node} {what}, the index {index}")]
    Total {
        what: &'static str,
        node: u64,
        index: u64,
    },
}

/// What was checked, and what was found.
#[derive(Clone, Debug)]
pub struct Report {
    tip: TipRow,
    options: Options,
    pub positions: u64,
    pub history: u64,
    pub txids: u64,
    /// Blocks that were made again.
    pub blocks: u64,
    /// Where the node's chain has left the index's: nothing wrong, a server takes those blocks back.
    pub fork: Option<Height>,
    /// How far the node is, where that is not the index's tip.
    pub node_height: Height,
    /// What could not be compared, and why.
    pub notes: Vec<String>,
    /// What the node counts too.
    pub totals: Vec<String>,
    /// The rows say too little to go on.
    pub is_cut_short: bool,
    pub faults: Vec<Fault>,
    pub fault_count: u64,
}

impl Report {
    pub(super) fn new(tip: TipRow, options: &Options) -> Report {
        Report {
            tip,
            options: *options,
            positions: 0,
            history: 0,
            txids: 0,
            blocks: 0,
            fork: None,
            node_height: tip.height,
            notes: Vec::new(),
            totals: Vec::new(),
            is_cut_short: false,
            faults: Vec::new(),
            fault_count: 0,
        }
    }

    pub(super) fn with(mut self, faults: Mutex<Faults>) -> Report {
        let faults = faults.into_inner().unwrap_or_else(PoisonError::into_inner);
        (self.faults, self.fault_count) = (faults.shown, faults.count);
        self
    }

    pub fn is_well(&self) -> bool {
        self.fault_count == 0 && !self.is_cut_short
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks = u64::from(self.tip.height) + 1;
        writeln!(f, "index at block {} ({})", self.tip.height, self.tip.hash)?;
        match self.fork {
            Some(fork) => writeln!(
                f,
                "  the node has left its branch above block {fork}: a server takes those blocks back when it runs"
            )?,
            None if self.node_height > self.tip.height => writeln!(
                f,
                "  the node is at block {}: a server adds the others when it runs",
                self.node_height
            )?,
            None => {}
        }
        writeln!(f, "  block        {blocks} rows")?;
        if !self.is_cut_short {
            writeln!(f, "  tx_position  {} places", self.positions)?;
            writeln!(f, "  history      {} rows", self.history)?;
            writeln!(f, "  txid         {} rows", self.txids)?;
            match self.options.blocks {
                Blocks::All => writeln!(
                    f,
                    "  {} of {blocks} blocks made again and compared",
                    self.blocks
                )?,
                Blocks::Sample(_) => writeln!(
                    f,
                    "  {} of {blocks} blocks made again and compared (chosen with --seed {})",
                    self.blocks, self.options.seed
                )?,
            }
        }
        for total in &self.totals {
            writeln!(f, "  {total}: as the node counts")?;
        }
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        for fault in &self.faults {
            writeln!(f, "FAULT {fault}")?;
        }
        let told = self.faults.len() as u64;
        if self.fault_count > told {
            writeln!(f, "and {} more", self.fault_count - told)?;
        }
        if self.is_cut_short {
            writeln!(f, "With these block rows nothing else can be checked.")?;
        }
        if self.is_well() {
            write!(f, "No faults.")
        } else {
            write!(
                f,
                "{} faults. Start once with --rebuild: the index is deleted, and built anew from the node.",
                self.fault_count
            )
        }
    }
}
