//! What a servlet returns when it can't answer: a status, a message and the cause.

use std::borrow::Cow;
use std::fmt;

use http::StatusCode;

use crate::Response;

/// An error of any kind that can cross threads.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request that could not be answered as asked.
///
/// Every `std::error::Error` turns into one by `?`, with status 500 (an [`SqlError`](crate::sql::SqlError) that says that the
/// database can't be reached, with 503); an error that is boxed already, by
/// `map_err(Error::boxed)?`. The message of a 4xx is sent to the client as plain
/// text; that of a 5xx, and the causes, go to the log alone, and the client gets the container's error page.
///
/// ```
/// use wharf_sdk::{Error, StatusCode};
///
/// fn quantity(text: &str) -> Result<u32, Error> {
///     text.parse().map_err(|_| Error::bad_request("the quantity must be a whole number"))
/// }
/// assert_eq!(quantity("three").unwrap_err().status(), StatusCode::BAD_REQUEST);
///
/// fn read() -> Result<String, Error> {
///     Ok(std::fs::read_to_string("/does/not/exist")?)
/// }
/// assert_eq!(read().unwrap_err().status(), StatusCode::INTERNAL_SERVER_ERROR);
/// ```
pub struct Error {
    status: StatusCode,
    message: Cow<'static, str>,
    source: Option<BoxError>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident = $status:ident;)*) => {
        $(
            $(#[$doc])*
            pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
                Self::new(StatusCode::$status, message)
            }
        )*
    };
}

impl Error {
    /// An error with this status and message.
    pub fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), source: None }
    }

    constructors! {
        /// 400: the request makes no sense.
        bad_request = BAD_REQUEST;
        /// 401: nobody is logged in. The caller adds the `WWW-Authenticate` header RFC 9110 (section 15.5.2) asks for.
        unauthorized = UNAUTHORIZED;
        /// 403: whoever is logged in may not.
        forbidden = FORBIDDEN;
        /// 404: there is no such thing.
        not_found = NOT_FOUND;
        /// 409: it does not fit the present state.
        conflict = CONFLICT;
        /// 413: too much content.
        too_large = PAYLOAD_TOO_LARGE;
        /// 415: not a content type that is understood here.
        unsupported_media_type = UNSUPPORTED_MEDIA_TYPE;
        /// 422: well formed, but the values are wrong.
        unprocessable = UNPROCESSABLE_ENTITY;
        /// 500: something is wrong here. The message goes to the log alone.
        internal = INTERNAL_SERVER_ERROR;
        /// 503: not now. The message goes to the log alone.
        unavailable = SERVICE_UNAVAILABLE;
    }

    /// A 500 from an error that is boxed already.
    pub fn boxed(source: BoxError) -> Self {
        let status = crate::sql::status_of(&*source)
            .or_else(|| crate::http_client::status_of(&*source))
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, message: Cow::Owned(source.to_string()), source: Some(source) }
    }

    /// The same with a cause, which goes to the log alone.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Its cause.
    pub fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn std::error::Error + 'static))
    }

    /// Logs a 5xx, with its causes.
    pub(crate) fn log(&self) {
        if self.status.is_server_error() {
            tracing::error!(target: "wharf_sdk", status = self.status.as_u16(), "request failed: {self:#}");
        }
    }

    /// The response a client gets for it. A 5xx is logged here, with its causes.
    pub fn into_response(self) -> Response {
        self.log();
        if self.status.is_server_error() || self.message.is_empty() {
            return Response::status(self.status);
        }
        Response::text(self.message).with_status(self.status)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Error {
    fn from(source: E) -> Self {
        Self::boxed(Box::new(source))
    }
}

impl fmt::Display for Error {
    /// The message; with `{:#}` the causes too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if f.alternate() {
            let mut last = self.message.to_string();
            let mut source = self.source();
            while let Some(error) = source {
                let text = error.to_string();
                if text != last {
                    write!(f, ": {text}")?;
                }
                last = text;
                source = error.source();
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self:#}", self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_shown_once_each() {
        let io = std::io::Error::other("disk on fire");
        assert_eq!(format!("{:#}", Error::from(io)), "disk on fire");
        let error = Error::internal("could not save").with_source(std::io::Error::other("disk on fire"));
        assert_eq!(format!("{error:#}"), "could not save: disk on fire");
        assert_eq!(error.to_string(), "could not save");
    }

    #[test]
    fn the_message_of_a_5xx_stays_inside() {
        use http_body::Body as _;
        let inside = Error::internal("password is hunter2").into_response().into_http();
        assert!(inside.body().is_end_stream());
        let outside = Error::bad_request("no").into_response().into_http();
        assert_eq!(outside.body().size_hint().exact(), Some(2));
    }
}
