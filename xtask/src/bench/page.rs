//! `docs/performance.md`: made from the figures and the fixed prose here, and from nothing else.

use std::fmt::{Display, Write as _};

use super::data::{Load, Pair, Played, Results};
use super::goals;
use super::stats::Spread;
use super::tools::{ALL, LIMIT, TCPWATCH};
use super::workload;

const HOW: &str = "\
Load and tool have a core each. The load is one process that is client and server at once (`tcpwatch-load`), in a network
namespace of its own, on core 0; the tool is on core 1, and writes to a file. Runs alternate: one without a tool, one with it, one
without a tool, one with the next. A ratio is that of a run to the run without a tool right before it; the tables give the median of
these ratios and, in brackets, the smallest and the largest. The first pair of each tool is not counted. A run in which the tool
failed, the load's counter did not move, or tcpwatch's books did not balance, ends the measurement.

- **rate**: median of the runs with the tool.
- **of untraced**: rate with the tool, in parts of the rate without.
- **load's CPU**: what the load spends on one operation, user and system, in parts of what it spends without a tool. It holds what
  the kernel does for the tool on the load's core, and less noise than the clock.
- **tool's CPU**: of a core, while the load ran and until the tool had nothing left to do.
- **RSS**: peak resident memory of the tool. BPF maps are in no process's memory; they have a column of their own.
- **events**: written by the tool, per operation. **lost**: what the tool itself says was lost, of what there was.
- **BPF time**: measured apart, because measuring costs time: the kernel's own clock around each run of each program
  (`bpf_stats`), in nanoseconds. It includes the reading of that clock: what the empty programs show is mostly that.
";

const LIMIT_WORDS: &str = "\
**Empty programs** are the limit: two instructions (`return 0`) on each of the tracepoints that tcpwatch's default mode is attached
to. What they cost, the kernel takes for calling programs at all; no tool on these hooks can cost less.
";

/// What the time in each program of tcpwatch's is for.
const FOR: &[(&str, &str)] = &[
    (
        "inet_sock_set_state",
        "finds the socket's memory, adds the state, learns the owner, files a copy at the end",
    ),
    ("tcp_destroy_sock", "forgets the socket"),
    ("sock_send_length", "learns who uses a socket"),
    ("sock_recv_length", "learns who uses a socket"),
    ("tcp_rcv_space_adjust", "learns who uses a socket"),
    ("tcp_send_reset", "builds the event: addresses, history, owner, kernel stack"),
    ("tcp_receive_reset", "builds the event: addresses, history, owner, kernel stack"),
    ("kfree_skb", "drops that tell why a SYN was turned away"),
];

/// The whole page.
pub(super) fn render(results: &Results) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut page, results);
    page
}

fn write(page: &mut String, results: &Results) -> std::fmt::Result {
    let machine = &results.machine;
    writeln!(page, "# Performance\n")?;
    writeln!(page, "<!-- Made by `{}`; changes by hand are lost. -->\n", results.command)?;
    writeln!(
        page,
        "What tcpwatch costs the host that it watches, beside rivals and beside what is possible. Made by\n"
    )?;
    writeln!(page, "```\n{}\n```\n", results.command)?;
    writeln!(page, "on {}, of commit {}:\n", machine.date, machine.commit)?;
    let runs_on =
        machine.hypervisor.as_ref().map_or(String::new(), |name| format!(" (a virtual machine: {name})"));
    writeln!(page, "| | |\n|---|---|")?;
    writeln!(page, "| CPU | {}, {} cores{runs_on} |", machine.cpu, machine.cores)?;
    writeln!(page, "| memory | {:.1} GB |", machine.memory_mb as f64 / 1024.0)?;
    writeln!(page, "| kernel | {} |", machine.kernel)?;
    writeln!(page, "| system | {} |", machine.system)?;
    writeln!(page, "| tcpwatch | {:.1} MB, static and stripped |", results.binary as f64 / 1e6)?;
    writeln!(page, "\n## What is promised\n")?;
    promises(page, results)?;
    writeln!(page, "\n## How it is measured\n\n{HOW}\n{LIMIT_WORDS}")?;
    if results.uncovered > 0 {
        writeln!(
            page,
            "{} more of tcpwatch's hooks are functions, on which there is no empty program: here the limit is too low.\n",
            results.uncovered
        )?;
    }
    if results.refused > 0 {
        writeln!(
            page,
            "This kernel grants tcpwatch no way to attach {} of its hooks; `tcpwatch doctor` names them, and what is not seen without them.\n",
            results.refused
        )?;
    }
    tools(page, results)?;
    noise(page, results)?;
    for played in &results.played {
        workload(page, played, results.refused)?;
    }
    starts(page, results)?;
    held(page, results)?;
    guests(page, results)
}

fn promises(page: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(page, "| | measured | bound | goal | kept |\n|---|---|---|---|---|")?;
    for goal in goals::judge(results) {
        let kept = match goal.kept {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        writeln!(page, "| {} | {} | {} | {} | {kept} |", goal.what, goal.figure, goal.bound, goal.goal)?;
    }
    Ok(())
}

fn tools(page: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(page, "| tool | command |\n|---|---|")?;
    for tool in &results.tools {
        // A bar would end the cell, even within code.
        let command = tool.command.replace('|', "\\|");
        let missing = tool
            .missing
            .as_ref()
            .map_or(String::new(), |why| format!("; **not measured**: {}", one_line(why)));
        writeln!(page, "| {} | `{command}`{missing} |", tool.name)?;
    }
    writeln!(page)
}

/// Some tools complain by the page: the beginning will do.
fn one_line(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    if let Some((end, _)) = line.char_indices().nth(300) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// How far to trust the figures.
fn noise(page: &mut String, results: &Results) -> std::fmt::Result {
    let pairs = || results.played.iter().flat_map(|played| &played.pairs);
    let runs = || pairs().flat_map(|pair| [&pair.without, &pair.with]);
    writeln!(page, "## Noise\n")?;
    let cores = results.machine.cores as f64;
    let others = Spread::of(runs().map(|run| run.others_s / (run.load.wall_s * cores)));
    let stolen = Spread::of(runs().map(|run| run.stolen_s / (run.load.wall_s * cores)));
    let (Some(others), Some(stolen)) = (others, stolen) else {
        return writeln!(page, "No pair of runs was played.\n");
    };
    writeln!(
        page,
        "Neither load nor tool, but something else on this machine took {:.1} % of its CPU time in the median run and {:.1} % in the \
         worst;\nthe hypervisor gave {:.1} % (worst {:.1} %) to others. Rates without a tool, which ought to be the same in all runs:\n",
        others.median * 100.0,
        others.max * 100.0,
        stolen.median * 100.0,
        stolen.max * 100.0
    )?;
    writeln!(
        page,
        "| workload | runs | median | middle half | smallest | largest |\n|---|---|---|---|---|---|"
    )?;
    for played in &results.played {
        let Some(rate) = Spread::of(played.pairs.iter().map(|pair| pair.without.load.rate())) else {
            continue;
        };
        writeln!(
            page,
            "| {} | {} | {} /s | ±{:.0} % | {} /s | {} /s |",
            played.workload,
            rate.count,
            thousands(rate.median),
            rate.width() * 50.0,
            thousands(rate.min),
            thousands(rate.max)
        )?;
    }
    writeln!(
        page,
        "\nA difference between two tools that is smaller than the half of this spread says nothing. The load's CPU and the BPF time \
         are steadier\nthan the clock. Client and server share a core and nobody waits for anybody: a host whose CPUs are not busy notices \
         less than this."
    )?;
    if others.median > 0.05 {
        writeln!(
            page,
            "\n**The machine was not quiet**: figures of another day may differ by more than the spread. Ratios of pairs suffer less than rates."
        )?;
    }
    Ok(())
}

fn workload(page: &mut String, played: &Played, refused: usize) -> std::fmt::Result {
    let Some(workload) = workload::find(&played.workload) else { return Ok(()) };
    writeln!(page, "\n## {}\n\n{} (`{}`)\n", workload.title, workload.about, workload.name)?;
    let rate = Spread::of(played.pairs.iter().map(|pair| pair.without.load.rate()));
    if let (Some(rate), Some(first)) = (rate, played.pairs.first()) {
        let cpu = Spread::of(played.pairs.iter().map(|pair| pair.without.load.cpu_us()))
            .map_or(0.0, |cpu| cpu.median);
        let carried = bandwidth(&first.without.load, rate.median);
        writeln!(
            page,
            "Without a tool: {} {}s a second{carried}, {cpu:.2} µs of CPU each.\n",
            thousands(rate.median),
            workload.unit
        )?;
    }
    writeln!(page, "| | rate | of untraced | load's CPU | tool's CPU | RSS | maps | events | lost |")?;
    writeln!(page, "|---|---|---|---|---|---|---|---|---|")?;
    for tool in workload.tools {
        row(page, played, tool)?;
    }
    let all: Vec<&Pair> = played.with(TCPWATCH).collect();
    if let Some(event) = workload.event.filter(|_| !all.is_empty()) {
        let events: u64 = all.iter().filter_map(|pair| Some(*pair.tool()?.kinds.get(event)?)).sum();
        let counted: u64 = all.iter().map(|pair| pair.with.load.counter(workload.counter)).sum();
        writeln!(
            page,
            "\nThe kernel counted {} (`{}`), tcpwatch's default mode delivered {} `{event}`{}.",
            thousands(counted),
            workload.counter,
            thousands(events),
            hooks_lost(&all)
        )?;
        if events == 0 && refused > 0 {
            writeln!(
                page,
                "What tells these events is among the {refused} hooks that this kernel does not grant, so here this costs less than elsewhere."
            )?;
        }
    }
    costs(page, played, workload)
}

/// For what carries data.
fn bandwidth(load: &Load, rate: f64) -> String {
    if load.bytes == 0 {
        return String::new();
    }
    let bits = load.bytes as f64 / load.operations as f64 * 8.0 * rate;
    format!(" ({:.1} Gbit/s)", bits / 1e9)
}

/// What tcpwatch's books say of the events that were not delivered.
fn hooks_lost(pairs: &[&Pair]) -> String {
    let (mut lost, mut aggregated, mut missed) = (0, 0, 0);
    let books = pairs.iter().filter_map(|pair| pair.tool()?.books.as_ref());
    for hook in books.flat_map(|books| books.hooks.values()) {
        lost += hook.lost;
        aggregated += hook.aggregated;
        missed += hook.missed;
    }
    format!(
        "; in the books of all hooks {} are lost, {} aggregated, {} missed",
        thousands(lost),
        thousands(aggregated),
        thousands(missed)
    )
}

fn row(page: &mut String, played: &Played, tool: &str) -> std::fmt::Result {
    let Some(rate) = played.spread(tool, |pair| pair.with.load.rate()) else {
        return writeln!(page, "| {tool} | not measured | | | | | | | |");
    };
    let of = |figure: fn(&Pair) -> f64| played.spread(tool, figure).map_or(0.0, |spread| spread.median);
    let ratio = played.ratio(tool).map_or_else(String::new, |ratio| {
        format!("**{:.2}** ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max)
    });
    let cpu = of(|pair| pair.with.load.cpu_us() / pair.without.load.cpu_us());
    let tool_cpu = of(|pair| pair.tool().map_or(0.0, |tool| tool.cpu_s / pair.with.load.wall_s));
    let peak = of(|pair| pair.tool().map_or(0.0, |tool| tool.rss_peak_kb as f64));
    let maps = of(|pair| pair.tool().map_or(0.0, |tool| tool.maps_kb as f64));
    let events = of(|pair| pair.tool().map_or(0.0, |tool| tool.events as f64 / pair.with.load.total as f64));
    let lost = of(|pair| {
        pair.tool()
            .filter(|tool| tool.lost > 0)
            .map_or(0.0, |tool| tool.lost as f64 / (tool.lost + tool.events) as f64)
    });
    writeln!(
        page,
        "| {tool} | {} /s | {ratio} | {cpu:.2} | {:.0} % | {:.1} MB | {:.1} MB | {events:.2} | {} |",
        thousands(rate.median),
        tool_cpu * 100.0,
        peak / 1024.0,
        maps / 1024.0,
        if lost > 0.0 { format!("{:.1} %", lost * 100.0) } else { "0".to_owned() }
    )
}

/// What each program takes.
fn costs(page: &mut String, played: &Played, workload: &workload::Workload) -> std::fmt::Result {
    let tools: Vec<&str> =
        [TCPWATCH, ALL, LIMIT].into_iter().filter(|tool| played.costs(tool).next().is_some()).collect();
    if tools.is_empty() {
        return Ok(());
    }
    writeln!(page, "\nBPF time per {}:\n", workload.unit)?;
    write!(page, "| program | runs |")?;
    for tool in &tools {
        write!(page, " {tool} |")?;
    }
    writeln!(page, " for |\n|---|---|{}---|", "---|".repeat(tools.len()))?;
    let mut names: Vec<&str> = Vec::new();
    for load in tools.iter().filter_map(|tool| played.costs(tool).next()) {
        for cost in &load.programs {
            if !names.contains(&cost.name.as_str()) {
                names.push(&cost.name);
            }
        }
    }
    for name in names {
        let of = |load: &Load| {
            load.programs.iter().find(|cost| cost.name == name).map(|cost| (cost.runs, cost.ns))
        };
        let runs = tools
            .iter()
            .find_map(|tool| {
                let load = played.costs(tool).next()?;
                Some(of(load)?.0 as f64 / load.operations as f64)
            })
            .unwrap_or(0.0);
        // What runs by chance, for somebody else's packets.
        if runs < 0.005 {
            continue;
        }
        write!(page, "| `{name}` | {runs:.1} |")?;
        for tool in &tools {
            let ns = Spread::of(
                played.costs(tool).filter_map(|load| Some(of(load)?.1 as f64 / load.operations as f64)),
            );
            match ns {
                Some(ns) => write!(page, " {:.0} ns ({:.0} each) |", ns.median, ns.median / runs)?,
                None => write!(page, " |")?,
            }
        }
        writeln!(page, " {} |", FOR.iter().find(|(of, _)| *of == name).map_or("", |(_, what)| what))?;
    }
    write!(page, "| **together** | |")?;
    for tool in &tools {
        let sum = played.bpf_ns(tool).map_or(0.0, |sum| sum.median);
        write!(page, " **{sum:.0} ns** |")?;
    }
    writeln!(page, " |")
}

fn starts(page: &mut String, results: &Results) -> std::fmt::Result {
    if results.starts.is_empty() {
        return Ok(());
    }
    writeln!(
        page,
        "\n## Start\n\nMilliseconds from the start of the process, with all files in the page cache. **Said**: the first line that says \
         so is read from\nits output; tcpwatch's `start` line comes when every hook is attached, the others' first line may come before or be held back in a \
         buffer.\n**Ran**: one of its programs has run, seen from outside through the kernel's own count, while a connection is refused \
         every\nmillisecond; so this is when something is watched at all, and the one figure that means the same for all. The tool has all cores of the \
         host.\n"
    )?;
    writeln!(page, "| | said | ran | runs |\n|---|---|---|---|")?;
    for start in &results.starts {
        let of =
            |spread: &Spread| format!("**{:.0} ms** ({:.0}–{:.0})", spread.median, spread.min, spread.max);
        writeln!(
            page,
            "| {} | {} | {} | {} |",
            start.tool,
            of(&start.said_ms),
            of(&start.ran_ms),
            start.said_ms.count
        )?;
    }
    Ok(())
}

fn held(page: &mut String, results: &Results) -> std::fmt::Result {
    let Some(first) = results.held.first() else { return Ok(()) };
    writeln!(
        page,
        "\n## Open connections\n\n{} connections on loopback, so twice as many sockets, that do nothing. **Watched**: the tool was there when they were \
         opened. **Found**:\nthey were there when it started, and it looked for their owners.\n",
        thousands(first.connections)
    )?;
    writeln!(
        page,
        "| | connections | RSS | peak | maps | CPU while nothing happens |\n|---|---|---|---|---|---|"
    )?;
    for held in &results.held {
        writeln!(
            page,
            "| {} | {} | **{:.1} MB** | {:.1} MB | {:.1} MB | {:.2} % |",
            held.tool,
            if held.watched { "watched" } else { "found" },
            held.rss_kb as f64 / 1024.0,
            held.rss_peak_kb as f64 / 1024.0,
            held.maps_kb as f64 / 1024.0,
            held.idle_share * 100.0
        )?;
    }
    Ok(())
}

fn guests(page: &mut String, results: &Results) -> std::fmt::Result {
    if results.guests.is_empty() {
        return Ok(());
    }
    writeln!(
        page,
        "\n## Other kernels\n\nIn QEMU, which translates instructions: a call that a processor predicts costs there what it weighs in instructions. \
         Ratios only,\nof the rate and of the load's CPU to a run without tcpwatch right before. Here tcpwatch has all its hooks, with \
         trampolines or kprobes.\n"
    )?;
    writeln!(page, "| kernel | workload | | of untraced | load's CPU | pairs |\n|---|---|---|---|---|---|")?;
    for guest in &results.guests {
        writeln!(
            page,
            "| {} | {} | {} | **{:.2}** ({:.2}–{:.2}) | {:.2} | {} |",
            guest.release,
            guest.workload,
            guest.tool,
            guest.rate.median,
            guest.rate.min,
            guest.rate.max,
            guest.cpu.median,
            guest.rate.count
        )?;
    }
    Ok(())
}

/// A number as people read it, without what is behind the point.
pub(crate) fn thousands(number: impl Display) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::sample;

    #[test]
    fn the_page_says_what_was_measured_where_and_how() {
        let page = render(&sample::results());
        for text in [
            "<!-- Made by `cargo xtask bench`; changes by hand are lost. -->",
            "on 2026-01-02 03:04 UTC, of commit 0123abc:",
            "| CPU | A CPU, 2 cores (a virtual machine: kvm) |",
            "| memory | 24.0 GB |",
            "3 more of tcpwatch's hooks are functions",
            "| bpftrace printf | `bpftrace -e 'a \\| b'`; **not measured**: is not installed |",
            "| fin | 6 | 50,000 /s | ±0 % | 50,000 /s | 50,000 /s |",
            "| tcpwatch | 47,000 /s | **0.94** (0.92–0.96) |",
            "| tcpwatch --events all | 25,000 /s | **0.50** (0.40–0.60) |",
            "| empty programs | not measured |",
            "The kernel counted 98,000 (`OutRsts`), tcpwatch's default mode delivered 98,000 `rst_sent`",
            "| **together** | | **2000 ns** | **250 ns** | |",
            "| tcpwatch | **70 ms** (70–70) | **40 ms** (40–40) | 1 |",
            "| 5.10.1 | fin | tcpwatch --json | **0.90** (0.90–0.90) | 1.10 | 1 |",
            "| tcpwatch | watched | **12.0 MB** | 14.0 MB | 40.0 MB | 0.12 % |",
        ] {
            assert!(page.contains(text), "{text} is not in\n{page}");
        }
    }

    #[test]
    fn stored_figures_give_the_same_page() {
        let results = sample::results();
        let stored = serde_json::to_string(&results).unwrap();
        assert_eq!(render(&serde_json::from_str(&stored).unwrap()), render(&results));
    }

    #[test]
    fn nothing_measured_is_a_page_too() {
        let empty = Results {
            played: Vec::new(),
            starts: Vec::new(),
            held: Vec::new(),
            guests: Vec::new(),
            ..sample::results()
        };
        assert!(render(&empty).contains("No pair of runs was played."));
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0.0, 999.0, 1000.0, 1_234_567.4].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
