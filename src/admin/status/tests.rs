//! The page's HTTP over a socket, before there is anything to report.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

/// Serves a monitor without sources on a free port.
async fn served() -> (Monitor, SocketAddr) {
    let monitor = Monitor::new();
    let listener = AdminListener::bind("127.0.0.1:0", &[]).await.unwrap();
    let address = axum::serve::Listener::local_addr(&listener).unwrap();
    tokio::spawn(serve(listener, monitor.clone()));
    (monitor, address)
}

/// The whole answer, head and body.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}")).await
}

#[tokio::test]
async fn every_answer_forbids_what_a_page_does_not_need() {
    let (_, address) = served().await;
    for path in [
        "/",
        "/favicon.svg",
        "/api/status",
        "/metrics",
        "/health",
        "/no-such-page",
    ] {
        let answer = get(address, path).await.to_lowercase();
        for header in [
            "content-security-policy: default-src 'none'; script-src 'sha256-",
            "referrer-policy: no-referrer",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "cache-control: no-store",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(answer.contains(header), "{path}: {header}: {answer}");
        }
        assert!(!answer.contains("access-control-allow"), "{path}");
    }
}

#[tokio::test]
async fn a_name_that_a_site_was_given_is_refused_everywhere() {
    let (_, address) = served().await;
    for path in ["/", "/api/status", "/api/events", "/metrics", "/health"] {
        let answer = ask(
            address,
            &format!("GET {path} HTTP/1.1\r\nHost: evil.example"),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 421"), "{path}: {answer}");
        assert!(!answer.contains("ambra_"), "{path}: {answer}");
    }
    let twice = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nHost: evil.example");
    let answer = ask(address, &twice).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    // And what is written as a whole URL counts.
    let absolute = format!("GET http://evil.example/metrics HTTP/1.1\r\nHost: {address}");
    let answer = ask(address, &absolute).await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
}

#[tokio::test]
async fn nothing_can_be_changed() {
    let (_, address) = served().await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let request = format!("{method} /api/status HTTP/1.1\r\nHost: {address}");
        let answer = ask(address, &request).await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{method}: {answer}");
    }
}

#[tokio::test]
async fn while_the_start_waits_health_says_for_what_and_life_is_well() {
    let (monitor, address) = served().await;
    let answer = get(address, "/health").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with("starting\n"), "{answer}");
    monitor.waits_for(Some("the node is asleep".to_owned()));
    let answer = get(address, "/health").await;
    assert!(answer.ends_with("the node is asleep\n"), "{answer}");
    let answer = get(address, "/health/live").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("alive\n"), "{answer}");
    let answer = get(address, "/api/status").await;
    assert!(answer.contains("\"stage\":\"waiting\""), "{answer}");
    assert!(answer.contains("the node is asleep"), "{answer}");
}

/// Reads until the text has come.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains(text) {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        assert!(count > 0, "it ended: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&bytes[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

async fn open_page(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /api/events HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn an_open_page_is_told_at_once_and_again_when_something_changes() {
    let (monitor, address) = served().await;
    let mut page = open_page(address).await;
    let first = read_until(&mut page, "\"stage\"").await;
    assert!(first.contains("text/event-stream"), "{first}");
    monitor.waits_for(Some("another node".to_owned()));
    read_until(&mut page, "another node").await;
}

#[tokio::test]
async fn pages_beyond_the_bound_are_sent_away_until_one_closes() {
    let (monitor, address) = served().await;
    let mut pages = Vec::new();
    for _ in 0..http::PAGES_MAX {
        let mut page = open_page(address).await;
        read_until(&mut page, "\"stage\"").await;
        pages.push(page);
    }
    let mut one_more = open_page(address).await;
    let answer = read_until(&mut one_more, "pages are open").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.to_lowercase().contains("retry-after: 10"),
        "{answer}"
    );
    drop(pages.pop());
    // It is noticed when it is told next.
    while monitor.report().pages >= http::PAGES_MAX {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut page = open_page(address).await;
    assert!(read_until(&mut page, "\"stage\"").await.contains("200 OK"));
}
