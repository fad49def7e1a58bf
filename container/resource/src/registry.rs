//! All resources of the container, from its start to its end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use wharf_kernel::AppId;
use wharf_kernel::resource::{
    BindError, Bindings, BoundResources, Cache, DataSource, Need, OwnResources, ResourceKind, ResourceState, Resources,
    SharedStore,
};
use wharf_kernel::settings::{Resource, ResourceStart};

use crate::any::AnyResource;
use crate::bound::{Bound, Who};
use crate::secrets::expand;
use crate::{cache, client, health, sql};

/// What is open for too long is looked for so often.
const LEAKS: Duration = Duration::from_secs(1);

/// A resource of the configuration.
pub(crate) struct Managed {
    name: String,
    settings: Resource,
    pub(crate) resource: Arc<dyn AnyResource>,
}

impl Managed {
    /// It is not what somebody takes it for.
    pub(crate) fn not(&self, what: &str) -> String {
        format!("resource '{}' is not {what} {}", self.name, self.settings.kind)
    }

    /// The settings, secrets included, as JSON, where that is allowed.
    pub(crate) fn shared_settings(&self) -> Result<String, String> {
        let Self { name, settings, .. } = self;
        if !settings.share_settings {
            return Err(format!("resource '{name}' is not shared: set share_settings = true in [resource.{name}]"));
        }
        let json = serde_json::json!({
            "kind": settings.kind,
            "url": settings.url,
            "user": settings.user,
            "password": settings.password,
            "max": settings.max,
            "min_idle": settings.min_idle,
        });
        Ok(json.to_string())
    }
}

/// All resources.
#[derive(Default)]
pub struct ResourceRegistry {
    all: RwLock<BTreeMap<String, Arc<Managed>>>,
    /// Where databases are made that the configuration does not have.
    missing: Option<PathBuf>,
    /// Itself.
    this: OnceLock<Weak<Self>>,
    generations: Mutex<Vec<Weak<Who>>>,
    /// What is done when one answers again.
    on_up: OnceLock<Arc<dyn Fn() + Send + Sync>>,
    /// Where the connections are looked after.
    runtime: Mutex<Option<Runtime>>,
}

impl ResourceRegistry {
    /// Begins to look after the resources of the configuration. What an application needs and they do not have is a SQLite
    /// database in the folder `missing`, or a cache in memory, where that is given.
    ///
    /// # Errors
    /// The resource at fault, and what is wrong with it.
    pub fn start(settings: &BTreeMap<String, Resource>, missing: Option<PathBuf>) -> Result<Arc<Self>, String> {
        if settings.is_empty() && missing.is_none() {
            return Ok(Arc::default());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("wharf-resource")
            .enable_all()
            .build()
            .map_err(|e| format!("the runtime of the resources could not be started: {e}"))?;
        let handle = runtime.handle().clone();
        let this = Arc::new(Self { missing, runtime: Mutex::new(Some(runtime)), ..Self::default() });
        let _ = this.this.set(Arc::downgrade(&this));
        for (name, given) in settings {
            let managed = this.manage(&handle, name, given).map_err(|what| format!("resource.{name}: {what}"))?;
            if given.start == ResourceStart::Fail {
                this.ask(&managed).map_err(|what| format!("resource.{name}: {what}"))?;
            }
        }
        handle.spawn(watch_leaks(Arc::downgrade(&this)));
        Ok(this)
    }

    /// Begins to look after a resource.
    fn manage(self: &Arc<Self>, handle: &Handle, name: &str, given: &Resource) -> Result<Arc<Managed>, String> {
        let settings = put_in(given)?;
        let resource = match settings.kind {
            ResourceKind::Sql => sql::source(name, &given.url, &settings, handle)?,
            ResourceKind::Http => client::client(name, &given.url, &settings, handle)?,
            ResourceKind::Cache => cache::cache(name, &given.url, &settings, handle)?,
        };
        let registry = Arc::downgrade(self);
        let up = move || {
            let then = registry.upgrade().and_then(|registry| registry.on_up.get().cloned());
            if let Some(then) = then {
                // It may block.
                let _ = std::thread::Builder::new().name("resource-up".into()).spawn(move || then());
            }
        };
        handle.spawn(health::watch(name.to_owned(), resource.clone(), up));
        let managed = Arc::new(Managed { name: name.to_owned(), settings, resource });
        self.all.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), managed.clone());
        Ok(managed)
    }

    fn get(&self, name: &str) -> Option<Arc<Managed>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// A new database, or a cache in memory, where there is none of this name, and that is wanted.
    fn make(&self, need: &Need, name: &str) -> Option<Arc<Managed>> {
        let this = self.this.get()?.upgrade()?;
        let folder = self.missing.as_ref()?;
        let made = match need.kind {
            None | Some(ResourceKind::Sql) => {
                let _ = std::fs::create_dir_all(folder);
                Resource::new(ResourceKind::Sql, format!("sqlite:{}", folder.join(format!("{name}.db")).display()))
            }
            Some(ResourceKind::Cache) => Resource::new(ResourceKind::Cache, "memory:".into()),
            // Which server it is, nobody can guess.
            Some(ResourceKind::Http) => return None,
        };
        tracing::info!(resource = name, "made as {}, since the configuration has none", made.url);
        this.manage(&self.handle()?, name, &made).ok()
    }

    fn handle(&self) -> Option<Handle> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|r| r.handle().clone())
    }

    /// Has this done, once, whenever a resource answers (again). It may block.
    pub fn on_up(&self, then: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_up.set(Arc::new(then));
    }

    /// The state of each.
    pub fn states(&self) -> Vec<ResourceState> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.values().map(|managed| managed.resource.state()).collect()
    }

    /// Closes all connections. Called when no application is left.
    pub fn stop(&self) {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }

    /// Asks whether it answers. Blocks.
    fn ask(&self, managed: &Managed) -> Result<(), String> {
        match self.handle() {
            // On a thread that belongs to no other runtime.
            Some(handle) => std::thread::scope(|scope| {
                let asked = scope.spawn(|| handle.block_on(managed.resource.clone().ask())).join();
                asked.unwrap_or_else(|_| Err("it could not be asked".into()))
            }),
            None => Err("the container stops".into()),
        }
    }

    fn look_up(&self, needs: &[Need], bindings: &Bindings) -> Result<BTreeMap<String, Arc<Managed>>, String> {
        let mut found = BTreeMap::new();
        let mut missing = Vec::new();
        for need in needs {
            let name = bindings.get(&need.name).unwrap_or(&need.name);
            match (self.get(name).or_else(|| self.make(need, name)), need.kind) {
                (None, kind) => missing.push(self.advice(need, name, kind)),
                (Some(managed), Some(kind)) if managed.settings.kind != kind => missing.push(format!(
                    "resource '{}' must be of kind {kind}, and [resource.{name}] is of kind {}",
                    need.name, managed.settings.kind
                )),
                (Some(managed), _) => _ = found.insert(need.name.clone(), managed),
            }
        }
        if let Some(name) = bindings.keys().find(|name| !needs.iter().any(|need| need.name == **name)) {
            missing.push(format!("[resources] names '{name}', which the module does not ask for"));
        }
        if missing.is_empty() { Ok(found) } else { Err(missing.join("\n")) }
    }

    fn advice(&self, need: &Need, name: &str, kind: Option<ResourceKind>) -> String {
        let kind = kind.unwrap_or(ResourceKind::Sql);
        let mut text = format!(
            "it needs resource '{}', and there is no [resource.{name}]: add to the configuration\n\n{}",
            need.name,
            lines(name, kind)
        );
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = all.values().find(|m| m.settings.kind == kind).map(|m| m.name.as_str()) {
            text.push_str(&format!(
                "\nor, in the application's TOML file, to use one that is there\n\n[resources]\n{} = \"{other}\"\n",
                need.name
            ));
        }
        text
    }
}

/// What to add to the configuration.
fn lines(name: &str, kind: ResourceKind) -> String {
    let url = match kind {
        ResourceKind::Sql => format!("sqlite:{name}.db"),
        ResourceKind::Cache => "redis://127.0.0.1".to_owned(),
        ResourceKind::Http => "https://api.example.org".to_owned(),
    };
    format!("[resource.{name}]\nkind = \"{kind}\"\nurl = \"{url}\"\n")
}

/// The settings with what stands elsewhere.
fn put_in(settings: &Resource) -> Result<Resource, String> {
    let optional = |key: &str, text: &Option<String>| {
        text.as_deref().map(expand).transpose().map_err(|what| format!("{key}: {what}"))
    };
    let settings = Resource {
        url: expand(&settings.url).map_err(|what| format!("url: {what}"))?,
        user: optional("user", &settings.user)?,
        password: optional("password", &settings.password)?,
        ..settings.clone()
    };
    settings.check().map_err(|(key, what)| format!("{key} {what}"))?;
    Ok(settings)
}

async fn watch_leaks(registry: Weak<ResourceRegistry>) {
    loop {
        tokio::time::sleep(LEAKS).await;
        let Some(registry) = registry.upgrade() else { return };
        let mut generations = registry.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.retain(|who| who.strong_count() > 0);
        for who in generations.iter().filter_map(Weak::upgrade) {
            who.report_leaks();
        }
    }
}

impl Resources for ResourceRegistry {
    fn check(&self, needs: &[Need], bindings: &Bindings) -> Result<(), String> {
        self.look_up(needs, bindings).map(|_| ())
    }

    fn bind(
        &self,
        app: &AppId,
        generation: u64,
        needs: &[Need],
        bindings: &Bindings,
    ) -> Result<Arc<dyn BoundResources>, BindError> {
        let sources = self.look_up(needs, bindings).map_err(BindError::Missing)?;
        let mut down = Vec::new();
        for managed in sources.values().filter(|m| m.settings.start != ResourceStart::Degraded) {
            if !managed.resource.state().down.is_empty()
                && let Err(what) = self.ask(managed)
            {
                down.push(format!("resource '{}' does not answer: {what}", managed.name));
            }
        }
        if !down.is_empty() {
            return Err(BindError::Down(down.join("; ")));
        }
        let who = Who::new(app.to_string(), generation);
        self.generations.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&who));
        Ok(Arc::new(Bound::new(who, sources)))
    }
}

impl OwnResources for ResourceRegistry {
    fn shared_store(&self, name: &str) -> Result<Arc<dyn SharedStore>, String> {
        let managed = self.get(name).ok_or_else(|| {
            let lines = lines(name, ResourceKind::Cache);
            format!("'{name}' is neither memory nor file, and no resource: add to the configuration\n\n{lines}")
        })?;
        let what = "a place that containers share: it is in memory, of kind";
        managed.resource.clone().shared_store().ok_or_else(|| managed.not(what))
    }

    fn database(&self, name: &str) -> Result<Arc<dyn DataSource>, String> {
        let managed = self.get(name).ok_or_else(|| {
            format!("there is no resource '{name}': add to the configuration\n\n{}", lines(name, ResourceKind::Sql))
        })?;
        let who = Who::new("realm".to_owned(), 0);
        managed.resource.clone().data_source(who).ok_or_else(|| managed.not("a database: it is of kind"))
    }

    fn counters(&self, name: &str) -> Result<Arc<dyn Cache>, String> {
        let managed = self.get(name).ok_or_else(|| {
            let lines = lines(name, ResourceKind::Cache);
            format!("there is no resource '{name}': add to the configuration\n\n{lines}")
        })?;
        managed.resource.clone().cache().ok_or_else(|| managed.not("a cache: it is of kind"))
    }
}
