//! A guest book: pages from templates, a form, the redirect after a POST that keeps a reload from sending it twice, a session
//! that remembers the guest, a filter, and error pages.
//!
//! Another site can't act for a guest: the session's cookie is `SameSite=Lax`, and whatever changes something is a POST.
#![deny(unsafe_code)]

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use askama::Template;
use serde::Deserialize;
use wharf_sdk::{App, Error, Filter, Next, Request, Response, Servlet, SessionKey, StatusCode, any, post};

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

#[derive(Template)]
#[template(path = "book.html")]
struct Book<'a> {
    entries: &'a VecDeque<Entry>,
    draft: Entry,
    complaint: Option<&'static str>,
    notice: Option<String>,
    /// Who the session says this is.
    guest: Option<String>,
}

/// The pages of the book.
#[derive(Default)]
struct Guestbook {
    entries: Mutex<VecDeque<Entry>>,
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
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
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
        let entry: Entry = request.form().await?;
        if let Some(complaint) = entry.complaint() {
            return Ok(self
                .page(&request, Some(entry), Some(complaint))
                .await?
                .with_status(StatusCode::UNPROCESSABLE_ENTITY));
        }
        let session = request.session().await?;
        session.put(&NAME, &entry.name)?;
        session.put(&NOTICE, &format!("Thank you, {}!", entry.name.trim()))?;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push_front(entry);
        entries.truncate(KEPT);
        Response::see_other("./")
    }
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
        let policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'";
        next.run(request).await?.header("content-security-policy", policy)?.header("x-content-type-options", "nosniff")
    }
}

/// The application.
pub fn app() -> App {
    App::new()
        .filter("no-scripts", "/*", NoScripts)
        .servlet("guestbook", "", Guestbook::default())
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
