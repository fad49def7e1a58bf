//! Servers that an application asks by HTTP, through the container's connections.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use abi_stable::std_types::RVec;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wharf_abi::{ClientAnswer, FfiClientRequest, FfiHttpClient, Trailer};

use crate::{Body, ffi, log};

/// What an application can do something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// The server can't be reached, or the connection broke.
    Connection,
    /// It took too long.
    Timeout,
    /// The server was not asked: it has failed too often of late, and is left alone for a while.
    Open,
    /// The request is none, or the response is not what was taken for granted.
    Invalid,
}

/// Why there is no response, or not the one that was wanted. As the error of a servlet it is a 503 where the server can't be
/// reached, else a 500.
#[derive(Debug, Clone)]
pub struct HttpError {
    kind: HttpErrorKind,
    message: String,
}

impl HttpError {
    fn invalid(message: impl fmt::Display) -> Self {
        Self { kind: HttpErrorKind::Invalid, message: message.to_string() }
    }

    /// What can be done about it.
    pub fn kind(&self) -> HttpErrorKind {
        self.kind
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for HttpError {}

/// The status that fits an error, where it comes from here and is none of the program's.
pub(crate) fn status_of(error: &(dyn std::error::Error + 'static)) -> Option<StatusCode> {
    let error: &HttpError = error.downcast_ref()?;
    (error.kind != HttpErrorKind::Invalid).then_some(StatusCode::SERVICE_UNAVAILABLE)
}

/// A server of the configuration, through the container's connections, which outlive redeploys. Cheap to clone.
///
/// From [`ServletContext::http_client`](crate::ServletContext::http_client). The name must be in the descriptor, by
/// [`export!`](crate::export): `resources = ["payments": "http"]`. Base URL, certificates, credentials, times, retries and the
/// breaker are the configuration's; the request's id and, where it is part of a trace, its `traceparent` go along.
///
/// ```
/// use wharf_sdk::{Error, Request, Response};
///
/// #[derive(serde::Serialize)]
/// struct Charge { cents: i64 }
///
/// #[derive(serde::Deserialize)]
/// struct Receipt { id: String }
///
/// async fn pay(request: Request) -> Result<Response, Error> {
///     let payments = request.context().http_client("payments")?;
///     let receipt: Receipt = payments.post("/charges").json(&Charge { cents: 1990 })?.send().await?.ok()?.json().await?;
///     Ok(Response::text(receipt.id))
/// }
/// ```
#[derive(Clone)]
pub struct HttpClient(Arc<FfiHttpClient>);

impl HttpClient {
    pub(crate) fn new(ffi: FfiHttpClient) -> Self {
        Self(Arc::new(ffi))
    }

    /// A request. `target` is a path from `/`, with the query: below the base URL.
    pub fn request(&self, method: Method, target: impl Into<String>) -> ClientRequest {
        ClientRequest {
            client: self.0.clone(),
            method,
            target: target.into(),
            headers: HeaderMap::new(),
            body: Vec::new(),
            timeout: None,
        }
    }

    /// GET.
    pub fn get(&self, target: impl Into<String>) -> ClientRequest {
        self.request(Method::GET, target)
    }

    /// POST.
    pub fn post(&self, target: impl Into<String>) -> ClientRequest {
        self.request(Method::POST, target)
    }

    /// PUT.
    pub fn put(&self, target: impl Into<String>) -> ClientRequest {
        self.request(Method::PUT, target)
    }

    /// DELETE.
    pub fn delete(&self, target: impl Into<String>) -> ClientRequest {
        self.request(Method::DELETE, target)
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpClient")
    }
}

/// A request to be sent.
#[must_use = "it does nothing before it is sent"]
pub struct ClientRequest {
    client: Arc<FfiHttpClient>,
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Vec<u8>,
    timeout: Option<Duration>,
}

impl ClientRequest {
    /// A header field line more.
    ///
    /// # Errors
    /// When name or value can't stand in a header.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, HttpError> {
        let name = HeaderName::try_from(name).map_err(HttpError::invalid)?;
        self.headers.append(name, HeaderValue::from_bytes(value.as_ref()).map_err(HttpError::invalid)?);
        Ok(self)
    }

    /// The content.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The content as JSON.
    ///
    /// # Errors
    /// When the value can't be JSON.
    pub fn json(mut self, value: &impl Serialize) -> Result<Self, HttpError> {
        self.body = serde_json::to_vec(value).map_err(HttpError::invalid)?;
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(self)
    }

    /// The content as a form.
    ///
    /// # Errors
    /// When the value can't be one.
    pub fn form(mut self, value: &impl Serialize) -> Result<Self, HttpError> {
        self.body = serde_urlencoded::to_string(value).map_err(HttpError::invalid)?.into_bytes();
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        Ok(self)
    }

    /// How long it may take until the head of the response is there, instead of `statement_timeout` of the resource.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends it. Dropped before its end, it is cancelled.
    ///
    /// # Errors
    /// When there is no response. One with an error's status is one, see [`ClientResponse::ok`].
    pub async fn send(self) -> Result<ClientResponse, HttpError> {
        let lines = self.headers.iter();
        let headers: RVec<Trailer> =
            lines.map(|(name, value)| Trailer { name: name.as_str().into(), value: value.as_bytes().into() }).collect();
        let mut work = self.client.send(FfiClientRequest {
            method: self.method.as_str().into(),
            target: self.target.into(),
            headers,
            body: self.body.into(),
            timeout_ms: self.timeout.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX).max(1)),
            request: log::request_id().into(),
        });
        match poll_fn(|cx| work.poll_answer(cx)).await {
            ClientAnswer::Response(response) => {
                let mut headers = HeaderMap::with_capacity(response.headers.len());
                for line in &response.headers {
                    let name = HeaderName::from_bytes(line.name.as_bytes());
                    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&line.value)) {
                        headers.append(name, value);
                    }
                }
                let status = StatusCode::from_u16(response.status).map_err(HttpError::invalid)?;
                Ok(ClientResponse { status, headers, body: ffi::body(response.body) })
            }
            ClientAnswer::Failed(kind, message) => {
                let kind = match kind {
                    0 => HttpErrorKind::Connection,
                    1 => HttpErrorKind::Timeout,
                    2 => HttpErrorKind::Open,
                    _ => HttpErrorKind::Invalid,
                };
                Err(HttpError { kind, message: message.into() })
            }
            ClientAnswer::Pending => Err(HttpError::invalid("no answer")),
        }
    }
}

/// A response.
#[derive(Debug)]
pub struct ClientResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
}

impl ClientResponse {
    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its header.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Itself, where its status is one of success.
    ///
    /// # Errors
    /// The status, where it is another.
    pub fn ok(self) -> Result<Self, HttpError> {
        match self.status.is_success() {
            true => Ok(self),
            false => Err(HttpError::invalid(format!("the server answered {}", self.status))),
        }
    }

    /// Its content, as it comes.
    pub fn into_body(self) -> Body {
        self.body
    }

    /// All of its content, up to so many bytes.
    ///
    /// # Errors
    /// When the connection breaks, or there is more.
    pub async fn bytes_up_to(mut self, limit: usize) -> Result<Bytes, HttpError> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.body.chunk().await {
            let chunk = chunk.map_err(|e| HttpError { kind: HttpErrorKind::Connection, message: e.to_string() })?;
            if all.len() + chunk.len() > limit {
                return Err(HttpError::invalid(format!("the response has more than {limit} bytes")));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// All of its content, up to [`DEFAULT_CONTENT_LIMIT`](crate::DEFAULT_CONTENT_LIMIT).
    ///
    /// # Errors
    /// As [`ClientResponse::bytes_up_to`].
    pub async fn bytes(self) -> Result<Bytes, HttpError> {
        self.bytes_up_to(crate::DEFAULT_CONTENT_LIMIT).await
    }

    /// The same as text.
    ///
    /// # Errors
    /// As [`ClientResponse::bytes`], and when it is not UTF-8.
    pub async fn text(self) -> Result<String, HttpError> {
        String::from_utf8(self.bytes().await?.into()).map_err(HttpError::invalid)
    }

    /// The same from JSON.
    ///
    /// # Errors
    /// As [`ClientResponse::bytes`], and when it is none, or another.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, HttpError> {
        serde_json::from_slice(&self.bytes().await?).map_err(HttpError::invalid)
    }
}
