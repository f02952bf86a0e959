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

use crate::agent::Agent;
use crate::agent::ring::Ring;
use crate::capture::{self, CaptureSink, Rotation, Unwritable};
use crate::cli::{AgentOptions, Exit, WatchOptions};
use crate::host::Host;
use crate::report::ReportSink;
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
use std::time::SystemTime;
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

/// `tcpwatch agent`: a run after the other, until it is told to end; another one begins when the configuration was read again.
pub fn agent(options: &AgentOptions, host: &Host) -> Result<Exit> {
    if let Some(checked) = options.check(host) {
        crate::write_out(&checked?.to_string())?;
        return Ok(Exit::Ok);
    }
    let (mut config, mut watched) = options.load(host)?;
    let listen = config.listen;
    let (again, there) = (options.clone(), host.clone());
    let agent = Agent::new(&config, move || Ok(again.load(&there).map(drop)?))?;
    if let Some(address) = agent.listens() {
        eprintln!("tcpwatch: figures are at http://{address}/metrics");
    }
    loop {
        let exit = with(&watched, host, |outputs| {
            let sink = agent.sink(&config)?;
            Ok(match &config.ring {
                Some(ring) => Box::new(Both(outputs.ring(ring)?, Box::new(sink))),
                None => Box::new(sink),
            })
        })?;
        if !agent.begins_anew() {
            return Ok(exit);
        }
        let file = agent.file().map_or_else(|| "the flags".to_owned(), |file| file.display().to_string());
        eprintln!("tcpwatch: begins anew with what {file} says");
        (config, watched) = options.load(host)?;
        if config.listen != listen {
            eprintln!("tcpwatch: `listen` has changed: that takes a restart");
        }
    }
}

/// `tcpwatch report`: a page of a capture. It is there when it is whole, under another name until then.
pub fn report(options: &WatchOptions, output: &Path) -> Result<Exit> {
    let Some(read) = &options.read else { bail!("no capture to make a report of") };
    let reader = replay::open(read)?;
    let name = read.file_name().unwrap_or(read.as_os_str()).to_string_lossy().into_owned();
    let host = reader.host().clone();
    let cannot =
        || format!("cannot write the page `{}`\nhint: a file in a directory that exists", output.display());
    if output == Path::new("-") {
        let mut sink = ReportSink::new(io::stdout(), name, host);
        return written(replay::run(options, read, reader, &mut sink));
    }
    let mut part = output.as_os_str().to_owned();
    part.push(".part");
    let file = File::create(&part).with_context(cannot)?;
    let mut sink = ReportSink::new(file, name, host);
    let ended = replay::run(options, read, reader, &mut sink);
    match &ended {
        Err(error) if error.is::<io::Error>() => drop(std::fs::remove_file(&part)),
        // A capture that is cut off makes a page of what is whole.
        _ => std::fs::rename(&part, output).with_context(cannot)?,
    }
    ended.map_err(|error| if error.is::<io::Error>() { error.context(cannot()) } else { error })
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
struct Outputs {
    stdout: Vec<Output>,
    /// Of captures; all but the last have had their last word.
    files: Rc<RefCell<Vec<Output>>>,
}

impl Outputs {
    fn stdout(&mut self) -> Result<Queue> {
        let (output, queue) = output::stdout()?;
        self.stdout.push(output);
        Ok(queue)
    }

    /// A sink for a ring of captures on disk.
    fn ring(&mut self, ring: &Ring) -> Result<CaptureSink> {
        let bounds = ring.clone();
        self.files(&ring.rotation()?, move || bounds.prune(SystemTime::now()))
    }

    /// A sink for a capture, which may open one file after the other.
    fn capture(&mut self, rotation: &Rotation) -> Result<CaptureSink> {
        self.files(rotation, || {})
    }

    fn files(&mut self, rotation: &Rotation, mut before: impl FnMut() + 'static) -> Result<CaptureSink> {
        let outputs = Rc::clone(&self.files);
        let open = move |path: &Path| {
            before();
            let queue =
                if path == Path::new("-") { output::stdout() } else { output::queue(File::create(path)?) };
            let (output, queue) = queue.map_err(io::Error::other)?;
            let mut outputs = outputs.borrow_mut();
            outputs.iter().for_each(Output::end);
            outputs.retain(|output| !output.is_done());
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
        let files = std::mem::take(&mut *self.files.borrow_mut());
        // What an incident leaves behind comes first.
        files.into_iter().chain(self.stdout).try_for_each(|output| output.finish(told))
    }
}

/// The kernel is as it was when this is over; the reader may still have something to take.
async fn run(options: &WatchOptions, host: &Host, mut sink: Box<dyn Sink>, stop: Stop) -> Result<Exit> {
    if let Some(path) = &options.read {
        return written(replay::run(options, path, replay::open(path)?, sink.as_mut()));
    }
    let run = match Run::start(options, host, sink.as_mut(), &stop) {
        Err(error) if error.is::<source::Stopped>() => return Ok(Exit::Ok),
        run => run?,
    };
    written(run.watch(options, sink.as_mut(), stop).await)
}

fn written_io<T>(result: io::Result<T>) -> Result<T> {
    result.map_err(|error| told(error.into()))
}

/// What could not be written: the capture says so itself, of anything else it is standard output.
fn told(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<io::Error>() {
        Ok(error) => match error.get_ref() {
            Some(inner) if inner.is::<Unwritable>() => anyhow::anyhow!("{inner}"),
            _ => anyhow::Error::from(error).context(crate::CANNOT_WRITE),
        },
        Err(error) => error,
    }
}

/// A reader who has gone is no error; any other is told for what it is.
fn written(result: Result<Exit>) -> Result<Exit> {
    match result {
        Err(error) if is_closed_pipe(&error) => Ok(Exit::Ok),
        Err(error) => Err(told(error)),
        exit => exit,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
