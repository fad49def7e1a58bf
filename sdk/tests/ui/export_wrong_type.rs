//! `export!` of a function that makes something else.

fn app() -> String {
    String::from("not an application")
}

wharf_sdk::export!(app);

fn main() {}
