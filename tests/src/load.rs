//! Steady requests over keep-alive connections, each answer counted, each failure kept.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Client;

/// What came of the requests.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answers with status 200, by their content.
    pub answers: BTreeMap<String, u64>,
    /// Everything else.
    pub failures: Vec<String>,
    /// Answers from a version that was retired before the request began.
    pub stale: Vec<String>,
    /// How often a connection was closed as the answer before announced.
    pub reconnects: u64,
}

impl Tally {
    /// How many answers there were.
    pub fn total(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Asserts that no request failed or was answered by a version that should have been gone, and that there were some.
    ///
    /// # Panics
    /// When that is not so.
    pub fn assert_clean(&self) {
        assert!(self.failures.is_empty(), "{} failures, first: {:?}", self.failures.len(), self.failures.first());
        assert!(self.stale.is_empty(), "{} stale answers, first: {:?}", self.stale.len(), self.stale.first());
        assert!(self.total() > 0, "no request was made");
    }
}

/// The version that must not answer a request that begins now, and a number that counts the changes of it.
type Retired = Arc<Mutex<(u64, Option<String>)>>;

/// Requests under way until [`Load::stop`].
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    retired: Retired,
    threads: Vec<JoinHandle<Tally>>,
}

impl Load {
    /// Sends GET requests for the paths in turn over so many connections, with a pause after each.
    pub fn start(to: SocketAddr, paths: &[&str], connections: usize, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let retired = Retired::default();
        let threads = (0..connections)
            .map(|_| {
                let (stop, retired) = (stop.clone(), retired.clone());
                let paths: Vec<String> = paths.iter().map(|p| (*p).to_owned()).collect();
                std::thread::spawn(move || run(to, &paths, pause, &stop, &retired))
            })
            .collect();
        Self { stop, retired, threads }
    }

    /// From now on no request that begins may be answered by `version`; with `None` every version may answer.
    pub fn retired(&self, version: Option<&str>) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        *retired = (retired.0 + 1, version.map(str::to_owned));
    }

    /// Ends it.
    ///
    /// # Panics
    /// When a thread of it did.
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for thread in self.threads {
            let tally = thread.join().expect("the load does not panic");
            tally.answers.into_iter().for_each(|(version, n)| *all.answers.entry(version).or_default() += n);
            all.failures.extend(tally.failures);
            all.stale.extend(tally.stale);
            all.reconnects += tally.reconnects;
        }
        all
    }
}

fn run(to: SocketAddr, paths: &[String], pause: Duration, stop: &AtomicBool, retired: &Retired) -> Tally {
    let mut tally = Tally::default();
    let mut client = None;
    for path in paths.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let now = || retired.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let before = now();
        let answer = match &mut client {
            Some(client) => Client::get(client, path),
            None => Client::connect(to).and_then(|new| client.insert(new).get(path)),
        };
        match answer {
            Ok(answer) if answer.status == 200 => {
                if answer.is_last() {
                    client = None;
                    tally.reconnects += 1;
                }
                let version = answer.text();
                // A change of the mark while the request was under way leaves it undecided.
                if before.1.as_ref() == Some(&version) && now().0 == before.0 {
                    tally.stale.push(version.clone());
                }
                *tally.answers.entry(version).or_default() += 1;
            }
            Ok(answer) => {
                client = None;
                tally.failures.push(format!("GET {path}: {} {}", answer.status, answer.text()));
            }
            Err(error) => {
                client = None;
                tally.failures.push(format!("GET {path}: {error}"));
            }
        }
        std::thread::sleep(pause);
    }
    tally
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers each connection with these answers in turn, and closes it after them.
    fn server(answers: &[&'static str]) -> SocketAddr {
        let answers = answers.to_vec();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                for answer in &answers {
                    if stream.read(&mut [0; 1024]).unwrap_or(0) == 0 || stream.write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
            }
        });
        addr
    }

    fn tally(answers: &[&'static str], retired: Option<&str>) -> Tally {
        let load = Load::start(server(answers), &["/"], 1, Duration::from_millis(1));
        load.retired(retired);
        std::thread::sleep(Duration::from_millis(100));
        load.stop()
    }

    #[test]
    fn what_must_not_happen_is_found() {
        let good = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold";
        let last = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nold";
        let error = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
        let cut = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nold";
        let announced = tally(&[good, last], None);
        assert!(announced.reconnects > 0);
        announced.assert_clean();
        assert!(!tally(&[good, good], None).failures.is_empty(), "closed without a word");
        assert!(!tally(&[error], None).failures.is_empty());
        assert!(!tally(&[cut], None).failures.is_empty());
        assert!(!tally(&[good, last], Some("old")).stale.is_empty());
        assert!(tally(&[good, last], Some("other")).stale.is_empty());
    }
}
