//! `[admin]`: the admin API.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[admin]`: the admin API.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Path of the Unix socket. Default: `admin.sock` in the state folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// An address of the loopback interface, such as `127.0.0.1:9090`, on which the API answers those who show a token or a password.
    /// Default none: on the socket alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Name of a realm with passwords. Its users with a role `viewer`, `deployer` or `admin` may ask over `listen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
    /// Tokens that may ask over `listen`; `wharf token` makes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub token: Vec<AdminToken>,
    /// The file to which every change is written, and every refused one: a JSON object a line. Default: `audit.log` in the state
    /// folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_log: Option<PathBuf>,
}

/// `[[admin.token]]`: who may ask with a token (RFC 6750).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminToken {
    /// The name that the audit log shows.
    pub name: String,
    /// What it may do.
    pub role: AdminRole,
    /// The SHA-256 of the token, 64 hexadecimal digits. The token itself is nowhere.
    pub sha256: String,
}

/// What somebody may do with the admin API; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdminRole {
    /// Look at everything.
    Viewer,
    /// Deploy, undeploy, start, stop, reload, roll back; drain backends.
    Deployer,
    /// Stop the container.
    Admin,
}

impl AdminRole {
    /// All of them, the mightiest first.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Deployer, Self::Viewer];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        }
    }
}

impl Admin {
    /// Looks at what can be wrong by itself.
    ///
    /// # Errors
    /// The key at fault and what is wrong.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let wrong = |key: &str, what: &str| Err((key.to_owned(), what.to_owned()));
        match self.listen {
            Some(address) if !address.ip().is_loopback() => {
                return wrong(
                    "listen",
                    "the admin API speaks without TLS: write an address of the loopback interface, as \"127.0.0.1:9090\", and for other \
                     machines put a proxy with TLS before it",
                );
            }
            Some(_) if self.realm.is_none() && self.token.is_empty() => {
                return wrong(
                    "listen",
                    "nobody could sign in: add an [[admin.token]] (see 'wharf token') or realm = \"NAME\"",
                );
            }
            None if self.realm.is_some() => return wrong("realm", "it is for those who ask over TCP: add listen"),
            None if !self.token.is_empty() => return wrong("token", "they are for those who ask over TCP: add listen"),
            _ => {}
        }
        for token in &self.token {
            if token.name.is_empty() || token.name.contains(char::is_control) {
                return wrong("token", "a token needs a name, for the audit log");
            }
            if token.sha256.len() != 64 || !token.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err((
                    "token".into(),
                    format!(
                        "sha256 of '{}' is not 64 hexadecimal digits; 'wharf token' prints the lines to add",
                        token.name
                    ),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_let_nobody_or_everybody_in_is_refused() {
        let token = format!("token = [{{ name = 'ci', role = 'deployer', sha256 = '{}' }}]", "a".repeat(64));
        let rows = [
            ("", None),
            ("socket = 'x'", None),
            ("listen = '127.0.0.1:1'", Some("listen")),
            ("listen = '0.0.0.0:1'\nrealm = 'r'", Some("listen")),
            ("listen = '[::1]:1'\nrealm = 'r'", None),
            ("realm = 'r'", Some("realm")),
            (&token, Some("token")),
            (&format!("listen = '127.0.0.1:1'\n{token}"), None),
            ("listen = '127.0.0.1:1'\ntoken = [{ name = 'ci', role = 'admin', sha256 = 'zz' }]", Some("token")),
            ("listen = '127.0.0.1:1'\ntoken = [{ name = '', role = 'admin', sha256 = 'zz' }]", Some("token")),
        ];
        for (text, key) in rows {
            let admin: Admin = toml::from_str(text).unwrap();
            assert_eq!(admin.check().err().map(|(key, _)| key).as_deref(), key, "{text}");
        }
        assert!(AdminRole::Viewer < AdminRole::Deployer && AdminRole::Deployer < AdminRole::Admin);
    }
}
