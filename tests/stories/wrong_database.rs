//! The wrong database: each is refused in words that say what to do, and built anew only when told to.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use ambra::index::Index;
use bitcoin::{BlockHash, Network, blockdata::constants::genesis_block, hashes::Hash};
use tempfile::TempDir;

use crate::{
    ambra::{Ambra, SYNC_PATIENCE, copy_folder},
    compare::compare_all,
    node::{Node, NodeOptions, bitcoind, free_port},
    patience::until,
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

/// A node of another network than all other stories', with the genesis block only.
struct Foreigner {
    process: Child,
    dir: TempDir,
    port: u16,
}

impl Foreigner {
    fn start(network: Network) -> Foreigner {
        let (dir, port) = (
            tempfile::tempdir().expect("a temporary directory"),
            free_port(),
        );
        let process = Command::new(bitcoind())
            .arg(format!("-chain={}", network.to_core_arg()))
            .arg(format!("-datadir={}", dir.path().display()))
            .arg(format!("-rpcport={port}"))
            .args([
                "-server=1",
                "-listen=0",
                "-dnsseed=0",
                "-fixedseeds=0",
                "-connect=0",
                "-dbcache=4",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let node = Foreigner {
            process: process.expect("bitcoind can be run"),
            dir,
            port,
        };
        let cookie = node.dir.path().join(network.to_core_arg()).join(".cookie");
        let came = until(SYNC_PATIENCE, || cookie.exists().then_some(()));
        assert!(came.is_some(), "bitcoind has made no cookie");
        node
    }
}

impl Drop for Foreigner {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_index_of_another_network_is_refused_by_name_and_stays_as_it_was() {
    let node = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&node, 83);
    let mut ambra = Ambra::start(&node);
    ambra.stop();
    for network in [Network::Signet, Network::Testnet4] {
        let name = network.to_core_arg();
        let foreigner = Foreigner::start(network);

        // 1. Copied to the other network's folder; and in its own, beside the other network's node.
        let copy = ambra.folder().path().join(name);
        fs::create_dir(&copy).unwrap();
        copy_folder(&ambra.index_folder(), &copy);
        for told in [name, "regtest"] {
            let mut lost = Ambra::in_folder(&node, ambra.folder(), &[]);
            lost.set_value("--network", told);
            let dir = foreigner.dir.path().display().to_string();
            lost.set_value("--daemon-dir", &dir);
            let url = format!("http://127.0.0.1:{}", foreigner.port);
            lost.set_value("--daemon-rpc-url", &url);
            if told != name {
                // Where that network's node would have its own.
                let cookie = foreigner.dir.path().join(name).join(".cookie");
                let there = foreigner.dir.path().join(told);
                fs::create_dir_all(&there).unwrap();
                fs::copy(cookie, there.join(".cookie")).unwrap();
            }
            let other = format!("not that of {name} (chain ");
            if told == name {
                let words = [
                    "the index of regtest (chain 0f9188f1",
                    &other,
                    "--db-dir",
                    "--rebuild",
                ];
                refused(&mut lost, &words);
            } else {
                let other =
                    format!("is on {name}: leave --network out, or point at the other node");
                refused(&mut lost, &["--network regtest was asked for", &other]);
            }
        }
    }

    // 2. It was not touched.
    println!("{}", chain.step());
    ambra.launch();
    ambra.wait_until_synced(&node);
    assert!(!ambra.said().contains("first sync"));
    compare_all(&mut chain.oracle, &node, &mut ambra.client());
    compare_index(&ambra, &node);
    ambra.stop();

    // 3. The other way round, for every network.
    for network in [
        Network::Bitcoin,
        Network::Testnet,
        Network::Testnet4,
        Network::Signet,
    ] {
        fs::remove_dir_all(ambra.index_folder()).unwrap();
        let genesis = genesis_block(network).block_hash();
        drop(Index::open(&ambra.index_folder(), &genesis).unwrap());
        let words = format!("the index of {} (chain {genesis})", network.to_core_arg());
        refused(&mut ambra, &[&words, "not that of regtest", "--rebuild"]);
    }
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
