//! All managers, by context, and the thread that looks for sessions that have expired.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use wharf_kernel::AppId;
use wharf_kernel::options::{SessionOptions, SessionSettings, SessionStore};
use wharf_kernel::resource::OwnResources;
use wharf_kernel::session::{Counts, SessionManager, SessionManagers};

use crate::files::Files;
use crate::manager::Manager;
use crate::shared::Shared;

/// What has become of the sessions of one context.
#[derive(Debug, Clone)]
pub struct Statistics {
    /// Host.
    pub host: String,
    /// Context path, as people write it.
    pub context_path: String,
    /// The numbers.
    pub counts: Counts,
}

type Managers = BTreeMap<(String, String), Arc<Manager>>;

/// The sessions of the container.
pub struct SessionRegistry {
    folder: PathBuf,
    defaults: SessionSettings,
    stores: Arc<dyn OwnResources>,
    managers: Mutex<Managers>,
    sweeper: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

/// Sessions that have expired are looked for so often.
const SWEEP: Duration = Duration::from_secs(1);

impl SessionRegistry {
    /// A registry that keeps files in the folder `sessions` of the state folder, and what containers share in `stores`.
    ///
    /// # Errors
    /// When its thread can't be started.
    pub fn start(
        state_dir: PathBuf,
        defaults: SessionSettings,
        stores: Arc<dyn OwnResources>,
    ) -> std::io::Result<Arc<Self>> {
        let folder = state_dir.join("sessions");
        let this = Arc::new(Self { folder, defaults, stores, managers: Mutex::default(), sweeper: Mutex::default() });
        let (stop, stopped) = mpsc::channel::<()>();
        let weak = Arc::downgrade(&this);
        let sweep = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(SWEEP) {
                let Some(this) = Weak::upgrade(&weak) else { return };
                let all: Vec<_> = this.managers().values().cloned().collect();
                all.iter().for_each(|manager| manager.expire());
            }
        };
        let thread = std::thread::Builder::new().name("wharf-sessions".into()).spawn(sweep)?;
        *this.sweeper.lock().unwrap_or_else(PoisonError::into_inner) = Some((stop, thread));
        Ok(this)
    }

    fn managers(&self) -> MutexGuard<'_, Managers> {
        self.managers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The container stops: ends the thread, and writes every session for the next start, with the memory store too.
    pub fn stop(&self) {
        let sweeper = self.sweeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stop, thread)) = sweeper {
            drop(stop);
            let _ = thread.join();
        }
        self.managers().values().for_each(|manager| manager.write_all());
    }

    /// What has become of the sessions of each context.
    pub fn statistics(&self) -> Vec<Statistics> {
        let managers = self.managers();
        let one = |((host, path), manager): (&(String, String), &Arc<Manager>)| Statistics {
            host: host.clone(),
            context_path: if path.is_empty() { "/".into() } else { path.clone() },
            counts: manager.counts(),
        };
        managers.iter().map(one).collect()
    }
}

fn key(id: &AppId) -> (String, String) {
    (id.host.to_string(), id.path.as_str().to_owned())
}

impl SessionManagers for SessionRegistry {
    fn of(&self, id: &AppId, options: &SessionOptions) -> Result<Arc<dyn SessionManager>, String> {
        let settings = self.defaults.with(options);
        settings.check().map_err(|(key, what)| format!("[session] {key}: {what}"))?;
        let context = format!("{}{}", id.host, id.path.as_str());
        let shared = match &settings.store {
            SessionStore::Resource(name) => {
                let store = self.stores.shared_store(name).map_err(|what| format!("[session] store: {what}"))?;
                Some(Arc::new(Shared::new(store, &context)))
            }
            SessionStore::Memory | SessionStore::File => None,
        };
        let mut managers = self.managers();
        if let Some(manager) = managers.get(&key(id)) {
            manager.set(settings, shared);
            return Ok(manager.clone());
        }
        let files = Files::new(&self.folder, &context, settings.max_session_bytes);
        let manager = Manager::open(files, settings, shared);
        managers.insert(key(id), manager.clone());
        Ok(manager)
    }

    fn undeployed(&self, id: &AppId) {
        if let Some(manager) = self.managers().remove(&key(id)) {
            manager.clear();
        }
    }
}
