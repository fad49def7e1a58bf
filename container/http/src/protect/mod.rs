//! Protections that are configured: what is refused before an application sees it, and what is added to every answer.
//!
//! They are rungs of the pipeline that are there only when something is configured: one check of an `Option` where nothing
//! is.

mod headers;
mod layers;
mod rate;
mod shared_rate;

use std::sync::Arc;

use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use wharf_kernel::resource::OwnResources;
use wharf_kernel::settings::{self, Network};
use wharf_kernel::{Body, Connection, ResponseFuture};

use self::headers::Headers;
use self::layers::Layers;
use self::rate::Rate;
use self::shared_rate::SharedRate;
use crate::error_page;

/// The protections in force.
pub struct Protect {
    allow: Vec<Network>,
    deny: Vec<Network>,
    rate: Option<Rate>,
    shared_rate: Option<SharedRate>,
    /// In lower case.
    hosts: Vec<String>,
    /// The port of `https://`.
    redirect: Option<u16>,
    headers: Headers,
    layers: Option<Layers>,
}

impl Protect {
    /// Makes what the settings say; nothing where they say nothing.
    ///
    /// # Errors
    /// The key that can't be used, and why.
    pub fn new(settings: &settings::Protect, stores: &dyn OwnResources) -> Result<Option<Self>, String> {
        if *settings == settings::Protect::default() {
            return Ok(None);
        }
        let shared = |rate: &settings::Rate| {
            let name = rate.shared.as_ref()?;
            Some(stores.counters(name).and_then(|cache| SharedRate::start(rate, cache)))
        };
        let shared_rate = settings.rate.as_ref().and_then(shared).transpose();
        let shared_rate = shared_rate.map_err(|what| format!("protect.rate.shared: {what}"))?;
        Ok(Some(Self {
            allow: settings.allow.clone(),
            deny: settings.deny.clone(),
            rate: settings.rate.as_ref().map(Rate::new).transpose()?,
            shared_rate,
            hosts: settings.hosts.iter().map(|h| h.to_ascii_lowercase()).collect(),
            redirect: settings.https_redirect.then_some(settings.https_port.unwrap_or(443)),
            headers: Headers::new(settings),
            layers: Layers::new(settings)?,
        }))
    }

    /// The answer to a request that is refused. The cheapest and the strictest come first.
    pub(crate) fn refuse(
        &self,
        request: &Request<Body>,
        host: &str,
        connection: &Arc<Connection>,
        id: &str,
    ) -> Option<Response<Body>> {
        let page = |status, detail| error_page::render(status, detail, id, request.headers());
        if let Some(address) = connection.remote.map(|r| r.ip()) {
            let allowed = self.allow.is_empty() || self.allow.iter().any(|n| n.contains(address));
            if !allowed || self.deny.iter().any(|n| n.contains(address)) {
                return Some(page(StatusCode::FORBIDDEN, ""));
            }
            let shared = || self.shared_rate.as_ref().and_then(|rate| rate.check(rate::key(address)));
            if let Some(seconds) = self.rate.as_ref().and_then(|rate| rate.check(address)).or_else(shared) {
                let mut response = page(StatusCode::TOO_MANY_REQUESTS, "");
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
                return Some(response);
            }
        }
        if !self.hosts.is_empty() && !self.answers(host) {
            return Some(page(StatusCode::MISDIRECTED_REQUEST, ""));
        }
        match self.redirect {
            Some(port) if !connection.secure => Some(redirect(request, host, port, id)),
            _ => None,
        }
    }

    fn answers(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.hosts.iter().any(|allowed| match allowed.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == *allowed,
        })
    }

    /// Whether a layer must see the request.
    pub(crate) fn wraps(&self, request: &Request<Body>) -> bool {
        self.layers.as_ref().is_some_and(|layers| layers.want(request))
    }

    /// Hands the request to `inner` through the layers.
    pub(crate) fn wrap(
        &self,
        request: Request<Body>,
        inner: impl FnOnce(Request<Body>) -> ResponseFuture,
    ) -> ResponseFuture {
        match &self.layers {
            Some(layers) => layers.call(request, inner),
            None => inner(request),
        }
    }

    /// Adds what belongs to every answer.
    pub(crate) fn complete(&self, response: &mut Response<Body>, secure: bool) {
        self.headers.add(response.headers_mut(), secure);
    }
}

/// Sends a plain request to the same address with TLS. 308, since the method stays (RFC 9110, section 15.4.9).
fn redirect(request: &Request<Body>, host: &str, port: u16, id: &str) -> Response<Body> {
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let bad = || error_page::render(StatusCode::BAD_REQUEST, "", id, request.headers());
    if host.is_empty() || !path.starts_with('/') {
        return bad();
    }
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let Ok(location) = HeaderValue::from_str(&format!("https://{host}{port}{path}")) else { return bad() };
    let mut response = error_page::render(
        StatusCode::PERMANENT_REDIRECT,
        "This address is served with TLS alone.",
        id,
        request.headers(),
    );
    response.headers_mut().insert(LOCATION, location);
    response
}
