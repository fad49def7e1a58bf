//! `[realm.NAME]`: where users and their roles come from.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[realm.NAME]`: users and their roles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Realm {
    /// `file`: names and passwords. `jwt`: tokens that somebody else signs.
    pub kind: RealmKind,
    /// `file`: the users file, made by `wharf passwd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// `file`: how long a password that was right is not computed again. Zero: always. Default `"30s"`.
    #[serde(default = "cache", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub cache: Duration,
    /// `file`: what brings guessing to an end.
    #[serde(default)]
    pub lockout: Lockout,
    /// `jwt`: the algorithms that are taken: `RS256`, `ES256`, `HS256` and the like.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub algorithms: Vec<String>,
    /// `jwt`: file with the key: a public key or certificate in PEM, or the secret of HS256 and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// `jwt`: file with a JSON Web Key Set (RFC 7517), instead of `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<PathBuf>,
    /// `jwt`: the issuer (`iss`) that a token must name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// `jwt`: the audience (`aud`) that a token must name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// `jwt`: how far clocks may be apart. Default `"30s"`.
    #[serde(default = "cache", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub leeway: Duration,
    /// `jwt`: the claim with the user's name. Default `sub`.
    #[serde(default = "sub")]
    pub user_claim: String,
    /// `jwt`: the claim with the roles, a list or words in a text; dots lead into objects. Default `roles`.
    #[serde(default = "roles")]
    pub roles_claim: String,
}

/// The kinds of realms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RealmKind {
    /// A users file.
    File,
    /// JSON Web Tokens (RFC 7519).
    Jwt,
}

/// `[realm.NAME.lockout]`: after so many wrong passwords within `time`, the answer is 429 for `time`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lockout {
    /// For one user from one address. Default 5; 0 for no bound.
    pub failures: u32,
    /// For all users from one address (for IPv6, one /64). Default 50; 0 for no bound.
    pub address_failures: u32,
    /// For one user from all addresses. Default 100; 0 for no bound.
    pub user_failures: u32,
    /// How long. Default `"5m"`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub time: Duration,
}

impl Default for Lockout {
    fn default() -> Self {
        Self { failures: 5, address_failures: 50, user_failures: 100, time: Duration::from_secs(300) }
    }
}

fn cache() -> Duration {
    Duration::from_secs(30)
}

fn sub() -> String {
    "sub".into()
}

fn roles() -> String {
    "roles".into()
}

impl Realm {
    /// Rules that concern more than one key.
    ///
    /// # Errors
    /// The key at fault and what is wrong.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        match self.kind {
            RealmKind::File => {
                if self.file.is_none() {
                    return Err(("file", "kind = \"file\" needs the users file: file = \"users.txt\"".into()));
                }
                for (key, given) in [
                    ("algorithms", !self.algorithms.is_empty()),
                    ("key", self.key.is_some()),
                    ("jwks", self.jwks.is_some()),
                    ("issuer", self.issuer.is_some()),
                    ("audience", self.audience.is_some()),
                ] {
                    if given {
                        return Err((key, "is for kind = \"jwt\"".into()));
                    }
                }
            }
            RealmKind::Jwt => {
                if self.file.is_some() {
                    return Err(("file", "is for kind = \"file\"; a jwt realm takes 'key' or 'jwks'".into()));
                }
                if self.key.is_some() == self.jwks.is_some() {
                    return Err(("key", "give either 'key' or 'jwks'".into()));
                }
                if self.algorithms.is_empty() {
                    return Err(("algorithms", "name what is taken, as algorithms = [\"RS256\"]".into()));
                }
                for name in &self.algorithms {
                    let known = ["HS", "RS", "PS", "ES"]
                        .iter()
                        .any(|f| name.strip_prefix(f).is_some_and(|n| matches!(n, "256" | "384" | "512")));
                    if !known || name == "ES512" {
                        return Err((
                            "algorithms",
                            format!(
                                "'{}' is not known: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384",
                                name.escape_debug()
                            ),
                        ));
                    }
                }
                let family =
                    |name: &String| if name.starts_with("PS") { "RS".to_owned() } else { name[..2].to_owned() };
                if self.key.is_some() && self.algorithms.iter().any(|a| family(a) != family(&self.algorithms[0])) {
                    return Err(("algorithms", "one key can't be for algorithms of several kinds".into()));
                }
                if self.issuer.is_none() {
                    return Err(("issuer", "name whose tokens are taken ('iss')".into()));
                }
                if self.audience.is_none() {
                    return Err((
                        "audience",
                        "name for whom the tokens are made ('aud'), so that those for others are not taken".into(),
                    ));
                }
            }
        }
        Ok(())
    }
}
