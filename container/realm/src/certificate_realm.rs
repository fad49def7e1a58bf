//! A realm of certificates: the connector has checked a client's against the authorities it trusts; here it gets a name and roles.

use std::collections::BTreeMap;
use std::path::Path;

use wharf_kernel::Authenticated;
use wharf_kernel::settings::{CertificateName, Realm};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::password_realm::Outcome;
use crate::users::check_role;
use crate::watched::Watched;

type Roles = BTreeMap<String, Vec<String>>;

/// A realm of certificates.
pub(crate) struct CertificateRealm {
    name: CertificateName,
    /// Who may sign in, with their roles; without it, everybody may, and has none.
    users: Option<Watched<Roles>>,
}

impl CertificateRealm {
    pub(crate) fn new(realm: &Realm) -> Self {
        let users = realm.file.clone().map(|file| Watched::new(file, read));
        Self { name: realm.certificate_name, users }
    }

    /// Reads the file again where it has changed.
    pub(crate) fn look(&self) {
        if let Some(users) = &self.users {
            users.look();
        }
    }

    /// Whose certificate (DER) this is.
    pub(crate) fn verify(&self, der: &[u8]) -> Outcome {
        let Some(user) = name(der, self.name) else { return Outcome::Wrong };
        let Some(users) = &self.users else { return Outcome::User(Authenticated::new(&user, "CLIENT_CERT", [])) };
        let Some(users) = users.get() else { return Outcome::Unavailable };
        let Some(roles) = users.get(&user) else { return Outcome::Wrong };
        Outcome::User(Authenticated::new(&user, "CLIENT_CERT", roles.iter().map(String::as_str)))
    }
}

/// The name in a certificate. One that has several of the kind has none: it must not be for the client to say which one counts.
fn name(der: &[u8], kind: CertificateName) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut names: Vec<String> = match kind {
        CertificateName::Subject => vec![certificate.subject().to_string()],
        CertificateName::CommonName => certificate
            .subject()
            .iter_common_name()
            .map(|n| n.as_str().ok().map(str::to_owned))
            .collect::<Option<_>>()?,
        CertificateName::Email => {
            let names = certificate.subject_alternative_name().ok()??;
            let email = |name: &GeneralName<'_>| match name {
                GeneralName::RFC822Name(name) => Some((*name).to_owned()),
                _ => None,
            };
            names.value.general_names.iter().filter_map(email).collect()
        }
    };
    let only = if names.len() == 1 { names.pop() } else { None };
    only.filter(|name| !name.is_empty() && !name.contains(char::is_control))
}

/// One user a line: the name, and after the last colon the roles, with commas between.
fn read(path: &Path) -> Result<Roles, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut all = Roles::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| format!("{}:{}: {what}", path.display(), number + 1);
        let (name, roles) = line.rsplit_once(':').ok_or_else(|| wrong("write NAME:role,role"))?;
        let roles: Vec<String> = roles.split(',').map(str::trim).filter(|r| !r.is_empty()).map(str::to_owned).collect();
        roles.iter().try_for_each(|role| check_role(role)).map_err(|what| wrong(&what))?;
        if all.insert(name.trim().to_owned(), roles).is_some() {
            return Err(wrong("this user is in the file twice"));
        }
    }
    Ok(all)
}
