//! What a user would write instead of a module: the benchmark's router, served by axum itself.
#![forbid(unsafe_code)]

#[path = "../../../fixtures/bench-axum/src/router.rs"]
mod router;

use axum::routing::get;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut app = router::router().route("/hello/", get(async || "Hello, world!\n"));
    if let Some(files) = std::env::args_os().nth(1) {
        app = app.nest_service("/static", tower_http::services::ServeDir::new(files));
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await
}
