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
    memory_parts::{Parts, mib},
    node::{Node, NodeOptions},
    oracle::script_hash,
    random_chain::RandomChain,
    soak_graph::svg,
    status_page::ON_ANY_PORT,
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
/// The least that can be chosen.
const CACHE_MIB: &str = "8";
/// A wallet that listens to so many scripts: subscriptions are for wallets to make, 300 bytes each.
const WATCHED: usize = 500;
/// What memory may grow by from the run's second sixth to its last, besides what the program counts and bounds: the chain's
/// growth costs some 400 bytes a block, the rest is the allocator's room.
const REST_GROWTH_MAX: u64 = 3 << 20;
/// An open file of RocksDB's more or less is no leak.
const FILES_MORE_MAX: usize = 16;

/// What was seen at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub seconds: u64,
    pub memory_bytes: u64,
    pub parts: Parts,
    pub open_files: usize,
    pub threads: u64,
    pub height: u32,
    pub questions: u64,
    pub median: Duration,
    pub slowest: Duration,
}

impl Sample {
    /// What is in none of the parts.
    fn rest_bytes(&self) -> u64 {
        self.memory_bytes.saturating_sub(self.parts.sum())
    }
}

/// `STORIES_MINUTES=60 STORIES_FOLDER=target/soak cargo test --release --test stories soak -- --ignored`
#[test]
#[ignore = "as long as it is told to be"]
fn soak_under_mixed_load_stays_flat_and_right() {
    let minutes = number("STORIES_MINUTES").unwrap_or(60);
    let seed = number("STORIES_SEED").unwrap_or_else(rand::random);
    // Rounds follow so many times faster: what hours bring comes in minutes.
    let haste = number("STORIES_HASTE").unwrap_or(1).max(1);
    let folder = std::env::var("STORIES_FOLDER").unwrap_or_else(|_| "target/soak".to_owned());
    let folder = PathBuf::from(folder);
    fs::create_dir_all(&folder).expect("a folder for the samples");

    // 1. A chain that lives, a server, and its wallets.
    let node = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&node, seed);
    (0..20).for_each(|_| drop(chain.step()));
    let mut options = vec!["--cache-memory", CACHE_MIB];
    options.extend(ON_ANY_PORT);
    let mut ambra = Ambra::start_with(&node, &options);
    let mut load = Load::new(&ambra, seed);
    let mut watcher = Watcher::new(ambra.client());
    let watched: Vec<ScriptBuf> = chain.oracle.scripts.iter().take(WATCHED).cloned().collect();
    let mut samples = Vec::new();
    let (mut checks, mut reorgs) = (0u64, 0u64);

    // 2. Life.
    let began = Instant::now();
    let end = began + Duration::from_secs(minutes * 60);
    let mut round = 0u64;
    while Instant::now() < end {
        round += 1;
        let next = Instant::now() + ROUND / u32::try_from(haste).expect("a small number");
        if round.is_multiple_of(ROUNDS_PER_STEP) {
            let done = chain.step();
            reorgs += u64::from(done.starts_with("reorg"));
        }
        load.round(&ambra, &chain.oracle.scripts.iter().collect::<Vec<_>>());
        if round.is_multiple_of(ROUNDS_PER_CHECK) {
            // 3. Every script ever seen is asked for everything, and what was pushed is true.
            let moment = compare_scripts(&mut chain.oracle, &node, &mut ambra.client());
            watcher.watch(&watched);
            watcher.ping();
            watcher.expect(&moment.facts(&watched));
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
    let (rest_early, rest_late) = (
        median_of(early, Sample::rest_bytes),
        median_of(late, Sample::rest_bytes),
    );
    let last = samples.last().expect("samples").parts;
    report(
        "soak",
        &json!({
            "minutes": minutes, "questions": load.questions, "reconnects": load.reconnects,
            "checks": checks, "reorgs": reorgs, "height": node.height(), "seed": seed,
            "scripts": chain.oracle.scripts.len(),
            "memory_early": memory_early, "memory_late": memory_late, "memory_most": most,
            "rest_early": rest_early, "rest_late": rest_late, "rest_growth_max": REST_GROWTH_MAX,
            "unwritten_late": last.unwritten, "scripts_late": last.scripts, "blocks_late": last.blocks,
            "haste": haste,
            "files_early": files_early, "files_late": files_late,
        }),
    );
    assert!(
        rest_late <= rest_early + REST_GROWTH_MAX,
        "memory that nothing accounts for grew from {rest_early} to {rest_late} bytes"
    );
    samples
        .iter()
        .for_each(|sample| sample.parts.assert_in_bounds(CACHE_MIB));
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
            parts: Parts::of(ambra),
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
    let mut csv = "seconds,memory_mib,program_mib,unwritten_mib,tables_mib,blocks_mib,scripts_mib,proofs_mib,transactions_mib,rest_mib,\
         open_files,threads,height,questions,median_us,slowest_us\n"
        .to_owned();
    for sample in samples {
        writeln!(
            csv,
            "{},{:.2},{:.2},{:.2},{:.2},{:.2},{:.2},{:.2},{:.2},{:.2},{},{},{},{},{},{}",
            sample.seconds,
            mib(sample.memory_bytes),
            mib(sample.parts.program),
            mib(sample.parts.unwritten),
            mib(sample.parts.tables),
            mib(sample.parts.blocks),
            mib(sample.parts.scripts),
            mib(sample.parts.proofs),
            mib(sample.parts.transactions),
            mib(sample.rest_bytes()),
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
