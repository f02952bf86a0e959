//! Provokes every TCP event in namespaces of its own and compares what tcpwatch said with what was done.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tcpwatch_tests::actor::child;
use tcpwatch_tests::alerts;
use tcpwatch_tests::cost;
use tcpwatch_tests::histories;
use tcpwatch_tests::hosts::{self, disguise};
use tcpwatch_tests::incidents::{self, programs, proxy};
use tcpwatch_tests::net::Family;
use tcpwatch_tests::run::{self, Options};
use tcpwatch_tests::scenarios;

#[derive(Parser)]
#[command(
    name = "tcpwatch-scenario",
    about = "Provoke TCP events whose truth is known, and judge tcpwatch by them"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Name every scenario and what it provokes
    List,
    /// Play scenarios (all, or the named ones) and judge the events
    Run(Run),
    /// Play random acts of many processes at once, and print precision and recall of cause and owner
    Histories(Histories),
    /// Start tcpwatch with bad input and on hosts made odd, all ways or the named ones, and judge what it says
    Hosts(Hosts),
    /// Play whole incidents with real programs (all, or the named ones), and judge what tcpwatch makes of them
    Incident(Incident),
    /// Have Prometheus scrape an agent while a host is in trouble, and judge the alerts
    Alerts {
        /// The program to judge
        #[arg(long, value_name = "PATH")]
        tcpwatch: String,
        /// The folder with Prometheus, as `cargo xtask` unpacks it
        #[arg(long, value_name = "DIR")]
        prometheus: PathBuf,
        /// promtool, which checks rules and page
        #[arg(long, value_name = "PATH")]
        promtool: Option<PathBuf>,
    },
    /// Print how many instructions the kernel's verifier walks for each program of tcpwatch
    Cost {
        /// The program to load
        #[arg(long, value_name = "PATH")]
        tcpwatch: String,
    },
    /// Becomes a program in a root of its own; started by the program itself
    #[command(hide = true)]
    Within {
        root: String,
        scratch: String,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// The proxy of an incident; started by the program itself
    #[command(hide = true)]
    Proxy { listen: SocketAddr, backend: SocketAddr, count: usize },
    /// What makes a host odd for one program; started by the program itself
    #[command(hide = true)]
    Disguise(disguise::Disguise),
    /// A process of a scenario; started by the program itself
    #[command(hide = true)]
    Actor { comm: String },
}

#[derive(Args)]
struct Run {
    names: Vec<String>,
    /// The program to judge
    #[arg(long, value_name = "PATH", required_unless_present = "dry_run")]
    tcpwatch: Option<String>,
    #[arg(long, value_enum, default_value_t = Choice::Both)]
    family: Choice,
    /// More arguments for tcpwatch, separated by spaces
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    args: String,
    /// The host grants tracepoints alone: what needs a hook may be absent, nothing may be wrong
    #[arg(long)]
    tracepoints_only: bool,
    /// An event without a cause is a failure
    #[arg(long)]
    strict_causes: bool,
    /// Also count who sends resets in the kernel's text: a caller that tcpwatch does not know is a failure
    #[arg(long, conflicts_with = "dry_run")]
    census: bool,
    /// Have tshark read the capture, too
    #[arg(long, conflicts_with = "dry_run")]
    tshark: bool,
    /// Play without tcpwatch and hold only the kernel's counters against the plan
    #[arg(long, conflicts_with_all = ["tcpwatch", "keep"])]
    dry_run: bool,
    /// Store tcpwatch's lines
    #[arg(long, value_name = "FILE")]
    keep: Option<String>,
    /// Play also what changes settings of the whole machine: on a throw-away machine only
    #[arg(long)]
    global: bool,
    /// How many scenarios play at once
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

#[derive(Args)]
struct Histories {
    /// The program to judge
    #[arg(long, value_name = "PATH")]
    tcpwatch: String,
    /// Repeat the history that has this number; several are played one after the other [default: one by chance]
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    seed: Vec<u64>,
    /// How many acts a history has; an act makes one to six connections
    #[arg(long, default_value_t = 300, value_name = "M")]
    count: usize,
    /// Also acts that tcpwatch is known to tell wrong: for whoever improves it
    #[arg(long)]
    hard: bool,
    #[arg(long, value_enum, default_value_t = Choice::Both)]
    family: Choice,
    /// The host grants tracepoints alone: what needs a hook may be absent, nothing may be wrong
    #[arg(long)]
    tracepoints_only: bool,
    /// More arguments for tcpwatch, separated by spaces
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    args: String,
    /// Store tcpwatch's lines
    #[arg(long, value_name = "FILE")]
    keep: Option<String>,
    /// Seconds after which a history begins no more acts
    #[arg(long, value_name = "SECONDS")]
    time: Option<u64>,
}

#[derive(Args)]
struct Hosts {
    names: Vec<String>,
    /// The program to judge
    #[arg(long, value_name = "PATH", required_unless_present = "list")]
    tcpwatch: Option<String>,
    /// Name every case
    #[arg(long)]
    list: bool,
    /// Also what changes settings of the whole machine: on a throw-away machine only
    #[arg(long)]
    global: bool,
    /// Also kernel lockdown, which only a reboot undoes: on a throw-away machine only
    #[arg(long)]
    lockdown: bool,
}

#[derive(Args)]
struct Incident {
    /// A, B, C, D, one kind of these such as d-flood, or all
    names: Vec<String>,
    /// The program to judge
    #[arg(long, value_name = "PATH", required_unless_present = "list")]
    tcpwatch: Option<String>,
    /// The folder with nginx and redis, as `cargo xtask` unpacks them
    #[arg(long, value_name = "DIR", required_unless_present = "list")]
    programs: Option<String>,
    #[arg(long, value_enum, default_value_t = Choice::V4)]
    family: Choice,
    /// Append what `tcpwatch diagnose` said to a file
    #[arg(long, value_name = "FILE")]
    text: Option<String>,
    /// Keep captures and their reports in this folder
    #[arg(long, value_name = "DIR")]
    captures: Option<PathBuf>,
    /// Name every incident
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    #[value(name = "4")]
    V4,
    #[value(name = "6")]
    V6,
    Both,
}

impl Choice {
    fn families(self) -> Vec<Family> {
        match self {
            Self::V4 => vec![Family::V4, Family::Mapped],
            Self::V6 => vec![Family::V6],
            Self::Both => vec![Family::V4, Family::V6, Family::Mapped],
        }
    }
}

fn main() -> ExitCode {
    match work() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "tcpwatch-scenario: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn work() -> Result<bool> {
    match Cli::parse().verb {
        Verb::List => {
            let mut out = std::io::stdout().lock();
            for scenario in scenarios::all() {
                let mapped = if scenario.families.contains(&Family::Mapped) { " (also -mapped)" } else { "" };
                if writeln!(out, "{:<28} {}{mapped}", scenario.name, scenario.about).is_err() {
                    break;
                }
            }
            Ok(true)
        }
        Verb::Actor { comm } => child::serve(&comm).map(|()| true),
        Verb::Disguise(disguise) => disguise::wear(&disguise).map(|()| false),
        Verb::Hosts(args) => {
            let Some(tcpwatch) = args.tcpwatch.filter(|_| !args.list) else {
                hosts::list();
                return Ok(true);
            };
            need_root()?;
            hosts::run(&hosts::Options {
                names: args.names,
                tcpwatch,
                global: args.global,
                lockdown: args.lockdown,
            })
        }
        Verb::Alerts { tcpwatch, prometheus, promtool } => {
            need_root()?;
            alerts::run(&alerts::Options { tcpwatch, prometheus, promtool })
        }
        Verb::Cost { tcpwatch } => {
            need_root()?;
            cost::run(&tcpwatch).map(|()| true)
        }
        Verb::Within { root, scratch, command } => {
            programs::within(&root, &scratch, &command).map(|()| false)
        }
        Verb::Proxy { listen, backend, count } => proxy::serve(listen, backend, count).map(|()| true),
        Verb::Incident(args) => {
            let (Some(tcpwatch), Some(programs)) = (args.tcpwatch, args.programs) else {
                incidents::list();
                return Ok(true);
            };
            need_root()?;
            let families = match args.family {
                Choice::V4 => vec![Family::V4],
                Choice::V6 => vec![Family::V6],
                Choice::Both => vec![Family::V4, Family::V6],
            };
            incidents::run(&incidents::Options {
                names: args.names,
                tcpwatch,
                programs,
                families,
                text: args.text,
                captures: args.captures,
            })
        }
        Verb::Histories(args) => {
            need_root()?;
            histories::run(&histories::Options {
                tcpwatch: args.tcpwatch,
                seeds: args.seed,
                count: args.count,
                hard: args.hard,
                families: args.family.families(),
                tracepoints_only: args.tracepoints_only,
                extra: args.args,
                keep: args.keep,
                time: args.time.map(Duration::from_secs),
            })
        }
        Verb::Run(run) => {
            need_root()?;
            run::run(&Options {
                names: run.names,
                tcpwatch: run.tcpwatch,
                families: run.family.families(),
                extra: run.args,
                keep: run.keep,
                global: run.global,
                slots: run.jobs,
                tracepoints_only: run.tracepoints_only,
                strict_causes: run.strict_causes,
                census: run.census,
                tshark: run.tshark,
            })
        }
    }
}

fn need_root() -> Result<()> {
    if !std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0) {
        bail!("namespaces and raw packets need root");
    }
    Ok(())
}
