//! `ambra verify`, as a user runs it.

use std::fs;

use serde_json::json;

use crate::{
    ambra::Ambra,
    node::{Node, NodeOptions},
    random_chain::RandomChain,
    treasury::Treasury,
};

#[test]
fn verify_finds_nothing_wrong_beside_a_running_server_and_after_it_has_stopped() {
    let node = Node::start(NodeOptions {
        rest: true,
        ..NodeOptions::default()
    });
    let mut chain = RandomChain::new(&node, 85);
    (0..30).for_each(|_| drop(chain.step()));
    node.mine(20, &Treasury::elsewhere());
    let mut ambra = Ambra::start(&node);
    (0..10).for_each(|_| drop(chain.step()));
    println!("{}", chain.reorg(4));
    ambra.wait_until_synced(&node);
    let set = node.rpc("gettxoutsetinfo", json!(["none"]));
    let stats = node.rpc("getchaintxstats", json!([1]));

    for source in ["files", "rest", "rpc"] {
        // 1. All blocks, and the node's totals.
        let (status, said) = ambra.run(&["verify", "--blocks", "all", "--block-source", source]);
        assert_eq!(status.code(), Some(0), "{said}");
        assert!(said.contains("No faults."), "{said}");
        let all = node.height() + 1;
        assert!(
            said.contains(&format!("{all} of {all} blocks made again")),
            "{said}"
        );
        assert!(
            said.contains(&format!("  {} transactions: as the node", stats["txcount"])),
            "{said}"
        );
        assert!(
            said.contains(&format!("  {} unspent outputs: as the node", set["txouts"])),
            "{said}"
        );
        assert!(said.contains("satoshis: as the node"), "{said}");
        println!("{said}");
    }
    assert!(ambra.is_running(), "it was not disturbed");
    node.mine(3, &Treasury::elsewhere());
    ambra.wait_until_synced(&node);

    // 2. Stopped in good order, and killed; a sample with a seed.
    ambra.stop();
    let (status, said) = ambra.run(&["verify", "--blocks", "10", "--seed", "7"]);
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("10 of"), "{said}");
    assert!(said.contains("--seed 7"), "{said}");
    ambra.launch();
    node.mine(3, &Treasury::elsewhere());
    ambra.wait_until_synced(&node);
    ambra.kill();
    let (status, said) = ambra.run(&["verify"]);
    assert_eq!(status.code(), Some(0), "{said}");

    // 3. The node has gone on, and back: no fault of the index.
    node.mine(5, &Treasury::elsewhere());
    let (status, said) = ambra.run(&["verify", "--blocks", "all"]);
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("unspent outputs: as the node"), "{said}");
    node.invalidate(&node.block_at(node.height() - 8));
    let (status, said) = ambra.run(&["verify", "--blocks", "all"]);
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("has left its branch"), "{said}");

    // 4. Wrong words are another exit code.
    let (status, said) = ambra.run(&["verify", "--blocks", "some"]);
    assert_eq!(status.code(), Some(2), "{said}");
}

#[test]
fn verify_names_what_is_wrong_and_ends_with_1() {
    let node = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&node, 86);
    (0..20).for_each(|_| drop(chain.step()));
    node.mine(20, &Treasury::elsewhere());

    // 1. Nothing there.
    let mut ambra = Ambra::start(&node);
    ambra.stop();
    let whole = ambra.on_a_copy(&node);
    fs::remove_dir_all(ambra.index_folder()).unwrap();
    let (status, said) = ambra.run(&["verify"]);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("there is no index in"), "{said}");

    // 2. A byte of each table.
    let folder = whole.index_folder().join("rocksdb");
    let tables: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().ends_with(".sst"))
        .collect();
    assert!(!tables.is_empty());
    for table in &tables {
        let spoilt = whole.on_a_copy(&node);
        let path = spoilt.index_folder().join("rocksdb").join(table);
        let mut bytes = fs::read(&path).unwrap();
        bytes[10] ^= 1;
        fs::write(path, bytes).unwrap();
        let (status, said) = spoilt.run(&["verify"]);
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("--rebuild"), "{said}");
        println!("{said}");
    }
}
