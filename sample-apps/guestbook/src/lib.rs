//! A guest book: pages from templates, a form, and the redirect after a POST that keeps a reload from sending it twice.
#![deny(unsafe_code)]

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use askama::Template;
use serde::Deserialize;
use wharf_sdk::{App, Error, Filter, Next, Request, Response, Servlet, StatusCode, any};

/// The oldest entries give way to new ones beyond this.
const KEPT: usize = 100;
const LONGEST_NAME: usize = 80;
const LONGEST_MESSAGE: usize = 1_000;

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
}

/// The pages of the book.
#[derive(Default)]
struct Guestbook {
    entries: Mutex<VecDeque<Entry>>,
}

impl Guestbook {
    fn page(&self, draft: Entry, complaint: Option<&'static str>) -> Result<Response, Error> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Response::html(Book { entries: &entries, draft, complaint }.render()?))
    }
}

impl Servlet for Guestbook {
    async fn get(&self, _request: Request) -> Result<Response, Error> {
        self.page(Entry::default(), None)
    }

    async fn post(&self, mut request: Request) -> Result<Response, Error> {
        let entry: Entry = request.form().await?;
        if let Some(complaint) = entry.complaint() {
            return Ok(self.page(entry, Some(complaint))?.with_status(StatusCode::UNPROCESSABLE_ENTITY));
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push_front(entry);
        entries.truncate(KEPT);
        Response::see_other("./")
    }
}

#[derive(Template)]
#[template(path = "lost.html")]
struct Lost<'a> {
    path: &'a str,
    home: &'a str,
}

/// The page for what is not there.
async fn lost(request: Request) -> Result<Response, Error> {
    let path = request.error().map_or("", |error| error.request_uri());
    Ok(Response::html(Lost { path, home: &format!("{}/", request.context_path()) }.render()?))
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
        .error_page(StatusCode::NOT_FOUND, any(lost))
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
