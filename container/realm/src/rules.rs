//! What an application asks of a client before it is known who that is: the constraints, and the encrypted connection.

use http::header::{HeaderValue, LOCATION};
use http::{Method, StatusCode};
use wharf_kernel::Authenticated;
use wharf_kernel::guard::{Asking, Denied};

use crate::constraints::{Access, Constraints};
use crate::denied::detail;

/// The rules of one application.
pub(crate) struct Rules {
    pub(crate) constraints: Constraints,
    /// Where an encrypted connection would be made; `None` where plain requests are refused instead.
    pub(crate) https_port: Option<u16>,
}

/// What they ask.
pub(crate) enum Ruling<'a> {
    /// Nothing.
    Open,
    /// Too much.
    Refused(Denied),
    /// A user.
    Users(&'a Access),
}

impl Rules {
    /// What is asked for a request.
    pub(crate) fn of(&self, asking: &Asking<'_>) -> Ruling<'_> {
        match self.constraints.decide(asking.method.as_str(), asking.path) {
            Some(decision) if decision.confidential && !asking.connection.secure => {
                Ruling::Refused(self.to_https(asking))
            }
            Some(decision) => of_access(&decision.access),
            None => Ruling::Open,
        }
    }

    /// What is asked for another method on a path, over a connection that was good enough for the first.
    pub(crate) fn of_method(&self, method: &Method, path: &str, secure: bool) -> Ruling<'_> {
        match self.constraints.decide(method.as_str(), path) {
            Some(decision) if decision.confidential && !secure => Ruling::Refused(plain()),
            Some(decision) => of_access(&decision.access),
            None => Ruling::Open,
        }
    }

    /// Where the same is to be had over TLS, for a request that can be made again; else 403.
    fn to_https(&self, asking: &Asking<'_>) -> Denied {
        let again = matches!(*asking.method, Method::GET | Method::HEAD);
        let Some(port) = self.https_port.filter(|_| again) else { return plain() };
        let Ok(host) = wharf_mapping::parse_host(asking.authority) else { return plain() };
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        let target = asking.uri.path_and_query().map_or("/", |target| target.as_str());
        match HeaderValue::from_str(&format!("https://{}{port}{target}", host.host)) {
            Ok(location) => Denied::new(StatusCode::TEMPORARY_REDIRECT).with(LOCATION, location),
            Err(_) => plain(),
        }
    }
}

fn of_access(access: &Access) -> Ruling<'_> {
    match access {
        Access::Everybody => Ruling::Open,
        Access::Nobody => Ruling::Refused(Denied::new(StatusCode::FORBIDDEN)),
        Access::Users { .. } => Ruling::Users(access),
    }
}

fn plain() -> Denied {
    detail(StatusCode::FORBIDDEN, "This is to be had over an encrypted connection alone.")
}

/// Whether a user may pass.
pub(crate) fn may(user: &Authenticated, access: &Access) -> bool {
    match access {
        Access::Everybody => true,
        Access::Nobody => false,
        Access::Users { roles, any } => *any || roles.iter().any(|role| user.has_role(role)),
    }
}
