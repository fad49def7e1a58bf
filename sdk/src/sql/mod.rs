//! Databases: the container owns them and their connections, an application names them.
//!
//! The module says what it needs, the configuration says what that is:
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use wharf_sdk::sql::{Migration, SqlErrorKind};
//! use wharf_sdk::{App, Error, Request, get};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Product {
//!     id: i64,
//!     name: String,
//! }
//!
//! async fn list(request: Request) -> Result<String, Error> {
//!     let db = request.context().data_source("db")?;
//!     let cheap: Vec<Product> =
//!         db.query("select id, name from product where cents < ? order by name").bind(1000).fetch_all().await?;
//!     Ok(serde_json::to_string(&cheap)?)
//! }
//!
//! fn app() -> App {
//!     App::new()
//!         .migrations("db", [Migration::new(1, "products", "create table product (id integer primary key, name text, cents int)")])
//!         .servlet("list", "/list", get(list))
//! }
//!
//! wharf_sdk::export!(app, resources = ["db": "sql"]);
//! # fn main() {}
//! ```
//!
//! ```toml
//! # wharf.toml
//! [resource.db]
//! kind = "sql"
//! url = "sqlite:shop.db"      # or "postgres://shop@db.example.org/shop", "mysql://..."
//! ```
//!
//! A connection is taken for each statement and given back with its last row; a [`Transaction`] keeps one. Pools outlive
//! redeploys. `?` stands for a parameter with every engine (`??` is a question mark in PostgreSQL's operators).
//!
//! What a request leaves open when it ends is rolled back and reported in the log, with the place where it was begun.

mod data_source;
mod error;
mod migration;
mod query;
mod row;
mod transaction;
mod value;
mod value_de;

pub use data_source::{DataSource, Isolation};
pub(crate) use error::status_of;
pub use error::{SqlError, SqlErrorKind};
pub use migration::Migration;
pub(crate) use migration::Migrations;
pub use query::{Batch, Done, Query, RowStream};
pub use row::Row;
pub use transaction::{Savepoint, Transaction};
pub use value::{Bytes, Date, DateTime, Decimal, Json, Parameter, Time, Timestamp, ToSql, Uuid};
