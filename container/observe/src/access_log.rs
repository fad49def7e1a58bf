//! Writes the access log off the request path: a bounded queue, and one thread that empties it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wharf_kernel::{AccessRecord, AccessSink};

use crate::Format;
use crate::line::Lines;

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// This file, appended to; it is made readable for its owner and group.
    File(PathBuf),
}

/// How the access log is written.
#[derive(Debug, Clone)]
pub struct AccessLogConfig {
    /// Where to.
    pub target: Target,
    /// Format of a line.
    pub format: Format,
    /// Records that may wait to be written; more are dropped and counted. Default: 65,536.
    pub queue: usize,
    /// How long records are gathered before they are written together. Default: 100 ms.
    pub interval: Duration,
}

impl AccessLogConfig {
    /// The defaults for a target.
    pub fn new(target: Target) -> Self {
        Self { target, format: Format::default(), queue: 65_536, interval: Duration::from_millis(100) }
    }
}

/// The access log. Dropping it writes what waits, for at most two seconds.
pub struct AccessLog {
    shared: Arc<Shared>,
    done: Mutex<Receiver<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Told when the queue is no longer empty, and when the log is closed.
    filled: Condvar,
    capacity: usize,
    dropped: AtomicU64,
    reopen: AtomicBool,
}

#[derive(Default)]
struct Queue {
    records: Vec<AccessRecord>,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccessLog {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// The file can't be opened (the error names it), or the thread can't be started.
    pub fn start(config: AccessLogConfig) -> io::Result<Self> {
        let output = Output::open(&config.target)?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            capacity: config.queue,
            dropped: AtomicU64::new(0),
            reopen: AtomicBool::new(false),
        });
        let (finished, done) = channel();
        let writer =
            Writer { shared: shared.clone(), output, lines: Lines::new(config.format), config, failing: false };
        std::thread::Builder::new().name("wharf-access-log".to_owned()).spawn(move || {
            writer.run();
            drop(finished);
        })?;
        Ok(Self { shared, done: Mutex::new(done) })
    }

    /// Records that were not written, because the queue was full or the target could not be written.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Opens the file anew before the next line, for log rotation.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.shared.filled.notify_one();
    }
}

impl AccessSink for AccessLog {
    fn record(&self, record: AccessRecord) {
        let mut queue = self.shared.lock();
        if queue.records.len() >= self.shared.capacity || queue.closed {
            drop(queue);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.records.push(record);
        let first = queue.records.len() == 1;
        drop(queue);
        // The writer sleeps only while the queue is empty, so one call in a batch is enough.
        if first {
            self.shared.filled.notify_one();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_one();
        // A pipe nobody reads must not keep the container from ending.
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = done.recv_timeout(Duration::from_secs(2));
    }
}

enum Output {
    Stdout(io::Stdout),
    File(File),
}

impl Output {
    fn open(target: &Target) -> io::Result<Self> {
        match target {
            Target::Stdout => Ok(Self::Stdout(io::stdout())),
            Target::File(path) => {
                let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path);
                file.map(Self::File)
                    .map_err(|e| io::Error::new(e.kind(), format!("access log {}: {e}", path.display())))
            }
        }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        match self {
            Self::Stdout(out) => {
                let mut out = out.lock();
                out.write_all(text.as_bytes())?;
                out.flush()
            }
            Self::File(file) => file.write_all(text.as_bytes()),
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    output: Output,
    lines: Lines,
    config: AccessLogConfig,
    /// True from the first failure to write until the next success, so that the log says each once.
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        let mut text = String::new();
        loop {
            let closed = self.wait(&mut batch);
            if self.shared.reopen.swap(false, Ordering::AcqRel) {
                match Output::open(&self.config.target) {
                    Ok(output) => self.output = output,
                    Err(error) => tracing::error!("{error}; going on with the file that is open"),
                }
            }
            for chunk in batch.chunks(1024) {
                text.clear();
                for record in chunk {
                    self.lines.append(&mut text, record);
                }
                self.write(&text, chunk.len());
            }
            batch.clear();
            if closed {
                return;
            }
        }
    }

    /// Waits for records, lets some gather, and takes them. True when there will be no more.
    fn wait(&self, batch: &mut Vec<AccessRecord>) -> bool {
        let idle = |queue: &mut Queue| {
            queue.records.is_empty() && !queue.closed && !self.shared.reopen.load(Ordering::Acquire)
        };
        let queue = self.shared.filled.wait_while(self.shared.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let open = |queue: &mut Queue| !queue.closed && queue.records.len() < self.shared.capacity / 2;
        let waited = self.shared.filled.wait_timeout_while(queue, self.config.interval, open);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        std::mem::swap(&mut queue.records, batch);
        queue.closed
    }

    fn write(&mut self, text: &str, records: usize) {
        match self.output.write(text) {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!("the access log can be written again");
            }
            Ok(()) => {}
            Err(error) => {
                self.shared.dropped.fetch_add(records as u64, Ordering::Relaxed);
                if !self.failing {
                    self.failing = true;
                    tracing::error!("the access log can't be written, lines are dropped: {error}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::line::tests::record;

    fn config(path: PathBuf) -> AccessLogConfig {
        AccessLogConfig { interval: Duration::from_millis(1), ..AccessLogConfig::new(Target::File(path)) }
    }

    fn lines(path: &std::path::Path) -> usize {
        std::fs::read_to_string(path).unwrap().lines().count()
    }

    #[test]
    fn every_record_is_written_before_the_log_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::start(config(path.clone())).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| log.record(record("/x", b"test"))));
            }
        });
        assert_eq!(log.dropped(), 0);
        drop(log);
        assert_eq!(lines(&path), 4000);
    }

    #[test]
    fn a_rotated_file_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let log = AccessLog::start(config(path.clone())).unwrap();
        std::fs::rename(&path, &old).unwrap();
        log.reopen();
        log.record(record("/x", b"test"));
        drop(log);
        assert_eq!((lines(&old), lines(&path)), (0, 1));
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        // A pipe that is full and read by nobody holds the writer.
        std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let log = AccessLog::start(AccessLogConfig { queue: 100, ..config(path) }).unwrap();
        let mut sent = 0;
        while log.dropped() < 50 {
            log.record(record("/x", &[b'a'; 1000]));
            sent += 1;
        }
        assert!(sent > 50);
        let mut byte = [0; 10];
        reader.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"192.0.2.7 ");
        std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    }

    #[test]
    fn a_full_disk_is_counted() {
        let log = AccessLog::start(config("/dev/full".into())).unwrap();
        log.record(record("/x", b"test"));
        let shared = log.shared.clone();
        drop(log);
        assert_eq!(shared.dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_file_that_can_not_be_opened_is_named() {
        let error = AccessLog::start(config("/nowhere/access.log".into())).err().unwrap();
        assert!(error.to_string().contains("/nowhere/access.log"), "{error}");
    }
}
