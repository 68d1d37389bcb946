//! How many databases this process has open, or is opening or closing: for who is about to leave it.
//!
//! # Concurrency
//! RocksDB keeps the folders that it has locked behind a static mutex. `exit` destroys that mutex while other threads
//! still run, and one that closes its database then ends the process by SIGABRT ("pthread lock: Invalid argument"),
//! whatever the exit code was to be. The last owner of an index may well be such a thread: a question's, the status
//! page's. So `main` waits here before it returns, and where that takes too long leaves without `exit`.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

static OPEN: OpenCount = OpenCount::new();

/// Waits until this process has no database open; false if that takes longer.
pub fn wait_until_closed(within: Duration) -> bool {
    OPEN.wait_until_none(within)
}

struct OpenCount {
    count: Mutex<usize>,
    fewer: Condvar,
}

impl OpenCount {
    const fn new() -> OpenCount {
        OpenCount {
            count: Mutex::new(0),
            fewer: Condvar::new(),
        }
    }

    fn count(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until_none(&self, within: Duration) -> bool {
        let waited = self
            .fewer
            .wait_timeout_while(self.count(), within, |count| *count > 0);
        let (count, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *count == 0
    }
}

/// One database, from before it is opened until after it is closed.
pub(super) struct Counted(&'static OpenCount);

impl Counted {
    pub fn new() -> Counted {
        Counted::by(&OPEN)
    }

    fn by(counter: &'static OpenCount) -> Counted {
        *counter.count() += 1;
        Counted(counter)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *self.0.count() -= 1;
        self.0.fewer.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{BlockHash, hashes::Hash};

    use super::*;
    use crate::index::Index;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn who_leaves_waits_for_the_last_to_close() {
        static COUNT: OpenCount = OpenCount::new();
        assert!(COUNT.wait_until_none(Duration::ZERO));
        let (first, second) = (Counted::by(&COUNT), Counted::by(&COUNT));
        drop(first);
        assert!(!COUNT.wait_until_none(SOON), "one is open");
        let closing = std::thread::spawn(move || {
            std::thread::sleep(SOON);
            drop(second);
        });
        assert!(COUNT.wait_until_none(LONG));
        closing.join().unwrap();
    }

    #[test]
    fn an_index_counts_while_it_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(folder.path(), &BlockHash::all_zeros()).unwrap();
        assert!(!wait_until_closed(Duration::ZERO));
        drop(index);
    }
}
