//! A chat: each page holds a WebSocket, and what one says all see. A redeploy closes the sockets with 1001, and the pages
//! come back to the new version.
#![deny(unsafe_code)]

mod room;

use wharf_sdk::{App, BoxError, Message, Request, Response, WebSocket, get, websocket};

use crate::room::Room;

/// Longer names and messages are cut.
const MAX_NAME: usize = 30;
const MAX_TEXT: usize = 1000;

/// The text without spaces around it, cut; `None` when nothing is left.
fn tidy(text: &str, max: usize) -> Option<String> {
    let text: String = text.trim().chars().filter(|c| !c.is_control()).take(max).collect();
    Some(text).filter(|text| !text.is_empty())
}

async fn talk(mut socket: WebSocket, request: Request) -> Result<(), BoxError> {
    let room = request.context().attribute::<Room>().ok_or("there is no room")?;
    let Some(name) = request.parameter("name").and_then(|name| tidy(&name, MAX_NAME)) else {
        socket.close(4000, "a name is needed: /talk?name=Ada").await;
        return Ok(());
    };
    let guest = room.enter(name, socket.sender());
    while let Some(message) = socket.recv().await {
        if let Message::Text(text) = message
            && let Some(text) = tidy(&text, MAX_TEXT)
        {
            guest.say(&text);
        }
    }
    Ok(())
}

/// The application.
pub fn app() -> App {
    App::new()
        .attribute(Room::default())
        .servlet("page", "", get(|_| async { Response::html(include_str!("page.html")) }))
        .servlet("talk", "/talk", websocket(talk).max_message(16 * 1024))
}

wharf_sdk::export!(app);

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_sdk::{TestClient, TestSocket};

    async fn next(socket: &mut TestSocket) -> String {
        socket.recv().await.unwrap().as_text().unwrap().to_owned()
    }

    #[tokio::test]
    async fn what_one_says_all_see_and_who_comes_later_sees_it_too() {
        let client = TestClient::new(app()).start().await.unwrap();
        let mut ada = client.get("/talk?name=%20Ada%20").websocket().await.unwrap();
        assert_eq!(next(&mut ada).await, r#"{"kind":"here","names":[]}"#);
        assert_eq!(next(&mut ada).await, "[]");
        assert_eq!(next(&mut ada).await, r#"{"kind":"joined","name":"Ada"}"#);
        ada.send("<b>\"hi\"</b>\n").await.unwrap();
        let said = r#"{"kind":"said","name":"Ada","text":"<b>\"hi\"</b>"}"#;
        assert_eq!(next(&mut ada).await, said);
        let mut bob = client.get("/talk?name=Bob").websocket().await.unwrap();
        assert_eq!(next(&mut bob).await, r#"{"kind":"here","names":["Ada"]}"#);
        assert_eq!(next(&mut bob).await, format!("[{said}]"));
        assert_eq!(next(&mut ada).await, r#"{"kind":"joined","name":"Bob"}"#);
        bob.send("   ").await.unwrap();
        bob.close(1000, "").await.unwrap();
        assert_eq!(next(&mut ada).await, r#"{"kind":"left","name":"Bob"}"#);
    }

    #[tokio::test]
    async fn nobody_comes_in_without_a_name_or_from_another_page() {
        let client = TestClient::new(app()).start().await.unwrap();
        let mut nameless = client.get("/talk?name=%20").websocket().await.unwrap();
        assert!(nameless.recv().await.is_none());
        assert_eq!(nameless.close_reason().unwrap().code, 4000);
        let other = client.get("/talk?name=Eve").header("origin", "http://evil.example").websocket().await;
        assert_eq!(other.unwrap_err().status(), 403);
    }
}
