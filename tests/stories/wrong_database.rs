//! The wrong database: each is refused in words that say what to do, and built anew only when told to.

use std::fs;

use ambra::index::Index;
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;

use crate::{
    ambra::Ambra,
    compare::compare_all,
    node::{Node, NodeOptions},
    random_chain::RandomChain,
    same_index::compare_index,
};

/// Overwrites a row of `meta`, as another version would have written it.
fn set_meta(ambra: &Ambra, name: &str, value: &[u8]) {
    let folder = ambra.index_folder().join("rocksdb");
    let options = rocksdb::Options::default();
    let families = rocksdb::DB::list_cf(&options, &folder).expect("column families");
    let db = rocksdb::DB::open_cf(&options, &folder, families).expect("a database");
    let meta = db.cf_handle("meta").expect("meta");
    db.put_cf(meta, name, value).expect("a row");
}

/// It ends at once, with these words; and goes on as told.
#[track_caller]
fn refused(ambra: &mut Ambra, words: &[&str]) {
    ambra.launch_unseen();
    let (status, said) = ambra.wait_until_it_ends();
    assert_eq!(status.code(), Some(1), "{said}");
    for words in words {
        assert!(said.contains(words), "no '{words}' in: {said}");
    }
}

#[test]
fn an_index_of_another_format_chain_or_build_is_refused_and_rebuilt_when_told_to() {
    let node = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&node, 81);
    let mut ambra = Ambra::start(&node);
    ambra.stop();
    fs::write(ambra.index_folder().join("note"), b"not the index's").unwrap();
    let cases: [(&str, &[u8], &str); 5] = [
        ("format", &0u32.to_le_bytes(), "an index of format 0"),
        ("format", &99u32.to_le_bytes(), "an index of format 99"),
        ("format", b"?", "an index of an unknown format"),
        ("prefixes", &[1, 1], "a test build's index"),
        ("genesis", &[7; 32], "the index of chain 0707"),
    ];
    for (name, value, words) in cases {
        // 1. Refused, as often as it is tried.
        set_meta(&ambra, name, value);
        for _ in 0..2 {
            refused(&mut ambra, &[words, "--db-dir", "--rebuild"]);
        }

        // 2. Told to, it is built anew, and nothing else in the folder is touched.
        ambra.set_option("--rebuild", true);
        ambra.launch();
        ambra.wait_until_synced(&node);
        compare_all(&mut chain.oracle, &node, &mut ambra.client());
        compare_index(&ambra, &node);
        ambra.stop();
        ambra.set_option("--rebuild", false);
        assert!(ambra.index_folder().join("note").exists());
        println!("{}", chain.step());
    }

    // 3. Without being told, it is not built anew.
    ambra.launch();
    assert!(!ambra.said().contains("deleting"));
    assert!(!ambra.said().contains("first sync"));
}

#[test]
fn the_index_of_another_chain_with_the_same_network_is_refused() {
    // Custom signets share a folder's name, for one; here it is made by hand.
    let node = Node::start(NodeOptions::default());
    let mut ambra = Ambra::start_unseen(&node, &[]);
    ambra.wait_until_listening();
    ambra.stop();
    fs::remove_dir_all(ambra.index_folder()).unwrap();
    let other = BlockHash::from_byte_array([9; 32]);
    drop(Index::open(&ambra.index_folder(), &other).unwrap());
    refused(
        &mut ambra,
        &["the index of chain 0909", "--db-dir", "--rebuild"],
    );
}

#[test]
fn two_processes_on_one_database_are_one_too_many_even_for_a_rebuild() {
    let node = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&node, 82);
    let mut first = Ambra::start(&node);
    for is_rebuild in [false, true] {
        let mut second = first.twin();
        if is_rebuild {
            second.kill();
            second.set_option("--rebuild", true);
            second.launch_unseen();
        }
        let (status, said) = second.wait_until_it_ends();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("another process uses the index"), "{said}");
        assert!(first.is_running());
        println!("{}", chain.step());
        compare_all(&mut chain.oracle, &node, &mut first.client());
    }
    compare_index(&first, &node);
}
