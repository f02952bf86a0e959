//! `cargo xtask test`: every proof there is, in order of cost, and one closing line that counts them all.
//!
//! A step that could not run is a failure. Only a scenario may be skipped, where the kernel lacks the thing itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::dist::{self, Dist};
use crate::vm::{self, Choice, Guest, Kernel, programs};
use crate::{chart, cost};
use crate::{cmd, repo, setup, tidy};

mod package;
mod report;

use report::{Column, Line, Outcome, Tally};

/// Several times what a guest takes for all scenarios. Even if every guest hangs, the run ends with a report of it.
const GUEST_TIMEOUT: Duration = Duration::from_secs(15 * 60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out the guests: what takes a quarter of an hour
    #[arg(long)]
    quick: bool,
    /// Run this step alone
    #[arg(long, value_name = "STEP")]
    only: Option<Step>,
    /// Run these scenarios alone (`histories`: the random ones, `cost`: what programs cost), on this machine and in the guests; with `--only hosts` these cases, with `--only incidents` these incidents
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    scenario: Vec<String>,
    /// How many guests run at once
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Take the binaries that lie in target/dist
    #[arg(long)]
    built: bool,
    #[command(flatten)]
    choice: Choice,
}

/// In the order in which they run: what is cheap fails first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// The format of the sources
    Fmt,
    /// Lints
    Clippy,
    /// Unit tests, recordings against golden files, recorded kernels; no privileges needed
    Unit,
    /// House rules and generated pages
    Tidy,
    /// The static binaries, and the packages made of them
    Dist,
    /// Scenarios on the kernel of this machine
    Live,
    /// Scenarios on the kernels of the matrix
    Vm,
    /// The package, installed in a Debian with systemd on two of these kernels, and purged
    Package,
    /// Whole incidents with nginx and redis, on this machine and on the kernels of the matrix
    Incidents,
    /// Alerts that Prometheus makes of an agent's figures, on this machine and on 6.12
    Alerts,
    /// Bad input and bad hosts, on this machine; with `--only hosts` on the kernels of the matrix too
    Hosts,
}

/// How tcpwatch is told to attach: by itself, and on every lower rung of its ladder, so that hosts which grant less are proven
/// on the same kernels. The census is of the kernel, whatever is attached: once is enough.
const RUNGS: &[(&str, &[&str])] = &[
    ("", &["--census"]),
    ("kprobe", &["--args", "--attach kprobe"]),
    ("tracep.", &["--args", "--attach tracepoint", "--tracepoints-only"]),
];

/// The mode of `tcpwatch-scenario` that plays random histories, and its name for `--scenario`.
const HISTORIES: &str = "histories";

/// What programs cost, for `--scenario`, and as a row of the table.
const COST: &str = "cost";

/// Whether that is asked for.
fn wants_cost(names: &[String]) -> bool {
    names.is_empty() || names.iter().any(|name| name == COST)
}

/// Acts of a history: three of them take a guest about a minute.
const ACTS: u32 = 150;

/// Two histories that are always the same, so that a failure stays, and one that nobody has seen.
fn seeds() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("1,2,{}", now.as_micros() % 1_000_000)
}

/// Arguments of the runs of `tcpwatch-scenario` that were asked for; `extra` is for scenarios alone.
fn runs(names: &[String], seeds: &str, extra: &str) -> Vec<String> {
    let (histories, scenarios): (Vec<&String>, Vec<&String>) =
        names.iter().filter(|name| *name != COST).partition(|name| *name == HISTORIES);
    let mut runs = Vec::new();
    if names.is_empty() || !scenarios.is_empty() {
        let names: String = scenarios.iter().map(|name| format!("{name} ")).collect();
        runs.push(format!("run {names}--family both {extra}").trim_end().to_owned());
    }
    if names.is_empty() || !histories.is_empty() {
        runs.push(format!("{HISTORIES} --seed {seeds} --count {ACTS}"));
    }
    runs
}

/// `cargo xtask test`: whether everything passed. Nothing is printed after the closing line.
pub(crate) fn main(args: &Args) -> Result<bool> {
    setup::ensure()?;
    let mut run = Run { args, seeds: seeds(), dist: None, columns: Vec::new() };
    println!("random histories have the seeds {} (the last by chance)", run.seeds);
    let mut sum = Tally::default();
    let mut summary = Vec::new();
    for step in Step::value_variants() {
        if args.only.is_some_and(|only| only != *step) {
            continue;
        }
        let name = format!("{step:?}").to_lowercase();
        if matches!(step, Step::Vm | Step::Package) && args.quick {
            summary.push(format!("{name:<9} not run: --quick"));
            continue;
        }
        let is_other_suite = matches!(step, Step::Package | Step::Hosts | Step::Incidents | Step::Alerts);
        if is_other_suite && !args.scenario.is_empty() && args.only.is_none() {
            summary.push(format!("{name:<9} not run: --scenario names scenarios"));
            continue;
        }
        println!("\n=== {name} ===");
        let started = Instant::now();
        let tally = run.step(*step).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            Tally::one(false)
        });
        summary.push(format!("{name:<9} {tally} in {:.0} s", started.elapsed().as_secs_f64()));
        sum += tally;
    }
    println!();
    if !run.columns.is_empty() {
        println!("{}", report::table(&run.columns));
    }
    for line in summary {
        println!("{line}");
    }
    println!("\n{sum}");
    Ok(sum.failed == 0 && sum.passed > 0)
}

/// One run of the tests: what the steps share.
struct Run<'a> {
    args: &'a Args,
    /// Of the random histories, the same for all kernels.
    seeds: String,
    dist: Option<Dist>,
    columns: Vec<Column>,
}

impl Run<'_> {
    fn step(&mut self, step: Step) -> Result<Tally> {
        match step {
            Step::Fmt => once(repo::cargo().args(["fmt", "--all", "--check"])),
            Step::Clippy => once(repo::cargo().args([
                "clippy",
                "--workspace",
                // Its code is for another target; `tcpwatch/build.rs` compiles it with warnings shown.
                "--exclude=tcpwatch-ebpf",
                "--all-targets",
                "--",
                "--deny=warnings",
            ])),
            Step::Tidy => tidy::main().and_then(|()| chart()),
            Step::Unit => unit(),
            Step::Dist => self.packages(),
            Step::Live => self.live(),
            Step::Vm => self.matrix(),
            Step::Package => self.package(),
            Step::Incidents => self.incidents(),
            Step::Alerts => self.alerts(),
            Step::Hosts => self.hosts(),
        }
    }

    /// The binaries, built when first asked for.
    fn dist(&mut self) -> Result<&Dist> {
        if self.dist.is_none() {
            self.dist = Some(if self.args.built { dist::built()? } else { dist::build_all()? });
        }
        self.dist.as_ref().context("no binaries")
    }

    /// The packages, and what those find wrong with them for whom they are made.
    fn packages(&mut self) -> Result<Tally> {
        package::inspected(&dist::make_packages(&self.dist()?.tcpwatch)?)
    }

    /// The package in guests that have a whole Debian.
    fn package(&mut self) -> Result<Tally> {
        let deb = dist::make_packages(&self.dist()?.tcpwatch)?.deb;
        let columns = package::in_guests(&deb, &self.args.choice, self.args.jobs)?;
        let mut sum = Tally::default();
        for column in &columns {
            sum += column.tally();
        }
        self.columns.extend(columns);
        Ok(sum)
    }

    fn live(&mut self) -> Result<Tally> {
        let names = self.args.scenario.clone();
        let seeds = self.seeds.clone();
        let dist = self.dist()?;
        let extra = host_args(&dist.tcpwatch)?;
        let mut commands = Vec::new();
        for arguments in runs(&names, &seeds, "--census --tshark") {
            let mut command = as_root(&dist.scenario)?;
            command.args(arguments.split_whitespace()).arg("--tcpwatch").arg(&dist.tcpwatch).args(extra);
            commands.push(command);
        }
        let rung = if extra.is_empty() { "" } else { "tracep." };
        let mut tally = self.on_this_machine(&mut commands, rung)?;
        // After the scenarios: while they play nothing could be timed.
        if wants_cost(&names)
            && let Some(Column { lines: Ok(lines), .. }) = self.columns.last_mut()
        {
            let line = cost_line(cost::on_this_machine(self.dist.as_ref().context("no binaries")?));
            tally += report::tally(std::slice::from_ref(&line));
            lines.push(line);
        }
        Ok(tally)
    }

    /// A suite on the kernel of this machine, as a column of its own.
    fn on_this_machine(&mut self, commands: &mut [Command], rung: &'static str) -> Result<Tally> {
        let started = Instant::now();
        let mut output = String::new();
        for command in &mut *commands {
            // With a mark before each line, or the closing line of this part would look like that of the whole.
            output += &cmd::tee(command, "  host | ")?.0;
        }
        let release = cmd::output(Command::new("uname").arg("-r"))?.trim().to_owned();
        println!("  host | # {release}");
        let lines = report::scenarios(&output, commands.len()).map_err(|error| format!("{error:#}"));
        let column =
            Column { kernel: "host".into(), release, rung, lines, seconds: started.elapsed().as_secs_f64() };
        let tally = column.tally();
        self.columns.push(column);
        Ok(tally)
    }

    /// Whole incidents, with real programs from Debian.
    fn incidents(&mut self) -> Result<Tally> {
        let programs = programs::get(programs::INCIDENTS, self.args.choice.refresh())?;
        let names = self.args.scenario.clone();
        let dist = self.dist()?;
        let mut command = as_root(&dist.scenario)?;
        command.arg("incident").args(&names).arg("--tcpwatch").arg(&dist.tcpwatch);
        command.arg("--programs").arg(&programs);
        let mut sum = self.on_this_machine(&mut [command], "incid.")?;
        if self.args.quick {
            println!("  (not in the guests: --quick)");
            return Ok(sum);
        }
        let line = format!(
            "tcpwatch-scenario incident {} --tcpwatch /bin/tcpwatch --programs {}",
            names.join(" "),
            programs::IN_GUEST
        );
        sum += self.in_guests(&[Suite {
            name: "incid.",
            costs: false,
            lines: vec![line],
            programs: Some((programs, programs::IN_GUEST)),
        }])?;
        Ok(sum)
    }

    /// Alerts on real trouble. One kernel shows that they fire; that all kernels tell the same, the scenarios show.
    fn alerts(&mut self) -> Result<Tally> {
        let prometheus = programs::get(programs::PROMETHEUS, self.args.choice.refresh())?;
        let promtool = programs::PROMETHEUS.beside(&prometheus).context("no promtool")?;
        let dist = self.dist()?;
        let mut command = as_root(&dist.scenario)?;
        command.args(["alerts", "--tcpwatch"]).arg(&dist.tcpwatch).arg("--prometheus").arg(&prometheus);
        command.arg("--promtool").arg(promtool);
        let mut sum = self.on_this_machine(&mut [command], "alerts")?;
        if self.args.quick {
            println!("  (not in a guest: --quick)");
            return Ok(sum);
        }
        let there = programs::PROMETHEUS_IN_GUEST;
        let line = format!("tcpwatch-scenario alerts --tcpwatch /bin/tcpwatch --prometheus {there}");
        let programs = Some((prometheus, there));
        let suite = Suite { name: "alerts", costs: false, lines: vec![line], programs };
        sum += self.in_guests_of(&self.args.choice.or(&["6.12"]), &[suite])?;
        Ok(sum)
    }

    /// Bad input and bad hosts. Guests are thrown away, so there the kernel may be locked down too.
    fn hosts(&mut self) -> Result<Tally> {
        let names = self.args.scenario.clone();
        let dist = self.dist()?;
        let mut command = as_root(&dist.scenario)?;
        command.arg("hosts").args(&names).arg("--tcpwatch").arg(&dist.tcpwatch);
        let mut sum = self.on_this_machine(&mut [command], "hosts")?;
        if self.args.only != Some(Step::Hosts) {
            // Emulated, a tcpwatch that is started anew for each case takes ten minutes and more a guest.
            println!("  (on this machine; in the guests with `cargo xtask test --only hosts`)");
        } else if self.args.quick {
            println!("  (not in the guests: --quick)");
        } else {
            let names = names.join(" ");
            let line =
                format!("tcpwatch-scenario hosts {names} --global --lockdown --tcpwatch /bin/tcpwatch");
            sum +=
                self.in_guests(&[Suite { name: "hosts", costs: false, lines: vec![line], programs: None }])?;
        }
        Ok(sum)
    }

    fn matrix(&mut self) -> Result<Tally> {
        let suites = RUNGS.iter().map(|(name, args)| {
            let args: String = args.iter().map(|arg| format!("{} ", cmd::quote(arg))).collect();
            // A guest is thrown away, so the limits of the whole machine may be tried too.
            let mut runs = runs(&self.args.scenario, &self.seeds, &format!("--global {args}"));
            if !name.is_empty() {
                // What differs between rungs is what is seen of one act, and for that the scenarios are enough.
                runs.retain(|arguments| !arguments.starts_with(HISTORIES));
            }
            let line = |arguments| format!("tcpwatch-scenario {arguments} --tcpwatch /bin/tcpwatch");
            // All rungs are counted in one guest.
            let costs = name.is_empty() && wants_cost(&self.args.scenario);
            Suite { name, costs, lines: runs.into_iter().map(line).collect(), programs: None }
        });
        let suites: Vec<_> = suites.filter(|suite| suite.costs || !suite.lines.is_empty()).collect();
        self.in_guests(&suites)
    }

    /// Each suite on each kernel of the matrix.
    fn in_guests(&mut self, suites: &[Suite]) -> Result<Tally> {
        self.in_guests_of(&self.args.choice, suites)
    }

    fn in_guests_of(&mut self, choice: &Choice, suites: &[Suite]) -> Result<Tally> {
        let jobs = self.args.jobs;
        let mut sum = Tally::default();
        let mut work = Vec::new();
        for (name, kernel) in choice.each() {
            match kernel {
                Ok(kernel) => work.push(kernel),
                Err(error) => {
                    eprintln!("error: {error:#}");
                    let lines = Err(format!("{error:#}"));
                    self.columns.push(Column {
                        kernel: name,
                        release: String::new(),
                        rung: "",
                        lines,
                        seconds: 0.0,
                    });
                    sum += Tally::one(false);
                }
            }
        }
        let dist = self.dist()?;
        // All kernels in the ordinary way first: what fails there is worth knowing soonest.
        let rows: Vec<_> =
            suites.iter().flat_map(|suite| work.iter().map(move |kernel| (kernel, suite))).collect();
        let done = Mutex::new(Vec::new());
        vm::each(&rows, jobs, |(kernel, suite)| {
            let column = in_guest(kernel, suite, dist);
            println!(
                "{:>14} | # {}: {} in {:.0} s",
                column.title(),
                column.release,
                column.tally(),
                column.seconds
            );
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(column);
        });
        let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let order = |column: &Column| {
            rows.iter().position(|(kernel, suite)| kernel.name == column.kernel && suite.name == column.rung)
        };
        done.sort_by_key(order);
        for column in &done {
            sum += column.tally();
        }
        self.columns.extend(done);
        Ok(sum)
    }
}

/// A command whose success is one test passed.
fn once(command: &mut Command) -> Result<Tally> {
    cmd::run(command).map(|()| Tally::one(true))
}

/// The chart against the manifests, after the house rules, which are a test of their own.
fn chart() -> Result<Tally> {
    let mut tally = Tally::one(true);
    match chart::check()? {
        None => tally.passed += 1,
        Some(why) => {
            println!("skipped: {why}");
            tally.skipped += 1;
        }
    }
    Ok(tally)
}

fn unit() -> Result<Tally> {
    let (output, status) = cmd::tee(repo::cargo_test().arg("--no-fail-fast"), "")?;
    let mut tally = report::cargo_tests(&output, status.success());
    // What is pure in the kernel programs compiles for this machine too.
    if repo::root().join("tcpwatch-ebpf/src/lib.rs").exists() {
        let (output, status) =
            cmd::tee(repo::cargo().args(["test", "--package", "tcpwatch-ebpf", "--lib"]), "")?;
        tally += report::cargo_tests(&output, status.success());
    }
    Ok(tally)
}

/// What the scenarios must know about this machine: whether it grants more than tracepoints. tcpwatch itself knows best.
fn host_args(tcpwatch: &Path) -> Result<&'static [&'static str]> {
    let said = cmd::said(as_root(tcpwatch)?.args(["doctor", "--json"]))?;
    let json = serde_json::from_str(&said).context("`tcpwatch doctor --json` printed no JSON")?;
    match grants_functions(&json) {
        Some(true) => Ok(&[]),
        Some(false) => Ok(&["--tracepoints-only"]),
        None => bail!("`tcpwatch doctor --json` lists no hooks"),
    }
}

/// Whether any hook sits on a kernel function.
fn grants_functions(doctor: &serde_json::Value) -> Option<bool> {
    let hooks = doctor["hooks"].as_array().filter(|hooks| !hooks.is_empty())?;
    let on_function = |how: &str| ["fentry", "fexit", "kprobe", "kretprobe"].contains(&how);
    Some(hooks.iter().any(|hook| hook["attached"].as_str().is_some_and(on_function)))
}

fn as_root(program: &Path) -> Result<Command> {
    if repo::is_root() {
        return Ok(Command::new(program));
    }
    let sudo = repo::which("sudo")
        .context("live tests need root, and there is no sudo\nhint: run `cargo xtask test` as root")?;
    let mut command = Command::new(sudo);
    // A prompt in the middle of a long run would wait unseen.
    command.arg("-n").arg(program);
    Ok(command)
}

/// What runs in a guest.
struct Suite {
    /// What the table calls it.
    name: &'static str,
    /// Before all else the verifier's work is counted, and held against the table.
    costs: bool,
    /// For the guest's shell, one after the other.
    lines: Vec<String>,
    /// A folder of programs that comes along, and where it goes.
    programs: Option<(PathBuf, &'static str)>,
}

/// One suite on one kernel.
fn in_guest(kernel: &Kernel, suite: &Suite, dist: &Dist) -> Column {
    let rung = suite.name;
    let title = if rung.is_empty() { kernel.name.clone() } else { format!("{} {rung}", kernel.name) };
    let guest = Guest::new(kernel)
        .file(&dist.tcpwatch, "/bin/tcpwatch")
        .file(&dist.scenario, "/bin/tcpwatch-scenario")
        .each_line(|line| {
            // A hundred numbers, which are for the comparison.
            if !line.starts_with("cost ") {
                println!("{title:>14} | {line}");
            }
        });
    let guest = suite.programs.iter().fold(guest, |guest, (dir, there)| guest.tree(dir, there));
    let started = Instant::now();
    let commands: Vec<&str> = suite
        .costs
        .then_some(cost::IN_GUEST)
        .into_iter()
        .chain(suite.lines.iter().map(String::as_str))
        .collect();
    let (release, lines) = match guest.run(&commands.join("; "), GUEST_TIMEOUT) {
        Ok(output) => {
            let mut lines = report::scenarios(&output.stdout, suite.lines.len())
                .with_context(|| format!("exit status {} after {:.0} s", output.status, output.seconds));
            if suite.costs
                && let Ok(lines) = &mut lines
            {
                lines.push(cost_line(cost::in_guest(&kernel.name, &output.release, &output.stdout)));
            }
            (output.release, lines)
        }
        Err(error) => (kernel.release.clone(), Err(error)),
    };
    let lines = lines.map_err(|error| format!("{error:#}"));
    if let Err(error) = &lines {
        eprintln!("error: {title}: {error}");
    }
    Column { kernel: kernel.name.clone(), release, rung, lines, seconds: started.elapsed().as_secs_f64() }
}

/// What the programs cost, as one more test of a kernel.
fn cost_line(cost: cost::Outcome) -> Line {
    let (outcome, note) = match cost {
        cost::Outcome::Agrees => (Outcome::Passed, String::new()),
        cost::Outcome::Differs(why) => (Outcome::Failed, why),
        cost::Outcome::NotCompared(why) => (Outcome::NotApplicable, why),
    };
    Line { name: COST.to_owned(), family: String::new(), outcome, note }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_are_played_unless_scenarios_are_named() {
        let first_words = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let words = |line: String| line.split_whitespace().next().map(str::to_owned);
            runs(&names, "1,2,3", "--global").into_iter().filter_map(words).collect::<Vec<_>>()
        };
        assert_eq!(first_words(&[]), ["run", "histories"]);
        assert_eq!(first_words(&["closed-port"]), ["run"]);
        assert_eq!(first_words(&["histories"]), ["histories"]);
        assert_eq!(first_words(&["histories", "closed-port"]), ["run", "histories"]);
        assert_eq!(first_words(&["cost", "closed-port"]), ["run"]);
        assert!(first_words(&["cost"]).is_empty());
    }

    #[test]
    fn what_doctor_says_about_this_machine() {
        let says = |text: &str| grants_functions(&serde_json::from_str(text).unwrap());
        let refused = r#"{"hooks":[{"name":"a","attached":"tp_btf"},{"name":"b","attached":null,"tried":[{"how":"fentry"}]}]}"#;
        assert_eq!(says(refused), Some(false));
        assert_eq!(says(r#"{"hooks":[{"attached":"tp_btf"},{"attached":"fentry"}]}"#), Some(true));
        assert_eq!(says(r#"{"hooks":[]}"#), None);
        assert_eq!(says(r#"{"works":true}"#), None);
    }
}
