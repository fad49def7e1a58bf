//! Runs an application alone, without a container: for development and for small services.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::task::JoinSet;

use crate::local::{Local, Peer};
use crate::upgrade::{Living, Switch};
use crate::{Body, BoxError, IntoApplication, Response, ServletContext};

/// A client gets this long to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests in flight get this long to end once the server is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves an application over HTTP/1.1 at an address, as the root context, until the process ends.
///
/// There is no container then: no redeploy, no limits but a ten-second timeout for the head of a request. Call it from
/// `main`, in a tokio runtime:
///
/// ```no_run
/// use wharf_sdk::{App, get};
///
/// fn app() -> App {
///     App::new().servlet("hello", "/", get(|_| async { "Hello" }))
/// }
///
/// #[tokio::main]
/// async fn main() -> Result<(), wharf_sdk::BoxError> {
///     wharf_sdk::serve(app(), "127.0.0.1:3000").await
/// }
/// ```
///
/// # Errors
/// When the application does not start or the address can't be bound.
pub async fn serve<M>(app: impl IntoApplication<M>, address: impl ToSocketAddrs) -> Result<(), BoxError> {
    let listener = TcpListener::bind(address).await?;
    serve_until(app, listener, std::future::pending()).await
}

/// Serves an application on a listener until `stop` is done; then waits at most 30 seconds for the requests in flight,
/// and stops the application.
///
/// # Errors
/// When the application does not start or does not stop cleanly.
pub async fn serve_until<M>(
    app: impl IntoApplication<M>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), BoxError> {
    let application = app.into_application()?;
    let local = Arc::new(Local::start(application, ServletContext::builder().build()).await?);
    if let Ok(address) = listener.local_addr() {
        tracing::info!(target: "wharf_sdk", "listening on http://{address}");
    }
    let tasks = Tasks::default();
    let mut stop = pin!(stop);
    while let Some(accepted) = poll_fn(|cx| match stop.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => listener.poll_accept(cx).map(Some),
    })
    .await
    {
        match accepted {
            Ok((stream, _)) => serve_connection(&local, stream, &tasks),
            Err(error) => {
                // Out of file descriptors, most likely: trying again at once would only burn the processor.
                tracing::warn!(target: "wharf_sdk", "can't accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    local.context().begin_draining();
    let end = async {
        // The end of a request may be the begin of an upgraded connection.
        loop {
            let mut running = std::mem::take(&mut *lock(&tasks));
            if running.is_empty() {
                return;
            }
            while running.join_next().await.is_some() {}
        }
    };
    // What is left then is cut with the set it is in.
    if tokio::time::timeout(DRAIN_TIMEOUT, end).await.is_err() {
        tracing::warn!(target: "wharf_sdk", "requests were still in flight after {DRAIN_TIMEOUT:?}");
    }
    local.stop().await
}

/// The connections, upgraded or not.
type Tasks = Arc<Mutex<JoinSet<()>>>;

fn lock(tasks: &Tasks) -> MutexGuard<'_, JoinSet<()>> {
    let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
    while tasks.try_join_next().is_some() {}
    tasks
}

/// Lets the application live on a connection, where it has answered 101 and said what comes after it.
fn switch(mut response: Response, on_upgrade: Option<OnUpgrade>, tasks: &Tasks) -> Response {
    let handler = Switch::of(response.status_code(), response.extensions_mut());
    if let (Some(handler), Some(on_upgrade)) = (handler, on_upgrade) {
        lock(tasks).spawn(async move {
            if let Ok(upgraded) = on_upgrade.await {
                Living::new(handler, TokioIo::new(upgraded)).await;
            }
        });
    }
    response
}

fn serve_connection(local: &Arc<Local>, stream: TcpStream, tasks: &Tasks) {
    let context = Arc::clone(local.context());
    let peer = Peer { remote: stream.peer_addr().ok(), local: stream.local_addr().ok() };
    let service = {
        let (local, tasks) = (Arc::clone(local), Arc::downgrade(tasks));
        service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let (local, tasks) = (Arc::clone(&local), tasks.clone());
            async move {
                let on_upgrade = request.extensions().get::<OnUpgrade>().cloned();
                let mut response = local.call(request.map(Body::new), peer).await;
                if let Some(tasks) = tasks.upgrade() {
                    response = switch(response, on_upgrade, &tasks);
                }
                Ok::<_, std::convert::Infallible>(with_page(response).into_http())
            }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    lock(tasks).spawn(async move {
        let (mut connection, mut draining) = (pin!(connection), pin!(context.draining()));
        let mut told = false;
        let served = poll_fn(|cx| {
            if !told && draining.as_mut().poll(cx).is_ready() {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(cx)
        });
        if let Err(error) = served.await {
            tracing::debug!(target: "wharf_sdk", "connection: {error}");
        }
    });
}

/// An error without content gets a line of text: there is no container here to draw a page.
fn with_page(response: Response) -> Response {
    let status = response.status_code();
    if (status.is_client_error() || status.is_server_error()) && response.body().is_empty() {
        let mut response = response.with_body(format!("{status}\n"));
        let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().entry(http::header::CONTENT_TYPE).or_insert(plain);
        response.headers_mut().remove(http::header::CONTENT_LENGTH);
        return response;
    }
    response
}
