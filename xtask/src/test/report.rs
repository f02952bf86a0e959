//! What the tests said: read from their output, counted, and shown as one table.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::ops::AddAssign;

use anyhow::{Result, bail};

/// How many tests did what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) skipped: u32,
}

impl Tally {
    /// One test that did what it should, or one that did not.
    pub(super) fn one(passed: bool) -> Self {
        Self { passed: passed.into(), failed: (!passed).into(), skipped: 0 }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 { write!(f, ", {} skipped", self.skipped) } else { Ok(()) }
    }
}

/// The sum over all `test result:` lines that cargo printed. `succeeded` is cargo's own verdict: a crate that does not compile
/// has no such line, and counts as one failure.
pub(super) fn cargo_tests(output: &str, succeeded: bool) -> Tally {
    let mut sum = Tally::default();
    for line in output.lines().filter(|line| line.starts_with("test result:")) {
        let number = |word: &str| {
            let before = line.split(word).next()?.split_whitespace().last()?;
            line.contains(word).then(|| before.parse().ok()).flatten()
        };
        sum.passed += number(" passed;").unwrap_or(0);
        sum.failed += number(" failed;").unwrap_or(0);
        sum.skipped += number(" ignored;").unwrap_or(0);
    }
    if !succeeded && sum.failed == 0 {
        sum.failed = 1;
    }
    sum
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
    /// The kernel cannot do this at all, as a kernel without MPTCP.
    NotApplicable,
}

/// One scenario on one kernel, over one family of addresses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) name: String,
    /// Empty where it has none.
    pub(super) family: String,
    pub(super) outcome: Outcome,
    /// Why, where it did not pass.
    pub(super) note: String,
}

/// What runs of `tcpwatch-scenario` printed, one after the other. Each closing line must be there and agree with the lines above it:
/// half an output is none.
pub(super) fn scenarios(output: &str, runs: usize) -> Result<Vec<Line>> {
    let mut lines: Vec<Line> = Vec::new();
    if runs == 0 {
        return Ok(lines);
    }
    // Up to where the closing lines so far have confirmed them.
    let (mut closed, mut closings) = (0, 0);
    let mut last = "";
    for text in output.lines().filter(|line| !line.trim().is_empty()) {
        last = text;
        if let Some(said) = closing_line(text) {
            let sum = tally(&lines[closed..]);
            if (sum.passed, sum.failed) != (said.passed, said.failed) {
                bail!("the closing line says `{said}`, the lines above it `{sum}`");
            }
            if closed == lines.len() {
                bail!("no scenario ran");
            }
            (closed, closings) = (lines.len(), closings + 1);
            continue;
        }
        match (scenario(text), lines.last_mut()) {
            (Some(line), _) => lines.push(line),
            // More that is wrong with the scenario above.
            (None, Some(line)) if line.outcome == Outcome::Failed && text.starts_with("       ") => {
                line.note.push_str("; ");
                line.note.push_str(text.trim());
            }
            _ => {}
        }
    }
    if closings != runs || closed != lines.len() || closing_line(last).is_none() {
        bail!("{closings} of {runs} closing lines, and the last line is `{last}`");
    }
    Ok(lines)
}

pub(super) fn tally(lines: &[Line]) -> Tally {
    let count = |outcome| lines.iter().filter(|line| line.outcome == outcome).count() as u32;
    Tally {
        passed: count(Outcome::Passed),
        failed: count(Outcome::Failed),
        skipped: count(Outcome::NotApplicable),
    }
}

fn scenario(line: &str) -> Option<Line> {
    let (verdict, rest) = line.split_once(' ')?;
    let outcome = match verdict {
        "ok" => Outcome::Passed,
        "FAIL" => Outcome::Failed,
        "n/a" => Outcome::NotApplicable,
        _ => return None,
    };
    let (what, note) = rest.split_once(':').unwrap_or((rest, ""));
    let mut words = what.split_whitespace();
    let (name, family) = (words.next()?, words.next()?);
    let family = match family {
        "v4" | "v6" => family,
        "-" => "",
        _ => return None,
    };
    Some(Line { name: name.to_owned(), family: family.to_owned(), outcome, note: note.trim().to_owned() })
}

fn closing_line(line: &str) -> Option<Tally> {
    let mut tally = Tally::default();
    let mut seen = 0;
    for part in line.trim().split(", ") {
        let (number, word) = part.split_once(' ')?;
        let number = number.parse().ok()?;
        match word {
            "passed" => tally.passed = number,
            "failed" => tally.failed = number,
            "skipped" => tally.skipped = number,
            _ => return None,
        }
        seen += 1;
    }
    (seen >= 2).then_some(tally)
}

/// One kernel, with one way to attach.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) kernel: String,
    pub(super) release: String,
    /// How tcpwatch was told to attach; empty if it chose itself.
    pub(super) rung: &'static str,
    pub(super) lines: Result<Vec<Line>, String>,
    pub(super) seconds: f64,
}

impl Column {
    /// A kernel on which nothing could be run is one failure.
    pub(super) fn tally(&self) -> Tally {
        self.lines.as_ref().map_or(Tally::one(false), |lines| tally(lines))
    }

    pub(super) fn title(&self) -> String {
        if self.rung.is_empty() { self.kernel.clone() } else { format!("{} {}", self.kernel, self.rung) }
    }
}

/// Scenarios down, kernels across; below it every failure and every reason why something does not apply.
pub(super) fn table(columns: &[Column]) -> String {
    let mut rows: BTreeMap<&str, Vec<Vec<Outcome>>> = BTreeMap::new();
    for (at, column) in columns.iter().enumerate() {
        for line in column.lines.iter().flatten() {
            let cells = rows.entry(&line.name).or_insert_with(|| vec![Vec::new(); columns.len()]);
            cells[at].push(line.outcome);
        }
    }
    let first = rows.keys().map(|name| name.len()).max().unwrap_or(0).max("scenario".len());
    // A rung is as wide as a cell can get.
    let width =
        columns.iter().map(|column| column.kernel.len().max(column.rung.len())).max().unwrap_or(0).max(7);
    let mut text = String::new();
    let mut row = |name: &str, cells: Vec<String>| {
        let _ = write!(text, "{name:<first$}");
        for cell in cells {
            let _ = write!(text, "  {cell:<width$}");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    };
    row("scenario", columns.iter().map(|column| column.kernel.clone()).collect());
    if columns.iter().any(|column| !column.rung.is_empty()) {
        row("", columns.iter().map(|column| column.rung.to_owned()).collect());
    }
    for (name, cells) in rows {
        row(name, cells.iter().map(|outcomes| cell(outcomes)).collect());
    }
    row("passed", columns.iter().map(|column| column.tally().passed.to_string()).collect());
    row("failed", columns.iter().map(|column| column.tally().failed.to_string()).collect());
    row("seconds", columns.iter().map(|column| format!("{:.0}", column.seconds)).collect());
    text.push_str(&notes(columns));
    text
}

/// Both families in one cell where they agree, else in their order.
fn cell(outcomes: &[Outcome]) -> String {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Passed => "ok",
        Outcome::Failed => "FAIL",
        Outcome::NotApplicable => "n/a",
    };
    match outcomes {
        [] => "-".to_owned(),
        [first, rest @ ..] if rest.iter().all(|other| other == first) => word(first).to_owned(),
        _ => outcomes.iter().map(word).collect::<Vec<_>>().join("|"),
    }
}

/// The same sentence of several kernels is said once.
fn notes(columns: &[Column]) -> String {
    let mut failures = String::new();
    let mut reasons: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for column in columns {
        match &column.lines {
            Err(error) => {
                let _ = writeln!(failures, "FAIL {}: {error}", column.title());
            }
            Ok(lines) => {
                for line in lines {
                    match line.outcome {
                        Outcome::Passed => {}
                        Outcome::Failed => {
                            let _ = writeln!(
                                failures,
                                "FAIL {}: {}: {}",
                                column.title(),
                                format!("{} {}", line.name, line.family).trim_end(),
                                line.note
                            );
                        }
                        Outcome::NotApplicable => {
                            let titles = reasons.entry((&line.name, &line.note)).or_default();
                            if !titles.contains(&column.title()) {
                                titles.push(column.title());
                            }
                        }
                    }
                }
            }
        }
    }
    for ((name, note), titles) in reasons {
        let _ = writeln!(failures, "n/a  {name}: {note} ({})", titles.join(", "));
    }
    if failures.is_empty() { failures } else { format!("\n{failures}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
noise before
ok   closed-port v4
FAIL closed-port v6: no event: rst_sent
       its books do not balance
played: something else
n/a  mptcp-fastclose v4: kernel without MPTCP
1 passed, 1 failed, 1 skipped
";

    #[test]
    fn cargos_results_are_summed() {
        let output = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                      test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured\n";
        assert_eq!(cargo_tests(output, false), Tally { passed: 15, failed: 2, skipped: 1 });
        assert_eq!(cargo_tests("error[E0425]: no\n", false), Tally::one(false));
        assert_eq!(cargo_tests("", true), Tally::default());
    }

    #[test]
    fn scenario_lines() {
        let lines = scenarios(OUTPUT, 1).unwrap();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].name, "closed-port");
        assert_eq!(lines[1].outcome, Outcome::Failed);
        assert_eq!(lines[1].note, "no event: rst_sent; its books do not balance");
        assert_eq!(lines[2].family, "v4");
        assert_eq!(scenarios("ok   purge -\n1 passed, 0 failed\n", 1).unwrap()[0].family, "");
        assert_eq!(tally(&lines).to_string(), "1 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn half_an_output_is_an_error() {
        assert!(scenarios("ok   closed-port v4\n", 1).is_err());
        assert!(scenarios("ok   closed-port v4\n2 passed, 0 failed\n", 1).is_err());
        assert!(scenarios("0 passed, 0 failed\n", 1).is_err());
        assert!(scenarios("", 1).is_err());
    }

    #[test]
    fn several_runs_close_each_for_itself() {
        let two = format!("{OUTPUT}tcpwatch wrote something\nok   history-1 v4\n1 passed, 0 failed\n");
        assert_eq!(scenarios(&two, 2).unwrap().len(), 4);
        assert!(scenarios(&two, 1).is_err());
        assert!(scenarios(OUTPUT, 2).is_err());
        assert!(scenarios(&format!("{OUTPUT}ok   history-1 v4\n"), 1).is_err());
        assert!(scenarios(&format!("{OUTPUT}ok   history-1 v4\n2 passed, 0 failed\n"), 2).is_err());
    }

    #[test]
    fn closing_lines() {
        assert_eq!(closing_line("3 passed, 0 failed"), Some(Tally { passed: 3, failed: 0, skipped: 0 }));
        assert_eq!(closing_line("3 passed"), None);
        assert_eq!(closing_line("all good, really"), None);
    }

    #[test]
    fn the_table_shows_families_kernels_and_reasons() {
        let column = |kernel: &str, rung, lines| Column {
            kernel: kernel.into(),
            release: String::new(),
            rung,
            lines,
            seconds: 61.2,
        };
        let text = table(&[
            column("5.10", "", scenarios(OUTPUT, 1).map_err(|error| error.to_string())),
            column("6.12", "kprobe", Err("crashed".into())),
        ]);
        let expected = "\
scenario         5.10     6.12
                          kprobe
closed-port      ok|FAIL  -
mptcp-fastclose  n/a      -
passed           1        0
failed           1        1
seconds          61       61

FAIL 5.10: closed-port v6: no event: rst_sent; its books do not balance
FAIL 6.12 kprobe: crashed
n/a  mptcp-fastclose: kernel without MPTCP (5.10)
";
        assert_eq!(text, expected);
    }
}
