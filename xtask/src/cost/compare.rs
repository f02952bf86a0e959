//! What was measured against the table: pure functions, and sentences that say what differs and what to do.

use std::collections::BTreeSet;

use super::page::{Kernel, Table, Times, Walked};
use crate::bench::page::thousands;

/// Compilers of the same name can differ by an instruction here and there; kernels of the same name by a change of the verifier.
const SAME_RELEASE: f64 = 1.02;
const OTHER_RELEASE: f64 = 1.25;
/// The same work beside other caches and another clock.
const SAME_MACHINE: f64 = 3.0;
const OTHER_MACHINE: f64 = 6.0;

const REWRITE: &str = "if it is meant to be so: `cargo xtask cost --write`";

/// The outcome of a comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What differs, one sentence each.
    pub(super) wrong: Vec<String>,
    /// Why it was held less strictly than it could be.
    pub(super) remark: Option<String>,
}

impl Verdict {
    fn say(&mut self, what: String) {
        self.wrong.push(format!("{what}; {REWRITE}"));
    }
}

/// Whether a number lies within a factor of another, in both directions: a gain that nobody writes down is lost unseen.
fn within(is: f64, was: f64, factor: f64) -> bool {
    is <= was * factor && was <= is * factor
}

/// The verifier's work on one kernel. `None`: the table does not know this kernel.
pub(super) fn verifier(table: &Table, kernel: &str, release: &str, is: &Walked) -> Option<Verdict> {
    let was: &Kernel = table.kernels.iter().find(|known| known.name == kernel)?;
    let mut verdict = Verdict::default();
    let mut factor = SAME_RELEASE;
    let mut of = String::new();
    if was.release != release {
        factor = OTHER_RELEASE;
        verdict.remark = Some(format!(
            "the table has kernel {kernel} as {}, and this is {release}: numbers may differ by 25 % instead of 2 %; \
             `cargo xtask cost --write` takes those of this release",
            was.release
        ));
        of = format!(" (of {}, and this is {release})", was.release);
    }
    let keys: BTreeSet<_> = is.keys().chain(was.walked.keys()).collect();
    for key in keys {
        let (mode, program) = key;
        let what = format!("{program} ({mode}) on {kernel}");
        match (is.get(key), was.walked.get(key)) {
            (Some(is), Some(was)) if within(*is as f64, *was as f64, factor) => {}
            (Some(is), Some(was)) => verdict.say(format!(
                "{what}: the verifier walks {} instructions, {:+.1} % against {} in the table{of}",
                thousands(is),
                (*is as f64 / *was as f64 - 1.0) * 100.0,
                thousands(was)
            )),
            (Some(is), None) => verdict.say(format!(
                "{what}: the verifier walks {} instructions, and the table{of} has no such row",
                thousands(is)
            )),
            (None, _) => verdict.say(format!("{what}: is not loaded any more, and the table{of} has it")),
        }
    }
    Some(verdict)
}

/// The time that programs take on this machine.
pub(super) fn times(table: &Table, machine: &str, is: &Times) -> Verdict {
    let mut verdict = Verdict::default();
    let mut factor = SAME_MACHINE;
    if table.machine != machine {
        factor = OTHER_MACHINE;
        verdict.remark = Some(format!(
            "the times in the table are of {}, and this is {machine}: they may differ by a factor of 6 instead of 3, and programs that \
             only one of the two grants are not compared",
            table.machine
        ));
    }
    for key in is.keys().chain(table.times.keys()).collect::<BTreeSet<_>>() {
        let (load, tool, program) = key;
        let what = format!("{program} ({load}, {tool})");
        match (is.get(key), table.times.get(key)) {
            (Some(is), Some(was)) if within(is.empty, was.empty, factor) => {}
            (Some(is), Some(was)) => verdict.say(format!(
                "{what}: a run takes as long as {:.1} runs of an empty program ({:.0} ns), in the table {:.1} ({:.0} ns)",
                is.empty, is.ns, was.empty, was.ns
            )),
            // Which programs there are depends on what a machine grants.
            _ if verdict.remark.is_some() => {}
            (Some(is), None) => {
                verdict.say(format!("{what}: takes {:.0} ns a run, and the table has no such row", is.ns));
            }
            (None, _) => verdict.say(format!("{what}: does not run any more, and the table has it")),
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::page::{Time, tests::table};
    use super::*;

    fn changed(mode: &str, program: &str, count: u64) -> Walked {
        let mut walked = table().kernels[0].walked.clone();
        walked.insert((mode.into(), program.into()), count);
        walked
    }

    #[test]
    fn the_same_release_agrees_to_two_percent_in_both_directions() {
        let wrong =
            |count| verifier(&table(), "5.10", "5.10.1-a", &changed("default", "one", count)).unwrap();
        for count in [1000, 1020, 981] {
            assert_eq!(wrong(count), Verdict::default(), "{count}");
        }
        assert_eq!(
            wrong(1021).wrong,
            [
                "one (default) on 5.10: the verifier walks 1,021 instructions, +2.1 % against 1,000 in the table; \
              if it is meant to be so: `cargo xtask cost --write`"
            ]
        );
        assert_eq!(wrong(980).wrong.len(), 1, "a gain is to be written down");
    }

    #[test]
    fn another_release_has_more_room_and_that_is_said() {
        let judge =
            |count| verifier(&table(), "5.10", "5.10.9-a", &changed("default", "one", count)).unwrap();
        let fine = judge(1250);
        assert!(fine.wrong.is_empty(), "{fine:?}");
        assert!(fine.remark.unwrap().contains("has kernel 5.10 as 5.10.1-a, and this is 5.10.9-a"));
        assert!(judge(1251).wrong[0].contains("1,000 in the table (of 5.10.1-a, and this is 5.10.9-a)"));
    }

    #[test]
    fn programs_that_came_and_went_are_named() {
        let mut walked = changed("default", "three", 7);
        walked.remove(&("costliest".into(), "one".into()));
        let verdict = verifier(&table(), "5.10", "5.10.1-a", &walked).unwrap();
        assert!(verdict.wrong[0].contains("one (costliest) on 5.10: is not loaded any more"), "{verdict:?}");
        assert!(verdict.wrong[1].contains("three (default) on 5.10: the verifier walks 7"), "{verdict:?}");
        assert_eq!(verifier(&table(), "4.4", "4.4.1", &walked), None);
    }

    #[test]
    fn times_are_compared_by_what_an_empty_program_takes() {
        let judge = |machine: &str, ns, empty| {
            let times = [(("fin".into(), "tcpwatch".into(), "one".into()), Time { ns, empty })].into();
            times_of(machine, &times)
        };
        assert_eq!(judge("a CPU, kernel 6.1", 900.0, 20.0), Verdict::default(), "a slow day");
        let slow = judge("a CPU, kernel 6.1", 900.0, 22.0);
        assert_eq!(slow.wrong.len(), 1);
        assert!(
            slow.wrong[0].starts_with("one (fin, tcpwatch): a run takes as long as 22.0 runs"),
            "{slow:?}"
        );
        let elsewhere = judge("another", 900.0, 22.0);
        assert!(elsewhere.wrong.is_empty() && elsewhere.remark.is_some());
        assert_eq!(judge("another", 9000.0, 50.0).wrong.len(), 1);
        assert_eq!(times_of("a CPU, kernel 6.1", &Times::new()).wrong.len(), 1, "it does not run any more");
        assert!(times_of("another", &Times::new()).wrong.is_empty());
    }

    fn times_of(machine: &str, is: &Times) -> Verdict {
        times(&table(), machine, is)
    }
}
