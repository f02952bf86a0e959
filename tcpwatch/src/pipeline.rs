//! The commands that watch: a run between the live kernel and a sink.
//!
//! [`run`] is the loop that joins the stages: drain, decode, interpret, describe, show; and the books at the end. [`output`]
//! keeps it from waiting for whoever reads.

mod clock;
mod leaks;
mod output;
mod owners;
mod run;
mod standing;
mod stop;
mod storms;

use crate::cli::{Exit, WatchOptions};
use crate::host::Host;
use crate::sink::Sink;
use crate::sink::diagnosis::{DiagnosisSink, Form};
use crate::sink::json::JsonSink;
use crate::sink::text::{TextOptions, TextSink};
use crate::source;
use anyhow::{Context, Result};
use output::Queue;
use run::Run;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use stop::Stop;

/// `tcpwatch trace`: attaches, shows events until told to stop, closes the books.
pub fn trace(options: &WatchOptions, host: &Host) -> Result<Exit> {
    watch(options, host, |queue, text| {
        if options.json { Box::new(JsonSink::new(queue)) } else { Box::new(TextSink::new(queue, text)) }
    })
}

/// `tcpwatch diagnose`: the same, but gathers the events and shows what they come to.
pub fn diagnose(options: &WatchOptions, host: &Host) -> Result<Exit> {
    watch(options, host, |queue, text| {
        let form = if options.json { Form::Json } else { Form::Text(text) };
        Box::new(DiagnosisSink::new(queue, form))
    })
}

fn watch(
    options: &WatchOptions,
    host: &Host,
    sink: impl FnOnce(Queue, TextOptions) -> Box<dyn Sink>,
) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let no_color = std::env::var_os("NO_COLOR").is_some();
    let color = options.color.is_on(io::stdout().is_terminal(), no_color);
    runtime.block_on(async {
        // Before anything is attached: a Ctrl-C during the start ends the run in order.
        let stop = Stop::new()?;
        let told = Arc::clone(&stop.asked);
        let (output, queue) = output::stdout()?;
        let ended = run(options, host, sink(queue, TextOptions { color }), stop).await;
        // What was said before an error is to be seen, too.
        let rest = written(output.finish(&told).map(|()| Exit::Ok).map_err(anyhow::Error::from));
        let exit = ended?;
        rest.map(|_| exit)
    })
}

/// The kernel is as it was when this is over; the reader may still have something to take.
async fn run(options: &WatchOptions, host: &Host, mut sink: Box<dyn Sink>, stop: Stop) -> Result<Exit> {
    let run = match Run::start(options, host, sink.as_mut(), &stop) {
        Err(error) if error.is::<source::Stopped>() => return Ok(Exit::Ok),
        run => run?,
    };
    written(run.watch(options, sink.as_mut(), stop).await)
}

/// A reader who has gone is no error; any other is told for what it is.
fn written(result: Result<Exit>) -> Result<Exit> {
    match result {
        Err(error) if is_closed_pipe(&error) => Ok(Exit::Ok),
        Err(error) if error.is::<io::Error>() => Err(error.context(crate::CANNOT_WRITE)),
        exit => exit,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
