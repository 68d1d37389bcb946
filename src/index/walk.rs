//! Walks through a column family, by iterators that are kept: to make one costs as much as to look something up with it.
//!
//! # Concurrency
//! An iterator sees what had been written when it was made. So each write raises the epoch, after it is done, and only an
//! iterator that was made in the epoch at hand is used again. Whoever asks for what was written asks after the write
//! (memory moves after disk), so after the epoch was raised.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use rocksdb::{DB, DBRawIterator, ReadOptions};

use super::{Index, hash_rows::HISTORY};

/// Most iterators that are kept: those of some threads, for each column family that questions look into. One takes some
/// ten kilobytes, and holds on to files that a compaction replaced, until the next block.
const KEPT_MAX: usize = 32;

self_cell::self_cell!(
    struct OwnIterator {
        owner: Arc<DB>,
        #[covariant]
        dependent: DBRawIterator,
    }
);

struct Kept {
    family: &'static str,
    epoch: u64,
    iterator: OwnIterator,
}

/// Iterators that nobody uses at this moment.
#[derive(Default)]
pub(super) struct KeptIterators {
    epoch: AtomicU64,
    free: Mutex<Vec<Kept>>,
}

impl KeptIterators {
    fn free(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// To be called when something has been written.
    pub fn forget(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        // Not under the lock: it may be the last who needs a file.
        let old = std::mem::take(&mut *self.free());
        drop(old);
    }

    fn take(&self, family: &'static str) -> Option<Kept> {
        let mut free = self.free();
        let at = free.iter().rposition(|kept| kept.family == family)?;
        let kept = free.swap_remove(at);
        (kept.epoch == self.epoch()).then_some(kept)
    }

    fn give_back(&self, kept: Kept) {
        let mut free = self.free();
        if kept.epoch == self.epoch() && free.len() < KEPT_MAX {
            free.push(kept);
        }
    }
}

/// A walk through a column family.
pub(super) struct Walk<'a> {
    index: &'a Index,
    kept: Option<Kept>,
    is_given_back: bool,
}

impl Index {
    /// Stands nowhere until it is told where to.
    pub(super) fn walk(&self, family: &'static str) -> Walk<'_> {
        let kept = self.iterators.take(family);
        // A script's packed rows are looked for once; what comes of it is kept elsewhere. The system has the file's
        // pages besides.
        let fills_cache = family != HISTORY.packed;
        let kept = kept.unwrap_or_else(|| self.new_iterator(family, fills_cache));
        Walk {
            index: self,
            kept: Some(kept),
            is_given_back: true,
        }
    }

    /// For a scan of everything, which shall not drive out of the cache what questions need.
    pub(super) fn walk_once(&self, family: &'static str) -> Walk<'_> {
        Walk {
            index: self,
            kept: Some(self.new_iterator(family, false)),
            is_given_back: false,
        }
    }

    fn new_iterator(&self, family: &'static str, fills_cache: bool) -> Kept {
        let mut options = ReadOptions::default();
        options.fill_cache(fills_cache);
        Kept {
            family,
            epoch: self.iterators.epoch(),
            iterator: OwnIterator::new(self.db.clone(), |db| {
                db.raw_iterator_cf_opt(self.family(family), options)
            }),
        }
    }
}

const IS_THERE: &str = "a walk has its iterator until it is dropped";

impl Walk<'_> {
    fn iterator(&self) -> &DBRawIterator<'_> {
        self.kept
            .as_ref()
            .expect(IS_THERE)
            .iterator
            .borrow_dependent()
    }

    fn step(&mut self, step: impl FnOnce(&mut DBRawIterator<'_>)) {
        let kept = self.kept.as_mut().expect(IS_THERE);
        kept.iterator
            .with_dependent_mut(|_, iterator| step(iterator));
    }

    /// Goes to the first key at or after this one.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) {
        self.step(|iterator| iterator.seek(key));
    }

    pub fn seek_to_first(&mut self) {
        self.step(|iterator| iterator.seek_to_first());
    }

    pub fn next(&mut self) {
        self.step(|iterator| iterator.next());
    }

    pub fn key(&self) -> Option<&[u8]> {
        self.iterator().key()
    }

    pub fn item(&self) -> Option<(&[u8], &[u8])> {
        self.iterator().item()
    }

    /// An error where the end that was met is none.
    pub fn status(&self) -> Result<(), rocksdb::Error> {
        self.iterator().status()
    }
}

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.take().filter(|_| self.is_given_back)
            && kept.iterator.borrow_dependent().status().is_ok()
        {
            self.index.iterators.give_back(kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{BlockHash, hashes::Hash};

    use super::*;

    const OTHER: &str = HISTORY.single;

    #[test]
    fn iterators_are_used_again_until_something_is_written_and_few_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(folder.path(), &BlockHash::all_zeros()).unwrap();
        let kept = || index.iterators.free().len();
        for _ in 0..3 {
            let (mut one, other) = (index.walk(HISTORY.packed), index.walk(OTHER));
            one.seek([1]);
            assert_eq!((one.item(), other.key()), (None, None));
            assert_eq!(kept(), 0, "both are in use");
            drop((one, other));
            assert_eq!(kept(), 2);
        }
        // What was made before the write, and is given back after it, goes too.
        let old = index.walk(OTHER);
        index.iterators.forget();
        assert_eq!(kept(), 0);
        drop(old);
        assert_eq!(kept(), 0);
        // A scan's are nobody else's.
        drop(index.walk_once(OTHER));
        assert_eq!(kept(), 0);
        let many: Vec<Walk<'_>> = (0..KEPT_MAX + 5).map(|_| index.walk(OTHER)).collect();
        drop(many);
        assert_eq!(kept(), KEPT_MAX);
    }
}
