//! The tcpwatch process under test: starts it, collects its lines, ends it as a user would.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::sys;

/// Loading and attaching takes seconds under emulation.
const START: Duration = Duration::from_secs(180);
/// In CLOSE_WAIT for longer is a leak.
const LEAK_AFTER: &str = "2s";
const END: Duration = Duration::from_secs(90);

#[derive(Default)]
struct Lines {
    all: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

pub struct Watch {
    child: Child,
    capture: PathBuf,
    lines: Arc<Lines>,
    stdout: Option<JoinHandle<()>>,
    stderr: Option<JoinHandle<String>>,
}

/// Everything that tcpwatch left behind.
pub struct Captured {
    pub lines: Vec<String>,
    /// What it wrote with `-w`.
    pub capture: PathBuf,
    pub events: Vec<Value>,
    /// What is wrong with the process or its lines.
    pub problems: Vec<String>,
    pub stderr: String,
}

impl Watch {
    /// Starts it and waits for the line that says that every hook is attached.
    pub fn start(path: &str, extra: &str) -> Result<Self> {
        let events = ["--events", "rst,listen,tw,state,leak", "--close-wait-after", LEAK_AFTER];
        Self::start_with(path, &events, extra)
    }

    /// The same, with these arguments for a start.
    pub fn start_with(path: &str, args: &[&str], extra: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let capture = std::env::temp_dir().join(format!("tcpwatch-{}-{number}.pcapng", std::process::id()));
        let mut command = Command::new(path);
        command
            .args(["trace", "--json", "-w"])
            .arg(&capture)
            .args(args)
            .args(extra.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        sys::interrupt_with_us(&mut command);
        let mut child = command.spawn().with_context(|| format!("starting {path}"))?;
        let lines = Arc::new(Lines::default());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let sink = Arc::clone(&lines);
        let stdout = std::thread::spawn(move || collect(out, &sink));
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            if let Some(mut err) = err {
                // What was read before an error is still worth showing.
                drop(err.read_to_string(&mut text));
            }
            text
        });
        let watch = Self { child, capture, lines, stdout: Some(stdout), stderr: Some(stderr) };
        watch.wait_start()
    }

    fn wait_start(mut self) -> Result<Self> {
        let end = Instant::now() + START;
        loop {
            let (seen, over) = {
                let all = self.lines.all.lock().unwrap_or_else(PoisonError::into_inner);
                let left = end.saturating_duration_since(Instant::now()).min(Duration::from_secs(1));
                let waiting = |all: &mut (Vec<String>, bool)| !all.1 && !has_start(&all.0);
                let (all, _) = self
                    .lines
                    .changed
                    .wait_timeout_while(all, left, waiting)
                    .unwrap_or_else(PoisonError::into_inner);
                (has_start(&all.0), all.1)
            };
            if seen {
                return Ok(self);
            }
            if over || Instant::now() > end {
                let captured = self.stop();
                bail!("tcpwatch did not start: {}", captured.stderr.trim());
            }
        }
    }

    /// Ctrl-C, then its last words.
    pub fn stop(&mut self) -> Captured {
        let mut problems = Vec::new();
        if let Err(error) = sys::signal(self.child.id() as i32, libc::SIGINT) {
            problems.push(format!("interrupting tcpwatch: {error}"));
        }
        let end = Instant::now() + END;
        let status = loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < end => sleep(Duration::from_millis(50)),
                Ok(None) => {
                    problems.push(format!("tcpwatch did not end within {} s after SIGINT", END.as_secs()));
                    drop(self.child.kill());
                    break self.child.wait().ok();
                }
                Ok(status) => break status,
                Err(error) => {
                    problems.push(format!("waiting for tcpwatch: {error}"));
                    break None;
                }
            }
        };
        if status.is_none_or(|status| !status.success()) {
            problems.push(format!("tcpwatch ended with {status:?}"));
        }
        if let Some(thread) = self.stdout.take() {
            drop(thread.join());
        }
        let stderr = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let lines = std::mem::take(&mut self.lines.all.lock().unwrap_or_else(PoisonError::into_inner).0);
        let mut events = Vec::with_capacity(lines.len());
        for line in &lines {
            match serde_json::from_str(line) {
                Ok(event) => events.push(event),
                Err(error) => problems.push(format!("not JSON ({error}): {line}")),
            }
        }
        Captured { lines, capture: self.capture.clone(), events, problems, stderr }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Gone already in the good case.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn has_start(lines: &[String]) -> bool {
    lines.iter().take(3).any(|line| line.contains("\"event\":\"start\""))
}

fn collect(out: Option<impl Read>, lines: &Lines) {
    if let Some(out) = out {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            lines.all.lock().unwrap_or_else(PoisonError::into_inner).0.push(line);
            lines.changed.notify_all();
        }
    }
    lines.all.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
    lines.changed.notify_all();
}
