//! A certificate from an authority that speaks ACME (RFC 8555), from the first order to the renewal.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use wharf_tests::{Acme, Site, Wharf, chameleon, printed, tool, wait};

const NAME: &str = "shop.test";

fn settings(acme: &Acme, state: &Path) -> String {
    format!(
        "state_dir = \"{}\"\n\
         [tls]\nreload_interval = \"100ms\"\n\
         [tls.acme]\nnames = [\"{NAME}\"]\nterms_agreed = true\ncontact = [\"mailto:ops@example.com\"]\ndirectory = \"{}\"\n\
         [protect]\nhttps_redirect = true\n",
        state.display(),
        acme.directory()
    )
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(acme: &Acme, state: &Path, port: u16) -> Wharf {
    let site = Site::new().with("wharf.toml", settings(acme, state)).with("root.pem", acme.root());
    let listen = format!("server.listen=[\"127.0.0.1:{port}\", \"https://127.0.0.1:0\"]");
    site.with("deploy/ROOT.so", chameleon("one")).start(&["--set", &listen])
}

/// What curl gets that believes the authority alone.
fn trusted(wharf: &Wharf) -> Option<String> {
    let port = wharf.secure_addr().port();
    let (to, url) = (format!("{NAME}:{port}:127.0.0.1"), format!("https://{NAME}:{port}/"));
    let root = wharf.path("root.pem").display().to_string();
    let mut curl = tool("curl", &["-sS", "--max-time", "5", "--cacert", &root, "--resolve", &to, &url])?;
    let output = curl.output().unwrap();
    output.status.success().then(|| printed(&output))
}

#[test]
fn a_certificate_is_ordered_renewed_and_kept() {
    if tool("curl", &["--version"]).is_none() {
        return;
    }
    let port = free_port();
    let acme = Acme::start(([127, 0, 0, 1], port).into(), Duration::from_secs(6));
    let state = tempfile::tempdir().unwrap();
    let mut wharf = start(&acme, state.path(), port);
    wait("a certificate of the authority", || (trusted(&wharf)? == "one").then_some(()));
    assert_eq!(
        acme.log()[..3],
        ["account [\"mailto:ops@example.com\"]", "challenge shop.test valid", "certificate shop.test"]
    );
    // Renewed when a third of its time is left, with the same account.
    let file = state.path().join("acme/certificate.pem");
    let first = fs::read_to_string(&file).unwrap();
    acme.set_lifetime(Duration::from_secs(1000));
    wait("another", || (fs::read_to_string(&file).unwrap() != first).then_some(()));
    wait("the other in force", || (trusted(&wharf)? == "one").then_some(()));
    assert_eq!(acme.log().iter().filter(|line| line.starts_with("account")).count(), 1);
    assert_eq!(acme.log().iter().filter(|line| line.starts_with("certificate")).count(), 2);
    // A challenge that is not open is an address like any other, and so redirected.
    let answer = wharf.get("/.well-known/acme-challenge/x");
    assert!((300..400).contains(&answer.status), "{}", answer.status);
    // After a restart it is there, and nobody is asked.
    wharf.signal(Signal::TERM);
    wharf.wait_end();
    let wharf = start(&acme, state.path(), port);
    wait("the kept one", || (trusted(&wharf)? == "one").then_some(()));
    assert_eq!(acme.log().iter().filter(|line| line.starts_with("certificate")).count(), 2);
}

#[test]
fn without_the_authority_it_serves_with_a_certificate_of_its_own() {
    if tool("curl", &["--version"]).is_none() {
        return;
    }
    // The authority looks for the name where nobody is.
    let acme = Acme::start(([127, 0, 0, 1], free_port()).into(), Duration::from_secs(60));
    let state = tempfile::tempdir().unwrap();
    let wharf = start(&acme, state.path(), free_port());
    wait("the refusal", || wharf.log().contains("no certificate of the ACME authority").then_some(()));
    assert!(wharf.log().contains("the answer is not the one"), "{}", wharf.log());
    assert_eq!(acme.log().last().unwrap(), "challenge shop.test invalid");
    assert_eq!(trusted(&wharf), None);
    let url = format!("https://{}/", wharf.secure_addr());
    let Some(mut curl) = tool("curl", &["-sSk", "--max-time", "5", &url]) else { return };
    assert_eq!(printed(&curl.output().unwrap()), "one");
}
