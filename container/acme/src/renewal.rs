//! Keeps the certificate: has it from the start, and another before its time is over.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use wharf_kernel::challenges::Challenges;
use wharf_kernel::settings::{Acme, Certificate};

use crate::authority::Authority;
use crate::pair::Pair;

/// The first pause after an order that failed; each is twice the one before. Authorities count failures by the hour.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// How often the clock is looked at: it may be set.
const LOOK: Duration = Duration::from_secs(3600);

/// A certificate that is kept.
pub struct Renewal {
    pair: Pair,
    authority: Authority,
    names: Vec<String>,
}

impl Renewal {
    /// Opens the folder of the certificate below the state folder. Where it has none yet, one is made that nobody trusts, so that there is
    /// something to listen with.
    ///
    /// # Errors
    /// What can't be used or written.
    pub fn open(settings: &Acme, state_dir: &Path, challenges: Arc<Challenges>) -> Result<Self, String> {
        let folder = state_dir.join("acme");
        let pair = Pair::open(folder.clone()).map_err(|e| format!("{}: {e}", folder.display()))?;
        if !pair.fits() {
            pair.make(&settings.names)?;
        }
        let authority = Authority::new(settings.clone(), challenges)?;
        Ok(Self { pair, authority, names: settings.names.clone() })
    }

    /// The files, as an entry of the configuration.
    pub fn certificate(&self) -> Certificate {
        Certificate { chain: self.pair.chain(), key: self.pair.key(), names: self.names.clone(), default: false }
    }

    /// Orders and renews for as long as the runtime runs. To be called when challenges can be answered.
    pub fn run(self, runtime: &Handle) {
        runtime.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                let due = self.pair.due(&self.names);
                match due.duration_since(SystemTime::now()) {
                    Ok(left) if !left.is_zero() => {
                        tokio::time::sleep(left.min(LOOK)).await;
                        continue;
                    }
                    _ => {}
                }
                match self.authority.order(&self.pair).await {
                    Ok(()) => {
                        tracing::info!(names = self.names.join(", "), "a certificate of the ACME authority is there");
                        pause = FIRST_PAUSE;
                    }
                    Err(error) => {
                        tracing::error!("no certificate of the ACME authority: {error}; tried again in {pause:?}");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        });
    }
}
