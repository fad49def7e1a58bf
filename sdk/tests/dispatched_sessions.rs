//! Sessions of dispatched requests (Servlet 6.1, chapters 7 and 9): all see the session of the first.

use wharf_sdk::{App, Error, Request, Response, StatusCode, TestClient, any};

/// Begins the session, or goes on with it: the next number.
async fn next(request: &Request) -> Result<u32, Error> {
    let session = request.session().await?;
    let number = session.get::<u32>("n")?.unwrap_or_default() + 1;
    session.set("n", &number)?;
    Ok(number)
}

fn app() -> App {
    App::new()
        .servlet("count", "/count", any(|r: Request| async move { next(&r).await.map(|n| n.to_string()) }))
        .servlet(
            "forward",
            "/forward",
            any(|r: Request| async move {
                next(&r).await?;
                r.dispatcher("/count")?.forward(r).await
            }),
        )
        .servlet(
            "forward-only",
            "/forward-only",
            any(|r: Request| async move { r.dispatcher("/count")?.forward(r).await }),
        )
        .servlet(
            "include",
            "/include",
            any(|mut r: Request| async move {
                let part = r.dispatcher("/count")?.include(&mut r).await?.text().await?;
                Ok::<_, Error>(Response::text(format!("{part} {}", next(&r).await?)))
            }),
        )
        .servlet(
            "include-only",
            "/include-only",
            any(|mut r: Request| async move {
                let part = r.dispatcher("/count")?.include(&mut r).await?.text().await?;
                Ok::<_, Error>(Response::text(part))
            }),
        )
        .servlet(
            "fail",
            "/fail",
            any(|r: Request| async move {
                next(&r).await?;
                Err::<(), _>(Error::not_found("nothing"))
            }),
        )
        .servlet("fail-only", "/fail-only", any(|_| async { Err::<(), _>(Error::not_found("nothing")) }))
        .error_page(StatusCode::NOT_FOUND, "/count")
}

#[tokio::test]
async fn a_dispatched_request_has_the_session_of_the_first() {
    for (path, first, second) in [
        ("/forward", "2", "4"),
        ("/forward-only", "1", "2"),
        ("/include", "1 2", "3 4"),
        ("/include-only", "1", "2"),
        ("/fail", "2", "4"),
        ("/fail-only", "1", "2"),
    ] {
        let client = TestClient::new(app()).start().await.unwrap();
        let answer = client.get(path).send().await;
        assert!(answer.header("set-cookie").is_some(), "{path}: a session that began in it has its cookie");
        assert_eq!(answer.text().await, first, "{path}");
        let answer = client.get(path).send().await;
        assert_eq!(answer.header("set-cookie"), None, "{path}: one cookie is enough");
        assert_eq!(answer.text().await, second, "{path}");
    }
}
