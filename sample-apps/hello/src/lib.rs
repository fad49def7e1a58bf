//! The smallest useful application: one servlet, one init parameter.
//!
//! `GET hello?name=Ada` answers `Hello, Ada!`. The init parameter `greeting` changes the word; it is set in the TOML file
//! beside the module:
//!
//! ```toml
//! [init]
//! greeting = "Ahoy"
//! ```
#![deny(unsafe_code)]

use std::sync::OnceLock;
use std::time::SystemTime;

use wharf_sdk::{App, BoxError, Error, Request, Response, Servlet, ServletConfig};

/// Greets whoever asks.
#[derive(Default)]
pub struct Hello {
    settings: OnceLock<Settings>,
}

struct Settings {
    greeting: String,
    since: SystemTime,
}

impl Servlet for Hello {
    async fn init(&self, config: &ServletConfig) -> Result<(), BoxError> {
        let greeting = config.init_parameter("greeting").unwrap_or("Hello").to_owned();
        if greeting.trim().is_empty() {
            return Err("init parameter 'greeting' is empty: give it a word, or leave it out".into());
        }
        self.settings.get_or_init(|| Settings { greeting, since: SystemTime::now() });
        Ok(())
    }

    // The greeting for a name changes only when the application starts anew.
    fn last_modified(&self, _request: &Request) -> Option<SystemTime> {
        self.settings.get().map(|settings| settings.since)
    }

    async fn get(&self, request: Request) -> Result<Response, Error> {
        let settings = self.settings.get().ok_or_else(|| Error::unavailable("not started"))?;
        let name = request.parameter("name").filter(|name| !name.trim().is_empty()).unwrap_or_else(|| "world".into());
        Ok(Response::text(format!("{}, {name}!\n", settings.greeting)))
    }
}

/// The application.
pub fn app() -> App {
    App::new().servlet("hello", ["", "/hello"], Hello::default())
}

wharf_sdk::export!(app);

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_sdk::TestClient;

    #[tokio::test]
    async fn it_greets_by_name() {
        let client = TestClient::new(app()).context_path("/hello").start().await.unwrap();
        assert_eq!(client.get("/").send().await.text().await, "Hello, world!\n");
        assert_eq!(client.get("/hello?name=Ada%20L").send().await.text().await, "Hello, Ada L!\n");
    }

    #[tokio::test]
    async fn the_greeting_is_a_parameter() {
        let client = TestClient::new(app()).init("greeting", "Ahoy").start().await.unwrap();
        assert_eq!(client.get("/").send().await.text().await, "Ahoy, world!\n");
        let error = TestClient::new(app()).init("greeting", " ").start().await.err().unwrap().to_string();
        assert!(error.contains("servlet 'hello'") && error.contains("'greeting' is empty"), "{error}");
    }

    #[tokio::test]
    async fn a_copy_that_is_new_enough_is_not_sent_again() {
        let client = TestClient::new(app()).start().await.unwrap();
        let first = client.get("/").send().await;
        let when = first.header("last-modified").expect("it says when it was last changed").to_owned();
        let second = client.get("/").header("if-modified-since", &when).send().await;
        assert_eq!((second.status().as_u16(), second.bytes().await.len()), (304, 0));
    }
}
