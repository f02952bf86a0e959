//! What was typed, checked and with its meaning.

use super::args::{
    CaptureArgs, DiagnoseArgs, DoctorArgs, ExplainArgs, FilterArgs, KernelArgs, OutputArgs, Page, ReportArgs,
    Sub, TopArgs, TraceArgs, Typed,
};
use super::filter::{self, Family};
use super::{AgentOptions, Command, Error, lookup, values};
use crate::capture::Rotation;
use crate::host::Host;
use crate::sink::time;
use crate::source::TABLE;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tcpwatch_common::config::deliver;
use tcpwatch_common::filter::Filter;

/// Ring buffer in bytes when nobody says otherwise: some thousand events.
const DEFAULT_BUFFER: u32 = 4 << 20;
/// The same where every state of every connection is told: a tenth of a second of what one core of load can do, for as long may the
/// machine leave tcpwatch without a CPU.
const DEFAULT_BUFFER_STATES: u32 = 16 << 20;

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
    /// Tracepoints as a kernel without types of its own has them.
    Raw,
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
    /// Where to write a capture; `-` is standard output.
    pub write: Option<Rotation>,
    /// Read a capture instead of the kernel; `-` is standard input.
    pub read: Option<PathBuf>,
    /// Of a capture: only this cgroup, by its path. Its number means nothing on another host.
    pub cgroup: Option<String>,
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
            write: None,
            read: None,
            cgroup: None,
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
        Some(Sub::Top(args)) => Command::Top(top(*args, host)?),
        Some(Sub::Agent(args)) => {
            let options = AgentOptions::new(*args);
            // What is wrong is said now, not when the agent has long begun.
            match options.check(host) {
                Some(checked) => drop(checked?),
                None => drop(options.load(host)?),
            }
            Command::Agent(options)
        }
        Some(Sub::Report(args)) => {
            let (options, output) = report(*args, host)?;
            Command::Report(options, output)
        }
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
        Some(Sub::Completions { shell }) => Command::Completions(shell),
        Some(Sub::Man { folder }) => Command::Man(folder),
    })
}

fn trace(args: TraceArgs, host: &Host) -> Result<WatchOptions, Error> {
    // Spelt out here and below, so that a new flag cannot be forgotten.
    let TraceArgs { filter, count, duration, stack, output, capture, kernel } = args;
    only_live(&capture, &[("--for", duration.is_some()), ("--stack", stack)])?;
    Ok(WatchOptions {
        count: count.map(|text| values::count("--count", &text)).transpose()?,
        duration: duration.map(|text| values::duration("--for", &text)).transpose()?,
        stack,
        ..watch(filter, output, capture, kernel, host)?
    })
}

fn diagnose(args: DiagnoseArgs, host: &Host) -> Result<WatchOptions, Error> {
    let DiagnoseArgs { filter, duration, output, capture, kernel } = args;
    only_live(&capture, &[("--for", duration.is_some())])?;
    let duration = duration.map_or(Ok(DIAGNOSE_FOR), |text| values::duration("--for", &text))?;
    Ok(WatchOptions { duration: Some(duration), ..watch(filter, output, capture, kernel, host)? })
}

fn top(args: TopArgs, host: &Host) -> Result<WatchOptions, Error> {
    let TopArgs { filter, duration, stack, color, storm, capture, kernel } = args;
    only_live(&capture, &[("--for", duration.is_some()), ("--stack", stack)])?;
    if capture.write.as_deref() == Some(Path::new("-")) {
        return Err(Error::usage("standard output is the screen of `top`", "name a file: `-w FILE`"));
    }
    if capture.read.as_deref() == Some(Path::new("-")) {
        return Err(Error::usage("standard input is the keyboard of `top`", "name a file: `-r FILE`"));
    }
    let output = OutputArgs { json: false, color, storm, strict: false };
    Ok(WatchOptions {
        duration: duration.map(|text| values::duration("--for", &text)).transpose()?,
        stack,
        ..watch(filter, output, capture, kernel, host)?
    })
}

fn report(args: ReportArgs, host: &Host) -> Result<(WatchOptions, PathBuf), Error> {
    let ReportArgs { read, output, filter } = args;
    let Some(read) = read else {
        return Err(Error::usage(
            "a report is made of a capture, and none is named",
            "`tcpwatch -w FILE` writes one, `tcpwatch report -r FILE` reads it",
        ));
    };
    let output = output.unwrap_or_else(|| match read.as_path() {
        stdin if stdin == Path::new("-") => PathBuf::from("report.html"),
        file => file.with_extension("html"),
    });
    if output == read && output != Path::new("-") {
        return Err(Error::usage(
            format!("the page would be written over the capture `{}`", read.display()),
            "name another file: `-o FILE`",
        ));
    }
    let capture = CaptureArgs { read: Some(read), ..CaptureArgs::default() };
    Ok((watch(filter, OutputArgs::default(), capture, KernelArgs::default(), host)?, output))
}

/// What makes no sense where a capture is read: it says what was seen, once and for all.
fn only_live(capture: &CaptureArgs, typed: &[(&str, bool)]) -> Result<(), Error> {
    let Some((flag, _)) = typed.iter().find(|(_, typed)| *typed && capture.read.is_some()) else {
        return Ok(());
    };
    Err(Error::usage(
        format!("`{flag}` and `--read` exclude each other"),
        format!("{flag} is about watching the kernel; a capture has what was seen then"),
    ))
}

/// Where a capture goes.
fn rotation(args: CaptureArgs) -> Result<Option<Rotation>, Error> {
    let CaptureArgs { write, read: _, rotate_size, rotate_after, rotate_files } = args;
    let Some(path) = write else {
        let flags =
            [("-C", rotate_size.is_some()), ("-G", rotate_after.is_some()), ("-W", rotate_files.is_some())];
        return match flags.iter().find(|(_, typed)| *typed) {
            None => Ok(None),
            Some((flag, _)) => Err(Error::usage(
                format!("`{flag}` without a capture to write"),
                format!("for instance `-w FILE {flag} …`"),
            )),
        };
    };
    let rotation = Rotation {
        size: rotate_size.map(|text| values::size("-C", &text)).transpose()?,
        every: rotate_after.map(|text| values::duration("-G", &text)).transpose()?,
        files: rotate_files.map(|text| values::files("-W", &text)).transpose()?,
        path,
    };
    let rotates = rotation.size.is_some() || rotation.every.is_some();
    if rotates && rotation.path == Path::new("-") {
        return Err(Error::usage(
            "standard output cannot be followed by another file",
            "name a file: `-w FILE`",
        ));
    }
    if rotation.files.is_some() && rotation.size.is_none() {
        return Err(Error::usage("`-W` counts the files of `-C`", "for instance `-C 100M -W 5`"));
    }
    if rotation.every.is_some() {
        let name = rotation.path.to_string_lossy();
        let (now, later) = (time::strftime(&name, 0), time::strftime(&name, 86_399_000_000_000));
        if now.is_none() {
            return Err(Error::usage(
                format!("`{name}` has a conversion that names of captures cannot have, with `-G`"),
                format!("one of: {} (UTC)", time::CONVERSIONS),
            ));
        }
        if now == later {
            return Err(Error::usage(
                format!("with `-G` each file would be written over the last: `{name}` has no time in it"),
                "put the time into the name: `-w /tmp/%F_%H-%M-%S.pcapng`",
            ));
        }
    }
    Ok(Some(rotation))
}

pub(super) fn watch(
    args: FilterArgs,
    output: OutputArgs,
    capture: CaptureArgs,
    kernel: KernelArgs,
    host: &Host,
) -> Result<WatchOptions, Error> {
    let FilterArgs { filter: words, pid, lport, rport, v4, v6, netns, cgroup, events, close_wait_after } =
        args;
    let OutputArgs { json, color, storm, strict } = output;
    let KernelArgs { attach, btf, buffer, sockets, ended } = kernel;
    only_live(
        &capture,
        &[
            ("--close-wait-after", close_wait_after.is_some()),
            ("--storm", storm.is_some()),
            ("--attach", attach.is_some()),
            ("--btf", btf.is_some()),
            ("--buffer", buffer.is_some()),
            ("--sockets", sockets.is_some()),
            ("--ended", ended.is_some()),
        ],
    )?;
    let read = capture.read.clone();
    let write = rotation(capture)?;
    let (cgroup, of_capture) = if read.is_some() { (None, cgroup) } else { (cgroup, None) };
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
        pid: pid.map_or(Ok(0), |text| lookup::pid(host, read.is_none(), &text))?,
        netns: netns.map_or(Ok(0), |text| lookup::netns(host, read.is_none(), &text))?,
        cgroup: Filter::halves(cgroup.map_or(Ok(0), |text| lookup::cgroup(host, &text))?),
    };
    filter.active = u32::from(filter != Filter::NONE);
    readable(btf.as_deref())?;
    let deliver = if read.is_some() && events.is_empty() { u32::MAX } else { values::events(&events)? };
    let usual = if deliver & deliver::STATE != 0 { DEFAULT_BUFFER_STATES } else { default.buffer };
    Ok(WatchOptions {
        filter,
        deliver,
        cgroup: of_capture,
        write,
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
                ("raw", Attach::Raw),
            ],
        )?,
        btf,
        buffer: buffer.map_or(Ok(usual), |text| values::buffer("--buffer", &text))?,
        sockets: sockets.map_or(Ok(default.sockets), |text| values::entries("--sockets", &text))?,
        ended: ended.map_or(Ok(default.ended), |text| values::entries("--ended", &text))?,
        read,
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
