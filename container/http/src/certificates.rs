//! Certificates: read from files as checked pairs, found by the name that a client asks for.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use wharf_kernel::settings::Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate whose key is the right one, and the names it is used for.
struct Pair {
    key: Arc<CertifiedKey>,
    /// In lower case; `*.` at the front of a wildcard.
    names: Vec<String>,
    /// What is odd about it, though it can be used.
    warning: Option<String>,
}

/// The certificates of the server.
pub(crate) struct Certificates {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By the name without `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    fallback: Arc<CertifiedKey>,
    /// What is odd about them, though they can be used.
    pub(crate) warnings: Vec<String>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("exact", &self.exact.keys()).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Takes the certificates; `read` gives the content of a file.
    ///
    /// # Errors
    /// The first pair that can't be used, with its files and what is wrong.
    pub(crate) fn load(
        list: &[Certificate],
        provider: &CryptoProvider,
        read: impl Fn(&Path) -> Result<Vec<u8>, String>,
    ) -> Result<Self, String> {
        let (mut exact, mut wildcard, mut warnings, mut fallback) = (HashMap::new(), HashMap::new(), Vec::new(), None);
        for entry in list {
            let pair = pair(entry, provider, &read)?;
            for name in pair.names {
                // The first certificate of a name wins, as the first is the default.
                match name.strip_prefix("*.") {
                    Some(parent) => wildcard.entry(parent.to_owned()).or_insert_with(|| pair.key.clone()),
                    None => exact.entry(name).or_insert_with(|| pair.key.clone()),
                };
            }
            warnings.extend(pair.warning);
            if entry.default || fallback.is_none() {
                fallback = Some(pair.key);
            }
        }
        let fallback = fallback.ok_or("no certificate is configured")?;
        Ok(Self { exact, wildcard, fallback, warnings })
    }

    /// The certificate for a name in lower case: the exact one, else the wildcard one label up, else the default.
    fn find(&self, name: &str) -> &Arc<CertifiedKey> {
        let above = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(above).unwrap_or(&self.fallback)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        Some(name.map_or(&self.fallback, |name| self.find(&name)).clone())
    }
}

fn pair(
    entry: &Certificate,
    provider: &CryptoProvider,
    read: impl Fn(&Path) -> Result<Vec<u8>, String>,
) -> Result<Pair, String> {
    let (chain_file, key_file) = (entry.chain.display(), entry.key.display());
    let chain = chain(&entry.chain, &read(&entry.chain)?)?;
    let Some(first) = chain.first() else { return Err(format!("{chain_file}: there is no certificate in it")) };
    let (_, parsed) = X509Certificate::from_der(first)
        .map_err(|e| format!("{chain_file}: the first certificate can't be read: {e}"))?;
    let names = match &*entry.names {
        [] => names(&parsed),
        given => given.iter().map(|n| n.to_ascii_lowercase()).collect(),
    };
    let warning = validity(&parsed).map(|what| format!("{chain_file}: {what}"));
    let key = PrivateKeyDer::from_pem_slice(&read(&entry.key)?)
        .map_err(|e| format!("{key_file}: no private key can be read from it: {e}"))?;
    // This compares the public key of the certificate with that of the key, too.
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => {
            format!("{key_file} is not the key of the certificate in {chain_file}")
        }
        other => format!("{chain_file} with {key_file}: {other}"),
    })?;
    Ok(Pair { key: Arc::new(key), names, warning })
}

/// All certificates of a PEM file.
pub(crate) fn chain(path: &Path, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    all.map_err(|e| format!("{}: {e}", path.display()))
}

/// The DNS names in a certificate (RFC 6125: the subject's common name counts only where there are none).
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.push(name.to_ascii_lowercase());
            }
        }
    }
    if names.is_empty() {
        let common = certificate.subject().iter_common_name().filter_map(|n| n.as_str().ok());
        names.extend(common.map(str::to_ascii_lowercase));
    }
    names
}

/// What is wrong with the time of a certificate.
fn validity(certificate: &X509Certificate<'_>) -> Option<String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()).cast_signed();
    let validity = certificate.validity();
    if now > validity.not_after.timestamp() {
        return Some(format!("the certificate has expired on {}; clients will refuse it", validity.not_after));
    }
    if now < validity.not_before.timestamp() {
        return Some(format!("the certificate is not valid before {}; clients will refuse it", validity.not_before));
    }
    let days = (validity.not_after.timestamp() - now) / 86400;
    (days < 7).then(|| format!("the certificate expires in {days} days, on {}", validity.not_after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider() -> CryptoProvider {
        rustls::crypto::ring::default_provider()
    }

    fn entry(name: &str, names: &[&str], default: bool) -> Certificate {
        Certificate {
            chain: format!("{name}.crt").into(),
            key: format!("{name}.key").into(),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            default,
        }
    }

    /// Files by their names: `NAME.crt` and `NAME.key` belong together.
    fn files(names: &[(&str, &[&str])]) -> HashMap<String, Vec<u8>> {
        let mut files = HashMap::new();
        for (file, names) in names {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            files.insert(format!("{file}.crt"), made.cert.pem().into_bytes());
            files.insert(format!("{file}.key"), made.signing_key.serialize_pem().into_bytes());
        }
        files
    }

    fn load(list: &[Certificate], files: &HashMap<String, Vec<u8>>) -> Result<Certificates, String> {
        Certificates::load(list, &provider(), |path| {
            files.get(path.to_str().unwrap()).cloned().ok_or_else(|| format!("{}: not found", path.display()))
        })
    }

    #[test]
    fn the_exact_name_wins_then_the_wildcard_then_the_default() {
        let files = files(&[("a", &["a.example"]), ("w", &["*.example"]), ("d", &["other.test"])]);
        let all =
            load(&[entry("w", &[], false), entry("a", &[], false), entry("d", &["D.test"], true)], &files).unwrap();
        let names = ["a", "w", "d"].map(|n| {
            let der = chain(Path::new("x"), &files[&format!("{n}.crt")]).unwrap();
            (n, der)
        });
        for (asked, expected) in [
            ("a.example", "a"),
            ("b.example", "w"),
            ("b.c.example", "d"),
            ("example", "d"),
            ("d.test", "d"),
            ("other.test", "d"),
            ("", "d"),
        ] {
            let found = &all.find(asked).cert;
            let name = names.iter().find(|(_, der)| der == found).unwrap().0;
            assert_eq!(name, expected, "{asked}");
        }
    }

    #[test]
    fn a_pair_that_does_not_fit_is_refused_by_name() {
        let mut files = files(&[("a", &["a.example"]), ("b", &["b.example"])]);
        files.insert("crossed.crt".into(), files["a.crt"].clone());
        files.insert("crossed.key".into(), files["b.key"].clone());
        files.insert("empty.crt".into(), Vec::new());
        files.insert("cut.crt".into(), files["a.crt"][..200].to_vec());
        files.insert("cut.key".into(), files["a.key"].clone());
        files.insert("keyless.crt".into(), files["a.crt"].clone());
        files.insert("keyless.key".into(), files["a.crt"].clone());
        for (name, words) in [
            ("crossed", &["crossed.key is not the key of the certificate in crossed.crt"][..]),
            ("empty", &["empty.crt", "no certificate"]),
            ("cut", &["cut.crt"]),
            ("keyless", &["keyless.key", "private key"]),
            ("missing", &["missing.crt: not found"]),
        ] {
            let error = load(&[entry(name, &[], false)], &files).unwrap_err();
            for word in words {
                assert!(error.contains(word), "no {word:?} in {error}");
            }
        }
        assert!(load(&[], &files).is_err());
    }

    #[test]
    fn an_expired_certificate_is_a_warning() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(["old.example".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2001, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2002, 1, 1);
        let made = parameters.self_signed(&key).unwrap();
        let files = HashMap::from([
            ("o.crt".to_owned(), made.pem().into_bytes()),
            ("o.key".to_owned(), key.serialize_pem().into_bytes()),
        ]);
        let all = load(&[entry("o", &[], false)], &files).unwrap();
        assert!(all.warnings[0].contains("o.crt") && all.warnings[0].contains("expired"), "{:?}", all.warnings);
    }
}
