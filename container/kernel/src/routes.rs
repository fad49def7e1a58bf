//! The route table: one immutable snapshot of which application answers which host and path. Swapping it is the single
//! moment at which a deployment takes effect.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use foldhash::HashMap;
use wharf_mapping::ServletMap;

use crate::counters::AppCounters;
use crate::{AppId, Endpoint, Gate};

/// A generation that is mounted: what the dispatcher needs of it.
pub struct Route {
    /// Who it is: host, context path, version.
    pub id: AppId,
    /// Which generation.
    pub generation: u64,
    /// Hands out the leases for its requests.
    pub gate: Gate,
    /// Answers its requests.
    pub endpoint: Arc<dyn Endpoint>,
    /// Its servlets, `None` where the endpoint takes the whole context.
    pub servlets: Option<ServletMap>,
    /// Who may reach its paths; `None` where it has no constraints.
    pub guard: Option<Arc<dyn crate::guard::Guard>>,
    /// Its counters.
    pub counters: Arc<AppCounters>,
    /// True while it is stopped but stays mounted: it answers 503.
    pub suspended: bool,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("id", &self.id)
            .field("generation", &self.generation)
            .field("suspended", &self.suspended)
            .finish_non_exhaustive()
    }
}

/// A virtual host as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// Its name, which [`AppId::host`] refers to; also a host name it answers to, in any case.
    pub name: Arc<str>,
    /// Other names: `shop.example`, or `*.shop.example` for every name below it (but not for it).
    pub aliases: Vec<String>,
    /// Whether it answers for names that no host has. Without any such host the first one does.
    pub default: bool,
}

impl HostSpec {
    /// The host there is when none is configured: named `default`, answering every name.
    pub fn fallback() -> Self {
        Self { name: Arc::from("default"), aliases: Vec::new(), default: true }
    }
}

/// Why a route table can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Two hosts answer to one name.
    #[error("the hosts '{first}' and '{second}' both answer to the name '{name}'; remove it from one of them")]
    DuplicateName {
        /// The name.
        name: String,
        /// A host that has it.
        first: Arc<str>,
        /// The other.
        second: Arc<str>,
    },
    /// Two hosts are the default.
    #[error("the hosts '{first}' and '{second}' are both the default host; only one can be")]
    TwoDefaults {
        /// One of them.
        first: Arc<str>,
        /// The other.
        second: Arc<str>,
    },
    /// An alias is neither a host name nor `*.` and a host name.
    #[error("host '{host}' has the alias '{alias}', which is neither a host name nor '*.' and a host name")]
    BadAlias {
        /// The host.
        host: Arc<str>,
        /// The alias.
        alias: String,
    },
    /// An application is mounted on a host that is not there.
    #[error("application {app} is mounted on the host '{}', which is not configured", app.host)]
    UnknownHost {
        /// The application.
        app: AppId,
    },
    /// Two generations have one host, context path and version.
    #[error("generations {first} and {second} of {app} are both mounted")]
    DuplicateRoute {
        /// The application.
        app: AppId,
        /// One generation.
        first: u64,
        /// The other.
        second: u64,
    },
}

struct HostRoutes {
    spec: HostSpec,
    /// By context path; the versions of one context, newest first.
    contexts: HashMap<Box<str>, Vec<Arc<Route>>>,
    /// The longest key, so that a long path costs no more lookups than there can be contexts on it.
    longest: usize,
}

impl HostRoutes {
    /// All versions at the longest context path that contains `path`.
    fn versions(&self, path: &str) -> &[Arc<Route>] {
        let mut rest = path;
        if path.len() > self.longest {
            let boundary = path.as_bytes()[..=self.longest].iter().rposition(|b| *b == b'/');
            rest = &path[..boundary.unwrap_or(0)];
        }
        loop {
            if let Some(versions) = self.contexts.get(rest) {
                return versions;
            }
            match rest.rfind('/') {
                Some(end) => rest = &rest[..end],
                None => return &[],
            }
        }
    }
}

/// What a lookup came to.
#[derive(Debug, Clone, Copy)]
pub enum Lookup<'a> {
    /// The newest version that is not suspended, and all versions of its context, newest first, suspended ones too.
    Found(&'a Arc<Route>, &'a [Arc<Route>]),
    /// Every version of the context is suspended; this is the newest. The answer is 503.
    Suspended(&'a Arc<Route>),
    /// No context contains the path. The answer is 404.
    Missing,
}

/// An immutable snapshot of all routes.
#[derive(Default)]
pub struct RouteTable {
    hosts: Vec<HostRoutes>,
    /// Index of a host by lower-case name.
    names: HashMap<Box<str>, usize>,
    /// Index of a host by what follows `*.`, lower-case.
    wildcards: HashMap<Box<str>, usize>,
    default: usize,
    routes: Vec<Arc<Route>>,
}

impl RouteTable {
    /// A table of these hosts and routes. Without hosts there is [`HostSpec::fallback`].
    ///
    /// # Errors
    /// Names, defaults or routes that collide, an alias that is no host name, or a route on an unknown host.
    pub fn new(
        hosts: impl IntoIterator<Item = HostSpec>,
        routes: impl IntoIterator<Item = Arc<Route>>,
    ) -> Result<Self, RouteError> {
        let mut table = Self::default();
        for spec in hosts {
            table.add_host(spec)?;
        }
        if table.hosts.is_empty() {
            table.add_host(HostSpec::fallback())?;
        }
        let mut defaults = table.hosts.iter().enumerate().filter(|(_, h)| h.spec.default);
        if let Some((first, host)) = defaults.next() {
            if let Some((_, other)) = defaults.next() {
                return Err(RouteError::TwoDefaults { first: host.spec.name.clone(), second: other.spec.name.clone() });
            }
            table.default = first;
        }
        for route in routes {
            table.add_route(route)?;
        }
        Ok(table)
    }

    fn add_host(&mut self, spec: HostSpec) -> Result<(), RouteError> {
        let index = self.hosts.len();
        for name in std::iter::once(&*spec.name).chain(spec.aliases.iter().map(String::as_str)) {
            let (names, key) = match name.strip_prefix("*.") {
                Some(suffix) => (&mut self.wildcards, suffix),
                None => (&mut self.names, name),
            };
            if wharf_mapping::parse_host(key).is_ok_and(|h| h.port.is_none() && h.host == key) {
                let before = names.insert(fold(key).into(), index).filter(|before| *before != index);
                if let Some(before) = before {
                    let first = self.hosts[before].spec.name.clone();
                    return Err(RouteError::DuplicateName { name: name.to_owned(), first, second: spec.name });
                }
            } else {
                return Err(RouteError::BadAlias { host: spec.name.clone(), alias: name.to_owned() });
            }
        }
        self.hosts.push(HostRoutes { spec, contexts: HashMap::default(), longest: 0 });
        Ok(())
    }

    fn add_route(&mut self, route: Arc<Route>) -> Result<(), RouteError> {
        let Some(host) = self.hosts.iter_mut().find(|h| h.spec.name == route.id.host) else {
            return Err(RouteError::UnknownHost { app: route.id.clone() });
        };
        let path = route.id.path.as_str();
        host.longest = host.longest.max(path.len());
        let versions = host.contexts.entry(path.into()).or_default();
        match versions.binary_search_by(|other| route.id.version.cmp(&other.id.version)) {
            Ok(at) => {
                let first = versions[at].generation;
                return Err(RouteError::DuplicateRoute { app: route.id.clone(), first, second: route.generation });
            }
            Err(at) => versions.insert(at, route.clone()),
        }
        self.routes.push(route);
        Ok(())
    }

    /// The application for a host name (without port, in any case) and a canonical, decoded path.
    ///
    /// The host is chosen by its name, else by the longest wildcard, else it is the default one; the context is the
    /// longest that contains the path on a segment boundary; the version is the newest that is not suspended.
    pub fn find(&self, host: &str, path: &str) -> Lookup<'_> {
        let versions = self.versions(host, path);
        match versions.iter().find(|route| !route.suspended) {
            Some(route) => Lookup::Found(route, versions),
            None => versions.first().map_or(Lookup::Missing, Lookup::Suspended),
        }
    }

    /// All versions of the context that contains the path.
    fn versions(&self, host: &str, path: &str) -> &[Arc<Route>] {
        self.host_index(host).map_or(&[], |index| self.hosts[index].versions(path))
    }

    /// The configured name of the host that answers to this name.
    pub fn host_name(&self, host: &str) -> Option<&Arc<str>> {
        self.host_index(host).map(|index| &self.hosts[index].spec.name)
    }

    fn host_index(&self, host: &str) -> Option<usize> {
        if self.hosts.len() < 2 {
            return if self.hosts.is_empty() { None } else { Some(0) };
        }
        let name = fold(host);
        if let Some(index) = self.names.get(&*name) {
            return Some(*index);
        }
        let mut rest = &*name;
        while let Some((_, parent)) = rest.split_once('.') {
            if self.wildcards.is_empty() {
                break;
            }
            if let Some(index) = self.wildcards.get(parent) {
                return Some(*index);
            }
            rest = parent;
        }
        Some(self.default)
    }

    /// All routes, in no particular order.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// All hosts, in the order of the configuration.
    pub fn hosts(&self) -> impl Iterator<Item = &HostSpec> {
        self.hosts.iter().map(|h| &h.spec)
    }
}

/// A host name in lower case and without a dot at the end.
fn fold(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// The route table in force. Readers never wait; [`Routes::store`] takes effect for every request mapped after it.
pub struct Routes(ArcSwap<RouteTable>);

impl Routes {
    /// This table in force.
    pub fn new(table: RouteTable) -> Self {
        Self(ArcSwap::from_pointee(table))
    }

    /// The table in force now. The guard is for a short look, not to be kept across an await.
    pub fn load(&self) -> Guard<Arc<RouteTable>> {
        self.0.load()
    }

    /// Puts another table in force.
    pub fn store(&self, table: RouteTable) {
        self.0.store(Arc::new(table));
    }
}

impl Default for Routes {
    /// A table without applications on the fallback host.
    fn default() -> Self {
        let mut table = RouteTable::default();
        let added = table.add_host(HostSpec::fallback());
        debug_assert!(added.is_ok());
        Self::new(table)
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
