//! Plays load for `cargo xtask bench`, and starts the tools that are measured under it.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tcpwatch_tests::load::{self, Options, Workload};

#[derive(Parser)]
#[command(
    name = "tcpwatch-load",
    about = "Play one kind of TCP load on one core, in a network namespace of its own"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Say `ready`, wait for a line, play, print one line of JSON, and stay until the end of standard input
    Play {
        workload: Workload,
        /// How many operations to play [default: as many as go]
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// Seconds after which no more are played
        #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
        time: f64,
        /// Operations before the clock runs [default: 2000]
        #[arg(long, value_name = "N")]
        warm_up: Option<u64>,
        #[arg(long, default_value_t = 0)]
        core: usize,
        /// net.ipv4.tcp_syncookies for syn-flood
        #[arg(long, default_value_t = 1)]
        cookies: u8,
        /// Also print what the BPF programs of this process cost meanwhile
        #[arg(long, value_name = "PID")]
        programs_of: Option<u32>,
    },
    /// Hold connections, both ends, until the end of standard input; started by the program itself
    #[command(hide = true)]
    Hold { count: u64, port: u16 },
    /// Hold programs that do nothing on these tracepoints until the end of standard input
    Empty {
        #[arg(required = true)]
        tracepoints: Vec<String>,
    },
    /// Play by turns without and with each tool, and print the ratios of each pair
    Compare {
        workload: String,
        #[arg(long)]
        count: u64,
        #[arg(long)]
        pairs: usize,
        /// Command lines
        #[arg(long, required = true)]
        tool: Vec<String>,
    },
    /// Become a tool, pinned to a core, with tracefs where it looks for it
    Tool {
        #[arg(long, default_value_t = 1)]
        core: usize,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Start a tool, print when it wrote a line with a mark and when its first program ran, and end it
    Start {
        #[arg(long)]
        mark: String,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "tcpwatch-load: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn work() -> Result<()> {
    match Cli::parse().verb {
        Verb::Play { workload, count, time, warm_up, core, cookies, programs_of } => load::run(&Options {
            workload,
            count,
            time: Duration::try_from_secs_f64(time)?,
            warm_up,
            core,
            cookies,
            programs_of,
        }),
        Verb::Hold { count, port } => load::hold(count, port),
        Verb::Empty { tracepoints } => load::hold_empty(&tracepoints),
        Verb::Compare { workload, count, pairs, tool } => load::compare(&workload, count, pairs, &tool),
        Verb::Tool { core, command } => load::become_tool(core, &command),
        Verb::Start { mark, command } => load::time_start(&mark, &command),
    }
}
