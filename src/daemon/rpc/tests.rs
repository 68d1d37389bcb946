//! Faults of a node, each answered in words.

use std::{fs, path::PathBuf, thread, time::Instant};

use bitcoin::{Txid, hashes::Hash};

use super::*;
use crate::daemon::fake::{Answer, FakeNode};

const PASSWORD: &str = "open-sesame";

fn rpc_at(url: &str) -> Rpc {
    Rpc::new(RpcConfig {
        url: url.to_owned(),
        auth: RpcAuth::UserPass("ali".into(), PASSWORD.into()),
        timeout: Duration::from_secs(2),
    })
}

fn rpc_of(node: &FakeNode) -> Rpc {
    rpc_at(&node.url())
}

/// The words of an error that is to be waited out.
fn unavailable<T: std::fmt::Debug>(result: Result<T, RpcError>) -> String {
    match result {
        Err(RpcError::Unavailable(words)) => {
            assert!(
                !words.contains(PASSWORD) && !words.contains("ali"),
                "{words}"
            );
            words
        }
        other => panic!("{other:?}"),
    }
}

fn hash(n: u8) -> BlockHash {
    BlockHash::from_byte_array([n; 32])
}

#[test]
fn a_result_is_given_and_the_connection_is_kept() {
    let node = FakeNode::new([Answer::Result(json!(1)), Answer::Result(json!("two"))]);
    let rpc = rpc_of(&node);
    assert_eq!(rpc.call("one", &[]), Ok(json!(1)));
    assert_eq!(rpc.call("two", &[json!(true)]), Ok(json!("two")));
    let asked = node.asked();
    assert_eq!(asked[1].json()["method"], "two");
    assert_eq!(asked[1].json()["params"], json!([true]));
    assert_eq!(asked[1].connection, 0);
}

#[test]
fn a_refusal_keeps_the_nodes_code_and_words_whatever_its_http_status() {
    for status in [200, 404, 500] {
        let node = FakeNode::new([Answer::Refusal(status, -26, "min relay fee not met")]);
        let refused = RpcError::Refused {
            code: -26,
            message: "min relay fee not met".into(),
        };
        assert_eq!(rpc_of(&node).broadcast("00"), Err(refused));
    }
}

#[test]
fn a_node_that_is_loading_is_to_be_waited_for() {
    let node = FakeNode::new([Answer::Refusal(500, -28, "Loading block index…")]);
    let words = unavailable(rpc_of(&node).best_block_hash());
    assert_eq!(words, "the node is starting: Loading block index…");
}

#[test]
fn nothing_at_the_port_is_said_in_words_without_credentials() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let words = unavailable(rpc_at(&format!("http://ali:{PASSWORD}@{address}")).relay_fee());
    assert_eq!(
        words,
        format!("nothing listens at http://{address}: is bitcoind running?")
    );
}

#[test]
fn an_overloaded_node_is_tried_again_and_then_waited_for() {
    let busy = || Answer::Http(503, b"Work queue depth exceeded".to_vec());
    let node = FakeNode::new([busy(), Answer::Result(json!(7))]);
    assert_eq!(rpc_of(&node).call("x", &[]), Ok(json!(7)));
    let node = FakeNode::new([busy(), busy(), busy()]);
    assert_eq!(
        unavailable(rpc_of(&node).call("x", &[])),
        "the node is overloaded: its RPC work queue is full"
    );
    assert_eq!(node.asked().len(), 3);
}

#[test]
fn garbage_is_no_answer() {
    for answer in [
        Answer::Http(200, b"<html>hello</html>".to_vec()),
        Answer::Http(200, b"{\"result\":".to_vec()),
        Answer::Http(502, b"bad gateway\nsecond line".to_vec()),
        Answer::Http(200, vec![0xff; 100]),
        Answer::Http(200, br#"{"result":1,"error":null,"id":"another"}"#.to_vec()),
        Answer::Result(json!({"not": "a hash"})),
        Answer::Raw("SSH-2.0-OpenSSH\r\n"),
    ] {
        let node = FakeNode::new([answer.clone(), answer]);
        unavailable(rpc_of(&node).best_block_hash());
    }
}

#[test]
fn half_a_reply_is_tried_again_on_a_new_connection() {
    let half = Answer::Raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"resu");
    let node = FakeNode::new([half.clone(), Answer::Result(json!(3))]);
    assert_eq!(rpc_of(&node).call("x", &[]), Ok(json!(3)));
    let node = FakeNode::new([half.clone(), half]);
    let words = unavailable(rpc_of(&node).call("x", &[]));
    assert!(words.contains("in the middle of an answer"), "{words}");
}

#[test]
fn a_silent_node_is_left_at_the_deadline() {
    let node = FakeNode::new([Answer::Silence]);
    let rpc = Rpc::new(RpcConfig {
        url: node.url(),
        auth: RpcAuth::UserPass("ali".into(), PASSWORD.into()),
        timeout: Duration::from_millis(200),
    });
    let began = Instant::now();
    let words = unavailable(rpc.call("x", &[]));
    assert!(words.starts_with("no answer from http://"), "{words}");
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_slow_trickle_does_not_stretch_the_deadline() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        while stream.write_all(b" ").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let rpc = Rpc::new(RpcConfig {
        url,
        auth: RpcAuth::UserPass("ali".into(), PASSWORD.into()),
        timeout: Duration::from_millis(300),
    });
    let began = Instant::now();
    unavailable(rpc.call("x", &[]));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_connection_that_a_restart_closed_is_replaced() {
    // After the first answer the fake closes: it has no more. A second fake cannot take the same port,
    // so the close is done by an answer that ends its connection.
    let node = FakeNode::new([
        Answer::Raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n{\"result\":5,\"error\":null,\"id\":1}    ",
        ),
        Answer::Result(json!(6)),
    ]);
    let rpc = rpc_of(&node);
    assert_eq!(rpc.call("x", &[]), Ok(json!(5)));
    assert_eq!(rpc.call("x", &[]), Ok(json!(6)));
}

fn cookie_file(name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    (dir, path)
}

fn with_cookie(node: &FakeNode, path: &std::path::Path) -> Rpc {
    Rpc::new(RpcConfig {
        url: node.url(),
        auth: RpcAuth::CookieFile(path.to_owned()),
        timeout: Duration::from_secs(2),
    })
}

#[test]
fn a_new_cookie_is_read_when_the_old_one_is_refused() {
    let (_dir, path) = cookie_file(".cookie");
    let refused = Answer::Http(401, Vec::new());
    let node = FakeNode::new([
        Answer::Result(json!(1)),
        refused.clone(),
        Answer::Result(json!(2)),
        refused,
    ]);
    let rpc = with_cookie(&node, &path);
    fs::write(&path, "__cookie__:old\n").unwrap();
    assert_eq!(rpc.call("x", &[]), Ok(json!(1)));
    fs::write(&path, "__cookie__:new").unwrap();
    assert_eq!(rpc.call("x", &[]), Ok(json!(2)));
    let sent: Vec<_> = node.asked().into_iter().map(|a| a.authorization).collect();
    // Base64 of "__cookie__:old" and "__cookie__:new".
    let (old, new) = ("Basic X19jb29raWVfXzpvbGQ=", "Basic X19jb29raWVfXzpuZXc=");
    assert_eq!(sent, [old, old, new].map(|header| Some(header.to_owned())));
    // Refused, and no newer one there.
    let words = unavailable(rpc.call("x", &[]));
    assert!(words.contains("refuses the cookie"), "{words}");
    assert!(!words.contains("new"), "{words}");
}

#[test]
fn a_missing_cookie_is_said_with_its_path_and_found_when_it_comes() {
    let (_dir, path) = cookie_file(".cookie");
    let node = FakeNode::new([Answer::Result(json!(1))]);
    let rpc = with_cookie(&node, &path);
    let words = unavailable(rpc.call("x", &[]));
    assert!(words.contains(&*path.to_string_lossy()), "{words}");
    assert!(words.contains("is bitcoind running?"), "{words}");
    fs::write(&path, "__cookie__:x").unwrap();
    assert_eq!(rpc.call("x", &[]), Ok(json!(1)));
}

#[test]
fn a_wrong_password_is_said_and_not_shown() {
    let refused = Answer::Http(401, Vec::new());
    let node = FakeNode::new([refused]);
    let error = rpc_of(&node).call("x", &[]).unwrap_err();
    let words = "the node refuses the user name or the password";
    assert_eq!(error, RpcError::WrongLogin(words.into()));
    let shown = format!("{:?}", RpcAuth::UserPass("ali".into(), PASSWORD.into()));
    assert!(!shown.contains(PASSWORD) && !shown.contains("ali"));
}

#[test]
fn a_batch_answers_call_by_call_in_order() {
    let gone = json!({"error": {"code": -5, "message": "No such mempool transaction"}});
    let node = FakeNode::new([Answer::Results(vec![json!("00ff"), gone])]);
    let txids = [1, 2].map(|n| Txid::from_byte_array([n; 32]));
    assert_eq!(
        rpc_of(&node).raw_transactions(&txids),
        Ok(vec![Some(vec![0x00, 0xff]), None])
    );
}

#[test]
fn a_batch_that_is_answered_short_or_whole_is_an_error() {
    let calls = [("a", vec![]), ("b", vec![])];
    let node = FakeNode::new([Answer::Results(vec![json!(1)])]);
    unavailable(rpc_of(&node).batch(&calls));
    let error = br#"{"result":null,"error":{"code":-28,"message":"Verifying"},"id":null}"#;
    let node = FakeNode::new([Answer::Http(500, error.to_vec())]);
    assert_eq!(
        unavailable(rpc_of(&node).batch(&calls)),
        "the node is starting: Verifying"
    );
    assert_eq!(rpc_of(&node).batch(&[]), Ok(vec![]));
}

#[test]
fn a_mempool_is_told_only_for_the_block_that_was_asked_for() {
    let listing = json!({"txids": [Txid::from_byte_array([7; 32])], "mempool_sequence": 9});
    let at = |before: u8, after: u8| {
        let node = FakeNode::new([Answer::Results(vec![
            json!(hash(before)),
            listing.clone(),
            json!(hash(after)),
        ])]);
        rpc_of(&node).mempool_txids_at(&hash(1)).unwrap()
    };
    let told = at(1, 1).unwrap();
    assert_eq!((told.txids.len(), told.sequence), (1, 9));
    assert!(at(1, 2).is_none());
    assert!(at(2, 1).is_none());
}

#[test]
fn a_confirmed_transaction_out_of_a_transaction_index_is_not_in_the_mempool() {
    let gone = json!({"error": {"code": -5, "message": "Transaction not in mempool"}});
    let tip = json!(hash(1));
    let node = FakeNode::new([Answer::Results(vec![
        tip.clone(),
        gone,
        json!("aa"),
        json!({}),
        json!("bb"),
        tip,
    ])]);
    let txids = [1, 2].map(|n| Txid::from_byte_array([n; 32]));
    assert_eq!(
        rpc_of(&node).mempool_transactions_at(&hash(1), &txids),
        Ok(Some(vec![None, Some(vec![0xbb])]))
    );
}

#[test]
fn a_block_must_be_the_one_asked_for() {
    let block = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
    let hex = bitcoin::consensus::encode::serialize_hex(&block);
    let answer = || Answer::Result(json!(hex));
    let node = FakeNode::new([answer(), answer()]);
    let rpc = rpc_of(&node);
    assert_eq!(
        rpc.block(&block.block_hash()),
        Ok(bitcoin::consensus::serialize(&block))
    );
    unavailable(rpc.block(&hash(1)));
}

#[test]
fn a_node_before_29_waits_without_being_told_what_is_known() {
    let node = FakeNode::new([
        Answer::Refusal(500, -1, "waitfornewblock ( timeout )"),
        Answer::Result(json!(hash(1))),
        Answer::Result(json!({"hash": hash(2), "height": 2})),
        Answer::Result(json!(hash(3))),
    ]);
    let rpc = rpc_of(&node);
    let wait = || rpc.wait_for_new_block(&hash(1), Duration::from_secs(1));
    assert_eq!(wait(), Ok(hash(2)));
    // It is not tried with two parameters again; and a block that is there already is not waited for.
    assert_eq!(wait(), Ok(hash(3)));
    let asked: Vec<_> = node
        .asked()
        .iter()
        .map(|a| a.json()["params"].clone())
        .collect();
    assert_eq!(
        asked,
        [json!([1000, hash(1)]), json!([]), json!([1000]), json!([])]
    );
}

#[test]
fn chain_info_is_read_from_old_and_new_nodes() {
    let old = json!({
        "chain": "main", "blocks": 0, "headers": -1, "bestblockhash": hash(1),
        "initialblockdownload": true, "verificationprogress": 1e-9,
    });
    let mut new = old.clone();
    new["pruned"] = json!(true);
    new["pruneheight"] = json!(7);
    new["headers"] = json!(9);
    new["warnings"] = json!(["of another kind than before"]);
    let node = FakeNode::new([Answer::Result(old), Answer::Result(new)]);
    let rpc = rpc_of(&node);
    let info = rpc.blockchain_info().unwrap();
    assert_eq!(
        (info.headers, info.pruned, info.prune_height),
        (0, false, None)
    );
    let info = rpc.blockchain_info().unwrap();
    assert_eq!(
        (info.headers, info.pruned, info.prune_height),
        (9, true, Some(7))
    );
}
