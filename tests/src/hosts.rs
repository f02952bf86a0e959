//! Bad input and bad hosts: each case starts the real tcpwatch where something is wrong, and wants a clear error, or
//! everything that is still possible.
//!
//! `disguise` makes a host odd for one process, `tool` runs tcpwatch and reads its books, `traffic` provokes resets; the
//! rest are the cases.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::scratch::Scratch;
use crate::tally::{Tally, say};

pub(crate) mod captures;
mod census;
mod degraded;
pub mod disguise;
mod expressions;
mod filters;
mod lockdown;
mod otlp;
mod output;
mod pids;
mod refused;
mod screen;
mod signals;
pub(crate) mod sys;
pub(crate) mod tool;
mod traffic;

pub(crate) use filters::longest_filter;

/// How many cases run at once; each runs one to three tcpwatch.
const JOBS: usize = 3;

pub struct Options {
    pub names: Vec<String>,
    pub tcpwatch: String,
    /// Also what changes settings of the whole machine.
    pub global: bool,
    /// Also what can only be undone by a reboot.
    pub lockdown: bool,
}

/// When a case runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// Beside others.
    Any,
    /// Alone: it measures time.
    Alone,
    /// Alone, at the very end: the machine is not the same after it.
    Last,
}

struct Case {
    name: &'static str,
    when: When,
    play: fn(&Lab) -> Result<()>,
}

const fn case(name: &'static str, when: When, play: fn(&Lab) -> Result<()>) -> Case {
    Case { name, when, play }
}

fn cases() -> impl Iterator<Item = &'static Case> {
    [
        refused::CASES,
        degraded::CASES,
        output::CASES,
        captures::CASES,
        otlp::CASES,
        screen::CASES,
        filters::CASES,
        expressions::CASES,
        pids::CASES,
        signals::CASES,
        census::CASES,
        lockdown::CASES,
    ]
    .into_iter()
    .flatten()
}

/// What every case needs to know.
struct Lab {
    tcpwatch: String,
    global: bool,
    /// A folder of our own for files that cases put in other files' places.
    scratch: Scratch,
    /// Name and way of what attaches on this host when nothing is wrong.
    attached: Vec<(String, String)>,
    /// How long attaching everything and taking it off again takes here; seconds under emulation.
    slowness: Duration,
}

impl Lab {
    fn new(options: &Options) -> Result<Self> {
        let mut lab = Self {
            tcpwatch: options.tcpwatch.clone(),
            global: options.global,
            scratch: Scratch::new("hosts")?,
            attached: Vec::new(),
            slowness: Duration::ZERO,
        };
        let began = Instant::now();
        let healthy = lab.doctor(&[])?;
        lab.slowness = began.elapsed();
        lab.attached = attached(&healthy);
        Ok(lab)
    }

    fn tool(&self, args: &[&str]) -> tool::Tool {
        tool::Tool::plain(&self.tcpwatch, args)
    }

    fn odd(&self, disguise: &[&str], args: &[&str]) -> tool::Tool {
        tool::Tool::disguised(&self.tcpwatch, disguise, args)
    }

    /// What doctor says on a host made odd, or on this one as it is. tcpwatch must be able to work there.
    fn doctor(&self, disguise: &[&str]) -> Result<Value> {
        self.doctor_with(disguise, &[])
    }

    fn doctor_with(&self, disguise: &[&str], more: &[&str]) -> Result<Value> {
        let args = [&["doctor", "--json"], more].concat();
        let tool = if disguise.is_empty() { self.tool(&args) } else { self.odd(disguise, &args) };
        let ended = tool.run()?;
        ended.exits(0).context("doctor")?;
        serde_json::from_str(&ended.stdout.concat()).context("doctor printed no JSON")
    }

    /// What should be attached in a run: doctor tries more hooks than the usual events need.
    fn usual(&self, books: &tool::Books) -> Vec<(String, String)> {
        let mut usual = self.attached.clone();
        usual.retain(|(name, _)| !books.start["hooks"][name].is_null());
        usual
    }

    /// The host lets tcpwatch onto functions and not only onto tracepoints.
    fn has_functions(&self) -> bool {
        self.attached.iter().any(|(_, way)| way == "fentry" || way == "kprobe")
    }
}

/// Name and way of every hook that doctor could attach.
fn attached(doctor: &Value) -> Vec<(String, String)> {
    let hooks = doctor["hooks"].as_array().into_iter().flatten();
    let pair =
        |hook: &Value| Some((hook["name"].as_str()?.to_owned(), hook["attached"].as_str()?.to_owned()));
    let mut all: Vec<_> = hooks.filter_map(pair).collect();
    all.sort();
    all
}

/// Names of hooks that are attached in one way here and in another or not at all there.
fn differences(one: &[(String, String)], two: &[(String, String)]) -> Vec<String> {
    let lone = |a: &[(String, String)], b: &[(String, String)]| {
        a.iter().filter(|hook| !b.contains(hook)).map(|hook| hook.0.clone()).collect::<Vec<_>>()
    };
    let mut names = [lone(one, two), lone(two, one)].concat();
    names.sort();
    names.dedup();
    names
}

/// The sentences of doctor about what is not as it should be.
fn complaints(doctor: &Value) -> Vec<String> {
    let findings = doctor["findings"].as_array().into_iter().flatten();
    findings
        .filter(|finding| finding["ok"] == false)
        .map(|finding| format!("{}: {}", finding["what"], finding["effect"]))
        .collect()
}

/// Names every case.
pub fn list() {
    for case in cases() {
        say(case.name);
    }
}

/// Runs what was asked for; true if all of it passed.
pub fn run(options: &Options) -> Result<bool> {
    if let Some(name) = options.names.iter().find(|name| !cases().any(|case| case.name == **name)) {
        bail!("no case is named {name}; `hosts --list` shows them");
    }
    let chosen =
        |case: &&Case| options.names.is_empty() || options.names.iter().any(|name| name == case.name);
    let of = |when: When| cases().filter(chosen).filter(move |case| case.when == when).collect::<Vec<_>>();
    let lab = Lab::new(options)?;
    let tally = Mutex::new(Tally::default());
    let queue = Mutex::new(of(When::Any).into_iter());
    let play_one = |case: &Case| {
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (case.play)(&lab)));
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("the case panicked")));
        note(&mut tally.lock().unwrap_or_else(PoisonError::into_inner), case.name, outcome, began);
    };
    std::thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    match next {
                        Some(case) => play_one(case),
                        None => break,
                    }
                }
            });
        }
    });
    of(When::Alone).into_iter().for_each(play_one);
    if options.lockdown {
        of(When::Last).into_iter().for_each(play_one);
    }
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.finish();
    Ok(tally.failed == 0 && tally.passed > 0)
}

/// In the form of the scenarios: every line has a family there, so it has one here.
fn note(tally: &mut Tally, name: &str, outcome: Result<()>, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    tally.judge(&format!("{name} v4"), outcome);
    drop(writeln!(std::io::stderr().lock(), "{seconds:>6.1} s  {name}"));
}
