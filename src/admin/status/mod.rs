//! How Ambra does: a status page, metrics, health, and word to the system's service manager.
//!
//! A [`Monitor`] is made when the process starts and is told more as the start goes on. `report` gathers what the
//! rooms count into one [`Report`]; `http` serves it as page, JSON, server-sent events and health, `metrics` in
//! Prometheus' format, `systemd` tells the service manager.
//!
//! # Security
//! Everything here only reads. Nothing that is shown tells of a user's scripts, addresses or transactions.

mod connect;
mod curve;
mod http;
mod listen;
mod machine;
mod mempool;
mod metrics;
mod node;
mod page;
mod report;
pub mod systemd;
mod warnings;

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;

use crate::{
    daemon::{rpc::Rpc, source::BlockSource},
    electrum,
    index::Index,
    state::State,
    sync::{self, Stop},
};
use connect::Connect;
use curve::Curve;
pub use listen::{AdminListenError, AdminListener, NamedHosts};
use machine::Disk;
use node::NodeReport;
pub use report::{Report, Stage};
pub use warnings::layer as warnings_layer;

/// How long the node may take to answer a question that only this page asks.
pub const NODE_PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks at the node and at the disk.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Between two reports to open pages.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// So long a question may wait for the threads of short ones while none is taken in hand: a disk that answers
/// nothing for longer will not answer.
const STUCK_AFTER: Duration = Duration::from_secs(120);

/// What the rooms have to tell, once they are joined.
pub struct Sources {
    /// As `main`.
    pub network: &'static str,
    pub state: State,
    pub index: Arc<Index>,
    pub source: Arc<BlockSource>,
    /// The one that Ambra works with, for its counters.
    pub rpc: Rpc,
    /// To ask the node with; its calls should end within [`NODE_PATIENCE`].
    pub node: Rpc,
    pub sync: Arc<sync::Stats>,
    pub electrum: Arc<electrum::Stats>,
    pub server: ServerFigures,
    /// True while the node's news come by ZMQ; `None` where it publishes none.
    pub zmq: Option<Arc<AtomicBool>>,
    /// The listeners' URLs, as they are bound.
    pub listeners: Vec<String>,
    /// Of the certificate, SHA-256.
    pub fingerprint: Option<String>,
}

/// Gives what the server counts: this room stands beside it.
pub type ServerFigures = Box<dyn Fn() -> Server + Send + Sync>;

/// What the server counts.
#[derive(Clone, Debug, Default)]
pub struct Server {
    pub connections: Vec<Connections>,
    pub refused: u64,
    /// Requests that wait for a thread, by way.
    pub waiting: Vec<(&'static str, u64)>,
    /// Of the threads for short questions: how many wait, how many were taken in hand.
    pub short: (u64, u64),
}

/// Connections of one kind of listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Connections {
    pub kind: &'static str,
    pub open: u64,
    pub taken: u64,
}

/// Sees how Ambra does. Cheap to clone.
#[derive(Clone)]
pub struct Monitor(Arc<Inner>);

struct Inner {
    began: Instant,
    began_at: SystemTime,
    /// What the start waits for.
    waits_for: Mutex<Option<String>>,
    sources: OnceLock<Sources>,
    connect: OnceLock<Vec<Connect>>,
    is_listening: AtomicBool,
    looked: Mutex<Looked>,
    curve: Mutex<Curve>,
    short: Mutex<ShortLane>,
    /// Reports for open pages, as JSON.
    told: watch::Sender<Arc<str>>,
    pages: AtomicU64,
}

/// What takes time to find out.
#[derive(Clone, Default)]
struct Looked {
    node: NodeReport,
    disk: Disk,
    index_bytes: u64,
}

/// Whether the threads for short questions work.
struct ShortLane {
    begun: u64,
    /// When one was last taken in hand, or none waited.
    moved: Instant,
}

impl Default for Monitor {
    fn default() -> Monitor {
        Monitor::new()
    }
}

impl Monitor {
    pub fn new() -> Monitor {
        Monitor(Arc::new(Inner {
            began: Instant::now(),
            began_at: SystemTime::now(),
            waits_for: Mutex::default(),
            sources: OnceLock::new(),
            connect: OnceLock::new(),
            is_listening: AtomicBool::new(false),
            looked: Mutex::default(),
            curve: Mutex::default(),
            short: Mutex::new(ShortLane {
                begun: 0,
                moved: Instant::now(),
            }),
            told: watch::channel(Arc::from("")).0,
            pages: AtomicU64::new(0),
        }))
    }

    /// The start waits, for what the text says; with `None` it goes on.
    pub fn waits_for(&self, what: Option<String>) {
        *lock(&self.0.waits_for) = what;
    }

    /// The rooms are joined. Begins to look at the node and the disk, on a thread of its own.
    pub fn joined(&self, sources: Sources, stop: Stop) -> std::io::Result<()> {
        let listeners = sources.listeners.iter();
        let _ = self
            .0
            .connect
            .set(listeners.map(|url| connect::connect(url)).collect());
        if self.0.sources.set(sources).is_err() {
            return Ok(());
        }
        self.waits_for(None);
        let monitor = self.clone();
        std::thread::Builder::new()
            .name("status".to_owned())
            .spawn(move || {
                monitor.look();
                while !stop.wait(LOOK_EVERY) {
                    monitor.look();
                }
            })?;
        Ok(())
    }

    /// Wallets can connect.
    pub fn listening(&self) {
        self.0.is_listening.store(true, Relaxed);
    }

    pub fn is_listening(&self) -> bool {
        self.0.is_listening.load(Relaxed)
    }

    /// Why Ambra cannot serve wallets as it should, if so.
    pub fn not_ready(&self) -> Option<String> {
        let Some(sources) = self.0.sources.get() else {
            let waits_for = lock(&self.0.waits_for).clone();
            return Some(waits_for.unwrap_or_else(|| "starting".to_owned()));
        };
        if !self.is_listening() {
            return Some("starting".to_owned());
        }
        if let Some(complaint) = sources.sync.complaint() {
            return Some(complaint);
        }
        if let Some(progress) = sources.state.view().progress() {
            return Some(progress);
        }
        if let Some(error) = lock(&self.0.looked).node.error.clone() {
            return Some(error);
        }
        self.not_alive()
    }

    /// What only a restart can mend, if there is such a thing.
    pub fn not_alive(&self) -> Option<String> {
        let sources = self.0.sources.get()?;
        if !sources.sync.is_alive() {
            return Some("the writer gives no sign of life".to_owned());
        }
        let (waiting, begun) = (sources.server)().short;
        let mut short = lock(&self.0.short);
        if waiting == 0 || begun != short.begun {
            *short = ShortLane {
                begun,
                moved: Instant::now(),
            };
        }
        let is_stuck = short.moved.elapsed() > STUCK_AFTER;
        is_stuck.then(|| "questions wait, and no thread takes them in hand".to_owned())
    }

    /// Tells open pages what is new, for ever.
    async fn tell(&self) {
        let mut clock = tokio::time::interval(TELL_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            self.follow_first_sync();
            // Also where nobody asks: a lane that moves is seen to move.
            let _ = self.not_alive();
            if self.0.told.receiver_count() > 0 {
                self.0.told.send_replace(self.report().json().into());
            }
        }
    }

    fn follow_first_sync(&self) {
        let Some(sources) = self.0.sources.get() else {
            return;
        };
        let progress = report::progress(sources, lock(&self.0.looked).node.blocks);
        if progress.stage == Stage::FirstSync {
            lock(&self.0.curve).add(self.0.began.elapsed(), progress.share);
        }
    }

    /// Looks at what takes time.
    fn look(&self) {
        let Some(sources) = self.0.sources.get() else {
            return;
        };
        let before = lock(&self.0.looked).node.clone();
        let looked = Looked {
            node: node::ask(&sources.node, &before),
            disk: machine::disk(sources.index.path()),
            index_bytes: sources.index.size(),
        };
        *lock(&self.0.looked) = looked;
    }
}

/// Serves the page until dropped. Ends only where it cannot go on.
pub async fn serve(listener: AdminListener, monitor: Monitor) -> std::io::Result<()> {
    let telling = monitor.tell();
    tokio::select! {
        served = http::serve(listener, monitor.clone()) => served,
        () = telling => Ok(()),
    }
}

/// What these locks guard is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
