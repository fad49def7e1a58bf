//! Headers that tell browsers to be careful. What an application says for itself stays.

use http::HeaderMap;
use http::header::{
    HeaderName, HeaderValue, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use wharf_kernel::settings;

/// The usual set. A Content-Security-Policy is not in it, for it must fit the application.
const USUAL: [(HeaderName, &str); 4] = [
    // Content is what its type says, never a guess.
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // No other site shows it in a frame (clickjacking).
    (X_FRAME_OPTIONS, "SAMEORIGIN"),
    // Other sites learn where a visitor comes from, but not from which page.
    (REFERRER_POLICY, "strict-origin-when-cross-origin"),
    // No other site keeps a handle on its windows.
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// What every answer gets.
pub(super) struct Headers {
    always: Vec<(HeaderName, HeaderValue)>,
    /// Over TLS alone, as a browser ignores it otherwise (RFC 6797, section 7.2).
    hsts: Option<HeaderValue>,
}

impl Headers {
    pub(super) fn new(settings: &settings::Protect) -> Self {
        let mut always = HeaderMap::new();
        if settings.security_headers {
            always.extend(USUAL.map(|(name, value)| (name, HeaderValue::from_static(value))));
        }
        for (name, value) in &settings.headers {
            // They were checked with the settings.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
                if value.is_empty() {
                    always.remove(name)
                } else {
                    always.insert(name, value)
                };
            }
        }
        let hsts = settings.hsts.and_then(|time| {
            let subdomains = if settings.hsts_subdomains { "; includeSubDomains" } else { "" };
            HeaderValue::from_str(&format!("max-age={}{subdomains}", time.as_secs())).ok()
        });
        Self { always: always.iter().map(|(n, v)| (n.clone(), v.clone())).collect(), hsts }
    }

    pub(super) fn add(&self, headers: &mut HeaderMap, secure: bool) {
        for (name, value) in &self.always {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        if let (Some(hsts), true) = (&self.hsts, secure) {
            headers.entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(toml: &str, own: &[(&'static str, &'static str)], secure: bool) -> Vec<String> {
        let headers = Headers::new(&toml::from_str(toml).unwrap());
        let mut map = HeaderMap::new();
        map.extend(own.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))));
        headers.add(&mut map, secure);
        let mut all: Vec<String> = map.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        all.sort();
        all
    }

    #[test]
    fn what_an_application_says_stays() {
        assert!(added("", &[], true).is_empty());
        let usual = added("security_headers = true", &[("x-frame-options", "DENY")], false);
        assert_eq!(usual.len(), 4);
        assert!(usual.contains(&"x-frame-options: DENY".to_owned()), "{usual:?}");
        let own = added(
            "security_headers = true\nheaders = { x-frame-options = \"\", content-security-policy = \"default-src 'self'\" }",
            &[],
            false,
        );
        assert!(!own.iter().any(|h| h.starts_with("x-frame-options")), "{own:?}");
        assert!(own[0].starts_with("content-security-policy: default-src"), "{own:?}");
        let hsts = "hsts = \"1day\"\nhsts_subdomains = true";
        assert_eq!(added(hsts, &[], true), ["strict-transport-security: max-age=86400; includeSubDomains"]);
        assert!(added(hsts, &[], false).is_empty());
    }
}
