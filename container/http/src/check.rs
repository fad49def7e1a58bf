//! What every request must satisfy before it is mapped; hyper has checked the grammar of the message before.

use http::header::{COOKIE, EXPECT, HOST, HeaderValue};
use http::{Method, Request, StatusCode, Version};
use wharf_mapping::parse_host;

use crate::Limits;

/// Methods named in `Allow` where the server itself answers.
pub(crate) const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS");

/// A request that is answered without being mapped.
#[derive(Debug)]
pub(crate) struct Reject {
    pub(crate) status: StatusCode,
    /// A sentence for the client.
    pub(crate) detail: &'static str,
    /// Whether the connection is closed: what follows on it can't be trusted, or is not worth reading.
    pub(crate) close: bool,
}

const fn reject(status: StatusCode, detail: &'static str) -> Reject {
    Reject { status, detail, close: true }
}

/// Checks a request and gives the authority it is for: that of an absolute-form target, else the Host header (RFC 9112,
/// section 3.2); empty for HTTP/1.0 without either. The Host header is made to agree with it.
pub(crate) fn check<B>(request: &mut Request<B>, limits: &Limits) -> Result<Box<str>, Reject> {
    let uri = request.uri();
    let target = uri.path_and_query().map_or(0, |p| p.as_str().len());
    if target > limits.target_bytes {
        return Err(reject(StatusCode::URI_TOO_LONG, ""));
    }
    match *request.method() {
        Method::CONNECT => return Err(reject(StatusCode::METHOD_NOT_ALLOWED, "This server is not a proxy.")),
        Method::TRACE => return Err(Reject { status: StatusCode::METHOD_NOT_ALLOWED, detail: "", close: false }),
        _ => {}
    }
    // The longest in the registry has 17 letters (RFC 9110, section 16.1).
    if request.method().as_str().len() > METHOD_BYTES {
        return Err(reject(StatusCode::NOT_IMPLEMENTED, "The method is not known."));
    }
    if request.headers().len() > limits.header_count {
        // HTTP/1 has refused it before.
        return Err(reject(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, ""));
    }
    check_cookies(request, limits)?;
    let authority = authority(request)?;
    if let Some(expectation) = request.headers().get(EXPECT)
        && !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(reject(StatusCode::EXPECTATION_FAILED, ""));
    }
    Ok(authority)
}

const METHOD_BYTES: usize = 32;
/// Cookie lines of an HTTP/1 request. A browser sends one (RFC 6265, section 5.4); something on the way may have split it.
const COOKIE_LINES: usize = 16;

fn check_cookies<B>(request: &Request<B>, limits: &Limits) -> Result<(), Reject> {
    let (mut lines, mut cookies) = (0, 0);
    for value in request.headers().get_all(COOKIE) {
        lines += 1;
        cookies += value.as_bytes().split(|b| *b == b';').count();
    }
    if cookies > limits.cookies || lines > COOKIE_LINES {
        return Err(reject(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "The request has too many cookies."));
    }
    Ok(())
}

fn authority<B>(request: &mut Request<B>) -> Result<Box<str>, Reject> {
    let bad = |detail| Err(reject(StatusCode::BAD_REQUEST, detail));
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return bad("The request has more than one Host header.");
    }
    let host = match host {
        None if request.version() >= Version::HTTP_11 => return bad("The request has no Host header."),
        None => None,
        Some(value) => match value.to_str().ok().filter(|text| parse_host(text).is_ok()) {
            None => return bad("The Host header is not valid."),
            Some(text) => Some(text),
        },
    };
    let uri = request.uri();
    let Some(scheme) = uri.scheme() else {
        return Ok(host.unwrap_or_default().into());
    };
    if !matches!(scheme.as_str(), "http" | "https") {
        return bad("The scheme of the request target is neither http nor https.");
    }
    if request.version() == Version::HTTP_2 {
        return bad("The :authority of the request is not its Host.");
    }
    let target = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    if parse_host(target).is_err() {
        return bad("The host in the request target is not valid.");
    }
    let target: Box<str> = target.into();
    if host != Some(&*target)
        && let Ok(value) = HeaderValue::from_str(&target)
    {
        request.headers_mut().insert(HOST, value);
    }
    Ok(target)
}
