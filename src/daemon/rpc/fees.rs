//! Fee estimates, kept until the next block: hundreds of wallets ask for the same few.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::RpcError;

/// The node answers for up to 1,008 blocks and three modes: no more keys can get an answer that is
/// kept. The bound is for a node that answers more.
const ESTIMATES_MAX: usize = 8 * 1008;

type Key = (u16, Option<String>);

#[derive(Default)]
pub(super) struct Cache {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    estimates: HashMap<Key, Option<f64>>,
    /// How often all was forgotten: an answer to a question from before is not kept.
    generation: u64,
}

impl Cache {
    pub fn estimate(
        &self,
        blocks: u16,
        mode: Option<&str>,
        ask: impl FnOnce(Option<&str>) -> Result<Option<f64>, RpcError>,
    ) -> Result<Option<f64>, RpcError> {
        // The node does not care for the case of its letters.
        let mode = mode.map(str::to_ascii_lowercase);
        let key = (blocks, mode);
        let generation = {
            let kept = self.lock();
            if let Some(estimate) = kept.estimates.get(&key) {
                return Ok(*estimate);
            }
            kept.generation
        };
        let estimate = ask(key.1.as_deref())?;
        let mut kept = self.lock();
        if kept.generation == generation && kept.estimates.len() < ESTIMATES_MAX {
            kept.estimates.insert(key, estimate);
        }
        Ok(estimate)
    }

    pub fn clear(&self) {
        let mut kept = self.lock();
        kept.estimates.clear();
        kept.generation = kept.generation.wrapping_add(1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_asked_for_once_in_a_block() {
        let cache = Cache::default();
        let asked = |mode: Option<&str>, rate| cache.estimate(6, mode, |_| Ok(Some(rate)));
        assert_eq!(asked(None, 1.0), Ok(Some(1.0)));
        assert_eq!(asked(None, 2.0), Ok(Some(1.0)));
        assert_eq!(asked(Some("ECONOMICAL"), 3.0), Ok(Some(3.0)));
        assert_eq!(asked(Some("economical"), 4.0), Ok(Some(3.0)));
        cache.clear();
        assert_eq!(asked(None, 5.0), Ok(Some(5.0)));
    }

    #[test]
    fn that_there_is_no_estimate_is_kept_and_an_error_is_not() {
        let cache = Cache::default();
        let error = RpcError::Unavailable("away".into());
        assert_eq!(cache.estimate(1, None, |_| Err(error.clone())), Err(error));
        assert_eq!(cache.estimate(1, None, |_| Ok(None)), Ok(None));
        assert_eq!(cache.estimate(1, None, |_| Ok(Some(1.0))), Ok(None));
    }

    #[test]
    fn an_answer_that_a_block_has_overtaken_is_not_kept() {
        let cache = Cache::default();
        let overtaken = cache.estimate(1, None, |_| {
            cache.clear();
            Ok(Some(1.0))
        });
        assert_eq!(overtaken, Ok(Some(1.0)));
        assert_eq!(cache.estimate(1, None, |_| Ok(Some(2.0))), Ok(Some(2.0)));
    }
}
