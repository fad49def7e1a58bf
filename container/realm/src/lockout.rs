//! Lock-out: what brings the guessing of passwords to an end.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use wharf_kernel::settings;

/// Entries kept at most. A full table forgets what is oldest.
const MAX_ENTRIES: usize = 20_000;

/// Counts wrong passwords.
#[derive(Debug)]
pub(crate) struct Lockout {
    settings: settings::Lockout,
    entries: Mutex<HashMap<Key, Entry>>,
}

/// Whom a count is of. A user's name is kept as a hash of fixed size.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Both([u8; 32], Option<IpAddr>),
    Address(Option<IpAddr>),
    User([u8; 32]),
}

#[derive(Debug)]
struct Entry {
    failures: u32,
    since: Instant,
}

impl Lockout {
    pub(crate) fn new(settings: settings::Lockout) -> Self {
        Self { settings, entries: Mutex::default() }
    }

    /// How long nothing is tried for this user from this address; `None` where it is.
    pub(crate) fn locked(&self, user: [u8; 32], address: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |(key, bound): (Key, u32)| {
            let entry = entries.get(&key).filter(|e| bound > 0 && e.failures >= bound)?;
            (entry.since + self.settings.time).checked_duration_since(now).filter(|left| !left.is_zero())
        };
        self.keys(user, address).into_iter().filter_map(left).max()
    }

    /// A password was wrong. Says whether that was one too many.
    pub(crate) fn failed(&self, user: [u8; 32], address: Option<IpAddr>, now: Instant) -> bool {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let time = self.settings.time;
        let mut locks = false;
        for (key, bound) in self.keys(user, address).into_iter().filter(|(_, bound)| *bound > 0) {
            if entries.len() >= MAX_ENTRIES && !entries.contains_key(&key) {
                entries.retain(|_, entry| now.duration_since(entry.since) < time);
                let oldest = entries.iter().min_by_key(|(_, entry)| entry.since).map(|(key, _)| key.clone());
                if let Some(oldest) = oldest.filter(|_| entries.len() >= MAX_ENTRIES) {
                    entries.remove(&oldest);
                }
            }
            let entry = entries.entry(key).or_insert(Entry { failures: 0, since: now });
            if now.duration_since(entry.since) >= time {
                *entry = Entry { failures: 0, since: now };
            }
            entry.failures = entry.failures.saturating_add(1);
            if entry.failures == bound {
                // The lock lasts from its last straw on.
                entry.since = now;
                locks = true;
            }
        }
        locks
    }

    /// A password was right: this user is forgiven at this address, and nobody else.
    pub(crate) fn succeeded(&self, user: [u8; 32], address: Option<IpAddr>) {
        let [(both, _), ..] = self.keys(user, address);
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(&both);
    }

    fn keys(&self, user: [u8; 32], address: Option<IpAddr>) -> [(Key, u32); 3] {
        let address = address.map(network);
        [
            (Key::Both(user, address), self.settings.failures),
            (Key::Address(address), self.settings.address_failures),
            (Key::User(user), self.settings.user_failures),
        ]
    }
}

/// One client of IPv6 has a /64 of addresses.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) & !u128::from(u64::MAX)).to_be_bytes()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_of_the_user_at_the_address_and_ends() {
        let settings = settings::Lockout { failures: 3, address_failures: 5, user_failures: 6, ..Default::default() };
        let lockout = Lockout::new(settings);
        let (ann, bob) = ([1; 32], [2; 32]);
        let at = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let (here, there) = (at("192.0.2.1"), at("192.0.2.2"));
        let now = Instant::now();
        for failure in 1..=3 {
            assert!(lockout.locked(ann, here, now).is_none());
            assert_eq!(lockout.failed(ann, here, now), failure == 3);
        }
        assert!(lockout.locked(ann, here, now).is_some());
        assert!(lockout.locked(ann, there, now).is_none() && lockout.locked(bob, here, now).is_none());
        assert!(lockout.locked(ann, here, now + Duration::from_secs(300)).is_none());
        // Five of one address, whoever they were about.
        lockout.failed(bob, here, now);
        lockout.failed(bob, here, now);
        assert!(lockout.locked([3; 32], here, now).is_some());
        // Six of one user, wherever they came from.
        for last in 3..=5 {
            lockout.failed(ann, at(&format!("192.0.2.{last}")), now);
        }
        assert!(lockout.locked(ann, at("192.0.2.99"), now).is_some());
        // Forgiven at one address alone.
        lockout.failed(bob, there, now);
        lockout.succeeded(bob, there);
        assert!(lockout.locked(bob, there, now).is_none());
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        let v6 = |text: &str| network(text.parse().unwrap());
        assert_eq!(v6("2001:db8::1"), v6("2001:db8::ffff:2"));
        assert_ne!(v6("2001:db8::1"), v6("2001:db8:0:1::1"));
        assert_eq!(v6("::ffff:192.0.2.1"), "192.0.2.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn the_table_is_bounded() {
        let lockout = Lockout::new(settings::Lockout { address_failures: 0, user_failures: 0, ..Default::default() });
        let now = Instant::now();
        for n in 0..(MAX_ENTRIES as u32 + 10) {
            let mut user = [0; 32];
            user[..4].copy_from_slice(&n.to_be_bytes());
            lockout.failed(user, None, now);
        }
        assert_eq!(lockout.entries.lock().unwrap().len(), MAX_ENTRIES);
    }
}
