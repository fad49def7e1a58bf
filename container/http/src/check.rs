//! What every request must satisfy before it is mapped; hyper has checked the grammar of the message before.

use std::cell::RefCell;

use http::header::{EXPECT, HOST, HeaderValue};
use http::{Method, StatusCode, Version};
use wharf_kernel::{Exchange, ShortText};
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

/// The length of the host in the authority of a request, which goes on with the port.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HostLen(usize);

impl HostLen {
    /// The host of this authority.
    pub(crate) fn of(self, authority: &str) -> &str {
        &authority[..self.0]
    }
}

/// Checks a request and notes the authority it is for: that of an absolute-form target, else the Host header (RFC 9112,
/// section 3.2); empty for HTTP/1.0 without either. The Host header is made to agree with it.
#[inline]
pub(crate) fn check(exchange: &mut Exchange, limits: &Limits, asked: &Asked) -> Result<HostLen, Reject> {
    let request = &exchange.request;
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
    let host = authority(exchange)?;
    let request = &exchange.request;
    if asked.expects
        && let Some(expectation) = request.headers().get(EXPECT)
        && !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(reject(StatusCode::EXPECTATION_FAILED, ""));
    }
    Ok(host)
}

/// The longest method in the registry has 17 letters (RFC 9110, section 16.1).
const METHOD_BYTES: usize = 32;
/// Cookie lines of a request. A browser sends one (RFC 6265, section 5.4); something on the way may have split it.
const COOKIE_LINES: usize = 16;

fn authority(exchange: &mut Exchange) -> Result<HostLen, Reject> {
    let bad = |detail| Err(reject(StatusCode::BAD_REQUEST, detail));
    let Exchange { request, authority, .. } = exchange;
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return bad("The request has more than one Host header.");
    }
    let host = match host {
        None if request.version() >= Version::HTTP_11 => return bad("The request has no Host header."),
        None => HostLen::default(),
        Some(value) => match parsed(value, authority) {
            None => return bad("The Host header is not valid."),
            Some(host) => host,
        },
    };
    let uri = request.uri();
    let Some(scheme) = uri.scheme() else { return Ok(host) };
    if !matches!(scheme.as_str(), "http" | "https") {
        return bad("The scheme of the request target is neither http nor https.");
    }
    if request.version() == Version::HTTP_2 {
        return bad("The :authority of the request is not its Host.");
    }
    let target = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let Ok(parsed) = parse_host(target) else { return bad("The host in the request target is not valid.") };
    let host = HostLen(parsed.host.len());
    if *authority != *target {
        *authority = target.into();
        if let Ok(value) = HeaderValue::from_str(authority) {
            request.headers_mut().insert(HOST, value);
        }
    }
    Ok(host)
}

thread_local! {
    /// The last Host header that this thread saw, and what it says: most requests name the same host.
    static LAST: RefCell<(HeaderValue, ShortText, HostLen)> =
        RefCell::new((HeaderValue::from_static(""), ShortText::default(), HostLen::default()));
}

/// Takes a Host header apart. The authority is noted where it is to be: a text that has just been moved is slow to move again.
fn parsed(value: &HeaderValue, authority: &mut ShortText) -> Option<HostLen> {
    LAST.with_borrow_mut(|(last, text, host)| {
        if last.is_empty() || last != value {
            let said = value.to_str().ok()?;
            (*text, *host) = (said.into(), HostLen(parse_host(said).ok()?.host.len()));
            // A copy: the value itself would keep all that was read with it.
            *last = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        }
        authority.clone_from(text);
        Some(*host)
    })
}

/// A Host header that says this.
pub(crate) fn host_value(authority: &str) -> Option<HeaderValue> {
    LAST.with_borrow(|(last, ..)| match last.as_bytes() == authority.as_bytes() {
        true => Some(last.clone()),
        false => HeaderValue::from_str(authority).ok(),
    })
}
