//! TLS: what an encrypted listener serves with, read anew when its files change.
//!
//! A change is taken as a whole or not at all: all files are read, every pair is checked, and only then does the next
//! handshake see it. Connections that are open stay as they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, version};
use wharf_kernel::TlsFacts;
use wharf_kernel::settings::{self, ClientAuth, TlsVersion};

use crate::certificates::{self, Certificates};

/// What the encrypted listeners serve with.
pub struct Tls {
    settings: settings::Tls,
    http2: bool,
    provider: Arc<CryptoProvider>,
    config: ArcSwap<ServerConfig>,
    seen: Mutex<Seen>,
}

/// The content of all files.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What was read last.
struct Seen {
    /// In force.
    good: Files,
    /// Read after it and not good, and whether that was said.
    bad: Option<(Result<Files, String>, bool)>,
}

impl Tls {
    /// Reads the files. `http2` says whether HTTP/2 is offered.
    ///
    /// # Errors
    /// The file that can't be used, and why.
    pub fn load(settings: settings::Tls, http2: bool) -> Result<Arc<Self>, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let files = read(&settings)?;
        let config = build(&settings, http2, &provider, &files)?;
        let seen = Mutex::new(Seen { good: files, bad: None });
        Ok(Arc::new(Self { settings, http2, provider, config: ArcSwap::from_pointee(config), seen }))
    }

    /// How long a handshake may take.
    pub(crate) fn handshake_timeout(&self) -> Duration {
        self.settings.handshake_timeout
    }

    /// What the next handshake is made with.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Looks at the files again and takes them over when they have changed and are good. What is not good is reported
    /// once, and only when it is still the same at the second look: certificate and key are two files, and one of them
    /// is written first.
    pub fn reload(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = read(&self.settings);
        if now.as_ref() == Ok(&seen.good) {
            seen.bad = None;
            return;
        }
        if let Some((bad, said)) = &mut seen.bad
            && *bad == now
        {
            if !*said {
                *said = true;
                let built = now.and_then(|files| build(&self.settings, self.http2, &self.provider, &files));
                if let Err(error) = built {
                    tracing::error!("the changed TLS files are not used, those read before stay in force: {error}");
                }
            }
            return;
        }
        let built = now
            .clone()
            .and_then(|files| build(&self.settings, self.http2, &self.provider, &files).map(|config| (config, files)));
        match built {
            Ok((config, files)) => {
                self.config.store(Arc::new(config));
                *seen = Seen { good: files, bad: None };
                tracing::info!("the TLS files have changed: new connections use the new ones");
            }
            Err(_) => seen.bad = Some((now, false)),
        }
    }

    /// Looks at the files again and again, on a thread of its own, for as long as the server is there.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn watch(self: &Arc<Self>) -> std::io::Result<()> {
        let (this, interval) = (Arc::downgrade(self), self.settings.reload_interval);
        let body = move || {
            loop {
                std::thread::sleep(interval);
                let Some(this) = this.upgrade() else { return };
                this.reload();
            }
        };
        std::thread::Builder::new().name("wharf-tls-files".to_owned()).spawn(body).map(drop)
    }
}

/// Reads all files that the settings name.
fn read(settings: &settings::Tls) -> Result<Files, String> {
    let pairs = settings.certificate.iter().flat_map(|c| [&c.chain, &c.key]);
    let mut files = Files::new();
    for path in pairs.chain(&settings.client_ca) {
        let content = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        files.insert(path.clone(), content);
    }
    Ok(files)
}

fn build(
    settings: &settings::Tls,
    http2: bool,
    provider: &Arc<CryptoProvider>,
    files: &Files,
) -> Result<ServerConfig, String> {
    let content = |path: &Path| files.get(path).cloned().ok_or_else(|| format!("{}: not read", path.display()));
    let certificates = Certificates::load(&settings.certificate, provider, content)?;
    for warning in &certificates.warnings {
        tracing::warn!("{warning}");
    }
    let versions: &[_] = match settings.min_version {
        TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
        TlsVersion::Tls13 => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|e| e.to_string())?;
    let builder = match (settings.client_auth, &settings.client_ca) {
        (ClientAuth::None, _) | (_, None) => builder.with_no_client_auth(),
        (auth, Some(path)) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates::chain(path, &content(path)?)? {
                roots.add(authority).map_err(|e| format!("{}: {e}", path.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
            let verifier = if auth == ClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
            let verifier = verifier.build().map_err(|e| format!("{}: {e}", path.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    // Tickets end with the configuration: a client whose authority is no longer trusted can't resume.
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|e| e.to_string())?;
    config.alpn_protocols = if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(config)
}

/// What a handshake agreed on.
pub(crate) fn facts(connection: &ServerConnection) -> TlsFacts {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    let cipher = connection.negotiated_cipher_suite().and_then(|s| s.suite().as_str()).unwrap_or_default();
    TlsFacts {
        version,
        // rustls calls TLS_AES_128_GCM_SHA256 TLS13_AES_128_GCM_SHA256.
        cipher: cipher.replacen("TLS13_", "TLS_", 1).into(),
        server_name: connection.server_name().map(|n| n.to_ascii_lowercase().into()),
        client_certificate_der: connection
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|certificate| Bytes::copy_from_slice(certificate)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        std::fs::write(dir.join("a.crt"), made.cert.pem()).unwrap();
        std::fs::write(dir.join("a.key"), made.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_bad_change_leaves_what_is_in_force_and_a_good_one_replaces_it() {
        let dir = std::env::temp_dir().join(format!("wharf-tls-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        write(&dir, "one.example");
        let certificate = settings::Certificate {
            chain: dir.join("a.crt"),
            key: dir.join("a.key"),
            names: Vec::new(),
            default: false,
        };
        let tls =
            Tls::load(settings::Tls { certificate: vec![certificate], ..settings::Tls::default() }, true).unwrap();
        let first = tls.config();
        tls.reload();
        assert!(Arc::ptr_eq(&first, &tls.config()), "nothing has changed");
        let key = std::fs::read(dir.join("a.key")).unwrap();
        write(&dir, "two.example");
        let new_key = std::fs::read(dir.join("a.key")).unwrap();
        std::fs::write(dir.join("a.key"), key).unwrap();
        (0..3).for_each(|_| tls.reload());
        assert!(Arc::ptr_eq(&first, &tls.config()), "the key is of another certificate");
        std::fs::write(dir.join("a.key"), new_key).unwrap();
        tls.reload();
        let second = tls.config();
        assert!(!Arc::ptr_eq(&first, &second));
        std::fs::remove_file(dir.join("a.key")).unwrap();
        (0..3).for_each(|_| tls.reload());
        assert!(Arc::ptr_eq(&second, &tls.config()), "a file is gone");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
