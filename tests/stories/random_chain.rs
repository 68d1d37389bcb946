//! A chain that lives at random: payments of every kind, replacements, blocks with some of the
//! mempool and with transactions nobody saw before, reorgs of any depth. One seed, one life, as far as
//! bitcoind's own choices allow.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bitcoin::{Amount, Block, BlockHash, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use rand::{
    Rng, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};
use serde_json::json;

use crate::{
    locks::{Coin, KINDS, Lock, coins_of, output, pay},
    node::Node,
    oracle::{Moment, Oracle, Unconfirmed},
};

/// Blocks until a reward can be spent (consensus).
const MATURITY: usize = 100;
/// Blocks at the start whose rewards can be spent at once.
const FIRST_REWARDS: u32 = 30;
/// Less is not worth a transaction.
const SMALLEST_SUM: u64 = 50_000;
/// Bytes; P2PK and bare multisig are longer. They come into blocks without being relayed.
const LONGEST_RELAYED: usize = 34;
const DEEPEST_REORG: u32 = 8;

/// How a transaction comes into a block.
#[derive(Clone, Copy)]
enum Route {
    Mempool,
    /// Nobody saw it before.
    Block,
}

pub struct RandomChain<'a> {
    pub node: &'a Node,
    pub oracle: Oracle,
    pub rng: StdRng,
    locks: HashMap<ScriptBuf, Lock>,
    /// Locks that are paid again and again.
    favourites: Vec<Lock>,
    /// First blocks of branches that were left.
    stale: Vec<BlockHash>,
    /// What stood before each of them, and whom its reward paid: the same again would be the same block, which the
    /// node was told to refuse.
    refused: HashSet<(BlockHash, ScriptBuf)>,
}

impl<'a> RandomChain<'a> {
    /// A chain on which rewards of every kind of lock can be spent.
    pub fn new(node: &'a Node, seed: u64) -> RandomChain<'a> {
        println!("random chain: seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let favourites: Vec<Lock> = KINDS
            .iter()
            .chain(&KINDS)
            .map(|kind| Lock::new(*kind, rng.random()))
            .collect();
        let mut chain = RandomChain {
            node,
            oracle: Oracle::new(),
            rng,
            locks: HashMap::new(),
            favourites,
            stale: Vec::new(),
            refused: HashSet::new(),
        };
        for _ in 0..FIRST_REWARDS {
            let script = chain.reward();
            node.mine(1, &script);
        }
        let script = chain.reward();
        node.mine(MATURITY as u32, &script);
        chain
    }

    /// Does something; says what.
    pub fn step(&mut self) -> String {
        let moment = self.oracle.read(self.node);
        match self.rng.random_range(0..100) {
            0..35 => self.send_payments(&moment),
            35..45 => self.send_sweep(&moment),
            45..60 => self.replace(&moment),
            60..85 => {
                let count = self.rng.random_range(1..=3);
                (0..count).for_each(|_| self.mine_block());
                format!("mined {count} blocks")
            }
            85..97 => {
                let depth = self.rng.random_range(1..=DEEPEST_REORG);
                self.reorg(depth)
            }
            _ => match self.stale.pop() {
                Some(hash) => {
                    self.node.reconsider(&hash);
                    format!("allowed the branch from {hash} again")
                }
                None => self.send_payments(&moment),
            },
        }
    }

    /// A node that was killed may not know them any more.
    pub fn forget_stale_branches(&mut self) {
        self.stale.clear();
    }

    fn any_lock(&mut self) -> Lock {
        let lock = if self.rng.random_bool(0.75) {
            self.favourites.choose(&mut self.rng).expect("some").clone()
        } else {
            Lock::random(&mut self.rng)
        };
        self.locks.insert(lock.script(), lock.clone());
        lock
    }

    /// A lock that transactions of the mempool pay. Knots relays no longer output scripts.
    fn relayed_lock(&mut self) -> Lock {
        loop {
            let lock = self.any_lock();
            if lock.script().len() <= LONGEST_RELAYED {
                return lock;
            }
        }
    }

    fn lock_for(&mut self, route: Route) -> Lock {
        match route {
            Route::Mempool => self.relayed_lock(),
            Route::Block => self.any_lock(),
        }
    }

    /// A script for a block's reward. (bitcoind does not pay it to an empty script.)
    fn reward(&mut self) -> ScriptBuf {
        loop {
            let script = self.any_lock().script();
            if !script.is_empty() {
                return script;
            }
        }
    }

    /// Coins that may be spent after this chain and these unconfirmed transactions.
    fn coins<'t>(
        &self,
        chain: &'t [(BlockHash, Arc<Block>)],
        unconfirmed: impl Iterator<Item = &'t Transaction> + Clone,
    ) -> Vec<Coin> {
        let confirmed = chain.iter().flat_map(|(_, block)| &block.txdata);
        let spent: HashSet<OutPoint> = confirmed
            .chain(unconfirmed.clone())
            .flat_map(|transaction| &transaction.input)
            .map(|input| input.previous_output)
            .collect();
        let first_young = (chain.len() + 1).saturating_sub(MATURITY);
        let mut coins = Vec::new();
        for (height, (_, block)) in chain.iter().enumerate() {
            let is_young = height >= first_young;
            for transaction in &block.txdata[usize::from(is_young)..] {
                coins.extend(self.coins_of(transaction));
            }
        }
        unconfirmed.for_each(|transaction| coins.extend(self.coins_of(transaction)));
        coins.retain(|coin| !spent.contains(&coin.outpoint));
        coins
    }

    fn coins_of(&self, transaction: &Transaction) -> Vec<Coin> {
        coins_of(transaction, |script| self.locks.get(script).cloned())
    }

    /// Spends some of the coins, and takes them out of the list.
    fn payment(&mut self, coins: &mut Vec<Coin>, route: Route) -> Option<Transaction> {
        let count = self.rng.random_range(1..=4).min(coins.len());
        let mut inputs = Vec::new();
        for _ in 0..count {
            let chosen = self.rng.random_range(0..coins.len());
            inputs.push(coins.swap_remove(chosen));
        }
        self.payment_from(&inputs, None, route)
    }

    fn payment_from(
        &mut self,
        inputs: &[Coin],
        fee: Option<u64>,
        route: Route,
    ) -> Option<Transaction> {
        let sum: u64 = inputs.iter().map(|coin| coin.value.to_sat()).sum();
        let fee = fee.unwrap_or_else(|| self.rng.random_range(500..9_000));
        if sum < SMALLEST_SUM.max(2 * fee) {
            return None;
        }
        let mut left = sum - fee;
        let mut outputs = Vec::new();
        let one_lock = self.rng.random_bool(0.1).then(|| self.lock_for(route));
        for _ in 1..self.rng.random_range(1..=5) {
            let value = match self.rng.random_range(0..20) {
                0 => 0,
                1..10 => left / 2,
                _ => self.rng.random_range(0..=left / 3),
            };
            left -= value;
            let lock = one_lock.clone().unwrap_or_else(|| self.lock_for(route));
            outputs.push(output(&lock, Amount::from_sat(value)));
        }
        let lock = one_lock.unwrap_or_else(|| self.lock_for(route));
        outputs.push(output(&lock, Amount::from_sat(left)));
        outputs.extend(self.data_output());
        outputs.shuffle(&mut self.rng);
        Some(pay(inputs, outputs))
    }

    /// Now and then an output that nobody can spend.
    fn data_output(&mut self) -> Option<TxOut> {
        let mut script = match self.rng.random_range(0..20) {
            0 => vec![],
            // OP_RETURN: not indexed.
            1..4 => vec![0x6a, 20],
            // OP_FALSE OP_RETURN: as unspendable, but indexed as everything else.
            4 => vec![0x00, 0x6a, 20],
            _ => return None,
        };
        if script.is_empty() {
            script.push(0x6a);
        } else {
            script.extend(self.rng.random::<[u8; 20]>());
        }
        Some(TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::from_bytes(script),
        })
    }

    fn send_payments(&mut self, moment: &Moment) -> String {
        let unconfirmed = moment.mempool.iter().map(|tx| &*tx.transaction);
        let mut coins = self.coins(&moment.chain, unconfirmed);
        let (mut sent, mut refused) = (0, Vec::new());
        for _ in 0..self.rng.random_range(1..=8) {
            if coins.is_empty() {
                break;
            }
            let Some(transaction) = self.payment(&mut coins, Route::Mempool) else {
                continue;
            };
            match self.node.send(&transaction) {
                Ok(_) => {
                    sent += 1;
                    coins.extend(self.coins_of(&transaction));
                }
                Err(error) => refused.push(error.message),
            }
        }
        format!("sent {sent} payments, refused: {refused:?}")
    }

    /// One script in many inputs and many outputs.
    fn send_sweep(&mut self, moment: &Moment) -> String {
        let unconfirmed = moment.mempool.iter().map(|tx| &*tx.transaction);
        let coins = self.coins(&moment.chain, unconfirmed);
        let lock = self.favourites.choose(&mut self.rng).expect("some").clone();
        let script = lock.script();
        let inputs: Vec<Coin> = coins
            .into_iter()
            .filter(|coin| coin.lock.script() == script)
            .take(100)
            .collect();
        let sum: u64 = inputs.iter().map(|coin| coin.value.to_sat()).sum();
        let pieces = self.rng.random_range(1..=80);
        let fee = 40_000;
        if sum < fee + SMALLEST_SUM * pieces {
            return "nothing to sweep".to_owned();
        }
        let value = Amount::from_sat((sum - fee) / pieces);
        let outputs = (0..pieces).map(|_| output(&lock, value)).collect();
        let result = self.node.send(&pay(&inputs, outputs));
        format!("swept {} coins of one script: {result:?}", inputs.len())
    }

    /// Another transaction with the same first input and a higher fee.
    fn replace(&mut self, moment: &Moment) -> String {
        let Some(old) = moment.mempool.choose(&mut self.rng) else {
            return "nothing to replace".to_owned();
        };
        // Its inputs may be outputs of unconfirmed transactions; those of others' children may not.
        let others = moment.mempool.iter().filter(|tx| tx.txid != old.txid);
        let ancestors: HashSet<Txid> = old.parents.iter().copied().collect();
        let all = moment.chain.iter().flat_map(|(_, block)| &block.txdata);
        let spent: HashSet<OutPoint> = old
            .transaction
            .input
            .iter()
            .map(|input| input.previous_output)
            .collect();
        let made: Vec<&Transaction> = all
            .chain(
                others
                    .filter(|tx| ancestors.contains(&tx.txid))
                    .map(|tx| &*tx.transaction),
            )
            .collect();
        let mut inputs: Vec<Coin> = made
            .into_iter()
            .flat_map(|transaction| self.coins_of(transaction))
            .filter(|coin| spent.contains(&coin.outpoint))
            .collect();
        if inputs.len() > 1 && self.rng.random_bool(0.5) {
            inputs.truncate(1);
        }
        let entry = self.node.rpc("getmempoolentry", json!([old.txid]));
        let fees = entry["fees"]["descendant"].as_f64().expect("a fee");
        let fees = Amount::from_btc(fees).expect("a fee").to_sat();
        let fee = 2 * fees + 5_000;
        match self.payment_from(&inputs, Some(fee), Route::Mempool) {
            Some(transaction) => {
                let result = self.node.send(&transaction);
                format!("replaced {}: {result:?}", old.txid)
            }
            None => "too little to replace".to_owned(),
        }
    }

    /// One block: all of the mempool, or some of it, or some and transactions nobody saw before.
    pub fn mine_block(&mut self) {
        let parent = self.node.best_block();
        let reward = loop {
            let reward = self.reward();
            if !self.refused.contains(&(parent, reward.clone())) {
                break reward;
            }
        };
        if self.rng.random_bool(0.25) {
            self.node.mine(1, &reward);
            return;
        }
        let moment = self.oracle.read(self.node);
        let share = *[0.0, 0.3, 0.8].choose(&mut self.rng).expect("some");
        let chosen = self.some_with_their_parents(&moment.mempool, share);
        let mut transactions: Vec<Arc<Transaction>> = chosen
            .iter()
            .map(|tx| Arc::clone(&tx.transaction))
            .collect();
        if self.rng.random_bool(0.5) {
            // These may spend what others in the mempool spend: those others must go.
            let known = transactions.iter().map(|tx| &**tx);
            let mut coins = self.coins(&moment.chain, known);
            for _ in 0..self.rng.random_range(1..=5) {
                if coins.is_empty() {
                    break;
                }
                if let Some(transaction) = self.payment(&mut coins, Route::Block) {
                    // The next may spend it, in the same block.
                    coins.extend(self.coins_of(&transaction));
                    transactions.push(Arc::new(transaction));
                }
            }
        }
        let transactions: Vec<&Transaction> = transactions.iter().map(|tx| &**tx).collect();
        self.node.mine_exactly(&reward, &transactions);
    }

    fn some_with_their_parents<'m>(
        &mut self,
        mempool: &'m [Unconfirmed],
        share: f64,
    ) -> Vec<&'m Unconfirmed> {
        let mut left: Vec<&Unconfirmed> = mempool.iter().collect();
        left.shuffle(&mut self.rng);
        let mut decided: HashMap<Txid, bool> = HashMap::new();
        let mut chosen = Vec::new();
        while !left.is_empty() {
            left.retain(|tx| {
                let parents: Option<Vec<bool>> = tx
                    .parents
                    .iter()
                    .map(|txid| decided.get(txid).copied())
                    .collect();
                let Some(parents) = parents else { return true };
                let is_chosen =
                    parents.into_iter().all(|is_in| is_in) && self.rng.random_bool(share);
                decided.insert(tx.txid, is_chosen);
                if is_chosen {
                    chosen.push(*tx);
                }
                false
            });
        }
        chosen
    }

    /// Goes back to what stands before this block.
    pub fn leave(&mut self, first: BlockHash) {
        let block = self.node.block(&first);
        let reward = block.txdata[0].output[0].script_pubkey.clone();
        self.refused.insert((block.header.prev_blockhash, reward));
        self.node.invalidate(&first);
        self.stale.push(first);
    }

    /// Leaves the last `depth` blocks for another branch, which may be as long, longer or shorter.
    pub fn reorg(&mut self, depth: u32) -> String {
        let height = self.node.height();
        let first = self.node.block_at(height - depth + 1);
        self.leave(first);
        let length = (depth + self.rng.random_range(0..=3))
            .saturating_sub(1)
            .max(1);
        (0..length).for_each(|_| self.mine_block());
        format!("reorg: {depth} blocks for {length}, from {first} on")
    }
}
