//! The whole room over a chain in memory, against brute force.

mod damage;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bitcoin::{OutPoint, Transaction, TxOut, Txid, consensus::encode::serialize, hashes::Hash};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    Ask, OutpointStatus, Publish, QueryError, State, StateLimits, fake::FakeArchive, lock,
};
use crate::chain::fake::FakeChain;
use crate::{
    chain::{
        Balance, Confirmed, Height, History, ScriptHash, Status, Unspent, merkle_branch, status_of,
    },
    mempool::{Mempool, NewTx, Touched},
};

mod keeping;

/// A node, its index, and the state over it: the chain's writer.
struct World {
    chain: FakeChain,
    archive: FakeArchive,
    state: State,
    mempool: Mempool,
    /// What `mempool` holds, parents first.
    pool: Vec<Transaction>,
    random: StdRng,
}

impl World {
    fn new(seed: u64, scripts: usize, limits: StateLimits) -> World {
        let chain = FakeChain::new(seed, scripts);
        let archive = FakeArchive::default();
        let genesis = serialize(&chain.blocks[0].header).try_into().unwrap();
        archive.connect(&chain.blocks[0], &|_| unreachable!());
        let state = State::over(Box::new(archive.clone()), genesis, limits).unwrap();
        World {
            chain,
            archive,
            state,
            mempool: Mempool::default(),
            pool: Vec::new(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn spent_by_pool(&self, outpoint: &OutPoint, pool: &[Transaction]) -> TxOut {
        match pool.iter().find(|tx| tx.compute_txid() == outpoint.txid) {
            Some(tx) => tx.output[outpoint.vout as usize].clone(),
            None => self.chain.output(outpoint),
        }
    }

    /// Coins that a new unconfirmed transaction could spend, after the transactions of the pool.
    fn spendable(&self, pool: &[Transaction]) -> Vec<(OutPoint, TxOut)> {
        let mut unspent = self.chain.unspent();
        for tx in pool {
            let txid = tx.compute_txid();
            for (vout, output) in (0..).zip(&tx.output) {
                if !output.script_pubkey.is_op_return() {
                    unspent.push((OutPoint { txid, vout }, output.clone()));
                }
            }
        }
        for input in pool.iter().flat_map(|tx| &tx.input) {
            unspent.retain(|(outpoint, _)| *outpoint != input.previous_output);
        }
        unspent
    }

    /// Throws out what the chain confirmed or spent otherwise, and adds some.
    fn next_mempool(&mut self, added: usize) -> Touched {
        let mut kept: Vec<Transaction> = Vec::new();
        let mut removed = Vec::new();
        for tx in std::mem::take(&mut self.pool) {
            let spendable = self.spendable(&kept);
            let is_valid = tx.input.iter().all(|input| {
                spendable
                    .iter()
                    .any(|(outpoint, _)| *outpoint == input.previous_output)
            });
            if is_valid && !self.random.random_ratio(1, 6) {
                kept.push(tx);
            } else {
                removed.push(tx.compute_txid());
            }
        }
        let mut new = Vec::new();
        for _ in 0..added {
            let mut spendable = self.spendable(&kept);
            if spendable.is_empty() {
                break;
            }
            let tx = self.chain.spend(&mut spendable);
            let spent = tx
                .input
                .iter()
                .map(|input| self.spent_by_pool(&input.previous_output, &kept));
            new.push(NewTx {
                bytes: serialize(&tx),
                spent: spent.collect(),
            });
            kept.push(tx);
        }
        self.pool = kept;
        self.mempool.apply(&removed, new)
    }

    /// Makes the next moment and publishes it: `depth` blocks go, blocks of `sizes` come. `before` hears
    /// of the moment just before it is published.
    fn step(&mut self, depth: u32, sizes: &[usize], added: usize, before: impl FnOnce(&World)) {
        let mut change = Publish::default();
        if depth > 0 {
            let from = self.chain.blocks.len() as Height - depth;
            for block in self.chain.blocks.clone().iter().skip(from as usize) {
                let scratch = FakeArchive::default();
                scratch.connect(&self.chain.blocks[0], &|_| unreachable!());
                let (_, gone) = scratch.connect(block, &|outpoint| self.chain.output(outpoint));
                change.touched.scripts.extend(gone.scripts);
            }
            self.chain.blocks.truncate(from as usize);
            self.state.begin_reorg();
            self.archive.disconnect(from);
            change.disconnected_from = Some(from);
        }
        for &size in sizes {
            // The first of the pool, as far as no block took their inputs.
            let unspent = self.chain.unspent();
            let is_valid = |tx: &Transaction| {
                let mut inputs = tx.input.iter().map(|input| input.previous_output);
                inputs.all(|input| unspent.iter().any(|(outpoint, _)| *outpoint == input))
            };
            let valid = self.pool.iter().take_while(|tx| is_valid(tx)).count();
            let mined = self.random.random_range(0..=valid.min(2));
            let mined: Vec<_> = self.pool.drain(..mined).collect();
            let gone: Vec<Txid> = mined.iter().map(Transaction::compute_txid).collect();
            change
                .touched
                .scripts
                .extend(self.mempool.apply(&gone, Vec::new()).scripts);
            self.chain.grow_with(mined, size);
            let block = self.chain.blocks.last().unwrap();
            let (row, touched) = self
                .archive
                .connect(block, &|outpoint| self.chain.output(outpoint));
            change.connected.push(row);
            change.touched.scripts.extend(touched.scripts);
            change.touched.outpoints.extend(touched.outpoints);
        }
        let touched = self.next_mempool(added);
        change.touched.scripts.extend(touched.scripts);
        change.touched.outpoints.extend(touched.outpoints);
        change.mempool = self.mempool.clone();
        before(self);
        self.state.publish(change).unwrap();
    }

    fn random_step(&mut self, before: impl FnOnce(&World)) {
        let blocks = self.chain.blocks.len() as u32;
        let depth = match self.random.random_range(0..4) {
            0 => self.random.random_range(0..blocks.min(5)),
            _ => 0,
        };
        let sizes: Vec<usize> = (0..self.random.random_range(0..3))
            .map(|_| self.random.random_range(0..8))
            .collect();
        let added = self.random.random_range(0..4);
        self.step(depth, &sizes, added, before);
    }

    /// What brute force says of a script.
    fn expected(&self, script: &ScriptHash) -> Expected {
        let pays = |output: &TxOut| ScriptHash::new(output.script_pubkey.as_bytes()) == *script;
        let mut coins: Vec<Unspent> = Vec::new();
        let mut confirmed = Vec::new();
        for (height, block) in (0..).zip(&self.chain.blocks).skip(1) {
            for tx in &block.txdata {
                let txid = tx.compute_txid();
                let coins_before = coins.len();
                coins.retain(|coin| {
                    let outpoint = OutPoint {
                        txid: coin.txid,
                        vout: coin.vout,
                    };
                    !tx.input
                        .iter()
                        .any(|input| input.previous_output == outpoint)
                });
                let mut touches = coins.len() < coins_before;
                for (vout, output) in (0..).zip(&tx.output).filter(|(_, output)| pays(output)) {
                    touches = true;
                    // Before BIP 30 a coinbase could come again; then its first outputs are lost.
                    coins.retain(|coin| (coin.txid, coin.vout) != (txid, vout));
                    coins.push(Unspent {
                        txid,
                        vout,
                        value: output.value.to_sat(),
                        height,
                    });
                }
                if touches {
                    confirmed.push(Confirmed { txid, height });
                }
            }
        }
        let balance = coins.iter().map(|coin| coin.value).sum();
        let mut unconfirmed = 0;
        for tx in &self.pool {
            for input in &tx.input {
                let spent = self.spent_by_pool(&input.previous_output, &self.pool);
                if pays(&spent) {
                    unconfirmed -= spent.value.to_sat() as i64;
                }
            }
            let paid = tx.output.iter().filter(|output| pays(output));
            unconfirmed += paid.map(|output| output.value.to_sat() as i64).sum::<i64>();
        }
        coins.retain(|coin| {
            let outpoint = OutPoint {
                txid: coin.txid,
                vout: coin.vout,
            };
            self.mempool.spender(&outpoint).is_none()
        });
        coins.extend(self.mempool.unspent(script));
        let history = History {
            confirmed: Arc::new(confirmed),
            mempool: self.mempool.history(script),
        };
        Expected {
            status: status_of(&history),
            history,
            balance: Balance {
                confirmed: balance,
                unconfirmed,
            },
            unspent: coins,
        }
    }

    fn check(&self, script: &ScriptHash) {
        let expected = self.expected(script);
        let (view, ask) = (self.state.view(), Ask::default());
        assert_eq!(view.status(script, &ask).unwrap(), expected.status);
        assert_eq!(view.history(script, &ask).unwrap(), expected.history);
        assert_eq!(view.balance(script, &ask).unwrap(), expected.balance);
        assert_eq!(view.unspent(script, &ask).unwrap(), expected.unspent);
        assert_eq!(
            view.mempool(script, &ask).unwrap(),
            expected.history.mempool
        );
        assert!(view.is_in_memory(script));
    }
}

struct Expected {
    history: History,
    status: Option<Status>,
    balance: Balance,
    unspent: Vec<Unspent>,
}

fn limits(cache_bytes: usize) -> StateLimits {
    StateLimits {
        cache_bytes,
        merkle_bytes: 1 << 20,
        large_tx_bytes: 1 << 20,
        helpers: Some(3),
    }
}

const PLENTY: usize = 64 << 20;

#[test]
fn answers_equal_brute_force_through_blocks_reorgs_and_mempool_changes() {
    for seed in 0..12 {
        let mut world = World::new(seed, 12, limits(PLENTY));
        let scripts = world.chain.hashes();
        for _ in 0..40 {
            world.random_step(|_| ());
            // Only some are asked for each time, so that the others fall behind.
            for script in &scripts {
                if world.random.random_ratio(1, 3) {
                    world.check(script);
                }
            }
        }
        scripts.iter().for_each(|script| world.check(script));
        assert!(
            world.state.cache_figures().large_tx_bytes > 0,
            "some transactions were large"
        );
    }
}

#[test]
fn answers_equal_brute_force_where_next_to_nothing_can_be_kept() {
    let mut world = World::new(99, 40, limits(12 << 10));
    let scripts = world.chain.hashes();
    for _ in 0..30 {
        world.random_step(|_| ());
        for script in &scripts {
            let expected = world.expected(script);
            let view = world.state.view();
            assert_eq!(
                view.status(script, &Ask::default()).unwrap(),
                expected.status
            );
            assert_eq!(
                view.unspent(script, &Ask::default()).unwrap(),
                expected.unspent
            );
            assert!(world.state.core.cache.bytes() <= 12 << 10);
        }
    }
}

/// As blocks 91,842 and 91,880 of mainnet. (A script whose history is known before the second comes would count both:
/// there are no new ones since BIP 34.)
#[test]
fn a_coinbase_that_came_twice_is_told_twice_and_counts_once() {
    for seed in 0..8 {
        let mut world = World::new(seed, 6, limits(PLENTY));
        world.step(0, &[0, 0, 0], 0, |_| ());
        let first = world.chain.blocks[1].txdata[0].clone();
        world.chain.next_coinbase = Some(first.clone());
        // Later blocks may spend it.
        world.step(0, &[0, 0, seed as usize], 0, |_| ());
        let txid = first.compute_txid();
        for script in world.chain.hashes() {
            world.check(&script);
            let pays = |output: &TxOut| ScriptHash::new(output.script_pubkey.as_bytes()) == script;
            let history = world.expected(&script).history.confirmed;
            let entries = history.iter().filter(|entry| entry.txid == txid);
            let count = if first.output.iter().any(pays) { 2 } else { 0 };
            assert!(entries.count() >= count);
        }
    }
}

#[test]
fn what_is_kept_equals_what_a_fresh_state_finds() {
    let mut world = World::new(5, 3, limits(PLENTY));
    let scripts = world.chain.hashes();
    for _ in 0..25 {
        world.random_step(|_| ());
        let genesis = serialize(&world.chain.blocks[0].header).try_into().unwrap();
        let fresh = State::over(Box::new(world.archive.clone()), genesis, limits(PLENTY)).unwrap();
        for script in &scripts {
            let (kept, fresh) = (world.state.view(), fresh.view());
            let ask = Ask::default();
            assert_eq!(
                kept.history(script, &ask).unwrap().confirmed,
                fresh.history(script, &ask).unwrap().confirmed
            );
            assert_eq!(
                kept.balance(script, &ask).unwrap().confirmed,
                fresh.balance(script, &ask).unwrap().confirmed
            );
        }
    }
}

#[test]
fn an_old_view_answers_for_its_own_moment_or_for_the_newest() {
    let mut world = World::new(3, 6, limits(PLENTY));
    let scripts = world.chain.hashes();
    let mut old = Vec::new();
    for _ in 0..40 {
        world.random_step(|_| ());
        let statuses: HashMap<_, _> = scripts
            .iter()
            .map(|script| (*script, world.expected(script).status))
            .collect();
        old.push((world.state.view(), statuses));
        let (_, newest) = old.last().unwrap();
        for (view, own) in &old {
            for script in scripts
                .iter()
                .filter(|_| world.chain.blocks.len().is_multiple_of(2))
            {
                let status = view.status(script, &Ask::default()).unwrap();
                assert!(status == own[script] || status == newest[script]);
            }
        }
        old.drain(..old.len().saturating_sub(6));
    }
}

#[test]
fn readers_see_only_moments_that_were_while_the_chain_changes_under_them() {
    let mut world = World::new(21, 4, limits(PLENTY));
    let scripts = world.chain.hashes();
    world.step(0, &[5, 5, 5], 0, |_| ());
    let expected = |world: &World| -> Vec<Option<Status>> {
        scripts
            .iter()
            .map(|script| world.expected(script).status)
            .collect()
    };
    let moments = Mutex::new(vec![expected(&world)]);
    let completed = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    let answers = AtomicUsize::new(0);
    let state = world.state.clone();
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (state, scripts) = (state.clone(), &scripts);
            let (moments, completed, is_over, answers) = (&moments, &completed, &is_over, &answers);
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(reader);
                while !is_over.load(Ordering::SeqCst) {
                    let at = random.random_range(0..scripts.len());
                    let first = completed.load(Ordering::SeqCst);
                    let status = state.view().status(&scripts[at], &Ask::default()).unwrap();
                    let moments = lock(moments);
                    assert!(
                        moments[first..].iter().any(|moment| moment[at] == status),
                        "an answer that was never true"
                    );
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for step in 1..400 {
            world.random_step(|world| lock(&moments).push(expected(world)));
            completed.store(step, Ordering::SeqCst);
        }
        is_over.store(true, Ordering::SeqCst);
    });
    assert!(answers.load(Ordering::SeqCst) > 0);
}

#[test]
fn a_question_that_a_reorg_overtakes_is_put_again() {
    for step in 0..8 {
        let mut world = World::new(40 + step, 2, limits(PLENTY));
        world.step(0, &[6; 12], 0, |_| ());
        let script = world.chain.hashes()[0];
        let view = world.state.view();
        let world = Arc::new(Mutex::new(world));
        // The reorg strikes when the question reads for the n-th time.
        fn strike(world: Arc<Mutex<World>>, reads_left: u64) -> Box<dyn FnMut() + Send> {
            Box::new(move || {
                if reads_left == 0 {
                    lock(&world).step(3, &[2, 4], 0, |_| ());
                } else {
                    let next = strike(world.clone(), reads_left - 1);
                    *lock(&lock(&world).archive.on_read) = Some(next);
                }
            })
        }
        let on_read = lock(&world).archive.on_read.clone();
        *lock(&on_read) = Some(strike(world.clone(), step / 2));
        let status = view.status(&script, &Ask::default()).unwrap();
        assert!(lock(&on_read).is_none(), "the reorg came");
        assert_eq!(status, lock(&world).expected(&script).status);
        lock(&world).check(&script);
    }
}

#[test]
fn a_question_in_the_middle_of_a_reorg_waits_for_its_end() {
    let mut world = World::new(77, 2, limits(PLENTY));
    world.step(0, &[6, 6, 6], 0, |_| ());
    let script = world.chain.hashes()[1];
    let state = world.state.clone();
    state.begin_reorg();
    world.archive.disconnect(2);
    let view = state.view();
    let asked = std::thread::spawn(move || view.status(&script, &Ask::default()));
    world.chain.blocks.truncate(2);
    state
        .publish(Publish {
            disconnected_from: Some(2),
            ..Publish::default()
        })
        .unwrap();
    let status = asked.join().unwrap().unwrap();
    assert_eq!(status, world.expected(&script).status);
}

#[test]
fn blocks_that_do_not_touch_a_script_cost_it_no_read_and_those_that_do_cost_few() {
    let mut world = World::new(8, 2, limits(PLENTY));
    world.step(0, &[20; 10], 0, |_| ());
    let script = world.chain.hashes()[0];
    world.check(&script);
    let reads = || world.archive.reads.load(Ordering::SeqCst);
    let before = reads();
    world.check(&script);
    assert_eq!(reads(), before);
    // Blocks that pay only the other script.
    let all = world.chain.scripts.clone();
    world.chain.scripts.remove(0);
    for _ in 0..3 {
        world.chain.grow(0);
        let block = world.chain.blocks.last().unwrap();
        let (row, touched) = world.archive.connect(block, &|_| unreachable!());
        assert!(!touched.scripts.contains(&script));
        world
            .state
            .publish(Publish {
                connected: vec![row],
                touched,
                ..Publish::default()
            })
            .unwrap();
    }
    assert!(world.state.view().is_in_memory(&script));
    world.check(&script);
    assert_eq!(world.archive.reads.load(Ordering::SeqCst), before);
    world.chain.scripts = all;
    world.step(0, &[20], 0, |_| ());
    assert!(!world.state.view().is_in_memory(&script));
    world.check(&script);
    let cost = world.archive.reads.load(Ordering::SeqCst) - before;
    assert!(cost == 1, "one block's neighbours in one read, not {cost}");
}

#[test]
fn a_long_history_is_read_by_several_threads_bounded_and_cancelled() {
    let mut world = World::new(1, 1, limits(PLENTY));
    world.step(0, &[200; 9], 0, |_| ());
    let script = world.chain.hashes()[0];
    let entries = world.expected(&script).history.confirmed.len();
    assert!(entries > 1500);
    let view = world.state.view();
    let cancelled = Ask {
        cancelled: Some(Arc::new(AtomicBool::new(true))),
        ..Ask::default()
    };
    assert!(matches!(
        view.status(&script, &cancelled),
        Err(QueryError::Cancelled)
    ));
    let limited = |limit| Ask {
        max_history: Some(limit),
        ..Ask::default()
    };
    for limit in [10, entries - 1] {
        for _ in 0..2 {
            assert!(matches!(
                view.history(&script, &limited(limit)),
                Err(QueryError::TooLarge { limit: l }) if l == limit
            ));
        }
    }
    assert!(view.history(&script, &limited(entries)).is_ok());
    assert!(matches!(
        view.status(&script, &limited(entries - 1)),
        Err(QueryError::TooLarge { .. })
    ));
    world.check(&script);
    // More than a piece's worth comes at once.
    world.step(2, &[200; 6], 3, |_| ());
    world.check(&script);
}

#[test]
fn a_long_history_is_not_read_where_it_may_not_be_and_counts_no_more_once_it_is_known() {
    let mut world = World::new(1, 1, limits(PLENTY));
    world.step(0, &[20; 3], 0, |_| ());
    let script = world.chain.hashes()[0];
    let view = world.state.view();
    let near = Ask {
        rows_max: Some(10),
        ..Ask::default()
    };
    let reads = || world.archive.reads.load(Ordering::SeqCst);
    let before = reads();
    for _ in 0..2 {
        let status = view.status(&script, &near);
        assert!(matches!(status, Err(QueryError::Long)), "{status:?}");
    }
    assert_eq!(reads(), before, "it is known to be long by its rows alone");
    let coin = view.unspent(&script, &Ask::default()).unwrap()[0];
    let outpoint = OutPoint::new(coin.txid, coin.vout);
    assert!(
        view.status(&script, &near).is_ok(),
        "nothing is left to be read"
    );
    let lists = Ask {
        list_max: Some(10),
        ..Ask::default()
    };
    assert!(matches!(
        view.history(&script, &lists),
        Err(QueryError::Long)
    ));
    // A coin that is known to be unspent needs no search; of another the whole history may have to be searched.
    assert!(view.outpoint_status(&outpoint, &script, &near).is_ok());
    let first = view.history(&script, &Ask::default()).unwrap().confirmed[0].txid;
    let spent = (0..10).map(|vout| OutPoint::new(first, vout));
    let limit = Ask {
        rows_max: Some(0),
        ..Ask::default()
    };
    let is_long = |outpoint| {
        let status = view.outpoint_status(&outpoint, &script, &limit);
        matches!(status, Err(QueryError::Long))
    };
    assert!(spent.into_iter().any(is_long));
}

#[test]
fn two_who_ask_at_once_cost_one_reading() {
    let mut world = World::new(6, 1, limits(PLENTY));
    world.step(0, &[100; 5], 0, |_| ());
    let script = world.chain.hashes()[0];
    let state = &world.state;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| state.view().status(&script, &Ask::default()).unwrap());
        }
    });
    let together = world.archive.reads.load(Ordering::SeqCst);
    let genesis = serialize(&world.chain.blocks[0].header).try_into().unwrap();
    let fresh = State::over(Box::new(world.archive.clone()), genesis, limits(PLENTY)).unwrap();
    fresh.view().status(&script, &Ask::default()).unwrap();
    assert_eq!(world.archive.reads.load(Ordering::SeqCst), 2 * together);
}

#[test]
fn what_is_confirmed_and_unconfirmed_at_once_is_told_once_as_confirmed() {
    let mut world = World::new(13, 2, limits(PLENTY));
    world.step(0, &[4, 4], 0, |_| ());
    while world.pool.len() < 4 {
        world.step(0, &[], 2, |_| ());
    }
    // A block confirms the first two; the mempool has not been told.
    let stale = world.mempool.clone();
    let mined: Vec<_> = world.pool.drain(..2).collect();
    world.chain.grow_with(mined.clone(), 0);
    let block = world.chain.blocks.last().unwrap();
    let (row, touched) = world
        .archive
        .connect(block, &|outpoint| world.chain.output(outpoint));
    world
        .state
        .publish(Publish {
            connected: vec![row],
            mempool: stale,
            touched,
            ..Publish::default()
        })
        .unwrap();
    let gone: Vec<_> = mined.iter().map(Transaction::compute_txid).collect();
    world.mempool.apply(&gone, Vec::new());
    for script in world.chain.hashes() {
        let expected = world.expected(&script);
        let (view, ask) = (world.state.view(), Ask::default());
        let history = view.history(&script, &ask).unwrap();
        assert_eq!(history.confirmed, expected.history.confirmed);
        let txids = |history: &History| -> std::collections::BTreeSet<_> {
            history.mempool.iter().map(|entry| entry.txid).collect()
        };
        assert_eq!(txids(&history), txids(&expected.history));
        assert_eq!(view.balance(&script, &ask).unwrap(), expected.balance);
        assert_eq!(view.unspent(&script, &ask).unwrap(), expected.unspent);
    }
    for txid in gone {
        let found = world.state.view().transaction(&txid).unwrap().unwrap();
        assert!(found.confirmed.is_some());
    }
}

#[test]
fn transactions_positions_and_proofs_equal_brute_force() {
    let mut world = World::new(17, 5, limits(PLENTY));
    world.step(0, &[0, 1, 2, 3, 6, 7, 8, 15, 16, 40], 0, |_| ());
    for round in 0..2 {
        let view = world.state.view();
        for (height, block) in (0..).zip(&world.chain.blocks) {
            let txids: Vec<_> = block.txdata.iter().map(Transaction::compute_txid).collect();
            let leaves: Vec<_> = txids.iter().map(|txid| txid.to_byte_array()).collect();
            for (position, (txid, tx)) in (0..).zip(txids.iter().zip(&block.txdata)) {
                let proof = merkle_branch(&leaves, position as usize).unwrap();
                assert_eq!(proof.root, block.header.merkle_root.to_byte_array());
                assert_eq!(
                    view.txid_at(height, position).unwrap(),
                    Some((*txid, proof.clone()))
                );
                if height == 0 {
                    // The genesis block's coinbase is not indexed.
                    assert_eq!(view.transaction(txid).unwrap(), None);
                    continue;
                }
                assert_eq!(view.merkle_proof(txid, height).unwrap(), Some(proof));
                assert_eq!(view.merkle_proof(txid, height + 1).unwrap(), None);
                assert_eq!(view.merkle_proof(txid, height - 1).unwrap(), None);
                assert_eq!(view.position(txid).unwrap(), Some((height, position)));
                let found = view.transaction(txid).unwrap().unwrap();
                assert_eq!(found.bytes, serialize(tx));
                assert_eq!(found.confirmed, Some((height, position)));
                let outpoint = OutPoint {
                    txid: *txid,
                    vout: 0,
                };
                assert_eq!(
                    view.output(&outpoint).unwrap(),
                    Some((tx.output[0].clone(), height))
                );
                let beyond = OutPoint {
                    txid: *txid,
                    vout: 9,
                };
                assert_eq!(view.output(&beyond).unwrap(), None);
            }
            assert_eq!(view.txid_at(height, txids.len() as u32).unwrap(), None);
        }
        assert_eq!(
            view.txid_at(world.chain.blocks.len() as u32, 0).unwrap(),
            None
        );
        assert_eq!(view.transaction(&Txid::all_zeros()).unwrap(), None);
        if round == 0 {
            // Other blocks in the same places.
            world.step(4, &[16, 7, 40, 3], 0, |_| ());
        }
    }
}

#[test]
fn outpoints_are_followed_from_the_mempool_into_blocks() {
    let mut world = World::new(29, 4, limits(PLENTY));
    let scripts = world.chain.hashes();
    for step in 0..12 {
        world.step(u32::from(step == 8), &[6, 3], 3, |_| ());
        let view = world.state.view();
        let heights: HashMap<Txid, i64> = (0..)
            .zip(&world.chain.blocks)
            .skip(1)
            .flat_map(|(height, block)| block.txdata.iter().map(move |tx| (tx, height)))
            .map(|(tx, height)| (tx.compute_txid(), height))
            .chain(world.pool.iter().map(|tx| {
                let txid = tx.compute_txid();
                (txid, world.mempool.entry(&txid).unwrap().height().into())
            }))
            .collect();
        let confirmed = world
            .chain
            .blocks
            .iter()
            .skip(1)
            .flat_map(|block| &block.txdata);
        let all: Vec<_> = confirmed.chain(&world.pool).collect();
        let spenders: HashMap<OutPoint, Txid> = all
            .iter()
            .flat_map(|tx| {
                tx.input
                    .iter()
                    .map(|input| (input.previous_output, tx.compute_txid()))
            })
            .collect();
        for tx in &all {
            let txid = tx.compute_txid();
            for (vout, output) in (0..).zip(&tx.output) {
                let outpoint = OutPoint { txid, vout };
                let script = ScriptHash::new(output.script_pubkey.as_bytes());
                let expected = OutpointStatus {
                    funder_height: Some(heights[&txid]),
                    spender: spenders
                        .get(&outpoint)
                        .map(|spender| (*spender, heights[spender])),
                };
                let ask = Ask::default();
                assert_eq!(
                    view.outpoint_status(&outpoint, &script, &ask).unwrap(),
                    expected
                );
                let stranger = ScriptHash([1; 32]);
                assert_eq!(
                    view.outpoint_status(&outpoint, &stranger, &ask).unwrap(),
                    OutpointStatus::default()
                );
            }
        }
        // Later rounds find the coins in memory.
        scripts.iter().for_each(|script| world.check(script));
    }
}

#[test]
fn headers_and_their_proofs_follow_the_chain() {
    let mut world = World::new(31, 1, limits(PLENTY));
    world.step(0, &[0; 70], 0, |_| ());
    for (depth, sizes) in [(0, 1), (40, 45), (1, 1), (3, 0)] {
        world.step(depth, &vec![0; sizes], 0, |_| ());
        let view = world.state.view();
        let headers: Vec<[u8; 80]> = world
            .chain
            .blocks
            .iter()
            .map(|block| serialize(&block.header).try_into().unwrap())
            .collect();
        let leaves: Vec<[u8; 32]> = world
            .chain
            .blocks
            .iter()
            .map(|block| block.block_hash().to_byte_array())
            .collect();
        let tip = view.tip();
        assert_eq!(tip.height as usize + 1, headers.len());
        assert_eq!(tip.hash.to_byte_array(), leaves[leaves.len() - 1]);
        assert_eq!(view.headers(0, 1000).unwrap(), headers.concat());
        assert_eq!(view.headers(5, 3).unwrap(), headers[5..8].concat());
        assert!(view.headers(tip.height + 1, 3).unwrap().is_empty());
        assert_eq!(view.header(tip.height + 1).unwrap(), None);
        assert_eq!(view.header(7).unwrap(), Some(headers[7]));
        assert_eq!(view.genesis(), world.chain.blocks[0].block_hash());
        for cp_height in [0, 1, 30, 31, 32, 33, 63, 64, tip.height] {
            for height in 0..=cp_height {
                let expected = merkle_branch(&leaves[..=cp_height as usize], height as usize);
                assert_eq!(
                    Some(view.header_proof(height, cp_height).unwrap()),
                    expected
                );
            }
        }
        assert!(view.header_proof(0, tip.height + 1).is_err());
    }
}

#[test]
fn while_syncing_headers_are_told_and_scripts_are_not() {
    let mut other = World::new(50, 2, limits(PLENTY));
    other.step(0, &[3; 40], 0, |_| ());
    let headers: Vec<[u8; 80]> = other
        .chain
        .blocks
        .iter()
        .map(|block| serialize(&block.header).try_into().unwrap())
        .collect();
    let archive = FakeArchive::default();
    let state = State::over(Box::new(archive.clone()), headers[0], limits(PLENTY)).unwrap();
    assert_eq!(state.view().tip().height, 0);
    assert_eq!(state.view().headers(0, 10).unwrap(), headers[0]);
    state.set_progress(Some("indexing: 1 % done".to_owned()));
    state.set_headers(Arc::new(headers.clone()));
    let (view, script) = (state.view(), other.chain.hashes()[0]);
    assert_eq!(view.progress().as_deref(), Some("indexing: 1 % done"));
    assert_eq!(view.tip(), other.state.view().tip());
    assert_eq!(view.headers(3, 2).unwrap(), headers[3..5].concat());
    assert_eq!(
        view.header_proof(3, 40).unwrap(),
        other.state.view().header_proof(3, 40).unwrap()
    );
    assert!(view.is_in_memory(&script));
    assert!(matches!(
        view.status(&script, &Ask::default()),
        Err(QueryError::Syncing(_))
    ));
    assert!(matches!(
        view.transaction(&Txid::all_zeros()),
        Err(QueryError::Syncing(_))
    ));
    // A catch-up: what is there is told.
    other
        .state
        .set_progress(Some("indexing: 2 blocks left".to_owned()));
    let txid = other.chain.blocks[3].txdata[1].compute_txid();
    assert_eq!(other.state.view().position(&txid).unwrap(), Some((3, 1)));
    assert!(
        other
            .state
            .view()
            .output(&OutPoint { txid, vout: 0 })
            .unwrap()
            .is_some()
    );
    assert!(matches!(
        other.state.view().position(&Txid::all_zeros()),
        Err(QueryError::Syncing(_))
    ));
    // The rows come in bulk.
    for block in &other.chain.blocks {
        archive.connect(block, &|outpoint| other.chain.output(outpoint));
    }
    state.reload(Mempool::default()).unwrap();
    state.set_progress(None);
    assert_eq!(
        state.view().status(&script, &Ask::default()).unwrap(),
        other.expected(&script).status
    );
    assert_eq!(state.view().headers(0, 100).unwrap(), headers.concat());
}

#[test]
fn a_change_is_told_to_those_whom_it_concerns() {
    let mut world = World::new(60, 3, limits(PLENTY));
    let scripts = world.chain.hashes();
    let subscriber = world.state.subscriptions().subscriber();
    subscriber.subscribe(scripts[0]);
    subscriber.watch_tip();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut told = world.expected(&scripts[0]).status;
    for _ in 0..30 {
        let tip = world.state.view().tip();
        world.random_step(|_| ());
        let status = world.expected(&scripts[0]).status;
        let is_new_tip = world.state.view().tip() != tip;
        if status != told || is_new_tip {
            let changed = runtime.block_on(subscriber.changed());
            assert_eq!(changed.tip, is_new_tip);
            assert!(status == told || changed.scripts == [scripts[0]]);
        }
        told = status;
    }
}
