//! Pairs of runs, without and with a tool, where the harness cannot be: in a guest, where only ratios mean something.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::sys::{interrupt_with_us, signal};

/// An emulated machine takes its time.
const LIMIT: Duration = Duration::from_secs(120);

/// Plays `count` operations of a workload, by turns without a tool and with each of these command lines, and prints a line
/// of JSON for each pair. The first round does not count.
pub fn compare(workload: &str, count: u64, pairs: usize, tools: &[String]) -> Result<()> {
    for round in 0..=pairs {
        for tool in tools {
            let (rate, cpu) = play(workload, count)?;
            let watching = Watching::start(tool)?;
            let (rate_with, cpu_with) = play(workload, count)?;
            watching.end()?;
            if round > 0 {
                let line =
                    serde_json::json!({ "tool": tool, "rate": rate_with / rate, "cpu": cpu_with / cpu });
                writeln!(std::io::stdout(), "{line}").context("writing a line")?;
            }
        }
    }
    Ok(())
}

/// Operations a second, and CPU seconds of one of them.
fn play(workload: &str, count: u64) -> Result<(f64, f64)> {
    let program = std::env::current_exe().context("finding our own program")?;
    let mut start = Command::new(program);
    let warm_up = format!("--warm-up={}", count / 5);
    start.args(["play", workload, "--time=600", &format!("--count={count}"), &warm_up]);
    let mut child =
        start.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting the load")?;
    let mut input = child.stdin.take().context("a load without input")?;
    let mut lines = BufReader::new(child.stdout.take().context("a load without output")?).lines();
    let mut line =
        || lines.next().context("the load failed; its words are above")?.context("reading from the load");
    if line()? != "ready" {
        bail!("the load is not ready");
    }
    input.write_all(b"go\n")?;
    let report: Value = serde_json::from_str(&line()?).context("the load printed no figures")?;
    drop(input);
    if !child.wait()?.success() {
        bail!("the load failed; its words are above");
    }
    let of = |name: &str| report[name].as_f64().with_context(|| format!("the load printed no {name}"));
    let operations = of("operations")?;
    Ok((operations / of("wall_s")?, of("cpu_s")? / operations))
}

/// A tool that writes to a file.
struct Watching {
    child: Child,
    file: String,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.file);
    }
}

impl Watching {
    /// Comes back when its first line is there.
    fn start(tool: &str) -> Result<Self> {
        let file = format!("/tmp/tcpwatch-load.{}", std::process::id());
        let mut words = tool.split_whitespace();
        let mut start = Command::new(words.next().context("no tool to start")?);
        interrupt_with_us(&mut start);
        let out = File::create(&file).with_context(|| format!("making {file}"))?;
        let child = start.args(words).stdout(out).spawn().with_context(|| format!("starting {tool}"))?;
        let mut watching = Self { child, file };
        let end = Instant::now() + LIMIT;
        while !fs::read_to_string(&watching.file)?.contains('\n') {
            if let Some(status) = watching.child.try_wait()? {
                bail!("{tool} ended by itself ({status})");
            }
            if Instant::now() > end {
                bail!("{tool} wrote nothing in {} s", LIMIT.as_secs());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(watching)
    }

    fn end(mut self) -> Result<()> {
        signal(self.child.id() as i32, libc::SIGINT)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the tool failed ({status})");
        }
        Ok(())
    }
}
