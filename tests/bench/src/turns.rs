//! Servers measured in turns (A B A B …), and how the first compares with the others in each round.

use clap::Args;

use crate::{Rate, Result, median_and_p99};

/// How often and for how long each server is measured.
#[derive(Debug, Clone, Args)]
pub struct Rounds {
    /// Rounds; each measures every server once.
    #[arg(long, default_value_t = 9)]
    pub rounds: usize,
    /// Seconds for each measurement.
    #[arg(long, default_value_t = 3)]
    pub seconds: u32,
}

/// A server: its name, and what measures it for so many seconds.
pub type Measured<'a> = (&'a str, Box<dyn Fn(u32) -> Result<Rate> + 'a>);

/// Warms each up for a second, measures all in each round, and prints medians and the medians of the rounds' ratios.
///
/// # Errors
/// When a measurement fails.
pub fn in_turns(Rounds { rounds, seconds }: &Rounds, servers: &[Measured<'_>]) -> Result<()> {
    for (_, measure) in servers {
        measure(1)?;
    }
    let mut all: Vec<Vec<Rate>> = Vec::new();
    for _ in 0..*rounds {
        all.push(servers.iter().map(|(_, measure)| measure(*seconds)).collect::<Result<_>>()?);
    }
    let median = |of: &dyn Fn(&[Rate]) -> f64| median_and_p99(all.iter().map(|round| of(round)).collect()).0;
    println!("{rounds} rounds of {seconds} s; medians");
    for (i, (name, _)) in servers.iter().enumerate() {
        let (rate, cpu) = (median(&|r| r[i].per_second), median(&|r| r[i].cpu));
        println!("{name:11} {rate:8.0} requests/s, {cpu:.3} CPU s per 100,000 requests");
    }
    let first = servers.first().map_or("", |(name, _)| name);
    for (i, (name, _)) in servers.iter().enumerate().skip(1) {
        println!(
            "{first} / {name}: {:.2} of its requests/s, {:.2} times its CPU per request",
            median(&|r| r[0].per_second / r[i].per_second),
            median(&|r| r[0].cpu / r[i].cpu)
        );
    }
    Ok(())
}
