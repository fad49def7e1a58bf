//! [proxy]: the backends of a reverse proxy, and how requests are shared among them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// `[proxy]` of an application's TOML file. Either `backends` or `command` must be given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyOptions {
    /// The servers: URLs, or tables with `url` and `weight`.
    pub backends: Vec<Backend>,
    /// A program that Wharf starts, with its arguments. `{port}` and `{socket}` are replaced.
    pub command: Vec<String>,
    /// How many copies of the program run. Default 1.
    pub copies: usize,
    /// Where the program listens. Default `"tcp"`.
    pub listen: ProcessListen,
    /// Environment of the program, beside PORT or SOCKET and ASPNETCORE_URLS.
    pub env: BTreeMap<String, String>,
    /// Who gets a request. Default `"round_robin"`, which heeds the weights.
    pub policy: Policy,
    /// What `policy = "hash"` looks at. Default `"remote"`.
    pub hash: HashKey,
    /// What is spoken to the backends. Default `"h1"`.
    pub protocol: Protocol,
    /// The Host that the backends see. Default `"client"`.
    pub host: HostHeader,
    /// Whether the context path is taken off before the path is sent. Default true.
    pub strip_context: bool,
    /// Requests at a time to one backend; more wait for `queue_timeout`. Default 1024.
    pub max_requests: usize,
    /// How long a request waits for its turn at a full backend. Default `"1s"`.
    #[serde(with = "humantime_serde")]
    pub queue_timeout: Duration,
    /// Idle connections that each worker keeps to one backend. Default 32.
    pub max_idle_connections: usize,
    /// How long an idle connection is kept. Default `"55s"`.
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    /// For a new connection, its TLS handshake included. Default `"3s"`.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// From the last byte of the request to the head of the response. Default `"60s"`.
    #[serde(with = "humantime_serde")]
    pub first_byte_timeout: Duration,
    /// Between two pieces of a response body. Default `"60s"`.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// For the whole of a request, tries and response body included. Default none.
    #[serde(with = "humantime_serde")]
    pub total_timeout: Option<Duration>,
    /// How long a tunnel may be silent both ways. Default `"1h"`.
    #[serde(with = "humantime_serde")]
    pub tunnel_idle_timeout: Duration,
    /// How often names are looked up again. Default `"30s"`.
    #[serde(with = "humantime_serde")]
    pub dns_interval: Duration,
    /// Where fewer backends than this percentage are fit, health is not heeded. Default 0: only when none is.
    pub panic_threshold: u8,
    /// How long the share of a backend that came back grows to its full size. Default `"10s"`.
    #[serde(with = "humantime_serde")]
    pub slow_start: Duration,
    /// Active checks. Default none.
    pub health: Option<Health>,
    /// Passive checks.
    pub eject: Eject,
    /// Second tries.
    pub retry: Retry,
    /// A cookie that keeps a client at its backend. Default none.
    pub sticky: Option<Sticky>,
    /// For `https` backends.
    pub tls: Tls,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            backends: Vec::new(),
            command: Vec::new(),
            copies: 1,
            listen: ProcessListen::Tcp,
            env: BTreeMap::new(),
            policy: Policy::RoundRobin,
            hash: HashKey::Remote,
            protocol: Protocol::H1,
            host: HostHeader::Client,
            strip_context: true,
            max_requests: 1024,
            queue_timeout: s(1),
            max_idle_connections: 32,
            keep_alive: s(55),
            connect_timeout: s(3),
            first_byte_timeout: s(60),
            idle_timeout: s(60),
            total_timeout: None,
            tunnel_idle_timeout: s(3600),
            dns_interval: s(30),
            panic_threshold: 0,
            slow_start: s(10),
            health: None,
            eject: Eject::default(),
            retry: Retry::default(),
            sticky: None,
            tls: Tls::default(),
        }
    }
}

impl ProxyOptions {
    /// Rules that concern more than one key, and ranges.
    ///
    /// # Errors
    /// The key at fault, what is wrong and what to do.
    pub fn check(&self) -> Result<(), String> {
        let err = |text: &str| Err(text.to_owned());
        match (self.backends.is_empty(), self.command.is_empty()) {
            (true, true) => return err("proxy: give 'backends', a list of URLs, or 'command', a program to start"),
            (false, false) => return err("proxy: 'backends' and 'command' exclude each other: remove one"),
            _ => {}
        }
        if self.command.is_empty() && (self.copies != 1 || !self.env.is_empty()) {
            return err("proxy: 'copies' and 'env' belong to 'command', which is not given");
        }
        if !(1..=256).contains(&self.copies) {
            return err("proxy.copies: must be 1 to 256");
        }
        if self.max_requests == 0 || self.max_requests > 1_000_000 {
            return err("proxy.max_requests: must be 1 to 1000000");
        }
        if self.panic_threshold > 100 {
            return err("proxy.panic_threshold: is a percentage, 0 to 100");
        }
        if self.retry.attempts == 0 || self.retry.attempts > 10 {
            return err("proxy.retry.attempts: must be 1 (no second try) to 10");
        }
        if self.retry.percent > 1000 {
            return err("proxy.retry.percent: must be 0 to 1000");
        }
        let mut seen = std::collections::HashSet::new();
        for backend in &self.backends {
            if !(1..=10_000).contains(&backend.weight) {
                return Err(format!("proxy.backends: '{}': weight must be 1 to 10000", backend.url));
            }
            if !seen.insert(&backend.url) {
                return Err(format!("proxy.backends: '{}' is there twice: use its weight instead", backend.url));
            }
        }
        for (key, time) in [
            ("connect_timeout", self.connect_timeout),
            ("first_byte_timeout", self.first_byte_timeout),
            ("idle_timeout", self.idle_timeout),
            ("tunnel_idle_timeout", self.tunnel_idle_timeout),
            ("dns_interval", self.dns_interval),
            ("eject.time", self.eject.time),
        ] {
            if time.is_zero() {
                return Err(format!("proxy.{key}: must be longer than nothing"));
            }
        }
        if let Some(health) = &self.health {
            if !health.path.starts_with('/') {
                return Err(format!("proxy.health.path: '{}' does not begin with '/'", health.path));
            }
            if health.interval.is_zero() || health.timeout.is_zero() || health.healthy == 0 || health.unhealthy == 0 {
                return err("proxy.health: interval, timeout, healthy and unhealthy must be more than nothing");
            }
        }
        if let Some(sticky) = &self.sticky {
            let token = |b: u8| b.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&b);
            if sticky.cookie.is_empty() || !sticky.cookie.bytes().all(token) {
                return Err(format!("proxy.sticky.cookie: '{}' is not a cookie name", sticky.cookie));
            }
            if sticky.secret.as_ref().is_some_and(|s| s.len() < 16) {
                return err("proxy.sticky.secret: must have at least 16 characters");
            }
        }
        Ok(())
    }
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// `http://HOST:PORT/PATH`, `https://...`, or `unix:PATH`.
    pub url: String,
    /// Its share, beside the others' weights. Default 1.
    pub weight: u32,
}

impl<'de> Deserialize<'de> for Backend {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Full {
            url: String,
            #[serde(default = "one")]
            weight: u32,
        }
        const fn one() -> u32 {
            1
        }
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = Backend;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, or a table with url and weight")
            }

            fn visit_str<E: de::Error>(self, url: &str) -> Result<Backend, E> {
                Ok(Backend { url: url.to_owned(), weight: 1 })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Backend, A::Error> {
                let full = Full::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Backend { url: full.url, weight: full.weight })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Who gets a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// In turn, by weight.
    #[serde(alias = "weighted")]
    RoundRobin,
    /// The one with the fewest requests in flight for its weight.
    LeastRequests,
    /// The better of two that are drawn: latency (its peaks remembered) times requests in flight.
    PeakEwma,
    /// Always the same for the same key, as long as it is fit.
    Hash,
}

/// What `policy = "hash"` looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Remote,
    /// The path.
    Path,
    /// A header field; the client's address where it is absent.
    Header(http::HeaderName),
    /// A cookie; the client's address where it is absent.
    Cookie(String),
}

impl<'de> Deserialize<'de> for HashKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.split_once(':') {
            None if text == "remote" => Ok(Self::Remote),
            None if text == "path" => Ok(Self::Path),
            Some(("header", name)) => name.parse().map(Self::Header).map_err(de::Error::custom),
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.to_owned())),
            _ => Err(de::Error::custom("write \"remote\", \"path\", \"header:NAME\" or \"cookie:NAME\"")),
        }
    }
}

/// The Host that the backends see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostHeader {
    /// What the client asked for.
    Client,
    /// Host and port of the backend's URL.
    Backend,
    /// This name.
    Name(http::HeaderValue),
}

impl<'de> Deserialize<'de> for HostHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match &*text {
            "client" => Ok(Self::Client),
            "backend" => Ok(Self::Backend),
            name if wharf_mapping::parse_host(name).is_ok() => name.parse().map(Self::Name).map_err(de::Error::custom),
            _ => Err(de::Error::custom("write \"client\", \"backend\" or a host name")),
        }
    }
}

/// What is spoken to the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2, by prior knowledge, or by ALPN with `https`.
    H2,
}

/// Where a started program listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessListen {
    /// A free port of 127.0.0.1.
    Tcp,
    /// A Unix socket in a private folder.
    Unix,
}

/// `[proxy.health]`: active checks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// The path, on the backend, that must answer a GET with a 2xx status. Default `"/"`.
    pub path: String,
    /// Time between checks. Default `"5s"`.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// For one check. Default `"2s"`.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Good checks in a row that bring a backend back. Default 2.
    pub healthy: u32,
    /// Bad checks in a row that take it out. Default 2.
    pub unhealthy: u32,
}

impl Default for Health {
    fn default() -> Self {
        let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(2));
        Self { path: "/".to_owned(), interval, timeout, healthy: 2, unhealthy: 2 }
    }
}

/// `[proxy.eject]`: passive checks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Eject {
    /// Failures in a row, connections and statuses from 500 on, that take a backend out; 0 never. Default 5.
    pub failures: u32,
    /// For how long, the first time; twice as long each time after. Default `"5s"`.
    #[serde(with = "humantime_serde")]
    pub time: Duration,
    /// But no longer than this. Default `"1m"`.
    #[serde(with = "humantime_serde")]
    pub max_time: Duration,
}

impl Default for Eject {
    fn default() -> Self {
        Self { failures: 5, time: Duration::from_secs(5), max_time: Duration::from_secs(60) }
    }
}

/// `[proxy.retry]`: second tries, made only where nothing was sent, or the method is idempotent and the body is at hand.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Tries of one request in all. Default 3.
    pub attempts: u32,
    /// Second tries as a percentage of the requests of the last ten seconds. Default 20.
    pub percent: u32,
    /// Second tries that are always allowed, for each second. Default 10.
    pub min_per_second: u32,
    /// Bodies of idempotent requests up to so many bytes are kept for a second try. Default 65536.
    pub body: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 3, percent: 20, min_per_second: 10, body: 64 << 10 }
    }
}

/// `[proxy.sticky]`: a signed cookie that keeps a client at its backend.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sticky {
    /// Name of the cookie. Default `"WHARFROUTE"`.
    pub cookie: String,
    /// Signs it. Default: made at the start of the container; give one where several containers share clients.
    pub secret: Option<String>,
}

impl Default for Sticky {
    fn default() -> Self {
        Self { cookie: "WHARFROUTE".to_owned(), secret: None }
    }
}

/// `[proxy.tls]`: for `https` backends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// A PEM file with the certificates that are trusted, instead of the system's.
    pub ca: Option<PathBuf>,
    /// The name that the certificate must have, instead of the URL's host.
    pub server_name: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_urls_or_tables() {
        let text = "backends = [\"http://a:1\", { url = \"unix:/s\", weight = 3 }]\nhash = \"cookie:k\"";
        let options: ProxyOptions = toml::from_str(text).unwrap();
        options.check().unwrap();
        assert_eq!(options.backends[1].weight, 3);
        assert_eq!(options.hash, HashKey::Cookie("k".into()));
    }

    #[test]
    fn what_makes_no_sense_names_the_key() {
        for (text, word) in [
            ("", "'backends'"),
            ("backends = [\"http://a\"]\ncommand = [\"x\"]", "exclude"),
            ("backends = [\"http://a\", \"http://a\"]", "twice"),
            ("backends = [{ url = \"http://a\", weight = 0 }]", "weight"),
            ("backends = [\"http://a\"]\ncopies = 2", "'copies'"),
            ("backends = [\"http://a\"]\npanic_threshold = 101", "percentage"),
            ("backends = [\"http://a\"]\nretry.attempts = 0", "attempts"),
            ("backends = [\"http://a\"]\nidle_timeout = \"0s\"", "idle_timeout"),
            ("backends = [\"http://a\"]\nhealth.path = \"x\"", "health.path"),
            ("backends = [\"http://a\"]\nsticky.cookie = \"a b\"", "cookie"),
            ("backends = [\"http://a\"]\nsticky.secret = \"short\"", "secret"),
        ] {
            let error = toml::from_str::<ProxyOptions>(text).unwrap().check().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        for text in ["policy = \"best\"", "hash = \"header:a b\"", "host = \"a b\"", "backends = [{ ulr = \"x\" }]"] {
            assert!(toml::from_str::<ProxyOptions>(text).is_err(), "{text}");
        }
    }
}
