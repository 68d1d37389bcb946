//! Who wants to hear of what. Shared by script hash; a change is fanned out by what it touched.
//!
//! # Memory
//! A subscription costs a row in its shard (32 bytes of script hash, 16 of mailbox) and one in its
//! subscriber's own set (32 bytes), each with one byte of the hash table and the table's free room
//! (tables are 44 to 88 percent full): 126 bytes on average, 94 to 187.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bitcoin::OutPoint;
use tokio::sync::Notify;

use super::lock;
use crate::chain::ScriptHash;

/// Parts of a registry that are locked apart.
const SHARDS: usize = 64;

/// What may have changed since a subscriber last looked. Scripts and outpoints are candidates: compare
/// the new status with the one last told before sending.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    pub tip: bool,
    pub scripts: Vec<ScriptHash>,
    pub outpoints: Vec<OutPoint>,
}

/// How many listen for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionCounts {
    pub scripts: u64,
    pub outpoints: u64,
    pub tips: u64,
}

/// All subscriptions of all sessions.
#[derive(Clone)]
pub struct Subscriptions {
    shared: Arc<Shared>,
}

struct Shared {
    scripts: Registry<ScriptHash>,
    outpoints: Registry<OutPoint>,
    tip: Mutex<Vec<Arc<Mailbox>>>,
}

/// One session's end.
pub struct Subscriber {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
}

/// Where changes wait for a session: sets, so that a slow one finds the newest and no growing queue.
#[derive(Default)]
struct Mailbox {
    inside: Mutex<Inside>,
    notify: Notify,
}

#[derive(Default)]
struct Inside {
    wants_tip: bool,
    scripts: HashSet<ScriptHash>,
    outpoints: HashSet<OutPoint>,
    tip: bool,
    /// Parts of `scripts` and `outpoints`.
    changed_scripts: HashSet<ScriptHash>,
    changed_outpoints: HashSet<OutPoint>,
}

/// Those who listen for one key. Nearly always it is one.
enum Listeners {
    One(Arc<Mailbox>),
    /// Boxed, so that the common case stays small.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<Arc<Mailbox>>>),
}

impl Listeners {
    fn as_slice(&self) -> &[Arc<Mailbox>] {
        match self {
            Listeners::One(one) => std::slice::from_ref(one),
            Listeners::Many(many) => many,
        }
    }

    fn add(&mut self, mailbox: &Arc<Mailbox>) {
        match self {
            Listeners::One(one) => {
                *self = Listeners::Many(Box::new(vec![one.clone(), mailbox.clone()]));
            }
            Listeners::Many(many) => many.push(mailbox.clone()),
        }
    }

    /// True if nobody is left.
    fn remove(&mut self, mailbox: &Arc<Mailbox>) -> bool {
        match self {
            Listeners::One(one) => Arc::ptr_eq(one, mailbox),
            Listeners::Many(many) => {
                many.retain(|other| !Arc::ptr_eq(other, mailbox));
                many.is_empty()
            }
        }
    }
}

/// Listeners by what they listen for.
struct Registry<K> {
    hasher: RandomState,
    /// Of keys and listeners: who listens for two keys counts twice.
    count: AtomicU64,
    shards: Vec<Mutex<HashMap<K, Listeners>>>,
}

impl<K: Copy + Eq + Hash> Registry<K> {
    fn new() -> Registry<K> {
        Registry {
            hasher: RandomState::new(),
            count: AtomicU64::new(0),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    fn shard(&self, key: &K) -> &Mutex<HashMap<K, Listeners>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    fn add(&self, key: K, mailbox: &Arc<Mailbox>) {
        self.count.fetch_add(1, Relaxed);
        match lock(self.shard(&key)).entry(key) {
            Entry::Occupied(mut listeners) => listeners.get_mut().add(mailbox),
            Entry::Vacant(vacant) => {
                vacant.insert(Listeners::One(mailbox.clone()));
            }
        }
    }

    /// Of one that was added.
    fn remove(&self, key: &K, mailbox: &Arc<Mailbox>) {
        self.count.fetch_sub(1, Relaxed);
        let mut shard = lock(self.shard(key));
        if let Entry::Occupied(mut listeners) = shard.entry(*key)
            && listeners.get_mut().remove(mailbox)
        {
            listeners.remove();
        }
        // A shard that thousands have left gives its memory back.
        if shard.capacity() > 64 && shard.len() < shard.capacity() / 8 {
            shard.shrink_to_fit();
        }
    }

    fn contains(&self, key: &K) -> bool {
        lock(self.shard(key)).contains_key(key)
    }

    /// Hands each listener for each of `keys` to `tell`, without holding a lock meanwhile.
    fn for_each_listener<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k K>,
        mut tell: impl FnMut(&Arc<Mailbox>, K),
    ) where
        K: 'k,
    {
        let mut listeners = Vec::new();
        for key in keys {
            if let Some(found) = lock(self.shard(key)).get(key) {
                listeners.extend_from_slice(found.as_slice());
            }
            for mailbox in listeners.drain(..) {
                tell(&mailbox, *key);
            }
        }
    }
}

impl Subscriptions {
    pub(super) fn new() -> Subscriptions {
        Subscriptions {
            shared: Arc::new(Shared {
                scripts: Registry::new(),
                outpoints: Registry::new(),
                tip: Mutex::default(),
            }),
        }
    }

    /// A new subscriber, one a session. Dropping it ends its subscriptions.
    pub fn subscriber(&self) -> Subscriber {
        Subscriber {
            shared: self.shared.clone(),
            mailbox: Arc::default(),
        }
    }

    /// Subscriptions of all sessions: to scripts, to outpoints, to the tip.
    pub fn counts(&self) -> SubscriptionCounts {
        SubscriptionCounts {
            scripts: self.shared.scripts.count.load(Relaxed),
            outpoints: self.shared.outpoints.count.load(Relaxed),
            tips: lock(&self.shared.tip).len() as u64,
        }
    }

    /// True if anyone listens for the script.
    pub(super) fn is_subscribed(&self, script: &ScriptHash) -> bool {
        self.shared.scripts.contains(script)
    }

    /// Puts a change into the mailboxes of all whom it may concern.
    pub(super) fn announce<'a>(
        &self,
        tip: bool,
        scripts: impl IntoIterator<Item = &'a ScriptHash>,
        outpoints: impl IntoIterator<Item = &'a OutPoint>,
    ) {
        if tip {
            let listeners = lock(&self.shared.tip).clone();
            for mailbox in listeners {
                lock(&mailbox.inside).tip = true;
                mailbox.notify.notify_one();
            }
        }
        // What was unsubscribed in between is left out: so a mailbox never holds more than was
        // subscribed, and nobody hears of what they left.
        self.shared
            .scripts
            .for_each_listener(scripts, |mailbox, script| {
                let mut inside = lock(&mailbox.inside);
                if inside.scripts.contains(&script) && inside.changed_scripts.insert(script) {
                    drop(inside);
                    mailbox.notify.notify_one();
                }
            });
        self.shared
            .outpoints
            .for_each_listener(outpoints, |mailbox, outpoint| {
                let mut inside = lock(&mailbox.inside);
                if inside.outpoints.contains(&outpoint) && inside.changed_outpoints.insert(outpoint)
                {
                    drop(inside);
                    mailbox.notify.notify_one();
                }
            });
    }
}

/// # Concurrency
/// A mailbox may be locked while a shard is taken, never a shard (or the tip's list) while a mailbox is.
impl Subscriber {
    /// Register first, then compute the status: a change in between is told, none is lost.
    pub fn subscribe(&self, script: ScriptHash) {
        let mut inside = lock(&self.mailbox.inside);
        if inside.scripts.insert(script) {
            self.shared.scripts.add(script, &self.mailbox);
        }
    }

    /// True if there was such a subscription.
    pub fn unsubscribe(&self, script: &ScriptHash) -> bool {
        let mut inside = lock(&self.mailbox.inside);
        let was_subscribed = inside.scripts.remove(script);
        if was_subscribed {
            inside.changed_scripts.remove(script);
            self.shared.scripts.remove(script, &self.mailbox);
        }
        was_subscribed
    }

    pub fn watch(&self, outpoint: OutPoint) {
        let mut inside = lock(&self.mailbox.inside);
        if inside.outpoints.insert(outpoint) {
            self.shared.outpoints.add(outpoint, &self.mailbox);
        }
    }

    pub fn unwatch(&self, outpoint: &OutPoint) -> bool {
        let mut inside = lock(&self.mailbox.inside);
        let was_watched = inside.outpoints.remove(outpoint);
        if was_watched {
            inside.changed_outpoints.remove(outpoint);
            self.shared.outpoints.remove(outpoint, &self.mailbox);
        }
        was_watched
    }

    /// Tip changes are told too from now on.
    pub fn watch_tip(&self) {
        let mut inside = lock(&self.mailbox.inside);
        if !std::mem::replace(&mut inside.wants_tip, true) {
            lock(&self.shared.tip).push(self.mailbox.clone());
        }
    }

    /// Waits until something changed; takes and clears it. Cancel-safe.
    pub async fn changed(&self) -> Changed {
        loop {
            // The permit of an announcement since the last look lets this pass at once.
            let notified = self.mailbox.notify.notified();
            if let Some(changed) = self.take() {
                return changed;
            }
            notified.await;
        }
    }

    fn take(&self) -> Option<Changed> {
        let mut inside = lock(&self.mailbox.inside);
        let changed = Changed {
            tip: std::mem::take(&mut inside.tip),
            scripts: std::mem::take(&mut inside.changed_scripts)
                .into_iter()
                .collect(),
            outpoints: std::mem::take(&mut inside.changed_outpoints)
                .into_iter()
                .collect(),
        };
        (changed != Changed::default()).then_some(changed)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let inside = std::mem::take(&mut *lock(&self.mailbox.inside));
        if inside.wants_tip {
            lock(&self.shared.tip).retain(|other| !Arc::ptr_eq(other, &self.mailbox));
        }
        for script in &inside.scripts {
            self.shared.scripts.remove(script, &self.mailbox);
        }
        for outpoint in &inside.outpoints {
            self.shared.outpoints.remove(outpoint, &self.mailbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
        time::{Duration, Instant},
    };

    use super::*;

    fn script(n: u64) -> ScriptHash {
        ScriptHash::new(&n.to_le_bytes())
    }

    fn outpoint(n: u32) -> OutPoint {
        OutPoint {
            txid: bitcoin::hashes::Hash::all_zeros(),
            vout: n,
        }
    }

    /// Polls once: what `changed` gives without waiting.
    fn changed_now(subscriber: &Subscriber) -> Option<Changed> {
        match pin!(subscriber.changed()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(mut changed) => {
                changed.scripts.sort();
                Some(changed)
            }
            Poll::Pending => None,
        }
    }

    #[test]
    fn each_hears_once_of_what_it_subscribed_to() {
        let all = Subscriptions::new();
        let (one, two) = (all.subscriber(), all.subscriber());
        one.subscribe(script(1));
        one.subscribe(script(1));
        one.subscribe(script(2));
        two.subscribe(script(1));
        two.watch(outpoint(7));
        two.watch_tip();
        assert_eq!(changed_now(&one), None);
        all.announce(true, [&script(1), &script(3)], [&outpoint(7), &outpoint(8)]);
        all.announce(false, [&script(1)], []);
        let scripts = vec![script(1)];
        assert_eq!(
            changed_now(&one),
            Some(Changed {
                tip: false,
                scripts: scripts.clone(),
                outpoints: vec![]
            })
        );
        assert_eq!(
            changed_now(&two),
            Some(Changed {
                tip: true,
                scripts,
                outpoints: vec![outpoint(7)]
            })
        );
        assert_eq!((changed_now(&one), changed_now(&two)), (None, None));
    }

    #[test]
    fn nobody_hears_of_what_it_left() {
        let all = Subscriptions::new();
        let one = all.subscriber();
        one.subscribe(script(1));
        one.watch(outpoint(1));
        all.announce(false, [&script(1)], [&outpoint(1)]);
        assert!(one.unsubscribe(&script(1)) && one.unwatch(&outpoint(1)));
        assert!(!one.unsubscribe(&script(1)) && !one.unwatch(&outpoint(1)));
        all.announce(false, [&script(1)], [&outpoint(1)]);
        assert_eq!(changed_now(&one), None);
    }

    #[test]
    fn a_subscriber_that_is_gone_leaves_nothing_behind() {
        let all = Subscriptions::new();
        let (one, two) = (all.subscriber(), all.subscriber());
        for n in 0..1000 {
            one.subscribe(script(n));
        }
        one.watch(outpoint(1));
        one.watch_tip();
        two.subscribe(script(5));
        drop(one);
        assert!(all.is_subscribed(&script(5)) && !all.is_subscribed(&script(6)));
        drop(two);
        let left: usize = all
            .shared
            .scripts
            .shards
            .iter()
            .map(|shard| lock(shard).len())
            .sum();
        let left_outpoints: usize = all
            .shared
            .outpoints
            .shards
            .iter()
            .map(|shard| lock(shard).len())
            .sum();
        assert_eq!(
            (left, left_outpoints, lock(&all.shared.tip).len()),
            (0, 0, 0)
        );
    }

    #[tokio::test]
    async fn one_who_waits_is_woken_and_one_who_gave_up_loses_nothing() {
        let all = Subscriptions::new();
        let one = Arc::new(all.subscriber());
        one.subscribe(script(1));
        let waiting = tokio::spawn({
            let one = one.clone();
            async move { one.changed().await }
        });
        tokio::task::yield_now().await;
        all.announce(false, [&script(1)], []);
        assert_eq!(waiting.await.unwrap().scripts, [script(1)]);
        let gave_up = tokio::time::timeout(Duration::from_millis(1), one.changed()).await;
        assert!(gave_up.is_err());
        all.announce(false, [&script(1)], []);
        assert_eq!(one.changed().await.scripts, [script(1)]);
    }

    #[test]
    fn half_a_million_subscriptions_are_told_of_a_block_in_milliseconds() {
        let all = Subscriptions::new();
        let subscribers: Vec<_> = (0..5000u64)
            .map(|session| {
                let subscriber = all.subscriber();
                (0..100).for_each(|n| subscriber.subscribe(script(session * 100 + n)));
                subscriber
            })
            .collect();
        let touched: Vec<_> = (0..2000).map(|n| script(n * 250)).collect();
        let start = Instant::now();
        all.announce(true, &touched, []);
        let took = start.elapsed();
        // A generous bound for a busy machine; it takes one or two milliseconds.
        assert!(took < Duration::from_millis(100), "{took:?}");
        let told: usize = subscribers
            .iter()
            .filter_map(changed_now)
            .map(|changed| changed.scripts.len())
            .sum();
        assert_eq!(told, 2000);
    }
}
