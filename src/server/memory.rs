//! Memory for what comes from and goes to all connections: one bound for all of them.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::limits::SMALL;

/// That it is used up is logged this often at most: floods close many connections.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// What all connections hold beyond [`SMALL`] each, in bytes.
pub struct Memory {
    max: usize,
    used: AtomicUsize,
    /// When it was logged last that it is used up.
    told: Mutex<Option<Instant>>,
}

impl Memory {
    pub fn new(max: usize) -> Memory {
        Memory {
            max,
            used: AtomicUsize::new(0),
            told: Mutex::default(),
        }
    }

    /// For a connection, which holds nothing yet.
    pub fn share(self: &Arc<Self>) -> Share {
        Share {
            memory: self.clone(),
            held: 0,
        }
    }
}

/// What one connection holds; given back when it is dropped.
pub struct Share {
    memory: Arc<Memory>,
    held: usize,
}

impl Share {
    /// The connection holds so many bytes now. False: they are more than there is room for.
    pub fn hold(&mut self, bytes: usize) -> bool {
        let held = bytes.saturating_sub(SMALL);
        let before = std::mem::replace(&mut self.held, held);
        if held <= before {
            if held < before {
                self.memory.used.fetch_sub(before - held, Ordering::Relaxed);
            }
            return true;
        }
        let more = held - before;
        let used = self.memory.used.fetch_add(more, Ordering::Relaxed);
        used.saturating_add(more) <= self.memory.max
    }
}

impl Share {
    /// Logs that a client is closed for want of memory.
    pub fn tell(&self) {
        let told = &self.memory.told;
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() > LOG_PAUSE) {
            *told = Some(Instant::now());
            let mib = self.memory.max >> 20;
            tracing::warn!(
                "clients are closed: the memory for all of them is used up ({mib} MiB, --max-client-memory)"
            );
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.hold(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_little_is_never_refused_and_what_is_dropped_is_given_back() {
        let memory = Arc::new(Memory::new(1000));
        let (mut one, mut other) = (memory.share(), memory.share());
        assert!(one.hold(SMALL + 600));
        assert!(one.hold(SMALL + 700));
        assert!(!other.hold(SMALL + 301));
        assert!(other.hold(SMALL + 300));
        assert!(memory.share().hold(SMALL));
        drop(one);
        assert!(other.hold(SMALL + 1000));
        drop(other);
        assert_eq!(memory.used.load(Ordering::Relaxed), 0);
    }
}
