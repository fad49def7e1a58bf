//! Wanted against running: what to start, what to swap in, what to retire.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use wharf_kernel::launch::{Kind, Launched, Plan, Retirement};
use wharf_kernel::lifecycle::Event;
use wharf_kernel::refusal::Code;
use wharf_kernel::{
    AppCounters, AppId, Body, Endpoint, Exchange, Gate, Lease, Refusal, ResponseFuture, Route, RouteTable,
};

use crate::app::{App, CUT_OFF, Pending, Seen};
use crate::deployer::{Deployer, Message};
use crate::generation::Generation;
use crate::job::{Job, Ready};
use crate::keep::Kept;
use crate::scan::{self, Print, Source, Spec};

/// Answers for an application that was stopped.
struct Stopped;

impl Endpoint for Stopped {
    fn call(&self, _exchange: Box<Exchange>, _lease: Lease) -> ResponseFuture {
        let mut response = http::Response::new(Body::from("the application is stopped\n"));
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("10"));
        Box::pin(std::future::ready(response))
    }
}

impl Deployer {
    /// Looks at all folders and notes what has changed.
    pub(crate) fn scan(&mut self) {
        let mut found = std::collections::HashSet::new();
        let mut unreadable = Vec::new();
        for root in self.config.roots.clone() {
            let listing = match scan::scan(&root) {
                Ok(listing) => listing,
                Err(error) => {
                    if self.warned.insert(root.dir.clone()) {
                        tracing::error!(dir = %root.dir.display(), %error, "can't read the deploy folder; what runs goes on");
                    }
                    unreadable.push(root.prefix);
                    continue;
                }
            };
            self.warn_once(
                &root.dir,
                listing.world_writable,
                "everyone can write to the deploy folder and so run code in the container; chmod o-w it",
            );
            for orphan in &listing.orphans {
                self.warn_once(orphan, true, "ignored: there is no .so beside this file");
            }
            for source in listing.sources {
                found.insert(source.name.clone());
                self.note(source);
            }
        }
        // Nothing is concluded from a folder that could not be read.
        let readable = |name: &str| {
            !unreadable.iter().any(|p| if p.is_empty() { !name.contains(':') } else { name.starts_with(p) })
        };
        let mut removed = false;
        for (name, app) in &mut self.apps {
            if app.source.is_some() && !found.contains(name) && readable(name) {
                tracing::info!(name, "the file is gone: undeploying");
                app.source = None;
                app.error = None;
                removed = true;
            }
        }
        if removed {
            self.retry_duplicates();
        }
        self.closed.clear();
    }

    fn warn_once(&mut self, path: &Path, when: bool, message: &str) {
        if when && self.warned.insert(path.join("\0")) {
            tracing::warn!(path = %path.display(), "{message}");
        }
    }

    fn note(&mut self, source: Source) {
        let closed = source.files.iter().any(|f| self.closed.contains(f));
        let Some(app) = self.apps.get_mut(&source.name) else {
            self.apps.insert(source.name.clone(), App::new(source, closed));
            return;
        };
        let changed = app.source.as_ref().is_none_or(|old| old.print != source.print);
        if changed {
            app.seen = Seen { since: Instant::now(), closed };
            app.retry_at = None;
        }
        app.source = Some(source);
    }

    /// Another try for those that were refused because of another application's place.
    pub(crate) fn retry_duplicates(&mut self) {
        for app in self.apps.values_mut() {
            if app.error.as_ref().is_some_and(|e| e.code == Code::Duplicate) {
                app.handled = None;
            }
        }
    }

    /// Moves what runs towards what is wanted, as far as it goes now.
    pub(crate) fn reconcile(&mut self) {
        if self.is_shutting_down() {
            return;
        }
        let now = Instant::now();
        self.mark_superseded();
        let (mut leaving, mut gone) = (Vec::new(), Vec::new());
        for app in self.apps.values_mut() {
            if !app.may_serve()
                && let Some(generation) = app.serving.take()
            {
                // When it may serve again, it is started again.
                app.handled = None;
                if app.source.is_none() {
                    gone.push(generation.id.clone());
                }
                leaving.push(generation);
            }
        }
        if !leaving.is_empty() {
            self.swap();
            leaving.into_iter().for_each(|g| self.retire(g));
            self.mark_superseded();
        }
        self.apps.retain(|_, a| a.source.is_some() || a.pending.is_some());
        self.undeployed(&gone);
        // Of those that have something to do, the lowest in the load order come first.
        let order = |app: &App| app.spec().map_or(0, |s| s.toml.order);
        let due = |app: &App| app.pending.is_none() && app.is_wanted() && app.is_complete(now);
        let first = self.apps.values().filter(|a| a.pending.is_some() || due(a)).map(order).min();
        let names: Vec<String> =
            self.apps.iter().filter(|(_, a)| due(a) && Some(order(a)) == first).map(|(n, _)| n.clone()).collect();
        for name in names {
            if self.running >= self.config.parallel {
                break;
            }
            self.begin(&name);
        }
    }

    /// What outlives the generations of an application ends when its last version is gone.
    fn undeployed(&self, gone: &[AppId]) {
        for id in gone {
            let mut left =
                self.apps.values().filter_map(|a| a.serving.as_ref().map(|g| &g.id).or(a.spec().map(|s| &s.id)));
            if !left.any(|other| other.host == id.host && other.path == id.path) {
                self.launchers.iter().for_each(|(_, launcher)| launcher.undeployed(id));
            }
        }
    }

    fn mark_superseded(&mut self) {
        if !self.config.retire_old_versions {
            return;
        }
        let serving: Vec<AppId> = self.apps.values().filter_map(|a| Some(a.serving.as_ref()?.id.clone())).collect();
        for app in self.apps.values_mut() {
            let Some(id) = app.spec().map(|s| s.id.clone()) else { continue };
            app.superseded = serving.iter().any(|s| s.host == id.host && s.path == id.path && s.version > id.version);
        }
    }

    fn begin(&mut self, name: &str) {
        let taken: Vec<(String, AppId)> = self
            .apps
            .iter()
            .filter(|(n, _)| *n != name)
            .flat_map(|(n, a)| {
                let pending = a.pending.as_ref().map(|p| &p.generation);
                a.serving.iter().chain(pending).map(|g| (n.clone(), g.id.clone()))
            })
            .collect();
        let Some(app) = self.apps.get_mut(name) else { return };
        let Some(source) = app.source.clone() else { return };
        app.handled = Some(source.print.clone());
        app.force = false;
        app.retry_at = None;
        let spec = source.spec.clone().and_then(|spec| {
            if let Some((other, _)) = taken.iter().find(|(_, id)| *id == spec.id) {
                return Err(Refusal::new(
                    Code::Duplicate,
                    format!("{} wants {}, which is '{other}'", source.path.display(), spec.id),
                ));
            }
            if !self.hosts.is_empty() && !self.hosts.iter().any(|h| h.name == spec.id.host) {
                return Err(Refusal::new(Code::BadAppToml, format!("host '{}' is not configured", spec.id.host))
                    .fix("add a [[host]] to wharf.toml, or correct 'host'"));
            }
            Ok(spec)
        });
        self.last_generation += 1;
        let number = self.last_generation;
        match spec {
            Ok(spec) => self.launch(name, number, &source, spec),
            Err(refusal) => {
                Self::count(&self.stats.failed, 1);
                tracing::error!(name, code = %refusal.code, "{refusal}");
                app.error = Some(refusal);
            }
        }
    }

    fn launch(&mut self, name: &str, number: u64, source: &Source, spec: Spec) {
        let config = &self.config;
        let plan = Plan {
            id: spec.id.clone(),
            kind: spec.kind.clone(),
            source: spec.source.clone(),
            folder: spec.folder.clone(),
            init: spec.init.clone(),
            generation: number,
            trial_timeout: config.trial_timeout,
            start_timeout: spec.toml.start_timeout.unwrap_or(config.start_timeout),
            stop_timeout: spec.toml.stop_timeout.unwrap_or(config.stop_timeout),
            runtime_threads: spec.toml.runtime_threads.unwrap_or(config.runtime_threads),
            blocking_threads: spec.toml.blocking_threads.unwrap_or(config.blocking_threads),
            options: Arc::new(spec.toml.options()),
        };
        let file_print = Print::of(&spec.source).ok().filter(|_| spec.kind == Kind::Module && spec.folder.is_none());
        let keep = file_print.map(|print| (Kept::new(&config.state_dir, name), print, config.keep_versions));
        let job = Job { guards: config.guards.clone(), plan, health: spec.toml.health.clone(), keep };
        let mut generation = Generation::new(name.to_owned(), spec.id, number);
        generation.share = spec.toml.share(config.share);
        let launcher = self.launchers.iter().find(|(k, _)| *k == spec.kind).map(|(_, l)| l.clone());
        let (sender, owner) = (self.sender(), name.to_owned());
        let work = move || {
            let result = match launcher {
                None => Err(Refusal::new(
                    Code::BadAppToml,
                    format!("this container runs no applications of the kind {:?}", job.plan.kind),
                )),
                Some(launcher) => job.run(&*launcher, |description| {
                    let _ = sender.send(Message::Verified {
                        name: owner.clone(),
                        generation: number,
                        version: description.version.clone(),
                        sha256: description.sha256.clone(),
                    });
                }),
            };
            let _ = sender.send(Message::Ended { name: owner, generation: number, result });
        };
        let Some(app) = self.apps.get_mut(name) else { return };
        match thread::Builder::new().name(format!("launch-{number}")).spawn(work) {
            Ok(_) => {
                app.pending = Some(Pending { generation, print: source.print.clone() });
                self.running += 1;
            }
            Err(error) => {
                tracing::error!(name, %error, "no thread for the start; trying again");
                app.handled = None;
                app.retry_at = Some(Instant::now() + CUT_OFF);
            }
        }
    }

    pub(crate) fn verified(&mut self, name: &str, generation: u64, version: String, sha256: String) {
        let pending = self.apps.get_mut(name).and_then(|a| a.pending.as_mut());
        if let Some(pending) = pending.filter(|p| p.generation.number == generation) {
            pending.generation.version = version;
            pending.generation.sha256 = sha256;
            pending.generation.step(Event::Verify);
        }
    }

    /// An attempt is over: its generation takes the traffic, or the one before keeps it.
    pub(crate) fn ended(&mut self, name: &str, number: u64, result: Result<Ready, Refusal>) {
        self.running -= 1;
        let shutting_down = self.is_shutting_down();
        let Some(app) = self.apps.get_mut(name) else { return };
        let Some(Pending { mut generation, print }) = app.pending.take_if(|p| p.generation.number == number) else {
            return;
        };
        let ready = match result {
            Ok(ready) => ready,
            Err(refusal) => {
                let unchanged = app.source.as_ref().is_some_and(|s| s.print == print);
                let incomplete = matches!(refusal.code, Code::Truncated | Code::Empty);
                if incomplete && (!unchanged || app.seen.since.elapsed() < CUT_OFF) {
                    // Still being copied, it seems: not a failure yet.
                    app.handled = None;
                    app.retry_at = unchanged.then_some(app.seen.since + CUT_OFF);
                    return;
                }
                Self::count(&self.stats.failed, 1);
                generation.step(Event::Fail(refusal.clone()));
                app.error = Some(refusal);
                return;
            }
        };
        generation.step(Event::Load);
        generation.step(Event::Start);
        generation.copy = ready.copy;
        let id = generation.id.clone();
        let counters =
            self.counters.entry(id.clone()).or_insert_with(|| Arc::new(AppCounters::new(id.clone()))).clone();
        counters.fairness.begin(generation.share);
        generation.route = Some(Arc::new(Route {
            id,
            generation: number,
            gate: ready.launched.gate().clone(),
            endpoint: ready.launched.endpoint(),
            servlets: ready.servlets,
            guard: ready.guard,
            counters,
            suspended: false,
        }));
        generation.launched = Some(ready.launched);
        if shutting_down || !app.may_serve() {
            app.handled = None;
            self.retire(generation);
            return;
        }
        app.error = None;
        generation.step(Event::Serve);
        let old = app.serving.replace(generation);
        Self::count(&self.stats.served, 1);
        self.swap();
        if let Some(old) = old {
            self.retire(old);
        }
    }

    /// Puts the table of all that serves in force: the one moment at which traffic moves.
    pub(crate) fn swap(&self) {
        let mut routes: Vec<Arc<Route>> = Vec::new();
        for app in self.apps.values() {
            if let Some(route) = app.serving.as_ref().and_then(|g| g.route.clone()) {
                routes.push(route);
            }
        }
        for app in self.apps.values().filter(|a| a.stopped && a.serving.is_none()) {
            if let Some(spec) = app.spec().filter(|s| !routes.iter().any(|r| r.id == s.id)) {
                let id = spec.id.clone();
                let counters =
                    self.counters.get(&id).cloned().unwrap_or_else(|| Arc::new(AppCounters::new(id.clone())));
                let gate = Gate::new(|| {});
                routes.push(Arc::new(Route {
                    id,
                    generation: 0,
                    gate,
                    endpoint: Arc::new(Stopped),
                    servlets: None,
                    guard: None,
                    counters,
                    suspended: true,
                }));
            }
        }
        match RouteTable::new(self.hosts.iter().cloned(), routes) {
            Ok(table) => self.routes.store(table),
            Err(error) => tracing::error!(%error, "the route table can't be made; the one before stays in force"),
        }
    }

    /// Lets a generation go that is no longer in the route table.
    pub(crate) fn retire(&mut self, mut generation: Generation) {
        generation.step(Event::Drain);
        generation.route = None;
        let Some(launched) = generation.launched.clone() else { return };
        launched.gate().close();
        let drain = self.config.drain_timeout;
        let number = generation.number;
        self.leaving.push(generation);
        self.on_thread(format!("retire-{number}"), number, move || launched.retire(drain));
    }

    fn on_thread(&self, name: String, generation: u64, work: impl FnOnce() -> Retirement + Send + 'static) {
        let sender = self.sender();
        let run = move || {
            let retirement = work();
            let _ = sender.send(Message::Retired { generation, retirement });
        };
        if let Err(error) = thread::Builder::new().name(name).spawn(run) {
            let held_by = vec![format!("no thread for its retirement: {error}")];
            let _ = self
                .sender()
                .send(Message::Retired { generation, retirement: Retirement { held_by, ..Retirement::default() } });
        }
    }

    pub(crate) fn retired(&mut self, number: u64, retirement: Retirement) {
        let Some(at) = self.leaving.iter().position(|g| g.number == number) else { return };
        let generation = &mut self.leaving[at];
        let was_held = generation.is_held();
        for note in &retirement.notes {
            tracing::info!(app = %generation.id, generation = number, "{note}");
        }
        if retirement.cut_upgrades > 0 {
            Self::count(&self.stats.cut_upgrades, retirement.cut_upgrades);
            tracing::warn!(app = %generation.id, generation = number, cut = retirement.cut_upgrades,
                "upgraded connections did not end within the drain time of {:?} and were cut", self.config.drain_timeout);
        }
        if retirement.held_by.is_empty() {
            generation.step(Event::Retire);
            Self::count(&self.stats.retired, 1);
            Self::count(&self.stats.left_bytes, retirement.left_bytes);
            if retirement.left_blocks + retirement.left_descriptors > 0 {
                tracing::info!(app = %generation.id, generation = number, bytes = retirement.left_bytes,
                    blocks = retirement.left_blocks, descriptors = retirement.left_descriptors,
                    "left behind, freed and closed now");
            }
            self.leaving.swap_remove(at);
            if was_held {
                self.stats.held.fetch_sub(1, Ordering::Relaxed);
            }
        } else {
            let news = generation.held_by != retirement.held_by;
            generation.held_by = retirement.held_by;
            if !was_held {
                Self::count(&self.stats.held, 1);
            }
            if !was_held || news {
                generation.step(Event::Hold);
            }
            generation.plan_retry();
        }
    }

    /// Has another look at the held generations whose time has come.
    pub(crate) fn retry_held(&mut self, now: Instant) {
        let mut due: Vec<(u64, Arc<dyn Launched>)> = Vec::new();
        for generation in &mut self.leaving {
            if generation.retry_at.is_some_and(|at| at <= now)
                && let Some(launched) = generation.launched.clone()
            {
                generation.retry_at = None;
                due.push((generation.number, launched));
            }
        }
        for (number, launched) in due {
            self.on_thread(format!("retire-{number}"), number, move || launched.retry_retire());
        }
    }

    /// Tells all that serve that they will have to end. This may enter a module: never on this thread.
    pub(crate) fn drain_all(&self) {
        for generation in self.apps.values().filter_map(|app| app.serving.as_ref()) {
            let Some(launched) = generation.launched.clone() else { continue };
            let name = format!("drain-{}", generation.number);
            if let Err(error) = thread::Builder::new().name(name).spawn(move || launched.drain()) {
                tracing::warn!(app = %generation.id, %error, "can't be told that the container stops");
            }
        }
    }

    pub(crate) fn retire_all(&mut self) {
        let all: Vec<Generation> = self.apps.values_mut().filter_map(|a| a.serving.take()).collect();
        self.swap();
        all.into_iter().for_each(|g| self.retire(g));
    }

    /// When something must be done even if nothing happens; the next slow look is at `poll`. A deployer that shuts down looks at no files any
    /// more, and waits for the ends that are reported to it.
    pub(crate) fn next_deadline(&self, poll: Instant) -> Option<Instant> {
        let retries = self.leaving.iter().filter_map(|g| g.retry_at);
        if self.is_shutting_down() {
            return retries.min();
        }
        let now = Instant::now();
        retries.chain(self.apps.values().filter_map(|a| a.deadline(now))).chain([poll]).min()
    }

    /// Whether a file is being waited for whose time has come: it must be looked at before it is taken.
    pub(crate) fn settling(&self, now: Instant) -> bool {
        self.apps.values().any(|a| a.pending.is_none() && a.is_wanted() && !a.seen.closed && a.is_complete(now))
    }
}
