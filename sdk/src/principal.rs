//! Who the client is (Servlet 6.1, section 13.3).

use wharf_abi::UserView;

/// An authenticated user: what the container found out before the application saw the request, by the application's `[login]` and
/// a realm of the container.
///
/// ```
/// use wharf_sdk::{Error, Request};
///
/// async fn orders(request: Request) -> Result<String, Error> {
///     let user = request.user_principal().ok_or_else(|| Error::forbidden("log in first"))?;
///     let all = if user.is_in_role("clerk") { "all orders" } else { "your orders" };
///     Ok(format!("{all}, {}", user.name()))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    name: String,
    auth_type: String,
    roles: Vec<String>,
}

impl Principal {
    pub(crate) fn new<R: Into<String>>(name: &str, auth_type: &str, roles: impl IntoIterator<Item = R>) -> Self {
        Self { name: name.into(), auth_type: auth_type.into(), roles: roles.into_iter().map(Into::into).collect() }
    }

    pub(crate) fn of(view: UserView<'_>) -> Self {
        Self::new(view.name, servlet_name(view.auth_type), view.roles.lines())
    }

    /// The user's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it was shown (`HttpServletRequest.getAuthType`): `BASIC`, `BEARER`, `CLIENT_CERT`.
    pub fn auth_type(&self) -> &str {
        &self.auth_type
    }

    /// The roles that the realm gives the user.
    pub fn roles(&self) -> impl ExactSizeIterator<Item = &str> {
        self.roles.iter().map(String::as_str)
    }

    /// Whether the user has this role. Every user has `**`, nobody has `*` (`isUserInRole` of Servlet 6.1, section 13.3).
    pub fn is_in_role(&self, role: &str) -> bool {
        has_role(self.roles(), role)
    }
}

/// The name that the Servlet specification has for a scheme of HTTP (section 13.3 and `HttpServletRequest.BASIC_AUTH`).
pub(crate) fn servlet_name(scheme: &str) -> &str {
    const NAMES: [&str; 3] = ["BASIC", "BEARER", "DIGEST"];
    NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(scheme)).unwrap_or(scheme)
}

pub(crate) fn has_role<'a>(mut roles: impl Iterator<Item = &'a str>, role: &str) -> bool {
    match role {
        "" | "*" => false,
        "**" => true,
        role => roles.any(|r| r == role),
    }
}
