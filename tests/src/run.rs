//! Plays scenarios side by side under one tcpwatch and compares what it said with what was done.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::captures;
use crate::census;
use crate::expect::Expect;
use crate::judge::{self, Rules};
use crate::net::{Family, Pair};
use crate::scenarios::{self, Scenario, When};
use crate::stage::{Gate, NotHere, Stage};
use crate::sys;
use crate::tally::{Tally, say};
use crate::watch::{Captured, Watch};

/// How many scenarios play at once. Most of their time is waiting for timers.
const SLOTS: usize = 8;

/// How often to play again what may have fallen into a run that the kernel left out: kernels from 7.0 on take the CPU from a
/// program in the middle of its work, and under emulation a program takes milliseconds.
const AGAIN: usize = 3;

pub struct Options {
    pub names: Vec<String>,
    pub tcpwatch: Option<String>,
    pub families: Vec<Family>,
    pub extra: String,
    pub keep: Option<String>,
    pub global: bool,
    pub slots: Option<usize>,
    pub tracepoints_only: bool,
    pub strict_causes: bool,
    pub census: bool,
    /// Have tshark read the capture, too.
    pub tshark: bool,
}

/// What became of a scenario on stage.
enum Played {
    Done(Record),
    NotHere(String),
    Failed(String),
}

/// What is needed to judge it later. The namespaces live on, so that no other gets their inode.
struct Record {
    pair: Pair,
    expects: Vec<Expect>,
    kernel: [[u64; 3]; 2],
    since: u64,
    until: u64,
}

struct Part {
    /// Name and family, as the results show it.
    label: String,
    scenario: &'static Scenario,
    family: Family,
}

/// What came of one scenario.
enum Verdict {
    Ok,
    NotHere(String),
    Wrong(Vec<String>),
}

/// Runs what was asked for; true if all of it passed.
pub fn run(options: &Options) -> Result<bool> {
    let parts = choose(options)?;
    let (played, captured) = play_all(options, &parts)?;
    if let (Some(path), Some(captured)) = (&options.keep, &captured) {
        let text = captured.lines.join("\n") + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {path}"))?;
    }
    let mut books = Vec::new();
    let mut verdicts = verdicts(options, &parts, &played, captured.as_ref(), &mut books);
    let mut missed = captured.as_ref().map_or(0, |captured| judge::missed(&captured.events));
    for _ in 0..AGAIN {
        let failed = verdicts.iter().any(|(_, verdict)| matches!(verdict, Verdict::Wrong(_)));
        // The last as in `histories`: a kernel that restricts BPF may run no program, and not say so.
        if !failed || missed == 0 && !options.tracepoints_only {
            break;
        }
        (verdicts, missed) = again(options, parts.as_slice(), verdicts, missed, &mut books)?;
    }
    Ok(report(options, &parts, &verdicts, captured.as_ref(), &books))
}

/// Plays what went wrong in a run of which tcpwatch itself says that the kernel left out runs of its programs, again: an event
/// that fell into such a run is lost, said so, and no fault of the scenario. The last verdict counts.
fn again(
    options: &Options,
    parts: &[Part],
    verdicts: Vec<(usize, Verdict)>,
    missed: u64,
    books: &mut Vec<String>,
) -> Result<(Vec<(usize, Verdict)>, u64)> {
    let mut at_fault = Vec::new();
    let mut places = Vec::new();
    for (at, verdict) in &verdicts {
        if let Verdict::Wrong(problems) = verdict {
            let Part { label, scenario, family } = &parts[*at];
            say(&format!(
                "again {label}: the kernel left out {missed} runs in this time, as far as it says: {}",
                problems.join("; ")
            ));
            at_fault.push(Part { label: label.clone(), scenario, family: *family });
            places.push(*at);
        }
    }
    books.clear();
    let (played, captured) = play_all(options, &at_fault)?;
    let second = self::verdicts(options, &at_fault, &played, captured.as_ref(), books);
    let mut all: Vec<_> =
        verdicts.into_iter().filter(|(_, verdict)| !matches!(verdict, Verdict::Wrong(_))).collect();
    all.extend(second.into_iter().map(|(at, verdict)| (places[at], verdict)));
    all.sort_by_key(|(at, _)| *at);
    if let Some(captured) = &captured {
        // The first run's is looked at.
        drop(std::fs::remove_file(&captured.capture));
    }
    Ok((all, captured.as_ref().map_or(0, |captured| judge::missed(&captured.events))))
}

/// What was played, by the scenario's place, and what tcpwatch said meanwhile.
type Plays = (Vec<(usize, Played)>, Option<Captured>);

fn play_all(options: &Options, parts: &[Part]) -> Result<Plays> {
    let early = parts.iter().filter(|part| part.scenario.when == When::Early).count();
    let gate = Gate::new(early, options.slots.unwrap_or(SLOTS).max(1));
    std::thread::scope(|scope| {
        let start = |wanted: fn(When) -> bool| {
            let chosen = parts.iter().enumerate().filter(|(_, part)| wanted(part.scenario.when));
            let threads: Vec<_> = chosen.map(|(at, part)| (at, scope.spawn(|| play(part, &gate)))).collect();
            threads
        };
        let mut threads = start(|when| when == When::Early);
        gate.wait_prepared();
        let watch = options.tcpwatch.as_ref().map(|path| Watch::start(path, &options.extra)).transpose();
        gate.open();
        let mut watch = watch?;
        threads.extend(start(|when| when == When::Any));
        let mut played: Vec<(usize, Played)> = threads.into_iter().map(|(at, one)| (at, join(one))).collect();
        // These change settings of the whole machine, so each has it for itself.
        for (at, part) in parts.iter().enumerate().filter(|(_, part)| part.scenario.when == When::Global) {
            played.push((at, play(part, &gate)));
        }
        played.sort_by_key(|(at, _)| *at);
        Ok::<_, anyhow::Error>((played, watch.as_mut().map(Watch::stop)))
    })
}

fn join(thread: std::thread::ScopedJoinHandle<'_, Played>) -> Played {
    thread.join().unwrap_or_else(|_| Played::Failed("the scenario panicked".to_owned()))
}

fn choose(options: &Options) -> Result<Vec<Part>> {
    for name in &options.names {
        if !scenarios::all().any(|scenario| scenario.names().any(|(known, _)| known == *name)) {
            bail!("no scenario is named {name}; `list` shows them");
        }
    }
    let mut parts = Vec::new();
    for scenario in scenarios::all() {
        for (name, family) in scenario.names() {
            let named = options.names.contains(&name);
            if !(named || options.names.is_empty()) || !options.families.contains(&family) {
                continue;
            }
            if scenario.when == When::Global && !options.global {
                if named {
                    bail!("{name} changes settings of the whole machine: it needs --global");
                }
                continue;
            }
            parts.push(Part { label: format!("{name} {}", family.label()), scenario, family });
        }
    }
    if parts.is_empty() {
        bail!("nothing to run with these names and families");
    }
    Ok(parts)
}

fn play(part: &Part, gate: &Gate) -> Played {
    let early = part.scenario.when == When::Early;
    gate.enter();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut stage = match Stage::new(part.family, gate, early) {
            Ok(stage) => stage,
            Err(error) => {
                if early {
                    gate.prepared();
                }
                return Err(error.context("setting the stage"));
            }
        };
        let outcome = (part.scenario.play)(&mut stage).and_then(|()| {
            stage.hold_causes(part.scenario.causes)?;
            stage.settle()
        });
        let outcome = outcome.map_err(|error| match error.downcast::<NotHere>() {
            Ok(lack) => lack.into(),
            Err(error) => anyhow::anyhow!("{error:#}; {}", stage.books().unwrap_or_default()),
        });
        let until = sys::monotonic_ns();
        stage.early_is_over();
        stage.dismiss();
        let kernel = outcome?;
        let Stage { pair, expects, since, .. } = stage;
        Ok(Record { pair, expects, kernel, since, until })
    }));
    gate.leave();
    let played = match result {
        Ok(Ok(record)) => Played::Done(record),
        Ok(Err(error)) => match error.downcast::<NotHere>() {
            Ok(NotHere(why)) => Played::NotHere(why),
            Err(error) => Played::Failed(format!("{error:#}")),
        },
        Err(_) => Played::Failed("the scenario panicked".to_owned()),
    };
    let word = match &played {
        Played::Done(_) => "played",
        Played::NotHere(_) => "not possible",
        Played::Failed(_) => "failed",
    };
    drop(writeln!(std::io::stderr().lock(), "{word}: {}", part.label));
    played
}

fn verdicts(
    options: &Options,
    parts: &[Part],
    played: &[(usize, Played)],
    captured: Option<&Captured>,
    books: &mut Vec<String>,
) -> Vec<(usize, Verdict)> {
    let rules = Rules {
        tracepoints_only: options.tracepoints_only,
        kernel_reasons: sys::kernel_version() >= (6, 10),
        strict_causes: options.strict_causes,
        ignored_unseen: captured.is_some_and(|captured| judge::ignored_unseen(&captured.events)),
    };
    let mut verdicts = Vec::new();
    for (at, outcome) in played {
        let label = &parts[*at].label;
        let verdict = match outcome {
            Played::NotHere(why) => Verdict::NotHere(why.clone()),
            Played::Failed(why) => Verdict::Wrong(vec![why.clone()]),
            Played::Done(record) => {
                let problems = captured.map_or_else(Vec::new, |captured| {
                    let ours = events_of(record, &captured.events);
                    let wrong = unbalanced(label, record, &ours, rules);
                    let judged: Vec<&Value> =
                        ours.into_iter().filter(|event| judge::is_judged(event, &record.expects)).collect();
                    let mut problems = judge::judge(&record.expects, &judged, record.inodes(), rules);
                    if !wrong.is_empty() {
                        problems.push("its books do not balance".to_owned());
                    }
                    books.extend(wrong);
                    problems
                });
                if problems.is_empty() { Verdict::Ok } else { Verdict::Wrong(problems) }
            }
        };
        verdicts.push((*at, verdict));
    }
    verdicts
}

fn report(
    options: &Options,
    parts: &[Part],
    verdicts: &[(usize, Verdict)],
    captured: Option<&Captured>,
    books: &[String],
) -> bool {
    let mut tally = Tally::default();
    for (at, verdict) in verdicts {
        let label = &parts[*at].label;
        match verdict {
            Verdict::NotHere(why) => tally.skip(label, why),
            Verdict::Wrong(problems) => tally.note(label, problems),
            Verdict::Ok => tally.note(label, &[]),
        }
    }
    if let Some(captured) = captured {
        let mut problems = captured.problems.clone();
        problems.extend(judge::stream(&captured.events));
        // Every line of results has a family, so that one pattern reads them all.
        tally
            .note(&format!("stream {}", options.families.first().map_or("v4", |one| one.label())), &problems);
        if !problems.is_empty() && !captured.stderr.trim().is_empty() {
            say(&format!("     tcpwatch wrote: {}", captured.stderr.trim()));
        }
    }
    if let Some((path, captured)) = options.tcpwatch.as_ref().zip(captured) {
        let problems = captures::problems(path, &captured.capture, &captured.lines, options.tshark);
        let problems = problems.unwrap_or_else(|error| vec![format!("{error:#}")]);
        tally.note("capture v4", &problems);
        drop(std::fs::remove_file(&captured.capture));
    }
    if let Some(path) = options.tcpwatch.as_ref().filter(|_| options.census) {
        // The kernel's text has no family either.
        let label = "census v4";
        match census::problems(path, options.global) {
            Ok(problems) => tally.note(label, &problems),
            Err(error) => match error.downcast::<NotHere>() {
                Ok(NotHere(why)) => tally.skip(label, &why),
                Err(error) => tally.note(label, &[format!("{error:#}")]),
            },
        }
    }
    for line in books {
        say(&format!("books {line}"));
    }
    tally.finish();
    tally.failed == 0
}

impl Record {
    fn inodes(&self) -> [u64; 2] {
        [self.pair.server.inode(), self.pair.client.inode()]
    }
}

/// Events in the scenario's namespaces while it played.
fn events_of<'a>(record: &Record, events: &'a [Value]) -> Vec<&'a Value> {
    let inodes = record.inodes();
    let ours = |event: &&Value| {
        judge::netns(event).is_some_and(|netns| inodes.contains(&netns))
            && event
                .get("mono_ns")
                .and_then(Value::as_u64)
                .is_none_or(|at| (record.since..=record.until).contains(&at))
    };
    events.iter().filter(ours).collect()
}

fn unbalanced(label: &str, record: &Record, events: &[&Value], rules: Rules) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((inode, kernel), side) in record.inodes().into_iter().zip(record.kernel).zip(["server", "client"]) {
        let here = events.iter().copied().filter(|event| judge::netns(event) == Some(inode));
        let problems = judge::unbalanced(kernel, judge::books(here), rules);
        wrong.extend(problems.into_iter().map(|problem| format!("{label} {side}: {problem}")));
    }
    wrong
}
