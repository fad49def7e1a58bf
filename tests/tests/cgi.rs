//! CGI/1.1 through the whole program: what programs are told, which one answers, and what they may answer.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::io::{FdFlags, fcntl_setfd};
use wharf_tests::{CGI_ENV, CGI_TOML, Site, Wharf, cgi_app, cgi_program, cgi_variables, wait};

/// A container with the application `/app` and no further arguments.
fn app(options: &str, programs: &[(&str, &str)]) -> Wharf {
    cgi_app(options, programs, &[])
}

#[test]
fn a_program_is_told_of_its_request_and_of_nothing_else() {
    let show = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\necho args=$#\necho folder=$(pwd)\necho fds=$(ls /proc/self/fd)\nread -r pid name state parent group rest < /proc/$$/stat\n[ $group = $$ ] && echo group=own\n";
    // Something that is open in the container and that it knows nothing of.
    let leak = fs::File::open("/dev/null").unwrap();
    fcntl_setfd(&leak, FdFlags::empty()).unwrap();
    let wharf = app("env = { GREETING = \"ahoy\" }\n", &[("sub/env.cgi", CGI_ENV), ("show.cgi", show)]);
    let headers = [
        ("Host", "example.org"),
        ("Proxy", "http://evil/"),
        ("Content_Length", "7"),
        ("X_Forwarded_For", "forged"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("Authorization", "Basic eDp5"),
        ("Content-Type", "text/x"),
    ];
    let answer = wharf.send("POST", "/app/sub/env.cgi/a%20b/c?x=1&y=%20", &headers, b"12345");
    let all = cgi_variables(&answer);
    let root = fs::canonicalize(wharf.path("deploy/app")).unwrap();
    let root = root.to_str().unwrap();
    let file = format!("{root}/sub/env.cgi");
    let expected = [
        ("CONTENT_LENGTH", "5"),
        ("CONTENT_TYPE", "text/x"),
        ("DOCUMENT_ROOT", root),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("GREETING", "ahoy"),
        ("HTTP_HOST", "example.org"),
        ("HTTP_X_FORWARDED_FOR", "192.0.2.1"),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("PATH_INFO", "/a b/c"),
        ("PATH_TRANSLATED", &format!("{root}/a b/c")),
        ("QUERY_STRING", "x=1&y=%20"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_HOST", "127.0.0.1"),
        ("REQUEST_METHOD", "POST"),
        ("REQUEST_SCHEME", "http"),
        ("REQUEST_URI", "/app/sub/env.cgi/a%20b/c?x=1&y=%20"),
        ("SCRIPT_FILENAME", &file),
        ("SCRIPT_NAME", "/app/sub/env.cgi"),
        ("SERVER_ADDR", "127.0.0.1"),
        ("SERVER_NAME", "example.org"),
        ("SERVER_PORT", &wharf.addr().port().to_string()),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
    ];
    for (name, value) in expected {
        assert_eq!(all.get(name).map(String::as_str), Some(value), "{name}");
    }
    // Nothing else but what was not listed because it varies, and what the shell itself sets.
    let varying = ["REMOTE_PORT", "SERVER_SOFTWARE", "PWD", "OLDPWD", "SHLVL", "_"];
    for name in all.keys() {
        assert!(varying.contains(&name.as_str()) || expected.iter().any(|(n, _)| n == name), "{name}");
    }
    // No command line, neither from an indexed query nor from one that means something to a shell.
    for query in ["", "?-s", "?a+b;id", "?a+b", "?$(id)"] {
        let all = cgi_variables(&wharf.get(&format!("/app/show.cgi{query}")));
        assert_eq!(all["args"], "0", "{query}");
        assert_eq!(all["folder"], root);
        assert_eq!(all["fds"], "0 1 2 3", "3 is what ls reads");
        assert_eq!(all["group"], "own");
    }
    assert!(matches!(wharf.get("/app/show.cgi?%0a").status, 200 | 400));
    drop(leak);
}

#[test]
fn a_path_leads_to_the_program_that_exists_or_to_nothing() {
    let site = Site::new().with(
        "deploy/app/app.toml",
        format!(
            "{CGI_TOML}extensions = [\"cgi\"]\nstatic_files = true\nno_execute = [\"uploads\"]\nenv = {{ A = \"b\" }}\n"
        ),
    );
    for name in ["index.cgi", "a/index.cgi", "x.cgi", "uploads/x.cgi", ".x.cgi", ".git/x.cgi"] {
        cgi_program(&site, &format!("deploy/app/{name}"), CGI_ENV);
    }
    site.put("deploy/app/picture.jpg", "JPEG");
    site.put("deploy/app/not.cgi", CGI_ENV);
    cgi_program(&site, "deploy/app/open.cgi", CGI_ENV);
    fs::set_permissions(site.path("deploy/app/open.cgi"), fs::Permissions::from_mode(0o777)).unwrap();
    cgi_program(&site, "outside.cgi", CGI_ENV);
    std::os::unix::fs::symlink("../../outside.cgi", site.path("deploy/app/link.cgi")).unwrap();
    let wharf = site.start(&[]);
    for (path, status, what) in [
        ("/app/", 200, "SCRIPT_NAME=/app/index.cgi\n"),
        ("/app/a/", 200, "SCRIPT_NAME=/app/a/index.cgi\n"),
        ("/app/a", 302, ""),
        ("/app/x.cgi/y.cgi", 200, "PATH_INFO=/y.cgi\n"),
        ("/app/x.cgi/.git", 200, "PATH_INFO=/.git\n"),
        ("/app/picture.jpg", 200, "JPEG"),
        ("/app/picture.jpg/x.cgi", 404, ""),
        ("/app/none.cgi", 404, ""),
        ("/app/none/x.cgi", 404, ""),
        ("/app/.x.cgi", 404, ""),
        ("/app/.git/x.cgi", 404, ""),
        ("/app/app.toml", 404, ""),
        ("/app/link.cgi", 404, ""),
        ("/app/..%2f..%2foutside.cgi", 400, ""),
        ("/app/%2e%2e/%2e%2e/outside.cgi", 400, ""),
        ("/app/x.cgi%00.jpg", 400, ""),
        // Not to be executed: refused, never shown.
        ("/app/not.cgi", 403, ""),
        ("/app/open.cgi", 403, ""),
    ] {
        let answer = wharf.get(path);
        assert!(answer.status == status && answer.text().contains(what), "{path}: {answer:?}");
        assert!(!answer.text().contains("#!/bin/sh"), "{path} shows its source");
    }
    // What was uploaded is a file, and never runs.
    let upload = wharf.get("/app/uploads/x.cgi");
    assert_eq!((upload.status, upload.text()), (200, CGI_ENV.to_owned()));
    assert_eq!(wharf.get("/app/uploads/x.cgi/y").status, 404);
    assert_eq!(wharf.send("POST", "/app/picture.jpg", &[], b"").status, 405);
}

#[test]
fn a_response_is_read_strictly() {
    // What each says, through the shell's own printf.
    let rows: &[(&str, &str, u16)] = &[
        ("plain", "Content-Type: text/plain\\n\\nhello", 200),
        ("crlf", "Status: 404 No\\r\\nContent-Type: text/plain\\r\\n\\r\\nhello", 404),
        ("absolute", "Location: http://example.org/x\\n\\n", 302),
        ("moved", "Status: 301\\nLocation: /elsewhere\\n\\n", 301),
        ("empty", "", 502),
        ("nohead", "hello\\n", 502),
        ("noblank", "Content-Type: text/plain\\n", 502),
        ("nocolon", "hello\\n\\n", 502),
        ("notype", "X-A: b\\n\\nhello", 502),
        ("status99", "Status: 99\\nContent-Type: text/plain\\n\\n", 502),
        ("status199", "Status: 199\\nContent-Type: text/plain\\n\\n", 502),
        ("status1000", "Status: 1000\\nContent-Type: text/plain\\n\\n", 502),
        ("lengths", "Content-Type: a/b\\nContent-Length: 5\\nContent-Length: 6\\n\\nhello", 502),
        ("length", "Content-Type: a/b\\nContent-Length: -5\\n\\nhello", 502),
        ("nul", "Content-Type: a/b\\nX-A: \\0\\n\\nhello", 502),
        ("cr", "Content-Type: a/b\\rX: y\\n\\nhello", 502),
        ("folded", "Content-Type: a/b\\n b\\n\\nhello", 502),
        ("nph", "HTTP/1.1 200 OK\\nContent-Type: a/b\\n\\nhello", 502),
        ("relative", "Location: x/y\\n\\n", 502),
    ];
    let mut programs: Vec<(String, String)> =
        rows.iter().map(|(name, text, _)| (format!("{name}.cgi"), format!("#!/bin/sh\nprintf '{text}'\n"))).collect();
    let long = "#!/bin/sh\nprintf 'Content-Type: a/b\\n'\nwhile echo 'X-A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb'; do :; done\n";
    programs.push(("many.cgi".into(), long.into()));
    programs.push(("endless.cgi".into(), "#!/bin/sh\nexec cat /dev/zero\n".into()));
    programs.push(("status.cgi".into(), "#!/bin/sh\nexit 3\n".into()));
    programs.push(("interpreter.cgi".into(), "#!/no/such/thing\n".into()));
    let programs: Vec<(&str, &str)> = programs.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
    let wharf = app("", &programs);
    let extra = [("many", "", 502), ("endless", "", 502), ("status", "", 502), ("interpreter", "", 500)];
    for (name, _, status) in rows.iter().copied().chain(extra) {
        let answer = wharf.get(&format!("/app/{name}.cgi"));
        assert_eq!(answer.status, status, "{name}: {answer:?}");
    }
    assert_eq!(wharf.get("/app/plain.cgi").text(), "hello");
    assert_eq!(wharf.get("/app/absolute.cgi").header("location"), Some("http://example.org/x"));
    assert_eq!(wharf.get("/app/moved.cgi").header("location"), Some("/elsewhere"));
    let log = wharf.log();
    assert!(log.contains("/status.cgi: it ended without an answer (exit status: 3)"), "{log}");
    assert!(log.contains("/interpreter.cgi: it can't be started"), "{log}");
    wharf.wait_childless();
}

#[test]
fn head_gets_no_content_and_lengths_are_kept() {
    let sized = "#!/bin/sh\nprintf 'Content-Type: text/plain\\nContent-Length: 5\\n\\nhello'\necho \"$REQUEST_METHOD\" > \"$DOCUMENT_ROOT/method\"\n";
    let short = "#!/bin/sh\nprintf 'Content-Type: text/plain\\nContent-Length: 50\\n\\nhello'\n";
    let long = "#!/bin/sh\nprintf 'Content-Type: text/plain\\nContent-Length: 2\\n\\nhello'\n";
    let none = "#!/bin/sh\nprintf 'Status: 204 No Content\\n\\nhello'\n";
    let wharf = app("", &[("sized.cgi", sized), ("short.cgi", short), ("long.cgi", long), ("none.cgi", none)]);
    let mut client = wharf.connect();
    let head = client.send("HEAD", "/app/sized.cgi", &[], b"").unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    wait("the method", || fs::read_to_string(wharf.path("deploy/app/method")).ok().filter(|m| m == "HEAD\n"));
    assert_eq!(client.get("/app/sized.cgi").unwrap().text(), "hello");
    assert_eq!(client.get("/app/none.cgi").unwrap().status, 204);
    assert!(client.get("/app/short.cgi").is_err(), "it is 45 bytes short");
    let mut client = wharf.connect();
    client.write("GET", "/app/long.cgi", &[], b"").unwrap();
    if let Ok(answer) = client.read("GET") {
        assert_eq!(answer.text(), "he");
        // What was too much is not the next response.
        assert!(
            client.get("/app/sized.cgi").is_ok_and(|a| a.text() == "hello")
                || wharf.get("/app/sized.cgi").status == 200
        );
    }
}

#[test]
fn redirects_within_the_application_are_followed_by_the_container() {
    let to = |path: &str| format!("#!/bin/sh\nprintf 'Location: {path}\\n\\n'\n");
    let wharf = app(
        "",
        &[
            ("env.cgi", CGI_ENV),
            ("to.cgi", &to("/app/env.cgi/p?a=b")),
            ("loop.cgi", &to("/app/loop.cgi")),
            ("other.cgi", &to("/other/x?y")),
            ("host.cgi", &to("//evil.example/x")),
            ("bad.cgi", &to("/app/%%2e%%2e/%%2e%%2e/x")),
            ("missing.cgi", &to("/app/none.cgi")),
        ],
    );
    let all = cgi_variables(&wharf.send("POST", "/app/to.cgi?q", &[("Content-Type", "text/plain")], b"hello"));
    for (name, value) in
        [("REQUEST_METHOD", "GET"), ("PATH_INFO", "/p"), ("QUERY_STRING", "a=b"), ("SCRIPT_NAME", "/app/env.cgi")]
    {
        assert_eq!(all[name], value, "{name}");
    }
    assert!(!all.contains_key("CONTENT_LENGTH") && !all.contains_key("CONTENT_TYPE"));
    assert_eq!(wharf.get("/app/loop.cgi").status, 502);
    assert!(wharf.log().contains("more than 10 local redirects"));
    // What is not of this application the client asks for itself.
    let other = wharf.get("/app/other.cgi");
    assert_eq!((other.status, other.header("location")), (302, Some("/other/x?y")));
    let host = wharf.get("/app/host.cgi");
    assert_eq!((host.status, host.header("location")), (302, Some("/evil.example/x")));
    assert_eq!(wharf.get("/app/bad.cgi").status, 502);
    assert_eq!(wharf.get("/app/missing.cgi").status, 404);
    wharf.wait_childless();
}

#[test]
fn files_are_sent_on_order_from_the_folders_named_and_no_others() {
    let site = Site::new();
    fs::create_dir(site.path("files")).unwrap();
    site.put("files/a b.txt", "0123456789");
    site.put("secret.txt", "secret");
    std::os::unix::fs::symlink("../secret.txt", site.path("files/link.txt")).unwrap();
    let files = fs::canonicalize(site.path("files")).unwrap();
    let files = files.to_str().unwrap();
    site.put(
        "deploy/app/app.toml",
        format!("{CGI_TOML}sendfile_roots = [\"{files}\"]\naccel_redirects = {{ \"/protected/\" = \"{files}\" }}\n"),
    );
    site.put("deploy/none/app.toml", CGI_TOML);
    let order = |name: &str, path: &str| {
        format!(
            "#!/bin/sh\nprintf 'Content-Type: text/x\\nContent-Disposition: attachment\\n{name}: {path}\\n\\nnot this'\n"
        )
    };
    for (program_name, text) in [
        ("send", order("X-Sendfile", &format!("{files}/a b.txt"))),
        ("accel", order("X-Accel-Redirect", "/protected/a%%20b.txt")),
        ("out", order("X-Sendfile", &format!("{files}/../secret.txt"))),
        ("etc", order("X-Sendfile", "/etc/passwd")),
        ("link", order("X-Sendfile", &format!("{files}/link.txt"))),
        ("accelout", order("X-Accel-Redirect", "/protected/../../secret.txt")),
        ("accelno", order("X-Accel-Redirect", "/other/a%%20b.txt")),
        ("gone", order("X-Sendfile", &format!("{files}/none.txt"))),
    ] {
        cgi_program(&site, &format!("deploy/app/{program_name}.cgi"), &text);
        cgi_program(&site, &format!("deploy/none/{program_name}.cgi"), &text);
    }
    let wharf = site.start(&[]);
    for name in ["send", "accel"] {
        let answer = wharf.get(&format!("/app/{name}.cgi"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "0123456789"), "{name}");
        assert_eq!(answer.header("content-type"), Some("text/x"));
        assert_eq!(answer.header("content-disposition"), Some("attachment"));
        assert!(answer.header("x-sendfile").is_none() && answer.header("x-accel-redirect").is_none());
        let part = wharf.send("GET", &format!("/app/{name}.cgi"), &[("Range", "bytes=2-4")], b"");
        assert_eq!((part.status, part.text().as_str()), (206, "234"), "{name}");
        assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
        let modified = answer.header("last-modified").unwrap().to_owned();
        let again = wharf.send("GET", &format!("/app/{name}.cgi"), &[("If-Modified-Since", &modified)], b"");
        assert_eq!(again.status, 304, "{name}");
        assert_eq!(wharf.send("POST", &format!("/app/{name}.cgi"), &[], b"x").text(), "0123456789");
        // Without a folder that is named there is no such order.
        assert_eq!(wharf.get(&format!("/none/{name}.cgi")).status, 502, "{name}");
    }
    for (name, status) in
        [("out", 502), ("etc", 502), ("link", 404), ("accelout", 502), ("accelno", 502), ("gone", 404)]
    {
        let answer = wharf.get(&format!("/app/{name}.cgi"));
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        assert!(!answer.text().contains("secret") && !answer.text().contains("root:"), "{name}");
    }
    wharf.wait_childless();
}

#[test]
fn authorization_is_passed_only_where_that_is_asked_for() {
    let wharf = app("pass_authorization = true\n", &[("env.cgi", CGI_ENV)]);
    let headers = [("Authorization", "Basic YW5uOnNlY3JldA=="), ("Proxy-Authorization", "Basic eDp5")];
    let all = cgi_variables(&wharf.send("GET", "/app/env.cgi", &headers, b""));
    assert_eq!(all["HTTP_AUTHORIZATION"], "Basic YW5uOnNlY3JldA==");
    assert!(!all.contains_key("HTTP_PROXY_AUTHORIZATION") && !all.contains_key("REMOTE_USER"));
}

#[test]
fn options_that_do_not_fit_are_refused_with_their_key() {
    let site = Site::new().with("deploy/good/app.toml", CGI_TOML);
    cgi_program(&site, "deploy/good/env.cgi", CGI_ENV);
    let rows = [
        ("key", "maxprocesses = 3", "did you mean 'max_processes'"),
        ("time", "idle_timeout = \"soon\"", "app.toml:3:16"),
        ("static", "static_files = true", "static_files needs extensions"),
        ("program", "program = \"none.cgi\"", "there is no such file"),
        ("roots", "sendfile_roots = [\"/no/such\"]", "/no/such is not a folder"),
    ];
    for (name, options, _) in rows {
        site.put(&format!("deploy/{name}/app.toml"), format!("{CGI_TOML}{options}\n"));
    }
    let wharf = site.start(&[]);
    assert_eq!(wharf.get("/good/env.cgi").status, 200);
    for (name, _, word) in rows {
        let error = wharf.app(name)["error"].to_string();
        assert!(error.contains(word), "{name}: {error}");
    }
}
