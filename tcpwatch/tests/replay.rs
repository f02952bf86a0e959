//! Records that real kernels sent, decoded and interpreted on any machine: each line of JSON must stay as it is.
//!
//! A recording is made with `TCPWATCH_RECORD=FILE` while a few scenarios play in a virtual machine. The kernel's types lie beside it:
//! `tests/kernels` goes on to the next point release. `UPDATE_GOLDEN=1` rewrites the expected lines.

#![expect(clippy::unwrap_used, reason = "a test may panic, also in its helpers")]

use std::fs;
use std::path::{Path, PathBuf};
use tcpwatch::decode::{Raw, decode};
use tcpwatch::diagnose::lately::{Around, Lately};
use tcpwatch::diagnose::{Context, interpret, interpret_state};
use tcpwatch::kernel::shape;
use tcpwatch::kernel::symbols::Symbols;
use tcpwatch::recording;
use tcpwatch::sink::Sink;
use tcpwatch::sink::json::JsonSink;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// The lines that a recording gives.
fn replay(release: &str) -> String {
    let path = folder("recordings").join(release);
    let names = shape::reasons(Some(&path.join("records.btf"))).unwrap();
    let text = fs::read(path.join("records.symbols")).unwrap();
    let symbols = Symbols::parse(&text[..]).unwrap();
    let context = Context {
        names: &names,
        symbols: &symbols,
        wall_offset_ns: 0,
        want_stack: true,
        around: Around::default(),
    };
    let mut lately = Lately::default();
    let mut lines = Vec::new();
    let mut sink = JsonSink::new(&mut lines);
    for bytes in recording::read(&path.join("records")).unwrap() {
        match decode(&bytes).unwrap() {
            Raw::Event(record) => {
                lately.note(record);
                let around = lately.around(record, &context.around);
                if let Some(event) = interpret(record, &Context { around, ..context }) {
                    sink.event(&event).unwrap();
                }
            }
            Raw::State(record) => {
                sink.event(&interpret_state(record, &context)).unwrap();
            }
        }
    }
    sink.flush().unwrap();
    String::from_utf8(lines).unwrap()
}

#[test]
fn recorded_kernels_say_what_they_said() {
    let mut replayed = 0;
    for entry in fs::read_dir(folder("recordings")).unwrap() {
        let entry = entry.unwrap();
        let release = entry.file_name().into_string().unwrap();
        let lines = replay(&release);
        assert!(lines.contains("\"event\":\"rst_sent\""), "{release} has no RST");
        let expected = entry.path().join("expected.jsonl");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &lines).unwrap();
        }
        let known = fs::read_to_string(&expected).unwrap();
        for (i, (new, old)) in lines.lines().zip(known.lines()).enumerate() {
            assert_eq!(new, old, "{release}, line {}", i + 1);
        }
        assert_eq!(lines.lines().count(), known.lines().count(), "{release}");
        replayed += 1;
    }
    assert!(replayed >= 2, "only {replayed} recordings are there");
}
