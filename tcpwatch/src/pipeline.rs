//! The commands that watch: a run between the live kernel and a sink.
//!
//! [`run`] is the loop that joins the stages: drain, decode, interpret, describe, show; and the books at the end. [`output`]
//! keeps it from waiting for whoever reads.

mod clock;
mod leaks;
mod output;
mod owners;
mod replay;
mod run;
mod standing;
mod stop;
mod storms;

use crate::capture::{self, CaptureSink, Rotation, Unwritable};
use crate::cli::{Exit, WatchOptions};
use crate::host::Host;
use crate::sink::diagnosis::{DiagnosisSink, Form};
use crate::sink::json::JsonSink;
use crate::sink::text::{TextOptions, TextSink};
use crate::sink::{Both, Out, Sink};
use crate::source;
use crate::top::{Look, Screen};
use anyhow::{Context, Result, bail};
use output::{Output, Queue};
use run::Run;
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
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

/// `tcpwatch top`: the same on the whole screen. The books are printed when it is left.
pub fn top(options: &WatchOptions, host: &Host) -> Result<Exit> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!(
            "`top` needs a terminal\nhint: `tcpwatch trace` and `tcpwatch diagnose` write to files and pipes"
        );
    }
    let look = Look { color: color(options), plays: options.read.is_some() };
    let name = match &options.read {
        // Before the screen is taken: an error is read better without.
        Some(path) => replay::open(path)?.host().name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let mut books = None;
    let mut screen = None;
    let ended = with(options, host, |outputs| {
        let capture = options.write.as_ref().map(|rotation| outputs.capture(rotation)).transpose()?;
        let (taken, sink) = Screen::take(look, name).context("cannot take the terminal")?;
        (books, screen) = (Some(sink.books()), Some(taken));
        Ok(match capture {
            Some(capture) => Box::new(Both(capture, Box::new(sink))),
            None => Box::new(sink),
        })
    });
    if let Some(screen) = screen {
        screen.give_back().context("cannot draw on the terminal")?;
    }
    let summary = books.and_then(|books| books.lock().ok()?.take());
    if let Some(summary) = summary.filter(|_| ended.is_ok() && options.read.is_none()) {
        crate::write_out(&crate::top::books(&summary))?;
    }
    ended
}

fn color(options: &WatchOptions) -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some();
    options.color.is_on(io::stdout().is_terminal(), no_color)
}

fn watch(
    options: &WatchOptions,
    host: &Host,
    sink: impl FnOnce(Queue, TextOptions) -> Box<dyn Sink>,
) -> Result<Exit> {
    let text = TextOptions { color: color(options) };
    with(options, host, |outputs| {
        Ok(match &options.write {
            None => sink(outputs.stdout()?, text),
            Some(rotation) if rotation.path == Path::new("-") => Box::new(outputs.capture(rotation)?),
            Some(rotation) => {
                let capture = outputs.capture(rotation)?;
                Box::new(Both(capture, sink(outputs.stdout()?, text)))
            }
        })
    })
}

/// A run into a sink, and everything that it needs around it.
fn with(
    options: &WatchOptions,
    host: &Host,
    sink: impl FnOnce(&mut Outputs) -> Result<Box<dyn Sink>>,
) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        // Before anything is attached: a Ctrl-C during the start ends the run in order.
        let stop = Stop::new()?;
        let told = Arc::clone(&stop.asked);
        let mut outputs = Outputs::default();
        let sink = sink(&mut outputs)?;
        let ended = run(options, host, sink, stop).await;
        // What was said before an error is to be seen, too.
        let rest = written(outputs.finish(&told).map(|()| Exit::Ok).map_err(anyhow::Error::from));
        let exit = ended?;
        rest.map(|_| exit)
    })
}

/// The threads that write.
#[derive(Default)]
struct Outputs(Rc<RefCell<Vec<Output>>>);

impl Outputs {
    fn stdout(&mut self) -> Result<Queue> {
        let (output, queue) = output::stdout()?;
        self.0.borrow_mut().push(output);
        Ok(queue)
    }

    /// A sink for a capture, which may open one file after the other.
    fn capture(&mut self, rotation: &Rotation) -> Result<CaptureSink> {
        let outputs = Rc::clone(&self.0);
        let open = move |path: &Path| {
            let queue =
                if path == Path::new("-") { output::stdout() } else { output::queue(File::create(path)?) };
            let (output, queue) = queue.map_err(io::Error::other)?;
            let mut outputs = outputs.borrow_mut();
            // Those before it have had their last word.
            outputs.iter().for_each(Output::end);
            outputs.push(output);
            Ok(Box::new(queue) as Box<dyn Out>)
        };
        let uname = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let host = capture::Host {
            hardware: text(uname.machine()),
            system: format!("{} {}", text(uname.sysname()), text(uname.release())),
            name: text(uname.nodename()),
        };
        written_io(CaptureSink::new(Box::new(open), rotation.clone(), host))
    }

    fn finish(self, told: &AtomicBool) -> io::Result<()> {
        let outputs = std::mem::take(&mut *self.0.borrow_mut());
        outputs.into_iter().try_for_each(|output| output.finish(told))
    }
}

/// The kernel is as it was when this is over; the reader may still have something to take.
async fn run(options: &WatchOptions, host: &Host, mut sink: Box<dyn Sink>, stop: Stop) -> Result<Exit> {
    if let Some(path) = &options.read {
        return written(replay::run(options, path, sink.as_mut()));
    }
    let run = match Run::start(options, host, sink.as_mut(), &stop) {
        Err(error) if error.is::<source::Stopped>() => return Ok(Exit::Ok),
        run => run?,
    };
    written(run.watch(options, sink.as_mut(), stop).await)
}

fn written_io<T>(result: io::Result<T>) -> Result<T> {
    result.map_err(|error| match error.get_ref() {
        Some(inner) if inner.is::<Unwritable>() => anyhow::anyhow!("{inner}"),
        _ => anyhow::Error::from(error).context(crate::CANNOT_WRITE),
    })
}

/// A reader who has gone is no error; any other is told for what it is.
fn written(result: Result<Exit>) -> Result<Exit> {
    match result {
        Err(error) if is_closed_pipe(&error) => Ok(Exit::Ok),
        Err(error) => match error.downcast::<io::Error>() {
            Ok(error) => written_io(Err(error)),
            Err(error) => Err(error),
        },
        exit => exit,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
