//! Single sign-on: who has signed in to one application of a host is known to all of them that have the same realm, by a cookie of
//! the whole host. Kept in memory: with the container it ends.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use sha2::{Digest, Sha256};
use wharf_kernel::Authenticated;
use wharf_kernel::session::cookies;

/// The cookie.
const COOKIE: &str = "WHARFSSO";
/// Sign-ons at once; the one that was idle for longest goes.
const MAX: usize = 100_000;

/// The sign-ons of a realm.
#[derive(Debug)]
pub(crate) struct SignOns {
    idle: Duration,
    all: Mutex<HashMap<Key, SignOn>>,
}

/// What a sign-on is known by inside: a hash of what the client has.
pub(crate) type Key = String;

#[derive(Debug)]
struct SignOn {
    user: Authenticated,
    host: String,
    used: Instant,
}

impl SignOns {
    /// Without a request for so long, one ends.
    pub(crate) fn new(idle: Duration) -> Self {
        Self { idle, all: Mutex::default() }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Key, SignOn>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A user has signed in on a host: the key, and the cookie for the client.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub(crate) fn begin(
        &self,
        user: &Authenticated,
        host: &str,
        secure: bool,
        now: Instant,
    ) -> Result<(Key, String), String> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|e| format!("no random numbers: {e}"))?;
        let id = URL_SAFE_NO_PAD.encode(random);
        let mut all = self.all();
        if all.len() >= MAX {
            all.retain(|_, one| now.duration_since(one.used) < self.idle);
            let oldest = all.iter().min_by_key(|(_, one)| one.used).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest.filter(|_| all.len() >= MAX) {
                all.remove(&oldest);
            }
        }
        all.insert(key(&id), SignOn { user: user.clone(), host: host.to_owned(), used: now });
        let secure = if secure { "; Secure" } else { "" };
        Ok((key(&id), format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Lax{secure}")))
    }

    /// Whose it is, where it goes on. Counts as a request.
    pub(crate) fn find(&self, key: &Key, host: &str, now: Instant) -> Option<Authenticated> {
        let mut all = self.all();
        let one = all.get_mut(key).filter(|one| one.host == host)?;
        if now.duration_since(one.used) >= self.idle {
            all.remove(key);
            return None;
        }
        one.used = now;
        Some(one.user.clone())
    }

    /// Ends it, in all applications at once.
    pub(crate) fn end(&self, key: &Key) {
        self.all().remove(key);
    }
}

/// The key of what a request carries.
pub(crate) fn requested(headers: &HeaderMap) -> Option<Key> {
    cookies(headers, COOKIE).next().map(key)
}

fn key(id: &str) -> Key {
    URL_SAFE_NO_PAD.encode(Sha256::digest(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_for_its_host_and_ends_with_its_time() {
        let (all, now) = (SignOns::new(Duration::from_secs(60)), Instant::now());
        let user = Authenticated::new("ann", "FORM", ["admin"]);
        let (key, cookie) = all.begin(&user, "a.example", true, now).unwrap();
        assert!(!cookie.contains(&key) && cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
        let mut headers = HeaderMap::new();
        headers.insert(http::header::COOKIE, cookie.split(';').next().unwrap().parse().unwrap());
        assert_eq!(requested(&headers), Some(key.clone()));
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(all.find(&key, "a.example", at(59)), Some(user.clone()));
        assert_eq!(all.find(&key, "b.example", at(59)), None);
        assert_eq!(all.find(&key, "a.example", at(118)), Some(user));
        assert_eq!(all.find(&key, "a.example", at(178)), None);
        assert_eq!(all.find(&key, "a.example", at(119)), None, "it has ended");
    }
}
