//! The protections that tower-http has as layers: requests of other sites (CSRF), and what their scripts may read (CORS).

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, HeaderName, HeaderValue, ORIGIN};
use http::{Method, Request, Response};
use tower::util::option_layer;
use tower::{Layer, Service};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};
use tower_http::csrf::CsrfLayer;
use wharf_kernel::settings;
use wharf_kernel::{Body, ResponseFuture};

/// The layers that are configured.
pub(super) struct Layers {
    cors: Option<CorsLayer>,
    csrf: Option<CsrfLayer>,
}

impl Layers {
    pub(super) fn new(settings: &settings::Protect) -> Result<Option<Self>, String> {
        let mut csrf = None;
        if settings.csrf {
            let mut layer = CsrfLayer::new();
            for origin in &settings.trusted_origins {
                layer = layer.add_trusted_origin(origin).map_err(|e| format!("protect.trusted_origins: {e}"))?;
            }
            csrf = Some(layer);
        }
        let cors = settings.cors.as_ref().map(cors).transpose()?;
        Ok((cors.is_some() || csrf.is_some()).then_some(Self { cors, csrf }))
    }

    /// Whether a layer has something to do with the request.
    pub(super) fn want(&self, request: &Request<Body>) -> bool {
        self.csrf.is_some() || (self.cors.is_some() && request.headers().contains_key(ORIGIN))
    }

    /// Hands the request to `inner` through the layers.
    pub(super) fn call(
        &self,
        request: Request<Body>,
        inner: impl FnOnce(Request<Body>) -> ResponseFuture,
    ) -> ResponseFuture {
        // The layer answers every OPTIONS by itself; only a preflight is its to answer.
        let options = *request.method() == Method::OPTIONS;
        let mine = !options || request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let cors = self.cors.as_ref().filter(|_| mine && request.headers().contains_key(ORIGIN)).cloned();
        let layers = (option_layer(cors), option_layer(self.csrf.clone()));
        let mut service = layers.layer(Once(Some(inner)));
        // The layers call it at once; what they give back does not refer to it.
        let future = service.call(request);
        Box::pin(async move {
            match future.await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    }
}

fn cors(settings: &settings::Cors) -> Result<CorsLayer, String> {
    let bad = |e: &dyn std::fmt::Display| format!("protect.cors: {e}");
    let origins: Result<Vec<HeaderValue>, _> = settings.origins.iter().map(|o| o.parse()).collect();
    let any = settings.origins.iter().any(|o| o == "*");
    let methods: Result<Vec<Method>, _> = settings.methods.iter().map(|m| m.parse()).collect();
    let methods = methods.map_err(|e| bad(&e))?;
    let names = |list: &[String]| -> Result<Vec<HeaderName>, String> {
        list.iter().map(|n| n.parse::<HeaderName>().map_err(|e| bad(&e))).collect()
    };
    let methods = if methods.is_empty() { vec![Method::GET, Method::HEAD, Method::POST] } else { methods };
    let mut layer = CorsLayer::new()
        .allow_origin(if any { AllowOrigin::any() } else { AllowOrigin::list(origins.map_err(|e| bad(&e))?) })
        .allow_methods(AllowMethods::list(methods))
        .allow_headers(AllowHeaders::list(names(&settings.headers)?))
        .expose_headers(ExposeHeaders::list(names(&settings.expose)?))
        .allow_credentials(settings.credentials);
    if let Some(age) = settings.max_age {
        layer = layer.max_age(Duration::from_secs(age.as_secs()));
    }
    Ok(layer)
}

/// A service for one request.
struct Once<F>(Option<F>);

/// What it gives: the response, as tower has it.
type OnceFuture = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<F: FnOnce(Request<Body>) -> ResponseFuture> Service<Request<Body>> for Once<F> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = OnceFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.0.take() {
            Some(inner) => {
                let future = inner(request);
                Box::pin(async move { Ok(future.await) })
            }
            // A layer that asks twice gets nothing the second time.
            None => Box::pin(std::future::ready(Ok(Response::new(Body::empty())))),
        }
    }
}
