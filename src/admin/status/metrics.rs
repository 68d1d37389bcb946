//! The metrics in Prometheus' text format, version 0.0.4. `docs/monitoring.md` lists them, and a test compares.

use std::fmt::Write;

use super::{
    node::NodeState,
    report::{Report, Zmq},
};
use crate::electrum::{BUCKETS_NS, Times};

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        }
    }
}

/// What is sampled: where the labels go, if there are any.
type Read = fn(&Report, &mut Samples);

struct Metric {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    read: Read,
}

const fn gauge(name: &'static str, help: &'static str, read: Read) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        help,
        read,
    }
}

const fn counter(name: &'static str, help: &'static str, read: Read) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        help,
        read,
    }
}

const fn histogram(name: &'static str, help: &'static str, read: Read) -> Metric {
    Metric {
        name,
        kind: Kind::Histogram,
        help,
        read,
    }
}

/// All of them, in the order in which they are told.
#[rustfmt::skip]
static METRICS: &[Metric] = &[
    gauge("ambra_info", "Always 1; its labels say what runs", |r, s| {
        s.add(&[("version", r.version), ("network", r.network.unwrap_or("")), ("block_source", r.node.block_source.unwrap_or(""))], 1.0);
    }),
    gauge("ambra_ready", "1 when /health says ready, else 0", |r, s| s.one(f64::from(u8::from(r.is_ready)))),
    gauge("ambra_tip_height", "Height of the newest block that is indexed", |r, s| s.maybe(r.indexed)),
    gauge("ambra_tip_time_seconds", "Time of the newest block's header, in Unix seconds", |r, s| {
        // While the first sync runs, the tip is one that is not indexed yet.
        let indexed = r.tip.as_ref().filter(|tip| r.indexed == Some(tip.height));
        s.maybe(indexed.map(|tip| tip.time));
    }),
    gauge("ambra_sync_progress_ratio", "Share of the index that is built; 1 when in step with the node", |r, s| s.one(r.sync.share)),
    gauge("ambra_sync_remaining_seconds", "Time that the first sync still takes, where that can be told", |r, s| s.count_maybe(r.sync.seconds_left)),
    counter("ambra_blocks_connected_total", "Blocks connected at the tip", |r, s| s.count(r.sync.blocks_connected)),
    counter("ambra_blocks_disconnected_total", "Blocks taken away by reorganizations", |r, s| s.count(r.sync.blocks_disconnected)),
    counter("ambra_reorgs_total", "Reorganizations", |r, s| s.count(r.sync.reorgs)),
    gauge("ambra_node_up", "1 if bitcoind answered last time, else 0", |r, s| match r.node.report.state {
        NodeState::Unknown => {}
        NodeState::Up => s.one(1.0),
        NodeState::Away => s.one(0.0),
    }),
    gauge("ambra_node_blocks", "Blocks that bitcoind has", |r, s| s.maybe(r.node.report.blocks)),
    gauge("ambra_node_headers", "Headers that bitcoind has", |r, s| s.maybe(r.node.report.headers)),
    gauge("ambra_node_peers", "Connections of bitcoind", |r, s| s.maybe(r.node.report.peers)),
    gauge("ambra_node_verification_progress_ratio", "Estimate of bitcoind of how much of the chain it has", |r, s| s.maybe(r.node.report.verification_progress)),
    gauge("ambra_node_zmq_connected", "1 while news come by ZMQ; 0 if they are polled for", |r, s| {
        s.maybe(r.node.zmq.map(|zmq| u8::from(zmq == Zmq::On)));
    }),
    counter("ambra_node_calls_total", "Exchanges with bitcoind", |r, s| {
        r.node.calls.iter().for_each(|of| s.add(&[("by", of.by)], of.calls as f64));
    }),
    counter("ambra_node_call_failures_total", "Exchanges with bitcoind that got no answer", |r, s| {
        r.node.calls.iter().for_each(|of| s.add(&[("by", of.by)], of.failures as f64));
    }),
    counter("ambra_node_call_seconds_total", "Time that the exchanges with bitcoind took, together", |r, s| {
        r.node.calls.iter().for_each(|of| s.add(&[("by", of.by)], of.seconds));
    }),
    gauge("ambra_mempool_transactions", "Unconfirmed transactions", |r, s| s.count_maybe(r.mempool.as_ref().map(|m| m.transactions))),
    gauge("ambra_mempool_vbytes", "Virtual bytes of unconfirmed transactions", |r, s| s.count_maybe(r.mempool.as_ref().map(|m| m.vbytes))),
    gauge("ambra_mempool_rate_vbytes", "Virtual bytes that pay this many sat/vB or more, but less than the next step", |r, s| {
        let steps = r.mempool.iter().flat_map(|mempool| &mempool.by_rate);
        steps.for_each(|step| s.add(&[("from", &step.from.to_string())], step.vbytes as f64));
    }),
    gauge("ambra_connections", "Wallets that are connected", |r, s| {
        r.wallets.connections.iter().for_each(|of| s.add(&[("kind", of.kind)], of.open as f64));
    }),
    counter("ambra_connections_total", "Connections that were taken", |r, s| {
        r.wallets.connections.iter().for_each(|of| s.add(&[("kind", of.kind)], of.taken as f64));
    }),
    counter("ambra_connections_refused_total", "Connections turned away by a bound", |r, s| s.count(r.wallets.refused)),
    gauge("ambra_subscriptions", "Subscriptions of all wallets", |r, s| {
        let all = r.wallets.subscriptions;
        for (kind, count) in [("script", all.scripts), ("outpoint", all.outpoints), ("tip", all.tips)] {
            s.add(&[("kind", kind)], count as f64);
        }
    }),
    counter("ambra_requests_total", "Requests that were answered", |r, s| {
        r.wallets.detail.requests.iter().for_each(|(method, count)| s.add(&[("method", method)], *count as f64));
    }),
    counter("ambra_request_errors_total", "Requests that were answered by an error", |r, s| {
        let errors = r.wallets.detail.errors.iter();
        errors.for_each(|(method, error, count)| s.add(&[("method", method), ("error", error)], *count as f64));
    }),
    histogram("ambra_request_seconds", "Time from a request's arrival to its answer", |r, s| {
        r.wallets.detail.times.iter().for_each(|(way, times)| s.times(way, times));
    }),
    counter("ambra_notifications_total", "Notifications to wallets", |r, s| {
        r.wallets.detail.notifications.iter().for_each(|(kind, count)| s.add(&[("kind", kind)], *count as f64));
    }),
    gauge("ambra_jobs_waiting", "Requests that wait for a thread", |r, s| {
        r.wallets.detail.waiting.iter().for_each(|(way, count)| s.add(&[("way", way)], *count as f64));
    }),
    gauge("ambra_cache_bytes", "Memory for what is known of scripts", |r, s| s.count(r.cache.bytes)),
    gauge("ambra_cache_limit_bytes", "Bound of that memory", |r, s| s.count(r.cache.bytes_max)),
    counter("ambra_cache_hits_total", "Questions about scripts that memory answered", |r, s| s.count(r.cache.hits)),
    counter("ambra_cache_misses_total", "Questions about scripts that read the disk", |r, s| s.count(r.cache.misses)),
    gauge("ambra_proof_cache_bytes", "Memory for merkle trees of blocks", |r, s| s.count(r.cache.proof_bytes)),
    gauge("ambra_transaction_cache_bytes", "Memory for large transactions", |r, s| s.count(r.cache.large_tx_bytes)),
    gauge("ambra_database_memory_bytes", "What the database keeps in memory, a part of the process's", |r, s| {
        let of = &r.database;
        for (part, bytes) in [("unwritten", of.unwritten_bytes), ("tables", of.tables_bytes), ("cache", of.cache_bytes)] {
            s.add(&[("part", part)], bytes as f64);
        }
    }),
    gauge("ambra_index_bytes", "Size of the index's tables", |r, s| s.count(r.machine.index_bytes)),
    gauge("ambra_index_files", "Files in the index's folder", |r, s| s.count(r.machine.disk.index_files)),
    gauge("ambra_index_folder_bytes", "Size of the index's folder, with logs and what a first sync puts aside", |r, s| s.count(r.machine.disk.index_folder_bytes)),
    gauge("ambra_disk_free_bytes", "Room that is left on the index's disk", |r, s| s.count_maybe(r.machine.disk.disk_free_bytes)),
    gauge("ambra_disk_bytes", "Size of the index's disk", |r, s| s.count_maybe(r.machine.disk.disk_bytes)),
    counter("ambra_log_lines_total", "Lines of the log that warn or tell of an error", |r, s| {
        r.log_lines.iter().for_each(|(level, count)| s.add(&[("level", level)], *count as f64));
    }),
    gauge("ambra_page_listeners", "Status pages that are open", |r, s| s.count(r.pages)),
    gauge("process_resident_memory_bytes", "Memory of the process", |r, s| s.count_maybe(r.machine.process.memory_bytes)),
    gauge("process_virtual_memory_bytes", "Address space of the process", |r, s| s.count_maybe(r.machine.process.address_space_bytes)),
    counter("process_cpu_seconds_total", "Processor time of the process, user's and system's", |r, s| s.maybe(r.machine.process.cpu_seconds)),
    gauge("process_threads", "Threads of the process", |r, s| s.count_maybe(r.machine.process.threads)),
    gauge("process_open_fds", "Open files of the process", |r, s| s.count_maybe(r.machine.process.open_files)),
    gauge("process_max_fds", "How many files the process may open", |r, s| s.count_maybe(r.machine.process.open_files_max)),
    gauge("process_start_time_seconds", "When the process started, in Unix seconds", |r, s| s.count(r.started)),
];

/// The samples of one metric in the making.
struct Samples {
    name: &'static str,
    text: String,
}

impl Samples {
    fn one(&mut self, value: f64) {
        self.add(&[], value);
    }

    fn count(&mut self, count: u64) {
        self.add(&[], count as f64);
    }

    fn maybe(&mut self, value: Option<impl Into<f64>>) {
        if let Some(value) = value {
            self.add(&[], value.into());
        }
    }

    fn count_maybe(&mut self, count: Option<u64>) {
        self.maybe(count.map(|count| count as f64));
    }

    fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        self.add_to("", labels, value);
    }

    fn times(&mut self, way: &str, times: &Times) {
        for (bound, count) in BUCKETS_NS.iter().zip(times.up_to) {
            let bound = (*bound as f64 / 1e9).to_string();
            self.add_to("_bucket", &[("way", way), ("le", &bound)], count as f64);
        }
        let count = times.count as f64;
        self.add_to("_bucket", &[("way", way), ("le", "+Inf")], count);
        self.add_to("_sum", &[("way", way)], times.sum.as_secs_f64());
        self.add_to("_count", &[("way", way)], count);
    }

    fn add_to(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        self.text += self.name;
        self.text += suffix;
        for (at, (label, text)) in labels.iter().enumerate() {
            self.text += if at == 0 { "{" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(self.text, "{label}=\"{}\"", escaped(text));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// As the format wants label values.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// All metrics that are known now.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for metric in METRICS {
        let mut samples = Samples {
            name: metric.name,
            text: String::new(),
        };
        (metric.read)(report, &mut samples);
        if !samples.text.is_empty() {
            let Metric {
                name, kind, help, ..
            } = metric;
            let _ = write!(
                text,
                "# HELP {name} {help}\n# TYPE {name} {}\n",
                kind.name()
            );
            text += &samples.text;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Monitor;
    use super::*;

    #[test]
    fn the_document_lists_each_metric_with_its_type_and_no_others() {
        let document = include_str!("../../../docs/monitoring.md");
        let listed: Vec<(&str, &str)> = document
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|line| {
                let (name, rest) = line.split_once("` | ")?;
                let (kind, _) = rest.split_once(" |")?;
                let is_kind = ["gauge", "counter", "histogram"].contains(&kind);
                is_kind.then_some((name, kind))
            })
            .collect();
        let made: Vec<(&str, &str)> = METRICS
            .iter()
            .map(|metric| (metric.name, metric.kind.name()))
            .collect();
        assert_eq!(listed, made);
    }

    #[test]
    fn names_follow_prometheus_rules() {
        for metric in METRICS {
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(metric.name.bytes().all(is_plain), "{}", metric.name);
            let is_total = metric.name.ends_with("_total");
            assert_eq!(is_total, metric.kind == Kind::Counter, "{}", metric.name);
            assert!(!metric.help.contains(['\n', '\\']), "{}", metric.name);
        }
    }

    #[test]
    fn before_the_rooms_are_joined_there_are_metrics_too() {
        let text = text(&Monitor::new().report());
        assert!(text.contains("\nambra_ready 0\n"), "{text}");
        assert!(!text.contains("ambra_node_up"), "{text}");
    }

    #[test]
    fn labels_are_escaped_and_a_histogram_has_its_buckets_sum_and_count() {
        let mut samples = Samples {
            name: "m",
            text: String::new(),
        };
        samples.add(&[("a", "x\"y\\z\n")], 0.5);
        assert_eq!(samples.text, "m{a=\"x\\\"y\\\\z\\n\"} 0.5\n");
        samples.text.clear();
        let mut times = Times {
            count: 3,
            sum: Duration::from_millis(1500),
            ..Times::default()
        };
        times.up_to[1..].fill(2);
        samples.times("disk", &times);
        let lines: Vec<_> = samples.text.lines().collect();
        assert_eq!(lines[0], "m_bucket{way=\"disk\",le=\"0.00001\"} 0");
        assert_eq!(lines[1], "m_bucket{way=\"disk\",le=\"0.000025\"} 2");
        let rest = [
            "m_bucket{way=\"disk\",le=\"+Inf\"} 3",
            "m_sum{way=\"disk\"} 1.5",
            "m_count{way=\"disk\"} 3",
        ];
        assert_eq!(lines[BUCKETS_NS.len()..], rest);
    }
}
