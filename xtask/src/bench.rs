//! `cargo xtask bench`: what tcpwatch costs the host, side by side with rivals and with empty programs, as a page.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::vm::Choice;
use crate::{dist, repo, setup};

mod data;
pub(crate) mod each;
mod goals;
mod guests;
mod machine;
pub(crate) mod page;
mod play;
mod process;
#[cfg(test)]
mod sample;
pub(crate) mod soak;
mod stats;
mod tools;
mod words;
mod workload;

use data::{CostRun, Held, Pair, Played, Results, Start};
use play::Ground;
use stats::Spread;
use tools::{ALL, LIMIT, TCPWATCH, Tool};
use workload::{HELD, IDLE, START, STARTED, WORKLOADS, Workload};

/// Where the page lies.
const PAGE: &str = "docs/performance.md";

/// Pairs of runs when nobody says otherwise: of the two workloads that are promised most about, and of the others.
const HEADLINE_PAIRS: usize = 15;
const PAIRS: usize = 7;
/// Runs in which programs are timed. Their sums are over hundreds of thousands of runs each.
const COST_RUNS: usize = 3;
const STARTS: usize = 9;
const CONNECTIONS: u64 = 100_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure these alone: workloads of `tcpwatch-load`, `start`, `idle` [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    workload: Vec<String>,
    /// Measure these tools alone, by their names in the tables
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    tool: Vec<String>,
    /// Pairs of runs, without and with the tool [default: 15 for fin and rst, 7 for the others]
    #[arg(long, value_name = "N")]
    pairs: Option<usize>,
    /// Seconds of a run that is not counted by operations
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    seconds: f64,
    /// Where to write the page [default: docs/performance.md if everything is measured, else standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Store the figures
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also compare on the kernels of the matrix, in QEMU
    #[arg(long)]
    guests: bool,
    #[command(flatten)]
    choice: Choice,
    /// Measure nothing: make the page of stored figures
    #[arg(long, value_name = "FILE", conflicts_with_all = ["workload", "tool", "pairs", "json"])]
    from: Option<PathBuf>,
}

/// `cargo xtask bench`.
pub(crate) fn main(args: &Args) -> Result<()> {
    let results = match &args.from {
        Some(file) => {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{} holds no figures of bench", file.display()))?
        }
        None => measure(args)?,
    };
    if let Some(file) = &args.json {
        keep(&results, file)?;
    }
    let whole = args.workload.is_empty() && args.tool.is_empty();
    let page = page::render(&results);
    match args.out.clone().or_else(|| whole.then(|| repo::root().join(PAGE))) {
        Some(file) => {
            fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))?;
            println!("{}: written", file.display());
        }
        None => println!("{page}"),
    }
    Ok(())
}

/// What was asked for, checked: a word that means nothing would silently measure less.
fn check(args: &Args, tools: &[Tool]) -> Result<()> {
    let words: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).chain([START, IDLE]).collect();
    if let Some(name) = args.workload.iter().find(|name| !words.contains(&name.as_str())) {
        bail!("there is no workload {name:?}\nhint: {}", words.join(", "));
    }
    let words: Vec<&str> = tools.iter().map(|tool| tool.name).collect();
    if let Some(name) = args.tool.iter().find(|name| !words.contains(&name.as_str())) {
        bail!("there is no tool {name:?}\nhint: {}", words.join(", "));
    }
    if args.choice.is_made() && !args.guests {
        bail!("kernels are for guests, and none is asked for\nhint: --guests");
    }
    if args.pairs == Some(0) {
        bail!("no pair of runs is no measurement\nhint: --pairs 7");
    }
    Ok(())
}

/// Where load and tool can be played, and the tcpwatch that is measured: built anew.
fn ground(seconds: f64) -> Result<(Ground, PathBuf)> {
    if !repo::is_root() {
        bail!("namespaces, raw frames and BPF programs need root\nhint: run it as root");
    }
    if !each::has_room()? {
        bail!(
            "load and tool need a core each, and this machine has one\nhint: measure on a machine with two"
        );
    }
    setup::ensure()?;
    let (tcpwatch, load) = dist::build_bench()?;
    let scratch = repo::target_dir()?.join("bench");
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    Ok((Ground { load, scratch, seconds }, tcpwatch))
}

fn measure(args: &Args) -> Result<Results> {
    let (ground, tcpwatch) = ground(args.seconds)?;
    let (machine, load) = (machine::look()?, ground.load.clone());
    let start = ground.first_line_of(tcpwatch.to_str().context("the path of tcpwatch is no text")?)?;
    let hooks = words::hooks(&start)?;
    let mut tools = tools::all(&tcpwatch, &load, &hooks)?;
    check(args, &tools)?;
    tools.retain(|tool| args.tool.is_empty() || args.tool.iter().any(|name| name == tool.name));
    for tool in &mut tools {
        if tool.missing.is_none()
            && let Some(why) = ground.probe(tool)
        {
            // Without a rival there is a page, and it says so; without tcpwatch or its limit there is none.
            if [TCPWATCH, ALL, LIMIT].contains(&tool.name) {
                bail!("{} does not work here: {why}", tool.name);
            }
            tool.missing = Some(format!("does not work here: {why}"));
        }
        if let Some(why) = &tool.missing {
            println!("missing: {}: {why}", tool.name);
        }
    }
    let bench = Bench { args, ground, tools, began: Instant::now() };
    let mut results = Results {
        command: command(args),
        machine,
        tools: bench.tools.iter().map(Tool::words).collect(),
        uncovered: hooks.functions,
        refused: hooks.refused,
        played: Vec::new(),
        starts: Vec::new(),
        held: Vec::new(),
        guests: Vec::new(),
        binary: fs::metadata(&tcpwatch)?.len(),
    };
    let kept = bench.ground.scratch.join("figures.json");
    bench
        .all(&mut results, &kept, &tcpwatch, &load)
        .with_context(|| format!("what was measured before is in {}, for `--from`", kept.display()))?;
    Ok(results)
}

/// Stores what was measured so far: half an hour's figures must not be lost with the last of them.
fn keep(results: &Results, file: &Path) -> Result<()> {
    fs::write(file, serde_json::to_string(results)?)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// The command that makes the same page, without what only says where to store it.
fn command(args: &Args) -> String {
    let mut words = vec!["cargo xtask bench".to_owned()];
    let mut add = |name: &str, value: &str| words.extend([format!("--{name}"), crate::cmd::quote(value)]);
    if !args.workload.is_empty() {
        add("workload", &args.workload.join(","));
    }
    if !args.tool.is_empty() {
        add("tool", &args.tool.join(","));
    }
    if let Some(pairs) = args.pairs {
        add("pairs", &pairs.to_string());
    }
    if args.seconds != 1.0 {
        add("seconds", &args.seconds.to_string());
    }
    if args.guests {
        words.push("--guests".to_owned());
    }
    words.join(" ")
}

struct Bench<'a> {
    args: &'a Args,
    ground: Ground,
    tools: Vec<Tool>,
    began: Instant,
}

impl Bench<'_> {
    fn is_asked_for(&self, name: &str) -> bool {
        self.args.workload.is_empty() || self.args.workload.iter().any(|asked| asked == name)
    }

    /// Those of these names that are there, in the order of the names.
    fn those<'s>(&'s self, names: &'s [&str]) -> impl Iterator<Item = &'s Tool> {
        names
            .iter()
            .filter_map(|name| self.tools.iter().find(|tool| tool.name == *name && tool.missing.is_none()))
    }

    fn say(&self, words: &str) {
        println!("{:>5.0} s  {words}", self.began.elapsed().as_secs_f64());
    }

    fn all(&self, results: &mut Results, kept: &Path, tcpwatch: &Path, load: &Path) -> Result<()> {
        if self.is_asked_for(START) {
            results.starts = self.starts()?;
        }
        keep(results, kept)?;
        for workload in WORKLOADS.iter().filter(|workload| self.is_asked_for(workload.name)) {
            results.played.push(self.play(workload)?);
            keep(results, kept)?;
        }
        if self.is_asked_for(IDLE) {
            results.held = self.held()?;
            keep(results, kept)?;
        }
        if self.args.guests {
            let pairs = self.args.pairs.unwrap_or(PAIRS);
            results.guests = guests::measure(&self.args.choice, pairs, tcpwatch, load)?;
        }
        Ok(())
    }

    fn play(&self, workload: &Workload) -> Result<Played> {
        let usual = if workload.headline { HEADLINE_PAIRS } else { PAIRS };
        let pairs = self.args.pairs.unwrap_or(usual);
        let mut played = Played { workload: workload.name.to_owned(), pairs: Vec::new(), costs: Vec::new() };
        // The first round warms everything up and does not count.
        for round in 0..=pairs {
            self.say(&format!("{}: round {round} of {pairs}", workload.name));
            for tool in self.those(workload.tools) {
                let without = self.ground.run(workload, None, false)?;
                let with = self.ground.run(workload, Some(tool), false)?;
                if round > 0 {
                    played.pairs.push(Pair { tool: tool.name.to_owned(), without, with });
                }
            }
        }
        for _ in 0..COST_RUNS.min(pairs) {
            for tool in self.those(&[TCPWATCH, ALL, LIMIT]).filter(|tool| workload.tools.contains(&tool.name))
            {
                let run = self.ground.run(workload, Some(tool), true)?;
                played.costs.push(CostRun { tool: tool.name.to_owned(), run });
            }
        }
        for tool in self.those(workload.tools) {
            if let Some(ratio) = played.ratio(tool.name) {
                self.say(&format!(
                    "{}: {} leaves {:.2} ({:.2}-{:.2})",
                    workload.name, tool.name, ratio.median, ratio.min, ratio.max
                ));
            }
        }
        Ok(played)
    }

    fn starts(&self) -> Result<Vec<Start>> {
        let times = self.args.pairs.map_or(STARTS, |pairs| pairs.min(STARTS));
        let tools: Vec<&Tool> = self.those(STARTED).collect();
        let mut measured = vec![(Vec::new(), Vec::new()); tools.len()];
        // The first round reads the programs from the disk and does not count.
        for round in 0..=times {
            self.say(&format!("start: round {round} of {times}"));
            for (tool, (ran, said)) in tools.iter().zip(&mut measured) {
                let (ran_ms, said_ms) = self.ground.start(tool)?;
                if round > 0 {
                    ran.push(ran_ms);
                    said.push(said_ms);
                }
            }
        }
        let spread = |values| Spread::of(values).context("no start was measured");
        let figures = tools.iter().zip(measured).map(|(tool, (ran, said))| {
            let (ran_ms, said_ms) = (spread(ran)?, spread(said)?);
            Ok(Start { tool: tool.name.to_owned(), mark: tool.mark.to_owned(), ran_ms, said_ms })
        });
        figures.collect()
    }

    fn held(&self) -> Result<Vec<Held>> {
        let mut all = Vec::new();
        for tool in self.those(HELD) {
            for watched in [true, false] {
                self.say(&format!("{CONNECTIONS} connections beside {}", tool.name));
                let held = self.ground.hold(tool, CONNECTIONS, watched);
                all.push(held.with_context(|| format!("{CONNECTIONS} connections beside {}", tool.name))?);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Line::parse_from(std::iter::once("bench").chain(line.split_whitespace())).args
    }

    #[test]
    fn the_page_names_the_command_without_where_it_was_stored() {
        assert_eq!(command(&args("")), "cargo xtask bench");
        assert_eq!(
            command(&args("--workload fin,start --pairs 3 --seconds 0.5 --guests --json x --out y")),
            "cargo xtask bench --workload fin,start --pairs 3 --seconds 0.5 --guests"
        );
    }

    #[test]
    fn words_that_mean_nothing_are_errors() {
        let tools =
            tools::all(Path::new("/x/tcpwatch"), Path::new("/x/load"), &words::Hooks::default()).unwrap();
        check(&args("--workload rst,idle --tool tcpwatch,tcpstates --pairs 1"), &tools).unwrap();
        for (line, word) in [
            ("--workload fins", "fins"),
            ("--tool perf", "perf"),
            ("--pairs 0", "no pair"),
            ("--kernel 6.12", "--guests"),
        ] {
            let error = check(&args(line), &tools).unwrap_err().to_string();
            assert!(error.contains(word), "{line}: {error}");
        }
    }

    #[test]
    fn every_workload_measures_tools_that_there_are() {
        let tools =
            tools::all(Path::new("/x/tcpwatch"), Path::new("/x/load"), &words::Hooks::default()).unwrap();
        let there = |name: &&str| tools.iter().any(|tool| tool.name == *name);
        for workload in WORKLOADS {
            assert!(workload.tools.iter().all(there), "{}", workload.name);
            assert!(workload::find(workload.name).is_some());
        }
        assert!(STARTED.iter().chain(HELD).all(there));
    }
}
