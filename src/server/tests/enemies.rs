//! Clients that mean harm: what each costs, what it is told, and that others do not notice.

use super::*;

/// Sends bytes as they are and gives all that comes back until the end.
async fn say_raw(url: &str, bytes: &[u8]) -> Vec<u8> {
    let at = url.split_once("//").unwrap().1;
    let mut stream = TcpStream::connect(at).await.unwrap();
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
    assert_eq!(other.ask("server.ping", json!([])).await, json!(null));
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
        handshake_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tcp", "tls"]).await;
    // A flood at one listener leaves room at the other.
    let mut held = Vec::new();
    for _ in 0..200 {
        let at = server.urls[0].split_once("//").unwrap().1;
        held.push(TcpStream::connect(at).await.unwrap());
    }
    let mut other = Client::connect(&server.urls[1]).await;
    assert_eq!(other.ask("server.ping", json!([])).await, json!(null));
    // Nobody closes his side; the server does, for they say nothing.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = server.client().await;
        let sent = client.try_send(r#"{"id":1,"method":"server.ping"}"#).await;
        if sent.is_ok() && client.next().await.is_some() {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    server.stop().await;
}
