//! The header fields of a request on its way to a backend and of a response on its way back (RFC 9110, 7.6; RFC 7239).

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use http::header::{CONNECTION, FORWARDED, HeaderMap, HeaderName, HeaderValue, UPGRADE, VIA};
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

/// What no backend gets from a client. The body is framed anew, from what was read of it. The X- ones have no lists to
/// continue: nobody but us says them.
const NOT_FORWARDED: [&str; 10] = [
    "content-length",
    "expect",
    "proxy-authorization",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-scheme",
    "x-forwarded-prefix",
    "x-original-url",
    "x-rewrite-url",
];

/// What only a trusted proxy may have begun.
const CONTINUED: [&str; 4] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"];

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
    remove_named(headers);
    remove_where(headers, |name| HOP_BY_HOP.contains(&name));
}

/// Removes what a Connection field names.
fn remove_named(headers: &mut HeaderMap) {
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
}

/// Removes all fields whose name is meant. Most messages have few fields, so looking at each is less work than looking up
/// everything that there might be.
fn remove_where(headers: &mut HeaderMap, is_meant: impl Fn(&str) -> bool) {
    let meant: Vec<HeaderName> = headers.keys().filter(|name| is_meant(name.as_str())).cloned().collect();
    meant.iter().for_each(|name| _ = headers.remove(name));
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
pub(crate) fn is_loop(headers: &HeaderMap, pseudonym: &Pseudonym) -> bool {
    if !headers.contains_key(VIA) {
        return false;
    }
    let ours = |hop: &str| hop.split_ascii_whitespace().nth(1) == Some(&pseudonym.name);
    tokens(headers, &VIA).any(ours) || tokens(headers, &VIA).count() >= MAX_HOPS
}

/// Adds to a list. No value is one that can't be in a field.
fn append(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    let Some(mut value) = value else { return };
    if headers.contains_key(&name) {
        let before: Vec<&str> = tokens(headers, &name).collect();
        let joined = format!("{}, {}", before.join(", "), value.to_str().unwrap_or_default());
        let Ok(joined) = HeaderValue::from_str(&joined) else { return };
        value = joined;
    }
    headers.insert(name, value);
}

/// Our name in Via.
#[derive(Debug)]
pub(crate) struct Pseudonym {
    name: String,
    /// The field for a message that came over HTTP/1.1.
    usual: Option<HeaderValue>,
}

impl Pseudonym {
    pub(crate) fn new(name: String) -> Self {
        Self { usual: HeaderValue::from_str(&format!("1.1 {name}")).ok(), name }
    }

    /// Adds us to the Via of a message.
    pub(crate) fn add_via(&self, headers: &mut HeaderMap, version: Version) {
        let version = match version {
            Version::HTTP_09 | Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            Version::HTTP_3 => "3",
            _ => return append(headers, VIA, self.usual.clone()),
        };
        append(headers, VIA, HeaderValue::from_str(&format!("{version} {}", self.name)).ok());
    }
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
    pub(crate) pseudonym: &'a Pseudonym,
}

/// An address, or that it is not known.
struct Ip(Option<IpAddr>);

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("unknown"),
            Some(ip) => ip.fmt(f),
        }
    }
}

/// The values of new fields, in one piece of memory: to make and to copy each for itself costs more than to write it.
struct Text(BytesMut);

impl Text {
    /// `None` for what can't be in a field.
    fn value(&mut self, value: fmt::Arguments<'_>) -> Option<HeaderValue> {
        self.0.write_fmt(value).ok()?;
        HeaderValue::from_maybe_shared(self.0.split().freeze()).ok()
    }
}

/// Makes the fields of a request those that a backend gets. What an untrusted client says of itself is replaced.
pub(crate) fn outgoing(headers: &mut HeaderMap, facts: &Facts<'_>, upgrade: Option<&HeaderValue>) {
    remove_named(headers);
    let connection = facts.connection;
    remove_where(headers, |name| {
        HOP_BY_HOP.contains(&name)
            || NOT_FORWARDED.contains(&name)
            || (!connection.trusted && CONTINUED.contains(&name))
            || is_lookalike(name)
    });
    headers.reserve(8);
    let mut text = Text(BytesMut::with_capacity(256));
    let from = if connection.trusted { connection.peer } else { connection.remote };
    let proto = if connection.secure { "https" } else { "http" };
    let ip = from.map(|a: SocketAddr| a.ip().to_canonical());
    let for_ip = text.value(format_args!("{}", Ip(ip)));
    append(headers, X_FORWARDED_FOR, for_ip);
    let quote = if matches!(ip, Some(IpAddr::V6(_))) { ("\"[", "]\"") } else { ("", "") };
    let node = format_args!("for={}{}{}", quote.0, Ip(ip), quote.1);
    let host = facts.authority;
    let forwarded = if host.is_empty() {
        text.value(format_args!("{node};proto={proto}"))
    } else if host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        text.value(format_args!("{node};host={host};proto={proto}"))
    } else {
        text.value(format_args!("{node};host=\"{}\";proto={proto}", host.replace(['"', '\\'], "")))
    };
    append(headers, FORWARDED, forwarded);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    let mut set = |name: HeaderName, value: std::fmt::Arguments<'_>| {
        if let Some(value) = text.value(value) {
            headers.insert(name, value);
        }
    };
    set(X_REAL_IP, format_args!("{}", Ip(connection.remote.map(|a| a.ip().to_canonical()))));
    set(X_REQUEST_ID, format_args!("{}", facts.id));
    if !facts.prefix.is_empty() {
        set(X_FORWARDED_PREFIX, format_args!("{}", facts.prefix));
    }
    if !(connection.trusted && headers.contains_key(X_FORWARDED_HOST))
        && let Some(value) = text.value(format_args!("{host}"))
    {
        headers.insert(X_FORWARDED_HOST, value);
    }
    facts.pseudonym.add_via(headers, facts.version);
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade.clone());
    }
}

/// Whether many backends take this name with an underscore for one of ours.
fn is_lookalike(name: &str) -> bool {
    name.contains('_') && {
        let name = name.replace('_', "-");
        name.starts_with("x-forwarded-") || END_TO_END.contains(&&*name) || HOP_BY_HOP.contains(&&*name)
    }
}

/// Makes the fields of a response those that the client gets.
pub(crate) fn incoming(headers: &mut HeaderMap, version: Version, pseudonym: &Pseudonym, upgraded: bool) {
    let upgrade = headers.get(UPGRADE).filter(|_| upgraded).cloned();
    remove_hop_by_hop(headers);
    pseudonym.add_via(headers, version);
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
            pseudonym: &Pseudonym::new("wharf-x".into()),
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
        let us = Pseudonym::new("wharf-x".into());
        assert!(is_loop(&map(&[("via", "1.1 edge, 1.1 wharf-x")]), &us));
        assert!(!is_loop(&map(&[("via", "1.1 wharf-y")]), &us));
        let long = vec!["1.1 a"; MAX_HOPS].join(",");
        let mut headers = HeaderMap::new();
        headers.insert(VIA, long.parse().unwrap());
        assert!(is_loop(&headers, &us));
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
