//! A guest book: pages from templates, a form with an upload, the redirect after a POST that keeps a reload from sending it
//! twice, a session that remembers the guest, a filter, and error pages.
//!
//! Another site can't act for a guest: the session's cookie is `SameSite=Lax`, and whatever changes something is a POST.
#![deny(unsafe_code)]

mod picture;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use askama::Template;
use serde::Deserialize;
use wharf_sdk::{
    App, Error, Filter, MultipartConfig, Next, Request, Response, Servlet, SessionKey, StatusCode, any, get, post,
};

use crate::picture::Picture;

/// The oldest entries give way to new ones beyond this.
const KEPT: usize = 100;
const LONGEST_NAME: usize = 80;
const LONGEST_MESSAGE: usize = 1_000;

/// The name that this guest last signed with.
const NAME: SessionKey<String> = SessionKey::new("name");
/// What to say once, on the next page.
const NOTICE: SessionKey<String> = SessionKey::new("notice");

/// One entry: what a guest wrote, as typed. The template escapes it.
#[derive(Debug, Clone, Default, Deserialize)]
struct Entry {
    name: String,
    message: String,
}

impl Entry {
    fn complaint(&self) -> Option<&'static str> {
        match (self.name.trim(), self.message.trim()) {
            ("", _) => Some("Please tell us your name."),
            (_, "") => Some("Please write a message."),
            (name, _) if name.chars().count() > LONGEST_NAME => Some("That name is too long."),
            (_, message) if message.chars().count() > LONGEST_MESSAGE => Some("That message is too long."),
            _ => None,
        }
    }
}

/// An entry in the book.
#[derive(Debug)]
struct Kept {
    /// No other has it.
    number: u64,
    entry: Entry,
    picture: Option<Picture>,
}

#[derive(Template)]
#[template(path = "book.html")]
struct Book<'a> {
    entries: &'a VecDeque<Kept>,
    draft: Entry,
    complaint: Option<&'static str>,
    notice: Option<String>,
    /// Who the session says this is.
    guest: Option<String>,
}

/// The entries, newest first.
type Entries = Arc<Mutex<VecDeque<Kept>>>;

fn lock(entries: &Entries) -> MutexGuard<'_, VecDeque<Kept>> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a guest has sent: an entry, and a picture where one was chosen.
async fn sent(request: &mut Request) -> Result<(Entry, Option<Picture>, Option<&'static str>), Error> {
    if !request.content_type().is_some_and(|t| t.starts_with("multipart/form-data")) {
        return Ok((request.form().await?, None, None));
    }
    let parts = request.parts(&MultipartConfig::new().max_file_size(picture::LARGEST as u64).max_parts(3)).await?;
    let mut entry = Entry::default();
    for (name, field) in [("name", &mut entry.name), ("message", &mut entry.message)] {
        if let Some(part) = parts.get(name) {
            *field = part.text().await?;
        }
    }
    let Some(chosen) = parts.get("picture").filter(|part| part.size() > 0) else { return Ok((entry, None, None)) };
    let picture = Picture::of(chosen).await?;
    let complaint = picture.is_none().then_some("That is no picture (PNG, JPEG, GIF or WebP).");
    Ok((entry, picture, complaint))
}

/// The pages of the book.
struct Guestbook {
    entries: Entries,
}

impl Guestbook {
    async fn page(
        &self,
        request: &Request,
        draft: Option<Entry>,
        complaint: Option<&'static str>,
    ) -> Result<Response, Error> {
        // Who only looks needs no session.
        let (mut notice, mut guest) = (None, None);
        if let Some(session) = request.session_if_exists().await? {
            guest = session.value(&NAME)?;
            notice = session.value(&NOTICE)?;
            session.remove(NOTICE.name())?;
        }
        let draft = draft.unwrap_or_else(|| Entry { name: guest.clone().unwrap_or_default(), ..Entry::default() });
        let entries = lock(&self.entries);
        let page = Book { entries: &entries, draft, complaint, notice, guest }.render()?;
        // It is for this guest alone.
        Response::html(page).header("cache-control", "no-store")
    }
}

impl Servlet for Guestbook {
    async fn get(&self, request: Request) -> Result<Response, Error> {
        self.page(&request, None, None).await
    }

    async fn post(&self, mut request: Request) -> Result<Response, Error> {
        let (entry, picture, complaint) = sent(&mut request).await?;
        if let Some(complaint) = entry.complaint().or(complaint) {
            return Ok(self
                .page(&request, Some(entry), Some(complaint))
                .await?
                .with_status(StatusCode::UNPROCESSABLE_ENTITY));
        }
        let session = request.session().await?;
        session.put(&NAME, &entry.name)?;
        session.put(&NOTICE, &format!("Thank you, {}!", entry.name.trim()))?;
        let mut entries = lock(&self.entries);
        let number = entries.front().map_or(1, |newest| newest.number + 1);
        entries.push_front(Kept { number, entry, picture });
        entries.truncate(KEPT);
        Response::see_other("./")
    }
}

/// Shows the picture of an entry, by the entry's number in the path.
async fn picture(request: Request, entries: Entries) -> Result<Response, Error> {
    let number = request.path_info().and_then(|path| path.strip_prefix('/')?.parse::<u64>().ok());
    let entries = lock(&entries);
    let kept = entries.iter().find(|kept| Some(kept.number) == number);
    kept.and_then(|kept| kept.picture.as_ref()).ok_or_else(|| Error::not_found("no picture"))?.response()
}

#[derive(Template)]
#[template(path = "problem.html")]
struct Problem<'a> {
    title: &'a str,
    text: &'a str,
    path: &'a str,
    home: &'a str,
}

/// The page for what went wrong. It says nothing of the inside.
async fn problem(request: Request) -> Result<Response, Error> {
    let (status, path) = request.error().map_or((0, ""), |error| (error.status().as_u16(), error.request_uri()));
    let (title, text) = match status {
        404 => ("Not in the guest book", "There is no such page."),
        413 => ("Too much for the guest book", "What you sent is too large."),
        _ => ("The guest book is closed for a moment", "Something went wrong here. Please try again."),
    };
    Ok(Response::html(Problem { title, text, path, home: &format!("{}/", request.context_path()) }.render()?))
}

/// Ends the session of a guest who wants to be forgotten.
async fn forget(request: Request) -> Result<Response, Error> {
    if let Some(session) = request.session_if_exists().await? {
        session.invalidate()?;
    }
    Response::see_other("./")
}

/// Pages carry no scripts, so none may run, whatever a guest manages to write.
struct NoScripts;

impl Filter for NoScripts {
    async fn filter(&self, request: Request, next: Next) -> Result<Response, Error> {
        let policy =
            "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'";
        next.run(request).await?.header("content-security-policy", policy)?.header("x-content-type-options", "nosniff")
    }
}

/// The application.
pub fn app() -> App {
    let entries = Entries::default();
    let pictures = entries.clone();
    App::new()
        .filter("no-scripts", "/*", NoScripts)
        .servlet("guestbook", "", Guestbook { entries })
        .servlet("picture", "/picture/*", get(move |request| picture(request, pictures.clone())))
        .servlet("forget", "/forget", post(forget))
        .error_page(StatusCode::NOT_FOUND, any(problem))
        .error_page(StatusCode::PAYLOAD_TOO_LARGE, any(problem))
        .error_page(StatusCode::INTERNAL_SERVER_ERROR, any(problem))
        .error_page(StatusCode::SERVICE_UNAVAILABLE, any(problem))
}

wharf_sdk::export!(app);

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_sdk::TestClient;

    #[tokio::test]
    async fn an_entry_is_kept_and_escaped() {
        let client = TestClient::new(app()).context_path("/guestbook").start().await.unwrap();
        let form = [("name", "Ada & Co"), ("message", "<script>alert(1)</script>")];
        let posted = client.post("/").form(&form).send().await;
        assert_eq!((posted.status().as_u16(), posted.header("location")), (303, Some("./")));
        let page = client.get("/").send().await;
        assert!(page.header("content-security-policy").is_some());
        let page = page.text().await;
        assert!(page.contains("Ada &#38; Co") && page.contains("&#60;script&#62;"), "{page}");
        assert!(!page.contains("<script"), "{page}");
    }

    #[tokio::test]
    async fn a_bad_entry_is_shown_again_with_a_complaint() {
        let client = TestClient::new(app()).start().await.unwrap();
        let again = client.post("/").form(&[("name", "\"Ada\""), ("message", " ")]).send().await;
        assert_eq!(again.status(), 422);
        let page = again.text().await;
        assert!(page.contains("Please write a message.") && page.contains("value=\"&#34;Ada&#34;\""), "{page}");
        assert_eq!(client.post("/").body("name=x").send().await.status(), 415);
    }

    #[tokio::test]
    async fn what_is_not_there_has_a_page() {
        let client = TestClient::new(app()).context_path("/guestbook").start().await.unwrap();
        let lost = client.get("/no/%3Cb%3E").header("accept", "text/html").send().await;
        assert_eq!(lost.status(), 404);
        assert!(lost.header("content-security-policy").is_some(), "the filter has seen the response");
        let page = lost.text().await;
        assert!(page.contains("href=\"/guestbook/\"") && !page.contains("<b>"), "{page}");
    }

    fn upload(picture: &[u8]) -> Vec<u8> {
        let field = |name: &str| format!("--XX\r\nContent-Disposition: form-data; name={name}");
        let mut content = format!("{}\r\n\r\nAda\r\n{}\r\n\r\nLook!\r\n", field("name"), field("message")).into_bytes();
        content.extend(
            format!("{}; filename=\"../evil.html\"\r\nContent-Type: text/html\r\n\r\n", field("picture")).bytes(),
        );
        content.extend(picture);
        content.extend(b"\r\n--XX--\r\n");
        content
    }

    #[tokio::test]
    async fn a_picture_is_kept_as_what_it_is() {
        let client = TestClient::new(app()).context_path("/guestbook").start().await.unwrap();
        let send = async |picture: &[u8]| {
            let request = client.post("/").header("content-type", "multipart/form-data; boundary=XX");
            request.body(upload(picture)).send().await
        };
        assert_eq!(send(b"\x89PNG\r\n\x1a\n...").await.status(), 303);
        assert!(client.get("/").send().await.text().await.contains("src=\"picture/1\""));
        let shown = client.get("/picture/1").send().await;
        assert_eq!((shown.status().as_u16(), shown.header("content-type")), (200, Some("image/png")));
        assert_eq!(shown.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(client.get("/picture/2").send().await.status(), 404);
        let refused = send(b"<script>alert(1)</script>").await;
        assert_eq!(refused.status(), 422);
        assert!(refused.text().await.contains("That is no picture"));
        assert_eq!(send(&vec![0x89; picture::LARGEST + 1]).await.status(), 413);
        assert_eq!(send(b"").await.status(), 303, "none was chosen");
    }

    #[tokio::test]
    async fn a_guest_is_remembered_thanked_once_and_forgotten() {
        let client = TestClient::new(app()).start().await.unwrap();
        let first = client.get("/").send().await;
        assert_eq!(first.header("set-cookie"), None, "who only looks needs no session");
        let posted = client.post("/").form(&[("name", "<Ada>"), ("message", "Hello")]).send().await;
        assert!(posted.header("set-cookie").unwrap().contains("SameSite=Lax"));
        let page = client.get("/").send().await.text().await;
        assert!(page.contains("Thank you, &#60;Ada&#62;!") && page.contains("value=\"&#60;Ada&#62;\""), "{page}");
        let page = client.get("/").send().await.text().await;
        assert!(!page.contains("Thank you") && page.contains("value=\"&#60;Ada&#62;\""), "{page}");
        assert_eq!(client.get("/forget").send().await.status(), 405, "a link forgets nobody");
        assert_eq!(client.post("/forget").send().await.header("location"), Some("./"));
        let page = client.get("/").send().await.text().await;
        assert!(page.contains("value=\"\"") && page.contains("Hello"), "{page}");
    }

    #[tokio::test]
    async fn a_form_too_large_has_a_page() {
        let client = TestClient::new(app()).start().await.unwrap();
        let message = "x".repeat(wharf_sdk::DEFAULT_CONTENT_LIMIT);
        let answer = client.post("/").form(&[("name", "x"), ("message", message.as_str())]).send().await;
        assert_eq!(answer.status(), 413);
        assert!(answer.text().await.contains("What you sent is too large."));
    }

    #[tokio::test]
    async fn only_the_newest_are_kept() {
        let client = TestClient::new(app()).start().await.unwrap();
        for number in 0..=KEPT {
            let number = format!("no {number}.");
            client.post("/").form(&[("name", "x"), ("message", number.as_str())]).send().await;
        }
        let page = client.get("/").send().await.text().await;
        assert!(page.contains("no 100.") && page.contains("no 1.") && !page.contains("no 0."));
    }
}
