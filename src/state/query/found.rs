//! What the confirmed transactions say of a script, and what later ones add to it.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use bitcoin::{OutPoint, Txid};

use crate::chain::{Confirmed, StatusHasher, TxNum};

/// A confirmed output that nothing confirmed spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coin {
    pub txid: Txid,
    pub vout: u32,
    /// The number of its transaction.
    pub tx: TxNum,
    /// In satoshis.
    pub value: u64,
}

impl Coin {
    pub fn outpoint(&self) -> OutPoint {
        OutPoint {
            txid: self.txid,
            vout: self.vout,
        }
    }
}

/// What the confirmed transactions say of a script.
#[derive(Clone, Default)]
pub struct Found {
    pub confirmed: std::sync::Arc<Vec<Confirmed>>,
    /// By transaction, then output.
    pub coins: Vec<Coin>,
    /// The coins' sum, in satoshis.
    pub balance: u64,
    /// After all of `confirmed`.
    pub hasher: StatusHasher,
    /// The number of the last of `confirmed`.
    pub last: Option<TxNum>,
    /// The locking script, once it has been seen.
    pub script: Option<Box<[u8]>>,
}

/// What later transactions add to [`Found`].
#[derive(Default)]
pub struct Addition {
    pub confirmed: Vec<Confirmed>,
    /// Old coins that are spent.
    pub spent: OutPoints<()>,
    /// New coins, in order.
    pub coins: Vec<Coin>,
    pub balance: u64,
    pub hasher: StatusHasher,
    pub last: Option<TxNum>,
    pub script: Option<Box<[u8]>>,
}

impl Addition {
    pub fn is_empty(&self) -> bool {
        self.confirmed.is_empty()
    }
}

impl Found {
    pub fn add(&mut self, addition: Addition) {
        if addition.confirmed.is_empty() {
            return;
        }
        if self.confirmed.is_empty() {
            self.confirmed = std::sync::Arc::new(addition.confirmed);
        } else {
            // Copies only where an answer is being written from the old history at this moment.
            std::sync::Arc::make_mut(&mut self.confirmed).extend(addition.confirmed);
        }
        if !addition.spent.is_empty() {
            self.coins
                .retain(|coin| !addition.spent.contains_key(&coin.outpoint()));
        }
        if self.coins.is_empty() {
            self.coins = addition.coins;
        } else {
            self.coins.extend(addition.coins);
        }
        self.balance = addition.balance;
        self.hasher = addition.hasher;
        self.last = addition.last;
        self.script = addition.script;
    }

    /// Memory behind the pointers, in bytes.
    pub fn bytes(&self) -> usize {
        self.confirmed.capacity() * size_of::<Confirmed>()
            + self.coins.capacity() * size_of::<Coin>()
            + self.script.as_ref().map_or(0, |script| script.len())
    }
}

/// A txid is a hash already: eight of its bytes are as good as any function of them. To make many
/// outpoints of one script fall together, one would have to find many transactions whose ids share 64 bits.
#[derive(Clone, Copy, Default)]
pub struct OutPointHasher(u64);

impl Hasher for OutPointHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some((eight, _)) = bytes.split_first_chunk() {
            self.0 ^= u64::from_le_bytes(*eight);
        }
    }

    fn write_u32(&mut self, vout: u32) {
        // An odd factor: different outputs of one transaction stay different.
        self.0 = self
            .0
            .wrapping_add(u64::from(vout).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }

    /// The length of the array that comes next says nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

pub type OutPoints<V> = HashMap<OutPoint, V, BuildHasherDefault<OutPointHasher>>;
