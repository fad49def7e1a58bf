//! `[login]` and `[[constraints]]`: who may reach which path of an application (Servlet 6.1, chapter 13).

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an application's TOML file says of its security.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SecurityOptions {
    /// `[login]`.
    pub login: Option<Login>,
    /// `[[constraints]]`.
    pub constraints: Vec<Constraint>,
    /// Roles there are, beside those that constraints name: `*` means all of them.
    pub roles: Vec<String>,
    /// Lets requests pass whose path a constraint names, but whose method none.
    pub allow_uncovered_methods: bool,
}

/// `[login]`: how a client says who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// `BASIC` (RFC 7617), `BEARER` (RFC 6750), `FORM` (Servlet 6.1, section 13.6.3), `CLIENT-CERT` (13.6.4) or `OIDC` (OpenID Connect
    /// Core 1.0: authorisation code with PKCE).
    pub method: LoginMethod,
    /// Name of the realm, a table `[realm.NAME]` of wharf.toml.
    pub realm: String,
    /// `FORM`: the page with the form, a path in the application. Its form sends `j_username` and `j_password` to
    /// `j_security_check` by POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_page: Option<String>,
    /// `FORM`: the page for those whose name or password was wrong. Default the login page, with `?error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_page: Option<String>,
    /// `OIDC`: the path in the application to which the provider sends users back; its whole URL must be registered there. Default
    /// `/oidc/callback`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
    /// `FORM`, `OIDC`: a request for this path in the application ends the session; the answer leads to the application's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logout: Option<String>,
}

/// How a client says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum LoginMethod {
    /// Name and password with every request.
    Basic,
    /// A signed token with every request.
    Bearer,
    /// A page of the application; the session keeps who has signed in.
    Form,
    /// The certificate of the client's connection.
    #[serde(rename = "CLIENT-CERT")]
    ClientCert,
    /// The page of an OpenID provider; the session keeps who has signed in.
    Oidc,
}

/// `[[constraints]]`: a rule for some paths (Servlet 6.1, section 13.8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Constraint {
    /// URL patterns, as those of servlets.
    pub patterns: Vec<String>,
    /// Methods that it is about. Default all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// It is about all methods but these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub method_omissions: Vec<String>,
    /// Roles that may pass: `*` for every role named in the file, `**` for every user. An empty list lets nobody pass; without
    /// the key nobody has to say who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<String>>,
    /// What the connection must be like. Default `NONE`.
    #[serde(default)]
    pub transport: Transport,
}

/// What a connection must be like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    /// Any.
    #[default]
    None,
    /// Encrypted.
    Confidential,
}

impl SecurityOptions {
    /// Whether there is anything to guard.
    pub fn is_empty(&self) -> bool {
        self.constraints.is_empty() && self.login.is_none()
    }

    /// The same with the constraints that the application itself declares. A pattern that the file names is the file's alone
    /// (Servlet 6.1, section 13.4.1).
    #[must_use]
    pub fn with_declared(&self, declared: &[Constraint]) -> Self {
        let named: BTreeSet<&String> = self.constraints.iter().flat_map(|c| &c.patterns).collect();
        let left = declared.iter().filter_map(|constraint| {
            let mut constraint = constraint.clone();
            constraint.patterns.retain(|pattern| !named.contains(pattern));
            (!constraint.patterns.is_empty()).then_some(constraint)
        });
        let constraints = self.constraints.iter().cloned().chain(left).collect();
        Self { constraints, ..self.clone() }
    }

    /// Looks at what can be wrong whatever realms there are. The error names the key.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        for (at, constraint) in self.constraints.iter().enumerate() {
            constraint.check().map_err(|what| format!("[[constraints]] number {}: {what}", at + 1))?;
            let mut named = constraint.roles.iter().flatten();
            if named.clone().any(|role| role == "*") && self.all_roles().next().is_none() {
                return Err(format!(
                    "[[constraints]] number {}: '*' is every role that this file names, and it names none; write \"**\" for every user",
                    at + 1
                ));
            }
            if self.login.is_none() && named.next().is_some() {
                return Err(format!(
                    "[[constraints]] number {} has roles, but there is no [login]: add [login] with method = \"BASIC\" and realm = \"NAME\"",
                    at + 1
                ));
            }
        }
        if let Some(login) = &self.login {
            login.check().map_err(|what| format!("[login] {what}"))?;
        }
        Ok(())
    }

    /// The roles that `*` stands for.
    pub fn all_roles(&self) -> impl Iterator<Item = &str> {
        let of_constraints = self.constraints.iter().filter_map(|c| c.roles.as_ref()).flatten();
        self.roles.iter().chain(of_constraints).map(String::as_str).filter(|role| !matches!(*role, "*" | "**"))
    }
}

impl Login {
    fn check(&self) -> Result<(), String> {
        let is_form = self.method == LoginMethod::Form;
        let is_oidc = self.method == LoginMethod::Oidc;
        let pages = [
            ("login_page", &self.login_page, is_form, "\"FORM\""),
            ("error_page", &self.error_page, is_form, "\"FORM\""),
            ("callback", &self.callback, is_oidc, "\"OIDC\""),
            ("logout", &self.logout, is_form || is_oidc, "\"FORM\" or \"OIDC\""),
        ];
        for (key, path, fits, method) in pages {
            let Some(path) = path else { continue };
            if !fits {
                return Err(format!("{key} is for method = {method}"));
            }
            // A page may have a query; what requests are compared with may not.
            let plain = if key.ends_with("_page") { path.split('?').next().unwrap_or_default() } else { path };
            let canonical = wharf_mapping::canonicalise(plain).ok();
            let is_path = canonical.is_some_and(|c| plain.starts_with('/') && c.encoded == plain && c.decoded == plain);
            if !is_path || plain.ends_with("/j_security_check") || http::HeaderValue::from_str(path).is_err() {
                return Err(format!(
                    "{key} = \"{}\" is no path in the application: write \"/login.html\"",
                    path.escape_debug()
                ));
            }
        }
        if is_form && self.login_page.is_none() {
            return Err("method = \"FORM\" needs the page with the form: login_page = \"/login.html\"".into());
        }
        Ok(())
    }
}

impl Constraint {
    fn check(&self) -> Result<(), String> {
        if self.patterns.is_empty() {
            return Err("patterns is empty: name at least one, as \"/*\"".into());
        }
        for pattern in &self.patterns {
            if let Err(wharf_mapping::MappingError::Malformed { reason, .. }) =
                wharf_mapping::ServletMap::new([(0, vec![pattern.clone()])])
            {
                return Err(format!("pattern '{}': {reason}", pattern.escape_debug()));
            }
        }
        if !self.methods.is_empty() && !self.method_omissions.is_empty() {
            return Err("it takes 'methods' or 'method_omissions', not both".into());
        }
        for method in self.methods.iter().chain(&self.method_omissions) {
            let is_method = http::Method::from_bytes(method.as_bytes()).is_ok();
            if !is_method || method.bytes().any(|b| b.is_ascii_lowercase()) {
                return Err(format!("'{}' is not a method: write \"GET\"", method.escape_debug()));
            }
        }
        for role in self.roles.iter().flatten() {
            if role.is_empty() || role.contains(char::is_control) {
                return Err(format!("'{}' is not a role", role.escape_debug()));
            }
        }
        Ok(())
    }
}
