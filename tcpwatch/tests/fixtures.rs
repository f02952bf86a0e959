//! The kernels under `tests/kernels/`: what tcpwatch makes of each, without booting it. `cargo xtask fixtures` records them;
//! `UPDATE_GOLDEN=1` writes each `shape.txt` anew.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to say where")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use tcpwatch::diagnose::words::{Dictionary, NO_REASONS};
use tcpwatch::kernel::hooks::{Granted, HOOKS, Part, Plan, Rung, When, find};
use tcpwatch::kernel::names::ReasonNames;
use tcpwatch::kernel::shape::{self, CURRENT_TASK, SYSTEM_BTF, Shape};
use tcpwatch::kernel::version;
use tcpwatch_common::config::deliver;
use tcpwatch_common::hook;
use tcpwatch_common::offsets::{ABSENT, Offsets};

/// Types of one release.
struct Kernel {
    release: String,
    version: (u32, u32),
    folder: PathBuf,
    data: Vec<u8>,
}

impl Kernel {
    fn shape(&self) -> Shape {
        let shape = Shape::parse(self.data.clone());
        let hint = "a field that is new in the table is recorded by `cargo xtask fixtures`";
        shape.unwrap_or_else(|error| panic!("{}: {error:#}\nhint: {hint}", self.release))
    }
}

fn kernels() -> Vec<Kernel> {
    let all: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "kernels"].iter().collect();
    let mut kernels: Vec<Kernel> = fs::read_dir(all)
        .unwrap()
        .map(|entry| {
            let folder = entry.unwrap().path();
            let release = folder.file_name().unwrap().to_str().unwrap().to_owned();
            let version = version(&release).unwrap();
            let data = fs::read(folder.join("btf")).unwrap();
            Kernel { release, version, folder, data }
        })
        .collect();
    kernels.sort_by_key(|kernel| kernel.version);
    assert!(!kernels.is_empty(), "`cargo xtask fixtures` records kernels");
    kernels
}

const GRANTS: [(&str, Granted); 3] = [
    ("all", Granted { fentry: true, kprobe: true, typed: true, null: true }),
    ("kprobes", Granted { fentry: false, kprobe: true, typed: false, null: false }),
    ("tracepoints", Granted { fentry: false, kprobe: false, typed: true, null: true }),
];

/// Everything that tcpwatch takes from a kernel's types, and what it plans on them, for people and for `cargo xtask protos`.
fn describe(kernel: &Kernel) -> String {
    let shape = kernel.shape();
    let types = shape::types(kernel.data.clone()).unwrap();
    let mut text = String::from("[offsets]\n");
    for (row, field) in Offsets::FIELDS.iter().enumerate() {
        let offset = match shape.offsets.get(row) {
            ABSENT => "-".to_owned(),
            offset => offset.to_string(),
        };
        writeln!(text, "{:<22} {offset:>5}  {}.{}", field.name, field.structure, field.path).unwrap();
    }

    let count = |args: Option<&u32>| args.map_or("-".to_owned(), u32::to_string);
    let is_tracepoint = |ways: &[tcpwatch::kernel::hooks::Way]| ways[0].rung == Rung::Tracepoint;
    text.push_str("\n[functions]\n");
    for hook in HOOKS.iter().filter(|hook| !is_tracepoint(hook.ways)) {
        let name = hook.name();
        let says = types.function_prototype(name).unwrap_or_else(|| match hook.when {
            When::Module(module) => format!("in module {module}"),
            _ => "absent".to_owned(),
        });
        writeln!(text, "{name:<30} {}  {says}", count(shape.functions.get(name))).unwrap();
    }
    text.push_str("\n[tracepoints]\n");
    for hook in HOOKS.iter().filter(|hook| is_tracepoint(hook.ways)) {
        let name = hook.name();
        let says = types.tracepoint_prototype(name).unwrap_or_else(|| "absent".to_owned());
        writeln!(text, "{name:<30} {}  {says}", count(shape.tracepoints.get(name))).unwrap();
    }

    let plans = GRANTS.map(|(_, granted)| Plan {
        shape: &shape,
        granted,
        deliver: deliver::RST | deliver::LISTEN | deliver::TW,
    });
    writeln!(text, "\n[plan]\n{:<30} {:<11} {:<11} {}", "granted", GRANTS[0].0, GRANTS[1].0, GRANTS[2].0)
        .unwrap();
    for hook in HOOKS {
        let cells = plans.each_ref().map(|plan| match plan.ways(hook).next() {
            _ if !plan.wants(hook) => "-",
            Some(way) => way.rung.name(),
            None => "none",
        });
        writeln!(text, "{:<30} {:<11} {:<11} {}", hook.name(), cells[0], cells[1], cells[2]).unwrap();
    }
    let cells = plans.each_ref().map(Plan::ignored_from_drops);
    writeln!(text, "{:<30} {:<11} {:<11} {}", "ignored RSTs from drops", cells[0], cells[1], cells[2])
        .unwrap();
    let cells = plans.each_ref().map(Plan::overflow_from_drops);
    writeln!(text, "{:<30} {:<11} {:<11} {}", "overflows from drops", cells[0], cells[1], cells[2]).unwrap();

    text.push_str("\n[reset reasons]\n");
    for (number, name) in shape.reasons.resets() {
        writeln!(text, "{number:>3} {name}").unwrap();
    }
    text.push_str("\n[drop reasons that are asked for]\n");
    for name in ["TCP_LISTEN_OVERFLOW", "TCP_RESET"] {
        let number = shape.reasons.drop_number(name);
        writeln!(text, "{:>3} {name}", number.map_or("-".to_owned(), |number| number.to_string())).unwrap();
    }
    text
}

#[test]
fn shapes_are_as_recorded() {
    for kernel in kernels() {
        let path = kernel.folder.join("shape.txt");
        let found = describe(&kernel);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, found).unwrap();
            continue;
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        for (number, (expected, found)) in expected.lines().zip(found.lines()).enumerate() {
            let place = format!("{}/shape.txt:{}", kernel.release, number + 1);
            assert_eq!(expected, found, "{place} differs; UPDATE_GOLDEN=1 writes it anew");
        }
        assert_eq!(expected.lines().count(), found.lines().count(), "{}: another length", kernel.release);
    }
}

#[test]
fn every_field_that_is_required_is_there() {
    for kernel in kernels() {
        let shape = kernel.shape();
        for (row, field) in Offsets::FIELDS.iter().enumerate() {
            let there = shape.offsets.get(row) != ABSENT;
            assert!(there || !field.required, "{} lacks {}.{}", kernel.release, field.structure, field.path);
        }
    }
}

/// An optional field that no kernel has is a misspelt one.
#[test]
fn every_optional_field_is_in_some_kernel() {
    let shapes: Vec<Shape> = kernels().iter().map(Kernel::shape).collect();
    for field in Offsets::FIELDS {
        assert!(shapes.iter().any(|shape| shape.has(field.name)), "no kernel has {}", field.name);
    }
}

/// Numbers move between releases; names are what the rules go by.
#[test]
fn every_reset_reason_has_words() {
    for kernel in kernels() {
        for (number, name) in kernel.shape().reasons.resets() {
            let known =
                NO_REASONS.contains(&name) || Dictionary::Reset.words().iter().any(|word| word.name == name);
            assert!(
                known,
                "{}: reset reason {name} ({number}) is new: give it a cause, and words in diagnose/words/reset.rs",
                kernel.release
            );
        }
    }
}

#[test]
fn every_drop_reason_of_tcp_has_words() {
    for kernel in kernels() {
        for (number, name) in kernel.shape().reasons.drops() {
            let known = !name.starts_with("TCP_") || Dictionary::Drop.find(name).is_some();
            assert!(
                known,
                "{}: drop reason {name} ({number}) is new: give it words in diagnose/words/drop.rs",
                kernel.release
            );
        }
    }
}

/// A word for a reason that no kernel has is a misspelt one.
#[test]
fn every_word_for_a_reason_is_in_some_kernel() {
    let reasons: Vec<_> = kernels().iter().map(|kernel| kernel.shape().reasons).collect();
    let somewhere = |dictionary: Dictionary, names: &dyn Fn(&ReasonNames) -> Vec<(u32, &str)>| {
        for word in dictionary.words() {
            let there =
                |kernel: &ReasonNames| names(kernel).iter().any(|(_, name)| dictionary.is(name, word.name));
            assert!(reasons.iter().any(there), "no kernel has the {} {}", dictionary.id(), word.name);
        }
    };
    somewhere(Dictionary::Reset, &ReasonNames::resets);
    somewhere(Dictionary::Drop, &ReasonNames::drops);
}

#[test]
fn the_reset_tracepoint_is_complete_since_6_10() {
    for kernel in kernels() {
        let shape = kernel.shape();
        let since = kernel.version >= (6, 10);
        assert_eq!(shape.reset_tracepoint_complete(), since, "{}", kernel.release);
        assert_eq!(shape.tracepoints["tcp_send_reset"], if since { 3 } else { 2 }, "{}", kernel.release);
        assert_eq!(!shape.reasons.resets().is_empty(), since, "{}: sk_rst_reason", kernel.release);
    }
}

#[test]
fn tcp_reset_has_the_segment_since_5_13() {
    for kernel in kernels() {
        let args = if kernel.version >= (5, 13) { 2 } else { 1 };
        assert_eq!(kernel.shape().args("tcp_reset"), args, "{}", kernel.release);
    }
}

#[test]
fn the_task_on_the_cpu_has_its_type_since_5_11() {
    for kernel in kernels() {
        let there = kernel.shape().functions.contains_key(CURRENT_TASK);
        assert_eq!(there, kernel.version >= (5, 11), "{}", kernel.release);
    }
}

#[test]
fn drops_tell_of_refused_last_acks_since_6_16() {
    for kernel in kernels() {
        let number = kernel.shape().reasons.drop_number("TCP_LISTEN_OVERFLOW");
        assert_eq!(number.is_some(), kernel.version >= (6, 16), "{}: {number:?}", kernel.release);
    }
}

#[test]
fn every_kernel_offers_every_function_but_those_of_modules() {
    for kernel in kernels() {
        let shape = kernel.shape();
        for hook in HOOKS.iter().filter(|hook| !matches!(hook.when, When::Module(_))) {
            if hook.ways[0].rung != Rung::Tracepoint {
                assert!(shape.functions.contains_key(hook.name()), "{}: {}", kernel.release, hook.name());
            }
        }
    }
}

#[test]
fn a_missing_hook_is_owed_only_where_a_way_to_it_is_granted() {
    for kernel in kernels() {
        let shape = kernel.shape();
        for (grants, granted) in GRANTS {
            let plan = Plan { shape: &shape, granted, deliver: u32::MAX };
            for hook in HOOKS.iter().filter(|hook| hook.is_essential() && plan.wants(hook)) {
                let is_tracepoint = hook.ways[0].rung == Rung::Tracepoint;
                let expected = is_tracepoint || granted.fentry || granted.kprobe;
                assert_eq!(plan.owes(hook), expected, "{} with {grants}: {}", kernel.release, hook.name());
            }
        }
    }
}

#[test]
fn with_everything_granted_no_wanted_hook_is_left_out() {
    for kernel in kernels() {
        let shape = kernel.shape();
        let plan = Plan { shape: &shape, granted: GRANTS[0].1, deliver: u32::MAX };
        for hook in HOOKS {
            let there = !plan.wants(hook) || plan.ways(hook).next().is_some();
            assert!(there, "{}: no way to hook {}", kernel.release, hook.name());
        }
    }
}

#[test]
fn a_reduced_copy_of_a_reduced_copy_is_the_same() {
    for kernel in kernels() {
        assert!(shape::reduce(kernel.data.clone()).unwrap() == kernel.data, "{}", kernel.release);
    }
}

/// Where the machine shows its types: the shape is the same before and after.
#[test]
fn reducing_loses_nothing_that_is_asked_for() {
    let Ok(data) = fs::read(Path::new(SYSTEM_BTF)) else { return };
    let small = shape::reduce(data.clone()).unwrap();
    assert!(small.len() < 60_000, "{} bytes", small.len());
    let (full, small) = (Shape::parse(data).unwrap(), Shape::parse(small).unwrap());
    assert_eq!(small.offsets, full.offsets);
    assert_eq!(small.functions, full.functions);
    assert_eq!(small.tracepoints, full.tracepoints);
    assert_eq!(small.reasons, full.reasons);
}

/// A program that trusts the types of its arguments goes where the kernel numbers its tracepoints, and where a socket may be NULL only
/// where the verifier knows that; the raw one always stands behind it.
#[test]
fn typed_tracepoints_come_first_where_they_can_be_trusted() {
    for kernel in kernels() {
        let shape = kernel.shape();
        let parts = |id, typed, null| -> Vec<Part> {
            let granted = Granted { typed, null, ..Granted::default() };
            let plan = Plan { shape: &shape, granted, deliver: deliver::RST };
            plan.ways(find(id).unwrap()).map(|way| way.parts[0].0).collect()
        };
        let (raw, both) = (vec![Part::RawTracepoint], vec![Part::TypedTracepoint, Part::RawTracepoint]);
        assert_eq!(parts(hook::INET_SOCK_SET_STATE, false, false), raw, "{}", kernel.release);
        assert_eq!(parts(hook::INET_SOCK_SET_STATE, true, false), both, "{}", kernel.release);
        let doubtful = if shape.reset_tracepoint_complete() { &raw } else { &both };
        assert_eq!(&parts(hook::TCP_SEND_RESET, true, false), doubtful, "{}", kernel.release);
        assert_eq!(parts(hook::TCP_SEND_RESET, true, true), both, "{}", kernel.release);
    }
}

/// Every question that anything asks of a blob.
fn ask_everything(data: Vec<u8>) -> bool {
    let _ = shape::reduce(data.clone());
    if let Ok(types) = shape::types(data.clone()) {
        for hook in HOOKS {
            let _ = types.function_prototype(hook.name());
            let _ = types.tracepoint_prototype(hook.name());
        }
    }
    Shape::parse(data).is_ok()
}

#[test]
fn what_is_cut_off_is_an_error() {
    for kernel in kernels() {
        for length in (0..kernel.data.len()).step_by(97) {
            let done = ask_everything(kernel.data[..length].to_vec());
            assert!(!done, "{} cut to {length} bytes passes for whole", kernel.release);
        }
    }
}

/// Whatever comes of it, it comes: no panic, no endless search.
#[test]
fn what_is_damaged_does_no_harm() {
    let mut outcomes = HashMap::new();
    for kernel in kernels() {
        for (at, value) in
            (0..kernel.data.len()).step_by(31).zip([0xff, 0x00, 0x80, 0x01].into_iter().cycle())
        {
            let mut data = kernel.data.clone();
            data[at] = value;
            *outcomes.entry(ask_everything(data)).or_insert(0) += 1;
        }
    }
    assert!(outcomes.len() == 2, "some damage is noticed and some is not: {outcomes:?}");
}
