//! Results as lines: one for each thing judged, and their counts as the last.

use std::io::Write as _;

use anyhow::Result;

use crate::stage::NotHere;

/// Counts of the last line.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    skipped: usize,
}

impl Tally {
    /// No problems is a pass.
    pub(crate) fn note(&mut self, label: &str, problems: &[String]) {
        if problems.is_empty() {
            self.passed += 1;
            say(&format!("ok   {label}"));
        } else {
            self.failed += 1;
            say(&format!("FAIL {label}: {}", problems.join("\n       ")));
        }
    }

    /// A case that came to this end.
    pub(crate) fn judge(&mut self, label: &str, outcome: Result<()>) {
        match outcome.map_err(|error| error.downcast::<NotHere>()) {
            Ok(()) => self.note(label, &[]),
            Err(Ok(NotHere(why))) => self.skip(label, &why),
            Err(Err(error)) => self.note(label, &[format!("{error:#}").replace('\n', "\n       ")]),
        }
    }

    /// It cannot happen on this kernel.
    pub(crate) fn skip(&mut self, label: &str, why: &str) {
        self.skipped += 1;
        say(&format!("n/a  {label}: {why}"));
    }

    pub(crate) fn finish(&self) {
        let mut last = format!("{} passed, {} failed", self.passed, self.failed);
        if self.skipped > 0 {
            last += &format!(", {} skipped", self.skipped);
        }
        say(&last);
    }
}

/// Writes a line for the reader of the results. A closed pipe is no reason to fail.
pub(crate) fn say(line: &str) {
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}
