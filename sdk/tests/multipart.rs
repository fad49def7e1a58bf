//! Uploads: RFC 7578; Servlet 6.1, section 3.2. No file of one may be left, however it ends.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_core::Stream;
use wharf_sdk::{App, Body, BoxError, Error, MultipartConfig, Part, Request, TestClient, TestClientBuilder, post};

const TYPE: &str = "multipart/form-data; boundary=XX";

fn part(head: &str, content: &str) -> String {
    format!("--XX\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
}

fn upload(parts: &[(&str, &str)]) -> String {
    parts.iter().map(|(head, content)| part(head, content)).collect::<String>() + "--XX--\r\n"
}

/// Chunks, and then an error or silence.
struct Chunks(Vec<Vec<u8>>, End);

#[derive(Clone, Copy, PartialEq)]
enum End {
    Whole,
    Cut,
    Stuck,
}

impl Stream for Chunks {
    type Item = Result<Vec<u8>, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match (self.0.is_empty(), self.1) {
            (false, _) => Poll::Ready(Some(Ok(self.0.remove(0)))),
            (true, End::Whole) => Poll::Ready(None),
            (true, End::Cut) => Poll::Ready(Some(Err("the client went away".into()))),
            (true, End::Stuck) => Poll::Pending,
        }
    }
}

fn config() -> MultipartConfig {
    MultipartConfig::new().max_file_size(1000).max_request_size(5000).max_parts(3).file_size_threshold(100)
}

async fn show(mut request: Request) -> Result<String, Error> {
    let parts = request.parts(&config()).await?;
    let mut shown = Vec::new();
    for part in parts.iter() {
        let text = part.text().await?;
        assert_eq!(text.len() as u64, part.size());
        assert_eq!(part.is_in_memory(), text.len() <= 100);
        let text = if text.len() > 20 { format!("{} bytes", text.len()) } else { text };
        shown.push(format!("{} {:?} {text}", part.name(), part.file_name()));
    }
    Ok(shown.join(", "))
}

#[tokio::test]
async fn parts_limits_and_malformed_content() {
    let client = TestClient::new(App::new().servlet("show", "/", post(show))).start().await.unwrap();
    let long = "x".repeat(101);
    let file = |name: &str| upload(&[(&format!("name=f; filename=\"{name}\""), "x")]);
    for (rule, kind, content, status, want) in [
        ("one field", TYPE, upload(&[("name=a", "1")]), 200, "a None 1"),
        ("two fields", TYPE, upload(&[("name=a", "1"), ("name=\"b c\"", "2")]), 200, "a None 1, b c None 2"),
        ("a file", TYPE, file("me.png"), 200, "f Some(\"me.png\") x"),
        ("a path as a file's name", TYPE, file("../../etc/passwd"), 200, "f Some(\"passwd\") x"),
        ("a hidden file's name", TYPE, file(".bashrc"), 200, "f Some(\"bashrc\") x"),
        ("no file chosen", TYPE, file(""), 200, "f None x"),
        ("a part on disk", TYPE, upload(&[("name=a", &long)]), 200, "a None 101 bytes"),
        ("an empty part", TYPE, upload(&[("name=a", "")]), 200, "a None "),
        ("no parts", TYPE, "--XX--\r\n".into(), 200, ""),
        ("a preamble", TYPE, format!("hello\r\n{}", upload(&[("name=a", "1")])), 200, "a None 1"),
        ("a quoted boundary", "multipart/form-data; boundary=\"XX\"", upload(&[("name=a", "1")]), 200, "a None 1"),
        ("the largest part", TYPE, upload(&[("name=a", &"x".repeat(1000))]), 200, "a None 1000 bytes"),
        ("a part too large", TYPE, upload(&[("name=a", &"x".repeat(1001))]), 413, ""),
        ("too many parts", TYPE, upload(&[("name=a", "1"); 4]), 413, ""),
        (
            "a long head",
            TYPE,
            upload(&[(&format!("name={}", "n".repeat(960)), "1")]),
            200,
            &format!("{} None 1", "n".repeat(960)),
        ),
        ("too long a head", TYPE, upload(&[(&format!("name={}", "n".repeat(1024)), "1")]), 413, ""),
        ("too large a request", TYPE, upload(&[("name=a", &"x".repeat(6000))]), 413, ""),
        ("no name", TYPE, upload(&[("filename=x", "1")]), 400, ""),
        ("no boundary", "multipart/form-data", upload(&[("name=a", "1")]), 400, ""),
        ("another boundary", "multipart/form-data; boundary=YY", upload(&[("name=a", "1")]), 400, ""),
        ("another type", "multipart/mixed; boundary=XX", upload(&[("name=a", "1")]), 415, ""),
        ("no multipart", "text/plain", upload(&[("name=a", "1")]), 415, ""),
        ("nothing", TYPE, String::new(), 400, ""),
        ("no end", TYPE, part("name=a", "1"), 400, ""),
        ("cut in the content", TYPE, "--XX\r\nContent-Disposition: form-data; name=a\r\n\r\nab".into(), 400, ""),
        ("cut in the head", TYPE, "--XX\r\nContent-Dispo".into(), 400, ""),
        ("a malformed head", TYPE, "--XX\r\n\0: x\r\n\r\n1\r\n--XX--\r\n".into(), 400, ""),
        (
            "not text in its charset",
            TYPE,
            {
                "--XX\r\nContent-Disposition: form-data; name=a\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\u{fc}\r\n--XX--\r\n".into()
            },
            400,
            "",
        ),
    ] {
        for chunk in [1, 7, usize::MAX] {
            let chunks = content.as_bytes().chunks(chunk.min(content.len().max(1))).map(<[u8]>::to_vec).collect();
            let body = Body::from_stream(Chunks(chunks, End::Whole));
            let answer = client.post("/").header("content-type", kind).body(body).send().await;
            let got = (answer.status().as_u16(), answer.text().await);
            assert_eq!(got.0, status, "{rule}, in chunks of {chunk}: {}", got.1);
            if status == 200 {
                assert_eq!(got.1, want, "{rule}, in chunks of {chunk}");
            }
        }
    }
}

#[tokio::test]
async fn a_head_without_end_is_refused_before_it_fills_memory() {
    let client = TestClient::new(App::new().servlet(
        "show",
        "/",
        post(|mut request: Request| async move {
            request.parts(&MultipartConfig::new()).await.map(|parts| parts.len().to_string())
        }),
    ))
    .start()
    .await
    .unwrap();
    for begin in ["", "--XX\r\nX-Long: "] {
        let mut chunks = vec![begin.as_bytes().to_vec()];
        chunks.extend(std::iter::repeat_n(vec![b'x'; 64 << 10], 100));
        let taken = Arc::new(Mutex::new(0));
        struct Counted(Chunks, Arc<Mutex<usize>>);
        impl Stream for Counted {
            type Item = Result<Vec<u8>, BoxError>;
            fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
                *self.1.lock().unwrap() += 1;
                Pin::new(&mut self.0).poll_next(cx)
            }
        }
        let body = Body::from_stream(Counted(Chunks(chunks, End::Whole), Arc::clone(&taken)));
        let answer = client.post("/").header("content-type", TYPE).body(body).send().await;
        assert_eq!(answer.status(), 400, "{begin:?}");
        assert!(*taken.lock().unwrap() < 10, "{begin:?}: {}", taken.lock().unwrap());
    }
}

#[tokio::test]
async fn fields_that_are_no_files_are_parameters() {
    let read = |mut request: Request| async move {
        let parts = request.parts(&config()).await?;
        let parameters = parts.parameters().await?;
        Ok(format!("{:?} {:?}", parameters.iter().collect::<Vec<_>>(), parts.get("f").map(Part::size)))
    };
    let client = TestClient::new(App::new().servlet("read", "/", post(read))).start().await.unwrap();
    let content = upload(&[("name=b", "2"), ("name=f; filename=x", "file"), ("name=b", "1")]);
    let answer = client.post("/").header("content-type", TYPE).body(content).send().await;
    assert_eq!(answer.text().await, "[(\"b\", \"2\"), (\"b\", \"1\")] Some(4)");
}

#[tokio::test]
async fn a_stream_of_parts_may_be_left_unread() {
    let names = |mut request: Request| async move {
        let mut names = Vec::new();
        let mut upload = request.multipart(&MultipartConfig::new())?;
        while let Some(mut part) = upload.next_part().await? {
            if part.name() == "read" {
                let mut len = 0;
                while let Some(chunk) = part.chunk().await? {
                    assert!(chunk.len() <= 200 << 10);
                    len += chunk.len();
                }
                names.push(len.to_string());
            }
            names.push(part.name().to_owned());
        }
        Ok(names.join(" "))
    };
    let client = TestClient::new(App::new().servlet("names", "/", post(names))).start().await.unwrap();
    let long = "x".repeat(2 << 20);
    let content = upload(&[("name=skipped", &long), ("name=read", &long), ("name=last", "1")]);
    let answer = client.post("/").header("content-type", TYPE).body(content).send().await;
    assert_eq!(answer.text().await, "skipped 2097152 read last");
}

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Open files of this process without a name.
fn nameless_files() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target.to_string_lossy().ends_with("(deleted)")))
        .count()
}

#[tokio::test]
async fn a_part_is_read_again_and_again_and_written_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("kept.txt");
    let keep = {
        let target = target.clone();
        move |mut request: Request| {
            let target = target.clone();
            async move {
                let parts = request.parts(&config()).await?;
                let part = parts.get("a").unwrap();
                assert!(!part.is_in_memory());
                part.write_to(&target).await?;
                part.write_to("kept too.txt").await?;
                let relative = request.context().temp_dir()?.join("kept too.txt");
                assert_eq!(std::fs::read_to_string(relative)?.len(), 500);
                assert!(part.write_to("/does/not/exist/x").await.is_err());
                assert_eq!(part.bytes_up_to(10).await.unwrap_err().status(), 413);
                assert_eq!(part.text().await?.len(), 500);
                assert_eq!(std::io::read_to_string(part.reader())?, std::io::read_to_string(part.reader())?);
                Ok(wharf_sdk::Response::new(part.body()))
            }
        }
    };
    let client = TestClient::new(App::new().servlet("keep", "/", post(keep))).start().await.unwrap();
    let content = "0123456789".repeat(50);
    let answer = client.post("/").header("content-type", TYPE).body(upload(&[("name=a", &content)])).send().await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await, content);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), content);
    assert_eq!(files_in(folder.path()), 1);
}

/// Uploads that end in every way, with a part on disk in each.
#[tokio::test]
async fn no_file_is_left() {
    let seen: Arc<Mutex<Option<std::path::PathBuf>>> = Arc::default();
    let receive = {
        let seen = Arc::clone(&seen);
        move |mut request: Request| {
            let seen = Arc::clone(&seen);
            async move {
                *seen.lock().unwrap() = Some(request.context().temp_dir()?.to_owned());
                let parts = request.parts(&config()).await?;
                assert!(request.query() != Some("panic"), "on purpose");
                if request.query() == Some("fail") {
                    return Err(Error::internal("on purpose"));
                }
                Ok(parts.len().to_string())
            }
        }
    };
    let client: TestClientBuilder = TestClient::new(App::new().servlet("receive", "/", post(receive)));
    let client = client.start().await.unwrap();
    let before = nameless_files();
    let content = upload(&[("name=a", &"x".repeat(900)), ("name=b", &"y".repeat(900))]).into_bytes();
    for round in 0..20 {
        for (path, end, status) in [
            ("/", End::Whole, Some(200)),
            ("/", End::Cut, Some(400)),
            ("/", End::Stuck, None),
            ("/?panic", End::Whole, Some(500)),
            ("/?fail", End::Whole, Some(500)),
        ] {
            let len = if end == End::Whole { content.len() } else { content.len() / 2 + round * 30 };
            let chunks = content[..len].chunks(300).map(<[u8]>::to_vec).collect();
            let sent =
                client.post(path).header("content-type", TYPE).body(Body::from_stream(Chunks(chunks, end))).send();
            // A client that goes away is a future that is dropped.
            let answer = tokio::time::timeout(std::time::Duration::from_millis(30), sent);
            match (answer.await, status) {
                (Ok(answer), Some(status)) => assert_eq!(answer.status(), status, "{path}"),
                (Err(_), None) => {}
                (Err(_), Some(_)) => {}
                (Ok(answer), None) => panic!("{}", answer.status()),
            }
            let folder = seen.lock().unwrap().clone().unwrap();
            assert_eq!(files_in(&folder), 0, "{path}");
        }
    }
    // Blocking work that had begun ends by itself.
    for _ in 0..200 {
        if nameless_files() <= before {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(nameless_files() <= before);
    let folder = seen.lock().unwrap().clone().unwrap();
    client.stop().await.unwrap();
    assert!(!folder.exists(), "{}", folder.display());
}
