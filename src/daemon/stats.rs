//! How the node is asked and whether it answers: counters, for the status page and the metrics.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Exchanges with the node by one of its interfaces. The long poll is none: it is meant to take long.
#[derive(Default)]
pub struct Stats {
    calls: AtomicU64,
    failures: AtomicU64,
    nanos: AtomicU64,
}

impl Stats {
    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// Those that got no answer.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Time that all took together, with what they waited for their turn.
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Relaxed))
    }

    pub(super) fn count(&self, took: Duration, is_answered: bool) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.calls.fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
        if !is_answered {
            self.failures.fetch_add(1, Relaxed);
        }
    }
}
