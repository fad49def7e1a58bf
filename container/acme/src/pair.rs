//! The certificate and its key as files, and what can be seen from them.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Two files in a folder that is its owner's alone.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    folder: PathBuf,
}

impl Pair {
    /// The pair in this folder, which is made where it is not there.
    ///
    /// # Errors
    /// When it can't be made.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { folder })
    }

    /// The certificate, and those between it and the root.
    pub(crate) fn chain(&self) -> PathBuf {
        self.folder.join("certificate.pem")
    }

    /// Its key.
    pub(crate) fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    /// What the account is known by.
    pub(crate) fn account(&self) -> PathBuf {
        self.folder.join("account.json")
    }

    /// Writes both; each is there whole or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn write(&self, chain: &str, key: &str) -> io::Result<()> {
        self.put(&self.key(), key.as_bytes())?;
        self.put(&self.chain(), chain.as_bytes())
    }

    /// Whether both are there and belong together: where the process ended between the two, one of them is of another pair.
    pub(crate) fn fits(&self) -> bool {
        let key = fs::read_to_string(self.key()).ok().and_then(|pem| KeyPair::from_pem(&pem).ok());
        let fits = key.and_then(|key| {
            self.certificate(|own| Some(*own.public_key().subject_public_key.data == *key.public_key_raw()))
        });
        fits == Some(true)
    }

    /// What is asked of the certificate; `None` where it can't be read.
    fn certificate<T>(&self, ask: impl FnOnce(&X509Certificate<'_>) -> Option<T>) -> Option<T> {
        let content = fs::read(self.chain()).ok()?;
        let first = CertificateDer::pem_slice_iter(&content).next()?.ok()?;
        let (_, certificate) = X509Certificate::from_der(&first).ok()?;
        ask(&certificate)
    }

    /// Writes a file for its owner alone.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn put(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".new")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(&self.folder)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }

    /// When another certificate is to be had: at once where there is none of the authority for these names, else when a third of its time
    /// is left.
    pub(crate) fn due(&self, names: &[String]) -> SystemTime {
        self.certificate(|certificate| Self::renewal(certificate, names)).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    fn renewal(certificate: &X509Certificate<'_>, names: &[String]) -> Option<SystemTime> {
        let mut in_it: Vec<String> = match certificate.subject_alternative_name() {
            Ok(Some(names)) => names.value.general_names.iter().filter_map(dns).collect(),
            _ => Vec::new(),
        };
        let mut wanted: Vec<String> = names.to_vec();
        in_it.sort_unstable();
        wanted.sort_unstable();
        // The one that was made here, for as long as there is no other, is its own authority.
        if in_it != wanted || certificate.issuer() == certificate.subject() {
            return None;
        }
        let second = |time: i64| u64::try_from(time).ok().map(Duration::from_secs);
        let validity = certificate.validity();
        let (from, to) = (second(validity.not_before.timestamp())?, second(validity.not_after.timestamp())?);
        Some(SystemTime::UNIX_EPOCH + to - to.saturating_sub(from) / 3)
    }

    /// Makes a certificate of its own, so that there is one to listen with.
    ///
    /// # Errors
    /// When a key can't be made, or a file not written.
    pub(crate) fn make(&self, names: &[String]) -> Result<(), String> {
        let made = || {
            let key = KeyPair::generate()?;
            let mut parameters = CertificateParams::new(names.to_vec())?;
            parameters.distinguished_name = DistinguishedName::new();
            parameters.distinguished_name.push(DnType::CommonName, "Wharf, until the authority has answered");
            Ok::<_, rcgen::Error>((parameters.self_signed(&key)?.pem(), key.serialize_pem()))
        };
        let (chain, key) = made().map_err(|e| format!("a certificate to begin with can't be made: {e}"))?;
        self.write(&chain, &key).map_err(|e| format!("{}: {e}", self.folder.display()))
    }
}

fn dns(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, IsCa, Issuer};

    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn another_is_due_when_a_third_is_left_and_at_once_for_other_names() {
        let folder = tempfile::tempdir().unwrap();
        let pair = Pair::open(folder.path().join("acme")).unwrap();
        let both = names(&["b.example", "a.example"]);
        assert_eq!(pair.due(&both), SystemTime::UNIX_EPOCH, "none");
        pair.make(&both).unwrap();
        assert_eq!(pair.due(&both), SystemTime::UNIX_EPOCH, "its own");
        assert_eq!(fs::metadata(pair.key()).unwrap().permissions().mode() & 0o777, 0o600);

        let authority = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "authority");
        let issuer = Issuer::new(parameters, authority);
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(both.clone()).unwrap();
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        parameters.not_before = begin.into();
        parameters.not_after = (begin + Duration::from_secs(900)).into();
        pair.write(&parameters.signed_by(&key, &issuer).unwrap().pem(), &key.serialize_pem()).unwrap();
        assert_eq!(pair.due(&both), begin + Duration::from_secs(600));
        assert_eq!(pair.due(&names(&["a.example", "b.example"])), begin + Duration::from_secs(600));
        assert_eq!(pair.due(&names(&["a.example"])), SystemTime::UNIX_EPOCH);

        assert!(pair.fits());
        pair.put(&pair.key(), KeyPair::generate().unwrap().serialize_pem().as_bytes()).unwrap();
        assert!(!pair.fits(), "the key of a certificate that did not come");
        pair.put(&pair.key(), b"").unwrap();
        assert!(!pair.fits());
    }
}
