//! First sync, measured: the floor, Ambra from each block source, and electrs, in turn on the same node
//! and the same chain. Prints a Markdown table and writes the figures to `results.json`.

mod client;
mod process;
mod record;
mod servers;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use clap::Parser;
use client::{Client, Failure, check_script};
use process::{Node, Used, disk_bytes, warm};
use record::Record;
use serde::{Deserialize, Serialize};
use servers::{Programs, Server};

#[derive(Parser)]
#[command(name = "bench-run")]
struct Args {
    #[command(flatten)]
    programs: Programs,
    /// How many transactions the chain has
    #[arg(long, default_value_t = 3_760_000)]
    txs: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where chains, node data and results are kept
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// How often each is measured; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Server::AmbraFiles, Server::AmbraRest, Server::AmbraRpc, Server::Electrs])]
    servers: Vec<Server>,
    /// Make the chain and the node's data, and measure nothing
    #[arg(long)]
    prepare: bool,
}

/// What one first sync took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Sync {
    seconds: f64,
    cpu_seconds: f64,
    node_cpu_seconds: f64,
    peak_memory: u64,
    written: u64,
    index: u64,
    /// When nothing more was written.
    written_settled: u64,
    index_settled: u64,
    stop_seconds: f64,
    serving_again_seconds: f64,
}

#[derive(Deserialize)]
struct Floor {
    seconds: f64,
    cpu_seconds: f64,
    peak_memory: u64,
    bytes: u64,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let chain_dir = args.dir.join(format!("{}-{}", args.txs, args.seed));
    prepare(&args, &chain_dir)?;
    if args.prepare {
        return Ok(());
    }
    let record = Record::read(&chain_dir.join("record.jsonl"))?;
    let chain = record.chain.clone().ok_or("the record is empty")?;
    let mut node = Node::start(&args.programs.bitcoind, &chain_dir.join("node"), &[])?;
    node.wait_for(u64::from(chain.height))?;

    let mut floors = Vec::new();
    let mut syncs: BTreeMap<&str, Vec<Sync>> = BTreeMap::new();
    for round in 0..args.rounds {
        floors.push(floor(&args, &node)?);
        let mut order = args.servers.clone();
        if round % 2 == 1 {
            order.reverse();
        }
        for server in order {
            let sync = measure(server, &args, &node, &record)?;
            eprintln!("round {round}: {}: {sync:?}", server.name());
            syncs.entry(server.name()).or_default().push(sync);
        }
    }
    node.running.stop()?;

    let report = report(&args, &chain, &floors, &syncs);
    println!("{report}");
    let results = serde_json::json!({
        "chain": chain,
        "floor_seconds": floors.iter().map(|floor| floor.seconds).collect::<Vec<_>>(),
        "syncs": syncs,
    });
    fs::write(
        args.dir.join("results.json"),
        serde_json::to_string_pretty(&results)?,
    )?;
    Ok(())
}

/// Makes the chain and imports it into a node, unless both are there.
fn prepare(args: &Args, chain_dir: &Path) -> Result<(), Failure> {
    let done = chain_dir.join("prepared");
    if done.exists() {
        return Ok(());
    }
    fs::create_dir_all(chain_dir)?;
    let chain_dir = &chain_dir.canonicalize()?;
    let (blocks, record) = (chain_dir.join("chain.dat"), chain_dir.join("record.jsonl"));
    let status = Command::new(sibling("bench-chain")?)
        .args(["--txs", &args.txs.to_string()])
        .args(["--seed", &args.seed.to_string()])
        .arg("--blocks")
        .arg(&blocks)
        .arg("--record")
        .arg(&record)
        .status()?;
    if !status.success() {
        return Err("the chain could not be made".into());
    }
    let chain = Record::read(&record)?.chain.ok_or("the record is empty")?;
    let started = Instant::now();
    let load = format!("-loadblock={}", blocks.display());
    let mut node = Node::start(&args.programs.bitcoind, &chain_dir.join("node"), &[load])?;
    node.wait_for(u64::from(chain.height))?;
    node.running.stop()?;
    eprintln!("imported in {:.0} s", started.elapsed().as_secs_f64());
    fs::write(done, "")?;
    Ok(())
}

/// A program that was built with this one.
fn sibling(name: &str) -> Result<PathBuf, Failure> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

fn floor(args: &Args, node: &Node) -> Result<Floor, Failure> {
    node.warm()?;
    let rows = args.dir.join("floor.rows");
    let output = Command::new(sibling("bench-floor")?)
        .arg("--blocks-dir")
        .arg(node.dir.join("regtest/blocks"))
        .arg("--out")
        .arg(&rows)
        .stderr(Stdio::inherit())
        .output()?;
    fs::remove_file(rows)?;
    let floor: Floor = serde_json::from_slice(&output.stdout)?;
    eprintln!("the floor: {:.2} s", floor.seconds);
    Ok(floor)
}

fn measure(server: Server, args: &Args, node: &Node, record: &Record) -> Result<Sync, Failure> {
    let db_dir = args.dir.join("db");
    if db_dir.exists() {
        fs::remove_dir_all(&db_dir)?;
    }
    fs::create_dir_all(&db_dir)?;
    let log = args.dir.join(format!("{server:?}.log"));
    node.warm()?;
    let node_before = node.running.used()?;
    let mut started = servers::start(server, &args.programs, node, &db_dir, &log)?;
    let seconds = started.wait_until_served(record)?.as_secs_f64();
    let used = started.running.used()?;
    let node_after = node.running.used()?;
    let index = disk_bytes(&db_dir);
    let settled = settle(&started.running)?;
    let index_settled = disk_bytes(&db_dir);
    check(server, &started.address, record)?;
    let stop_seconds = started.running.stop()?.as_secs_f64();

    let log = args.dir.join(format!("{server:?}-again.log"));
    warm(&db_dir)?;
    let mut again = servers::start(server, &args.programs, node, &db_dir, &log)?;
    let serving_again_seconds = again.wait_until_served(record)?.as_secs_f64();
    again.running.stop()?;
    fs::remove_dir_all(&db_dir)?;
    Ok(Sync {
        seconds,
        cpu_seconds: used.cpu_seconds,
        node_cpu_seconds: node_after.cpu_seconds - node_before.cpu_seconds,
        peak_memory: settled.peak_memory,
        written: used.written,
        index,
        written_settled: settled.written,
        index_settled,
        stop_seconds,
        serving_again_seconds,
    })
}

/// Waits until a server writes no more.
fn settle(running: &process::Running) -> Result<Used, Failure> {
    const QUIET: Duration = Duration::from_secs(4);
    const PATIENCE: Duration = Duration::from_secs(120);
    let started = Instant::now();
    let mut used = running.used()?;
    let mut since = Instant::now();
    while since.elapsed() < QUIET && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
        let now = running.used()?;
        if now.written != used.written {
            since = Instant::now();
        }
        used = now;
    }
    Ok(used)
}

/// Asks for scripts of all sizes and compares with the record.
fn check(server: Server, address: &str, record: &Record) -> Result<(), Failure> {
    let mut client = Client::negotiated(address)?;
    let (small, large) = if server.is_slow() {
        (300, 1)
    } else {
        (20_000, usize::MAX)
    };
    let step = (record.scripts.len() / small).max(1);
    let mut large_left = large;
    let mut checked = 0;
    for (number, script) in record.scripts.iter().enumerate() {
        if script.entries > 1_000 {
            if large_left == 0 {
                continue;
            }
            large_left -= 1;
        } else if number % step != 0 {
            continue;
        }
        check_script(&mut client, script)?;
        checked += 1;
    }
    eprintln!("{}: {checked} scripts as recorded", server.name());
    Ok(())
}

fn report(
    args: &Args,
    chain: &record::Chain,
    floors: &[Floor],
    syncs: &BTreeMap<&str, Vec<Sync>>,
) -> String {
    use std::fmt::Write;
    const MIB: f64 = (1 << 20) as f64;
    let floor = median(floors.iter().map(|floor| floor.seconds));
    let mut text = format!(
        "{} transactions, {} blocks, {:.0} MB of blocks; median of {} rounds\n\n",
        chain.transactions,
        chain.height,
        chain.bytes as f64 / 1e6,
        args.rounds
    );
    text += "| | wall s | ÷ floor | tx/s | CPU s | node's CPU s | peak MiB | written MiB | index MiB | bytes/tx | written ÷ index | stop s | serving again s |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
    let _ = writeln!(
        text,
        "| the floor | {floor:.2} | 1.0 | {:.0} | {:.1} | | {:.0} | | {:.0} | | | | |",
        chain.transactions as f64 / floor,
        median(floors.iter().map(|floor| floor.cpu_seconds)),
        median(floors.iter().map(|floor| floor.peak_memory as f64)) / MIB,
        median(floors.iter().map(|floor| floor.bytes as f64)) / MIB,
    );
    for (name, syncs) in syncs {
        let of = |get: fn(&Sync) -> f64| median(syncs.iter().map(get));
        let seconds = of(|sync| sync.seconds);
        let index = of(|sync| sync.index_settled as f64);
        let written = of(|sync| sync.written_settled as f64);
        let _ = writeln!(
            text,
            "| {name} | {seconds:.2} | {:.2} | {:.0} | {:.1} | {:.1} | {:.0} | {:.0} | {:.0} | {:.1} | {:.2} | {:.2} | {:.2} |",
            seconds / floor,
            chain.transactions as f64 / seconds,
            of(|sync| sync.cpu_seconds),
            of(|sync| sync.node_cpu_seconds),
            of(|sync| sync.peak_memory as f64) / MIB,
            written / MIB,
            index / MIB,
            index / chain.transactions as f64,
            written / index,
            of(|sync| sync.stop_seconds),
            of(|sync| sync.serving_again_seconds),
        );
    }
    text
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => figures[middle],
        _ => (figures[middle - 1] + figures[middle]) / 2.0,
    }
}
