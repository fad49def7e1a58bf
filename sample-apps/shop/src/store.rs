//! The shop's statements.

use std::collections::BTreeMap;

use serde::Deserialize;
use wharf_sdk::sql::{DataSource, Isolation, SqlError, SqlErrorKind, Transaction};

/// So often an order is tried when another one is in its way.
const ATTEMPTS: u32 = 20;

#[derive(Debug, Deserialize)]
pub(crate) struct Product {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) cents: i64,
    pub(crate) stock: i64,
}

/// A line of a cart or of an order.
#[derive(Debug, Deserialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) quantity: i64,
    /// Of all of them.
    pub(crate) cents: i64,
}

impl Line {
    /// What is in the cart. Products that are there no more are left out.
    pub(crate) fn of(cart: &BTreeMap<i64, i64>, products: &[Product]) -> Vec<Self> {
        let in_cart = products.iter().filter_map(|p| Some((p, *cart.get(&p.id)?)));
        in_cart.map(|(p, quantity)| Self { name: p.name.clone(), quantity, cents: p.cents * quantity }).collect()
    }
}

pub(crate) async fn products(db: &DataSource) -> Result<Vec<Product>, SqlError> {
    db.query("select id, name, cents, stock from product order by name").fetch_all().await
}

/// What became of an order.
pub(crate) enum Bought {
    /// It is made, and has this id.
    Order(String),
    /// There is not so much left of this.
    SoldOut(String),
}

/// Makes an order of a cart, wholly or not at all.
pub(crate) async fn buy(db: &DataSource, name: &str, cart: &BTreeMap<i64, i64>) -> Result<Bought, SqlError> {
    let mut attempt = 1;
    loop {
        let tx = db.begin_with(Isolation::Serializable).await?;
        let done = match book(&tx, name, cart).await {
            Ok(bought @ Bought::Order(_)) => tx.commit().await.map(|()| bought),
            Ok(sold_out) => tx.rollback().await.map(|()| sold_out),
            Err(error) => tx.rollback().await.and(Err(error)),
        };
        match done {
            Err(error) if error.kind() == SqlErrorKind::SerializationFailure && attempt < ATTEMPTS => attempt += 1,
            done => return done,
        }
    }
}

async fn book(tx: &Transaction, name: &str, cart: &BTreeMap<i64, i64>) -> Result<Bought, SqlError> {
    let id = random_id();
    tx.query("insert into orders (id, name, cents) values (?, ?, 0)").bind(&id).bind(name).execute().await?;
    let mut total = 0;
    // By their ids, as a map is: two orders that want the same do not lock each other out.
    for (product, quantity) in cart {
        let changed = tx
            .query("update product set stock = stock - ? where id = ? and stock >= ?")
            .bind(*quantity)
            .bind(*product)
            .bind(*quantity)
            .execute()
            .await?;
        let (name, cents): (String, i64) =
            tx.query("select name, cents from product where id = ?").bind(*product).fetch_one().await?;
        if changed.rows_affected == 0 {
            return Ok(Bought::SoldOut(name));
        }
        total += cents * quantity;
        tx.query("insert into order_line (order_id, product_id, quantity, cents) values (?, ?, ?, ?)")
            .bind(&id)
            .bind(*product)
            .bind(*quantity)
            .bind(cents * quantity)
            .execute()
            .await?;
    }
    tx.query("update orders set cents = ? where id = ?").bind(total).bind(&id).execute().await?;
    Ok(Bought::Order(id))
}

/// Name, sum and lines of an order.
pub(crate) async fn order(db: &DataSource, id: &str) -> Result<Option<(String, i64, Vec<Line>)>, SqlError> {
    let Some((name, cents)) = db.query("select name, cents from orders where id = ?").bind(id).fetch_optional().await?
    else {
        return Ok(None);
    };
    let lines = db
        .query(
            "select p.name, l.quantity, l.cents from order_line l join product p on p.id = l.product_id \
             where l.order_id = ? order by p.name",
        )
        .bind(id)
        .fetch_all()
        .await?;
    Ok(Some((name, cents, lines)))
}

/// 128 bits of the system's.
fn random_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    wharf_sdk::sql::Uuid(bytes).to_string()
}
