//! Everything that is shown, gathered at one moment: the shape of `/api/status`, which `docs/monitoring.md` tells.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::{
    Connections, Monitor, Server, Sources,
    connect::Connect,
    lock,
    machine::{self, Disk, Process},
    mempool::{self, MempoolReport},
    node::NodeReport,
    warnings::{self, Warning, unix_seconds},
};
use crate::{
    chain::Height,
    daemon,
    electrum::{BUCKETS_NS, Times, Told, Way},
    index::DatabaseMemory,
    state::{CacheFigures, SubscriptionCounts},
};

/// One moment. Times are Unix seconds, sizes bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub network: Option<&'static str>,
    pub now: u64,
    pub started: u64,
    pub is_ready: bool,
    /// Why it is not.
    pub not_ready: Option<String>,
    pub stage: Stage,
    pub sync: Sync,
    /// The newest block that is indexed.
    pub indexed: Option<Height>,
    /// The newest block that wallets are told of: while the first sync runs, the node's.
    pub tip: Option<TipReport>,
    pub node: Node,
    pub mempool: Option<MempoolReport>,
    pub wallets: Wallets,
    pub cache: Cache,
    pub machine: Machine,
    pub database: Database,
    pub pages: u64,
    pub warnings: Vec<Warning>,
    #[serde(skip)]
    pub log_lines: [(&'static str, u64); 2],
    pub connect: Vec<Connect>,
    /// The certificate's, SHA-256.
    pub fingerprint: Option<String>,
}

/// What Ambra is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// For the node, before anything can begin: that it answers, or that it has its chain.
    Waiting,
    FirstSync,
    CatchingUp,
    InStep,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Sync {
    /// What is done now, in words; nothing when in step.
    pub text: Option<String>,
    /// Of the index, 0 to 1; 1 when in step.
    pub share: f64,
    pub seconds_left: Option<u64>,
    /// Seconds since the start, and the share that was done then.
    pub curve: Vec<(f64, f64)>,
    pub blocks_connected: u64,
    pub blocks_disconnected: u64,
    pub reorgs: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct TipReport {
    pub height: Height,
    pub hash: String,
    /// The block's own.
    pub time: u32,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Node {
    #[serde(flatten)]
    pub report: NodeReport,
    /// `files`, `REST` or `RPC`.
    pub block_source: Option<&'static str>,
    pub zmq: Option<Zmq>,
    pub calls: Vec<Calls>,
}

/// How news come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Zmq {
    On,
    /// The node publishes, but the connection is broken.
    Lost,
    /// The node publishes nothing: it is polled.
    Off,
}

/// Exchanges with the node.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Calls {
    pub by: &'static str,
    pub calls: u64,
    pub failures: u64,
    pub seconds: f64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Wallets {
    pub connections: Vec<Connections>,
    pub refused: u64,
    pub subscriptions: Subscriptions,
    pub requests: u64,
    pub errors: u64,
    pub notifications: u64,
    /// Half of all requests were answered within this time, and 99 of 100.
    pub half_within_seconds: Option<f64>,
    pub most_within_seconds: Option<f64>,
    #[serde(skip)]
    pub detail: Detail,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Subscriptions {
    pub scripts: u64,
    pub outpoints: u64,
    pub tips: u64,
}

/// For the metrics alone.
#[derive(Clone, Debug, Default)]
pub struct Detail {
    pub requests: Vec<(&'static str, u64)>,
    pub errors: Vec<(&'static str, &'static str, u64)>,
    pub notifications: Vec<(&'static str, u64)>,
    pub times: Vec<(&'static str, Times)>,
    pub waiting: Vec<(&'static str, u64)>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cache {
    pub bytes: u64,
    pub bytes_max: u64,
    pub hits: u64,
    pub misses: u64,
    /// Of merkle trees.
    pub proof_bytes: u64,
    pub large_tx_bytes: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    #[serde(flatten)]
    pub process: Process,
    /// Of the index's tables.
    pub index_bytes: u64,
    #[serde(flatten)]
    pub disk: Disk,
}

/// What the database keeps in memory, in bytes; part of what the process takes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Database {
    pub unwritten_bytes: u64,
    pub tables_bytes: u64,
    pub cache_bytes: u64,
}

impl From<DatabaseMemory> for Database {
    fn from(memory: DatabaseMemory) -> Database {
        Database {
            unwritten_bytes: memory.unwritten,
            tables_bytes: memory.tables,
            cache_bytes: memory.cache,
        }
    }
}

impl Report {
    pub fn json(&self) -> String {
        // Its numbers and texts can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Monitor {
    /// As of now. Reads memory and the system's figures, asks nobody.
    pub fn report(&self) -> Report {
        let not_ready = self.not_ready();
        let log = warnings::of_this_process();
        let mut report = Report {
            version: env!("CARGO_PKG_VERSION"),
            network: None,
            now: unix_seconds(SystemTime::now()),
            started: unix_seconds(self.0.began_at),
            is_ready: not_ready.is_none(),
            not_ready,
            stage: Stage::Waiting,
            sync: Sync::default(),
            indexed: None,
            tip: None,
            node: Node::default(),
            mempool: None,
            wallets: Wallets::default(),
            cache: Cache::default(),
            machine: Machine {
                process: machine::process(),
                ..Machine::default()
            },
            database: Database::default(),
            pages: self.0.pages.load(Relaxed),
            warnings: log.newest(),
            log_lines: log.counts(),
            connect: self.0.connect.get().cloned().unwrap_or_default(),
            fingerprint: None,
        };
        match self.0.sources.get() {
            Some(sources) => self.add_rooms(sources, &mut report),
            None => report.sync.text = report.not_ready.clone(),
        }
        report
    }

    fn add_rooms(&self, sources: &Sources, report: &mut Report) {
        let view = sources.state.view();
        let looked = lock(&self.0.looked).clone();
        report.network = Some(sources.network);
        report.fingerprint.clone_from(&sources.fingerprint);
        let progress = progress(sources, looked.node.blocks);
        report.stage = progress.stage;
        report.sync = Sync {
            text: progress.text,
            share: progress.share,
            seconds_left: progress.left.map(|left| left.as_secs()),
            curve: lock(&self.0.curve).points(),
            blocks_connected: sources.sync.blocks_connected(),
            blocks_disconnected: sources.sync.blocks_disconnected(),
            reorgs: sources.sync.reorgs(),
        };
        let tip = view.tip();
        report.tip = Some(TipReport {
            height: tip.height,
            hash: tip.hash.to_string(),
            time: time_of(&tip.header),
        });
        report.indexed = progress.indexed;
        report.node = Node {
            report: looked.node,
            block_source: Some(sources.source.kind().name()),
            zmq: Some(match sources.zmq.as_ref().map(|on| on.load(Relaxed)) {
                Some(true) => Zmq::On,
                Some(false) => Zmq::Lost,
                None => Zmq::Off,
            }),
            calls: calls(sources),
        };
        let (transactions, by_rate) = view.mempool_by_rate();
        report.mempool = Some(mempool::report(transactions, &by_rate));
        report.wallets = wallets(sources, (sources.server)());
        let CacheFigures {
            bytes,
            bytes_max,
            hits,
            misses,
            proof_bytes,
            large_tx_bytes,
        } = sources.state.cache_figures();
        report.cache = Cache {
            bytes: bytes as u64,
            bytes_max: bytes_max as u64,
            hits,
            misses,
            proof_bytes,
            large_tx_bytes,
        };
        report.machine.index_bytes = looked.index_bytes;
        report.machine.disk = looked.disk;
        report.database = sources.index.memory().unwrap_or_default().into();
    }
}

/// How far the index is.
pub(super) struct Progress {
    pub stage: Stage,
    pub share: f64,
    left: Option<Duration>,
    text: Option<String>,
    indexed: Option<Height>,
}

/// `node_blocks`: as many as the node has, where that is known.
pub(super) fn progress(sources: &Sources, node_blocks: Option<Height>) -> Progress {
    let indexed = sources.index.tip().ok().flatten().map(|tip| tip.height);
    let text = sources.state.view().progress();
    let told = |stage, share, left, text| Progress {
        stage,
        share,
        left,
        text,
        indexed,
    };
    match (sources.sync.first_sync(), text, indexed) {
        (Some(first), _, _) => told(
            Stage::FirstSync,
            first.share.clamp(0.0, 1.0),
            first.left,
            Some(first.text),
        ),
        (None, Some(text), None) => {
            // The node is away, has not all its blocks yet, or none of the old ones any more.
            let complaint = sources.sync.complaint();
            let stage = match complaint.is_some() || sources.sync.node_is_incomplete() {
                true => Stage::Waiting,
                false => Stage::FirstSync,
            };
            told(stage, 0.0, None, Some(complaint.unwrap_or(text)))
        }
        (None, Some(text), Some(indexed)) => {
            let blocks = node_blocks.unwrap_or(indexed).max(indexed).max(1);
            let share = f64::from(indexed) / f64::from(blocks);
            told(Stage::CatchingUp, share, None, Some(text))
        }
        (None, None, _) => told(Stage::InStep, 1.0, None, None),
    }
}

/// In its header: four bytes, little-endian, behind version, previous hash and merkle root.
fn time_of(header: &[u8; 80]) -> u32 {
    u32::from_le_bytes([header[68], header[69], header[70], header[71]])
}

fn calls(sources: &Sources) -> Vec<Calls> {
    let of = |by, stats: &daemon::Stats| Calls {
        by,
        calls: stats.calls(),
        failures: stats.failures(),
        seconds: stats.time().as_secs_f64(),
    };
    let rest = sources.source.rest().map(|rest| of("rest", rest.stats()));
    [of("rpc", sources.rpc.stats())]
        .into_iter()
        .chain(rest)
        .collect()
}

fn wallets(sources: &Sources, server: Server) -> Wallets {
    let stats = &sources.electrum;
    let SubscriptionCounts {
        scripts,
        outpoints,
        tips,
    } = sources.state.subscriptions().counts();
    let detail = Detail {
        requests: stats.requests(),
        errors: stats.errors(),
        notifications: Told::ALL
            .map(|of| (of.name(), stats.notifications(of)))
            .to_vec(),
        times: Way::ALL.map(|way| (way.name(), stats.times(way))).to_vec(),
        waiting: server.waiting,
    };
    Wallets {
        connections: server.connections,
        refused: server.refused,
        subscriptions: Subscriptions {
            scripts,
            outpoints,
            tips,
        },
        requests: detail.requests.iter().map(|(_, count)| count).sum(),
        errors: detail.errors.iter().map(|(_, _, count)| count).sum(),
        notifications: detail.notifications.iter().map(|(_, count)| count).sum(),
        half_within_seconds: within(&detail.times, 0.5),
        most_within_seconds: within(&detail.times, 0.99),
        detail,
    }
}

/// The bound of the first bucket up to which this share of all requests was answered; `None` where there were
/// none, or the slowest took longer than all bounds.
fn within(times: &[(&str, Times)], share: f64) -> Option<f64> {
    let count: u64 = times.iter().map(|(_, times)| times.count).sum();
    let wanted = (count as f64 * share).ceil() as u64;
    let up_to = |bucket: usize| -> u64 { times.iter().map(|(_, times)| times.up_to[bucket]).sum() };
    let bucket = (0..BUCKETS_NS.len()).find(|bucket| up_to(*bucket) >= wanted)?;
    (count > 0).then(|| BUCKETS_NS[bucket] as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_most_answers_is_their_buckets_bound() {
        let mut fast = Times {
            up_to: [90; BUCKETS_NS.len()],
            count: 90,
            ..Times::default()
        };
        let mut slow = Times::default();
        assert_eq!(within(&[("memory", slow.clone())], 0.5), None);
        assert_eq!(within(&[("memory", fast.clone())], 0.99), Some(1e-5));
        slow.count = 10;
        slow.up_to[3..].fill(10);
        let both = [("memory", fast.clone()), ("disk", slow.clone())];
        assert_eq!(within(&both, 0.9), Some(1e-5));
        assert_eq!(within(&both, 0.91), Some(1e-4));
        // Longer than all bounds.
        fast.count = 91;
        assert_eq!(within(&[("memory", fast), ("disk", slow)], 1.0), None);
    }
}
