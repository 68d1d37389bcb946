//! What is fuzzed: every parser of bytes from outside, by name. `fuzz/` runs them under libFuzzer, and a
//! test runs each over its corpus, which lies in `fuzz/corpus`.

use crate::{admin, chain, config, daemon, electrum, index, server};

/// A fuzz target: it panics where something is wrong, and takes anything.
pub struct Target {
    /// Of its folder in `fuzz/corpus`, and of its program in `fuzz/fuzz_targets`.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

pub const TARGETS: [Target; 19] = [
    target("session", electrum::fuzz::session),
    target("params", electrum::fuzz::params),
    target("block", chain::fuzz::block),
    target("transaction", chain::fuzz::transaction),
    target("spent", chain::fuzz::spent),
    target("block_rows", index::fuzz::block_rows),
    target("rows", index::fuzz::rows),
    target("run", index::fuzz::run),
    target("block_file", daemon::fuzz::block_file),
    target("bitcoin_conf", daemon::fuzz::bitcoin_conf),
    target("rpc_answer", daemon::fuzz::rpc_answer),
    target("zmq_message", daemon::fuzz::zmq_message),
    target("websocket", server::fuzz::websocket),
    target("lines", server::fuzz::lines),
    target("origin", server::fuzz::origin),
    target("certificate", server::fuzz::certificate),
    target("admin_host", admin::fuzz::host),
    target("manifest", admin::fuzz::manifest),
    target("settings_file", config::fuzz::settings_file),
];

/// Runs the target of this name.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target of this name").run)(bytes);
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    /// Mutants of each file, in the suite; the fuzzer does millions.
    const MUTANTS: usize = 20;

    fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target.name);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| {
                let path = entry.unwrap().path();
                let bytes = fs::read(&path).unwrap();
                (path.display().to_string(), bytes)
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn every_file_of_every_corpus_is_taken_without_harm() {
        for target in &TARGETS {
            let files = corpus(target);
            assert!(files.len() >= 3, "{} has no corpus", target.name);
            for (path, bytes) in files {
                let ran = std::panic::catch_unwind(|| (target.run)(&bytes));
                assert!(ran.is_ok(), "{path} breaks {}", target.name);
            }
            (target.run)(b"");
        }
    }

    #[test]
    fn cut_joined_and_changed_files_of_the_corpora_are_taken_too() {
        let seed: u64 = rand::random();
        let mut random = StdRng::seed_from_u64(seed);
        for target in &TARGETS {
            let files = corpus(target);
            for (path, bytes) in &files {
                for number in 0..MUTANTS {
                    let other = &files[random.random_range(0..files.len())].1;
                    let mutant = mutant(bytes, other, &mut random);
                    let ran = std::panic::catch_unwind(|| (target.run)(&mutant));
                    let name = target.name;
                    assert!(
                        ran.is_ok(),
                        "{name}: mutant {number} of {path}, seed {seed}: {mutant:?}"
                    );
                }
            }
        }
    }

    fn mutant(bytes: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..=bytes.len());
            match random.random_range(0..5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, random.random()),
                2 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
                3 if at < bytes.len() => bytes[at] = random.random(),
                _ => {
                    let from = random.random_range(0..=other.len());
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
            }
        }
        bytes
    }

    #[test]
    fn each_target_has_its_program() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
        for target in &TARGETS {
            let path = format!("fuzz_targets/{}.rs", target.name);
            let program = fs::read_to_string(root.join(&path)).unwrap();
            assert!(
                program.contains(&format!("run(\"{}\"", target.name)),
                "{path}"
            );
            assert!(manifest.contains(&path), "{path}");
        }
        let programs = fs::read_dir(root.join("fuzz_targets")).unwrap().count();
        assert_eq!(programs, TARGETS.len());
    }
}
