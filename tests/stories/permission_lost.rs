//! What a running server may read and write is taken from it: it goes on as long as it can, says what is wrong and what
//! mends it, and with its rights back nothing is lost.

use std::sync::Arc;

use crate::{
    ambra::Ambra,
    another_user::{self, Owner},
    compare::compare_all,
    node::{Node, NodeOptions},
    patience::until,
    random_chain::RandomChain,
    same_index::compare_index,
};

#[test]
fn an_index_that_is_taken_from_a_running_server_ends_it_in_clear_words_and_given_back_it_goes_on() {
    let node = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&node, 77);
    let folder = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let mut ambra = Ambra::in_folder(&node, Arc::clone(&folder), &[]);
    if !another_user::runs(&mut ambra, &node) {
        return;
    }
    another_user::give(folder.path(), Owner::Nobody);
    ambra.launch();
    ambra.wait_until_synced(&node);

    // 1. Its files are open: blocks are still indexed, and questions answered.
    another_user::give(folder.path(), Owner::Root);
    another_user::close(folder.path());
    (0..6).for_each(|_| println!("{}", chain.step()));
    chain.mine_block();
    compare_all(&mut chain.oracle, &node, &mut ambra.client());

    // 2. What needs another file fails, and is not called done.
    let (status, said) = ambra.run_as_root(&["compact"]);
    assert_eq!(status.code(), Some(1), "{said}");
    let words = ["may not be written by this user", "chown"];
    for words in words {
        assert!(said.contains(words), "{said}");
    }

    // 3. The next block cannot be written: the server says why, and ends.
    let ended = until(crate::ambra::SYNC_PATIENCE, || {
        chain.mine_block();
        (!ambra.is_running()).then_some(())
    });
    assert!(ended.is_some(), "{}", ambra.said());
    let (status, said) = ambra.wait_until_it_ends();
    assert_eq!(status.code(), Some(1), "{said}");
    for words in words {
        assert!(said.contains(words), "{said}");
    }
    assert!(!said.contains("panicked"), "{said}");

    // 4. A start says it again; so does the check.
    ambra.launch_unseen();
    let (status, said) = ambra.wait_until_it_ends();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("Permission denied"), "{said}");
    assert!(said.contains("ambra doctor"), "{said}");
    let (status, said) = ambra.run(&["verify"]);
    assert_eq!(status.code(), Some(1), "{said}");
    println!("verify: {said}");
    assert!(said.contains("Permission denied"), "{said}");

    // 5. Given back, all is there.
    another_user::give(folder.path(), Owner::Nobody);
    ambra.launch();
    ambra.wait_until_synced(&node);
    compare_all(&mut chain.oracle, &node, &mut ambra.client());
    compare_index(&ambra, &node);
}

#[test]
fn block_files_that_are_closed_to_a_running_server_are_asked_of_the_node_and_opened_again_they_are_read()
 {
    let node = Node::start(NodeOptions {
        rest: true,
        small_files: true,
        ..NodeOptions::default()
    });
    let mut chain = RandomChain::new(&node, 78);
    let folder = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let mut ambra = Ambra::in_folder(&node, Arc::clone(&folder), &[]);
    if !another_user::runs(&mut ambra, &node) {
        return;
    }
    another_user::give(folder.path(), Owner::Nobody);
    let blocks = node.dir().join("regtest/blocks");
    another_user::open(&blocks);
    ambra.launch();
    ambra.wait_until_synced(&node);
    assert!(
        !ambra.said().contains("not by block files"),
        "{}",
        ambra.said()
    );
    for round in 0..2 {
        // 1. Closed: new blocks and old ones are had from the node, some of them from files that nobody has opened yet.
        another_user::close(&blocks);
        for _ in 0..12 {
            println!("{round}: {}", chain.step());
        }
        chain.reorg(3);
        compare_all(&mut chain.oracle, &node, &mut ambra.client());
        assert!(ambra.is_running());

        // 2. Open again.
        another_user::open(&blocks);
        (0..6).for_each(|_| println!("{round}: {}", chain.step()));
        compare_all(&mut chain.oracle, &node, &mut ambra.client());
    }
    let said = ambra.said();
    println!("{said}");
    assert!(said.contains("Permission denied"), "{said}");
    compare_index(&ambra, &node);
}
