//! The header fields of a request on its way to a backend and of a response on its way back (RFC 9110, 7.6; RFC 7239).

use std::net::{IpAddr, SocketAddr};

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HeaderMap, HeaderName, HeaderValue, UPGRADE, VIA};
use http::{Method, Version};
use wharf_kernel::Connection;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is between two neighbours only.
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// What a Connection field may not take away: the message would mean something else without it.
const END_TO_END: &[&str] = &[
    "authorization",
    "cache-control",
    "content-encoding",
    "content-language",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expires",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "origin",
    "range",
    "referer",
    "set-cookie",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
    "x-real-ip",
    "x-request-id",
    "content-length",
    "content-security-policy",
    "strict-transport-security",
    "access-control-allow-origin",
    "allow",
    "age",
    "accept",
    "accept-encoding",
    "accept-language",
    "retry-after",
    "x-content-type-options",
    "x-frame-options",
];

/// More proxies than this before us are a loop that we don't see.
const MAX_HOPS: usize = 16;

/// Removes what concerns the neighbour alone, and what it names as such.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
            .filter_map(|name| name.parse().ok())
            .filter(|n: &HeaderName| {
                !n.as_str().starts_with("x-forwarded-")
                    && !n.as_str().starts_with("sec-")
                    && !END_TO_END.contains(&n.as_str())
            })
            .collect();
        named.iter().for_each(|name| _ = headers.remove(name));
    }
    HOP_BY_HOP.iter().for_each(|name| _ = headers.remove(*name));
}

/// The elements of a field that is a list.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let fields = headers.get_all(name).into_iter().filter_map(|field| field.to_str().ok());
    fields.flat_map(|field| field.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// The protocol that a request asks to change to, if it does.
pub(crate) fn asks_upgrade(method: &Method, version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let upgrade = headers.get(UPGRADE)?;
    let asks = version == Version::HTTP_11
        && *method == Method::GET
        && tokens(headers, &CONNECTION).any(|t| t.eq_ignore_ascii_case("upgrade"))
        // h2c would put requests past this proxy on the same connection.
        && !upgrade.as_bytes().to_ascii_lowercase().starts_with(b"h2c");
    asks.then(|| upgrade.clone())
}

/// Whether a request has been here already, or went through too many others.
pub(crate) fn is_loop(headers: &HeaderMap, pseudonym: &str) -> bool {
    if !headers.contains_key(VIA) {
        return false;
    }
    let ours = |hop: &str| hop.split_ascii_whitespace().nth(1) == Some(pseudonym);
    tokens(headers, &VIA).any(ours) || tokens(headers, &VIA).count() >= MAX_HOPS
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let joined = match headers.get(&name) {
        None => HeaderValue::from_str(value),
        Some(_) => {
            let before: Vec<&str> = tokens(headers, &name).collect();
            HeaderValue::from_str(&format!("{}, {value}", before.join(", ")))
        }
    };
    if let Ok(joined) = joined {
        headers.insert(name, joined);
    }
}

/// Adds us to the Via of a message.
pub(crate) fn add_via(headers: &mut HeaderMap, version: Version, pseudonym: &str) {
    let version = match version {
        Version::HTTP_09 | Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    };
    append(headers, VIA, &format!("{version} {pseudonym}"));
}

/// What a request tells a backend about where it came from.
pub(crate) struct Facts<'a> {
    pub(crate) connection: &'a Connection,
    /// The host that the client asked for.
    pub(crate) authority: &'a str,
    /// What was taken off the path.
    pub(crate) prefix: &'a str,
    pub(crate) id: &'a str,
    pub(crate) version: Version,
    pub(crate) pseudonym: &'a str,
}

/// Makes the fields of a request those that a backend gets. What an untrusted client says of itself is replaced.
pub(crate) fn outgoing(headers: &mut HeaderMap, facts: &Facts<'_>, upgrade: Option<&HeaderValue>) {
    remove_hop_by_hop(headers);
    // The body is framed anew, from what was read of it.
    headers.remove(CONTENT_LENGTH);
    headers.remove(EXPECT);
    headers.remove("proxy-authorization");
    remove_lookalikes(headers);
    let connection = facts.connection;
    if !connection.trusted {
        for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, FORWARDED] {
            headers.remove(name);
        }
    }
    // These have no lists to continue: nobody but us says them.
    for name in ["x-forwarded-port", "x-forwarded-server", "x-forwarded-ssl", "x-forwarded-scheme", "x-original-url"] {
        headers.remove(name);
    }
    headers.remove("x-rewrite-url");
    headers.remove(X_FORWARDED_PREFIX);
    let from = if connection.trusted { connection.peer } else { connection.remote };
    let proto = if connection.secure { "https" } else { "http" };
    let ip = from.map(|a: SocketAddr| a.ip().to_canonical());
    append(headers, X_FORWARDED_FOR, &ip.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string()));
    let node = match ip {
        None => "unknown".to_owned(),
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("\"[{ip}]\""),
    };
    let host = if facts.authority.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        facts.authority.to_owned()
    } else {
        format!("\"{}\"", facts.authority.replace(['"', '\\'], ""))
    };
    let host = if facts.authority.is_empty() { String::new() } else { format!(";host={host}") };
    append(headers, FORWARDED, &format!("for={node}{host};proto={proto}"));
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(X_FORWARDED_PROTO, proto);
    set(X_REAL_IP, &connection.remote.map_or_else(|| "unknown".into(), |a| a.ip().to_canonical().to_string()));
    set(X_REQUEST_ID, facts.id);
    if !facts.prefix.is_empty() {
        set(X_FORWARDED_PREFIX, facts.prefix);
    }
    if !(connection.trusted && headers.contains_key(X_FORWARDED_HOST))
        && let Ok(value) = HeaderValue::from_str(facts.authority)
    {
        headers.insert(X_FORWARDED_HOST, value);
    }
    add_via(headers, facts.version, facts.pseudonym);
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade.clone());
    }
}

/// Names with an underscore that many backends take for one of ours.
fn remove_lookalikes(headers: &mut HeaderMap) {
    if headers.keys().any(|n| n.as_str().contains('_')) {
        let alike: Vec<HeaderName> = headers
            .keys()
            .filter(|n| {
                let name = n.as_str().replace('_', "-");
                n.as_str().contains('_')
                    && (name.starts_with("x-forwarded-")
                        || END_TO_END.contains(&&*name)
                        || HOP_BY_HOP.contains(&&*name))
            })
            .cloned()
            .collect();
        alike.iter().for_each(|name| _ = headers.remove(name));
    }
}

/// Makes the fields of a response those that the client gets.
pub(crate) fn incoming(headers: &mut HeaderMap, version: Version, pseudonym: &str, upgraded: bool) {
    let upgrade = headers.get(UPGRADE).filter(|_| upgraded).cloned();
    remove_hop_by_hop(headers);
    add_via(headers, version, pseudonym);
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    fn sent(fields: &[(&'static str, &'static str)], trusted: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        fields.iter().for_each(|(n, v)| _ = headers.append(*n, v.parse().unwrap()));
        let addr = |a: &str| a.parse().ok();
        let mut connection = Connection::new(addr("203.0.113.7:1"), None, false);
        if trusted {
            connection = connection.behind(addr("198.51.100.1:0"), true);
        }
        let facts = Facts {
            connection: &connection,
            authority: "shop.example:8080",
            prefix: "/shop",
            id: "7",
            version: Version::HTTP_11,
            pseudonym: "wharf-x",
        };
        outgoing(&mut headers, &facts, None);
        headers
    }

    #[test]
    fn a_connection_field_takes_away_what_is_the_hops_and_nothing_else() {
        let mut headers = map(&[
            ("connection", "x-hop, authorization, X-Real-IP, close, x-forwarded-for, cookie"),
            ("x-hop", "1"),
            ("authorization", "secret"),
            ("x-real-ip", "1"),
            ("x-forwarded-for", "2"),
            ("cookie", "a=b"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
        ]);
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "cookie", "x-forwarded-for", "x-real-ip"]);
    }

    #[test]
    fn what_a_stranger_says_of_itself_is_replaced() {
        let lies = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "1"),
            ("x_forwarded_for", "10.0.0.3"),
            ("x-real-ip", "10.0.0.4"),
            ("x-original-url", "/admin"),
            ("content-length", "5"),
        ];
        let headers = sent(&lies, false);
        for (name, value) in [
            ("x-forwarded-for", "203.0.113.7"),
            ("forwarded", "for=203.0.113.7;host=\"shop.example:8080\";proto=http"),
            ("x-forwarded-host", "shop.example:8080"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-prefix", "/shop"),
            ("x-real-ip", "203.0.113.7"),
            ("via", "1.1 wharf-x"),
        ] {
            assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
        }
        for gone in ["x_forwarded_for", "x-forwarded-port", "x-original-url", "content-length"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn what_a_trusted_proxy_says_is_continued() {
        let headers = sent(&[("x-forwarded-for", "198.51.100.1"), ("x-forwarded-host", "a"), ("via", "2 edge")], true);
        assert_eq!(headers["x-forwarded-for"], "198.51.100.1, 203.0.113.7");
        assert_eq!(headers["x-forwarded-host"], "a");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-real-ip"], "198.51.100.1");
        assert_eq!(headers["via"], "2 edge, 1.1 wharf-x");
    }

    #[test]
    fn loops_are_seen() {
        assert!(is_loop(&map(&[("via", "1.1 edge, 1.1 wharf-x")]), "wharf-x"));
        assert!(!is_loop(&map(&[("via", "1.1 wharf-y")]), "wharf-x"));
        let long = vec!["1.1 a"; MAX_HOPS].join(",");
        let mut headers = HeaderMap::new();
        headers.insert(VIA, long.parse().unwrap());
        assert!(is_loop(&headers, "wharf-x"));
    }

    #[test]
    fn an_upgrade_must_be_asked_for_properly() {
        let asks = |upgrade, connection, version| {
            asks_upgrade(&Method::GET, version, &map(&[("upgrade", upgrade), ("connection", connection)])).is_some()
        };
        assert!(asks("websocket", "keep-alive, Upgrade", Version::HTTP_11));
        assert!(!asks("websocket", "keep-alive", Version::HTTP_11));
        assert!(!asks("h2c", "upgrade", Version::HTTP_11));
        assert!(!asks("websocket", "upgrade", Version::HTTP_10));
    }
}
