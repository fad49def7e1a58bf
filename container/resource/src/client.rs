//! Servers that applications ask by HTTP: one pool of connections each, retries within a budget, and peace for one that fails.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use futures_util::StreamExt;
use recloser::{AsyncRecloser, Recloser};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Identity, Method, Request, Response, StatusCode, Url};
use tokio::runtime::Handle;
use tokio::time::timeout;
use wharf_kernel::resource::{
    ClientError, ClientErrorKind, ClientRequest, ClientResponse, HttpClient, ResourceFigures, ResourceState, Work,
};
use wharf_kernel::settings::{Resource, ResourceKind, ResourceStart, hide_password};

use crate::any::AnyResource;
use crate::health::Health;
use crate::inward::Inward;
use crate::streamed::Streamed;

/// The breaker looks at so many requests.
const LOOKED_AT: usize = 20;
/// So many are tried when it has rested.
const TRIED: usize = 3;

/// See the module.
struct Server {
    name: String,
    place: String,
    base: String,
    optional: bool,
    client: Client,
    breaker: Option<AsyncRecloser>,
    runtime: Handle,
    health: Health,
    limit: Duration,
    wait: Duration,
    statements: AtomicU64,
    nanos: AtomicU64,
    errors: [AtomicU64; 4],
}

/// Makes the client that `settings`, with their secrets put in, describe.
///
/// # Errors
/// What of them can't be used, without any secret.
pub(crate) fn client(
    name: &str,
    shown: &str,
    settings: &Resource,
    runtime: &Handle,
) -> Result<Arc<dyn AnyResource>, String> {
    let url = Url::parse(&settings.url).map_err(|e| format!("url '{}': {e}", hide_password(shown)))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let mut builder = Client::builder()
        .connect_timeout(settings.wait)
        .read_timeout(settings.statement_timeout)
        .pool_max_idle_per_host(settings.max as usize)
        .pool_idle_timeout(Some(settings.idle).filter(|t| !t.is_zero()))
        // Whoever follows a redirect leaves the server that the configuration names.
        .redirect(Policy::none())
        .default_headers(authorization(settings)?)
        .retry(retries(host, settings));
    if let Some(file) = &settings.ca {
        for certificate in Certificate::from_pem_bundle(&read(file)?).map_err(|e| format!("ca: {e}"))? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    if let Some(file) = &settings.client_certificate {
        let identity = Identity::from_pem(&read(file)?).map_err(|e| format!("client_certificate: {e}"))?;
        builder = builder.identity(identity);
    }
    let breaker = Some(settings.breaker).filter(|time| !time.is_zero()).map(|time| {
        let recloser = Recloser::custom().error_rate(0.5).closed_len(LOOKED_AT).half_open_len(TRIED).open_wait(time);
        AsyncRecloser::from(recloser.build())
    });
    let _inside = runtime.enter();
    Ok(Arc::new(Server {
        name: name.to_owned(),
        place: hide_password(shown),
        base: settings.url.trim_end_matches('/').to_owned(),
        optional: settings.start == ResourceStart::Degraded,
        client: builder.build().map_err(|e| e.to_string())?,
        breaker,
        runtime: runtime.clone(),
        health: Health::default(),
        limit: settings.statement_timeout,
        wait: settings.wait,
        statements: AtomicU64::new(0),
        nanos: AtomicU64::new(0),
        errors: Default::default(),
    }))
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))
}

/// The user and the password as BASIC (RFC 7617), a password alone as a token (RFC 6750).
fn authorization(settings: &Resource) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let text = match (&settings.user, &settings.password) {
        (_, None) => return Ok(headers),
        (Some(user), Some(password)) => format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))),
        (None, Some(token)) => format!("Bearer {token}"),
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| "password: it can't stand in a header".to_owned())?;
    value.set_sensitive(true);
    headers.insert(AUTHORIZATION, value);
    Ok(headers)
}

fn retries(host: String, settings: &Resource) -> reqwest::retry::Builder {
    if settings.retries == 0 {
        return reqwest::retry::never();
    }
    reqwest::retry::for_host(host)
        .max_retries_per_request(settings.retries)
        .max_extra_load(settings.retry_budget as f32 / 100.0)
        .classify_fn(|tried| {
            let again = matches!(
                tried.status(),
                Some(StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
            );
            // RFC 9110, section 9.2.2.
            if tried.method().is_idempotent() && (again || tried.error().is_some()) {
                tried.retryable()
            } else {
                tried.success()
            }
        })
}

fn invalid(message: impl Into<String>) -> ClientError {
    ClientError { kind: ClientErrorKind::Invalid, message: message.into() }
}

/// An error of the library, without the URL, which may hold a password.
fn broken(error: reqwest::Error) -> ClientError {
    let kind = if error.is_timeout() { ClientErrorKind::Timeout } else { ClientErrorKind::Connection };
    let error = error.without_url();
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    ClientError { kind, message }
}

impl Server {
    fn request(&self, asked: ClientRequest, trace: Option<String>) -> Result<Request, ClientError> {
        // A target that is no path could lead to another host.
        if !asked.target.starts_with('/') || asked.target.starts_with("//") {
            return Err(invalid(format!("'{}' is no path from '/': the server is that of the resource", asked.target)));
        }
        let url = Url::parse(&format!("{}{}", self.base, asked.target)).map_err(|e| invalid(e.to_string()))?;
        let method = Method::from_bytes(asked.method.as_bytes()).map_err(|e| invalid(e.to_string()))?;
        let mut request = Request::new(method, url);
        let headers = request.headers_mut();
        for (name, value) in asked.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| invalid(format!("header '{name}': {e}")))?;
            let value = HeaderValue::from_bytes(&value).map_err(|e| invalid(format!("header '{name}': {e}")))?;
            headers.append(name, value);
        }
        for (name, value) in [("x-request-id", Some(asked.request).filter(|id| !id.is_empty())), ("traceparent", trace)]
        {
            if let Some(value) = value.and_then(|text| HeaderValue::from_str(&text).ok())
                && !headers.contains_key(name)
            {
                headers.insert(name, value);
            }
        }
        if !asked.body.is_empty() {
            *request.body_mut() = Some(asked.body.into());
        }
        Ok(request)
    }

    async fn ask(&self, request: Request, limit: Duration) -> Result<Response, ClientError> {
        let late = ClientError { kind: ClientErrorKind::Timeout, message: format!("no response within {limit:?}") };
        match timeout(limit, self.client.execute(request)).await {
            Ok(asked) => asked.map_err(broken),
            Err(_) => Err(late),
        }
    }

    /// The same, unless the server is being left alone.
    async fn guarded(&self, request: Request, limit: Duration) -> Result<Response, ClientError> {
        let asked = self.ask(request, limit);
        let Some(breaker) = &self.breaker else { return asked.await };
        // A 5xx is a response for the application, and a failure for the breaker.
        let judged = async {
            match asked.await {
                Ok(response) if response.status().is_server_error() => Err(Ok(response)),
                Ok(response) => Ok(response),
                Err(error) => Err(Err(error)),
            }
        };
        match breaker.call(judged).await {
            Ok(response) => Ok(response),
            Err(recloser::Error::Inner(failed)) => failed,
            Err(recloser::Error::Rejected) => Err(ClientError {
                kind: ClientErrorKind::Open,
                message: format!("'{}' failed too often of late and is left alone for a while", self.name),
            }),
        }
    }

    fn count<T>(&self, since: Instant, result: &Result<T, ClientError>) {
        self.statements.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if let Err(error) = result {
            self.errors[error.kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A server in the hands of applications.
struct Asked(Arc<Server>);

impl HttpClient for Asked {
    fn send(&self, asked: ClientRequest, trace: Option<String>) -> Work<Result<ClientResponse, ClientError>> {
        let server = self.0.clone();
        Inward::boxed(self.0.runtime.clone(), async move {
            let since = Instant::now();
            let limit = asked.timeout.unwrap_or(server.limit);
            let result = match server.request(asked, trace) {
                Ok(request) => server.guarded(request, limit).await,
                Err(error) => Err(error),
            };
            server.count(since, &result);
            let response = result?;
            let lines = response.headers().iter();
            let headers = lines.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
            let status = response.status().as_u16();
            let chunks = response.bytes_stream().map(|chunk| chunk.map_err(|error| broken(error).message));
            let runtime = Some(server.runtime.clone());
            Ok(ClientResponse { status, headers, body: Box::new(Streamed { stream: Some(Box::pin(chunks)), runtime }) })
        })
    }
}

impl AnyResource for Server {
    fn state(&self) -> ResourceState {
        let count = |c: &AtomicU64| c.load(Ordering::Relaxed);
        let kinds =
            [ClientErrorKind::Connection, ClientErrorKind::Timeout, ClientErrorKind::Open, ClientErrorKind::Invalid];
        let errors = kinds.iter().zip(&self.errors).map(|(kind, n)| (kind.name().to_owned(), count(n)));
        ResourceState {
            name: self.name.clone(),
            kind: ResourceKind::Http,
            engine: "http".into(),
            place: self.place.clone(),
            down: self.health.down(),
            optional: self.optional,
            figures: ResourceFigures {
                statements: count(&self.statements),
                statement_seconds: Duration::from_nanos(count(&self.nanos)).as_secs_f64(),
                errors: errors.filter(|(_, n)| *n > 0).collect::<BTreeMap<_, _>>(),
                ..ResourceFigures::default()
            },
        }
    }

    /// Whether there is a connection to be had. What the server says to a request nobody asked for would mean nothing.
    fn ask(self: Arc<Self>) -> Work<Result<(), String>> {
        let runtime = self.runtime.clone();
        Inward::boxed(runtime, async move {
            let url = Url::parse(&self.base).map_err(|e| e.to_string())?;
            let to = (
                url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
                url.port_or_known_default().unwrap_or(80),
            );
            let asked = match timeout(self.wait, tokio::net::TcpStream::connect(to)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no connection within {:?}", self.wait)),
            };
            self.health.keep(asked)
        })
    }

    fn http_client(self: Arc<Self>) -> Option<Arc<dyn HttpClient>> {
        Some(Arc::new(Asked(self)))
    }
}
