//! The processor time of processes, as the kernel counts it (proc_pid_stat(5)).

use std::collections::BTreeMap;
use std::time::Duration;

/// Processes whose time is counted, each with all that it has started.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// What of each was counted already.
    counted: BTreeMap<u32, Duration>,
    /// What was counted and not taken yet.
    counts: Duration,
}

impl Times {
    /// Counts this process from now on.
    pub(crate) fn begin(&mut self, leader: u32) {
        self.counted.insert(leader, Duration::ZERO);
    }

    /// Counts the process for the last time: before it is waited for, or what it took since the last count is lost.
    pub(crate) fn end(&mut self, leader: u32) {
        if let Some(counted) = self.counted.remove(&leader) {
            self.counts += family_time(leader).saturating_sub(counted);
        }
    }

    /// What they took since the last call. What a process took that has ended, and was never waited for by one of them, is not in it.
    pub(crate) fn take(&mut self) -> Duration {
        for (leader, counted) in &mut self.counted {
            let time = family_time(*leader);
            self.counts += time.saturating_sub(std::mem::replace(counted, time));
        }
        std::mem::take(&mut self.counts)
    }
}

/// The time of a process, of what it has waited for, and of its living descendants.
fn family_time(leader: u32) -> Duration {
    let (mut ticks, mut waiting) = (0, vec![leader]);
    while let Some(process) = waiting.pop() {
        ticks += own_ticks(process).unwrap_or(0);
        waiting.extend(children(process));
    }
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second().max(1))
}

/// Ticks of the clock, in the process and in the children that it has waited for. `None` when it is gone.
fn own_ticks(process: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{process}/stat")).ok()?;
    let text = String::from_utf8_lossy(&stat);
    // The name, in parentheses, may have anything in it. After it come the fields from the third on: utime, stime, cutime, cstime are
    // the 14th to the 17th.
    let (_, fields) = text.rsplit_once(')')?;
    let ticks = fields.split_ascii_whitespace().skip(11).take(4);
    Some(ticks.filter_map(|field| field.parse::<u64>().ok()).sum())
}

fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_time_of_a_process_and_of_its_children_is_counted_once() {
        let burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        // In a child that is not waited for, in one that is, and in itself.
        let script = format!("({burn}; echo; exec sleep 100) & ({burn}); {burn}; echo; read line");
        let mut shell = Command::new("sh");
        let mut shell = shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut times = Times::default();
        times.begin(shell.id());
        let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        let mut taken = times.take();
        for _ in 0..2 {
            lines.next().unwrap().unwrap();
            taken += times.take();
        }
        let sleeping = children(shell.id());
        let own = Duration::from_millis(own_ticks(shell.id()).unwrap() * 10);
        assert!(!own.is_zero() && taken > own, "{taken:?} beside {own:?} of the shell itself");
        assert!(times.take() < own / 2, "it does nothing more");
        drop(shell.stdin.take());
        times.end(shell.id());
        assert!(times.take() < own / 2 && times.counted.is_empty());
        for process in sleeping.into_iter().filter_map(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
        }
        shell.wait().unwrap();
    }
}
