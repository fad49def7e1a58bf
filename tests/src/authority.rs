//! A certificate authority for tests, and the certificates that it signs.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// An authority with a key of its own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// A certificate and its key, both as PEM.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The certificate.
    pub chain: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).expect("a certificate");
        Self { issuer: Issuer::new(parameters, key), certificate }
    }

    /// Its own certificate as PEM.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// What a client has to know that trusts it, and nobody else.
    ///
    /// # Panics
    /// When that can't be made.
    pub fn trusting(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(self.pem().as_bytes()).expect("a certificate");
        roots.add(certificate).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Arc::new(config.expect("protocols").with_root_certificates(roots).with_no_client_auth())
    }

    /// A certificate for a server with these names; the first is its common name.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn server(&self, names: &[&str]) -> Signed {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let common = names[0].clone();
        let mut parameters = CertificateParams::new(names).expect("names");
        parameters.distinguished_name.push(DnType::CommonName, common);
        self.sign(&parameters)
    }

    /// Puts a certificate for `localhost` into a container's folder, as `chain.pem` and `key.pem`, and into its configuration.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn certify(&self, folder: &Path) -> io::Result<()> {
        let signed = self.server(&["localhost"]);
        fs::write(folder.join("chain.pem"), &signed.chain)?;
        fs::write(folder.join("key.pem"), &signed.key)?;
        fs::write(folder.join("wharf.toml"), "[[tls.certificate]]\nchain = \"chain.pem\"\nkey = \"key.pem\"\n")
    }

    /// A certificate for a client.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn client(&self, name: &str) -> Signed {
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names");
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&parameters)
    }

    /// Signs what it is given.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn sign(&self, parameters: &CertificateParams) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        Signed { chain: certificate.pem(), key: key.serialize_pem() }
    }
}
