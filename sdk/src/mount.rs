//! A tower service, such as an axum `Router`, as an application or as one servlet of it.

use std::future::{Future, poll_fn, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Context, Poll, Waker};

use bytes::Bytes;
use http::StatusCode;
use pin_project_lite::pin_project;
use tower_service::Service;
use try_lock::{Locked, TryLock};
use wharf_abi::contain;

use crate::application::{Application, BoxFuture, ServletInfo, answer};
#[cfg(any(feature = "axum", feature = "serve"))]
use crate::on_upgrade::{Handshake, offer};
use crate::request::Crossed;
use crate::slots::Slots;
use crate::{Body, BoxError, Error, Request, Response, Servlet, ServletContext, upgrade};

/// Clones of a service that a thread keeps: more than one is used only where requests wait until theirs is ready.
const KEPT: usize = 16;

/// A tower service. Requests that a thread answers one after the other use the same clone of it, as those of a connection do where hyper serves
/// it.
pub(crate) struct Mounted<S> {
    first: Mutex<S>,
    /// Clones that nobody uses.
    idle: Slots<TryLock<Vec<S>>>,
}

impl<S: Clone> Mounted<S> {
    pub(crate) fn new(service: S) -> Self {
        Self { first: Mutex::new(service), idle: Slots::new(|| TryLock::new(Vec::new())) }
    }

    /// What this thread keeps; `None` where somebody has it: a service that is being asked and asks this one in turn, or a thread with the
    /// same place.
    fn idle(&self) -> Option<Locked<'_, Vec<S>>> {
        self.idle.local().try_lock()
    }

    fn another(&self) -> S {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn give_back<S>(idle: Option<Locked<'_, Vec<S>>>, service: S) {
    if let Some(mut idle) = idle
        && idle.len() < KEPT
    {
        idle.push(service);
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
    /// Asks the service, which is ready.
    #[inline]
    fn ask(service: &mut S, request: http::Request<Body>) -> Asked<S::Future> {
        match upgrade::asks(request.version(), request.headers()) {
            true => Self::ask_to_upgrade(service, request),
            false => Asked { future: service.call(request), handshake: None },
        }
    }

    #[cold]
    fn ask_to_upgrade(service: &mut S, mut request: http::Request<Body>) -> Asked<S::Future> {
        let handshake = offer(&mut request);
        Asked { future: service.call(request), handshake }
    }

    async fn answer(&self, request: Request) -> Result<Response, Error> {
        let kept = self.idle().and_then(|mut idle| idle.pop());
        let mut service = kept.unwrap_or_else(|| self.another());
        poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
        let asked = Self::ask(&mut service, request.into_http());
        give_back(self.idle(), service);
        asked.await
    }
}

#[cfg(any(feature = "axum", feature = "serve"))]
type Offered = Option<Box<Handshake>>;
/// Without hyper, nobody can offer an upgrade as it does.
#[cfg(not(any(feature = "axum", feature = "serve")))]
type Offered = Option<std::convert::Infallible>;
#[cfg(not(any(feature = "axum", feature = "serve")))]
fn offer(_: &mut http::Request<Body>) -> Offered {
    None
}

fn failed(error: impl Into<BoxError>) -> Error {
    Error::boxed(error.into())
}

pin_project! {
    /// What a service was asked. Written out, since an `async fn` would move what it waits for once more.
    struct Asked<F> {
        #[pin]
        future: F,
        handshake: Offered,
    }
}

impl<F, B, E> Future for Asked<F>
where
    F: Future<Output = Result<http::Response<B>, E>>,
    E: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = Response::settled(task::ready!(this.future.poll(cx)).map_err(failed)?);
        #[cfg(any(feature = "axum", feature = "serve"))]
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(handshake)) = (response.status_code(), this.handshake.take()) {
            return Poll::Ready(Ok(response.switching(handshake.into_handler())));
        }
        Poll::Ready(Ok(response))
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
        answer(|| self.answer(request))
    }

    fn crossed(&self, request: Crossed) -> BoxFuture<'_, Response> {
        // Most services are ready at all times: then nothing but their own future has to be kept. The request is large: it is taken
        // from where it is.
        let mut request = Some(request);
        let mut request = || request.take().expect("taken once");
        let asked = contain(|| -> BoxFuture<'_, Response> {
            // Locked for as long as the service is asked, which takes no time: one lock instead of two.
            let mut idle = self.idle();
            let kept = idle.as_mut().and_then(|idle| idle.pop());
            let mut service = kept.unwrap_or_else(|| self.another());
            match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(())) => {
                    let answer = answer(|| Self::ask(&mut service, request().into_http()));
                    give_back(idle, service);
                    answer
                }
                Poll::Ready(Err(error)) => Box::pin(ready(failed(error).into_response())),
                Poll::Pending => {
                    drop(idle);
                    self.call(request().into())
                }
            }
        });
        asked.unwrap_or_else(|| Box::pin(ready(Response::status(StatusCode::INTERNAL_SERVER_ERROR))))
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::ContainerInfo;
    use crate::local::{Local, Peer};

    /// Has its requests answered as those are that cross the border.
    struct Crossing<S>(Mounted<S>);

    impl Application for Crossing<Moody> {
        fn servlets(&self) -> Vec<ServletInfo> {
            Vec::new()
        }

        fn start(&self, context: Arc<ServletContext>) -> BoxFuture<'_, Result<(), BoxError>> {
            self.0.start(context)
        }

        fn call(&self, request: Request) -> BoxFuture<'_, Response> {
            let (mut parts, body) = request.into_http().into_parts();
            let facts = parts.extensions.remove::<ContainerInfo>().unwrap().into_facts();
            self.0.crossed(Crossed { method: parts.method, version: parts.version, body, facts })
        }

        fn stop(&self) -> BoxFuture<'_, Result<(), BoxError>> {
            self.0.stop()
        }
    }

    #[derive(Clone)]
    enum Moody {
        /// Ready when it was asked so often; counts.
        After(usize, Arc<AtomicUsize>),
        Failing,
        Panicking,
    }

    impl Service<http::Request<Body>> for Moody {
        type Response = http::Response<Body>;
        type Error = BoxError;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            match self {
                Self::After(often, asked) if asked.fetch_add(1, Ordering::Relaxed) < *often => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Self::Failing => Poll::Ready(Err("no room".into())),
                _ => Poll::Ready(Ok(())),
            }
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            assert!(!matches!(self, Self::Panicking), "as was to be");
            ready(Ok(http::Response::new(request.method().to_string().into())))
        }
    }

    #[tokio::test]
    async fn a_service_that_is_being_asked_may_be_asked_again() {
        let asked = Arc::<AtomicUsize>::default();
        let crossing = Arc::new(Crossing(Mounted::new(Moody::After(0, asked.clone()))));
        let local = Local::start(crossing.clone(), ServletContext::builder().build()).await.unwrap();
        for kept in [0, 1] {
            let request = http::Request::get("/").body(Body::empty()).unwrap();
            let mut call = pin!(local.call(request, Peer { remote: None, local: None }));
            let asked_meanwhile = (kept == 0).then(|| crossing.0.idle());
            let Poll::Ready(answer) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
                panic!("a service that is ready at once");
            };
            assert_eq!(answer.status_code(), 200);
            drop(asked_meanwhile);
            assert_eq!(crossing.0.idle().map(|idle| idle.len()), Some(kept));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn services_that_are_not_ready_fail_or_panic() {
        let asked = Arc::<AtomicUsize>::default();
        let context = ServletContext::builder().build();
        for (service, status) in [
            (Moody::After(0, asked.clone()), 200),
            (Moody::After(5, asked.clone()), 200),
            (Moody::Failing, 500),
            (Moody::Panicking, 500),
        ] {
            for application in [
                Arc::new(Mounted::new(service.clone())) as Arc<dyn Application>,
                Arc::new(Crossing(Mounted::new(service.clone()))),
            ] {
                let local = Local::start(application, context.clone()).await.unwrap();
                asked.store(0, Ordering::Relaxed);
                let request = http::Request::put("/x").body(Body::empty()).unwrap();
                let answer = local.call(request, Peer { remote: None, local: None }).await;
                assert_eq!(answer.status_code(), status);
                if let Moody::After(often, _) = service {
                    assert_eq!(asked.load(Ordering::Relaxed), often + 1);
                    let body = http_body_util::BodyExt::collect(answer.into_http().into_body()).await.unwrap();
                    assert_eq!(body.to_bytes(), "PUT");
                }
            }
        }
    }
}
