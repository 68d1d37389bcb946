//! How many connections each address of another machine has.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[derive(Default)]
pub struct Addresses {
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection, counted until it is dropped.
pub struct Counted {
    addresses: Arc<Addresses>,
    /// None for this machine's own, which are not counted.
    ip: Option<IpAddr>,
}

impl Addresses {
    /// Counts a connection; none where the address has `max` already.
    pub fn count(self: &Arc<Self>, ip: Option<IpAddr>, max: usize) -> Option<Counted> {
        let ip = ip.map(one_owner);
        if let Some(ip) = ip {
            let mut counts = self.lock();
            let count = counts.entry(ip).or_default();
            if *count >= max {
                return None;
            }
            *count += 1;
        }
        Some(Counted {
            addresses: self.clone(),
            ip,
        })
    }

    /// A count is whole at any moment: a poisoned lock is as good as another.
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address, or the first 64 bits of one of IPv6: whoever has one of those has them all.
fn one_owner(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some(ip) = self.ip else { return };
        let mut counts = self.addresses.lock();
        if let Some(count) = counts.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_bound_and_gets_back_what_it_drops() {
        let addresses = Arc::new(Addresses::default());
        let take = |text: &str| addresses.count(Some(text.parse().unwrap()), 2);
        let first = take("192.0.2.1").unwrap();
        let _second = take("::ffff:192.0.2.1").unwrap();
        assert!(take("192.0.2.1").is_none());
        let _other = take("192.0.2.2").unwrap();
        drop(first);
        let _again = take("192.0.2.1").unwrap();
        // Of IPv6 a whole /64 is one.
        let _v6 = [take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap()];
        assert!(take("2001:db8::3").is_none());
        assert!(take("2001:db8:0:1::3").is_some());
        // This machine's own are as many as they like.
        let local: Vec<_> = (0..10).map(|_| addresses.count(None, 2)).collect();
        assert!(local.iter().all(Option::is_some));
        assert_eq!(addresses.lock().len(), 3, "who has gone leaves nothing");
    }
}
