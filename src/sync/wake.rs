//! What wakes the writer: the node's messages, a long poll where it sends none, the clock behind both.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use super::{RETRY, Stop};
use crate::daemon::{rpc::Rpc, zmq::ZmqEvent};

/// How long a call for a new block waits at the node.
const LONG_POLL: Duration = Duration::from_secs(30);

/// A transaction that is replaced leaves the mempool just before the other one comes, and the node tells of both in
/// two messages. So long the second is waited for, else wallets would be told of a payment that is gone and,
/// a moment later, of one that is there; some do not even read a status of `null` in a push.
const REPLACEMENT_WAIT: Duration = Duration::from_millis(200);

/// Messages that may wait for the writer; more count as one "look at everything".
const WAKES_MAX: usize = 8192;

/// What wakes the writer.
#[derive(Clone, Copy, Debug)]
pub enum Wake {
    Zmq(ZmqEvent),
    /// The long poll saw another best block.
    Block,
    Stop,
}

/// The others' end: wakes the writer.
#[derive(Clone)]
pub struct Waker {
    wakes: SyncSender<Wake>,
    is_overflown: Arc<AtomicBool>,
}

impl Waker {
    pub fn wake(&self, wake: Wake) {
        if let Err(TrySendError::Full(_)) = self.wakes.try_send(wake) {
            self.is_overflown.store(true, Ordering::Relaxed);
        }
    }
}

/// What wakes the writer, as the writer sees it.
pub struct Wakes {
    wakes: Receiver<Wake>,
    is_overflown: Arc<AtomicBool>,
    /// True while the mempool's changes come by ZMQ.
    pub hears_mempool: Arc<AtomicBool>,
}

impl Wakes {
    /// Waits for a message, at most for `pause`, and puts all that have come by then into `events`: they are one
    /// round's work. False if it is time to stop.
    pub fn gather(&self, pause: Duration, events: &mut Vec<ZmqEvent>) -> bool {
        let mut next = self.wakes.recv_timeout(pause);
        let mut replacement_until = None;
        loop {
            match next {
                Ok(Wake::Zmq(event)) => events.push(event),
                Ok(Wake::Block) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
            }
            if events.len() >= WAKES_MAX {
                break;
            }
            next = match self.wakes.try_recv() {
                Ok(wake) => Ok(wake),
                Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => {
                    if !matches!(events.last(), Some(ZmqEvent::TxRemoved { .. })) {
                        break;
                    }
                    let until =
                        *replacement_until.get_or_insert_with(|| Instant::now() + REPLACEMENT_WAIT);
                    let left = until.saturating_duration_since(Instant::now());
                    match self.wakes.recv_timeout(left) {
                        Err(RecvTimeoutError::Timeout) => break,
                        next => next,
                    }
                }
            };
        }
        if self.is_overflown.swap(false, Ordering::Relaxed) {
            events.push(ZmqEvent::Missed);
        }
        true
    }
}

/// Both ends.
pub fn wakes() -> (Waker, Wakes) {
    let (sender, receiver) = sync_channel(WAKES_MAX);
    let is_overflown = Arc::<AtomicBool>::default();
    let waker = Waker {
        wakes: sender,
        is_overflown: is_overflown.clone(),
    };
    (
        waker,
        Wakes {
            wakes: receiver,
            is_overflown,
            hears_mempool: Arc::default(),
        },
    )
}

/// Waits at the node for new blocks and wakes the writer; for nodes that tell nothing by ZMQ. Ends with
/// the stop sign, at the latest when its call returns.
pub fn long_poll(rpc: &Rpc, waker: &Waker, stop: &Stop) {
    let mut known = None;
    while !stop.is_set() {
        let best = match known {
            Some(known) => rpc.wait_for_new_block(&known, LONG_POLL),
            None => rpc.best_block_hash(),
        };
        match best {
            Ok(best) => {
                if known != Some(best) {
                    waker.wake(Wake::Block);
                }
                known = Some(best);
            }
            Err(error) => {
                tracing::debug!("waiting for a new block: {error}");
                known = None;
                stop.wait(RETRY);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{Txid, hashes::Hash};

    use super::*;

    fn removed() -> Wake {
        Wake::Zmq(ZmqEvent::TxRemoved {
            txid: Txid::all_zeros(),
            sequence: 1,
        })
    }

    #[test]
    fn more_messages_than_fit_count_as_one_look_at_everything() {
        let (waker, wakes) = wakes();
        (0..=WAKES_MAX).for_each(|_| waker.wake(Wake::Zmq(ZmqEvent::Missed)));
        let mut events = Vec::new();
        assert!(wakes.gather(Duration::ZERO, &mut events));
        assert_eq!(events.len(), WAKES_MAX + 1);
        events.clear();
        assert!(wakes.gather(Duration::ZERO, &mut events));
        assert!(events.is_empty(), "the overflow is told once");
    }

    #[test]
    fn a_removal_waits_for_what_may_replace_it() {
        let (waker, wakes) = wakes();
        waker.wake(removed());
        let (start, mut events) = (Instant::now(), Vec::new());
        assert!(wakes.gather(Duration::ZERO, &mut events));
        assert_eq!(events.len(), 1);
        assert!(start.elapsed() >= REPLACEMENT_WAIT);
    }

    #[test]
    fn the_stop_sign_ends_the_gathering() {
        let (waker, wakes) = wakes();
        waker.wake(removed());
        waker.wake(Wake::Stop);
        assert!(!wakes.gather(Duration::ZERO, &mut Vec::new()));
    }
}
