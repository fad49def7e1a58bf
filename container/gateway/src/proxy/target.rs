//! Where a backend is: its URL, taken apart once.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use http::{HeaderValue, Uri};

/// A backend's URL.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// As it was written.
    pub(crate) url: Box<str>,
    /// How it is reached.
    pub(crate) place: Place,
    /// Whether over TLS.
    pub(crate) secure: bool,
    /// For a Host header that names the backend.
    pub(crate) host: HeaderValue,
    /// What stands before every path: empty, or `/a/b`.
    pub(crate) base: Box<str>,
}

/// How a backend is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// An address.
    Address(SocketAddr),
    /// A name that is looked up, and a port.
    Name(Box<str>, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, and how one looks.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let bad = |what: &str| {
            Err(format!(
                "backend '{url}': {what}; write \"http://HOST:PORT\", \"https://HOST\" or \"unix:/path/of/socket\""
            ))
        };
        let localhost = HeaderValue::from_static("localhost");
        if let Some(path) = url.strip_prefix("unix:") {
            if path.is_empty() {
                return bad("there is no path after 'unix:'");
            }
            let place = Place::Unix(path.into());
            return Ok(Self { url: url.into(), place, secure: false, host: localhost, base: "".into() });
        }
        let Ok(uri) = url.parse::<Uri>() else { return bad("is not a URL") };
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return bad("the scheme is neither http nor https"),
        };
        let Some(authority) = uri.authority() else { return bad("there is no host") };
        if authority.as_str().contains('@') {
            return bad("a user name has no place in it");
        }
        if uri.query().is_some() || url.contains('#') {
            return bad("a query has no place in it");
        }
        let port = match (uri.port_u16(), authority.as_str().rsplit_once(':')) {
            (Some(0), _) => return bad("port 0 is none"),
            (Some(port), _) => port,
            (None, Some((_, after))) if !after.ends_with(']') => return bad("the port is no number from 1 to 65535"),
            (None, _) => 80 + u16::from(secure) * 363,
        };
        let name = uri.host().unwrap_or_default();
        let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
        if bare.is_empty() {
            return bad("there is no host");
        }
        let place = match bare.parse::<IpAddr>() {
            Ok(ip) => Place::Address(SocketAddr::new(ip, port)),
            Err(_) => Place::Name(bare.into(), port),
        };
        let host = HeaderValue::from_str(authority.as_str()).unwrap_or(localhost);
        Ok(Self { url: url.into(), place, secure, host, base: uri.path().trim_end_matches('/').into() })
    }

    /// The name for its certificate.
    pub(crate) fn name(&self) -> String {
        match &self.place {
            Place::Address(addr) => addr.ip().to_string(),
            Place::Name(name, _) => name.to_string(),
            Place::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_taken_has_a_host_and_a_plain_base(url in "(http|https|unix|ftp)?:?(//)?[ -~é]{0,24}") {
            if let Ok(target) = Target::parse(&url) {
                prop_assert!(!target.host.is_empty() && !target.base.ends_with('/') && !target.base.contains('?'));
                prop_assert!(!target.name().is_empty());
            }
        }
    }

    #[test]
    fn urls() {
        let place = |url: &str| Target::parse(url).unwrap().place;
        assert_eq!(place("http://127.0.0.1:9000"), Place::Address("127.0.0.1:9000".parse().unwrap()));
        assert_eq!(place("https://[::1]"), Place::Address("[::1]:443".parse().unwrap()));
        assert_eq!(place("http://app.internal/x/"), Place::Name("app.internal".into(), 80));
        assert_eq!(place("unix:/run/app.sock"), Place::Unix("/run/app.sock".into()));
        assert_eq!(&*Target::parse("http://a/x/").unwrap().base, "/x");
        assert_eq!(&*Target::parse("http://a").unwrap().base, "");
        for bad in
            ["", "a:1", "ftp://a", "http://", "http://u@h", "http://a?x", "unix:", "http://a:0", "http://a:99999", "/x"]
        {
            let error = Target::parse(bad).unwrap_err();
            assert!(error.contains("http://HOST:PORT"), "{bad:?}: {error}");
        }
    }
}
