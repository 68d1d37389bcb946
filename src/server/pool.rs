//! The threads that answer what would hold up others: one group for short questions, one for long
//! histories, one for the node.
//!
//! Clients take turns: who asks a thousand things waits for them, not everybody else.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::sync::Notify;

use crate::electrum::{Job, Lane, Ran};

use super::{Limits, Stats};

/// Where a client's results are put.
#[derive(Default)]
pub struct Mailbox {
    letters: Mutex<Letters>,
    arrived: Notify,
    /// Bytes that wait to go out to the client already, as its connection said last.
    outgoing: AtomicUsize,
}

#[derive(Default)]
struct Letters {
    letters: Vec<Letter>,
    /// Of all replies in them.
    bytes: usize,
}

/// What became of a job.
pub enum Letter {
    Ran(Ran),
    /// So much waits for its client already that it was not begun.
    NotBegun(Job),
}

impl Mailbox {
    fn put(&self, letter: Letter) {
        let mut letters = lock(&self.letters);
        if let Letter::Ran(Ran::Done(done)) = &letter {
            letters.bytes += done.reply_bytes();
        }
        letters.letters.push(letter);
        let is_first = letters.letters.len() == 1;
        drop(letters);
        if is_first {
            self.arrived.notify_one();
        }
    }

    pub fn take(&self) -> Vec<Letter> {
        let mut letters = lock(&self.letters);
        let taken = std::mem::take(&mut *letters);
        self.outgoing.fetch_add(taken.bytes, Ordering::Relaxed);
        taken.letters
    }

    /// So many bytes wait to go out, those of all letters that were taken among them.
    pub fn set_outgoing(&self, bytes: usize) {
        self.outgoing.store(bytes, Ordering::Relaxed);
    }

    fn is_full(&self, bytes_max: usize) -> bool {
        self.outgoing.load(Ordering::Relaxed) + lock(&self.letters).bytes > bytes_max
    }

    /// Something is there. Dropping the future loses nothing.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

/// A client of the pool.
#[derive(Clone)]
pub struct Client {
    /// Unlike every other's.
    pub number: u64,
    pub mailbox: Arc<Mailbox>,
}

struct Task {
    job: Job,
    mailbox: Arc<Mailbox>,
}

/// Jobs of many clients, each client's in order, clients in turn.
struct Queue<T> {
    by_client: HashMap<u64, VecDeque<T>>,
    turns: VecDeque<u64>,
    is_closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue {
            by_client: HashMap::new(),
            turns: VecDeque::new(),
            is_closed: false,
        }
    }
}

impl<T> Queue<T> {
    fn push(&mut self, client: u64, task: T) {
        let tasks = self.by_client.entry(client).or_default();
        if tasks.is_empty() {
            self.turns.push_back(client);
        }
        tasks.push_back(task);
    }

    fn pop(&mut self) -> Option<T> {
        let client = self.turns.pop_front()?;
        let tasks = self.by_client.get_mut(&client)?;
        let task = tasks.pop_front();
        if tasks.is_empty() {
            self.by_client.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        task
    }
}

struct LaneQueue {
    lane: Lane,
    queue: Mutex<Queue<Task>>,
    filled: Condvar,
    stats: Arc<Stats>,
    /// See [`Limits`].
    output_bytes_max: usize,
}

/// Cheap to clone. The threads end when [`Pool::close`] is called.
#[derive(Clone)]
pub struct Pool {
    short: Arc<LaneQueue>,
    long: Arc<LaneQueue>,
    node: Arc<LaneQueue>,
}

impl Pool {
    pub fn start(limits: &Limits, stats: &Arc<Stats>) -> std::io::Result<Pool> {
        let lane = |lane: Lane, name: &str, threads: usize| {
            let lane = Arc::new(LaneQueue {
                lane,
                queue: Mutex::default(),
                filled: Condvar::new(),
                stats: stats.clone(),
                output_bytes_max: limits.output_bytes_max,
            });
            for number in 0..threads.max(1) {
                let lane = lane.clone();
                thread::Builder::new()
                    .name(format!("{name}-{number}"))
                    .spawn(move || lane.work())?;
            }
            Ok::<_, std::io::Error>(lane)
        };
        Ok(Pool {
            short: lane(Lane::Short, "short", limits.short_threads)?,
            long: lane(Lane::Long, "long", limits.long_threads)?,
            node: lane(Lane::Node, "node", limits.node_threads)?,
        })
    }

    /// Puts a client's jobs in line.
    pub fn submit(&self, client: &Client, jobs: impl IntoIterator<Item = Job>) {
        let mut lanes = [
            (&self.short, Vec::new()),
            (&self.long, Vec::new()),
            (&self.node, Vec::new()),
        ];
        for job in jobs {
            let lane = match job.lane() {
                Lane::Short => 0,
                Lane::Long => 1,
                Lane::Node => 2,
            };
            lanes[lane].1.push(Task {
                job,
                mailbox: client.mailbox.clone(),
            });
        }
        for (lane, tasks) in lanes {
            lane.add(client.number, tasks);
        }
    }

    /// Ends the threads, as soon as each is done with what it does.
    pub fn close(&self) {
        for lane in [&self.short, &self.long, &self.node] {
            let mut queue = lock(&lane.queue);
            queue.is_closed = true;
            queue.by_client.clear();
            queue.turns.clear();
            drop(queue);
            lane.filled.notify_all();
        }
    }
}

impl LaneQueue {
    /// Under one lock, for a read may bring dozens.
    fn add(&self, client: u64, tasks: Vec<Task>) {
        let count = tasks.len();
        if count == 0 {
            return;
        }
        self.stats.wait(self.lane, count);
        let mut queue = lock(&self.queue);
        for task in tasks {
            queue.push(client, task);
        }
        drop(queue);
        if count == 1 {
            self.filled.notify_one();
        } else {
            self.filled.notify_all();
        }
    }

    fn work(&self) {
        while let Some(task) = self.next() {
            // # Correctness
            // Dozens of questions with answers of megabytes may be in line for one client: those that would be
            // answered to nobody who reads go back.
            let letter = match task.mailbox.is_full(self.output_bytes_max) {
                true => Letter::NotBegun(task.job),
                false => Letter::Ran(task.job.run()),
            };
            task.mailbox.put(letter);
        }
    }

    fn next(&self) -> Option<Task> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.is_closed {
                return None;
            }
            if let Some(task) = queue.pop() {
                self.stats.begin(self.lane);
                return Some(task);
            }
            queue = self
                .filled
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Nothing that holds these locks can panic half-way; a poisoned one is as good as another.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_take_turns_and_each_is_served_in_its_order() {
        let mut queue = Queue::default();
        for number in 0..3 {
            queue.push(1, ("greedy", number));
        }
        queue.push(2, ("modest", 0));
        queue.push(3, ("other", 0));
        queue.push(3, ("other", 1));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let expected = [
            ("greedy", 0),
            ("modest", 0),
            ("other", 0),
            ("greedy", 1),
            ("other", 1),
            ("greedy", 2),
        ];
        assert_eq!(order, expected);
        assert!(queue.by_client.is_empty(), "who has gone leaves nothing");
    }
}
