//! `[session]`: how long sessions live, where they are kept, what their cookie says, and what they may take.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where sessions are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "String", into = "String")]
#[schemars(with = "String")]
pub enum SessionStore {
    /// In memory; written to the state folder when the container stops, and read when it starts again.
    #[default]
    Memory,
    /// In memory, and in a file each that is written before the response is sent: they survive a crash.
    File,
    /// In the resource with this name, Redis or a database, for any number of containers: written before the response is sent,
    /// read at each request.
    Resource(String),
}

impl From<String> for SessionStore {
    fn from(text: String) -> Self {
        match text.as_str() {
            "memory" => Self::Memory,
            "file" => Self::File,
            _ => Self::Resource(text),
        }
    }
}

impl From<SessionStore> for String {
    fn from(store: SessionStore) -> Self {
        match store {
            SessionStore::Memory => "memory".into(),
            SessionStore::File => "file".into(),
            SessionStore::Resource(name) => name,
        }
    }
}

/// The attribute `SameSite` of the cookie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Not from other sites at all.
    Strict,
    /// From other sites only when a link is followed.
    #[default]
    Lax,
    /// From everywhere; needs an encrypted connection.
    None,
}

/// `[session]` of the settings: the defaults of every application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SessionSettings {
    /// Without a request for so long, a session ends; `"0s"`: never. Default `"30m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Where they are kept: `memory`, `file`, or the name of a resource that is Redis or a database. Default `memory`.
    pub store: SessionStore,
    /// Name of the cookie, and of the path parameter. Default `WHARFSESSION`.
    pub cookie: String,
    /// `Domain` of the cookie. Default none: this host alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// `SameSite` of the cookie. Default `lax`.
    pub same_site: SameSite,
    /// `HttpOnly` of the cookie: scripts can't read it. Default true.
    pub http_only: bool,
    /// `Secure` of the cookie, on every connection. Default false: on encrypted connections alone.
    pub secure: bool,
    /// `Partitioned` of the cookie, which makes it `Secure`. Default false.
    pub partitioned: bool,
    /// Whether the id may come in a path parameter, too. Default false.
    pub url_tracking: bool,
    /// Sessions of one application. Default 100000.
    pub max_sessions: u64,
    /// Bytes of the values of one session. Default 65536.
    pub max_session_bytes: u64,
    /// Bytes of the values of all sessions of one application. Default 268435456 (256 MiB).
    pub max_bytes: u64,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30 * 60),
            store: SessionStore::Memory,
            cookie: "WHARFSESSION".into(),
            domain: None,
            same_site: SameSite::Lax,
            http_only: true,
            secure: false,
            partitioned: false,
            url_tracking: false,
            max_sessions: 100_000,
            max_session_bytes: 64 << 10,
            max_bytes: 256 << 20,
        }
    }
}

/// `[session]` of an application's TOML file: what it says wins over the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SessionOptions {
    /// As in [`SessionSettings`], like all of these.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub timeout: Option<Duration>,
    /// Where they are kept.
    pub store: Option<SessionStore>,
    /// Name of the cookie.
    pub cookie: Option<String>,
    /// `Domain`.
    pub domain: Option<String>,
    /// `SameSite`.
    pub same_site: Option<SameSite>,
    /// `HttpOnly`.
    pub http_only: Option<bool>,
    /// `Secure`.
    pub secure: Option<bool>,
    /// `Partitioned`.
    pub partitioned: Option<bool>,
    /// Path parameters.
    pub url_tracking: Option<bool>,
    /// How many.
    pub max_sessions: Option<u64>,
    /// Bytes of one.
    pub max_session_bytes: Option<u64>,
    /// Bytes of all.
    pub max_bytes: Option<u64>,
}

impl SessionSettings {
    /// These with what an application says.
    #[must_use]
    pub fn with(&self, app: &SessionOptions) -> Self {
        Self {
            timeout: app.timeout.unwrap_or(self.timeout),
            store: app.store.clone().unwrap_or_else(|| self.store.clone()),
            cookie: app.cookie.clone().unwrap_or_else(|| self.cookie.clone()),
            domain: app.domain.clone().or_else(|| self.domain.clone()),
            same_site: app.same_site.unwrap_or(self.same_site),
            http_only: app.http_only.unwrap_or(self.http_only),
            secure: app.secure.unwrap_or(self.secure),
            partitioned: app.partitioned.unwrap_or(self.partitioned),
            url_tracking: app.url_tracking.unwrap_or(self.url_tracking),
            max_sessions: app.max_sessions.unwrap_or(self.max_sessions),
            max_session_bytes: app.max_session_bytes.unwrap_or(self.max_session_bytes),
            max_bytes: app.max_bytes.unwrap_or(self.max_bytes),
        }
    }

    /// Whether it can be used.
    ///
    /// # Errors
    /// The key within `[session]`, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if self.cookie.is_empty() || !self.cookie.bytes().all(token) {
            return Err(("cookie", format!("'{}' is not the name of a cookie (RFC 6265, section 4.1.1)", self.cookie)));
        }
        if let Some(domain) = &self.domain
            && wharf_mapping::parse_host(domain.trim_start_matches('.')).is_err()
        {
            return Err(("domain", format!("'{domain}' is not a host name")));
        }
        for (key, value) in [
            ("max_sessions", self.max_sessions),
            ("max_session_bytes", self.max_session_bytes),
            ("max_bytes", self.max_bytes),
        ] {
            if value == 0 {
                return Err((key, "must be at least 1".into()));
            }
        }
        Ok(())
    }

    /// The value of `Set-Cookie` that tells the client an id, or, without one, to forget it. `path` is the context path.
    pub fn set_cookie(&self, id: Option<&str>, path: &str, encrypted: bool) -> String {
        let mut text =
            format!("{}={}; Path={}", self.cookie, id.unwrap_or_default(), if path.is_empty() { "/" } else { path });
        if let Some(domain) = &self.domain {
            text.push_str("; Domain=");
            text.push_str(domain);
        }
        if id.is_none() {
            text.push_str("; Max-Age=0");
        }
        if self.http_only {
            text.push_str("; HttpOnly");
        }
        if encrypted || self.secure || self.partitioned || self.same_site == SameSite::None {
            text.push_str("; Secure");
        }
        text.push_str(match self.same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        });
        if self.partitioned {
            text.push_str("; Partitioned");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: rule, settings, encrypted, cookie. Servlet 6.1, section 7.1.1, and attack row E4.
    #[test]
    fn cookies_say_what_was_set() {
        let base = SessionSettings { cookie: "S".into(), ..SessionSettings::default() };
        let rows = [
            ("plain", base.clone(), false, "S=1; Path=/shop; HttpOnly; SameSite=Lax"),
            ("encrypted", base.clone(), true, "S=1; Path=/shop; HttpOnly; Secure; SameSite=Lax"),
            (
                "secure",
                SessionSettings { secure: true, ..base.clone() },
                false,
                "S=1; Path=/shop; HttpOnly; Secure; SameSite=Lax",
            ),
            (
                "strict",
                SessionSettings { same_site: SameSite::Strict, ..base.clone() },
                false,
                "S=1; Path=/shop; HttpOnly; SameSite=Strict",
            ),
            (
                "none is secure",
                SessionSettings { same_site: SameSite::None, ..base.clone() },
                false,
                "S=1; Path=/shop; HttpOnly; Secure; SameSite=None",
            ),
            (
                "partitioned is secure",
                SessionSettings { partitioned: true, ..base.clone() },
                false,
                "S=1; Path=/shop; HttpOnly; Secure; SameSite=Lax; Partitioned",
            ),
            (
                "domain",
                SessionSettings { domain: Some("a.example".into()), ..base.clone() },
                false,
                "S=1; Path=/shop; Domain=a.example; HttpOnly; SameSite=Lax",
            ),
            ("readable", SessionSettings { http_only: false, ..base.clone() }, false, "S=1; Path=/shop; SameSite=Lax"),
        ];
        for (rule, settings, encrypted, want) in rows {
            assert_eq!(settings.set_cookie(Some("1"), "/shop", encrypted), want, "{rule}");
        }
        assert_eq!(base.set_cookie(None, "", false), "S=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
    }

    #[test]
    fn names_that_would_break_the_header_are_refused() {
        for bad in ["", "a b", "a;b", "a=b", "a\r\nb", "ä"] {
            assert!(SessionSettings { cookie: bad.into(), ..SessionSettings::default() }.check().is_err(), "{bad:?}");
        }
        assert!(SessionSettings { domain: Some("a b".into()), ..SessionSettings::default() }.check().is_err());
    }
}
