//! Text for a human at a terminal: one line an event in the manner of the bcc tools, the cause under it. Fits 100 columns
//! as long as addresses are IPv4.

pub(crate) mod books;
pub(super) mod layout;

use super::{Out, Shown, Sink, Weight, time, weight};
use crate::event::{Certainty, Event, EventKind, Lost, ReasonFrom, Start, Summary};
use layout::{WIDTH, letters, wrap};
use std::fmt::{self, Display};
use std::io::{self, Write};

/// What the user chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// Escape sequences for colours.
    pub color: bool,
}

/// What the marks mean; under the start banner, and for `--help`.
pub const LEGEND: &str =
    "PID 812* had the socket until it closed, 812? is inherited from the listener; ~REASON is inferred";

/// Missing hooks that the banner explains one by one.
const MISSING_SHOWN: usize = 3;

/// Writes for a human.
#[derive(Debug)]
pub struct TextSink<O> {
    out: O,
    header_shown: bool,
    page: Page,
}

impl<O: Out> TextSink<O> {
    /// A sink that writes to `out`.
    pub fn new(out: O, options: TextOptions) -> Self {
        Self {
            out,
            header_shown: false,
            page: Page { bytes: Vec::with_capacity(1024), words: Vec::new(), options },
        }
    }

    /// What is on the page goes out, as a whole or not at all.
    fn put(&mut self, weight: Weight) -> io::Result<Shown> {
        self.out.put(&self.page.bytes, weight)
    }
}

impl<O: Out> Sink for TextSink<O> {
    fn start(&mut self, start: &Start) -> io::Result<()> {
        self.page.bytes.clear();
        self.page.start(start)?;
        self.put(Weight::Must)?;
        self.out.flush()
    }

    fn event(&mut self, event: &Event) -> io::Result<Shown> {
        self.page.bytes.clear();
        if !self.header_shown {
            self.page.header()?;
        }
        self.page.event(event)?;
        let shown = self.put(weight(event))?;
        self.header_shown |= shown == Shown::Yes;
        Ok(shown)
    }

    fn lost(&mut self, lost: &Lost) -> io::Result<Shown> {
        self.page.bytes.clear();
        self.page.lost(lost)?;
        self.put(Weight::Note)
    }

    fn closing(&mut self) {
        self.out.closing();
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        self.page.bytes.clear();
        books::write(&mut self.page.bytes, summary)?;
        self.put(Weight::Must)?;
        self.out.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Lines that belong together. Kept from event to event, so that a transition costs no allocation.
#[derive(Debug)]
struct Page {
    bytes: Vec<u8>,
    /// A sentence that is to be wrapped.
    words: Vec<u8>,
    options: TextOptions,
}

impl Page {
    /// Starts and ends a colour, by the number of its escape sequence.
    fn paint(&self, code: &'static str) -> (&'static str, &'static str) {
        if self.options.color && !code.is_empty() { (code, "\x1b[0m") } else { ("", "") }
    }

    fn header(&mut self) -> io::Result<()> {
        const COLUMNS: [&str; 8] =
            ["TIME (UTC)", "EVENT", "PID", "COMM", "LADDR:LPORT", "RADDR:RPORT", "STATE", "REASON"];
        let (on, off) = self.paint("\x1b[1m");
        write!(self.bytes, "{on}")?;
        let mut row = Row::new(&mut self.bytes);
        COLUMNS.iter().try_for_each(|column| row.cell(column))?;
        row.end();
        writeln!(self.bytes, "{off}")
    }

    /// Lines under an event, indented, wrapped.
    fn under(&mut self, first: &str, text: impl Display, color: &'static str) -> io::Result<()> {
        let (on, off) = self.paint(color);
        self.words.clear();
        write!(self.words, "{text}")?;
        // Formatted text is UTF-8.
        let words = str::from_utf8(&self.words).unwrap_or_default();
        for (i, line) in wrap(words, WIDTH - first.len()).enumerate() {
            let lead = if i == 0 { first } else { "" };
            writeln!(self.bytes, "{lead:0$}{on}{line}{off}", first.len())?;
        }
        Ok(())
    }

    fn start(&mut self, start: &Start) -> io::Result<()> {
        let attached = start.hooks.iter().filter(|hook| hook.attached.is_ok()).count();
        writeln!(
            self.bytes,
            "tcpwatch {} on Linux {}, {}: {attached} of {} hooks attached. Ctrl-C ends with a summary.",
            start.version,
            start.kernel,
            time::date(start.time_ns),
            start.hooks.len()
        )?;
        let missing: Vec<_> = start.hooks.iter().filter(|hook| hook.attached.is_err()).collect();
        // With more than a few the host does not grant them as a kind, and the list would push the events off the screen.
        if missing.len() > MISSING_SHOWN {
            let names: Vec<&str> = missing.iter().map(|hook| hook.name.as_str()).collect();
            let text =
                format!("{}. What is not seen without them, and why: tcpwatch doctor", names.join(" "));
            self.under("  not attached: ", &text, "\x1b[33m")?;
        } else {
            for hook in missing {
                let why = hook.attached.as_ref().err().map_or("", String::as_str);
                let blind =
                    hook.sees.as_deref().map(|sees| format!("; not seen: {sees}")).unwrap_or_default();
                self.under("  no ", format_args!("{}: {why}{blind}", hook.name), "\x1b[33m")?;
            }
        }
        self.under("", LEGEND, "\x1b[2m")
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        let (on, off) = self.paint(match event.kind {
            EventKind::RstSent | EventKind::RstReceived => "\x1b[31m",
            EventKind::ListenDrop | EventKind::TwOverflow | EventKind::CloseWaitLeak => "\x1b[33m",
            _ => "",
        });
        write!(self.bytes, "{on}")?;
        let mut row = Row::new(&mut self.bytes);
        let fits = cells(&mut row, event)?;
        writeln!(self.bytes, "{off}")?;
        if !fits {
            self.under("     reason: ", verdict(event), "")?;
        }
        if let Some(cause) = &event.cause {
            let (word, colon) = match cause.certainty {
                Certainty::Certain => ("", ""),
                Certainty::Unknown => ("no evidence", ": "),
                other => (other.name(), ": "),
            };
            let text = format_args!("{}: {word}{colon}{}", cause.id, cause.summary);
            self.under("  => ", text, "\x1b[1m")?;
            for evidence in &cause.evidence {
                self.under("     - ", evidence, "")?;
            }
            if let Some(fix) = &cause.fix {
                self.under("     fix: ", fix, "\x1b[32m")?;
            }
        }
        if let [first, rest @ ..] = &event.history[..] {
            let steps = fmt::from_fn(|f| {
                write!(f, "{}", layout::step(first))?;
                rest.iter().try_for_each(|step| write!(f, ", {}", layout::step(step)))
            });
            self.under("     was: ", steps, "\x1b[2m")?;
        }
        for frame in event.stack.iter().flatten() {
            writeln!(self.bytes, "       {frame}")?;
        }
        Ok(())
    }

    fn lost(&mut self, lost: &Lost) -> io::Result<()> {
        let (on, off) = self.paint("\x1b[1;31m");
        writeln!(
            self.bytes,
            "{on}{} LOST {} events of {}: they came faster than they could be read{off}",
            time::clock(lost.time_ns),
            lost.count,
            lost.hook
        )
    }
}

/// The columns. Each but the last takes at least its width; a longer value pushes the rest to the right and is never
/// cut, for a cut address is worse than a crooked line.
struct Row<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
    column: usize,
    /// Where the next cell begins if none before it is too long.
    due: usize,
}

impl<'a> Row<'a> {
    const WIDTHS: [usize; 8] = [12, 7, 7, 10, 18, 18, 11, 0];

    fn new(bytes: &'a mut Vec<u8>) -> Self {
        let start = bytes.len();
        Self { bytes, start, column: 0, due: 0 }
    }

    fn letters(&self) -> usize {
        letters(&self.bytes[self.start..])
    }

    fn cell(&mut self, cell: impl Display) -> io::Result<()> {
        if self.column > 0 {
            // A long cell may use up the room that the next one leaves.
            let room = self.due.saturating_sub(self.letters()).max(1);
            self.bytes.resize(self.bytes.len() + room, b' ');
        }
        self.due += Self::WIDTHS.get(self.column).unwrap_or(&0) + 1;
        self.column += 1;
        write!(self.bytes, "{cell}")
    }

    /// Nothing but cells counts.
    fn end(&mut self) {
        let end = self.bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
        self.bytes.truncate(end.max(self.start));
    }
}

/// What happened, in a column.
pub(crate) const fn label(kind: EventKind) -> &'static str {
    match kind {
        EventKind::RstSent => "RST-OUT",
        EventKind::RstReceived => "RST-IN",
        EventKind::ListenDrop => "LISTEN",
        EventKind::TwOverflow => "TW-FULL",
        EventKind::CloseWaitLeak => "CW-LEAK",
        EventKind::Drop => "DROP",
        EventKind::State => "STATE",
        EventKind::Retransmit => "RETRANS",
    }
}

/// Fills the row. False: the last column did not fit and is to stand under the line, rather there than over the edge. A
/// transition is nothing without its end.
fn cells(row: &mut Row<'_>, event: &Event) -> io::Result<bool> {
    row.cell(time::clock(event.time_ns))?;
    row.cell(label(event.kind))?;
    let owner = event.owner.as_ref();
    let mark = match owner.map(|owner| owner.how) {
        Some("dead") => "*",
        Some("listener") => "?",
        _ => "",
    };
    match owner.and_then(|owner| owner.pid) {
        Some(pid) => row.cell(format_args!("{pid}{mark}"))?,
        None => row.cell(format_args!("-{mark}"))?,
    }
    row.cell(owner.map_or("-", |owner| owner.comm.as_str()))?;
    for end in [event.local, event.remote] {
        match end {
            Some(end) => row.cell(end)?,
            None => row.cell("-")?,
        }
    }
    if event.kind == EventKind::State {
        row.cell(event.old_state.unwrap_or("-"))?;
        row.cell(transition(event))?;
        row.end();
        return Ok(true);
    }
    row.cell(event.state.unwrap_or("-"))?;
    let without = row.bytes.len();
    row.cell(verdict(event))?;
    row.end();
    let fits = row.letters() <= WIDTH;
    if !fits {
        row.bytes.truncate(without);
    }
    Ok(fits)
}

fn transition(event: &Event) -> impl Display {
    fmt::from_fn(move |f| {
        write!(f, "-> {}", event.new_state.unwrap_or("-"))?;
        event.for_us.map_or(Ok(()), |us| write!(f, " after {}", layout::span(us)))
    })
}

fn verdict(event: &Event) -> impl Display {
    fmt::from_fn(move |f| {
        match (&event.reason, &event.listen) {
            (Some(reason), _) if reason.from == ReasonFrom::Inferred => write!(f, "~{}", reason.name)?,
            (Some(reason), _) => f.write_str(&reason.name)?,
            (None, Some(listen)) => {
                let queue = listen.queue.map_or("-", crate::event::Queue::name);
                write!(f, "{queue}/{}", listen.action.name())?;
            }
            (None, None) => f.write_str("-")?,
        }
        if event.count > 1 { write!(f, " x{}", event.count) } else { Ok(()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Endpoint, OwnerInfo};

    fn shown(event: &Event) -> String {
        let mut out = Vec::new();
        TextSink::new(&mut out, TextOptions::default()).event(event).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn event() -> Event {
        let mut event = Event::new(EventKind::RstSent, 1, 0);
        event.local = Some(Endpoint { addr: "10.9.0.1".parse().unwrap(), port: 54096 });
        event.remote = Some(Endpoint { addr: "10.9.0.2".parse().unwrap(), port: 6379 });
        event
    }

    #[test]
    fn an_unknown_value_is_a_dash() {
        let text = shown(&event());
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("00:00:00.000 RST-OUT -       -          10.9.0.1:54096"), "{line}");
        assert!(line.ends_with("-           -"), "{line}");
    }

    #[test]
    fn a_dead_owner_has_a_mark() {
        let mut event = event();
        event.owner = Some(OwnerInfo {
            pid: Some(812),
            comm: "redis-cli".into(),
            exe: None,
            uid: 0,
            cgroup: None,
            container: None,
            how: "dead",
            start_ns: 0,
            cgroup_id: 0,
        });
        assert!(shown(&event).contains(" 812*    redis-cli "));
    }

    #[test]
    fn a_long_address_pushes_and_is_not_cut() {
        let mut event = event();
        event.local = Some(Endpoint { addr: "fd00:1234:5678:9abc::1".parse().unwrap(), port: 443 });
        assert!(shown(&event).contains("[fd00:1234:5678:9abc::1]:443 10.9.0.2:6379"));
    }

    #[test]
    fn a_reason_that_does_not_fit_goes_under_the_line() {
        let mut event = event();
        event.state = Some("ESTABLISHED");
        event.reason =
            Some(crate::event::Reason { name: "TCP_ABORT_ON_CLOSE".into(), from: ReasonFrom::Kernel });
        let text = shown(&event);
        assert!(text.ends_with(" ESTABLISHED\n     reason: TCP_ABORT_ON_CLOSE\n"), "{text}");
    }

    #[test]
    fn colour_is_only_there_when_asked_for() {
        assert!(!shown(&event()).contains('\x1b'));
        let mut out = Vec::new();
        TextSink::new(&mut out, TextOptions { color: true }).event(&event()).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("\x1b[31m"));
    }
}
