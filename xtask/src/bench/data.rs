//! What was measured, as it is stored with `--json` and read by the page.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::stats::Spread;

/// Everything of one `cargo xtask bench`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) command: String,
    pub(super) machine: Machine,
    pub(super) tools: Vec<ToolWords>,
    /// Hooks of tcpwatch's default mode that are functions, and have no empty program here.
    pub(super) uncovered: usize,
    /// Hooks that this kernel does not grant.
    pub(super) refused: usize,
    pub(super) played: Vec<Played>,
    pub(super) starts: Vec<Start>,
    pub(super) held: Vec<Held>,
    #[serde(default)]
    pub(super) guests: Vec<InGuest>,
    /// Bytes of the binary that is shipped.
    pub(super) binary: u64,
}

/// The machine, in its own words.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) date: String,
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) kernel: String,
    pub(super) memory_mb: u64,
    pub(super) system: String,
    /// What runs it, where it is a virtual one.
    pub(super) hypervisor: Option<String>,
    pub(super) commit: String,
}

/// A tool, as the page calls it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ToolWords {
    pub(super) name: String,
    /// The command as one would type it.
    pub(super) command: String,
    /// Why it was not measured.
    pub(super) missing: Option<String>,
}

/// One workload, all pairs of runs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Played {
    pub(super) workload: String,
    pub(super) pairs: Vec<Pair>,
    /// Runs in which the kernel took the time of every BPF program; their rates do not count.
    pub(super) costs: Vec<CostRun>,
}

/// A run without a tool and the run with one right after it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pair {
    pub(super) tool: String,
    pub(super) without: Run,
    pub(super) with: Run,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CostRun {
    pub(super) tool: String,
    pub(super) run: Run,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) load: Load,
    pub(super) tool: Option<ToolRun>,
    /// Seconds of CPU, all cores together, that neither load nor tool account for.
    pub(super) others_s: f64,
    /// Seconds that the hypervisor gave to somebody else.
    pub(super) stolen_s: f64,
}

/// The line that `tcpwatch-load play` prints.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Load {
    pub(super) operations: u64,
    pub(super) total: u64,
    pub(super) bytes: u64,
    pub(super) wall_s: f64,
    pub(super) cpu_s: f64,
    pub(super) netns: u64,
    pub(super) counters: BTreeMap<String, u64>,
    pub(super) programs: Vec<Cost>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Cost {
    pub(super) name: String,
    pub(super) runs: u64,
    pub(super) ns: u64,
}

/// A tool during one run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ToolRun {
    /// From `go` until it had nothing left to do.
    pub(super) cpu_s: f64,
    /// Its CPU time while the load ran.
    pub(super) cpu_during_s: f64,
    pub(super) rss_before_kb: u64,
    pub(super) rss_after_kb: u64,
    pub(super) rss_peak_kb: u64,
    /// Memory of its BPF maps, which is in no process's RSS.
    pub(super) maps_kb: u64,
    pub(super) written: u64,
    /// Events of the load that it wrote; an aggregate counts as what it stands for.
    pub(super) events: u64,
    pub(super) kinds: BTreeMap<String, u64>,
    /// Events that it says it lost.
    pub(super) lost: u64,
    pub(super) books: Option<Books>,
}

/// What tcpwatch's `summary` says.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Books {
    pub(super) hooks: BTreeMap<String, HookBooks>,
    /// Kernel's counter of the load's namespace: how far it grew, how much of it was explained.
    pub(super) reconciled: BTreeMap<String, (Option<u64>, u64)>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HookBooks {
    pub(super) seen: u64,
    pub(super) delivered: u64,
    #[serde(default)]
    pub(super) filtered: u64,
    #[serde(default)]
    pub(super) aggregated: u64,
    #[serde(default)]
    pub(super) lost: u64,
    #[serde(default)]
    pub(super) missed: u64,
}

impl HookBooks {
    pub(super) fn balance(&self) -> bool {
        self.seen == self.delivered + self.filtered + self.aggregated + self.lost
    }
}

/// How long a tool takes until it watches.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) tool: String,
    /// What the line that counts as "said" holds.
    pub(super) mark: String,
    pub(super) ran_ms: Spread,
    pub(super) said_ms: Spread,
}

/// A tool beside a great many open connections.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) tool: String,
    pub(super) connections: u64,
    /// The tool watched while they were opened; or they were there when it started.
    pub(super) watched: bool,
    pub(super) rss_kb: u64,
    pub(super) rss_peak_kb: u64,
    pub(super) maps_kb: u64,
    /// Share of a core while nothing happened.
    pub(super) idle_share: f64,
}

/// Ratios on another kernel, in an emulated machine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct InGuest {
    pub(super) kernel: String,
    pub(super) release: String,
    pub(super) workload: String,
    pub(super) tool: String,
    pub(super) rate: Spread,
    pub(super) cpu: Spread,
}

impl Load {
    pub(super) fn rate(&self) -> f64 {
        self.operations as f64 / self.wall_s
    }

    pub(super) fn cpu_us(&self) -> f64 {
        self.cpu_s * 1e6 / self.operations as f64
    }

    /// 0 for a counter that did not move.
    pub(super) fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// What all programs of the tool took per operation, in nanoseconds.
    pub(super) fn bpf_ns(&self) -> f64 {
        self.programs.iter().map(|cost| cost.ns).sum::<u64>() as f64 / self.operations as f64
    }
}

impl Played {
    pub(super) fn with(&self, tool: &str) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(move |pair| pair.tool == tool)
    }

    /// A figure of each pair of a tool.
    pub(super) fn spread(&self, tool: &str, of: impl Fn(&Pair) -> f64) -> Option<Spread> {
        Spread::of(self.with(tool).map(of))
    }

    /// The rate with the tool, in parts of the rate without it right before.
    pub(super) fn ratio(&self, tool: &str) -> Option<Spread> {
        self.spread(tool, |pair| pair.with.load.rate() / pair.without.load.rate())
    }

    /// Runs with a tool in which its programs were timed.
    pub(super) fn costs(&self, tool: &str) -> impl Iterator<Item = &Load> {
        self.costs.iter().filter(move |cost| cost.tool == tool).map(|cost| &cost.run.load)
    }

    /// What all programs of a tool take per operation.
    pub(super) fn bpf_ns(&self, tool: &str) -> Option<Spread> {
        Spread::of(self.costs(tool).map(Load::bpf_ns))
    }
}

impl Pair {
    pub(super) fn tool(&self) -> Option<&ToolRun> {
        self.with.tool.as_ref()
    }
}
