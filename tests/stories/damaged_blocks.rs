//! The node's block files are damaged: the file, the offset and the height are named, the node is asked for
//! the block instead, and no answer is wrong.

use std::{fs, path::Path};

use ambra::daemon::files::{BlockFiles, ScannedBlock};
use serde_json::json;

use crate::{
    ambra::{Ambra, copy_folder},
    compare::{compare_all, compare_or_refused},
    long::report,
    node::{Node, NodeOptions},
    random_chain::RandomChain,
    treasury::Treasury,
};

/// Places of one block.
const FLIPS: usize = 8;

/// Blocks and undo data that are not scrambled, so that damage can be aimed.
const PLAIN: NodeOptions = NodeOptions {
    zmq: true,
    rest: false,
    xor: false,
    prunes: false,
    small_files: false,
    small_mempool: false,
};

fn lived_on(node: &Node, seed: u64) -> RandomChain<'_> {
    let mut chain = RandomChain::new(node, seed);
    (0..40).for_each(|_| drop(chain.step()));
    node.mine(20, &Treasury::elsewhere());
    chain
}

/// A block of the best chain with many transactions, and its height.
fn busy_block(node: &Node, folder: &Path) -> (u32, ScannedBlock) {
    let (blocks, _) = BlockFiles::open(folder).unwrap().scan(0, 0).unwrap();
    let heights = 1..node.height() - 15;
    let of_chain = heights.filter_map(|height| {
        let hash = node.block_at(height);
        let block = blocks.iter().find(|block| block.hash == hash)?;
        Some((height, *block))
    });
    of_chain.max_by_key(|(_, block)| block.tx_count).unwrap()
}

fn change(folder: &Path, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.join(file);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Where the rev record lies whose bytes are not zero at the end: the middle of what the file holds.
fn middle_of_undo(folder: &Path) -> usize {
    let bytes = fs::read(folder.join("rev00000.dat")).unwrap();
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    used / 2
}

#[test]
fn a_damaged_block_or_undo_record_is_named_and_asked_of_the_node() {
    let node = Node::start(PLAIN);
    let mut chain = lived_on(&node, 91);
    let own = node.dir().join("regtest/blocks");
    let (height, block) = busy_block(&node, &own);
    let at = block.place.offset as usize;
    let middle = at + block.place.size as usize / 2;
    let undo = middle_of_undo(&own);
    println!("block {height} lies at {at}");
    type Damage = fn(&mut Vec<u8>, usize);
    let flip: Damage = |bytes, at| bytes[at] ^= 0x10;
    let cut: Damage = |bytes, at| bytes.truncate(at);
    let zero: Damage = |bytes, at| bytes[at..at + 40].fill(0);
    let cases: [(&str, &str, usize, Damage, bool); 8] = [
        ("a bit of a transaction", "blk00000.dat", middle, flip, true),
        ("a bit of a header", "blk00000.dat", at + 40, flip, false),
        ("a record's magic", "blk00000.dat", at - 8, flip, false),
        ("a record's size", "blk00000.dat", at - 3, flip, false),
        ("zeros in a block", "blk00000.dat", middle, zero, true),
        ("an end that is missing", "blk00000.dat", middle, cut, false),
        ("a bit of undo data", "rev00000.dat", undo, flip, true),
        ("undo data that end early", "rev00000.dat", undo, cut, true),
    ];
    for (name, file, at, damage, is_named) in cases {
        println!("{name}");
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&own, copy.path());
        change(copy.path(), file, |bytes| damage(bytes, at));
        let path = copy.path().display().to_string();
        let mut ambra =
            Ambra::start_with(&node, &["--blocks-dir", &path, "--block-source", "files"]);
        compare_all(&mut chain.oracle, &node, &mut ambra.client());
        if is_named {
            // Where a block's header cannot be found at all, nothing is known to be there.
            let said = ambra.said();
            let line = said.lines().find(|line| {
                line.contains(file) && line.contains("block ") && line.contains("offset ")
            });
            assert!(line.is_some(), "{name}: nothing of {file} in: {said}");
            println!("{}", line.unwrap());
        }
        ambra.stop();
    }

    // No undo file at all.
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&own, copy.path());
    fs::remove_file(copy.path().join("rev00000.dat")).unwrap();
    let path = copy.path().display().to_string();
    let ambra = Ambra::start_with(&node, &["--blocks-dir", &path, "--block-source", "files"]);
    compare_all(&mut chain.oracle, &node, &mut ambra.client());
    assert!(ambra.said().contains("rev00000.dat"));
    report("damaged block files", &json!({"faults": cases.len() + 1}));
}

#[test]
fn a_block_file_that_is_damaged_after_the_sync_is_found_by_verify() {
    // Before a question comes to it.
    let node = Node::start(PLAIN);
    let mut chain = lived_on(&node, 92);
    let own = node.dir().join("regtest/blocks");
    let (height, block) = busy_block(&node, &own);
    let (at, size) = (block.place.offset as usize, block.place.size as usize);
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&own, copy.path());
    let path = copy.path().display().to_string();
    let options = ["--blocks-dir", &path, "--block-source", "files"];
    let mut ambra = Ambra::start_with(&node, &options);
    compare_all(&mut chain.oracle, &node, &mut ambra.client());
    ambra.stop();
    let mut faults = 0;
    for part in 0..6 {
        let place = at + 100 + part * (size - 120) / 6;
        let flip = |bytes: &mut Vec<u8>| bytes[place] ^= 1 << part;
        change(copy.path(), "blk00000.dat", flip);
        let (status, said) = ambra.run(&["verify", "--blocks", "all"]);
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("FAULT block {height}: ")), "{said}");
        change(copy.path(), "blk00000.dat", flip);
        faults += 1;
    }
    let (status, said) = ambra.run(&["verify", "--blocks", "all"]);
    assert_eq!(status.code(), Some(0), "{said}");
    report(
        "bits flipped in block files after the sync",
        &json!({"faults": faults}),
    );
}

#[test]
fn bits_that_flip_in_a_block_file_after_the_sync_change_no_answer() {
    let node = Node::start(PLAIN);
    let mut chain = lived_on(&node, 93);
    let own = node.dir().join("regtest/blocks");
    let (height, block) = busy_block(&node, &own);
    let (at, size) = (block.place.offset as usize, block.place.size as usize);
    println!("block {height} lies at {at}");
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&own, copy.path());
    let path = copy.path().display().to_string();
    let mut ambra = Ambra::start_with(&node, &["--blocks-dir", &path, "--block-source", "files"]);
    let flip = |folder: &Path, place: usize| {
        change(folder, "blk00000.dat", |bytes| bytes[place] ^= 4);
    };
    let mut faults = 0;
    for part in 0..FLIPS {
        let place = at + 81 + part * (size - 90) / FLIPS;
        // 1. The file alone: the node is asked, and the log says for what.
        flip(copy.path(), place);
        ambra.kill();
        ambra.launch();
        ambra.wait_until_synced(&node);
        compare_all(&mut chain.oracle, &node, &mut ambra.client());
        let said = ambra.said();
        let named = format!("(blk00000.dat, offset {at}) is damaged");
        if said.contains(&named) {
            faults += 1;
        }
        assert!(ambra.is_running());
        // 2. The node's own file too: an error that says what mends it, and no wrong answer.
        flip(&own, place);
        ambra.kill();
        ambra.launch();
        ambra.wait_until_synced(&node);
        let refused = compare_or_refused(&mut chain.oracle, &node, &mut ambra.client());
        println!("byte {}: {refused} answers refused", place - at);
        assert_eq!(
            refused > 0,
            ambra.said().contains("-reindex"),
            "{}",
            ambra.said()
        );
        // 3. It was mended.
        flip(copy.path(), place);
        flip(&own, place);
        ambra.kill();
        ambra.launch();
        ambra.wait_until_synced(&node);
        compare_all(&mut chain.oracle, &node, &mut ambra.client());
    }
    assert!(2 * faults > FLIPS, "{faults} of {FLIPS} flips were seen");
    report(
        "bits flipped under a running server",
        &json!({"faults": faults, "flips": FLIPS}),
    );
}
