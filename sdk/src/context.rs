//! The surroundings of an application: its place in the container, its parameters and what its parts share.

use std::any::{Any, TypeId, type_name};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::link::Link;
use crate::listener::ContextAttributeEvent;
use crate::sql::DataSource;
use crate::web::Web;
use crate::{BoxError, Cache, Error, HttpClient};

/// What one running copy of an application knows of its surroundings (`ServletContext` of Servlet 6.1, chapter 4).
///
/// ```
/// use wharf_sdk::ServletContext;
///
/// # fn demo(context: &ServletContext) -> Result<(), wharf_sdk::BoxError> {
/// let greeting = context.init_parameter("greeting").unwrap_or("Hello");
/// let workers: usize = context.init_parameter_as("workers")?.unwrap_or(4);
/// let link = format!("{}/cart", context.context_path());
/// # Ok(()) }
/// ```
pub struct ServletContext {
    app: String,
    context_path: String,
    version: String,
    generation: u64,
    init: BTreeMap<String, String>,
    folder: Option<PathBuf>,
    temp_root: Option<PathBuf>,
    trial: bool,
    attributes: RwLock<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    link: Link,
    temp: OnceLock<TempDir>,
    draining: watch::Sender<bool>,
}

/// Why there is no resource.
fn outside(name: &str) -> Error {
    Error::internal(format!("there is no container that could have a resource '{name}'"))
}

impl ServletContext {
    /// Starts one; for the container's entry, the test client and [`serve`](crate::serve).
    #[doc(hidden)]
    pub fn builder() -> ServletContextBuilder {
        ServletContextBuilder(Self {
            app: String::from("/"),
            context_path: String::new(),
            version: String::new(),
            generation: 0,
            init: BTreeMap::new(),
            folder: None,
            temp_root: None,
            trial: false,
            attributes: RwLock::default(),
            link: Link::default(),
            temp: OnceLock::new(),
            draining: watch::Sender::new(false),
        })
    }

    /// Name of the application in logs: `/shop##2`.
    pub fn app(&self) -> &str {
        &self.app
    }

    /// Context path: empty for the root context, else it starts with `/` and does not end with one.
    pub fn context_path(&self) -> &str {
        &self.context_path
    }

    /// Version from the file name, empty without one.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Counts the generations of the container, from 1; 0 outside a container.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Folder with the application's own files, when it was deployed as a folder.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Folder for temporary files of this application alone (Servlet 6.1, section 4.8.1): made when it is first asked for, in the
    /// container's state folder (without a container: in the folder that `TMPDIR` names, else `/tmp`), and removed with all that is in
    /// it when the application has stopped. What a killed container leaves is removed when the next one starts. Uploads are
    /// written there.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn temp_dir(&self) -> std::io::Result<&Path> {
        if self.temp.get().is_none() {
            // Whoever comes second drops his own.
            let (mut builder, prefix) = (tempfile::Builder::new(), "wharf-app-");
            let _ = self.temp.set(match &self.temp_root {
                Some(root) => builder.prefix(prefix).tempdir_in(root)?,
                None => builder.prefix(prefix).tempdir()?,
            });
        }
        Ok(self.temp.get().expect("just set").path())
    }

    /// The database that the container has under this name. The name must be in the descriptor, by
    /// [`export!`](crate::export): `resources = ["db": "sql"]`.
    ///
    /// In the trial load there is none: the trial ends, passed, when the application waits for one.
    ///
    /// # Errors
    /// When the name is not in the descriptor, or there is no container.
    pub fn data_source(&self, name: &str) -> Result<DataSource, Error> {
        let host = crate::log::host().ok_or_else(|| outside(name))?;
        host.data_source(name).map(DataSource::new).map_err(|what| Error::internal(what.into_string()))
    }

    /// The cache that the container has under this name. The name must be in the descriptor, by [`export!`](crate::export):
    /// `resources = ["cache": "cache"]`.
    ///
    /// In the trial load there is none, as with [`ServletContext::data_source`].
    ///
    /// # Errors
    /// When the name is not in the descriptor, or there is no container.
    pub fn cache(&self, name: &str) -> Result<Cache, Error> {
        let host = crate::log::host().ok_or_else(|| outside(name))?;
        host.cache(name).map(Cache::new).map_err(|what| Error::internal(what.into_string()))
    }

    /// The server that the container asks under this name. The name must be in the descriptor, by [`export!`](crate::export):
    /// `resources = ["payments": "http"]`.
    ///
    /// In the trial load there is none, as with [`ServletContext::data_source`].
    ///
    /// # Errors
    /// When the name is not in the descriptor, or there is no container.
    pub fn http_client(&self, name: &str) -> Result<HttpClient, Error> {
        let host = crate::log::host().ok_or_else(|| outside(name))?;
        host.http_client(name).map(HttpClient::new).map_err(|what| Error::internal(what.into_string()))
    }

    /// The settings of a resource, its password included, for an application that connects by itself: with a pool of its own, on
    /// its own runtime. They are JSON with `kind`, `url`, `user`, `password`, `max` and `min_idle`, in whatever type takes that.
    /// The configuration must allow it: `share_settings = true`.
    ///
    /// ```
    /// # use wharf_sdk::{Error, ServletContext};
    /// #[derive(serde::Deserialize)]
    /// struct Database {
    ///     url: String,
    ///     max: u32,
    /// }
    ///
    /// # fn demo(context: &ServletContext) -> Result<(), Error> {
    /// let settings: Database = context.resource_settings("db")?;
    /// // let pool = sqlx::PgPool::connect_lazy(&settings.url)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When it is not allowed, the name is not in the descriptor, or there is no container.
    pub fn resource_settings<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        let host = crate::log::host().ok_or_else(|| outside(name))?;
        let json = host.resource_settings(name).map_err(|what| Error::internal(what.into_string()))?;
        Ok(serde_json::from_str(&json)?)
    }

    /// True in the trial load: the container starts and stops the application once in a process of its own before it
    /// lets it near traffic. Leave out then what must not happen twice, such as sending mail.
    pub fn is_trial(&self) -> bool {
        self.trial
    }

    /// True once this copy of the application has to end: it is redeployed, undeployed or the container stops.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Done once this copy of the application has to end. What lives long, such as an upgraded connection or a stream of
    /// events, ends then; what has not ended within the container's drain time (`server.drain_timeout`) is cut.
    ///
    /// ```
    /// # use wharf_sdk::ServletContext;
    /// # async fn next() -> Option<String> { None }
    /// # async fn demo(context: &ServletContext) {
    /// tokio::select! {
    ///     () = context.draining() => { /* say goodbye */ }
    ///     event = next() => { /* go on */ }
    /// }
    /// # }
    /// ```
    pub async fn draining(&self) {
        // The sender is a field: it is not gone while this waits.
        let _ = self.draining.subscribe().wait_for(|draining| *draining).await;
    }

    /// Tells that this copy of the application has to end.
    #[doc(hidden)]
    pub fn begin_draining(&self) {
        self.draining.send_replace(true);
    }

    /// An init parameter.
    pub fn init_parameter(&self, name: &str) -> Option<&str> {
        self.init.get(name).map(String::as_str)
    }

    /// An init parameter read as a number, a path, an address or whatever else can be read from text.
    ///
    /// # Errors
    /// When it is there and can't be read; the message names the parameter.
    pub fn init_parameter_as<T: FromStr>(&self, name: &str) -> Result<Option<T>, BoxError>
    where
        T::Err: fmt::Display,
    {
        self.init_parameter(name)
            .map(|text| {
                text.parse().map_err(|error| {
                    format!("init parameter '{name}' = '{text}' is not a valid {}: {error}", short(type_name::<T>()))
                        .into()
                })
            })
            .transpose()
    }

    /// All init parameters read into one structure. Values are text: numbers and booleans in it are read from the text.
    ///
    /// ```
    /// # use wharf_sdk::ServletContext;
    /// #[derive(serde::Deserialize)]
    /// struct Settings {
    ///     greeting: String,
    ///     #[serde(default)]
    ///     workers: usize,
    /// }
    /// # let context = ServletContext::builder().init("greeting", "Hi").init("workers", "3").build();
    /// let settings: Settings = context.init_parameters_as()?;
    /// assert_eq!((settings.greeting.as_str(), settings.workers), ("Hi", 3));
    /// # Ok::<(), wharf_sdk::BoxError>(())
    /// ```
    ///
    /// # Errors
    /// When a parameter is missing or can't be read.
    pub fn init_parameters_as<T: DeserializeOwned>(&self) -> Result<T, BoxError> {
        let pairs = serde_urlencoded::to_string(&self.init)?;
        serde_urlencoded::from_str(&pairs).map_err(|error| format!("init parameters: {error}").into())
    }

    /// Name and value of every init parameter, sorted by name.
    pub fn init_parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.init.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The attribute of this type: something shared by all parts of the application, put there by
    /// [`App::attribute`](crate::App::attribute), a listener or a servlet's `init`.
    pub fn attribute<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let attributes = self.attributes.read().unwrap_or_else(PoisonError::into_inner);
        attributes.get(&TypeId::of::<T>()).cloned().and_then(|value| value.downcast().ok())
    }

    /// Sets the attribute of this type and returns the one it takes the place of.
    pub fn set_attribute<T: Any + Send + Sync>(&self, value: T) -> Option<Arc<T>> {
        self.set_shared(Arc::new(value)).and_then(|old| old.downcast().ok())
    }

    /// Removes the attribute of this type and returns it.
    pub fn remove_attribute<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let old = self.attributes.write().unwrap_or_else(PoisonError::into_inner).remove(&TypeId::of::<T>())?;
        for listener in self.link.context_attribute_listeners() {
            listener.attribute_removed(&ContextAttributeEvent { context: self, value: &old });
        }
        old.downcast().ok()
    }

    /// What joins it to the application that runs in it.
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Name of the application for people; its name in logs where it was given none.
    pub fn display_name(&self) -> &str {
        self.link.display_name().unwrap_or(&self.app)
    }

    /// Names of the files that answer for their folder, in the order in which they are looked for.
    pub fn welcome_files(&self) -> &[String] {
        self.link.welcome_files()
    }

    pub(crate) fn set_shared(&self, value: Arc<dyn Any + Send + Sync>) -> Option<Arc<dyn Any + Send + Sync>> {
        let old = {
            let mut attributes = self.attributes.write().unwrap_or_else(PoisonError::into_inner);
            attributes.insert((*value).type_id(), Arc::clone(&value))
        };
        // The lock is gone: a listener may look at the attributes.
        for listener in self.link.context_attribute_listeners() {
            match &old {
                None => listener.attribute_added(&ContextAttributeEvent { context: self, value: &value }),
                Some(old) => listener.attribute_replaced(&ContextAttributeEvent { context: self, value: old }),
            }
        }
        old
    }

    /// Drops every attribute, after the application has stopped.
    #[doc(hidden)]
    pub fn clear_attributes(&self) {
        let attributes = std::mem::take(&mut *self.attributes.write().unwrap_or_else(PoisonError::into_inner));
        drop(attributes);
    }
}

fn short(type_name: &str) -> &str {
    type_name.rsplit("::").next().unwrap_or(type_name)
}

impl fmt::Debug for ServletContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServletContext")
            .field("app", &self.app)
            .field("context_path", &self.context_path)
            .field("version", &self.version)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// Makes a [`ServletContext`].
#[doc(hidden)]
#[must_use]
pub struct ServletContextBuilder(ServletContext);

#[doc(hidden)]
impl ServletContextBuilder {
    /// Name for logs.
    pub fn app(mut self, name: impl Into<String>) -> Self {
        self.0.app = name.into();
        self
    }

    /// Context path, empty for the root.
    pub fn context_path(mut self, path: impl Into<String>) -> Self {
        self.0.context_path = path.into();
        self
    }

    /// Version, empty without one.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.0.version = version.into();
        self
    }

    /// Generation.
    pub fn generation(mut self, generation: u64) -> Self {
        self.0.generation = generation;
        self
    }

    /// One init parameter more.
    pub fn init(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.init.insert(name.into(), value.into());
        self
    }

    /// Folder with the application's own files.
    pub fn folder(mut self, folder: Option<PathBuf>) -> Self {
        self.0.folder = folder;
        self
    }

    /// Folder in which that for temporary files is made.
    pub fn temp_root(mut self, folder: Option<PathBuf>) -> Self {
        self.0.temp_root = folder;
        self
    }

    /// Whether this is the trial load.
    pub fn trial(mut self, trial: bool) -> Self {
        self.0.trial = trial;
        self
    }

    /// What a configuration file adds to the builder, as the container hands it over: JSON, empty for nothing.
    ///
    /// # Errors
    /// When it is not what this SDK knows.
    pub fn web(mut self, json: &str) -> Result<Self, BoxError> {
        self.0.link.web = Web::parse(json)?;
        Ok(self)
    }

    /// The context.
    pub fn build(self) -> Arc<ServletContext> {
        Arc::new(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_by_type() {
        let context = ServletContext::builder().build();
        assert!(context.attribute::<String>().is_none());
        context.set_attribute(String::from("a"));
        context.set_attribute(7_u32);
        assert_eq!(context.attribute::<String>().as_deref().map(String::as_str), Some("a"));
        assert_eq!(context.set_attribute(String::from("b")).as_deref().map(String::as_str), Some("a"));
        assert_eq!(context.remove_attribute::<u32>().as_deref(), Some(&7));
        assert!(context.attribute::<u32>().is_none());
    }

    #[test]
    fn a_parameter_that_cannot_be_read_is_named() {
        let context = ServletContext::builder().init("workers", "many").build();
        let error = context.init_parameter_as::<usize>("workers").unwrap_err().to_string();
        assert_eq!(error, "init parameter 'workers' = 'many' is not a valid usize: invalid digit found in string");
        assert_eq!(context.init_parameter_as::<usize>("absent").unwrap(), None);
    }
}
