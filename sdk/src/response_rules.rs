//! What `HttpServletResponse` has beside status, header fields and content: redirects, errors, cookies, charsets, trailers.

use std::borrow::Cow;

use cookie::Cookie;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyDataStream;

use crate::charset::Charset;
use crate::{Body, Error, Response, cookies};

impl Response {
    /// The error with this status and message, to be returned: `return Response::send_error(StatusCode::GONE, "sold out")`.
    /// The application's error page for it answers, or else the container's (`sendError` of Servlet 6.1, section 5.6).
    ///
    /// # Errors
    /// Always: this error, or a 500 when the status is none of an error.
    pub fn send_error(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Result<Self, Error> {
        if status.is_client_error() || status.is_server_error() {
            return Err(Error::new(status, message));
        }
        Err(Error::internal(format!("send_error needs a status from 400 to 599, but got {status}")))
    }

    /// 302: look elsewhere, as `sendRedirect` does. `location` may be absolute, relative to the page (such links work under any
    /// context path), or begin with a slash; it is sent as it is. Never give it what a client sent: see
    /// [`Response::redirect_within`].
    ///
    /// # Errors
    /// 500 when `location` is not a reference as RFC 3986 has it: it has spaces, backslashes, control characters or characters
    /// beyond ASCII that are not percent-encoded.
    pub fn redirect(location: &str) -> Result<Self, Error> {
        Self::redirect_with(StatusCode::FOUND, location)
    }

    /// 303: the answer to a POST that did its work, look at this page now.
    ///
    /// # Errors
    /// As [`Response::redirect`].
    pub fn see_other(location: &str) -> Result<Self, Error> {
        Self::redirect_with(StatusCode::SEE_OTHER, location)
    }

    /// A redirect with this status: 301, 302, 303, 307 or 308.
    ///
    /// # Errors
    /// As [`Response::redirect`], and for any other status.
    pub fn redirect_with(status: StatusCode, location: &str) -> Result<Self, Error> {
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Err(Error::internal(format!("{status} is not a redirect: use 301, 302, 303, 307 or 308")));
        }
        if let Some(bad) = location.chars().find(|c| !c.is_ascii_graphic() || *c == '\\') {
            return Err(Error::internal(format!(
                "a redirect can't go to '{}': percent-encode {bad:?}",
                location.escape_default()
            )));
        }
        Self::status(status).header(header::LOCATION, location)
    }

    /// As [`Response::redirect`], for a location that came from a client, such as the page to go back to after a login: it must
    /// stay on this host.
    ///
    /// # Errors
    /// 400 when it leads elsewhere, or is not a reference.
    pub fn redirect_within(location: &str) -> Result<Self, Error> {
        let begin = location.split(['/', '?', '#']).next().unwrap_or_default();
        if location.starts_with("//") || begin.contains(':') {
            return Err(Error::bad_request("the page to go to is not on this host"));
        }
        Self::redirect(location).map_err(|error| error.with_status(StatusCode::BAD_REQUEST))
    }

    /// Text in another charset than UTF-8: it is encoded, and the charset is added to the content type.
    ///
    /// ```
    /// use wharf_sdk::Response;
    ///
    /// let page = Response::text_in("text/plain", "ISO-8859-1", "Grüße").unwrap();
    /// assert_eq!(page.headers()["content-type"], "text/plain; charset=ISO-8859-1");
    /// assert!(Response::text_in("text/plain", "US-ASCII", "Grüße").is_err());
    /// ```
    ///
    /// # Errors
    /// 500 when the charset is not known, the text has characters that it has not, or the type can't stand in a header.
    pub fn text_in(content_type: &str, charset: &str, text: impl Into<Cow<'static, str>>) -> Result<Self, Error> {
        let known = Charset::named(charset).ok_or_else(|| Error::internal(format!("unknown charset '{charset}'")))?;
        let bytes = known.encode(text.into());
        let bytes = bytes.ok_or_else(|| Error::internal(format!("the text can't be written in {charset}")))?;
        Self::new(bytes).with_content_type(&format!("{content_type}; charset={charset}"))
    }

    /// The same with this `Content-Type`.
    ///
    /// # Errors
    /// 500 when it is not a media type, or can't stand in a header.
    pub fn with_content_type(self, content_type: &str) -> Result<Self, Error> {
        let (kind, subtype) = crate::request_content::essence(content_type).split_once('/').unwrap_or_default();
        if !cookies::is_token(kind.as_bytes()) || !cookies::is_token(subtype.as_bytes()) {
            let shown = content_type.escape_default();
            return Err(Error::internal(format!("'{shown}' is not a media type such as text/plain")));
        }
        self.header(header::CONTENT_TYPE, content_type)
    }

    /// The same with this length stated for its content, as `Content-Length`. A stream that turns out shorter or longer is an
    /// error, and the connection is cut.
    ///
    /// # Errors
    /// 500 when the content is known to have another length.
    pub fn with_content_length(mut self, len: u64) -> Result<Self, Error> {
        match http_body::Body::size_hint(self.body()).exact() {
            Some(exact) if exact == len => Ok(self),
            Some(exact) => Err(Error::internal(format!("the content has {exact} bytes, not {len}"))),
            None => {
                let body = std::mem::take(self.body_mut());
                Ok(self.with_body(Body::from_stream_of(len, BodyDataStream::new(body))))
            }
        }
    }

    /// The same with a cookie to set. What `SameSite=None` and `Partitioned` need, `Secure`, is added where it is not said.
    ///
    /// # Errors
    /// 500 when its name, value, path or domain can't stand in a cookie (RFC 6265, section 4.1), or when browsers would ignore
    /// it: more than 4096 bytes, `SameSite=None` or `Partitioned` with `Secure` off, a `__Secure-` or `__Host-` name
    /// without what that promises.
    pub fn cookie(self, cookie: Cookie<'_>) -> Result<Self, Error> {
        cookies::check(&cookie)?;
        self.add_header(header::SET_COOKIE, cookie.to_string())
    }

    /// The same with a cookie to forget: give it the name, path and domain it was set with.
    ///
    /// # Errors
    /// As [`Response::cookie`].
    pub fn remove_cookie(self, mut cookie: Cookie<'_>) -> Result<Self, Error> {
        cookie.make_removal();
        cookie.set_value("");
        self.cookie(cookie)
    }

    /// The same with trailers after its content (RFC 9110, section 6.5), which `make` gives when the content has been sent:
    /// fields of these names alone. Clients of HTTP/1.1 get them if they say `TE: trailers`.
    ///
    /// # Errors
    /// 500 when a name is none, or is one of a field that must come before the content.
    pub fn with_trailers(
        self,
        names: &[&str],
        make: impl FnOnce() -> HeaderMap + Send + 'static,
    ) -> Result<Self, Error> {
        let mut fields = Vec::with_capacity(names.len());
        for name in names {
            let parsed = name.parse::<HeaderName>();
            let field =
                parsed.map_err(|_| Error::internal(format!("'{}' is not a header name", name.escape_default())))?;
            if BEFORE_CONTENT.contains(&field) {
                return Err(Error::internal(format!("'{field}' can't be a trailer: it is needed before the content")));
            }
            fields.push(field);
        }
        let list = fields.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
        let mut response = self.header(header::TRAILER, list)?;
        let body = std::mem::take(response.body_mut()).with_trailers(move || {
            let mut given = make();
            let unnamed: Vec<_> = given.keys().filter(|name| !fields.contains(name)).cloned().collect();
            for name in unnamed {
                given.remove(name);
            }
            given
        });
        *response.body_mut() = body;
        Ok(response)
    }

    /// Makes it as new: 200, no header fields, no content. A response is a value until it is returned, and is committed when the
    /// first filter has returned it; so nothing is ever too late here (Servlet 6.1, section 5.2).
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Takes the content away, and leaves status and header fields.
    pub fn reset_buffer(&mut self) {
        *self.body_mut() = Body::empty();
        self.headers_mut().remove(header::CONTENT_LENGTH);
    }

    /// The same with this header field as a date (RFC 9110, section 5.6.7).
    ///
    /// # Errors
    /// As [`Response::header`]; 500 for a date before 1970 or after 9999.
    pub fn date_header(self, name: &str, when: std::time::SystemTime) -> Result<Self, Error> {
        const END: u64 = 253_402_300_800;
        match when.duration_since(std::time::UNIX_EPOCH) {
            Ok(since) if since.as_secs() < END => self.header(name, httpdate::fmt_http_date(when)),
            _ => Err(Error::internal(format!("header '{name}': HTTP has no date before 1970 or after 9999"))),
        }
    }

    /// The same with this header field as a whole number.
    ///
    /// # Errors
    /// As [`Response::header`].
    pub fn int_header(self, name: &str, value: i64) -> Result<Self, Error> {
        self.header(name, HeaderValue::from(value))
    }
}

/// Fields for framing, routing, conditions and the like, which no trailer may have (RFC 9110, section 6.5.1).
const BEFORE_CONTENT: [HeaderName; 21] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::DATE,
    header::EXPIRES,
    header::HOST,
    header::LOCATION,
    header::PROXY_AUTHENTICATE,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::VARY,
    header::WARNING,
    header::WWW_AUTHENTICATE,
];
