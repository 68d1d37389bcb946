//! What is fuzzed of this room: `bitcoin.conf`, and what a node that is none might answer.

use bitcoin::Network;

use super::{bitcoin_conf::BitcoinConf, files::BlockFiles, rpc, zmq};

/// The file as every network sees it.
pub fn bitcoin_conf(bytes: &[u8]) {
    let conf = BitcoinConf::parse(&String::from_utf8_lossy(bytes));
    let _ = conf.network();
    for network in [None, Some(Network::Bitcoin), Some(Network::Regtest)] {
        for key in ["rpcport", "datadir", "rpcpassword"] {
            let _ = conf.get(network, key);
        }
    }
}

/// The first byte says which answer of RPC it is.
pub fn rpc_answer(bytes: &[u8]) {
    if let Some((which, bytes)) = bytes.split_first() {
        rpc::fuzz(*which, bytes);
    }
}

/// A message of ZMQ: frames, each behind its length in one byte.
pub fn zmq_message(bytes: &[u8]) {
    zmq::fuzz(bytes);
}

/// A blk file: its records are scanned, and each block's bytes and undo data are asked for.
pub fn block_file(bytes: &[u8]) {
    // Tests run on several threads of one process, fuzzers in several processes.
    let (process, thread) = (std::process::id(), std::thread::current().id());
    let folder = std::env::temp_dir().join(format!("ambra-fuzz-blocks-{process}-{thread:?}"));
    std::fs::create_dir_all(&folder).expect("the temporary directory takes a folder");
    let (undo, blocks) = bytes.split_at(bytes.len().min(64));
    for (name, bytes) in [("blk00000.dat", blocks), ("rev00000.dat", undo)] {
        std::fs::write(folder.join(name), bytes).expect("the folder takes a file");
    }
    if let Ok(files) = BlockFiles::open(&folder)
        && let Ok((found, end)) = files.scan(0, 0)
    {
        assert!(end <= blocks.len() as u64 || found.is_empty());
        for block in found {
            let mut out = Vec::new();
            files.block(&block.place, &mut out).expect("it was scanned");
            let _ = files.undo(&block.place, &block.header, block.tx_count, None, &mut out);
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
}
