//! tcpwatch tells which process reset, refused or leaked a TCP connection, and why.
//!
//! The modules stand in the order in which data passes. Each uses only those above it.
//!
//! - [`event`]: the language of everything below.
//! - [`kernel`]: what this kernel is: types, names, symbols, the table of hooks.
//! - [`host`]: what this host is: processes, cgroups, counters, prerequisites.
//! - [`source`]: the live kernel, handing out records.
//! - [`decode`]: bytes to records.
//! - [`diagnose`]: records to events, pure.
//! - [`recording`]: raw records in a file, for tests.
//! - [`verdict`]: events gathered into verdicts, pure.
//! - [`sink`]: events or verdicts to text or JSON.
//! - [`capture`]: events in a file, and back.
//! - [`agent`]: events as figures, entries of the journal, a ring of captures.
//! - [`cli`]: what was typed; [`top`]: events on a screen that is drawn anew; [`report`]: a capture as a page.
//! - [`pipeline`]: the loop that joins them.
//! - [`memory`]: what is freed goes back to the system.

mod mapping;
pub mod memory;

pub mod event;
pub mod kernel;

pub mod host;
pub mod source;

pub mod decode;
pub mod diagnose;
pub mod recording;
pub mod verdict;

pub mod sink;

pub mod capture;

pub mod agent;

pub mod cli;
pub mod report;
pub mod top;

pub mod pipeline;

use crate::cli::explain::Kernel;
use crate::cli::{Command, DoctorOptions, Exit, ExplainOptions};
use crate::host::Host;
use crate::host::preflight::{self, Finding};
use crate::kernel::shape::{self, Shape};
use crate::source::{Live, Settings};
use anyhow::Result;
use std::io::Write;

/// tcpwatch's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why output failed, before the system's own words.
const CANNOT_WRITE: &str =
    "cannot write to standard output\nhint: the reader or the disk behind it must take what is printed";

/// Runs a command.
pub fn run(command: Command, host: &Host) -> Result<Exit> {
    match command {
        Command::Trace(options) => pipeline::trace(&options, host),
        Command::Diagnose(options) => pipeline::diagnose(&options, host),
        Command::Top(options) => pipeline::top(&options, host),
        Command::Agent(options) => pipeline::agent(&options, host),
        Command::Report(options, output) => pipeline::report(&options, &output),
        Command::Doctor(options) if options.census => census(&options, host),
        Command::Doctor(options) => doctor(&options, host),
        Command::Explain(options) => explain(&options),
        Command::DocsHooks => {
            write_out(&kernel::hooks::page())?;
            Ok(Exit::Ok)
        }
        Command::DocsCauses => {
            write_out(&diagnose::catalog::page())?;
            Ok(Exit::Ok)
        }
        Command::DocsReasons => {
            write_out(&diagnose::words::page())?;
            Ok(Exit::Ok)
        }
        Command::DocsCallers => {
            write_out(&kernel::census::page::page())?;
            Ok(Exit::Ok)
        }
        Command::Completions(shell) => {
            write_out(&cli::manual::completions(shell))?;
            Ok(Exit::Ok)
        }
        Command::Man(folder) => {
            cli::manual::write_pages(&folder)?;
            Ok(Exit::Ok)
        }
    }
}

/// What this host lets tcpwatch see: attaches everything once, and takes it off again.
fn doctor(options: &DoctorOptions, host: &Host) -> Result<Exit> {
    let facts = preflight::Facts::read(host, options.btf.is_some());
    let mut report = cli::doctor::Report {
        version: VERSION.to_owned(),
        kernel: kernel::release(),
        findings: preflight::judge(&facts),
        hooks: Vec::new(),
    };
    let settings = Settings { deliver: u32::MAX, ..Settings::default() };
    match Shape::load(options.btf.as_deref()).and_then(|shape| Live::start(&shape, &settings)) {
        Ok(live) => {
            report.hooks = live.status().to_vec();
            let sizes = live.sizes();
            report.findings.push(Finding {
                what: format!(
                    "a run takes {} MiB of kernel memory: {} live sockets (--sockets), {} ended connections (--ended), a ring \
                     buffer of {} MiB (--buffer)",
                    (sizes.memory() + u64::from(settings.buffer)) >> 20,
                    settings.sockets,
                    settings.ended,
                    settings.buffer >> 20
                ),
                ok: true,
                fatal: false,
                effect: String::new(),
                hint: String::new(),
            });
        }
        // A finding that is fatal explains it better than the error does.
        Err(_) if preflight::is_hopeless(&report.findings) => {}
        Err(error) => {
            let text = cli::sentence(&error);
            let (what, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
            report.findings.push(Finding {
                what: what.to_owned(),
                ok: false,
                fatal: true,
                effect: "nothing can be seen".to_owned(),
                hint: hint.to_owned(),
            });
        }
    }
    write_out(&if options.json { report.json() } else { report.text() })?;
    Ok(if report.works() { Exit::Ok } else { Exit::Failed })
}

/// What a name means. It asks for no privileges: a kernel that hides its types costs only its numbers.
fn explain(options: &ExplainOptions) -> Result<Exit> {
    let reasons = shape::reasons(options.btf.as_deref());
    let kernel = match (reasons, &options.btf) {
        (Ok(reasons), Some(_)) => Some(Kernel { name: "the given kernel".to_owned(), reasons }),
        (Ok(reasons), None) => Some(Kernel { name: format!("kernel {}", kernel::release()), reasons }),
        (Err(error), Some(_)) => return Err(error),
        (Err(_), None) => None,
    };
    let answer = cli::explain::answer(options.name.as_deref(), kernel.as_ref())?;
    write_out(&if options.json { answer.json() } else { answer.text() })?;
    Ok(Exit::Ok)
}

/// Whether every place in this kernel that sends resets is known. Loads nothing into the kernel.
fn census(options: &DoctorOptions, host: &Host) -> Result<Exit> {
    let report = cli::doctor::census::Report {
        version: VERSION.to_owned(),
        kernel: kernel::release(),
        taken: kernel::census::take(host.proc.root()),
    };
    write_out(&if options.json { report.json() } else { report.text() })?;
    Ok(if report.is_complete() { Exit::Ok } else { Exit::Failed })
}

/// Writes a page to standard output. A reader that has gone is no error.
pub fn write_out(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::from(error).context(CANNOT_WRITE))
        }
        _ => Ok(()),
    }
}
