//! What every response must satisfy before it goes to the wire, whoever made it.

use std::sync::Arc;

use http::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HeaderName, HeaderValue, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as HttpBody;
use wharf_kernel::Body;

use crate::error_page;
use crate::link::Link;

/// What must be known of the request once the endpoint owns it.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) accept: Option<HeaderValue>,
    /// Whether it came with a Transfer-Encoding.
    pub(crate) chunked: bool,
    /// The connection, where the request asks to upgrade it (RFC 9110, section 7.8).
    pub(crate) upgrade: Option<Arc<Link>>,
    /// Whether it has an expectation.
    pub(crate) expects: bool,
    /// Cookies, and the lines they are in.
    pub(crate) cookies: usize,
    pub(crate) cookie_lines: usize,
}

impl Asked {
    pub(crate) fn of<B>(request: &Request<B>, link: Option<&Arc<Link>>) -> Self {
        let method = request.method().clone();
        let mut this =
            Self { method, accept: None, chunked: false, upgrade: None, expects: false, cookies: 0, cookie_lines: 0 };
        for (name, value) in request.headers() {
            if *name == ACCEPT && this.accept.is_none() {
                this.accept = Some(value.clone());
            } else if *name == TRANSFER_ENCODING {
                this.chunked = true;
            } else if *name == UPGRADE && request.version() == Version::HTTP_11 {
                this.upgrade = link.cloned();
            } else if *name == EXPECT {
                this.expects = true;
            } else if *name == COOKIE {
                this.cookie_lines += 1;
                this.cookies += value.as_bytes().split(|b| *b == b';').count();
            }
        }
        this
    }
}

/// Makes a response one that can be sent: framing is the server's business (RFC 9112, section 6), 1xx is no final answer,
/// and an error without content gets the default page.
pub(crate) fn finish(response: &mut Response<Body>, asked: &Asked, id: &str, http2: bool) {
    let status = response.status();
    if status.is_informational() && !(status == StatusCode::SWITCHING_PROTOCOLS && asked.upgrade.is_some()) {
        tracing::warn!(request = id, "the application answered with status {status}, which is not a final one here");
        *response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    let status = response.status();
    let (mut hop_by_hop, mut has_length) = (false, false);
    // One walk over the few fields of a response costs less than a look-up for each name.
    for name in response.headers().keys() {
        hop_by_hop |= is_hop_by_hop(name);
        has_length |= *name == CONTENT_LENGTH;
    }
    if hop_by_hop && status != StatusCode::SWITCHING_PROTOCOLS {
        let headers = response.headers_mut();
        headers.remove(TRANSFER_ENCODING);
        headers.remove(KEEP_ALIVE);
        headers.remove(PROXY_CONNECTION);
        // Only `close` is an application's to say, and HTTP/2 has no such field (RFC 9113, section 8.2.2).
        if let Some(value) = headers.get(CONNECTION)
            && (http2 || !value.as_bytes().eq_ignore_ascii_case(b"close"))
        {
            headers.remove(CONNECTION);
        }
    }
    if (status.is_client_error() || status.is_server_error())
        && response.body().is_end_stream()
        && !response.headers().contains_key(CONTENT_TYPE)
        && !(asked.method == Method::HEAD && has_length)
    {
        error_page::fill(response, "", id, error_page::prefers_json(asked.accept.as_ref()));
    }
    if has_length {
        correct_length(response, asked, id);
    }
}

const KEEP_ALIVE: &str = "keep-alive";
const PROXY_CONNECTION: &str = "proxy-connection";

fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == TRANSFER_ENCODING || *name == CONNECTION || *name == KEEP_ALIVE || *name == PROXY_CONNECTION
}

/// Removes a Content-Length that is not the length of the content.
fn correct_length(response: &mut Response<Body>, asked: &Asked, id: &str) {
    let Some(value) = response.headers().get(CONTENT_LENGTH) else { return };
    let stated = Some(value).filter(|v| v.as_bytes().iter().all(u8::is_ascii_digit));
    let stated = stated.and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let several = response.headers().get_all(CONTENT_LENGTH).iter().nth(1).is_some();
    let bodiless = asked.method == Method::HEAD || response.status() == StatusCode::NOT_MODIFIED;
    let wrong = match (stated, response.body().size_hint().exact()) {
        (None, _) => true,
        (Some(stated), Some(exact)) => stated != exact && !(bodiless && exact == 0),
        (Some(_), None) => false,
    };
    if wrong || several {
        tracing::warn!(request = id, "the application set a wrong Content-Length, {value:?}; it is not sent");
        response.headers_mut().remove(CONTENT_LENGTH);
    }
}

/// Closes the connection after this response.
pub(crate) fn close(response: &mut Response<Body>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}
