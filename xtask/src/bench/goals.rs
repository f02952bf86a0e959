//! What was promised, beside what was measured.

use super::data::{Held, Played, Results, Start};
use super::tools::{ALL, LIMIT, RIVALS, TCPWATCH};

/// One promise.
#[derive(Debug, PartialEq)]
pub(super) struct Goal {
    pub(super) what: String,
    pub(super) figure: String,
    /// What must be.
    pub(super) bound: String,
    /// Where it is to go.
    pub(super) goal: String,
    /// `None`: was not measured.
    pub(super) kept: Option<bool>,
}

fn goal(what: &str, figure: Option<(String, bool)>, bound: &str, aim: &str) -> Goal {
    let (figure, kept) = match figure {
        Some((figure, kept)) => (figure, Some(kept)),
        None => ("not measured".to_owned(), None),
    };
    Goal { what: what.to_owned(), figure, bound: bound.to_owned(), goal: aim.to_owned(), kept }
}

/// Every promise, held against what was measured.
pub(super) fn judge(results: &Results) -> Vec<Goal> {
    let played = |name: &str| results.played.iter().find(|played| played.workload == name);
    let (fin, rst) = (played("fin"), played("rst"));
    let at_least = |played: Option<&Played>, tool: &str, least: f64| {
        let ratio = played?.ratio(tool)?.median;
        Some((format!("{ratio:.2}"), ratio >= least))
    };
    let ns = |played: Option<&Played>, tool: &str| Some(played?.bpf_ns(tool)?.median);
    let start = |tool: &str| results.starts.iter().find(|start| start.tool == tool);
    let held = results.held.iter().filter(|held| held.tool == TCPWATCH).max_by_key(|held| held.rss_kb);
    vec![
        goal(
            "default mode, closed by FIN: all programs together, per connection, both ends",
            ns(fin, TCPWATCH).map(|ns| (format!("{:.2} µs", ns / 1e3), ns <= 1500.0)),
            "1.5 µs",
            "1 µs",
        ),
        goal(
            "default mode, closed by FIN: part of the untraced rate",
            at_least(fin, TCPWATCH, 0.9),
            "0.90",
            "0.97",
        ),
        goal(
            "default mode, closed by RST, every RST as JSON to a file: part of the untraced rate",
            at_least(rst, TCPWATCH, 0.82),
            "0.82",
            "0.90",
        ),
        goal("the same: events lost", rst.and_then(|rst| lost(rst, TCPWATCH)), "0", "0"),
        goal("the same: `rst_sent` events against `TcpOutRsts`", rst.and_then(explained), "equal", "equal"),
        goal(
            "`--events all`, closed by FIN, JSON to a file: part of the untraced rate",
            at_least(fin, ALL, 0.65),
            "0.65",
            "0.80",
        ),
        goal("the same: events lost", fin.and_then(|fin| lost(fin, ALL)), "0", "0"),
        goal(
            "the same: against the best rival that delivers every event",
            fin.and_then(against_rivals),
            "more",
            "more",
        ),
        goal(
            "default mode, closed by FIN: time in its programs against empty programs on the same hooks",
            ns(fin, TCPWATCH)
                .zip(ns(fin, LIMIT))
                .map(|(ns, limit)| (format!("{:.1} times", ns / limit), true)),
            "said",
            "",
        ),
        storm("a million SYNs to closed ports", played("syn-closed")),
        flat("the same: growth of resident memory", played("syn-closed")),
        goal(
            "the same: RSTs in the books against `TcpOutRsts`",
            played("syn-closed").and_then(in_the_books),
            "equal",
            "equal",
        ),
        storm("SYN flood, no cookies", played("syn-flood")),
        flat("the same: growth of resident memory", played("syn-flood")),
        storm("SYN flood, cookies", played("syn-flood-cookies")),
        flat("the same: growth of resident memory", played("syn-flood-cookies")),
        goal("until the `start` line", start(TCPWATCH).map(ready), "60 ms", "18 ms (tcpstates)"),
        goal("resident memory beside 100,000 open connections, at most", held.map(memory), "20 MB", "13 MB"),
    ]
}

fn lost(played: &Played, tool: &str) -> Option<(String, bool)> {
    let (mut lost, mut events) = (0, 0);
    for run in played.with(tool).filter_map(|pair| pair.tool()) {
        lost += run.lost;
        events += run.lost + run.events;
    }
    (events > 0).then(|| (format!("{lost} of {events}"), lost == 0))
}

fn explained(played: &Played) -> Option<(String, bool)> {
    let (mut events, mut counted) = (0, 0);
    for pair in played.with(TCPWATCH) {
        events += pair.tool()?.kinds.get("rst_sent").copied().unwrap_or(0);
        counted += pair.with.load.counter("OutRsts");
    }
    (counted > 0).then(|| (format!("{events} of {counted}"), events == counted))
}

/// Delivered, aggregated or counted as lost: no RST may be missing from the books.
fn in_the_books(played: &Played) -> Option<(String, bool)> {
    let (mut seen, mut counted) = (0, 0);
    for pair in played.with(TCPWATCH) {
        seen +=
            pair.tool()?.books.as_ref()?.reconciled.get("TcpOutRsts").map_or(0, |(_, explained)| *explained);
        counted += pair.with.load.counter("OutRsts");
    }
    (counted > 0).then(|| (format!("{seen} of {counted}"), seen == counted))
}

fn against_rivals(played: &Played) -> Option<(String, bool)> {
    let ours = played.ratio(ALL)?.median;
    let best = RIVALS.iter().filter_map(|tool| Some((played.ratio(tool)?.median, *tool)));
    let (best, tool) = best.max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some((format!("{ours:.2} against {best:.2} ({tool})"), ours > best))
}

/// CPU of user space under a storm, in parts of a core.
fn storm(what: &str, played: Option<&Played>) -> Goal {
    let share = played.and_then(|played| {
        played.spread(TCPWATCH, |pair| pair.tool().map_or(0.0, |tool| tool.cpu_s / pair.with.load.wall_s))
    });
    let figure = share.map(|share| (format!("{:.1} %", share.median * 100.0), share.median < 0.1));
    goal(&format!("{what}: CPU of tcpwatch, of a core"), figure, "10 %", "")
}

fn flat(what: &str, played: Option<&Played>) -> Goal {
    let growth = played.and_then(|played| {
        played.spread(TCPWATCH, |pair| {
            pair.tool().map_or(0.0, |tool| tool.rss_after_kb as f64 - tool.rss_before_kb as f64) / 1024.0
        })
    });
    goal(what, growth.map(|growth| (format!("{:+.1} MB", growth.median), growth.median <= 1.0)), "1 MB", "")
}

fn ready(start: &Start) -> (String, bool) {
    let said = start.said_ms.median;
    (format!("{said:.0} ms"), said <= 60.0)
}

fn memory(held: &Held) -> (String, bool) {
    (format!("{:.1} MB", held.rss_kb as f64 / 1024.0), held.rss_kb <= 20 * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::sample;

    fn of(goals: &[Goal], what: &str) -> (String, Option<bool>) {
        let goal = goals.iter().find(|goal| goal.what.contains(what));
        goal.map(|goal| (goal.figure.clone(), goal.kept)).unwrap()
    }

    #[test]
    fn promises_are_kept_or_not_and_never_taken_for_granted() {
        let goals = judge(&sample::results());
        assert_eq!(of(&goals, "all programs together"), ("2.00 µs".to_owned(), Some(false)));
        assert_eq!(of(&goals, "closed by FIN: part of the untraced"), ("0.94".to_owned(), Some(true)));
        assert_eq!(of(&goals, "`rst_sent` events against"), ("98000 of 98000".to_owned(), Some(true)));
        assert_eq!(of(&goals, "`--events all`, closed by FIN, JSON"), ("0.50".to_owned(), Some(false)));
        assert_eq!(of(&goals, "best rival"), ("0.50 against 0.20 (tcpstates)".to_owned(), Some(true)));
        assert_eq!(of(&goals, "against empty programs"), ("8.0 times".to_owned(), Some(true)));
        assert_eq!(of(&goals, "closed ports: CPU"), ("5.0 %".to_owned(), Some(true)));
        assert_eq!(of(&goals, "RSTs in the books"), ("98000 of 98000".to_owned(), Some(true)));
        assert_eq!(of(&goals, "`start` line"), ("70 ms".to_owned(), Some(false)));
        assert_eq!(of(&goals, "100,000 open"), ("12.0 MB".to_owned(), Some(true)));
        assert_eq!(of(&goals, "SYN flood, no cookies"), ("not measured".to_owned(), None));
    }

    #[test]
    fn a_lost_event_breaks_the_promise_of_none() {
        let goals = judge(&sample::results());
        let kept: Vec<_> = goals.iter().filter(|goal| goal.what == "the same: events lost").collect();
        assert_eq!((kept[0].kept, kept[1].kept), (Some(true), Some(false)));
        assert_eq!(kept[1].figure, "10000 of 54000");
    }
}
