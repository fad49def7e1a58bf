//! What the header fields and the target of a request say (Servlet 6.1, sections 3.3 to 3.5, 3.9 and 3.13).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use cookie::Cookie;
use http::header;
use http::{HeaderMap, Version};

use crate::charset::parameter;
use crate::cookies::{Nameless, parse_cookies};
use crate::path_parameters::{self, PathParameter};
use crate::request::visible;
use crate::{Error, Request, locale};

impl Request {
    /// The values of all header fields of this name, in the order sent; those that are not visible ASCII text are left out.
    pub fn header_values(&self, name: impl AsRef<str>) -> impl Iterator<Item = &str> {
        self.field_values(name).filter_map(visible)
    }

    /// The first header field of this name as a date (RFC 9110, section 5.6.7).
    ///
    /// # Errors
    /// 400 when it is none.
    pub fn date_header(&self, name: &str) -> Result<Option<SystemTime>, Error> {
        self.read_header(name, "a date", |text| httpdate::parse_http_date(text).ok())
    }

    /// The first header field of this name as a whole number.
    ///
    /// # Errors
    /// 400 when it is none.
    pub fn int_header(&self, name: &str) -> Result<Option<i64>, Error> {
        self.read_header(name, "a whole number", |text| text.parse().ok())
    }

    fn read_header<T>(&self, name: &str, what: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Error> {
        let Some(value) = self.field_values(name).next() else { return Ok(None) };
        let value = visible(value).and_then(|text| read(text.trim()));
        value.map(Some).ok_or_else(|| Error::bad_request(format!("the header '{name}' is not {what}")))
    }

    /// All cookies that can be read, in the order sent; see [`parse_cookies`]. One without an equals sign is passed over.
    pub fn cookies(&self) -> impl Iterator<Item = Cookie<'_>> {
        self.field_values(header::COOKIE).flat_map(|line| parse_cookies(line, Nameless::Ignore))
    }

    /// The first cookie of this name.
    pub fn cookie(&self, name: &str) -> Option<Cookie<'_>> {
        self.cookies().find(|cookie| cookie.name() == name)
    }

    /// The language the client wants most, as a language tag: `de-CH`. `None` when it says none.
    pub fn locale(&self) -> Option<&str> {
        self.locales().into_iter().next()
    }

    /// The languages the client wants, by `Accept-Language`: the best first. Those that it refuses (`q=0`), `*`, and what is not
    /// well formed are left out.
    pub fn locales(&self) -> Vec<&str> {
        locale::languages(self.header_values(header::ACCEPT_LANGUAGE))
    }

    /// The path parameters, such as `;v=1` in `/items;v=1/7`, of the path as the client sent it. They are no part of the paths
    /// that servlets are chosen by.
    ///
    /// # Errors
    /// 400 when one is not percent-encoded UTF-8 text.
    pub fn path_parameters(&self) -> Result<Vec<PathParameter>, Error> {
        path_parameters::parse(self.request_uri())
    }

    /// The first path parameter of this name, in whichever segment. Where path parameters can't be read, there is none.
    pub fn path_parameter(&self, name: &str) -> Option<String> {
        let parameters = self.path_parameters().ok()?;
        parameters.into_iter().find(|parameter| parameter.name == name).map(|parameter| parameter.value)
    }

    /// The character encoding that the `Content-Type` names, as sent.
    pub fn character_encoding(&self) -> Option<Cow<'_, str>> {
        parameter(self.content_type()?, "charset")
    }

    /// Name and version of the protocol: `HTTP/1.1`.
    pub fn protocol(&self) -> &'static str {
        match self.version() {
            Version::HTTP_09 => "HTTP/0.9",
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_3 => "HTTP/3",
            _ => "HTTP/1.1",
        }
    }

    /// Name of the host the client asked for, without the port. That of an IPv6 address has its brackets.
    pub fn server_name(&self) -> &str {
        self.split_authority().0
    }

    /// Port the client asked for; that of the scheme where it named none.
    pub fn server_port(&self) -> u16 {
        self.split_authority().1.unwrap_or(if self.is_secure() { 443 } else { 80 })
    }

    fn split_authority(&self) -> (&str, Option<u16>) {
        let authority = self.authority();
        match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
            _ => (authority, None),
        }
    }

    /// The address the client asked for, without the query: `http://example.com/shop/items/7`.
    pub fn request_url(&self) -> String {
        format!("{}://{}{}", self.scheme(), self.authority(), self.request_uri())
    }

    /// The trailers of the content (RFC 9110, section 6.5), once all of it has been read; `None` before, and when there were
    /// none.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.body().trailers()
    }

    /// A link with what keeps the session of a client that takes no cookies (`encodeURL` and `encodeRedirectURL` of Servlet 6.1,
    /// section 7.1.3): the session's id as a path parameter.
    ///
    /// That is done where the application's `[session]` says `url_tracking`, this request has opened its session, the client
    /// has not sent the id in a cookie, and the link leads into this application. Else it is given back as it is. A [`UrlEncoder`] goes first.
    pub fn encode_url<'a>(&self, url: &'a str) -> Cow<'a, str> {
        let encoded = match self.extensions().get::<UrlEncoder>() {
            Some(encoder) => (encoder.0)(url),
            None => self.session_in_link(url),
        };
        encoded.map_or(Cow::Borrowed(url), Cow::Owned)
    }

    fn session_in_link(&self, url: &str) -> Option<String> {
        let parameter = self.facts().session_in_links()?;
        let origin = format!("{}://{}", self.scheme(), self.authority());
        wharf_session_state::in_link(url, &parameter, self.context_path(), &origin)
    }
}

/// What [`Request::encode_url`] asks: put into [`Request::extensions_mut`] by whoever keeps something in links.
///
/// ```
/// use wharf_sdk::{Request, UrlEncoder};
///
/// fn keep(request: &mut Request, id: String) {
///     request.extensions_mut().insert(UrlEncoder::new(move |url| url.starts_with('/').then(|| format!("{url};id={id}"))));
/// }
/// ```
#[derive(Clone)]
pub struct UrlEncoder(Arc<Encode>);

type Encode = dyn Fn(&str) -> Option<String> + Send + Sync;

impl UrlEncoder {
    /// One that asks `encode`; `None` leaves a link as it is.
    pub fn new(encode: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(encode))
    }
}
