//! What was typed, checked and with its meaning.

use super::args::{
    DiagnoseArgs, DoctorArgs, ExplainArgs, FilterArgs, KernelArgs, OutputArgs, Page, Sub, TraceArgs, Typed,
};
use super::filter::{self, Family};
use super::{Command, Error, lookup, values};
use crate::host::Host;
use crate::source::TABLE;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tcpwatch_common::filter::Filter;

/// Ring buffer in bytes when nobody says otherwise: some thousand events.
const DEFAULT_BUFFER: u32 = 4 << 20;

/// Honest programs close within seconds of the peer's FIN.
const CLOSE_WAIT_AFTER: Duration = Duration::from_secs(60);

/// More than anybody reads, and at four microseconds each little enough for a flood to go unnoticed by the host.
const STORM: u32 = 1_000;

/// How long `diagnose` watches.
const DIAGNOSE_FOR: Duration = Duration::from_secs(30);

/// Which rungs of the attach ladder may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// The best that the host grants, hook by hook.
    #[default]
    Auto,
    Fentry,
    Kprobe,
    Tracepoint,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    /// `no_color`: the environment has a `NO_COLOR` that is not empty (<https://no-color.org>).
    pub fn is_on(self, terminal: bool, no_color: bool) -> bool {
        match self {
            Self::Auto => terminal && !no_color,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// What to watch, and how: of every command that attaches to the kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchOptions {
    /// What the kernel side lets through.
    pub filter: Filter,
    /// Bits of [`tcpwatch_common::config::deliver`].
    pub deliver: u32,
    /// A socket that is in CLOSE_WAIT for longer is a leak.
    pub close_wait_after: Duration,
    /// Stop after so long.
    pub duration: Option<Duration>,
    /// Stop after so many events.
    pub count: Option<u64>,
    /// Show the kernel stack.
    pub stack: bool,
    pub json: bool,
    pub color: Color,
    /// Events of one kind, port and peer network that are told one by one in a second; `None`: all of them.
    pub storm: Option<u32>,
    /// Lost events make the exit status [`super::Exit::Lost`].
    pub strict: bool,
    pub attach: Attach,
    /// BTF of the running kernel; `None`: from `/sys/kernel/btf/vmlinux`.
    pub btf: Option<PathBuf>,
    /// Bytes of the ring buffer, a power of two and a multiple of 64 KiB.
    pub buffer: u32,
    /// Live sockets to remember.
    pub sockets: u32,
    /// Ended connections to remember.
    pub ended: u32,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            filter: Filter::NONE,
            deliver: values::DEFAULT_EVENTS,
            close_wait_after: CLOSE_WAIT_AFTER,
            duration: None,
            count: None,
            stack: false,
            json: false,
            color: Color::Auto,
            storm: Some(STORM),
            strict: false,
            attach: Attach::Auto,
            btf: None,
            buffer: DEFAULT_BUFFER,
            sockets: TABLE,
            ended: TABLE,
        }
    }
}

/// `tcpwatch doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DoctorOptions {
    pub json: bool,
    /// Count callers instead.
    pub census: bool,
    /// As in [`TraceOptions::btf`].
    pub btf: Option<PathBuf>,
}

/// `tcpwatch explain`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExplainOptions {
    /// `None`: everything, in short.
    pub name: Option<String>,
    pub json: bool,
    /// As in [`TraceOptions::btf`].
    pub btf: Option<PathBuf>,
}

pub(super) fn check(typed: Typed, host: &Host) -> Result<Command, Error> {
    Ok(match typed.command {
        None => Command::Trace(trace(typed.trace, host)?),
        Some(Sub::Trace(args)) => Command::Trace(trace(*args, host)?),
        Some(Sub::Diagnose(args)) => Command::Diagnose(diagnose(*args, host)?),
        Some(Sub::Doctor(DoctorArgs { census, json, btf })) => {
            readable(btf.as_deref())?;
            Command::Doctor(DoctorOptions { json, census, btf })
        }
        Some(Sub::Explain(ExplainArgs { name, json, btf })) => {
            readable(btf.as_deref())?;
            Command::Explain(ExplainOptions { name, json, btf })
        }
        Some(Sub::Docs { page: Page::Hooks }) => Command::DocsHooks,
        Some(Sub::Docs { page: Page::Causes }) => Command::DocsCauses,
        Some(Sub::Docs { page: Page::Reasons }) => Command::DocsReasons,
        Some(Sub::Docs { page: Page::Callers }) => Command::DocsCallers,
    })
}

fn trace(args: TraceArgs, host: &Host) -> Result<WatchOptions, Error> {
    // Spelt out here and below, so that a new flag cannot be forgotten.
    let TraceArgs { filter, count, duration, stack, output, kernel } = args;
    Ok(WatchOptions {
        count: count.map(|text| values::count("--count", &text)).transpose()?,
        duration: duration.map(|text| values::duration("--for", &text)).transpose()?,
        stack,
        ..watch(filter, output, kernel, host)?
    })
}

fn diagnose(args: DiagnoseArgs, host: &Host) -> Result<WatchOptions, Error> {
    let DiagnoseArgs { filter, duration, output, kernel } = args;
    let duration = duration.map_or(Ok(DIAGNOSE_FOR), |text| values::duration("--for", &text))?;
    Ok(WatchOptions { duration: Some(duration), ..watch(filter, output, kernel, host)? })
}

fn watch(
    args: FilterArgs,
    output: OutputArgs,
    kernel: KernelArgs,
    host: &Host,
) -> Result<WatchOptions, Error> {
    let FilterArgs { filter: words, pid, lport, rport, v4, v6, netns, cgroup, events, close_wait_after } =
        args;
    let OutputArgs { json, color, storm, strict } = output;
    let KernelArgs { attach, btf, buffer, sockets, ended } = kernel;
    let default = WatchOptions::default();
    let family = match (v4, v6) {
        (true, _) => Family::V4,
        (_, true) => Family::V6,
        _ => Family::Any,
    };
    let (local, remote) = (values::ports("--lport", &lport)?, values::ports("--rport", &rport)?);
    let mut filter = Filter {
        active: 0,
        // First: a misspelt command is one of these words.
        expression: filter::expression(family, &local, &remote, &words)?,
        pid: pid.map_or(Ok(0), |text| lookup::pid(host, &text))?,
        netns: netns.map_or(Ok(0), |text| lookup::netns(host, &text))?,
        cgroup: Filter::halves(cgroup.map_or(Ok(0), |text| lookup::cgroup(host, &text))?),
    };
    filter.active = u32::from(filter != Filter::NONE);
    readable(btf.as_deref())?;
    Ok(WatchOptions {
        filter,
        deliver: values::events(&events)?,
        close_wait_after: close_wait_after
            .map_or(Ok(default.close_wait_after), |text| values::duration("--close-wait-after", &text))?,
        json,
        color: choice(
            "--color",
            color,
            [("auto", Color::Auto), ("always", Color::Always), ("never", Color::Never)],
        )?,
        storm: storm.map_or(Ok(default.storm), |text| values::rate("--storm", &text))?,
        strict,
        attach: choice(
            "--attach",
            attach,
            [
                ("auto", Attach::Auto),
                ("fentry", Attach::Fentry),
                ("kprobe", Attach::Kprobe),
                ("tracepoint", Attach::Tracepoint),
            ],
        )?,
        btf,
        buffer: buffer.map_or(Ok(default.buffer), |text| values::buffer("--buffer", &text))?,
        sockets: sockets.map_or(Ok(default.sockets), |text| values::entries("--sockets", &text))?,
        ended: ended.map_or(Ok(default.ended), |text| values::entries("--ended", &text))?,
        ..default
    })
}

/// One of a few words; the first of them when nothing was said.
fn choice<T: Copy, const N: usize>(
    flag: &str,
    text: Option<String>,
    words: [(&str, T); N],
) -> Result<T, Error> {
    let Some(text) = text else { return Ok(words[0].1) };
    let known = || words.iter().map(|(word, _)| *word);
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let hint = match values::nearest(&text, known()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of: {}", known().collect::<Vec<_>>().join(", ")),
        };
        Error::usage(format!("`{text}` is not a value of `{flag}`"), hint)
    })
}

fn readable(btf: Option<&Path>) -> Result<(), Error> {
    let Some(path) = btf else { return Ok(()) };
    match std::fs::File::open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::failed(
            format!("cannot read the BTF file {}: {error}", path.display()),
            "it must be the raw BTF of the running kernel, as pahole or the BTF hub give it",
        )),
    }
}

/// Compile-time reminder: the help says "up to 8".
const _: () = assert!(values::PORTS == 8);
