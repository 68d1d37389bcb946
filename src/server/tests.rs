//! The same story over every transport, and what each bound does.

mod enemies;
mod limits;
mod stage;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use self::stage::{Client, PATIENCE, TestServer, has_room, raw, status};
use super::*;
use crate::electrum::fake::{header, script, txid};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_story_over_every_transport() {
    let server = TestServer::start(Limits::default(), &["tcp", "tls", "ws", "wss", "unix"]).await;
    for url in &server.urls {
        // 1. Agree, and look around.
        let mut client = Client::connect(url).await;
        let pair = client
            .ask("server.version", json!(["x", ["1.4", "1.6"]]))
            .await;
        assert_eq!(pair[1], "1.6");
        // 2. Subscribe to a script in memory and to one on disk, and to the tip.
        let on_disk = script(50);
        server.slow(on_disk);
        for script in [script(1), on_disk] {
            let told = client
                .ask(
                    "blockchain.scripthash.subscribe",
                    json!([script.to_string()]),
                )
                .await;
            assert_eq!(told, status(&server.fake, &script));
        }
        let tip = client.ask("blockchain.headers.subscribe", json!([])).await;
        // 3. A batch with parts of each lane.
        client
            .send(&json!([
                { "id": 1, "method": "blockchain.transaction.get", "params": [txid(1).to_string()] },
                { "id": 2, "method": "server.ping" },
                { "id": 3, "method": "blockchain.estimatefee", "params": [6] },
            ]).to_string())
            .await;
        let replies = client.next().await.unwrap();
        assert_eq!(replies.as_array().unwrap().len(), 3);
        assert_eq!(replies[2]["result"], json!(0.0001));
        // 4. A payment and a block are pushed.
        for script in [script(1), on_disk] {
            server.fake.pay(script, 99);
            server.fake.tell(false, &[script], &[]);
            let push = client.next().await.unwrap();
            let expected = json!([script.to_string(), status(&server.fake, &script)]);
            assert_eq!(push["params"], expected, "{url}");
        }
        let height = tip["height"].as_u64().unwrap() as u32 + 1;
        server
            .fake
            .change(|world| world.headers.push(header(height, 1)));
        server.fake.tell(true, &[], &[]);
        assert_eq!(client.next().await.unwrap()["params"][0]["height"], height);
        // 5. Nonsense is answered, and the next request too.
        client.send("{nonsense").await;
        assert_eq!(client.next().await.unwrap()["error"]["code"], -32700);
        client.ping().await;
        // 6. No common version ends it.
        let mut other = Client::connect(url).await;
        other
            .send(r#"{"id":1,"method":"server.version","params":["x","9.9"]}"#)
            .await;
        assert_eq!(other.next().await.unwrap()["error"]["code"], 1);
        assert!(other.next().await.is_none());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_of_one_write_are_all_answered_in_order() {
    let server = TestServer::start(Limits::default(), &["tcp"]).await;
    let mut client = server.client().await;
    let count = 5000;
    let lines: Vec<String> = (0..count)
        .map(|id| {
            json!({ "id": id, "method": "blockchain.block.header", "params": [id % 10] })
                .to_string()
        })
        .collect();
    client.send(&lines.join("\r\n\n  ")).await;
    for id in 0..count {
        assert_eq!(client.next().await.unwrap()["id"], id);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_closes_his_sending_side_is_still_answered() {
    let server = TestServer::start(Limits::default(), &["tcp"]).await;
    let mut stream = raw(&server.urls[0]).await;
    server.fake.shut_gate();
    let request =
        json!({ "id": 1, "method": "blockchain.transaction.get", "params": [txid(1).to_string()] });
    stream
        .write_all(format!("{request}\n").as_bytes())
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    // That the server has seen the end shows nowhere; a server that takes it for the end of all
    // closes the connection now.
    let mut all = String::new();
    let early = timeout(Duration::from_millis(200), stream.read_to_string(&mut all)).await;
    assert!(early.is_err(), "the connection is held for the answer");
    server.fake.open_gate();
    timeout(PATIENCE, stream.read_to_string(&mut all))
        .await
        .unwrap()
        .unwrap();
    assert!(all.contains(&"01".repeat(10)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_end_is_told_and_closed_and_others_do_not_notice() {
    let limits = Limits {
        line_bytes_max: 100_000,
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tcp", "ws"]).await;
    let mut other = server.client().await;
    let stream = raw(&server.urls[0]).await;
    let (mut read, mut write) = stream.into_split();
    let flood = tokio::spawn(async move {
        let piece = vec![b'['; 10_000];
        for _ in 0..1000 {
            if write.write_all(&piece).await.is_err() {
                break;
            }
        }
    });
    let mut told = String::new();
    let _ = timeout(PATIENCE, read.read_to_string(&mut told))
        .await
        .unwrap();
    assert!(told.contains("100000 bytes"), "{told:?}");
    flood.await.unwrap();
    // Over WebSocket the connection just ends.
    let mut frames = Client::connect(&server.urls[1]).await;
    frames.send(&"x".repeat(200_000)).await;
    assert!(frames.next().await.is_none());
    other.ping().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_closed_and_costs_no_more_than_the_bound() {
    let limits = Limits {
        write_timeout: Duration::from_millis(500),
        output_bytes_max: 10_000,
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tcp"]).await;
    let mut other = server.client().await;
    let mut stream = raw(&server.urls[0]).await;
    let request = json!({ "id": 1, "method": "blockchain.block.headers", "params": [0, 10] })
        .to_string()
        + "\n";
    let many = request.repeat(1000);
    // It goes on asking until the server has enough of it.
    let ended = timeout(PATIENCE, async {
        loop {
            if stream.write_all(many.as_bytes()).await.is_err() {
                break;
            }
        }
    });
    ended.await.expect("it is closed");
    other.ping().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_the_newest_status_not_a_queue() {
    let server = TestServer::start(Limits::default(), &["tcp"]).await;
    let mut client = server.client().await;
    client
        .ask(
            "blockchain.scripthash.subscribe",
            json!([script(1).to_string()]),
        )
        .await;
    // The answer to the first change is held at the disk; a hundred more follow meanwhile.
    server.hold(script(1));
    for number in 10..110 {
        server.fake.pay(script(1), number);
        server.fake.tell(false, &[script(1)], &[]);
    }
    server.fake.open_gate();
    let newest = status(&server.fake, &script(1));
    let mut pushes = 0;
    loop {
        pushes += 1;
        let push = client.next().await.unwrap();
        if push["params"][1] == newest {
            break;
        }
    }
    assert!(pushes <= 3, "{pushes}");
    client.ping().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_client_is_closed_and_a_dripping_one_too() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(400),
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tcp"]).await;
    let mut idle = server.client().await;
    assert!(idle.next().await.is_none());
    let mut dripping = raw(&server.urls[0]).await;
    let ended = timeout(PATIENCE, async {
        let mut interval = tokio::time::interval(Duration::from_millis(20));
        loop {
            interval.tick().await;
            if dripping.write_all(b"[").await.is_err() {
                break;
            }
        }
    });
    ended.await.expect("it is closed");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let limits = Limits {
        // Enough for the good client's own, on a busy machine.
        handshake_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tls", "ws"]).await;
    for url in &server.urls {
        let mut silent = raw(url).await;
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, silent.read_to_end(&mut rest))
            .await
            .unwrap();
        let mut garbage = raw(url).await;
        garbage.write_all(&[0x16; 3000]).await.unwrap();
        let _ = timeout(PATIENCE, garbage.read_to_end(&mut rest))
            .await
            .unwrap();
    }
    let mut good = server.client().await;
    good.ping().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_more_connections_than_there_may_be_and_they_come_back() {
    let limits = Limits {
        listener_connections_max: 2,
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tcp"]).await;
    let mut first = server.client().await;
    let mut second = server.client().await;
    first.ping().await;
    second.ping().await;
    let mut third = server.client().await;
    assert!(third.next().await.is_none());
    drop(first);
    has_room(&server.urls[0]).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_question_holds_up_nobody_and_ends_with_its_client() {
    let limits = Limits {
        short_threads: 1,
        long_threads: 1,
        half_closed_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tcp"]).await;
    server.has_long_history(script(2));
    // In memory, so that it is known to be long at once; then its disk is slow.
    let mut slow = server.client().await;
    let history = json!({ "id": 1, "method": "blockchain.scripthash.get_history", "params": [script(2).to_string()] });
    slow.send(&history.to_string()).await;
    assert!(slow.next().await.unwrap()["result"].is_array());
    // Now a question of the node is held: the short lane still answers.
    let mut other = server.client().await;
    server.hold(script(2));
    slow.send(&history.to_string()).await;
    other.ping().await;
    let balance = other
        .ask(
            "blockchain.scripthash.get_balance",
            json!([script(1).to_string()]),
        )
        .await;
    assert_eq!(balance["confirmed"], 7000);
    // The slow one goes: its question is cancelled, and the thread is free for others.
    drop(slow);
    server.slow(script(3));
    let deadline = Instant::now() + PATIENCE;
    let ask = json!({ "id": 2, "method": "blockchain.estimatefee", "params": [6] });
    other.send(&ask.to_string()).await;
    assert_eq!(other.next().await.unwrap()["id"], 2);
    server.fake.open_gate();
    assert!(Instant::now() < deadline);
    server.stop().await;
}

/// Letters may wait for others of the same client, but not for one that takes long.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_question_is_answered_while_another_of_the_same_client_waits_for_a_disk() {
    // No tick of the clock comes to help.
    let never = Duration::from_secs(3600);
    let limits = Limits {
        short_threads: 2,
        write_timeout: never,
        idle_timeout: never,
        half_closed_timeout: never,
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tcp"]).await;
    let mut client = server.client().await;
    server.hold(script(1));
    let slow = json!({ "id": 1, "method": "blockchain.scripthash.get_balance", "params": [script(1).to_string()] });
    let quick = json!({ "id": 2, "method": "blockchain.block.get_chunk", "params": [0] });
    let sent = Instant::now();
    client.send(&format!("{slow}\n{quick}")).await;
    assert_eq!(client.next().await.unwrap()["id"], 2);
    assert!(sent.elapsed() < Duration::from_secs(5));
    server.fake.open_gate();
    assert_eq!(client.next().await.unwrap()["id"], 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_used_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let files = TlsFiles::own(dir.path(), &["localhost".to_owned()]).unwrap();
    let new = TlsFiles::own(other.path(), &["localhost".to_owned()]).unwrap();
    let tls = TlsAcceptor::new(files.clone()).unwrap();
    let before = tls.current().config().clone();
    std::fs::copy(&new.key, &files.key).unwrap();
    std::fs::copy(&new.certificate, &files.certificate).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while Arc::ptr_eq(tls.current().config(), &before) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Nonsense in the file changes nothing.
    let good = tls.current().config().clone();
    std::fs::write(&files.certificate, "nonsense").unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(Arc::ptr_eq(tls.current().config(), &good));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_takes_no_longer_than_it_may_with_clients_and_questions_about() {
    let server = TestServer::start(Limits::default(), &["tcp", "unix"]).await;
    let mut clients = Vec::new();
    for url in &server.urls {
        for _ in 0..20 {
            clients.push(Client::connect(url).await);
        }
    }
    clients[0].ping().await;
    server.hold(script(1));
    let history = json!({ "id": 1, "method": "blockchain.scripthash.get_history", "params": [script(1).to_string()] });
    clients[0].send(&history.to_string()).await;
    let socket = server.dir.path().join("socket");
    assert!(socket.exists());
    let stop = server.stop.clone();
    let started = Instant::now();
    stop.send(true).unwrap();
    server.running.await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(!socket.exists(), "the socket file is gone");
    for mut client in clients {
        assert!(client.next().await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_any_transport_disturbs_nobody() {
    use rand::{Rng, SeedableRng};
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let limits = Limits {
        line_bytes_max: 5_000,
        handshake_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tcp", "tls", "ws", "wss"]).await;
    let mut good = server.client().await;
    for round in 0..200 {
        let mut stream = raw(&server.urls[round % 4]).await;
        let length = random.random_range(0..20_000);
        let bytes: Vec<u8> = (0..length)
            .map(|_| match random.random_range(0..4) {
                0 => *b"{}[]\n\"".get(random.random_range(0..6)).unwrap(),
                _ => random.random(),
            })
            .collect();
        let _ = stream.write_all(&bytes).await;
        if round % 3 == 0 {
            let _ = stream.shutdown().await;
        }
        good.ping().await;
    }
    server.stop().await;
}
