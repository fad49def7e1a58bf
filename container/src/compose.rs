//! The whole container in one place: which part gets which, and in which order they start and stop.
//!
//! The way of a request is the ladder of `wharf_http::Pipeline`: record, checks, body cap, dispatch (mapper, lease),
//! endpoint, response, tail. What stands here is who makes the rungs.

use std::fmt::Display;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot};
use tracing_subscriber::EnvFilter;
use wharf_deployer::{DeployerConfig, DeployerHandle, Root};
use wharf_gateway::{Cgi, FastCgi, Proxy, StaticSite};
use wharf_http::{Limits, Listen, Pipeline, Protect, Server, ServerConfig, Tls};
use wharf_kernel::admin::{AppStatus, Operations};
use wharf_kernel::backends::Backends;
use wharf_kernel::launch::Kind;
use wharf_kernel::refusal::Code;
use wharf_kernel::routes::{HostSpec, Routes};
use wharf_kernel::settings::{self, AccessFormat, LogFormat, Settings};
use wharf_kernel::{AccessSink, AppId, ServerCounters};
use wharf_manager::{Door, Info, Listeners, Manager};
use wharf_module::{Frugal, ModuleConfig, ModuleLauncher};
use wharf_observe::{AccessLog, AccessLogConfig, Format, Metrics, Sources, Target};

use wharf_realm::Realms;
use wharf_resource::{ResourceRegistry, expand};
use wharf_session::SessionRegistry;
use wharf_source::Follower;

use crate::acme;
use crate::run::{OnReady, Running};

/// Runs a container until it is told to stop. Says so when it is ready.
///
/// # Errors
/// What kept it from starting.
pub(crate) fn run(mut settings: Settings, ready: OnReady) -> Result<ExitCode, String> {
    let start = Frugal::begin();
    init_log(&settings.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("wharf-main")
        .enable_all()
        .build()
        .map_err(|e| format!("the runtime could not be started: {e}"))?;
    let _inside = runtime.enter();
    // Signals first: one that comes while the applications start must stop the container gracefully, too.
    let deaf = |e| format!("signals can't be received: {e}");
    let mut signals = Signals::new().map_err(deaf)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(deaf)?;

    // 1. The admin socket, which is also the lock: a second container with the same state folder ends here.
    let socket = settings.admin_socket();
    let admin_socket = wharf_manager::bind(&socket).map_err(text)?;
    let admin = Listeners { socket: admin_socket, tcp: settings.admin.listen.map(admin_port).transpose()? };

    // 2. What everything counts and writes to.
    let routes = Arc::new(Routes::default());
    let counters = Arc::new(ServerCounters::default());
    let access = access_log(&settings.access_log)?;

    // The resources: no redeploy costs a connection.
    let resources = ResourceRegistry::start(&settings.resource, settings.default_databases.clone())?;

    // 3. The connectors: bound now, so that a port in use is found before anything is started; accepting comes last.
    let (challenges, certificate) = acme::prepare(&mut settings)?;
    let config = server_config(&settings)?;
    let sink: Arc<dyn AccessSink> = match &access {
        Some(log) => log.clone(),
        None => Arc::new(wharf_kernel::access::NoAccessLog),
    };
    let pipeline = Arc::new(Pipeline {
        routes: routes.clone(),
        access: sink,
        counters: counters.clone(),
        limits: config.limits.clone(),
        protect: Protect::new(&settings.protect, &*resources)?,
        challenges,
    });
    let server = Arc::new(Server::start(&config, pipeline).map_err(text)?);

    // The sessions: they outlive every generation.
    let sessions = SessionRegistry::start(settings.state_dir.clone(), settings.session.clone(), resources.clone())
        .map_err(|e| format!("the thread for sessions could not be started: {e}"))?;

    // 4. Who runs which kind of application. Modules are entered on the server's workers, and cleaned up there.
    let modules = ModuleConfig {
        state_dir: settings.state_dir.clone(),
        sessions: Some(sessions.clone()),
        resources: resources.clone(),
        trial_program: std::env::current_exe().map_err(|e| format!("the program's own path is not known: {e}"))?,
    };
    let modules = ModuleLauncher::new(modules, server.workers())
        .map_err(|e| format!("state folder '{}': {e}", settings.state_dir.display()))?;
    let fastcgi = Arc::new(FastCgi::default());
    let proxy = Proxy::new().map_err(|e| format!("no random numbers: {e}"))?;
    let launchers: wharf_deployer::Launchers = vec![
        (Kind::Module, Arc::new(modules)),
        (Kind::Static, Arc::new(StaticSite)),
        (Kind::Cgi, Arc::new(Cgi::default())),
        (Kind::Fastcgi, fastcgi.clone()),
        (Kind::Aspnet, fastcgi),
        (Kind::Proxy, Arc::new(proxy.clone())),
    ];

    let launchers: wharf_deployer::Launchers =
        launchers.into_iter().map(|(kind, launcher)| (kind, server.with_own_threads(launcher))).collect();

    // What the deploy folder follows is there before the first look at it.
    let follower = settings.deploy.source.as_ref().map(|source| follow(source, &settings)).transpose()?;

    // 5. The deployer: from here on applications come up.
    let https_port = settings.protect.https_redirect.then(|| settings.protect.https_port.unwrap_or(443));
    let https_port = settings.protect.https_port.or(https_port);
    let (mut deploy_config, hosts) = deploy_config(&settings);
    let realms = Realms::start(&settings.realm, https_port, &*resources, sessions.clone(), expand, runtime.handle())?;
    let operators = settings.admin.realm.as_ref().map(|name| realms.admin_guard(name)).transpose()?;
    let door = Door::new(settings.admin.token.clone(), operators, &settings.audit_log()).map_err(text)?;
    deploy_config.guards = Some(Arc::new(realms));
    let deploy_dirs = deploy_config.roots.iter().map(|r| r.dir.display().to_string()).collect();
    let deployer = wharf_deployer::start(deploy_config, launchers, routes.clone(), hosts).map_err(text)?;

    // Applications that wait for a resource come up with it.
    resources.on_up({
        let deployer = deployer.clone();
        move || {
            let waits = |app: &AppStatus| app.error.as_ref().is_some_and(|e| e.code == Code::ResourceDown);
            for app in deployer.list().into_iter().filter(waits) {
                // Refused again, it says so itself.
                let _ = deployer.reload(&app.name);
            }
        }
    });

    // 6. The admin API.
    let stopping = Arc::new(AtomicBool::new(false));
    let stop = Arc::new(Notify::new());
    let urls: Vec<String> = server.bound().iter().map(ToString::to_string).collect();
    let measured = (sessions.clone(), proxy.clone(), resources.clone());
    let metrics = metrics(routes, counters, access.clone(), deployer.clone(), measured);
    let manager = Manager {
        operations: Arc::new(deployer.clone()),
        metrics: Arc::new(move || metrics.render()),
        ready: Arc::new({
            let (deployer, stopping) = (deployer.clone(), stopping.clone());
            move || deployer.is_ready() && !stopping.load(Ordering::Acquire)
        }),
        shutdown: Arc::new({
            let stop = stop.clone();
            move || stop.notify_one()
        }),
        backends: Arc::new(proxy),
        resources: Arc::new({
            let resources = resources.clone();
            move || resources.states()
        }),
        info: Arc::new(Info {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            listening: urls.clone(),
            deploy_dirs,
        }),
    };
    let (end_admin, admin_ends) = oneshot::channel::<()>();
    let admin = runtime.spawn(wharf_manager::serve(admin, manager, door, async move {
        let _ = admin_ends.await;
    }));

    // 7. Traffic, once the first look at the deploy folders has settled.
    let announce = std::thread::spawn({
        let (deployer, server, stopping) = (deployer.clone(), server.clone(), stopping.clone());
        let handle = runtime.handle().clone();
        move || {
            while !deployer.wait_ready(Duration::from_millis(500)) {
                if stopping.load(Ordering::Acquire) {
                    return;
                }
            }
            server.accept();
            drop(start);
            acme::run(certificate, &handle);
            ready(Running { urls, deployer });
            let _ = std::io::stdout().flush();
        }
    });

    // 8. Until a signal or the admin API says stop; SIGHUP reopens the access log.
    runtime.block_on(async {
        loop {
            tokio::select! {
                name = signals.stop() => {
                    tracing::info!("{name}: stopping; a second signal forces it");
                    return;
                }
                () = stop.notified() => {
                    tracing::info!("stopping, as the admin API was told");
                    return;
                }
                _ = hangup.recv() => {
                    if let Some(log) = &access {
                        log.reopen();
                    }
                }
            }
        }
    });

    // 9. Down again: readiness, connections, applications, admin API, log. A second signal ends it at once.
    stopping.store(true, Ordering::Release);
    drop(follower);
    runtime.spawn(async move {
        let name = signals.stop().await;
        tracing::error!("{name} again: what is still in flight is cut");
        std::process::exit(1);
    });
    let drain = settings.server.drain_timeout;
    // Upgraded connections are told first: they count as connections, and end when they have said goodbye.
    deployer.drain();
    let cut = server.drain(drain);
    let held = deployer.shutdown(Duration::from_secs(1));
    for app in &held {
        let what: Vec<&str> = app.generations.iter().flat_map(|g| &g.held_by).map(String::as_str).collect();
        tracing::warn!(app = %app.name, "still in memory at the end, held by {}", what.join(", "));
    }
    // After the applications, which may still have changed them.
    sessions.stop();
    resources.stop();
    let _ = end_admin.send(());
    let _ = runtime.block_on(tokio::time::timeout(Duration::from_secs(1), admin));
    let _ = std::fs::remove_file(&socket);
    let _ = announce.join();
    drop(access);
    if cut > 0 {
        tracing::error!("{cut} connections were cut after {drain:?}");
        return Ok(ExitCode::FAILURE);
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Begins to follow an object store.
fn follow(source: &settings::Source, settings: &Settings) -> Result<Follower, String> {
    let put_in = |key: &str, text: &Option<String>| {
        text.as_deref().map(expand).transpose().map_err(|what| format!("deploy.source.{key}: {what}"))
    };
    let source = settings::Source {
        access_key: put_in("access_key", &source.access_key)?,
        secret_key: put_in("secret_key", &source.secret_key)?,
        ..source.clone()
    };
    Follower::start(&source, settings.deploy.dir.clone(), &settings.state_dir)
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// The log on standard error, with everything the applications say.
fn init_log(log: &settings::Log) -> Result<(), String> {
    // rustls warns of each client that says the address as a name: whoever connects could fill the log. object_store tells of each
    // attempt; what came of them all is said once. What is configured comes later, and so may say otherwise.
    let filter = EnvFilter::try_new(format!("rustls=error,object_store=warn,{}", log.level));
    let filter = filter.map_err(|e| format!("log.level = \"{}\": {e}", log.level))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => {
            use std::io::IsTerminal;
            builder.with_ansi(std::io::stderr().is_terminal()).try_init()
        }
    };
    done.map_err(text)
}

fn access_log(log: &settings::AccessLog) -> Result<Option<Arc<AccessLog>>, String> {
    let format = match log.format {
        AccessFormat::Off => return Ok(None),
        AccessFormat::Combined => Format::Combined,
        AccessFormat::Json => Format::Json,
    };
    let target = if log.file == Path::new("-") { Target::Stdout } else { Target::File(log.file.clone()) };
    let config = AccessLogConfig { format, ..AccessLogConfig::new(target) };
    AccessLog::start(config).map(|log| Some(Arc::new(log))).map_err(text)
}

fn listen(listen: &settings::Listen) -> Listen {
    match listen {
        settings::Listen::Tcp(addr) => Listen::Tcp(*addr),
        settings::Listen::Tls(addr) => Listen::Tls(*addr),
        settings::Listen::Unix(path) => Listen::Unix(path.clone()),
    }
}

/// The port of the admin API.
fn admin_port(address: SocketAddr) -> Result<TcpListener, String> {
    let wrong = |e| format!("admin.listen {address}: {e}");
    let listener = TcpListener::bind(address).map_err(wrong)?;
    let address = listener.local_addr().map_err(wrong)?;
    tracing::info!(%address, "the admin API listens");
    Ok(listener)
}

fn server_config(settings: &Settings) -> Result<ServerConfig, String> {
    let defaults = ServerConfig::default();
    let server = &settings.server;
    let limits = &server.limits;
    let mut tls = None;
    if server.listen.iter().any(|l| matches!(l, settings::Listen::Tls(_))) {
        let loaded = Tls::load(settings.tls.clone(), server.http2.enabled).map_err(|e| format!("TLS: {e}"))?;
        loaded.watch().map_err(text)?;
        tls = Some(loaded);
    }
    Ok(ServerConfig {
        listen: server.listen.iter().map(listen).collect(),
        proxy_protocol: server.proxy_protocol.iter().map(listen).collect(),
        workers: server.workers.unwrap_or(defaults.workers),
        limits: Limits {
            connections: limits.max_connections.min(Limits::most_connections()),
            header_timeout: limits.header_timeout,
            header_count: limits.header_count,
            header_bytes: limits.headers,
            target_bytes: limits.request_line,
            body_bytes: limits.body,
            body_idle: limits.body_idle_timeout,
            body_min_rate: limits.body_min_rate,
            response_timeout: limits.response_timeout,
            send_timeout: limits.send_timeout,
            send_min_rate: limits.send_min_rate,
            cookies: limits.cookies,
            drain_bytes: limits.unread_body,
            keep_alive: limits.keep_alive_timeout,
            keep_alive_requests: limits.keep_alive_requests,
            connections_per_address: limits.connections_per_address,
            http2: server.http2.clone(),
            trusted_proxies: server.trusted_proxies.iter().map(settings::Network::net).collect(),
            ..defaults.limits
        },
        tls,
    })
}

fn deploy_config(settings: &Settings) -> (DeployerConfig, Vec<HostSpec>) {
    let deploy = &settings.deploy;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut hosts: Vec<HostSpec> = settings
        .host
        .iter()
        .map(|h| HostSpec { name: h.name.as_str().into(), aliases: h.aliases.clone(), default: h.default })
        .collect();
    let main = match hosts.iter().position(|h| h.default) {
        Some(at) => hosts[at].name.clone(),
        None => {
            hosts.insert(0, HostSpec::fallback());
            HostSpec::fallback().name
        }
    };
    let mut roots = vec![Root { host: main, dir: deploy.dir.clone(), prefix: String::new() }];
    for host in &settings.host {
        if let Some(dir) = &host.deploy_dir {
            let prefix = format!("{}:", host.name);
            roots.push(Root { host: host.name.as_str().into(), dir: dir.clone(), prefix });
        }
    }
    let config = DeployerConfig {
        guards: None,
        roots,
        state_dir: settings.state_dir.clone(),
        poll_interval: deploy.poll_interval,
        parallel: deploy.parallel.unwrap_or(processors),
        trial_timeout: deploy.trial_timeout,
        start_timeout: deploy.start_timeout,
        stop_timeout: deploy.stop_timeout,
        drain_timeout: settings.server.drain_timeout,
        keep_versions: deploy.keep_versions,
        retire_old_versions: deploy.retire_old_versions,
        runtime_threads: deploy.runtime_threads,
        blocking_threads: deploy.blocking_threads,
        share: deploy.share(),
    };
    (config, hosts)
}

fn metrics(
    routes: Arc<Routes>,
    server: Arc<ServerCounters>,
    access: Option<Arc<AccessLog>>,
    deployer: DeployerHandle,
    (sessions, proxy, resources): (Arc<SessionRegistry>, Proxy, Arc<ResourceRegistry>),
) -> Metrics {
    let states = deployer.clone();
    let (served, cut) = (deployer.clone(), deployer.clone());
    let proxied = routes.clone();
    Metrics::new(Sources {
        resources: Box::new(move || resources.states()),
        backends: Box::new(move || {
            let table = proxied.load();
            let apps = table.routes().iter().map(|route| &route.id);
            apps.filter_map(|id| Some((id.clone(), proxy.list(id)?))).collect()
        }),
        routes,
        server,
        sessions: Box::new(move || {
            let all = sessions.statistics().into_iter();
            all.map(|s| (s.host, s.context_path, s.counts)).collect()
        }),
        access_log_dropped: Box::new(move || access.as_ref().map_or(0, |log| log.dropped())),
        generations: Box::new(move || {
            let mut counts = std::collections::BTreeMap::<String, u64>::new();
            for generation in states.list().iter().flat_map(|app| &app.generations) {
                *counts.entry(generation.state.name().to_owned()).or_default() += 1;
            }
            counts.into_iter().collect()
        }),
        cut_upgrades: Box::new(move || cut.stats().cut_upgrades.load(Ordering::Relaxed)),
        redeploys: Box::new(move || served.stats().served.load(Ordering::Relaxed)),
        heaps: Box::new(move || {
            let apps = deployer.list();
            apps.iter()
                .map(|app| {
                    let id = AppId {
                        host: app.host.as_str().into(),
                        path: wharf_kernel::ContextPath::parse(&app.context_path)
                            .unwrap_or_else(|_| wharf_kernel::ContextPath::root()),
                        version: wharf_kernel::Version::new(&app.version),
                    };
                    (id, app.generations.iter().filter_map(|g| g.live_bytes).sum())
                })
                .collect()
        }),
    })
}

/// The signals that a container knows.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
