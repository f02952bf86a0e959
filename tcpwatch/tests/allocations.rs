//! What an event takes from the heap: nothing, if it is one of the many, and little, if it is explained.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to say where")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::path::Path;
use tcpwatch::decode::{Raw, decode};
use tcpwatch::diagnose::lately::{Around, Lately};
use tcpwatch::diagnose::{Context, interpret, interpret_state};
use tcpwatch::host::Host;
use tcpwatch::host::process::Processes;
use tcpwatch::kernel::names::ReasonNames;
use tcpwatch::kernel::symbols::Symbols;
use tcpwatch::sink::Sink;
use tcpwatch::sink::json::JsonSink;
use tcpwatch::sink::text::{TextOptions, TextSink};
use tcpwatch_common::owner::Owner;
use tcpwatch_common::record::kind;

/// Allocations of an RST's event at most, from its record to its line. Most of them are the sentences of its cause.
const OF_AN_RST: u64 = 26;

/// Counts what this thread asks for.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: the caller's promises are the ones that it asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above; all memory comes from there.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations while `work` is done.
fn asked(work: impl FnOnce()) -> u64 {
    let before = ASKED.get();
    work();
    ASKED.get() - before
}

/// What real kernels sent, with the functions on the stacks.
fn recorded(release: &str) -> (Vec<Vec<u8>>, Symbols) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(release);
    let symbols = Symbols::parse(&std::fs::read(folder.join("records.symbols")).unwrap()[..]).unwrap();
    (tcpwatch::recording::read(&folder.join("records")).unwrap(), symbols)
}

/// The most that a record of the kind took, second time round, with the sinks' buffers as large as they get.
fn most(release: &str, sink: &mut dyn Sink, wanted: impl Fn(u8) -> bool) -> u64 {
    let (records, symbols) = recorded(release);
    let names = ReasonNames::default();
    let context = Context {
        names: &names,
        symbols: &symbols,
        wall_offset_ns: 0,
        want_stack: false,
        around: Around::default(),
    };
    let mut lately = Lately::default();
    let mut most = 0;
    let mut met = 0;
    for round in 0..2 {
        for bytes in &records {
            let mut kind = 0;
            let asked = asked(|| match decode(bytes).unwrap() {
                Raw::State(record) => {
                    kind = record.kind;
                    sink.event(&interpret_state(record, &context)).unwrap();
                }
                Raw::Event(record) => {
                    kind = record.kind;
                    lately.note(record);
                    let around = lately.around(record, &context.around);
                    if let Some(event) = interpret(record, &Context { around, ..context }) {
                        sink.event(&event).unwrap();
                    }
                }
            });
            if round == 1 && wanted(kind) {
                most = most.max(asked);
                met += 1;
            }
        }
    }
    assert!(met > 10, "{release} has only {met} of them");
    most
}

const RELEASES: [&str; 2] = ["5.10.0-46-cloud-amd64", "6.12.107+deb13-cloud-amd64"];

#[test]
fn a_transition_allocates_nothing() {
    for release in RELEASES {
        let is_state = |kind| kind == kind::STATE;
        assert_eq!(most(release, &mut JsonSink::new(io::sink()), is_state), 0, "JSON, {release}");
        let mut text = TextSink::new(io::sink(), TextOptions { color: true });
        assert_eq!(most(release, &mut text, is_state), 0, "text, {release}");
    }
}

#[test]
fn an_rst_allocates_little() {
    for release in RELEASES {
        let is_reset = |kind| matches!(kind, kind::RST_SENT | kind::RST_RECEIVED | kind::RST_IGNORED);
        let json = most(release, &mut JsonSink::new(io::sink()), is_reset);
        assert!((1..=OF_AN_RST).contains(&json), "{json} in JSON, {release}");
        let text = most(release, &mut TextSink::new(io::sink(), TextOptions::default()), is_reset);
        assert_eq!(text, json, "text adds nothing, {release}");
    }
}

#[test]
fn a_process_that_was_asked_for_lately_is_described_without_any() {
    let host = Host::live();
    let pid = host.proc.own_pid();
    let start = host.proc.stat(pid).unwrap().start;
    let owner = Owner { pid, start_ns: host.proc.start_ns(start), ..Owner::default() };
    let mut processes = Processes::new(&host);
    let now = std::time::Instant::now();
    assert!(processes.describe_at(&owner, now).exe.is_some());
    assert_eq!(asked(|| drop(processes.describe_at(&owner, now))), 0);
}
