//! Dispatches, error pages, clients that go away, and what a side-car file says of an application, in the real program.

use serde_json::Value;
use wharf_tests::{Site, library, wait};

fn module() -> Vec<u8> {
    library("dispatching")
}

#[test]
fn dispatches_and_error_pages() {
    let wharf = Site::new().with("deploy/shop.so", module()).start(&[]);
    let mut client = wharf.connect();
    let forward = client.get("/shop/forward;v=1?b=2").unwrap();
    assert_eq!(forward.text(), "FORWARD /shop/target/x from /shop/forward;v=1");
    assert_eq!(forward.header("x-mark"), None, "the filter is for requests from clients alone");
    assert_eq!(client.get("/shop/target/y").unwrap().header("x-mark"), Some("1"));
    let include = client.send("POST", "/shop/include", &[], b"content").unwrap();
    assert_eq!(include.text(), "[INCLUDE /shop/include from -] content", "the content is left to the includer");
    for (path, status, text) in [
        ("/shop/nothing", 404, "page /404 404"),
        ("/shop/loop", 500, ""),
        ("/shop/fails", 500, ""),
        ("/shop/panics", 500, ""),
        ("/shop/errors/404", 200, "page /404 0"),
    ] {
        let answer = client.get(path).unwrap();
        assert_eq!(answer.status, status, "{path}");
        if text.is_empty() {
            // The container's own page, as people and as programs want it.
            assert!(answer.text().starts_with("<!doctype html>"), "{path}: {answer:?}");
            let json = client.send("GET", path, &[("Accept", "application/json")], b"").unwrap();
            assert_eq!(json.header("content-type"), Some("application/problem+json"), "{path}");
        } else {
            assert_eq!(answer.text(), text, "{path}");
        }
    }
    assert_eq!(client.send("HEAD", "/shop/nothing", &[], b"").unwrap().status, 404);
    wharf.remove("deploy/shop.so");
    wait("the module to be gone", || (wharf.mapped().is_empty()).then_some(()));
}

/// A socket that is closed while its request is being answered: the application hears of it, and nothing is left.
#[test]
fn a_client_that_goes_away_cancels_its_request() {
    let wharf = Site::new().with("deploy/shop.so", module()).start(&[]);
    let counts = || wharf.get("/shop/gone").text();
    let descriptors = wharf.descriptors();
    for (path, waiting, want) in [
        ("/shop/wait", 3, "waiting 3 dropped 3 cancelled 3 heard 3"),
        // Its context's listener and the application's: two hear of each.
        ("/shop/wait-async", 6, "waiting 6 dropped 3 cancelled 6 heard 9"),
    ] {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let mut client = wharf.connect();
                client.write("GET", path, &[], b"").unwrap();
                client
            })
            .collect();
        wait("the requests to wait", || counts().starts_with(&format!("waiting {waiting} ")).then_some(()));
        drop(clients);
        wait(want, || (counts() == want).then_some(()));
    }
    // One that sent content, all of which has arrived.
    let mut client = wharf.connect();
    client.write("POST", "/shop/wait", &[], b"some content").unwrap();
    wait("the request to wait", || counts().starts_with("waiting 7 ").then_some(()));
    drop(client);
    wait("it to be cancelled", || (counts() == "waiting 7 dropped 4 cancelled 7 heard 10").then_some(()));
    wait("the descriptors to be back", || (wharf.descriptors() <= descriptors).then_some(()));
    // No lease is left: the generation goes.
    wharf.remove("deploy/shop.so");
    wait("the module to be gone", || (wharf.mapped().is_empty()).then_some(()));
}

#[test]
fn a_side_car_file_wins_over_the_builder() {
    let side_car = r#"
        display_name = "The shop"
        async_timeout = "50ms"
        filter_order = ["mark"]
        [servlets.target]
        add_patterns = ["/goal"]
        init = { size = 20, big = true }
        [servlets.loop]
        enabled = false
        [filters.mark]
        patterns = ["/*"]
        dispatch = ["request", "forward"]
        [[error_pages]]
        error = "Sold"
        path = "/errors/sold"
        [[error_pages]]
        path = "/errors/other"
    "#;
    let site = Site::new().with("deploy/shop.toml", side_car).with("deploy/shop.so", module());

    // What they make together, before anything runs.
    let shown = site.cli(&["check", "deploy/shop.so", "--load"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    for line in [
        "  side-car  deploy/shop.toml",
        "  display   The shop",
        "  servlet   target /target/* /goal async_timeout=0.05s big=\"true\" size=\"20\"  # file",
        "  servlet   forward /forward async_timeout=0.05s  # builder",
        "  filter    mark /* REQUEST,FORWARD  # file",
        "  error     404 -> /errors/404  # builder",
        "  error     Sold -> /errors/sold  # file",
        "  error     every other error -> /errors/other  # file",
    ] {
        assert!(shown.out.lines().any(|l| l == line), "no {line:?} in {}", shown.out);
    }
    assert!(!shown.out.contains("servlet   loop"), "{}", shown.out);
    let json = site.cli(&["check", "deploy/shop.so", "--load", "--json"]).json();
    let filter = &json["application"]["filters"][0];
    assert_eq!(
        (&filter["name"], &filter["dispatch"], &filter["origin"]),
        (&"mark".into(), &serde_json::json!(["REQUEST", "FORWARD"]), &"file".into()),
        "{json}"
    );
    let unloaded = site.cli(&["check", "deploy/shop.so"]);
    assert!(unloaded.out.contains("side-car  deploy/shop.toml"), "{unloaded:?}");

    let wharf = site.start(&[]);
    let mut client = wharf.connect();
    for (path, status, text) in [
        ("/shop/goal", 200, "REQUEST /shop/goal from -"),
        ("/shop/loop", 404, "page /404 404"),
        ("/shop/fails", 500, "page /sold 500"),
        ("/shop/panics", 500, "page /other 500"),
        ("/shop/slow", 500, "page /other 500"),
    ] {
        let answer = client.get(path).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (status, text), "{path}");
    }
    assert_eq!(client.get("/shop/goal").unwrap().header("x-mark"), Some("1"));

    // A change of the file alone is a new generation.
    wharf.put("deploy/shop.toml", "[servlets.target]\npatterns = [\"/end\"]\n");
    wharf.wait_for("/shop/end", "REQUEST /shop/end from -");
    assert_eq!(wharf.get("/shop/goal").status, 404);
    // One that names what is not there is refused; what served goes on.
    wharf.put("deploy/shop.toml", "[servlets.targte]\npatterns = [\"/end\"]\n");
    let error = wait("the refusal", || {
        let error = wharf.app("shop")["error"].clone();
        (!error.is_null()).then_some(error)
    });
    let said = error.to_string();
    for part in ["W0", "[servlets.targte]", "no servlet 'targte'", "did you mean 'target'?"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert_eq!(wharf.get("/shop/end").status, 200);
    let check = wharf.cli(&["check", "deploy/shop.so", "--load"]);
    assert!(check.code == 4 && check.err.contains("did you mean 'target'?"), "{check:?}");
    wharf.put("deploy/shop.toml", "[servlets.target]\npattern = []\n");
    let check = wharf.cli(&["check", "deploy/shop.so", "--load"]);
    assert!(check.code == 2 && check.err.contains("did you mean 'patterns'?"), "{check:?}");
}

#[test]
fn a_router_has_error_pages_where_a_side_car_asks_for_it() {
    let site = Site::new().with("deploy/todo.so", library("axum-todo"));
    site.put("deploy/todo.toml", "[[error_pages]]\nstatus = 404\npath = \"/\"\n");
    let wharf = site.start(&[]);
    let home = wharf.get("/todo/");
    let missing = wharf.get("/todo/no/such/page");
    assert_eq!((home.status, missing.status), (200, 404));
    assert_eq!(missing.text(), home.text(), "the router's own page");
}

#[test]
fn schemas_for_editors() {
    let site = Site::new();
    for (of, keys) in [
        ("app", &["servlets", "filters", "filter_order", "error_pages", "welcome_files", "context_path", "health"][..]),
        ("server", &["server", "deploy", "host", "access_log", "state_dir"]),
    ] {
        let schema = site.cli(&["schema", of]).json();
        assert_eq!(schema["additionalProperties"], Value::Bool(false), "{schema}");
        for key in keys {
            assert!(schema["properties"][key]["description"].is_string(), "{of}: {key} has no description");
        }
    }
    assert_eq!(site.cli(&["schema", "nothing"]).code, 2);
}
