//! Text for a human at a terminal: one line an event in the manner of the bcc tools, the cause under it. Fits 100 columns
//! as long as addresses are IPv4.

pub(super) mod books;
pub(super) mod layout;

use super::{Sink, time};
use crate::event::{Certainty, Event, EventKind, Lost, ReasonFrom, Start, Summary};
use layout::{WIDTH, wrap};
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
pub struct TextSink<W> {
    out: W,
    options: TextOptions,
    header_shown: bool,
}

impl<W: Write> TextSink<W> {
    /// A sink that writes to `out`; give it a buffered writer.
    pub fn new(out: W, options: TextOptions) -> Self {
        Self { out, options, header_shown: false }
    }

    /// Starts a colour, by the number of its escape sequence.
    fn paint(&self, code: &'static str) -> (&'static str, &'static str) {
        if self.options.color { (code, "\x1b[0m") } else { ("", "") }
    }

    fn header(&mut self) -> io::Result<()> {
        if self.header_shown {
            return Ok(());
        }
        self.header_shown = true;
        let (on, off) = self.paint("\x1b[1m");
        let columns = row(&COLUMNS.map(str::to_owned));
        writeln!(self.out, "{on}{columns}{off}")
    }

    /// Lines under an event, indented, wrapped.
    fn under(&mut self, first: &str, text: &str, color: &'static str) -> io::Result<()> {
        let (on, off) = self.paint(color);
        let hang = " ".repeat(first.len());
        for (i, line) in wrap(text, WIDTH - first.len()).iter().enumerate() {
            let lead = if i == 0 { first } else { &hang };
            writeln!(self.out, "{lead}{on}{line}{off}")?;
        }
        Ok(())
    }
}

impl<W: Write> Sink for TextSink<W> {
    fn start(&mut self, start: &Start) -> io::Result<()> {
        let attached = start.hooks.iter().filter(|hook| hook.attached.is_ok()).count();
        writeln!(
            self.out,
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
                self.under("  no ", &format!("{}: {why}{blind}", hook.name), "\x1b[33m")?;
            }
        }
        self.under("", LEGEND, "\x1b[2m")?;
        self.out.flush()
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.header()?;
        let mut cells = cells(event);
        let mut line = row(&cells);
        // Rather under the line than over the edge. A transition is nothing without its end.
        let reason = match event.kind {
            EventKind::State => None,
            _ if line.chars().count() <= WIDTH => None,
            _ => cells.last_mut().map(std::mem::take),
        };
        if reason.is_some() {
            line = row(&cells);
        }
        let color = match event.kind {
            EventKind::RstSent | EventKind::RstReceived => "\x1b[31m",
            EventKind::ListenDrop | EventKind::TwOverflow | EventKind::CloseWaitLeak => "\x1b[33m",
            _ => "",
        };
        let (on, off) = if color.is_empty() { ("", "") } else { self.paint(color) };
        writeln!(self.out, "{on}{line}{off}")?;
        if let Some(reason) = reason {
            self.under("     reason: ", &reason, "")?;
        }
        if let Some(cause) = &event.cause {
            let sure = match cause.certainty {
                Certainty::Certain => String::new(),
                Certainty::Unknown => "no evidence: ".to_owned(),
                other => format!("{}: ", other.name()),
            };
            self.under("  => ", &format!("{}: {sure}{}", cause.id, cause.summary), "\x1b[1m")?;
            for evidence in &cause.evidence {
                self.under("     - ", evidence, "")?;
            }
            if let Some(fix) = &cause.fix {
                self.under("     fix: ", fix, "\x1b[32m")?;
            }
        }
        if !event.history.is_empty() {
            let steps: Vec<String> = event.history.iter().map(layout::step).collect();
            self.under("     was: ", &steps.join(", "), "\x1b[2m")?;
        }
        for frame in event.stack.iter().flatten() {
            writeln!(self.out, "       {frame}")?;
        }
        Ok(())
    }

    fn lost(&mut self, lost: &Lost) -> io::Result<()> {
        let (on, off) = self.paint("\x1b[1;31m");
        writeln!(
            self.out,
            "{on}{} LOST {} events of {}: they came faster than they could be read{off}",
            time::clock(lost.time_ns),
            lost.count,
            lost.hook
        )
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        books::write(&mut self.out, summary)?;
        self.out.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

const COLUMNS: [&str; 8] =
    ["TIME (UTC)", "EVENT", "PID", "COMM", "LADDR:LPORT", "RADDR:RPORT", "STATE", "REASON"];

/// The columns. Each but the last takes at least its width; a longer value pushes the rest to the right and is never
/// cut, for a cut address is worse than a crooked line.
fn row(cells: &[String; 8]) -> String {
    const WIDTHS: [usize; 8] = [12, 7, 7, 10, 18, 18, 11, 0];
    let mut line = String::with_capacity(WIDTH);
    let mut due = 0;
    for (cell, width) in cells.iter().zip(WIDTHS) {
        line.push_str(cell);
        // A long cell may use up the room that the next one leaves.
        due += width + 1;
        let used = line.chars().count();
        line.push_str(&" ".repeat(due.saturating_sub(used).max(1)));
    }
    line.truncate(line.trim_end().len());
    line
}

fn cells(event: &Event) -> [String; 8] {
    let label = match event.kind {
        EventKind::RstSent => "RST-OUT",
        EventKind::RstReceived => "RST-IN",
        EventKind::ListenDrop => "LISTEN",
        EventKind::TwOverflow => "TW-FULL",
        EventKind::CloseWaitLeak => "CW-LEAK",
        EventKind::Drop => "DROP",
        EventKind::State => "STATE",
        EventKind::Retransmit => "RETRANS",
    };
    let dash = || "-".to_owned();
    let pid = event.owner.as_ref().map_or_else(dash, |owner| {
        let mark = match owner.how {
            "dead" => "*",
            "listener" => "?",
            _ => "",
        };
        owner.pid.map_or_else(|| format!("-{mark}"), |pid| format!("{pid}{mark}"))
    });
    let comm = event.owner.as_ref().map_or_else(dash, |owner| owner.comm.clone());
    let local = event.local.map_or_else(dash, |local| local.to_string());
    let remote = event.remote.map_or_else(dash, |remote| remote.to_string());
    let (state, reason) = if event.kind == EventKind::State { transition(event) } else { verdict(event) };
    [time::clock(event.time_ns), label.to_owned(), pid, comm, local, remote, state, reason]
}

fn transition(event: &Event) -> (String, String) {
    let since = event.for_us.map(|us| format!(" after {}", layout::span(us))).unwrap_or_default();
    let old = event.old_state.unwrap_or("-").to_owned();
    (old, format!("-> {}{since}", event.new_state.unwrap_or("-")))
}

fn verdict(event: &Event) -> (String, String) {
    let mut last = match (&event.reason, &event.listen) {
        (Some(reason), _) if reason.from == ReasonFrom::Inferred => format!("~{}", reason.name),
        (Some(reason), _) => reason.name.clone(),
        (None, Some(listen)) => {
            format!("{}/{}", listen.queue.map_or("-", crate::event::Queue::name), listen.action.name())
        }
        (None, None) => "-".to_owned(),
    };
    if event.count > 1 {
        last.push_str(&format!(" x{}", event.count));
    }
    (event.state.unwrap_or("-").to_owned(), last)
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
            comm: "redis-cli".to_owned(),
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
            Some(crate::event::Reason { name: "TCP_ABORT_ON_CLOSE".to_owned(), from: ReasonFrom::Kernel });
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
