//! Numbers that must not be mixed up.

use std::fmt;

/// The height of a block: the genesis block's is 0.
pub type Height = u32;

/// The number of a transaction in chain order: the genesis coinbase is 0, the coinbase of block 1 is 1.
///
/// 32 bits last until about 2040 at the rate of 2026 (1.4 billion used, 0.2 billion a year); running
/// out is an error ([`TxNum::checked_add`]), never a wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxNum(pub u32);

impl TxNum {
    pub const ZERO: TxNum = TxNum(0);
    pub const MAX: TxNum = TxNum(u32::MAX);

    /// The number `count` transactions later, or `None` where 32 bits run out.
    pub fn checked_add(self, count: u32) -> Option<TxNum> {
        self.0.checked_add(count).map(TxNum)
    }
}

impl fmt::Display for TxNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
