//! What is measured: tcpwatch, programs that do nothing on its hooks, and the rivals.

use std::path::Path;

use anyhow::{Context, Result};

use super::data::ToolWords;
use super::words::Hooks;
use crate::{cmd, repo};

/// tcpwatch as most people start it.
pub(super) const TCPWATCH: &str = "tcpwatch";
/// With every event there is.
pub(super) const ALL: &str = "tcpwatch --events all";
/// The same hooks as tcpwatch's, without a program that does anything: nobody can cost less.
pub(super) const LIMIT: &str = "empty programs";
/// Every state transition, counted in the kernel: nothing is delivered.
pub(super) const COUNT: &str = "bpftrace count";
/// Every state transition as a line.
pub(super) const PRINTF: &str = "bpftrace printf";
/// Every RST, sent and received, as a line.
pub(super) const RESETS: &str = "bpftrace resets";
/// Every state transition as a line.
pub(super) const TCPSTATES: &str = "tcpstates";

/// Those that deliver every state transition.
pub(super) const RIVALS: &[&str] = &[PRINTF, TCPSTATES];

const COUNT_PROGRAM: &str = "tracepoint:sock:inet_sock_set_state { @[args->newstate] = count(); }";
const PRINTF_PROGRAM: &str = r#"tracepoint:sock:inet_sock_set_state { printf("%d %s %s:%d %s:%d %d -> %d\n", pid, comm, ntop(args->saddr), args->sport, ntop(args->daddr), args->dport, args->oldstate, args->newstate); }"#;
/// One tracepoint shows addresses as `sockaddr`, the other as IPv4.
const RESETS_PROGRAM: &str = r#"tracepoint:tcp:tcp_send_reset { printf("%d %s sent %d.%d.%d.%d:%d %d.%d.%d.%d:%d\n", pid, comm, args->saddr[4], args->saddr[5], args->saddr[6], args->saddr[7], args->saddr[2] * 256 + args->saddr[3], args->daddr[4], args->daddr[5], args->daddr[6], args->daddr[7], args->daddr[2] * 256 + args->daddr[3]); } tracepoint:tcp:tcp_receive_reset { printf("%d %s received %s:%d %s:%d\n", pid, comm, ntop(args->saddr), args->sport, ntop(args->daddr), args->dport); }"#;

/// How to know that it watches, how to end it, and how to read what it wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tcpwatch,
    Empty,
    /// A line for each event.
    Lines,
    /// Sums at the end.
    Sums,
}

/// Something that watches.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) argv: Vec<String>,
    /// A line with this is its first sign of life.
    pub(super) mark: &'static str,
    pub(super) missing: Option<String>,
}

impl Tool {
    fn new(name: &'static str, kind: Kind, mark: &'static str, argv: &[&str]) -> Self {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        Self { name, kind, argv, mark, missing: None }
    }

    fn rival(name: &'static str, kind: Kind, mark: &'static str, argv: &[&str]) -> Self {
        let mut tool = Self::new(name, kind, mark, argv);
        match repo::which(argv[0]) {
            Some(file) => tool.argv[0] = file.display().to_string(),
            None => {
                tool.missing =
                    Some(format!("`{}` is not installed; `cargo xtask setup --bench` does it", argv[0]));
            }
        }
        tool
    }

    /// What the page says of it.
    pub(super) fn words(&self) -> ToolWords {
        let mut words = self.argv.clone();
        // The page is the same on machines that keep their programs elsewhere.
        if let Some(name) = Path::new(&words[0]).file_name() {
            words[0] = name.to_string_lossy().into_owned();
        }
        let command = words.iter().map(|word| cmd::quote(word)).collect::<Vec<_>>().join(" ");
        ToolWords { name: self.name.to_owned(), command, missing: self.missing.clone() }
    }
}

/// Every tool, in the order of the tables. The limit has the tracepoints of tcpwatch.
pub(super) fn all(tcpwatch: &Path, load: &Path, hooks: &Hooks) -> Result<Vec<Tool>> {
    let tcpwatch = tcpwatch.to_str().context("the path of tcpwatch is no text")?;
    let load = load.to_str().context("the path of tcpwatch-load is no text")?;
    let mut empty = vec![load, "empty"];
    empty.extend(hooks.tracepoints.iter().map(String::as_str));
    const START: &str = "\"event\":\"start\"";
    Ok(vec![
        Tool::new(LIMIT, Kind::Empty, "ready", &empty),
        Tool::new(TCPWATCH, Kind::Tcpwatch, START, &[tcpwatch, "--json"]),
        Tool::new(ALL, Kind::Tcpwatch, START, &[tcpwatch, "--json", "--events", "all"]),
        Tool::rival(TCPSTATES, Kind::Lines, "OLDSTATE", &["tcpstates"]),
        Tool::rival(PRINTF, Kind::Lines, "Attaching", &["bpftrace", "-e", PRINTF_PROGRAM]),
        Tool::rival(RESETS, Kind::Lines, "Attaching", &["bpftrace", "-e", RESETS_PROGRAM]),
        Tool::rival(COUNT, Kind::Sums, "Attaching", &["bpftrace", "-e", COUNT_PROGRAM]),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_has_the_hooks_of_tcpwatch() {
        let hooks = Hooks { tracepoints: ["a", "b"].map(str::to_owned).into(), ..Hooks::default() };
        let tools = all(Path::new("/x/tcpwatch"), Path::new("/x/load"), &hooks).unwrap();
        let limit = tools.iter().find(|tool| tool.name == LIMIT).unwrap();
        assert_eq!(limit.argv, ["/x/load", "empty", "a", "b"]);
        assert_eq!(limit.words().command, "load empty a b");
        let mut names: Vec<_> = tools.iter().map(|tool| tool.name).collect();
        names.dedup();
        assert_eq!(names.len(), tools.len());
    }

    #[test]
    fn what_is_not_installed_is_said_to_be_missing() {
        let tool = Tool::rival("x", Kind::Lines, "", &["no-such-program-anywhere"]);
        assert!(tool.missing.unwrap().contains("setup --bench"));
    }
}
