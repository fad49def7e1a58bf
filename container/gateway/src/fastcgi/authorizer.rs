//! The role Authorizer (FastCGI 1.0, section 6.3): an application that says whether a request may be answered.

use std::sync::{Arc, PoisonError};

use http::{Method, Response, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use wharf_kernel::Body;

use super::app::App;
use super::codec::Role;
use super::connection::Pool;
use super::output::Output;
use super::request::{not_connected, records, refused};
use crate::program::errors::Lines;
use crate::program::request::{Asked, failed};
use crate::program::talk::{Activity, Client, Failure, Talk};
use crate::script::Script;

/// Most bytes of an answer that is no yes.
const MOST: usize = 1 << 20;
/// Names of fields whose rest is the name of a parameter for the application.
const VARIABLE: &str = "variable-";

/// Asks it. With status 200 the request goes on, with the parameters that it adds; any other answer is the client's.
pub(super) async fn ask(app: &App, pool: &Arc<Pool>, asked: &mut Asked) -> Result<(), Box<Response<Body>>> {
    let script = Script { name: String::new(), file: app.root.clone(), path_info: String::new() };
    match converse(app, pool, asked, &script).await {
        Ok(response) if response.status() == StatusCode::OK => {
            for (name, value) in response.headers() {
                if let Some(variable) = name.as_str().strip_prefix(VARIABLE).filter(|v| !v.is_empty()) {
                    asked.variables.push((variable.to_ascii_uppercase(), value.as_bytes().to_vec()));
                }
            }
            Ok(())
        }
        Ok(mut response) => {
            let told: Vec<_> =
                response.headers().keys().filter(|n| n.as_str().starts_with(VARIABLE)).cloned().collect();
            for name in told {
                response.headers_mut().remove(name);
            }
            Err(Box::new(response))
        }
        Err(mut failure) => {
            failure.why.insert_str(0, "its authorizer: ");
            Err(Box::new(failed(&app.common, asked, &script, &failure)))
        }
    }
}

async fn converse(app: &App, pool: &Arc<Pool>, asked: &Asked, script: &Script) -> Result<Response<Body>, Failure> {
    let common = &app.common;
    let mut variables = app.variables(asked, script, None);
    // What it is not told.
    variables.remove("SCRIPT_NAME");
    let head = records(&variables, Role::Authorizer, false);
    let mut used = pool.take(false).await.map_err(|e| not_connected(&e))?;
    let Some(mut stream) = used.stream.take() else { return Err(Failure::bad("there is no connection")) };
    let written = timeout(common.first_byte_timeout, stream.write_all(&head)).await;
    written.unwrap_or_else(|e| Err(e.into())).map_err(|e| Failure::bad(format!("it takes no request: {e}")))?;
    let lines = Lines::new(common.name.clone(), asked.id.clone(), common.budget.clone());
    let (output, progress) = Output::new(stream, lines);
    // The client is looked after by the time limits alone here.
    let mut client = Client::Served;
    let mut talk = Talk::new(common, &mut client, output, None, Activity::new());
    let end = || progress.lock().unwrap_or_else(PoisonError::into_inner).end.and_then(refused);
    let head = talk.head(common.limits).await.map_err(|failure| end().unwrap_or(failure))?;
    talk.idle = common.idle_timeout;
    let content = talk.whole(MOST).await?;
    if let Some(failure) = end() {
        return Err(failure);
    }
    let bodiless = asked.head.method == Method::HEAD || head.status == StatusCode::OK;
    let mut response = Response::new(if bodiless { Body::empty() } else { Body::from(content.freeze()) });
    (*response.status_mut(), *response.headers_mut()) = (head.status, head.headers);
    Ok(response)
}
