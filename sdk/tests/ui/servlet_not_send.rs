//! A servlet that can't be shared by threads.

use std::cell::Cell;

use wharf_sdk::{App, Error, Request, Response, Servlet};

struct Counter(Cell<u32>);

impl Servlet for Counter {
    async fn get(&self, _request: Request) -> Result<Response, Error> {
        self.0.set(self.0.get() + 1);
        Ok(Response::text(self.0.get().to_string()))
    }
}

fn main() {
    App::new().servlet("counter", "/", Counter(Cell::new(0)));
}
