//! Bounds that no other test meets: one test each. `docs/operating.md` lists all of them.

use super::*;
use crate::electrum::Lane;

impl TestServer {
    /// So many jobs of this lane were begun, and no more are while another client is served.
    async fn begins(&self, lane: Lane, count: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.stats.begun(lane) < count {
            assert!(Instant::now() < deadline, "{}", self.stats.begun(lane));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut other = self.client().await;
        for _ in 0..20 {
            // By the same threads, had they more to do.
            other.ping().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.stats.begun(lane), count);
    }
}

fn question(id: u64, method: &str, number: u8) -> String {
    json!({ "id": id, "method": method, "params": [script(number).to_string()] }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_listeners_together_have_no_more_connections_than_they_may() {
    let limits = Limits {
        connections_max: 2,
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tcp", "unix", "ws"]).await;
    let mut first = Client::connect(&server.urls[0]).await;
    let mut second = Client::connect(&server.urls[1]).await;
    first.ping().await;
    second.ping().await;
    for url in &server.urls[..2] {
        let mut third = Client::connect(url).await;
        assert!(third.next().await.is_none());
    }
    assert_eq!(server.stats.refused(), 2);
    first.ping().await;
    drop(second);
    has_room(&server.urls[1]).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_questions_of_a_client_are_in_work_than_may_be() {
    let limits = Limits {
        jobs_in_flight_max: 2,
        short_threads: 8,
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tcp"]).await;
    server.slow(script(1));
    let questions: Vec<String> = (0..6)
        .map(|id| question(id, "blockchain.scripthash.get_balance", 1))
        .collect();
    // Line by line nothing more is read; what came in one batch waits.
    const LAST: u64 = 6;
    let ping = json!({ "id": LAST, "method": "server.ping" });
    let by_line = format!("{}\n{ping}", questions.join("\n"));
    let batch = format!("[{}]", questions.join(","));
    for (lines, begun, count) in [(by_line, 2, 7), (batch, 6 + 2, 6)] {
        server.fake.shut_gate();
        let mut client = server.client().await;
        client.send(&lines).await;
        server.begins(Lane::Short, begun).await;
        server.fake.open_gate();
        let mut replies = Vec::new();
        while replies.len() < count {
            match client.next().await.unwrap() {
                Value::Array(all) => replies.extend(all),
                one => replies.push(one),
            }
        }
        let mut ids: Vec<u64> = replies
            .iter()
            .map(|reply| reply["id"].as_u64().unwrap())
            .collect();
        // What is answered at once was not read before there was room: all but one were done.
        let last = ids.iter().position(|id| *id == LAST);
        assert!(last.is_none_or(|at| at >= 5), "{ids:?}");
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..count as u64));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_long_history_of_a_client_is_in_work_and_the_rest_goes_before() {
    let limits = Limits {
        long_threads: 4,
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tcp"]).await;
    server.has_long_history(script(2));
    server.fake.change(|world| world.far_waits = true);
    server.fake.shut_gate();
    let mut client = server.client().await;
    for id in 0..3 {
        let history = question(id, "blockchain.scripthash.get_history", 2);
        client.send(&history).await;
    }
    client.ping().await;
    server.begins(Lane::Long, 1).await;
    server.fake.open_gate();
    for id in 0..3 {
        let reply = client.next().await.unwrap();
        assert_eq!(reply["id"], id);
        assert_eq!(reply["result"].as_array().unwrap().len(), 5000);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_client_that_takes_nothing_no_more_answers_are_made() {
    const METHOD: &str = "blockchain.transaction.get";
    let limits = Limits {
        output_bytes_max: 300_000,
        ..Limits::default()
    };
    // What the system holds of a Unix socket is little.
    let server = TestServer::start(limits, &["unix", "tcp"]).await;
    server.fake.change(|world| {
        let tx = world.txs.get_mut(&txid(1)).unwrap();
        tx.bytes = vec![7; 200_000];
    });
    let mut client = server.client().await;
    for id in 0..60 {
        let params = json!([txid(1).to_string()]);
        let request = json!({ "id": id, "method": METHOD, "params": params });
        client.send(&request.to_string()).await;
    }
    // Another client's questions take turns with them.
    let mut other = Client::connect(&server.urls[1]).await;
    for _ in 0..60 {
        let params = json!([txid(2).to_string()]);
        other.ask(METHOD, params).await;
    }
    let backend = server.fake.backend();
    let counts = backend.stats().requests();
    let of_both = counts.iter().find(|(name, _)| *name == METHOD).unwrap().1;
    let begun = of_both - 60;
    assert!(begun < 15, "{begun} answers of 400 kB were made");
    for _ in 0..60 {
        assert!(client.next().await.unwrap()["result"].is_string());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_closed_his_sending_side_is_waited_for_no_longer_than_may_be() {
    let limits = Limits {
        half_closed_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = TestServer::start(limits, &["tcp"]).await;
    server.hold(script(1));
    let mut stream = raw(&server.urls[0]).await;
    let balance = question(1, "blockchain.scripthash.get_balance", 1) + "\n";
    stream.write_all(balance.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    ended.expect("it is closed").unwrap();
    assert!(all.is_empty());
    server.stop().await;
}

/// RFC 8446, section 4.1.2, as a client of TLS 1.1 would have said it: no `supported_versions`.
#[tokio::test(flavor = "multi_thread")]
async fn tls_older_than_1_2_is_refused() {
    let server = TestServer::start(Limits::default(), &["tls"]).await;
    for (minor, is_served) in [(1, false), (2, false), (3, true)] {
        // Version, random, no session, two suites (one of them TLS 1.2's), no compression; the curve and the signature
        // that the server needs.
        let extensions = [
            &[0, 10, 0, 4, 0, 2, 0, 29][..],
            &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4],
        ]
        .concat();
        let mut hello = vec![3, minor];
        hello.extend([7; 32]);
        hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x09, 1, 0]);
        hello.extend((extensions.len() as u16).to_be_bytes());
        hello.extend(&extensions);
        let mut record = vec![0x16, 3, 1];
        record.extend((hello.len() as u16 + 4).to_be_bytes());
        record.extend([1, 0]);
        record.extend((hello.len() as u16).to_be_bytes());
        record.extend(&hello);
        let mut stream = raw(&server.urls[0]).await;
        stream.write_all(&record).await.unwrap();
        let mut head = [0; 7];
        let read = timeout(PATIENCE, stream.read_exact(&mut head)).await;
        read.unwrap().unwrap();
        // A handshake's record; or an alert, fatal, `protocol_version`.
        match is_served {
            true => assert_eq!(head[0], 0x16, "TLS 1.{}: {head:?}", minor - 1),
            false => assert_eq!(
                [head[0], head[5], head[6]],
                [0x15, 2, 70],
                "TLS 1.{}",
                minor - 1
            ),
        }
    }
    server.stop().await;
}
