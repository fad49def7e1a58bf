//! The rules of HTTP methods that `HttpServlet` follows, shared by servlets of every kind.

use std::fmt;
use std::future::Future;
use std::time::{Duration, SystemTime};

use http::header::{self, HeaderValue};
use http::{Method, StatusCode};

use crate::{Body, Error, Request, Response};

/// A method servlets have a function for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Patch,
    Options,
    Trace,
}

impl Verb {
    const ALL: [(Self, &str); 8] = [
        (Self::Get, "GET"),
        (Self::Head, "HEAD"),
        (Self::Post, "POST"),
        (Self::Put, "PUT"),
        (Self::Delete, "DELETE"),
        (Self::Patch, "PATCH"),
        (Self::Options, "OPTIONS"),
        (Self::Trace, "TRACE"),
    ];

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().map(|(verb, _)| verb)
    }

    pub(crate) fn of(method: &Method) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| method.as_str() == *name).map(|(verb, _)| *verb)
    }
}

/// A set of methods. Shown as the value of `Allow`: HEAD comes with GET, and OPTIONS is always answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Allowed(u8);

impl Allowed {
    pub(crate) fn insert(&mut self, verb: Verb) {
        self.0 |= 1 << verb as u8;
    }

    pub(crate) fn has(self, verb: Verb) -> bool {
        self.0 & (1 << verb as u8) != 0
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (verb, name) in Verb::ALL {
            if self.has(verb) || verb == Verb::Options || (verb == Verb::Head && self.has(Verb::Get)) {
                f.write_str(if first { "" } else { ", " })?;
                f.write_str(name)?;
                first = false;
            }
        }
        Ok(())
    }
}

fn with_allow(status: StatusCode, allowed: Allowed) -> Response {
    let mut response = Response::status(status);
    let value = HeaderValue::from_str(&allowed.to_string()).expect("method names are visible ASCII");
    response.headers_mut().insert(header::ALLOW, value);
    response
}

/// 405 (RFC 9110, section 15.5.6).
pub(crate) fn not_allowed(allowed: Allowed) -> Response {
    with_allow(StatusCode::METHOD_NOT_ALLOWED, allowed)
}

/// 501: a method nobody has heard of (RFC 9110, section 9.1).
pub(crate) fn not_implemented() -> Response {
    Response::status(StatusCode::NOT_IMPLEMENTED)
}

/// The answer to OPTIONS (RFC 9110, section 9.3.7).
pub(crate) fn allow(allowed: Allowed) -> Response {
    with_allow(StatusCode::NO_CONTENT, allowed)
}

/// A response to GET as one to HEAD: the same header fields, and no content (RFC 9110, section 9.3.2).
pub(crate) fn without_content(mut response: Response) -> Response {
    let len = http_body::Body::size_hint(response.body()).exact();
    if let Some(len) = len
        && !response.headers().contains_key(header::CONTENT_LENGTH)
        && !matches!(response.status_code(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    }
    *response.body_mut() = Body::empty();
    response
}

/// A GET of something last modified at `when`: 304 when the client has it as new, else what `get` answers, with
/// `Last-Modified` (RFC 9110, section 13.1.3: `If-Modified-Since` counts only without `If-None-Match`).
pub(crate) async fn conditional<F>(
    when: SystemTime,
    request: Request,
    get: impl FnOnce(Request) -> F,
) -> Result<Response, Error>
where
    F: Future<Output = Result<Response, Error>>,
{
    // HTTP dates have whole seconds, and no year before 1970 or after 9999.
    const LAST: u64 = 253_402_300_799;
    let since_1970 = when.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()).min(LAST);
    let when = SystemTime::UNIX_EPOCH + Duration::from_secs(since_1970);
    let date = HeaderValue::from_str(&httpdate::fmt_http_date(when)).expect("a date is visible ASCII");

    let unchanged = !request.headers().contains_key(header::IF_NONE_MATCH)
        && request
            .header(header::IF_MODIFIED_SINCE)
            .and_then(|text| httpdate::parse_http_date(text).ok())
            .is_some_and(|copy| copy >= when);
    let mut response = if unchanged { Response::status(StatusCode::NOT_MODIFIED) } else { get(request).await? };
    if unchanged || response.status_code().is_success() {
        response.headers_mut().entry(header::LAST_MODIFIED).or_insert(date);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_keeps_the_length() {
        let response = without_content(Response::text("four"));
        assert!(response.body().is_empty());
        assert_eq!(response.headers()["content-length"], "4");
        assert!(!without_content(Response::status(StatusCode::NO_CONTENT)).headers().contains_key("content-length"));
    }
}
