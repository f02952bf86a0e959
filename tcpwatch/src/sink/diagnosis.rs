//! What `tcpwatch diagnose` shows: no events, but what they come to. First what is wrong already, within a second; then, when
//! the watch is over, everything that happened.

mod schema;
mod text;

use super::Sink;
use super::text::TextOptions;
use crate::event::{Event, Lost, Standing, Start, Summary};
use crate::verdict::Collector;
use std::io::{self, Write};

/// How to show it.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    Text(TextOptions),
    /// Two objects, a line each: what was found at the start, and the diagnosis.
    Json,
}

/// Gathers events.
#[derive(Debug)]
pub struct DiagnosisSink<W> {
    out: W,
    form: Form,
    collector: Collector,
    start: Option<Start>,
    lost: u64,
    /// The first answer was given.
    answered: bool,
}

impl<W: Write> DiagnosisSink<W> {
    /// A sink that writes to `out`; give it a buffered writer.
    pub fn new(out: W, form: Form) -> Self {
        Self { out, form, collector: Collector::default(), start: None, lost: 0, answered: false }
    }
}

impl<W: Write> Sink for DiagnosisSink<W> {
    fn start(&mut self, start: &Start) -> io::Result<()> {
        self.start = Some(start.clone());
        match self.form {
            Form::Text(options) => text::start(&mut self.out, options, start),
            Form::Json => Ok(()),
        }
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.collector.take(event);
        Ok(())
    }

    fn judges(&self) -> bool {
        true
    }

    fn standing(&mut self, all: &[Standing]) -> io::Result<()> {
        self.collector.stand(all);
        if std::mem::replace(&mut self.answered, true) {
            return Ok(());
        }
        let found = self.collector.verdicts(0, &[]);
        match self.form {
            Form::Text(options) => text::found(&mut self.out, options, &found)?,
            Form::Json => schema::found(&mut self.out, self.start.as_ref(), &found)?,
        }
        self.out.flush()
    }

    fn lost(&mut self, lost: &Lost) -> io::Result<()> {
        self.lost += lost.count;
        Ok(())
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        let verdicts = self.collector.finish(summary);
        match self.form {
            Form::Text(options) => text::diagnosis(&mut self.out, options, &verdicts, summary, self.lost),
            Form::Json => {
                schema::diagnosis(&mut self.out, self.start.as_ref(), &verdicts, summary, self.lost)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
