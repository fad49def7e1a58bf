//! A list of things to do: an ordinary axum application. Only the last line knows of Wharf.
#![deny(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

/// More than this can't be kept.
const MOST: usize = 1_000;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Todo {
    /// Its number.
    pub id: u64,
    /// What to do.
    pub title: String,
    /// Whether it is done.
    pub done: bool,
}

#[derive(Default)]
struct List {
    next: u64,
    todos: BTreeMap<u64, Todo>,
}

type Shared = Arc<Mutex<List>>;

#[derive(Deserialize)]
struct New {
    title: String,
}

#[derive(Deserialize)]
struct Change {
    title: Option<String>,
    done: Option<bool>,
}

fn titled(title: &str) -> Result<String, (StatusCode, &'static str)> {
    match title.trim() {
        "" => Err((StatusCode::UNPROCESSABLE_ENTITY, "the title is empty")),
        title if title.chars().count() > 200 => {
            Err((StatusCode::UNPROCESSABLE_ENTITY, "the title is longer than 200 characters"))
        }
        title => Ok(title.to_owned()),
    }
}

async fn list(State(list): State<Shared>) -> Json<Vec<Todo>> {
    let list = list.lock().unwrap_or_else(PoisonError::into_inner);
    Json(list.todos.values().cloned().collect())
}

async fn create(State(list): State<Shared>, Json(new): Json<New>) -> Result<impl IntoResponse, impl IntoResponse> {
    let title = titled(&new.title)?;
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    if list.todos.len() >= MOST {
        return Err((StatusCode::CONFLICT, "the list is full: delete something first"));
    }
    list.next += 1;
    let todo = Todo { id: list.next, title, done: false };
    list.todos.insert(todo.id, todo.clone());
    Ok((StatusCode::CREATED, Json(todo)))
}

async fn show(State(list): State<Shared>, Path(id): Path<u64>) -> Result<Json<Todo>, StatusCode> {
    let list = list.lock().unwrap_or_else(PoisonError::into_inner);
    list.todos.get(&id).cloned().map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn change(
    State(list): State<Shared>,
    Path(id): Path<u64>,
    Json(change): Json<Change>,
) -> Result<Json<Todo>, (StatusCode, &'static str)> {
    let title = change.title.as_deref().map(titled).transpose()?;
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    let todo = list.todos.get_mut(&id).ok_or((StatusCode::NOT_FOUND, "there is no such todo"))?;
    todo.title = title.unwrap_or_else(|| todo.title.clone());
    todo.done = change.done.unwrap_or(todo.done);
    Ok(Json(todo.clone()))
}

async fn delete(State(list): State<Shared>, Path(id): Path<u64>) -> StatusCode {
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    if list.todos.remove(&id).is_some() { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

/// The application.
pub fn app() -> Router {
    Router::new()
        .route("/", get(|| async { Html(include_str!("page.html")) }))
        .route("/todos", get(list).post(create))
        .route("/todos/{id}", get(show).patch(change).delete(delete))
        .with_state(Shared::default())
}

wharf_sdk::export!(app);

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    async fn ask(app: &Router, method: &str, path: &str, content: Option<Value>) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let body = content.map_or_else(Body::empty, |content| Body::from(content.to_string()));
        let response = app.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    #[tokio::test]
    async fn todos_are_created_changed_and_deleted() {
        let app = app();
        let milk = json!({"id": 1, "title": "milk", "done": false});
        assert_eq!(ask(&app, "POST", "/todos", Some(json!({"title": " milk "}))).await, (201, milk.clone()));
        assert_eq!(ask(&app, "GET", "/todos", None).await, (200, json!([milk])));
        let done = json!({"id": 1, "title": "milk", "done": true});
        assert_eq!(ask(&app, "PATCH", "/todos/1", Some(json!({"done": true}))).await, (200, done.clone()));
        assert_eq!(ask(&app, "GET", "/todos/1", None).await, (200, done));
        assert_eq!(ask(&app, "DELETE", "/todos/1", None).await.0, 204);
        assert_eq!(ask(&app, "DELETE", "/todos/1", None).await.0, 404);
        assert_eq!(ask(&app, "POST", "/todos", Some(json!({"title": " "}))).await.0, 422);
    }

    #[tokio::test]
    async fn it_runs_mounted_under_a_context_path() {
        let client = wharf_sdk::TestClient::new(app()).context_path("/todo").start().await.unwrap();
        let created: Todo = client.post("/todos").json(&json!({"title": "bread"})).send().await.json().await;
        assert_eq!(client.get("/todos").send().await.json::<Vec<Todo>>().await, [created]);
        let page = client.get("/").send().await.text().await;
        assert!(!page.contains("=\"/") && !page.contains("fetch('/"), "links in the page must be relative");
    }
}
