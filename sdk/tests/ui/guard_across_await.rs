//! A lock held while waiting: the future can't move between threads.

use std::sync::Mutex;

use wharf_sdk::{Error, Request, Response, Servlet};

struct Total(Mutex<usize>);

impl Servlet for Total {
    async fn post(&self, mut request: Request) -> Result<Response, Error> {
        let mut total = self.0.lock().unwrap();
        *total += request.bytes().await?.len();
        Ok(Response::text(total.to_string()))
    }
}

fn main() {}
