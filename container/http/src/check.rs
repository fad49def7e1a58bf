//! What every request must satisfy before it is mapped; hyper has checked the grammar of the message before.

use std::cell::RefCell;

use http::header::{EXPECT, HOST, HeaderValue};
use http::{Method, Request, StatusCode, Version};
use wharf_kernel::ShortText;
use wharf_mapping::parse_host;

use crate::Limits;
use crate::response::Asked;

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

/// Whom a request is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Authority {
    /// Host and port as sent.
    pub(crate) text: ShortText,
    /// Length of the host in it.
    host: usize,
}

impl Authority {
    /// The host, without the port.
    pub(crate) fn host(&self) -> &str {
        &self.text[..self.host]
    }
}

/// Checks a request and gives the authority it is for: that of an absolute-form target, else the Host header (RFC 9112,
/// section 3.2); empty for HTTP/1.0 without either. The Host header is made to agree with it.
#[inline]
pub(crate) fn check<B>(request: &mut Request<B>, limits: &Limits, asked: &Asked) -> Result<Authority, Reject> {
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
    if request.method().as_str().len() > METHOD_BYTES {
        return Err(reject(StatusCode::NOT_IMPLEMENTED, "The method is not known."));
    }
    if request.headers().len() > limits.header_count {
        // HTTP/1 has refused it before.
        return Err(reject(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, ""));
    }
    if asked.cookies > limits.cookies || asked.cookie_lines > COOKIE_LINES {
        return Err(reject(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "The request has too many cookies."));
    }
    let authority = authority(request)?;
    if asked.expects
        && let Some(expectation) = request.headers().get(EXPECT)
        && !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(reject(StatusCode::EXPECTATION_FAILED, ""));
    }
    Ok(authority)
}

/// The longest method in the registry has 17 letters (RFC 9110, section 16.1).
const METHOD_BYTES: usize = 32;
/// Cookie lines of a request. A browser sends one (RFC 6265, section 5.4); something on the way may have split it.
const COOKIE_LINES: usize = 16;

fn authority<B>(request: &mut Request<B>) -> Result<Authority, Reject> {
    let bad = |detail| Err(reject(StatusCode::BAD_REQUEST, detail));
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return bad("The request has more than one Host header.");
    }
    let host = match host {
        None if request.version() >= Version::HTTP_11 => return bad("The request has no Host header."),
        None => None,
        Some(value) => match parsed(value) {
            None => return bad("The Host header is not valid."),
            some => some,
        },
    };
    let uri = request.uri();
    let Some(scheme) = uri.scheme() else { return Ok(host.unwrap_or_default()) };
    if !matches!(scheme.as_str(), "http" | "https") {
        return bad("The scheme of the request target is neither http nor https.");
    }
    if request.version() == Version::HTTP_2 {
        return bad("The :authority of the request is not its Host.");
    }
    let target = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let Ok(parsed) = parse_host(target) else { return bad("The host in the request target is not valid.") };
    let target = Authority { text: target.into(), host: parsed.host.len() };
    if host.is_none_or(|host| host.text != target.text)
        && let Ok(value) = HeaderValue::from_str(&target.text)
    {
        request.headers_mut().insert(HOST, value);
    }
    Ok(target)
}

thread_local! {
    /// The last Host header that this thread saw, and what it says: most requests name the same host.
    static LAST: RefCell<(HeaderValue, Authority)> = RefCell::new((HeaderValue::from_static(""), Authority::default()));
}

/// A Host header, taken apart.
fn parsed(value: &HeaderValue) -> Option<Authority> {
    LAST.with_borrow_mut(|(last, authority)| {
        if last.is_empty() || last != value {
            let text = value.to_str().ok()?;
            *authority = Authority { text: text.into(), host: parse_host(text).ok()?.host.len() };
            // A copy: the value itself would keep all that was read with it.
            *last = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        }
        Some(authority.clone())
    })
}

/// A Host header that says this.
pub(crate) fn host_value(authority: &str) -> Option<HeaderValue> {
    LAST.with_borrow(|(last, _)| match last.as_bytes() == authority.as_bytes() {
        true => Some(last.clone()),
        false => HeaderValue::from_str(authority).ok(),
    })
}
