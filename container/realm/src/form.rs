//! The guard of an application with a login page (FORM, Servlet 6.1, section 13.6.3). The session keeps who has signed in, and the
//! request that the sign-in interrupted.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, HeaderValue, SET_COOKIE};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};
use wharf_kernel::guard::{Answering, Asking, Denied, Guard, Passed, SavedRequest, Verdict};
use wharf_kernel::options::SessionStore;
use wharf_kernel::session::{Refused, Session, SessionManager, Tracking, requested};
use wharf_kernel::{Authenticated, Body};

use crate::denied::{detail, not_known, see_other};
use crate::password_realm::Outcome;
use crate::passwords::Passwords;
use crate::rules::{Rules, Ruling, may};
use crate::sign_on::{self, Key, SignOns};

/// Where the form is sent.
const ACTION: &str = "/j_security_check";
/// The most content that is kept of a request that a sign-in interrupts, and the most that a form may have, in bytes.
const MAX_CONTENT: usize = 4096;
/// How long a session that was begun for a sign-in waits for it.
const PATIENCE: Duration = Duration::from_secs(300);
/// The note with who has signed in.
const USER: &str = "user";
/// The note with the interrupted request.
const SAVED: &str = "saved";
/// The note of a session that was begun for a sign-in.
const WAITING: &str = "waiting";

/// The guard of one application.
pub(crate) struct FormGuard(pub(crate) Arc<Form>);

/// What it knows.
pub(crate) struct Form {
    pub(crate) rules: Rules,
    pub(crate) realm: String,
    pub(crate) passwords: Passwords,
    pub(crate) sessions: Arc<dyn SessionManager>,
    /// Whether the endpoint writes the session after the request. Those without servlets do not.
    pub(crate) endpoint_saves: bool,
    pub(crate) version: String,
    pub(crate) context: String,
    pub(crate) login_page: String,
    pub(crate) error_page: String,
    pub(crate) logout: Option<String>,
    /// Where a sign-in is one for all applications of the host.
    pub(crate) sign_ons: Option<Arc<SignOns>>,
    pub(crate) host: String,
}

/// Who has signed in, as a session keeps it.
#[derive(Serialize, Deserialize)]
struct Principal {
    realm: String,
    user: String,
    roles: String,
    /// The sign-on with which it ends.
    sign_on: Option<Key>,
}

/// The interrupted request, as a session keeps it.
#[derive(Serialize, Deserialize)]
struct Saved {
    target: String,
    method: String,
    content_type: Option<String>,
    content: String,
}

/// What is needed of a request when its time has come.
struct Ask {
    method: Method,
    path: String,
    target: String,
    content_type: Option<HeaderValue>,
    /// Whether the client wants to see what it asks for: what a page loads by itself is not where a sign-in should lead.
    navigates: bool,
    ids: Vec<String>,
    tracking: Tracking,
    sign_on: Option<Key>,
    address: Option<IpAddr>,
    secure: bool,
}

impl Guard for FormGuard {
    fn check(&self, asking: &Asking<'_>) -> Verdict {
        if let Ruling::Refused(denied) = self.0.rules.of(asking) {
            return Verdict::Refuse(denied);
        }
        let mut settling = Box::pin(self.0.clone().settle(self.0.ask(asking)));
        // With sessions in memory there is nothing to wait for.
        match settling.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(verdict) => verdict,
            Poll::Pending => Verdict::Later(settling),
        }
    }
}

impl Form {
    fn ask(&self, asking: &Asking<'_>) -> Ask {
        let header = |name: &str| asking.headers.get(name).map(HeaderValue::as_bytes);
        let (ids, tracking) = requested(asking.headers, asking.uri.path(), &self.sessions.settings());
        Ask {
            method: asking.method.clone(),
            path: asking.path.to_owned(),
            target: asking.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
            content_type: asking.headers.get(CONTENT_TYPE).cloned(),
            navigates: header("sec-fetch-mode").is_none_or(|mode| mode == b"navigate"),
            ids: ids.into_iter().map(str::to_owned).collect(),
            tracking,
            sign_on: self.sign_ons.as_ref().and_then(|_| sign_on::requested(asking.headers)),
            address: asking.connection.remote.map(|remote| remote.ip()),
            secure: asking.connection.secure,
        }
    }

    async fn settle(self: Arc<Self>, ask: Ask) -> Verdict {
        let session = match self.sessions.open(ask.ids.clone(), false, &self.version).await {
            Ok(session) => session,
            Err(error) => return Verdict::Refuse(refused(&error)),
        };
        if self.logout.as_ref() == Some(&ask.path) {
            return Verdict::Refuse(self.sign_out(&ask, session).await);
        }
        if ask.method == Method::POST && ask.path.ends_with(ACTION) {
            return take(move |body| async move { self.sign_in(&ask, session, body).await });
        }
        let user = session.as_ref().and_then(|session| self.user_of(session));
        let user = user.or_else(|| self.signed_on(ask.sign_on.as_ref()?));
        let saved = session.as_ref().filter(|_| user.is_some()).and_then(|session| restorable(session, &ask));
        let method = saved.as_ref().map_or(&ask.method, |saved| &saved.method);
        let is_page = [&self.login_page, &self.error_page].iter().any(|page| path_of(page) == ask.path);
        match self.rules.of_method(method, &ask.path, ask.secure) {
            Ruling::Refused(denied) => return Verdict::Refuse(denied),
            Ruling::Users(access) if !is_page => match &user {
                Some(user) if may(user, access) => {}
                Some(_) => return Verdict::Refuse(Denied::new(StatusCode::FORBIDDEN)),
                None => {
                    return take(move |body| async move { self.begin(&ask, session, body).await });
                }
            },
            Ruling::Open | Ruling::Users(_) => {}
        }
        if let (Some(session), Some(_)) = (&session, &saved) {
            // Once: a second look at the page is a GET.
            let _ = session.set_note(SAVED, None);
        }
        if let Some(session) = session.as_ref().filter(|_| !self.endpoint_saves)
            && self.sessions.settings().store != SessionStore::Memory
        {
            self.sessions.save(session).await;
        }
        Verdict::Pass(Passed {
            user,
            session: session.map(|session| (session, ask.tracking)),
            saved: saved.map(Box::new),
        })
    }

    /// Who has signed in to this realm.
    fn user_of(&self, session: &Session) -> Option<Authenticated> {
        let principal = principal(session)?;
        let user = || Authenticated::new(&principal.user, "FORM", principal.roles.split('\n'));
        let goes_on = principal.sign_on.as_ref().is_none_or(|key| self.signed_on(key).is_some());
        (principal.realm == self.realm && goes_on).then(user)
    }

    /// Whose sign-on this is.
    fn signed_on(&self, key: &Key) -> Option<Authenticated> {
        self.sign_ons.as_ref()?.find(key, &self.host, Instant::now())
    }

    /// Keeps the request, and leads to the login page.
    async fn begin(&self, ask: &Ask, session: Option<Arc<Session>>, body: Body) -> Result<Denied, Denied> {
        let is_new = session.is_none();
        let session = match session {
            Some(session) => session,
            None => {
                let session = self.new_session().await?;
                session.set_max_inactive(Some(PATIENCE));
                session.set_note(WAITING, Some("")).map_err(|e| refused(&e))?;
                session
            }
        };
        if ask.navigates || session.note(SAVED).is_none() {
            let saved = serde_json::to_string(&saved(ask, body).await).unwrap_or_default();
            session.set_note(SAVED, Some(&saved)).map_err(|e| refused(&e))?;
        }
        self.sessions.save(&session).await;
        let denied = self.lead_to(&self.login_page);
        Ok(if is_new { self.with_cookie(denied, Some(&session.id()), ask) } else { denied })
    }

    /// Takes the form.
    async fn sign_in(&self, ask: &Ask, session: Option<Arc<Session>>, body: Body) -> Result<Denied, Denied> {
        let (user, password) = credentials(ask, body).await?;
        let outcome = self.passwords.clone().verify(user, password.into_bytes(), ask.address).await;
        let Outcome::User(user) = outcome else {
            return Err(not_known(&outcome, || self.lead_to(&self.error_page)));
        };
        let session = match session.filter(|session| session.is_valid()) {
            Some(session) => {
                // Whoever knew the id before must not be signed in with it.
                self.sessions.rotate(&session).map_err(|e| refused(&e))?;
                session
            }
            None => self.new_session().await?,
        };
        if session.note(WAITING).is_some() {
            session.set_max_inactive(Some(self.sessions.settings().timeout).filter(|time| !time.is_zero()));
            session.set_note(WAITING, None).map_err(|e| refused(&e))?;
        }
        let user = Authenticated { scheme: "FORM".into(), ..user };
        let sign_on = self.sign_ons.as_ref().map(|all| all.begin(&user, &self.host, ask.secure, Instant::now()));
        let sign_on = sign_on.transpose().map_err(|what| refused(&Refused::Unavailable(what)))?;
        let (sign_on, cookie) = sign_on.unzip();
        let principal = Principal {
            realm: self.realm.clone(),
            user: user.user.to_string(),
            roles: user.roles.to_string(),
            sign_on,
        };
        let principal = serde_json::to_string(&principal).unwrap_or_default();
        session.set_note(USER, Some(&principal)).map_err(|e| refused(&e))?;
        let saved = session.note(SAVED).and_then(|text| serde_json::from_str::<Saved>(&text).ok());
        if saved.as_ref().is_some_and(|saved| saved.method == "GET") {
            session.set_note(SAVED, None).map_err(|e| refused(&e))?;
        }
        self.sessions.save(&session).await;
        let denied = saved.map_or_else(|| self.lead_to("/"), |saved| see_other(&saved.target));
        let mut denied = self.with_cookie(denied, Some(&session.id()), ask);
        denied.headers.extend(cookie.and_then(|text| text.parse().ok()).map(|cookie| (SET_COOKIE, cookie)));
        Ok(denied)
    }

    async fn sign_out(&self, ask: &Ask, session: Option<Arc<Session>>) -> Denied {
        let denied = self.lead_to("/");
        if let Some(all) = &self.sign_ons {
            let noted = session.as_ref().and_then(|session| principal(session)?.sign_on);
            ask.sign_on.iter().chain(&noted).for_each(|key| all.end(key));
        }
        let Some(session) = session else { return denied };
        self.sessions.invalidate(&session);
        self.sessions.save(&session).await;
        self.with_cookie(denied, None, ask)
    }

    async fn new_session(&self) -> Result<Arc<Session>, Denied> {
        let begun = self.sessions.open(Vec::new(), true, &self.version).await.map_err(|e| refused(&e))?;
        begun.ok_or_else(|| Denied::new(StatusCode::SERVICE_UNAVAILABLE))
    }

    /// A path in the application.
    fn lead_to(&self, path: &str) -> Denied {
        see_other(&format!("{}{path}", self.context))
    }

    fn with_cookie(&self, denied: Denied, id: Option<&str>, ask: &Ask) -> Denied {
        let cookie = self.sessions.settings().set_cookie(id, &self.context, ask.secure);
        match HeaderValue::from_str(&cookie) {
            Ok(cookie) => denied.with(SET_COOKIE, cookie),
            Err(_) => denied,
        }
    }
}

/// The guard answers itself.
fn take<F>(answer: impl FnOnce(Body) -> F + Send + 'static) -> Verdict
where
    F: Future<Output = Result<Denied, Denied>> + Send + 'static,
{
    Verdict::Take(Box::new(|body| -> Answering {
        let answer = answer(body);
        Box::pin(async move { answer.await.unwrap_or_else(|denied| denied) })
    }))
}

fn principal(session: &Session) -> Option<Principal> {
    serde_json::from_str(&session.note(USER)?).ok()
}

/// A page without its query.
fn path_of(page: &str) -> &str {
    page.split('?').next().unwrap_or_default()
}

fn refused(error: &Refused) -> Denied {
    tracing::warn!("a sign-in has no session: {error}");
    detail(StatusCode::from_u16(error.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE), "There is no session.")
}

/// The request to be made again. One with more content than is kept becomes a GET, as what can't be asked again does.
async fn saved(ask: &Ask, body: Body) -> Saved {
    let mut saved = Saved {
        target: ask.target.clone(),
        method: Method::GET.to_string(),
        content_type: None,
        content: String::new(),
    };
    if matches!(ask.method, Method::GET | Method::HEAD) {
        return saved;
    }
    if let Ok(content) = Limited::new(body, MAX_CONTENT).collect().await {
        saved.method = ask.method.to_string();
        saved.content_type = ask.content_type.as_ref().and_then(|value| value.to_str().ok()).map(str::to_owned);
        saved.content = STANDARD.encode(content.to_bytes());
    }
    saved
}

/// The request that was interrupted, where this is the one that the sign-in led to.
fn restorable(session: &Session, ask: &Ask) -> Option<SavedRequest> {
    let saved: Saved = serde_json::from_str(&session.note(SAVED)?).ok()?;
    if ask.method != Method::GET || saved.target != ask.target {
        return None;
    }
    Some(SavedRequest {
        method: saved.method.parse().ok()?,
        content_type: saved.content_type.and_then(|value| HeaderValue::from_str(&value).ok()),
        content: STANDARD.decode(saved.content).ok()?.into(),
    })
}

/// The fields of the form.
async fn credentials(ask: &Ask, body: Body) -> Result<(String, String), Denied> {
    let media_type = ask.content_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(detail(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The form must be sent as form-urlencoded."));
    }
    let content = Limited::new(body, MAX_CONTENT).collect().await;
    let content = content.map_err(|_| Denied::new(StatusCode::PAYLOAD_TOO_LARGE))?.to_bytes();
    let field = |wanted: &str| {
        let mut fields = form_urlencoded::parse(&content).filter(|(name, _)| name == wanted);
        fields.next().map(|(_, value)| value.into_owned()).filter(|_| fields.next().is_none())
    };
    match (field("j_username"), field("j_password")) {
        (Some(user), Some(password)) if !user.contains(char::is_control) => Ok((user, password)),
        _ => Err(detail(StatusCode::BAD_REQUEST, "The form must have j_username and j_password, each once.")),
    }
}
