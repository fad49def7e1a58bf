//! A router where a servlet is wanted.

fn main() {
    wharf_sdk::App::new().servlet("api", "/api/*", axum::Router::<()>::new());
}
