//! `[realm.NAME]`: where users and their roles come from.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[realm.NAME]`: users and their roles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Realm {
    /// `file`: names and passwords. `sql`: the same in a database. `jwt`: tokens that somebody else signs. `certificate`: certificates
    /// of clients. `combined`: other realms with passwords, asked in turn. `oidc`: an OpenID provider, at which users sign in.
    pub kind: RealmKind,
    /// `file`: the users file, made by `wharf passwd`. `certificate`: who may sign in, a line `NAME:role,role` each; without it,
    /// whoever has a certificate that the connector trusts, with no roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// `sql`: name of the resource with the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// `sql`: gives the argon2id hash of a user's password, in the PHC string format; `?` is the name. As `"select hash from users
    /// where name = ?"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_query: Option<String>,
    /// `sql`: gives a user's roles, one a row; `?` is the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_query: Option<String>,
    /// `file`, `sql`: how long a password that was right is not computed again. Zero: always. Default `"30s"`.
    #[serde(default = "cache", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub cache: Duration,
    /// Realms with passwords or a provider: who has signed in by a login page (`FORM`, `OIDC`) is signed in to every application of the host with the same
    /// realm, for so long without a request. Default: each application has its own sign-in.
    #[serde(default, with = "humantime_serde::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub single_sign_on: Option<Duration>,
    /// `file`, `sql`: what brings guessing to an end.
    #[serde(default)]
    pub lockout: Lockout,
    /// `jwt`, `oidc`: the algorithms that are taken: `RS256`, `ES256` and the like, with `jwt` `HS256` too. Default of `oidc`: `RS256`,
    /// `ES256`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub algorithms: Vec<String>,
    /// `jwt`: file with the key: a public key or certificate in PEM, or the secret of HS256 and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// `jwt`: file with a JSON Web Key Set (RFC 7517), instead of `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<PathBuf>,
    /// `jwt`: the issuer (`iss`) that a token must name. `oidc`: the provider, an `https` URL below which
    /// `/.well-known/openid-configuration` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// `jwt`: the audience (`aud`) that a token must name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// `jwt`, `oidc`: how far clocks may be apart. Default `"30s"`.
    #[serde(default = "cache", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub leeway: Duration,
    /// `jwt`, `oidc`: the claim with the user's name. Default `sub`.
    #[serde(default = "sub")]
    pub user_claim: String,
    /// `jwt`, `oidc`: the claim with the roles, a list or words in a text; dots lead into objects. Default `roles`.
    #[serde(default = "roles")]
    pub roles_claim: String,
    /// `oidc`: what the provider knows the container as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// `oidc`: the secret that goes with it, best as `"${env:NAME}"` or `"${file:PATH}"`. Without one the client is a public one.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "super::resource::secret")]
    pub client_secret: Option<String>,
    /// `oidc`: the scopes that are asked for. Default `["openid", "profile"]`.
    #[serde(default = "scopes", skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// `oidc`: file with the certificates (PEM) of authorities that are believed, beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// `certificate`: what of the certificate is the user's name. Default `common-name`.
    #[serde(default)]
    pub certificate_name: CertificateName,
    /// `combined`: names of realms with passwords, in the order in which they are asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub realms: Vec<String>,
}

/// What of a certificate is its user's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateName {
    /// The one common name of the subject.
    #[default]
    CommonName,
    /// The whole subject, as in `C=DE, CN=ann`.
    Subject,
    /// The one e-mail address among the alternative names of the subject.
    Email,
}

/// The kinds of realms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RealmKind {
    /// A users file.
    File,
    /// A database.
    Sql,
    /// JSON Web Tokens (RFC 7519).
    Jwt,
    /// Certificates of clients (RFC 5280).
    Certificate,
    /// Other realms.
    Combined,
    /// An OpenID provider (OpenID Connect Core 1.0).
    Oidc,
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
    /// Name of a resource of kind `cache` in which several containers count together. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<String>,
}

impl Default for Lockout {
    fn default() -> Self {
        Self { failures: 5, address_failures: 50, user_failures: 100, time: Duration::from_secs(300), shared: None }
    }
}

fn cache() -> Duration {
    Duration::from_secs(30)
}

fn sub() -> String {
    "sub".into()
}

fn scopes() -> Vec<String> {
    vec!["openid".into(), "profile".into()]
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
        let of_sql = [
            ("resource", self.resource.is_some()),
            ("user_query", self.user_query.is_some()),
            ("role_query", self.role_query.is_some()),
        ];
        for (key, given) in of_sql {
            match (self.kind, given) {
                (RealmKind::Sql, false) => return Err((key, "is needed with kind = \"sql\"".into())),
                (kind, true) if kind != RealmKind::Sql => return Err((key, "is for kind = \"sql\"".into())),
                _ => {}
            }
        }
        if self.realms.is_empty() == (self.kind == RealmKind::Combined) {
            return Err((
                "realms",
                "is for kind = \"combined\", which needs it: realms = [\"staff\", \"guests\"]".into(),
            ));
        }
        if self.single_sign_on.is_some() && matches!(self.kind, RealmKind::Jwt | RealmKind::Certificate) {
            return Err(("single_sign_on", "is for realms with passwords, and for kind = \"oidc\"".into()));
        }
        let of_oidc = [
            ("client_id", self.client_id.is_some()),
            ("client_secret", self.client_secret.is_some()),
            ("ca", self.ca.is_some()),
        ];
        if let Some((key, _)) = of_oidc.iter().find(|(_, given)| *given && self.kind != RealmKind::Oidc) {
            return Err((key, "is for kind = \"oidc\"".into()));
        }
        match self.kind {
            RealmKind::Oidc => self.check_oidc()?,
            RealmKind::File | RealmKind::Sql | RealmKind::Certificate | RealmKind::Combined => {
                if matches!(self.kind, RealmKind::Sql | RealmKind::Combined) && self.file.is_some() {
                    return Err(("file", "is for kind = \"file\"".into()));
                }
                if self.kind == RealmKind::File && self.file.is_none() {
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
                self.check_algorithms(&["HS", "RS", "PS", "ES"])?;
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

    fn check_algorithms(&self, families: &[&str]) -> Result<(), (&'static str, String)> {
        let sizes = ["256", "384", "512"];
        let all = families.iter().flat_map(|family| sizes.map(|size| format!("{family}{size}")));
        let known: Vec<String> = all.filter(|name| name != "ES512").collect();
        match self.algorithms.iter().find(|name| !known.contains(name)) {
            Some(name) => Err(("algorithms", format!("'{}' is not known: {}", name.escape_debug(), known.join(", ")))),
            None => Ok(()),
        }
    }

    fn check_oidc(&self) -> Result<(), (&'static str, String)> {
        for (key, given) in [
            ("file", self.file.is_some()),
            ("key", self.key.is_some()),
            ("jwks", self.jwks.is_some()),
            ("audience", self.audience.is_some()),
        ] {
            if given {
                return Err((key, "is not for kind = \"oidc\": the provider says it itself".into()));
            }
        }
        let issuer = self.issuer.as_deref().unwrap_or_default();
        let near = ["http://127.0.0.1", "http://[::1]", "http://localhost"];
        if !issuer.starts_with("https://") && !near.iter().any(|near| issuer.starts_with(near)) {
            return Err(("issuer", "name the provider: issuer = \"https://accounts.example.com\"".into()));
        }
        if self.client_id.as_deref().unwrap_or_default().is_empty() {
            return Err(("client_id", "is needed with kind = \"oidc\"".into()));
        }
        if !self.scopes.iter().any(|scope| scope == "openid") {
            return Err(("scopes", "must have \"openid\"".into()));
        }
        self.check_algorithms(&["RS", "PS", "ES"])
    }
}
