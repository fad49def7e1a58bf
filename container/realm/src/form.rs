//! The form of a login page (FORM, Servlet 6.1, section 13.6.3).

use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use wharf_kernel::Body;
use wharf_kernel::guard::Denied;

use crate::denied::detail;
use crate::session_guard::Ask;

/// Where it is sent.
pub(crate) const ACTION: &str = "/j_security_check";
/// The most content that it may have, in bytes.
const MAX_CONTENT: usize = 4096;

/// The fields of the form.
pub(crate) async fn credentials(ask: &Ask, body: Body) -> Result<(String, String), Denied> {
    let media_type = ask.content_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(detail(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The form must be sent as form-urlencoded."));
    }
    let content = Limited::new(body, MAX_CONTENT).collect().await;
    let content = content.map_err(|_| Denied::new(StatusCode::PAYLOAD_TOO_LARGE))?.to_bytes();
    let field = |wanted: &str| {
        let mut fields = form_urlencoded::parse(&content).filter(|(name, _)| name == wanted);
        fields.next().map(|(_, value)| value.into_owned()).filter(|_| fields.next().is_none())
    };
    match (field("j_username"), field("j_password")) {
        (Some(user), Some(password)) if !user.contains(char::is_control) => Ok((user, password)),
        _ => Err(detail(StatusCode::BAD_REQUEST, "The form must have j_username and j_password, each once.")),
    }
}
