//! Tower layers as filters.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tower_layer::Layer;
use tower_service::Service;

use crate::application::BoxFuture;
use crate::{Body, BoxError, Error, Filter, Next, Request, Response};

/// A tower layer as a filter, for [`App::filter`](crate::App::filter). [`App::layer`](crate::App::layer) is shorter where it
/// stands before everything.
///
/// The layer is applied once, to a service that runs the rest of the chain; so what it keeps, such as a limit of requests at
/// a time, it keeps for all requests. An error of the layer is a 500, an error of what comes after passes through it.
///
/// ```
/// use std::time::Duration;
/// use wharf_sdk::{App, TestClient, get, layer};
///
/// let stamp = tower::util::MapResponseLayer::new(|mut response: http::Response<wharf_sdk::Body>| {
///     response.headers_mut().insert("x-stamp", http::HeaderValue::from_static("1"));
///     response
/// });
/// let app = App::new().filter("stamp", "/*", layer(stamp)).servlet("home", "/", get(|_| async { "home" }));
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let client = TestClient::new(app).start().await.unwrap();
/// assert_eq!(client.get("/").send().await.header("x-stamp"), Some("1"));
/// # });
/// ```
pub fn layer<L, S, B>(layer: L) -> impl Filter
where
    L: Layer<NextService, Service = S>,
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Layered(Mutex::new(layer.layer(NextService(()))))
}

/// The rest of the filter chain as a tower service: what a layer is put around.
#[derive(Debug, Clone)]
pub struct NextService(());

/// The rest of the chain of one request, in its extensions.
#[derive(Clone)]
struct Rest(Arc<Mutex<Option<Next>>>);

/// An error on its way out through a layer.
struct Passed(Error);

impl fmt::Debug for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Passed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl<B> Service<http::Request<B>> for NextService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        Box::pin(async move {
            let mut request = request.map(Body::new);
            let rest = request.extensions_mut().remove::<Rest>();
            let next = rest.and_then(|rest| rest.0.lock().unwrap_or_else(PoisonError::into_inner).take());
            let (Some(next), Some(request)) = (next, Request::from_http(request)) else {
                return Err("the layer called its service twice for one request, or removed its extensions".into());
            };
            match next.run(request).await {
                Ok(response) => Ok(response.into_http()),
                Err(error) => Err(Passed(error).into()),
            }
        })
    }
}

struct Layered<S>(Mutex<S>);

impl<S, B> Filter for Layered<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn filter(&self, request: Request, next: Next) -> impl Future<Output = Result<Response, Error>> + Send {
        let mut service = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        async move {
            let error = |error: S::Error| match error.into().downcast::<Passed>() {
                Ok(passed) => passed.0,
                Err(own) => Error::boxed(own),
            };
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(error)?;
            let mut request = request.into_http();
            request.extensions_mut().insert(Rest(Arc::new(Mutex::new(Some(next)))));
            let response = service.call(request).await.map_err(error)?;
            Ok(response.map(Body::settled).into())
        }
    }
}
