//! One run: start the tool, play the load, wait until the tool has nothing left to do, end it, read what it wrote.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::data::{Held, Load, Run, ToolRun};
use super::process::{self, Cores};
use super::tools::{Kind, Tool};
use super::words;
use super::workload::Workload;
use crate::cmd;

/// A tool that does not watch by then never will; one that does not end by then hangs.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// The kernel clears the namespace of the run before, on whatever core.
pub(super) const SETTLE: Duration = Duration::from_millis(250);
/// From the moment that a rival has loaded its programs until they are surely attached.
const ATTACH: Duration = Duration::from_millis(500);

/// Where things are.
pub(super) struct Ground {
    pub(super) load: PathBuf,
    /// A folder for what tools write.
    pub(super) scratch: PathBuf,
    /// Seconds that a run lasts which is not counted.
    pub(super) seconds: f64,
}

/// A tool that watches. Ends with this value.
struct Watching<'a> {
    tool: &'a Tool,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        // After a failure it may still run; after a success it has been waited for, and this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.out);
        let _ = fs::remove_file(&self.err);
    }
}

impl<'a> Watching<'a> {
    /// Comes back as soon as it watches.
    fn start(ground: &Ground, tool: &'a Tool) -> Result<Self> {
        let (out, err) = (ground.scratch.join("out"), ground.scratch.join("err"));
        let file =
            |path: &PathBuf| File::create(path).with_context(|| format!("cannot make {}", path.display()));
        let mut command = Command::new(&ground.load);
        command.args(["tool", "--"]).args(&tool.argv).stdin(Stdio::piped());
        command.stdout(file(&out)?).stderr(file(&err)?);
        let child = command.spawn().with_context(|| format!("cannot start `{}`", cmd::line(&command)))?;
        let mut watching = Self { tool, child, out, err };
        let end = Instant::now() + LIMIT;
        while !watching.is_ready()? {
            watching.still_runs()?;
            if Instant::now() > end {
                bail!("{} does not watch after {} s: {}", tool.name, LIMIT.as_secs(), watching.complaint());
            }
            sleep(Duration::from_millis(5));
        }
        if matches!(tool.kind, Kind::Lines | Kind::Sums) {
            sleep(ATTACH);
            watching.still_runs()?;
        }
        Ok(watching)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The line that says so, where it is written once every hook is attached; for the others, a loaded program.
    fn is_ready(&self) -> Result<bool> {
        match self.tool.kind {
            Kind::Tcpwatch | Kind::Empty => {
                Ok(first_line(&self.out)?.is_some_and(|line| line.contains(self.tool.mark)))
            }
            Kind::Lines | Kind::Sums => {
                let Ok(all) = fs::read_dir(format!("/proc/{}/fdinfo", self.pid())) else { return Ok(false) };
                let holds =
                    |file: PathBuf| fs::read_to_string(file).is_ok_and(|text| text.contains("prog_id:"));
                Ok(all.flatten().any(|entry| holds(entry.path())))
            }
        }
    }

    fn still_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself ({status}): {}", self.tool.name, self.complaint()),
        }
    }

    fn complaint(&self) -> String {
        let text = fs::read_to_string(&self.err).unwrap_or_default();
        let text = text.trim();
        if text.is_empty() { "it said nothing".to_owned() } else { text.to_owned() }
    }

    /// Ends it, and counts what it wrote of the load's namespace.
    fn end(mut self, netns: u64, mut run: ToolRun) -> Result<ToolRun> {
        self.still_runs()?;
        let rival = matches!(self.tool.kind, Kind::Lines | Kind::Sums);
        // The empty programs end with their input, the others as by Ctrl-C.
        drop(self.child.stdin.take());
        if self.tool.kind != Kind::Empty {
            interrupt(self.pid())?;
        }
        let (mut asked, end) = (Instant::now(), Instant::now() + LIMIT);
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > end {
                bail!("{} does not end {} s after SIGINT", self.tool.name, LIMIT.as_secs());
            }
            // bpftrace 0.17 notices the signal only while it waits for events, and may be busy with one.
            if rival && asked.elapsed() > Duration::from_secs(1) {
                asked = Instant::now();
                interrupt(self.pid())?;
            }
            sleep(Duration::from_millis(5));
        };
        // Some rivals do not catch the signal.
        const SIGINT: i32 = 2;
        let in_order = status.success() || (rival && status.signal() == Some(SIGINT));
        if !in_order {
            bail!("{} failed ({status}): {}", self.tool.name, self.complaint());
        }
        let written = File::open(&self.out).context("what the tool wrote is gone")?;
        let what = || format!("reading what {} wrote", self.tool.name);
        match self.tool.kind {
            Kind::Tcpwatch => words::tcpwatch(written, netns, &mut run).with_context(what)?,
            Kind::Lines => words::rival(written, &mut run).with_context(what)?,
            Kind::Sums => words::counted(written, &mut run).with_context(what)?,
            Kind::Empty => {}
        }
        run.lost += words::lost(&fs::read_to_string(&self.err).unwrap_or_default());
        Ok(run)
    }
}

/// Asks a tool to end, as by Ctrl-C.
pub(super) fn interrupt(pid: u32) -> Result<()> {
    // The shell's own `kill`: not every system has the program. One that is gone needs none.
    cmd::said(Command::new("sh").args(["-c", &format!("kill -INT {pid} 2>&1; echo")])).map(drop)
}

/// The first line, once it is whole.
fn first_line(file: &PathBuf) -> Result<Option<String>> {
    let mut line = String::new();
    BufReader::new(File::open(file)?).read_line(&mut line)?;
    Ok(line.ends_with('\n').then_some(line))
}

/// A load that is set up and waits. Its namespace ends with it.
pub(super) struct Playing {
    child: Child,
    input: Option<ChildStdin>,
    lines: BufReader<std::process::ChildStdout>,
    what: String,
}

impl Drop for Playing {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

impl Playing {
    pub(super) fn start(ground: &Ground, args: &[String]) -> Result<Self> {
        let mut command = Command::new(&ground.load);
        command.arg("play").args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let what = cmd::line(&command);
        let mut child = command.spawn().with_context(|| format!("cannot start `{what}`"))?;
        let out = child.stdout.take().context("a load without output")?;
        let input = child.stdin.take();
        let mut playing = Self { child, input, lines: BufReader::new(out), what };
        let line = playing.line()?;
        if line != "ready" {
            bail!("`{}` said {line:?} instead of ready", playing.what);
        }
        Ok(playing)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            bail!("`{}` failed ({}); its words are above", self.what, self.child.wait()?);
        }
        Ok(line.trim_end().to_owned())
    }

    pub(super) fn go(&mut self) -> Result<Load> {
        self.input.as_mut().context("a load without input")?.write_all(b"go\n")?;
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("`{}` printed no figures: {line}", self.what))
    }
}

impl Ground {
    /// One run of a workload, with or without a tool; `costs`: the kernel takes the time of the tool's programs.
    pub(super) fn run(&self, workload: &Workload, tool: Option<&Tool>, costs: bool) -> Result<Run> {
        let what = || format!("{} with {}", workload.name, tool.map_or("no tool", |tool| tool.name));
        self.run_once(workload, tool, costs).with_context(what)
    }

    fn run_once(&self, workload: &Workload, tool: Option<&Tool>, costs: bool) -> Result<Run> {
        sleep(SETTLE);
        let watching = tool.map(|tool| Watching::start(self, tool)).transpose()?;
        let pid = watching.as_ref().map(Watching::pid);
        let mut args: Vec<String> = workload.args.iter().map(|word| (*word).to_owned()).collect();
        match workload.count {
            Some(count) => args.extend([format!("--count={count}"), "--time=60".to_owned()]),
            None => args.push(format!("--time={}", self.seconds)),
        }
        if let Some(pid) = pid.filter(|_| costs) {
            args.push(format!("--programs-of={pid}"));
        }
        let mut playing = Playing::start(self, &args)?;
        let mut seen = ToolRun::default();
        let mut cpu = 0.0;
        if let Some(pid) = pid {
            // The warm-up is behind it, too.
            process::wait_until_quiet(pid)?;
            (seen.rss_before_kb, _) = process::rss_kb(pid)?;
            seen.maps_kb = process::maps_kb(pid)?;
            cpu = process::cpu_s(pid)?;
        }
        let cores = Cores::now()?;
        let load = playing.go()?;
        let (busy, stolen_s) = Cores::now()?.since(cores);
        if let Some(pid) = pid {
            seen.cpu_during_s = process::cpu_s(pid)? - cpu;
            process::wait_until_quiet(pid)?;
            seen.cpu_s = process::cpu_s(pid)? - cpu;
            (seen.rss_after_kb, seen.rss_peak_kb) = process::rss_kb(pid)?;
        }
        let others_s = (busy - load.cpu_s - seen.cpu_during_s).max(0.0);
        if load.operations == 0 {
            bail!("not one operation was played");
        }
        let tool = watching.map(|watching| watching.end(load.netns, seen)).transpose()?;
        drop(playing);
        Ok(Run { load, tool, others_s, stolen_s })
    }

    /// Starts a tool and ends it: why it does not work here, if it does not.
    pub(super) fn probe(&self, tool: &Tool) -> Option<String> {
        let tried = Watching::start(self, tool).and_then(|watching| watching.end(0, ToolRun::default()));
        tried.err().map(|error| format!("{error:#}"))
    }

    /// tcpwatch's first line, which tells its hooks.
    pub(super) fn first_line_of(&self, tcpwatch: &str) -> Result<String> {
        let text = cmd::output(Command::new(tcpwatch).args(["--json", "--for", "100ms"]))?;
        text.lines().next().map(str::to_owned).context("tcpwatch wrote nothing")
    }

    /// Milliseconds until one of a tool's programs ran, and until it said that it has started.
    pub(super) fn start(&self, tool: &Tool) -> Result<(f64, f64)> {
        sleep(SETTLE);
        let mut command = Command::new(&self.load);
        command.args(["start", "--mark", tool.mark, "--"]).args(&tool.argv);
        let line = cmd::output(&mut command)?;
        let figures: serde_json::Value =
            serde_json::from_str(&line).with_context(|| format!("no figures of a start: {line}"))?;
        let of = |name: &str| figures[name].as_f64().with_context(|| format!("no {name} in {line}"));
        Ok((of("ran_ms")?, of("said_ms")?))
    }

    /// A tool beside many open connections: `watched`, it sees them come; otherwise they are there when it starts.
    pub(super) fn hold(&self, tool: &Tool, connections: u64, watched: bool) -> Result<Held> {
        sleep(SETTLE);
        const SECONDS: f64 = 3.0;
        let args = ["idle".to_owned(), format!("--count={connections}"), format!("--time={SECONDS}")];
        let (watching, mut playing);
        if watched {
            watching = Watching::start(self, tool)?;
            playing = Playing::start(self, &args)?;
        } else {
            playing = Playing::start(self, &args)?;
            watching = Watching::start(self, tool)?;
        }
        let pid = watching.pid();
        process::wait_until_quiet(pid)?;
        let (rss_kb, _) = process::rss_kb(pid)?;
        let cpu = process::cpu_s(pid)?;
        let load = playing.go()?;
        let idle_share = (process::cpu_s(pid)? - cpu) / load.wall_s;
        let (_, rss_peak_kb) = process::rss_kb(pid)?;
        let maps_kb = process::maps_kb(pid)?;
        watching.end(load.netns, ToolRun::default())?;
        Ok(Held {
            tool: tool.name.to_owned(),
            connections,
            watched,
            rss_kb,
            rss_peak_kb,
            maps_kb,
            idle_share,
        })
    }
}
