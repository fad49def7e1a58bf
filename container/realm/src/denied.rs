//! Answers in place of the application's.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use wharf_kernel::guard::Denied;

use crate::password_realm::Outcome;

/// A status with a word for people.
pub(crate) fn detail(status: StatusCode, text: &'static str) -> Denied {
    Denied { detail: Cow::Borrowed(text), ..Denied::new(status) }
}

/// 401 with the challenge of a scheme.
pub(crate) fn challenge(status: StatusCode, scheme: &'static str, realm: &str, rest: &str) -> Denied {
    let text = format!("{scheme} realm=\"{}\"{rest}", quoted(realm));
    let value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(scheme));
    Denied::new(status).with(WWW_AUTHENTICATE, value)
}

/// Nobody can be told from anybody else.
pub(crate) fn unavailable() -> Denied {
    detail(StatusCode::SERVICE_UNAVAILABLE, "Nobody can sign in at the moment.")
        .with(RETRY_AFTER, seconds(Duration::from_secs(5)))
}

/// Too many wrong passwords.
pub(crate) fn locked(left: Duration) -> Denied {
    detail(StatusCode::TOO_MANY_REQUESTS, "Too many wrong passwords. Try again later.").with(RETRY_AFTER, seconds(left))
}

/// A GET of another target, which no cache may keep.
pub(crate) fn see_other(target: &str) -> Denied {
    match HeaderValue::from_str(target) {
        Ok(location) => Denied::new(StatusCode::SEE_OTHER)
            .with(LOCATION, location)
            .with(CACHE_CONTROL, HeaderValue::from_static("no-store")),
        Err(_) => Denied::new(StatusCode::BAD_REQUEST),
    }
}

/// What a client hears of a check that did not say who it is. `wrong` is for the wrong password.
pub(crate) fn not_known(outcome: &Outcome, wrong: impl FnOnce() -> Denied) -> Denied {
    match outcome {
        Outcome::Locked(left) => locked(*left),
        Outcome::Unavailable => unavailable(),
        Outcome::Wrong | Outcome::User(_) => wrong(),
    }
}

/// A sign-in by an application, with a password that is wrong or nobody's.
pub(crate) fn wrong_password() -> Denied {
    detail(StatusCode::UNAUTHORIZED, "The name or the password is wrong.")
}

/// A sign-in by an application whose users have no passwords.
pub(crate) fn no_passwords() -> Denied {
    detail(StatusCode::INTERNAL_SERVER_ERROR, "The application has no [login] with a realm of passwords.")
}

/// The inside of a quoted string (RFC 9110, section 5.6.4).
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn seconds(time: Duration) -> HeaderValue {
    HeaderValue::from(time.as_secs() + 1)
}
