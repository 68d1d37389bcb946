//! The mempool by fee rate, in steps that suit a plot.

use serde::Serialize;

/// Lower ends of the steps, in sat/vB: fine where most transactions are, about twice as wide further up.
pub const STEPS: [f64; 24] = [
    0.0, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0,
    40.0, 50.0, 70.0, 100.0, 200.0, 500.0, 1000.0,
];

/// Virtual bytes of a block: a quarter of 4,000,000 weight units.
const BLOCK_VBYTES: u64 = 1_000_000;

/// All unconfirmed transactions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MempoolReport {
    pub transactions: u64,
    pub vbytes: u64,
    pub by_rate: Vec<Step>,
    /// What a transaction has to pay at least, in sat/vB, to be among the first million virtual bytes; where all
    /// fit, it is not there.
    pub next_block_from: Option<f64>,
}

/// What pays `from` sat/vB or more, but less than the next step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Step {
    pub from: f64,
    pub vbytes: u64,
}

/// From (sat/vB, vsize), ascending.
pub fn report(transactions: usize, by_rate: &[(f64, u64)]) -> MempoolReport {
    let mut steps = STEPS.map(|from| Step { from, vbytes: 0 });
    for (rate, vsize) in by_rate {
        let above = STEPS.partition_point(|from| from <= rate);
        if let Some(step) = steps.get_mut(above.saturating_sub(1)) {
            step.vbytes = step.vbytes.saturating_add(*vsize);
        }
    }
    let mut filled = 0u64;
    let next_block_from = by_rate.iter().rev().find_map(|(rate, vsize)| {
        filled = filled.saturating_add(*vsize);
        (filled > BLOCK_VBYTES).then_some(*rate)
    });
    MempoolReport {
        transactions: transactions as u64,
        vbytes: steps
            .iter()
            .fold(0, |sum, step| sum.saturating_add(step.vbytes)),
        by_rate: steps.to_vec(),
        next_block_from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rate_falls_into_its_step() {
        let report = report(
            6,
            &[
                (0.0, 1),
                (0.1, 2),
                (0.2, 4),
                (1.0, 8),
                (1.4, 16),
                (5000.0, 32),
            ],
        );
        let filled: Vec<_> = report
            .by_rate
            .iter()
            .filter(|step| step.vbytes > 0)
            .map(|step| (step.from, step.vbytes))
            .collect();
        assert_eq!(filled, [(0.0, 3), (0.2, 4), (1.0, 24), (1000.0, 32)]);
        assert_eq!((report.transactions, report.vbytes), (6, 63));
        assert!(STEPS.is_sorted());
    }

    #[test]
    fn the_next_block_ends_where_a_million_virtual_bytes_are_full() {
        let of = |rates: &[(f64, u64)]| report(0, rates).next_block_from;
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(1.0, 1_000_000)]), None);
        assert_eq!(of(&[(1.0, 1), (2.0, 1_000_000)]), Some(1.0));
        assert_eq!(
            of(&[(1.0, 9_000_000), (2.0, 600_000), (7.0, 600_000)]),
            Some(2.0)
        );
    }
}
