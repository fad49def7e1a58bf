//! What the requests of one FastCGI application share, and which of them go to it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use wharf_kernel::launch::{Kind, Plan};
use wharf_kernel::options::{FastCgiAddress, FastCgiOptions};
use wharf_kernel::refusal::Code;
use wharf_kernel::{Connection, Refusal};

use super::connection::Pool;
use super::supervisor::Supervisor;
use crate::beneath::{Beneath, Entry};
use crate::cgi_response::HeadLimits;
use crate::endpoint::Files;
use crate::program::request::Common;
use crate::program::send_file::SendFile;
use crate::program::slots::Slots;
use crate::script::{Found, Script, ScriptRules, find};
use wharf_mapping::is_private;

/// Extensions of files that hold source text: where they are not run, they are not shown either.
const SOURCES: [&str; 9] = ["php", "php3", "php4", "php5", "php7", "php8", "phtml", "phar", "inc"];
/// The same for ASP.NET.
const ASPNET_SOURCES: [&str; 19] = [
    "aspx",
    "ascx",
    "ashx",
    "asmx",
    "asax",
    "svc",
    "cshtml",
    "vbhtml",
    "master",
    "config",
    "cs",
    "vb",
    "csproj",
    "vbproj",
    "resx",
    "resources",
    "skin",
    "sitemap",
    "dll",
];

/// One application.
pub(super) struct App {
    pub(super) common: Common,
    /// Its document root as the application sees it, absolute.
    pub(super) root: PathBuf,
    pub(super) options: FastCgiOptions,
    pub(super) pool: Arc<Pool>,
    pub(super) authorizer: Option<Arc<Pool>>,
    pub(super) slots: Slots,
    supervisor: Option<Supervisor>,
    beneath: Beneath,
    rules: ScriptRules,
    virtual_extensions: Vec<String>,
    sources: &'static [&'static str],
}

impl App {
    /// Opens its folders and starts its command. Relative paths of the options begin at `base`.
    pub(super) fn open(plan: &Plan, options: FastCgiOptions, base: &Path, runtime: &Handle) -> Result<Self, Refusal> {
        let unreadable = |e: io::Error| Refusal::new(Code::Unreadable, format!("{}: {e}", plan.source.display()));
        let bad = |what: String| Refusal::new(Code::BadAppToml, format!("[fastcgi] {what}"));
        let root = std::fs::canonicalize(&plan.source).map_err(unreadable)?;
        let beneath = Beneath::open_root(&root).map_err(unreadable)?;
        let context = plan.id.path.as_str();
        let name: String = if context.is_empty() { "/".into() } else { context.into() };
        let common = Common {
            name: name.clone(),
            files: (options.static_files && !options.all_paths).then(|| Files::new(beneath.clone(), context)),
            send_file: SendFile::open(&options.sendfile_roots, &options.accel_redirects, base).map_err(unreadable)?,
            budget: Arc::default(),
            limits: HeadLimits { bytes: options.max_header_bytes, fields: options.max_header_fields },
            first_byte_timeout: options.first_byte_timeout,
            idle_timeout: options.idle_timeout,
            total_timeout: options.total_timeout,
        };
        let lower =
            |list: &Option<Vec<String>>| list.iter().flatten().map(|e| e.to_ascii_lowercase()).collect::<Vec<_>>();
        let rules = ScriptRules {
            extensions: match &options.extensions {
                Some(_) => lower(&options.extensions).into_iter().collect(),
                None => ["php".to_owned()].into(),
            },
            index: options.index.clone().unwrap_or_else(|| vec!["index.php".into()]),
            no_execute: options.no_execute.clone(),
        };
        let supervisor = match options.command.is_empty() {
            true => None,
            false => Some(Supervisor::start(&options, &name, &root, &common.budget, runtime)?),
        };
        let address = match (&supervisor, &options.address) {
            (Some(supervisor), _) => supervisor.address(),
            (None, Some(address)) => FastCgiAddress::parse(address).map_err(bad)?,
            (None, None) => return Err(bad("has no address".into())),
        };
        let authorizer = options.authorizer.as_deref().map(FastCgiAddress::parse).transpose().map_err(bad)?;
        let pool = Pool::new(address, options.connect_timeout, options.keep_connections(), options.keep_timeout);
        let slots = Slots::new(options.max_connections(), options.queue, options.queue_timeout);
        if let Some(supervisor) = &supervisor {
            supervisor.follow(&pool, options.keep_connections(), slots.places(), options.process_idle_timeout);
        }
        Ok(Self {
            common,
            pool,
            authorizer: authorizer.map(|a| Pool::new(a, options.connect_timeout, 0, options.keep_timeout)),
            slots,
            supervisor,
            beneath,
            rules,
            virtual_extensions: lower(&options.virtual_extensions),
            sources: if plan.kind == Kind::Aspnet { &ASPNET_SOURCES } else { &SOURCES },
            root: options.remote_root.clone().unwrap_or(root),
            options,
        })
    }

    /// Whether the path below the context is one of the application's own status pages.
    pub(super) fn is_status(&self, inner: &str) -> bool {
        self.options.status_paths.iter().any(|p| p == inner)
    }

    /// Says that a request has its place.
    pub(super) fn needs(&self) {
        if let Some(supervisor) = &self.supervisor {
            supervisor.need(self.slots.places().taken());
        }
    }

    /// Says that a request was answered.
    pub(super) fn served(&self) {
        if let Some(supervisor) = &self.supervisor {
            supervisor.served();
        }
    }

    /// Whether its command crashed so often that none of its processes runs now.
    pub(super) fn is_down(&self) -> bool {
        self.supervisor.as_ref().is_some_and(Supervisor::is_down)
    }

    /// How often none of its command's processes ran any more.
    pub(super) fn outages(&self) -> u64 {
        self.supervisor.as_ref().map_or(0, Supervisor::outages)
    }

    /// What answers a request, by the decoded path below the context and the client.
    pub(super) fn find(&self, inner: &str, connection: &Connection) -> io::Result<Found> {
        let script = |name: &str, path_info: &str| {
            let file = self.root.join(name.trim_start_matches('/'));
            Ok(Found::Script(Script { name: name.into(), file, path_info: path_info.into() }))
        };
        if self.is_status(inner) {
            let from = connection.remote.map(|r| r.ip().to_canonical());
            let allowed = from.is_some_and(|ip| self.options.status_from.iter().any(|a| a.to_canonical() == ip));
            return if allowed { script(inner, "") } else { Ok(Found::Missing) };
        }
        if self.options.all_paths {
            return script("", inner);
        }
        if self.is_denied(inner) {
            return Ok(Found::Missing);
        }
        let found = find(&self.beneath, &self.root, &self.rules, inner)?;
        let wanted = match &found {
            Found::Missing => true,
            // A folder without an index page of either kind.
            Found::File => self.is_bare_folder(inner)?,
            Found::Script(_) | Found::Folder => false,
        };
        if !wanted {
            let shown = found != Found::File || !self.is_source(inner);
            return Ok(if shown { found } else { Found::Missing });
        }
        if !is_private(inner) && extension(inner).is_some_and(|e| self.virtual_extensions.contains(&e)) {
            return script(inner, "");
        }
        match &self.options.fallback {
            Some(fallback) if !is_private(inner) => match find(&self.beneath, &self.root, &self.rules, fallback)? {
                found @ Found::Script(_) => Ok(found),
                _ => Ok(Found::Missing),
            },
            _ => Ok(found),
        }
    }

    fn is_denied(&self, inner: &str) -> bool {
        self.options.deny.iter().any(|folder| {
            let mut own = inner.split('/').filter(|s| !s.is_empty());
            let mut named = folder.split('/').filter(|s| !s.is_empty());
            named.all(|s| own.next().is_some_and(|o| o.eq_ignore_ascii_case(s)))
        })
    }

    fn is_source(&self, inner: &str) -> bool {
        extension(inner).is_some_and(|e| self.sources.contains(&e.as_str()) || self.rules.extensions.contains(&e))
    }

    fn is_bare_folder(&self, inner: &str) -> io::Result<bool> {
        let is = |path: &str, kind| Ok::<_, io::Error>(self.beneath.kind(Path::new(path))? == Some(kind));
        let path = inner.trim_matches('/');
        let page = format!("{path}/index.html");
        let has_page = self.options.static_files && is(page.trim_start_matches('/'), Entry::File)?;
        Ok(is(path, Entry::Folder)? && !has_page)
    }

    /// Processor time that its processes took since the last call.
    pub(super) fn take_time(&self) -> Duration {
        self.supervisor.as_ref().map_or(Duration::ZERO, Supervisor::take_time)
    }

    /// Ends its connections and its processes. May be called more than once.
    pub(super) fn stop(&self) {
        self.slots.close();
        self.pool.close();
        if let Some(supervisor) = &self.supervisor {
            supervisor.stop(self.options.kill_timeout);
        }
    }
}

/// The extension of the last segment, in lower case. Of `x.php.` and `x.php~` too: what a file system or an editor adds is
/// no way around a rule.
fn extension(path: &str) -> Option<String> {
    let name = path.trim_end_matches(['.', '~', ' ']);
    Path::new(name).extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase)
}
