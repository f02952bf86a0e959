//! Drawings, as SVG within the page. Each has a title that says in words what it shows; the figures stand in tables as well.

use super::gather::{Axis, COLUMNS, Listener, Series};
use crate::event::{Event, EventKind, Flags};
use crate::sink::time;
use maud::{Markup, html};
use std::fmt::Write;

/// Colours that are told apart by most eyes and in grey print (Okabe and Ito).
pub(super) const COLORS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#7a5c00", "#555555"];

const WIDTH: f64 = 960.0;
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 22.0;
/// Room for the unit above the axis.
const TOP: f64 = 24.0;

/// Where a plot is drawn.
struct Area {
    width: f64,
    height: f64,
    columns: usize,
    most: u64,
}

impl Area {
    fn new(axis: &Axis, height: f64, most: u64) -> Self {
        Self {
            width: WIDTH - LEFT - 8.0,
            height: height - BOTTOM - TOP,
            columns: axis.used.max(1),
            most: ceiling(most),
        }
    }

    fn x(&self, column: usize) -> f64 {
        LEFT + self.width * column as f64 / self.columns as f64
    }

    fn y(&self, count: u64) -> f64 {
        TOP + self.height * (1.0 - count as f64 / self.most as f64)
    }
}

/// The next number that begins with 1, 2 or 5.
fn ceiling(most: u64) -> u64 {
    let mut step = 1;
    loop {
        for factor in [1, 2, 5] {
            if factor * step >= most {
                return factor * step;
            }
        }
        step *= 10;
    }
}

fn frame(area: &Area, axis: &Axis, unit: &str) -> Markup {
    let ticks: Vec<usize> = (0..=4).map(|tick| area.columns * tick / 4).collect();
    let stamp = |column: usize| {
        let clock = time::clock(axis.begin_ns + axis.width_ns * column as u64);
        let digits = if axis.width_ns * area.columns as u64 > 10_000_000_000 { 8 } else { 12 };
        clock.as_str()[..digits].to_owned()
    };
    let base = area.y(0);
    html! {
        @for share in [0, area.most / 2, area.most] {
            line class="grid" x1=(LEFT) x2=(LEFT + area.width) y1=(round(area.y(share))) y2=(round(area.y(share))) {}
            text x=(LEFT - 6.0) y=(round(area.y(share) + 4.0)) text-anchor="end" { (share) }
        }
        @for column in ticks {
            line class="grid" x1=(round(area.x(column))) x2=(round(area.x(column))) y1=(round(base)) y2=(round(base + 4.0)) {}
            text x=(round(area.x(column))) y=(round(base + 17.0)) text-anchor=(anchor(column, area.columns)) { (stamp(column)) }
        }
        text class="faint" x=(LEFT) y="12" { (unit) }
    }
}

fn anchor(column: usize, columns: usize) -> &'static str {
    match column {
        0 => "start",
        _ if column == columns => "end",
        _ => "middle",
    }
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Counts of several causes, one on top of the other.
pub(super) fn timeline(axis: &Axis, rows: &[(String, &Series)], title: &str) -> Markup {
    let mut sums = [0u64; COLUMNS];
    for (_, series) in rows {
        sums.iter_mut().zip(series.iter()).for_each(|(sum, count)| *sum += count);
    }
    let height = 240.0;
    let area = Area::new(axis, height, sums.iter().copied().max().unwrap_or(0).max(1));
    let mut below = [0u64; COLUMNS];
    let paths: Vec<String> = rows
        .iter()
        .map(|(_, series)| {
            let mut path = String::new();
            for column in 0..area.columns.min(COLUMNS) {
                let count = series[column];
                if count == 0 {
                    continue;
                }
                let (x, next) = (area.x(column), area.x(column + 1));
                let (low, high) = (area.y(below[column]), area.y(below[column] + count));
                // Writing to a string cannot fail.
                let gap = if next - x > 3.0 { 1.0 } else { 0.0 };
                let _ = write!(path, "M{:.1} {low:.1}V{high:.1}H{:.1}V{low:.1}z", x, next - gap);
                below[column] += count;
            }
            path
        })
        .collect();
    html! {
        svg role="img" viewBox={ "0 0 " (WIDTH) " " (height) } aria-label=(title) {
            title { (title) }
            (frame(&area, axis, &format!("events in {}", span_of(axis.width_ns))))
            @for (number, path) in paths.iter().enumerate() {
                path d=(path) fill=(COLORS[number % COLORS.len()]) {}
            }
        }
        ul class="legend" {
            @for (number, (name, _)) in rows.iter().enumerate() {
                li { span style={ "background:" (COLORS[number % COLORS.len()]) } {} (name) }
            }
        }
    }
}

/// `100 ms`, `2 s`, `5 min`.
pub(super) fn span_of(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        1_000_000_000..120_000_000_000 => format!("{:.1} s", ns as f64 / 1e9).replace(".0 s", " s"),
        _ => format!("{} min", ns / 60_000_000_000),
    }
}

/// The queue of a listener, its limit, and when it turned somebody away.
pub(super) fn queue(axis: &Axis, name: &str, listener: &Listener) -> Markup {
    let height = 130.0;
    let max = u64::from(listener.max.unwrap_or(0));
    let longest = listener.lengths.iter().copied().max().unwrap_or(0).saturating_sub(1);
    let area = Area::new(axis, height, longest.max(max + 1).max(1));
    let mut line = String::new();
    let mut dots = Vec::new();
    let mut refused = Vec::new();
    for column in 0..area.columns.min(COLUMNS) {
        let middle = (area.x(column) + area.x(column + 1)) / 2.0;
        if listener.lengths[column] > 0 {
            let y = area.y(listener.lengths[column] - 1);
            let _ = write!(line, "{}{middle:.1} {y:.1}", if line.is_empty() { 'M' } else { 'L' });
            dots.push((middle, y));
        }
        if listener.refused[column] > 0 {
            refused.push(middle);
        }
    }
    let title = format!(
        "accept queue of {name}: {longest} at the longest, {} may wait and one more; {} times somebody was turned away",
        listener.max.map_or("an unknown number".to_owned(), |max| max.to_string()),
        listener.total
    );
    html! {
        svg role="img" viewBox={ "0 0 " (WIDTH) " " (height) } aria-label=(title) {
            title { (title) }
            (frame(&area, axis, "connections"))
            @if listener.max.is_some() {
                line class="limit" x1=(LEFT) x2=(LEFT + area.width) y1=(round(area.y(max))) y2=(round(area.y(max))) {}
                text class="limit" x=(LEFT + 6.0) y=(round(area.y(max) - 4.0)) { "limit " (max) }
            }
            path class="queue" d=(line) {}
            @for (x, y) in &dots { circle class="dot" cx=(round(*x)) cy=(round(*y)) r="2.5" {} }
            @for x in &refused {
                path class="refused" d={ "M" (round(x - 4.0)) " 26l8 8m0 -8l-8 8" } {}
            }
        }
    }
}

/// The flow of an event: the states of this host's socket, and what happened between the two ends.
pub(super) fn ladder(event: &Event) -> Markup {
    const ROW: f64 = 34.0;
    const NEAR: f64 = 250.0;
    const FAR: f64 = 720.0;
    let mut states: Vec<(String, String)> = event
        .history
        .iter()
        .map(|step| {
            (step.state.to_owned(), step.for_us.map_or("from before".to_owned(), |us| span_of(us * 1_000)))
        })
        .collect();
    if let Some(state) = event.state
        && states.last().is_none_or(|(last, _)| last != state)
    {
        states.push((state.to_owned(), String::new()));
    }
    if states.is_empty() {
        states.push(("no socket".to_owned(), String::new()));
    }
    let end =
        |end: Option<crate::event::Endpoint>| end.map_or("an unknown peer".to_owned(), |end| end.to_string());
    let (local, remote) = (end(event.local), end(event.remote));
    let owner = event.owner.as_ref().map_or("nobody is known".to_owned(), super::gather::named);
    let act = 62.0 + ROW * states.len() as f64 + 8.0;
    let height = act + 40.0;
    let segment =
        event.packet.map(|packet| format!("{} seq {} ack {}", Flags(packet.flags), packet.seq, packet.ack));
    let (out, what) = match event.kind {
        EventKind::RstSent => (Some(true), "RST"),
        EventKind::RstReceived => (Some(false), "RST"),
        EventKind::ListenDrop => (Some(false), "turned away"),
        EventKind::Drop => (Some(false), "dropped"),
        EventKind::Retransmit => (Some(true), "sent again"),
        EventKind::TwOverflow => (None, "no slot in the TIME_WAIT table"),
        EventKind::CloseWaitLeak => (None, "the peer closed, the process does not"),
        EventKind::State => (None, "the state changes"),
    };
    let words: Vec<&str> = states.iter().map(|(state, _)| state.as_str()).collect();
    let title = format!("{owner} at {local}, with {remote}: {}; then {what}", words.join(", "));
    // A segment at hand that drew the RST came before it.
    let drew = segment.as_ref().filter(|_| event.kind == EventKind::RstSent);
    let stopped = matches!(event.kind, EventKind::ListenDrop | EventKind::Drop);
    html! {
        svg class="ladder" role="img" viewBox={ "0 0 " (WIDTH) " " (round(height)) } aria-label=(title) {
            title { (title) }
            text class="head" x=(NEAR) y="16" text-anchor="middle" { (owner) }
            text x=(NEAR) y="32" text-anchor="middle" { (local) }
            text class="head" x=(FAR) y="16" text-anchor="middle" { "peer" }
            text x=(FAR) y="32" text-anchor="middle" { (remote) }
            line class="life" x1=(NEAR) x2=(NEAR) y1="40" y2=(round(height)) {}
            line class="life" x1=(FAR) x2=(FAR) y1="40" y2=(round(height)) {}
            @for (number, (state, stayed)) in states.iter().enumerate() {
                @let y = 48.0 + ROW * number as f64;
                rect class="state" x=(NEAR - 70.0) y=(round(y)) width="140" height="22" rx="4" {}
                text x=(NEAR) y=(round(y + 15.0)) text-anchor="middle" { (state) }
                text class="faint" x=(NEAR - 80.0) y=(round(y + 15.0)) text-anchor="end" { (stayed) }
            }
            @if let Some(segment) = drew {
                (arrow(FAR, NEAR, act - 18.0, "arrow", segment, false))
            }
            @match out {
                Some(true) => (arrow(NEAR, FAR, act + 12.0, "arrow reset", what, false)),
                Some(false) => (arrow(FAR, NEAR, act + 12.0, "arrow reset",
                    &segment.as_ref().map_or(what.to_owned(), |segment| format!("{what}: {segment}")), stopped)),
                None => text class="reset" x=(NEAR + 90.0) y=(round(act + 10.0)) { "✗ " (what) },
            }
        }
    }
}

fn arrow(from: f64, to: f64, y: f64, class: &str, label: &str, stopped: bool) -> Markup {
    let sign = if to > from { -1.0 } else { 1.0 };
    let to = to + sign * if stopped { 14.0 } else { 2.0 };
    html! {
        path class=(class) d={ "M" (from) " " (round(y)) "H" (round(to)) } {}
        @if stopped {
            path class=(class) d={ "M" (round(to - 5.0)) " " (round(y - 5.0)) "l10 10m0 -10l-10 10" } {}
        } @else {
            path class=(class) d={ "M" (round(to + sign * 9.0)) " " (round(y - 5.0)) "L" (round(to)) " " (round(y)) "L" (round(to + sign * 9.0)) " " (round(y + 5.0)) } {}
        }
        text class=(class.replace("arrow", "label")) x=(round((from + to) / 2.0)) y=(round(y - 6.0)) text-anchor="middle" { (label) }
    }
}
