//! Load for `cargo xtask bench`: one kind of traffic in a network namespace of its own, on one core, as fast as it goes.
//!
//! The harness starts it, reads `ready`, writes `go`, and reads one line of JSON. The namespace stays until the harness
//! closes standard input, because tools read its counters when they end. Client and server are one process: nothing has
//! to be woken up, so that what a tool costs is not lost in the time that the scheduler takes.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Serialize;

use crate::counters::Counters;
use crate::net::Netns;

mod churn;
mod compare;
mod flood;
mod held;
mod programs;
mod sys;
mod tool;

pub use compare::compare;
pub use held::hold;
pub use programs::{Cost, hold_empty};
pub use tool::{become_tool, time_start};

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Connections; the client closes, the server reads to the end and closes
    Fin,
    /// Connections that the client resets (SO_LINGER 0)
    Rst,
    /// connect() to a closed port
    ClosedPort,
    /// Frames with SYNs to closed ports, from a million addresses
    SynClosed,
    /// connect() to a listener whose queue is full
    AcceptOverflow,
    /// Frames with SYNs to a listener, from a million addresses that do not answer
    SynFlood,
    /// As `fin`, with room for 100 sockets in TIME_WAIT
    TwOverflow,
    /// Connections that are held open
    Idle,
    /// One connection that carries as much as it can
    Bulk,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub workload: Workload,
    /// Operations to play; or until the time is over.
    pub count: Option<u64>,
    pub time: Duration,
    /// Operations before the clock runs, instead of the workload's own number.
    pub warm_up: Option<u64>,
    /// The core to run on.
    pub core: usize,
    /// `net.ipv4.tcp_syncookies`.
    pub cookies: u8,
    /// Also take the run times of this process's BPF programs, which cost time themselves.
    pub programs_of: Option<u32>,
}

/// When to stop.
struct Limit {
    count: u64,
    end: Instant,
}

impl Limit {
    /// For operations that are no part of the measurement.
    fn of_count(count: u64) -> Self {
        Self { count, end: Instant::now() + Duration::from_secs(60) }
    }

    /// Whether operation number `done` is to be played. The clock is read once in sixteen times.
    fn more(&self, done: u64) -> bool {
        done < self.count && (!done.is_multiple_of(16) || Instant::now() < self.end)
    }
}

/// Something that can be done over and over.
trait Play {
    /// Operations to play before the clock runs: the kernel's caches fill.
    fn warm_up(&self) -> u64;
    /// Plays until the limit; how many operations that were.
    fn play(&mut self, limit: &Limit) -> Result<u64>;
    /// The namespace whose counters tell what happened.
    fn netns(&self) -> &Netns;
    /// A counter that must have grown at least so far after `total` operations, or something else was played.
    fn proof(&self, total: u64) -> (&'static str, u64);
    /// Bytes of payload that an operation carries.
    fn bytes(&self) -> u64 {
        0
    }
}

/// The line of JSON.
#[derive(Serialize)]
struct Report {
    operations: u64,
    /// With those of the warm-up, which tools see and counters count.
    total: u64,
    bytes: u64,
    wall_s: f64,
    cpu_s: f64,
    /// Inode of the namespace that the counters are of.
    netns: u64,
    counters: BTreeMap<String, u64>,
    programs: Vec<Cost>,
}

/// Plays one workload for the harness.
pub fn run(options: &Options) -> Result<()> {
    sys::pin(options.core).with_context(|| format!("pinning the load to core {}", options.core))?;
    let mut play: Box<dyn Play> = match options.workload {
        Workload::Fin
        | Workload::Rst
        | Workload::ClosedPort
        | Workload::AcceptOverflow
        | Workload::TwOverflow => Box::new(churn::Churn::new(options)?),
        Workload::SynClosed | Workload::SynFlood => Box::new(flood::Flood::new(options)?),
        Workload::Idle => Box::new(held::Idle::new(options)?),
        Workload::Bulk => Box::new(held::Bulk::new()?),
    };
    play.netns().stay()?;
    let warmed = play.play(&Limit::of_count(options.warm_up.unwrap_or(play.warm_up())))?;
    say("ready")?;
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line)? == 0 {
        bail!("standard input ended before `go`");
    }
    let meter = options.programs_of.map(programs::Meter::start).transpose()?;
    let (started, cpu) = (Instant::now(), sys::cpu_ns());
    let limit = Limit { count: options.count.unwrap_or(u64::MAX), end: started + options.time };
    let operations = play.play(&limit)?;
    let (wall, cpu) = (started.elapsed(), sys::cpu_ns() - cpu);
    let programs = meter.map(|meter| meter.read()).transpose()?.unwrap_or_default();
    let total = warmed + operations;
    let counters = play.netns().counters()?;
    let (name, least) = play.proof(total);
    if counters.get(name) < least {
        bail!(
            "{total} operations, yet {name} grew by {} only, not by {least}: {}",
            counters.get(name),
            counters.grown(&Counters::default())
        );
    }
    let report = Report {
        operations,
        total,
        bytes: operations * play.bytes(),
        wall_s: wall.as_secs_f64(),
        cpu_s: cpu as f64 / 1e9,
        netns: play.netns().inode(),
        counters: counters.growth(&Counters::default()),
        programs,
    };
    say(&serde_json::to_string(&report)?)?;
    wait_for_end()
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush().context("writing to the harness")
}

/// Comes back when whoever started us closes our standard input.
fn wait_for_end() -> Result<()> {
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())
        .context("waiting for the harness")
        .map(drop)
}

/// Settings of a namespace for load, beside the workload's own.
const SYSCTLS: [(&str, &str); 8] = [
    // Listeners are below.
    ("ipv4/ip_local_port_range", "10000 65535"),
    // A port in TIME_WAIT stays taken: whether it is used again would depend on how long the run takes.
    ("ipv4/tcp_tw_reuse", "0"),
    ("ipv4/tcp_max_tw_buckets", "4194304"),
    ("ipv4/tcp_fin_timeout", "60"),
    ("ipv4/tcp_timestamps", "1"),
    ("ipv4/tcp_abort_on_overflow", "0"),
    ("ipv4/tcp_max_syn_backlog", "512"),
    ("core/somaxconn", "4096"),
];

/// A namespace with nothing but loopback.
fn loopback() -> Result<Netns> {
    let netns = Netns::new()?;
    netns.ip("link set lo up\n")?;
    for (name, value) in SYSCTLS {
        netns.sysctl(name, value)?;
    }
    Ok(netns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_ends_by_count_and_by_time() {
        let hour = Duration::from_secs(3600);
        let limit = Limit { count: 3, end: Instant::now() + hour };
        assert_eq!((0..9).take_while(|done| limit.more(*done)).count(), 3);
        let over = Limit { count: u64::MAX, end: Instant::now() };
        assert!(!over.more(0) && over.more(1) && !over.more(16), "the clock is read at multiples of 16");
    }
}
