//! The resources of the admin API.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use futures_util::{FutureExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio_util::io::{StreamReader, SyncIoBridge};
use wharf_kernel::admin::{AppStatus, OperationError, Operations};
use wharf_kernel::backends::{BackendStatus, Backends};
use wharf_kernel::resource::ResourceState;
use wharf_kernel::{AppId, ContextPath, Version};

use crate::Problem;
use crate::door::{Door, admit};
use crate::peer::Peer;

/// What the API acts on.
#[derive(Clone)]
pub struct Manager {
    /// The deployer.
    pub operations: Arc<dyn Operations>,
    /// Writes the metrics in the Prometheus text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// True while new requests are welcome: after the first applications serve, and until the container stops.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Begins the graceful stop of the container.
    pub shutdown: Arc<dyn Fn() + Send + Sync>,
    /// The backends of proxies.
    pub backends: Arc<dyn Backends>,
    /// The state of the resources.
    pub resources: Arc<dyn Fn() -> Vec<ResourceState> + Send + Sync>,
    /// Facts about the container.
    pub info: Arc<Info>,
}

/// Facts about a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Version of the container.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// The addresses it listens on, as URLs.
    pub listening: Vec<String>,
    /// The deploy folders.
    pub deploy_dirs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Upload {
    name: String,
}

type Answer<T> = Result<T, Problem>;

/// The API as an axum router, open to whoever reaches it.
fn router(manager: Manager) -> Router {
    Router::new()
        .route("/v1/apps", get(list).post(deploy))
        .route("/v1/apps/{name}", delete(undeploy).get(one))
        .route("/v1/apps/{name}/{operation}", post(operate))
        .route("/v1/apps/{name}/backends", get(backends))
        .route("/v1/apps/{name}/backends/{operation}", post(drain_backend))
        .route("/v1/metrics", get(metrics))
        .route("/v1/info", get(|State(m): State<Manager>| async move { Json((*m.info).clone()) }))
        .route("/v1/shutdown", post(shutdown))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/v1/resources", get(resources))
        .route("/readyz", get(readyz))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "there is no such resource in the admin API") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this resource does not know that method")
        })
        .layer(DefaultBodyLimit::disable())
        .with_state(manager)
}

/// Where the API is to be had.
#[derive(Debug)]
pub struct Listeners {
    /// The socket from [`crate::bind`].
    pub socket: std::os::unix::net::UnixListener,
    /// The TCP port.
    pub tcp: Option<std::net::TcpListener>,
}

/// Serves the API until `stop` completes; requests in flight are finished.
///
/// # Errors
/// When a listener can't be given to the runtime.
pub async fn serve(
    listeners: Listeners,
    manager: Manager,
    door: Door,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let guarded = router(manager).layer(from_fn_with_state(Arc::new(door), admit));
    let service = guarded.into_make_service_with_connect_info::<Peer>();
    let stop = stop.shared();
    let socket = tokio::net::UnixListener::from_std(listeners.socket)?;
    let socket = axum::serve(socket, service.clone()).with_graceful_shutdown(stop.clone()).into_future();
    let Some(tcp) = listeners.tcp else { return socket.await };
    tcp.set_nonblocking(true)?;
    let tcp = tokio::net::TcpListener::from_std(tcp)?;
    let tcp = axum::serve(tcp, service).with_graceful_shutdown(stop).into_future();
    tokio::try_join!(socket, tcp).map(drop)
}

/// Runs an operation, which may block, off the runtime's threads.
async fn blocking<T: Send + 'static>(
    manager: Manager,
    work: impl FnOnce(&dyn Operations) -> Result<T, OperationError> + Send + 'static,
) -> Answer<T> {
    match tokio::task::spawn_blocking(move || work(&*manager.operations)).await {
        Ok(result) => result.map_err(Problem::from),
        Err(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the operation broke off; see the log")),
    }
}

async fn list(State(manager): State<Manager>) -> Answer<Json<Vec<AppStatus>>> {
    blocking(manager, |o| Ok(o.list())).await.map(Json)
}

async fn one(State(manager): State<Manager>, Path(name): Path<String>) -> Answer<Json<AppStatus>> {
    let find = move |o: &dyn Operations| {
        o.list().into_iter().find(|a| a.name == name).ok_or_else(|| OperationError::NotFound(name.clone()))
    };
    blocking(manager, find).await.map(Json)
}

async fn deploy(
    State(manager): State<Manager>,
    query: Result<Query<Upload>, axum::extract::rejection::QueryRejection>,
    body: Body,
) -> Answer<(StatusCode, Json<AppStatus>)> {
    let bad = |e: axum::extract::rejection::QueryRejection| Problem::new(StatusCode::BAD_REQUEST, e.body_text());
    let Query(upload) = query.map_err(bad)?;
    let stream = body.into_data_stream().map_err(io::Error::other);
    let mut reader = SyncIoBridge::new(StreamReader::new(stream));
    let deploy = move |o: &dyn Operations| {
        let done = o.deploy(&upload.name, &mut reader);
        if done.is_err() {
            // A client that still sends would meet a closed connection instead of the answer.
            let _ = io::copy(&mut reader, &mut io::sink());
        }
        done
    };
    let status = blocking(manager, deploy).await?;
    Ok((StatusCode::CREATED, Json(status)))
}

async fn undeploy(State(manager): State<Manager>, Path(name): Path<String>) -> Answer<Json<AppStatus>> {
    blocking(manager, move |o| o.undeploy(&name)).await.map(Json)
}

async fn operate(
    State(manager): State<Manager>,
    Path((name, operation)): Path<(String, String)>,
) -> Answer<Json<AppStatus>> {
    let work: fn(&dyn Operations, &str) -> Result<AppStatus, OperationError> = match operation.as_str() {
        "start" => |o, n| o.start(n),
        "stop" => |o, n| o.stop(n),
        "reload" => |o, n| o.reload(n),
        "rollback" => |o, n| o.rollback(n),
        _ => {
            let what = format!("there is no operation '{operation}'; there are start, stop, reload and rollback");
            return Err(Problem::new(StatusCode::NOT_FOUND, what));
        }
    };
    blocking(manager, move |o| work(o, &name)).await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    url: String,
}

/// Asks about the backends of the proxy with this name.
async fn of_proxy<T: Send + 'static>(
    manager: Manager,
    name: String,
    ask: impl FnOnce(&dyn Backends, &AppId) -> Option<T> + Send + 'static,
) -> Answer<T> {
    let backends = manager.backends.clone();
    blocking(manager, move |o| {
        let all = o.list();
        let app = all.iter().find(|a| a.name == name).ok_or_else(|| OperationError::NotFound(name.clone()))?;
        let path = ContextPath::parse(&app.context_path).unwrap_or_else(|_| ContextPath::root());
        let id = AppId { host: app.host.as_str().into(), path, version: Version::new(&app.version) };
        ask(&*backends, &id).ok_or_else(|| {
            OperationError::Conflict(format!("'{name}' has no such backend; see 'wharf backends {name}'"))
        })
    })
    .await
}

async fn backends(State(manager): State<Manager>, Path(name): Path<String>) -> Answer<Json<Vec<BackendStatus>>> {
    of_proxy(manager, name, |backends, id| backends.list(id)).await.map(Json)
}

async fn drain_backend(
    State(manager): State<Manager>,
    Path((name, operation)): Path<(String, String)>,
    query: Result<Query<Which>, axum::extract::rejection::QueryRejection>,
) -> Answer<Json<Vec<BackendStatus>>> {
    let Query(which) = query.map_err(|e| Problem::new(StatusCode::BAD_REQUEST, e.body_text()))?;
    let drained = match operation.as_str() {
        "drain" => true,
        "undrain" => false,
        _ => {
            let what = format!("there is no operation '{operation}' on backends; there are drain and undrain");
            return Err(Problem::new(StatusCode::NOT_FOUND, what));
        }
    };
    let work = move |backends: &dyn Backends, id: &AppId| {
        backends.set_drained(id, &which.url, drained).then(|| backends.list(id)).flatten()
    };
    of_proxy(manager, name, work).await.map(Json)
}

async fn metrics(State(manager): State<Manager>) -> Response {
    // The text may ask the deployer, which may be busy for a moment.
    let text = tokio::task::spawn_blocking(move || (manager.metrics)()).await.unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn shutdown(State(manager): State<Manager>) -> StatusCode {
    tracing::info!("asked to stop by the admin API");
    (manager.shutdown)();
    StatusCode::ACCEPTED
}

async fn resources(State(manager): State<Manager>) -> Json<Vec<ResourceState>> {
    Json((manager.resources)())
}

async fn readyz(State(manager): State<Manager>) -> Response {
    if !(manager.ready)() {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "starting or stopping").into_response();
    }
    let states = (manager.resources)();
    let down = states.iter().filter(|r| !r.down.is_empty() && !r.optional);
    let down: Vec<String> = down.map(|r| format!("resource '{}' is down: {}", r.name, r.down)).collect();
    if !down.is_empty() {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, down.join("; ")).into_response();
    }
    "ok\n".into_response()
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
