//! A router whose state was never given to it.

#[derive(Clone)]
struct Database;

fn app() -> axum::Router<Database> {
    axum::Router::new()
}

wharf_sdk::export!(app);

fn main() {}
