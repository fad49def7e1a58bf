//! Who may do what with the admin API.

use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use wharf_kernel::Connection;
use wharf_kernel::guard::{Asking, Denied, Guard, Verdict};
use wharf_kernel::settings::{AdminRole, AdminToken};

use crate::Problem;
use crate::audit::{Audit, Entry};
use crate::peer::Peer;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Lets in who may, and writes down what they change.
pub struct Door {
    tokens: Vec<AdminToken>,
    realm: Option<Arc<dyn Guard>>,
    audit: Audit,
}

/// Who asks, and what they may.
struct Who {
    name: String,
    role: AdminRole,
}

impl Door {
    /// The door for these tokens and the users that `realm` knows; the users' roles are names of [`AdminRole`].
    ///
    /// # Errors
    /// When the audit log can't be written; the message names it.
    pub fn new(tokens: Vec<AdminToken>, realm: Option<Arc<dyn Guard>>, audit_log: &Path) -> io::Result<Self> {
        Ok(Self { tokens, realm, audit: Audit::open(audit_log)? })
    }

    /// Who asks.
    async fn who(&self, peer: Peer, request: &Parts) -> Result<Who, Response> {
        let address = match peer {
            // The socket is the owner's alone.
            Peer::Socket(uid) => {
                let name = uid.map_or_else(|| "uid unknown".to_owned(), |uid| format!("uid {uid}"));
                return Ok(Who { name, role: AdminRole::Admin });
            }
            Peer::Tcp(address) => address,
        };
        // A browser that has been given a password would send it along for any page that asks.
        let site = request.headers.get(FETCH_SITE);
        let foreign = site.is_some_and(|site| site != "same-origin" && site != "none");
        if foreign || request.headers.contains_key(ORIGIN) {
            return Err(problem(StatusCode::FORBIDDEN, "the admin API does not answer pages of other sites"));
        }
        let scheme = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let scheme = scheme.and_then(|value| value.split_once(' '));
        if let Some((_, token)) = scheme.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
            return self.token(token.trim()).ok_or_else(|| {
                unauthorized(
                    "the token is not one of [[admin.token]]",
                    "Bearer realm=\"wharf\", error=\"invalid_token\"",
                )
            });
        }
        let Some(realm) = &self.realm else {
            return Err(unauthorized("show a token: Authorization: Bearer TOKEN", "Bearer realm=\"wharf\""));
        };
        let authority = request.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
        let verdict = realm.check(&Asking {
            method: &request.method,
            path: request.uri.path(),
            uri: &request.uri,
            headers: &request.headers,
            authority: &authority,
            connection: &Connection::new(Some(address), None, false),
        });
        let verdict = match verdict {
            Verdict::Later(later) => later.await,
            verdict => verdict,
        };
        let user = match verdict {
            Verdict::Pass(passed) => passed.user,
            Verdict::Refuse(denied) => return Err(refused(denied)),
            // A guard of passwords asks no more, and takes no content.
            Verdict::Later(_) | Verdict::Take(_) => None,
        };
        let who = user.and_then(|user| {
            let role = AdminRole::ALL.into_iter().find(|role| user.has_role(role.as_str()))?;
            Some(Who { name: user.user.to_string(), role })
        });
        who.ok_or_else(|| problem(StatusCode::FORBIDDEN, "the user has none of the roles viewer, deployer and admin"))
    }

    fn token(&self, token: &str) -> Option<Who> {
        let digest: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
        let found = self.tokens.iter().find(|known| known.sha256.eq_ignore_ascii_case(&digest))?;
        Some(Who { name: found.name.clone(), role: found.role })
    }
}

/// The middleware.
pub(crate) async fn admit(
    State(door): State<Arc<Door>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    // Probes have no credentials, and learn one word.
    if matches!(request.uri().path(), "/livez" | "/readyz") {
        return next.run(request).await;
    }
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    let entry = Entry {
        time: String::new(),
        user: None,
        role: None,
        from: match peer {
            Peer::Socket(_) => "socket".to_owned(),
            Peer::Tcp(address) => address.to_string(),
        },
        method: request.method().to_string(),
        target: request.uri().to_string(),
        status: 0,
    };
    let (parts, body) = request.into_parts();
    let (response, entry) = match door.who(peer, &parts).await {
        Err(response) => (response, entry),
        Ok(who) => {
            let needed = needed(&parts.method, parts.uri.path());
            let response = if who.role < needed {
                let what = format!(
                    "this needs the role '{}', and '{}' has '{}'",
                    needed.as_str(),
                    who.name,
                    who.role.as_str()
                );
                problem(StatusCode::FORBIDDEN, what)
            } else {
                next.run(Request::from_parts(parts, body)).await
            };
            (response, Entry { user: Some(who.name), role: Some(who.role.as_str()), ..entry })
        }
    };
    let status = response.status();
    if !looks || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        door.audit.write(Entry { time: Entry::now(), status: status.as_u16(), ..entry }).await;
    }
    response
}

/// The least role for a request.
fn needed(method: &Method, path: &str) -> AdminRole {
    match *method {
        Method::GET | Method::HEAD => AdminRole::Viewer,
        _ if path.starts_with("/v1/apps") => AdminRole::Deployer,
        _ => AdminRole::Admin,
    }
}

fn problem(status: StatusCode, detail: impl Into<String>) -> Response {
    Problem::new(status, detail).into_response()
}

fn unauthorized(detail: &str, challenge: &'static str) -> Response {
    let mut response = problem(StatusCode::UNAUTHORIZED, detail);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

fn refused(denied: Denied) -> Response {
    let mut response = problem(denied.status, denied.detail);
    for (name, value) in denied.headers {
        response.headers_mut().append(name, value);
    }
    response
}
