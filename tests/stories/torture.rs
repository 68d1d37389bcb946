//! Kills: of the server at every kind of moment, and of its node. After each the index is the one that a
//! fresh server builds, and every answer is the oracle's.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use rand::{Rng, seq::IndexedRandom};
use serde_json::json;

use crate::{
    ambra::Ambra,
    compare::compare_all,
    long::{number, report},
    node::{Node, NodeOptions},
    random_chain::RandomChain,
    same_index::compare_index,
    treasury::Treasury,
};

/// In the suite; each of the moments comes up.
const KILLS: u64 = 16;
/// Of the first blocks, so that there is something to sync at once.
const STEPS_BEFORE: u32 = 40;
/// A table of RocksDB's is made at each start from what the log had; when there are so many, it compacts them.
const STARTS_TO_COMPACTION: u32 = 8;

/// Longer than the command takes.
const COMPACT_TAKES: Duration = Duration::from_millis(100);

/// When somebody dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    FirstSync,
    StartUp,
    Tip,
    Reorg,
    Compaction,
    /// The command of that name: by itself, or by the server that it asks.
    Compact,
    Node,
    NodeInFirstSync,
}

const MOMENTS: [Moment; 8] = [
    Moment::FirstSync,
    Moment::StartUp,
    Moment::Tip,
    Moment::Reorg,
    Moment::Compaction,
    Moment::Compact,
    Moment::Node,
    Moment::NodeInFirstSync,
];

struct Torture<'a> {
    node: &'a Node,
    chain: RandomChain<'a>,
    ambra: Ambra,
    /// How long a first sync took, to aim within it.
    sync_took: Duration,
    kills: BTreeMap<Moment, u64>,
    checks: u64,
}

impl<'a> Torture<'a> {
    fn new(node: &'a Node, seed: u64) -> Torture<'a> {
        let mut chain = RandomChain::new(node, seed);
        (0..STEPS_BEFORE).for_each(|_| drop(chain.step()));
        node.mine(30, &Treasury::elsewhere());
        // What a killed node forgets is what came after this.
        node.stop();
        node.launch();
        let began = Instant::now();
        let ambra = Ambra::start(node);
        Torture {
            node,
            chain,
            ambra,
            sync_took: began.elapsed(),
            kills: BTreeMap::new(),
            checks: 0,
        }
    }

    /// Counts a kill, and says what it was.
    fn kill(&mut self, moment: Moment, after: Duration) {
        self.ambra.kill();
        self.add(moment, after);
    }

    fn add(&mut self, moment: Moment, after: Duration) {
        *self.kills.entry(moment).or_default() += 1;
        println!("killed: {moment:?}, after {after:?}");
    }

    fn within(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.chain.rng.random_range(0.0..1.0))
    }

    /// This is no wait for a condition: the moment is the point.
    fn sleep_within(&mut self, longest: Duration) -> Duration {
        let moment = self.within(longest);
        std::thread::sleep(moment);
        moment
    }

    fn die(&mut self, moment: Moment) {
        match moment {
            Moment::FirstSync => {
                self.ambra.kill();
                self.ambra = Ambra::start_unseen(self.node, &[]);
                for _ in 0..self.chain.rng.random_range(1..=3) {
                    let after = self.sleep_within(self.sync_took);
                    self.kill(moment, after);
                    self.ambra.launch_unseen();
                }
            }
            Moment::StartUp => {
                println!("{}", self.chain.step());
                self.ambra.kill();
                for _ in 0..self.chain.rng.random_range(1..=3) {
                    self.ambra.launch_unseen();
                    let after = self.sleep_within(self.sync_took / 2);
                    self.kill(moment, after);
                }
                self.ambra.launch_unseen();
            }
            Moment::Tip => {
                let after = self.within(Duration::from_millis(250));
                let killer = self.ambra.kill_in(after);
                (0..3).for_each(|_| println!("{}", self.chain.step()));
                killer.join().expect("it was killed");
                self.kill(moment, after);
                self.ambra.launch_unseen();
            }
            Moment::Reorg => {
                let after = self.within(Duration::from_millis(150));
                let killer = self.ambra.kill_in(after);
                let depth = self.chain.rng.random_range(1..=8);
                println!("{}", self.chain.reorg(depth));
                killer.join().expect("it was killed");
                self.kill(moment, after);
                self.ambra.launch_unseen();
            }
            Moment::Compaction => self.die_in_compaction(),
            Moment::Compact => self.die_in_the_command(),
            Moment::Node => {
                self.chain.step();
                self.kill_node(moment, Duration::ZERO);
            }
            Moment::NodeInFirstSync => {
                self.ambra.kill();
                self.ambra = Ambra::start_unseen(self.node, &[]);
                let after = self.sleep_within(self.sync_took);
                self.kill_node(moment, after);
            }
        }
    }

    fn kill_node(&mut self, moment: Moment, after: Duration) {
        self.node.kill();
        self.node.launch();
        self.chain.forget_stale_branches();
        self.add(moment, after);
    }

    /// `ambra compact`, with the server that does it killed, or without a server and killed itself.
    fn die_in_the_command(&mut self) {
        println!("{}", self.chain.step());
        self.ambra.wait_until_listening();
        let after = self.within(COMPACT_TAKES);
        if self.chain.rng.random_bool(0.5) {
            let killer = self.ambra.kill_in(after);
            println!("{}", self.ambra.run(&["compact"]).1);
            killer.join().expect("it was killed");
            self.kill(Moment::Compact, after);
        } else {
            self.ambra.kill();
            // (A time of 0 is none to `timeout`.)
            let seconds = format!("{:.3}", after.as_secs_f64().max(0.001));
            self.ambra.wrap(&["timeout", "-s", "KILL", &seconds]);
            println!("{}", self.ambra.run(&["compact"]).1);
            self.ambra.wrap(&[]);
            self.add(Moment::Compact, after);
        }
        self.ambra.launch_unseen();
    }

    /// Starts it again and again, so that small tables heap up, and kills it when RocksDB says that it compacts them.
    fn die_in_compaction(&mut self) {
        let log = self.ambra.index_folder().join("rocksdb/LOG");
        for _ in 0..STARTS_TO_COMPACTION {
            self.chain.mine_block();
            self.ambra.wait_until_synced(self.node);
            self.ambra.kill();
            let _ = fs::remove_file(&log);
            self.ambra.launch_unseen();
            let deadline = Instant::now() + self.sync_took.max(Duration::from_millis(200));
            while Instant::now() < deadline {
                let text = fs::read(&log).unwrap_or_default();
                let started = b"\"event\": \"compaction_started\"";
                if text.windows(started.len()).any(|window| window == started) {
                    let after = self.sleep_within(Duration::from_millis(12));
                    self.kill(Moment::Compaction, after);
                    self.ambra.launch_unseen();
                    return;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            self.ambra.wait_until_listening();
        }
        println!("no compaction came");
    }

    /// All is right: every row, and every answer.
    fn check(&mut self) {
        self.ambra.wait_until_listening();
        self.ambra.wait_until_synced(self.node);
        compare_all(&mut self.chain.oracle, self.node, &mut self.ambra.client());
        compare_index(&self.ambra, self.node);
        self.checks += 1;
    }

    fn count(&self) -> u64 {
        self.kills.values().sum()
    }

    fn report(&self, story: &str, seed: u64) {
        let kills: BTreeMap<String, u64> = self
            .kills
            .iter()
            .map(|(moment, count)| (format!("{moment:?}"), *count))
            .collect();
        report(
            story,
            &json!({"kills": self.count(), "by_moment": kills, "checks": self.checks, "seed": seed,
                    "height": self.node.height(), "scripts": self.chain.oracle.scripts.len()}),
        );
    }
}

#[test]
fn sixteen_kills_at_every_kind_of_moment_leave_the_index_right() {
    let node = Node::start(NodeOptions::default());
    let mut torture = Torture::new(&node, 23);
    for moment in MOMENTS.into_iter().cycle() {
        if torture.count() >= KILLS && torture.kills.len() == MOMENTS.len() {
            break;
        }
        torture.die(moment);
        torture.check();
    }
    torture.report("kills in the suite", 23);
}

/// `STORIES_SEED=7 STORIES_KILLS=200 cargo test --release --test stories torture -- --ignored`
#[test]
#[ignore = "as long as it is told to be"]
fn torture_with_kills_of_both_sides() {
    let seed = number("STORIES_SEED").unwrap_or_else(rand::random);
    let kills = number("STORIES_KILLS").unwrap_or(200);
    let node = Node::start(NodeOptions {
        zmq: seed.is_multiple_of(2),
        ..NodeOptions::default()
    });
    let mut torture = Torture::new(&node, seed);
    while torture.count() < kills {
        // Life goes on, whether the server keeps up or not.
        (0..torture.chain.rng.random_range(0..4)).for_each(|_| drop(torture.chain.step()));
        let moment = *MOMENTS.choose(&mut torture.chain.rng).expect("some");
        torture.die(moment);
        torture.check();
        if torture.checks.is_multiple_of(10) {
            torture.report("kills so far", seed);
        }
    }
    torture.report("kills", seed);
}
