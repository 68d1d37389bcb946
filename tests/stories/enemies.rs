//! Clients that mean harm, against the whole program: what each attack takes of its memory and its files, and how
//! long an honest client waits meanwhile. `docs/reliability.md` has the figures of the measured run.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    ambra::Ambra,
    client::Client,
    long::report,
    node::{Node, NodeOptions},
    patience::until,
    treasury::Treasury,
};

/// How much of everything.
struct Scale {
    /// Connections that attack at the same time.
    many: usize,
    /// Connections of a flood.
    flood: usize,
    /// Subscriptions of one client.
    subscriptions: usize,
    /// Megabytes without a newline, of each of ten.
    endless_mb: usize,
    /// How long an attack that has no end of its own goes on.
    time: Duration,
}

const IN_THE_SUITE: Scale = Scale {
    many: 10,
    flood: 600,
    subscriptions: 20_000,
    endless_mb: 20,
    time: Duration::from_millis(500),
};

const MEASURED: Scale = Scale {
    many: 50,
    flood: 4_000,
    subscriptions: 100_000,
    endless_mb: 100,
    time: Duration::from_secs(10),
};

/// As given to the server.
const CLIENT_MEMORY_MIB: u64 = 64;
const BATCH_BYTES: u64 = 16_000_000;
const ALL_SUBSCRIPTIONS: u64 = 150_000;
const CONNECTIONS: u64 = 1_500;

impl Scale {
    /// What the server may grow by, in MiB: the sum of `docs/operating.md` on two cores, with the numbers above, and no
    /// more connections and subscriptions than there are attackers for.
    fn memory_mib_max(&self) -> u64 {
        let buffers = 2 * CLIENT_MEMORY_MIB;
        let connections = CONNECTIONS.min(self.flood as u64) * (64 + 20) / 1024;
        let answers = 7 * 8;
        let batches = (2 * BATCH_BYTES) >> 20;
        let subscriptions = (self.subscriptions as u64 * 300) >> 20;
        buffers + connections + answers + batches + subscriptions
    }
}

/// No answer to the honest client takes longer, on a busy machine too: no measure of speed, but of being served at all.
const SERVED_WITHIN: Duration = Duration::from_secs(20);

/// What must end does so by then.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an attack did to the others.
struct Seen {
    memory_peak: u64,
    files: usize,
    /// Of all answers to the honest client, sorted.
    waits: Vec<Duration>,
}

impl Seen {
    fn wait(&self, part: f64) -> Duration {
        let last = self.waits.len() - 1;
        self.waits[(last as f64 * part).round() as usize]
    }
}

/// Says so when it goes.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Attacks, beside a client that wants little and somebody who counts.
fn under(ambra: &Ambra, attack: impl FnOnce()) -> Seen {
    let is_over = AtomicBool::new(false);
    ambra.forget_memory_peak();
    thread::scope(|scope| {
        let honest = scope.spawn(|| {
            let mut client = ambra.client();
            let coinbase = client.ask("blockchain.transaction.id_from_pos", json!([1, 0]));
            let mut waits = Vec::new();
            while !is_over.load(Ordering::Relaxed) || waits.len() < 10 {
                // From memory, from the index, and from the node's files.
                for (method, params) in [
                    ("blockchain.block.header", json!([1])),
                    (
                        "blockchain.scripthash.get_balance",
                        json!(["00".repeat(32)]),
                    ),
                    ("blockchain.transaction.get", json!([coinbase])),
                ] {
                    let asked = Instant::now();
                    client.ask(method, params);
                    waits.push(asked.elapsed());
                }
                thread::sleep(Duration::from_millis(2));
            }
            waits
        });
        let counter = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(ambra.open_files());
                thread::sleep(Duration::from_millis(20));
            }
            most
        });
        {
            // Also where the attack fails: else the others would go on for ever.
            let _over = Over(&is_over);
            attack();
        }
        let mut waits = honest.join().expect("the honest client is served");
        waits.sort();
        Seen {
            memory_peak: ambra.memory_peak(),
            files: counter.join().expect("files can be counted"),
            waits,
        }
    })
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the system accepts");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn line(method: &str, params: &Value) -> String {
    json!({"id": 1, "method": method, "params": params}).to_string() + "\n"
}

/// A frame as a client sends it (RFC 6455, section 5.2), its mask all zeros, with the length that it claims.
fn frame(first: u8, claimed: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | 127];
    bytes.extend_from_slice(&claimed.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(body);
    bytes
}

/// A WebSocket connection, its handshake done.
fn websocket(address: &str) -> Option<TcpStream> {
    let mut stream = connect(address);
    let handshake = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(handshake.as_bytes()).ok()?;
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        said.push(byte[0]);
    }
    Some(stream)
}

/// Waits until the server has hung up, whatever it says before.
#[track_caller]
fn wait_for_end(mut stream: TcpStream) {
    let mut rest = [0; 64 * 1024];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("a client that should be closed is not")
            }
            Err(_) => return,
        }
    }
}

struct Attacker<'a> {
    ambra: &'a Ambra,
    tcp: String,
    tls: String,
    ws: String,
    scale: &'a Scale,
}

impl Attacker<'_> {
    fn all_at_once(&self, count: usize, attack: impl Fn(usize) + Sync) {
        thread::scope(|scope| {
            for number in 0..count {
                let attack = &attack;
                scope.spawn(move || attack(number));
            }
        });
    }

    /// A byte now and then, of lines and of handshakes, until each is closed.
    fn slow_loris(&self) {
        let addresses = [&self.tcp, &self.tls, &self.ws];
        self.all_at_once(self.scale.many, |number| {
            let mut stream = connect(addresses[number % 3]);
            let text = b"GET / HTTP/1.1\r\nX: ".iter().chain([b'y'; 100].iter());
            let began = Instant::now();
            for byte in text.cycle() {
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
                assert!(
                    began.elapsed() < 2 * PATIENCE,
                    "a dripping client is still served"
                );
                thread::sleep(Duration::from_millis(100));
            }
        });
    }

    /// They ask, and never read; then they stay until they are closed.
    fn never_reading(&self) {
        let many = line("blockchain.block.headers", &json!([0, 2016])).repeat(1_000);
        self.all_at_once(self.scale.many, |_| {
            let mut stream = connect(&self.tcp);
            while stream.write_all(many.as_bytes()).is_ok() {}
            wait_for_end(stream);
        });
    }

    /// Ten lines without end: each as much as the server takes.
    fn endless_lines(&self) {
        self.all_at_once(10, |number| {
            let piece = vec![b'['; 100_000];
            let mut stream = match number % 2 {
                0 => connect(&self.tcp),
                _ => {
                    let Some(mut stream) = websocket(&self.ws) else {
                        return;
                    };
                    let _ = stream.write_all(&frame(0x01, 9_000_000, &[]));
                    stream
                }
            };
            for _ in 0..self.scale.endless_mb * 10 {
                if stream.write_all(&piece).is_err() {
                    return;
                }
            }
            // The system may have taken all of it; the server has not.
            wait_for_end(stream);
        });
    }

    /// Half a line and half a handshake; the other half never comes.
    fn half_open(&self) {
        let mut held = Vec::new();
        for number in 0..self.scale.flood / 4 {
            let (address, half): (_, &[u8]) = match number % 3 {
                0 => (&self.tcp, br#"{"id":1,"#),
                1 => (&self.tls, &[0x16, 3, 1, 2, 0, 1, 0]),
                _ => (&self.ws, b"GET / HTTP/1.1\r\nUpgr"),
            };
            let mut stream = connect(address);
            let _ = stream.write_all(half);
            if number % 5 == 0 {
                let _ = stream.shutdown(Shutdown::Write);
            }
            held.push(stream);
        }
        held.into_iter().for_each(wait_for_end);
    }

    /// Batches that would be answered by gigabytes, and batches of too many.
    fn giant_batches(&self) {
        let request = json!({"id": 1, "method": "blockchain.block.headers", "params": [0, 2016]});
        let costly = Value::Array(vec![request.clone(); 20_000]).to_string();
        let too_many = format!("[{}1]", "1,".repeat(4_000_000));
        self.all_at_once(self.scale.many, |number| {
            let mut client = Client::connect(self.ambra.address());
            for batch in [&costly, &too_many] {
                // One of many is closed, for they want more than there is.
                if client.try_send(batch).is_none() {
                    return;
                }
                let Some(reply) = client.read_line() else {
                    return;
                };
                let is_refused = reply.contains("may have") || reply.contains("may hold");
                assert!(
                    is_refused || reply.contains("memory"),
                    "{number}: {reply:.200}"
                );
            }
        });
    }

    /// A question is short; what names it is not, and all wait.
    fn long_names(&self) {
        let id = "x".repeat(1_000_000);
        let question = json!({"id": id, "method": "blockchain.estimatefee", "params": [6]});
        let question = question.to_string() + "\n";
        self.all_at_once(self.scale.many, |_| {
            let mut stream = connect(&self.tcp);
            let until = Instant::now() + self.scale.time;
            while Instant::now() < until && stream.write_all(question.as_bytes()).is_ok() {}
        });
    }

    fn deep_json(&self) {
        let deep = "[".repeat(2_000_000) + &"]".repeat(2_000_000);
        let wide = format!("[{}1]", "1,".repeat(4_000_000));
        self.all_at_once(self.scale.many / 5, |_| {
            let mut client = Client::connect(self.ambra.address());
            let mut ask = |request: &str, code: &str| {
                client.try_send(request)?;
                let reply = client.read_line()?;
                let is_right = reply.contains(code) || reply.contains("memory");
                assert!(is_right, "{reply:.200}");
                Some(())
            };
            for params in [&deep, &format!("{{\"a\":{deep}}}"), &wide] {
                let request = format!(r#"{{"id":1,"method":"server.ping","params":{params}}}"#);
                ask(&request, "-32602");
            }
            ask(&"[".repeat(2_000_000), "-32700");
        });
    }

    fn garbage_instead_of_tls(&self) {
        self.all_at_once(self.scale.many, |number| {
            let until = Instant::now() + self.scale.time;
            while Instant::now() < until {
                let mut stream = connect(&self.tls);
                // A record's header, and then anything.
                let _ = stream.write_all(&[0x16, 3, 1, number as u8, 0]);
                let _ = stream.write_all(&[number as u8; 3_000]);
                wait_for_end(stream);
            }
        });
    }

    /// Pings without end, fragments without end, frames that claim exabytes.
    fn websocket_abuse(&self) {
        let pings = frame(0x89, 100, &[b'x'; 100]).repeat(1_000);
        let fragments = [
            frame(0x01, 1, b" "),
            frame(0x00, 1_000, &[b' '; 1_000]).repeat(12_000),
        ];
        let exabytes = frame(0x81, u64::MAX >> 1, b"[");
        self.all_at_once(self.scale.many, |number| {
            let Some(mut stream) = websocket(&self.ws) else {
                return;
            };
            match number % 3 {
                0 => {
                    let until = Instant::now() + self.scale.time;
                    stream
                        .set_write_timeout(Some(Duration::from_millis(200)))
                        .expect("a timeout");
                    while Instant::now() < until && stream.write_all(&pings).is_ok() {}
                }
                1 => {
                    let _ = stream.write_all(&fragments.concat());
                    wait_for_end(stream);
                }
                _ => {
                    let _ = stream.write_all(&exabytes);
                    wait_for_end(stream);
                }
            }
        });
    }

    /// As many as the system gives, on every listener; those beyond the bound are closed.
    fn flood(&self) {
        let addresses = [&self.tcp, &self.tls, &self.ws];
        let until = Instant::now() + self.scale.time;
        let held: Vec<TcpStream> = (0..self.scale.flood)
            .map(|number| connect(addresses[number % 3]))
            .collect();
        while Instant::now() < until {
            drop(connect(&self.tcp));
        }
        drop(held);
    }

    /// They ask what costs the most, as fast as they can, and read the answers.
    fn greedy(&self) {
        let many = [
            line("blockchain.block.headers", &json!([0, 2016])),
            line("blockchain.transaction.id_from_pos", &json!([1, 0, true])),
            line("blockchain.block.header", &json!([1, 100])),
            line("blockchain.estimatefee", &json!([6])),
            line("mempool.get_fee_histogram", &json!([])),
        ]
        .concat()
        .repeat(20);
        self.all_at_once(self.scale.many, |_| {
            let mut stream = connect(&self.tcp);
            let mut reader = stream.try_clone().expect("a second handle");
            thread::scope(|scope| {
                let until = Instant::now() + self.scale.time;
                scope.spawn(move || {
                    let mut answers = [0; 64 * 1024];
                    while reader.read(&mut answers).is_ok_and(|count| count > 0) {}
                });
                while Instant::now() < until && stream.write_all(many.as_bytes()).is_ok() {}
                let _ = stream.shutdown(Shutdown::Both);
            });
        });
    }

    /// One client with all of them; each new block is told of all the same.
    fn subscriptions(&self, node: &Node) {
        let mut client = Client::connect(self.ambra.address());
        for first in (0..self.scale.subscriptions).step_by(10_000) {
            let names = (first..first + 10_000).map(|number| format!("{number:064x}"));
            let requests: Vec<_> = names
                .map(|name| ("blockchain.scripthash.subscribe", json!([name])))
                .collect();
            let replies = client.batch(&requests);
            assert!(replies.iter().all(|reply| *reply == Ok(Value::Null)));
        }
        let tip = client.ask("blockchain.headers.subscribe", json!([]));
        node.mine(1, &Treasury::elsewhere());
        let push = client.wait_for_push("blockchain.headers.subscribe", PATIENCE);
        let height = tip["height"].as_u64().expect("a height");
        assert_eq!(push[0]["height"], height + 1);
    }
}

fn attack_with(scale: &Scale, story: &str) {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let node = Node::start(NodeOptions::default());
    node.mine(2_016, &Treasury::elsewhere());
    let options = [
        ("--max-client-memory", CLIENT_MEMORY_MIB),
        ("--max-batch-bytes", BATCH_BYTES),
        ("--max-all-subscriptions", ALL_SUBSCRIPTIONS),
        ("--max-connections", CONNECTIONS),
        ("--max-listener-connections", CONNECTIONS - 500),
        ("--write-timeout", 1),
        ("--idle-timeout", 2),
        ("--handshake-timeout", 1),
    ];
    let options = options.map(|(name, value)| (name, value.to_string()));
    let mut words = vec![
        "--listen",
        "tls://127.0.0.1:0",
        "--listen",
        "ws://127.0.0.1:0",
    ];
    words.extend(
        options
            .iter()
            .flat_map(|(name, value)| [*name, value.as_str()]),
    );
    let mut ambra = Ambra::start_with(&node, &words);
    let attacker = Attacker {
        ambra: &ambra,
        tcp: ambra.address().to_string(),
        tls: ambra.listener("tls"),
        ws: ambra.listener("ws"),
        scale,
    };

    // 1. What it takes when all is well. (The first questions open files.)
    let calm = under(&ambra, || thread::sleep(scale.time));
    let calm = if calm.files > 0 {
        under(&ambra, || thread::sleep(scale.time))
    } else {
        calm
    };
    let before = ambra.memory();
    let files = ambra.open_files();

    // 2. One attack after the other, beside a client that wants little.
    type Attack<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let a = &attacker;
    let attacks: Vec<Attack> = vec![
        ("slow loris", Box::new(|| a.slow_loris())),
        ("clients that never read", Box::new(|| a.never_reading())),
        ("half-open connections", Box::new(|| a.half_open())),
        ("lines without end", Box::new(|| a.endless_lines())),
        ("giant batches", Box::new(|| a.giant_batches())),
        ("questions with names of 1 MB", Box::new(|| a.long_names())),
        ("deep and wide JSON", Box::new(|| a.deep_json())),
        (
            "garbage instead of TLS",
            Box::new(|| a.garbage_instead_of_tls()),
        ),
        ("WebSocket abuse", Box::new(|| a.websocket_abuse())),
        ("a flood of connections", Box::new(|| a.flood())),
        ("greedy clients", Box::new(|| a.greedy())),
        ("many subscriptions", Box::new(|| a.subscriptions(&node))),
    ];
    let mut rows = vec![("nobody", calm, files)];
    for (name, attack) in &attacks {
        let began = Instant::now();
        let seen = under(&ambra, attack);
        println!("{name}: {:?}", began.elapsed());
        // 3. All files come back.
        let back = until(PATIENCE, || {
            let now = ambra.open_files();
            (now <= files + 4).then_some(now)
        });
        let back = back.unwrap_or_else(|| {
            panic!(
                "{name}: {files} files were open, now {}",
                ambra.open_files()
            )
        });
        rows.push((name, seen, back));
    }

    // 4. Memory stayed inside its bound, and the honest client was served.
    let mut told = Vec::new();
    let bound = scale.memory_mib_max();
    let mib = |bytes: u64| bytes >> 20;
    for (name, seen, back) in &rows {
        let grown = mib(seen.memory_peak.saturating_sub(before));
        let ms = |wait: Duration| wait.as_micros() as f64 / 1000.0;
        let (p50, p99, worst) = (seen.wait(0.5), seen.wait(0.99), seen.wait(1.0));
        println!(
            "{name}: peak {} MiB (+{grown}), files {files} -> {} -> {back}, waits {p50:?} {p99:?} {worst:?} of {}",
            mib(seen.memory_peak),
            seen.files,
            seen.waits.len()
        );
        assert!(grown <= bound, "{name}: it grew by {grown} MiB of {bound}");
        assert!(worst < SERVED_WITHIN, "{name}: {worst:?}");
        told.push(json!({
            "attack": name, "memory_mib": mib(seen.memory_peak), "files_during": seen.files, "files_after": back,
            "p50_ms": ms(p50), "p99_ms": ms(p99), "worst_ms": ms(worst), "answers": seen.waits.len(),
        }));
    }
    report(
        story,
        &json!({"attacks": told, "memory_before_mib": mib(before), "memory_bound_mib": mib(before) + bound, "files_before": files}),
    );
    drop(attacks);
    ambra.stop();
}

#[test]
fn enemies_cost_no_more_than_is_stated_and_others_are_served() {
    attack_with(&IN_THE_SUITE, "enemies in the suite");
}

#[test]
#[ignore = "takes two minutes: contrib/enemies.sh"]
fn enemies_are_measured() {
    attack_with(&MEASURED, "enemies");
}
