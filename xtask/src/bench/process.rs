//! Another process, looked at through procfs: its CPU time, its memory, the memory of its BPF maps; and the machine's idle time.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Seconds of CPU so far, all threads that live.
pub(super) fn cpu_s(pid: u32) -> Result<f64> {
    let dir = format!("/proc/{pid}/task");
    let mut ns = 0;
    for task in
        fs::read_dir(&dir).with_context(|| format!("cannot read {dir}: has the tool ended?"))?.flatten()
    {
        // A thread that ended meanwhile is no longer counted; tools do not start threads for events.
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        ns += run_ns(&text).unwrap_or(0);
    }
    Ok(ns as f64 / 1e9)
}

fn run_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// Waits until it does next to nothing, for it may lag behind the load. An error if that takes too long.
pub(super) fn wait_until_quiet(pid: u32) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(100);
    /// Of a core: a tool that only looks whether there is something takes less.
    const QUIET: f64 = 0.03;
    let end = Instant::now() + Duration::from_secs(30);
    let mut before = cpu_s(pid)?;
    let mut calm = 0;
    while calm < 2 {
        if Instant::now() > end {
            bail!("the tool (process {pid}) is still busy half a minute after the load has ended");
        }
        sleep(LOOK);
        let now = cpu_s(pid)?;
        calm = if now - before < QUIET * LOOK.as_secs_f64() { calm + 1 } else { 0 };
        before = now;
    }
    Ok(())
}

/// Kilobytes that it has in memory now, and that it had at most.
pub(super) fn rss_kb(pid: u32) -> Result<(u64, u64)> {
    let file = format!("/proc/{pid}/status");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {file}: has the tool ended?"))?;
    let of = |name| number(&text, name).with_context(|| format!("{file} has no {name}"));
    Ok((of("VmRSS:")?, of("VmHWM:")?))
}

/// Kilobytes that the kernel keeps for its BPF maps.
pub(super) fn maps_kb(pid: u32) -> Result<u64> {
    let dir = format!("/proc/{pid}/fdinfo");
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {dir}"))?.flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        // One map can have several descriptors.
        if let (Some(id), Some(bytes)) = (number(&text, "map_id:"), number(&text, "memlock:")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.values().sum::<u64>() / 1024)
}

fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// What all cores together did until now, in hundredths of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cores {
    busy: u64,
    stolen: u64,
}

impl Cores {
    pub(super) fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Self::parse(&text).context("cannot make sense of /proc/stat")
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let times: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let at = |place: usize| times.get(place).copied();
        // user nice system idle iowait irq softirq steal
        Some(Self { busy: at(0)? + at(1)? + at(2)? + at(5)? + at(6)?, stolen: at(7)? })
    }

    /// Seconds that were spent since then on anything, and that were stolen.
    pub(super) fn since(self, before: Self) -> (f64, f64) {
        let seconds = |now: u64, then: u64| now.saturating_sub(then) as f64 / 100.0;
        (seconds(self.busy, before.busy), seconds(self.stolen, before.stolen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procfs_is_read_by_name() {
        let status = "Name:\ttcpwatch\nVmHWM:\t   13636 kB\nVmRSS:\t   12000 kB\n";
        assert_eq!((number(status, "VmRSS:"), number(status, "VmHWM:")), (Some(12_000), Some(13_636)));
        assert_eq!(number(status, "VmSwap:"), None);
        assert_eq!(run_ns("65662301 31040722 138\n"), Some(65_662_301));
    }

    #[test]
    fn idle_time_is_not_busy_and_stolen_time_is_told_apart() {
        let before = Cores::parse("cpu  100 0 50 9000 10 0 5 7 0 0\ncpu0 1 1 1\n").unwrap();
        let after = Cores::parse("cpu  150 1 60 9100 90 2 7 17 0 0\n").unwrap();
        assert_eq!(after.since(before), (0.65, 0.1));
        assert_eq!(Cores::parse("intr 5\n"), None);
    }

    #[test]
    fn our_own_process_has_memory_and_time() {
        let (now, most) = rss_kb(std::process::id()).unwrap();
        assert!(now > 100 && most >= now, "{now} {most}");
        assert!(cpu_s(std::process::id()).unwrap() >= 0.0);
        assert!(rss_kb(u32::MAX).is_err());
    }
}
