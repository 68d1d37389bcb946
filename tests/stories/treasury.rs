//! Coins for stories that want just this payment, and no chance in it.

use bitcoin::{Amount, ScriptBuf, Transaction};

use crate::{
    locks::{Coin, Kind, Lock, coins_of, output, pay},
    node::Node,
};

const COINS: u32 = 24;
pub const FEE: u64 = 1_000;

/// Mature block rewards.
pub struct Treasury {
    lock: Lock,
    coins: Vec<Coin>,
}

impl Treasury {
    /// Mines 124 blocks on a fresh node.
    pub fn mine(node: &Node) -> Treasury {
        let lock = Lock::new(Kind::P2wpkh, 0);
        let blocks = node.mine(COINS, &lock.script());
        node.mine(100, &Treasury::elsewhere());
        let coins = blocks
            .iter()
            .flat_map(|hash| coins_to(&node.block(hash).txdata[0], &lock));
        Treasury {
            coins: coins.collect(),
            lock,
        }
    }

    /// Rewards go here when nobody cares.
    pub fn elsewhere() -> ScriptBuf {
        Lock::new(Kind::P2wpkh, u32::MAX).script()
    }

    /// A fresh reward; each is enough for many payments.
    pub fn coin(&mut self) -> Coin {
        self.coins.pop().expect("a story needs few coins")
    }

    /// A payment from a fresh reward, the change back to the treasury. Not sent.
    pub fn payment(&mut self, to: &Lock, sats: u64) -> Transaction {
        let coin = self.coin();
        self.payment_from(&coin, to, sats, FEE)
    }

    /// A payment from this coin.
    pub fn payment_from(&self, coin: &Coin, to: &Lock, sats: u64, fee: u64) -> Transaction {
        let value = Amount::from_sat(sats);
        let change = coin.value - value - Amount::from_sat(fee);
        let outputs = vec![output(to, value), output(&self.lock, change)];
        pay(std::slice::from_ref(coin), outputs)
    }
}

/// The coins of a transaction that pay this lock.
pub fn coins_to(transaction: &Transaction, lock: &Lock) -> Vec<Coin> {
    let script = lock.script();
    coins_of(transaction, |other| {
        (*other == script).then(|| lock.clone())
    })
}
