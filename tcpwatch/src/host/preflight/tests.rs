//! Odd hosts, written as values.

use super::*;
use crate::host::fake::Tree;

fn root() -> Facts {
    Facts {
        kernel: Some((6, 12)),
        capabilities: Some(0x1ff_ffff_ffff),
        initial_userns: Some(true),
        initial_pidns: Some(true),
        foreign_proc: None,
        btf: true,
        lockdown: Lockdown::None,
        symbols: Some(true),
        kptr_restrict: Some(0),
        kprobes: true,
        tracefs: true,
        perf_event_paranoid: Some(2),
        ftrace: Some(true),
        memlock: Some(8 << 20),
    }
}

fn bits(capabilities: &[u32]) -> Option<u64> {
    Some(capabilities.iter().map(|number| 1 << number).sum())
}

#[test]
fn nothing_is_wrong_for_root_on_a_usual_host() {
    let findings = judge(&root());
    assert!(findings.iter().all(|finding| finding.ok), "{findings:#?}");
    assert!(!is_hopeless(&findings));
}

#[test]
fn each_lack_has_its_sentence_its_weight_and_its_hint() {
    let all = [cap::BPF, cap::PERFMON, cap::SYSLOG, cap::SYS_PTRACE, cap::DAC_READ_SEARCH];
    let but = |missing: &[u32]| bits(&all.into_iter().filter(|c| !missing.contains(c)).collect::<Vec<_>>());
    let hidden = Facts { symbols: Some(false), ..root() };
    for (facts, what, hopeless, hint) in [
        (Facts { capabilities: Some(0), ..root() }, "CAP_BPF and CAP_PERFMON are", true, "setcap"),
        (Facts { capabilities: but(&[cap::PERFMON]), ..root() }, "CAP_PERFMON is", true, "setcap"),
        (Facts { capabilities: but(&[cap::BPF]), ..root() }, "CAP_BPF is", true, "setcap"),
        (
            Facts { capabilities: but(&[cap::BPF]), kernel: Some((5, 4)), ..root() },
            "CAP_SYS_ADMIN is missing",
            true,
            "run as root",
        ),
        (Facts { capabilities: None, ..root() }, "not known", true, "/proc"),
        (Facts { initial_userns: Some(false), ..root() }, "user namespace", true, "--userns=host"),
        (Facts { btf: false, ..root() }, "/sys/kernel/btf/vmlinux", true, "--btf FILE"),
        (Facts { kernel: Some((5, 4)), ..root() }, "kernel 5.4", false, "5.8"),
        (
            Facts { lockdown: Lockdown::Confidentiality, ..root() },
            "confidentiality",
            true,
            "lockdown=integrity",
        ),
        (Facts { kptr_restrict: Some(2), ..hidden.clone() }, "symbols are hidden", false, "kptr_restrict=1"),
        (
            Facts { capabilities: but(&[cap::SYSLOG]), ..hidden.clone() },
            "symbols are hidden",
            false,
            "cap_syslog",
        ),
        (Facts { symbols: None, ..root() }, "symbols are hidden", false, "CONFIG_KALLSYMS"),
        (Facts { kprobes: false, ..root() }, "no kprobes", false, "CONFIG_KPROBE"),
        (
            Facts { kprobes: false, tracefs: false, ..root() },
            "tracefs is not mounted",
            false,
            "mount -t tracefs",
        ),
        (
            Facts { capabilities: but(&[]), perf_event_paranoid: Some(3), ..root() },
            "perf_event_paranoid is 3",
            false,
            "perf_event_paranoid=2",
        ),
        (Facts { ftrace: Some(false), ..root() }, "ftrace_enabled=0", false, "ftrace_enabled=1"),
        (Facts { capabilities: but(&[cap::SYS_PTRACE]), ..root() }, "CAP_SYS_PTRACE", false, "setcap"),
        (Facts { initial_pidns: Some(false), ..root() }, "pid namespace of its own", false, "--pid=host"),
        (Facts { foreign_proc: Some("another /proc".into()), ..root() }, "another /proc", false, "mount"),
        (Facts { capabilities: but(&[]), kernel: Some((5, 10)), ..root() }, "8192 KiB", false, "ulimit -l"),
    ] {
        let findings = judge(&facts);
        let found = findings.iter().find(|finding| !finding.ok && finding.what.contains(what));
        let Some(found) = found else { panic!("{what}: {findings:#?}") };
        assert!(found.hint.contains(hint), "{what}: {}", found.hint);
        assert!(!found.effect.is_empty());
        assert_eq!(is_hopeless(&findings), hopeless, "{what}");
    }
}

#[test]
fn the_five_capabilities_are_enough() {
    let paranoid = Facts { perf_event_paranoid: Some(4), ..root() };
    assert!(judge(&paranoid).iter().all(|finding| finding.ok), "root may whatever the level is");
    let few = bits(&[cap::BPF, cap::PERFMON, cap::SYSLOG, cap::SYS_PTRACE, cap::DAC_READ_SEARCH]);
    assert!(judge(&Facts { capabilities: few, ..root() }).iter().all(|finding| finding.ok));
}

#[test]
fn facts_are_read_from_the_files() {
    let tree = Tree::new();
    tree.write("proc/sys/kernel/osrelease", "5.10.0-28-amd64\n");
    tree.write("proc/self/status", "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001fffeffffff\n");
    tree.link("proc/self/ns/user", INITIAL_USER);
    tree.link("proc/self/ns/pid", "pid:[4026532000]");
    tree.write("sys/kernel/security/lockdown", "none integrity [confidentiality]\n");
    tree.write("proc/kallsyms", "0000000000000000 A fixed_percpu_data\n0000000000000000 T _text\n");
    tree.write("proc/sys/kernel/kptr_restrict", "2\n");
    tree.write("sys/bus/event_source/devices/kprobe/type", "8\n");
    tree.write("proc/sys/kernel/ftrace_enabled", "0\n");
    let facts = Facts::read(&tree.host(), false);
    assert_eq!(facts.kernel, Some((5, 10)));
    assert_eq!(facts.capabilities, Some(0x1ff_feff_ffff));
    assert_eq!((facts.initial_userns, facts.initial_pidns), (Some(true), Some(false)));
    assert_eq!(facts.lockdown, Lockdown::Confidentiality);
    assert_eq!((facts.symbols, facts.kptr_restrict), (Some(false), Some(2)));
    assert_eq!((facts.btf, facts.kprobes, facts.tracefs, facts.ftrace), (false, true, false, Some(false)));
    assert!(Facts::read(&tree.host(), true).btf, "a file was given");

    tree.write("proc/kallsyms", "0000000000000000 A fixed_percpu_data\nffffffff81000000 T _text\n");
    assert_eq!(Facts::read(&tree.host(), false).symbols, Some(true));
}

#[test]
fn a_host_that_shows_nothing_is_judged_too() {
    let tree = Tree::new();
    let findings = judge(&Facts::read(&tree.host(), false));
    assert!(is_hopeless(&findings));
}
