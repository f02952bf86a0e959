//! Every chore of the repository as `cargo xtask VERB`: one file per verb, this one only reads the command line.

#![expect(clippy::print_stdout, reason = "a chore reports to the person who typed it")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod cmd;
mod repo;
mod vm;

#[derive(Parser)]
#[command(name = "cargo xtask", about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Boot real kernels in QEMU and run a command on each
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Vm(args) => vm::main(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
