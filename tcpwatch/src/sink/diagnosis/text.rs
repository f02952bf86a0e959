//! The diagnosis for a human: verdicts with most harm first, each with who, where, why and what to change. Fits 100 columns.

use crate::event::{Certainty, Start, Summary};
use crate::sink::text::layout::{WIDTH, span, wrap};
use crate::sink::text::{TextOptions, books};
use crate::sink::time;
use crate::verdict::{Harm, Verdict};
use std::io::{self, Write};

/// Verdicts that are shown in full: more than these nobody reads in an incident.
const IN_FULL: usize = 8;
/// Width of the words at the left.
const LABEL: usize = 10;

pub(super) fn start(out: &mut impl Write, _options: TextOptions, start: &Start) -> io::Result<()> {
    let attached = start.hooks.iter().filter(|hook| hook.attached.is_ok()).count();
    writeln!(
        out,
        "tcpwatch {} on Linux {}, {} {} UTC: {attached} of {} hooks attached",
        start.version,
        start.kernel,
        time::date(start.time_ns),
        time::clock(start.time_ns),
        start.hooks.len()
    )?;
    if attached < start.hooks.len() {
        writeln!(out, "{}what is not seen without them, and why: tcpwatch doctor", " ".repeat(LABEL))?;
    }
    Ok(())
}

/// What is wrong before the watch.
pub(super) fn found(out: &mut impl Write, options: TextOptions, found: &[Verdict]) -> io::Result<()> {
    if found.is_empty() {
        writeln!(
            out,
            "\nAt first sight nothing is wrong: no full queue, no full TIME_WAIT table. Watching …"
        )?;
    } else {
        writeln!(out, "\nFound at first sight:")?;
        list(out, options, found)?;
        writeln!(out, "\nWatching …")?;
    }
    Ok(())
}

pub(super) fn diagnosis(
    out: &mut impl Write,
    options: TextOptions,
    verdicts: &[Verdict],
    summary: &Summary,
    lost: u64,
) -> io::Result<()> {
    writeln!(out, "\nDiagnosis after {}", span(summary.watched_ns / 1_000))?;
    if verdicts.is_empty() {
        writeln!(out, "\nNothing was reset, refused or leaked.")?;
    }
    list(out, options, verdicts)?;
    books::netns(out, summary)?;
    if lost > 0 {
        writeln!(
            out,
            "\n{lost} events were lost: the figures above are too small; --buffer makes more room"
        )?;
    }
    Ok(())
}

fn list(out: &mut impl Write, options: TextOptions, verdicts: &[Verdict]) -> io::Result<()> {
    for (i, verdict) in verdicts.iter().enumerate().take(IN_FULL) {
        show(out, options, i + 1, verdict)?;
    }
    let rest = verdicts.get(IN_FULL..).unwrap_or_default();
    if !rest.is_empty() {
        writeln!(out, "\nAnd, of less harm or fewer (in full with --json, or with a filter):")?;
    }
    for (i, verdict) in rest.iter().enumerate() {
        let lead = format!("{}. ", IN_FULL + i + 1);
        let text = format!("{} ({})", verdict.title, verdict.cause);
        for (i, line) in wrap(&text, WIDTH - lead.len()).enumerate() {
            let lead = if i == 0 { lead.clone() } else { " ".repeat(lead.len()) };
            writeln!(out, "{lead}{line}")?;
        }
    }
    Ok(())
}

fn show(out: &mut impl Write, options: TextOptions, number: usize, verdict: &Verdict) -> io::Result<()> {
    let paint = |code: &'static str| if options.color { (code, "\x1b[0m") } else { ("", "") };
    let (on, off) = paint(match verdict.harm {
        Harm::Refused => "\x1b[1;31m",
        Harm::Broken => "\x1b[1;33m",
        Harm::Warning | Harm::Noise => "\x1b[1m",
    });
    writeln!(out)?;
    let lead = format!("{number}. ");
    for (i, line) in wrap(&verdict.title, WIDTH - lead.len()).enumerate() {
        let lead = if i == 0 { lead.clone() } else { " ".repeat(lead.len()) };
        writeln!(out, "{lead}{on}{line}{off}")?;
    }
    let mut causes = vec![verdict.cause];
    causes.extend(&verdict.with);
    let sure = match verdict.certainty {
        Certainty::Unknown => "no evidence".to_owned(),
        other => other.name().to_owned(),
    };
    label(out, "cause", &format!("{} ({sure}); harm: {}", causes.join(" + "), verdict.harm.name()))?;
    if !verdict.who.is_empty() {
        let many = verdict.who.len() > 1;
        let who: Vec<String> = verdict.who.iter().map(|party| party_of(party, many)).collect();
        label(out, "who", &who.join(", "))?;
    } else if verdict.count > 0 {
        label(out, "who", "no process: nobody is known to own the socket")?;
    }
    let place = place(verdict);
    if !place.is_empty() {
        label(out, "where", &place)?;
    }
    for (i, why) in verdict.why.iter().enumerate() {
        label(out, if i == 0 { "why" } else { "" }, why)?;
    }
    items(out, "evidence", &verdict.evidence)?;
    let (on, off) = paint("\x1b[32m");
    let fix: Vec<String> = verdict.fix.iter().map(|fix| format!("{on}{fix}{off}")).collect();
    items(out, "fix", &fix)
}

fn party_of(party: &crate::verdict::Party, many: bool) -> String {
    let owner = &party.owner;
    let pid = owner.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let mut text = format!("{}[{pid}]", owner.comm);
    if let Some(exe) = owner.exe.as_deref().filter(|exe| !exe.ends_with(&format!("/{}", owner.comm))) {
        text += &format!(" {exe}");
    }
    if let Some(container) = &owner.container {
        text += &format!(" container {container}");
    }
    if many {
        text += &format!(" ({})", party.count);
    }
    text
}

fn place(verdict: &Verdict) -> String {
    let mut parts = Vec::new();
    if !verdict.services.is_empty() {
        parts.push(verdict.services.join(", "));
    }
    if !verdict.peers.is_empty() {
        let named: Vec<String> = verdict
            .peers
            .iter()
            .map(
                |(addr, count)| {
                    if verdict.peer_count > 1 { format!("{addr} ({count})") } else { addr.to_string() }
                },
            )
            .collect();
        let rest = verdict.peer_count.saturating_sub(verdict.peers.len());
        let more = match (rest, verdict.peers_more) {
            (0, false) => String::new(),
            (rest, false) => format!(" and {rest} more"),
            (rest, true) => format!(" and {rest} or more others"),
        };
        parts.push(format!("peers {}{more}", named.join(", ")));
    }
    if let Some(netns) = verdict.netns {
        parts.push(format!("network namespace {netns}"));
    }
    parts.join("; ")
}

/// A word at the left, the text beside it.
fn label(out: &mut impl Write, word: &str, text: &str) -> io::Result<()> {
    const INDENT: usize = 3;
    for (i, line) in wrap(text, WIDTH - INDENT - LABEL).enumerate() {
        let word = if i == 0 { word } else { "" };
        writeln!(out, "{:INDENT$}{word:<LABEL$}{line}", "")?;
    }
    Ok(())
}

fn items(out: &mut impl Write, word: &str, items: &[String]) -> io::Result<()> {
    const INDENT: usize = 3;
    let mut word = word;
    for item in items {
        let dash = "- ";
        for (i, line) in wrap(item, WIDTH - INDENT - LABEL - dash.len()).enumerate() {
            let dash = if i == 0 { dash } else { "  " };
            writeln!(out, "{:INDENT$}{word:<LABEL$}{dash}{line}", "")?;
            word = "";
        }
    }
    Ok(())
}
