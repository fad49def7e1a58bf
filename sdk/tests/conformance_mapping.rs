//! Conformance: mapping of requests to servlets, and its discovery (Servlet 6.1, chapter 12 and section 3.5), one row for
//! each rule and case.

use wharf_sdk::{App, Request, TestClient, any};

fn show() -> impl wharf_sdk::Servlet {
    any(|request: Request| async move {
        let mapping = request.mapping().expect("a mapping");
        format!(
            "{} {}|{}|{} {} {}",
            mapping.servlet_name(),
            request.servlet_path(),
            request.path_info().unwrap_or("NULL"),
            mapping.mapping_match(),
            if mapping.pattern().is_empty() { "''" } else { mapping.pattern() },
            mapping.match_value()
        )
    })
}

async fn hold(app: App, rows: &[(&str, &str, &str)]) {
    let client = TestClient::new(app).context_path("/ctx").start().await.unwrap();
    for (path, want, rule) in rows {
        let response = client.get(path).send().await;
        let status = response.status().as_u16();
        let text = response.text().await;
        let got = if status == 404 { "404" } else { text.trim_end() };
        assert_eq!(got, *want, "{rule}: {path}");
    }
}

/// The example set of section 12.2.2.
#[tokio::test]
async fn the_examples_of_section_12_2_2() {
    let app = App::new()
        .servlet("servlet1", "/foo/bar/*", show())
        .servlet("servlet2", "/baz/*", show())
        .servlet("servlet3", "/catalog", show())
        .servlet("servlet4", "*.bop", show())
        .servlet("default", "/", show());
    hold(
        app,
        &[
            ("/foo/bar/index.html", "servlet1 /foo/bar|/index.html|PATH /foo/bar/* index.html", "12.2.2"),
            (
                "/foo/bar/index.bop",
                "servlet1 /foo/bar|/index.bop|PATH /foo/bar/* index.bop",
                "12.2.2: a prefix before an extension",
            ),
            ("/baz", "servlet2 /baz|NULL|PATH /baz/*", "12.2.2: the prefix itself"),
            ("/baz/", "servlet2 /baz|/|PATH /baz/*", "12.2.2"),
            ("/baz/index.html", "servlet2 /baz|/index.html|PATH /baz/* index.html", "12.2.2"),
            ("/catalog", "servlet3 /catalog|NULL|EXACT /catalog catalog", "12.2.2: exact"),
            ("/catalog/index.html", "default /catalog/index.html|NULL|DEFAULT /", "12.2.2: the default servlet"),
            (
                "/catalog/racecar.bop",
                "servlet4 /catalog/racecar.bop|NULL|EXTENSION *.bop catalog/racecar",
                "12.2.2: by extension",
            ),
            ("/index.bop", "servlet4 /index.bop|NULL|EXTENSION *.bop index", "12.2.2: by extension, in the root"),
        ],
    )
    .await;
}

/// The examples of mapping discovery (section 12.3.1 and `HttpServletMapping`).
#[tokio::test]
async fn mapping_discovery() {
    let app =
        App::new().servlet("my", ["/MyServlet", "", "*.extension", "/path/*"], show()).servlet("default", "/", show());
    hold(
        app,
        &[
            ("/", "my |/|CONTEXT_ROOT ''", "12.3: the context root"),
            ("/index.html", "default /index.html|NULL|DEFAULT /", "12.3: default"),
            (
                "/MyServlet/index.html",
                "default /MyServlet/index.html|NULL|DEFAULT /",
                "12.3: default, below an exact pattern",
            ),
            ("/MyServlet", "my /MyServlet|NULL|EXACT /MyServlet MyServlet", "12.3: exact"),
            ("/foo.extension", "my /foo.extension|NULL|EXTENSION *.extension foo", "12.3: extension"),
            (
                "/bar/foo.extension",
                "my /bar/foo.extension|NULL|EXTENSION *.extension bar/foo",
                "12.3: extension, in a folder",
            ),
            ("/path/foo", "my /path|/foo|PATH /path/* foo", "12.3: path"),
            ("/path/foo/bar", "my /path|/foo/bar|PATH /path/* foo/bar", "12.3: path, deeper"),
            ("/path", "my /path|NULL|PATH /path/*", "12.3: path, the prefix itself"),
            ("/path/", "my /path|/|PATH /path/*", "12.3: path, its folder"),
        ],
    )
    .await;
}

/// The rules of section 12.1 in their order, and their edges.
#[tokio::test]
async fn the_rules_in_their_order() {
    let app = App::new()
        .servlet("exact", ["/a/b", "/a/b/c.x", "/case"], show())
        .servlet("long", "/a/b/*", show())
        .servlet("short", "/a/*", show())
        .servlet("ext", "*.x", show())
        .servlet("sp", "/a b/*", show())
        .servlet("utf", "/\u{e9}/*", show());
    hold(
        app,
        &[
            ("/a/b", "exact /a/b|NULL|EXACT /a/b a/b", "12.1.1: exact before the longest prefix"),
            ("/a/b/c.x", "exact /a/b/c.x|NULL|EXACT /a/b/c.x a/b/c.x", "12.1.1: exact before everything"),
            ("/a/b/", "long /a/b|/|PATH /a/b/*", "12.1.2: the longest prefix"),
            ("/a/b/c", "long /a/b|/c|PATH /a/b/* c", "12.1.2: the longest prefix"),
            ("/a/bc", "short /a|/bc|PATH /a/* bc", "12.1.2: on a boundary of segments"),
            ("/a", "short /a|NULL|PATH /a/*", "12.1.2: the prefix itself"),
            ("/a/q.x", "short /a|/q.x|PATH /a/* q.x", "12.1.2: a prefix before an extension"),
            ("/q.x", "ext /q.x|NULL|EXTENSION *.x q", "12.1.3: by extension"),
            ("/q.y.x", "ext /q.y.x|NULL|EXTENSION *.x q.y", "12.1.3: after the last dot"),
            ("/q.x.y", "404", "12.1.3: after the last dot"),
            ("/q.x/r", "404", "12.1.3: of the last segment"),
            ("/q.X", "404", "12.1: case counts"),
            ("/Case", "404", "12.1: case counts"),
            ("/case", "exact /case|NULL|EXACT /case case", "12.1: case counts"),
            ("/.x", "ext /.x|NULL|EXTENSION *.x", "12.1.3: an empty name before the dot"),
            ("/", "404", "12.1: no servlet"),
            ("/z", "404", "12.1: no servlet"),
            ("/a%20b/c", "sp /a b|/c|PATH /a b/* c", "12.1: patterns are compared with the decoded path"),
            ("/%C3%A9/c", "utf /\u{e9}|/c|PATH /\u{e9}/* c", "12.1: patterns are compared with the decoded path"),
            ("/a/b;v=1/c", "long /a/b|/c|PATH /a/b/* c", "3.5: path parameters do not count"),
            ("/a//b", "exact /a/b|NULL|EXACT /a/b a/b", "3.5.2: empty segments do not count"),
            ("/a/./b", "exact /a/b|NULL|EXACT /a/b a/b", "3.5.2: dot segments are resolved"),
            ("/a/c/../b", "exact /a/b|NULL|EXACT /a/b a/b", "3.5.2: dot segments are resolved"),
            ("/a/%62", "exact /a/b|NULL|EXACT /a/b a/b", "3.5: escapes of plain letters are the letters"),
        ],
    )
    .await;
}

/// `/*` takes everything, `""` the root alone, `/` what is left.
#[tokio::test]
async fn everything_root_and_default() {
    let all = || App::new().servlet("all", "/*", show());
    hold(
        all(),
        &[
            ("/", "all |/|PATH /*", "12.2: /* takes the root"),
            ("/a", "all |/a|PATH /* a", "3.5: its servlet path is empty"),
            ("/a/b.c", "all |/a/b.c|PATH /* a/b.c", "3.5: its servlet path is empty"),
        ],
    )
    .await;
    hold(
        all().servlet("root", "", show()).servlet("one", "/one", show()).servlet("default", "/", show()),
        &[
            ("/", "root |/|CONTEXT_ROOT ''", "12.2: the root before /*"),
            ("/one", "one /one|NULL|EXACT /one one", "12.1: exact before /*"),
            ("/two", "all |/two|PATH /* two", "12.1: /* before the default"),
        ],
    )
    .await;
    hold(
        App::new().servlet("default", "/", show()),
        &[
            ("/", "default /|NULL|DEFAULT /", "12.2: the default takes the root, too"),
            ("/a/b", "default /a/b|NULL|DEFAULT /", "3.5: its servlet path is the whole path, its path info null"),
        ],
    )
    .await;
}

/// Welcome files that are servlets (section 10.10).
#[tokio::test]
async fn welcome_files() {
    let app = || {
        App::new().servlet("html", "*.html", show()).servlet("start", "/docs/start", show()).servlet(
            "path",
            "/path/*",
            show(),
        )
    };
    hold(
        app().welcome_files(["index.html", "start"]),
        &[
            ("/", "html /index.html|NULL|EXTENSION *.html index", "10.10: the first that a servlet takes"),
            ("/docs/", "html /docs/index.html|NULL|EXTENSION *.html docs/index", "10.10: in a folder"),
            ("/docs", "404", "10.10: only what ends in a slash is a folder"),
            ("/path/", "path /path|/|PATH /path/*", "10.10: a path that has a servlet needs none"),
        ],
    )
    .await;
    hold(
        app().welcome_files(["start", "index.html"]),
        &[
            ("/docs/", "start /docs/start|NULL|EXACT /docs/start docs/start", "10.10: in the order of the list"),
            ("/", "html /index.html|NULL|EXTENSION *.html index", "10.10: the next where the first leads nowhere"),
        ],
    )
    .await;
    hold(app().welcome_files("nothing"), &[("/", "404", "10.10: none fits"), ("/docs/", "404", "10.10: none fits")])
        .await;
    hold(
        app().servlet("default", "/", show()).welcome_files("index.html"),
        &[
            ("/docs/", "html /docs/index.html|NULL|EXTENSION *.html docs/index", "10.10: before the default servlet"),
            ("/docs/x", "default /docs/x|NULL|DEFAULT /", "12.1: no folder"),
        ],
    )
    .await;
    hold(
        app().servlet("root", "", show()).welcome_files("index.html"),
        &[("/", "root |/|CONTEXT_ROOT ''", "12.2: a servlet for the root needs no welcome file")],
    )
    .await;
}
