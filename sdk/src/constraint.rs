//! Who may reach which path of the application (Servlet 6.1, chapter 13).

use serde::Serialize;

use crate::pattern::IntoPatterns;

/// A security constraint: what a client must be to reach some paths (`@ServletSecurity`, `<security-constraint>`).
///
/// The container holds it, before the application sees the request. How clients show who they are is said where the application is
/// deployed: `[login]` in its TOML file. A constraint of that file takes the place of those here for each pattern that it names
/// (section 13.4.1); where several constraints fit a path, they are combined by the rules of section 13.8.1.
///
/// ```
/// use wharf_sdk::{App, Constraint, get};
///
/// let app = App::new()
///     .servlet("orders", "/orders/*", get(|_| async { "orders" }))
///     .constraint(Constraint::new("/orders/*").roles(["clerk", "admin"]).confidential())
///     .constraint(Constraint::new("/orders/internal/*").nobody());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[must_use]
pub struct Constraint {
    patterns: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    methods: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    method_omissions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<String>>,
    transport: &'static str,
}

impl Constraint {
    /// A constraint for these URL patterns and every method, which asks for nothing yet: everybody may pass.
    pub fn new(patterns: impl IntoPatterns) -> Self {
        Self {
            patterns: patterns.into_patterns(),
            methods: Vec::new(),
            method_omissions: Vec::new(),
            roles: None,
            transport: "NONE",
        }
    }

    /// It is about these methods alone. A method that no constraint of a path names is refused there, unless the TOML file says
    /// `deny_uncovered_methods = false`.
    pub fn methods(mut self, methods: impl IntoPatterns) -> Self {
        self.methods = methods.into_patterns();
        self
    }

    /// It is about all methods but these.
    pub fn method_omissions(mut self, methods: impl IntoPatterns) -> Self {
        self.method_omissions = methods.into_patterns();
        self
    }

    /// Users with one of these roles may pass: `*` is every role that a constraint names, `**` every user.
    pub fn roles(mut self, roles: impl IntoPatterns) -> Self {
        self.roles = Some(roles.into_patterns());
        self
    }

    /// Every user may pass who has shown who it is: the role `**`.
    pub fn every_user(self) -> Self {
        self.roles("**")
    }

    /// Nobody may pass: a constraint with an empty list of roles. Forwards and includes go there all the same.
    pub fn nobody(mut self) -> Self {
        self.roles = Some(Vec::new());
        self
    }

    /// Over an encrypted connection alone (`CONFIDENTIAL`).
    pub fn confidential(mut self) -> Self {
        self.transport = "CONFIDENTIAL";
        self
    }
}

/// As the container reads them.
pub(crate) fn to_json(constraints: &[Constraint]) -> String {
    if constraints.is_empty() { String::new() } else { serde_json::to_string(constraints).unwrap_or_default() }
}
