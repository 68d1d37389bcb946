//! Torn writes: of what was written last before a power cut, the end is missing, or zeros, or the file is
//! not there. Either the index is recovered exactly, or it is refused in words that say what to do; and no
//! answer is ever wrong.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::json;

use crate::{
    ambra::{Ambra, SYNC_PATIENCE},
    compare::{compare_all, compare_or_refused},
    long::{number, report},
    node::{Node, NodeOptions},
    patience::until,
    random_chain::RandomChain,
    same_index::Rows,
    treasury::Treasury,
};

/// In the suite.
const TEARS: usize = 18;
/// Files that tell how far a first sync is.
const SYNC_STAGES: [&str; 2] = ["run-", "history-"];
/// What a refusal must name.
const REMEDY: &str = "--rebuild";

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tear {
    /// So many bytes at the end were never written.
    Cut(usize),
    /// They are zeros.
    Zeros(usize),
    /// Its directory entry was never written.
    Gone,
    /// One bit has flipped, somewhere.
    Flip,
}

impl Tear {
    fn random(rng: &mut StdRng) -> Tear {
        let count = *[1, 7, 100, 4_096].choose(rng).expect("some");
        let count = rng.random_range(1..=count);
        match rng.random_range(0..10) {
            0..4 => Tear::Cut(count),
            4..8 => Tear::Zeros(count),
            8 => Tear::Flip,
            _ => Tear::Gone,
        }
    }

    fn apply(self, file: &Path, rng: &mut StdRng) {
        if self == Tear::Gone {
            return fs::remove_file(file).expect("the file can be removed");
        }
        let mut bytes = fs::read(file).expect("the file can be read");
        match self {
            Tear::Cut(count) => bytes.truncate(bytes.len().saturating_sub(count)),
            Tear::Zeros(count) => {
                let kept = bytes.len().saturating_sub(count);
                bytes[kept..].fill(0);
            }
            Tear::Flip if !bytes.is_empty() => {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
            Tear::Flip | Tear::Gone => {}
        }
        fs::write(file, bytes).expect("the file can be written");
    }
}

/// How a server came back on a torn database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// All rows and all answers are right.
    Recovered,
    /// It ended, and said what to do.
    Refused,
    /// It runs; some questions are refused, and the log says what to do.
    QuestionsRefused,
}

/// Kinds of files, by their names.
fn kind(file: &Path) -> Option<&'static str> {
    let name = file.file_name()?.to_str()?;
    let in_sync = file.parent()?.ends_with("sync");
    Some(match name {
        _ if in_sync && name.starts_with("run-") => "sync/run",
        _ if in_sync => "sync/other",
        _ if name.ends_with(".log") => "WAL",
        _ if name.ends_with(".sst") => "SST",
        "tx_position.flat" => "places",
        "merkle.flat" => "merkle rows",
        _ if name.starts_with("MANIFEST") => "MANIFEST",
        "CURRENT" => "CURRENT",
        _ if name.starts_with("OPTIONS") => "OPTIONS",
        "IDENTITY" => "IDENTITY",
        _ => return None,
    })
}

/// The files of an index by their kind, the newest last.
fn files(folder: &Path) -> BTreeMap<&'static str, Vec<PathBuf>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for part in ["rocksdb", "sync"] {
        let Ok(entries) = fs::read_dir(folder.join(part)) else {
            continue;
        };
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            if let Some(kind) = kind(&path) {
                found.entry(kind).or_default().push(path);
            }
        }
    }
    found.values_mut().for_each(|files| files.sort());
    found
}

struct Story<'a> {
    node: &'a Node,
    chain: RandomChain<'a>,
    rng: StdRng,
    /// What a fresh server builds.
    expected: Rows,
    ends: BTreeMap<(&'static str, End), u64>,
}

impl<'a> Story<'a> {
    fn new(node: &'a Node, seed: u64) -> Story<'a> {
        let mut chain = RandomChain::new(node, seed);
        (0..30).for_each(|_| drop(chain.step()));
        node.mine(20, &Treasury::elsewhere());
        let fresh = Ambra::start(node);
        let expected = Rows::of(&fresh, node);
        Story {
            node,
            chain,
            rng: StdRng::seed_from_u64(seed),
            expected,
            ends: BTreeMap::new(),
        }
    }

    /// A server killed at the tip: with a log, and with tables of some starts.
    fn killed_at_the_tip(&mut self) -> Ambra {
        let mut ambra = Ambra::start(self.node);
        for _ in 0..2 {
            // A start makes tables of what the log had.
            ambra.kill();
            ambra.launch();
            (0..2).for_each(|_| self.chain.mine_block());
            ambra.wait_until_synced(self.node);
        }
        ambra.kill();
        self.expected = Rows::of(&Ambra::start(self.node), self.node);
        ambra
    }

    /// A server killed in its first sync, when such a file is in its folder (a `run-` before its chunk is marked as
    /// safe, or soon after; a `history-` when runs are merged); `None` where no kill was quick enough.
    fn killed_in_the_first_sync(&mut self, stage: &str) -> Option<Ambra> {
        const ATTEMPTS: u32 = 30;
        for _ in 0..ATTEMPTS {
            let mut ambra = Ambra::start_unseen(self.node, &[]);
            let folder = ambra.index_folder().join("sync");
            let is_there = || {
                let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
                let mut names = entries.map(|entry| entry.file_name());
                names.any(|name| name.to_string_lossy().starts_with(stage))
            };
            let end = Instant::now() + SYNC_PATIENCE;
            while !is_there() && Instant::now() < end && !ambra.is_in_step() {
                std::thread::sleep(Duration::from_micros(100));
            }
            ambra.kill();
            if is_there() {
                return Some(ambra);
            }
        }
        println!("LOUD: no kill was quick enough to meet a {stage} file of the first sync");
        None
    }

    /// One tear, on a copy of what was left.
    fn tear(&mut self, left: &Ambra, kind: &'static str, tear: Tear) {
        let mut ambra = left.on_a_copy(self.node);
        let files = files(&ambra.index_folder());
        // Mostly the newest.
        let of_kind = &files[kind];
        let file = if self.rng.random_bool(0.7) {
            of_kind.last()
        } else {
            of_kind.choose(&mut self.rng)
        };
        let file = file.expect("a file of the kind");
        let name = file.file_name().expect("a name").to_owned();
        tear.apply(file, &mut self.rng);
        let end = self.how_it_comes_back(&mut ambra);
        println!("{kind} {name:?} {tear:?}: {end:?}");
        *self.ends.entry((kind, end)).or_default() += 1;
        if end != End::Recovered {
            // What the words say helps.
            if ambra.is_running() {
                ambra.kill();
            }
            ambra.set_option("--rebuild", true);
            ambra.launch();
            ambra.wait_until_synced(self.node);
            assert_eq!(Rows::of(&ambra, self.node), self.expected);
        }
    }

    fn how_it_comes_back(&mut self, ambra: &mut Ambra) -> End {
        ambra.launch_unseen();
        let is_up = until(SYNC_PATIENCE, || {
            if ambra.exit_status().is_some() {
                return Some(false);
            }
            ambra.is_in_step().then_some(true)
        });
        if is_up == Some(true) {
            ambra.wait_until_listening();
            let refused =
                compare_or_refused(&mut self.chain.oracle, self.node, &mut ambra.client());
            if refused == 0 && ambra.is_running() {
                compare_all(&mut self.chain.oracle, self.node, &mut ambra.client());
                assert_eq!(Rows::of(ambra, self.node), self.expected);
                return End::Recovered;
            }
            if ambra.is_running() {
                let said = ambra.said();
                assert!(said.contains(REMEDY), "no word of what to do: {said}");
                return End::QuestionsRefused;
            }
        }
        assert!(
            is_up.is_some(),
            "it neither serves nor ends: {}",
            ambra.said()
        );
        let (status, said) = ambra.wait_until_it_ends();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(REMEDY), "no word of what to do: {said}");
        assert!(!said.contains("panicked"), "{said}");
        End::Refused
    }

    fn report(&self, story: &str, seed: u64) {
        let ends: BTreeMap<String, u64> = self
            .ends
            .iter()
            .map(|((kind, end), count)| (format!("{kind} {end:?}"), *count))
            .collect();
        let sum = |wanted: End| -> u64 {
            let ends = self.ends.iter();
            ends.filter(|((_, end), _)| *end == wanted)
                .map(|(_, count)| count)
                .sum()
        };
        report(
            story,
            &json!({"tears": self.ends.values().sum::<u64>(), "seed": seed,
                    "recovered": sum(End::Recovered), "refused": sum(End::Refused),
                    "questions_refused": sum(End::QuestionsRefused), "by_file": ends}),
        );
    }
}

#[test]
fn torn_files_are_recovered_exactly_or_refused_with_a_remedy() {
    let node = Node::start(NodeOptions::default());
    let mut story = Story::new(&node, 61);
    let at_tip = story.killed_at_the_tip();
    let kinds: Vec<_> = files(&at_tip.index_folder()).into_keys().collect();
    for count in 0..TEARS {
        let kind = kinds[count % kinds.len()];
        let tear = match count / kinds.len() {
            0 => Tear::Cut(3),
            1 => Tear::Zeros(200),
            _ => Tear::Gone,
        };
        story.tear(&at_tip, kind, tear);
    }
    for kind in ["places", "merkle rows"] {
        for tear in [Tear::Flip, Tear::Gone] {
            story.tear(&at_tip, kind, tear);
        }
    }
    for stage in SYNC_STAGES {
        let Some(in_sync) = story.killed_in_the_first_sync(stage) else {
            continue;
        };
        for tear in [Tear::Cut(1), Tear::Zeros(50), Tear::Gone, Tear::Flip] {
            for kind in ["sync/run", "places"] {
                if files(&in_sync.index_folder()).contains_key(kind) {
                    story.tear(&in_sync, kind, tear);
                }
            }
        }
    }
    story.report("torn writes in the suite", 61);
}

/// `STORIES_SEED=7 STORIES_TEARS=300 cargo test --release --test stories torture -- --ignored`
#[test]
#[ignore = "as long as it is told to be"]
fn torture_with_torn_writes() {
    let seed = number("STORIES_SEED").unwrap_or_else(rand::random);
    let tears = number("STORIES_TEARS").unwrap_or(300);
    let node = Node::start(NodeOptions::default());
    let mut story = Story::new(&node, seed);
    let mut done = 0;
    while done < tears {
        let left = if story.rng.random_bool(0.5) {
            let stage = *SYNC_STAGES.choose(&mut story.rng).expect("some");
            story.killed_in_the_first_sync(stage)
        } else {
            Some(story.killed_at_the_tip())
        };
        let Some(left) = left else { continue };
        for _ in 0..20 {
            let files = files(&left.index_folder());
            let kinds: Vec<_> = files.keys().copied().collect();
            let kind = *kinds.choose(&mut story.rng).expect("some");
            let tear = Tear::random(&mut story.rng);
            story.tear(&left, kind, tear);
            done += 1;
        }
        story.report("torn writes so far", seed);
    }
    story.report("torn writes", seed);
}

#[test]
fn a_folder_that_was_copied_by_half_is_refused_with_a_remedy() {
    let node = Node::start(NodeOptions::default());
    let mut story = Story::new(&node, 62);
    let whole = story.killed_at_the_tip();
    for missing in ["CURRENT", "MANIFEST", "SST", "places"] {
        let mut ambra = whole.on_a_copy(&node);
        for file in &files(&ambra.index_folder())[missing] {
            fs::remove_file(file).expect("the file can be removed");
        }
        ambra.launch_unseen();
        let (status, said) = ambra.wait_until_it_ends();
        assert_eq!(status.code(), Some(1), "without {missing}: {said}");
        assert!(said.contains(REMEDY), "without {missing}: {said}");
    }

    // Nothing but the log: what it had is built again.
    let mut ambra = whole.on_a_copy(&node);
    for file in &files(&ambra.index_folder())["WAL"] {
        fs::remove_file(file).expect("the file can be removed");
    }
    let end = story.how_it_comes_back(&mut ambra);
    assert_ne!(end, End::QuestionsRefused);
}
