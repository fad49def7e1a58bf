//! A plain function where a servlet is wanted.

use wharf_sdk::{App, Error, Request, Response};

async fn hello(_request: Request) -> Result<Response, Error> {
    Ok(Response::text("hello"))
}

fn main() {
    App::new().servlet("hello", "/", hello);
}
