//! Content on the real program: uploads with their temporary files, trailers both ways, and files that a module carries.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use wharf_tests::{Site, Wharf, chameleon, wait};

fn start(arguments: &[&str]) -> Wharf {
    Site::new().with("deploy/shop.so", chameleon("one")).start(arguments)
}

fn part(disposition: &str, content: &str) -> String {
    format!("--XX\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n")
}

const TYPE: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=XX");

/// Names below a folder that are those of applications' temporary folders.
fn temporary(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("wharf-app-")).collect()
}

#[test]
fn uploads_are_read_within_their_limits() {
    let wharf = start(&["--set", "server.limits.body=3145728"]);
    let upload = |content: &str| {
        let answer = wharf.send("POST", "/shop/upload", &[TYPE], format!("{content}--XX--\r\n").as_bytes());
        (answer.status, answer.text())
    };
    let long = "x".repeat(5000);
    let both = part("name=a", "1") + &part("name=f; filename=\"../../me.txt\"", &long);
    assert_eq!(upload(&both), (200, "a '' 1 true\nf 'me.txt' 5000 false".into()));
    // Servlet 6.1, section 3.2: limits; what is too much is a 413, what is malformed a 400.
    let rows = [
        ("51 parts", part("name=a", "1").repeat(51), 413),
        ("a long head", part(&format!("name={}", "n".repeat(2000)), "1"), 413),
        ("a large part", part("name=a", &"x".repeat((1 << 20) + 1)), 413),
        ("beyond the server's limit", part("name=a", &"x".repeat(24 << 20)), 413),
        ("no name", part("filename=x", "1"), 400),
    ];
    for (rule, content, status) in rows {
        assert_eq!(upload(&content).0, status, "{rule}");
    }
    let plain = wharf.send("POST", "/shop/upload", &[("Content-Type", "text/plain")], b"1");
    assert_eq!(plain.status, 415);
    // A client that goes away in the middle leaves nothing, and nobody else notices.
    let mut client = wharf.connect();
    let head = "POST /shop/upload HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=XX\r\nContent-Length: 90000\r\n\r\n";
    client.write_raw(format!("{head}{}", part("name=f; filename=x", &long)).as_bytes()).unwrap();
    drop(client);
    assert_eq!(upload(&both).0, 200);
}

#[test]
fn temporary_files_go_with_the_application_or_with_the_next_start() {
    for signal in [Signal::TERM, Signal::KILL] {
        let kept = tempfile::tempdir().unwrap();
        let state = format!("state_dir={}", kept.path().display());
        let mut wharf = start(&["--set", &state]);
        let content = part("name=f; filename=x", &"x".repeat(5000)) + "--XX--\r\n";
        let answer = wharf.send("POST", "/shop/upload?keep", &[TYPE], content.as_bytes()).text();
        let file = Path::new(answer.lines().last().unwrap());
        assert_eq!(fs::read(file).unwrap().len(), 5000, "{answer}");
        let folder = file.parent().unwrap().parent().unwrap();
        assert!(folder.starts_with(kept.path().canonicalize().unwrap()), "{answer}");
        wharf.signal(signal);
        wharf.wait_end();
        let left = temporary(folder).len();
        assert_eq!(left, if signal == Signal::KILL { 1 } else { 0 }, "{signal:?}");
        let _again = start(&["--set", &state]);
        assert_eq!(temporary(folder), Vec::<String>::new(), "{signal:?}: after the next start");
    }
}

/// RFC 9110, section 6.5; RFC 9112, section 7.1.2.
#[test]
fn slow_content_is_read_on_a_thread_of_the_application() {
    let wharf = start(&["--set", "server.limits.body_idle_timeout=1s"]);
    let mut client = wharf.connect();
    client.write_raw(b"POST /shop/elsewhere HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc").unwrap();
    wait("the request", || (wharf.app("shop")["load"]["in_flight"] == 1).then_some(()));
    client.write_raw(b"def").unwrap();
    assert_eq!(client.read("POST").unwrap().text(), "abcdef");
    // And it is waited for no longer than anywhere else.
    client.write_raw(b"POST /shop/elsewhere HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc").unwrap();
    assert_eq!(client.read("POST").unwrap().status, 408);
}

#[test]
fn trailers_arrive_both_ways() {
    let wharf = start(&[]);
    let request = |te: &str| {
        let mut client = wharf.connect();
        let head = format!(
            "POST /shop/trailers HTTP/1.1\r\nHost: a\r\n{te}Transfer-Encoding: chunked\r\nTrailer: x-sum\r\nConnection: close\r\n\r\n"
        );
        client.write_raw(format!("{head}3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n").as_bytes()).unwrap();
        String::from_utf8(client.rest().unwrap()).unwrap().to_ascii_lowercase()
    };
    let answer = request("TE: trailers\r\n");
    assert!(answer.contains("\r\ntrailer: x-answer\r\n") && answer.contains("abc false 7"), "{answer}");
    assert!(answer.ends_with("\r\n0\r\nx-answer: 42\r\n\r\n"), "{answer}");
    // Who does not ask for trailers gets none.
    let answer = request("");
    assert!(answer.contains("abc false 7") && answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
}

#[test]
fn files_that_the_module_carries_are_served() {
    let wharf = start(&[]);
    let rows = [
        ("/shop/files/", "", 200, "<p>inside"),
        ("/shop/files", "", 302, ""),
        ("/shop/files/digits.txt", "", 200, "0123456789"),
        ("/shop/files/digits.txt", "bytes=-3", 206, "789"),
        ("/shop/files/.env", "", 404, ""),
        ("/shop/files/none", "", 404, ""),
        ("/shop/files/%2e%2e/digits.txt", "", 400, ""),
    ];
    for (path, range, status, text) in rows {
        let headers = [("Range", range)];
        let answer = wharf.send("GET", path, if range.is_empty() { &[] } else { &headers }, b"");
        assert_eq!(answer.status, status, "{path} {range}");
        if status < 300 {
            assert_eq!(answer.text(), text, "{path} {range}");
        }
    }
}
