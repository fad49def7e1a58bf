//! One request on its way to a program, from its path to an answer, with the redirects between the two.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Method, Response, StatusCode, Uri};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use wharf_kernel::{Body, Connection, Exchange, Lease, PathElements, RequestId, ResponseFuture, ShortText};
use wharf_mapping::canonicalise;

use super::errors::Budget;
use super::input::{Input, InputError};
use super::send_file::SendFile;
use super::talk::{Client, Failure};
use crate::cgi_response::HeadLimits;
use crate::endpoint::Files;
use crate::script::{Found, Script};

/// Local redirects of one request.
const REDIRECTS: usize = 10;

/// What an application of either kind has.
pub(crate) struct Common {
    /// Its context path, for the log; `/` for the root.
    pub(crate) name: String,
    /// Serves what is no program, where that is wanted.
    pub(crate) files: Option<Files>,
    pub(crate) send_file: SendFile,
    pub(crate) budget: Arc<Budget>,
    pub(crate) limits: HeadLimits,
    /// How long the head of a response may take after the last byte of the request.
    pub(crate) first_byte_timeout: Duration,
    /// How long nothing may happen after that.
    pub(crate) idle_timeout: Duration,
    pub(crate) total_timeout: Duration,
}

/// An application whose requests are answered by programs.
pub(crate) trait Programs: Send + Sync + 'static {
    fn common(&self) -> &Common;

    /// What answers a request, by the decoded path below the context and the client.
    fn find(&self, inner: &str, connection: &Connection) -> io::Result<Found>;

    /// Asks before anything is answered, a file included. `Err` is the answer that the client gets instead.
    fn authorize(&self, _asked: &mut Asked) -> impl Future<Output = Result<(), Box<Response<Body>>>> + Send {
        std::future::ready(Ok(()))
    }

    /// Has the program answer. The lease goes with the answer: a program that goes on after it holds its generation no
    /// longer, and ends with it.
    fn run(
        &self,
        asked: &Asked,
        script: &Script,
        body: Body,
        client: &mut Client,
        lease: &mut Option<Lease>,
    ) -> impl Future<Output = Result<Next, Failure>> + Send;
}

/// Answers a request, on the runtime of the programs. A client that goes away drops the future, and the task sees that.
pub(crate) fn begin<P: Programs>(
    app: Arc<P>,
    runtime: &Handle,
    exchange: Box<Exchange>,
    lease: Lease,
) -> ResponseFuture {
    let (reply, answer) = oneshot::channel();
    // Boxed, since a task is moved a few times on its way to its place.
    runtime.spawn(Box::pin(serve(app, exchange, lease, reply)));
    Box::pin(async move { answer.await.unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR)) })
}

pub(crate) fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A request, or what a local redirect has made of it.
pub(crate) struct Asked {
    pub(crate) head: http::request::Parts,
    pub(crate) path: PathElements,
    pub(crate) authority: ShortText,
    pub(crate) connection: Arc<Connection>,
    pub(crate) id: RequestId,
    /// Parameters that an authorizer has added.
    pub(crate) variables: Vec<(String, Vec<u8>)>,
}

/// How a process ended its part.
pub(crate) enum Next {
    Done,
    /// The answer is that to this path and query.
    Redirect(String),
}

async fn serve<P: Programs>(
    app: Arc<P>,
    exchange: Box<Exchange>,
    lease: Lease,
    reply: oneshot::Sender<Response<Body>>,
) {
    let mut client = Client::Waiting(reply);
    if let Some(response) = attempt(&app, exchange, lease, &mut client).await {
        client.answer(response, Client::Served);
    }
}

/// Gives the answer, where the program did not give it itself.
async fn attempt<P: Programs>(
    app: &Arc<P>,
    exchange: Box<Exchange>,
    lease: Lease,
    client: &mut Client,
) -> Option<Response<Body>> {
    let Exchange { request, path, authority, connection, id, session: _ } = *exchange;
    let (head, mut body) = request.into_parts();
    let mut asked = Asked { head, path, authority, connection, id, variables: Vec::new() };
    let common = app.common();
    if let Err(response) = app.authorize(&mut asked).await {
        return Some(*response);
    }
    let mut lease = Some(lease);
    for _ in 0..=REDIRECTS {
        let inner = asked.path.inside();
        let script = match app.find(inner, &asked.connection) {
            Ok(Found::Script(script)) => script,
            Ok(Found::Folder) => return Some(to_folder(&asked)),
            Ok(Found::File) if common.files.is_some() => return Some(file(common, asked, body, lease.take()?).await),
            Ok(_) => return Some(status(StatusCode::NOT_FOUND)),
            Err(error) => {
                tracing::warn!(app = %common.name, request = %asked.id, "no program can be looked for: {error}");
                return Some(unavailable());
            }
        };
        let next = app.run(&asked, &script, std::mem::take(&mut body), client, &mut lease).await;
        match next {
            Ok(Next::Done) => return None,
            Ok(Next::Redirect(target)) => match redirected(asked, &target) {
                Ok(next) => asked = next,
                Err(response) => return Some(*response),
            },
            Err(failure) => return Some(failed(common, &asked, &script, &failure)),
        }
    }
    tracing::warn!(app = %common.name, request = %asked.id, "more than {REDIRECTS} local redirects");
    Some(status(StatusCode::BAD_GATEWAY))
}

/// Tells the log that there is no answer, and makes the one that the client gets instead.
pub(crate) fn failed(app: &Common, asked: &Asked, script: &Script, failure: &Failure) -> Response<Body> {
    if !failure.why.is_empty() {
        let script = if script.name.is_empty() { script.file.to_string_lossy() } else { script.name.as_str().into() };
        tracing::warn!(app = %app.name, request = %asked.id, "{script}: {}", failure.why);
    }
    match failure.status {
        StatusCode::SERVICE_UNAVAILABLE => unavailable(),
        other => status(other),
    }
}

pub(crate) fn unavailable() -> Response<Body> {
    let mut response = status(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

async fn file(app: &Common, asked: Asked, body: Body, lease: Lease) -> Response<Body> {
    let Some(files) = &app.files else { return status(StatusCode::NOT_FOUND) };
    let Asked { head, path, authority, connection, id, .. } = asked;
    let request = http::Request::from_parts(head, body);
    let session = wharf_kernel::session::SessionSlot::default();
    let exchange = Box::new(Exchange { request, path, authority, connection, id, session });
    wharf_kernel::Endpoint::call(files, exchange, lease).await
}

/// To the same path with a slash at its end.
fn to_folder(asked: &Asked) -> Response<Body> {
    if !matches!(asked.head.method, Method::GET | Method::HEAD) {
        return status(StatusCode::NOT_FOUND);
    }
    let query = asked.head.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    to(&format!("{}/{query}", asked.path.encoded()))
}

fn to(location: &str) -> Response<Body> {
    match HeaderValue::from_str(location) {
        Ok(location) => {
            let mut response = status(StatusCode::FOUND);
            response.headers_mut().insert(LOCATION, location);
            response
        }
        Err(_) => status(StatusCode::BAD_GATEWAY),
    }
}

/// What a local redirect makes of a request (RFC 3875, section 6.2.2). The client itself is sent to what is not of this
/// application: another one's rules for who may see what are looked at in front of it, not here.
fn redirected(asked: Asked, target: &str) -> Result<Asked, Box<Response<Body>>> {
    let bad = || Box::new(status(StatusCode::BAD_GATEWAY));
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let canonical = canonicalise(path).map_err(|_| bad())?;
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    let whole = format!("{}{query}", canonical.encoded);
    let context = asked.path.context();
    if !canonical.decoded.strip_prefix(context).is_some_and(|rest| rest.starts_with('/')) {
        return Err(Box::new(to(&whole)));
    }
    let Asked { mut head, path, authority, connection, id, variables } = asked;
    head.uri = whole.parse::<Uri>().map_err(|_| bad())?;
    if head.method != Method::HEAD {
        head.method = Method::GET;
    }
    head.headers.remove(CONTENT_TYPE);
    head.headers.remove(CONTENT_LENGTH);
    let path = path.with_path(&canonical.encoded, &canonical.decoded);
    Ok(Asked { head, path, authority, connection, id, variables })
}

/// The content of a request, made ready for a program.
///
/// # Errors
/// Where the client did not send it, or it can't be kept.
pub(crate) async fn input(body: Body) -> Result<Input, Failure> {
    Input::of(body).await.map_err(|error| match error {
        InputError::Client => Failure::new(StatusCode::BAD_REQUEST, ""),
        InputError::Spool(error) => {
            Failure::new(StatusCode::INSUFFICIENT_STORAGE, format!("the request body can't be kept: {error}"))
        }
    })
}
