//! The table, and the same as JSON.

use std::path::Path;

use serde::Serialize;
use wharf_bench::{Result, median_and_p99};

/// One measurement.
#[derive(Serialize, Clone, Copy)]
pub(crate) struct Sample {
    /// Requests per second.
    pub(crate) per_second: f64,
    /// Content and heads received, in 10^6 bytes per second.
    pub(crate) megabytes_per_second: f64,
    /// Processor seconds of the server for 100,000 requests.
    pub(crate) cpu: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
    /// Milliseconds.
    pub(crate) p999: f64,
    /// Of the server, with the idle connections of the work open.
    pub(crate) resident_kib: u64,
}

/// All measurements of one server at one piece of work.
#[derive(Serialize)]
pub(crate) struct Cell {
    work: &'static str,
    server: &'static str,
    pub(crate) samples: Vec<Sample>,
}

impl Cell {
    pub(crate) const fn new(work: &'static str, server: &'static str) -> Self {
        Self { work, server, samples: Vec::new() }
    }

    fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        median_and_p99(self.samples.iter().map(of).collect()).0
    }

    fn range(&self, of: impl Fn(&Sample) -> f64) -> (f64, f64) {
        let values = || self.samples.iter().map(&of);
        (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max))
    }

    /// The median over the rounds of this one's value by the other's in the same round.
    fn ratio(&self, other: &Self, of: impl Fn(&Sample) -> f64) -> f64 {
        median_and_p99(self.samples.iter().zip(&other.samples).map(|(a, b)| of(a) / of(b)).collect()).0
    }
}

/// Everything that was measured.
#[derive(Serialize)]
pub(crate) struct Report {
    rounds: usize,
    seconds: u32,
    processors: usize,
    cells: Vec<Cell>,
}

impl Report {
    pub(crate) fn new(rounds: usize, seconds: u32, apart: bool) -> Self {
        let place = if apart { "on another" } else { "on the same ones" };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        println!("{rounds} rounds of {seconds} s on {processors} processors, the client {place}; medians (range)\n");
        println!("`x axum` is the median over the rounds of the ratio to plain axum in the same round.\n");
        println!(
            "| work | server | requests/s | x axum | CPU s per 100,000 | x axum | p50 ms | p99 ms | p99.9 ms | MB/s | resident MiB |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|");
        Self { rounds, seconds, processors, cells: Vec::new() }
    }

    /// Adds the cells of one piece of work, and prints them.
    pub(crate) fn add(&mut self, cells: Vec<Cell>) {
        let axum = cells.iter().find(|c| c.server == "plain axum");
        for cell in &cells {
            let ratio = |of: fn(&Sample) -> f64| {
                axum.map_or_else(|| "".to_owned(), |axum| format!("{:.2}", cell.ratio(axum, of)))
            };
            let (low, high) = cell.range(|s| s.per_second);
            let (cheap, dear) = cell.range(|s| s.cpu);
            println!(
                "| {} | {} | {:.0} ({low:.0} to {high:.0}) | {} | {:.2} ({cheap:.2} to {dear:.2}) | {} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} |",
                cell.work,
                cell.server,
                cell.median(|s| s.per_second),
                ratio(|s| s.per_second),
                cell.median(|s| s.cpu),
                ratio(|s| s.cpu),
                cell.median(|s| s.p50),
                cell.median(|s| s.p99),
                cell.median(|s| s.p999),
                cell.median(|s| s.megabytes_per_second),
                cell.median(|s| s.resident_kib as f64) / 1024.0,
            );
        }
        self.cells.extend(cells);
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(std::fs::write(path, serde_json::to_vec_pretty(self)?)?)
    }
}
