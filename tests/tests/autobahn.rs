//! The Autobahn test suite against an echo of a module in the running container.
//!
//! The suite needs Python 2.7: `tests/autobahn/install` puts it into `target/autobahn` where it can. Without it this is skipped.
//! With `WHARF_AUTOBAHN_REPORT` set, the suite's report is left in that folder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use wharf_tests::{Site, library, target};

/// All that does not need compression, which Wharf does not offer: framing, pings, reserved bits, opcodes, fragments, UTF-8,
/// closing, limits, and a message in pieces.
const CASES: [&str; 9] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"];

#[test]
fn no_case_fails() {
    let suite = target().parent().expect("target").join("autobahn/run");
    if !suite.exists() {
        eprintln!(
            "skipped: the Autobahn suite is not there; tests/autobahn/install installs it where there is a Python 2.7"
        );
        return;
    }
    let wharf = Site::new().with("deploy/s.so", library("sockets")).start(&["--set", "access_log.format=off"]);
    let report = std::env::var_os("WHARF_AUTOBAHN_REPORT").map_or_else(|| wharf.path("report"), PathBuf::from);
    let spec = json!({
        "outdir": report,
        "servers": [{ "agent": "wharf", "url": format!("ws://{}/s/echo", wharf.addr()) }],
        "cases": CASES,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    wharf.put("spec.json", spec.to_string());
    let run = Command::new(suite)
        .args(["-m", "fuzzingclient", "-s"])
        .arg(wharf.path("spec.json"))
        .current_dir(wharf.path("."))
        .output()
        .expect("the suite runs");
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    let index = std::fs::read(report.join("index.json")).unwrap_or_else(|e| panic!("no report: {e}\n{said}"));
    let index: Value = serde_json::from_slice(&index).expect("the report is JSON");
    let cases = index["wharf"].as_object().expect("results");
    let mut counts = BTreeMap::<String, usize>::new();
    for (case, result) in cases {
        for aspect in ["behavior", "behaviorClose"] {
            let verdict = result[aspect].as_str().unwrap_or("none");
            // Not strict: right, but later than it could be. Informational: the standard leaves it open.
            let good = ["OK", "NON-STRICT", "INFORMATIONAL"].contains(&verdict);
            assert!(good, "case {case}, {aspect}: {verdict}\n{result}");
        }
        *counts.entry(result["behavior"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    println!("{} cases, 0 failed: {counts:?}", cases.len());
    assert!(cases.len() >= 300, "only {} cases were run", cases.len());
}
