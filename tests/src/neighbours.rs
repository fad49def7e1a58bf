//! Two applications in one container, and how they get on.

use crate::{Answer, Client, Site, Wharf, chameleon};

/// A good application and a bad one, which says so in its TOML file.
pub fn neighbours(bad: &str, arguments: &[&str]) -> Wharf {
    Site::new()
        .with("deploy/good.so", chameleon("good"))
        .with("deploy/bad.so", chameleon("bad"))
        .with("deploy/bad.toml", bad)
        .start(arguments)
}

/// Sends requests, each over a connection of its own that stays open, and does not wait for the answers.
pub fn begin(wharf: &Wharf, target: &str, count: usize) -> Vec<Client> {
    let one = |_| {
        let mut client = wharf.connect();
        client.write("GET", target, &[], b"").expect("the request is sent");
        client
    };
    (0..count).map(one).collect()
}

/// The answers to what [`begin`] has begun.
///
/// # Panics
/// Where one does not come.
pub fn answers(clients: Vec<Client>) -> Vec<Answer> {
    clients.into_iter().map(|mut client| client.read("GET").expect("an answer")).collect()
}

/// How many answers have this status.
pub fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

/// A number of the metrics, by all that stands before it on its line.
pub fn metric(wharf: &Wharf, line: &str) -> Option<u64> {
    let text = wharf.admin("GET", "/v1/metrics").text();
    text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
}

/// The labels of the bad application in the metrics, but for the brace.
pub const BAD: &str = r#"{app="/bad",version="",host="default""#;
