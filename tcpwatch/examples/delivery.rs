//! What an event costs from its record to the bytes of its line, in nanoseconds: `cargo run --release --example delivery`.
//!
//! Another recording (`TCPWATCH_RECORD=FILE tcpwatch`) than the repository's is measured with `-- FILE`.
#![expect(clippy::print_stdout, reason = "its output is the figures")]

use rustix::time::{ClockId, clock_gettime};
use std::fmt::Write as _;
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tcpwatch::decode::{Raw, decode};
use tcpwatch::diagnose::lately::{Around, Lately};
use tcpwatch::diagnose::{Context, interpret, interpret_state};
use tcpwatch::event::Event;
use tcpwatch::host::Host;
use tcpwatch::host::process::Processes;
use tcpwatch::kernel::names::ReasonNames;
use tcpwatch::kernel::symbols::Symbols;
use tcpwatch::sink::Sink;
use tcpwatch::sink::json::JsonSink;
use tcpwatch::sink::text::{TextOptions, TextSink};
use tcpwatch_common::owner::Owner;
use tcpwatch_common::record::kind;

/// Events of one measurement, and measurements of which the median is told.
const EVENTS: usize = 100_000;
const ROUNDS: usize = 9;

/// Records of a real kernel.
const RECORDING: &str = "tests/recordings/6.12.107+deb13-cloud-amd64/records";
/// Functions of a kernel with modules: what a search among them costs depends on how many there are.
const FUNCTIONS: u64 = 200_000;

fn main() -> anyhow::Result<()> {
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORDING);
    let recording = std::env::args_os().nth(1).map_or_else(usual, PathBuf::from);
    let records = tcpwatch::recording::read(&recording)?;
    let is_state = |bytes: &&Vec<u8>| matches!(decode(bytes), Ok(Raw::State(_)));
    let states: Vec<&[u8]> = records.iter().filter(is_state).map(Vec::as_slice).collect();
    let is_reset = |bytes: &&Vec<u8>| matches!(decode(bytes), Ok(Raw::Event(record)) if matches!(record.kind, kind::RST_SENT | kind::RST_RECEIVED));
    let resets: Vec<&[u8]> = records.iter().filter(is_reset).map(Vec::as_slice).collect();
    let names = ReasonNames::default();
    let symbols = symbols(&std::fs::read_to_string(recording.with_added_extension("symbols"))?)?;
    let context = Context {
        names: &names,
        symbols: &symbols,
        wall_offset_ns: 1_795_230_847_123_456_000,
        want_stack: false,
        around: Around::default(),
    };
    println!("{} state records and {} of RSTs, medians of {ROUNDS} rounds", states.len(), resets.len());
    for (what, records) in [("state", &states), ("rst", &resets)].into_iter().filter(|(_, of)| !of.is_empty())
    {
        let mut lately = Lately::default();
        println!(
            "{what:<6} decode         {:>7.0} ns",
            measure(records, |bytes| {
                black_box(decode(bytes)).ok();
            })
        );
        let interpreted = measure(records, |bytes| drop(black_box(event(bytes, &context, &mut lately))));
        println!("{what:<6} to an event    {interpreted:>7.0} ns");
        let mut json = JsonSink::new(io::sink());
        let cost = measure(records, |bytes| show(bytes, &context, &mut lately, &mut json));
        println!("{what:<6} to JSON        {cost:>7.0} ns");
        let mut text = TextSink::new(io::sink(), TextOptions::default());
        let cost = measure(records, |bytes| show(bytes, &context, &mut lately, &mut text));
        println!("{what:<6} to text        {cost:>7.0} ns");
    }
    describe();
    Ok(())
}

/// The process table's part.
fn describe() {
    let host = Host::live();
    let pid = host.proc.own_pid();
    let start = host.proc.stat(pid).map_or(0, |stat| stat.start);
    let owner = Owner { pid, start_ns: host.proc.start_ns(start), ..Owner::default() };
    let mut processes = Processes::new(&host);
    let now = Instant::now();
    let cost = measure(&[&[]], |_| drop(black_box(processes.describe_at(&owner, now))));
    println!("owner  described      {cost:>7.0} ns");
}

fn event(bytes: &[u8], context: &Context<'_>, lately: &mut Lately) -> Option<Event> {
    match decode(bytes).ok()? {
        Raw::Event(record) => {
            lately.note(record);
            let around = lately.around(record, &context.around);
            interpret(record, &Context { around, ..*context })
        }
        Raw::State(record) => Some(interpret_state(record, context)),
    }
}

fn show(bytes: &[u8], context: &Context<'_>, lately: &mut Lately, sink: &mut dyn Sink) {
    if let Some(event) = event(bytes, context, lately) {
        // Nothing goes wrong where nothing is kept.
        drop(sink.event(&event));
    }
}

/// Processor time of this thread: on a machine with other work the clock tells nothing.
fn used_ns() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Median nanoseconds an event.
fn measure(records: &[&[u8]], mut take: impl FnMut(&[u8])) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = used_ns();
            records.iter().cycle().take(EVENTS).for_each(|bytes| take(black_box(bytes)));
            (used_ns() - began) / EVENTS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// The recording's functions among as many others as a kernel has.
fn symbols(recorded: &str) -> io::Result<Symbols> {
    let mut text = recorded.to_owned();
    for i in 0..FUNCTIONS {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:016x} t other_function_{i}", 0xffff_0000_0000_0000 + i * 4096);
    }
    Symbols::parse(text.as_bytes())
}
