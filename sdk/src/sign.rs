//! Sign-ins that an application asks for itself (`login`, `logout` and `authenticate` of `HttpServletRequest`).

use std::future::poll_fn;

use http::{HeaderName, HeaderValue, StatusCode};
use wharf_abi::{FfiSignWork, SignOrder, SignRefused, Signed};

use crate::facts::RequestFacts;
use crate::principal::servlet_name;
use crate::{Error, Principal, Request, Response};

/// A user of a test: name, password, roles.
pub(crate) type LocalUser = (String, String, Vec<String>);

/// What becomes of a client that did not get in.
#[derive(Debug)]
pub(crate) struct Refused {
    status: StatusCode,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refused {
    fn new(status: StatusCode, message: &str) -> Self {
        Self { status, message: message.to_owned(), headers: Vec::new() }
    }

    fn crossed(refused: SignRefused) -> Self {
        let field = |name: &str, value: &[u8]| Some((name.parse().ok()?, HeaderValue::from_bytes(value).ok()?));
        Self {
            status: StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            message: refused.message.into(),
            headers: refused.headers.iter().filter_map(|f| field(&f.name, &f.value)).collect(),
        }
    }

    fn into_error(self) -> Error {
        let Self { status, message, .. } = self;
        Error::new(status, if message.is_empty() { status.to_string() } else { message })
    }

    fn into_response(self) -> Response {
        let mut response = if self.status.is_redirection() || self.message.is_empty() {
            Response::status(self.status)
        } else {
            Response::text(self.message).with_status(self.status)
        };
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

/// A sign-in under way.
pub(crate) enum Signing {
    Crossed(FfiSignWork),
    Known(Result<Option<Principal>, Refused>),
}

impl Signing {
    /// Begins what the order says.
    pub(crate) fn begin(facts: &RequestFacts, order: SignOrder) -> Self {
        match (facts.lent(), facts.local_users()) {
            (Some(ffi), _) => match ffi.sign(order) {
                Some(work) => Self::Crossed(work),
                None => Self::Known(Err(Refused::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "there are no users in a trial load",
                ))),
            },
            (None, users) => Self::Known(local(order, users, facts)),
        }
    }

    pub(crate) async fn end(self) -> Result<Option<Principal>, Refused> {
        let mut work = match self {
            Self::Crossed(work) => work,
            Self::Known(known) => return known,
        };
        match poll_fn(|cx| work.poll_answer(cx)).await {
            Signed::User(user) => Ok(user
                .into_option()
                .map(|user| Principal::new(&user.name, servlet_name(&user.auth_type), user.roles.lines()))),
            Signed::Refused(refused) => Err(Refused::crossed(refused)),
            Signed::Pending => Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the sign-in did not end")),
        }
    }
}

/// Without a container: the users that a test has named.
fn local(order: SignOrder, users: &[LocalUser], facts: &RequestFacts) -> Result<Option<Principal>, Refused> {
    match order {
        SignOrder::Login(name, password) => {
            let known = users.iter().find(|(user, right, _)| *user == *name && *right == *password);
            let wrong = || Refused::new(StatusCode::UNAUTHORIZED, "The name or the password is wrong.");
            let (name, _, roles) = known.ok_or_else(wrong)?;
            Ok(Some(Principal::new(name, "FORM", roles.iter().map(String::as_str))))
        }
        SignOrder::Logout => Ok(None),
        SignOrder::Authenticate => {
            let user = facts.user_principal();
            user.map(Some).ok_or_else(|| Refused::new(StatusCode::UNAUTHORIZED, "Nobody has signed in."))
        }
    }
}

impl Request {
    /// Signs a user in with a name and a password that the application has asked for itself (`HttpServletRequest.login`). The realm
    /// is that of `[login]` in the application's TOML file.
    ///
    /// With a login page (`method = "FORM"` or `"OIDC"`) the session keeps the user, under another id than before, and one is begun
    /// where there is none. With other methods the user is this request's alone.
    ///
    /// ```
    /// use wharf_sdk::{App, Error, Request, TestClient, post};
    ///
    /// async fn sign_in(mut request: Request) -> Result<String, Error> {
    ///     let user = request.login("ann", "secret").await?;
    ///     Ok(format!("{} {}", user.name(), request.is_user_in_role("clerk")))
    /// }
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let client = TestClient::new(App::new().servlet("in", "/in", post(sign_in)));
    /// let client = client.known_user("ann", "secret", ["clerk"]).start().await.unwrap();
    /// assert_eq!(client.post("/in").send().await.text().await, "ann true");
    /// # });
    /// ```
    ///
    /// # Errors
    /// 401 when name or password is wrong, 409 when somebody has signed in already, 429 after too many wrong passwords, 500 when the
    /// application has no realm of passwords, 503 when the realm does not answer.
    pub async fn login(&mut self, user: &str, password: &str) -> Result<Principal, Error> {
        if self.remote_user().is_some() {
            return Err(Error::conflict("somebody has signed in already: log out first"));
        }
        let signing = Signing::begin(self.facts(), SignOrder::Login(user.into(), password.into()));
        let user = signing.end().await.map_err(Refused::into_error)?;
        let user = user.ok_or_else(|| Error::internal("the container signed nobody in"))?;
        self.facts_mut().signed(Some(user.clone()));
        Ok(user)
    }

    /// Forgets who has signed in (`HttpServletRequest.logout`): this request has no user any more, and the session, which goes on,
    /// keeps none. A single sign-on ends, too. End the session with [`Session::invalidate`](crate::Session::invalidate) where its
    /// values are the user's.
    ///
    /// # Errors
    /// 503 when the sessions' store does not answer.
    pub async fn logout(&mut self) -> Result<(), Error> {
        let signing = Signing::begin(self.facts(), SignOrder::Logout);
        signing.end().await.map_err(Refused::into_error)?;
        self.facts_mut().signed(None);
        Ok(())
    }

    /// Finds out who the client is by the method of `[login]`, also where no constraint asks for it
    /// (`HttpServletRequest.authenticate`).
    ///
    /// ```
    /// # use wharf_sdk::{Request, Response};
    /// async fn mine(mut request: Request) -> Response {
    ///     match request.authenticate().await {
    ///         Ok(user) => Response::text(format!("yours, {}", user.name())),
    ///         Err(ask) => ask,
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// The response to give when the client did not say who it is: the challenge, or the way to the login page, from which it comes
    /// back here.
    pub async fn authenticate(&mut self) -> Result<Principal, Response> {
        if let Some(user) = self.user_principal() {
            return Ok(user);
        }
        let signing = Signing::begin(self.facts(), SignOrder::Authenticate);
        let user = signing.end().await.map_err(Refused::into_response)?;
        let user = user.ok_or_else(|| Response::status(StatusCode::FORBIDDEN))?;
        self.facts_mut().signed(Some(user.clone()));
        Ok(user)
    }
}
