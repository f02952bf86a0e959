//! The sink that writes a capture.
//!
//! Each event is a whole number of blocks and is handed over at once, so that whatever ends the run, all but the last block of
//! the file are whole. A file that follows another begins like the first: with the section, the interfaces and the start.

use super::block::{self, Statistics};
use super::{APPLICATION, packet};
use crate::event::{Event, Lost, Standing, Start, Summary};
use crate::sink::{Out, Shown, Sink, Weight, json};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// More than the bytes that blocks have beside the texts in them: a packet's interface, headers, options.
const FRAME: usize = 768;

/// The interface that stands for all: the first one.
const ALL: u32 = 0;

/// What the file says of the host it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// `x86_64`.
    pub hardware: String,
    /// `Linux 6.12.0`.
    pub system: String,
    pub name: String,
}

/// When a file is followed by another, and what they are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// With conversions of `strftime(3)`, if `every` is set.
    pub path: PathBuf,
    /// In bytes: the next event begins a new file.
    pub size: Option<u64>,
    pub every: Option<Duration>,
    /// Files of one name and different numbers; then the first is written over.
    pub files: Option<u32>,
}

/// Why a capture could not be written; inside of an [`io::Error`].
#[derive(Debug)]
pub struct Unwritable {
    path: PathBuf,
    why: io::Error,
}

impl Unwritable {
    fn wrap(path: &Path, why: io::Error) -> io::Error {
        // A reader that has gone is no error, wherever it sat.
        if why.kind() == io::ErrorKind::BrokenPipe {
            return why;
        }
        io::Error::new(why.kind(), Self { path: path.to_owned(), why })
    }
}

impl std::fmt::Display for Unwritable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "cannot write the capture `{}`: {}\nhint: a file in a directory that exists, on a disk with room",
            self.path.display(),
            self.why
        )
    }
}

impl std::error::Error for Unwritable {}

/// Opens the file of a capture.
pub type Opener = Box<dyn FnMut(&Path) -> io::Result<Box<dyn Out>>>;

/// Writes events to a file, or to one after the other.
pub struct CaptureSink {
    open: Opener,
    rotation: Rotation,
    host: Host,
    /// None while one file follows another.
    out: Option<Box<dyn Out>>,
    /// Of the file at hand.
    written: u64,
    /// It has more than what each file begins with.
    holds: bool,
    opened: Instant,
    /// Of files with this name.
    number: u32,
    /// The name before a number is put behind it.
    base: PathBuf,
    path: PathBuf,
    /// Interfaces of the file at hand, by namespace.
    interfaces: HashMap<u32, u32>,
    /// What each file begins with.
    start: Vec<u8>,
    standing: Vec<u8>,
    latest: Vec<Standing>,
    lost: u64,
    closing: bool,
    /// Kept from event to event.
    blocks: Vec<u8>,
    line: Vec<u8>,
    comment: String,
}

/// What to say of an event without a packet, in a line.
fn message(event: &Event) -> String {
    let mut message = event.kind.name().to_owned();
    if let (Some(local), Some(remote)) = (event.local, event.remote) {
        let _ = write!(message, " {local} {remote}");
    }
    match (&event.cause, event.old_state, event.new_state) {
        (Some(cause), ..) => {
            let _ = write!(message, ": {}", cause.summary);
        }
        (None, Some(old), Some(new)) => {
            let _ = write!(message, ": {old} to {new}");
        }
        _ => {}
    }
    message
}

impl CaptureSink {
    /// Opens the first file.
    pub fn new(mut open: Opener, rotation: Rotation, host: Host) -> io::Result<Self> {
        let base = named(&rotation);
        let out = open(&base).map_err(|error| Unwritable::wrap(&base, error))?;
        let mut sink = Self {
            open,
            rotation,
            host,
            out: Some(out),
            written: 0,
            holds: false,
            opened: Instant::now(),
            number: 0,
            path: base.clone(),
            base,
            interfaces: HashMap::new(),
            start: Vec::new(),
            standing: Vec::new(),
            latest: Vec::new(),
            lost: 0,
            closing: false,
            blocks: Vec::with_capacity(4096),
            line: Vec::with_capacity(2048),
            comment: String::new(),
        };
        sink.begin()?;
        Ok(sink)
    }

    /// The first blocks of a file.
    fn begin(&mut self) -> io::Result<()> {
        self.written = 0;
        self.opened = Instant::now();
        self.interfaces.clear();
        self.blocks.clear();
        let application = format!("{APPLICATION} {}", crate::VERSION);
        let comment =
            if self.host.name.is_empty() { String::new() } else { format!("host {}", self.host.name) };
        block::section(&mut self.blocks, &self.host.hardware, &self.host.system, &application, &comment);
        block::interface(&mut self.blocks, APPLICATION, "every network namespace of the host");
        self.blocks.extend_from_slice(&self.start);
        self.blocks.extend_from_slice(&self.standing);
        self.holds = false;
        self.put_beginning()
    }

    fn put(&mut self, weight: Weight) -> io::Result<Shown> {
        let Some(out) = &mut self.out else { return Ok(Shown::No) };
        let shown = out.put(&self.blocks, weight).map_err(|error| Unwritable::wrap(&self.path, error))?;
        if shown == Shown::Yes {
            self.written += self.blocks.len() as u64;
            self.holds = true;
        }
        Ok(shown)
    }

    /// What each file begins with, or the next one will.
    fn put_beginning(&mut self) -> io::Result<()> {
        let held = self.holds;
        self.put(Weight::Must)?;
        self.holds = held;
        Ok(())
    }

    fn show(&mut self) -> io::Result<()> {
        let Some(out) = &mut self.out else { return Ok(()) };
        out.flush().map_err(|error| Unwritable::wrap(&self.path, error))
    }

    /// Begins another file if it is time for it.
    fn rotate(&mut self, more: usize) -> io::Result<()> {
        let full = self.rotation.size.is_some_and(|size| {
            // A file has at least one event, however long that or its beginning is.
            more > 0 && self.written + (more + FRAME) as u64 > size && self.holds
        });
        let old = self.rotation.every.is_some_and(|every| self.opened.elapsed() >= every);
        if !full && !old {
            return Ok(());
        }
        let base = named(&self.rotation);
        if base == self.base {
            self.number += 1;
            if self.rotation.files.is_some_and(|files| self.number >= files) {
                self.number = 0;
            }
        } else {
            (self.base, self.number) = (base, 0);
        }
        self.show()?;
        self.path = numbered(&self.base, self.number);
        let blocks = std::mem::take(&mut self.blocks);
        // First, so that all of it is handed over: whoever opens the next file has this one ended.
        drop(self.out.take());
        let mut out = (self.open)(&self.path).map_err(|error| Unwritable::wrap(&self.path, error))?;
        if self.closing {
            out.closing();
        }
        self.out = Some(out);
        self.begin()?;
        self.blocks = blocks;
        Ok(())
    }

    fn explain(&mut self, event: &Event, note: &str) {
        let text = &mut self.comment;
        text.clear();
        // Writing to a string cannot fail.
        let _ = write!(text, "{}", event.kind.name());
        if event.count > 1 {
            let _ = write!(text, " (stands for {})", event.count);
        }
        if let Some(cause) = &event.cause {
            // The first line is all that some views show.
            let _ = write!(text, ": {}\ncause: {} ({})", cause.summary, cause.id, cause.certainty.name());
            for evidence in &cause.evidence {
                let _ = write!(text, "\n- {evidence}");
            }
            if let Some(fix) = &cause.fix {
                let _ = write!(text, "\nfix: {fix}");
            }
        }
        if let Some(owner) = &event.owner {
            let _ = write!(text, "\nowner: {} (known by: {})", owner.named(), owner.how);
        }
        if let Some(state) = event.state {
            let _ = write!(text, "\nstate: {state}");
        }
        if let Some(reason) = &event.reason {
            let _ = write!(text, "\nkernel reason: {} ({})", reason.name, reason.from.name());
        }
        let _ = write!(text, "\n{note}");
    }

    fn journal(&mut self, time_ns: u64, mono_ns: u64, message: &str) {
        block::journal(&mut self.blocks, time_ns, mono_ns, message, &self.line);
    }
}

impl Sink for CaptureSink {
    fn start(&mut self, start: &Start) -> io::Result<()> {
        json::start(&mut self.line, start)?;
        self.blocks.clear();
        let message = format!("tcpwatch {} began to watch on kernel {}", start.version, start.kernel);
        self.journal(start.time_ns, start.mono_ns, &message);
        self.start.clone_from(&self.blocks);
        self.put_beginning()?;
        self.show()
    }

    fn event(&mut self, event: &Event) -> io::Result<Shown> {
        json::event(&mut self.line, event)?;
        let Some(packet) = packet::of(event) else {
            let message = message(event);
            self.rotate(self.line.len() + message.len())?;
            self.blocks.clear();
            self.journal(event.time_ns, event.mono_ns, &message);
            return self.put(crate::sink::weight(event));
        };
        self.explain(event, packet.note);
        self.rotate(self.line.len() + self.comment.len())?;
        self.blocks.clear();
        let netns = event.netns.unwrap_or(0);
        let next = u32::try_from(self.interfaces.len() + 1).unwrap_or(u32::MAX);
        let interface = if netns == 0 { ALL } else { *self.interfaces.get(&netns).unwrap_or(&next) };
        if interface == next {
            let name = format!("netns {netns}");
            block::interface(&mut self.blocks, &name, "a network namespace, by its inode");
        }
        block::packet(
            &mut self.blocks,
            &block::Packet {
                interface,
                time_ns: event.time_ns,
                direction: packet.direction,
                bytes: &packet.headers,
                length: packet.length,
                comment: &self.comment,
                event: &self.line,
            },
        );
        let shown = self.put(crate::sink::weight(event))?;
        if shown == Shown::Yes && interface == next {
            self.interfaces.insert(netns, next);
        }
        Ok(shown)
    }

    /// Whoever reads the capture may want to judge it.
    fn judges(&self) -> bool {
        true
    }

    fn standing(&mut self, all: &[Standing]) -> io::Result<()> {
        // The same as at the last look, but for the time: nothing new.
        let timeless = |one: &Standing| Standing { time_ns: 0, ..one.clone() };
        let latest: Vec<Standing> = all.iter().map(timeless).collect();
        if !self.closing
            && std::mem::replace(&mut self.latest, latest.clone()) == latest
            && !self.standing.is_empty()
        {
            return Ok(());
        }
        let now = all.first().map_or_else(crate::sink::time::now_ns, |one| one.time_ns);
        json::standing(&mut self.line, all, now)?;
        self.rotate(self.line.len())?;
        self.blocks.clear();
        self.journal(now, 0, "listeners and TIME_WAIT tables as they stand");
        self.standing.clone_from(&self.blocks);
        self.put_beginning()?;
        Ok(())
    }

    fn lost(&mut self, lost: &Lost) -> io::Result<Shown> {
        json::lost(&mut self.line, lost)?;
        self.rotate(self.line.len())?;
        self.blocks.clear();
        let message = format!("{} events of {} were lost", lost.count, lost.hook);
        self.journal(lost.time_ns, lost.mono_ns, &message);
        let total = self.lost + lost.count;
        let known = Statistics { lost: total, ..Statistics::default() };
        block::statistics(&mut self.blocks, ALL, lost.time_ns, known);
        let shown = self.put(Weight::Note)?;
        if shown == Shown::Yes {
            self.lost = total;
        }
        Ok(shown)
    }

    fn closing(&mut self) {
        self.closing = true;
        if let Some(out) = &mut self.out {
            out.closing();
        }
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        json::summary(&mut self.line, summary)?;
        self.rotate(self.line.len())?;
        self.blocks.clear();
        self.journal(summary.time_ns, summary.mono_ns, "tcpwatch stopped watching; its books");
        let mut all = Statistics::default();
        for hook in &summary.hooks {
            all.seen += hook.counters.seen;
            all.filtered += hook.counters.filtered;
            all.delivered += hook.counters.delivered;
            all.lost += hook.counters.lost + hook.missed;
        }
        block::statistics(&mut self.blocks, ALL, summary.time_ns, all);
        self.put(Weight::Must)?;
        self.show()
    }

    fn flush(&mut self) -> io::Result<()> {
        // Also when nothing happens.
        self.rotate(0)?;
        self.show()
    }
}

/// The name of a file that begins now.
fn named(rotation: &Rotation) -> PathBuf {
    let text = rotation.path.to_str().filter(|_| rotation.every.is_some());
    let stamped = text.and_then(|text| crate::sink::time::strftime(text, crate::sink::time::now_ns()));
    stamped.map_or_else(|| rotation.path.clone(), PathBuf::from)
}

/// As `tcpdump -C` does: the first file has no number.
fn numbered(base: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return base.to_owned();
    }
    let mut name = base.as_os_str().to_owned();
    name.push(number.to_string());
    PathBuf::from(name)
}
