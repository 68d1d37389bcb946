//! The calls of a wallet, by the crate `electrum-client` (BDK's).

use std::collections::HashSet;

use bitcoin::ScriptBuf;
use electrum_client::{Client, ElectrumApi};

use crate::{
    ambra::Ambra,
    compare::CATCH_UP_PATIENCE,
    locks::{Kind, Lock},
    node::{Node, NodeOptions},
    patience::until,
    treasury::Treasury,
};

#[test]
fn the_crate_electrum_client_lives_with_the_server() {
    let node = Node::start(NodeOptions::default());
    let mut treasury = Treasury::mine(&node);
    let ambra = Ambra::start(&node);
    let client = Client::new(&format!("tcp://{}", ambra.address())).unwrap();

    // 1. It learns who serves it, and follows the headers.
    let features = client.server_features().unwrap();
    let mut genesis: [u8; 32] = *node.block_at(0).as_ref();
    genesis.reverse();
    assert_eq!(features.genesis_hash, genesis);
    let tip = client.block_headers_subscribe().unwrap();
    assert_eq!(tip.height as u32, node.height());
    assert_eq!(tip.header.block_hash(), node.best_block());
    let headers = client.block_headers(0, 10).unwrap();
    assert_eq!(headers.headers.len(), 10);
    assert_eq!(headers.headers[9].block_hash(), node.block_at(9));
    assert_eq!(
        client.block_header(7).unwrap().block_hash(),
        node.block_at(7)
    );

    // 2. It subscribes to its scripts, many of which nobody ever paid.
    let locks: Vec<Lock> = (1..=30)
        .map(|number| Lock::new(Kind::P2wpkh, number))
        .collect();
    let scripts: Vec<ScriptBuf> = locks.iter().map(Lock::script).collect();
    let statuses = client
        .batch_script_subscribe(scripts.iter().map(|script| script.as_script()))
        .unwrap();
    assert!(statuses.iter().all(Option::is_none));

    // 3. It sends a payment through the server.
    let payment = treasury.payment(&locks[3], 700_000);
    let txid = client.transaction_broadcast(&payment).unwrap();
    assert_eq!(txid, payment.compute_txid());
    assert_eq!(node.unconfirmed(&txid), Some(payment.clone()));
    let refused = client.transaction_broadcast(&treasury.payment_from(
        &crate::treasury::coins_to(&payment, &locks[3])[0],
        &locks[4],
        // No fee at all.
        700_000,
        0,
    ));
    assert!(refused.is_err(), "the node's refusal is told");

    // 4. It hears of it.
    let status = until(CATCH_UP_PATIENCE, || {
        client.ping().unwrap();
        client.script_pop(&scripts[3]).unwrap()
    });
    assert!(status.is_some(), "a push for its script");
    let histories = client
        .batch_script_get_history(scripts.iter().map(|script| script.as_script()))
        .unwrap();
    let paid: Vec<usize> = (0..30)
        .filter(|place| !histories[*place].is_empty())
        .collect();
    assert_eq!(paid, [3]);
    assert_eq!(histories[3][0].tx_hash, txid);
    assert_eq!(histories[3][0].height, 0);
    assert_eq!(histories[3][0].fee, Some(crate::treasury::FEE));

    // 5. It confirms, and the proof holds.
    let height = node.height() as usize + 1;
    node.mine(1, &Treasury::elsewhere());
    let tip = until(CATCH_UP_PATIENCE, || {
        client.ping().unwrap();
        client.block_headers_pop().unwrap()
    });
    let tip = tip.expect("the new block is pushed");
    assert_eq!(tip.height, height);
    let confirmed = until(CATCH_UP_PATIENCE, || {
        let history = client.script_get_history(&scripts[3]).unwrap();
        (history[0].height > 0).then_some(history)
    });
    assert_eq!(confirmed.expect("it confirms")[0].height as usize, height);
    let proof = client.transaction_get_merkle(&txid, height).unwrap();
    let root = tip.header.merkle_root;
    assert!(electrum_client::utils::validate_merkle_proof(
        &txid, &root, &proof
    ));
    assert_eq!(client.transaction_get(&txid).unwrap(), payment);

    // 6. Balance and coins.
    let balance = client.script_get_balance(&scripts[3]).unwrap();
    assert_eq!((balance.confirmed, balance.unconfirmed), (700_000, 0));
    let coins = client.script_list_unspent(&scripts[3]).unwrap();
    assert_eq!(coins.len(), 1);
    assert_eq!((coins[0].tx_hash, coins[0].value), (txid, 700_000));

    // 7. Fees.
    assert!(client.mempool_get_info().unwrap().minrelaytxfee > 0.0);
    let fees = client.batch_estimate_fee([1, 6, 25]).unwrap();
    assert_eq!(fees.len(), 3);
    let unique: HashSet<_> = histories
        .iter()
        .flatten()
        .map(|entry| entry.tx_hash)
        .collect();
    assert_eq!(unique.len(), 1);
}
