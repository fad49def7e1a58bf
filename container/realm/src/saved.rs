//! The request that a sign-in interrupts, as a session keeps it (Servlet 6.1, section 13.6.3).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use http::header::HeaderValue;
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};
use wharf_kernel::Body;
use wharf_kernel::guard::SavedRequest;
use wharf_kernel::session::Session;

use crate::session_guard::Ask;

/// The most content that is kept, in bytes.
const MAX_CONTENT: usize = 4096;
/// The note with it.
pub(crate) const SAVED: &str = "saved";

/// The interrupted request, as a session keeps it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) target: String,
    pub(crate) method: String,
    content_type: Option<String>,
    content: String,
}

/// The request to be made again. One with more content than is kept becomes a GET, as what can't be asked again does.
pub(crate) async fn saved(ask: &Ask, body: Body) -> Saved {
    let mut saved = Saved {
        target: ask.target.clone(),
        method: Method::GET.to_string(),
        content_type: None,
        content: String::new(),
    };
    if matches!(ask.method, Method::GET | Method::HEAD) {
        return saved;
    }
    if let Ok(content) = Limited::new(body, MAX_CONTENT).collect().await {
        saved.method = ask.method.to_string();
        saved.content_type = ask.content_type.as_ref().and_then(|value| value.to_str().ok()).map(str::to_owned);
        saved.content = STANDARD.encode(content.to_bytes());
    }
    saved
}

/// The request that was interrupted, where this is the one that the sign-in led to.
pub(crate) fn restorable(session: &Session, ask: &Ask) -> Option<SavedRequest> {
    let saved: Saved = serde_json::from_str(&session.note(SAVED)?).ok()?;
    if ask.method != Method::GET || saved.target != ask.target {
        return None;
    }
    Some(SavedRequest {
        method: saved.method.parse().ok()?,
        content_type: saved.content_type.and_then(|value| HeaderValue::from_str(&value).ok()),
        content: STANDARD.decode(saved.content).ok()?.into(),
    })
}
