//! One request of a FastCGI application: over which connection it goes, and what is done with that afterwards.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use wharf_kernel::{Body, Connection, Lease};

use super::app::App;
use super::codec::{self, Role, kind, protocol_status};
use super::connection::{Stream, Used};
use super::output::{ID, Output, Progress};
use crate::cgi_response::CgiHead;
use crate::meta_variables::{Facts, MetaVariables};
use crate::program::errors::Lines;
use crate::program::input::{self, Input, InputError};
use crate::program::relay::relay;
use crate::program::request::{self, Asked, Common, Next, Programs};
use crate::program::talk::{Activity, Client, Failure, Talk};
use crate::script::{Found, Script};

/// How long it is tried to tell an application that its request is given up.
const ABORT: Duration = Duration::from_millis(100);
/// Bytes of content in a record.
const PART: usize = 32 << 10;

/// The end of a connection at which requests are written. True while a record is half written.
type Writer = Arc<Mutex<(WriteHalf<Stream>, bool)>>;

impl Programs for App {
    fn common(&self) -> &Common {
        &self.common
    }

    fn find(&self, inner: &str, connection: &Connection) -> io::Result<Found> {
        self.find(inner, connection)
    }

    async fn authorize(&self, asked: &mut Asked) -> Result<(), Box<Response<Body>>> {
        match &self.authorizer {
            Some(pool) => super::authorizer::ask(self, pool, asked).await,
            None => Ok(()),
        }
    }

    async fn run(
        &self,
        asked: &Asked,
        script: &Script,
        body: Body,
        client: &mut Client,
        lease: &mut Option<Lease>,
    ) -> Result<Next, Failure> {
        let unavailable = |why: &str| Failure::new(StatusCode::SERVICE_UNAVAILABLE, why);
        let down = || unavailable("all processes of its command have crashed and are to be started again");
        let mut input = Some(request::input(body).await?);
        if self.is_down() {
            return Err(down());
        }
        let slot = tokio::select! {
            slot = self.slots.take() => slot,
            () = client.gone() => return Ok(Next::Done),
        };
        let Some(_slot) = slot else {
            return Err(unavailable("all connections that it may have are busy (max_connections, queue)"));
        };
        self.needs();
        // Only what may be sent twice goes over a connection that may have been closed a moment ago.
        let again = asked.head.method.is_safe() && matches!(input, Some(Input::Nothing));
        let keep = again && self.pool.keeps();
        let head = self.head(asked, script, input.as_ref(), keep);
        let mut old = keep;
        loop {
            let outages = self.outages();
            let used = tokio::select! {
                used = self.pool.take(old) => used.map_err(|e| not_connected(&e))?,
                () = client.gone() => return Ok(Next::Done),
            };
            // From here on the supervisor closes the connection if the last process crashes before it accepts it.
            if self.is_down() {
                return Err(down());
            }
            let retry = used.is_old;
            let task = Task { app: self, asked, head: &head, keep };
            match task.converse(used, input.take().unwrap_or(Input::Nothing), client, lease).await {
                Err((failure, progress)) if retry && !progress.began && failure.status == StatusCode::BAD_GATEWAY => {
                    old = false;
                }
                Err((failure, progress))
                    if self.outages() != outages && !progress.began && failure.status == StatusCode::BAD_GATEWAY =>
                {
                    return Err(down());
                }
                other => return other.map_err(|(failure, _)| failure),
            }
        }
    }
}

impl App {
    /// The first records of a request: all but its content.
    fn head(&self, asked: &Asked, script: &Script, input: Option<&Input>, keep: bool) -> BytesMut {
        let length = input.and_then(Input::length);
        let named = asked.head.headers.contains_key(CONTENT_LENGTH);
        let mut variables = self.variables(asked, script, length.or(named.then_some(0)));
        // PHP as a CGI program wants to know that it was not called by its own URL.
        variables.set("REDIRECT_STATUS", "200");
        if self.is_status(&script.name) {
            variables.set("SCRIPT_NAME", script.name.as_str());
        }
        let mut head = records(&variables, Role::Responder, keep);
        if matches!(input, Some(Input::Nothing)) {
            codec::put_end(&mut head, kind::STDIN, ID);
        }
        head
    }

    /// What the application is told.
    pub(super) fn variables<'a>(
        &'a self,
        asked: &'a Asked,
        script: &'a Script,
        content_length: Option<u64>,
    ) -> MetaVariables<'a> {
        let mut variables = MetaVariables::of(&Facts {
            head: &asked.head,
            path: &asked.path,
            authority: &asked.authority,
            connection: &asked.connection,
            script,
            document_root: &self.root,
            content_length,
            pass_authorization: self.options.pass_authorization,
            env: &self.options.params,
        });
        for (name, value) in &asked.variables {
            variables.set(name.as_str(), value.as_slice());
        }
        variables
    }
}

/// The beginning of a request and its parameters.
pub(super) fn records(variables: &MetaVariables<'_>, role: Role, keep: bool) -> BytesMut {
    let mut parameters = Vec::with_capacity(2 << 10);
    for (name, value) in variables.iter() {
        codec::put_pair(&mut parameters, name.as_bytes(), value);
    }
    let mut head = BytesMut::with_capacity(parameters.len() + 64);
    codec::put_begin(&mut head, ID, role, keep);
    codec::put(&mut head, kind::PARAMS, ID, &parameters);
    codec::put_end(&mut head, kind::PARAMS, ID);
    head
}

pub(super) fn not_connected(error: &io::Error) -> Failure {
    let status = match error.kind() {
        io::ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Failure::new(status, format!("the application can't be reached: {error}"))
}

/// What stays the same when a request is tried again.
struct Task<'a> {
    app: &'a App,
    asked: &'a Asked,
    head: &'a [u8],
    keep: bool,
}

impl Task<'_> {
    async fn converse(
        &self,
        mut used: Used,
        input: Input,
        client: &mut Client,
        lease: &mut Option<Lease>,
    ) -> Result<Next, (Failure, Progress)> {
        let common = &self.app.common;
        let Some(mut stream) = used.stream.take() else { return Ok(Next::Done) };
        let writing = timeout(common.first_byte_timeout, stream.write_all(self.head));
        let written = tokio::select! {
            written = writing => written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = client.gone() => return Ok(Next::Done),
        };
        written.map_err(|e| (Failure::bad(format!("it takes no request: {e}")), Progress::default()))?;
        let (reader, writer) = tokio::io::split(stream);
        let writer = Arc::new(Mutex::new((writer, false)));
        let activity = Activity::new();
        let lines = Lines::new(common.name.clone(), self.asked.id.clone(), common.budget.clone());
        let (mut output, progress) = Output::new(reader, lines);
        let pump = pump(input, &writer, &activity);
        let result = {
            let mut talk = Talk::new(common, client, &mut output, pump, activity);
            let result = self.exchange(&mut talk, &progress, lease).await;
            if let Some(pump) = talk.pump.take() {
                pump.abort();
            }
            result
        };
        let progress = *progress.lock().unwrap_or_else(PoisonError::into_inner);
        match (result, progress.end) {
            (Ok(next), Some((app_status, _))) => {
                self.app.served();
                if app_status != 0 {
                    tracing::info!(app = %common.name, request = %self.asked.id, "the application ended with status {app_status}");
                }
                if self.keep && progress.clean {
                    used_again(used, output, writer);
                }
                Ok(next)
            }
            (Ok(next), None) => Ok(next),
            (Err(failure), end) => {
                if end.is_none() {
                    abort(&writer).await;
                }
                Err((failure, progress))
            }
        }
    }

    async fn exchange<R: tokio::io::AsyncRead + Unpin>(
        &self,
        talk: &mut Talk<'_, R>,
        progress: &std::sync::Mutex<Progress>,
        lease: &mut Option<Lease>,
    ) -> Result<Next, Failure> {
        let refusal = || progress.lock().unwrap_or_else(PoisonError::into_inner).end.and_then(refused);
        let head: CgiHead = match talk.head(self.app.common.limits).await {
            Ok(head) => head,
            Err(failure) => return Err(refusal().unwrap_or(failure)),
        };
        talk.at_once().await?;
        if let Some(failure) = refusal() {
            return Err(failure);
        }
        let next = relay(&self.app.common, self.asked, head, talk, lease).await?;
        if let Some(failure) = refusal() {
            return Err(failure);
        }
        talk.finish().await;
        Ok(next)
    }
}

/// What an end of a request means that the application did not serve.
pub(super) fn refused((_, protocol): (u32, u8)) -> Option<Failure> {
    match protocol {
        protocol_status::REQUEST_COMPLETE => None,
        protocol_status::OVERLOADED => {
            Some(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "it has too much to do (FCGI_OVERLOADED)"))
        }
        protocol_status::CANT_MPX_CONN => Some(Failure::bad("it refused the request (FCGI_CANT_MPX_CONN)")),
        protocol_status::UNKNOWN_ROLE => Some(Failure::bad("it does not know this role (FCGI_UNKNOWN_ROLE)")),
        other => Some(Failure::bad(format!("it ended the request with the protocol status {other}"))),
    }
}

fn used_again(used: Used, output: Output<ReadHalf<Stream>>, writer: Writer) {
    if let Some(writer) = Arc::into_inner(writer) {
        let stream = output.into_reader().unsplit(writer.into_inner().0);
        used.keep(stream);
    }
}

/// Says that the request is given up, where a record can be written. The connection is closed after that.
async fn abort(writer: &Writer) {
    let telling = async {
        let mut writer = writer.lock().await;
        if !writer.1 {
            let mut record = BytesMut::new();
            codec::put_end(&mut record, kind::ABORT_REQUEST, ID);
            let _ = writer.0.write_all(&record).await;
            let _ = writer.0.shutdown().await;
        }
    };
    let _ = timeout(ABORT, telling).await;
}

type Pump = JoinHandle<Result<(), InputError>>;

/// Sends the content of a request, beside what is read. `None` where there is none: its end is in the head already.
fn pump(input: Input, writer: &Writer, activity: &Activity) -> Option<Pump> {
    let sender = Sender { writer: writer.clone(), activity: activity.clone() };
    match input {
        Input::Nothing => None,
        Input::Stream(body, _) => Some(tokio::spawn(sender.body(body))),
        Input::Spooled(file, _) => Some(tokio::spawn(sender.file(tokio::fs::File::from_std(file)))),
    }
}

struct Sender {
    writer: Writer,
    activity: Activity,
}

impl Sender {
    async fn body(self, mut body: Body) -> Result<(), InputError> {
        while let Some(data) = input::data(&mut body).await {
            for part in data?.chunks(PART) {
                if self.send(part).await.is_err() {
                    // An application that reads no more is not wrong: what is left of the body is let go.
                    return Ok(());
                }
            }
        }
        let _ = self.send(&[]).await;
        Ok(())
    }

    async fn file(self, mut file: tokio::fs::File) -> Result<(), InputError> {
        let mut part = vec![0; PART];
        loop {
            let length = file.read(&mut part).await.map_err(InputError::Spool)?;
            if self.send(&part[..length]).await.is_err() || length == 0 {
                return Ok(());
            }
        }
    }

    /// Sends one record; an empty one ends the stream.
    async fn send(&self, part: &[u8]) -> io::Result<()> {
        self.activity.touch();
        let mut record = BytesMut::with_capacity(part.len() + 2 * codec::HEADER);
        if part.is_empty() {
            record.put_slice(&codec::header(kind::STDIN, ID, 0));
        } else {
            codec::put(&mut record, kind::STDIN, ID, part);
        }
        let mut writer = self.writer.lock().await;
        writer.1 = true;
        let result = writer.0.write_all(&record).await;
        writer.1 = result.is_err();
        self.activity.touch();
        result
    }
}
