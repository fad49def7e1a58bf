//! Whether an application may answer one more request now: its limit, its queue and its memory budget.

use std::sync::Arc;

use http::header::{HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode, header::UPGRADE};
use wharf_kernel::counters::{Counts, LocalCounts};
use wharf_kernel::{Body, Exchange, Lease, Permit, Rejection, ResponseFuture, Route};
use wharf_worker::timeout;

use crate::error_page;
use crate::own_threads::Elsewhere;

/// What is to come of a request that has its lease.
pub(crate) enum Admitted {
    /// It is answered, with what counts it.
    Now(ResponseFuture, Permit),
    /// It waits for its turn, or has been refused; the future holds what counts it.
    Later(ResponseFuture),
}

/// Hands a request to its endpoint as soon as the application may have one more.
#[inline]
pub(crate) fn admit(route: &Arc<Route>, counts: &LocalCounts, mut exchange: Box<Exchange>, lease: Lease) -> Admitted {
    let fairness = &counts.fairness;
    if fairness.is_over_budget() {
        return Admitted::Later(refused(counts, Rejection::Memory, &exchange));
    }
    if fairness.is_over_cpu() {
        return Admitted::Later(refused(counts, Rejection::Cpu, &exchange));
    }
    // What an upgraded connection becomes is served where the connection is.
    if fairness.on_own_threads() && !exchange.request.headers().contains_key(UPGRADE) {
        exchange.request.extensions_mut().insert(Elsewhere(counts.clone()));
    }
    match route.counters.try_admit() {
        Some(permit) => Admitted::Now(route.endpoint.call(exchange, lease), permit),
        None => Admitted::Later(queue(route, counts.clone(), exchange, lease)),
    }
}

#[cold]
fn queue(route: &Arc<Route>, counts: LocalCounts, exchange: Box<Exchange>, lease: Lease) -> ResponseFuture {
    let Some(queued) = route.counters.queue() else {
        return refused(&counts, Rejection::Busy, &exchange);
    };
    let (endpoint, time) = (route.endpoint.clone(), counts.fairness.share().queue_timeout);
    Box::pin(async move {
        match timeout(time, queued).await {
            Some(_permit) => endpoint.call(exchange, lease).await,
            None => refuse(&counts, Rejection::Busy, &exchange),
        }
    })
}

/// Counts a refusal; its answer is there at once.
pub(crate) fn refused(counts: &Counts, why: Rejection, exchange: &Exchange) -> ResponseFuture {
    Box::pin(std::future::ready(refuse(counts, why, exchange)))
}

/// Counts a refusal and makes its answer.
fn refuse(counts: &Counts, why: Rejection, exchange: &Exchange) -> Response<Body> {
    counts.fairness.reject(why);
    let (detail, after) = match why {
        Rejection::Busy => ("The application answers as many requests as it may. Please try again soon.", "1"),
        Rejection::Memory => ("The application holds more memory than it may. Please try again later.", "5"),
        Rejection::Cpu => ("The application keeps more processors busy than it may. Please try again soon.", "1"),
        Rejection::Stuck => ("The application does not come back from its work. Please try again later.", "10"),
    };
    let mut response =
        error_page::render(StatusCode::SERVICE_UNAVAILABLE, detail, &exchange.id, exchange.request.headers());
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(after));
    response
}
