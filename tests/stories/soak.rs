//! Soak: mixed load for as long as one likes, while blocks, reorganizations and reconnects go on. No
//! answer may be wrong, and neither memory nor open files may grow with time.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bitcoin::ScriptBuf;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};

use crate::{
    ambra::Ambra,
    client::Client,
    compare::{compare_all, compare_scripts},
    long::{number, report},
    node::{Node, NodeOptions},
    oracle::script_hash,
    random_chain::RandomChain,
    soak_graph::svg,
    watcher::Watcher,
};

/// Connections that are open at a time, besides those that check.
const CLIENTS: usize = 24;
/// Questions of one round, to clients chosen at random.
const QUESTIONS: usize = 40;
/// A round begins so long after the one before it: light load, so that others can work beside.
const ROUND: Duration = Duration::from_secs(1);
/// Rounds between two steps of the chain, two checks of every script, two checks of everything, and two samples.
const ROUNDS_PER_STEP: u64 = 3;
const ROUNDS_PER_CHECK: u64 = 15;
const ROUNDS_PER_FULL_CHECK: u64 = 300;
const ROUNDS_PER_SAMPLE: u64 = 10;
/// Kept small, so that it is full early and growth beyond it shows.
const CACHE_MIB: &str = "16";
/// What memory may grow by from the run's second sixth to its last: the chain and its scripts grow too.
const GROWTH_MAX: f64 = 1.25;
/// An open file of RocksDB's more or less is no leak.
const FILES_MORE_MAX: usize = 16;

/// What was seen at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub seconds: u64,
    pub memory_bytes: u64,
    pub open_files: usize,
    pub threads: u64,
    pub height: u32,
    pub questions: u64,
    pub median: Duration,
    pub slowest: Duration,
}

/// `STORIES_MINUTES=60 STORIES_FOLDER=target/soak cargo test --release --test stories soak -- --ignored`
#[test]
#[ignore = "as long as it is told to be"]
fn soak_under_mixed_load_stays_flat_and_right() {
    let minutes = number("STORIES_MINUTES").unwrap_or(60);
    let seed = number("STORIES_SEED").unwrap_or_else(rand::random);
    let folder = std::env::var("STORIES_FOLDER").unwrap_or_else(|_| "target/soak".to_owned());
    let folder = PathBuf::from(folder);
    fs::create_dir_all(&folder).expect("a folder for the samples");

    // 1. A chain that lives, a server, and its wallets.
    let node = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&node, seed);
    (0..20).for_each(|_| drop(chain.step()));
    let mut ambra = Ambra::start_with(&node, &["--cache-memory", CACHE_MIB]);
    let mut load = Load::new(&ambra, seed);
    let mut checker = ambra.client();
    let mut watcher = Watcher::new(ambra.client());
    let mut samples = Vec::new();
    let (mut checks, mut reorgs) = (0u64, 0u64);

    // 2. Life.
    let began = Instant::now();
    let end = began + Duration::from_secs(minutes * 60);
    let mut round = 0u64;
    while Instant::now() < end {
        round += 1;
        let next = Instant::now() + ROUND;
        if round.is_multiple_of(ROUNDS_PER_STEP) {
            let done = chain.step();
            reorgs += u64::from(done.starts_with("reorg"));
        }
        load.round(&ambra, &chain.oracle.scripts.iter().collect::<Vec<_>>());
        if round.is_multiple_of(ROUNDS_PER_CHECK) {
            // 3. Every script ever seen is asked for everything, and what was pushed is true.
            let moment = compare_scripts(&mut chain.oracle, &node, &mut checker);
            watcher.watch(&chain.oracle.scripts);
            watcher.expect(&moment.facts(&chain.oracle.scripts));
            checks += 1;
        }
        if round.is_multiple_of(ROUNDS_PER_FULL_CHECK) {
            compare_all(&mut chain.oracle, &node, &mut ambra.client());
        }
        if round.is_multiple_of(ROUNDS_PER_SAMPLE) {
            samples.push(load.sample(&ambra, began, node.height()));
            write(&folder, &samples);
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }

    // 4. At the end all is right, and nothing has grown.
    compare_all(&mut chain.oracle, &node, &mut ambra.client());
    assert!(ambra.is_running());
    let sixth = samples.len() / 6;
    assert!(sixth > 0, "too short to say anything");
    let median_of = |part: &[Sample], of: fn(&Sample) -> u64| {
        let mut numbers: Vec<u64> = part.iter().map(of).collect();
        numbers.sort_unstable();
        numbers[numbers.len() / 2]
    };
    let early = &samples[sixth..2 * sixth];
    let late = &samples[samples.len() - sixth..];
    let memory = |sample: &Sample| sample.memory_bytes;
    let files = |sample: &Sample| sample.open_files as u64;
    let (memory_early, memory_late) = (median_of(early, memory), median_of(late, memory));
    let (files_early, files_late) = (median_of(early, files), median_of(late, files));
    let most = samples.iter().map(memory).max().unwrap_or(0);
    report(
        "soak",
        &json!({
            "minutes": minutes, "questions": load.questions, "reconnects": load.reconnects,
            "checks": checks, "reorgs": reorgs, "height": node.height(), "seed": seed,
            "scripts": chain.oracle.scripts.len(),
            "memory_early": memory_early, "memory_late": memory_late, "memory_most": most,
            "files_early": files_early, "files_late": files_late,
        }),
    );
    assert!(
        memory_late as f64 <= memory_early as f64 * GROWTH_MAX,
        "memory grew from {memory_early} to {memory_late} bytes"
    );
    assert!(
        files_late <= files_early + FILES_MORE_MAX as u64,
        "open files grew from {files_early} to {files_late}"
    );
}

/// Wallets of all tempers.
struct Load {
    rng: StdRng,
    clients: Vec<Client>,
    questions: u64,
    reconnects: u64,
    /// Since the last sample.
    took: Vec<Duration>,
}

impl Load {
    fn new(ambra: &Ambra, seed: u64) -> Load {
        Load {
            rng: StdRng::seed_from_u64(seed ^ 0x50a4),
            clients: (0..CLIENTS).map(|_| ambra.client()).collect(),
            questions: 0,
            reconnects: 0,
            took: Vec::new(),
        }
    }

    fn round(&mut self, ambra: &Ambra, scripts: &[&ScriptBuf]) {
        for _ in 0..QUESTIONS {
            let chosen = self.rng.random_range(0..self.clients.len());
            let (method, params) = self.question(scripts);
            let asked = Instant::now();
            if let Err(error) = self.clients[chosen].call(method, params) {
                panic!("{method}: {error}");
            }
            self.took.push(asked.elapsed());
            self.questions += 1;
            // What was pushed meanwhile is read, and checked elsewhere.
            self.clients[chosen].take_notifications();
        }
        // Some go without a word, and others come.
        for _ in 0..self.rng.random_range(0..3) {
            let chosen = self.rng.random_range(0..self.clients.len());
            if self.rng.random_bool(0.3) {
                self.clients[chosen].send_without_end("{\"id\": 7, \"method\": \"blockchain.");
            }
            self.clients[chosen] = ambra.client();
            self.reconnects += 1;
        }
    }

    fn question(&mut self, scripts: &[&ScriptBuf]) -> (&'static str, Value) {
        let script = scripts.choose(&mut self.rng).expect("a script");
        let script = json!([script_hash(script)]);
        match self.rng.random_range(0..100) {
            0..30 => ("blockchain.scripthash.subscribe", script),
            30..50 => ("blockchain.scripthash.get_history", script),
            50..65 => ("blockchain.scripthash.get_balance", script),
            65..75 => ("blockchain.scripthash.listunspent", script),
            75..80 => ("blockchain.headers.subscribe", json!([])),
            80..85 => ("blockchain.block.headers", json!([0, 100])),
            85..90 => ("mempool.get_fee_histogram", json!([])),
            90..95 => ("blockchain.estimatefee", json!([6])),
            _ => ("server.ping", json!([])),
        }
    }

    fn sample(&mut self, ambra: &Ambra, began: Instant, height: u32) -> Sample {
        self.took.sort_unstable();
        let median = self.took.get(self.took.len() / 2);
        let sample = Sample {
            seconds: began.elapsed().as_secs(),
            memory_bytes: ambra.memory(),
            open_files: ambra.open_files(),
            threads: ambra.threads(),
            height,
            questions: self.questions,
            median: median.copied().unwrap_or_default(),
            slowest: self.took.last().copied().unwrap_or_default(),
        };
        self.took.clear();
        sample
    }
}

/// All samples so far, as a table and as a picture.
fn write(folder: &Path, samples: &[Sample]) {
    let mut csv =
        "seconds,memory_mib,open_files,threads,height,questions,median_us,slowest_us\n".to_owned();
    for sample in samples {
        writeln!(
            csv,
            "{},{:.1},{},{},{},{},{},{}",
            sample.seconds,
            sample.memory_bytes as f64 / f64::from(1 << 20),
            sample.open_files,
            sample.threads,
            sample.height,
            sample.questions,
            sample.median.as_micros(),
            sample.slowest.as_micros(),
        )
        .expect("a string takes all");
    }
    fs::write(folder.join("soak.csv"), csv).expect("the samples can be written");
    fs::write(folder.join("soak.svg"), svg(samples)).expect("the graph can be written");
}
