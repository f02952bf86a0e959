//! Entries for the systemd journal, in its native protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): one datagram each, with
//! fields to search by: `journalctl TCPWATCH_CAUSE=linger-zero`.

use crate::event::{Event, EventKind, Lost};
use crate::sink::{Shown, json};
use anyhow::{Context, Result};
use std::os::unix::net::UnixDatagram;

const SOCKET: &str = "/run/systemd/journal/socket";
/// syslog's levels.
const WARNING: u8 = 4;
const INFO: u8 = 6;

/// The journal's socket.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    entry: Vec<u8>,
    line: Vec<u8>,
}

/// Appends a field. A value of several lines has its length in front.
fn field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

/// The fields of an event.
fn entry(entry: &mut Vec<u8>, event: &Event, line: &[u8]) {
    entry.clear();
    let mut add = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            field(entry, name, value.as_bytes());
        }
    };
    let cause = event.cause.as_ref();
    let message = cause.map_or_else(|| event.kind.name().to_owned(), |cause| cause.summary.clone());
    let priority =
        if matches!(event.kind, EventKind::State | EventKind::RstReceived) { INFO } else { WARNING };
    let end = |end: Option<crate::event::Endpoint>| end.map(|end| end.to_string());
    let owner = event.owner.as_ref();
    add("MESSAGE", Some(&message));
    add("PRIORITY", Some(&priority.to_string()));
    add("SYSLOG_IDENTIFIER", Some("tcpwatch"));
    add("TCPWATCH_KIND", Some(event.kind.name()));
    add("TCPWATCH_CAUSE", cause.map(|cause| cause.id));
    add("TCPWATCH_CERTAINTY", cause.map(|cause| cause.certainty.name()));
    add("TCPWATCH_FIX", cause.and_then(|cause| cause.fix.as_deref()));
    add("TCPWATCH_LOCAL", end(event.local).as_deref());
    add("TCPWATCH_REMOTE", end(event.remote).as_deref());
    add("TCPWATCH_NETNS", event.netns.map(|netns| netns.to_string()).as_deref());
    add("TCPWATCH_STATE", event.state);
    add("TCPWATCH_REASON", event.reason.as_ref().map(|reason| reason.name.as_str()));
    // What the journal calls the process that an entry is about, and its own program for it.
    add("OBJECT_PID", owner.and_then(|owner| owner.pid).map(|pid| pid.to_string()).as_deref());
    add("TCPWATCH_COMM", owner.map(|owner| owner.comm.as_str()));
    add("TCPWATCH_CONTAINER", owner.and_then(|owner| owner.container.as_deref()));
    add("TCPWATCH_COUNT", (event.count > 1).then(|| event.count.to_string()).as_deref());
    add("TCPWATCH_EVENT", std::str::from_utf8(line).ok());
}

impl Journal {
    /// Connects.
    ///
    /// # Errors
    /// This host has no journal.
    pub(super) fn open() -> Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET).with_context(|| {
            format!(
                "cannot reach the journal at {SOCKET}\nhint: `journal = false`, or start systemd-journald"
            )
        })?;
        // A journal that is behind must not hold up the drain.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, entry: Vec::new(), line: Vec::new() })
    }

    /// Whether it was taken.
    pub(super) fn event(&mut self, event: &Event) -> Shown {
        if json::event(&mut self.line, event).is_err() {
            return Shown::No;
        }
        entry(&mut self.entry, event, &self.line);
        self.send()
    }

    pub(super) fn lost(&mut self, lost: &Lost) {
        self.entry.clear();
        field(
            &mut self.entry,
            "MESSAGE",
            format!("{} events of {} were lost", lost.count, lost.hook).as_bytes(),
        );
        field(&mut self.entry, "PRIORITY", WARNING.to_string().as_bytes());
        field(&mut self.entry, "SYSLOG_IDENTIFIER", b"tcpwatch");
        self.send();
    }

    fn send(&self) -> Shown {
        match self.socket.send(&self.entry) {
            Ok(sent) if sent == self.entry.len() => Shown::Yes,
            _ => Shown::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_several_lines_have_their_length_in_front() {
        let mut all = Vec::new();
        field(&mut all, "A", b"one line");
        field(&mut all, "B", b"two\nlines");
        assert_eq!(all, b"A=one line\nB\n\x09\0\0\0\0\0\0\0two\nlines\n");
    }

    #[test]
    fn an_entry_has_fields_to_search_by_and_the_whole_event() {
        let mut event = Event::new(EventKind::RstSent, 1, 2);
        event.netns = Some(7);
        let (mut line, mut all) = (Vec::new(), Vec::new());
        json::event(&mut line, &event).unwrap();
        entry(&mut all, &event, &line);
        let text = String::from_utf8(all).unwrap();
        let first = text.lines().next();
        assert_eq!(first, Some("MESSAGE=rst_sent"));
        assert!(
            text.contains("\nTCPWATCH_NETNS=7\n")
                && text.contains("\nTCPWATCH_EVENT={\"event\":\"rst_sent\"")
        );
        assert!(!text.contains("TCPWATCH_CAUSE"), "what is not known is not there");
    }
}
