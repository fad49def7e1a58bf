//! The TOML file of an application: the side-car `shop.toml` beside `shop.so`, or `app.toml` in an exploded folder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use wharf_kernel::fairness::{Share, Threads};
use wharf_kernel::launch::Kind;
use wharf_kernel::options::{
    CgiOptions, Constraint, ErrorPageOptions, FastCgiOptions, FilterOptions, InitValue, Login, Options, ProxyOptions,
    SecurityOptions, ServletOptions, SessionOptions, WebOptions,
};
use wharf_kernel::settings::thousandths;
use wharf_kernel::toml_error;

/// What an application's TOML file may say. Every key may be left out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AppToml {
    /// Context path, instead of the one from the name.
    pub context_path: Option<String>,
    /// Name of the virtual host, instead of the one whose folder it is in.
    pub host: Option<String>,
    /// Init parameters: strings, numbers or booleans.
    pub init: BTreeMap<String, InitValue>,
    /// False keeps it from being started. Default true.
    pub enabled: bool,
    /// Place in the load order: lower ones first, equal ones in parallel. Default 0.
    pub order: i64,
    /// A path inside the application that must answer a GET with a 2xx status before traffic moves to a new generation.
    pub health: Option<String>,
    /// How long its start, and the health check after it, may take.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub start_timeout: Option<Duration>,
    /// How long its stop may take.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub stop_timeout: Option<Duration>,
    /// Threads of the module's own runtime.
    pub runtime_threads: Option<usize>,
    /// Threads for blocking servlets.
    pub blocking_threads: Option<usize>,
    /// Requests that it answers at a time.
    pub max_requests: Option<usize>,
    /// Requests that may wait beyond those; the next one is answered with 503.
    pub max_queued: Option<usize>,
    /// How long each may wait, before it is answered with 503.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub queue_timeout: Option<Duration>,
    /// Bytes that it may hold before new requests are answered with 503; 0 is no budget.
    pub memory_budget: Option<u64>,
    /// How many processors it may keep busy, such as 0.5, before new requests are answered with 503; 0 is no limit.
    pub cpu_limit: Option<f64>,
    /// How long one poll of it may keep a worker.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub slow_poll: Option<Duration>,
    /// `own`: it is polled on threads of its own from the start. Default `shared`.
    pub threads: Threads,
    /// Not of a side-car file: what the application is.
    pub kind: Option<Kind>,
    /// `app.toml` alone: the module's file in the folder. Default: the only `.so` there.
    pub module: Option<PathBuf>,
    /// Not of a side-car file: the document root. Default the folder itself.
    pub root: Option<PathBuf>,
    /// For the kind `cgi`.
    #[schemars(with = "Option<Table>")]
    pub cgi: Option<CgiOptions>,
    /// For the kinds `fastcgi` and `aspnet`.
    #[schemars(with = "Option<Table>")]
    pub fastcgi: Option<FastCgiOptions>,
    /// For the kind `proxy`.
    #[schemars(with = "Option<Table>")]
    pub proxy: Option<ProxyOptions>,
    /// Modules alone: name of the application for people, over the builder's.
    pub display_name: Option<String>,
    /// Modules alone: names of files that answer for their folder, instead of the builder's.
    pub welcome_files: Option<Vec<String>>,
    /// Modules alone: how long a request may take until its response is ready; zero is for ever.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub async_timeout: Option<Duration>,
    /// Modules alone: servlets of the builder, by name, with other settings.
    pub servlets: BTreeMap<String, ServletOptions>,
    /// Modules alone: filters of the builder, by name, with other settings.
    pub filters: BTreeMap<String, FilterOptions>,
    /// Modules alone: names of filters, in the order in which they shall run; the others come after.
    pub filter_order: Vec<String>,
    /// Modules alone: pages for errors, over the builder's.
    pub error_pages: Vec<ErrorPageOptions>,
    /// Modules alone: names of its resources, to their names in the configuration where those are others.
    pub resources: BTreeMap<String, String>,
    /// Its sessions.
    pub session: SessionOptions,
    /// How clients say who they are.
    pub login: Option<Login>,
    /// Who may reach which path.
    pub constraints: Vec<Constraint>,
    /// Roles there are, beside those that constraints name: `*` means all of them.
    pub roles: Vec<String>,
    /// Whether a method that no constraint on the path names is refused. Default true.
    pub deny_uncovered_methods: bool,
}

/// How the schema shows a table whose keys are not told apart.
type Table = BTreeMap<String, serde_json::Value>;

impl Default for AppToml {
    fn default() -> Self {
        Self {
            context_path: None,
            host: None,
            init: BTreeMap::new(),
            enabled: true,
            order: 0,
            health: None,
            start_timeout: None,
            stop_timeout: None,
            runtime_threads: None,
            blocking_threads: None,
            max_requests: None,
            max_queued: None,
            queue_timeout: None,
            memory_budget: None,
            cpu_limit: None,
            slow_poll: None,
            threads: Threads::Shared,
            kind: None,
            module: None,
            root: None,
            cgi: None,
            fastcgi: None,
            proxy: None,
            display_name: None,
            welcome_files: None,
            async_timeout: None,
            servlets: BTreeMap::new(),
            filters: BTreeMap::new(),
            filter_order: Vec::new(),
            error_pages: Vec::new(),
            resources: BTreeMap::new(),
            session: SessionOptions::default(),
            login: None,
            constraints: Vec::new(),
            roles: Vec::new(),
            deny_uncovered_methods: true,
        }
    }
}

impl AppToml {
    /// Reads the text of the file called `path`.
    ///
    /// # Errors
    /// What is wrong, with file, line, column and caret.
    pub fn parse(path: &str, text: &str, place: Place) -> Result<Self, String> {
        let app: Self = toml_error::parse(path, text)?;
        if place == Place::SideCar {
            for (key, given) in
                [("kind", app.kind.is_some()), ("module", app.module.is_some()), ("root", app.root.is_some())]
            {
                if given {
                    return Err(format!(
                        "{path}: '{key}' is a key of app.toml in a folder or of a TOML file without a module, not of a side-car file"
                    ));
                }
            }
        }
        if let Some(health) = &app.health
            && let Err(error) = wharf_mapping::canonicalise(health)
        {
            return Err(format!("{path}: health = \"{health}\": {error}"));
        }
        for (key, value) in [
            ("runtime_threads", app.runtime_threads),
            ("blocking_threads", app.blocking_threads),
            ("max_requests", app.max_requests),
        ] {
            if value == Some(0) {
                return Err(format!("{path}: {key} must be at least 1"));
            }
        }
        if app.slow_poll.is_some_and(|time| time.is_zero()) {
            return Err(format!("{path}: slow_poll must be longer than nothing"));
        }
        for (key, value) in [("module", &app.module), ("root", &app.root)] {
            let inside = |p: &PathBuf| {
                p.components().all(|c| matches!(c, std::path::Component::Normal(_) | std::path::Component::CurDir))
            };
            if place == Place::Folder && value.as_ref().is_some_and(|p| !inside(p)) {
                return Err(format!("{path}: {key} must be a path inside the folder, without '..'"));
            }
        }
        let (cgi, fastcgi, proxy) = (app.cgi.is_some(), app.fastcgi.is_some(), app.proxy.is_some());
        for (key, given, fits) in [
            ("cgi", cgi, app.kind == Some(Kind::Cgi)),
            ("fastcgi", fastcgi, matches!(app.kind, Some(Kind::Fastcgi | Kind::Aspnet))),
            ("proxy", proxy, app.kind == Some(Kind::Proxy)),
        ] {
            if given && !fits {
                return Err(format!("{path}: [{key}] needs kind = \"{key}\""));
            }
        }
        let web = app.web();
        if let Some(key) = web.given()
            && !matches!(app.kind, None | Some(Kind::Module))
        {
            return Err(format!("{path}: '{key}' is for modules, which have servlets and filters"));
        }
        if !app.resources.is_empty() && !matches!(app.kind, None | Some(Kind::Module)) {
            return Err(format!("{path}: [resources] is for modules"));
        }
        app.security().check().map_err(|what| format!("{path}: {what}"))?;
        web.check().map_err(|what| format!("{path}: {what}"))?;
        Ok(app)
    }

    /// What it says to the part that runs the application.
    pub fn options(&self) -> Options {
        Options {
            cgi: self.cgi.clone(),
            fastcgi: self.fastcgi.clone(),
            proxy: self.proxy.clone(),
            resources: self.resources.clone(),
            session: self.session.clone(),
            security: self.security(),
            web: self.web(),
        }
    }

    /// What it may take, where the container's settings say `default`.
    pub fn share(&self, default: Share) -> Share {
        Share {
            max_requests: self.max_requests.unwrap_or(default.max_requests),
            max_queued: self.max_queued.unwrap_or(default.max_queued),
            queue_timeout: self.queue_timeout.unwrap_or(default.queue_timeout),
            memory_budget: self.memory_budget.unwrap_or(default.memory_budget),
            cpu_limit: self.cpu_limit.map_or(default.cpu_limit, thousandths),
            slow_poll: self.slow_poll.unwrap_or(default.slow_poll),
            threads: self.threads,
        }
    }

    /// What it says of logins and constraints.
    pub fn security(&self) -> SecurityOptions {
        SecurityOptions {
            login: self.login.clone(),
            constraints: self.constraints.clone(),
            roles: self.roles.clone(),
            allow_uncovered_methods: !self.deny_uncovered_methods,
        }
    }

    /// What it says of servlets and filters.
    fn web(&self) -> WebOptions {
        WebOptions {
            display_name: self.display_name.clone(),
            welcome_files: self.welcome_files.clone(),
            async_timeout: self.async_timeout,
            servlets: self.servlets.clone(),
            filters: self.filters.clone(),
            filter_order: self.filter_order.clone(),
            error_pages: self.error_pages.clone(),
        }
    }
}

/// Where a TOML file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Beside a module of the same name.
    SideCar,
    /// In the folder that it describes, as `app.toml`.
    Folder,
    /// Alone in the deploy folder.
    Alone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_files() {
        let text = "context_path = \"/x\"\norder = -1\nstart_timeout = \"3s\"\n[init]\na = 1\nb = true\nc = \"t\"\n";
        let app = AppToml::parse("shop.toml", text, Place::SideCar).unwrap();
        assert_eq!(app.start_timeout, Some(Duration::from_secs(3)));
        let init: Vec<_> = app.init.values().map(|v| v.0.as_str()).collect();
        assert_eq!(init, ["1", "true", "t"]);
        assert!(AppToml::parse("x/app.toml", "kind = \"static\"\nroot = \"public\"", Place::Folder).is_ok());
    }

    #[test]
    fn bad_files_show_the_place() {
        for (text, place, word) in [
            ("helth = \"/\"", Place::SideCar, "did you mean 'health'"),
            ("order = \"a\"", Place::SideCar, "shop.toml:1:9"),
            ("kind = \"static\"", Place::SideCar, "not of a side-car"),
            ("kind = \"statc\"", Place::Folder, "did you mean 'static'"),
            ("root = \"../x\"", Place::Folder, "inside the folder"),
            ("health = \"nope\"", Place::SideCar, "health"),
            ("start_timeout = \"3 parsecs\"", Place::SideCar, "shop.toml:1:17"),
            ("[init]\na = []", Place::SideCar, "shop.toml:2:5"),
            ("kind = \"cgi\"\n[proxy]", Place::Alone, "needs kind = \"proxy\""),
            ("max_requests = 0", Place::SideCar, "at least 1"),
            ("slow_poll = \"0s\"", Place::SideCar, "longer than nothing"),
            ("threads = \"onw\"", Place::SideCar, "did you mean 'own'"),
            ("runtime_threads = 0", Place::SideCar, "at least 1"),
            ("[servlets.cart]\npattern = []", Place::SideCar, "did you mean 'patterns'"),
            ("[servlets.cart]\npatterns = [\"cart\"]", Place::SideCar, "[servlets.cart] has the pattern 'cart'"),
            ("[filters.log]\nadd_patterns = [\"*.*\"]", Place::SideCar, "[filters.log] has the pattern '*.*'"),
            ("[filters.log]\ndispatch = [\"forwrd\"]", Place::SideCar, "did you mean 'forward'"),
            ("[[error_pages]]\nstatus = 404", Place::SideCar, "path"),
            ("[[error_pages]]\nstatus = 200\npath = \"/x\"", Place::SideCar, "400 to 599"),
            ("[[error_pages]]\nstatus = 404\nerror = \"E\"\npath = \"/x\"", Place::SideCar, "not both"),
            ("[[error_pages]]\npath = \"x\"", Place::SideCar, "[[error_pages]] path"),
            ("welcome_files = [\"/index.html\"]", Place::SideCar, "welcome_files"),
            ("async_timeout = \"soon\"", Place::SideCar, "shop.toml:1:17"),
            ("kind = \"static\"\nwelcome_files = [\"a\"]", Place::Folder, "for modules"),
        ] {
            let error = AppToml::parse("shop.toml", text, place).unwrap_err();
            assert!(error.contains(word), "no {word:?} in:\n{error}");
        }
    }
}
