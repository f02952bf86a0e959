//! One run of tcpwatch as a child process: how it is started, what it prints, how it ends. Everything has a time limit.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::sys;

/// Loading and attaching takes seconds under emulation, and several at once take turns.
pub(crate) const START: Duration = Duration::from_secs(180);
/// Taking everything off takes seconds there, too.
pub(crate) const END: Duration = Duration::from_secs(60);

/// How to start tcpwatch.
pub(crate) struct Tool {
    command: Command,
    reader: Reader,
}

/// Who reads its standard output.
enum Reader {
    Collect,
    /// The test does, or nobody.
    Ours,
    Elsewhere,
}

impl Tool {
    /// On this host as it is.
    pub(crate) fn plain(path: &str, args: &[&str]) -> Self {
        let mut command = Command::new(path);
        command.args(args);
        Self::of(command)
    }

    /// On a host made odd by `disguise`.
    pub(crate) fn disguised(path: &str, disguise: &[&str], args: &[&str]) -> Self {
        let mut command = Command::new("/proc/self/exe");
        command.arg("disguise").args(disguise).args(["--", path]).args(args);
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        // Nobody's settings but ours.
        command.env_remove("TCPWATCH_DEBUG").env_remove("RUST_BACKTRACE");
        // A group of its own: signals reach what a disguise put in between, and not us.
        command.process_group(0);
        sys::interrupt_with_us(&mut command);
        Self { command, reader: Reader::Collect }
    }

    /// The caller reads standard output, as slowly as it likes.
    pub(crate) fn read_by_test(mut self) -> Self {
        self.reader = Reader::Ours;
        self
    }

    pub(crate) fn stdout(mut self, to: impl Into<Stdio>) -> Self {
        self.command.stdout(to);
        self.reader = Reader::Elsewhere;
        self
    }

    pub(crate) fn spawn(mut self) -> Result<Running> {
        if !matches!(self.reader, Reader::Elsewhere) {
            self.command.stdout(Stdio::piped());
        }
        let mut child = self.command.spawn().context("starting tcpwatch")?;
        let shared = Arc::new(Shared::default());
        let mut reader = None;
        let mut ours = None;
        match (self.reader, child.stdout.take()) {
            (Reader::Collect, Some(out)) => {
                let shared = Arc::clone(&shared);
                reader = Some(std::thread::spawn(move || collect(out, &shared)));
            }
            (_, out) => ours = out,
        }
        let mut err = child.stderr.take();
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let stderr = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // What was read before an error is still worth showing.
            while let Some(Ok(count @ 1..)) = err.as_mut().map(|err| err.read(&mut bytes)) {
                heard.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..count]);
            }
            String::from_utf8_lossy(&heard.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
        });
        Ok(Running { child, shared, reader, stderr: Some(stderr), said, ours })
    }

    /// The whole of a run that ends by itself.
    pub(crate) fn run(self) -> Result<Ended> {
        self.spawn()?.wait(START)
    }
}

#[derive(Default)]
struct Shared {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<String>,
    over: bool,
    /// The last line had its line feed.
    whole: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn collect(out: impl Read, shared: &Shared) {
    let mut reader = BufReader::new(out);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
        let mut lines = shared.lock();
        lines.whole = bytes.ends_with(b"\n");
        lines.all.push(String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned());
        shared.changed.notify_all();
        bytes.clear();
    }
    shared.lock().over = true;
    shared.changed.notify_all();
}

/// A run in progress.
pub(crate) struct Running {
    child: Child,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    stderr: Option<JoinHandle<String>>,
    said: Arc<Mutex<Vec<u8>>>,
    ours: Option<ChildStdout>,
}

impl Running {
    /// What it wrote to standard error so far.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Standard output, for who reads it himself.
    pub(crate) fn take_stdout(&mut self) -> Result<ChildStdout> {
        self.ours.take().context("standard output is read by somebody else")
    }

    /// From now on it is read as fast as it goes, after `lines`, which the test has read itself.
    pub(crate) fn read_on(&mut self, out: impl Read + Send + 'static, lines: Vec<String>) {
        self.shared.lock().all = lines;
        let shared = Arc::clone(&self.shared);
        self.reader = Some(std::thread::spawn(move || collect(out, &shared)));
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let row = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = row.and_then(|row| row.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        Ok(kib.context("no VmRSS")? << 10)
    }

    /// Waits until so many lines are there for which `wanted` holds.
    pub(crate) fn wait_lines(
        &mut self,
        count: usize,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let enough = |lines: &Lines| lines.all.iter().filter(|line| wanted(line)).count() >= count;
        let (lines, _) = shared
            .changed
            .wait_timeout_while(shared.lock(), START, |lines| !lines.over && !enough(lines))
            .unwrap_or_else(PoisonError::into_inner);
        if enough(&lines) {
            return Ok(());
        }
        let over = lines.over;
        drop(lines);
        if over {
            let ended = self.finish(END)?;
            bail!("it ended ({}) before {what}: {}", ended.status, ended.stderr.trim());
        }
        bail!("waited in vain for {what}")
    }

    /// Waits for the line that says that every hook is attached.
    pub(crate) fn started(mut self) -> Result<Self> {
        self.wait_lines(1, "the start", |line| line.starts_with(r#"{"event":"start""#))?;
        Ok(self)
    }

    /// Waits for so many events.
    pub(crate) fn wait_events(&mut self, count: usize) -> Result<()> {
        self.wait_lines(count, &format!("{count} events"), |line| {
            !["start", "lost", "summary"]
                .iter()
                .any(|word| line.starts_with(&format!(r#"{{"event":"{word}""#)))
        })
    }

    pub(crate) fn signal(&self, number: i32) -> Result<()> {
        sys::signal(-self.pid(), number).with_context(|| format!("signal {number} to tcpwatch"))
    }

    /// Ctrl-C, then its last words.
    pub(crate) fn stop(self) -> Result<Ended> {
        self.stop_by(libc::SIGINT)
    }

    pub(crate) fn stop_by(self, signal: i32) -> Result<Ended> {
        self.signal(signal)?;
        self.wait(END)
    }

    pub(crate) fn wait(mut self, limit: Duration) -> Result<Ended> {
        self.finish(limit)
    }

    fn finish(&mut self, limit: Duration) -> Result<Ended> {
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(asked.elapsed() < limit, "it did not end within {:.1} s", limit.as_secs_f64());
            sleep(Duration::from_millis(5));
        };
        let took = asked.elapsed();
        // Whoever has the pipe still open would keep the readers waiting, and there should be nobody.
        drop(self.ours.take());
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
        let stderr = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let mut lines = self.shared.lock();
        let whole = lines.whole || lines.all.is_empty();
        let stdout = std::mem::take(&mut lines.all);
        Ok(Ended { status, stdout, whole, stderr, took })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already in the good case; the group, because a disguise may stand in between.
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(sys::signal(-self.pid(), libc::SIGKILL));
            drop(self.child.wait());
        }
    }
}

/// What a run left behind.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<String>,
    /// The last line ends in a line feed.
    whole: bool,
    pub(crate) stderr: String,
    /// From the question to the end.
    pub(crate) took: Duration,
}

impl Ended {
    pub(crate) fn exits(&self, code: i32) -> Result<()> {
        ensure!(
            self.status.code() == Some(code),
            "it ended with {} and not with exit status {code}; it said: {}",
            self.status,
            self.stderr.trim()
        );
        Ok(())
    }

    pub(crate) fn is_silent(&self) -> Result<()> {
        ensure!(self.stderr.is_empty(), "it said: {}", self.stderr.trim());
        Ok(())
    }

    /// It refused: with this status, in words that say what and on which object, and with a hint as the last line.
    pub(crate) fn refused(&self, code: i32, words: &[&str]) -> Result<()> {
        self.exits(code)?;
        self.complains(words)?;
        ensure!(self.stdout.is_empty(), "it printed {} lines nevertheless", self.stdout.len());
        Ok(())
    }

    pub(crate) fn complains(&self, words: &[&str]) -> Result<()> {
        let said = self.stderr.trim();
        for word in words {
            ensure!(said.contains(word), "it does not say `{word}`: {said}");
        }
        ensure!(said.starts_with("tcpwatch: "), "it does not say who speaks: {said}");
        ensure!(!said.contains("panicked"), "it panicked: {said}");
        let hint = said.lines().last().and_then(|line| line.strip_prefix("hint: "));
        let Some(hint) = hint else { bail!("the last line is no hint: {said}") };
        ensure!(said.matches("hint: ").count() == 1, "it has several hints: {said}");
        ensure!(!hint.contains("os error"), "the error stands behind the hint: {said}");
        Ok(())
    }

    pub(crate) fn whole_lines(&self) -> bool {
        self.whole
    }

    /// Every line as JSON; broken lines, a wrong first or last line and books that do not balance are errors.
    pub(crate) fn events(&self) -> Result<Books> {
        ensure!(self.whole, "the last line is cut off");
        let parse = |line: &String| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"));
        Books::new(self.stdout.iter().map(parse).collect::<Result<Vec<Value>>>()?)
    }
}

/// What one run printed as JSON, checked.
pub(crate) struct Books {
    pub(crate) start: Value,
    pub(crate) events: Vec<Value>,
    pub(crate) summary: Value,
    pub(crate) lost: u64,
}

/// The books of one hook, in the order in which they have to add up.
const ROW: [&str; 5] = ["seen", "delivered", "filtered", "aggregated", "lost"];

impl Books {
    fn new(mut lines: Vec<Value>) -> Result<Self> {
        let kind = |value: &Value| value["event"].as_str().unwrap_or_default().to_owned();
        ensure!(lines.len() >= 2, "{} lines are no whole output", lines.len());
        let summary = lines.pop().unwrap_or_default();
        let start = lines.remove(0);
        ensure!(kind(&start) == "start", "the first line is `{}`", kind(&start));
        ensure!(kind(&summary) == "summary", "the last line is `{}`", kind(&summary));
        let (losses, events): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| kind(line) == "lost");
        let stray = |event: &&Value| ["start", "summary", ""].contains(&kind(event).as_str());
        ensure!(!events.iter().any(|event| stray(&event)), "`start` or `summary` in the middle");
        let books = Self { start, events, summary, lost: 0 };
        let mut delivered = 0;
        let mut lost = 0;
        for (hook, row) in books.hooks() {
            let [seen, rest @ ..] = ROW.map(|name| row[name].as_u64());
            let sum = rest.iter().flatten().sum::<u64>();
            ensure!(seen == Some(sum), "the books of {hook} do not balance: {row}");
            delivered += row["delivered"].as_u64().unwrap_or(0);
            let told = losses.iter().filter(|line| line["hook"] == hook.as_str());
            let told: u64 = told.filter_map(|line| line["count"].as_u64()).sum();
            ensure!(row["lost"] == told, "{hook} lost {} and said {told}", row["lost"]);
            lost += told;
        }
        // A leak is found by looking, and no hook has it in its books.
        let of_hooks = books.events.iter().filter(|event| kind(event) != "close_wait_leak");
        let shown: u64 = of_hooks.map(|event| event["count"].as_u64().unwrap_or(0)).sum();
        let aggregated = books.sum("aggregated");
        ensure!(
            delivered + aggregated == shown,
            "the summary says {delivered} delivered and {aggregated} aggregated, printed were {shown}"
        );
        Ok(Self { lost, ..books })
    }

    pub(crate) fn hooks(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.summary["hooks"].as_object().into_iter().flatten()
    }

    /// One column of the books over all hooks.
    pub(crate) fn sum(&self, column: &str) -> u64 {
        self.hooks().filter_map(|(_, row)| row[column].as_u64()).sum()
    }

    /// Name and way of every hook that is attached.
    pub(crate) fn attached(&self) -> Vec<(String, String)> {
        let hooks = self.start["hooks"].as_object().into_iter().flatten();
        let mut all: Vec<_> = hooks
            .filter_map(|(name, row)| Some((name.clone(), row["attached"].as_str()?.to_owned())))
            .collect();
        all.sort();
        all
    }

    pub(crate) fn of(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(move |event| event["event"] == kind)
    }
}
