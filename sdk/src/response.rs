//! A response, and what can be turned into one.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Extensions, StatusCode, Version, response};
use once_cell::sync::OnceCell;
use serde::Serialize;

use crate::ffi::Lines;
use crate::{Body, BoxError, Error};

/// A response (`HttpServletResponse` of Servlet 6.1, chapter 5).
///
/// ```
/// use wharf_sdk::{Response, StatusCode};
///
/// # fn demo() -> Result<(), wharf_sdk::Error> {
/// let page = Response::html("<h1>Hello</h1>");
/// let made = Response::json(&["a", "b"])?.with_status(StatusCode::CREATED).header("Location", "items/7")?;
/// let gone = Response::status(StatusCode::GONE);
///
/// // Nobody can smuggle a header line in: this is an error, not a response.
/// assert!(Response::text("x").header("X-Name", "a\r\nSet-Cookie: b").is_err());
/// # Ok(()) }
/// # demo().unwrap();
/// ```
///
/// A 4xx or 5xx without content gets the container's error page.
#[derive(Default)]
pub struct Response(Box<ResponseParts>);

/// Boxed, so that the futures a response is handed through stay small. The box is what crosses the border.
pub(crate) struct ResponseParts {
    status: StatusCode,
    version: Version,
    /// The only header field as long as the others are not made.
    pub(crate) content_type: Option<HeaderValue>,
    /// Made when they are asked for: most responses have but a content type.
    pub(crate) headers: OnceCell<HeaderMap>,
    extensions: Extensions,
    pub(crate) body: Body,
    pub(crate) lines: Lines,
}

impl Default for ResponseParts {
    fn default() -> Self {
        Self {
            status: StatusCode::OK,
            version: Version::default(),
            content_type: None,
            headers: OnceCell::new(),
            extensions: Extensions::new(),
            body: Body::empty(),
            lines: Lines::EMPTY,
        }
    }
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Response {
    /// A 200 with this content and no `Content-Type`.
    pub fn new(body: impl Into<Body>) -> Self {
        let body = body.into();
        Self::made(|| ResponseParts { body, ..ResponseParts::default() })
    }

    /// A response without content.
    pub fn status(status: StatusCode) -> Self {
        Self::default().with_status(status)
    }

    /// Plain text, UTF-8.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Self::of(TEXT, text.into())
    }

    /// An HTML page, UTF-8. Escape what comes from users: a template engine does it for you.
    pub fn html(html: impl Into<Cow<'static, str>>) -> Self {
        Self::of(HTML, html.into())
    }

    /// A value as JSON.
    ///
    /// # Errors
    /// 500 when it can't be written as JSON, such as a map whose keys are not text.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        Ok(Self::of(JSON, serde_json::to_vec(value)?))
    }

    /// Content of this type; for types that are known when the program is written.
    ///
    /// # Panics
    /// When `content_type` can't stand in a header.
    pub fn typed(content_type: &'static str, body: impl Into<Body>) -> Self {
        Self::of(HeaderValue::from_static(content_type), body)
    }

    fn of(content_type: HeaderValue, body: impl Into<Body>) -> Self {
        let (content_type, body) = (Some(content_type), body.into());
        Self::made(|| ResponseParts { content_type, body, ..ResponseParts::default() })
    }

    /// Boxes what `make` gives: made after the box, it needs not be moved there.
    fn made(make: impl FnOnce() -> ResponseParts) -> Self {
        let place = Box::new_uninit();
        Self(Box::write(place, make()))
    }

    /// The same with this status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// The same with this content.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Body>) -> Self {
        self.0.body = body.into();
        self
    }

    /// The same with this header field, in place of any of the same name.
    ///
    /// # Errors
    /// 500 when name or value has characters that can't stand in a header, such as a line end.
    pub fn header<N, V>(mut self, name: N, value: V) -> Result<Self, Error>
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        let (name, value) = field(name, value)?;
        self.headers_mut().insert(name, value);
        Ok(self)
    }

    /// The same with this header field beside any of the same name.
    ///
    /// # Errors
    /// As [`Response::header`].
    pub fn add_header<N, V>(mut self, name: N, value: V) -> Result<Self, Error>
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        let (name, value) = field(name, value)?;
        self.headers_mut().append(name, value);
        Ok(self)
    }

    /// Its status.
    pub fn status_code(&self) -> StatusCode {
        self.0.status
    }

    /// Its header fields.
    pub fn headers(&self) -> &HeaderMap {
        self.0.headers.get_or_init(|| {
            let content_type = self.0.content_type.clone();
            content_type.into_iter().map(|value| (header::CONTENT_TYPE, value)).collect()
        })
    }

    /// Its header fields, to change.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers();
        self.0.headers.get_mut().expect("just made")
    }

    pub(crate) fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.0.extensions
    }

    /// Its content.
    pub fn body(&self) -> &Body {
        &self.0.body
    }

    /// Its content, to change: for filters.
    pub fn body_mut(&mut self) -> &mut Body {
        &mut self.0.body
    }

    pub(crate) fn into_inner(self) -> Box<ResponseParts> {
        self.0
    }

    fn from_parts(parts: response::Parts, body: Body) -> Self {
        let response::Parts { status, version, headers, extensions, .. } = parts;
        let headers = OnceCell::with_value(headers);
        Self::made(|| ResponseParts {
            status,
            version,
            content_type: None,
            headers,
            extensions,
            body,
            lines: Lines::EMPTY,
        })
    }

    /// The response of a service, its content in one piece where it is there in one piece already.
    pub(crate) fn settled<B>(response: http::Response<B>) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = response.into_parts();
        Self::from_parts(parts, Body::settled(body))
    }

    /// The response as any `http` library knows it.
    pub fn into_http(self) -> http::Response<Body> {
        self.headers();
        let ResponseParts { status, version, headers, extensions, body, .. } = *self.0;
        let mut response = http::Response::new(body);
        *response.status_mut() = status;
        *response.version_mut() = version;
        *response.headers_mut() = headers.into_inner().unwrap_or_default();
        *response.extensions_mut() = extensions;
        response
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.0.status)
            .field("headers", self.headers())
            .field("body", &self.0.body)
            .finish_non_exhaustive()
    }
}

fn field<N, V>(name: N, value: V) -> Result<(HeaderName, HeaderValue), Error>
where
    N: TryInto<HeaderName, Error: Into<http::Error>>,
    V: TryInto<HeaderValue, Error: Into<http::Error>>,
{
    let name = name.try_into().map_err(|e| Error::internal("not a valid header name").with_source(e.into()))?;
    match value.try_into() {
        Ok(value) => Ok((name, value)),
        Err(e) => Err(Error::internal(format!("not a valid value for header '{name}'")).with_source(e.into())),
    }
}

impl<B> From<http::Response<B>> for Response
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn from(response: http::Response<B>) -> Self {
        let (parts, body) = response.into_parts();
        Self::from_parts(parts, Body::new(body))
    }
}

/// What a handler may return.
///
/// Text, bytes, a status, a [`Response`], `()` for 204, an `http::Response`, a pair of a status and any of these, a triple with
/// header fields between, an `Option` (`None` is 404), and a `Result` of any of these with [`Error`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be turned into a response",
    label = "a handler must return a response, but this is `{Self}`",
    note = "return text, bytes, a `StatusCode`, a `Response`, `(StatusCode, text)`, or a `Result` of these with `wharf_sdk::Error`; for a structure use `Response::json(&value)`"
)]
pub trait IntoResponse {
    /// The response.
    ///
    /// # Errors
    /// The handler's own error, or that of a header field that can't be sent.
    fn into_response(self) -> Result<Response, Error>;
}

impl IntoResponse for Response {
    fn into_response(self) -> Result<Response, Error> {
        Ok(self)
    }
}

impl<B> IntoResponse for http::Response<B>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn into_response(self) -> Result<Response, Error> {
        Ok(self.into())
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Result<Response, Error> {
        Ok(Response::status(self))
    }
}

impl IntoResponse for () {
    fn into_response(self) -> Result<Response, Error> {
        Ok(Response::status(StatusCode::NO_CONTENT))
    }
}

macro_rules! text {
    ($($type:ty)*) => {$(
        impl IntoResponse for $type {
            fn into_response(self) -> Result<Response, Error> {
                Ok(Response::text(self))
            }
        }
    )*};
}

text! { String &'static str Cow<'static, str> }

macro_rules! bytes {
    ($($type:ty)*) => {$(
        impl IntoResponse for $type {
            fn into_response(self) -> Result<Response, Error> {
                Ok(Response::typed("application/octet-stream", self))
            }
        }
    )*};
}

bytes! { Bytes Vec<u8> &'static [u8] }

impl IntoResponse for Body {
    fn into_response(self) -> Result<Response, Error> {
        Ok(Response::new(self))
    }
}

// For this error alone: so `Ok("text")` and `?` in a closure need no type to be written.
impl<T: IntoResponse> IntoResponse for Result<T, Error> {
    fn into_response(self) -> Result<Response, Error> {
        self?.into_response()
    }
}

impl<T: IntoResponse> IntoResponse for Option<T> {
    fn into_response(self) -> Result<Response, Error> {
        self.map_or_else(|| Ok(Response::status(StatusCode::NOT_FOUND)), IntoResponse::into_response)
    }
}

impl<T: IntoResponse> IntoResponse for (StatusCode, T) {
    fn into_response(self) -> Result<Response, Error> {
        Ok(self.1.into_response()?.with_status(self.0))
    }
}

impl<T: IntoResponse, N, V, const COUNT: usize> IntoResponse for (StatusCode, [(N, V); COUNT], T)
where
    N: TryInto<HeaderName, Error: Into<http::Error>>,
    V: TryInto<HeaderValue, Error: Into<http::Error>>,
{
    fn into_response(self) -> Result<Response, Error> {
        let mut response = self.2.into_response()?.with_status(self.0);
        for (name, value) in self.1 {
            response = response.header(name, value)?;
        }
        Ok(response)
    }
}

impl From<response::Parts> for Response {
    fn from(parts: response::Parts) -> Self {
        Self::from_parts(parts, Body::empty())
    }
}

#[cfg(test)]
mod tests {
    use cookie::Cookie;

    use super::*;

    #[test]
    fn no_line_end_gets_into_a_header() {
        for bad in ["a\r\nSet-Cookie: x=1", "a\nb", "a\0b", "a\rb"] {
            assert!(Response::default().header("x-a", bad).is_err(), "{bad:?}");
            assert!(Response::redirect(bad).is_err(), "{bad:?}");
            assert!(Response::default().cookie(Cookie::new("c", bad.to_owned())).is_err(), "{bad:?}");
            assert!((StatusCode::OK, [("x-a", bad)], "x").into_response().is_err(), "{bad:?}");
        }
        assert!(Response::default().header("x a", "v").is_err());
    }

    #[test]
    fn what_a_handler_returns_gets_its_status_and_type() {
        let ok = |r: Result<Response, Error>| {
            let r = r.unwrap();
            (r.status_code().as_u16(), r.headers().get("content-type").map(|v| v.to_str().unwrap().to_owned()))
        };
        let text = Some("text/plain; charset=utf-8".to_owned());
        assert_eq!(ok("x".into_response()), (200, text.clone()));
        assert_eq!(ok((StatusCode::CREATED, "x").into_response()), (201, text));
        assert_eq!(ok(().into_response()), (204, None));
        assert_eq!(ok(None::<String>.into_response()), (404, None));
        assert_eq!(ok(Bytes::from_static(b"x").into_response()), (200, Some("application/octet-stream".to_owned())));
        assert_eq!(Err::<(), _>(Error::conflict("x")).into_response().unwrap_err().status(), StatusCode::CONFLICT);
    }
}
