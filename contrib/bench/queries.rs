//! Answers, measured: what wallets ask, of each server in turn, on the chain of the first-sync
//! measurements. All answers are checked against the generator's record. Prints a Markdown table.

mod client;
mod load;
mod process;
mod pushes;
mod random;
mod record;
mod servers;
mod wallet;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use clap::Parser;
use client::{Client, Failure, check_balance, check_history, check_status, check_unspent};
use load::{Request, one_by_one, percentile, rate};
use process::Node;
use random::Random;
use record::{Record, Script};
use serde_json::json;
use servers::{Programs, Server, Started};

#[derive(Parser)]
#[command(name = "bench-queries")]
struct Args {
    #[command(flatten)]
    programs: Programs,
    /// The chain's directory below --dir, as `bench-run --prepare` made it
    #[arg(long, default_value = "3760000-1")]
    chain: String,
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Server::Electrs, Server::AmbraFiles])]
    servers: Vec<Server>,
    /// A server that runs already (HOST:PORT): only what needs neither its process nor its node
    #[arg(long)]
    address: Option<String>,
    /// Only the measurements whose names contain this
    #[arg(long, default_value = "")]
    only: String,
}

/// Names of figures and their values, in order.
#[derive(Default)]
struct Figures {
    figures: Vec<(String, String)>,
    failures: usize,
}

impl Figures {
    fn add(&mut self, name: &str, value: String) {
        eprintln!("{name}: {value}");
        self.figures.push((name.to_owned(), value));
    }

    /// Goes on with the next measurement where one fails, for a run may take minutes and nobody may sit beside it.
    fn try_add(&mut self, name: &str, value: impl FnOnce() -> Result<String, Failure>) {
        match value() {
            Ok(value) => self.add(name, value),
            Err(failure) => {
                self.failures += 1;
                eprintln!("{name}: FAILED: {failure}");
                let value = format!("failed: {failure}");
                self.figures.push((name.to_owned(), value));
            }
        }
    }
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    // A connection needs a descriptor here and one in the server, which inherits the limit.
    rlimit::increase_nofile_limit(1 << 16)?;
    let chain_dir = args.dir.join(&args.chain);
    let record = Record::read(&chain_dir.join("record.jsonl"))?;
    let mut columns = Vec::new();
    if let Some(address) = &args.address {
        let mut figures = Figures::default();
        Bench::new(&args, &record, false).warm(address, &mut figures)?;
        columns.push((address.clone(), figures));
    } else {
        for &server in &args.servers {
            eprintln!("# {}", server.name());
            let mut figures = Figures::default();
            whole(server, &args, &chain_dir, &record, &mut figures)?;
            columns.push((server.name().to_owned(), figures));
        }
    }
    print_table(&args, &columns)?;
    match columns.iter().map(|(_, figures)| figures.failures).sum() {
        0 => Ok(()),
        failures => Err(format!("{failures} measurements failed").into()),
    }
}

fn print_table(args: &Args, columns: &[(String, Figures)]) -> Result<(), Failure> {
    let mut names: Vec<&str> = Vec::new();
    for (_, figures) in columns {
        for (name, _) in &figures.figures {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    let heads: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let has_ratio = columns.len() == 2;
    let ratio_head = if has_ratio { " ratio |" } else { "" };
    println!("| | {} |{ratio_head}", heads.join(" | "));
    println!(
        "|---|{}",
        "---|".repeat(columns.len() + usize::from(has_ratio))
    );
    for name in names {
        let cells: Vec<&str> = columns
            .iter()
            .map(|(_, figures)| {
                let mut known = figures.figures.iter();
                let found = known.find(|(known, _)| known == name);
                found.map_or("–", |(_, value)| value)
            })
            .collect();
        let last = match cells[..] {
            [first, second] => format!(" {} |", ratio(first, second)),
            _ => String::new(),
        };
        println!("| {name} | {} |{last}", cells.join(" | "));
    }
    let results: serde_json::Map<String, serde_json::Value> = columns
        .iter()
        .map(|(name, figures)| (name.clone(), json!(figures.figures)))
        .collect();
    let text = serde_json::to_string_pretty(&results)?;
    fs::write(args.dir.join("queries.json"), text)?;
    Ok(())
}

/// By how much the second figure is better than the first, by the first number of each: rates are better if they
/// are larger, all else if it is smaller.
fn ratio(first: &str, second: &str) -> String {
    let number = |text: &str| text.split(' ').next()?.parse::<f64>().ok();
    let (Some(a), Some(b)) = (number(first), number(second)) else {
        return "–".to_owned();
    };
    let better = if first.contains("/s") { b / a } else { a / b };
    if better < 10.0 {
        format!("{better:.1}")
    } else {
        format!("{better:.0}")
    }
}

/// All measurements of a server, on a copy of the node, since blocks are added at the end.
fn whole(
    server: Server,
    args: &Args,
    chain_dir: &Path,
    record: &Record,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let node_dir = args.dir.join("queries-node");
    let db_dir = args.dir.join("queries-db");
    for dir in [&node_dir, &db_dir] {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
    }
    copy_dir(&chain_dir.join("node"), &node_dir)?;
    fs::create_dir_all(&db_dir)?;
    let mut node = Node::start(&args.programs.bitcoind, &node_dir, &[])?;
    let height = record.chain.as_ref().ok_or("the record is empty")?.height;
    node.wait_for(u64::from(height))?;

    let log = args.dir.join(format!("queries-{server:?}.log"));
    let start_as = |server: Server| -> Result<Started, Failure> {
        node.warm()?;
        process::warm(&db_dir)?;
        let mut started = servers::start(server, &args.programs, &node, &db_dir, &log)?;
        started.wait_until_served(record)?;
        Ok(started)
    };
    let start = || start_as(server);
    // The index is the same whatever it is made from, and soonest made from files.
    start_as(server.first_sync())?.running.stop()?;
    let bench = Bench::new(args, record, server.is_slow());
    bench.cold(&start, figures)?;
    bench.warm(&start()?.address, figures)?;
    bench.memory(&start()?, figures);
    bench.restart(&start, figures);
    bench.pushes(&node, &start()?, figures)?;
    node.running.stop()?;
    fs::remove_dir_all(node_dir)?;
    fs::remove_dir_all(db_dir)?;
    Ok(())
}

fn copy_dir(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

struct Bench<'a> {
    record: &'a Record,
    only: &'a str,
    is_slow: bool,
    small: Vec<&'a Script>,
    /// About 5,500 entries.
    medium: Vec<&'a Script>,
    largest: &'a Script,
}

impl<'a> Bench<'a> {
    fn new(args: &'a Args, record: &'a Record, is_slow: bool) -> Bench<'a> {
        let mut by_entries: Vec<&Script> = record.scripts.iter().collect();
        by_entries.sort_by_key(|script| std::cmp::Reverse(script.entries));
        Bench {
            record,
            only: &args.only,
            is_slow,
            small: record
                .scripts
                .iter()
                .filter(|script| script.entries <= 20)
                .collect(),
            medium: by_entries.iter().skip(3).take(24).copied().collect(),
            largest: by_entries[0],
        }
    }

    fn wants(&self, name: &str) -> bool {
        name.contains(self.only)
    }

    /// What is asked of a server that has just been started.
    fn cold(
        &self,
        start: &impl Fn() -> Result<Started, Failure>,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let name = "first subscribe of 5,000 small scripts";
        if self.wants(name) {
            let started = start()?;
            let scripts: Vec<&Script> = self.small.iter().take(5_000).copied().collect();
            let requests: Vec<Request> = scripts
                .iter()
                .map(|script| ask("subscribe", script))
                .collect();
            for name in [name, "the same again"] {
                figures.try_add(name, || {
                    let before = started.running.used()?.cpu_seconds;
                    let answers = rate(&started.address, 4, 50, &requests)?;
                    let cpu = started.running.used()?.cpu_seconds - before;
                    answers.check(|number, result| check_status(scripts[number], result))?;
                    let micros = 1e6 * cpu / answers.lines.len() as f64;
                    let rate = answers.rate();
                    Ok(format!(
                        "{rate:.0} /s ({micros:.0} µs of its processor time each)"
                    ))
                });
            }
        }
        let name = "first subscribe of 5,500 entries";
        if self.wants(name) {
            figures.try_add(name, || {
                let started = start()?;
                let mut client = Client::negotiated(&started.address)?;
                let mut times = Vec::new();
                let count = if self.is_slow { 5 } else { 24 };
                for script in self.medium.iter().take(count) {
                    times.push(timed(&mut client, "subscribe", script, check_status)?);
                }
                Ok(milliseconds(percentile(&mut times, 50)))
            });
        }
        type Check = fn(&Script, &str) -> Result<(), Failure>;
        let asked: [(&'static str, Check); 4] = [
            ("subscribe", check_status),
            ("get_history", check_history),
            ("get_balance", check_balance),
            ("listunspent", check_unspent),
        ];
        for (method, check) in asked {
            let name = format!("`{method}` of the largest, first · again");
            if !self.wants(&name) {
                continue;
            }
            figures.try_add(&name, || {
                let started = start()?;
                let mut client = Client::negotiated(&started.address)?;
                let first = timed(&mut client, method, self.largest, check)?;
                let mut again = Vec::new();
                for _ in 0..if self.is_slow { 1 } else { 7 } {
                    again.push(timed(&mut client, method, self.largest, check)?);
                }
                let again = percentile(&mut again, 50);
                Ok(format!("{} · {}", milliseconds(first), milliseconds(again)))
            });
        }
        let name = "a wallet's whole first sync";
        if self.wants(name) {
            figures.try_add(name, || {
                let mut times = Vec::new();
                for round in 0..3 {
                    let started = start()?;
                    let scripts: Vec<&Script> = self.small[round * 200..][..200].to_vec();
                    times.push(wallet::first_sync(&started.address, &scripts)?);
                }
                Ok(milliseconds(percentile(&mut times, 50)))
            });
        }
        Ok(())
    }

    /// What is asked of a server that has been running.
    fn warm(&self, address: &str, figures: &mut Figures) -> Result<(), Failure> {
        let name = "small `get_history`";
        if self.wants(name) {
            let count = if self.is_slow { 2_000 } else { 200_000 };
            let scripts: Vec<&Script> = self.small.iter().cycle().take(count).copied().collect();
            let requests: Vec<Request> = scripts
                .iter()
                .map(|script| ask("get_history", script))
                .collect();
            figures.try_add(name, || {
                let answers = rate(address, 4, 10, &requests)?;
                answers.check(|number, result| check_history(scripts[number], result))?;
                Ok(format!("{:.0} /s", answers.rate()))
            });
        }
        let name = "`transaction.get`";
        if self.wants(name) {
            let txs = &self.record.txs;
            let requests: Vec<Request> = txs.iter().map(wallet::get_transaction).collect();
            figures.try_add(name, || {
                let answers = rate(address, 4, 10, &requests)?;
                answers.check(|number, result| wallet::check_transaction(&txs[number], result))?;
                Ok(format!("{:.0} /s", answers.rate()))
            });
        }
        let name = "`transaction.get_merkle`";
        if self.wants(name) {
            let txs = &self.record.txs;
            let requests: Vec<Request> = txs.iter().map(wallet::get_merkle).collect();
            figures.try_add(name, || {
                let answers = rate(address, 4, 10, &requests)?;
                let mut client = Client::negotiated(address)?;
                let height = self.record.chain.as_ref().map_or(0, |chain| chain.height);
                let roots = wallet::merkle_roots(&mut client, height)?;
                answers
                    .check(|number, result| wallet::check_merkle(&txs[number], &roots, result))?;
                Ok(format!("{:.0} /s", answers.rate()))
            });
        }
        let name = "a mix on 16 connections: rate · p99";
        if self.wants(name) {
            figures.try_add(name, || self.mix(address));
        }
        let name = "others' small requests while one asks for the largest: p99";
        if self.wants(name) {
            figures.try_add(name, || self.beside_largest(address));
        }
        Ok(())
    }

    /// All requests, histories of 5,500 entries among them, one at a time on each of 16 connections.
    fn mix(&self, address: &str) -> Result<String, Failure> {
        let deadline = Instant::now() + Duration::from_secs(if self.is_slow { 20 } else { 6 });
        let work = |number: u64| -> Result<Vec<Duration>, Failure> {
            let mut random = Random::new(1, number);
            let mut client = Client::negotiated(address)?;
            let requests: Vec<Request> = (0..4_000).map(|_| self.any(&mut random)).collect();
            let mut requests = requests.iter().cycle();
            one_by_one(&mut client, &mut requests, &|| Instant::now() > deadline)
        };
        let started = Instant::now();
        let mut times = in_threads(16, work)?;
        let rate = times.len() as f64 / started.elapsed().as_secs_f64();
        let p99 = milliseconds(percentile(&mut times, 99));
        Ok(format!("{rate:.0} /s · {p99}"))
    }

    /// A wallet's request; one in a hundred is about a script of 5,500 entries.
    fn any(&self, random: &mut Random) -> Request {
        let small = self.small[random.index(self.small.len())];
        let medium = self.medium[random.index(self.medium.len())];
        let tx = &self.record.txs[random.index(self.record.txs.len())];
        match random.below(100) {
            0 => ask("get_history", medium),
            1..30 => ask("subscribe", small),
            30..50 => ask("get_history", small),
            50..60 => ask("get_balance", small),
            60..70 => ask("listunspent", small),
            70..85 => wallet::get_transaction(tx),
            85..95 => wallet::get_merkle(tx),
            _ => Request::new("blockchain.block.header", json!([tx.height]).to_string()),
        }
    }

    fn beside_largest(&self, address: &str) -> Result<String, Failure> {
        let deadline = Instant::now() + Duration::from_secs(if self.is_slow { 20 } else { 6 });
        let is_over = AtomicBool::new(false);
        let (times, large) = std::thread::scope(|scope| {
            let large = scope.spawn(|| -> Result<usize, Failure> {
                let mut client = Client::negotiated(address)?;
                let request = ask("get_history", self.largest);
                let mut requests = std::iter::repeat(&request);
                let times = one_by_one(&mut client, &mut requests, &|| is_over.load(Relaxed))?;
                Ok(times.len())
            });
            let times = in_threads(4, |number| {
                let mut random = Random::new(2, number);
                let mut client = Client::negotiated(address)?;
                let requests: Vec<Request> = (0..4_000)
                    .map(|_| {
                        let small = self.small[random.index(self.small.len())];
                        ask("get_history", small)
                    })
                    .collect();
                let mut requests = requests.iter().cycle();
                // As people do: not without pause.
                let is_late = || {
                    std::thread::sleep(Duration::from_millis(1));
                    Instant::now() > deadline
                };
                one_by_one(&mut client, &mut requests, &is_late)
            });
            is_over.store(true, Relaxed);
            (times, large.join())
        });
        let mut times = times?;
        let large = large.map_err(|_| "a thread failed")??;
        let p99 = milliseconds(percentile(&mut times, 99));
        Ok(format!("{p99} ({large} of the largest answered)"))
    }

    /// 5,000 connections with 10 subscriptions each.
    fn memory(&self, started: &Started, figures: &mut Figures) {
        let name = "memory of a connection with 10 subscriptions";
        if self.wants(name) {
            figures.try_add(name, || self.memory_of_a_connection(started));
        }
    }

    fn memory_of_a_connection(&self, started: &Started) -> Result<String, Failure> {
        let count = if self.is_slow { 500 } else { 5_000 };
        // What a server keeps of scripts is bounded, and all clients'. It is there before, so as not to be counted.
        let mut first = Client::negotiated(&started.address)?;
        for script in self.small.iter().take(count * 10) {
            let params = json!([script.scripthash]);
            first.call_raw("blockchain.scripthash.subscribe", &params)?;
        }
        let before = started.running.used()?.memory;
        let mut clients = Vec::new();
        let mut scripts = self.small.iter().cycle();
        for _ in 0..count {
            let mut client = Client::negotiated(&started.address)?;
            for script in scripts.by_ref().take(10) {
                let params = json!([script.scripthash]);
                let status = client.call_raw("blockchain.scripthash.subscribe", &params)?;
                check_status(script, &status)?;
            }
            clients.push(client);
        }
        let after = started.running.used()?.memory;
        let kib = after.saturating_sub(before) as f64 / 1024.0 / count as f64;
        Ok(format!("{kib:.1} KiB ({count} connections)"))
    }

    fn restart(&self, start: &impl Fn() -> Result<Started, Failure>, figures: &mut Figures) {
        let name = "stop · serving again";
        if self.wants(name) {
            figures.try_add(name, || {
                let stop = start()?.running.stop()?;
                let started = start()?;
                let serving = started.serving_after;
                Ok(format!(
                    "{:.2} · {:.2} s",
                    stop.as_secs_f64(),
                    serving.as_secs_f64()
                ))
            });
        }
    }

    fn pushes(&self, node: &Node, started: &Started, figures: &mut Figures) -> Result<(), Failure> {
        let mut random = Random::new(3, 0);
        let mut coins = self.record.coins.iter().cloned();
        let rpc = node.rpc()?;
        let name = "node takes a transaction → push: median · worst";
        if self.wants(name) {
            figures.try_add(name, || {
                let watch = pushes::Watch::start(&started.address, 200, 9_800, 4, &mut random)?;
                let (median, worst) = pushes::of_transactions(&rpc, &watch, &mut coins)?;
                Ok(format!(
                    "{} · {}",
                    milliseconds(median),
                    milliseconds(worst)
                ))
            });
        }
        let name = "new block → header push · status push, median";
        if self.wants(name) {
            figures.try_add(name, || {
                let (mut headers, mut statuses) = (Vec::new(), Vec::new());
                for _ in 0..if self.is_slow { 3 } else { 9 } {
                    let watch = pushes::Watch::start(&started.address, 1, 100, 1, &mut random)?;
                    let push = pushes::of_block(&rpc, &watch, &mut coins, 1)?;
                    headers.push(push.header);
                    statuses.push(push.last_status);
                }
                let header = milliseconds(percentile(&mut headers, 50));
                let status = milliseconds(percentile(&mut statuses, 50));
                Ok(format!("{header} · {status}"))
            });
        }
        let name = "block of 2,000 transactions, 500,000 subscriptions: last push";
        if self.wants(name) {
            figures.try_add(name, || {
                let watch =
                    pushes::Watch::start(&started.address, 2_000, 498_000, 50, &mut random)?;
                let push = pushes::of_block(&rpc, &watch, &mut coins, 2_000)?;
                Ok(format!(
                    "{} (the node's own answer: {})",
                    milliseconds(push.last_status),
                    milliseconds(push.node)
                ))
            });
        }
        Ok(())
    }
}

fn ask(method: &'static str, script: &Script) -> Request {
    let method = match method {
        "subscribe" => "blockchain.scripthash.subscribe",
        "get_history" => "blockchain.scripthash.get_history",
        "get_balance" => "blockchain.scripthash.get_balance",
        _ => "blockchain.scripthash.listunspent",
    };
    Request::new(method, json!([script.scripthash]).to_string())
}

/// Asks once; the check is not part of the time.
fn timed(
    client: &mut Client,
    method: &'static str,
    script: &Script,
    check: fn(&Script, &str) -> Result<(), Failure>,
) -> Result<Duration, Failure> {
    let mut line = Vec::new();
    ask(method, script).write(0, &mut line);
    let started = Instant::now();
    client.send(&line)?;
    client.read_line()?;
    let elapsed = started.elapsed();
    check(script, client.last()?.result()?)?;
    Ok(elapsed)
}

fn in_threads(
    count: u64,
    work: impl Fn(u64) -> Result<Vec<Duration>, Failure> + Sync,
) -> Result<Vec<Duration>, Failure> {
    let work = &work;
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        let mut all = Vec::new();
        for handle in handles {
            all.extend(handle.join().map_err(|_| "a thread failed")??);
        }
        Ok(all)
    })
}

fn milliseconds(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1e3;
    if milliseconds < 10.0 {
        format!("{milliseconds:.2} ms")
    } else {
        format!("{milliseconds:.0} ms")
    }
}
