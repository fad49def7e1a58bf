//! A handler that returns what can't be sent.

use wharf_sdk::{App, Request, get};

struct Item {
    _name: String,
}

async fn item(_request: Request) -> Item {
    Item { _name: String::from("tea") }
}

fn main() {
    App::new().servlet("item", "/", get(item));
}
