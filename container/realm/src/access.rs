//! The guard of one application: constraints first, then who the client is, then whether it may (Servlet 6.1, section 13.8.3).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use wharf_kernel::Authenticated;
use wharf_kernel::guard::{Asking, Denied, Guard, Verdict};

use crate::constraints::{Access, Constraints};
use crate::file_realm::{Answer, FileRealm, Outcome};
use crate::jwt_realm::{JwtRealm, Token};

/// How a client says who it is, with the name of the realm.
pub(crate) enum Login {
    Basic(String, Arc<FileRealm>),
    Bearer(String, Arc<JwtRealm>),
}

/// The guard of one application.
pub(crate) struct AccessGuard {
    pub(crate) constraints: Constraints,
    pub(crate) login: Option<Login>,
    pub(crate) https_port: Option<u16>,
}

impl Guard for AccessGuard {
    fn check(&self, asking: &Asking<'_>) -> Verdict {
        let Some(decision) = self.constraints.decide(asking.method.as_str(), asking.path) else {
            return Verdict::Pass(None);
        };
        if decision.confidential && !asking.connection.secure {
            return Verdict::Refuse(self.to_https(asking));
        }
        match &decision.access {
            Access::Everybody => Verdict::Pass(None),
            Access::Nobody => Verdict::Refuse(Denied::new(StatusCode::FORBIDDEN)),
            Access::Users { .. } => self.authenticate(asking, &decision.access),
        }
    }
}

impl AccessGuard {
    fn authenticate(&self, asking: &Asking<'_>, access: &Access) -> Verdict {
        let mut fields = asking.headers.get_all(AUTHORIZATION).iter();
        let field = fields.next();
        if fields.next().is_some() {
            return Verdict::Refuse(detail(
                StatusCode::BAD_REQUEST,
                "The request has more than one Authorization header.",
            ));
        }
        let credentials = field.and_then(|value| value.as_bytes().scheme_and_rest());
        match &self.login {
            // The options are checked; should they say so all the same, nobody passes.
            None => Verdict::Refuse(Denied::new(StatusCode::FORBIDDEN)),
            Some(Login::Basic(name, realm)) => {
                let credentials = credentials.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"basic"));
                let Some((user, password)) = credentials.and_then(|(_, rest)| basic(rest)) else {
                    return Verdict::Refuse(challenge(name));
                };
                let address = asking.connection.remote.map(|remote| remote.ip());
                match realm.verify(&user, &password, address) {
                    Answer::Now(outcome) => match settle(outcome, access, name) {
                        Ok(user) => Verdict::Pass(Some(user)),
                        Err(denied) => Verdict::Refuse(denied),
                    },
                    Answer::Later(outcome) => {
                        let (access, name) = (access.clone(), name.clone());
                        Verdict::Later(Box::pin(async move {
                            // No answer is no leave to pass.
                            settle(outcome.await.unwrap_or(Outcome::Unavailable), &access, &name)
                        }))
                    }
                }
            }
            Some(Login::Bearer(name, realm)) => {
                let credentials = credentials.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer"));
                let Some(token) = credentials.and_then(|(_, token)| std::str::from_utf8(token).ok()) else {
                    return Verdict::Refuse(bearer(StatusCode::UNAUTHORIZED, name, ""));
                };
                match realm.verify(token) {
                    Token::User(user) if may(&user, access) => Verdict::Pass(Some(user)),
                    Token::User(_) => {
                        Verdict::Refuse(bearer(StatusCode::FORBIDDEN, name, ", error=\"insufficient_scope\""))
                    }
                    Token::Invalid(why) => {
                        let error = format!(", error=\"invalid_token\", error_description=\"{why}\"");
                        Verdict::Refuse(bearer(StatusCode::UNAUTHORIZED, name, &error))
                    }
                    Token::Unavailable => Verdict::Refuse(unavailable()),
                }
            }
        }
    }

    /// Where the same is to be had over TLS, for a request that can be made again; else 403.
    fn to_https(&self, asking: &Asking<'_>) -> Denied {
        let refused = || detail(StatusCode::FORBIDDEN, "This is to be had over an encrypted connection alone.");
        let again = matches!(*asking.method, Method::GET | Method::HEAD);
        let Some(port) = self.https_port.filter(|_| again) else { return refused() };
        let Ok(host) = wharf_mapping::parse_host(asking.authority) else { return refused() };
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        let target = asking.uri.path_and_query().map_or("/", |target| target.as_str());
        match HeaderValue::from_str(&format!("https://{}{port}{target}", host.host)) {
            Ok(location) => Denied::new(StatusCode::TEMPORARY_REDIRECT).with(LOCATION, location),
            Err(_) => refused(),
        }
    }
}

/// Takes a scheme and what follows it apart.
trait Credentials {
    fn scheme_and_rest(&self) -> Option<(&[u8], &[u8])>;
}

impl Credentials for [u8] {
    fn scheme_and_rest(&self) -> Option<(&[u8], &[u8])> {
        let space = self.iter().position(|b| *b == b' ')?;
        Some((&self[..space], self[space..].trim_ascii()))
    }
}

/// Name and password (RFC 7617, section 2), in UTF-8 and without control characters.
fn basic(encoded: &[u8]) -> Option<(String, Vec<u8>)> {
    let decoded = STANDARD.decode(encoded).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    let fit = !user.is_empty() && !text.contains(char::is_control);
    fit.then(|| (user.to_owned(), password.as_bytes().to_vec()))
}

/// From what the realm says to what the client hears.
fn settle(outcome: Outcome, access: &Access, realm: &str) -> Result<Authenticated, Denied> {
    match outcome {
        Outcome::User(user) if may(&user, access) => Ok(user),
        Outcome::User(_) => Err(Denied::new(StatusCode::FORBIDDEN)),
        Outcome::Wrong => Err(challenge(realm)),
        Outcome::Locked(left) => {
            let denied = detail(StatusCode::TOO_MANY_REQUESTS, "Too many wrong passwords. Try again later.");
            Err(denied.with(RETRY_AFTER, seconds(left)))
        }
        Outcome::Unavailable => Err(unavailable()),
    }
}

fn may(user: &Authenticated, access: &Access) -> bool {
    match access {
        Access::Everybody => true,
        Access::Nobody => false,
        Access::Users { roles, any } => *any || roles.iter().any(|role| user.has_role(role)),
    }
}

fn detail(status: StatusCode, text: &'static str) -> Denied {
    Denied { detail: Cow::Borrowed(text), ..Denied::new(status) }
}

fn challenge(realm: &str) -> Denied {
    let value = format!("Basic realm=\"{}\", charset=\"UTF-8\"", quoted(realm));
    Denied::new(StatusCode::UNAUTHORIZED).with(WWW_AUTHENTICATE, value_of(&value, "Basic"))
}

fn bearer(status: StatusCode, realm: &str, error: &str) -> Denied {
    let value = format!("Bearer realm=\"{}\"{error}", quoted(realm));
    Denied::new(status).with(WWW_AUTHENTICATE, value_of(&value, "Bearer"))
}

fn value_of(text: &str, scheme: &'static str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(scheme))
}

/// The inside of a quoted string (RFC 9110, section 5.6.4).
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn unavailable() -> Denied {
    detail(StatusCode::SERVICE_UNAVAILABLE, "Nobody can sign in at the moment.")
        .with(RETRY_AFTER, seconds(Duration::from_secs(5)))
}

fn seconds(time: Duration) -> HeaderValue {
    HeaderValue::from(time.as_secs() + 1)
}
