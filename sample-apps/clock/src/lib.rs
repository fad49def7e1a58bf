//! A clock: the page listens to server-sent events, one each second.
#![deny(unsafe_code)]

use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use tokio_stream::wrappers::IntervalStream;
use wharf_sdk::{App, Body, BoxError, Error, Request, Response, get};

/// A stream ends after so many events and the browser connects again, so that none holds on to a retired version of the
/// application for long.
const EVENTS: usize = 60;

/// Time of day in UTC, `23:59:59`.
fn time_of_day(now: SystemTime) -> String {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()) % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

async fn events(request: Request) -> Result<Response, Error> {
    // A redeploy need not wait for it: the browser connects again, to the new version.
    let context = request.context().clone();
    let over = Box::pin(async move { context.draining().await });
    let ticks = IntervalStream::new(tokio::time::interval(Duration::from_secs(1)));
    let events = ticks.take(EVENTS).take_until(over).map(|_| {
        let event = format!("event: tick\nretry: 1000\ndata: {}\n\n", time_of_day(SystemTime::now()));
        Ok::<_, BoxError>(event)
    });
    Response::typed("text/event-stream", Body::from_stream(events)).header("cache-control", "no-store")
}

/// The application.
pub fn app() -> App {
    App::new().servlet("page", "", get(|_| async { Response::html(include_str!("page.html")) })).servlet(
        "events",
        "/events",
        get(events),
    )
}

wharf_sdk::export!(app);

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_sdk::TestClient;

    #[test]
    fn the_time_of_day_is_in_utc() {
        let at = |seconds| time_of_day(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "00:00:00");
        assert_eq!(at(86_400 * 365 + 86_399), "23:59:59");
        assert_eq!(at(3_661), "01:01:01");
    }

    // Time stands still in this test and moves on when nothing else is left to do.
    #[tokio::test(start_paused = true)]
    async fn events_arrive_each_second_and_end() {
        let client = TestClient::new(app()).start().await.unwrap();
        let mut response = client.get("/events").send().await;
        assert_eq!(response.header("content-type"), Some("text/event-stream"));
        let begin = tokio::time::Instant::now();
        let mut count = 0;
        while let Some(event) = response.chunk().await {
            let text = std::str::from_utf8(&event).unwrap();
            assert!(text.starts_with("event: tick\n") && text.ends_with("\n\n"), "{text:?}");
            count += 1;
        }
        assert_eq!((count, begin.elapsed().as_secs()), (EVENTS, EVENTS as u64 - 1));
    }

    #[tokio::test(start_paused = true)]
    async fn events_end_at_once_when_the_application_has_to() {
        let client = TestClient::new(app()).start().await.unwrap();
        let mut response = client.get("/events").send().await;
        assert!(response.chunk().await.is_some());
        let begin = tokio::time::Instant::now();
        client.context().begin_draining();
        assert!(response.chunk().await.is_none());
        assert_eq!(begin.elapsed().as_millis(), 0);
    }
}
