//! What may be typed. Values stay text here; [`super::options`] gives them their meaning, because most errors are about
//! the host and not about the form.

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::ffi::OsString;
use std::path::PathBuf;

const TEMPLATE: &str = "{about}\n\n{usage-heading} {usage}\n\n{all-args}{after-help}";

/// The commands that are shown.
pub(super) const COMMANDS: [&str; 7] = ["trace", "diagnose", "top", "report", "agent", "explain", "doctor"];

#[derive(Debug, Parser)]
#[command(
    name = "tcpwatch",
    bin_name = "tcpwatch",
    version,
    about = "Names the process, the socket and the cause behind every TCP reset and every refused connection.",
    override_usage = "tcpwatch [COMMAND] [OPTIONS] [FILTER]",
    after_help = "Exit status: 0 done, 1 failed, 2 usage, 3 events were lost under --strict.",
    help_template = TEMPLATE,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub(super) struct Typed {
    #[command(subcommand)]
    pub(super) command: Option<Sub>,
    #[command(flatten)]
    pub(super) trace: TraceArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Sub {
    /// Stream events, one line each, the cause under it (the default)
    #[command(help_template = TEMPLATE)]
    Trace(Box<TraceArgs>),
    /// Watch for a while, then say what is wrong, whose it is, why, and what to change
    #[command(help_template = TEMPLATE)]
    Diagnose(Box<DiagnoseArgs>),
    /// Show causes, listeners with their queues, processes and events on the whole screen
    #[command(help_template = TEMPLATE)]
    Top(Box<TopArgs>),
    /// Make one page of HTML of a capture, for whoever was not there
    #[command(help_template = TEMPLATE)]
    Report(Box<ReportArgs>),
    /// Watch for good: figures for Prometheus, entries for the journal, a ring of captures
    #[command(help_template = TEMPLATE)]
    Agent(Box<AgentArgs>),
    /// Tell what a name means: a cause, a reset or drop reason, a TCP state, a counter
    #[command(help_template = TEMPLATE)]
    Explain(ExplainArgs),
    /// Tell what can be seen on this host with these privileges, and what to do about the rest
    #[command(help_template = TEMPLATE)]
    Doctor(DoctorArgs),
    /// Print pages of the documentation that are made from tables
    #[command(hide = true)]
    Docs {
        #[command(subcommand)]
        page: Page,
    },
    /// Print what makes a shell complete tcpwatch's words: bash, zsh, fish, elvish or powershell
    #[command(hide = true)]
    Completions {
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Write the pages for `man` into a folder
    #[command(hide = true)]
    Man {
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Page {
    /// The kernel hooks and what is lost without each
    Hooks,
    /// The causes that events can have
    Causes,
    /// The kernel's names
    Reasons,
    /// The kernel's functions that lead to a reset, and to which causes
    Callers,
}

#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    #[command(flatten)]
    pub(super) filter: FilterArgs,

    /// Stop after N events
    #[arg(short, long, value_name = "N", help_heading = "Output")]
    pub(super) count: Option<String>,
    /// Stop after this time: 500ms, 30s, 5m, 1h
    #[arg(long = "for", value_name = "TIME", help_heading = "Output")]
    pub(super) duration: Option<String>,
    /// Add the kernel stack to each event; to a leak, the user stack of the last read
    #[arg(short = 'k', long, help_heading = "Output")]
    pub(super) stack: bool,
    #[command(flatten)]
    pub(super) output: OutputArgs,

    #[command(flatten)]
    pub(super) capture: CaptureArgs,

    #[command(flatten)]
    pub(super) kernel: KernelArgs,
}

#[derive(Debug, Args)]
pub(super) struct DiagnoseArgs {
    #[command(flatten)]
    pub(super) filter: FilterArgs,

    /// Watch for this long: 10s, 5m [default: 30s]
    #[arg(long = "for", value_name = "TIME", help_heading = "Output")]
    pub(super) duration: Option<String>,
    #[command(flatten)]
    pub(super) output: OutputArgs,

    #[command(flatten)]
    pub(super) capture: CaptureArgs,

    #[command(flatten)]
    pub(super) kernel: KernelArgs,
}

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    pub(super) filter: FilterArgs,

    /// Stop after this time: 30s, 5m, 1h
    #[arg(long = "for", value_name = "TIME", help_heading = "Output")]
    pub(super) duration: Option<String>,
    /// Keep the kernel stack of each event
    #[arg(short = 'k', long, help_heading = "Output")]
    pub(super) stack: bool,
    /// auto, always or never [default: auto]
    #[arg(long, value_name = "WHEN", help_heading = "Output")]
    pub(super) color: Option<String>,
    /// Of like events show so many a second, and count the others; off: show all [default: 1000]
    #[arg(long, value_name = "RATE", help_heading = "Output")]
    pub(super) storm: Option<String>,

    #[command(flatten)]
    pub(super) capture: CaptureArgs,

    #[command(flatten)]
    pub(super) kernel: KernelArgs,
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// The capture, as `-w` of another command wrote it; -: standard input
    #[arg(short, long, value_name = "FILE")]
    pub(super) read: Option<PathBuf>,
    /// The page; -: standard output [default: the capture's name with .html]
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
}

#[derive(Clone, Debug, Default, PartialEq, Args)]
pub(super) struct AgentArgs {
    #[command(flatten)]
    pub(super) filter: FilterArgs,

    /// What else is to be said, in TOML; read again on SIGHUP. Flags win [default: /etc/tcpwatch/agent.toml]
    #[arg(long, value_name = "FILE", help_heading = "Agent")]
    pub(super) config: Option<PathBuf>,
    /// Say what the file and the flags come to, and end: 0 if that makes sense, 2 if not
    #[arg(long, help_heading = "Agent")]
    pub(super) check: bool,
    /// Where Prometheus finds figures, at /metrics; off: nowhere [default: 127.0.0.1:9853]
    #[arg(long, value_name = "ADDRESS", help_heading = "Agent")]
    pub(super) listen: Option<String>,
    /// Processes and listeners that have figures of their own; others are counted together [default: 1000]
    #[arg(long, value_name = "N", help_heading = "Agent")]
    pub(super) max_series: Option<String>,
    /// Write each event to the systemd journal, too
    #[arg(long, help_heading = "Agent")]
    pub(super) journal: bool,
    /// Keep captures of the last events in this folder, for `tcpwatch -r DIR`
    #[arg(long, value_name = "DIR", help_heading = "Agent")]
    pub(super) ring: Option<PathBuf>,
    /// With --ring: how long [default: 1h]
    #[arg(long, value_name = "TIME", help_heading = "Agent")]
    pub(super) keep: Option<String>,
    /// With --ring: how much [default: 256M]
    #[arg(long, value_name = "SIZE", help_heading = "Agent")]
    pub(super) max: Option<String>,
    /// Send events and figures to this OpenTelemetry collector, as http://127.0.0.1:4317
    #[arg(long, value_name = "URL", help_heading = "Agent")]
    pub(super) otlp: Option<String>,
    /// With --otlp: grpc or http/protobuf [default: by the port, 4317 or 4318]
    #[arg(long, value_name = "NAME", help_heading = "Agent")]
    pub(super) otlp_protocol: Option<String>,
    /// Like events told singly in a second, then counted; off: all [default: 1000]
    #[arg(long, value_name = "RATE", help_heading = "Agent")]
    pub(super) storm: Option<String>,

    #[command(flatten)]
    pub(super) kernel: KernelArgs,
}

#[derive(Clone, Debug, Default, PartialEq, Args)]
pub(super) struct FilterArgs {
    /// In tcpdump's words: 'host 10.9.0.1 and not port 22'; src is the local end of a connection, dst the remote one
    #[arg(value_name = "FILTER", help_heading = "Filter")]
    pub(super) filter: Vec<String>,
    /// Only sockets of this process
    #[arg(short, long, help_heading = "Filter")]
    pub(super) pid: Option<String>,
    /// Only these local ports, up to 8
    #[arg(short = 'L', long, value_name = "PORT[,PORT]", help_heading = "Filter")]
    pub(super) lport: Vec<String>,
    /// Only these remote ports, up to 8
    #[arg(short = 'D', long, value_name = "PORT[,PORT]", help_heading = "Filter")]
    pub(super) rport: Vec<String>,
    /// Only IPv4
    #[arg(short = '4', long = "ipv4", conflicts_with = "v6", help_heading = "Filter")]
    pub(super) v4: bool,
    /// Only IPv6
    #[arg(short = '6', long = "ipv6", help_heading = "Filter")]
    pub(super) v6: bool,
    /// Only this network namespace: INODE, PATH, pid:PID or NAME
    #[arg(long, value_name = "NS", help_heading = "Filter")]
    pub(super) netns: Option<String>,
    /// Only this cgroup (v2), none below it: PATH or ID
    #[arg(long, help_heading = "Filter")]
    pub(super) cgroup: Option<String>,
    /// rst,listen,tw,leak,drop,state,retransmit|all [default: first four]
    #[arg(long, value_name = "LIST", help_heading = "Filter")]
    pub(super) events: Vec<String>,
    /// A socket in CLOSE_WAIT for longer is a leak [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = "Filter")]
    pub(super) close_wait_after: Option<String>,
}

#[derive(Debug, Default, Args)]
pub(super) struct OutputArgs {
    /// JSON instead of text, one object a line
    #[arg(long, help_heading = "Output")]
    pub(super) json: bool,
    /// auto, always or never [default: auto]
    #[arg(long, value_name = "WHEN", help_heading = "Output")]
    pub(super) color: Option<String>,
    /// Like events told singly in a second, then counted; off: all [default: 1000]
    #[arg(long, value_name = "RATE", help_heading = "Output")]
    pub(super) storm: Option<String>,
    /// Exit with status 3 if events were lost
    #[arg(long, help_heading = "Output")]
    pub(super) strict: bool,
}

#[derive(Debug, Default, Args)]
pub(super) struct CaptureArgs {
    /// Also write all of it to a pcapng file, for Wireshark; -: to standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Capture")]
    pub(super) write: Option<PathBuf>,
    /// Read such a file instead of the kernel; takes no privileges
    #[arg(short, long, value_name = "FILE", help_heading = "Capture")]
    pub(super) read: Option<PathBuf>,
    /// With -w: begin another file when this one would be longer: 100M, 1G
    #[arg(short = 'C', long, value_name = "SIZE", help_heading = "Capture", hide_short_help = true)]
    pub(super) rotate_size: Option<String>,
    /// With -w: begin another file after this time; FILE has it in its name: /tmp/%F_%H-%M-%S.pcapng
    #[arg(short = 'G', long, value_name = "TIME", help_heading = "Capture", hide_short_help = true)]
    pub(super) rotate_after: Option<String>,
    /// With -C: keep so many files of one name, then write over the first
    #[arg(short = 'W', long, value_name = "N", help_heading = "Capture", hide_short_help = true)]
    pub(super) rotate_files: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Args)]
pub(super) struct KernelArgs {
    /// Attach by auto, fentry, kprobe, tracepoint or raw tracepoint (raw) alone [default: auto]
    #[arg(long, value_name = "HOW", help_heading = "Kernel")]
    pub(super) attach: Option<String>,
    /// Types (BTF) of the running kernel, where it does not show them itself
    #[arg(long, value_name = "FILE", help_heading = "Kernel", hide_short_help = true)]
    pub(super) btf: Option<PathBuf>,
    /// Ring buffer for events, a power of two [default: 4M, with states 16M]
    #[arg(long, value_name = "SIZE", help_heading = "Kernel", hide_short_help = true)]
    pub(super) buffer: Option<String>,
    /// Live sockets to remember [default: 64K]
    #[arg(long, value_name = "N", help_heading = "Kernel", hide_short_help = true)]
    pub(super) sockets: Option<String>,
    /// Ended connections to remember [default: 64K]
    #[arg(long, value_name = "N", help_heading = "Kernel", hide_short_help = true)]
    pub(super) ended: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Instead, find everything in this kernel's own text that sends resets, and tell whether all of it is known
    #[arg(long)]
    pub(super) census: bool,
    /// One JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// Types (BTF) of the running kernel, where it does not show them itself
    #[arg(long, value_name = "FILE", conflicts_with = "census")]
    pub(super) btf: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A name as the kernel, ss, nstat or tcpwatch print it, or a number of a reason; none: list every name
    #[arg(value_name = "NAME")]
    pub(super) name: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    pub(super) json: bool,
    /// Types (BTF) of the kernel whose reasons are meant [default: the running one]
    #[arg(long, value_name = "FILE")]
    pub(super) btf: Option<PathBuf>,
}

pub(super) fn read(
    line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Typed, clap::Error> {
    Typed::try_parse_from(line)
}

/// The definition.
pub(super) fn command() -> clap::Command {
    Typed::command()
}

pub(super) fn help() -> String {
    command().term_width(100).render_help().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Typed::command().debug_assert();
        let shown = Typed::command();
        let shown = shown
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(|command| command.get_name());
        assert!(shown.eq(COMMANDS));
    }

    #[test]
    fn help_fits_a_screen() {
        let help = help();
        assert!(help.lines().count() <= 48, "{} lines:\n{help}", help.lines().count());
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}
