//! No path that an application names leads a dispatcher out of the context, or makes it panic.

use proptest::prelude::*;
use wharf_sdk::{App, Request, TestClient};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_path_is_refused_or_canonical(
        path in prop_oneof![
            any::<String>(),
            "[a.%2ef5c;/?# \\\\\u{e9}]{0,24}",
            "(/|\\.|\\.\\.|%2e|%2E|;a=b|a|%2f|//){0,12}",
        ],
        base in "/(a|b/c|b/c/)?",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let wanted = path.clone();
            let forward = wharf_sdk::any(move |request: Request| {
                let path = wanted.clone();
                async move {
                    match request.dispatcher(&path) {
                        Err(_) => Ok(wharf_sdk::Response::text("refused")),
                        Ok(dispatcher) => dispatcher.forward(request).await,
                    }
                }
            });
            let show = wharf_sdk::any(|request: Request| async move { request.path().into_owned() });
            let app = App::new().servlet("from", "/from/*", forward).servlet("show", "/*", show);
            let client = TestClient::new(app).context_path("/ctx").start().await.unwrap();
            let response = client.get(&format!("/from{base}")).send().await;
            let status = response.status().as_u16();
            let text = response.text().await;
            // A path back to where it came from is a loop, which ends with a 500.
            prop_assert!(status == 200 || status == 500, "{status}");
            if status == 200 && text != "refused" {
                prop_assert!(text.starts_with('/'), "{text:?}");
                prop_assert!(!text.contains(|c: char| c.is_control() || c == '\\'), "{text:?}");
                let inner = text.strip_suffix('/').unwrap_or(&text);
                let segments: Vec<&str> = inner.split('/').skip(1).collect();
                prop_assert!(segments.iter().all(|s| !matches!(*s, "" | "." | "..")), "{text:?}");
            }
            Ok(())
        })?;
    }
}
