//! A deploy folder that follows an object store: a local folder, and a server that speaks S3's protocol.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use wharf_tests::{Site, Wharf, chameleon, wait, workspace};

/// Objects by their keys, each with the number of its change.
type Objects = Arc<Mutex<BTreeMap<String, (Vec<u8>, u64)>>>;

/// As much of S3 as is needed: ListObjectsV2 and GetObject of the bucket `releases`.
#[derive(Clone, Default)]
struct Bucket {
    objects: Objects,
    /// Whether it answers 503 to everything.
    ill: Arc<Mutex<bool>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Bucket {
    fn start(&self) -> SocketAddr {
        self.start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn start_at(&self, addr: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let this = self.clone();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let this = this.clone();
                thread::spawn(move || this.serve(connection));
            }
        });
        addr
    }

    fn put(&self, key: &str, bytes: Vec<u8>) {
        let mut objects = self.objects.lock().unwrap();
        let change = objects.get(key).map_or(0, |(_, n)| n + 1);
        objects.insert(key.to_owned(), (bytes, change));
    }

    fn serve(&self, mut connection: TcpStream) {
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let mut head = line.clone();
            loop {
                let mut field = String::new();
                reader.read_line(&mut field).unwrap();
                if field.trim_end().is_empty() {
                    break;
                }
                head.push_str(&field);
            }
            self.asked.lock().unwrap().push(head);
            let target = line.split(' ').nth(1).unwrap();
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let (status, headers, body) = if *self.ill.lock().unwrap() {
                ("403 Forbidden", String::new(), b"<Error><Code>AccessDenied</Code></Error>".to_vec())
            } else if query.contains("list-type=2") {
                ("200 OK", "Content-Type: application/xml\r\n".to_owned(), self.list().into_bytes())
            } else {
                let key = path.trim_start_matches("/releases/").replace("%23", "#");
                match self.objects.lock().unwrap().get(&key) {
                    Some((bytes, n)) => (
                        "200 OK",
                        format!("ETag: \"{n}\"\r\nLast-Modified: Wed, 25 Nov 2026 00:00:00 GMT\r\n"),
                        bytes.clone(),
                    ),
                    None => ("404 Not Found", String::new(), b"<Error><Code>NoSuchKey</Code></Error>".to_vec()),
                }
            };
            let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
            if connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(&body)).is_err() {
                return;
            }
        }
    }

    fn list(&self) -> String {
        let mut xml = "<?xml version=\"1.0\"?><ListBucketResult><Name>releases</Name><Prefix>prod/</Prefix><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>".to_owned();
        for (key, (bytes, n)) in self.objects.lock().unwrap().iter() {
            let _ = write!(
                xml,
                "<Contents><Key>{key}</Key><LastModified>2026-11-25T00:00:00.000Z</LastModified><ETag>&quot;{n}&quot;</ETag><Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>",
                bytes.len()
            );
        }
        xml + "</ListBucketResult>"
    }
}

fn follow(at: SocketAddr) -> Wharf {
    let text = format!(
        "[deploy.source]\nurl = \"s3://releases/prod\"\ninterval = \"200ms\"\nendpoint = \"http://{at}\"\naccess_key = \"AK\"\nsecret_key = \"${{file:secret}}\"\n"
    );
    Site::new().with("secret", "hush-hush\n").with("wharf.toml", text).start(&[])
}

#[test]
fn a_fleet_follows_one_bucket() {
    let bucket = Bucket::default();
    bucket.put("prod/shop.so", chameleon("one"));
    bucket.put("prod/shop.toml", b"[init]\na = \"1\"\n".to_vec());
    bucket.put("prod/deeper/other.so", chameleon("no"));
    bucket.put("prod/notes.txt", b"not for the container".to_vec());
    let at = bucket.start();
    // What is there at the start is served from the start.
    let fleet = [follow(at), follow(at)];
    for wharf in &fleet {
        assert!(wharf.get("/shop/").text().contains("one"), "{}", wharf.log());
        assert_eq!(wharf.list().len(), 1);
    }
    assert!(bucket.asked.lock().unwrap()[0].to_lowercase().contains("authorization: aws4-hmac-sha256 credential=ak/"));
    // A new file is a redeploy of all; a bad one costs nothing.
    bucket.put("prod/shop.so", chameleon("two"));
    for wharf in &fleet {
        wharf.wait_for("/shop/", "two");
    }
    bucket.put("prod/shop.so", b"no module".to_vec());
    for wharf in &fleet {
        wait("the refusal", || wharf.app("shop")["error"]["code"].as_str().map(drop));
        assert!(wharf.get("/shop/").text().contains("two"));
    }
    // Versions side by side, by their names.
    bucket.put("prod/shop.so", chameleon("three"));
    bucket.put("prod/next##2.so", chameleon("next"));
    fleet[0].wait_for("/next/", "next");
    fleet[0].wait_for("/shop/", "three");
    // A store that is ill changes nothing, and is said once.
    *bucket.ill.lock().unwrap() = true;
    wait("it to be said", || fleet[0].log().contains("deploy.source: it can't be listed").then_some(()));
    bucket.objects.lock().unwrap().remove("prod/shop.so");
    assert!(fleet[0].get("/shop/").text().contains("three"));
    *bucket.ill.lock().unwrap() = false;
    for wharf in &fleet {
        wait("the application to be gone", || (wharf.get("/shop/").status == 404).then_some(()));
        assert!(!wharf.log().contains("hush-hush") && !format!("{:?}", wharf.cli(&["config"])).contains("hush-hush"));
    }
    let log = fleet[0].log();
    assert_eq!(log.matches("it can't be listed").count(), 1, "{log}");
}

#[test]
fn a_folder_is_followed_too_and_other_files_are_left_alone() {
    let releases = tempfile::tempdir().unwrap();
    std::fs::write(releases.path().join("shop.so"), chameleon("one")).unwrap();
    let source = format!("[deploy.source]\nurl = \"file://{}\"\ninterval = \"200ms\"\n", releases.path().display());
    let site = Site::new().with("wharf.toml", source).with("deploy/own.so", chameleon("own"));
    let wharf = site.start(&[]);
    assert!(wharf.get("/shop/").text().contains("one") && wharf.get("/own/").text().contains("own"));
    std::fs::remove_file(releases.path().join("shop.so")).unwrap();
    wait("the application to be gone", || (wharf.get("/shop/").status == 404).then_some(()));
    assert!(wharf.get("/own/").text().contains("own"));
}

#[test]
fn a_store_that_is_down_keeps_nobody_waiting_and_is_said_once() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!(
        "[deploy.source]\nurl = \"s3://releases/prod\"\ninterval = \"200ms\"\nendpoint = \"http://{nobody}\"\naccess_key = \"AK\"\nsecret_key = \"hush\"\n"
    );
    let began = Instant::now();
    let wharf = Site::new().with("wharf.toml", text).with("deploy/own.so", chameleon("own")).start(&[]);
    assert!(wharf.get("/own/").text().contains("own"));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // It has looked again by then.
    let bucket = Bucket::default();
    bucket.put("prod/shop.so", chameleon("one"));
    bucket.start_at(nobody);
    wait("the store to be followed", || (wharf.get("/shop/").status == 200).then_some(()));
    let log = wharf.log();
    assert_eq!(log.matches("it can't be listed").count(), 1, "{log}");
    assert!(log.contains("Connection refused") && !log.contains("retry"), "{log}");
}

#[test]
fn the_manifests_are_what_the_program_takes() {
    let yaml = std::fs::read_to_string(workspace().join("docs/operations/kubernetes.yaml")).unwrap();
    let block = yaml.split_once("wharf.toml: |\n").unwrap().1.split_once("---").unwrap().0;
    let toml: String = block.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
    let site = Site::new().with("wharf.toml", toml);
    let shown = site.cli(&["config", "--json"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    // What the probes and the unit call.
    for file in ["kubernetes.yaml", "wharf.service"] {
        let text = std::fs::read_to_string(workspace().join("docs/operations").join(file)).unwrap();
        assert!(text.contains("ready"), "{file}");
    }
    assert_eq!(site.cli(&["ready"]).code, 3);
    let mut wharf = Site::new().with("deploy/shop.so", chameleon("one")).launch(&[]);
    let ready = wharf.cli(&["ready", "--wait", "20"]);
    assert_eq!((ready.code, ready.out.trim()), (0, "ok"), "{ready:?}");
    wharf.wait_ready();
    // A database that is down is a reason, and is said.
    let text = "[resource.db]\nkind = \"sql\"\nurl = \"postgres://127.0.0.1:1/x\"\nwait = \"100ms\"\n";
    let wharf = Site::new().with("wharf.toml", text).start(&[]);
    wait("it to be known", || wharf.log().contains("down:").then_some(()));
    let ready = wharf.cli(&["ready"]);
    assert!(ready.code == 1 && ready.err.contains("resource 'db' is down"), "{ready:?}");
}
