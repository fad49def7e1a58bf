//! The client behind trusted proxies: X-Forwarded-For and Forwarded (RFC 7239), read from the right, as far as they are
//! trusted.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use ipnet::IpNet;
use wharf_kernel::Connection;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whether an address belongs to a trusted proxy.
pub(crate) fn is_trusted(trusted: &[IpNet], addr: Option<SocketAddr>) -> bool {
    addr.is_some_and(|addr| covers(trusted, addr.ip()))
}

fn covers(trusted: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    trusted.iter().any(|net| net.contains(&ip))
}

/// What applies to one request of a connection: the connection itself, or what a trusted peer says of the one behind it.
pub(crate) fn resolve<'a>(
    trusted: &[IpNet],
    connection: &'a Arc<Connection>,
    headers: &HeaderMap,
) -> Cow<'a, Arc<Connection>> {
    if trusted.is_empty() || !is_trusted(trusted, connection.peer) || connection.remote != connection.peer {
        return Cow::Borrowed(connection);
    }
    let forwarded = if headers.contains_key(X_FORWARDED_FOR) {
        Some(plain(headers))
    } else if headers.contains_key(FORWARDED) {
        Some(structured(headers))
    } else {
        None
    };
    let hops = forwarded.unwrap_or_default();
    // From the right: each entry was written by the proxy after it, so it is believed as long as that one is trusted.
    let mut client = connection.remote;
    let mut secure = connection.secure;
    let mut said_proto = false;
    for hop in hops.iter().rev() {
        if let Some(proto) = hop.secure {
            (secure, said_proto) = (proto, true);
        }
        let Some(addr) = hop.node else { break };
        client = Some(addr);
        if !covers(trusted, addr.ip()) {
            break;
        }
    }
    if !said_proto && let Some(proto) = elements(headers, &X_FORWARDED_PROTO).last() {
        secure = proto.eq_ignore_ascii_case("https");
    }
    Cow::Owned(Arc::new(connection.behind(client, secure)))
}

/// Reads what a trusted proxy says in these bytes, for the fuzz targets.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let Ok(value) = http::HeaderValue::from_bytes(bytes) else { return };
    let (all, peer) = (["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap()), "127.0.0.1:80".parse().ok());
    for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, FORWARDED] {
        let headers = HeaderMap::from_iter([(name, value.clone())]);
        resolve(&all, &Arc::new(Connection::new(peer, None, false)), &headers);
    }
}

#[derive(Debug, PartialEq)]
struct Hop {
    /// `None` where it is hidden, or no address.
    node: Option<SocketAddr>,
    secure: Option<bool>,
}

fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().flat_map(|field| field.to_str().unwrap_or("?").split(',')).map(str::trim)
}

fn plain(headers: &HeaderMap) -> Vec<Hop> {
    elements(headers, &X_FORWARDED_FOR).map(|text| Hop { node: node(text), secure: None }).collect()
}

/// Forwarded: elements separated by commas, pairs by semicolons; both may stand inside quotes, where they separate nothing.
fn structured(headers: &HeaderMap) -> Vec<Hop> {
    let mut hops = Vec::new();
    for field in headers.get_all(FORWARDED) {
        for element in split_unquoted(field.to_str().unwrap_or("?"), ',') {
            let mut hop = Hop { node: None, secure: None };
            for pair in split_unquoted(element, ';') {
                let Some((name, value)) = pair.split_once('=') else { continue };
                let value = value.trim().trim_matches('"');
                if name.trim().eq_ignore_ascii_case("for") {
                    hop.node = node(value);
                } else if name.trim().eq_ignore_ascii_case("proto") {
                    hop.secure = Some(value.eq_ignore_ascii_case("https"));
                }
            }
            hops.push(hop);
        }
    }
    hops
}

fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |c: char| {
        if escaped {
            escaped = false;
        } else if quoted && c == '\\' {
            escaped = true;
        } else if c == '"' {
            quoted = !quoted;
        }
        c == separator && !quoted
    })
}

/// `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]` or `[::1]:5`. A port that is not given is 0.
fn node(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Some(SocketAddr::new(addr.ip().to_canonical(), addr.port()));
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip.to_canonical(), 0))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn nets() -> Vec<IpNet> {
        ["10.0.0.0/8", "fd00::/8"].iter().map(|n| n.parse().unwrap()).collect()
    }

    fn client(peer: &str, fields: &[(HeaderName, &str)]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let connection = Arc::new(Connection::new(peer.parse().ok(), None, false));
        let found = resolve(&nets(), &connection, &headers);
        (found.remote.unwrap().ip().to_string(), found.secure)
    }

    #[test]
    fn only_trusted_hops_are_believed() {
        let xff = X_FORWARDED_FOR;
        for (peer, fields, expected) in [
            ("192.0.2.1:5", vec![(xff.clone(), "1.1.1.1")], "192.0.2.1"),
            ("10.0.0.1:5", vec![(xff.clone(), "1.1.1.1")], "1.1.1.1"),
            ("10.0.0.1:5", vec![], "10.0.0.1"),
            ("10.0.0.1:5", vec![(xff.clone(), "6.6.6.6, 1.1.1.1, 10.0.0.2")], "1.1.1.1"),
            ("10.0.0.1:5", vec![(xff.clone(), "6.6.6.6"), (xff.clone(), "1.1.1.1")], "1.1.1.1"),
            ("10.0.0.1:5", vec![(xff.clone(), "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            ("10.0.0.1:5", vec![(xff.clone(), "1.1.1.1, nonsense")], "10.0.0.1"),
            ("10.0.0.1:5", vec![(xff.clone(), "1.1.1.1, , 10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1:5", vec![(xff.clone(), "[2001:db8::1]:44")], "2001:db8::1"),
            ("[::ffff:10.0.0.1]:5", vec![(xff, "1.1.1.1")], "1.1.1.1"),
            ("10.0.0.1:5", vec![(FORWARDED, "for=6.6.6.6, For=\"[2001:db8::2]:1\";by=x")], "2001:db8::2"),
            ("10.0.0.1:5", vec![(FORWARDED, "for=\"1.1.1.1,2\", for=3.3.3.3")], "3.3.3.3"),
            ("10.0.0.1:5", vec![(FORWARDED, "for=6.6.6.6, for=_hidden")], "10.0.0.1"),
        ] {
            assert_eq!(client(peer, &fields).0, expected, "{peer} {fields:?}");
        }
    }

    #[test]
    fn the_scheme_is_taken_from_the_same_hop() {
        assert!(client("10.0.0.1:5", &[(X_FORWARDED_FOR, "1.1.1.1"), (X_FORWARDED_PROTO, "https")]).1);
        assert!(!client("10.0.0.1:5", &[(X_FORWARDED_FOR, "1.1.1.1"), (X_FORWARDED_PROTO, "https, http")]).1);
        assert!(client("10.0.0.1:5", &[(FORWARDED, "for=6.6.6.6;proto=http, for=1.1.1.1;proto=https")]).1);
        assert!(!client("192.0.2.1:5", &[(X_FORWARDED_PROTO, "https")]).1);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_a_stranger_is_never_believed(xff in "[ -~]{0,60}", forwarded in "[ -~]{0,60}") {
            let fields = [(X_FORWARDED_FOR, &*xff), (FORWARDED, &*forwarded)];
            prop_assert_eq!(client("192.0.2.1:5", &fields).0, "192.0.2.1");
            client("10.0.0.1:5", &fields);
            client("10.0.0.1:5", &fields[1..]);
        }
    }
}
