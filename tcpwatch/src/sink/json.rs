//! JSON lines: one object a line, version 1 of the public schema.

mod line;
pub mod schema;

use super::{Out, Shown, Sink, Weight, weight};
use crate::event::{Event, Lost, Standing, Start, Summary};
use line::Line;
use serde::Serialize;
use std::io;

/// An event as the object of its line, instead of what was in `line`.
pub(crate) fn event(line: &mut Vec<u8>, event: &Event) -> io::Result<()> {
    line.clear();
    schema::Event::from(event).serialize(Line(line))?;
    Ok(())
}

/// The same for the first line.
pub(crate) fn start(line: &mut Vec<u8>, start: &Start) -> io::Result<()> {
    object(line, &schema::Start::from(start))
}

/// The same for losses.
pub(crate) fn lost(line: &mut Vec<u8>, lost: &Lost) -> io::Result<()> {
    object(line, &schema::Lost::from(lost))
}

/// The same for the last line.
pub(crate) fn summary(line: &mut Vec<u8>, summary: &Summary) -> io::Result<()> {
    object(line, &schema::Summary::from(summary))
}

/// The same for what a host looks like, which captures alone have.
pub(crate) fn standing(line: &mut Vec<u8>, all: &[Standing], time_ns: u64) -> io::Result<()> {
    object(line, &schema::Standing::new(all, time_ns))
}

fn object(line: &mut Vec<u8>, object: &impl Serialize) -> io::Result<()> {
    line.clear();
    Ok(serde_json::to_writer(line, object)?)
}

/// Writes one object a line.
#[derive(Debug)]
pub struct JsonSink<O> {
    out: O,
    /// The line at hand. Kept, so that an event costs no allocation.
    line: Vec<u8>,
}

impl<O: Out> JsonSink<O> {
    /// A sink that writes to `out`.
    pub fn new(out: O) -> Self {
        Self { out, line: Vec::with_capacity(1024) }
    }

    /// The line goes out, as a whole or not at all.
    fn put(&mut self, weight: Weight) -> io::Result<Shown> {
        self.line.push(b'\n');
        self.out.put(&self.line, weight)
    }
}

impl<O: Out> Sink for JsonSink<O> {
    fn start(&mut self, start: &Start) -> io::Result<()> {
        self::start(&mut self.line, start)?;
        self.put(Weight::Must)?;
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<Shown> {
        self::event(&mut self.line, event)?;
        self.put(weight(event))
    }

    fn lost(&mut self, lost: &Lost) -> io::Result<Shown> {
        self::lost(&mut self.line, lost)?;
        self.put(Weight::Note)
    }

    fn closing(&mut self) {
        self.out.closing();
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        self::summary(&mut self.line, summary)?;
        self.put(Weight::Must)?;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventKind, HookStatus};

    fn written<T>(write: impl FnOnce(&mut JsonSink<&mut Vec<u8>>) -> T) -> serde_json::Value {
        let mut out = Vec::new();
        write(&mut JsonSink::new(&mut out));
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn what_is_not_known_is_null_and_every_key_is_there() {
        let object = written(|sink| sink.event(&Event::new(EventKind::RstSent, 5, 0)).unwrap());
        let keys = "event time mono_ns netns local remote state owner task reason cause site history listen timewait \
            packet mptcp count";
        for key in keys.split_ascii_whitespace() {
            assert!(object.get(key).is_some(), "{key} is missing");
        }
        for key in "netns local remote state owner task reason cause site listen timewait packet".split(' ') {
            assert!(object[key].is_null(), "{key} is not null");
        }
        assert_eq!(object["event"], "rst_sent");
        assert_eq!(object["time"], "1970-01-01T00:00:00.000000Z");
        assert!(object.get("stack").is_none(), "only with -k");
        assert!(object.get("old_state").is_none(), "only of state events");
    }

    #[test]
    fn a_state_event_has_both_states_even_when_one_is_unknown() {
        let object = written(|sink| sink.event(&Event::new(EventKind::State, 5, 0)).unwrap());
        for key in ["old_state", "new_state", "for_us"] {
            assert!(object.get(key).is_some_and(|value| value.is_null()), "{key}");
        }
    }

    #[test]
    fn hooks_tell_how_or_why_not() {
        let hook = |name: &str, attached| HookStatus { name: name.to_owned(), attached, sees: None };
        let start = Start {
            mono_ns: 1,
            time_ns: 2,
            version: "0.1.0".to_owned(),
            kernel: "6.12".to_owned(),
            hooks: vec![
                hook("tcp_reset", Ok("fentry".to_owned())),
                hook("nf_send_reset", Err("no module".to_owned())),
            ],
        };
        let object = written(|sink| sink.start(&start).unwrap());
        assert_eq!(object["hooks"]["tcp_reset"]["attached"], "fentry");
        assert!(object["hooks"]["nf_send_reset"]["attached"].is_null());
        assert_eq!(object["hooks"]["nf_send_reset"]["why_not"], "no module");
    }
}
