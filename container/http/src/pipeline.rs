//! The server's own pipeline: what happens to every request before and after the application, as one ladder.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use http::header::{ALLOW, REFERER, TRANSFER_ENCODING, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use wharf_kernel::{AccessRecord, AccessSink, Body, Connection, Routes, ServerCounters};

use crate::dispatch::{Dispatched, dispatch};
use crate::request_body::{Progress, RequestBody, drain};
use crate::response::{self, Asked};
use crate::response_body::{ResponseBody, Tail};
use crate::worker::Shared;
use crate::{Limits, check, error_page};

/// What all requests share.
pub struct Pipeline {
    /// The route table in force.
    pub routes: Arc<Routes>,
    /// Where finished requests are written down.
    pub access: Arc<dyn AccessSink>,
    /// Counters of the server.
    pub counters: Arc<ServerCounters>,
    /// Limits.
    pub limits: Limits,
}

/// Answers one request. Each step is a rung; the order is the point.
pub(crate) async fn answer(
    worker: Arc<Shared>,
    connection: Arc<Connection>,
    id: Arc<str>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let this = &*worker.pipeline;
    // 1. The clock and the record first, so that whatever happens below is timed and written down.
    let began = Instant::now();
    let (mut request, incoming) = split(request);
    let asked = Asked::of(&request);
    let record = this.access.enabled().then(|| Box::new(record(&request, &connection, &id)));
    let mut tail =
        Tail { worker: worker.clone(), began, app: None, status: 500, sent: 0, received: None, ended: false, record };
    let chunked = request.headers().contains_key(TRANSFER_ENCODING);

    // 2. What no application should have to look at: Host, target, method, expectation.
    let checked = check::check(&mut request, &this.limits);
    let mut response = match checked {
        Err(reject) => {
            let mut response = error_page::render(reject.status, reject.detail, &id, request.headers());
            if reject.status == StatusCode::METHOD_NOT_ALLOWED {
                response.headers_mut().insert(ALLOW, check::ALLOW);
            }
            if reject.close {
                response::close(&mut response);
            }
            this.discard(incoming);
            response
        }
        // 3. A body that says it is too large is refused before the application hears of it.
        Ok(_) if incoming.as_ref().is_some_and(|b| b.size_hint().lower() > this.limits.body_bytes) => {
            let mut response = error_page::render(StatusCode::PAYLOAD_TOO_LARGE, "", &id, request.headers());
            response::close(&mut response);
            this.discard(incoming);
            response
        }
        Ok(authority) => {
            if let Some(record) = &mut tail.record {
                record.host = authority.clone();
            }
            // 4. The body is capped, however it is framed.
            if let Some(incoming) = incoming {
                let progress = Arc::new(Progress::default());
                tail.received = Some(progress.clone());
                *request.body_mut() = Body::new(RequestBody::new(incoming, &this.limits, progress));
            }
            // 5. The application. From here on nothing it does can keep the rest from happening.
            this.call(request, authority, &connection, &id, &mut tail).await
        }
    };

    // 6. The response is made one that can be sent.
    if let Some(progress) = &tail.received {
        this.blame_client(&mut response, progress, &asked, &id);
    }
    response::finish(&mut response, &asked, &id);
    if chunked && !this.limits.keep_alive_after_chunked && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response::close(&mut response);
    }
    tail.status = response.status().as_u16();
    // 7. The tail goes with the body: the request ends when its last byte is handed to the socket.
    let sends = asked.method != http::Method::HEAD && response.status() != StatusCode::NOT_MODIFIED;
    response.map(|body| ResponseBody::new(body, tail, sends))
}

impl Pipeline {
    async fn call(
        &self,
        request: Request<Body>,
        authority: Box<str>,
        connection: &Arc<Connection>,
        id: &Arc<str>,
        tail: &mut Tail,
    ) -> Response<Body> {
        let failed = |what: &str| {
            self.counters.panicked();
            tracing::error!(request = &**id, "{what} panicked; the request is answered with status 500");
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        };
        let dispatched = catch_unwind(AssertUnwindSafe(|| dispatch(&self.routes, request, authority, connection, id)));
        match dispatched {
            Ok(Dispatched::Answer(response)) => response,
            Ok(Dispatched::Endpoint(future, counters)) => {
                tail.app = Some(counters);
                match catch(future).await {
                    Some(response) => response,
                    None => failed("the endpoint"),
                }
            }
            Err(_) => failed("the dispatch to the endpoint"),
        }
    }

    /// An error the application answered with because of the client is the client's.
    fn blame_client(&self, response: &mut Response<Body>, progress: &Progress, asked: &Asked, id: &str) {
        let status = if progress.too_large.load(Ordering::Relaxed) {
            StatusCode::PAYLOAD_TOO_LARGE
        } else if progress.stalled.load(Ordering::Relaxed) {
            StatusCode::REQUEST_TIMEOUT
        } else {
            return;
        };
        if response.status().is_client_error() || response.status().is_server_error() {
            *response = Response::new(Body::empty());
            *response.status_mut() = status;
            error_page::fill(response, "", id, error_page::prefers_json(asked.accept.as_ref()));
        }
        response::close(response);
    }

    /// Reads a body nobody wants, within bounds.
    fn discard(&self, incoming: Option<Incoming>) {
        if let Some(incoming) = incoming {
            let work = drain(incoming, self.limits.drain_bytes);
            tokio::spawn(tokio::time::timeout(self.limits.drain_time, work));
        }
    }
}

/// Takes the body out, if there is one.
fn split(request: Request<Incoming>) -> (Request<Body>, Option<Incoming>) {
    let (head, incoming) = request.into_parts();
    let incoming = (!incoming.is_end_stream()).then_some(incoming);
    (Request::from_parts(head, Body::empty()), incoming)
}

fn record<B>(request: &Request<B>, connection: &Connection, id: &Arc<str>) -> AccessRecord {
    let header = |name| request.headers().get(name).cloned();
    AccessRecord {
        time: SystemTime::UNIX_EPOCH,
        remote: connection.remote,
        method: request.method().clone(),
        target: request.uri().clone(),
        version: request.version(),
        host: Box::default(),
        status: 0,
        bytes: 0,
        duration: Duration::ZERO,
        referer: header(REFERER),
        user_agent: header(USER_AGENT),
        id: id.clone(),
        app: None,
        aborted: false,
    }
}

/// The output of a future, or `None` when it panicked.
async fn catch<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
        Err(_) => Poll::Ready(None),
    })
    .await
}
