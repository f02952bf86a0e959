//! What the verifier walks for each program of tcpwatch on this kernel, by every way to attach: for `cargo xtask cost`, which holds it
//! against the table in the repository.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::hosts::longest_filter;

mod loads;
mod sys;

/// How tcpwatch is started, and what the table calls that.
const MODES: [&str; 2] = ["default", "costliest"];

/// Every rung on which a program can stand. One that stands on several is loaded with different settings there: the largest number
/// counts, because the verifier has a limit and not a mean.
const RUNGS: [&str; 4] = ["auto", "kprobe", "tracepoint", "raw"];

/// Prints a line for each program and mode, and one that says how many there were: half a table is none.
///
/// All runs at once: most of their time the kernel waits until nobody can be in what it takes off, and for that they can wait together.
pub fn run(tcpwatch: &str) -> Result<()> {
    let runs = MODES.iter().flat_map(|mode| RUNGS.iter().map(move |rung| (*mode, *rung)));
    let done: Vec<_> = thread::scope(|scope| {
        let started: Vec<_> = runs
            .map(|(mode, rung)| (mode, rung, scope.spawn(move || programs(tcpwatch, mode, rung))))
            .collect();
        let join = |(mode, rung, run): (_, _, thread::ScopedJoinHandle<_>)| (mode, rung, run.join());
        started.into_iter().map(join).collect()
    });
    let mut walked: BTreeMap<(&str, String), u64> = BTreeMap::new();
    for (mode, rung, programs) in done {
        let programs = programs.unwrap_or_else(|_| bail!("the thread that followed it panicked"));
        for (program, count) in programs.with_context(|| format!("tcpwatch, {mode}, --attach {rung}"))? {
            let most = walked.entry((mode, program)).or_default();
            *most = count.max(*most);
        }
    }
    let mut out = std::io::stdout().lock();
    for ((mode, program), count) in &walked {
        writeln!(out, "cost {mode} {program} {count}")?;
    }
    writeln!(out, "cost lines {}", walked.len()).context("writing to the harness")
}

/// The programs of one run.
fn programs(tcpwatch: &str, mode: &str, rung: &str) -> Result<Vec<(String, u64)>> {
    let mut command = Command::new(tcpwatch);
    command.args(["--json", "--for", "1ms", "--attach", rung]).env("TCPWATCH_DEBUG", "1");
    if mode != MODES[0] {
        command.arg("-k").args(longest_filter("1"));
    }
    // A file: nobody has to read it while the tool is followed.
    let words = format!("/tmp/tcpwatch-cost-{}-{mode}-{rung}", std::process::id());
    let file = File::create(&words).with_context(|| format!("creating {words}"))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    let followed = loads::follow(command);
    let said = fs::read_to_string(&words).with_context(|| format!("reading {words}"));
    drop(fs::remove_file(&words));
    let ((loaded, status), said) = (followed?, said?);
    ensure!(status == 0, "it ended with status {status}: {}", said.trim());
    let named = named(&said)?;
    ensure!(!named.is_empty(), "it names no program that it loaded: {}", said.trim());
    let of = |named: Named| {
        let found = loaded.iter().find(|loaded| loaded.id == named.id);
        let walked = found.with_context(|| format!("{} was loaded unseen", named.name))?.walked;
        match named.walked {
            Some(other) if other != walked => {
                bail!("{}: the verifier's words say {walked}, the kernel's record of it {other}", named.name)
            }
            _ => Ok((named.name, walked)),
        }
    };
    named.into_iter().map(of).collect()
}

/// What tcpwatch says of a program that it loaded: its whole name, which the kernel does not keep.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    name: String,
    id: u32,
    /// Since 5.16.
    walked: Option<u64>,
}

/// From the lines `NAME (program ID): the verifier walked N instructions`.
fn named(said: &str) -> Result<Vec<Named>> {
    let lines = said.lines().filter_map(|line| line.split_once(": the verifier walked "));
    let of = |(what, rest): (&str, &str)| {
        let (name, id) = what.split_once(" (program ")?;
        let walked = match rest.split_once(' ')?.0 {
            "?" => None,
            number => Some(number.parse().ok()?),
        };
        Some(Named { name: name.to_owned(), id: id.strip_suffix(')')?.parse().ok()?, walked })
    };
    let read = |line| of(line).with_context(|| format!("tcpwatch says this of a program: {}", line.0));
    lines.map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_known_by_name_and_number() {
        let said = "a_fentry (program 7): the verifier walked 120 instructions\nsomething else: true\n\
                    b_kprobe (program 9): the verifier walked ? instructions\n";
        let of = |name: &str, id, walked| Named { name: name.to_owned(), id, walked };
        assert_eq!(named(said).unwrap(), [of("a_fentry", 7, Some(120)), of("b_kprobe", 9, None)]);
        assert!(named("a_fentry: the verifier walked 120 instructions\n").is_err());
        assert!(named("a_fentry (program 7): the verifier walked many instructions\n").is_err());
    }
}
