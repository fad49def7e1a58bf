//! The guard of an application whose users sign in on a page: its own (FORM, Servlet 6.1, section 13.6.3), or that of an OpenID
//! provider. The session keeps who has signed in, and the request that the sign-in interrupted.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, HeaderValue, SET_COOKIE};
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use wharf_kernel::guard::{Answering, Asking, Denied, Guard, Passed, Sign, Signed, Signing, Verdict};
use wharf_kernel::options::SessionStore;
use wharf_kernel::session::{Refused, Session, SessionManager, Tracking, requested};
use wharf_kernel::{Authenticated, Body};

use crate::denied::{detail, no_passwords, not_known, see_other, unavailable, wrong_password};
use crate::form::{ACTION, credentials};
use crate::oidc_realm::{Failure, OidcRealm, Pending};
use crate::password_realm::Outcome;
use crate::passwords::Passwords;
use crate::rules::{Rules, Ruling, may};
use crate::saved::{SAVED, Saved, restorable, saved};
use crate::sign_on::{self, Key, SignOns};

/// How long a session that was begun for a sign-in waits for it.
const PATIENCE: Duration = Duration::from_secs(300);
/// The note with who has signed in.
const USER: &str = "user";
/// The note with the sign-ins that are under way at the provider.
const PENDING: &str = "pending";
/// How many of them are kept, the newest first.
const MAX_PENDING: usize = 4;
/// The note of a session that was begun for a sign-in.
const WAITING: &str = "waiting";

/// The guard of one application.
pub(crate) struct SessionGuard(pub(crate) Arc<SignIn>);

/// What it knows.
pub(crate) struct SignIn {
    pub(crate) rules: Rules,
    pub(crate) realm: String,
    pub(crate) way: Way,
    pub(crate) sessions: Arc<dyn SessionManager>,
    /// Whether the endpoint writes the session after the request. Those without servlets do not.
    pub(crate) endpoint_saves: bool,
    pub(crate) version: String,
    pub(crate) context: String,
    pub(crate) logout: Option<String>,
    /// Where a sign-in is one for all applications of the host.
    pub(crate) sign_ons: Option<Arc<SignOns>>,
    pub(crate) host: String,
}

/// How users sign in.
pub(crate) enum Way {
    /// On a page of the application.
    Form { passwords: Passwords, login_page: String, error_page: String },
    /// At a provider, which sends them back to the path `callback`.
    Provider { realm: Arc<OidcRealm>, callback: String },
}

impl Way {
    /// The name of the method.
    fn scheme(&self) -> &'static str {
        match self {
            Self::Form { .. } => "FORM",
            Self::Provider { .. } => "OIDC",
        }
    }

    /// Whether everybody may see this page: else nobody could sign in.
    fn is_page(&self, path: &str) -> bool {
        match self {
            Self::Form { login_page, error_page, .. } => {
                [login_page, error_page].iter().any(|page| path_of(page) == path)
            }
            Self::Provider { .. } => false,
        }
    }
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

/// What is needed of a request when its time has come.
pub(crate) struct Ask {
    pub(crate) method: Method,
    path: String,
    pub(crate) target: String,
    pub(crate) content_type: Option<HeaderValue>,
    authority: String,
    /// Whether the client wants to see what it asks for: what a page loads by itself is not where a sign-in should lead.
    navigates: bool,
    ids: Vec<String>,
    tracking: Tracking,
    sign_on: Option<Key>,
    address: Option<IpAddr>,
    secure: bool,
}

impl Guard for SessionGuard {
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

    fn sign(&self, asking: &Asking<'_>, session: Option<Arc<Session>>, sign: Sign) -> Signing {
        let (this, ask) = (self.0.clone(), self.0.ask(asking));
        Box::pin(async move {
            match sign {
                Sign::In { user, password } => this.sign_in_by_application(&ask, session, user, password).await,
                Sign::Out => this.forget(&ask, session).await,
                Sign::Ask => this.who_is(&ask, session).await,
            }
        })
    }
}

impl SignIn {
    fn ask(&self, asking: &Asking<'_>) -> Ask {
        let header = |name: &str| asking.headers.get(name).map(HeaderValue::as_bytes);
        let (ids, tracking) = requested(asking.headers, asking.uri.path(), &self.sessions.settings());
        Ask {
            method: asking.method.clone(),
            path: asking.path.to_owned(),
            target: own_target(asking.uri.path_and_query().map_or("/", |target| target.as_str())),
            content_type: asking.headers.get(CONTENT_TYPE).cloned(),
            authority: asking.authority.to_owned(),
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
        match &self.way {
            Way::Form { .. } if ask.method == Method::POST && ask.path.ends_with(ACTION) => {
                return take(move |body| async move { self.sign_in(&ask, session, body).await });
            }
            Way::Provider { callback, .. } if ask.method == Method::GET && *callback == ask.path => {
                return take(move |_| async move { self.come_back(&ask, session).await });
            }
            _ => {}
        }
        let user = session.as_ref().and_then(|session| self.user_of(session));
        let user = user.or_else(|| self.signed_on(ask.sign_on.as_ref()?));
        let saved = session.as_ref().filter(|_| user.is_some()).and_then(|session| restorable(session, &ask));
        let method = saved.as_ref().map_or(&ask.method, |saved| &saved.method);
        match self.rules.of_method(method, &ask.path, ask.secure) {
            Ruling::Refused(denied) => return Verdict::Refuse(denied),
            Ruling::Users(access) if !self.way.is_page(&ask.path) => match &user {
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
        let user = || Authenticated::new(&principal.user, self.way.scheme(), principal.roles.split('\n'));
        let goes_on = principal.sign_on.as_ref().is_none_or(|key| self.signed_on(key).is_some());
        (principal.realm == self.realm && goes_on).then(user)
    }

    /// Whose sign-on this is.
    fn signed_on(&self, key: &Key) -> Option<Authenticated> {
        self.sign_ons.as_ref()?.find(key, &self.host, Instant::now())
    }

    /// Keeps the request, and leads to the login page or to the provider.
    async fn begin(&self, ask: &Ask, session: Option<Arc<Session>>, body: Body) -> Result<Denied, Denied> {
        if !ask.navigates && matches!(self.way, Way::Provider { .. }) {
            // A script can't go there.
            return Err(detail(StatusCode::UNAUTHORIZED, "Nobody has signed in."));
        }
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
        let denied = match &self.way {
            Way::Form { login_page, .. } => self.lead_to(login_page),
            Way::Provider { realm, callback } => {
                let scheme = if ask.secure { "https" } else { "http" };
                let redirect = format!("{scheme}://{}{}{callback}", ask.authority, self.context);
                let (url, new) = realm.begin(redirect).await.map_err(|failure| failed(&failure))?;
                let known = pending(&session).into_iter().take(MAX_PENDING - 1);
                keep_pending(&session, &std::iter::once(new).chain(known).collect::<Vec<_>>())?;
                see_other(&url)
            }
        };
        self.sessions.save(&session).await;
        Ok(if is_new { self.with_cookie(denied, Some(&session.id()), ask) } else { denied })
    }

    /// Takes the form.
    async fn sign_in(&self, ask: &Ask, session: Option<Arc<Session>>, body: Body) -> Result<Denied, Denied> {
        let Way::Form { passwords, error_page, .. } = &self.way else { return Err(no_passwords()) };
        let (user, password) = credentials(ask, body).await?;
        match passwords.clone().verify(user, password.into_bytes(), ask.address).await {
            Outcome::User(user) => self.welcome(ask, session, user).await,
            outcome => Err(not_known(&outcome, || self.lead_to(error_page))),
        }
    }

    /// The provider has sent the user back (OpenID Connect Core 1.0, section 3.1.2.5).
    async fn come_back(&self, ask: &Ask, session: Option<Arc<Session>>) -> Result<Denied, Denied> {
        let Way::Provider { realm, .. } = &self.way else { return Err(no_passwords()) };
        let query = ask.target.split_once('?').map_or("", |(_, query)| query);
        let field = |wanted: &str| {
            let mut fields = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == wanted);
            fields.next().map(|(_, value)| value.into_owned())
        };
        let state = field("state");
        let unknown = || detail(StatusCode::BAD_REQUEST, "This sign-in is not known, or has expired. Begin again.");
        let session = session.ok_or_else(unknown)?;
        let (mine, others): (Vec<_>, Vec<_>) =
            pending(&session).into_iter().partition(|one| Some(&one.state) == state.as_ref());
        let mine = mine.into_iter().next().filter(|_| realm.is_issuer(field("iss").as_deref()));
        let mine = mine.ok_or_else(unknown)?;
        // A code is good once, and so is a state.
        keep_pending(&session, &others)?;
        self.sessions.save(&session).await;
        if let Some(error) = field("error") {
            tracing::warn!(realm = self.realm, error = %error.escape_debug(), "the provider signs nobody in");
            return Err(detail(StatusCode::FORBIDDEN, "The provider has not signed you in."));
        }
        let code = field("code").ok_or_else(unknown)?;
        match realm.redeem(code, mine).await {
            Ok(user) => self.welcome(ask, Some(session), user).await,
            Err(failure) => Err(failed(&failure)),
        }
    }

    /// Somebody has signed in: the interrupted request goes on.
    async fn welcome(&self, ask: &Ask, session: Option<Arc<Session>>, user: Authenticated) -> Result<Denied, Denied> {
        let (_, session, cookie) = self.keep(ask, session, user).await?;
        let saved = session.note(SAVED).and_then(|text| serde_json::from_str::<Saved>(&text).ok());
        if saved.as_ref().is_some_and(|saved| saved.method == "GET") {
            session.set_note(SAVED, None).map_err(|e| refused(&e))?;
        }
        self.sessions.save(&session).await;
        let denied = saved.map_or_else(|| self.lead_to("/"), |saved| see_other(&saved.target));
        let mut denied = self.with_cookie(denied, Some(&session.id()), ask);
        denied.headers.extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
        Ok(denied)
    }

    /// Keeps who has signed in with the session, which gets another id. The cookie is that of the sign-on, where there is one.
    async fn keep(
        &self,
        ask: &Ask,
        session: Option<Arc<Session>>,
        user: Authenticated,
    ) -> Result<(Authenticated, Arc<Session>, Option<HeaderValue>), Denied> {
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
        let user = Authenticated { scheme: self.way.scheme().into(), ..user };
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
        Ok((user, session, cookie.and_then(|text| text.parse().ok())))
    }

    /// The application has asked for name and password itself.
    async fn sign_in_by_application(
        &self,
        ask: &Ask,
        session: Option<Arc<Session>>,
        user: String,
        password: String,
    ) -> Signed {
        let Way::Form { passwords, .. } = &self.way else { return Err(no_passwords()).into() };
        let user = match passwords.clone().verify(user, password.into_bytes(), ask.address).await {
            Outcome::User(user) => user,
            other => return Err(not_known(&other, wrong_password)).into(),
        };
        match self.keep(ask, session, user).await {
            Ok((user, session, cookie)) => Signed {
                outcome: Ok(Some(user)),
                session: Some(session),
                headers: cookie.into_iter().map(|cookie| (SET_COOKIE, cookie)).collect(),
            },
            Err(denied) => Err(denied).into(),
        }
    }

    /// The session goes on without its user.
    async fn forget(&self, ask: &Ask, session: Option<Arc<Session>>) -> Signed {
        self.end_sign_on(ask, session.as_ref());
        let forgotten = session.map_or(Ok(()), |session| session.set_note(USER, None));
        forgotten.map(|()| None).map_err(|error| refused(&error)).into()
    }

    /// Who the client is, or the way to the login page.
    async fn who_is(&self, ask: &Ask, session: Option<Arc<Session>>) -> Signed {
        let user = session.as_ref().and_then(|session| self.user_of(session));
        match user.or_else(|| self.signed_on(ask.sign_on.as_ref()?)) {
            Some(user) => Ok(Some(user)).into(),
            None => Err(self.begin(ask, session, Body::empty()).await.unwrap_or_else(|denied| denied)).into(),
        }
    }

    fn end_sign_on(&self, ask: &Ask, session: Option<&Arc<Session>>) {
        if let Some(all) = &self.sign_ons {
            let noted = session.and_then(|session| principal(session)?.sign_on);
            ask.sign_on.iter().chain(&noted).for_each(|key| all.end(key));
        }
    }

    async fn sign_out(&self, ask: &Ask, session: Option<Arc<Session>>) -> Denied {
        let denied = self.lead_to("/");
        self.end_sign_on(ask, session.as_ref());
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

/// The sign-ins under way at the provider.
fn pending(session: &Session) -> Vec<Pending> {
    session.note(PENDING).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

fn keep_pending(session: &Session, pending: &[Pending]) -> Result<(), Denied> {
    let text = serde_json::to_string(pending).unwrap_or_default();
    session.set_note(PENDING, Some(&text).filter(|_| !pending.is_empty()).map(String::as_str)).map_err(|e| refused(&e))
}

fn failed(failure: &Failure) -> Denied {
    match failure {
        Failure::Unavailable(_) => unavailable(),
        Failure::Refused(_) => detail(StatusCode::FORBIDDEN, "The provider has not signed you in."),
    }
}

fn principal(session: &Session) -> Option<Principal> {
    serde_json::from_str(&session.note(USER)?).ok()
}

/// A target that leads here: with two slashes at its beginning it would be another host's.
fn own_target(target: &str) -> String {
    format!("/{}", target.trim_start_matches('/'))
}

/// A page without its query.
fn path_of(page: &str) -> &str {
    page.split('?').next().unwrap_or_default()
}

fn refused(error: &Refused) -> Denied {
    tracing::warn!("a sign-in has no session: {error}");
    detail(StatusCode::from_u16(error.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE), "There is no session.")
}
