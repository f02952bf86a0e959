//! Draws what is known and what was typed. Every state of it fits 80 columns and 24 lines; larger screens show more at once.

use super::ladder::{self, span};
use super::model::{CauseRow, ListenerRow, Model, ProcessRow};
use super::ui::{Over, Tab, Ui};
use crate::event::{Certainty, Event, OwnerInfo};
use crate::sink::text::label;
use crate::sink::time;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table, TableState, Wrap};

/// From here on all four tables are there at once.
const WIDE: u16 = 150;
const TALL: u16 = 40;
/// Lines of the latest events under a table.
const LATEST: u16 = 7;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The keys, as the last line names them.
const KEYS: &str = "? help  / filter  p pause  Enter look closer  Tab next  q quit";

struct Paint(bool);

impl Paint {
    fn of(&self, color: Color) -> Style {
        if self.0 { Style::new().fg(color) } else { Style::new() }
    }

    fn strong(&self, color: Color) -> Style {
        self.of(color).add_modifier(Modifier::BOLD)
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Counts as bars, the last ones that fit.
pub(super) fn bars(counts: &[u64], width: usize) -> String {
    let shown = &counts[counts.len().saturating_sub(width)..];
    let most = shown.iter().copied().max().unwrap_or(0);
    let bar = |count: &u64| match (*count, most) {
        (0, _) | (_, 0) => ' ',
        (count, most) => BARS[usize::try_from((count * 7).div_ceil(most)).unwrap_or(7).min(7)],
    };
    shown.iter().map(bar).collect()
}

/// `1234`, `12.3k`, `4.5M`: at most six letters.
fn short(count: u64) -> String {
    match count {
        0..100_000 => count.to_string(),
        100_000..1_000_000 => format!("{}k", count / 1_000),
        1_000_000..1_000_000_000 => format!("{:.1}M", count as f64 / 1e6),
        _ => format!("{:.1}G", count as f64 / 1e9),
    }
}

fn rate(rate: f64) -> String {
    match rate {
        0.0 => "-".to_owned(),
        0.0..10.0 => format!("{rate:.1}"),
        _ => short(rate as u64),
    }
}

fn who(owner: Option<&OwnerInfo>) -> String {
    owner.map_or_else(|| "-".to_owned(), OwnerInfo::named)
}

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, ui: &Ui) {
    let area = frame.area();
    let paint = Paint(ui.look.color);
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)]).areas(area);
    frame.render_widget(Paragraph::new(header(model, ui, &paint, head.width)), head);
    match &ui.over {
        Over::Nothing | Over::Help if body.width >= WIDE && body.height >= TALL => {
            all(frame, body, model, ui, &paint)
        }
        Over::Nothing | Over::Help => one(frame, body, model, ui, &paint),
        Over::Some { title, events, line } => {
            let place = framed(frame, body, &format!("{title}: the latest {}", events.len()), true, &paint);
            rows_of_events(frame, place, events.iter().map(AsRef::as_ref), Some(*line), &paint);
        }
        Over::One { event, scroll, .. } => closer(frame, body, event, *scroll, &paint),
    }
    if matches!(ui.over, Over::Help) {
        help(frame, body, ui);
    }
    frame.render_widget(Paragraph::new(footer(ui, &paint)), foot);
}

fn header<'a>(model: &Model, ui: &Ui, paint: &Paint, width: u16) -> Vec<Line<'a>> {
    let (version, kernel) = model
        .start
        .as_ref()
        .map_or((crate::VERSION, "-"), |start| (start.version.as_str(), start.kernel.as_str()));
    let watched = model.watched();
    let mut first = vec![
        Span::styled(format!("tcpwatch {version}"), BOLD),
        Span::raw(format!(
            "  {}  {kernel}  {}  {:02}:{:02}:{:02}",
            if model.host.is_empty() { "-" } else { &model.host },
            time::clock(model.now_ns).as_str().get(..8).unwrap_or_default(),
            watched / 3_600,
            watched / 60 % 60,
            watched % 60
        )),
    ];
    if ui.look.plays {
        let how = if ui.ended { "played to the end".to_owned() } else { format!("played {}×", ui.speed) };
        first.push(Span::styled(format!("  {how}"), BOLD));
    }
    let mut second = vec![Span::raw(format!(
        "events {} ({}/s)  ",
        short(model.totals.events),
        rate(model.trend.rate(model.second()))
    ))];
    let lost = format!("lost {}", short(model.totals.lost));
    second.push(if model.totals.lost == 0 {
        Span::raw(lost)
    } else {
        Span::styled(lost, paint.strong(Color::Red))
    });
    if ui.paused {
        let text = format!("  PAUSED, {} wait", short(ui.waiting));
        second.push(Span::styled(text, paint.strong(Color::Yellow)));
    }
    if !ui.filter.is_empty() {
        second.push(Span::styled(format!("  only: {}", ui.filter), paint.strong(Color::Cyan)));
    }
    let used: usize = second.iter().map(|span| span.content.chars().count()).sum();
    let room = usize::from(width).saturating_sub(used + 2);
    if room >= 10 {
        let counts = model.trend.at(model.second());
        second.push(Span::raw(format!("  {}", bars(&counts, room))));
    }
    vec![Line::from(first), Line::from(second)]
}

fn footer<'a>(ui: &Ui, paint: &Paint) -> Line<'a> {
    if let Some(text) = &ui.typing {
        let mut spans =
            vec![Span::styled("filter: ", BOLD), Span::raw(text.clone()), Span::styled(" ", CHOSEN)];
        match &ui.wrong {
            Some(why) => spans.push(Span::styled(format!("  {why}"), paint.of(Color::Red))),
            None => spans.push(Span::raw("  port 80 and not host 10.9.0.7, or a word; Enter, Esc")),
        }
        return Line::from(spans);
    }
    let back = if matches!(ui.over, Over::Nothing) { "" } else { "Esc back  " };
    let plays = if ui.look.plays { "  +/- speed" } else { "" };
    Line::from(format!("{back}{KEYS}{plays}"))
}

/// A frame with a title; what is within.
fn framed(frame: &mut Frame<'_>, area: Rect, title: &str, chosen: bool, paint: &Paint) -> Rect {
    let style = if chosen { paint.strong(Color::Cyan) } else { Style::new() };
    let block = Block::new().borders(Borders::TOP).title(Span::styled(format!(" {title} "), style));
    let within = block.inner(area);
    frame.render_widget(block, area);
    within
}

fn one(frame: &mut Frame<'_>, area: Rect, model: &Model, ui: &Ui, paint: &Paint) {
    let title: Vec<String> = Tab::ALL
        .iter()
        .enumerate()
        .map(|(at, tab)| {
            let name = format!("{} {}", at + 1, tab.name());
            if *tab == ui.tab { format!("[{name}]") } else { name }
        })
        .collect();
    let latest = if ui.tab == Tab::Events { 0 } else { LATEST.min(area.height / 3) };
    let [upper, lower] = Layout::vertical([Constraint::Min(3), Constraint::Length(latest)]).areas(area);
    let place = framed(frame, upper, &title.join("  "), true, paint);
    table(frame, place, ui.tab, model, Some(ui.lines[ui.tab as usize]), paint);
    if latest > 1 {
        let place = framed(frame, lower, "latest events", false, paint);
        rows_of_events(frame, place, model.events.iter().rev().map(AsRef::as_ref), None, paint);
    }
}

fn all(frame: &mut Frame<'_>, area: Rect, model: &Model, ui: &Ui, paint: &Paint) {
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(area);
    let half = |area| Layout::vertical([Constraint::Percentage(45), Constraint::Percentage(55)]).areas(area);
    let ([causes, processes], [listeners, events]): ([Rect; 2], [Rect; 2]) = (half(left), half(right));
    for (number, (tab, area)) in [Tab::Causes, Tab::Listeners, Tab::Processes, Tab::Events]
        .into_iter()
        .zip([causes, listeners, processes, events])
        .enumerate()
    {
        let area = if area.x > 0 { Rect { x: area.x + 1, width: area.width - 1, ..area } } else { area };
        let chosen = tab == ui.tab;
        let place = framed(frame, area, &format!("{} {}", number + 1, tab.name()), chosen, paint);
        table(frame, place, tab, model, chosen.then_some(ui.lines[tab as usize]), paint);
    }
}

fn table(frame: &mut Frame<'_>, area: Rect, tab: Tab, model: &Model, line: Option<usize>, paint: &Paint) {
    match tab {
        Tab::Causes => causes(frame, area, model, line, paint),
        Tab::Listeners => listeners(frame, area, model, line, paint),
        Tab::Processes => processes(frame, area, model, line, paint),
        Tab::Events => rows_of_events(frame, area, model.events.iter().rev().map(AsRef::as_ref), line, paint),
    }
}

fn rows<'a, const N: usize>(
    frame: &mut Frame<'_>,
    area: Rect,
    heads: [&'a str; N],
    widths: [Constraint; N],
    rows: Vec<Row<'a>>,
    line: Option<usize>,
) {
    let table = Table::new(rows, widths)
        .header(Row::new(heads).style(BOLD))
        .column_spacing(1)
        .row_highlight_style(CHOSEN);
    let mut state = TableState::new().with_selected(line);
    frame.render_stateful_widget(table, area, &mut state);
}

fn nothing(frame: &mut Frame<'_>, area: Rect, text: &str) {
    frame.render_widget(Paragraph::new(text.to_owned()).wrap(Wrap { trim: true }), area);
}

fn right<'a>(text: impl Into<String>, width: usize) -> Cell<'a> {
    Cell::from(format!("{:>width$}", text.into()))
}

fn causes(frame: &mut Frame<'_>, area: Rect, model: &Model, line: Option<usize>, paint: &Paint) {
    let all = model.causes();
    if all.is_empty() {
        let text = match &model.start {
            Some(_) => "Nothing yet: no reset, no refused connection, no leak.",
            None => "Not watching yet: the hooks are being attached.",
        };
        return nothing(frame, area, text);
    }
    let width = usize::from(area.width).saturating_sub(8 + 26 + 6 + 6 + 4);
    let row = |row: &&CauseRow| {
        let color = match row.last.cause.as_ref().map(|cause| cause.certainty) {
            Some(Certainty::Certain) => Color::Green,
            Some(Certainty::Unknown) => Color::Red,
            _ => Color::Yellow,
        };
        Row::new([
            Cell::from(label(row.kind)),
            Cell::from(Span::styled(row.id, paint.of(color))),
            right(short(row.count), 6),
            right(rate(row.trend.rate(model.second())), 6),
            Cell::from(bars(&row.trend.at(model.second()), width)),
        ])
    };
    let widths = [8, 26, 6, 6].map(Constraint::Length);
    let widths = [widths[0], widths[1], widths[2], widths[3], Constraint::Min(4)];
    let heads = ["EVENT", "CAUSE", " COUNT", "   /s", "LAST MINUTE"];
    rows(frame, area, heads, widths, all.iter().map(row).collect(), line);
}

fn listeners(frame: &mut Frame<'_>, area: Rect, model: &Model, line: Option<usize>, paint: &Paint) {
    let all = model.listeners();
    if all.is_empty() {
        return nothing(frame, area, "No listener is known.");
    }
    let width = usize::from(area.width).saturating_sub(22 + 18 + 9 + 5 + 7 + 5);
    let row = |row: &&ListenerRow| {
        let full = row.max.is_some_and(|max| row.len > max);
        let style = if full || row.refused > 0 { paint.strong(Color::Red) } else { Style::new() };
        let max = row.max.map_or("?".to_owned(), |max| max.to_string());
        let lengths: Vec<u64> = row.lengths.iter().copied().collect();
        Row::new([
            Cell::from(row.local.clone()),
            Cell::from(who(row.owner.as_ref())),
            right(format!("{}/{max}", row.len), 9),
            right(row.peak.to_string(), 5),
            right(short(row.refused), 7),
            Cell::from(bars(&lengths, width)),
        ])
        .style(style)
    };
    let widths = [22, 18, 9, 5, 7].map(Constraint::Length);
    let widths = [widths[0], widths[1], widths[2], widths[3], widths[4], Constraint::Min(4)];
    let heads = ["LISTENER", "PROCESS", "QUEUE/MAX", " PEAK", "REFUSED", "QUEUE"];
    rows(frame, area, heads, widths, all.iter().map(row).collect(), line);
}

fn processes(frame: &mut Frame<'_>, area: Rect, model: &Model, line: Option<usize>, paint: &Paint) {
    let all = model.processes();
    if all.is_empty() {
        return nothing(frame, area, "No event has an owner yet.");
    }
    let row = |row: &&ProcessRow| {
        let style = if row.close_wait > 0 { paint.strong(Color::Red) } else { Style::new() };
        Row::new([
            right(row.pid.map_or("?".to_owned(), |pid| pid.to_string()), 7),
            Cell::from(row.comm.to_string()),
            right(short(row.sent), 6),
            right(short(row.received), 6),
            right(short(row.refused), 7),
            right(short(row.close_wait), 10),
            Cell::from(row.last.cause.as_ref().map_or("-", |cause| cause.id)),
        ])
        .style(style)
    };
    let widths = [7, 15, 6, 6, 7, 10].map(Constraint::Length);
    let widths = [widths[0], widths[1], widths[2], widths[3], widths[4], widths[5], Constraint::Min(10)];
    let heads = ["    PID", "COMM", "  SENT", "  RCVD", "REFUSED", "CLOSE_WAIT", "LAST CAUSE"];
    rows(frame, area, heads, widths, all.iter().map(row).collect(), line);
}

fn rows_of_events<'e>(
    frame: &mut Frame<'_>,
    area: Rect,
    events: impl Iterator<Item = &'e Event>,
    line: Option<usize>,
    paint: &Paint,
) {
    // What cannot be seen is not put together.
    let skip = line.unwrap_or(0).saturating_sub(usize::from(area.height) / 2);
    let wide = area.width >= 120;
    let cause = |event: &Event| {
        let id = event.cause.as_ref().map_or_else(
            || match (event.old_state, event.new_state) {
                (Some(old), Some(new)) => format!("{old} → {new}"),
                _ => event.reason.as_ref().map_or("-".to_owned(), |reason| reason.name.to_string()),
            },
            |cause| cause.id.to_owned(),
        );
        if event.count > 1 { format!("{id} ×{}", short(event.count)) } else { id }
    };
    let row = |event: &'e Event| {
        let end = |end: Option<crate::event::Endpoint>| end.map_or("-".to_owned(), |end| end.to_string());
        let color = event.cause.as_ref().map_or(Style::new(), |cause| match cause.certainty {
            Certainty::Unknown => paint.of(Color::Red),
            _ => Style::new(),
        });
        let clock = time::clock(event.time_ns);
        let clock = if wide { clock.as_str().to_owned() } else { clock.as_str()[..8].to_owned() };
        Row::new([
            Cell::from(clock),
            Cell::from(label(event.kind)),
            Cell::from(who(event.owner.as_ref())),
            Cell::from(if wide { end(event.local) } else { end(event.remote) }),
            Cell::from(if wide { end(event.remote) } else { cause(event) }),
            Cell::from(if wide { cause(event) } else { String::new() }),
        ])
        .style(color)
    };
    let shown: Vec<Row<'e>> = events.skip(skip).take(usize::from(area.height)).map(row).collect();
    if shown.is_empty() {
        return nothing(frame, area, "No event yet.");
    }
    let line = line.map(|line| line - skip);
    if wide {
        let widths = [12, 8, 24, 22, 22].map(Constraint::Length);
        let widths = [widths[0], widths[1], widths[2], widths[3], widths[4], Constraint::Min(10)];
        rows(frame, area, ["TIME (UTC)", "EVENT", "OWNER", "LOCAL", "REMOTE", "CAUSE"], widths, shown, line);
    } else {
        let widths = [8, 8, 20, 19].map(Constraint::Length);
        let widths = [widths[0], widths[1], widths[2], widths[3], Constraint::Min(10), Constraint::Length(0)];
        rows(frame, area, ["TIME", "EVENT", "OWNER", "REMOTE", "CAUSE", ""], widths, shown, line);
    }
}

/// One event: its flow's ladder, and everything that is known.
fn closer(frame: &mut Frame<'_>, area: Rect, event: &Event, scroll: u16, paint: &Paint) {
    let ends = match (event.local, event.remote) {
        (Some(local), Some(remote)) => format!("{local} ⇄ {remote}"),
        (Some(local), None) => local.to_string(),
        _ => "no address".to_owned(),
    };
    let title = format!("{} {ends}", event.kind.name());
    let place = framed(frame, area, &title, true, paint);
    let mut lines: Vec<Line<'_>> = Vec::new();
    if let Some(cause) = &event.cause {
        lines.push(Line::from(Span::styled(cause.summary.clone(), BOLD)));
        lines.push(Line::from(format!("cause     {} ({})", cause.id, cause.certainty.name())));
        lines.extend(cause.evidence.iter().map(|text| Line::from(format!("evidence  {text}"))));
        if let Some(fix) = &cause.fix {
            lines.push(Line::from(Span::styled(format!("fix       {fix}"), paint.of(Color::Green))));
        }
        lines.push(Line::from(""));
    }
    for (at, rung) in ladder::of(event).iter().enumerate() {
        if at > 0 {
            lines.push(Line::from("              │"));
        }
        lines.push(Line::from(vec![
            Span::styled(format!("{:>13} ●", rung.state), BOLD),
            Span::raw(format!(" {}  ", rung.stayed)),
            Span::styled(rung.then.clone(), paint.strong(Color::Red)),
        ]));
    }
    lines.push(Line::from(""));
    let mut fact = |name: &str, text: Option<String>| {
        if let Some(text) = text {
            lines.push(Line::from(format!("{name:<9} {text}")));
        }
    };
    fact("time", Some(format!("{}, {} ns", time::rfc3339(event.time_ns), event.mono_ns)));
    fact("owner", event.owner.as_ref().map(|owner| format!("{}, known by: {}", who(Some(owner)), owner.how)));
    fact("exe", event.owner.as_ref().and_then(|owner| owner.exe.as_deref().map(str::to_owned)));
    fact("cgroup", event.owner.as_ref().and_then(|owner| owner.cgroup.as_deref().map(str::to_owned)));
    fact("container", event.owner.as_ref().and_then(|owner| owner.container.as_deref().map(str::to_owned)));
    fact(
        "task",
        event.task.as_ref().map(|task| {
            let context = task.context.map_or("not known", |context| context.name());
            format!(
                "{}[{}], context {context}",
                task.comm,
                task.pid.map_or("-".to_owned(), |pid| pid.to_string())
            )
        }),
    );
    fact("reason", event.reason.as_ref().map(|reason| format!("{} ({})", reason.name, reason.from.name())));
    fact("site", event.site.as_ref().map(ToString::to_string));
    fact(
        "listen",
        event.listen.map(|listen| {
            let queue = listen.queue.map_or("neither queue", |queue| queue.name());
            format!(
                "{queue} {}/{}, at the {}: {}",
                listen.len,
                listen.max,
                listen.stage.name(),
                listen.action.name()
            )
        }),
    );
    fact("timewait", event.timewait.map(|table| format!("{} of {}", table.used, table.max)));
    fact(
        "packet",
        event.packet.map(|packet| {
            let flags = crate::event::Flags(packet.flags);
            format!(
                "{flags} seq {} ack {} window {} len {}",
                packet.seq, packet.ack, packet.window, packet.len
            )
        }),
    );
    fact("bytes", event.bytes.map(|bytes| format!("received {}, sent {}", bytes.received, bytes.sent)));
    fact("stayed", event.for_us.map(span));
    fact("netns", event.netns.map(|netns| netns.to_string()));
    fact("stands for", (event.count > 1).then(|| event.count.to_string()));
    for frame in event.stack.iter().flatten() {
        lines.push(Line::from(format!("          {frame}")));
    }
    let scroll = scroll.min(u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_sub(1));
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((scroll, 0)), place);
}

fn help(frame: &mut Frame<'_>, area: Rect, ui: &Ui) {
    let mut text = vec![
        "1 2 3 4, Tab     causes, listeners, processes, events",
        "up down, PgUp…   choose a line",
        "Enter            its events; one event: the ladder of its flow",
        "Esc              back; without anything open: the filter off",
        "/                filter: port 80 and not host 10.9.0.7, or a word:",
        "                 a process, a cause, a reason, an address, a container",
        "p                pause: what comes meanwhile waits, nothing is lost",
        "q, Ctrl-C        quit; the books of the run are printed",
        "",
        "/s is the mean of the last ten seconds, bars are the last minute.",
        "QUEUE/MAX: connections that wait for accept(), and how many may;",
        "it is full with one more than that. CLOSE_WAIT: sockets that the",
        "peer closed and the process holds for longer than --close-wait-after.",
    ];
    if ui.look.plays {
        text.push("+ -              play the capture faster, slower");
    }
    let height = u16::try_from(text.len() + 2).unwrap_or(16).min(area.height);
    let width = 74.min(area.width);
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    frame.render_widget(
        Paragraph::new(text.join("\n")).block(Block::bordered().title(" tcpwatch top ")),
        place,
    );
}

#[cfg(test)]
pub(super) mod tests;
