//! Clients that mean harm: what each costs, what it is told, and that others do not notice.

use super::*;

/// Sends bytes as they are and gives all that comes back until the end.
async fn say_raw(url: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = raw(url).await;
    let _ = stream.write_all(bytes).await;
    let mut said = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut said))
        .await
        .expect("it ends");
    said
}

fn handshake(origin: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:50003\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{origin}\r\n"
    )
}

/// A connection on which frames may be sent: the handshake's answer was read.
async fn upgraded(url: &str) -> TcpStream {
    let mut stream = raw(url).await;
    stream.write_all(handshake("").as_bytes()).await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n") {
        said.push(stream.read_u8().await.unwrap());
    }
    assert!(said.starts_with(b"HTTP/1.1 101"));
    stream
}

/// A frame that a client sends (RFC 6455 section 5.2), its mask all zeros, and the length that it claims.
fn frame(first: u8, claimed: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | 127];
    bytes.extend_from_slice(&claimed.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(body);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_is_refused_with_403_unless_its_origin_is_allowed() {
    let limits = Limits {
        allowed_origins: vec!["https://wallet.example".to_owned()],
        idle_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["ws"]).await;
    for (origin, status) in [
        ("Origin: https://evil.example\r\n", "403"),
        ("Origin: null\r\n", "403"),
        ("Origin: http://evil.example:50003\r\n", "403"),
        ("Origin: https://wallet.example\r\n", "101"),
        ("Origin: http://127.0.0.1:50003\r\n", "101"),
        ("", "101"),
    ] {
        let said = say_raw(&server.urls[0], handshake(origin).as_bytes()).await;
        let said = String::from_utf8_lossy(&said);
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status}")),
            "{origin}: {said}"
        );
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_a_browser_was_made_to_send_is_not_answered() {
    let server = TestServer::start(Limits::default(), &["tcp"]).await;
    let ping = r#"{"id":"hidden","method":"server.ping"}"#;
    let post = format!("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 40\r\n\r\n{ping}\n");
    let said = say_raw(&server.urls[0], post.as_bytes()).await;
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("HTTP/1.1 400"), "{said}");
    assert!(!said.contains("hidden"), "{said}");
    let mut other = server.client().await;
    other.ping().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_too_large_too_many_or_wrong_end_their_connection_alone() {
    let limits = Limits {
        line_bytes_max: 20_000,
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["ws"]).await;
    let mut other = server.client().await;
    let fragments: Vec<u8> = std::iter::once(frame(0x01, 1000, &[b' '; 1000]))
        .chain((0..100).map(|_| frame(0x00, 1000, &[b' '; 1000])))
        .flatten()
        .collect();
    let unmasked = [vec![0x81, 100], vec![b' '; 100]].concat();
    let lone_continuation = frame(0x80, 3, b"[1]");
    for (what, bytes) in [
        ("a frame of exabytes", frame(0x81, u64::MAX >> 1, b"[")),
        (
            "a frame over the bound",
            frame(0x81, 20_001, &[b' '; 20_001]),
        ),
        ("fragments without end", fragments),
        ("an unmasked frame", unmasked),
        ("a continuation of nothing", lone_continuation),
        ("a ping of a kilobyte", frame(0x89, 1000, &[b'x'; 1000])),
        ("reserved bits", frame(0xf1, 2, b"[]")),
        ("no UTF-8", frame(0x81, 2, b"\xff\xff")),
    ] {
        let mut stream = upgraded(&server.urls[0]).await;
        let _ = stream.write_all(&bytes).await;
        let mut said = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut said)).await;
        assert!(ended.is_ok(), "{what} is not the end");
        other.ping().await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pings_neither_piles_up_pongs_nor_holds_up_others() {
    let limits = Limits {
        write_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["ws"]).await;
    let mut other = server.client().await;
    let mut stream = upgraded(&server.urls[0]).await;
    // No pong is read: when they fill the socket, no more pings are taken.
    let pings = frame(0x89, 100, &[b'x'; 100]).repeat(1000);
    let flood = tokio::spawn(async move {
        // Until it is closed.
        while stream.write_all(&pings).await.is_ok() {}
    });
    for _ in 0..50 {
        let asked = Instant::now();
        other.ping().await;
        assert!(asked.elapsed() < Duration::from_secs(5));
    }
    let closed = timeout(PATIENCE, flood).await;
    closed.expect("it is closed").unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_over_websocket_that_does_not_read_is_closed_too() {
    let limits = Limits {
        write_timeout: Duration::from_millis(500),
        output_bytes_max: 10_000,
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["ws"]).await;
    let mut stream = upgraded(&server.urls[0]).await;
    let request = json!({ "id": 1, "method": "blockchain.block.headers", "params": [0, 10] });
    let request = request.to_string();
    let many = frame(0x81, request.len() as u64, request.as_bytes()).repeat(1000);
    let ended = timeout(PATIENCE, async {
        loop {
            if stream.write_all(&many).await.is_err() {
                break;
            }
        }
    });
    ended.await.expect("it is closed");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_more_than_the_memory_of_all_is_told_and_small_questions_are_still_answered() {
    let limits = Limits {
        client_memory_max: 3_000_000,
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tcp", "ws"]).await;
    let mut small = server.client().await;
    // Lines that never end, over both ways: the first three fit.
    let mut holders = Vec::new();
    for number in 0..6 {
        let mut stream = if number % 2 == 1 {
            let mut stream = upgraded(&server.urls[1]).await;
            if number == 3 {
                // In pieces, with pings between them.
                let ping = frame(0x89, 3, b"hey");
                let piece = |first| [frame(first, 90_000, &[b'['; 90_000]), ping.clone()].concat();
                let pieces = [piece(0x01), piece(0x00).repeat(9)].concat();
                let _ = stream.write_all(&pieces).await;
            }
            let head = frame(if number == 3 { 0x00 } else { 0x81 }, 5_000_000, &[]);
            let _ = stream.write_all(&head).await;
            stream
        } else {
            raw(&server.urls[0]).await
        };
        let _ = stream.write_all(&vec![b'['; 900_000]).await;
        holders.push(stream);
        small.ping().await;
    }
    // The other three are closed, and one was told why.
    let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let holders: Vec<_> = holders
        .into_iter()
        .map(|mut stream| {
            let ends = ends.clone();
            tokio::spawn(async move {
                let mut said = Vec::new();
                let _ = stream.read_to_end(&mut said).await;
                let _ = ends.send(said);
            })
        })
        .collect();
    let mut told = Vec::new();
    for _ in 0..3 {
        let said = timeout(PATIENCE, ended.recv()).await;
        told.extend(said.expect("three are closed").unwrap());
    }
    let told = String::from_utf8_lossy(&told);
    assert!(told.contains("memory for its clients is used up"), "{told}");
    // Those that fit are still held.
    assert!(ended.try_recv().is_err());
    holders.iter().for_each(JoinHandle::abort);
    // What they held is free again.
    let mut large = server.client().await;
    let id = "x".repeat(1_000_000);
    large
        .send(&json!({ "id": id, "method": "server.ping" }).to_string())
        .await;
    assert_eq!(large.next().await.unwrap()["id"], id);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_wait_for_their_answer_count_into_the_memory_of_all() {
    let limits = Limits {
        client_memory_max: 3_000_000,
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tcp"]).await;
    server.hold(script(1));
    // A question is short, its id is not: one client asks many of them, and none is answered.
    let mut client = server.client().await;
    let id = "x".repeat(900_000);
    let question = json!({
        "id": id,
        "method": "blockchain.scripthash.get_balance",
        "params": [script(1).to_string()],
    });
    for _ in 0..3 {
        client.send(&question.to_string()).await;
    }
    // Three fit, as other clients see; the fourth does not.
    let mut other = server.client().await;
    other.ping().await;
    let _ = client.try_send(&question.to_string()).await;
    let told = client.next().await.unwrap();
    let told = told["error"]["message"].as_str().unwrap();
    assert!(told.contains("memory for its clients is used up"), "{told}");
    assert!(client.next().await.is_none());
    // A batch of many small ones is no smaller than its jobs.
    let mut client = server.client().await;
    let small = json!({
        "id": 1,
        "method": "blockchain.scripthash.get_balance",
        "params": [script(1).to_string()],
    });
    let batch = Value::Array(vec![small; 19_000]).to_string();
    assert!(batch.len() < 3_000_000);
    client.send(&batch).await;
    let told = client.next().await.unwrap();
    let told = told["error"]["message"].as_str().unwrap();
    assert!(told.contains("memory for its clients is used up"), "{told}");
    server.fake.open_gate();
    other.ping().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_wait_until_those_before_are_taken_and_none_is_lost() {
    let limits = Limits {
        output_bytes_max: 300_000,
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tcp"]).await;
    server.fake.change(|world| {
        let tx = world.txs.get_mut(&txid(1)).unwrap();
        tx.bytes = vec![7; 200_000];
    });
    let mut client = server.client().await;
    let count = 100;
    let requests: Vec<String> = (0..count)
        .map(|id| {
            let params = json!([txid(1).to_string()]);
            json!({ "id": id, "method": "blockchain.transaction.get", "params": params })
                .to_string()
        })
        .collect();
    client.send(&requests.join("\n")).await;
    let mut ids = Vec::new();
    for _ in 0..count {
        let reply = client.next().await.unwrap();
        assert_eq!(reply["result"].as_str().unwrap().len(), 400_000);
        ids.push(reply["id"].as_i64().unwrap());
    }
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..count));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_and_floods_give_their_places_back() {
    let limits = Limits {
        connections_max: 100,
        listener_connections_max: 50,
        idle_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tcp", "tls"]).await;
    // A flood at one listener leaves room at the other.
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(raw(&server.urls[0]).await);
    }
    let mut other = Client::connect(&server.urls[1]).await;
    other.ping().await;
    // Nobody closes his side; the server does, for they say nothing.
    has_room(&server.urls[0]).await;
    server.stop().await;
}
