//! Speaks HTTP to the admin API of a running container, on its socket or its port.

use std::path::PathBuf;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use wharf_manager::Problem;

use crate::cli::Global;
use crate::failure::Failure;
use crate::settings_load;

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The variable with the token for a port.
const TOKEN: &str = "WHARF_ADMIN_TOKEN";

/// A client of one container.
pub(crate) struct Client {
    to: To,
}

enum To {
    Socket(PathBuf),
    /// Host and port, and the token.
    Port(String, String),
}

impl Client {
    /// The client for `--admin`, else for the configured socket.
    ///
    /// # Errors
    /// When the configuration is wrong.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let Some(admin) = &global.admin else {
            return Ok(Self { to: To::Socket(settings_load::load(global)?.settings.admin_socket()) });
        };
        let Some(port) = admin.strip_prefix("http://") else { return Ok(Self { to: To::Socket(admin.into()) }) };
        let port = port.trim_end_matches('/').to_owned();
        let token =
            std::env::var(TOKEN).map_err(|_| Failure::usage(format!("--admin {admin}: set {TOKEN} to a token")))?;
        Ok(Self { to: To::Port(port, token) })
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// The failure with the exit code that belongs to it.
    pub(crate) fn send<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, Failure> {
        let body = self.bytes(method, path, body)?;
        serde_json::from_slice(&body).map_err(|e| Failure::failed(format!("the answer can't be read: {e}")))
    }

    /// The same for an answer that is text.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) fn text(&self, method: Method, path: &str, body: Bytes) -> Result<String, Failure> {
        self.bytes(method, path, body).map(|body| String::from_utf8_lossy(&body).into_owned())
    }

    fn bytes(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
        let (status, body) = runtime.block_on(exchange(&self.to, method, path, body))?;
        if !status.is_success() {
            return Err(match serde_json::from_slice::<Problem>(&body) {
                Ok(Problem { refusal: Some(refusal), .. }) => Failure::refused(refusal),
                Ok(problem) => Failure::failed(problem.detail),
                Err(_) => Failure::failed(format!("{status}: {}", String::from_utf8_lossy(&body))),
            });
        }
        Ok(body)
    }
}

/// The path of an application's resource.
pub(crate) fn app_path(name: &str) -> String {
    format!("/v1/apps/{}", utf8_percent_encode(name, SEGMENT))
}

/// The path for an upload under this name.
pub(crate) fn upload_path(name: &str) -> String {
    format!("/v1/apps?name={}", utf8_percent_encode(name, SEGMENT))
}

async fn exchange(to: &To, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), Failure> {
    let nobody = |at: &dyn std::fmt::Display, e| {
        Failure::unreached(format!(
            "no container answers on {at}: {e}; start one with 'wharf run', or name its socket with --admin"
        ))
    };
    match to {
        To::Socket(socket) => {
            let stream = UnixStream::connect(socket).await.map_err(|e| nobody(&socket.display(), e))?;
            talk(stream, request(method, path, "localhost"), body).await
        }
        To::Port(port, token) => {
            let stream = TcpStream::connect(port).await.map_err(|e| nobody(port, e))?;
            let request = request(method, path, port).header(AUTHORIZATION, format!("Bearer {token}"));
            talk(stream, request, body).await
        }
    }
}

fn request(method: Method, path: &str, host: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header(HOST, host)
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: http::request::Builder,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Failure> {
    let broken = |e: &dyn std::fmt::Display| Failure::unreached(format!("the container broke off: {e}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    let connection = tokio::spawn(connection);
    let request = request.body(Full::new(body)).map_err(Failure::failed)?;
    let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|e| broken(&e))?.to_bytes();
    connection.abort();
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(app_path("a#b##2"), "/v1/apps/a%23b%23%232");
        assert_eq!(app_path("../x"), "/v1/apps/..%2Fx");
        assert_eq!(upload_path("a&b=c"), "/v1/apps?name=a%26b%3Dc");
    }

    #[test]
    fn nobody_there_is_exit_code_3() {
        let client = Client { to: To::Socket("/nonexistent/admin.sock".into()) };
        let failure = client.send::<serde_json::Value>(Method::GET, "/v1/apps", Bytes::new()).unwrap_err();
        assert_eq!(failure.code(), 3);
    }
}
