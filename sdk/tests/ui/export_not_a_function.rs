//! `export!` of a value in place of the function that makes it.

use wharf_sdk::App;

wharf_sdk::export!(App::new());

fn main() {}
