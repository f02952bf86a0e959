//! Starting the tools that are measured: on a core of their own, with what they expect of a host; and how long that takes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::churn::destination;
use super::{loopback, programs, sys};
use crate::hosts::sys as hosts;
use crate::sys::{close, connect, interrupt_with_us, signal, socket};

/// A tool that has not started by then never will.
const LIMIT: Duration = Duration::from_secs(20);

/// From one connection that is refused to the next, while a tool starts.
const BETWEEN: Duration = Duration::from_millis(1);

/// Turns into the tool: pinned to a core, interrupted when the harness is gone, with tracefs where it looks for it.
pub fn become_tool(core: usize, command: &[String]) -> Result<()> {
    sys::interrupt_with_parent()?;
    sys::pin(core).with_context(|| format!("pinning the tool to core {core}"))?;
    mount_tracefs()?;
    let (program, args) = command.split_first().context("no tool to start")?;
    let error = Command::new(program).args(args).exec();
    Err(error).with_context(|| format!("starting {program}"))
}

/// libbpf and bpftrace read the numbers of tracepoints from tracefs, under the old name of its place. Where a host has not
/// mounted it, it is mounted for the tool alone.
fn mount_tracefs() -> Result<()> {
    if Path::new("/sys/kernel/debug/tracing/events").exists() {
        return Ok(());
    }
    hosts::own_mounts().context("a mount namespace for the tool")?;
    hosts::mount_new("debugfs", "/sys/kernel/debug")
        .context("mounting debugfs for the tool\nhint: the kernel needs CONFIG_DEBUG_FS and CONFIG_TRACING")
}

/// Starts a tool as [`become_tool`] does and prints how many milliseconds passed until it wrote a line with `mark`, and
/// until the first of its programs ran: something to see happens every millisecond. The tool has all cores of the host, as one
/// that a user starts; what looks at it sleeps in between, so as not to take one of them.
pub fn time_start(mark: &str, command: &[String]) -> Result<()> {
    mount_tracefs()?;
    let (program, args) = command.split_first().context("no tool to start")?;
    let _stats = sys::enable_bpf_stats().context("switching the run times of BPF programs on")?;
    let netns = loopback()?;
    let mut start = Command::new(program);
    start.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    interrupt_with_us(&mut start);
    let began = Instant::now();
    let mut child = start.spawn().with_context(|| format!("starting {program}"))?;
    let (tell, told) = mpsc::channel();
    let out = child.stdout.take().context("a tool without output")?;
    let wanted = mark.to_owned();
    let reader = thread::spawn(move || {
        let mut lines = BufReader::new(out);
        let mut line = Vec::new();
        let mut found = false;
        while lines.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            if !found && String::from_utf8_lossy(&line).contains(&wanted) {
                found = true;
                // Whoever waits for it may be gone.
                let _ = tell.send(began.elapsed());
            }
            line.clear();
        }
    });
    let mut ran = None;
    let mut said = None;
    let pid = child.id();
    let watched = netns.enter(|| {
        let mut turn = 0;
        while (ran.is_none() || said.is_none()) && began.elapsed() < LIMIT {
            // One that was refused goes through every kind of tracepoint that is looked at here.
            let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
            let _ = connect(fd, destination(turn, 9));
            close(fd)?;
            turn += 1;
            if ran.is_none() && programs::runs(pid).unwrap_or(0) > 0 {
                ran = Some(began.elapsed());
            }
            said = said.or_else(|| told.try_recv().ok());
            if fs::metadata(format!("/proc/{pid}/fdinfo")).is_err() {
                break;
            }
            thread::sleep(BETWEEN);
        }
        Ok(())
    });
    signal(pid as i32, libc::SIGINT)?;
    let status = child.wait()?;
    // A tool that ended by itself wrote its line, perhaps, and cannot be asked for its programs.
    drop(reader.join());
    watched?;
    let (Some(ran), Some(said)) = (ran, said.or_else(|| told.try_recv().ok())) else {
        bail!("{program} did not start within {} s ({status}): ran {ran:?}, said {said:?}", LIMIT.as_secs());
    };
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let line = serde_json::json!({ "ran_ms": ms(ran), "said_ms": ms(said) });
    writeln!(std::io::stdout(), "{line}").context("writing to the harness")
}
