//! A response, and what can be turned into one.

use std::borrow::Cow;

use bytes::Bytes;
use cookie::Cookie;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, response};
use serde::Serialize;

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
#[derive(Debug, Default)]
pub struct Response(http::Response<Body>);

impl Response {
    /// A 200 with this content and no `Content-Type`.
    pub fn new(body: impl Into<Body>) -> Self {
        Self(http::Response::new(body.into()))
    }

    /// A response without content.
    pub fn status(status: StatusCode) -> Self {
        Self::default().with_status(status)
    }

    /// Plain text, UTF-8.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Self::typed("text/plain; charset=utf-8", text.into())
    }

    /// An HTML page, UTF-8. Escape what comes from users: a template engine does it for you.
    pub fn html(html: impl Into<Cow<'static, str>>) -> Self {
        Self::typed("text/html; charset=utf-8", html.into())
    }

    /// A value as JSON.
    ///
    /// # Errors
    /// 500 when it can't be written as JSON, such as a map whose keys are not text.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        Ok(Self::typed("application/json", serde_json::to_vec(value)?))
    }

    /// 302: look elsewhere, as `sendRedirect` does. `location` may be relative to the page: such links work under any
    /// context path.
    ///
    /// # Errors
    /// 500 when `location` has characters that can't stand in a header.
    pub fn redirect(location: &str) -> Result<Self, Error> {
        Self::status(StatusCode::FOUND).header(header::LOCATION, location)
    }

    /// 303: the answer to a POST that did its work, look at this page now.
    ///
    /// # Errors
    /// 500 when `location` has characters that can't stand in a header.
    pub fn see_other(location: &str) -> Result<Self, Error> {
        Self::status(StatusCode::SEE_OTHER).header(header::LOCATION, location)
    }

    /// Content of this type; for types that are known when the program is written.
    ///
    /// # Panics
    /// When `content_type` can't stand in a header.
    pub fn typed(content_type: &'static str, body: impl Into<Body>) -> Self {
        let mut response = Self::new(body);
        response.0.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }

    /// The same with this status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        *self.0.status_mut() = status;
        self
    }

    /// The same with this content.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Body>) -> Self {
        *self.0.body_mut() = body.into();
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
        self.0.headers_mut().insert(name, value);
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
        self.0.headers_mut().append(name, value);
        Ok(self)
    }

    /// The same with a cookie to set.
    ///
    /// # Errors
    /// 500 when the cookie has characters that can't stand in a header.
    pub fn cookie(self, cookie: Cookie<'_>) -> Result<Self, Error> {
        self.add_header(header::SET_COOKIE, cookie.to_string())
    }

    /// Its status.
    pub fn status_code(&self) -> StatusCode {
        self.0.status()
    }

    /// Its header fields.
    pub fn headers(&self) -> &HeaderMap {
        self.0.headers()
    }

    /// Its header fields, to change.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.0.headers_mut()
    }

    /// Its content.
    pub fn body(&self) -> &Body {
        self.0.body()
    }

    /// Its content, to change: for filters.
    pub fn body_mut(&mut self) -> &mut Body {
        self.0.body_mut()
    }

    pub(crate) fn from_switched(response: http::Response<Body>) -> Self {
        Self(response)
    }

    /// The response as any `http` library knows it.
    pub fn into_http(self) -> http::Response<Body> {
        self.0
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
        Self(response.map(Body::new))
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
        Self(http::Response::from_parts(parts, Body::empty()))
    }
}

#[cfg(test)]
mod tests {
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
