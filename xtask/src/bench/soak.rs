//! `cargo xtask soak`: tcpwatch beside a mixed load for as long as one likes. Every RST has to be told, the books have to balance, and
//! nothing of the tool may grow.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::data::{Books, Load};
use super::play::{Ground, LIMIT, Playing, SETTLE, interrupt};
use super::{ground, process, words};

/// What a round plays, each in a network namespace of its own, and how many operations of it.
const ROUND: &[(&str, u64)] = &[("fin", 3_000), ("rst", 2_000), ("closed-port", 4_000)];
/// How often the tool is looked at.
const LOOK: Duration = Duration::from_secs(30);
/// KB that memory may grow by from the first third of the time on: by then the tables that are filled with use are full.
const GROWTH_KB: u64 = 1024;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long
    #[arg(long, default_value_t = 30, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
}

/// `cargo xtask soak`.
pub(crate) fn main(args: &Args) -> Result<()> {
    let (ground, tcpwatch) = ground(1.0)?;
    let time = Duration::from_secs(args.minutes * 60);
    let mut tool = Tool::start(&ground, &tcpwatch)?;
    let mut played = Played::default();
    let mut looks = Vec::new();
    let began = Instant::now();
    println!("{:>6} {:>7} {:>9} {:>9} {:>6} {:>8}", "s", "rounds", "RSS", "maps", "fds", "threads");
    while began.elapsed() < time {
        for (workload, count) in ROUND {
            thread::sleep(SETTLE);
            tool.still_runs()?;
            played.add(play(&ground, workload, *count).with_context(|| format!("playing {workload}"))?);
        }
        played.rounds += 1;
        if began.elapsed() >= LOOK * looks.len() as u32 || began.elapsed() >= time {
            let look = Look::at(tool.child.id())?;
            println!("{:>6.0} {:>7} {look}", began.elapsed().as_secs_f64(), played.rounds);
            looks.push(look);
        }
    }
    process::wait_until_quiet(tool.child.id())?;
    let told = tool.end()?;
    println!("{}", told.words(&played));
    let mut wrong = told.wrong(&played);
    wrong.extend(grown(&looks));
    for sentence in &wrong {
        println!("wrong: {sentence}");
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{} things are wrong", wrong.len()) }
}

fn play(ground: &Ground, workload: &str, count: u64) -> Result<Load> {
    let args = [workload.to_owned(), format!("--count={count}"), "--time=60".to_owned()];
    Playing::start(ground, &args)?.go()
}

/// What the kernel counted of the load.
#[derive(Debug, Default)]
struct Played {
    rounds: u64,
    connections: u64,
    /// RSTs sent, by network namespace. On loopback each of them arrives at a socket, too.
    resets: BTreeMap<u64, u64>,
}

impl Played {
    fn add(&mut self, load: Load) {
        let counter = |name: &str| load.counters.get(name).copied().unwrap_or(0);
        self.connections += counter("ActiveOpens");
        // The kernel gives numbers of namespaces out again.
        *self.resets.entry(load.netns).or_default() += counter("OutRsts");
    }
}

/// The tool at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    rss_kb: u64,
    maps_kb: u64,
    descriptors: usize,
    threads: usize,
}

impl Look {
    fn at(pid: u32) -> Result<Self> {
        let count = |what: &str| {
            let dir = format!("/proc/{pid}/{what}");
            Ok::<_, anyhow::Error>(fs::read_dir(&dir).with_context(|| format!("cannot read {dir}"))?.count())
        };
        Ok(Self {
            rss_kb: process::rss_kb(pid)?.0,
            maps_kb: process::maps_kb(pid)?,
            descriptors: count("fd")?,
            threads: count("task")?,
        })
    }
}

impl std::fmt::Display for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mb = |kb: u64| kb as f64 / 1024.0;
        write!(
            f,
            "{:>6.1} MB {:>6.1} MB {:>6} {:>8}",
            mb(self.rss_kb),
            mb(self.maps_kb),
            self.descriptors,
            self.threads
        )
    }
}

/// What of the tool has grown, one sentence each.
fn grown(looks: &[Look]) -> Vec<String> {
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else {
        return vec!["the tool was never looked at".to_owned()];
    };
    let mut wrong = Vec::new();
    let third = looks[looks.len() / 3];
    if last.rss_kb > third.rss_kb + GROWTH_KB {
        wrong.push(format!("memory grew from {} to {} KB", third.rss_kb, last.rss_kb));
    }
    for (what, before, after) in [
        ("memory of maps (KB)", first.maps_kb, last.maps_kb),
        ("descriptors", first.descriptors as u64, last.descriptors as u64),
        ("threads", first.threads as u64, last.threads as u64),
    ] {
        if after > before {
            wrong.push(format!("{what} grew from {before} to {after}"));
        }
    }
    wrong
}

/// What tcpwatch told.
#[derive(Debug, Default)]
struct Told {
    /// By network namespace and kind, aggregates as what they stand for.
    events: BTreeMap<(u64, String), u64>,
    lines: u64,
    books: Books,
}

impl Told {
    fn read(from: impl BufRead) -> Result<Self> {
        let mut told = Self::default();
        let mut summary = None;
        for line in from.lines() {
            let line = line.context("tcpwatch wrote what is no text")?;
            told.lines += 1;
            let of = || format!("tcpwatch wrote a line that is no event: {line}");
            match words::kind(&line).with_context(of)? {
                "start" | "lost" => {}
                "summary" => summary = Some(line),
                kind => {
                    // Without a namespace it is of none that the load had.
                    let netns = words::netns(&line).unwrap_or(0);
                    let count = words::count(&line).with_context(of)?;
                    *told.events.entry((netns, kind.to_owned())).or_default() += count;
                }
            }
        }
        let summary = summary.context("tcpwatch ended without a summary")?;
        told.books = words::books(&summary, 0)?;
        Ok(told)
    }

    fn of(&self, netns: u64, kind: &str) -> u64 {
        self.events.get(&(netns, kind.to_owned())).copied().unwrap_or(0)
    }

    fn sum(&self, kind: &str, among: &Played) -> u64 {
        among.resets.keys().map(|netns| self.of(*netns, kind)).sum()
    }

    fn words(&self, played: &Played) -> String {
        let hooks = || self.books.hooks.values();
        let resets: u64 = played.resets.values().sum();
        format!(
            "{} rounds, {} connections; kernel: {resets} RSTs; told: {} sent, {} received, in {} lines; of all hooks {} aggregated, {} lost, {} missed",
            played.rounds,
            played.connections,
            self.sum("rst_sent", played),
            self.sum("rst_received", played),
            self.lines,
            hooks().map(|hook| hook.aggregated).sum::<u64>(),
            hooks().map(|hook| hook.lost).sum::<u64>(),
            hooks().map(|hook| hook.missed).sum::<u64>(),
        )
    }

    /// What was not told as it happened, one sentence each. Books that do not balance were an error before.
    fn wrong(&self, played: &Played) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, hook) in &self.books.hooks {
            if hook.lost + hook.missed > 0 {
                wrong.push(format!("{name}: {} lost, {} missed", hook.lost, hook.missed));
            }
        }
        for (netns, resets) in &played.resets {
            for kind in ["rst_sent", "rst_received"] {
                let told = self.of(*netns, kind);
                if told != *resets {
                    wrong.push(format!("namespace {netns}: {told} {kind} of {resets} RSTs"));
                }
            }
        }
        wrong
    }
}

/// tcpwatch while it watches; what it writes is counted as it comes. Ends with this value.
struct Tool {
    child: Child,
    reader: Option<thread::JoinHandle<Result<Told>>>,
}

impl Tool {
    /// Comes back as soon as it watches.
    fn start(ground: &Ground, tcpwatch: &Path) -> Result<Self> {
        let mut command = Command::new(&ground.load);
        command.args(["tool", "--"]).arg(tcpwatch).arg("--json").stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start tcpwatch")?;
        let out = child.stdout.take().context("tcpwatch without output")?;
        let (ready, first) = mpsc::channel();
        let reader = thread::spawn(move || read(out, &ready));
        let mut tool = Self { child, reader: Some(reader) };
        if first.recv_timeout(LIMIT).is_err() {
            tool.still_runs()?;
            bail!("tcpwatch does not watch after {} s", LIMIT.as_secs());
        }
        Ok(tool)
    }

    fn still_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("tcpwatch ended by itself ({status}); its words are above"),
        }
    }

    fn end(mut self) -> Result<Told> {
        interrupt(self.child.id())?;
        // The pipe ends with the tool, and the reader with the pipe.
        let reader = self.reader.take().context("ended twice")?;
        let told = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("tcpwatch failed ({status}); its words are above");
        }
        Ok(told)
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(out: ChildStdout, ready: &mpsc::Sender<()>) -> Result<Told> {
    let mut lines = BufReader::with_capacity(1 << 20, out);
    let mut first = String::new();
    lines.read_line(&mut first).context("reading tcpwatch's first line")?;
    // Nobody waits any more where this took too long.
    let _ = ready.send(());
    Told::read(BufReader::new(first.as_bytes().chain(lines)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sent: u64, lost: u64) -> Result<Told> {
        let summary = format!(
            r#"{{"event":"summary","hooks":{{"tcp_send_reset":{{"seen":42,"delivered":{},"lost":{lost}}}}},"reconciliation":[]}}"#,
            42 - lost
        );
        let text = format!(
            "{}\n{}\n{}\n{}\n{summary}\n",
            r#"{"event":"start"}"#,
            format_args!(r#"{{"event":"rst_sent","netns":7,"count":{sent}}}"#),
            r#"{"event":"rst_received","netns":7,"count":41}"#,
            r#"{"event":"rst_sent","netns":9,"count":5}"#,
        );
        Told::read(text.as_bytes())
    }

    fn played() -> Played {
        Played { rounds: 1, connections: 41, resets: BTreeMap::from([(7, 41), (8, 0)]) }
    }

    #[test]
    fn every_reset_of_the_load_has_to_be_told() {
        let all = told(41, 0).unwrap();
        assert_eq!(all.wrong(&played()), Vec::<String>::new());
        assert!(all.words(&played()).contains("kernel: 41 RSTs; told: 41 sent, 41 received, in 5 lines"));
        assert_eq!(told(40, 0).unwrap().wrong(&played()), ["namespace 7: 40 rst_sent of 41 RSTs"]);
        assert_eq!(told(41, 1).unwrap().wrong(&played()), ["tcp_send_reset: 1 lost, 0 missed"]);
        assert!(told(41, 0).is_ok() && Told::read(&b"{\"event\":\"start\"}\n"[..]).is_err());
    }

    #[test]
    fn what_grows_is_named() {
        let look = Look { rss_kb: 9_000, maps_kb: 46_000, descriptors: 44, threads: 3 };
        let young = Look { rss_kb: 7_000, ..look };
        assert_eq!(grown(&[young, look, look, look]), Vec::<String>::new(), "tables fill at first");
        let fat = Look { rss_kb: 11_000, descriptors: 45, ..look };
        assert_eq!(
            grown(&[young, look, look, fat]),
            ["memory grew from 9000 to 11000 KB", "descriptors grew from 44 to 45"]
        );
        assert!(!grown(&[]).is_empty());
    }
}
