//! `[resource.NAME]`: what the container manages for its applications.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[resource.NAME]`: something outside of the container that applications use by its name.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// `sql`: a database. `cache`: values by keys. `http`: a server.
    pub kind: ResourceKind,
    /// Where it is. `sqlite:FILE` (made when it is not there) or `sqlite::memory:`, `postgres://USER@HOST:PORT/DATABASE`,
    /// `mysql://USER@HOST:PORT/DATABASE`; for a cache `memory:` or `redis://USER@HOST:PORT/DATABASE` (`rediss://` with TLS); for `http` the base URL. May hold `${env:NAME}` and `${file:PATH}`.
    #[serde(serialize_with = "without_secret")]
    pub url: String,
    /// The user, instead of the one in `url`. May hold `${env:NAME}` and `${file:PATH}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password, never shown: `"${file:PATH}"` or `"${env:NAME}"`.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "secret")]
    pub password: Option<String>,
    /// `http`: file with the certificates (PEM) of authorities that are believed, beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// `http`: file with a certificate and its key (PEM) that are shown to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// `http`: so often a request that may be repeated (RFC 9110, section 9.2.2) is tried again when the server can't be reached or
    /// answers 502, 503 or 504. Default 2; 0: never.
    #[serde(default = "retries")]
    pub retries: u32,
    /// `http`: repeated requests in percent of all, at most. Default 20.
    #[serde(default = "retry_budget")]
    pub retry_budget: u32,
    /// `http`: when half of the last 20 requests failed, the server is left alone for so long; then a few are tried. Default `"5s"`;
    /// `"0s"`: never.
    #[serde(default = "breaker", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub breaker: Duration,
    /// `cache` in memory: the most bytes of keys and values. Default 67108864 (64 MiB).
    #[serde(default = "max_bytes")]
    pub max_bytes: u64,
    /// The most connections. Default 10.
    #[serde(default = "max")]
    pub max: u32,
    /// Connections kept open when nobody needs them. Default 0.
    #[serde(default)]
    pub min_idle: u32,
    /// How long a caller waits for a connection before it gets an error. Default `"5s"`.
    #[serde(default = "wait", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub wait: Duration,
    /// Whether a connection is asked for a sign of life before it is handed out. Default true.
    #[serde(default = "yes")]
    pub validate: bool,
    /// How old a connection may become. Default `"30m"`; `"0s"`: any age.
    #[serde(default = "max_age", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub max_age: Duration,
    /// How long a connection that nobody needs stays open. Default `"10m"`; `"0s"`: for ever.
    #[serde(default = "idle", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub idle: Duration,
    /// How long the database may be silent while it works on a statement. Default `"30s"`.
    #[serde(default = "statement_timeout", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub statement_timeout: Duration,
    /// Statements that take longer are logged. Default `"1s"`; `"0s"`: none.
    #[serde(default = "slow_statement", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub slow_statement: Duration,
    /// Transactions that are open for longer are logged, with where they were begun. Default `"60s"`; `"0s"`: none.
    #[serde(default = "leak_after", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub leak_after: Duration,
    /// What happens when it can't be reached at the start: `wait` until it can, `fail`, or go on `degraded`. Default `wait`.
    #[serde(default)]
    pub start: ResourceStart,
    /// Whether applications may have these settings, the password included, to connect by themselves. Default false.
    #[serde(default)]
    pub share_settings: bool,
}

/// The kinds of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResourceKind {
    /// A database.
    Sql,
    /// Values by keys, with a time to live, and messages.
    Cache,
    /// A server that is asked by HTTP.
    Http,
}

impl ResourceKind {
    /// The word in the configuration and in descriptors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sql => "sql",
            Self::Cache => "cache",
            Self::Http => "http",
        }
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ResourceKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Sql, Self::Cache, Self::Http].into_iter().find(|kind| kind.name() == text).ok_or(())
    }
}

/// What happens when a resource can't be reached at the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResourceStart {
    /// The container is not ready before it can be reached.
    #[default]
    Wait,
    /// The container does not start.
    Fail,
    /// The container is ready without it.
    Degraded,
}

fn retries() -> u32 {
    2
}

fn retry_budget() -> u32 {
    20
}

fn breaker() -> Duration {
    Duration::from_secs(5)
}

fn max_bytes() -> u64 {
    64 << 20
}

fn max() -> u32 {
    10
}

fn wait() -> Duration {
    Duration::from_secs(5)
}

fn yes() -> bool {
    true
}

fn max_age() -> Duration {
    Duration::from_secs(1800)
}

fn idle() -> Duration {
    Duration::from_secs(600)
}

fn statement_timeout() -> Duration {
    Duration::from_secs(30)
}

fn slow_statement() -> Duration {
    Duration::from_secs(1)
}

fn leak_after() -> Duration {
    Duration::from_secs(60)
}

/// What stands for a secret wherever settings are shown.
const HIDDEN: &str = "********";

pub(super) fn secret<S: serde::Serializer>(_: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(HIDDEN)
}

fn without_secret<S: serde::Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hide_password(url))
}

/// A URL whose password is not to be read.
pub fn hide_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (rest, query) = match rest.split_once('?') {
        // Passwords may stand there, too.
        Some((rest, _)) => (rest, "?..."),
        None => (rest, ""),
    };
    let (authority, path) = rest.split_at(rest.rfind('@').map_or(0, |at| at + 1));
    let user = match authority.split_once(':') {
        Some((user, _)) => format!("{user}:{HIDDEN}@"),
        None => authority.to_owned(),
    };
    format!("{scheme}://{user}{path}{query}")
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource")
            .field("kind", &self.kind)
            .field("url", &hide_password(&self.url))
            .field("user", &self.user)
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

impl Resource {
    /// One with everything else by default.
    pub fn new(kind: ResourceKind, url: String) -> Self {
        Self {
            kind,
            url,
            user: None,
            password: None,
            ca: None,
            client_certificate: None,
            retries: retries(),
            retry_budget: retry_budget(),
            breaker: breaker(),
            max_bytes: max_bytes(),
            max: max(),
            min_idle: 0,
            wait: wait(),
            validate: yes(),
            max_age: max_age(),
            idle: idle(),
            statement_timeout: statement_timeout(),
            slow_statement: slow_statement(),
            leak_after: leak_after(),
            start: ResourceStart::default(),
            share_settings: false,
        }
    }

    /// Rules that concern more than one key.
    ///
    /// # Errors
    /// The key at fault, and what is wrong.
    pub fn check(&self) -> Result<(), (String, String)> {
        let bad = |key: &str, what: &str| Err((key.to_owned(), what.to_owned()));
        let scheme = self.url.split(':').next().unwrap_or_default();
        let (fits, what) = match self.kind {
            ResourceKind::Sql => (
                matches!(scheme, "sqlite" | "postgres" | "postgresql" | "mysql" | "mariadb"),
                "must begin with sqlite:, postgres:// or mysql://, as \"sqlite:shop.db\" or \"postgres://shop@127.0.0.1/shop\"",
            ),
            ResourceKind::Http => (
                matches!(scheme, "http" | "https"),
                "must begin with http:// or https://, as \"https://api.example.org/v1\"",
            ),
            ResourceKind::Cache => (
                matches!(scheme, "memory" | "redis" | "rediss"),
                "must be memory: or begin with redis:// or rediss://, as \"redis://127.0.0.1\"",
            ),
        };
        if !fits && !self.url.starts_with("${") {
            return bad("url", what);
        }
        if self.retry_budget > 1000 {
            return bad("retry_budget", "is in percent, and at most 1000");
        }
        if self.max == 0 {
            return bad("max", "must be at least 1");
        }
        if self.min_idle > self.max {
            return bad("min_idle", "must not be more than max");
        }
        for (key, time) in [("wait", self.wait), ("statement_timeout", self.statement_timeout)] {
            if time.is_zero() {
                return bad(key, "must be longer than nothing");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        for (url, shown) in [
            ("sqlite:shop.db", "sqlite:shop.db"),
            ("postgres://u:p@h:1/d", "postgres://u:********@h:1/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://h/d", "postgres://h/d"),
            ("mysql://u:p:a@ss@h/d", "mysql://u:********@h/d"),
            ("postgres://h/d?password=p", "postgres://h/d?..."),
        ] {
            assert_eq!(hide_password(url), shown);
        }
        let resource: Resource =
            toml::from_str("kind = 'sql'\nurl = 'postgres://u:hunter2@h/d'\npassword = 'hunter2'\n").unwrap();
        for text in [format!("{resource:?}"), serde_json::to_string(&resource).unwrap()] {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, key) in [
            ("url = 'oracle:x'", "url"),
            ("url = 'redis://x'", "url"),
            ("url = 'sqlite:x'\nmax = 0", "max"),
            ("url = 'sqlite:x'\nmin_idle = 11", "min_idle"),
            ("url = 'sqlite:x'\nwait = '0s'", "wait"),
        ] {
            let resource: Resource = toml::from_str(&format!("kind = 'sql'\n{text}")).unwrap();
            assert_eq!(resource.check().unwrap_err().0, key, "{text}");
        }
    }
}
