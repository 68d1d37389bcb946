//! What Ambra hears of a real node: blocks and what they spend, the mempool, restarts. No server here,
//! only the rooms that speak with bitcoind.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    thread,
    time::{Duration, Instant},
};

use ambra::{
    chain::{BlockView, MempoolEntry, SpentOutputs, TxView},
    daemon::{
        rest::Rest,
        rpc::{Rpc, RpcAuth, RpcConfig, RpcError},
        zmq::{ZmqEvent, ZmqFeed},
    },
    mempool::Mempool,
    sync::mempool::{Feed, Look},
};
use bitcoin::{BlockHash, OutPoint, TxOut, Txid, hashes::Hash};
use serde_json::json;

use crate::{
    locks::{Kind, Lock},
    node::{Node, NodeOptions},
    oracle::{Moment, Oracle},
    patience::until,
    random_chain::RandomChain,
    treasury::Treasury,
};

const PATIENCE: Duration = Duration::from_secs(60);
const SEED: u64 = 7;

fn rpc_of(node: &Node) -> Rpc {
    Rpc::new(RpcConfig {
        url: node.rpc_url(),
        auth: RpcAuth::CookieFile(node.dir().join("regtest/.cookie")),
        timeout: RpcConfig::TIMEOUT,
    })
}

/// Every output of the chain, as an index would find it.
fn outputs_of(moment: &Moment) -> HashMap<OutPoint, TxOut> {
    let transactions = moment.chain.iter().flat_map(|(_, block)| &block.txdata);
    let outputs = transactions.flat_map(|transaction| {
        let txid = transaction.compute_txid();
        let outputs = (0u32..).zip(transaction.output.iter().cloned());
        outputs.map(move |(vout, output)| (OutPoint { txid, vout }, output))
    });
    outputs.collect()
}

/// What a block spends, in order, transaction by transaction.
fn read_spent(spent: &SpentOutputs) -> Vec<Vec<(u64, Vec<u8>)>> {
    let mut reader = spent.reader().unwrap();
    let mut all = Vec::new();
    while reader.txs_left() > 0 {
        let count = reader.next_tx().unwrap();
        let outputs = (0..count).map(|_| {
            let (value, script) = reader.next_output().unwrap();
            (value, script.to_vec())
        });
        all.push(outputs.collect());
    }
    reader.finish().unwrap();
    all
}

#[test]
fn blocks_and_what_they_spend_are_equal_by_rest_and_by_rpc() {
    let node = Node::start(NodeOptions {
        rest: true,
        ..NodeOptions::default()
    });
    // 1. A chain with spends of every kind of script.
    let mut chain = RandomChain::new(&node, SEED);
    for _ in 0..60 {
        chain.step();
    }
    let moment = chain.oracle.read(&node);
    let outputs = outputs_of(&moment);
    let rpc = rpc_of(&node);
    let rest = Rest::new(&node.rpc_url());

    // 2. Headers and hashes, one by one and many at once.
    let hashes: Vec<BlockHash> = moment.chain.iter().map(|(hash, _)| *hash).collect();
    let count = hashes.len() as u32;
    assert_eq!(rpc.block_hashes(0, count).unwrap(), hashes);
    let headers = rpc.block_headers(&hashes).unwrap();
    assert_eq!(rest.headers(&hashes[0], count).unwrap(), headers);
    assert_eq!(rpc.block_header(&hashes[1]).unwrap(), headers[1]);
    let info = rpc.block_header_info(&hashes[1]).unwrap();
    assert_eq!((info.height, info.previous), (1, Some(hashes[0])));
    let error = rpc.block_hash(count).unwrap_err();
    assert!(matches!(error, RpcError::Refused { code: -8, .. }));

    // 3. Each block by both ways.
    let has_spent = rest.available().unwrap();
    if !has_spent {
        println!("LOUD: this node has no /rest/spenttxouts; only RPC's spent outputs are proven");
    }
    let mut kinds = HashSet::new();
    for (hash, block) in &moment.chain[1..] {
        let bytes = rpc.block(hash).unwrap();
        assert_eq!(bytes, bitcoin::consensus::serialize(&**block));
        assert_eq!(rest.block(hash).unwrap(), bytes);
        if let Some(part) = rest.block_part(hash, 80, 60).unwrap() {
            assert_eq!(part, bytes[80..140]);
        }
        let spent = rpc.spent(hash).unwrap();
        if has_spent {
            assert_eq!(rest.spent(hash).unwrap().unwrap(), spent);
        }
        let mut expected = Vec::new();
        let view = BlockView::parse(&bytes).unwrap();
        view.for_each_tx(|_, tx: TxView<'_>| {
            let inputs = tx.inputs().filter(|input| !input.is_coinbase());
            let found = inputs.map(|input| {
                let output = &outputs[&input.outpoint()];
                kinds.insert(output.script_pubkey.len());
                (output.value.to_sat(), output.script_pubkey.to_bytes())
            });
            expected.push(found.collect::<Vec<_>>());
            Ok::<_, ambra::chain::ParseError>(())
        })
        .unwrap();
        assert_eq!(read_spent(&spent), expected[1..]);
    }
    assert!(kinds.len() > 5, "too few kinds of scripts: {kinds:?}");

    // 4. What is not there is a refusal, by either way.
    let unknown = BlockHash::from_byte_array([7; 32]);
    assert!(matches!(rpc.block(&unknown), Err(RpcError::Refused { .. })));
    assert!(matches!(
        rest.block(&unknown),
        Err(RpcError::Refused { .. })
    ));
}

/// What the oracle says of the mempool: fee, and whether a parent is unconfirmed.
fn expected_entries(moment: &Moment) -> BTreeMap<Txid, (u64, bool)> {
    let known = moment.mempool.iter();
    known
        .map(|tx| (tx.txid, (tx.fee, !tx.parents.is_empty())))
        .collect()
}

fn entries_of(mempool: &Mempool) -> BTreeMap<Txid, (u64, bool)> {
    let txids = mempool.txids();
    let entries = txids.iter().filter_map(|txid| mempool.entry(txid));
    let state = |entry: &MempoolEntry| (entry.fee, entry.has_unconfirmed_inputs);
    entries.map(|entry| (entry.txid, state(&entry))).collect()
}

#[test]
fn polling_follows_a_random_mempool_through_blocks_and_reorgs() {
    let node = Node::start(NodeOptions::default());
    let mut chain = RandomChain::new(&node, SEED);
    let mut feed = Feed::new(rpc_of(&node));
    let mut mempool = Mempool::default();
    for _ in 0..80 {
        let did = chain.step();
        let moment = chain.oracle.read(&node);
        let outputs = outputs_of(&moment);
        let tip = moment.tip().1;
        let look = feed.poll(&tip, &mempool, &|outpoint| outputs.get(outpoint).cloned());
        match look.unwrap() {
            Look::Diff(diff) => mempool.apply(&diff.removed, diff.added),
            Look::OtherTip => panic!("the node is still"),
        };
        assert_eq!(
            entries_of(&mempool),
            expected_entries(&moment),
            "after: {did}"
        );
    }
}

#[test]
fn a_mempool_of_another_block_is_not_taken_for_ours() {
    let node = Node::start(NodeOptions::default());
    let mut treasury = Treasury::mine(&node);
    let payment = treasury.payment(&Lock::new(Kind::P2tr, 1), 50_000);
    let txid = node.send(&payment).unwrap();
    let old_tip = node.best_block();
    node.mine(1, &Treasury::elsewhere());
    let mut feed = Feed::new(rpc_of(&node));
    let mempool = Mempool::default();
    let nothing = |_: &OutPoint| None;
    let look = feed.poll(&old_tip, &mempool, &nothing).unwrap();
    assert!(matches!(look, Look::OtherTip));
    // A late message about a transaction that has been mined since brings it back neither.
    let tip = node.best_block();
    let first = feed.poll(&tip, &mempool, &nothing).unwrap();
    assert!(matches!(first, Look::Diff(diff) if diff.is_empty()));
    let late = [ZmqEvent::TxAdded {
        txid,
        sequence: u64::MAX,
    }];
    let look = feed.on_events(&tip, &late, &mempool, &nothing).unwrap();
    assert!(matches!(look, Look::Diff(diff) if diff.is_empty()));
}

#[test]
fn zmq_alone_follows_payments_replacements_and_a_restart() {
    let node = Node::start(NodeOptions::default());
    let mut treasury = Treasury::mine(&node);
    let rpc = rpc_of(&node);
    let mut oracle = Oracle::new();
    let moment = oracle.read(&node);
    let outputs = outputs_of(&moment);
    let confirmed = |outpoint: &OutPoint| outputs.get(outpoint).cloned();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (listener, mut events) = {
        let _inside = runtime.enter();
        ZmqFeed::start(&rpc.zmq_notifications().unwrap(), "127.0.0.1").unwrap()
    };
    until(PATIENCE, || listener.hears_mempool().then_some(())).expect("ZMQ connects");
    let mut feed = Feed::new(rpc.clone());
    let mut mempool = Mempool::default();

    // 1. Until a message comes through, payments are found by polls.
    let lock = Lock::new(Kind::P2wpkh, 5);
    let heard = until(PATIENCE, || {
        node.send(&treasury.payment(&lock, 10_000)).unwrap();
        let is_tx = |event: &ZmqEvent| matches!(event, ZmqEvent::TxAdded { .. });
        until(Duration::from_millis(500), || {
            std::iter::from_fn(|| events.try_recv().ok()).find(is_tx)
        })
    });
    assert!(heard.is_some());
    let tip = node.best_block();
    let apply = |look: Look, mempool: &mut Mempool| match look {
        Look::Diff(diff) => mempool.apply(&diff.removed, diff.added),
        Look::OtherTip => panic!("the node is still"),
    };
    apply(feed.poll(&tip, &mempool, &confirmed).unwrap(), &mut mempool);
    assert_eq!(entries_of(&mempool), expected_entries(&oracle.read(&node)));

    // 2. From here on nothing is polled: a payment, its child, and a replacement of the payment.
    let coin = treasury.coin();
    let payment = treasury.payment_from(&coin, &lock, 20_000, 1_000);
    node.send(&payment).unwrap();
    let paid = crate::treasury::coins_to(&payment, &lock).remove(0);
    let child = treasury.payment_from(&paid, &Lock::new(Kind::P2tr, 6), 5_000, 2_000);
    node.send(&child).unwrap();
    let follow = |mempool: &mut Mempool,
                  feed: &mut Feed,
                  oracle: &mut Oracle,
                  events: &mut tokio::sync::mpsc::Receiver<ZmqEvent>| {
        let expected = expected_entries(&oracle.read(&node));
        until(PATIENCE, || {
            let news: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
            let look = feed.on_events(&tip, &news, mempool, &confirmed).unwrap();
            apply(look, mempool);
            (entries_of(mempool) == expected).then_some(())
        })
        .expect("the messages tell all")
    };
    follow(&mut mempool, &mut feed, &mut oracle, &mut events);
    assert!(
        mempool
            .entry(&child.compute_txid())
            .unwrap()
            .has_unconfirmed_inputs
    );
    let replacement = treasury.payment_from(&coin, &lock, 20_000, 30_000);
    node.send(&replacement).unwrap();
    follow(&mut mempool, &mut feed, &mut oracle, &mut events);
    assert!(!mempool.contains(&child.compute_txid()));
    assert!(feed.next_poll_in(listener.hears_mempool()) > Duration::from_millis(600));

    // 3. A restarted node is heard again, and says that something was missed.
    node.stop();
    until(PATIENCE, || (!listener.is_connected()).then_some(())).expect("the loss is noticed");
    node.launch();
    until(PATIENCE, || listener.is_connected().then_some(())).expect("it connects again");
    let mut news = Vec::new();
    until(PATIENCE, || {
        news.extend(std::iter::from_fn(|| events.try_recv().ok()));
        news.contains(&ZmqEvent::Missed).then_some(())
    })
    .expect("it says that something was missed");
    feed.on_events(&tip, &news, &mempool, &confirmed).unwrap();
    assert!(feed.next_poll_in(true) < Duration::from_secs(2));
}

#[test]
fn a_new_block_ends_the_wait_and_a_known_one_does_not() {
    let node = Node::start(NodeOptions::default());
    let rpc = rpc_of(&node);
    let genesis = node.best_block();
    // 1. Nothing happens: the wait ends by itself, with the block that was known.
    let began = Instant::now();
    let short = Duration::from_millis(300);
    assert_eq!(rpc.wait_for_new_block(&genesis, short), Ok(genesis));
    assert!(began.elapsed() >= short);
    // 2. A block comes.
    thread::scope(|scope| {
        let waiter = scope.spawn(|| rpc.wait_for_new_block(&genesis, PATIENCE));
        let mined = node.mine(1, &Treasury::elsewhere())[0];
        assert_eq!(waiter.join().unwrap(), Ok(mined));
    });
    // 3. It has come already.
    let began = Instant::now();
    assert_eq!(
        rpc.wait_for_new_block(&genesis, PATIENCE),
        Ok(node.best_block())
    );
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn a_restarted_node_with_a_new_cookie_is_spoken_with_again() {
    let node = Node::start(NodeOptions::default());
    let rpc = rpc_of(&node);
    let info = rpc.blockchain_info().unwrap();
    assert_eq!((&*info.chain, info.blocks), ("regtest", 0));
    assert_eq!(info.best_block_hash, node.best_block());
    assert!(rpc.network_info().unwrap().version > 200_000);
    assert!(rpc.relay_fee().unwrap() > 0.0);
    assert_eq!(rpc.estimate_fee(6, None), Ok(None));
    node.kill();
    let away = rpc.best_block_hash();
    assert!(matches!(away, Err(RpcError::Unavailable(_))), "{away:?}");
    node.launch();
    assert_eq!(rpc.best_block_hash(), Ok(node.best_block()));
}

#[test]
fn a_transaction_is_sent_told_in_words_and_refused() {
    let node = Node::start(NodeOptions::default());
    let mut treasury = Treasury::mine(&node);
    let rpc = rpc_of(&node);
    let payment = treasury.payment(&Lock::new(Kind::P2wpkh, 3), 10_000);
    let hex = bitcoin::consensus::encode::serialize_hex(&payment);
    let txid = payment.compute_txid();
    let accept = rpc.test_mempool_accept(std::slice::from_ref(&hex)).unwrap();
    assert_eq!(accept[0]["allowed"], json!(true));
    assert_eq!(rpc.broadcast(&hex), Ok(txid.to_string()));
    let verbose = rpc.transaction_verbose(&txid, None).unwrap();
    assert_eq!(verbose["hex"], json!(hex));
    let block = node.mine(1, &Treasury::elsewhere())[0];
    let verbose = rpc.transaction_verbose(&txid, Some(&block)).unwrap();
    assert_eq!(verbose["confirmations"], json!(1));
    let package = rpc.submit_package(&[hex]).unwrap();
    assert_eq!(package["package_msg"], json!("transaction failed"));
    let refused = rpc.broadcast("00");
    assert!(
        matches!(refused, Err(RpcError::Refused { code: -22, .. })),
        "{refused:?}"
    );
}
