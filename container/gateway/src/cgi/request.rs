//! One request of a CGI application: the process that answers it, from its start to its end.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdin, ChildStdout, ExitStatus, Stdio};
use std::time::Duration;

use http::StatusCode;
use http::header::CONTENT_LENGTH;
use tokio::net::unix::pipe;
use tokio::time::timeout;
use wharf_kernel::{Body, Connection, Lease};

use super::app::App;
use crate::meta_variables::{Facts, MetaVariables};
use crate::program::errors;
use crate::program::input::{self, Input};
use crate::program::process::{self, Pipes, Process, Start};
use crate::program::relay::relay;
use crate::program::request::{self, Asked, Common, Next, Programs, failed};
use crate::program::talk::{Activity, Client, Failure, Talk};
use crate::script::{Found, Script};

/// How long the end of a response waits for the end of its process, so that a crash is not taken for an end.
const EXIT: Duration = Duration::from_millis(250);

impl Programs for App {
    fn common(&self) -> &Common {
        &self.common
    }

    fn find(&self, inner: &str, _: &Connection) -> io::Result<Found> {
        self.find(inner)
    }

    async fn run(
        &self,
        asked: &Asked,
        script: &Script,
        body: Body,
        client: &mut Client,
        lease: &mut Option<Lease>,
    ) -> Result<Next, Failure> {
        process::check_program(&script.file).map_err(|what| Failure::new(StatusCode::FORBIDDEN, what))?;
        let input = request::input(body).await?;
        let slot = tokio::select! {
            slot = self.slots.take() => slot,
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
            document_root: &self.root,
            content_length: input.length().or(named.then_some(0)),
            pass_authorization: self.options.pass_authorization,
            env: &self.options.env,
        });
        let (stdin, rest) = split(input);
        let start = Start {
            program: script.file.as_os_str(),
            arguments: &[],
            folder: script.file.parent(),
            memory: self.options.memory,
            cpu: self.options.cpu,
            open_files: self.options.open_files,
        };
        let variables = variables.iter();
        let (mut process, pipes) =
            Process::start(&self.processes, &start, variables, stdin).map_err(|e| not_started(&e))?;
        let Pipes { stdin, stdout, stderr } = pipes;
        let stderr = pipe::Receiver::from_owned_fd(stderr.into()).map_err(pipe_error)?;
        let mut errors =
            tokio::spawn(errors::log(stderr, self.common.name.clone(), asked.id.clone(), self.common.budget.clone()));
        let input = rest.zip(stdin);
        let result = converse(self, asked, &mut process, input, stdout, client, lease).await;
        let result = match result {
            Ok(next) => Ok(next),
            Err(failure) => {
                // The client first: the end of the process may take a while.
                client.answer(failed(&self.common, asked, script, &failure), Client::Served);
                *client = Client::Served;
                *lease = None;
                process.end(self.options.kill_timeout).await;
                Ok(Next::Done)
            }
        };
        // A grandchild that has left the group could keep standard error open for ever.
        if timeout(EXIT, &mut errors).await.is_err() {
            errors.abort();
        }
        result
    }
}

/// What becomes standard input, and what has to be sent through the pipe.
fn split(input: Input) -> (Stdio, Option<Body>) {
    match input {
        Input::Nothing => (Stdio::null(), None),
        Input::Stream(body, _) => (Stdio::piped(), Some(body)),
        Input::Spooled(file, _) => (Stdio::from(file), None),
    }
}

fn pipe_error(error: io::Error) -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, format!("a pipe: {error}"))
}

fn not_started(error: &io::Error) -> Failure {
    use rustix::io::Errno;
    let status = match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM) => StatusCode::FORBIDDEN,
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => StatusCode::SERVICE_UNAVAILABLE,
        None if error.kind() == io::ErrorKind::ConnectionAborted => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Failure::new(status, format!("it can't be started: {error}"))
}

async fn converse(
    app: &App,
    asked: &Asked,
    process: &mut Process,
    input: Option<(Body, ChildStdin)>,
    stdout: ChildStdout,
    client: &mut Client,
    lease: &mut Option<Lease>,
) -> Result<Next, Failure> {
    let common = &app.common;
    let activity = Activity::new();
    let pump = match input {
        Some((body, stdin)) => {
            let stdin = pipe::Sender::from_owned_fd(stdin.into()).map_err(pipe_error)?;
            Some(tokio::spawn(input::pump(body, stdin, activity.clone())))
        }
        None => None,
    };
    let output = pipe::Receiver::from_owned_fd(stdout.into()).map_err(pipe_error)?;
    let mut talk = Talk::new(common, client, output, pump, activity);
    let head = match talk.head(common.limits).await {
        Ok(head) => head,
        Err(failure) if failure.status == StatusCode::BAD_GATEWAY => {
            // How it ended says more than that it did.
            let ended = timeout(EXIT, process.wait()).await.ok().and_then(ended_badly);
            let why = ended.map(|how| format!("{} ({how})", failure.why)).unwrap_or(failure.why);
            return Err(Failure::bad(why));
        }
        Err(failure) => return Err(failure),
    };
    let next = relay(common, asked, head, &mut talk, lease).await?;
    if !talk.is_streaming() {
        leave(process, talk).await;
        return Ok(next);
    }
    // Its output has ended, and mostly so has it; one that goes on without output is let go on.
    let crashed = match timeout(EXIT, process.wait()).await {
        Ok(status) => status.signal().is_some().then_some(status),
        Err(_) => None,
    };
    if let Some(status) = crashed {
        return Err(Failure::bad(format!("it ended in its answer: {status}")));
    }
    talk.finish().await;
    leave(process, talk).await;
    Ok(next)
}

/// Lets a process that has given its answer come to its end, in the time that it has.
async fn leave(process: &mut Process, mut talk: Talk<'_, pipe::Receiver>) {
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
