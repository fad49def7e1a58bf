//! The guard of an application whose clients say who they are with each request: constraints first, then who the client is,
//! then whether it may (Servlet 6.1, section 13.8.3).

use std::collections::BTreeSet;
use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::AUTHORIZATION;
use wharf_kernel::Authenticated;
use wharf_kernel::guard::{Asking, Denied, Guard, Sign, Signing, Verdict};
use wharf_kernel::session::Session;

use crate::certificate_realm::CertificateRealm;
use crate::constraints::Access;
use crate::denied::{challenge, detail, no_passwords, not_known, unavailable, wrong_password};
use crate::jwt_realm::{JwtRealm, Token};
use crate::password_realm::Outcome;
use crate::passwords::Passwords;
use crate::rules::{Rules, Ruling, may};

/// How a client says who it is, with the name of the realm.
pub(crate) enum Login {
    Basic(String, Passwords),
    Bearer(String, Arc<JwtRealm>),
    Certificate(Arc<CertificateRealm>),
}

/// The guard of one application.
pub(crate) struct AccessGuard {
    pub(crate) rules: Rules,
    pub(crate) login: Option<Login>,
}

impl Guard for AccessGuard {
    fn check(&self, asking: &Asking<'_>) -> Verdict {
        match self.rules.of(asking) {
            Ruling::Open => Verdict::Pass(None.into()),
            Ruling::Refused(denied) => Verdict::Refuse(denied),
            Ruling::Users(access) => self.authenticate(asking, access),
        }
    }

    fn sign(&self, asking: &Asking<'_>, _: Option<Arc<Session>>, sign: Sign) -> Signing {
        match sign {
            Sign::In { user, password } => {
                let passwords = match &self.login {
                    Some(Login::Basic(_, passwords)) => Some(passwords.clone()),
                    _ => None,
                };
                let address = asking.connection.remote.map(|remote| remote.ip());
                Box::pin(async move { Self::sign_in(passwords, user, password, address).await.into() })
            }
            Sign::Out => Box::pin(ready(Ok(None).into())),
            Sign::Ask => {
                let every_user = Access::Users { roles: BTreeSet::new(), any: true };
                let verdict = self.authenticate(asking, &every_user);
                Box::pin(async move {
                    let verdict = match verdict {
                        Verdict::Later(later) => later.await,
                        verdict => verdict,
                    };
                    match verdict {
                        Verdict::Pass(passed) => Ok(passed.user).into(),
                        Verdict::Refuse(denied) => Err(denied).into(),
                        // What a client shows with its request is known now, and needs no content.
                        Verdict::Later(_) | Verdict::Take(_) => Err(Denied::new(StatusCode::FORBIDDEN)).into(),
                    }
                })
            }
        }
    }
}

impl AccessGuard {
    /// Signs somebody in for one request: what clients show with each one is not replaced by it.
    async fn sign_in(
        passwords: Option<Passwords>,
        user: String,
        password: String,
        address: Option<IpAddr>,
    ) -> Result<Option<Authenticated>, Denied> {
        let passwords = passwords.ok_or_else(no_passwords)?;
        match passwords.verify(user, password.into_bytes(), address).await {
            Outcome::User(user) => Ok(Some(user)),
            other => Err(not_known(&other, wrong_password)),
        }
    }

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
                    return Verdict::Refuse(basic_challenge(name));
                };
                if let Some(outcome) = realm.known(&user, &password) {
                    return settle(outcome, access, name);
                }
                let outcome = realm.clone().verify(user, password, asking.connection.remote.map(|r| r.ip()));
                let (access, name) = (access.clone(), name.clone());
                Verdict::Later(Box::pin(async move { settle(outcome.await, &access, &name) }))
            }
            Some(Login::Bearer(name, realm)) => {
                let credentials = credentials.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer"));
                let Some(token) = credentials.and_then(|(_, token)| std::str::from_utf8(token).ok()) else {
                    return Verdict::Refuse(bearer(StatusCode::UNAUTHORIZED, name, ""));
                };
                match realm.verify(token) {
                    Token::User(user) if may(&user, access) => Verdict::Pass(Some(user).into()),
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
            Some(Login::Certificate(realm)) => {
                let certificate = asking.connection.tls.as_ref().and_then(|tls| tls.client_certificate_der.as_ref());
                let Some(certificate) = certificate else {
                    return Verdict::Refuse(detail(
                        StatusCode::UNAUTHORIZED,
                        "This is to be had with a client's certificate alone.",
                    ));
                };
                match realm.verify(certificate) {
                    Outcome::User(user) if may(&user, access) => Verdict::Pass(Some(user).into()),
                    Outcome::User(_) | Outcome::Wrong => Verdict::Refuse(Denied::new(StatusCode::FORBIDDEN)),
                    other => Verdict::Refuse(not_known(&other, unavailable)),
                }
            }
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

/// From what the realm says to what becomes of the request.
fn settle(outcome: Outcome, access: &Access, realm: &str) -> Verdict {
    match outcome {
        Outcome::User(user) if may(&user, access) => Verdict::Pass(Some(user).into()),
        Outcome::User(_) => Verdict::Refuse(Denied::new(StatusCode::FORBIDDEN)),
        other => Verdict::Refuse(not_known(&other, || basic_challenge(realm))),
    }
}

fn basic_challenge(realm: &str) -> Denied {
    challenge(StatusCode::UNAUTHORIZED, "Basic", realm, ", charset=\"UTF-8\"")
}

fn bearer(status: StatusCode, realm: &str, error: &str) -> Denied {
    challenge(status, "Bearer", realm, error)
}
