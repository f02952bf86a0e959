//! Prints what came of a history: the figures as a table, every miss with both sides, and the lines that `cargo xtask test` reads.

use std::io::Write;

use super::compare::{Row, Score};
use super::{History, Options, Verdict};

/// Writes a line for the reader of the results. A closed pipe is no reason to fail.
pub(super) fn say(line: &str) {
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}

/// Counts of the last line.
#[derive(Default)]
pub(super) struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    pub(super) fn note(&mut self, label: &str, problems: &[String]) {
        if problems.is_empty() {
            self.passed += 1;
            say(&format!("ok   {label}"));
        } else {
            self.failed += 1;
            say(&format!("FAIL {label}: {}", problems.join("\n       ")));
        }
    }

    /// The last line; true if nothing failed.
    pub(super) fn close(&self) -> bool {
        say(&format!("{} passed, {} failed", self.passed, self.failed));
        self.failed == 0
    }
}

/// In per cent with one digit. Only all of them are 100.
fn percent(thousandths: u64) -> String {
    format!("{}.{}", thousandths / 10, thousandths % 10)
}

fn score(score: Score) -> [String; 2] {
    let or_dash = |of: u64, value: u64| if of == 0 { "-".to_owned() } else { percent(value) };
    [or_dash(score.said, score.precision()), or_dash(score.due, score.recall())]
}

fn row(event: &str, cause: &str, row: Row) -> String {
    let ([cause_p, cause_r], [owner_p, owner_r]) = (score(row.cause), score(row.owner));
    format!(
        "  {event:<13} {cause:<26} {:>5} {:>5}  {cause_p:>6} {cause_r:>6}  {owner_p:>6} {owner_r:>6}",
        row.due, row.seen
    )
}

pub(super) fn history(tally: &mut Tally, history: &History, verdict: &Verdict, options: &Options) {
    let comparison = &verdict.comparison;
    let processes = "precision and recall in %";
    say(&format!(
        "history {}: {} acts, {} connections in {} pairs of namespaces, {:.0} s; {processes}",
        history.seed,
        history.acts,
        history.connections,
        history.pairs.len(),
        history.took.as_secs_f64()
    ));
    say("  event         cause                        due  seen  cause:p      r  owner:p      r");
    for ((event, cause), line) in &comparison.rows {
        say(&row(event, cause, *line));
    }
    say(&row("all", "", comparison.total()));
    if comparison.excused > 0 {
        say(&format!("  {} events need a hook that this host does not grant", comparison.excused));
    }
    let mut left_out: Vec<&String> = history.pairs.iter().flat_map(|pair| &pair.left_out).collect();
    left_out.sort();
    left_out.dedup();
    for what in left_out {
        say(&format!("  left out: {what}"));
    }
    for (label, what) in &verdict.explained {
        say(&format!("  lost in a run that the kernel left out: {label}: {what}"));
    }
    let mut labels: Vec<&str> = options.families.iter().map(|family| family.label()).collect();
    labels.dedup();
    labels.sort_unstable();
    labels.dedup();
    for label in labels {
        let ours = verdict.problems.iter().filter(|(of, _)| *of == label);
        let problems: Vec<String> = ours.map(|(_, what)| what.clone()).collect();
        if !problems.is_empty() {
            let hard = if options.hard { " --hard" } else { "" };
            say(&format!("  to repeat: histories --seed {} --count {}{hard}", history.seed, options.count));
        }
        tally.note(&format!("history-{} {label}", history.seed), &problems);
    }
}
