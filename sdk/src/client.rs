//! Tests of applications, without a container and without a socket.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::application::{Application, Factory};
use crate::context::ServletContextBuilder;
use crate::local::{Local, Peer};
use crate::local_sessions::COOKIE_NAME;
use crate::sign::LocalUser;
#[cfg(feature = "websocket")]
use crate::websocket::TestSocket;
use crate::{Body, BoxError, IntoApplication, IntoPatterns, MappingError, Principal, ServletContext};

/// Runs an application in a test: the same canonicalisation and mapping as in the container, no socket.
///
/// ```
/// use wharf_sdk::{App, TestClient, get};
///
/// fn app() -> App {
///     App::new().servlet("hello", "/hello", get(|request: wharf_sdk::Request| async move {
///         format!("{} from {}", request.init_parameter("greeting").unwrap_or("Hello"), request.context_path())
///     }))
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let client = TestClient::new(app()).context_path("/shop").init("greeting", "Hi").start().await.unwrap();
/// let response = client.get("/hello").send().await;
/// assert_eq!(response.status(), 200);
/// assert_eq!(response.text().await, "Hi from /shop");
/// client.stop().await.unwrap();
/// # });
/// ```
///
/// It keeps the cookie of its session, as a browser does; [`TestClient::forget_session`] makes it another client.
pub struct TestClient(Local, Mutex<Option<String>>);

type Make = Box<dyn FnOnce(&ServletContext) -> Result<Arc<dyn Application>, MappingError> + Send>;

/// A [`TestClient`] before its start.
#[must_use = "nothing runs before `start`"]
pub struct TestClientBuilder {
    make: Make,
    context: ServletContextBuilder,
    users: Vec<LocalUser>,
}

impl TestClient {
    /// A client for an [`App`](crate::App), an axum `Router` or whatever else can be deployed.
    #[expect(clippy::new_ret_no_self, reason = "the client exists once the application has started")]
    pub fn new<M>(app: impl IntoApplication<M> + Send + 'static) -> TestClientBuilder {
        Self::builder(Box::new(move |context| app.configured(&context.link().web)))
    }

    /// A client for a function as given to `export!`, with or without the context as its argument.
    pub fn from_fn<M>(function: impl Factory<M> + Send + 'static) -> TestClientBuilder {
        Self::builder(Box::new(move |context| function.make(context)))
    }

    fn builder(make: Make) -> TestClientBuilder {
        TestClientBuilder { make, context: ServletContext::builder().app("test"), users: Vec::new() }
    }

    /// A GET of a path within the context, with its query: `"/items?page=2"`.
    pub fn get(&self, path: &str) -> TestRequest<'_> {
        self.request(Method::GET, path)
    }

    /// A POST.
    pub fn post(&self, path: &str) -> TestRequest<'_> {
        self.request(Method::POST, path)
    }

    /// A PUT.
    pub fn put(&self, path: &str) -> TestRequest<'_> {
        self.request(Method::PUT, path)
    }

    /// A DELETE.
    pub fn delete(&self, path: &str) -> TestRequest<'_> {
        self.request(Method::DELETE, path)
    }

    /// A request with any method.
    ///
    /// # Panics
    /// When the path can't stand in a request: a space, for instance, must be written `%20`.
    pub fn request(&self, method: Method, path: &str) -> TestRequest<'_> {
        let mut request = http::Request::new(Body::empty());
        let target = format!("{}{path}", self.0.context().context_path());
        *request.uri_mut() =
            target.parse().unwrap_or_else(|error| panic!("'{target}' is not a request target: {error}"));
        *request.method_mut() = method;
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
        TestRequest { client: self, request }
    }

    /// Forgets the cookie of its session.
    pub fn forget_session(&self) {
        *self.1.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The application's surroundings.
    pub fn context(&self) -> &Arc<ServletContext> {
        self.0.context()
    }

    /// Stops the application, as the container does.
    ///
    /// # Errors
    /// The first error of a listener that failed to stop.
    pub async fn stop(self) -> Result<(), BoxError> {
        self.0.stop().await
    }
}

impl TestClientBuilder {
    /// Mounts it at a context path: `"/shop"`. Not called, it is the root context.
    pub fn context_path(mut self, path: impl Into<String>) -> Self {
        self.context = self.context.context_path(path);
        self
    }

    /// Adds an init parameter.
    pub fn init(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.context = self.context.init(name, value);
        self
    }

    /// Gives it a folder with files of its own.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.context = self.context.folder(Some(folder.into()));
        self
    }

    /// Adds a user whom [`Request::login`](crate::Request::login) signs in, as a realm of the container would. It is signed in for
    /// that request alone.
    pub fn known_user(
        mut self,
        name: impl Into<String>,
        password: impl Into<String>,
        roles: impl IntoPatterns,
    ) -> Self {
        self.users.push((name.into(), password.into(), roles.into_patterns()));
        self
    }

    /// Gives it what a side-car file would say, as the container hands it over: JSON.
    ///
    /// # Panics
    /// When it is not what the SDK knows.
    #[doc(hidden)]
    pub fn web(mut self, json: &str) -> Self {
        self.context = self.context.web(json).unwrap_or_else(|error| panic!("{error}"));
        self
    }

    /// Makes and starts the application.
    ///
    /// # Errors
    /// When its names or patterns are not valid, or its start fails.
    pub async fn start(self) -> Result<TestClient, BoxError> {
        let context = self.context.build();
        let application = (self.make)(&context)?;
        let mut local = Local::start(application, context).await?;
        local.users = self.users.into();
        Ok(TestClient(local, Mutex::new(None)))
    }
}

/// A request of a [`TestClient`].
#[must_use = "nothing happens before `send`"]
pub struct TestRequest<'a> {
    client: &'a TestClient,
    request: http::Request<Body>,
}

impl TestRequest<'_> {
    /// Adds a header field.
    ///
    /// # Panics
    /// When name or value can't stand in a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap_or_else(|_| panic!("'{name}' is not a header name"));
        let value = HeaderValue::from_str(value).unwrap_or_else(|_| panic!("{value:?} is not a header value"));
        self.request.headers_mut().append(name, value);
        self
    }

    /// Makes it a request of an authenticated user, as if the container had asked for a name and password.
    pub fn user(mut self, name: &str, roles: &[&str]) -> Self {
        self.request.extensions_mut().insert(Principal::new(name, "BASIC", roles.iter().copied()));
        self
    }

    /// Sets the content.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        *self.request.body_mut() = body.into();
        self
    }

    /// Sets the content to a value as JSON.
    ///
    /// # Panics
    /// When it can't be written as JSON.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        let text = serde_json::to_vec(value).expect("the value can be written as JSON");
        self.header("content-type", "application/json").body(text)
    }

    /// Sets the content to a form.
    ///
    /// # Panics
    /// When it can't be written as a form.
    pub fn form<T: Serialize + ?Sized>(self, value: &T) -> Self {
        let text = serde_urlencoded::to_string(value).expect("the value can be written as a form");
        self.header("content-type", "application/x-www-form-urlencoded").body(text)
    }

    /// Opens a WebSocket with it, in the current tokio runtime.
    ///
    /// # Errors
    /// The response, when it is no 101.
    #[cfg(feature = "websocket")]
    pub async fn websocket(self) -> Result<TestSocket, TestResponse> {
        let this = self
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let (response, switch) = this.client.0.open(this.request, peer()).await;
        match switch {
            None => Err(TestResponse(response.into_http())),
            Some(handler) => Ok(TestSocket::open(response, handler).await),
        }
    }

    /// Sends it and waits for the head of the response; its content may still be under way.
    pub async fn send(mut self) -> TestResponse {
        let jar = &self.client.1;
        if let Some(id) = &*jar.lock().unwrap_or_else(PoisonError::into_inner)
            && let Ok(cookie) = HeaderValue::from_str(&format!("{COOKIE_NAME}={id}"))
        {
            self.request.headers_mut().append(header::COOKIE, cookie);
        }
        let response = self.client.0.call(self.request, peer()).await.into_http();
        for line in response.headers().get_all(header::SET_COOKIE).into_iter().filter_map(|line| line.to_str().ok()) {
            if let Some(value) = line.strip_prefix(COOKIE_NAME).and_then(|rest| rest.strip_prefix('=')) {
                let id = value.split(';').next().filter(|id| !id.is_empty()).map(str::to_owned);
                *jar.lock().unwrap_or_else(PoisonError::into_inner) = id;
            }
        }
        TestResponse(response)
    }
}

fn peer() -> Peer {
    let loopback = |port| Some(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    Peer { remote: loopback(49_152), local: loopback(80) }
}

/// A response to a [`TestClient`].
#[derive(Debug)]
pub struct TestResponse(http::Response<Body>);

impl TestResponse {
    /// Its status, comparable with a number.
    pub fn status(&self) -> StatusCode {
        self.0.status()
    }

    /// Its header fields.
    pub fn headers(&self) -> &HeaderMap {
        self.0.headers()
    }

    /// The first header field of this name, when it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name)?.to_str().ok()
    }

    /// The next chunk of its content; `None` at the end.
    ///
    /// # Panics
    /// When the content breaks off.
    pub async fn chunk(&mut self) -> Option<Bytes> {
        self.0.body_mut().chunk().await.map(|chunk| chunk.expect("the content arrives whole"))
    }

    /// Its trailers, once [`TestResponse::chunk`] has come to the end.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.0.body().trailers()
    }

    /// All its content.
    ///
    /// # Panics
    /// When the content breaks off.
    pub async fn bytes(mut self) -> Bytes {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await {
            all.extend_from_slice(&chunk);
        }
        all.into()
    }

    /// All its content as text.
    ///
    /// # Panics
    /// When the content breaks off or is not UTF-8.
    pub async fn text(self) -> String {
        String::from_utf8(self.bytes().await.into()).expect("the content is UTF-8 text")
    }

    /// All its content, read as JSON.
    ///
    /// # Panics
    /// When the content breaks off or does not fit the type.
    pub async fn json<T: DeserializeOwned>(self) -> T {
        serde_json::from_slice(&self.bytes().await).expect("the content is JSON that fits the type")
    }
}
