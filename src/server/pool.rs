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
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::electrum::{Job, Lane, Ran};

use super::{Limits, Stats};

/// So many letters, or so many bytes of them, are worth waking their connection for, even while more of its
/// short questions are being answered. To wake it, to send and to wake the client costs half as much as an answer.
const TOGETHER_MAX: usize = 32;
const TOGETHER_BYTES: usize = 16 << 10;
/// A letter waits no longer than this for others: so many come within it if four clients share 20,000 answers a second. What looks whether it does is the next letter; and the
/// connection itself, if there is none.
pub const HELD_MAX: Duration = Duration::from_millis(3);

/// Where a client's results are put.
#[derive(Default)]
pub struct Mailbox {
    letters: Mutex<Letters<Letter>>,
    arrived: Notify,
    /// Short questions that are waiting or being answered. Who puts the last one's letter always tells.
    short: AtomicUsize,
    /// Bytes that wait to go out to the client already, as its connection said last.
    outgoing: AtomicUsize,
}

struct Letters<T> {
    letters: Vec<T>,
    /// Of all replies in them.
    bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
    is_told: bool,
}

impl<T> Default for Letters<T> {
    fn default() -> Letters<T> {
        Letters {
            letters: Vec::new(),
            bytes: 0,
            since: None,
            is_told: false,
        }
    }
}

impl<T> Letters<T> {
    /// Adds a letter with so many bytes of reply. True: the connection is to be told now. `others` are still to come
    /// soon.
    fn add(&mut self, letter: T, bytes: usize, others: usize) -> bool {
        self.letters.push(letter);
        self.bytes += bytes;
        if self.is_told {
            return false;
        }
        let is_held = others > 0
            && self.letters.len() < TOGETHER_MAX
            && self.bytes < TOGETHER_BYTES
            && self.since.get_or_insert_with(Instant::now).elapsed() < HELD_MAX;
        self.is_told = !is_held;
        self.is_told
    }
}

/// What became of a job.
pub enum Letter {
    Ran(Ran),
    /// So much waits for its client already that it was not begun.
    NotBegun(Job),
}

impl Mailbox {
    fn put(&self, letter: Letter, lane: Lane) {
        let bytes = match &letter {
            Letter::Ran(Ran::Done(done)) => done.reply_bytes(),
            _ => 0,
        };
        let mut letters = lock(&self.letters);
        // # Concurrency
        // Counted under the lock: so the last of the short ones sees that it is the last, and all letters before
        // it are told of with it.
        let others = match lane {
            Lane::Short => self.short.fetch_sub(1, Ordering::Relaxed) - 1,
            Lane::Long | Lane::Node => 0,
        };
        let must_tell = letters.add(letter, bytes, others);
        drop(letters);
        if must_tell {
            self.arrived.notify_one();
        }
    }

    /// Letters may be held back for others that are still to come.
    pub fn may_hold(&self) -> bool {
        self.short.load(Ordering::Relaxed) > 0
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
    /// Threads that wait for something to do.
    idle: usize,
    is_closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue {
            by_client: HashMap::new(),
            turns: VecDeque::new(),
            idle: 0,
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
        let short = lanes[0].1.len();
        client.mailbox.short.fetch_add(short, Ordering::Relaxed);
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
        // A wake costs a call of the system, whether anybody sleeps or not.
        let wakes = count.min(queue.idle);
        drop(queue);
        for _ in 0..wakes {
            self.filled.notify_one();
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
            task.mailbox.put(letter, self.lane);
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
            queue.idle += 1;
            queue = self
                .filled
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
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
    fn letters_wait_for_others_until_they_are_many_large_or_old() {
        // The last one tells, and so does one that is alone.
        let mut letters = Letters::default();
        assert!(!letters.add("a", 10, 2));
        assert!(!letters.add("b", 10, 1));
        assert!(letters.add("c", 10, 0));
        assert!(!letters.add("d", 10, 0), "it was told already");
        assert_eq!(
            (&letters.letters[..], letters.bytes),
            (&["a", "b", "c", "d"][..], 40)
        );
        // Many.
        let mut letters = Letters::default();
        let told: Vec<bool> = (0..TOGETHER_MAX)
            .map(|_| letters.add("", 10, 100))
            .collect();
        assert_eq!(told.iter().position(|&told| told), Some(TOGETHER_MAX - 1));
        // Large.
        assert!(Letters::default().add("", TOGETHER_BYTES, 100));
        // Old.
        let mut letters = Letters {
            since: Instant::now().checked_sub(HELD_MAX),
            ..Letters::default()
        };
        assert!(letters.add("", 10, 100));
    }

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
