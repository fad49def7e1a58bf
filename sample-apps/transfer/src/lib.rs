//! Uploads and downloads of any size, with as much memory as one chunk takes.
//!
//! `PUT files/NAME` stores the content, `GET files/NAME` sends it back with its SHA-256 digest (RFC 9530), `DELETE files/NAME`
//! removes it, `GET zeros?bytes=N` sends as many zero bytes as asked for, `POST upload` takes a form with files and says how
//! long they are. Files live in a temporary folder that goes away
//! with the application. The init parameter `max_bytes` limits the size of one file (1 GiB when it is not set).
#![deny(unsafe_code)]

mod store;

use bytes::Bytes;
use tokio_util::io::ReaderStream;
use wharf_sdk::{
    App, Body, BoxError, Error, MultipartConfig, Request, Response, Servlet, ServletConfig, StatusCode, get, post,
};

use crate::store::{Store, Stored};

/// Bytes read from a file at a time.
const CHUNK: usize = 64 * 1024;

/// Stores what is sent, sends what is stored.
#[derive(Default)]
struct Files {
    store: std::sync::OnceLock<Store>,
}

impl Files {
    fn store(&self) -> Result<&Store, Error> {
        self.store.get().ok_or_else(|| Error::unavailable("not started"))
    }
}

/// The file name in the path: one segment of harmless characters, so that it can't lead out of the folder.
fn name(request: &Request) -> Result<String, Error> {
    let name = request.path_info().unwrap_or_default().trim_start_matches('/');
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(harmless) {
        return Err(Error::bad_request(
            "a file name has up to 100 letters, digits, '.', '-' and '_', and no '.' at its start",
        ));
    }
    Ok(name.to_owned())
}

fn described(response: Response, stored: &Stored) -> Result<Response, Error> {
    response.header("repr-digest", stored.digest())
}

impl Servlet for Files {
    async fn init(&self, config: &ServletConfig) -> Result<(), BoxError> {
        let max = config.context().init_parameter_as("max_bytes")?.unwrap_or(1 << 30);
        let store = Store::new(max)?;
        self.store.get_or_init(|| store);
        Ok(())
    }

    async fn get(&self, request: Request) -> Result<Response, Error> {
        let (file, stored) =
            self.store()?.open(&name(&request)?).await?.ok_or_else(|| Error::not_found("there is no such file"))?;
        let content = Body::from_stream_of(stored.len, ReaderStream::with_capacity(file, CHUNK));
        described(Response::typed("application/octet-stream", content), &stored)
    }

    async fn put(&self, mut request: Request) -> Result<Response, Error> {
        let name = name(&request)?;
        let (stored, is_new) = self.store()?.save(&name, request.content_length(), request.body_mut()).await?;
        let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
        described(Response::text(format!("{} bytes\n", stored.len)).with_status(status), &stored)
    }

    async fn delete(&self, request: Request) -> Result<Response, Error> {
        match self.store()?.remove(&name(&request)?).await? {
            true => Ok(Response::status(StatusCode::NO_CONTENT)),
            false => Err(Error::not_found("there is no such file")),
        }
    }
}

/// As many zero bytes as asked for, made while they are sent.
async fn zeros(request: Request) -> Result<Response, Error> {
    static ZEROS: [u8; CHUNK] = [0; CHUNK];
    #[derive(serde::Deserialize)]
    struct Query {
        bytes: u64,
    }
    let Query { bytes } = request.query_as()?;
    let chunk = CHUNK as u64;
    let chunks = (0..bytes.div_ceil(chunk)).map(move |at| {
        let len = (bytes - at * chunk).min(chunk) as usize;
        Ok::<_, BoxError>(Bytes::from_static(&ZEROS).slice(..len))
    });
    let body = Body::from_stream_of(bytes, tokio_stream::iter(chunks));
    Ok(Response::typed("application/octet-stream", body))
}

/// What came with a form: each file's name and length. Long ones wait in temporary files, which are gone with the request.
async fn upload(mut request: Request) -> Result<String, Error> {
    let parts = request.parts(&MultipartConfig::new()).await?;
    let lines = parts.iter().map(|part| {
        let name = part.file_name().unwrap_or_else(|| part.name().to_owned());
        format!("{name}: {} bytes\n", part.size())
    });
    Ok(lines.collect())
}

/// The application.
pub fn app() -> App {
    App::new()
        .servlet("page", "", get(|_| async { Response::html(include_str!("page.html")) }))
        .servlet("files", "/files/*", Files::default())
        .servlet("zeros", "/zeros", get(zeros))
        .servlet("upload", "/upload", post(upload))
}

wharf_sdk::export!(app);

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_sdk::TestClient;

    #[tokio::test]
    async fn what_is_put_is_what_is_got() {
        let client = TestClient::new(app()).context_path("/transfer").start().await.unwrap();
        let content = || {
            let chunks = (0..40_u8).map(|byte| Ok::<_, BoxError>(vec![byte; 10_000]));
            Body::from_stream(tokio_stream::iter(chunks))
        };
        let put = client.put("/files/a.bin").body(content()).send().await;
        assert_eq!((put.status().as_u16(), put.header("repr-digest").is_some()), (201, true));
        let digest = put.header("repr-digest").unwrap().to_owned();
        let got = client.get("/files/a.bin").send().await;
        assert_eq!(got.header("repr-digest"), Some(digest.as_str()));
        let got = got.bytes().await;
        assert!(
            got.len() == 400_000 && got.chunks(10_000).enumerate().all(|(at, c)| c.iter().all(|b| *b as usize == at))
        );
        assert_eq!(client.put("/files/a.bin").body("less").send().await.status(), 200);
        assert_eq!(client.get("/files/a.bin").send().await.text().await, "less");
        assert_eq!(client.delete("/files/a.bin").send().await.status(), 204);
        assert_eq!(client.get("/files/a.bin").send().await.status(), 404);
    }

    #[tokio::test]
    async fn the_digest_is_that_of_the_content() {
        let client = TestClient::new(app()).start().await.unwrap();
        let put = client.put("/files/abc").body("abc").send().await;
        // From FIPS 180-2, appendix B.1, in base64.
        let want = "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:";
        assert_eq!(put.header("repr-digest"), Some(want));
    }

    #[tokio::test]
    async fn names_that_lead_elsewhere_and_files_too_large_are_refused() {
        let client = TestClient::new(app()).init("max_bytes", "10").start().await.unwrap();
        for name in [".hidden", "a%20b", "a/b", "", "%E2%82%AC"] {
            assert_eq!(client.put(&format!("/files/{name}")).body("x").send().await.status(), 400, "{name}");
        }
        assert_eq!(client.put("/files/large").body("12345678901").send().await.status(), 413);
        let chunks = std::iter::repeat_n("123456", 2).map(Ok::<_, BoxError>);
        let streamed = Body::from_stream(tokio_stream::iter(chunks));
        assert_eq!(client.put("/files/large").body(streamed).send().await.status(), 413);
        assert_eq!(client.get("/files/large").send().await.status(), 404);
    }

    #[tokio::test]
    async fn a_form_with_a_file_is_taken() {
        let client = TestClient::new(app()).start().await.unwrap();
        let content = "--XX\r\nContent-Disposition: form-data; name=f; filename=a.txt\r\n\r\nabc\r\n--XX--\r\n";
        let sent = client.post("/upload").header("content-type", "multipart/form-data; boundary=XX").body(content);
        assert_eq!(sent.send().await.text().await, "a.txt: 3 bytes\n");
        assert_eq!(client.post("/upload").body("x").send().await.status(), 415);
    }

    #[tokio::test]
    async fn zeros_are_as_many_as_asked_for() {
        let client = TestClient::new(app()).start().await.unwrap();
        for bytes in [0, 1, CHUNK, CHUNK + 1, 1_000_000] {
            let got = client.get(&format!("/zeros?bytes={bytes}")).send().await.bytes().await;
            assert!(got.len() == bytes && got.iter().all(|byte| *byte == 0), "{bytes}: {}", got.len());
        }
        assert_eq!(client.get("/zeros?bytes=many").send().await.status(), 400);
    }
}
