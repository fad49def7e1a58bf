//! Runs HTTP servers behind this one: those that are there, and those that it starts itself.

mod activity;
mod balance;
mod connect;
mod endpoint;
mod headers;
mod member;
mod process;
mod relay;
mod state;
mod sticky;
mod target;
mod tunnel;
mod watch;

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch as channel};
use wharf_kernel::backends::{BackendStatus, Backends as BackendsPort};
use wharf_kernel::launch::{Description, Launched, Launcher, Plan};
use wharf_kernel::options::ProxyOptions;
use wharf_kernel::refusal::Code;
use wharf_kernel::{AppId, Refusal};

use self::balance::{Balancer, Candidate, hash};
use self::connect::Connector;
use self::endpoint::{Backends, Front};
use self::member::Member;
use self::process::Program;
use self::state::State;
use self::sticky::Cookies;
use self::target::Target;
use self::tunnel::Tunnels;
use crate::generation::Generation;
use crate::program::times::Times;

/// Launches HTTP servers behind this one. Clones are the same.
#[derive(Clone)]
pub struct Proxy(Arc<Shared>);

struct Shared {
    apps: Mutex<HashMap<AppId, App>>,
    /// Random, of this process: signs cookies, and makes our name in Via one that nobody else has.
    secret: [u8; 32],
    /// Where everything runs that is not a request.
    control: Mutex<Option<Handle>>,
}

/// What is known of an application, whatever its generation.
#[derive(Default)]
struct App {
    /// By URL.
    states: HashMap<String, Arc<State>>,
    /// The backends of each generation, the newest last.
    generations: Vec<(u64, Vec<Arc<Member>>)>,
}

impl Proxy {
    /// One for all proxies of a container.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new() -> std::io::Result<Self> {
        let mut secret = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut secret)?;
        Ok(Self(Arc::new(Shared { apps: Mutex::default(), secret, control: Mutex::default() })))
    }

    fn apps(&self) -> MutexGuard<'_, HashMap<AppId, App>> {
        self.0.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The runtime for what is no request; its thread comes with the first proxy and stays.
    fn control(&self) -> std::io::Result<Handle> {
        let mut control = self.0.control.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &*control {
            return Ok(handle.clone());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().thread_name("wharf-proxy").build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("wharf-proxy".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        *control = Some(handle.clone());
        Ok(handle)
    }

    /// The backends of a new generation; those that were there before keep their state.
    fn members(&self, plan: &Plan, options: &ProxyOptions, urls: &[(String, u32)]) -> Result<Vec<Arc<Member>>, String> {
        let mut apps = self.apps();
        let app = apps.entry(plan.id.clone()).or_default();
        let mut members = Vec::new();
        for (url, weight) in urls {
            let connector = Connector::new(Target::parse(url)?, options)?;
            let state = app.states.entry(url.clone()).or_default().clone();
            members.push(Arc::new(Member::new(connector, state, *weight, hash(url), options)));
        }
        app.generations.push((plan.generation, members.clone()));
        Ok(members)
    }

    /// Forgets a generation, and the backends that no other has.
    fn forget(&self, id: &AppId, generation: u64) {
        let mut apps = self.apps();
        let Some(app) = apps.get_mut(id) else { return };
        app.generations.retain(|(number, members)| {
            if *number == generation {
                members.iter().for_each(|m| m.sweep(true));
            }
            *number != generation
        });
        let used = |url: &String| {
            app.generations.iter().flat_map(|(_, members)| members).any(|m| *m.connector.target.url == **url)
        };
        app.states.retain(|url, _| used(url));
        if app.generations.is_empty() {
            apps.remove(id);
        }
    }
}

impl BackendsPort for Proxy {
    fn list(&self, app: &AppId) -> Option<Vec<BackendStatus>> {
        let apps = self.apps();
        let (_, members) = apps.get(app)?.generations.last()?;
        Some(members.iter().map(|m| m.status()).collect())
    }

    fn set_drained(&self, app: &AppId, url: &str, drained: bool) -> bool {
        let apps = self.apps();
        let Some(state) = apps.get(app).and_then(|a| a.states.get(url)) else { return false };
        state.drained.store(drained, std::sync::atomic::Ordering::Relaxed);
        tracing::info!(%app, backend = url, "{}", if drained { "drained: no new requests" } else { "takes requests again" });
        true
    }
}

fn bad(plan: &Plan, what: &str) -> Refusal {
    Refusal::new(Code::BadAppToml, format!("{}: {what}", plan.source.display()))
}

/// The folder that relative paths are meant from.
fn folder(plan: &Plan) -> PathBuf {
    let dir = match &plan.folder {
        Some(folder) => folder.clone(),
        None => plan.source.parent().unwrap_or(Path::new(".")).to_owned(),
    };
    std::path::absolute(&dir).unwrap_or(dir)
}

/// The options, with paths made absolute, or what is wrong with them.
fn options(plan: &Plan) -> Result<ProxyOptions, Refusal> {
    let Some(options) = &plan.options.proxy else {
        let fix = "add [proxy] with backends = [\"http://127.0.0.1:9000\"] or command = [\"program\", \"argument\"]";
        return Err(bad(plan, "there is no [proxy]").fix(fix));
    };
    let mut options = options.clone();
    options.check().map_err(|what| bad(plan, &what))?;
    if let Some(ca) = &mut options.tls.ca {
        *ca = folder(plan).join(&*ca);
    }
    for backend in &options.backends {
        let target = Target::parse(&backend.url).map_err(|what| bad(plan, &what))?;
        Connector::new(target, &options).map_err(|what| bad(plan, &what))?;
    }
    Ok(options)
}

impl Launcher for Proxy {
    fn verify(&self, plan: &Plan) -> Result<Description, Refusal> {
        options(plan)?;
        let named = plan.folder.as_deref().unwrap_or(&plan.source);
        let name = named.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Description { name, ..Description::default() })
    }

    fn launch(&self, plan: &Plan) -> Result<Arc<dyn Launched>, Refusal> {
        let description = self.verify(plan)?;
        let options = Arc::new(options(plan)?);
        let failed = |what: String| Refusal::new(Code::StartFailed, format!("{}: {what}", plan.source.display()));
        let control = self.control().map_err(|e| failed(e.to_string()))?;

        let sockets = std::env::temp_dir().join(format!("wharf-{}-{}", std::process::id(), plan.generation));
        let urls: Vec<(String, u32)> = if options.command.is_empty() {
            options.backends.iter().map(|b| (b.url.clone(), b.weight)).collect()
        } else {
            if options.listen == wharf_kernel::options::ProcessListen::Unix {
                let made = std::fs::DirBuilder::new().mode(0o700).create(&sockets);
                made.map_err(|e| failed(format!("folder for sockets {}: {e}", sockets.display())))?;
            }
            (0..options.copies)
                .map(|copy| process::place(options.listen, &sockets, copy).map(|url| (url, 1)))
                .collect::<Result<_, _>>()
                .map_err(|e| failed(format!("no port for the program: {e}")))?
        };
        let members = self.members(plan, &options, &urls).map_err(|what| bad(plan, &what))?;

        let (end, ends) = channel::channel(false);
        let tunnels = Tunnels::new(options.tunnel_idle_timeout);
        let app = plan.id.to_string();
        let (all, all_gone) = std::sync::mpsc::channel::<()>();
        let mut starting = Vec::new();
        let times = Arc::<Mutex<Times>>::default();
        if !options.command.is_empty() {
            let program = Arc::new(Program {
                options: options.clone(),
                app: app.clone(),
                dir: folder(plan),
                start_timeout: plan.start_timeout,
                stop_timeout: plan.stop_timeout,
                times: times.clone(),
            });
            for member in &members {
                let (ready, hears) = oneshot::channel();
                let (work, all) = (program.clone().supervise(member.clone(), ready, ends.clone()), all.clone());
                control.spawn(async move {
                    work.await;
                    drop(all);
                });
                starting.push(hears);
            }
        }
        drop(all);
        let stop = {
            let (this, id, generation) = (self.clone(), plan.id.clone(), plan.generation);
            let (tunnels, all_gone, patience) = (tunnels.clone(), Mutex::new(all_gone), plan.stop_timeout * 2);
            move || {
                end.send_replace(true);
                tunnels.close();
                // Programs have gone when the last of them lets go of its end.
                let gone = all_gone.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = gone.recv_timeout(patience);
                let _ = std::fs::remove_dir_all(&sockets);
                this.forget(&id, generation);
            }
        };
        for hears in starting {
            let result = hears.blocking_recv().unwrap_or_else(|_| Err("the start broke off".to_owned()));
            if let Err(what) = result {
                stop();
                return Err(failed(what));
            }
        }
        // After the first start: what is looked after must be able to answer.
        for member in &members {
            control.spawn(watch::look_after(member.clone(), options.clone(), app.clone(), ends.clone()));
        }

        let candidates =
            members.iter().map(|m| Candidate { state: m.state.clone(), weight: m.weight, id: m.id }).collect();
        let balancer = Balancer::new(options.policy, options.slow_start, options.panic_threshold, candidates);
        let cookies = options.sticky.as_ref().map(|sticky| {
            let key = sticky.secret.as_ref().map_or(&self.0.secret[..], |s| s.as_bytes());
            Cookies::new(&sticky.cookie, plan.id.path.as_str(), key)
        });
        let pseudonym = headers::Pseudonym::new(format!("wharf-{:016x}", hash(&(self.0.secret, app.as_str()))));
        let budget = endpoint::budget(&options);
        let backends = Backends { options, members, balancer, cookies, budget, tunnels, pseudonym, times, app };
        Ok(Generation::new(description, Arc::new(Front(Arc::new(backends))), stop))
    }
}
