//! The summary: causes, the account of every hook, the kernel's counters beside tcpwatch's.

use super::layout;
use crate::event::Summary;
use std::io::{self, Write};
use tcpwatch_common::counters::HookCounters;

pub(crate) fn write(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    writeln!(out, "\nwatched for {}", layout::span(summary.watched_ns / 1_000))?;
    causes(out, summary)?;
    hooks(out, summary)?;
    netns(out, summary)?;
    tables(out, summary)
}

/// Only what was forgotten is worth a word.
fn tables(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    let tables = &summary.tables;
    let rows = [
        ("live sockets", tables.sockets_forgotten, tables.sockets_seen, tables.sockets, "--sockets"),
        ("ended connections", tables.ended_forgotten, tables.ended_seen, tables.ended, "--ended"),
    ];
    for (what, forgotten, seen, entries, option) in rows {
        if forgotten == 0 {
            continue;
        }
        let text = format!(
            "{forgotten} of {seen} {what} made room for others: the table has {entries} places ({option} N makes more)"
        );
        writeln!(out)?;
        layout::wrap(&text, layout::WIDTH).try_for_each(|line| writeln!(out, "{line}"))?;
    }
    Ok(())
}

fn causes(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    if summary.causes.is_empty() {
        return writeln!(out, "\nno events");
    }
    writeln!(out, "\n{:>10}  CAUSE", "EVENTS")?;
    for cause in &summary.causes {
        writeln!(out, "{:>10}  {}", cause.count, cause.id)?;
    }
    Ok(())
}

fn hooks(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    let busy: Vec<_> = summary.hooks.iter().filter(|hook| hook.counters.seen > 0).collect();
    if busy.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:<26} {:>12} {:>12} {:>12} {:>12} {:>10}",
        "HOOK", "SEEN", "DELIVERED", "FILTERED", "AGGREGATED", "LOST"
    )?;
    let mut total = HookCounters::default();
    for hook in &busy {
        total.add(&hook.counters);
        account(out, &hook.name, &hook.counters)?;
    }
    if busy.len() > 1 {
        account(out, "total", &total)?;
    }
    for hook in summary.hooks.iter().filter(|hook| hook.missed > 0) {
        writeln!(
            out,
            "{}: the kernel left out {} runs because the program was interrupted at work; what they saw is lost",
            hook.name, hook.missed
        )?;
    }
    Ok(())
}

fn account(out: &mut impl Write, name: &str, counters: &HookCounters) -> io::Result<()> {
    let HookCounters { seen, delivered, filtered, aggregated, lost } = counters;
    let wrong = if counters.balanced() { "" } else { "  NOT BALANCED" };
    writeln!(out, "{name:<26} {seen:>12} {delivered:>12} {filtered:>12} {aggregated:>12} {lost:>10}{wrong}")
}

pub(in crate::sink) fn netns(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    let rows: Vec<_> =
        summary.netns.iter().filter(|row| row.explained > 0 || row.kernel != Some(0)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{:<12} {:<22} {:>12} {:>12}", "NETNS", "COUNTER", "KERNEL", "TCPWATCH")?;
    for row in rows {
        let kernel = row.kernel.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let verdict = match row.kernel {
            Some(kernel) if kernel == row.explained => "explained",
            Some(kernel) if kernel > row.explained => "not all seen",
            Some(_) => "more seen than counted",
            None => "cannot be read",
        };
        writeln!(out, "{:<12} {:<22} {kernel:>12} {:>12}  {verdict}", row.netns, row.counter, row.explained)?;
    }
    Ok(())
}
