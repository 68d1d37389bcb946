//! All rows of `history` and `txid`, read once and summed up by block: a sum of mixed numbers is the same in
//! whatever order the rows come, and another one if a row is missing, too many or changed.

use std::{
    ops::ControlFlow,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use bitcoin::hex::DisplayHex;

use super::{Fault, Faults, VerifyError, Watch, blame, chain::Chain, mixed, unreadable};
use crate::{
    chain::{Height, TxNum},
    index::{HashRows, Index, Seen},
};

/// Rows are read in parts, by their first byte.
const PARTS: usize = 256;

/// Transactions whose block is found by one look into a table, and few steps.
const STRIDE_BITS: u32 = 8;

/// Rows between two looks at the stop sign.
const ROWS_PER_LOOK: u64 = 1 << 16;

/// A block's rows of one column family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub rows: u32,
    pub sum: u64,
}

impl Sum {
    /// Adds a row: prefix and transaction.
    pub fn add(&mut self, row: (u64, u32)) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(number(row));
    }
}

fn number((prefix, tx): (u64, u32)) -> u64 {
    mixed(mixed(prefix) ^ u64::from(tx))
}

/// One column family's sums, by height.
#[derive(Default)]
pub struct FamilySums {
    blocks: Vec<(AtomicU32, AtomicU64)>,
}

impl FamilySums {
    pub fn of(&self, height: Height) -> Sum {
        let (rows, sum) = &self.blocks[height as usize];
        Sum {
            rows: rows.load(Ordering::Relaxed),
            sum: sum.load(Ordering::Relaxed),
        }
    }

    /// Of all blocks.
    pub fn rows(&self) -> u64 {
        let rows = self.blocks.iter().map(|(rows, _)| rows);
        rows.map(|rows| u64::from(rows.load(Ordering::Relaxed)))
            .sum()
    }
}

/// Finds the block of a transaction.
pub struct Finder<'a> {
    chain: &'a Chain,
    /// The block of every 2^`STRIDE_BITS`th transaction.
    table: Vec<Height>,
}

impl<'a> Finder<'a> {
    pub fn new(chain: &'a Chain) -> Finder<'a> {
        let mut table = Vec::with_capacity((chain.next_tx.0 >> STRIDE_BITS) as usize + 1);
        for (height, block) in (0..).zip(&chain.blocks) {
            let end = block.first_tx.0 + block.tx_count;
            while ((table.len() as u64) << STRIDE_BITS) < u64::from(end) {
                table.push(height);
            }
        }
        Finder { chain, table }
    }

    pub fn height(&self, tx: TxNum) -> Option<Height> {
        if tx >= self.chain.next_tx {
            return None;
        }
        let mut height = *self.table.get((tx.0 >> STRIDE_BITS) as usize)?;
        while let Some(block) = self.chain.blocks.get(height as usize + 1)
            && block.first_tx <= tx
        {
            height += 1;
        }
        Some(height)
    }
}

pub struct Sums {
    pub history: FamilySums,
    pub txid: FamilySums,
}

impl Sums {
    /// Every block has one row for each of its transactions.
    pub fn check_txids(&self, chain: &Chain, faults: &Mutex<Faults>) {
        for (height, block) in (0..).zip(&chain.blocks) {
            let (expected, found) = (block.tx_count, self.txid.of(height).rows);
            if expected != found {
                blame(
                    faults,
                    Fault::TxidRows {
                        height,
                        expected,
                        found,
                    },
                );
            }
        }
    }
}

pub fn gather(
    index: &Index,
    chain: &Chain,
    threads: usize,
    faults: &Mutex<Faults>,
    watch: &dyn Watch,
) -> Result<Sums, VerifyError> {
    let finder = Finder::new(chain);
    let blank = || FamilySums {
        blocks: chain.blocks.iter().map(|_| Default::default()).collect(),
    };
    let sums = Sums {
        history: blank(),
        txid: blank(),
    };
    let (told, above) = (Told::default(), [AtomicU64::new(0), AtomicU64::new(0)]);
    let kinds = [
        (HashRows::History, &sums.history, &above[0]),
        (HashRows::Txid, &sums.txid, &above[1]),
    ];
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), VerifyError> {
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            let Some((kind, sums, above)) = kinds.get(part / PARTS) else {
                return Ok(());
            };
            watch.done(part as u64, (kinds.len() * PARTS) as u64);
            let mut count = 0u64;
            each_row(index, *kind, (part % PARTS) as u8, &told, &mut |row| {
                match finder.height(TxNum(row.1)) {
                    Some(height) => {
                        let (rows, sum) = &sums.blocks[height as usize];
                        rows.fetch_add(1, Ordering::Relaxed);
                        sum.fetch_add(number(row), Ordering::Relaxed);
                    }
                    None => {
                        above.fetch_add(1, Ordering::Relaxed);
                    }
                }
                count += 1;
                if count.is_multiple_of(ROWS_PER_LOOK) && watch.is_stopped() {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            if watch.is_stopped() {
                return Err(VerifyError::Stopped);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("reading rows does not panic"))
    })?;
    for (kind, _, above) in kinds {
        let count = above.load(Ordering::Relaxed);
        if count > 0 {
            let family = kind.name();
            blame(faults, Fault::AboveTip { family, count });
        }
    }
    told.blame(faults);
    Ok(sums)
}

/// What is wrong with rows by themselves.
#[derive(Default)]
pub struct Told {
    faults: Mutex<Faults>,
    hidden: AtomicU64,
}

impl Told {
    fn blame(self, faults: &Mutex<Faults>) {
        let own = self
            .faults
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
        let more = own.count - own.shown.len() as u64;
        own.shown.into_iter().for_each(|fault| faults.push(fault));
        faults.count += more;
        let count = self.hidden.into_inner();
        if count > 0 {
            faults.push(Fault::Hidden { count });
        }
    }
}

/// Hands all rows whose key begins with `byte` to `each`, as prefix and transaction, and blames those that are none.
pub fn each_row(
    index: &Index,
    kind: HashRows,
    byte: u8,
    told: &Told,
    each: &mut dyn FnMut((u64, u32)) -> ControlFlow<()>,
) -> Result<(), VerifyError> {
    let read = index.inspect_hashes(kind, byte, &mut |seen| match seen {
        Seen::Row { prefix, tx } => each((prefix, tx)),
        Seen::Hidden => {
            told.hidden.fetch_add(1, Ordering::Relaxed);
            ControlFlow::Continue(())
        }
        Seen::Damaged { family, key } => {
            let key = key.as_hex().to_string();
            blame(&told.faults, Fault::Damaged { family, key });
            ControlFlow::Continue(())
        }
    });
    read.or_else(|error| unreadable(&told.faults, kind.name(), error))
}
