//! The server's owner looks: health, metrics, the status as JSON, its events, and what systemd is told.

use std::{os::unix::net::UnixDatagram, sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::{
    ambra::{Ambra, SYNC_PATIENCE},
    http::{Events, get},
    locks::{Kind, Lock},
    node::{Node, NodeOptions},
    oracle::script_hash,
    patience::until,
    slow_road::slow_road,
    treasury::Treasury,
};

/// A page of its own at any free port.
pub const ON_ANY_PORT: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];

/// The node is looked at every five seconds, and given five to answer.
pub const LOOK_PATIENCE: Duration = Duration::from_secs(30);

/// A metric's value; `sample` is its name with its labels, as it is told.
pub fn metric(ambra: &Ambra, sample: &str) -> Option<f64> {
    let answer = get(ambra.status_page(), "/metrics");
    assert_eq!(answer.status, 200);
    let value = answer
        .body
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
    Some(value.parse().expect("a number"))
}

#[track_caller]
fn wait_for_metric(ambra: &Ambra, sample: &str, value: f64) {
    let mut last = None;
    let came = until(LOOK_PATIENCE, || {
        last = metric(ambra, sample);
        (last == Some(value)).then_some(())
    });
    assert!(came.is_some(), "{sample} is {last:?}, not {value}");
}

#[track_caller]
pub fn wait_for_health(ambra: &Ambra, status: u16) -> String {
    let mut last = None;
    let came = until(LOOK_PATIENCE, || {
        let answer = get(ambra.status_page(), "/health");
        let is_it = answer.status == status;
        let body = answer.body.clone();
        last = Some(answer);
        is_it.then_some(body)
    });
    came.unwrap_or_else(|| panic!("health is {last:?}, not {status}"))
}

pub fn status(ambra: &Ambra) -> Value {
    let answer = get(ambra.status_page(), "/api/status");
    assert_eq!(answer.status, 200);
    answer.json()
}

#[test]
fn the_owner_sees_what_wallets_and_the_node_do() {
    let node = Node::start(NodeOptions::default());
    let mut treasury = Treasury::mine(&node);
    let ambra = Ambra::start_with(&node, &ON_ANY_PORT);
    wait_for_health(&ambra, 200);

    // 1. All is well, and the figures are the node's.
    wait_for_metric(&ambra, "ambra_node_up", 1.0);
    let told = status(&ambra);
    assert_eq!(told["stage"], "in_step");
    assert_eq!(told["network"], "regtest");
    assert_eq!(told["tip"]["height"], node.height());
    assert_eq!(told["tip"]["hash"], node.best_block().to_string());
    assert_eq!(told["indexed"], node.height());
    assert_eq!(told["node"]["block_source"], "files");
    assert_eq!(told["node"]["blocks"], node.height());
    let address = format!("{}:t", ambra.address());
    assert_eq!(told["connect"][0]["server"], address);
    wait_for_metric(&ambra, "ambra_node_zmq_connected", 1.0);
    for sample in ["ambra_ready", "ambra_sync_progress_ratio"] {
        assert_eq!(metric(&ambra, sample), Some(1.0), "{sample}");
    }
    assert_eq!(
        metric(&ambra, "ambra_tip_height"),
        Some(f64::from(node.height()))
    );
    for sample in ["process_resident_memory_bytes", "ambra_disk_free_bytes"] {
        assert!(metric(&ambra, sample) > Some(1e6), "{sample}");
    }

    // 2. A wallet comes, asks, is mistaken, and listens.
    let mut client = ambra.client();
    let lock = Lock::new(Kind::P2wpkh, 7);
    let script_hash = script_hash(&lock.script());
    client.ask("blockchain.headers.subscribe", json!([]));
    client.ask("blockchain.scripthash.subscribe", json!([script_hash]));
    client
        .call("blockchain.scripthash.get_balance", json!(["nonsense"]))
        .expect_err("no script hash");
    client.call("no.such.method", json!([])).expect_err("none");
    for (sample, value) in [
        ("ambra_connections{kind=\"tcp\"}", 1.0),
        ("ambra_subscriptions{kind=\"script\"}", 1.0),
        ("ambra_subscriptions{kind=\"tip\"}", 1.0),
        (
            "ambra_requests_total{method=\"blockchain.scripthash.subscribe\"}",
            1.0,
        ),
        (
            "ambra_request_errors_total{method=\"blockchain.scripthash.get_balance\",error=\"params\"}",
            1.0,
        ),
        (
            "ambra_request_errors_total{method=\"unknown\",error=\"method\"}",
            1.0,
        ),
    ] {
        wait_for_metric(&ambra, sample, value);
    }
    // Nothing that is told tells of what was asked for.
    let everything = [
        get(ambra.status_page(), "/metrics").body,
        get(ambra.status_page(), "/api/status").body,
    ];
    assert!(
        everything
            .iter()
            .all(|text| !text.contains(&script_hash) && !text.contains("nonsense"))
    );

    // 3. A payment to it, and a block: open pages are told, and so is the wallet.
    let mut events = Events::open(ambra.status_page(), "/api/events");
    assert_eq!(events.next()["tip"]["height"], node.height());
    node.send(&treasury.payment(&lock, 50_000)).unwrap();
    wait_for_metric(&ambra, "ambra_mempool_transactions", 1.0);
    assert!(metric(&ambra, "ambra_mempool_vbytes") > Some(100.0));
    wait_for_metric(&ambra, "ambra_notifications_total{kind=\"script\"}", 1.0);
    let connected = metric(&ambra, "ambra_blocks_connected_total").unwrap();
    let told = metric(&ambra, "ambra_notifications_total{kind=\"tip\"}").unwrap();
    node.mine(1, &Treasury::elsewhere());
    let shown = until(LOOK_PATIENCE, || {
        (events.next()["tip"]["height"] == node.height()).then_some(())
    });
    assert!(shown.is_some(), "the block is told to the open page");
    wait_for_metric(&ambra, "ambra_blocks_connected_total", connected + 1.0);
    wait_for_metric(&ambra, "ambra_mempool_transactions", 0.0);
    wait_for_metric(
        &ambra,
        "ambra_notifications_total{kind=\"tip\"}",
        told + 1.0,
    );
    wait_for_metric(&ambra, "ambra_page_listeners", 1.0);

    // 4. A reorganization is counted, with its blocks.
    node.invalidate(&node.block_at(node.height() - 1));
    node.mine(3, &Treasury::elsewhere());
    wait_for_metric(&ambra, "ambra_tip_height", f64::from(node.height()));
    assert!(metric(&ambra, "ambra_reorgs_total") >= Some(1.0));
    assert!(metric(&ambra, "ambra_blocks_disconnected_total") >= Some(2.0));

    // 5. The wallet leaves.
    drop(client);
    wait_for_metric(&ambra, "ambra_connections{kind=\"tcp\"}", 0.0);
    wait_for_metric(&ambra, "ambra_subscriptions{kind=\"script\"}", 0.0);
}

#[test]
fn a_first_sync_is_shown_with_its_curve_and_the_time_that_is_left() {
    // 1. A chain that takes long, until it was seen: each question to the node goes a slow road.
    let node = Node::start(NodeOptions::default());
    node.mine(400, &Treasury::elsewhere());
    let to = node.rpc_url().trim_start_matches("http://").parse();
    let road = slow_road(to.expect("an address"), Duration::from_millis(60));
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let options = [&ON_ANY_PORT[..], &["--block-source", "rpc"]].concat();
    let mut ambra = Ambra::in_folder(&node, folder, &options);
    ambra.set_value("--daemon-rpc-url", &format!("http://{}", road.begins));
    ambra.launch_unseen();

    // 2. How far, how long, how it went: the same in the report, for Prometheus and for who asks whether it is ready.
    let mut last = Value::Null;
    let seen = until(SYNC_PATIENCE, || {
        last = status(&ambra);
        let share = last["sync"]["share"].as_f64()?;
        let points = last["sync"]["curve"].as_array()?.len();
        let is_seen = last["stage"] == "first_sync"
            && (0.02..0.6).contains(&share)
            && last["sync"]["seconds_left"].is_u64()
            && points >= 2;
        is_seen.then_some(share)
    });
    let share = seen.unwrap_or_else(|| panic!("{last:#}"));
    let text = last["sync"]["text"].as_str().unwrap_or_default();
    assert!(text.contains("transactions/s"), "{last:#}");
    let why = wait_for_health(&ambra, 503);
    assert!(why.contains("index"), "{why}");
    let (done, left) = ("ambra_sync_progress_ratio", "ambra_sync_remaining_seconds");
    assert!(metric(&ambra, done) >= Some(share));
    assert!(metric(&ambra, left).is_some());

    // 3. It ends, and so does the time that is left.
    road.free();
    wait_for_health(&ambra, 200);
    assert_eq!(status(&ambra)["stage"], "in_step");
    assert_eq!(metric(&ambra, left), None);
}

#[test]
fn health_says_that_the_node_is_away_and_that_it_is_back() {
    let node = Node::start(NodeOptions::default());
    node.mine(5, &Treasury::elsewhere());
    let ambra = Ambra::start_with(&node, &ON_ANY_PORT);
    wait_for_health(&ambra, 200);
    wait_for_metric(&ambra, "ambra_node_up", 1.0);

    // 1. The node goes: wallets can not pay. No restart of ours would mend that.
    node.stop();
    let why = wait_for_health(&ambra, 503);
    assert!(why.contains("is bitcoind running?"), "{why}");
    wait_for_metric(&ambra, "ambra_node_up", 0.0);
    assert_eq!(metric(&ambra, "ambra_ready"), Some(0.0));
    assert_eq!(get(ambra.status_page(), "/health/live").status, 200);
    let told = status(&ambra);
    assert_eq!(told["node"]["state"], "away");
    assert!(told["node"]["error"].is_string(), "{told}");
    assert!(told["warnings"][0]["text"].is_string(), "{told}");
    assert!(metric(&ambra, "ambra_log_lines_total{level=\"warn\"}") >= Some(1.0));

    // 2. It comes back.
    node.launch();
    wait_for_health(&ambra, 200);
    wait_for_metric(&ambra, "ambra_node_up", 1.0);
}

#[test]
fn a_port_that_was_asked_for_and_is_taken_ends_the_start_in_words() {
    let node = Node::start(NodeOptions::default());
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    let mut ambra = Ambra::start_unseen(&node, &["--admin-listen", &taken]);
    ambra.wait_until_it_says(&format!("the status page cannot listen on {taken}"));
    let status = until(SYNC_PATIENCE, || ambra.exit_status());
    assert_eq!(status.and_then(|status| status.code()), Some(1));
}

/// systemd's end of a service's socket.
struct Systemd {
    socket: UnixDatagram,
    dir: tempfile::TempDir,
    heard: Vec<String>,
}

impl Systemd {
    fn new() -> Systemd {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        Systemd {
            socket,
            dir,
            heard: Vec::new(),
        }
    }

    /// Waits for a line that begins so, said now or before.
    #[track_caller]
    fn wait_for(&mut self, begin: &str) -> String {
        let found = until(SYNC_PATIENCE, || {
            self.hear();
            let line = self.heard.iter().find(|line| line.starts_with(begin));
            line.cloned()
        });
        found.unwrap_or_else(|| panic!("{begin} was not heard: {:?}", self.heard))
    }

    /// Takes in one message, if one comes.
    fn hear(&mut self) {
        let mut bytes = [0; 4096];
        if let Ok(count) = self.socket.recv(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            self.heard.extend(text.lines().map(str::to_owned));
        }
    }

    fn count(&self, line: &str) -> usize {
        self.heard.iter().filter(|heard| *heard == line).count()
    }
}

#[test]
fn systemd_is_told_of_the_start_the_life_and_the_stop() {
    let node = Node::not_yet_started(NodeOptions::default());
    let mut systemd = Systemd::new();
    let socket = systemd.dir.path().join("notify");
    let socket = format!("NOTIFY_SOCKET={}", socket.display());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut ambra = Ambra::in_folder(&node, folder, &ON_ANY_PORT);
    // It wants to hear of its life each second.
    ambra.wrap(&["env", &socket, "WATCHDOG_USEC=1000000"]);
    ambra.launch_unseen();

    // 1. The node is not there yet: the start takes its time, and the page says why.
    systemd.wait_for("EXTEND_TIMEOUT_USEC=");
    let status = systemd.wait_for("STATUS=");
    assert!(!status.contains("in step"), "{status}");
    let why = wait_for_health(&ambra, 503);
    assert!(!why.trim().is_empty());
    assert_eq!(self::status(&ambra)["stage"], "waiting");
    assert_eq!(systemd.count("READY=1"), 0);

    // 2. The node comes: ready when wallets can connect, then in step.
    node.launch();
    systemd.wait_for("READY=1");
    ambra.wait_until_listening();
    systemd.wait_for("STATUS=in step with the node at block 0");
    wait_for_health(&ambra, 200);

    // 3. It lives, and says so in time.
    let before = systemd.count("WATCHDOG=1");
    let alive = until(SYNC_PATIENCE, || {
        systemd.hear();
        (systemd.count("WATCHDOG=1") >= before + 3).then_some(())
    });
    assert!(alive.is_some(), "{:?}", systemd.heard);
    assert_eq!(systemd.count("READY=1"), 1, "said once");

    // 4. It stops.
    ambra.stop();
    systemd.wait_for("STOPPING=1");
}
