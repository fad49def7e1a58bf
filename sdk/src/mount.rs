//! A tower service, such as an axum `Router`, as an application or as one servlet of it.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tower_service::Service;

use crate::application::{Application, BoxFuture, ServletInfo, answer};
#[cfg(any(feature = "axum", feature = "serve"))]
use crate::on_upgrade;
use crate::{Body, BoxError, Error, Request, Response, Servlet, ServletContext};

/// A tower service that is cloned for each request.
pub(crate) struct Mounted<S>(Mutex<S>);

impl<S> Mounted<S> {
    pub(crate) fn new(service: S) -> Self {
        Self(Mutex::new(service))
    }
}

impl<S, B> Mounted<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    #[cfg_attr(not(any(feature = "axum", feature = "serve")), expect(unused_mut))]
    async fn answer(&self, mut request: Request) -> Result<Response, Error> {
        #[cfg(any(feature = "axum", feature = "serve"))]
        let handshake = on_upgrade::offer(&mut request);
        let mut service = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let failed = |error: S::Error| Error::boxed(error.into());
        poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
        let response = service.call(request.into_http()).await.map_err(failed)?;
        let response: Response = response.map(|body| Body::new(body).settle()).into();
        #[cfg(any(feature = "axum", feature = "serve"))]
        if let (http::StatusCode::SWITCHING_PROTOCOLS, Some(handshake)) = (response.status_code(), handshake) {
            return Ok(response.switching(handshake.into_handler()));
        }
        Ok(response)
    }
}

impl<S, B> Application for Mounted<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn servlets(&self) -> Vec<ServletInfo> {
        Vec::new()
    }

    fn start(&self, _context: Arc<ServletContext>) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn call(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(answer(move || async move { self.answer(request).await.unwrap_or_else(Error::into_response) }))
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl<S, B> Servlet for Mounted<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    async fn service(&self, request: Request) -> Result<Response, Error> {
        self.answer(request).await
    }
}
