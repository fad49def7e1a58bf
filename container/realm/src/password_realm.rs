//! A realm of names and passwords from a users file. Passwords are computed on a few threads of their own, for they are slow by
//! design and no worker may wait; one that was right is remembered for a while by a keyed hash.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio::sync::oneshot;
use wharf_kernel::Authenticated;
use wharf_kernel::resource::OwnResources;
use wharf_kernel::settings::{self, RealmKind};

use crate::lockout::Lockout;
use crate::shared_lockout::SharedLockout;
use crate::table::Table;
use crate::users::{MAX_PASSWORD, Users};
use crate::watched::Watched;

/// Passwords remembered at most.
const MAX_CACHED: usize = 10_000;

/// Work for the threads that compute passwords.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// What became of a name and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Right.
    User(Authenticated),
    /// Wrong, or nobody's.
    Wrong,
    /// Not tried: too many were wrong before.
    Locked(Duration),
    /// Not tried: there is no telling now.
    Unavailable,
}

/// Now, or later.
pub(crate) enum Answer {
    Now(Outcome),
    Later(oneshot::Receiver<Outcome>),
}

/// Where the users are.
enum Source {
    File(Watched<Users>),
    Table(Table),
}

impl Source {
    /// The roles of the user with this name and password; `Some(None)` where they are nobody's, `None` where there is no telling.
    fn verify(&self, user: &str, password: &[u8]) -> Option<Option<Vec<String>>> {
        match self {
            Self::File(users) => users.get().map(|users| users.verify(user, password).map(|user| user.roles.clone())),
            Self::Table(table) => table.verify(user, password).inspect_err(|what| tracing::error!("{what}")).ok(),
        }
    }
}

/// A realm of names and passwords.
pub(crate) struct PasswordRealm {
    name: String,
    users: Source,
    ttl: Duration,
    lockout: Lockout,
    shared: Option<SharedLockout>,
    key: [u8; 32],
    cache: Mutex<Cache>,
    pool: SyncSender<Job>,
}

#[derive(Default)]
struct Cache {
    entries: HashMap<[u8; 32], (Instant, Authenticated)>,
    /// Counts the states of the file: what was computed for an earlier one is not remembered.
    state: u64,
}

impl PasswordRealm {
    /// The realm of this name.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub(crate) fn new(
        name: &str,
        realm: &settings::Realm,
        pool: SyncSender<Job>,
        stores: &dyn OwnResources,
    ) -> Result<Self, String> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|e| format!("no random numbers: {e}"))?;
        let users = match realm.kind {
            RealmKind::Sql => {
                let resource = realm.resource.as_deref().unwrap_or_default();
                let database = stores.database(resource).map_err(|what| format!("realm.{name}.resource: {what}"))?;
                Source::Table(Table::new(name, realm, database)?)
            }
            _ => Source::File(Watched::new(realm.file.clone().unwrap_or_default(), Users::read)),
        };
        let shared = |resource: &String| {
            let cache = stores.counters(resource).map_err(|what| format!("realm.{name}.lockout.shared: {what}"))?;
            Ok::<_, String>(SharedLockout::new(cache, name, realm.lockout.clone()))
        };
        let shared = realm.lockout.shared.as_ref().map(shared).transpose()?;
        Ok(Self {
            name: name.to_owned(),
            users,
            ttl: realm.cache,
            lockout: Lockout::new(realm.lockout.clone()),
            shared,
            key,
            cache: Mutex::default(),
            pool,
        })
    }

    /// Reads the file again where it has changed; then nothing is remembered any more.
    pub(crate) fn look(&self) {
        if let Source::File(users) = &self.users
            && users.look()
        {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.entries.clear();
            cache.state += 1;
        }
    }

    /// The user with this name and password, where it was right a moment ago.
    pub(crate) fn known(&self, user: &str, password: &[u8]) -> Option<Authenticated> {
        self.remembered(&self.keyed(&[user.as_bytes(), password]))
    }

    /// Asks for a user. Does not block.
    pub(crate) fn verify(self: &Arc<Self>, user: &str, password: &[u8], address: Option<IpAddr>) -> Answer {
        if password.len() > MAX_PASSWORD {
            return Answer::Now(Outcome::Wrong);
        }
        let (who, credential) = (self.keyed(&[user.as_bytes()]), self.keyed(&[user.as_bytes(), password]));
        if let Some(known) = self.remembered(&credential) {
            return Answer::Now(Outcome::User(known));
        }
        if let Some(left) = self.lockout.locked(who, address, Instant::now()) {
            return Answer::Now(Outcome::Locked(left));
        }
        let (sender, receiver) = oneshot::channel();
        let (this, user, password) = (self.clone(), user.to_owned(), password.to_vec());
        let job = Box::new(move || {
            // A client that has gone away by now costs nothing.
            if !sender.is_closed() {
                let _ = sender.send(this.compute(&user, &password, who, credential, address));
            }
        });
        match self.pool.try_send(job) {
            Ok(()) => Answer::Later(receiver),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Answer::Now(Outcome::Unavailable),
        }
    }

    /// On a thread of the pool.
    fn compute(
        &self,
        user: &str,
        password: &[u8],
        who: [u8; 32],
        credential: [u8; 32],
        address: Option<IpAddr>,
    ) -> Outcome {
        // Others of the same guesser may have failed while this one waited; or it may have been right.
        if let Some(known) = self.remembered(&credential) {
            return Outcome::User(known);
        }
        if let Some(left) = self.lockout.locked(who, address, Instant::now()) {
            return Outcome::Locked(left);
        }
        if let Some(left) = self.shared.as_ref().and_then(|shared| shared.locked(user, address)) {
            return Outcome::Locked(left);
        }
        // The state first: a file that changes from here on makes what is computed now not worth remembering.
        let state = self.cache.lock().unwrap_or_else(PoisonError::into_inner).state;
        let Some(found) = self.users.verify(user, password) else { return Outcome::Unavailable };
        let Some(roles) = found else {
            if self.lockout.failed(who, address, Instant::now()) {
                tracing::warn!(realm = self.name, user = %user.escape_debug(), address = ?address, "locked out: too many wrong passwords");
            }
            if let Some(shared) = &self.shared {
                shared.failed(user, address);
            }
            return Outcome::Wrong;
        };
        self.lockout.succeeded(who, address);
        if let Some(shared) = &self.shared {
            shared.succeeded(user, address);
        }
        let known = Authenticated::new(user, "Basic", roles.iter().map(String::as_str));
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.ttl.is_zero() && cache.state == state {
            if cache.entries.len() >= MAX_CACHED {
                let now = Instant::now();
                cache.entries.retain(|_, (until, _)| *until > now);
                if cache.entries.len() >= MAX_CACHED {
                    cache.entries.clear();
                }
            }
            cache.entries.insert(credential, (Instant::now() + self.ttl, known.clone()));
        }
        Outcome::User(known)
    }

    fn remembered(&self, credential: &[u8; 32]) -> Option<Authenticated> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, known) = cache.entries.get(credential)?;
        if *until > Instant::now() {
            return Some(known.clone());
        }
        cache.entries.remove(credential);
        None
    }

    /// A hash that nobody else can compute, so that no password stands in memory and none can be guessed from a dump alone.
    fn keyed(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac =
            <Hmac<Sha256> as Mac>::new_from_slice(&self.key).unwrap_or_else(|_| unreachable!("any length will do"));
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}
