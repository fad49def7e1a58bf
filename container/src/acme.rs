//! The certificate of an ACME authority, as far as this program was built with it.

use std::sync::Arc;

use wharf_kernel::challenges::Challenges;
use wharf_kernel::settings::Settings;

/// What keeps the certificate, where one is to be kept.
#[cfg(feature = "acme")]
pub(crate) type Kept = Option<wharf_acme::Renewal>;
#[cfg(not(feature = "acme"))]
pub(crate) type Kept = ();

/// Adds the certificate to the settings. Gives the challenges to answer, and what keeps it.
///
/// # Errors
/// What can't be used or written; that this program knows no ACME.
#[cfg(feature = "acme")]
pub(crate) fn prepare(settings: &mut Settings) -> Result<(Option<Arc<Challenges>>, Kept), String> {
    let Some(acme) = &settings.tls.acme else { return Ok((None, None)) };
    let challenges = Arc::new(Challenges::default());
    let renewal = wharf_acme::Renewal::open(acme, &settings.state_dir, challenges.clone())?;
    settings.tls.certificate.push(renewal.certificate());
    Ok((Some(challenges), Some(renewal)))
}

/// As above.
#[cfg(not(feature = "acme"))]
pub(crate) fn prepare(settings: &mut Settings) -> Result<(Option<Arc<Challenges>>, Kept), String> {
    match &settings.tls.acme {
        Some(_) => Err("tls.acme: this wharf was built without the feature 'acme'".into()),
        None => Ok((None, ())),
    }
}

/// Begins to order and to renew: challenges are answered from now on.
pub(crate) fn run(kept: Kept, runtime: &tokio::runtime::Handle) {
    #[cfg(feature = "acme")]
    if let Some(renewal) = kept {
        renewal.run(runtime);
    }
    #[cfg(not(feature = "acme"))]
    let () = (kept, runtime).0;
}
