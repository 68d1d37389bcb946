//! The import ladder of `docs/ARCHITECTURE.md`: imports go down only, and rooms on one rung do not know
//! each other.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Rooms and their rungs.
const LADDER: [(&str, u8); 9] = [
    ("server", 4),
    ("admin", 4),
    ("electrum", 3),
    ("sync", 3),
    ("state", 2),
    ("index", 1),
    ("mempool", 1),
    ("daemon", 1),
    ("chain", 0),
];

/// They may import everything: they join the rooms.
const JOINERS: [&str; 4] = ["main", "lib", "joiner", "fuzzing"];

/// Outside of the ladder: it imports nothing, and only the joiners read it.
const CONFIG: &str = "config";

/// The room that a file of src/ belongs to: its folder, or its own name at the top.
fn room_of(path: &Path) -> String {
    let first = path.components().next().expect("a file has a name");
    let name = Path::new(first.as_os_str()).with_extension("");
    name.display().to_string()
}

fn rung(room: &str) -> Option<u8> {
    LADDER
        .iter()
        .find(|(name, _)| *name == room)
        .map(|(_, rung)| *rung)
}

/// What a file must not do, in words.
fn violations(path: &Path, text: &str) -> Vec<String> {
    let room = room_of(path);
    let mut found = Vec::new();
    let mut blame = |line: usize, why: String| {
        found.push(format!("src/{}:{line}: {why}", path.display()));
    };
    if rung(&room).is_none() && room != CONFIG && !JOINERS.contains(&room.as_str()) {
        blame(1, format!("the room {room} has no rung on the ladder"));
    }
    let code = without_comments(text);
    for (line, import) in imports(&code) {
        let is_allowed = import == room
            || JOINERS.contains(&room.as_str())
            || match (rung(&room), rung(&import)) {
                (Some(own), Some(other)) => other < own,
                _ => false,
            };
        if !is_allowed {
            blame(line, format!("{room} must not import {import}"));
        }
    }
    for (line, text) in (1..).zip(code.lines()) {
        if text.contains("rocksdb::") && room != "index" {
            blame(line, "only the room index knows RocksDB".to_owned());
        }
        if climbs_out(path, text) {
            blame(
                line,
                "name other rooms from `crate::`, not by `super::`".to_owned(),
            );
        }
    }
    found
}

/// The text with line comments blanked; the lines stay where they are.
fn without_comments(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// The rooms named after `crate::`, with the line.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let line = 1 + code[..at].matches('\n').count();
        let rest = &code[at + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            Some(group) => names_of_group(group),
            None => vec![name_at(rest)],
        };
        found.extend(names.into_iter().map(|name| (line, name)));
    }
    found
}

fn name_at(text: &str) -> String {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    text[..end.unwrap_or(text.len())].to_owned()
}

/// First names of `a::b, c::{d, e}, f}`.
fn names_of_group(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(name_at(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name_at(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    // A comma may end the list.
    names.retain(|name| !name.is_empty());
    names
}

/// True if a chain of `super::` leaves the room. A module inside the file is one step deeper.
fn climbs_out(path: &Path, line: &str) -> bool {
    let is_module_root = path.file_stem().is_some_and(|stem| stem == "mod");
    let depth = path.components().count() - usize::from(is_module_root);
    let is_inside_a_module = line.starts_with(' ');
    let mut longest = 0;
    let mut rest = line;
    while let Some(at) = rest.find("super::") {
        rest = &rest[at..];
        let mut count = 0;
        while let Some(shorter) = rest.strip_prefix("super::") {
            rest = shorter;
            count += 1;
        }
        longest = longest.max(count);
    }
    longest >= depth + usize::from(is_inside_a_module)
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder that can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn imports_go_down_the_ladder_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.len() > 10, "the rooms were found");
    let violations: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let text = fs::read_to_string(file).expect("text");
            violations(file.strip_prefix(&src).expect("inside of src"), &text)
        })
        .collect();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn the_ladder_test_sees_what_it_should() {
    let count = |path: &str, text: &str| violations(Path::new(path), text).len();
    for (path, text) in [
        ("chain/block.rs", "use crate::index::Index;"),
        ("index/mod.rs", "use crate::mempool::Mempool;"),
        (
            "state/mod.rs",
            "use crate::{\n    chain::{Height, Txid},\n    sync::Step,\n};",
        ),
        ("sync/mod.rs", "fn f(x: &crate::electrum::Session) {}"),
        ("server/tcp.rs", "use crate::config::Config;"),
        ("config.rs", "use crate::chain::Height;"),
        ("state/mod.rs", "let db = rocksdb::DB::open();"),
        ("state/view.rs", "use super::super::sync::Step;"),
        ("state/mod.rs", "use super::sync::Step;"),
        (
            "state/mod.rs",
            "mod tests {\n    use super::super::sync::Step;\n}",
        ),
        ("helpers/mod.rs", ""),
    ] {
        assert_eq!(count(path, text), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("index/mod.rs", "use crate::chain::Height; use rocksdb::DB;"),
        (
            "server/mod.rs",
            "use crate::{electrum::Session, state::State, chain::{a, b}};",
        ),
        (
            "state/view.rs",
            "use super::Tip;\nmod tests {\n    use super::super::Tip;\n}",
        ),
        ("state/mod.rs", "mod tests {\n    use super::*;\n}"),
        ("lib.rs", "use crate::config::Config;"),
        ("chain/mod.rs", "// as crate::sync does with rocksdb::DB"),
        ("state/mod.rs", "use other_crate::sync;"),
    ] {
        assert_eq!(violations(Path::new(path), text), [""; 0], "{path}: {text}");
    }
}

#[test]
fn no_code_of_ours_is_unsafe() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The compiler forbids it in the library, the program, the tests, the benches and the build script.
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("a manifest");
    assert!(manifest.contains("[lints.rust]\nunsafe_code = \"forbid\"\n"));
    // Fuzz targets and the wallets' runner are packages of their own; the macro of a fuzz target makes unsafe code of
    // its own, so what they say is looked at instead.
    let mut files = vec![root.join("build.rs")];
    for folder in ["src", "tests", "contrib", "fuzz/fuzz_targets"] {
        rust_files(&root.join(folder), &mut files);
    }
    let word = ["un", "safe"].concat();
    let is_unsafe = |line: &str| {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|found| found == word)
    };
    assert!(is_unsafe(&format!("    {word} {{")) && !is_unsafe("#![forbid(unsafe_code)]"));
    for file in files {
        let code = without_comments(&fs::read_to_string(&file).expect("text"));
        let found = code.lines().find(|line| is_unsafe(line));
        assert_eq!(found, None, "{}", file.display());
    }
}

/// `contrib/fuzz.sh` builds with `--locked`.
#[test]
fn the_lock_of_the_fuzz_targets_knows_every_dependency() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("text");
    let manifest = read("Cargo.toml");
    let (_, rest) = manifest.split_once("\n[dependencies]\n").expect("a list");
    let names: Vec<&str> = rest
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name)
        .collect();
    assert!(names.len() > 20, "{names:?}");
    let lock = read("fuzz/Cargo.lock");
    let own = lock.split("[[package]]");
    let own = own.filter(|package| package.contains("\nname = \"ambra\"\n"));
    let own: String = own.collect();
    for name in names {
        assert!(
            own.contains(&format!("\n \"{name}")),
            "{name}: run `cargo update -w` in fuzz/"
        );
    }
}
