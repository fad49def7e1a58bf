//! The present, as sessions need it, and random ids.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use wharf_session_state::{ID_RANDOM_BYTES, Now, id_from_random};

/// The steady clock begins here, so that a session which was stored can be older than the process.
const OFFSET: Duration = Duration::from_secs(100 * 365 * 86_400);

pub(crate) fn now() -> Now {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    Now { steady: OFFSET + BEGIN.get_or_init(Instant::now).elapsed(), wall: SystemTime::now() }
}

/// An id from the random source of the operating system.
pub(crate) fn new_id() -> Result<String, String> {
    let mut random = [0; ID_RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(|e| format!("the system's random source: {e}"))?;
    Ok(id_from_random(random))
}
