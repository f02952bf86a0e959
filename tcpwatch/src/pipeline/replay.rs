//! A run over a capture: what was seen then is shown as if it were seen now. No kernel, no privileges.

use crate::capture::{Broken, Reader, Said};
use crate::cli::{Exit, WatchOptions, flow};
use crate::event::{CauseCount, Event, EventKind, Summary};
use crate::sink::{Shown, Sink};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tcpwatch_common::config::deliver;
use tcpwatch_common::owner::Owner;

/// Between two looks at what the user wants while a capture is played.
const TICK: Duration = Duration::from_millis(20);

/// A capture that was opened: a file, or a folder of files that follow each other.
pub(super) struct Opened {
    reader: Reader<Box<dyn Read>>,
    path: PathBuf,
    rest: VecDeque<PathBuf>,
    /// Of the files before.
    events: u64,
    /// When the run began that was told last: each file of a rotation begins with it.
    started: Option<u64>,
}

/// Opens a capture. In a folder every `*.pcapng` is a part, in the order of their names.
pub(super) fn open(path: &Path) -> Result<Opened> {
    let mut parts = parts(path)?;
    let path = parts.pop_front().context("nothing to read")?;
    let reader = open_one(&path)?;
    Ok(Opened { reader, path, rest: parts, events: 0, started: None })
}

fn parts(path: &Path) -> Result<VecDeque<PathBuf>> {
    if !path.is_dir() {
        return Ok(VecDeque::from([path.to_owned()]));
    }
    let cannot =
        || format!("cannot read the folder {}\nhint: the folder of `tcpwatch agent --ring`", path.display());
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(path).with_context(cannot)? {
        let file = entry.with_context(cannot)?.path();
        if file.extension().is_some_and(|extension| extension.to_string_lossy().starts_with("pcapng")) {
            parts.push(file);
        }
    }
    if parts.is_empty() {
        bail!("no capture lies in {}\nhint: the folder of `tcpwatch agent --ring`", path.display());
    }
    // Names of a rotation have the time in them, and a number behind it where several begin in one second.
    parts.sort_by_key(|file| (file.with_extension(""), file.as_os_str().len(), file.clone()));
    Ok(parts.into())
}

fn open_one(path: &Path) -> Result<Reader<Box<dyn Read>>> {
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let file = File::open(path).with_context(|| {
            format!("cannot open `{}`\nhint: a file that `tcpwatch -w FILE` wrote", path.display())
        })?;
        Box::new(BufReader::with_capacity(256 << 10, file))
    };
    Reader::new(input).map_err(|broken| told(path, &broken))
}

impl Opened {
    pub(super) fn host(&self) -> &crate::capture::Host {
        self.reader.host()
    }

    fn events(&self) -> u64 {
        self.events + self.reader.events()
    }

    /// The next thing that is said.
    fn advance(&mut self) -> Result<Option<Said>, Ended> {
        loop {
            match self.reader.advance() {
                Ok(Some(Said::Start(start))) if self.started == Some(start.mono_ns) => {}
                Ok(Some(said)) => {
                    if let Said::Start(start) = &said {
                        self.started = Some(start.mono_ns);
                    }
                    return Ok(Some(said));
                }
                Ok(None) => {
                    let Some(next) = self.rest.pop_front() else { return Ok(None) };
                    self.open_next(next)?;
                }
                // Killed in the middle of it, and started again: the next file goes on.
                Err(broken @ Broken::CutOff { .. }) if !self.rest.is_empty() => {
                    eprintln!(
                        "tcpwatch: {}",
                        told(&self.path, &broken).to_string().replace("\nhint: ", ": ")
                    );
                    let Some(next) = self.rest.pop_front() else { return Ok(None) };
                    self.open_next(next)?;
                }
                Err(broken) => return Err(Ended::Broken(told(&self.path, &broken))),
            }
        }
    }

    fn open_next(&mut self, next: PathBuf) -> Result<(), Ended> {
        self.events += self.reader.events();
        self.reader = open_one(&next).map_err(Ended::Broken)?;
        self.path = next;
        Ok(())
    }
}

fn told(path: &Path, broken: &Broken) -> anyhow::Error {
    anyhow!("`{}` {broken}", path.display())
}

/// What was seen in the part of it that is shown, for a capture that ends without its books.
#[derive(Default)]
struct Seen {
    first_ns: u64,
    last: (u64, u64),
    causes: HashMap<&'static str, u64>,
    shown: u64,
    lost: u64,
    closed: bool,
}

impl Seen {
    fn note(&mut self, event: &Event) {
        if self.first_ns == 0 {
            self.first_ns = event.mono_ns;
        }
        self.last = (event.mono_ns, event.time_ns);
        if let Some(cause) = &event.cause {
            *self.causes.entry(cause.id).or_default() += event.count;
        }
        self.shown += 1;
    }

    fn summary(&self) -> Summary {
        let count = |(id, count): (&&str, &u64)| CauseCount { id: (*id).to_owned(), count: *count };
        let mut causes: Vec<CauseCount> = self.causes.iter().map(count).collect();
        causes.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.id.cmp(&b.id)));
        let (mono_ns, time_ns) = self.last;
        let watched_ns = mono_ns.saturating_sub(self.first_ns);
        Summary { mono_ns, time_ns, watched_ns, causes, ..Summary::default() }
    }
}

/// Shows a capture, from `path`.
pub(super) fn run(
    options: &WatchOptions,
    path: &Path,
    mut reader: Opened,
    sink: &mut dyn Sink,
) -> Result<Exit> {
    // Nothing can be missed here: a reader who is slow is waited for.
    sink.closing();
    let mut seen = Seen::default();
    let ended = show(options, &mut reader, sink, &mut seen);
    // A screen stays until it was looked at.
    if ended.is_ok() && sink.plays_at().is_some() {
        if !seen.closed {
            sink.summary(&seen.summary())?;
        }
        while !sink.over() {
            std::thread::sleep(TICK);
        }
        return Ok(Exit::Ok);
    }
    // The rest of what was shown, before anything is said of the end.
    if !seen.closed && sink.judges_at_end() {
        sink.summary(&seen.summary())?;
    }
    sink.flush()?;
    match ended {
        Err(Ended::Output(error)) => return Err(error.into()),
        Err(Ended::Broken(error)) => return Err(error),
        Ok(()) => {}
    }
    if !seen.closed && options.count.is_none_or(|count| seen.shown < count) {
        eprintln!(
            "tcpwatch: `{}` ends without the books of the run, after {} events\nhint: the run was killed, still goes on, or \
             goes on in the next file of a rotation",
            path.display(),
            reader.events()
        );
    }
    Ok(if options.strict && seen.lost != 0 { Exit::Lost } else { Exit::Ok })
}

/// How far a capture was played.
#[derive(Default)]
struct Clock {
    /// A moment of the capture, and when it was shown.
    last: Option<(u64, Instant)>,
}

impl Clock {
    /// Waits until it is time for an event; false: whoever looks has seen enough.
    fn wait(&mut self, mono_ns: u64, sink: &mut dyn Sink) -> io::Result<bool> {
        let (since, mut shown) = *self.last.get_or_insert_with(|| (mono_ns, Instant::now()));
        let mut left = Duration::from_nanos(mono_ns.saturating_sub(since));
        while let Some(speed) = sink.plays_at().filter(|_| !left.is_zero()) {
            if sink.over() {
                return Ok(false);
            }
            sink.flush()?;
            let step = TICK.min(left.div_f64(speed.max(0.001)));
            std::thread::sleep(step);
            // What really passed, or a long capture would be late by every sleep.
            let now = Instant::now();
            left = left.saturating_sub((now - shown).mul_f64(speed));
            shown = now;
        }
        self.last = Some((mono_ns.max(since), shown));
        Ok(true)
    }
}

enum Ended {
    Output(io::Error),
    /// The capture cannot be read on.
    Broken(anyhow::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn show(
    options: &WatchOptions,
    reader: &mut Opened,
    sink: &mut dyn Sink,
    seen: &mut Seen,
) -> Result<(), Ended> {
    let mut clock = Clock::default();
    // Of several runs in one folder only the last one's are shown: each has its own.
    let mut books = None;
    while let Some(said) = reader.advance()? {
        if sink.over() {
            return Ok(());
        }
        match said {
            Said::Start(start) => sink.start(&start)?,
            Said::Standing(all) => {
                let netns = options.filter.netns;
                let wanted: Vec<_> = all.into_iter().filter(|one| netns == 0 || one.netns == netns).collect();
                sink.standing(&wanted)?;
            }
            Said::Lost(lost) => {
                sink.lost(&lost)?;
            }
            Said::Event(event) if admits(options, &event) => {
                if !clock.wait(event.mono_ns, sink)? {
                    return Ok(());
                }
                if sink.event(&event)? == Shown::No {
                    return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
                }
                seen.note(&event);
                if options.count.is_some_and(|count| seen.shown >= count) {
                    return Ok(());
                }
            }
            Said::Event(_) => {}
            Said::Summary(summary) => {
                seen.lost += summary.hooks.iter().map(|hook| hook.counters.lost + hook.missed).sum::<u64>();
                books = Some(summary);
            }
        }
    }
    if let Some(summary) = books {
        seen.closed = true;
        sink.summary(&summary)?;
    }
    Ok(())
}

/// As the kernel programs would have decided, had they been asked.
fn admits(options: &WatchOptions, event: &Event) -> bool {
    let wanted = match event.kind {
        EventKind::RstSent | EventKind::RstReceived => deliver::RST,
        EventKind::ListenDrop => deliver::LISTEN,
        EventKind::TwOverflow => deliver::TW,
        EventKind::CloseWaitLeak => deliver::LEAK,
        EventKind::Drop => deliver::DROP,
        EventKind::State => deliver::STATE,
        EventKind::Retransmit => deliver::RETRANSMIT,
    };
    if options.deliver & wanted == 0 {
        return false;
    }
    let owner = event.owner.as_ref();
    if let Some(cgroup) = &options.cgroup
        && owner.and_then(|owner| owner.cgroup.as_deref()) != Some(cgroup.as_str())
    {
        return false;
    }
    let owner = Owner { pid: owner.and_then(|owner| owner.pid).unwrap_or(0), ..Owner::default() };
    options.filter.admits_owner(&flow(event), &owner)
}
