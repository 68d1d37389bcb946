//! What the writer does and whether it lives: for the status page, the metrics and the system's watchdog.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// The writer's signs of life may be so far apart: between two lie at most the exchanges of one round with the
/// node, which take milliseconds each, and on a node that is overloaded up to 30 s.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// How far the first sync is.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstSyncProgress {
    /// From 0 to 1.
    pub share: f64,
    pub left: Option<Duration>,
    /// What is at work, in words: "block 512331, 84 MB/s, 420000 transactions/s".
    pub text: String,
}

/// The writer's counters and signs of life.
pub struct Stats {
    began: Instant,
    pub(super) connected: AtomicU64,
    pub(super) disconnected: AtomicU64,
    pub(super) reorgs: AtomicU64,
    first_sync: Mutex<Option<FirstSyncProgress>>,
    complaint: Mutex<Option<String>>,
    node_is_incomplete: AtomicBool,
    /// The last sign of life, in milliseconds since `began`.
    beat: AtomicU64,
    /// Works that may take hours at one stretch.
    unhurried: AtomicU64,
}

impl Default for Stats {
    fn default() -> Stats {
        Stats {
            began: Instant::now(),
            connected: AtomicU64::new(0),
            disconnected: AtomicU64::new(0),
            reorgs: AtomicU64::new(0),
            first_sync: Mutex::default(),
            complaint: Mutex::default(),
            node_is_incomplete: AtomicBool::new(false),
            beat: AtomicU64::new(0),
            unhurried: AtomicU64::new(0),
        }
    }
}

/// While it is held, the writer counts as alive.
pub(super) struct Unhurried<'a>(&'a Stats);

impl Drop for Unhurried<'_> {
    fn drop(&mut self) {
        self.0.beat();
        self.0.unhurried.fetch_sub(1, Relaxed);
    }
}

impl Stats {
    /// Blocks connected at the tip; the first sync's are not counted.
    pub fn blocks_connected(&self) -> u64 {
        self.connected.load(Relaxed)
    }

    pub fn blocks_disconnected(&self) -> u64 {
        self.disconnected.load(Relaxed)
    }

    pub fn reorgs(&self) -> u64 {
        self.reorgs.load(Relaxed)
    }

    /// `None` before and after the first sync.
    pub fn first_sync(&self) -> Option<FirstSyncProgress> {
        lock(&self.first_sync).clone()
    }

    /// What keeps the writer from following the node, if something does.
    pub fn complaint(&self) -> Option<String> {
        lock(&self.complaint).clone()
    }

    /// True while the first sync cannot begin, because the node does not have its chain yet.
    pub fn node_is_incomplete(&self) -> bool {
        self.node_is_incomplete.load(Relaxed)
    }

    /// False where the writer has given no sign of life for too long.
    pub fn is_alive(&self) -> bool {
        self.unhurried.load(Relaxed) > 0 || self.silence() < SILENCE_MAX
    }

    fn silence(&self) -> Duration {
        let beat = Duration::from_millis(self.beat.load(Relaxed));
        self.began.elapsed().saturating_sub(beat)
    }

    pub(super) fn beat(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat.store(millis, Relaxed);
    }

    /// For work that nobody can tell the length of: a first sync on a slow disk, a scan of the whole index.
    pub(super) fn unhurried(&self) -> Unhurried<'_> {
        self.unhurried.fetch_add(1, Relaxed);
        Unhurried(self)
    }

    pub(super) fn set_first_sync(&self, progress: Option<FirstSyncProgress>) {
        *lock(&self.first_sync) = progress;
    }

    pub(super) fn set_node_is_incomplete(&self, is_so: bool) {
        self.node_is_incomplete.store(is_so, Relaxed);
    }

    pub(super) fn set_complaint(&self, complaint: Option<String>) {
        *lock(&self.complaint) = complaint;
    }
}

/// What these locks guard is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_that_gives_no_sign_is_dead_unless_it_said_that_it_takes_its_time() {
        let long_ago = Instant::now().checked_sub(2 * SILENCE_MAX);
        let stats = Stats {
            began: long_ago.expect("the machine runs for longer than this"),
            ..Stats::default()
        };
        assert!(!stats.is_alive());
        let work = stats.unhurried();
        assert!(stats.is_alive());
        drop(work);
        assert!(stats.is_alive(), "the end of long work is a sign of life");
        stats.beat.store(0, Relaxed);
        assert!(!stats.is_alive());
        stats.beat();
        assert!(stats.is_alive());
    }
}
