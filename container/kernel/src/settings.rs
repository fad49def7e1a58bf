//! The settings of the container: every key, its type and its default. Reading files is the binary's task.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fairness::Share;
use crate::options::SessionSettings;
mod acme;
mod admin;
mod listen;
mod log;
mod protect;
mod realm;
mod resource;
mod server;
mod source;
mod tls;

pub use acme::Acme;
pub use admin::{Admin, AdminRole, AdminToken};
pub use listen::Listen;
pub use log::{AccessFormat, AccessLog, Log, LogFormat};
pub use protect::{Cors, Network, Protect, Rate};
pub use realm::{CertificateName, Lockout, Realm, RealmKind};
pub use resource::{Resource, ResourceKind, ResourceStart, hide_password};
pub use server::{Limits, Server};
pub use source::Source;
pub use tls::{Certificate, ClientAuth, Http2, Tls, TlsVersion};

/// All settings. Each has a default, so an empty file is a valid configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Folder for private copies, kept versions and the admin socket. Default `.wharf`.
    pub state_dir: PathBuf,
    /// The connectors and their limits.
    pub server: Server,
    /// Certificates and rules of encrypted connections.
    pub tls: Tls,
    /// What is refused before an application sees it.
    pub protect: Protect,
    /// Where users and their roles come from, by name.
    pub realm: BTreeMap<String, Realm>,
    /// Databases that applications use, by name.
    pub resource: BTreeMap<String, Resource>,
    /// Not of the configuration: where a database is made that an application needs and `resource` does not have. Set by
    /// `wharf dev` alone.
    #[serde(skip)]
    pub default_databases: Option<PathBuf>,
    /// What is deployed, and how.
    pub deploy: Deploy,
    /// The admin API.
    pub admin: Admin,
    /// The log on standard error.
    pub log: Log,
    /// The access log.
    pub access_log: AccessLog,
    /// The defaults of the applications' sessions.
    pub session: SessionSettings,
    /// Virtual hosts. Default none: one host, called `default`, answers every name.
    pub host: Vec<Host>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            state_dir: ".wharf".into(),
            server: Server::default(),
            tls: Tls::default(),
            protect: Protect::default(),
            realm: BTreeMap::new(),
            resource: BTreeMap::new(),
            default_databases: None,
            deploy: Deploy::default(),
            admin: Admin::default(),
            log: Log::default(),
            access_log: AccessLog::default(),
            session: SessionSettings::default(),
            host: Vec::new(),
        }
    }
}

impl Settings {
    /// The admin socket: `admin.socket`, else `admin.sock` in the state folder.
    pub fn admin_socket(&self) -> PathBuf {
        self.admin.socket.clone().unwrap_or_else(|| self.state_dir.join("admin.sock"))
    }

    /// The audit log: `admin.audit_log`, else `audit.log` in the state folder.
    pub fn audit_log(&self) -> PathBuf {
        self.admin.audit_log.clone().unwrap_or_else(|| self.state_dir.join("audit.log"))
    }

    /// Rules that concern more than one key.
    ///
    /// # Errors
    /// The key at fault (`host`) and what is wrong.
    pub fn check(&self) -> Result<(), (String, String)> {
        let mut names = BTreeMap::new();
        for host in &self.host {
            for name in std::iter::once(&host.name).chain(&host.aliases) {
                let lower = name.to_ascii_lowercase();
                let bare = lower.strip_prefix("*.").unwrap_or(&lower);
                if let Err(error) = wharf_mapping::parse_host(bare) {
                    return Err(("host".into(), format!("'{name}' is not a host name: {error}")));
                }
                if let Some(other) = names.insert(lower, &host.name) {
                    return Err(("host".into(), format!("'{name}' is a name of '{other}' and of '{}'", host.name)));
                }
            }
        }
        self.admin.check().map_err(|(key, what)| (format!("admin.{key}"), what))?;
        for (name, realm) in &self.realm {
            realm.check().map_err(|(key, what)| (format!("realm.{name}.{key}"), what))?;
        }
        for (name, resource) in &self.resource {
            if !crate::resource::is_name(name) {
                let what = "a name has letters, digits, '-' and '_'";
                return Err((format!("resource.{name}"), what.into()));
            }
            resource.check().map_err(|(key, what)| (format!("resource.{name}.{key}"), what))?;
        }
        if let Some(source) = &self.deploy.source {
            source.check().map_err(|(key, what)| (format!("deploy.source.{key}"), what))?;
        }
        if self.host.iter().filter(|h| h.default).count() > 1 {
            return Err(("host".into(), "more than one host has default = true".into()));
        }
        if self.server.listen.is_empty() {
            return Err(("server.listen".into(), "give at least one address, as \"127.0.0.1:8080\"".into()));
        }
        if let Some(other) = self.server.proxy_protocol.iter().find(|l| !self.server.listen.contains(l)) {
            let what = format!("'{other}' is not one of server.listen: write it as it stands there");
            return Err(("server.proxy_protocol".into(), what));
        }
        if self.server.proxy_protocol.iter().any(|l| matches!(l, Listen::Tcp(_)))
            && self.server.trusted_proxies.is_empty()
        {
            let what = "needs server.trusted_proxies: nobody else's header would be believed";
            return Err(("server.proxy_protocol".into(), what.into()));
        }
        for (key, value) in [
            ("deploy.parallel", self.deploy.parallel),
            ("server.workers", self.server.workers),
            ("deploy.runtime_threads", Some(self.deploy.runtime_threads)),
            ("deploy.blocking_threads", Some(self.deploy.blocking_threads)),
            ("deploy.max_requests", Some(self.deploy.max_requests)),
        ] {
            if value == Some(0) {
                return Err((key.into(), "must be at least 1".into()));
            }
        }
        if let Err((key, what)) = self.session.check() {
            return Err((format!("session.{key}"), what));
        }
        for (key, time) in
            [("deploy.poll_interval", self.deploy.poll_interval), ("deploy.slow_poll", self.deploy.slow_poll)]
        {
            if time.is_zero() {
                return Err((key.into(), "must be longer than nothing".into()));
            }
        }
        let secure = self.server.listen.iter().find(|l| matches!(l, Listen::Tls(_)));
        if let Some(secure) = secure
            && self.tls.certificate.is_empty()
            && self.tls.acme.is_none()
        {
            let what = format!(
                "{secure} needs a certificate: add [[tls.certificate]] with chain = \"FILE\" and key = \"FILE\""
            );
            return Err(("server.listen".into(), what));
        }
        self.tls.check()?;
        self.server.http2.check()?;
        self.protect.check()
    }
}

/// `[deploy]`: what is deployed, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Deploy {
    /// The folder that is watched. Default `deploy`.
    pub dir: PathBuf,
    /// An object store that the folder follows. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// How often the folder is looked at even when the kernel reports no change. Default `"5s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub poll_interval: Duration,
    /// Applications started at the same time; default: one for each processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<usize>,
    /// How long the trial load of a new file may take. Default `"10s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub trial_timeout: Duration,
    /// How long the start of an application may take, and after it the health check. Default `"30s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub start_timeout: Duration,
    /// How long its stop may take. Default `"10s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub stop_timeout: Duration,
    /// Earlier good files kept for `wharf rollback`, for each application. Default 3.
    pub keep_versions: usize,
    /// Whether a version is retired as soon as a newer one of the same context path serves. Default false: versions
    /// live side by side until their files are removed.
    pub retire_old_versions: bool,
    /// Threads of each module's own runtime. Default 1.
    pub runtime_threads: usize,
    /// Threads for the blocking servlets of each module, at most. Default 16.
    pub blocking_threads: usize,
    /// Requests that each application answers at a time. Default 4000.
    pub max_requests: usize,
    /// Requests of each application that may wait beyond those; the next one is answered with 503. Default 1000.
    pub max_queued: usize,
    /// How long each may wait, before it is answered with 503. Default `"5s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub queue_timeout: Duration,
    /// Bytes that a module may hold before new requests are answered with 503; 0 is no budget. Default 0.
    pub memory_budget: u64,
    /// How many processors each application may keep busy, such as 0.5, before new requests are answered with 503; 0 is no limit. Default 0.
    pub cpu_limit: f64,
    /// How long one poll of an application may keep a worker. Three that take longer, or one that takes far longer, and the
    /// application is polled on threads of its own. Default `"100ms"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub slow_poll: Duration,
}

impl Deploy {
    /// What an application may take that says nothing of it.
    pub fn share(&self) -> Share {
        Share {
            max_requests: self.max_requests,
            max_queued: self.max_queued,
            queue_timeout: self.queue_timeout,
            memory_budget: self.memory_budget,
            cpu_limit: thousandths(self.cpu_limit),
            slow_poll: self.slow_poll,
            ..Share::default()
        }
    }
}

/// Processors in the unit of [`Share::cpu_limit`]. A limit that is there stays one, however small.
pub fn thousandths(processors: f64) -> u32 {
    if processors > 0.0 { (processors * 1000.0).round().max(1.0) as u32 } else { 0 }
}

impl Default for Deploy {
    fn default() -> Self {
        let share = Share::default();
        Self {
            dir: "deploy".into(),
            source: None,
            poll_interval: Duration::from_secs(5),
            parallel: None,
            trial_timeout: Duration::from_secs(10),
            start_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(10),
            keep_versions: 3,
            retire_old_versions: false,
            runtime_threads: 1,
            blocking_threads: 16,
            max_requests: share.max_requests,
            max_queued: share.max_queued,
            queue_timeout: share.queue_timeout,
            memory_budget: share.memory_budget,
            cpu_limit: 0.0,
            slow_poll: share.slow_poll,
        }
    }
}

/// `[[host]]`: a virtual host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name; `*.example.com` for every name below.
    pub name: String,
    /// Other names it answers.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Whether it answers names that no host has. Default false.
    #[serde(default)]
    pub default: bool,
    /// A deploy folder of its own. Without one, applications come to this host by the key `host` of their side-car file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy_dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default_and_the_default_survives_a_round_trip() {
        let empty: Settings = toml::from_str("").unwrap();
        assert_eq!(empty, Settings::default());
        let text = toml::to_string(&empty).unwrap();
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), empty);
    }

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]:80", "[::1]:80"),
            (":80", "[::]:80"),
            ("localhost:9", "127.0.0.1:9"),
            ("unix:/run/x", "unix:/run/x"),
            ("https://:443", "https://[::]:443"),
            ("http://localhost:9", "127.0.0.1:9"),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), shown);
        }
        for bad in ["https://unix:/x", "https://https://:1", "", "8080", "unix:", "localhost", ":70000", "a b:1"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad:?}");
        }
        let one: Settings = toml::from_str("server.listen = \":80, unix:/s\"").unwrap();
        assert_eq!(one.server.listen.len(), 2);
    }

    #[test]
    fn rules_over_several_keys() {
        for (text, key) in [
            ("[[host]]\nname = \"a\"\n[[host]]\nname = \"A\"", "host"),
            ("[[host]]\nname = \"a\"\ndefault = true\n[[host]]\nname = \"b\"\ndefault = true", "host"),
            ("[[host]]\nname = \"a b\"", "host"),
            ("server.listen = []", "server.listen"),
            ("server.proxy_protocol = \":1\"", "server.proxy_protocol"),
            ("server.listen = \":1\"\nserver.proxy_protocol = \":1\"", "server.proxy_protocol"),
            ("deploy.parallel = 0", "deploy.parallel"),
            ("server.listen = \"https://:443\"", "server.listen"),
            ("tls.client_auth = \"required\"", "tls.client_auth"),
            ("[[tls.certificate]]\nchain = \"a\"\nkey = \"b\"\nnames = [\"a b\"]", "tls.certificate"),
            ("server.http2.stream_window = 4000000000", "server.http2.stream_window"),
            ("protect.hosts = [\"a/b\"]", "protect.hosts"),
            ("protect.headers = { \"a b\" = \"c\" }", "protect.headers"),
            ("protect.trusted_origins = [\"shop.example\"]", "protect.trusted_origins"),
            ("protect.rate = { requests = 0 }", "protect.rate"),
            ("protect.cors = { origins = [\"*\"], credentials = true }", "protect.cors"),
            ("deploy.poll_interval = \"0s\"", "deploy.poll_interval"),
        ] {
            assert_eq!(toml::from_str::<Settings>(text).unwrap().check().unwrap_err().0, key, "{text}");
        }
        let good = "[[host]]\nname = \"*.example.com\"\naliases = [\"example.com\"]";
        toml::from_str::<Settings>(good).unwrap().check().unwrap();
    }
}
