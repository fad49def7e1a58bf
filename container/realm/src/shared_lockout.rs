//! Lock-out that several containers have together: the counts are in a cache of the configuration.
//!
//! It comes on top of a container's own (`lockout.rs`), which holds alone while the cache can't be reached.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use wharf_kernel::resource::{Cache, CacheOrder, CacheReply};
use wharf_kernel::settings;

use crate::lockout::network;

/// A cache that can't be reached is tried again after so long.
const AGAIN: Duration = Duration::from_secs(2);

/// See the module. All of it blocks: it is for the threads that compute passwords.
pub(crate) struct SharedLockout {
    cache: Arc<dyn Cache>,
    realm: String,
    settings: settings::Lockout,
    /// Set while the cache can't be reached, to when it is tried again: not every login waits for it.
    lost: Mutex<Option<Instant>>,
}

impl SharedLockout {
    pub(crate) fn new(cache: Arc<dyn Cache>, realm: &str, settings: settings::Lockout) -> Self {
        Self { cache, realm: realm.to_owned(), settings, lost: Mutex::default() }
    }

    fn ask(&self, order: CacheOrder) -> Option<CacheReply> {
        let lost = || self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let was_lost = *lost();
        if was_lost.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let reply = pollster::block_on(self.cache.order(order));
        match (&reply, was_lost) {
            (Err(what), None) => tracing::error!(realm = self.realm, "lock-outs are not shared: {what}"),
            (Ok(_), Some(_)) => tracing::info!(realm = self.realm, "lock-outs are shared again"),
            _ => {}
        }
        *lost() = reply.is_err().then(|| Instant::now() + AGAIN);
        reply.ok()
    }

    /// The counts that concern this user at this address, with their bounds. Names become hashes.
    fn keys(&self, user: &str, address: Option<IpAddr>) -> impl Iterator<Item = (String, u32)> {
        let address = address.map_or_else(|| "-".to_owned(), |address| network(address).to_string());
        let key = |kind: &str, parts: &[&str]| {
            let mut hash = Sha256::new();
            for part in [self.realm.as_str()].iter().chain(parts) {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            let hash: String = hash.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect();
            format!("wharf:lockout:{kind}:{hash}")
        };
        let all = [
            (key("both", &[user, &address]), self.settings.failures),
            (key("address", &[&address]), self.settings.address_failures),
            (key("user", &[user]), self.settings.user_failures),
        ];
        all.into_iter().filter(|(_, bound)| *bound > 0)
    }

    /// How long nothing is tried for this user from this address, at most; `None` where it is.
    pub(crate) fn locked(&self, user: &str, address: Option<IpAddr>) -> Option<Duration> {
        let over = |(key, bound): (String, u32)| match self.ask(CacheOrder::Get(key)) {
            Some(CacheReply::Value(Some(count))) => {
                std::str::from_utf8(&count).ok().and_then(|n| n.parse::<u64>().ok()).is_some_and(|n| n >= bound.into())
            }
            _ => false,
        };
        self.keys(user, address).any(over).then_some(self.settings.time)
    }

    /// A password was wrong.
    pub(crate) fn failed(&self, user: &str, address: Option<IpAddr>) {
        for (key, bound) in self.keys(user, address) {
            let count = self.ask(CacheOrder::Increment(key.clone(), 1, Some(self.settings.time)));
            if count == Some(CacheReply::Number(bound.into())) {
                // The lock lasts from its last straw on.
                let value = bound.to_string().into_bytes();
                self.ask(CacheOrder::Set(key, value, Some(self.settings.time)));
            }
        }
    }

    /// A password was right: this user is forgiven at this address, and nobody else.
    pub(crate) fn succeeded(&self, user: &str, address: Option<IpAddr>) {
        if let Some((key, _)) = self.keys(user, address).next().filter(|(key, _)| key.contains(":both:")) {
            self.ask(CacheOrder::Remove(key));
        }
    }
}
