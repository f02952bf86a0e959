//! What tcpwatch needs from this host, as sentences: what is missing, what that costs, what to do about it.
//!
//! [`Facts::read`] collects, [`judge`] decides; the second is pure.

use super::Host;
use crate::kernel::symbols;
use std::fs;
use std::io::Read;
use std::path::Path;

/// Capabilities by their number (`include/uapi/linux/capability.h`).
mod cap {
    pub(super) const DAC_READ_SEARCH: u32 = 2;
    pub(super) const SYS_PTRACE: u32 = 19;
    pub(super) const SYS_ADMIN: u32 = 21;
    pub(super) const SYS_RESOURCE: u32 = 24;
    pub(super) const SYSLOG: u32 = 34;
    pub(super) const PERFMON: u32 = 38;
    pub(super) const BPF: u32 = 39;
}

/// Inodes of the initial namespaces, the same on every kernel (`include/linux/proc_ns.h`).
const INITIAL_USER: &str = "user:[4026531837]";
const INITIAL_PID: &str = "pid:[4026531836]";

/// One prerequisite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, and how it stands.
    pub what: String,
    pub ok: bool,
    /// Without it nothing can be seen at all.
    pub fatal: bool,
    /// What is lost; empty when `ok`.
    pub effect: String,
    /// What to do about it; empty when `ok`.
    pub hint: String,
}

/// What became of one kernel hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookStatus {
    /// The kernel's name of the function or tracepoint.
    pub name: String,
    /// How it was attached: `fentry`, `raw_tp`, `kprobe`, …; `None`: not at all.
    pub attached: Option<String>,
    /// What was tried before that, and why it failed.
    pub tried: Vec<(String, String)>,
    /// What is not seen without it.
    pub loses: String,
}

/// Kernel lockdown (`/sys/kernel/security/lockdown`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lockdown {
    #[default]
    None,
    Integrity,
    Confidentiality,
}

/// What was found. `None` is "could not be read".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Version of the running kernel.
    pub kernel: Option<(u32, u32)>,
    /// Effective capabilities, a bit each.
    pub capabilities: Option<u64>,
    /// Whether tcpwatch runs in the initial user namespace: capabilities of another one do not count for BPF.
    pub initial_userns: Option<bool>,
    pub initial_pidns: Option<bool>,
    /// Why `/proc` is not to be trusted with pids.
    pub foreign_proc: Option<String>,
    /// The kernel shows its types, or a file was given in their place.
    pub btf: bool,
    pub lockdown: Lockdown,
    /// `/proc/kallsyms` shows real addresses.
    pub symbols: Option<bool>,
    /// `kernel.kptr_restrict`.
    pub kptr_restrict: Option<u32>,
    pub kprobes: bool,
    pub tracefs: bool,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Option<i32>,
    /// `kernel.ftrace_enabled`; `None` where the kernel has no such switch.
    pub ftrace: Option<bool>,
    /// Soft limit of locked memory in bytes, `None` without limit.
    pub memlock: Option<u64>,
}

impl Facts {
    /// `btf_given`: the user named a file that holds the kernel's types.
    pub fn read(host: &Host, btf_given: bool) -> Self {
        let text = |path: &str| fs::read_to_string(host.root.join(path)).ok();
        let link = |name: &str| fs::read_link(host.proc.root().join("self/ns").join(name)).ok();
        let exists = |path: &str| host.root.join(path).exists();
        Self {
            kernel: text("proc/sys/kernel/osrelease").and_then(|text| version(&text)),
            capabilities: text("proc/self/status").and_then(|text| capabilities(&text)),
            initial_userns: link("user").map(|link| link == Path::new(INITIAL_USER)),
            initial_pidns: link("pid").map(|link| link == Path::new(INITIAL_PID)),
            foreign_proc: host.proc.disagreement(),
            btf: btf_given || fs::File::open(host.root.join("sys/kernel/btf/vmlinux")).is_ok(),
            lockdown: text("sys/kernel/security/lockdown").map(|text| lockdown(&text)).unwrap_or_default(),
            symbols: match host.is_live().then(symbols::inherited).flatten() {
                Some(file) => first_lines(file),
                None => fs::File::open(host.root.join("proc/kallsyms")).ok().and_then(first_lines),
            }
            .map(|text| has_addresses(&text)),
            kptr_restrict: text("proc/sys/kernel/kptr_restrict").and_then(|text| text.trim().parse().ok()),
            kprobes: exists("sys/bus/event_source/devices/kprobe"),
            tracefs: ["sys/kernel/tracing/events", "sys/kernel/debug/tracing/events"].into_iter().any(exists),
            perf_event_paranoid: text("proc/sys/kernel/perf_event_paranoid")
                .and_then(|text| text.trim().parse().ok()),
            ftrace: text("proc/sys/kernel/ftrace_enabled").map(|text| text.trim() != "0"),
            memlock: rustix::process::getrlimit(rustix::process::Resource::Memlock).current,
        }
    }

    fn has(&self, capability: u32) -> bool {
        self.capabilities.is_some_and(|set| set & (1 << capability) != 0)
    }

    fn older_than(&self, version: (u32, u32)) -> bool {
        self.kernel.is_some_and(|kernel| kernel < version)
    }
}

/// `6.12.107-amd64` → (6, 12).
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn capabilities(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

/// `none [integrity] confidentiality`: the one in force stands in brackets.
fn lockdown(text: &str) -> Lockdown {
    if text.contains("[confidentiality]") {
        Lockdown::Confidentiality
    } else if text.contains("[integrity]") {
        Lockdown::Integrity
    } else {
        Lockdown::None
    }
}

/// The whole file has hundreds of thousands of lines.
fn first_lines(file: impl Read) -> Option<String> {
    let mut text = String::new();
    // Symbol names are ASCII, so that no character is cut.
    file.take(4096).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The first symbols of a kernel are per-CPU offsets near 0, so one line says nothing; hidden are all of them.
fn has_addresses(kallsyms: &str) -> bool {
    kallsyms
        .lines()
        .filter_map(|line| line.split(' ').next())
        .any(|address| address.bytes().any(|b| b != b'0'))
}

/// Every prerequisite in the order in which to read them: what is fatal first.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![
        privileges(facts),
        btf(facts),
        kernel(facts),
        lockdown_finding(facts),
        symbols_finding(facts),
        attach(facts),
    ];
    findings.push(descriptors(facts));
    findings.extend(pids(facts));
    findings.extend(locked_memory(facts));
    findings
}

/// Whether tcpwatch can work at all.
pub fn is_hopeless(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.fatal && !finding.ok)
}

fn good(what: impl Into<String>) -> Finding {
    Finding { what: what.into(), ok: true, fatal: false, effect: String::new(), hint: String::new() }
}

fn lacking(what: impl Into<String>, effect: &str, hint: &str) -> Finding {
    Finding { what: what.into(), ok: false, fatal: false, effect: effect.to_owned(), hint: hint.to_owned() }
}

const SETCAP: &str = "run as root, or once: \
     setcap cap_bpf,cap_perfmon,cap_syslog,cap_sys_ptrace,cap_dac_read_search=ep tcpwatch";

fn privileges(facts: &Facts) -> Finding {
    let nothing = "the kernel refuses the programs: nothing can be seen";
    let fatal = |what: &str, hint: &str| Finding { fatal: true, ..lacking(what, nothing, hint) };
    let admin = facts.has(cap::SYS_ADMIN);
    let split = facts.has(cap::BPF) && facts.has(cap::PERFMON);
    if !admin && !split {
        return match (facts.capabilities, facts.has(cap::BPF), facts.has(cap::PERFMON)) {
            (None, ..) => {
                fatal("the capabilities of tcpwatch are not known: /proc is not readable", "mount /proc")
            }
            // Before 5.8 there was only the one that allows everything.
            _ if facts.older_than((5, 8)) => fatal("CAP_SYS_ADMIN is missing", "run as root"),
            (_, true, false) => fatal("CAP_PERFMON is missing", SETCAP),
            (_, false, true) => fatal("CAP_BPF is missing", SETCAP),
            _ => fatal("CAP_BPF and CAP_PERFMON are missing, and CAP_SYS_ADMIN too", SETCAP),
        };
    }
    if facts.initial_userns == Some(false) {
        return fatal(
            "the capabilities are those of a user namespace of its own",
            "run on the host, or in a container that shares its user namespace (--userns=host)",
        );
    }
    Finding { fatal: true, ..good(if split { "CAP_BPF and CAP_PERFMON" } else { "CAP_SYS_ADMIN" }) }
}

fn btf(facts: &Facts) -> Finding {
    if facts.btf {
        return Finding { fatal: true, ..good("the kernel's types (BTF)") };
    }
    Finding {
        fatal: true,
        ..lacking(
            "no kernel types: /sys/kernel/btf/vmlinux is missing or not readable",
            "the fields of the kernel's sockets cannot be found: nothing can be seen",
            "give the BTF of exactly this kernel with --btf FILE, or boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
        )
    }
}

fn kernel(facts: &Facts) -> Finding {
    match facts.kernel {
        Some((major, minor)) if facts.older_than((5, 8)) => lacking(
            format!("kernel {major}.{minor}"),
            "it has no ring buffer: the programs will not load",
            "kernel 5.8 or newer is needed; 5.10 is the oldest that is tested",
        ),
        Some((major, minor)) => good(format!("kernel {major}.{minor}")),
        None => good("kernel of unknown version"),
    }
}

fn lockdown_finding(facts: &Facts) -> Finding {
    match facts.lockdown {
        // Every program reads the kernel's memory, so not one of them loads.
        Lockdown::Confidentiality => Finding {
            fatal: true,
            ..lacking(
                "kernel lockdown is in confidentiality mode",
                "programs may not read the kernel's memory: nothing can be seen",
                "boot with lockdown=integrity, or without",
            )
        },
        Lockdown::None => good("no kernel lockdown"),
        Lockdown::Integrity => good("kernel lockdown allows tracing (integrity)"),
    }
}

fn symbols_finding(facts: &Facts) -> Finding {
    if facts.symbols == Some(true) {
        return good("kernel symbols");
    }
    let hint = match facts.kptr_restrict {
        _ if facts.symbols.is_none() => "boot a kernel with CONFIG_KALLSYMS=y",
        Some(2) => "sysctl kernel.kptr_restrict=1 (2 hides them even from root)",
        _ if !facts.has(cap::SYSLOG) => SETCAP,
        _ => "sysctl kernel.kptr_restrict=1",
    };
    lacking(
        "kernel symbols are hidden: /proc/kallsyms shows no addresses",
        "the deciding kernel function has no name: `site` and stacks are empty, some causes stay unknown",
        hint,
    )
}

fn attach(facts: &Facts) -> Finding {
    if facts.ftrace == Some(false) {
        return lacking(
            "function tracing is switched off (kernel.ftrace_enabled=0)",
            "neither fentry nor kprobes fire: only tracepoints are left",
            "sysctl kernel.ftrace_enabled=1",
        );
    }
    // A patch of Debian and Ubuntu: from level 3 on CAP_PERFMON does not open the door that kprobes come through.
    if let Some(level @ 3..) = facts.perf_event_paranoid
        && facts.kprobes
        && !facts.has(cap::SYS_ADMIN)
    {
        return lacking(
            format!("kernel.perf_event_paranoid is {level}, and CAP_SYS_ADMIN is missing"),
            "the kernel may refuse kprobes: what fentry cannot be attached to is not seen",
            "sysctl kernel.perf_event_paranoid=2, or run as root",
        );
    }
    match (facts.kprobes, facts.tracefs) {
        (true, true) => good("kprobes and tracefs, should fentry be refused"),
        (true, false) => good("kprobes, should fentry be refused (tracefs is not mounted)"),
        (false, true) => lacking(
            "the kernel has no kprobes",
            "what fentry cannot be attached to is seen through tracepoints only",
            "nothing to do while the hooks below attach; else a kernel with CONFIG_KPROBE_EVENTS=y",
        ),
        (false, false) => lacking(
            "no kprobes, and tracefs is not mounted",
            "what fentry cannot be attached to is not seen",
            "mount -t tracefs tracefs /sys/kernel/tracing",
        ),
    }
}

fn descriptors(facts: &Facts) -> Finding {
    if facts.has(cap::SYS_PTRACE) && facts.has(cap::DAC_READ_SEARCH) {
        return good("/proc/PID/fd of every process");
    }
    lacking(
        "CAP_SYS_PTRACE or CAP_DAC_READ_SEARCH is missing",
        "of sockets older than tcpwatch the owner is known only once it uses them; programs of other users have no path",
        SETCAP,
    )
}

fn pids(facts: &Facts) -> Option<Finding> {
    if let Some(sentence) = &facts.foreign_proc {
        return Some(lacking(
            sentence.clone(),
            "pids lead to the wrong processes: program, cgroup and container are left out",
            "mount a /proc of tcpwatch's own pid namespace, or start it with the host's (--pid=host)",
        ));
    }
    (facts.initial_pidns == Some(false)).then(|| {
        lacking(
            "tcpwatch runs in a pid namespace of its own",
            "processes outside of it are named by comm and cgroup, without pid",
            "run on the host, or in a container with --pid=host",
        )
    })
}

/// Since 5.11 the memory of BPF maps is charged to the cgroup instead.
pub fn locked_memory(facts: &Facts) -> Option<Finding> {
    let limit = facts.memlock.filter(|limit| *limit < 256 << 20)?;
    // With the capability tcpwatch raises the limit itself.
    (facts.older_than((5, 11)) && !facts.has(cap::SYS_RESOURCE)).then(|| {
        lacking(
            format!("locked memory is limited to {} KiB, and CAP_SYS_RESOURCE is missing", limit / 1024),
            "before kernel 5.11 the tables count as locked memory: they may not fit",
            "ulimit -l unlimited (systemd: LimitMEMLOCK=infinity), or add cap_sys_resource to the capabilities",
        )
    })
}

#[cfg(test)]
mod tests;
