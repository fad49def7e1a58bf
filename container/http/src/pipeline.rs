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
use http::{Request, Response, StatusCode};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use tokio::time::Instant as At;
use wharf_kernel::challenges::Challenges;
use wharf_kernel::counters::LocalCounts;
use wharf_kernel::session::SessionSlot;
use wharf_kernel::{
    AccessRecord, AccessSink, Authenticated, Body, Connection, Exchange, PathElements, RequestId, ResponseFuture,
    Routes, ServerCounters, ShortText,
};
use wharf_worker::Timer;

use crate::clock::{Slot, Stream};
use crate::dispatch::{Dispatched, Mapped, dispatch};
use crate::link::{Link, Switched};
use crate::request_body::{Progress, RequestBody, Rest};
use crate::response::{self, Asked};
use crate::response_body::{ResponseBody, Tail};
use crate::worker::Shared;
use crate::{Limits, Protect, check, error_page, forwarded, request_id, watch};

/// What the requests of a connection have in common.
pub(crate) struct Common {
    /// The worker that the connection began at.
    pub(crate) worker: Arc<Shared>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) slot: Arc<Slot>,
    /// Of HTTP/1, which may be upgraded.
    pub(crate) link: Option<Arc<Link>>,
}

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
    /// What is refused before an application sees it, and what is added to every answer; nothing costs nothing.
    pub protect: Option<Protect>,
    /// Challenges of an ACME authority, where one is asked for certificates.
    pub challenges: Option<Arc<Challenges>>,
}

impl Pipeline {
    /// Begins to answer a request: everything up to the application's own future. Each step is a rung; the order is the
    /// point. No step waits, so the request goes straight from one to the next.
    pub(crate) fn begin(common: &Arc<Common>, request: Request<Incoming>) -> Answering {
        let Common { worker, connection, slot, link } = &**common;
        let this = &*worker.pipeline;
        let id = request_id::next();
        // Who asks: behind a trusted proxy, whom it says.
        let connection = &*forwarded::resolve(&this.limits.trusted_proxies, connection, request.headers());
        // 1. The clock and the record first, so that whatever happens below is timed and written down.
        let began = Instant::now();
        let record = this.access.enabled().then(|| Box::new(record(&request, connection, &id)));
        let nth = slot.request(began);
        // Made after the box, it needs not be moved there.
        let place = Box::new_uninit();
        let mut tail = Box::write(
            place,
            Tail {
                common: common.clone(),
                began,
                asked: Asked::of(&request, link.as_ref()),
                id,
                last: !slot.http2 && nth == this.limits.keep_alive_requests,
                secure: connection.secure,
                mapped: None,
                status: 500,
                sent: 0,
                polled: false,
                answered: None,
                received: None,
                ended: false,
                record,
                stream: slot.http2.then(|| Stream::new(slot.clone())),
            },
        );
        let state = this.dispatch(connection, request, &mut tail);
        let patience = Patience::begin(&state, slot, this.limits.response_timeout);
        Answering { state, patience, tail: Some(tail) }
    }

    fn dispatch(&self, connection: &Arc<Connection>, request: Request<Incoming>, tail: &mut Tail) -> State {
        let Tail { common, asked, id, mapped, received, record, .. } = tail;
        let (Common { worker, slot, .. }, id) = (&**common, &*id);
        let (mut exchange, incoming) = exchange(request, connection, id);

        // 2. What no application should have to look at: Host, target, method, expectation.
        let host = match check::check(&mut exchange, &self.limits, asked) {
            Ok(host) => host,
            Err(reject) => {
                let mut response = error_page::render(reject.status, reject.detail, id, exchange.request.headers());
                if reject.status == StatusCode::METHOD_NOT_ALLOWED {
                    response.headers_mut().insert(ALLOW, check::ALLOW);
                }
                if reject.close {
                    response::close(&mut response);
                }
                if let Some(incoming) = incoming {
                    Rest::new(&self.limits, slot).drain(incoming);
                }
                return State::answered(response);
            }
        };
        if let Some(record) = record {
            record.host = (*exchange.authority).into();
        }

        if let Some(answer) = self.challenges.as_ref().and_then(|open| open.answer(exchange.request.uri().path())) {
            return State::answered(Response::new(Body::from(answer)));
        }

        if let Some(incoming) = incoming {
            // 3. A body that says it is too large is refused before the application hears of it.
            if incoming.size_hint().lower() > self.limits.body_bytes {
                let headers = exchange.request.headers();
                let mut response = error_page::render(StatusCode::PAYLOAD_TOO_LARGE, "", id, headers);
                response::close(&mut response);
                Rest::new(&self.limits, slot).drain(incoming);
                return State::answered(response);
            }
            // 4. The body is capped, however it is framed.
            let progress = Arc::new(Progress::default());
            *received = Some(progress.clone());
            *exchange.request.body_mut() = Body::new(RequestBody::new(incoming, worker, progress, slot));
        }

        // 5. What is configured to be refused: addresses, rates, hosts, plain requests, other sites.
        if let Some(protect) = &self.protect
            && let Some(response) = protect.refuse(&exchange.request, host.of(&exchange.authority), connection, id)
        {
            return State::answered(response);
        }

        // 6. The application. From here on nothing it does can keep the rest from happening.
        let mut call = |exchange| match dispatch(&self.routes, exchange, host, mapped) {
            Dispatched::Answer(response) => State::Answered(response),
            Dispatched::Endpoint(future) => State::Running(future),
        };
        let dispatched = catch_unwind(AssertUnwindSafe(|| match &self.protect {
            Some(protect) if protect.wraps(&exchange.request) => {
                let request = std::mem::take(&mut exchange.request);
                let wrapped = protect.wrap(request, |request| {
                    exchange.request = request;
                    match call(exchange) {
                        State::Running(future) => future,
                        State::Answered(response) => Box::pin(std::future::ready(*response)),
                        State::Done => Box::pin(std::future::pending()),
                    }
                });
                State::Running(wrapped)
            }
            _ => call(exchange),
        }));
        dispatched.unwrap_or_else(|_| State::answered(self.panicked("the dispatch to the endpoint", id)))
    }

    /// Ends to answer a request: its response is there. Tells whether its content is sent.
    fn finish(response: &mut Response<Body>, tail: &mut Tail) -> bool {
        let Tail { common, asked, id, received, record, mapped, status, began, stream, .. } = tail;
        let this = &*common.worker.pipeline;
        // 7. The response is made one that can be sent.
        if let Some(progress) = received {
            this.blame_client(response, progress, asked, id);
        }
        if let (Some(user), Some(record)) = (response.extensions_mut().remove::<Authenticated>(), &mut *record) {
            record.user = Some(user.user);
        }
        response::finish(response, asked, id, stream.is_some());
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if asked.chunked && !this.limits.keep_alive_after_chunked && !upgraded {
            response::close(response);
        }
        *status = response.status().as_u16();
        if upgraded && let Some(link) = &asked.upgrade {
            // The request ends with its head; the record is written when the connection ends.
            let app = mapped.as_ref().map(|mapped| LocalCounts::clone(&mapped.app));
            let record = record.take().map(|record| Box::new(AccessRecord { status: *status, ..*record }));
            *response.body_mut() = Body::empty();
            link.switch(Switched { began: *began, app, record, access: this.access.clone() });
        }
        asked.method != http::Method::HEAD && response.status() != StatusCode::NOT_MODIFIED
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
}

/// Writes down what was sent instead of an answer to bytes that were no request.
pub(crate) fn write_refused(pipeline: &Pipeline, connection: &Connection, status: u16, id: &RequestId) {
    pipeline.counters.answered_unmapped(status);
    if pipeline.access.enabled() {
        // There is no method and no target: a dash, as for every other field that is not there, and an asterisk.
        let mut request = Request::new(());
        *request.method_mut() = http::Method::from_bytes(b"-").unwrap_or_default();
        *request.uri_mut() = http::Uri::from_static("*");
        let mut record = record(&request, connection, id);
        (record.time, record.status) = (SystemTime::now(), status);
        pipeline.access.record(record);
    }
}

/// A request that is not mapped yet, and its content, if there is any.
fn exchange(
    request: Request<Incoming>,
    connection: &Arc<Connection>,
    id: &RequestId,
) -> (Box<Exchange>, Option<Incoming>) {
    // Made after the box, it needs not be moved there.
    let place = Box::new_uninit();
    let (head, incoming) = request.into_parts();
    let incoming = (!incoming.is_end_stream()).then_some(incoming);
    let exchange = Exchange {
        request: Request::from_parts(head, Body::empty()),
        path: PathElements::default(),
        authority: ShortText::default(),
        connection: connection.clone(),
        id: id.clone(),
        session: SessionSlot::default(),
    };
    (Box::write(place, exchange), incoming)
}

fn record<B>(request: &Request<B>, connection: &Connection, id: &RequestId) -> AccessRecord {
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
        user: None,
        id: id.clone(),
        app: None,
        aborted: false,
    }
}

/// How long an application may take to begin its answer.
struct Patience {
    /// HTTP/2: the connection's slot can't wake a single request. The timer begins when the answer is not there at once.
    limit: Option<Duration>,
    timer: Option<Timer>,
    /// Bytes of the request body when it was looked at last.
    seen: u64,
}

impl Patience {
    fn begin(state: &State, slot: &Slot, limit: Duration) -> Self {
        let mut this = Self { limit: None, timer: None, seen: 0 };
        if matches!(state, State::Running(_)) && !limit.is_zero() {
            if slot.http2 {
                this.limit = Some(limit);
            } else {
                slot.await_answer();
            }
        }
        this
    }

    /// Whether it has ended. While the request body comes in, it begins anew.
    fn has_ended(&mut self, tail: &Tail, cx: &mut Context<'_>) -> bool {
        let slot = &tail.common.slot;
        if let Some(limit) = self.limit.take() {
            self.timer = Some(Timer::at(At::now() + limit));
        }
        loop {
            let due = match &mut self.timer {
                Some(timer) => Pin::new(timer).poll(cx).is_ready(),
                None => slot.take_late(),
            };
            if !due {
                return false;
            }
            let received = tail.received.as_ref().map_or(0, |p| p.bytes.load(Ordering::Relaxed));
            let limit = tail.common.worker.pipeline.limits.response_timeout;
            if std::mem::replace(&mut self.seen, received) == received {
                return true;
            }
            match &mut self.timer {
                Some(timer) => timer.reset(At::now() + limit),
                None => slot.await_answer(),
            }
        }
    }
}

/// A request being answered.
pub(crate) struct Answering {
    /// Before the tail, which has the permit for it.
    state: State,
    patience: Patience,
    /// `None` once the response has been given. Boxed once for the whole request: hyper moves what it waits for several times.
    tail: Option<Box<Tail>>,
}

enum State {
    /// Boxed, so that what waits for an application stays small.
    Answered(Box<Response<Body>>),
    Running(ResponseFuture),
    Done,
}

impl State {
    fn answered(response: Response<Body>) -> Self {
        Self::Answered(Box::new(response))
    }
}

impl Future for Answering {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(tail) = this.tail.as_deref_mut() else { return Poll::Pending };
        // Where it stays until it is sent: it is large, and what a closure returns is moved.
        let mut answer = None;
        let mut after = None;
        match std::mem::replace(&mut this.state, State::Done) {
            State::Answered(response) => answer = Some(*response),
            State::Running(mut future) => {
                // With HTTP/1 the first poll follows at once: one look at the clock does for both.
                let at_once = !std::mem::replace(&mut tail.polled, true) && !tail.common.slot.http2;
                let mut poll = || match future.as_mut().poll(cx) {
                    Poll::Ready(response) => answer = Some(response),
                    Poll::Pending => {}
                };
                let polled = catch_unwind(AssertUnwindSafe(|| match &tail.mapped {
                    Some(Mapped { app, path }) => {
                        let began = if at_once { tail.began } else { Instant::now() };
                        let ((), took) = watch::timed(app, &tail.id, path, began, poll);
                        at_once.then_some(took)
                    }
                    None => {
                        poll();
                        None
                    }
                }));
                match polled {
                    Err(_) => answer = Some(tail.common.worker.pipeline.panicked("the endpoint", &tail.id)),
                    Ok(took) if answer.is_some() => after = took,
                    Ok(_) => {
                        if !this.patience.has_ended(tail, cx) {
                            this.state = State::Running(future);
                            return Poll::Pending;
                        }
                        tracing::warn!(request = &*tail.id, "the application did not begin its answer in time: 504");
                        // A panic of the application's destructors is its own affair.
                        let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
                        let mut response = Response::new(Body::empty());
                        *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
                        answer = Some(response);
                    }
                }
            }
            State::Done => {}
        }
        let Some(response) = &mut answer else { return Poll::Pending };
        let Some(mut tail) = this.tail.take() else { return Poll::Pending };
        let Common { slot, worker, .. } = &*tail.common;
        if !slot.http2 {
            slot.answered();
        }
        // The next request may come to the application.
        if let Some(mapped) = &mut tail.mapped {
            mapped.app.give_back();
        }
        if tail.last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response::close(response);
        }
        if let Some(protect) = &worker.pipeline.protect {
            protect.complete(response, tail.secure);
        }
        // What is there in one piece is over as soon as it is there.
        tail.answered = after.filter(|_| !response.body().is_stream());
        let sends = Pipeline::finish(response, &mut tail);
        let Some(response) = answer else { return Poll::Pending };
        // 8. The tail goes with the body: the request ends when its last byte is handed to the socket.
        Poll::Ready(Ok(response.map(|body| ResponseBody::new(body, tail, sends))))
    }
}
