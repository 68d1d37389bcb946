//! The scripts with long histories: exchanges, pools, dust traps. Which transaction pays or spends
//! them is drawn before the chain is made, so that each comes out as long as it should.

use crate::random::Random;

/// A group of scripts with the same length of history, on a chain of [`FULL`] transactions.
struct Group {
    scripts: usize,
    payments: u64,
    spends: u64,
}

/// The number of transactions for which the groups are stated; a shorter chain has shorter histories.
pub const FULL: u64 = 3_760_000;

const GROUPS: [Group; 6] = [
    // Over 203,000 entries, 27,000 outputs unspent: some transactions pay or spend it more than once.
    Group {
        scripts: 1,
        payments: 118_500,
        spends: 91_500,
    },
    // 151,500 entries, nearly all spent.
    Group {
        scripts: 1,
        payments: 76_000,
        spends: 75_500,
    },
    Group {
        scripts: 1,
        payments: 60_000,
        spends: 48_000,
    },
    // 5,500 entries.
    Group {
        scripts: 24,
        payments: 2_900,
        spends: 2_600,
    },
    Group {
        scripts: 200,
        payments: 500,
        spends: 450,
    },
    Group {
        scripts: 400,
        payments: 60,
        spends: 50,
    },
];

/// One of the busy scripts is paid or spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// Which of the chain's transactions does it, coinbases not counted.
    pub tx: u64,
    /// Payments come before the spends of the same transaction.
    pub is_spend: bool,
    pub script: usize,
}

/// How many busy scripts there are.
pub fn script_count() -> usize {
    GROUPS.iter().map(|group| group.scripts).sum()
}

/// All that happens to busy scripts on a chain of so many transactions, in order.
pub fn events(random: &mut Random, txs: u64) -> Vec<Event> {
    let scale = |count: u64| (count * txs / FULL).max(1);
    let mut events = Vec::new();
    let mut script = 0;
    for group in &GROUPS {
        for _ in 0..group.scripts {
            let payments = scale(group.payments);
            let spends = scale(group.spends).min(payments);
            // Half of the spends come soon, half whenever.
            let soon = (txs / 1000).max(1);
            let mut left = spends;
            for number in 0..payments {
                let paid = random.below(txs);
                events.push(Event {
                    tx: paid,
                    is_spend: false,
                    script,
                });
                if left > 0 && random.below(payments - number) < left {
                    left -= 1;
                    let rest = txs - paid;
                    let wait = if random.per_mille(500) {
                        soon.min(rest)
                    } else {
                        rest
                    };
                    events.push(Event {
                        tx: (paid + 1 + random.below(wait)).min(txs - 1),
                        is_spend: true,
                        script,
                    });
                }
            }
            script += 1;
        }
    }
    events.sort_unstable();
    events
}
