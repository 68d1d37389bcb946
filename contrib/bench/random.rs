//! A small fast generator of numbers (SplitMix64): the same chain for the same seed, everywhere.
#![allow(dead_code)] // Each program uses its own part.

/// SplitMix64's step.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for each pair.
    pub fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random(seed ^ mix(stream.wrapping_mul(GOLDEN)));
        random.next();
        random
    }

    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Below `bound`, which is not 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// An index of something that has `len` members.
    #[inline]
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True in so many of a thousand cases.
    #[inline]
    pub fn per_mille(&mut self, chance: u64) -> bool {
        self.below(1000) < chance
    }

    /// From `low` to `high`, both included.
    #[inline]
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Appends random bytes.
    #[inline]
    pub fn bytes(&mut self, count: usize, to: &mut Vec<u8>) {
        let end = to.len() + count;
        while to.len() + 8 <= end {
            to.extend_from_slice(&self.next().to_le_bytes());
        }
        let rest = self.next().to_le_bytes();
        to.extend_from_slice(&rest[..end - to.len()]);
    }
}

#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
