//! One request of a CGI application, from its path to the end of the process that answered it.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::{ChildStdin, ChildStdout, ExitStatus};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Method, Response, StatusCode, Uri};
use http_body::{Body as HttpBody, Frame};
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use wharf_kernel::{Body, BoxError, Connection, Exchange, Hold, Lease, PathElements, ResponseFuture};
use wharf_mapping::canonicalise;

use super::app::App;
use super::errors;
use super::input::{self, Input, InputError};
use super::process::{self, Pipes, Process};
use super::send_file;
use super::talk::{Activity, Client, Failure, Piece, Talk};
use crate::cgi_response::{CgiHead, HeadLimits};
use crate::meta_variables::{Facts, MetaVariables};
use crate::script::{Found, Script};

/// Local redirects of one request.
const REDIRECTS: usize = 10;
/// How long the end of a response waits for the end of its process, so that a crash is not taken for an end.
const EXIT: Duration = Duration::from_millis(250);
/// Pieces of content, of up to 64 KiB each, between process and client.
const PIECES: usize = 2;

/// Answers a request, on the runtime of the programs. A client that goes away drops the future, and the task sees that.
pub(super) fn begin(app: Arc<App>, runtime: &Handle, exchange: Exchange) -> ResponseFuture {
    let (reply, answer) = oneshot::channel();
    runtime.spawn(serve(app, exchange, reply));
    Box::pin(async move { answer.await.unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR)) })
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A request, or what a local redirect has made of it.
struct Asked {
    head: http::request::Parts,
    path: PathElements,
    authority: Box<str>,
    connection: Arc<Connection>,
    id: Arc<str>,
}

/// How a process ended its part.
enum Next {
    Done,
    /// The answer is that to this path and query.
    Redirect(String),
}

async fn serve(app: Arc<App>, exchange: Exchange, reply: oneshot::Sender<Response<Body>>) {
    let mut client = Client::Waiting(reply);
    if let Some(response) = attempt(&app, exchange, &mut client).await {
        client.answer(response, Client::Served);
    }
}

/// Gives the answer, where the program did not give it itself.
async fn attempt(app: &Arc<App>, exchange: Exchange, client: &mut Client) -> Option<Response<Body>> {
    let Exchange { request, path, authority, connection, id, lease, session: _ } = exchange;
    let (head, mut body) = request.into_parts();
    let mut asked = Asked { head, path, authority, connection, id };
    let mut lease = Some(lease);
    for _ in 0..=REDIRECTS {
        let inner = &asked.path.decoded[asked.path.context.as_str().len()..];
        let script = match app.find(inner) {
            Ok(Found::Script(script)) => script,
            Ok(Found::Folder) => return Some(to_folder(&asked)),
            Ok(Found::File) if app.files.is_some() => return Some(file(app, asked, body, lease.take()?).await),
            Ok(_) => return Some(status(StatusCode::NOT_FOUND)),
            Err(error) => {
                tracing::warn!(app = %app.name, request = %asked.id, "no program can be looked for: {error}");
                return Some(unavailable());
            }
        };
        let next = run(app, &asked, &script, std::mem::take(&mut body), client, &mut lease).await;
        match next {
            Ok(Next::Done) => return None,
            Ok(Next::Redirect(target)) => match redirected(asked, &target) {
                Ok(next) => asked = next,
                Err(response) => return Some(*response),
            },
            Err(failure) => return Some(failed(app, &asked, &script, &failure)),
        }
    }
    tracing::warn!(app = %app.name, request = %asked.id, "more than {REDIRECTS} local redirects");
    Some(status(StatusCode::BAD_GATEWAY))
}

/// Tells the log that there is no answer, and makes the one that the client gets instead.
fn failed(app: &App, asked: &Asked, script: &Script, failure: &Failure) -> Response<Body> {
    if !failure.why.is_empty() {
        let script = if script.name.is_empty() { script.file.to_string_lossy() } else { script.name.as_str().into() };
        tracing::warn!(app = %app.name, request = %asked.id, "{script}: {}", failure.why);
    }
    match failure.status {
        StatusCode::SERVICE_UNAVAILABLE => unavailable(),
        other => status(other),
    }
}

fn unavailable() -> Response<Body> {
    let mut response = status(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

async fn file(app: &App, asked: Asked, body: Body, lease: Lease) -> Response<Body> {
    let Some(files) = &app.files else { return status(StatusCode::NOT_FOUND) };
    let Asked { head, path, authority, connection, id } = asked;
    let request = http::Request::from_parts(head, body);
    let session = wharf_kernel::session::SessionSlot::default();
    wharf_kernel::Endpoint::call(files, Exchange { request, path, authority, connection, id, lease, session }).await
}

/// To the same path with a slash at its end.
fn to_folder(asked: &Asked) -> Response<Body> {
    if !matches!(asked.head.method, Method::GET | Method::HEAD) {
        return status(StatusCode::NOT_FOUND);
    }
    let query = asked.head.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    to(&format!("{}/{query}", asked.path.encoded))
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
    let context = asked.path.context.as_str();
    if !canonical.decoded.strip_prefix(context).is_some_and(|rest| rest.starts_with('/')) {
        return Err(Box::new(to(&whole)));
    }
    let Asked { mut head, mut path, authority, connection, id } = asked;
    head.uri = whole.parse::<Uri>().map_err(|_| bad())?;
    if head.method != Method::HEAD {
        head.method = Method::GET;
    }
    head.headers.remove(CONTENT_TYPE);
    head.headers.remove(CONTENT_LENGTH);
    (path.encoded, path.decoded) = ((&*canonical.encoded).into(), (&*canonical.decoded).into());
    Ok(Asked { head, path, authority, connection, id })
}

/// Runs the program. The lease goes with the answer: a process that goes on after it holds its generation no longer, and
/// ends with it.
async fn run(
    app: &Arc<App>,
    asked: &Asked,
    script: &Script,
    body: Body,
    client: &mut Client,
    lease: &mut Option<Lease>,
) -> Result<Next, Failure> {
    process::check_program(&script.file).map_err(|what| Failure::new(StatusCode::FORBIDDEN, what))?;
    let input = Input::of(body).await.map_err(|error| match error {
        InputError::Client => Failure::new(StatusCode::BAD_REQUEST, ""),
        InputError::Spool(error) => {
            Failure::new(StatusCode::INSUFFICIENT_STORAGE, format!("the request body can't be kept: {error}"))
        }
    })?;
    let slot = tokio::select! {
        slot = app.slot() => slot,
        () = client.gone() => return Ok(Next::Done),
    };
    let Some(_slot) = slot else {
        let why = "all processes that it may have are busy (max_processes, queue)";
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, why));
    };
    let named = asked.head.headers.contains_key(CONTENT_LENGTH);
    let variables = MetaVariables::of(&Facts {
        head: &asked.head,
        path: &asked.path,
        authority: &asked.authority,
        connection: &asked.connection,
        script,
        document_root: &app.root,
        content_length: input.length().or(named.then_some(0)),
        pass_authorization: app.options.pass_authorization,
        env: &app.options.env,
    });
    let (stdin, rest) = input.split();
    let (mut process, pipes) =
        Process::start(&app.processes, &script.file, &variables, &app.options, stdin).map_err(|e| not_started(&e))?;
    let Pipes { stdin, stdout, stderr } = pipes;
    let stderr = pipe::Receiver::from_owned_fd(stderr.into()).map_err(pipe_error)?;
    let mut errors = tokio::spawn(errors::log(stderr, app.name.clone(), asked.id.clone(), app.budget.clone()));
    let input = rest.zip(stdin);
    let result = converse(app, asked, &mut process, input, stdout, client, lease).await;
    let result = match result {
        Ok(next) => Ok(next),
        Err(failure) => {
            // The client first: the end of the process may take a while.
            client.answer(failed(app, asked, script, &failure), Client::Served);
            *client = Client::Served;
            *lease = None;
            process.end(app.options.kill_timeout).await;
            Ok(Next::Done)
        }
    };
    // A grandchild that has left the group could keep standard error open for ever.
    if timeout(EXIT, &mut errors).await.is_err() {
        errors.abort();
    }
    result
}

fn pipe_error(error: io::Error) -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, format!("a pipe: {error}"))
}

fn not_started(error: &io::Error) -> Failure {
    use rustix::io::Errno;
    let status = match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM) => StatusCode::FORBIDDEN,
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Failure::new(status, format!("it can't be started: {error}"))
}

async fn converse(
    app: &Arc<App>,
    asked: &Asked,
    process: &mut Process,
    input: Option<(Body, ChildStdin)>,
    stdout: ChildStdout,
    client: &mut Client,
    lease: &mut Option<Lease>,
) -> Result<Next, Failure> {
    let options = &app.options;
    let activity = Activity::new();
    let pump = match input {
        Some((body, stdin)) => {
            let stdin = pipe::Sender::from_owned_fd(stdin.into()).map_err(pipe_error)?;
            Some(tokio::spawn(input::pump(body, stdin, activity.clone())))
        }
        None => None,
    };
    let mut talk = Talk {
        client,
        stdout: pipe::Receiver::from_owned_fd(stdout.into()).map_err(pipe_error)?,
        buffer: BytesMut::new(),
        pump,
        activity,
        deadline: Instant::now() + options.total_timeout,
        idle: options.first_byte_timeout,
    };
    let limits = HeadLimits { bytes: options.max_header_bytes, fields: options.max_header_fields };
    let mut head = match talk.head(limits).await {
        Ok(head) => head,
        Err(failure) if failure.status == StatusCode::BAD_GATEWAY => {
            // How it ended says more than that it did.
            let ended = timeout(EXIT, process.wait()).await.ok().and_then(ended_badly);
            let why = ended.map(|how| format!("{} ({how})", failure.why)).unwrap_or(failure.why);
            return Err(Failure::bad(why));
        }
        Err(failure) => return Err(failure),
    };
    talk.idle = options.idle_timeout;
    if let Some(target) = head.local_redirect() {
        let target = target.to_owned();
        talk.discard().await?;
        leave(process, talk).await;
        return Ok(Next::Redirect(target));
    }
    if let Some((files, path)) = app.send_file.ordered(&mut head)? {
        let Some(lease) = lease.take() else { return Ok(Next::Done) };
        let response = send_file::send(files, &path, head, &asked.head, lease).await;
        talk.client.answer(response, Client::Served);
        talk.discard().await?;
        leave(process, talk).await;
        return Ok(Next::Done);
    }
    let bodiless = asked.head.method == Method::HEAD
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    if bodiless {
        talk.client.answer(response(head, Body::empty()), Client::Served);
        *lease = None;
        talk.discard().await?;
        leave(process, talk).await;
        return Ok(Next::Done);
    }
    let (sender, pieces) = mpsc::channel(PIECES);
    let content = Content { pieces, whole: false, _lease: lease.take().map(|lease| lease.held_for(Hold::Body)) };
    talk.client.answer(response(head, Body::new(content)), Client::Reading(sender));
    talk.content().await?;
    // Its output has ended, and mostly so has it; one that goes on without output is let go on.
    let crashed = match timeout(EXIT, process.wait()).await {
        Ok(status) => status.signal().is_some().then_some(status),
        Err(_) => None,
    };
    if let Some(status) = crashed {
        return Err(Failure::bad(format!("it ended in its answer: {status}")));
    }
    if let Client::Reading(sender) = std::mem::replace(&mut *talk.client, Client::Served) {
        let _ = sender.send(Piece::End).await;
    }
    leave(process, talk).await;
    Ok(Next::Done)
}

/// Lets a process that has given its answer come to its end, in the time that it has.
async fn leave(process: &mut Process, mut talk: Talk<'_>) {
    let deadline = talk.deadline;
    // What it did not read is of no use any more.
    if let Some(pump) = talk.pump.take() {
        pump.abort();
    }
    drop(talk);
    if tokio::time::timeout_at(deadline, process.wait()).await.is_err() {
        process.end(Duration::ZERO).await;
    }
}

fn ended_badly(status: ExitStatus) -> Option<String> {
    (!status.success()).then(|| status.to_string())
}

fn response(head: CgiHead, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

/// The content of a response, as it comes.
struct Content {
    pieces: mpsc::Receiver<Piece>,
    whole: bool,
    _lease: Option<Lease>,
}

impl HttpBody for Content {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.whole {
            return Poll::Ready(None);
        }
        self.pieces.poll_recv(cx).map(|piece| match piece {
            Some(Piece::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Piece::End) => {
                self.whole = true;
                None
            }
            None => {
                self.whole = true;
                Some(Err("the program did not end its answer".into()))
            }
        })
    }
}
