//! A shop: its goods and orders in a database of the container's, the cart in the session.
//!
//! It names the database `shop`. Which one that is, the configuration says: SQLite in a file, or PostgreSQL, or MariaDB; the
//! statements are the same.
#![deny(unsafe_code)]

mod store;

use std::collections::BTreeMap;

use askama::Template;
use serde::Deserialize;
use wharf_sdk::sql::Migration;
use wharf_sdk::{App, Error, Request, Response, SessionKey, get, post};

use crate::store::{Bought, Line, Product};

/// How many of which product.
type Cart = BTreeMap<i64, i64>;

const CART: SessionKey<Cart> = SessionKey::new("cart");
/// What to say once, on the next page.
const NOTICE: SessionKey<String> = SessionKey::new("notice");
/// More of one product than this is a mistake.
const MOST: i64 = 100;

/// Euros, of cents.
fn euros(cents: &i64) -> String {
    format!("{}.{:02} €", cents / 100, cents % 100)
}

#[derive(Template)]
#[template(path = "shop.html")]
struct Page {
    products: Vec<Product>,
    lines: Vec<Line>,
    total: i64,
    notice: Option<String>,
}

#[derive(Template)]
#[template(path = "order.html")]
struct OrderPage {
    id: String,
    name: String,
    cents: i64,
    lines: Vec<Line>,
}

async fn front(request: Request) -> Result<Response, Error> {
    let db = request.context().data_source("shop")?;
    // Who only looks needs no session.
    let (mut cart, mut notice) = (Cart::new(), None);
    if let Some(session) = request.session_if_exists().await? {
        cart = session.value(&CART)?.unwrap_or_default();
        notice = session.value(&NOTICE)?;
        session.remove(NOTICE.name())?;
    }
    let products = store::products(&db).await?;
    let lines = Line::of(&cart, &products);
    let total = lines.iter().map(|line| line.cents).sum();
    let page = Page { products, lines, total, notice }.render()?;
    Response::html(page).header("cache-control", "no-store")
}

#[derive(Deserialize)]
struct Put {
    product: i64,
    /// 0 takes it out.
    quantity: i64,
}

async fn cart(mut request: Request) -> Result<Response, Error> {
    let put: Put = request.form().await?;
    if !(0..=MOST).contains(&put.quantity) {
        return Err(Error::unprocessable(format!("0 to {MOST} of each product")));
    }
    let session = request.session().await?;
    let mut cart = session.value(&CART)?.unwrap_or_default();
    match put.quantity {
        0 => _ = cart.remove(&put.product),
        quantity => _ = cart.insert(put.product, quantity),
    }
    session.put(&CART, &cart)?;
    Response::see_other("./")
}

#[derive(Deserialize)]
struct Order {
    name: String,
}

async fn order(mut request: Request) -> Result<Response, Error> {
    let Order { name } = request.form().await?;
    let name = name.trim();
    if name.is_empty() || name.chars().count() > 80 {
        return Err(Error::unprocessable("a name of at most 80 characters, please"));
    }
    let session = request.session().await?;
    let cart = session.value(&CART)?.unwrap_or_default();
    if cart.is_empty() {
        return Err(Error::conflict("the cart is empty"));
    }
    let db = request.context().data_source("shop")?;
    let to = match store::buy(&db, name, &cart).await? {
        Bought::Order(id) => {
            session.remove(CART.name())?;
            format!("./order?id={id}")
        }
        Bought::SoldOut(product) => {
            session.put(&NOTICE, &format!("There is not so much left of: {product}"))?;
            "./".into()
        }
    };
    Response::see_other(&to)
}

async fn show(request: Request) -> Result<Response, Error> {
    // Whoever has the id, which cannot be guessed, may see the order.
    let id = request.parameter("id").unwrap_or_default();
    let db = request.context().data_source("shop")?;
    let (name, cents, lines) =
        store::order(&db, &id).await?.ok_or_else(|| Error::not_found("there is no such order"))?;
    let page = OrderPage { id, name, cents, lines }.render()?;
    Response::html(page).header("cache-control", "no-store")
}

fn app() -> App {
    App::new()
        .migrations(
            "shop",
            [
                Migration::new(1, "shop", include_str!("../migrations/1_shop.sql")),
                Migration::new(2, "goods", include_str!("../migrations/2_goods.sql")),
            ],
        )
        .servlet("front", "", get(front))
        .servlet("cart", "/cart", post(cart))
        .servlet("buy", "/buy", post(order))
        .servlet("order", "/order", get(show))
}

wharf_sdk::export!(app, resources = ["shop": "sql"]);
