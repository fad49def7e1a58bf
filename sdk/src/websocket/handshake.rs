//! The opening handshake, from the server's side (RFC 6455, section 4.2).

use http::header::{
    self, ALLOW, CONNECTION, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::origin::Origins;
use crate::upgrade::has_token;
use crate::{Request, Response};

const VERSION: &str = "13";

/// What was agreed on.
pub(super) struct Accepted {
    accept: HeaderValue,
    pub(super) protocol: Option<String>,
}

fn refuse(status: StatusCode, why: &'static str) -> Response {
    Response::text(why).with_status(status)
}

fn upgrade_required(why: &'static str) -> Response {
    let mut response = refuse(StatusCode::UPGRADE_REQUIRED, why);
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
    response
}

/// The only field of this name.
fn single(request: &Request, name: HeaderName) -> Option<&HeaderValue> {
    let mut lines = request.headers().get_all(name).into_iter();
    lines.next().filter(|_| lines.next().is_none())
}

/// Whether this is the base64 of 16 bytes: 22 digits and two `=`, the last digit with its low four bits clear.
fn is_key(key: &[u8]) -> bool {
    let digit = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(digit) && b"AQgw".contains(&key[21])
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Checks a request. What is not right is answered as the standard asks.
pub(super) fn check(request: &Request, protocols: &[String], origins: &Origins) -> Result<Accepted, Box<Response>> {
    let bad = |why| Err(Box::new(refuse(StatusCode::BAD_REQUEST, why)));
    if *request.method() != Method::GET {
        let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, "A WebSocket is opened with GET.\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return Err(Box::new(response));
    }
    if request.version() != Version::HTTP_11 {
        return bad("A WebSocket is opened over HTTP/1.1 here.\n");
    }
    if !has_token(request.headers(), UPGRADE, "websocket") {
        return Err(Box::new(upgrade_required("This is a WebSocket: open it with `new WebSocket(url)`.\n")));
    }
    if !has_token(request.headers(), CONNECTION, "upgrade") {
        return bad("The Connection header does not say `upgrade`.\n");
    }
    match single(request, SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) {
        None => return bad("There is no Sec-WebSocket-Version, or more than one.\n"),
        Some(version) if version != VERSION.as_bytes() => {
            return Err(Box::new(upgrade_required("This server speaks version 13 of the WebSocket protocol.\n")));
        }
        Some(_) => {}
    }
    let key = match single(request, SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes) {
        Some(key) if is_key(key) => key,
        _ => return bad("The Sec-WebSocket-Key is missing, there twice, or not 16 bytes in base64.\n"),
    };
    if !request.body().is_empty() || request.headers().contains_key(header::TRANSFER_ENCODING) {
        return bad("A request that opens a WebSocket has no content.\n");
    }
    // A client that is no browser sends no origin, and has no user's cookies that it could be made to send.
    match request.headers().get_all(ORIGIN).into_iter().collect::<Vec<_>>()[..] {
        [] => {}
        [origin] if origins.allow(origin.to_str().unwrap_or_default(), request.authority(), request.is_secure()) => {}
        _ => {
            return Err(Box::new(refuse(StatusCode::FORBIDDEN, "Pages of this origin may not open this WebSocket.\n")));
        }
    }
    let Some(protocol) = protocol(request, protocols) else {
        return bad("The Sec-WebSocket-Protocol is not a list of distinct tokens.\n");
    };
    let Ok(accept) = HeaderValue::try_from(derive_accept_key(key)) else { return bad("") };
    Ok(Accepted { accept, protocol })
}

/// The first protocol that the client asks for and the server speaks. `None` where the client's list is no list.
fn protocol(request: &Request, spoken: &[String]) -> Option<Option<String>> {
    let mut asked = Vec::new();
    for line in request.headers().get_all(SEC_WEBSOCKET_PROTOCOL) {
        for token in line.to_str().ok()?.split(',').map(|token| token.trim_matches([' ', '\t'])) {
            if !is_token(token) || asked.contains(&token) {
                return None;
            }
            asked.push(token);
        }
    }
    Some(asked.into_iter().find(|it| spoken.iter().any(|s| s == it)).map(str::to_owned))
}

impl Accepted {
    /// The 101.
    pub(super) fn response(&self) -> Response {
        let mut response = Response::status(StatusCode::SWITCHING_PROTOCOLS);
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept.clone());
        if let Some(protocol) = &self.protocol
            && let Ok(protocol) = HeaderValue::from_str(protocol)
        {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        for (key, good) in [
            ("dGhlIHNhbXBsZSBub25jZQ==", true),
            ("AAAAAAAAAAAAAAAAAAAAAA==", true),
            ("dGhlIHNhbXBsZSBub25jZR==", false),
            ("dGhlIHNhbXBsZSBub25jZQ=", false),
            ("dGhlIHNhbXBsZSBub25jZQ", false),
            ("dGhlIHNhbXBsZSBub25j", false),
            ("dGhlIHNhbXBsZSBub25jZSE=", false),
            ("dGhlIHNhbXBsZSBub25j!Q==", false),
            ("", false),
        ] {
            assert_eq!(is_key(key.as_bytes()), good, "{key}");
        }
        // The example of RFC 6455, section 1.3.
        assert_eq!(derive_accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
