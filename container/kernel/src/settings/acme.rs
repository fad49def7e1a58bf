//! `[tls.acme]`: a certificate from an ACME authority.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[tls.acme]`: one certificate for some names, ordered and renewed by ACME (RFC 8555) with the challenge `http-01`: the authority asks
/// port 80 of each name, so a plain listener must be reachable there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Acme {
    /// Host names that lead to this container.
    pub names: Vec<String>,
    /// Whether you agree to the authority's terms of service. Without it nothing is ordered.
    #[serde(default)]
    pub terms_agreed: bool,
    /// Where the authority is. Default Let's Encrypt.
    #[serde(default = "lets_encrypt")]
    pub directory: String,
    /// Whom the authority may write to, as `"mailto:ops@example.com"`.
    #[serde(default)]
    pub contact: Vec<String>,
    /// PEM file with certificates of authorities that are believed when `directory` is asked, beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

fn lets_encrypt() -> String {
    "https://acme-v02.api.letsencrypt.org/directory".into()
}

impl Acme {
    /// Looks at what can be wrong by itself.
    ///
    /// # Errors
    /// The key at fault and what is wrong.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.names.is_empty() {
            return Err(("names", "name at least one host".into()));
        }
        for name in &self.names {
            if name.starts_with("*.") {
                return Err(("names", format!("'{name}': wildcards are not to be had by the challenge http-01")));
            }
            match wharf_mapping::parse_host(name) {
                Ok(host)
                    if host.host == *name
                        && !name.contains(|c: char| c.is_ascii_uppercase())
                        && name.contains(|c: char| c.is_ascii_alphabetic())
                        && !name.contains(':') => {}
                _ => return Err(("names", format!("'{}' is not a host name in lower case", name.escape_debug()))),
            }
        }
        if !self.terms_agreed {
            return Err((
                "terms_agreed",
                "read the authority's terms of service, and write terms_agreed = true".into(),
            ));
        }
        let near = ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"];
        if !self.directory.starts_with("https://") && !near.iter().any(|near| self.directory.starts_with(near)) {
            return Err(("directory", "must be an https URL".into()));
        }
        match self.contact.iter().find(|contact| !contact.starts_with("mailto:")) {
            Some(contact) => Err(("contact", format!("'{}': write \"mailto:NAME@HOST\"", contact.escape_debug()))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_authority_would_take_is_refused() {
        let rows = [
            ("names = ['a.example']\nterms_agreed = true", None),
            ("names = ['a.example']", Some("terms_agreed")),
            ("names = []\nterms_agreed = true", Some("names")),
            ("names = ['*.example']\nterms_agreed = true", Some("names")),
            ("names = ['A.example']\nterms_agreed = true", Some("names")),
            ("names = ['127.0.0.1']\nterms_agreed = true", Some("names")),
            ("names = ['a.example:80']\nterms_agreed = true", Some("names")),
            ("names = ['a.example']\nterms_agreed = true\ndirectory = 'http://acme.example/'", Some("directory")),
            ("names = ['a.example']\nterms_agreed = true\ncontact = ['ops@example.com']", Some("contact")),
        ];
        for (text, key) in rows {
            let acme: Acme = toml::from_str(text).unwrap();
            assert_eq!(acme.check().err().map(|(key, _)| key), key, "{text}");
        }
    }
}
