//! `cargo xtask cost`: what each program costs, the verifier and the host, held against the table in `docs/cost.md`.

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bench::each;
use crate::dist::{self, Dist};
use crate::vm::{self, Choice, Guest};
use crate::{repo, setup};

mod compare;
mod page;

use page::{Kernel, Table, Time, Times, Walked};

/// Where the table lies.
const PAGE: &str = "docs/cost.md";

/// What the verifier walks before it gives up (`BPF_COMPLEXITY_LIMIT_INSNS`).
const LIMIT: u64 = 1_000_000;

/// What counts in a guest.
pub(crate) const IN_GUEST: &str = "tcpwatch-scenario cost --tcpwatch /bin/tcpwatch";

/// Emulated, six starts of tcpwatch take well under a minute.
const TIMEOUT: Duration = Duration::from_secs(10 * 60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write what was measured into docs/cost.md instead of comparing
    #[arg(long)]
    write: bool,
    /// Measure this alone; the rest of the table stays
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// Take the binaries in target/dist as they are instead of building them
    #[arg(long)]
    built: bool,
    /// How many guests run at once
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    #[command(flatten)]
    choice: Choice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Instructions of the verifier, on the kernels of the matrix
    Verifier,
    /// Nanoseconds a run, on this machine
    Time,
}

/// `cargo xtask cost`: whether everything agrees with the table.
pub(crate) fn main(args: &Args) -> Result<bool> {
    setup::ensure()?;
    let dist = if args.built { dist::built()? } else { dist::build_all()? };
    let is_wanted = |part| args.only.is_none_or(|only| only == part);
    // A page that cannot be read is no reason not to write a whole new one.
    let whole = args.write && args.only.is_none() && !args.choice.is_made();
    let mut table = if whole { Table::default() } else { read()? };
    let mut outcomes = Vec::new();
    // The guests would disturb what is timed.
    if is_wanted(Part::Time) {
        let (machine, times) = time(&dist)?;
        if args.write {
            (table.machine, table.times) = (machine, times);
        } else {
            outcomes.push(judge(compare::times(&table, &machine, &times)));
        }
    }
    if is_wanted(Part::Verifier) {
        for kernel in kernels(&args.choice, args.jobs, &dist)? {
            if args.write {
                match table.kernels.iter_mut().find(|known| known.name == kernel.name) {
                    Some(known) => *known = kernel,
                    None => table.kernels.push(kernel),
                }
            } else {
                outcomes.push(verifier(&table, &kernel));
            }
        }
    }
    if args.write {
        let file = repo::root().join(PAGE);
        fs::write(&file, page::render(&table)).with_context(|| format!("cannot write {}", file.display()))?;
        println!("{PAGE}: written");
    }
    for outcome in &outcomes {
        match outcome {
            Outcome::Agrees => println!("agrees with {PAGE}"),
            Outcome::Differs(why) => println!("differs: {why}"),
            Outcome::NotCompared(why) => println!("not compared: {why}"),
        }
    }
    Ok(outcomes.iter().all(|outcome| !matches!(outcome, Outcome::Differs(_))))
}

fn read() -> Result<Table> {
    let file = repo::root().join(PAGE);
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()));
    let table = text.and_then(|text| page::parse(&text).with_context(|| format!("in {PAGE}")));
    table.context("there is no table to compare with\nhint: `cargo xtask cost --write` makes it")
}

/// What the test says of a comparison.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Agrees,
    /// Sentences that name what differs.
    Differs(String),
    /// Why there was nothing to compare.
    NotCompared(String),
}

fn judge(verdict: compare::Verdict) -> Outcome {
    if let Some(remark) = &verdict.remark {
        println!("note: {remark}");
    }
    if verdict.wrong.is_empty() { Outcome::Agrees } else { Outcome::Differs(verdict.wrong.join("; ")) }
}

/// Holds what a guest printed against the table.
pub(crate) fn in_guest(kernel: &str, release: &str, output: &str) -> Outcome {
    let compared = counts(output).and_then(|walked| Ok((read()?, walked)));
    match compared {
        Ok((table, walked)) => {
            verifier(&table, &Kernel { name: kernel.to_owned(), release: release.to_owned(), walked })
        }
        Err(error) => Outcome::Differs(format!("{error:#}")),
    }
}

fn verifier(table: &Table, kernel: &Kernel) -> Outcome {
    match compare::verifier(table, &kernel.name, &kernel.release, &kernel.walked) {
        Some(verdict) => judge(verdict),
        None => Outcome::NotCompared(format!("{PAGE} has no kernel {}", kernel.name)),
    }
}

/// Holds the times of this machine against the table.
pub(crate) fn on_this_machine(dist: &Dist) -> Outcome {
    let compared = || -> Result<Outcome> {
        if !each::has_room()? {
            return Ok(Outcome::NotCompared("load and tool need a core each, and there is one".to_owned()));
        }
        let (machine, times) = time(dist)?;
        Ok(judge(compare::times(&read()?, &machine, &times)))
    };
    compared().unwrap_or_else(|error| Outcome::Differs(format!("{error:#}")))
}

fn time(dist: &Dist) -> Result<(String, Times)> {
    if !repo::is_root() {
        bail!("namespaces and BPF programs need root\nhint: run it as root");
    }
    let each = each::measure(&dist.tcpwatch, &dist.load)?;
    let times = each
        .into_iter()
        .map(|each| ((each.load, each.tool, each.program), Time { ns: each.ns, empty: each.empty }));
    Ok((each::here()?, times.collect()))
}

/// Every kernel that was chosen. One that does not answer is an error: a table with a hole would be compared with nothing.
fn kernels(choice: &Choice, jobs: usize, dist: &Dist) -> Result<Vec<Kernel>> {
    let chosen = choice
        .each()
        .into_iter()
        .map(|(name, kernel)| kernel.with_context(|| format!("kernel {name}")))
        .collect::<Result<Vec<_>>>()?;
    let done = Mutex::new(Vec::new());
    vm::each(&chosen, jobs, |kernel| {
        let counted =
            count(kernel, dist).with_context(|| format!("in the guest with kernel {}", kernel.name));
        println!("{:>7} | {}", kernel.name, if counted.is_ok() { "counted" } else { "failed" });
        done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(counted);
    });
    let done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut done = done.into_iter().collect::<Result<Vec<_>>>()?;
    done.sort_by_key(|kernel| chosen.iter().position(|other| other.name == kernel.name));
    Ok(done)
}

fn count(kernel: &vm::Kernel, dist: &Dist) -> Result<Kernel> {
    let guest = Guest::new(kernel)
        .file(&dist.tcpwatch, "/bin/tcpwatch")
        .file(&dist.scenario, "/bin/tcpwatch-scenario");
    let done = guest.run(IN_GUEST, TIMEOUT)?;
    let walked = counts(&done.stdout).with_context(|| done.stdout.clone())?;
    Ok(Kernel { name: kernel.name.clone(), release: done.release, walked })
}

/// What `tcpwatch-scenario cost` printed, among other things. Half of it is nothing.
fn counts(output: &str) -> Result<Walked> {
    let mut walked = Walked::new();
    let mut told = None;
    for line in output.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["cost", "lines", number] => told = Some(number.parse::<usize>().context("no number of lines")?),
            ["cost", mode, program, number] => {
                let number = number.parse().with_context(|| format!("no number of instructions: {line}"))?;
                walked.insert((mode.to_owned(), program.to_owned()), number);
            }
            _ => {}
        }
    }
    match told {
        Some(lines) if lines == walked.len() && lines > 0 => Ok(walked),
        Some(lines) => bail!("{} of {lines} costs of programs arrived", walked.len()),
        None => bail!("tcpwatch-scenario did not count the verifier's work to the end; its words are above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_count_is_none() {
        let whole = "noise\ncost default one 12\ncost costliest one 30\ncost lines 2\nok   closed-port v4\n";
        let walked = counts(whole).unwrap();
        assert_eq!(walked[&("costliest".to_owned(), "one".to_owned())], 30);
        for (cut, word) in [
            (whole.replace("cost lines 2\n", ""), "to the end"),
            (whole.replace("cost default one 12\n", ""), "1 of 2"),
            (whole.replace("one 12", "one x"), "cost default one x"),
            ("cost lines 0\n".to_owned(), "0 of 0"),
        ] {
            let error = format!("{:#}", counts(&cut).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_kernel_that_the_table_lacks_is_not_compared_and_that_is_said() {
        let table = page::tests::table();
        let kernel = |name: &str| Kernel { name: name.to_owned(), ..table.kernels[0].clone() };
        assert_eq!(verifier(&table, &kernel("5.10")), Outcome::Agrees);
        let other = verifier(&table, &kernel("4.4"));
        assert_eq!(other, Outcome::NotCompared("docs/cost.md has no kernel 4.4".to_owned()));
    }

    /// The test has nothing to hold a change against without it.
    #[test]
    fn the_table_can_be_read_and_is_as_it_would_be_written() {
        let text = fs::read_to_string(repo::root().join(PAGE)).unwrap();
        assert!(
            page::render(&read().unwrap()) == text,
            "{PAGE} was changed by hand, or its words have changed"
        );
    }
}
