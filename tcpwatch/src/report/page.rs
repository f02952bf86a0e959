//! The page itself.

use super::gather::{Cause, Counts, Gathered, Listener, Process, named};
use super::plot::{self, span_of};
use crate::diagnose::catalog;
use crate::event::{Certainty, Event, EventKind, Flags, Summary};
use crate::sink::time;
use crate::verdict::{Harm, Verdict};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Causes that the timeline tells apart.
const SHOWN: usize = 8;
/// Listeners with a drawing, rows of other tables.
const PLOTS: usize = 12;
const ROWS: usize = 50;
/// Owners and peers of a cause.
const TOP: usize = 8;

const STYLE: &str = include_str!("style.css");

/// What a kind of event is called in a sentence.
fn called(kind: EventKind) -> &'static str {
    match kind {
        EventKind::RstSent => "RST sent",
        EventKind::RstReceived => "RST received",
        EventKind::ListenDrop => "connection turned away",
        EventKind::TwOverflow => "TIME_WAIT slot refused",
        EventKind::CloseWaitLeak => "socket left in CLOSE_WAIT",
        EventKind::Drop => "segment dropped",
        EventKind::State => "state transition",
        EventKind::Retransmit => "segment sent again",
    }
}

fn moment(time_ns: u64) -> String {
    format!("{} {} UTC", time::date(time_ns), time::clock(time_ns))
}

pub(super) fn page(all: &mut Gathered, summary: &Summary) -> String {
    let verdicts = all.collector.finish(summary);
    let title = match all.host.name.as_str() {
        "" => "tcpwatch report".to_owned(),
        name => format!("tcpwatch report: {name}"),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // Nothing may be asked for, even if a name in the capture should look like markup.
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'";
                meta name="generator" content={ "tcpwatch " (crate::VERSION) };
                // Browsers would ask for one.
                link rel="icon" href="data:,";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a class="skip" href="#verdicts" { "To the verdicts" }
                header {
                    h1 { (title) }
                    (facts(all, summary))
                    (contents(all))
                }
                main {
                    section id="verdicts" { h2 { "What is wrong" } (verdicts_of(&verdicts)) }
                    section id="timeline" { h2 { "When" } (timeline(all)) }
                    section id="causes" { h2 { "Causes" } (causes(all)) }
                    @if !all.listeners.is_empty() {
                        section id="listeners" { h2 { "Listeners" } (listeners(all)) }
                    }
                    section id="processes" { h2 { "Processes" } (processes(all)) }
                    section id="books" { h2 { "The books" } (books(all, summary)) }
                    section id="host" { h2 { "The host" } (host(all)) }
                }
                footer { p { "Made by tcpwatch " (crate::VERSION) " of " (all.file) ". Times are UTC." } }
            }
        }
    };
    page.into_string()
}

fn facts(all: &Gathered, summary: &Summary) -> Markup {
    let kernel = all.start.as_ref().map_or(all.host.system.as_str(), |start| start.kernel.as_str());
    html! {
        dl class="facts" {
            dt { "Host" } dd { @if all.host.name.is_empty() { "not known" } @else { (all.host.name) } }
            dt { "Kernel" } dd { (kernel) " " (all.host.hardware) }
            dt { "From" } dd { (moment(all.axis.begin_ns)) }
            dt { "Watched" } dd { (span_of(summary.watched_ns)) }
            dt { "Events" } dd { (all.events) }
            @let lost: u64 = lost(all, summary);
            dt { "Lost" } dd { @if lost == 0 { "none" } @else { strong { (lost) ": the figures are too small" } } }
        }
    }
}

fn lost(all: &Gathered, summary: &Summary) -> u64 {
    let told = all.lost.values().sum();
    summary.hooks.iter().map(|hook| hook.counters.lost + hook.missed).sum::<u64>().max(told)
}

fn contents(all: &Gathered) -> Markup {
    html! {
        nav aria-label="Contents" {
            ul {
                li { a href="#verdicts" { "What is wrong" } }
                li { a href="#timeline" { "When" } }
                li { a href="#causes" { "Causes" } }
                @if !all.listeners.is_empty() { li { a href="#listeners" { "Listeners" } } }
                li { a href="#processes" { "Processes" } }
                li { a href="#books" { "Books" } }
                li { a href="#host" { "Host" } }
            }
        }
    }
}

fn verdicts_of(verdicts: &[Verdict]) -> Markup {
    html! {
        @if verdicts.is_empty() {
            p { "Nothing was reset, refused or leaked." }
        }
        ol class="verdicts" {
            @for verdict in verdicts.iter().take(ROWS) {
                li class=(verdict.harm.name()) { (verdict_of(verdict)) }
            }
        }
        @if verdicts.len() > ROWS {
            p { "And " (verdicts.len() - ROWS) " more of less harm or fewer events." }
        }
    }
}

fn verdict_of(verdict: &Verdict) -> Markup {
    let harm = match verdict.harm {
        Harm::Refused => "clients were turned away",
        Harm::Broken => "connections were broken",
        Harm::Warning => "a warning",
        Harm::Noise => "harmless as a rule",
    };
    html! {
        h3 { (verdict.title) }
        p class="meta" {
            span class="tag" { (verdict.cause) }
            @for cause in &verdict.with { span class="tag" { (cause) } }
            (sure(verdict.certainty)) "; " (harm)
        }
        dl {
            dt { "Who" }
            dd {
                @if verdict.who.is_empty() { "no process is known to own the socket" }
                @for (number, party) in verdict.who.iter().enumerate() {
                    @if number > 0 { ", " }
                    (named(&party.owner))
                    @if let Some(exe) = &party.owner.exe { " " span class="faint" { (exe) } }
                }
            }
            @if !verdict.services.is_empty() { dt { "Where" } dd { (verdict.services.join(", ")) } }
            @if !verdict.peers.is_empty() {
                dt { "Peers" }
                dd {
                    @for (number, (peer, count)) in verdict.peers.iter().enumerate() {
                        @if number > 0 { ", " }
                        (peer) " (" (count) ")"
                    }
                    @if verdict.peer_count > verdict.peers.len() {
                        " and " (verdict.peer_count - verdict.peers.len()) " more"
                    }
                }
            }
            @if !verdict.why.is_empty() {
                dt { "Why" } dd { @for why in &verdict.why { p { (why) } } }
            }
            @if !verdict.evidence.is_empty() {
                dt { "Evidence" } dd { ul { @for one in &verdict.evidence { li { (one) } } } }
            }
            @if !verdict.fix.is_empty() {
                dt { "What to change" } dd class="fix" { ul { @for fix in &verdict.fix { li { (fix) } } } }
            }
        }
    }
}

fn sure(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Certain => "certain",
        Certainty::Likely => "likely",
        Certainty::Possible => "possible",
        Certainty::Unknown => "no evidence",
    }
}

/// Causes, most events first.
fn ranked(all: &Gathered) -> Vec<(EventKind, &'static str, &Cause)> {
    let mut rows: Vec<_> = all.causes.iter().map(|((kind, id), row)| (*kind, *id, row)).collect();
    // Stable: the order of kinds stays.
    rows.sort_by_key(|(.., row)| std::cmp::Reverse(row.count));
    rows
}

fn timeline(all: &Gathered) -> Markup {
    let ranked = ranked(all);
    if ranked.is_empty() {
        return html! { p { "Nothing happened." } };
    }
    let mut rows: Vec<_> =
        ranked.iter().take(SHOWN - 1).map(|(kind, id, row)| (name_of(*kind, id), *row.series)).collect();
    let rest = ranked.get(SHOWN - 1..).unwrap_or_default();
    if !rest.is_empty() {
        let mut sum = [0; super::gather::COLUMNS];
        for (.., row) in rest {
            sum.iter_mut().zip(row.series.iter()).for_each(|(sum, count)| *sum += count);
        }
        rows.push((format!("{} other causes", rest.len()), sum));
    }
    let title = format!(
        "events over time by cause, from {} to {}; the figures are in the table of causes",
        moment(all.axis.begin_ns),
        moment(all.axis.end_ns())
    );
    let rows: Vec<_> = rows.iter().map(|(name, series)| (name.clone(), series)).collect();
    plot::timeline(&all.axis, &rows, &title)
}

fn name_of(kind: EventKind, id: &str) -> String {
    if id == kind.name() { called(kind).to_owned() } else { format!("{id} ({})", called(kind)) }
}

fn causes(all: &Gathered) -> Markup {
    let ranked = ranked(all);
    html! {
        table {
            caption { "Every cause, most events first" }
            thead { tr { th scope="col" { "Cause" } th scope="col" { "Event" } th scope="col" class="number" { "Count" }
                th scope="col" { "First" } th scope="col" { "Last" } } }
            tbody {
                @for (number, (kind, id, row)) in ranked.iter().enumerate() {
                    tr {
                        th scope="row" { a href={ "#cause-" (number) } { (id) } }
                        td { (called(*kind)) }
                        td class="number" { (row.count) }
                        td { (time::clock(row.first_ns)) }
                        td { (time::clock(row.last_ns)) }
                    }
                }
            }
        }
        @for (number, (kind, id, row)) in ranked.iter().enumerate() {
            article id={ "cause-" (number) } { (cause_of(all, *kind, id, row)) }
        }
    }
}

fn cause_of(all: &Gathered, kind: EventKind, id: &str, row: &Cause) -> Markup {
    let spec = catalog::find(id).filter(|_| id != kind.name());
    html! {
        h3 { (name_of(kind, id)) }
        @if let Some(spec) = spec {
            p class="faint" {
                "Given when: " (spec.evidence) "."
                @if !spec.source.is_empty() { " Kernel: " (spec.source) "." }
            }
        }
        (plot::timeline(&all.axis, &[(name_of(kind, id), &*row.series)], &format!("{} events of {id} over time", row.count)))
        div class="columns" {
            (counts("Sockets of", &row.owners))
            (counts("Peers", &row.peers))
            (counts("States", &row.states))
            (counts("Decided in", &row.sites))
        }
        @let examples = examples(row);
        @for (number, event) in examples.iter().enumerate() {
            section class="example" {
                h4 { "Example " (number + 1) " of " (examples.len()) ", " (moment(event.time_ns)) }
                (example(event))
            }
        }
    }
}

/// What differs only in time is told once.
fn examples(row: &Cause) -> Vec<&Event> {
    let mut shown: Vec<&Event> = Vec::new();
    for event in &row.examples {
        if shown.iter().all(|other| other.mono_ns != event.mono_ns || other.remote != event.remote) {
            shown.push(event);
        }
    }
    shown
}

fn counts<K: Eq + std::hash::Hash + Ord + Clone + std::fmt::Display>(
    title: &str,
    counts: &Counts<K>,
) -> Markup {
    let (top, more, rest) = counts.top(TOP);
    html! {
        @if !top.is_empty() {
            table {
                caption { (title) }
                tbody {
                    @for (name, count) in top { tr { th scope="row" { (name) } td class="number" { (count) } } }
                    @if rest > 0 { tr { th scope="row" { (more) " others" } td class="number" { (rest) } } }
                }
            }
        }
    }
}

fn example(event: &Event) -> Markup {
    html! {
        @if let Some(cause) = &event.cause {
            p { strong { (cause.summary) } " (" (sure(cause.certainty)) ")" }
        }
        (plot::ladder(event))
        @if let Some(cause) = &event.cause {
            ul { @for one in &cause.evidence { li { (one) } } }
            @if let Some(fix) = &cause.fix { p class="fix" { (fix) } }
        }
        dl class="facts" {
            @if let Some(owner) = &event.owner {
                dt { "Owner" } dd { (named(owner)) ", known by: " (owner.how)
                    @if let Some(exe) = &owner.exe { ", " (exe) }
                    @if let Some(cgroup) = &owner.cgroup { ", cgroup " (cgroup) } }
            }
            @if let Some(task) = &event.task {
                dt { "On the CPU" } dd { (task.comm) @if let Some(context) = task.context { " (" (context.name()) ")" } }
            }
            @if let Some(reason) = &event.reason {
                dt { "Kernel's reason" } dd { (reason.name) " (" (reason.from.name()) ")" }
            }
            @if let Some(site) = &event.site { dt { "Decided in" } dd { code { (site) } } }
            @if let Some(listen) = &event.listen {
                dt { "Queue" } dd { (listen.queue.map_or("neither", |queue| queue.name())) " " (listen.len) " of " (listen.max)
                    ", at the " (listen.stage.name()) ": " (listen.action.name()) }
            }
            @if let Some(table) = &event.timewait { dt { "TIME_WAIT" } dd { (table.used) " of " (table.max) } }
            @if let Some(packet) = &event.packet {
                dt { "Segment" } dd { (Flags(packet.flags)) " seq " (packet.seq) " ack " (packet.ack) " window " (packet.window)
                    " length " (packet.len) }
            }
            @if let Some(bytes) = &event.bytes { dt { "Bytes" } dd { "received " (bytes.received) ", sent " (bytes.sent) } }
            @if let Some(netns) = event.netns { dt { "Namespace" } dd { (netns) } }
            @if event.count > 1 { dt { "Stands for" } dd { (event.count) } }
        }
        @if let Some(stack) = &event.stack { pre { (stack.join("\n")) } }
    }
}

fn listeners(all: &Gathered) -> Markup {
    let mut rows: Vec<(&(u32, String), &Listener)> = all.listeners.iter().collect();
    let longest = |row: &Listener| row.lengths.iter().copied().max().unwrap_or(0).saturating_sub(1);
    rows.sort_by_key(|(_, row)| (std::cmp::Reverse(row.total), std::cmp::Reverse(longest(row))));
    html! {
        table {
            caption { "Listeners: those that turned somebody away first, then by the length of the queue" }
            thead { tr { th scope="col" { "Address" } th scope="col" { "Process" } th scope="col" { "Namespace" }
                th scope="col" class="number" { "Longest queue" } th scope="col" class="number" { "Limit" }
                th scope="col" class="number" { "Turned away" } } }
            tbody {
                @for ((netns, local), row) in rows.iter().take(ROWS) {
                    tr {
                        th scope="row" { (local) }
                        td { (row.owner.as_ref().map_or("not known".to_owned(), named)) }
                        td { (netns) }
                        td class="number" { (longest(row)) }
                        td class="number" { @match row.max { Some(max) => (max), None => "?" } }
                        td class="number" { (row.total) }
                    }
                }
            }
        }
        @if rows.len() > ROWS { p { "And " (rows.len() - ROWS) " more." } }
        @for ((netns, local), row) in rows.iter().filter(|(_, row)| row.total > 0 || longest(row) > 0).take(PLOTS) {
            article {
                h3 { (local) " " span class="faint" { "namespace " (netns) } }
                (plot::queue(&all.axis, local, row))
                p class="faint" { "Line: longest queue that was seen. Crosses: somebody was turned away." }
            }
        }
    }
}

fn processes(all: &Gathered) -> Markup {
    let mut rows: Vec<&Process> = all.processes.values().collect();
    let total = |row: &Process| row.sent + row.received + row.refused + row.close_wait;
    let name = |row: &Process| row.owner.as_ref().map(named).unwrap_or_default();
    rows.retain(|row| total(row) > 0);
    rows.sort_by(|a, b| total(b).cmp(&total(a)).then_with(|| name(a).cmp(&name(b))));
    html! {
        @if rows.is_empty() { p { "No event has an owner." } }
        @else {
            table {
                caption { "Owners of the sockets, most events first" }
                thead { tr { th scope="col" { "Process" } th scope="col" { "Program" }
                    th scope="col" class="number" { "RST sent" } th scope="col" class="number" { "RST received" }
                    th scope="col" class="number" { "Turned away" } th scope="col" class="number" { "In CLOSE_WAIT" }
                    th scope="col" { "Mostly" } } }
                tbody {
                    @for row in rows.iter().take(ROWS) {
                        tr {
                            th scope="row" { (name(row)) }
                            td { @if let Some(exe) = row.owner.as_ref().and_then(|owner| owner.exe.as_ref()) { (exe) } }
                            td class="number" { (row.sent) }
                            td class="number" { (row.received) }
                            td class="number" { (row.refused) }
                            td class="number" { (row.close_wait) }
                            td { @if let Some((cause, _)) = row.causes.top(1).0.first() { (cause) } }
                        }
                    }
                }
            }
        }
        @let more = rows.len().saturating_sub(ROWS) as u64 + all.other_processes;
        @if more > 0 { p { "And " (more) " more." } }
    }
}

fn books(all: &Gathered, summary: &Summary) -> Markup {
    html! {
        @if summary.hooks.is_empty() {
            p { strong { "The capture ends without the books of the run: it was cut off, or goes on in another file." } }
        } @else {
            table {
                caption { "What each hook saw: seen = delivered + filtered + aggregated + lost" }
                thead { tr { th scope="col" { "Hook" } @for head in ["Seen", "Delivered", "Filtered", "Aggregated", "Lost", "Missed"] {
                    th scope="col" class="number" { (head) } } } }
                tbody {
                    @for hook in &summary.hooks {
                        @let row = &hook.counters;
                        tr {
                            th scope="row" { code { (hook.name) } }
                            @for count in [row.seen, row.delivered, row.filtered, row.aggregated, row.lost, hook.missed] {
                                td class="number" { (count) }
                            }
                        }
                    }
                }
            }
        }
        @if !summary.netns.is_empty() {
            table {
                caption { "The kernel's counters beside it" }
                thead { tr { th scope="col" { "Namespace" } th scope="col" { "Counter" }
                    th scope="col" class="number" { "Kernel" } th scope="col" class="number" { "Explained" } } }
                tbody {
                    @for row in summary.netns.iter().take(4 * ROWS) {
                        tr {
                            th scope="row" { (row.netns) }
                            td { code { (row.counter) } }
                            td class="number" { @match row.kernel { Some(count) => (count), None => "not readable" } }
                            td class="number" { (row.explained) }
                        }
                    }
                }
            }
        }
        @if !summary.lifetimes.is_empty() { (lifetimes(summary)) }
        @for (hook, count) in &all.lost { p { (count) " events of " code { (hook) } " were lost." } }
    }
}

fn lifetimes(summary: &Summary) -> Markup {
    html! {
        table {
            caption { "How long connections lived that ended lately" }
            thead { tr { th scope="col" { "Process" } th scope="col" { "Service" } th scope="col" class="number" { "Connections" }
                th scope="col" class="number" { "Under 1 s" } th scope="col" class="number" { "Median" }
                th scope="col" class="number" { "90 %" } th scope="col" class="number" { "Longest" } } }
            tbody {
                @for row in summary.lifetimes.iter().take(ROWS) {
                    tr {
                        th scope="row" { (row.owner.as_ref().map_or("not known".to_owned(), named)) }
                        td { (row.direction.name()) " " @if let Some(peer) = row.peer { (peer) } " port " (row.port) }
                        td class="number" { (row.count) }
                        td class="number" { (row.short) }
                        @for us in [row.median_us, row.p90_us, row.max_us] { td class="number" { (span_of(us * 1_000)) } }
                    }
                }
            }
        }
    }
}

fn host(all: &Gathered) -> Markup {
    let tables: Vec<_> = all.standing.iter().filter(|one| one.time_wait.is_some()).collect();
    html! {
        @if !tables.is_empty() {
            table {
                caption { "TIME_WAIT tables as they stood at the end" }
                thead { tr { th scope="col" { "Namespace" } th scope="col" class="number" { "Used" }
                    th scope="col" class="number" { "Limit" } th scope="col" class="number" { "Refused since boot" } } }
                tbody {
                    @for one in tables.iter().take(ROWS) {
                        tr {
                            th scope="row" { (one.netns) }
                            td class="number" { (one.time_wait.map_or(0, |table| table.used)) }
                            td class="number" { (one.time_wait.map_or(0, |table| table.max)) }
                            td class="number" { @match one.refused_since_boot { Some(count) => (count), None => "?" } }
                        }
                    }
                }
            }
        }
        @if let Some(start) = &all.start {
            p { "tcpwatch " (start.version) " on Linux " (start.kernel) "." }
            table {
                caption { "What was attached" }
                thead { tr { th scope="col" { "Hook" } th scope="col" { "How" } th scope="col" { "Not seen without it" } } }
                tbody {
                    @for hook in &start.hooks {
                        tr {
                            th scope="row" { code { (hook.name) } }
                            td { @match &hook.attached { Ok(how) => (how), Err(why) => { "not attached: " (why) } } }
                            td { @if let Some(sees) = &hook.sees { (sees) } }
                        }
                    }
                }
            }
        }
    }
}
