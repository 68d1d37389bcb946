//! Who is connected and what waits: counters, for the status page and the metrics. Relaxed atomics: nobody waits
//! for a count.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::electrum::Lane;

use super::listen::ListenUrl;

/// Names of the kinds of listeners, as a URL begins.
pub const KINDS: [&str; 5] = ["tcp", "tls", "ws", "wss", "unix"];

pub(super) fn kind_of(url: &ListenUrl) -> usize {
    match url {
        ListenUrl::Tcp(_) => 0,
        ListenUrl::Tls(_) => 1,
        ListenUrl::Ws(_) => 2,
        ListenUrl::Wss(_) => 3,
        ListenUrl::Unix(_) => 4,
    }
}

/// Counters of all listeners and of the threads behind them.
#[derive(Default)]
pub struct Stats {
    /// By kind of listener.
    open: [AtomicU64; KINDS.len()],
    taken: [AtomicU64; KINDS.len()],
    refused: AtomicU64,
    /// By lane.
    waiting: [AtomicU64; 3],
    begun: [AtomicU64; 3],
}

/// Connections of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    pub kind: &'static str,
    pub open: u64,
    pub taken: u64,
}

impl Stats {
    pub fn connections(&self) -> [Connections; KINDS.len()] {
        std::array::from_fn(|kind| Connections {
            kind: KINDS[kind],
            open: self.open[kind].load(Relaxed),
            taken: self.taken[kind].load(Relaxed),
        })
    }

    /// Connections that a bound turned away.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Jobs that wait for a thread of this lane.
    pub fn waiting(&self, lane: Lane) -> u64 {
        self.waiting[lane as usize].load(Relaxed)
    }

    /// Jobs that this lane's threads took in hand.
    pub fn begun(&self, lane: Lane) -> u64 {
        self.begun[lane as usize].load(Relaxed)
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn wait(&self, lane: Lane, jobs: usize) {
        self.waiting[lane as usize].fetch_add(jobs as u64, Relaxed);
    }

    pub(super) fn begin(&self, lane: Lane) {
        self.waiting[lane as usize].fetch_sub(1, Relaxed);
        self.begun[lane as usize].fetch_add(1, Relaxed);
    }
}

/// A connection, for as long as it lasts.
pub(super) struct Open {
    stats: Arc<Stats>,
    kind: usize,
}

impl Open {
    pub fn new(stats: &Arc<Stats>, url: &ListenUrl) -> Open {
        let kind = kind_of(url);
        stats.open[kind].fetch_add(1, Relaxed);
        stats.taken[kind].fetch_add(1, Relaxed);
        Open {
            stats: stats.clone(),
            kind,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stats.open[self.kind].fetch_sub(1, Relaxed);
    }
}
