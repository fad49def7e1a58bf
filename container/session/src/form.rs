//! A session as text: what a file holds, and what several containers share.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wharf_session_state::{Stored, Value, is_id};

/// Version of the form. Others are dropped.
const FORM: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    wharf_session: u32,
    context: String,
    id: String,
    version: String,
    created_ms: u64,
    last_accessed_ms: u64,
    accessed_ms: u64,
    max_inactive_ms: Option<u64>,
    values: Vec<FormValue>,
    #[serde(default)]
    notes: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FormValue {
    name: String,
    type_name: String,
    json: String,
}

/// The hash of a text, hexadecimal: what a client sends becomes no part of a name.
pub(crate) fn hex(text: &str) -> String {
    Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect()
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|d| u64::try_from(d.as_millis()).ok()).unwrap_or(0)
}

fn time(millis: u64) -> SystemTime {
    // Far beyond any date, and still representable.
    UNIX_EPOCH + Duration::from_millis(millis.min(1 << 50))
}

/// A session of a context as text.
pub(crate) fn write(context: &str, stored: &Stored) -> Result<Vec<u8>, serde_json::Error> {
    let value = |(name, v): &(String, Value)| FormValue {
        name: name.clone(),
        type_name: v.type_name.to_string(),
        json: v.json.to_string(),
    };
    serde_json::to_vec(&Form {
        wharf_session: FORM,
        context: context.to_owned(),
        id: stored.id.clone(),
        version: stored.version.clone(),
        created_ms: millis(stored.created),
        last_accessed_ms: millis(stored.last_accessed),
        accessed_ms: millis(stored.accessed),
        max_inactive_ms: stored.max_inactive.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        values: stored.values.iter().map(value).collect(),
        notes: stored.notes.clone(),
    })
}

/// The session of a context that a text is.
///
/// # Errors
/// Why it can't be believed.
pub(crate) fn read(context: &str, text: &[u8]) -> Result<Stored, String> {
    let form: Form = serde_json::from_slice(text).map_err(|e| format!("it is not what was written: {e}"))?;
    if form.wharf_session != FORM {
        return Err(format!("its form is {}, not {FORM}", form.wharf_session));
    }
    if form.context != context {
        return Err(format!("it belongs to {}", form.context));
    }
    if !is_id(&form.id) {
        return Err("its name does not fit its id".into());
    }
    let value = |v: FormValue| (v.name, Value { type_name: v.type_name.into(), json: v.json.into() });
    Ok(Stored {
        id: form.id,
        version: form.version,
        created: time(form.created_ms),
        last_accessed: time(form.last_accessed_ms),
        accessed: time(form.accessed_ms),
        max_inactive: form.max_inactive_ms.map(Duration::from_millis),
        values: form.values.into_iter().map(value).collect(),
        notes: form.notes,
    })
}
