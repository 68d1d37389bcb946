//! The fee histogram: how many virtual bytes wait at which fee rate.
//!
//! The bins are chosen as ElectrumX chooses them, because wallets were made with its answers in view:
//! rates are cut to tenths of a satoshi, a bin is closed when it holds more than its share, and each
//! bin's share is a tenth larger than the one's before, so that an hour's worth of blocks takes few
//! lines and the long tail of cheap transactions a few more.

/// A bin's least size, in virtual bytes: the first one's; a tenth of a block.
const FIRST_BIN: f64 = 100_000.0;
/// How much larger each bin is than the one before.
const BIN_GROWTH: f64 = 1.1;
/// A single rate that holds this many bins' worth begins a bin of its own.
const LUMP_BINS: f64 = 2.0;

/// A fee rate in tenths of a satoshi for a virtual byte, rounded down: a bin's transactions never pay
/// less than the bin says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rate(u64);

impl Rate {
    /// Of a fee in satoshis for a number of virtual bytes.
    pub(super) fn new(fee: u64, vsize: u64) -> Rate {
        Rate(fee.saturating_mul(10) / vsize.max(1))
    }

    pub(super) fn sat_per_vbyte(self) -> f64 {
        self.0 as f64 / 10.0
    }
}

/// Puts virtual bytes by rate, highest first, each rate once, into bins.
pub(super) fn histogram(by_rate: impl Iterator<Item = (Rate, u64)>) -> Vec<(f64, u64)> {
    let mut bins = Vec::new();
    let mut share = FIRST_BIN;
    // The bin in the making: the lowest rate in it, and its size.
    let mut open: Option<(Rate, u64)> = None;
    for (rate, size) in by_rate {
        let is_lump = size as f64 > LUMP_BINS * share;
        if let Some((lowest, filled)) = open.take_if(|_| is_lump) {
            bins.push((lowest.sat_per_vbyte(), filled));
            share *= BIN_GROWTH;
        }
        let filled = open.map_or(0, |(_, filled)| filled).saturating_add(size);
        if filled as f64 > share {
            bins.push((rate.sat_per_vbyte(), filled));
            share *= BIN_GROWTH;
            open = None;
        } else {
            open = Some((rate, filled));
        }
    }
    bins.extend(open.map(|(lowest, filled)| (lowest.sat_per_vbyte(), filled)));
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(by_rate: &[(u64, u64)]) -> Vec<(f64, u64)> {
        histogram(by_rate.iter().map(|&(rate, size)| (Rate(rate), size)))
    }

    #[test]
    fn an_empty_mempool_has_no_bins() {
        assert_eq!(of(&[]), []);
    }

    #[test]
    fn a_few_transactions_make_one_bin_at_the_lowest_rate() {
        assert_eq!(of(&[(125, 300), (20, 200), (11, 1)]), [(1.1, 501)]);
    }

    #[test]
    fn a_bin_closes_when_it_holds_more_than_its_share_and_the_next_share_is_a_tenth_larger() {
        let rates: Vec<_> = (1..=40u64).rev().map(|rate| (rate, 10_001)).collect();
        let bins = of(&rates);
        // 10 rates pass 100,000; 11 pass 110,000; 13 pass 121,000; the rest stays open.
        assert_eq!(
            bins,
            [
                (3.1, 100_010),
                (2.0, 110_011),
                (0.7, 130_013),
                (0.1, 60_006)
            ]
        );
    }

    #[test]
    fn a_lump_at_one_rate_does_not_swallow_the_dearer_ones_before_it() {
        assert_eq!(
            of(&[(500, 10), (100, 200_001), (50, 5)]),
            [(50.0, 10), (10.0, 200_001), (5.0, 5)]
        );
    }

    #[test]
    fn a_rate_is_rounded_down_and_survives_absurd_numbers() {
        assert_eq!(Rate::new(199, 100), Rate(19));
        assert_eq!(Rate::new(7, 0), Rate(70));
        assert_eq!(Rate::new(u64::MAX, 1), Rate(u64::MAX));
    }
}
