//! The node's ZMQ messages: that a block came, and what enters and leaves the mempool.
//!
//! All is a hint. Messages may be lost, and say so by a gap in their counters; then there is one
//! [`ZmqEvent::Missed`], and whoever listens polls. Nothing depends on ZMQ.
//!
//! # Concurrency
//! One task for each endpoint. It never waits for the listener: when the channel is full, messages are
//! dropped, and one [`ZmqEvent::Missed`] stands for them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bitcoin::{Txid, hashes::Hash};
use tokio::{sync::mpsc, task::AbortHandle, time};
use tracing::{debug, info};
use zeromq::{Socket, SocketRecv, SubSocket, ZmqError, ZmqMessage};

use super::rpc::ZmqNotification;

/// Events that wait for the listener; the node itself keeps 1000 messages (its option `-zmqpub*hwm`).
const EVENTS_MAX: usize = 4096;
/// Pauses between attempts to connect: doubled each time, up to the second.
const RECONNECT_FIRST: Duration = Duration::from_millis(250);
const RECONNECT_MAX: Duration = Duration::from_secs(15);
/// For one attempt.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How often the connection is proven by writing to it: a subscriber that only reads is not told by the
/// crate that the other side has gone.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// Nobody publishes under this name.
const PROBE_TOPIC: &str = "ambra-probe";

const HASHBLOCK: &str = "hashblock";
const SEQUENCE: &str = "sequence";

/// What the node said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZmqEvent {
    /// A block was connected or disconnected.
    BlockChanged,
    /// A transaction entered the mempool. `sequence` numbers these changes (see
    /// [`super::rpc::MempoolTxids::sequence`]).
    TxAdded { txid: Txid, sequence: u64 },
    /// A transaction left the mempool, and not by being mined.
    TxRemoved { txid: Txid, sequence: u64 },
    /// Messages were lost: look at everything.
    Missed,
}

/// Listens until dropped.
pub struct ZmqFeed {
    tasks: Vec<AbortHandle>,
    connected: Vec<Arc<AtomicBool>>,
    has_sequence: bool,
}

impl ZmqFeed {
    /// Listens, on the running tokio runtime, to what `getzmqnotifications` named. `None` where there is
    /// nothing to listen to. `node_host` is where the node's RPC is: an endpoint that is bound to all
    /// addresses is reached there.
    pub fn start(
        notifications: &[ZmqNotification],
        node_host: &str,
    ) -> Option<(ZmqFeed, mpsc::Receiver<ZmqEvent>)> {
        let endpoints = endpoints(notifications, node_host);
        if endpoints.is_empty() {
            return None;
        }
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let has_sequence = endpoints.values().any(|topics| topics.contains(&SEQUENCE));
        let mut feed = ZmqFeed {
            tasks: Vec::new(),
            connected: Vec::new(),
            has_sequence,
        };
        for (address, topics) in endpoints {
            info!(
                "listening to the node's ZMQ at {address} ({})",
                topics.join(", ")
            );
            let connected = Arc::default();
            feed.connected.push(Arc::clone(&connected));
            let listener = Listener {
                address,
                topics,
                connected,
                out: Out {
                    events: events.clone(),
                    missed: false,
                },
            };
            feed.tasks.push(tokio::spawn(listener.run()).abort_handle());
        }
        Some((feed, receiver))
    }

    /// True while the mempool's changes are heard of.
    pub fn hears_mempool(&self) -> bool {
        self.has_sequence && self.is_connected()
    }

    /// True while all endpoints are connected.
    pub fn is_connected(&self) -> bool {
        let is_set = |flag: &Arc<AtomicBool>| flag.load(Ordering::Relaxed);
        self.connected.iter().all(is_set)
    }
}

impl Drop for ZmqFeed {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Which topics to ask for at which address: the first address of each topic.
fn endpoints(
    notifications: &[ZmqNotification],
    node_host: &str,
) -> BTreeMap<String, Vec<&'static str>> {
    let mut endpoints = BTreeMap::<String, Vec<&'static str>>::new();
    for topic in [HASHBLOCK, SEQUENCE] {
        let addresses = notifications
            .iter()
            .filter(|notification| notification.kind.strip_prefix("pub") == Some(topic));
        let reachable = addresses.filter_map(|found| reachable(&found.address, node_host));
        if let Some(address) = { reachable }.next() {
            endpoints.entry(address).or_default().push(topic);
        }
    }
    endpoints
}

/// The address to connect to; `None` of what is not TCP.
fn reachable(address: &str, node_host: &str) -> Option<String> {
    let (host, port) = address.strip_prefix("tcp://")?.rsplit_once(':')?;
    let host = match host {
        "*" | "0.0.0.0" | "[::]" => node_host,
        host => host,
    };
    Some(format!("tcp://{host}:{port}"))
}

/// The way to the listener.
struct Out {
    events: mpsc::Sender<ZmqEvent>,
    /// A [`ZmqEvent::Missed`] is owed.
    missed: bool,
}

impl Out {
    fn tell(&mut self, event: ZmqEvent) {
        if event == ZmqEvent::Missed {
            self.missed = true;
        }
        if self.missed {
            // Whatever comes before the listener has heard that it missed something, is missed too.
            self.missed = self.events.try_send(ZmqEvent::Missed).is_err();
        } else if self.events.try_send(event).is_err() {
            self.missed = true;
        }
    }

    /// Ends when what was owed is paid (true), or the listener has gone (false).
    async fn settle(&mut self) -> bool {
        if !self.missed {
            self.events.closed().await;
            return false;
        }
        let permit = self.events.reserve().await;
        let Ok(permit) = permit else {
            return false;
        };
        permit.send(ZmqEvent::Missed);
        self.missed = false;
        true
    }
}

struct Listener {
    address: String,
    topics: Vec<&'static str>,
    connected: Arc<AtomicBool>,
    out: Out,
}

impl Listener {
    async fn run(mut self) {
        let mut pause = RECONNECT_FIRST;
        while !self.out.events.is_closed() {
            let began = Instant::now();
            let error = self.listen().await;
            if self.is_connected(false) {
                debug!("the node's ZMQ at {} is gone: {error}", self.address);
            }
            // One that held for a while is tried again soon.
            if began.elapsed() > RECONNECT_MAX {
                pause = RECONNECT_FIRST;
            }
            time::sleep(pause).await;
            pause = (pause * 2).min(RECONNECT_MAX);
        }
    }

    /// Sets whether; tells whether it was.
    fn is_connected(&self, now: bool) -> bool {
        self.connected.swap(now, Ordering::Relaxed)
    }

    /// Listens until something fails.
    async fn listen(&mut self) -> ZmqError {
        let mut socket = match self.connect().await {
            Ok(socket) => socket,
            Err(error) => return error,
        };
        self.is_connected(true);
        // What was said before is not known.
        self.out.tell(ZmqEvent::Missed);
        let mut counters = Counters::default();
        let mut probe = time::interval(PROBE_EVERY);
        let mut is_subscribed = false;
        loop {
            let message = tokio::select! {
                is_open = self.out.settle() => match is_open {
                    true => continue,
                    false => return ZmqError::Other("nobody listens"),
                },
                message = socket.recv() => message,
                _ = probe.tick() => {
                    is_subscribed = !is_subscribed;
                    let written = if is_subscribed {
                        socket.subscribe(PROBE_TOPIC).await
                    } else {
                        socket.unsubscribe(PROBE_TOPIC).await
                    };
                    match written {
                        Ok(()) => continue,
                        Err(error) => return error,
                    }
                }
            };
            match message {
                Ok(message) => {
                    for event in counters.read(&message).into_iter().flatten() {
                        self.out.tell(event);
                    }
                }
                Err(error) => return error,
            }
        }
    }

    async fn connect(&self) -> Result<SubSocket, ZmqError> {
        let mut socket = SubSocket::new();
        let connected = async {
            socket.connect(&self.address).await?;
            for topic in &self.topics {
                socket.subscribe(topic).await?;
            }
            Ok(())
        };
        match time::timeout(CONNECT_DEADLINE, connected).await {
            Ok(Ok(())) => Ok(socket),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ZmqError::Other("no answer")),
        }
    }
}

/// The number that each topic's next message should have.
#[derive(Default)]
struct Counters {
    hashblock: Option<u32>,
    sequence: Option<u32>,
}

impl Counters {
    /// What a message says: a gap before it, and itself. A message is its topic, its body, and a counter
    /// (Bitcoin Core `doc/zmq.md`).
    fn read(&mut self, message: &ZmqMessage) -> [Option<ZmqEvent>; 2] {
        let frame = |index| message.get(index).map(|frame| &frame[..]);
        let topic = frame(0).unwrap_or_default();
        let counter = frame(2).and_then(|frame| frame.try_into().ok());
        let (expected, event) = if topic == HASHBLOCK.as_bytes() {
            (&mut self.hashblock, Some(ZmqEvent::BlockChanged))
        } else if topic == SEQUENCE.as_bytes() {
            (&mut self.sequence, frame(1).and_then(sequence_event))
        } else {
            return [None, None];
        };
        let (Some(counter), Some(event)) = (counter.map(u32::from_le_bytes), event) else {
            return [Some(ZmqEvent::Missed), None];
        };
        let gap = expected.is_some_and(|expected| expected != counter);
        *expected = Some(counter.wrapping_add(1));
        [gap.then_some(ZmqEvent::Missed), Some(event)]
    }
}

/// The body of `sequence`: a hash as it is displayed, a letter, and for transactions the mempool's
/// sequence number.
fn sequence_event(body: &[u8]) -> Option<ZmqEvent> {
    let (hash, rest) = body.split_first_chunk::<32>()?;
    let (label, rest) = rest.split_first()?;
    let mut hash = *hash;
    hash.reverse();
    let txid = Txid::from_byte_array(hash);
    let sequence = || rest.try_into().ok().map(u64::from_le_bytes);
    match label {
        b'A' => sequence().map(|sequence| ZmqEvent::TxAdded { txid, sequence }),
        b'R' => sequence().map(|sequence| ZmqEvent::TxRemoved { txid, sequence }),
        b'C' | b'D' => Some(ZmqEvent::BlockChanged),
        _ => None,
    }
}

/// Reads frames, each behind its length in one byte, as one message.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(mut bytes: &[u8]) {
    let mut frames = Vec::new();
    while let Some((len, rest)) = bytes.split_first() {
        let (frame, rest) = rest.split_at(rest.len().min(usize::from(*len)));
        frames.push(frame.to_vec());
        bytes = rest;
    }
    let mut frames = frames.into_iter();
    let Some(topic) = frames.next() else { return };
    let mut message = ZmqMessage::from(topic);
    frames.for_each(|frame| message.push_back(frame.into()));
    let mut counters = Counters::default();
    let first = counters.read(&message);
    let again = counters.read(&message);
    // The same counter twice is told as a miss.
    if first[1].is_some() {
        assert_eq!(again[0], Some(ZmqEvent::Missed));
    }
}

#[cfg(test)]
mod tests;
