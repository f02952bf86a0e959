//! Every chore of the repository as `cargo xtask VERB`: one file per verb, this one only reads the command line.

#![expect(clippy::print_stdout, reason = "a chore reports to the person who typed it")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod chart;
mod cmd;
mod cost;
mod dist;
mod docs;
mod fixtures;
mod fuzz;
mod protos;
mod repo;
mod run;
mod scratch;
mod setup;
mod sums;
mod test;
mod tidy;
mod vm;

#[derive(Parser)]
#[command(name = "cargo xtask", about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what building and testing need and this machine lacks
    Setup {
        /// Asks nothing anyway; for fingers that are used to it
        #[arg(long, short)]
        yes: bool,
        /// Also the rivals that `bench` measures
        #[arg(long)]
        bench: bool,
    },
    /// Build tcpwatch and start it as root
    Run {
        /// What to hand to tcpwatch [default: trace]
        #[arg(last = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// Run every test, on this machine and on real kernels
    Test(test::Args),
    /// Measure what tcpwatch costs, beside rivals, and write docs/performance.md
    Bench(bench::Args),
    /// Run tcpwatch beside a mixed load for half an hour: every RST must be told, the books balance, nothing grow
    Soak(bench::soak::Args),
    /// Compare what each program costs, the verifier and the host, with docs/cost.md, or write it
    Cost(cost::Args),
    /// Boot real kernels in QEMU and run a command on each
    Vm(vm::Args),
    /// Build the static binary to ship, and the packages made of it: .deb, tarball, container image
    Dist(dist::Args),
    /// Write the pages that are made from tcpwatch's own tables
    Docs,
    /// Lint the Helm chart and compare deploy/kubernetes with what Helm makes of it, or write that
    Chart {
        #[arg(long)]
        write: bool,
    },
    /// Record the types of real kernels, for tests that need none
    Fixtures(fixtures::Args),
    /// Feed what tcpwatch reads from others to it, changed by a fuzzer that follows coverage
    Fuzz(fuzz::Args),
    /// Compare the prototypes above the hooks with those of the recorded kernels
    Protos,
    /// Check the house rules that no compiler checks
    Tidy,
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Setup { yes: _, bench } => setup::main(bench),
        Verb::Run { args } => run::main(&args),
        Verb::Test(args) => match test::main(&args) {
            Ok(false) => return ExitCode::FAILURE,
            other => other.map(drop),
        },
        Verb::Bench(args) => bench::main(&args),
        Verb::Soak(args) => bench::soak::main(&args),
        Verb::Cost(args) => match cost::main(&args) {
            Ok(false) => return ExitCode::FAILURE,
            other => other.map(drop),
        },
        Verb::Vm(args) => vm::main(&args),
        Verb::Dist(args) => dist::main(&args),
        Verb::Docs => docs::main(),
        Verb::Chart { write } => chart::main(write),
        Verb::Fixtures(args) => fixtures::main(&args),
        Verb::Fuzz(args) => fuzz::main(&args),
        Verb::Protos => protos::main(),
        Verb::Tidy => tidy::main(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
