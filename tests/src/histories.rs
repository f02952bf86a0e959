//! Random histories: many processes do everything at once, write down what they did, and tcpwatch is measured by it.
//!
//! `plan` draws the acts from a seed, `play` does them, `truth` is what the players wrote down, `compare` holds it against the events,
//! `report` prints the figures.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::expect::Side;
use crate::judge::{self, BOOKS, Rules};
use crate::net::Family;
use crate::stage::{Gate, Stage};
use crate::sys;
use crate::watch::{Captured, Watch};

mod compare;
mod plan;
mod play;
mod report;
mod truth;

use compare::Comparison;
use plan::World;
use play::Scene;
use report::say;
use truth::Truth;

/// After the last act: time for events that should not be there.
const CALM: Duration = Duration::from_millis(300);

/// How often a history is played again that went wrong where programs are not always run.
const AGAIN: usize = 2;

/// Random seeds are small, so that a line of results can be read and typed again.
const SEEDS: u64 = 1_000_000;

pub struct Options {
    pub tcpwatch: String,
    /// One by chance if empty.
    pub seeds: Vec<u64>,
    /// Acts of each history.
    pub count: usize,
    /// Also what tcpwatch is known to tell wrong.
    pub hard: bool,
    pub families: Vec<Family>,
    pub tracepoints_only: bool,
    pub extra: String,
    pub keep: Option<String>,
    /// No act begins later.
    pub time: Option<Duration>,
}

/// A pair of namespaces that was played in. It lives on, so that no other gets its numbers.
struct Played {
    stage_pair: crate::net::Pair,
    family: Family,
    kernel: [[u64; 3]; 2],
    left_out: Vec<String>,
    failed: Option<String>,
}

/// One history, played.
struct History {
    seed: u64,
    pairs: Vec<Played>,
    truths: Vec<Truth>,
    connections: u64,
    acts: usize,
    since: u64,
    until: u64,
    took: Duration,
}

/// What came of one history.
struct Verdict {
    comparison: Comparison,
    /// What is wrong, by the label of the family.
    problems: Vec<(&'static str, String)>,
    /// The play itself went wrong.
    broken: bool,
    /// What would be wrong, had the kernel not left out runs of tcpwatch's programs.
    explained: Vec<(&'static str, String)>,
}

/// What one tcpwatch saw.
struct Round {
    judged: Vec<(History, Verdict)>,
    /// What is wrong with its lines as a whole.
    stream: Vec<String>,
    /// Runs of its programs that the kernel left out, as it says itself.
    missed: u64,
}

/// Plays and judges all histories; true if nothing was wrong.
pub fn run(options: &Options) -> Result<bool> {
    let chance = vec![fastrand::u64(..SEEDS)];
    let seeds = if options.seeds.is_empty() { &chance } else { &options.seeds };
    let mut round = Round::play(options, seeds)?;
    for _ in 0..AGAIN {
        if round.explain(options.tracepoints_only) {
            break;
        }
        round.again(options)?;
    }
    round.explain(options.tracepoints_only);
    let mut tally = report::Tally::default();
    for (history, verdict) in &round.judged {
        report::history(&mut tally, history, verdict, options);
    }
    tally.note(&format!("history-stream {}", options.families[0].label()), &round.stream);
    Ok(tally.close())
}

impl Round {
    fn play(options: &Options, seeds: &[u64]) -> Result<Self> {
        let mut watch = Watch::start_with(&options.tcpwatch, &[], &options.extra)?;
        let mut histories = Vec::new();
        for seed in seeds {
            histories.push(play(options, *seed)?);
        }
        let captured = watch.stop();
        drop(std::fs::remove_file(&captured.capture));
        if let Some(path) = &options.keep {
            let text = captured.lines.join("\n") + "\n";
            std::fs::write(path, text).with_context(|| format!("writing {path}"))?;
        }
        let rules = Rules {
            tracepoints_only: options.tracepoints_only,
            kernel_reasons: sys::kernel_version() >= (6, 10),
            strict_causes: !options.tracepoints_only,
            ignored_unseen: judge::ignored_unseen(&captured.events),
        };
        let with_verdict = |history: History| {
            let verdict = judge(&history, &captured, rules);
            (history, verdict)
        };
        let judged = histories.into_iter().map(with_verdict).collect();
        let mut stream = captured.problems.clone();
        stream.extend(judge::stream(&captured.events));
        for (hook, missed) in judge::missed_by_hook(&captured.events) {
            say(&format!("tcpwatch says that the kernel left out {missed} runs at {hook}"));
        }
        Ok(Self { judged, stream, missed: judge::missed(&captured.events) })
    }

    /// Whether nothing is wrong but what tcpwatch itself excuses: it says how many runs of its programs the kernel left out, because the
    /// same program was interrupted at work, and what fell into such a run is not known to it. One run excuses one miss, not more.
    ///
    /// `limited`: this host's kernel restricts BPF. One such was seen to run no program at all in interrupts on top of process 1,
    /// and to count none of them as left out: the tracepoints fire, as tracefs shows, and two tcpwatch side by side see the same
    /// gap. So there what went wrong is played again. A fault of tcpwatch comes again with the same seed, and the kernels
    /// in virtual machines are held to every single event.
    fn explain(&mut self, limited: bool) -> bool {
        let misses: usize = self.judged.iter().map(|(_, verdict)| verdict.comparison.misses.len()).sum();
        let broken = self.judged.iter().any(|(_, verdict)| verdict.broken);
        let wrong = self.judged.iter().any(|(_, verdict)| !verdict.problems.is_empty());
        if wrong && !broken && misses as u64 <= self.missed {
            for (_, verdict) in &mut self.judged {
                verdict.explained = std::mem::take(&mut verdict.problems);
            }
            return true;
        }
        // Nothing to be gained from playing again, if no run was left out.
        !wrong || self.missed == 0 && !limited
    }

    /// Plays once more what is wrong for the most part while the kernel left out runs: one run can carry the owner of many sockets.
    /// The second verdict counts.
    fn again(&mut self, options: &Options) -> Result<()> {
        let at_fault = |(_, verdict): &&mut (History, Verdict)| !verdict.problems.is_empty();
        let places: Vec<_> = self.judged.iter_mut().filter(at_fault).collect();
        let seeds: Vec<u64> = places.iter().map(|(history, _)| history.seed).collect();
        for (history, verdict) in &places {
            let why: Vec<&str> = verdict.problems.iter().map(|(_, what)| what.as_str()).collect();
            let (seed, missed) = (history.seed, self.missed);
            say(&format!(
                "again history-{seed}: the kernel left out {missed} runs: {}",
                why.join("\n       ")
            ));
        }
        let second = Self::play(options, &seeds)?;
        for (place, judged) in places.into_iter().zip(second.judged) {
            *place = judged;
        }
        self.stream.extend(second.stream);
        self.missed = second.missed;
        Ok(())
    }
}

fn play(options: &Options, seed: u64) -> Result<History> {
    let worlds = plan::plan(seed, options.count, &options.families, options.hard);
    let gate = Gate::new(0, worlds.len());
    let started = Instant::now();
    let deadline = options.time.map(|time| started + time);
    let mut scenes = Vec::new();
    for (number, world) in worlds.iter().enumerate() {
        let stage = Stage::new(world.family, &gate, false).context("setting the stage")?;
        scenes.push(Scene::new(stage, world, number)?);
    }
    let since = sys::monotonic_ns();
    let outcomes: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = scenes.iter().map(|scene| scope.spawn(move || scene.play(deadline))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a player panicked")))
        };
        threads.into_iter().map(join).collect()
    });
    std::thread::sleep(CALM);
    let until = sys::monotonic_ns();
    let mut history = History {
        seed,
        pairs: Vec::new(),
        truths: Vec::new(),
        connections: 0,
        acts: worlds.iter().flat_map(|world: &World| &world.players).map(Vec::len).sum(),
        since,
        until,
        took: started.elapsed(),
    };
    for (scene, outcome) in scenes.into_iter().zip(outcomes) {
        let mut kernel = [[0; 3]; 2];
        for side in [Side::Server, Side::Client] {
            for (at, name) in BOOKS.iter().enumerate() {
                kernel[side as usize][at] = scene.stage.growth(side, name)?;
            }
        }
        let failed = match outcome {
            Ok(()) => None,
            Err(error) => Some(format!("{error:#}; {}", scene.stage.books()?)),
        };
        let (mut stage, ledger) = scene.close();
        stage.dismiss();
        let pages = ledger.take();
        history.truths.extend(pages.truths);
        history.connections += pages.connections;
        let left_out = pages.left_out.into_iter().collect();
        history.pairs.push(Played { family: stage.family, stage_pair: stage.pair, kernel, left_out, failed });
    }
    Ok(history)
}

fn judge(history: &History, captured: &Captured, rules: Rules) -> Verdict {
    let inodes: Vec<[u64; 2]> = history.pairs.iter().map(Played::inodes).collect();
    let ours = |event: &&Value| {
        let time = event.get("mono_ns").and_then(Value::as_u64);
        let netns = judge::netns(event);
        judge::is_act(event)
            && inodes.iter().flatten().any(|inode| netns == Some(*inode))
            && time.is_none_or(|time| (history.since..=history.until).contains(&time))
    };
    let events: Vec<&Value> = captured.events.iter().filter(ours).collect();
    let comparison = compare::compare(&history.truths, &events, &inodes, rules);
    let mut problems = Vec::new();
    let mut broken = false;
    for (number, pair) in history.pairs.iter().enumerate() {
        let label = pair.family.label();
        if let Some(why) = &pair.failed {
            broken = true;
            problems.push((label, format!("pair {number}: the play broke off: {why}")));
        }
        for miss in comparison.misses.iter().filter(|miss| miss.pair == number) {
            let text = format!("{}\n       truth: {}\n       event: {}", miss.what, miss.truth, miss.event);
            problems.push((label, text));
        }
        for side in [Side::Server, Side::Client] {
            let (kernel, inode) = (pair.kernel[side as usize], inodes[number][side as usize]);
            let here = events.iter().copied().filter(|event| judge::netns(event) == Some(inode));
            let place = format!("books of pair {number}, {side}");
            let wrong = judge::unbalanced(kernel, judge::books(here), rules);
            problems.extend(wrong.into_iter().map(|what| (label, format!("{place}: {what}"))));
            if pair.failed.is_none() {
                let wrong = unplanned(&history.truths, number, side, kernel);
                broken |= !wrong.is_empty();
                problems.extend(wrong.into_iter().map(|what| (label, format!("{place}: {what}"))));
            }
        }
    }
    Verdict { comparison, problems, broken, explained: Vec::new() }
}

/// The kernel counted something else than the players did. Then the truth itself is in doubt.
fn unplanned(truths: &[Truth], pair: usize, side: Side, kernel: [u64; 3]) -> Vec<String> {
    let mut due = [(0, 0); 3];
    for truth in truths.iter().filter(|truth| truth.pair == pair) {
        for (sum, one) in due.iter_mut().zip(truth.due(side)) {
            *sum = (sum.0 + one.0, sum.1 + one.1);
        }
    }
    let wrong = BOOKS
        .iter()
        .zip(due)
        .zip(kernel)
        .filter(|((_, (least, most)), kernel)| !(least..=most).contains(&kernel));
    wrong
        .map(|((name, (least, most)), kernel)| {
            format!("the kernel counted {name} {kernel}, the players did {least} to {most}")
        })
        .collect()
}

impl Played {
    fn inodes(&self) -> [u64; 2] {
        [self.stage_pair.server.inode(), self.stage_pair.client.inode()]
    }
}
