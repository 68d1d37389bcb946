//! Files, REST and RPC: the same bytes and the same rows for every block.

use std::{collections::HashMap, time::Duration};

use ambra::{
    chain::{BlockView, SpentOutputs, block_hash},
    daemon::{
        files::{BlockFiles, ScannedBlock},
        rest::Rest,
        rpc::{Rpc, RpcAuth, RpcConfig},
    },
    index::Index,
};
use bitcoin::{BlockHash, hashes::Hash};

use crate::{
    ambra::Ambra,
    node::{Node, NodeOptions},
    random_chain::RandomChain,
    treasury::Treasury,
};

/// What a block spends: values and scripts in order.
fn told(spent: &SpentOutputs) -> Vec<Vec<(u64, Vec<u8>)>> {
    let mut reader = spent.reader().unwrap();
    let mut txs = Vec::new();
    while reader.txs_left() > 0 {
        let count = reader.next_tx().unwrap();
        let output = |_| {
            let (value, script) = reader.next_output().unwrap();
            (value, script.to_vec())
        };
        txs.push((0..count).map(output).collect());
    }
    txs
}

fn lived_on(node: &Node, seed: u64) {
    let mut chain = RandomChain::new(node, seed);
    (0..50).for_each(|_| drop(chain.step()));
    println!("{}", chain.reorg(3));
    (0..10).for_each(|_| drop(chain.step()));
    node.mine(30, &Treasury::elsewhere());
}

#[test]
fn every_block_has_the_same_bytes_and_spends_the_same_by_files_rest_and_rpc() {
    for xor in [true, false] {
        // 1. A chain with stale blocks in its files.
        let node = Node::start(NodeOptions {
            rest: true,
            xor,
            ..NodeOptions::default()
        });
        lived_on(&node, 31);
        let files = BlockFiles::open(&node.dir().join("regtest/blocks")).unwrap();
        assert_eq!(files.is_xored(), xor);
        let rest = Rest::new(&node.rpc_url());
        let rpc = Rpc::new(RpcConfig {
            url: node.rpc_url(),
            auth: RpcAuth::CookieFile(node.dir().join("regtest/.cookie")),
            timeout: Duration::from_secs(30),
        });

        // 2. The files hold the whole chain, and more.
        let mut scanned: HashMap<BlockHash, ScannedBlock> = HashMap::new();
        for number in files.numbers().unwrap() {
            let (blocks, _end) = files.scan(number, 0).unwrap();
            scanned.extend(blocks.into_iter().map(|block| (block.hash, block)));
        }
        let hashes = rpc.block_hashes(0, node.height() + 1).unwrap();
        assert!(
            scanned.len() > hashes.len(),
            "no stale block lies in the files"
        );

        // 3. Each block, each way.
        for hash in &hashes {
            let block = &scanned[hash];
            let mut bytes = Vec::new();
            files.block(&block.place, &mut bytes).unwrap();
            assert_eq!(rest.block(hash).unwrap(), bytes);
            assert_eq!(rpc.block(hash).unwrap(), bytes);
            let view = BlockView::parse(&bytes).unwrap();
            assert_eq!(block_hash(view.header), *hash);
            assert_eq!(view.tx_count, block.tx_count);
            if hash == &hashes[0] {
                continue;
            }
            let by_rpc = told(&rpc.spent(hash).unwrap());
            assert_eq!(by_rpc.len() as u32, block.tx_count - 1);
            if let Some(by_rest) = rest.spent(hash).unwrap() {
                assert_eq!(told(&by_rest), by_rpc);
            } else {
                println!("LOUD: this node has no /rest/spenttxouts");
            }
            let mut undo = Vec::new();
            files
                .undo(&block.place, &block.header, block.tx_count, None, &mut undo)
                .unwrap();
            assert_eq!(told(&SpentOutputs::Undo(undo)), by_rpc);
        }
    }
}

#[test]
fn every_block_source_makes_the_same_rows_all_at_once_and_one_by_one() {
    // 1. One node; its first blocks are seen live, the others all at once, and the other way round.
    let node = Node::start(NodeOptions {
        rest: true,
        ..NodeOptions::default()
    });
    let mut live = Ambra::start_with(&node, &["--block-source", "files"]);
    lived_on(&node, 32);
    live.wait_until_synced(&node);
    live.stop();
    let rows = |ambra: &Ambra| {
        let genesis = BlockHash::from_byte_array(*node.block_at(0).as_byte_array());
        let index = Index::open(&ambra.index_folder(), &genesis).unwrap();
        assert_eq!(index.tip().unwrap().unwrap().hash, node.best_block());
        let mut rows = index.fingerprint().unwrap();
        // Its rows say where a block lies in the files: REST and RPC do not know.
        rows.retain(|family| family.name != "block");
        assert!(rows.iter().all(|family| family.rows > 100), "{rows:?}");
        rows
    };
    let expected = rows(&live);

    // 2. The same from each source, from nothing.
    for source in ["files", "rest", "rpc"] {
        let mut ambra = Ambra::start_with(&node, &["--block-source", source]);
        ambra.stop();
        assert_eq!(rows(&ambra), expected, "block source {source}");
    }
}
