//! The commands that watch: a run between the live kernel and a sink.
//!
//! [`run`] is the loop that joins the stages: drain, decode, interpret, describe, show; and the books at the end.

mod clock;
mod leaks;
mod run;
mod standing;
mod stop;

use crate::cli::{Exit, WatchOptions};
use crate::host::Host;
use crate::sink::Sink;
use crate::sink::diagnosis::{DiagnosisSink, Form};
use crate::sink::json::JsonSink;
use crate::sink::text::{TextOptions, TextSink};
use crate::source;
use anyhow::{Context, Result};
use run::Run;
use std::io::{self, BufWriter, IsTerminal, Write};
use stop::Stop;

/// `tcpwatch trace`: attaches, shows events until told to stop, closes the books.
pub fn trace(options: &WatchOptions, host: &Host) -> Result<Exit> {
    let (out, color) = stdout(options);
    let sink: Box<dyn Sink> = if options.json {
        Box::new(JsonSink::new(out))
    } else {
        Box::new(TextSink::new(out, TextOptions { color }))
    };
    watch(options, host, sink)
}

/// `tcpwatch diagnose`: the same, but gathers the events and shows what they come to.
pub fn diagnose(options: &WatchOptions, host: &Host) -> Result<Exit> {
    let (out, color) = stdout(options);
    let form = if options.json { Form::Json } else { Form::Text(TextOptions { color }) };
    watch(options, host, Box::new(DiagnosisSink::new(out, form)))
}

/// Buffered, and whether to colour what goes there.
fn stdout(options: &WatchOptions) -> (Box<dyn Write>, bool) {
    let stdout = io::stdout();
    let color = options.color.is_on(stdout.is_terminal(), std::env::var_os("NO_COLOR").is_some());
    (Box::new(BufWriter::with_capacity(1 << 16, stdout)), color)
}

fn watch(options: &WatchOptions, host: &Host, mut sink: Box<dyn Sink>) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        // Before anything is attached: a Ctrl-C during the start ends the run in order.
        let stop = Stop::new()?;
        let run = match Run::start(options, host, sink.as_mut(), &stop) {
            Err(error) if error.is::<source::Stopped>() => return Ok(Exit::Ok),
            run => run?,
        };
        match run.watch(options, sink.as_mut(), stop).await {
            Err(error) if is_closed_pipe(&error) => Ok(Exit::Ok),
            Err(error) if error.is::<io::Error>() => Err(error.context(crate::CANNOT_WRITE)),
            exit => exit,
        }
    })
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
