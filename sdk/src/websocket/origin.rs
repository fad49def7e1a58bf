//! Which pages may open a WebSocket: a browser sends cookies along from any page, so the server has to look (RFC 6455,
//! section 10.2).

/// The pages that may.
#[derive(Debug, Clone, Default)]
pub(super) enum Origins {
    /// Those of this host.
    #[default]
    Same,
    /// Those of this host, and these.
    Listed(Vec<String>),
    /// All.
    Any,
}

/// Scheme, host and port of an origin, in lower case, with the scheme's own port where none is said.
fn parse(origin: &str) -> Option<(String, String, u16)> {
    let (scheme, authority) = origin.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let usual = match scheme.as_str() {
        "http" | "ws" => 80,
        "https" | "wss" => 443,
        _ => return None,
    };
    let (host, port) = split(authority)?;
    Some((scheme, host, port.unwrap_or(usual)))
}

fn split(authority: &str) -> Option<(String, Option<u16>)> {
    if authority.is_empty() || authority.contains(['/', '@', '?', '#']) {
        return None;
    }
    let colon = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
    let (host, port) = match colon {
        None => (authority, None),
        Some(at) => (&authority[..at], Some(authority[at + 1..].parse().ok()?)),
    };
    Some((host.to_ascii_lowercase(), port))
}

impl Origins {
    /// Whether a page of this origin may open a WebSocket at `authority`.
    pub(super) fn allow(&self, origin: &str, authority: &str, secure: bool) -> bool {
        let listed: &[String] = match self {
            Self::Any => return true,
            Self::Same => &[],
            Self::Listed(listed) => listed,
        };
        let Some(found) = parse(origin) else { return false };
        if listed.iter().any(|it| parse(it).as_ref() == Some(&found)) {
            return true;
        }
        let Some((host, port)) = split(authority) else { return false };
        let (scheme, from_host, from_port) = found;
        // A page that came unencrypted may be anybody's. The other way round it is the proxy in front that encrypts.
        let weaker = secure && scheme == "http";
        let usual = if scheme == "https" { 443 } else { 80 };
        !weaker && from_host == host && from_port == port.unwrap_or(usual)
    }
}

/// Whether this can be an entry of the list.
pub(super) fn is_valid(origin: &str) -> bool {
    parse(origin).is_some_and(|(scheme, ..)| scheme.starts_with("http"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_same_host_and_listed_ones_may() {
        let listed = Origins::Listed(vec!["https://app.example.com".into()]);
        for (origin, authority, secure, same, with_list) in [
            ("http://example.com", "example.com", false, true, true),
            ("http://EXAMPLE.com:80", "example.com", false, true, true),
            ("http://example.com:8080", "example.com:8080", false, true, true),
            ("http://[::1]:8080", "[::1]:8080", false, true, true),
            // Behind a proxy that ends TLS.
            ("https://example.com", "example.com", false, true, true),
            ("https://example.com", "example.com", true, true, true),
            ("http://example.com", "example.com", true, false, false),
            ("http://example.com", "example.com:8080", false, false, false),
            ("http://example.com.evil.net", "example.com", false, false, false),
            ("http://evil.net", "example.com", false, false, false),
            ("https://app.example.com:443", "example.com", false, false, true),
            ("http://app.example.com", "example.com", false, false, false),
            ("null", "example.com", false, false, false),
            ("file://", "example.com", false, false, false),
            ("http://example.com/", "example.com", false, false, false),
            ("http://user@example.com", "example.com", false, false, false),
            ("http://example.com:99999", "example.com", false, false, false),
            ("", "", false, false, false),
        ] {
            assert_eq!(Origins::Same.allow(origin, authority, secure), same, "{origin} at {authority}");
            assert_eq!(listed.allow(origin, authority, secure), with_list, "{origin} at {authority}, with the list");
            assert!(Origins::Any.allow(origin, authority, secure));
        }
        assert!(is_valid("https://app.example.com") && !is_valid("app.example.com") && !is_valid("https://a/b"));
    }
}
