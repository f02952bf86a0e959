//! `docs/cost.md`: the table as people read it and as the test reads it. There is no other copy.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};

use super::LIMIT;
use crate::bench::page::thousands;

/// By mode and program: instructions that the verifier walks.
pub(super) type Walked = BTreeMap<(String, String), u64>;

/// By load, tool and program: what a run of a program takes.
pub(super) type Times = BTreeMap<(String, String, String), Time>;

/// What the table holds.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Table {
    /// Kernels of the matrix, in order of age.
    pub(super) kernels: Vec<Kernel>,
    /// Where the times were taken.
    pub(super) machine: String,
    pub(super) times: Times,
}

/// One kernel of the matrix.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Kernel {
    pub(super) name: String,
    /// From which the numbers are.
    pub(super) release: String,
    pub(super) walked: Walked,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Time {
    pub(super) ns: f64,
    /// The same in runs of a program that does nothing: they are timed right before.
    pub(super) empty: f64,
}

/// Modes in which programs are loaded, as `tcpwatch-scenario cost` calls them, and what the page says of each.
const MODES: [(&str, &str); 2] = [
    ("default", "As tcpwatch is started by most."),
    ("costliest", "With every event (`--events all`), stacks (`-k`) and the longest filter."),
];

const HEAD: &str = "\
# What each program costs

<!-- Made by `cargo xtask cost --write`; changes by hand are lost. -->

`cargo xtask test` measures all of this again and fails where it differs from this page, so that every change of a cost is seen in a review.
";

const VERIFIER: &str = "\
Instructions that the kernel's verifier walks before it takes a program; it gives up at 1,000,000. A program that is loaded on several rungs of
the ladder of attaching has the largest of its numbers. The same release must agree to 2 %, another release of the same kernel to 25 %. A dash:
not loaded there.
";

const TIME: &str = "\
What a run of a program takes by the kernel's own clock (`bpf_stats`, which counts itself in), under loads of `tcpwatch-load`. Nanoseconds
change with the machine and the day: the test holds only the last column against this page, that is how many runs of a program that does
nothing would take as long. They must agree within a factor of 3, on another machine or kernel within 6:
memory that others on the host keep busy makes that much of a difference.
";

/// The page of a table.
pub(super) fn render(table: &Table) -> String {
    let mut page = String::from(HEAD);
    let _ = writeln!(page, "\n## The verifier\n\n{VERIFIER}");
    if let Some(largest) = largest(table) {
        let _ = writeln!(page, "{largest}");
    }
    for (mode, about) in MODES {
        let _ = writeln!(page, "\n### {mode}\n\n{about}\n");
        row(&mut page, "program", table.kernels.iter().map(|kernel| kernel.name.clone()));
        row(&mut page, "---", table.kernels.iter().map(|_| "---:".to_owned()));
        row(&mut page, "release", table.kernels.iter().map(|kernel| kernel.release.clone()));
        let mut programs: Vec<&str> = Vec::new();
        for (of, program) in table.kernels.iter().flat_map(|kernel| kernel.walked.keys()) {
            if of == mode {
                programs.push(program);
            }
        }
        programs.sort_unstable();
        programs.dedup();
        for program in programs {
            let key = (mode.to_owned(), program.to_owned());
            let cell = |kernel: &Kernel| kernel.walked.get(&key).map_or_else(|| "–".to_owned(), thousands);
            row(&mut page, &format!("`{program}`"), table.kernels.iter().map(cell));
        }
    }
    let _ = writeln!(page, "\n## Time\n\n{TIME}\nMachine: {}\n", table.machine);
    page.push_str("| load | tool | program | ns a run | empty programs |\n|---|---|---|---:|---:|\n");
    for ((load, tool, program), time) in &table.times {
        let _ = writeln!(page, "| {load} | {tool} | `{program}` | {:.0} | {:.2} |", time.ns, time.empty);
    }
    page
}

fn row(page: &mut String, first: &str, cells: impl Iterator<Item = String>) {
    let _ = write!(page, "| {first} |");
    for cell in cells {
        let _ = write!(page, " {cell} |");
    }
    page.push('\n');
}

/// How near the limit the verifier comes.
fn largest(table: &Table) -> Option<String> {
    let all = table.kernels.iter().flat_map(|kernel| kernel.walked.iter().map(move |cell| (kernel, cell)));
    let (kernel, ((mode, program), walked)) = all.max_by_key(|(_, (_, walked))| **walked)?;
    let part = *walked as f64 / LIMIT as f64 * 100.0;
    Some(format!(
        "The most: `{program}` ({mode}) on {} takes {}, {part:.0} % of what may be.",
        kernel.name,
        thousands(walked)
    ))
}

/// Reads a page back. What it does not understand is an error: a row that is skipped would be compared with nothing.
pub(super) fn parse(page: &str) -> Result<Table> {
    let mut table = Table::default();
    let mut section = "";
    for (at, line) in page.lines().enumerate() {
        if let Some(machine) = line.strip_prefix("Machine: ") {
            table.machine = machine.to_owned();
        }
        if let Some(title) = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))
        {
            section = title;
        }
        let Some(cells) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else { continue };
        let cells: Vec<&str> = cells.split(" | ").collect();
        let done = match section {
            "Time" => time(&mut table.times, &cells),
            _ => walked(&mut table.kernels, section, &cells),
        };
        done.with_context(|| format!("line {}: {line}", at + 1))?;
    }
    ensure!(!table.kernels.is_empty(), "there is no table of kernels");
    Ok(table)
}

fn walked(kernels: &mut Vec<Kernel>, mode: &str, cells: &[&str]) -> Result<()> {
    let [first, cells @ ..] = cells else { bail!("no cells") };
    if kernels.is_empty() {
        ensure!(*first == "program", "the first row names the kernels");
        kernels.extend(cells.iter().map(|name| Kernel { name: (*name).to_owned(), ..Kernel::default() }));
    }
    ensure!(cells.len() == kernels.len(), "{} kernels and {} cells", kernels.len(), cells.len());
    for (kernel, cell) in kernels.iter_mut().zip(cells) {
        match *first {
            "program" => ensure!(kernel.name == *cell, "{cell} instead of {}", kernel.name),
            "---" => {}
            "release" => kernel.release = (*cell).to_owned(),
            _ if *cell == "–" => {}
            _ => {
                let count = cell.replace(',', "").parse().with_context(|| format!("{cell} is no number"))?;
                let twice = kernel.walked.insert((mode.to_owned(), name(first)?), count);
                ensure!(twice.is_none(), "{first} stands here twice");
            }
        }
    }
    Ok(())
}

fn time(times: &mut Times, cells: &[&str]) -> Result<()> {
    let [load, tool, program, ns, empty] = cells else { bail!("not five cells") };
    if *load == "load" {
        return Ok(());
    }
    let number = |cell: &str| cell.parse().with_context(|| format!("{cell} is no number"));
    let time = Time { ns: number(ns)?, empty: number(empty)? };
    let twice = times.insert(((*load).to_owned(), (*tool).to_owned(), name(program)?), time);
    ensure!(twice.is_none(), "{program} stands here twice");
    Ok(())
}

/// `` `name` ``
fn name(cell: &str) -> Result<String> {
    let name = cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`'));
    Ok(name.with_context(|| format!("{cell} is no program"))?.to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn table() -> Table {
        let walked = |cells: &[(&str, &str, u64)]| {
            cells.iter().map(|(mode, program, n)| (((*mode).into(), (*program).into()), *n)).collect()
        };
        let kernel =
            |name: &str, release: &str, walked| Kernel { name: name.into(), release: release.into(), walked };
        Table {
            kernels: vec![
                kernel(
                    "5.10",
                    "5.10.1-a",
                    walked(&[("default", "one", 1000), ("costliest", "one", 250_000)]),
                ),
                kernel("newest", "7.1.2-b", walked(&[("default", "one", 1200), ("default", "two", 2)])),
            ],
            machine: "a CPU, kernel 6.1".into(),
            times: [(("fin".into(), "tcpwatch".into(), "one".into()), Time { ns: 313.0, empty: 7.25 })]
                .into(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let page = render(&table());
        assert_eq!(parse(&page).unwrap(), table(), "{page}");
        for text in [
            "| `one` | 1,000 | 1,200 |",
            "| `two` | – | 2 |",
            "The most: `one` (costliest) on 5.10 takes 250,000, 25 % of what may be.",
            "| fin | tcpwatch | `one` | 313 | 7.25 |",
        ] {
            assert!(page.contains(text), "{text} is not in\n{page}");
        }
    }

    #[test]
    fn a_row_that_is_not_understood_is_an_error() {
        let page = render(&table());
        for (old, new, word) in [
            ("1,000", "many", "many"),
            ("| `two` | – | 2 |", "| `two` | 2 |", "cells"),
            ("| `two` | – | 2 |", "| `one` | 5 | 2 |", "twice"),
            ("| 7.25 |", "| 7,25x |", "7,25x"),
            ("| `one` | 313", "| one | 313", "one is no program"),
        ] {
            let error = format!("{:#}", parse(&page.replace(old, new)).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
        assert!(parse("# nothing\n").is_err());
    }
}
