//! What was asked and how fast it was answered: counters, for the status page and the metrics.
//!
//! # Concurrency
//! Relaxed atomics, no lock: figures that are read while requests run may be some requests apart from each other.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{
    Refusal,
    job::Lane,
    methods::{METHODS, Method},
};

/// Upper ends of the histogram's buckets, in nanoseconds: 10 µs to 10 s. An answer from memory takes some
/// microseconds, one read of an SSD a tenth of a millisecond, of a hard disk ten milliseconds.
pub const BUCKETS_NS: [u64; 16] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
];

/// The method of a request that names none that there is.
pub const UNKNOWN_METHOD: &str = "unknown";

/// How an answer was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// At once, from memory.
    Memory,
    /// On another thread, with some reads of disk.
    Disk,
    /// On another thread: a long history.
    Long,
    /// From the node.
    Node,
}

impl Way {
    pub const ALL: [Way; 4] = [Way::Memory, Way::Disk, Way::Long, Way::Node];

    pub fn name(self) -> &'static str {
        match self {
            Way::Memory => "memory",
            Way::Disk => "disk",
            Way::Long => "long",
            Way::Node => "node",
        }
    }
}

impl From<Lane> for Way {
    fn from(lane: Lane) -> Way {
        match lane {
            Lane::Short => Way::Disk,
            Lane::Long => Way::Long,
            Lane::Node => Way::Node,
        }
    }
}

/// What a notification tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Tip,
    Script,
    Outpoint,
}

impl Told {
    pub const ALL: [Told; 3] = [Told::Tip, Told::Script, Told::Outpoint];

    pub fn name(self) -> &'static str {
        match self {
            Told::Tip => "tip",
            Told::Script => "script",
            Told::Outpoint => "outpoint",
        }
    }
}

/// A request that is being answered.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Its row in [`METHODS`], or their number where there is none.
    row: usize,
    at: Instant,
}

impl Asked {
    pub fn now() -> Asked {
        Asked {
            row: METHODS.len(),
            at: Instant::now(),
        }
    }

    /// Its method is known now.
    pub fn names(&mut self, method: &'static Method) {
        let from_first = std::ptr::from_ref(method).addr() - METHODS.as_ptr().addr();
        self.row = (from_first / size_of::<Method>()).min(METHODS.len());
    }
}

/// Counters of all sessions.
pub struct Stats {
    /// By row of [`METHODS`]; the last is for requests that name none.
    rows: Box<[Row]>,
    ways: [Histogram; Way::ALL.len()],
    notifications: [AtomicU64; Told::ALL.len()],
}

#[derive(Default)]
struct Row {
    requests: AtomicU64,
    errors: [AtomicU64; Refusal::KINDS.len()],
}

#[derive(Default)]
struct Histogram {
    /// The last is for what took longer than all bounds.
    buckets: [AtomicU64; BUCKETS_NS.len() + 1],
    sum_ns: AtomicU64,
}

/// A histogram as it is now: how many took up to each bound of [`BUCKETS_NS`], how many there were, and
/// how long all took together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    pub up_to: [u64; BUCKETS_NS.len()],
    pub count: u64,
    pub sum: Duration,
}

impl Default for Stats {
    fn default() -> Stats {
        Stats {
            rows: (0..=METHODS.len()).map(|_| Row::default()).collect(),
            ways: Default::default(),
            notifications: Default::default(),
        }
    }
}

impl Stats {
    pub(super) fn answered(&self, asked: Asked, way: Way, refusal: Option<&Refusal>) {
        self.ways[way as usize].add(asked.at.elapsed());
        if let Some(row) = self.rows.get(asked.row) {
            row.requests.fetch_add(1, Relaxed);
            if let Some(refusal) = refusal {
                row.errors[refusal.kind()].fetch_add(1, Relaxed);
            }
        }
    }

    pub(super) fn notified(&self, of: Told) {
        self.notifications[of as usize].fetch_add(1, Relaxed);
    }

    /// Requests by method; methods that nobody asked for are left out.
    pub fn requests(&self) -> Vec<(&'static str, u64)> {
        self.by_method(|row| row.requests.load(Relaxed))
    }

    /// Requests answered by an error: method, kind of error, how many.
    pub fn errors(&self) -> Vec<(&'static str, &'static str, u64)> {
        let kinds = Refusal::KINDS.iter().enumerate();
        kinds
            .flat_map(|(kind, error)| {
                let counts = self.by_method(|row| row.errors[kind].load(Relaxed));
                counts
                    .into_iter()
                    .map(move |(method, count)| (method, *error, count))
            })
            .collect()
    }

    pub fn notifications(&self, of: Told) -> u64 {
        self.notifications[of as usize].load(Relaxed)
    }

    pub fn times(&self, way: Way) -> Times {
        self.ways[way as usize].times()
    }

    /// Sums up the rows of each name.
    fn by_method(&self, count: impl Fn(&Row) -> u64) -> Vec<(&'static str, u64)> {
        let names = METHODS.iter().map(|method| method.name);
        let mut counts: Vec<(&str, u64)> = names
            .chain([UNKNOWN_METHOD])
            .zip(&self.rows)
            .map(|(name, row)| (name, count(row)))
            .filter(|(_, count)| *count > 0)
            .collect();
        counts.sort_unstable();
        counts.dedup_by(|row, kept| {
            let is_same = row.0 == kept.0;
            if is_same {
                kept.1 += row.1;
            }
            is_same
        });
        counts
    }
}

impl Histogram {
    fn add(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_NS.partition_point(|bound| *bound < nanos);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(nanos, Relaxed);
    }

    fn times(&self) -> Times {
        let mut times = Times {
            sum: Duration::from_nanos(self.sum_ns.load(Relaxed)),
            ..Times::default()
        };
        for (at, bucket) in self.buckets.iter().enumerate() {
            times.count += bucket.load(Relaxed);
            if let Some(up_to) = times.up_to.get_mut(at) {
                *up_to = times.count;
            }
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_name_whatever_their_version() {
        let stats = Stats::default();
        // It has a row for each of its shapes.
        let rows: Vec<_> = METHODS
            .iter()
            .filter(|method| method.name == "blockchain.block.headers")
            .collect();
        assert!(rows.len() > 1);
        for method in &rows {
            let mut asked = Asked::now();
            asked.names(method);
            stats.answered(asked, Way::Disk, Some(&Refusal::Cancelled));
        }
        stats.answered(Asked::now(), Way::Memory, Some(&Refusal::Parse));
        stats.answered(Asked::now(), Way::Memory, None);
        let count = rows.len() as u64;
        assert_eq!(
            stats.requests(),
            [("blockchain.block.headers", count), (UNKNOWN_METHOD, 2)]
        );
        let errors = stats.errors();
        assert!(errors.contains(&("blockchain.block.headers", "cancelled", count)));
        assert!(errors.contains(&(UNKNOWN_METHOD, "parse", 1)));
        assert_eq!(errors.len(), 2);
        assert_eq!(stats.times(Way::Disk).count, count);
    }

    #[test]
    fn a_bucket_holds_what_took_up_to_its_bound_and_all_below() {
        let histogram = Histogram::default();
        for nanos in [1, 10_000, 10_001, 10_000_000_000, 10_000_000_001] {
            histogram.add(Duration::from_nanos(nanos));
        }
        let times = histogram.times();
        assert_eq!(times.up_to[0], 2);
        assert_eq!(times.up_to[1], 3);
        assert_eq!(times.up_to[BUCKETS_NS.len() - 1], 4);
        assert_eq!(times.count, 5);
        assert!(BUCKETS_NS.is_sorted());
    }
}
