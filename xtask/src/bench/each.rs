//! What a run of each program takes, in nanoseconds and in runs of a program that does nothing, for `cargo xtask cost`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::data::{Cost, Run};
use super::play::Ground;
use super::stats::Spread;
use super::tools::{self, ALL, LIMIT, TCPWATCH};
use super::{machine, words, workload};
use crate::repo;

/// Together they run every program of the default mode that tracepoints can bear, but the one for retransmissions.
const LOADS: &[&str] = &["fin", "rst"];
const ROUNDS: usize = 5;
/// Tens of thousands of runs of each program.
const SECONDS: f64 = 0.3;
/// What a load runs, it runs at least once per operation; the rest runs for somebody else's packets.
const OFTEN: f64 = 0.5;

/// One program of a tool under one load.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Each {
    pub(crate) load: String,
    pub(crate) tool: String,
    pub(crate) program: String,
    pub(crate) ns: f64,
    /// In runs of an empty program.
    pub(crate) empty: f64,
}

/// By load, tool and program: the nanoseconds of each round, and the same in runs of an empty program.
type Rounds = BTreeMap<(&'static str, &'static str, String), (Vec<f64>, Vec<f64>)>;

/// The machine in a line, without what changes from day to day.
pub(crate) fn here() -> Result<String> {
    let machine = machine::look()?;
    Ok(format!("{}, kernel {}", machine.cpu, machine.kernel))
}

/// Whether load and tool have a core each.
pub(crate) fn has_room() -> Result<bool> {
    Ok(machine::look()?.cores >= 2)
}

/// Medians over some rounds, in each of which the empty programs come right before the tools.
pub(crate) fn measure(tcpwatch: &Path, load: &Path) -> Result<Vec<Each>> {
    let scratch = repo::target_dir()?.join("cost");
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let ground = Ground { load: load.to_owned(), scratch, seconds: SECONDS };
    let start = ground.first_line_of(tcpwatch.to_str().context("the path of tcpwatch is no text")?)?;
    let tools = tools::all(tcpwatch, load, &words::hooks(&start)?)?;
    let tool = |name: &str| tools.iter().find(|tool| tool.name == name).context("a tool that is not there");
    let mut all = Rounds::new();
    for name in LOADS {
        let workload = workload::find(name).context("a load that is not there")?;
        for _ in 0..ROUNDS {
            let yardstick = mean(&ground.run(workload, Some(tool(LIMIT)?), true)?.load.programs)?;
            for name in [TCPWATCH, ALL] {
                let run = ground.run(workload, Some(tool(name)?), true)?;
                for (program, ns) in often(&run) {
                    let (times, ratios) = all.entry((workload.name, name, program)).or_default();
                    times.push(ns);
                    ratios.push(ns / yardstick);
                }
            }
        }
    }
    let median = |values| Spread::of(values).map(|spread| spread.median).context("nothing was measured");
    // Somebody else's packets can be many for a moment, but not in most rounds.
    let steady = all.into_iter().filter(|(_, (times, _))| times.len() * 2 > ROUNDS);
    let each = steady.map(|((load, tool, program), (times, ratios))| {
        Ok(Each {
            load: load.to_owned(),
            tool: tool.to_owned(),
            program,
            ns: median(times)?,
            empty: median(ratios)?,
        })
    });
    each.collect()
}

/// Nanoseconds that a run took, over all runs of all programs.
fn mean(programs: &[Cost]) -> Result<f64> {
    let (runs, ns) = programs.iter().fold((0, 0), |(runs, ns), cost| (runs + cost.runs, ns + cost.ns));
    if runs == 0 || ns == 0 {
        bail!("no empty program ran");
    }
    Ok(ns as f64 / runs as f64)
}

/// Nanoseconds of a run of each program that ran often.
fn often(run: &Run) -> Vec<(String, f64)> {
    let enough = run.load.operations as f64 * OFTEN;
    let programs = run.load.programs.iter().filter(|cost| cost.runs as f64 >= enough);
    programs.map(|cost| (cost.name.clone(), cost.ns as f64 / cost.runs as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_yardstick_is_a_run_and_not_a_program() {
        let cost = |runs, ns| Cost { name: String::new(), runs, ns };
        assert_eq!(mean(&[cost(10, 400), cost(30, 400), cost(0, 0)]).unwrap(), 20.0);
        assert!(mean(&[cost(0, 0)]).is_err());
    }

    #[test]
    fn every_load_is_one_of_bench() {
        assert!(LOADS.iter().all(|name| workload::find(name).is_some()));
    }
}
