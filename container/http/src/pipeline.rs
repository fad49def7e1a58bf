//! The server's own pipeline: what happens to every request before and after the application, as one ladder.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use http::header::{ALLOW, REFERER, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use wharf_kernel::{AccessRecord, AccessSink, Body, Connection, Permit, ResponseFuture, Routes, ServerCounters};

use crate::dispatch::{Dispatched, dispatch};
use crate::link::{Link, Switched};
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

impl Pipeline {
    /// Begins to answer a request: everything up to the application's own future. Each step is a rung; the order is the
    /// point. No step waits, so the request goes straight from one to the next.
    pub(crate) fn begin(
        worker: &Arc<Shared>,
        connection: &Arc<Connection>,
        link: Option<&Arc<Link>>,
        id: Arc<str>,
        request: Request<Incoming>,
    ) -> Answering {
        let this = &*worker.pipeline;
        // 1. The clock and the record first, so that whatever happens below is timed and written down.
        let began = Instant::now();
        let record = this.access.enabled().then(|| Box::new(record(&request, connection, &id)));
        let mut tail = Tail {
            worker: worker.clone(),
            began,
            app: None,
            status: 500,
            sent: 0,
            received: None,
            ended: false,
            record,
        };
        let asked = Asked::of(&request, link);
        let target = request.uri().clone();
        let state = this.dispatch(connection, &id, request, &mut tail);
        Answering { state, asked, id, target, tail: Some(tail) }
    }

    fn dispatch(
        &self,
        connection: &Arc<Connection>,
        id: &Arc<str>,
        request: Request<Incoming>,
        tail: &mut Tail,
    ) -> State {
        let (mut request, incoming) = split(request);

        // 2. What no application should have to look at: Host, target, method, expectation.
        let authority = match check::check(&mut request, &self.limits) {
            Ok(authority) => authority,
            Err(reject) => {
                let mut response = error_page::render(reject.status, reject.detail, id, request.headers());
                if reject.status == StatusCode::METHOD_NOT_ALLOWED {
                    response.headers_mut().insert(ALLOW, check::ALLOW);
                }
                if reject.close {
                    response::close(&mut response);
                }
                self.discard(incoming);
                return State::Answered(response);
            }
        };
        if let Some(record) = &mut tail.record {
            record.host = authority.text.clone();
        }

        if let Some(incoming) = incoming {
            // 3. A body that says it is too large is refused before the application hears of it.
            if incoming.size_hint().lower() > self.limits.body_bytes {
                let mut response = error_page::render(StatusCode::PAYLOAD_TOO_LARGE, "", id, request.headers());
                response::close(&mut response);
                self.discard(Some(incoming));
                return State::Answered(response);
            }
            // 4. The body is capped, however it is framed.
            let progress = Arc::new(Progress::default());
            tail.received = Some(progress.clone());
            *request.body_mut() = Body::new(RequestBody::new(incoming, &self.limits, progress));
        }

        // 5. The application. From here on nothing it does can keep the rest from happening.
        let dispatched = catch_unwind(AssertUnwindSafe(|| dispatch(&self.routes, request, authority, connection, id)));
        match dispatched {
            Ok(Dispatched::Answer(response)) => State::Answered(response),
            Ok(Dispatched::Endpoint(future, permit, counters)) => {
                tail.app = Some(counters);
                State::Running(future, permit)
            }
            Err(_) => State::Answered(self.panicked("the dispatch to the endpoint", id)),
        }
    }

    /// Ends to answer a request: its response is there.
    fn finish(&self, mut response: Response<Body>, asked: &Asked, id: &str, mut tail: Tail) -> Response<ResponseBody> {
        // 6. The response is made one that can be sent.
        if let Some(progress) = &tail.received {
            self.blame_client(&mut response, progress, asked, id);
        }
        response::finish(&mut response, asked, id);
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if asked.chunked && !self.limits.keep_alive_after_chunked && !upgraded {
            response::close(&mut response);
        }
        tail.status = response.status().as_u16();
        if upgraded && let Some(link) = &asked.upgrade {
            // The request ends with its head; the record is written when the connection ends.
            let (began, app, record) = (tail.began, tail.app.clone(), tail.record.take());
            let record = record.map(|record| Box::new(AccessRecord { status: tail.status, ..*record }));
            *response.body_mut() = Body::empty();
            link.switch(Switched { began, app, record, access: self.access.clone() });
        }
        // 7. The tail goes with the body: the request ends when its last byte is handed to the socket.
        let sends = asked.method != http::Method::HEAD && response.status() != StatusCode::NOT_MODIFIED;
        response.map(|body| ResponseBody::new(body, tail, sends))
    }

    fn panicked(&self, what: &str, id: &str) -> Response<Body> {
        self.counters.panicked();
        tracing::error!(request = id, "{what} panicked; the request is answered with status 500");
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
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

/// A request being answered.
pub(crate) struct Answering {
    state: State,
    asked: Asked,
    id: Arc<str>,
    /// For the watchdog's log.
    target: Uri,
    /// `None` once the response has been given.
    tail: Option<Tail>,
}

enum State {
    Answered(Response<Body>),
    /// The permit goes after the future.
    Running(ResponseFuture, Option<Permit>),
    Done,
}

impl Future for Answering {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let response = match std::mem::replace(&mut this.state, State::Done) {
            State::Answered(response) => response,
            State::Running(mut future, permit) => match catch_unwind(AssertUnwindSafe(|| match &this.tail {
                Some(Tail { worker, app: Some(app), .. }) => {
                    worker.watch.during(app, &this.id, this.target.path(), || future.as_mut().poll(cx))
                }
                _ => future.as_mut().poll(cx),
            })) {
                Ok(Poll::Ready(response)) => response,
                Ok(Poll::Pending) => {
                    this.state = State::Running(future, permit);
                    return Poll::Pending;
                }
                Err(_) => match &this.tail {
                    Some(tail) => tail.worker.pipeline.panicked("the endpoint", &this.id),
                    None => return Poll::Pending,
                },
            },
            State::Done => return Poll::Pending,
        };
        let Some(tail) = this.tail.take() else { return Poll::Pending };
        let worker = tail.worker.clone();
        Poll::Ready(Ok(worker.pipeline.finish(response, &this.asked, &this.id, tail)))
    }
}
