//! Where tcpwatch can work it does, says once what is missing, and nothing that it shows is wrong.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::refused::{BTF, BTF_FOLDER};
use super::tool::Books;
use super::traffic::{Ground, Reset, only, owned_by};
use super::{Case, Lab, When, attached, case, complaints, differences};
use crate::stage::not_here;

pub(super) const CASES: &[Case] = &[
    case("few-capabilities", When::Any, few_capabilities),
    case("btf-elsewhere", When::Any, btf_elsewhere),
    case("no-tracefs", When::Any, no_tracefs),
    case("no-symbols", When::Any, no_symbols),
    case("no-cap-syslog", When::Any, no_cap_syslog),
];

const PORT: u16 = 8080;

/// One connection closed with unread data, under a tcpwatch that runs on a host made odd: what it printed.
pub(super) fn watch_close_unread(
    lab: &Lab,
    disguise: &[&str],
    more: &[&str],
) -> Result<(Ground, Reset, Books)> {
    let ground = Ground::new()?;
    let listener = ground.listen(PORT)?;
    let inode = ground.inode();
    let args = [&["--json", "--netns", &inode], more].concat();
    let mut running = lab.odd(disguise, &args).spawn()?.started()?;
    let reset = ground.close_unread(listener, PORT)?;
    running.wait_events(2)?;
    let ended = running.stop()?;
    ended.exits(0)?;
    let books = ended.events()?;
    ensure!(books.events.len() == 2, "{} events and not two", books.events.len());
    Ok((ground, reset, books))
}

/// What holds of that RST however little is known.
pub(super) fn nothing_wrong(ground: &Ground, reset: &Reset, books: &Books) -> Result<Value> {
    let sent = only(&books.events, "rst_sent", reset.server, reset.client)?;
    only(&books.events, "rst_received", reset.client, reset.server)?;
    owned_by(sent, Some(ground.srv.pid()), ground.srv.comm())?;
    ensure!(sent["state"] == "ESTABLISHED", "its state is {}", sent["state"]);
    let reason = &sent["reason"]["name"];
    ensure!(reason.is_null() || reason == "TCP_ABORT_ON_CLOSE", "its reason is {reason}");
    let cause = &sent["cause"]["id"];
    let honest = cause.is_null() || cause == "unknown" || cause == "close-with-unread-data";
    ensure!(honest, "its cause is {cause}");
    Ok(sent.clone())
}

/// CAP_BPF and CAP_PERFMON are enough to see; doctor says what the others would add.
fn few_capabilities(lab: &Lab) -> Result<()> {
    // Before 5.11 the tables count as locked memory, and somebody has to raise that limit.
    let older = crate::sys::kernel_version() < (5, 11);
    let few = [if older { "--keep=24,38,39" } else { "--keep=38,39" }];
    if older {
        let ended = lab.odd(&["--keep=38,39"], &["--for", "1s"]).run()?;
        let words = ["cannot create the tables", "locked memory is limited", "CAP_SYS_RESOURCE"];
        ended.refused(1, &words).context("with little locked memory")?;
        let said = ended.stderr.matches("failed to create map").count();
        ensure!(said == 1, "the error says {said} times what failed: {}", ended.stderr.trim());
        let doctor = lab.odd(&["--keep=38,39"], &["doctor"]).run()?;
        let page = doctor.stdout.join(" ");
        ensure!(page.contains("locked memory is limited"), "doctor says: {page}");
    }
    let doctor = lab.doctor(&few)?;
    let said = complaints(&doctor).join("\n");
    let mut usual = lab.attached.clone();
    if setting("perf_event_paranoid").is_some_and(|level| level >= 3) {
        // Debian's kernels refuse kprobes then.
        usual.retain(|(_, way)| way != "kprobe");
        ensure!(said.contains("perf_event_paranoid"), "doctor does not say why there are no kprobes: {said}");
    }
    let lacking = differences(&usual, &attached(&doctor));
    ensure!(lacking.is_empty(), "other hooks than as root: {lacking:?}: {}", doctor["hooks"]);
    for word in ["CAP_SYS_PTRACE", "owner", "program"] {
        ensure!(said.contains(word), "doctor does not say {word}: {said}");
    }
    if !shows_symbols_without_syslog() {
        ensure!(said.contains("kernel symbols are hidden"), "doctor does not speak of symbols: {said}");
    }
    let (ground, reset, books) = watch_close_unread(lab, &few, &[])?;
    nothing_wrong(&ground, &reset, &books).map(drop)
}

/// The kernel hides its own types, but the user has a copy: everything but fentry works.
fn btf_elsewhere(lab: &Lab) -> Result<()> {
    let types = std::fs::read(BTF).map_err(|_| not_here("this kernel shows no BTF"))?;
    let copy = lab.scratch.file("vmlinux.btf", &types)?;
    let cover = format!("--cover={BTF_FOLDER}");
    let (ground, reset, books) = watch_close_unread(lab, &[&cover], &["--btf", &copy])?;
    nothing_wrong(&ground, &reset, &books)?;
    let ways = books.attached();
    ensure!(!ways.iter().any(|(_, way)| way == "fentry"), "fentry without types: {ways:?}");
    // No worse than on a host that grants no fentry for another reason.
    let rung = if lab.has_functions() { "kprobe" } else { "tracepoint" };
    let lower = lab.tool(&["--json", "--attach", rung, "--for", "100ms"]).run()?.events()?;
    let lacking = differences(&lower.attached(), &ways);
    ensure!(lacking.is_empty(), "other hooks than with --attach {rung}: {lacking:?}");
    lab.doctor_with(&[&cover], &["--btf", &copy]).map(drop)
}

fn no_tracefs(lab: &Lab) -> Result<()> {
    let away = [
        "--unmount=/sys/kernel/debug/tracing",
        "--unmount=/sys/kernel/debug",
        "--unmount=/sys/kernel/tracing",
    ];
    let (ground, reset, books) = watch_close_unread(lab, &away, &[])?;
    nothing_wrong(&ground, &reset, &books)?;
    let lacking = differences(&lab.usual(&books), &books.attached());
    ensure!(lacking.is_empty(), "other hooks than with tracefs: {lacking:?}");
    // The lower rung must not need it either.
    if lab.has_functions() {
        let more = ["--attach", "kprobe"];
        let (ground, reset, books) = watch_close_unread(lab, &away, &more).context("--attach kprobe")?;
        nothing_wrong(&ground, &reset, &books)?;
    }
    Ok(())
}

/// `/proc/kallsyms` as it looks where addresses are hidden.
fn hidden_symbols(lab: &Lab) -> Result<String> {
    let real = std::fs::read_to_string("/proc/kallsyms").map_err(|_| not_here("no /proc/kallsyms"))?;
    let mut hidden = String::with_capacity(real.len());
    for line in real.lines().filter_map(|line| line.split_once(' ')) {
        hidden.push_str("0000000000000000 ");
        hidden.push_str(line.1);
        hidden.push('\n');
    }
    lab.scratch.file("kallsyms", hidden.as_bytes())
}

fn no_symbols(lab: &Lab) -> Result<()> {
    let bind = format!("--bind={}=/proc/kallsyms", hidden_symbols(lab)?);
    without_symbols(lab, &[&bind])
}

fn no_cap_syslog(lab: &Lab) -> Result<()> {
    const SWITCH: &str = "/proc/sys/kernel/kptr_restrict";
    let without = ["--drop=34"];
    if lab.global {
        let before = std::fs::read_to_string(SWITCH)?;
        std::fs::write(SWITCH, "1").context("kptr_restrict")?;
        let result = without_symbols(lab, &without);
        std::fs::write(SWITCH, before.trim()).context("kptr_restrict")?;
        return result;
    }
    if shows_symbols_without_syslog() {
        return Err(not_here(
            "kernel.kptr_restrict and kernel.perf_event_paranoid let everybody see symbols",
        ));
    }
    without_symbols(lab, &without)
}

/// What the kernel does when nobody has the capability (`kallsyms_show_value`).
fn shows_symbols_without_syslog() -> bool {
    setting("kptr_restrict") == Some(0) && setting("perf_event_paranoid").is_some_and(|level| level <= 1)
}

/// `kernel.NAME`.
fn setting(name: &str) -> Option<i32> {
    std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse().ok()
}

fn without_symbols(lab: &Lab, disguise: &[&str]) -> Result<()> {
    let doctor = lab.doctor(disguise)?;
    ensure!(attached(&doctor) == lab.attached, "other hooks than with symbols: {:?}", attached(&doctor));
    let said = complaints(&doctor);
    let told = said.iter().filter(|line| line.contains("kernel symbols are hidden")).count();
    ensure!(told == 1, "doctor speaks {told} times of hidden symbols: {said:?}");
    let (ground, reset, books) = watch_close_unread(lab, disguise, &["-k"])?;
    let sent = nothing_wrong(&ground, &reset, &books)?;
    if crate::sys::kernel_version() >= (6, 10) {
        ensure!(sent["reason"]["from"] == "kernel", "its reason is {}", sent["reason"]);
    }
    let site = &sent["site"];
    ensure!(site.is_null() || site.as_str().is_some_and(|site| !site.is_empty()), "its site is {site}");
    Ok(())
}
