//! A tower service, such as an axum `Router`, as an application or as one servlet of it.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tower_service::Service;

use crate::application::{Application, BoxFuture, ServletInfo, answer};
#[cfg(any(feature = "axum", feature = "serve"))]
use crate::on_upgrade;
use crate::request::Crossed;
use crate::slots::Slots;
use crate::{Body, BoxError, Error, Request, Response, Servlet, ServletContext};

/// Clones of a service that a thread keeps: more than one is used only where requests wait until theirs is ready.
const KEPT: usize = 16;

/// A tower service. Requests that a thread answers one after the other use the same clone of it, as those of a connection do where hyper serves
/// it.
pub(crate) struct Mounted<S> {
    first: Mutex<S>,
    /// Clones that nobody uses.
    idle: Slots<Mutex<Vec<S>>>,
}

impl<S: Clone> Mounted<S> {
    pub(crate) fn new(service: S) -> Self {
        Self { first: Mutex::new(service), idle: Slots::new(Mutex::default) }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<S>> {
        self.idle.local().lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> S {
        let idle = self.idle().pop();
        idle.unwrap_or_else(|| self.first.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn give_back(&self, service: S) {
        let mut idle = self.idle();
        if idle.len() < KEPT {
            idle.push(service);
        }
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
    async fn answer(&self, request: impl FnOnce() -> http::Request<Body>) -> Result<Response, Error> {
        let mut service = self.take();
        let failed = |error: S::Error| Error::boxed(error.into());
        poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
        #[cfg_attr(not(any(feature = "axum", feature = "serve")), expect(unused_mut))]
        let mut request = request();
        #[cfg(any(feature = "axum", feature = "serve"))]
        let handshake = on_upgrade::offer(&mut request);
        let answer = service.call(request);
        self.give_back(service);
        let response: Response = answer.await.map_err(failed)?.map(Body::settled).into();
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
        answer(|| async move { self.answer(|| request.into_http()).await.unwrap_or_else(Error::into_response) })
    }

    fn crossed(&self, request: Crossed) -> BoxFuture<'_, Response> {
        answer(|| async move { self.answer(|| request.into_http()).await.unwrap_or_else(Error::into_response) })
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
        self.answer(|| request.into_http()).await
    }
}
