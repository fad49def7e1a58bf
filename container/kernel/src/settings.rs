//! The settings of the container: every key, its type and its default. Reading files is the binary's task.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fairness::Share;
use crate::options::SessionSettings;
mod protect;
mod realm;
mod tls;

pub use protect::{Cors, Network, Protect, Rate};
pub use realm::{Lockout, Realm, RealmKind};
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
        for (name, realm) in &self.realm {
            realm.check().map_err(|(key, what)| (format!("realm.{name}.{key}"), what))?;
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

/// `[server]`: the connectors and their limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Addresses to listen on: `"127.0.0.1:8080"`, `"[::]:80"`, `":8080"` for every address, `"https://:8443"` with TLS,
    /// `"unix:PATH"`. One or a list.
    /// Port 0 picks a free one. Default `["127.0.0.1:8080"]`.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany")]
    pub listen: Vec<Listen>,
    /// Worker threads; default: one for each processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// How long requests in flight may take when the container stops or a generation is retired. Default `"30s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub drain_timeout: Duration,
    /// Addresses and networks of proxies that are believed when they say whom they speak for, by X-Forwarded-For, Forwarded
    /// or the PROXY protocol: `["10.0.0.0/8", "::1"]`. Default none.
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<Network>,
    /// Those of `listen` whose connections must begin with a PROXY protocol header. Default none.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany")]
    pub proxy_protocol: Vec<Listen>,
    /// Limits on requests.
    pub limits: Limits,
    /// HTTP/2.
    pub http2: Http2,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080)))],
            workers: None,
            drain_timeout: Duration::from_secs(30),
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            limits: Limits::default(),
            http2: Http2::default(),
        }
    }
}

/// `[server.limits]`: what a client may ask for. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Length of the request target; a longer one is answered with 414. Default 8192.
    pub request_line: usize,
    /// Length of all header fields together; more is answered with 431. Default 32768.
    pub headers: usize,
    /// Number of header fields. Default 100.
    pub header_count: usize,
    /// Size of a request body. Default 10485760 (10 MiB).
    pub body: u64,
    /// How much of a body that the application left unread is read before the connection is closed. Default 262144.
    pub unread_body: u64,
    /// For the head of a request, from its first byte to its last; and for the first byte of a new connection.
    /// Default `"10s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub header_timeout: Duration,
    /// For the next request to begin on an idle connection. Default `"60s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub keep_alive_timeout: Duration,
    /// Requests on one HTTP/1 connection; it is closed after the last. 0: any number. Default 1000.
    pub keep_alive_requests: u32,
    /// Without a byte of the request body. Default `"30s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub body_idle_timeout: Duration,
    /// Bytes a second that a request body must bring after 5 s of waiting for it. 0: any. Default 240.
    pub body_min_rate: u32,
    /// For an application to begin its answer, counted anew while the request body comes in. 0: any. Default `"60s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub response_timeout: Duration,
    /// For a client to take any byte of the answer. Default `"30s"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub send_timeout: Duration,
    /// Bytes a second that a client must take once it keeps the container waiting. 0: any. Default 240.
    pub send_min_rate: u32,
    /// Cookies of a request; more are answered with 431. Default 100.
    pub cookies: usize,
    /// Connections at a time. Default 10000; never more than 0.8 of the open files that the process may have.
    pub max_connections: usize,
    /// Connections of one address at a time. Default: any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_address: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_line: 8 << 10,
            headers: 32 << 10,
            header_count: 100,
            body: 10 << 20,
            unread_body: 256 << 10,
            header_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(60),
            keep_alive_requests: 1000,
            body_idle_timeout: Duration::from_secs(30),
            body_min_rate: 240,
            response_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(30),
            send_min_rate: 240,
            cookies: 100,
            max_connections: 10_000,
            connections_per_address: None,
        }
    }
}

/// `[deploy]`: what is deployed, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Deploy {
    /// The folder that is watched. Default `deploy`.
    pub dir: PathBuf,
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
            slow_poll: self.slow_poll,
            ..Share::default()
        }
    }
}

impl Default for Deploy {
    fn default() -> Self {
        let share = Share::default();
        Self {
            dir: "deploy".into(),
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
            slow_poll: share.slow_poll,
        }
    }
}

/// `[admin]`: the admin API.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Path of the Unix socket. Default: `admin.sock` in the state folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

/// `[log]`: the log on standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// What is logged: a level (`info`), or directives as `info,wharf_deployer=debug`. Default `info`.
    pub level: String,
    /// Form of a record. Default `text`.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

/// Form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[access_log]`: one line for each request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// Form of a line. Default `combined`.
    pub format: AccessFormat,
    /// Where the lines go: a path, or `-` for standard output. Default `-`.
    pub file: PathBuf,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { format: AccessFormat::Combined, file: "-".into() }
    }
}

/// Form of the access log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessFormat {
    /// The combined log format of Apache httpd.
    #[default]
    Combined,
    /// One JSON object a line.
    Json,
    /// None.
    Off,
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

/// How `listen` looks in a file.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Where a connector listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A TCP address with TLS on it.
    Tls(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err("no path after 'unix:'".into()) } else { Ok(Self::Unix(path.into())) };
        }
        if let Some(rest) = text.strip_prefix("https://") {
            return match rest.parse()? {
                Self::Tcp(addr) => Ok(Self::Tls(addr)),
                _ => Err(format!("'{text}' is not an address to listen on: write \"https://127.0.0.1:8443\"")),
            };
        }
        let text = text.strip_prefix("http://").unwrap_or(text);
        if let Some(port) = text.strip_prefix(':').and_then(|p| p.parse().ok()) {
            return Ok(Self::Tcp(SocketAddr::new(IpAddr::from([0u8; 16]), port)));
        }
        let local = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        local.as_deref().unwrap_or(text).parse().map(Self::Tcp).map_err(|_| {
            format!("'{text}' is not an address to listen on: write \"127.0.0.1:8080\", \"[::1]:8080\", \":8080\", \"https://:8443\" or \"unix:PATH\"")
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Tls(addr) => write!(f, "https://{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Networks, and addresses that stand for themselves.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Listen>, D::Error> {
    struct OneOrMany;
    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<Listen>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an address or a list of addresses")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            text.split(',').map(|part| part.trim().parse().map_err(E::custom)).collect()
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(listen) = seq.next_element()? {
                all.push(listen);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_any(OneOrMany)
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
