//! All realms of a container, with the threads that compute passwords and the one that looks after the files.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wharf_kernel::guard::{Guard, Guards};
use wharf_kernel::options::{LoginMethod, SecurityOptions};
use wharf_kernel::settings::{Realm, RealmKind};

use crate::access::{AccessGuard, Login};
use crate::constraints::Constraints;
use crate::file_realm::{FileRealm, Job};
use crate::jwt_realm::JwtRealm;

/// Passwords that wait for a thread; more are answered with 503.
const QUEUE: usize = 64;
/// Threads that compute passwords, at most. Each takes what a hash takes, by default 19 MiB, as long as it computes.
const MAX_THREADS: usize = 4;
/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// All realms.
pub struct Realms {
    all: BTreeMap<String, AnyRealm>,
    /// Where an encrypted connection would be made; `None` where plain requests are refused instead.
    https_port: Option<u16>,
    /// Its end is the end of the thread that looks after the files.
    _alive: Option<Sender<()>>,
}

#[derive(Clone)]
enum AnyRealm {
    File(Arc<FileRealm>),
    Jwt(Arc<JwtRealm>),
}

impl Realms {
    /// Starts the realms of the settings. A file that can't be read is logged; its realm refuses until it can.
    ///
    /// # Errors
    /// When a thread can't be started.
    pub fn start(settings: &BTreeMap<String, Realm>, https_port: Option<u16>) -> Result<Self, String> {
        let thread = |name: String, work: Box<dyn FnOnce() + Send>| {
            let started = std::thread::Builder::new().name(name).spawn(work);
            started.map(drop).map_err(|e| format!("a thread for realms could not be started: {e}"))
        };
        let (pool, jobs) = sync_channel::<Job>(QUEUE);
        if settings.values().any(|realm| realm.kind == RealmKind::File) {
            let jobs = Arc::new(Mutex::new(jobs));
            let threads = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, MAX_THREADS);
            for number in 0..threads {
                let jobs = jobs.clone();
                thread(format!("wharf-realm-{number}"), Box::new(move || work(&jobs)))?;
            }
        }
        let mut all = BTreeMap::new();
        for (name, realm) in settings {
            let made = match realm.kind {
                RealmKind::File => AnyRealm::File(Arc::new(FileRealm::new(name, realm, pool.clone())?)),
                RealmKind::Jwt => {
                    AnyRealm::Jwt(Arc::new(JwtRealm::new(realm).map_err(|what| format!("realm.{name}: {what}"))?))
                }
            };
            all.insert(name.clone(), made);
        }
        let mut alive = None;
        if !all.is_empty() {
            let (sender, ended) = channel();
            let watched: Vec<AnyRealm> = all.values().cloned().collect();
            thread("wharf-realms".into(), Box::new(move || look(&watched, &ended)))?;
            alive = Some(sender);
        }
        Ok(Self { all, https_port, _alive: alive })
    }
}

impl Guards for Realms {
    fn guard(&self, options: &SecurityOptions) -> Result<Arc<dyn Guard>, String> {
        let constraints = Constraints::new(options)?;
        let login = match &options.login {
            None => None,
            Some(login) => {
                let name = &login.realm;
                let Some(realm) = self.all.get(name) else {
                    let known: Vec<&str> = self.all.keys().map(String::as_str).collect();
                    let known = if known.is_empty() { "there is none".into() } else { known.join(", ") };
                    return Err(format!(
                        "[login] realm = \"{}\": wharf.toml has no [realm.{name}] (it has: {known})",
                        name.escape_debug()
                    ));
                };
                Some(match (login.method, realm) {
                    (LoginMethod::Basic, AnyRealm::File(realm)) => Login::Basic(name.clone(), realm.clone()),
                    (LoginMethod::Bearer, AnyRealm::Jwt(realm)) => Login::Bearer(name.clone(), realm.clone()),
                    (LoginMethod::Basic, AnyRealm::Jwt(_)) => {
                        return Err(format!(
                            "[login] method = \"BASIC\" needs passwords, and the realm '{name}' has tokens: write \"BEARER\""
                        ));
                    }
                    (LoginMethod::Bearer, AnyRealm::File(_)) => {
                        return Err(format!(
                            "[login] method = \"BEARER\" needs tokens, and the realm '{name}' has passwords: write \"BASIC\""
                        ));
                    }
                })
            }
        };
        Ok(Arc::new(AccessGuard { constraints, login, https_port: self.https_port }))
    }
}

/// Computes until there is nobody left to ask.
fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A panic costs the request that asked: it gets no answer, which is a refusal.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
            tracing::error!("the check of a password panicked; its request is refused");
        }
    }
}

fn look(realms: &[AnyRealm], ended: &Receiver<()>) {
    while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        for realm in realms {
            match realm {
                AnyRealm::File(realm) => realm.look(),
                AnyRealm::Jwt(realm) => realm.look(),
            }
        }
    }
}
