//! What a user would write instead of an application with a data source: axum and sqlx, with sqlx's own pool as it comes.
#![forbid(unsafe_code)]

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use sqlx::{PgPool, SqlitePool};

#[derive(serde::Deserialize)]
struct Asked {
    id: i64,
}

type Answer = Result<String, StatusCode>;

fn answer(found: Result<Option<String>, sqlx::Error>) -> Answer {
    found.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?.ok_or(StatusCode::NOT_FOUND)
}

async fn postgres(State(pool): State<PgPool>, Query(asked): Query<Asked>) -> Answer {
    let found = sqlx::query_scalar("select name from product where id = $1").bind(asked.id);
    answer(found.fetch_optional(&pool).await)
}

async fn sqlite(State(pool): State<SqlitePool>, Query(asked): Query<Asked>) -> Answer {
    let found = sqlx::query_scalar("select name from product where id = ?").bind(asked.id);
    answer(found.fetch_optional(&pool).await)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("the URL of the database")?;
    let app = if url.starts_with("sqlite:") {
        Router::new().route("/db/select", get(sqlite)).with_state(SqlitePool::connect(&url).await?)
    } else {
        Router::new().route("/db/select", get(postgres)).with_state(PgPool::connect(&url).await?)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
