//! A certificate for localhost, for `wharf dev --tls`: made once, kept in the state folder, made again before it expires.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use wharf_kernel::settings::{Certificate, Listen, Settings};

/// How long it is valid. Browsers accept no more than 398 days.
const VALID: Duration = Duration::from_secs(365 * 86400);
/// It is made again when it has less time than this.
const SPARE: Duration = Duration::from_secs(30 * 86400);

/// Puts TLS on every TCP listener. Certificates that are configured come first.
///
/// # Errors
/// The file that can't be written, or the key that can't be made.
pub(crate) fn use_it(settings: &mut Settings) -> Result<(), String> {
    for listen in &mut settings.server.listen {
        if let Listen::Tcp(addr) = listen {
            *listen = Listen::Tls(*addr);
        }
    }
    if settings.tls.certificate.is_empty() {
        let made = keep(&settings.state_dir.join("tls"))?;
        println!("certificate for localhost: {} (tell your browser to trust it)", made.chain.display());
        settings.tls.certificate.push(made);
    }
    Ok(())
}

/// The certificate of a folder, made where there is none or an old one.
fn keep(dir: &Path) -> Result<Certificate, String> {
    let (chain, key) = (dir.join("localhost.crt"), dir.join("localhost.key"));
    let young = |path: &Path| {
        let age = fs::metadata(path).and_then(|m| m.modified()).ok()?.elapsed().ok()?;
        (age < VALID - SPARE).then_some(())
    };
    if young(&chain).and(young(&key)).is_none() {
        let (chain_pem, key_pem) = make().map_err(|e| format!("a certificate for localhost can't be made: {e}"))?;
        let failed = |e: std::io::Error| format!("{}: {e}", dir.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        for (path, pem) in [(&chain, chain_pem), (&key, key_pem)] {
            let _ = fs::remove_file(path);
            let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            file.and_then(|mut file| file.write_all(pem.as_bytes())).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(Certificate { chain, key, names: Vec::new(), default: false })
}

/// A certificate signed with its own key, and the key, both as PEM.
fn make() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(["localhost".to_owned(), "*.localhost".to_owned()])?;
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        parameters.subject_alt_names.push(SanType::IpAddress(address));
    }
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, "Wharf development certificate");
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now();
    parameters.not_before = (now - Duration::from_secs(3600)).into();
    parameters.not_after = (now + VALID).into();
    let made = parameters.self_signed(&key)?;
    Ok((made.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_and_the_key_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("tls");
        let made = keep(&dir).unwrap();
        let first = fs::read(&made.chain).unwrap();
        assert_eq!(fs::metadata(&made.key).unwrap().permissions().mode() & 0o777, 0o600);
        keep(&dir).unwrap();
        assert_eq!(fs::read(&made.chain).unwrap(), first);
        let old = fs::File::open(&made.chain).unwrap();
        old.set_modified(SystemTime::now() - VALID).unwrap();
        keep(&dir).unwrap();
        assert_ne!(fs::read(&made.chain).unwrap(), first);
    }
}
