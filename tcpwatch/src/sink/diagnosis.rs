//! What `tcpwatch diagnose` shows: no events, but what they come to. First what is wrong already, within a second; then, when
//! the watch is over, everything that happened.

mod schema;
mod text;

use super::text::TextOptions;
use super::{Out, Shown, Sink, Weight};
use crate::event::{Event, Lost, Standing, Start, Summary};
use crate::verdict::Collector;
use std::io;

/// How to show it.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    Text(TextOptions),
    /// Two objects, a line each: what was found at the start, and the diagnosis.
    Json,
}

/// Gathers events.
#[derive(Debug)]
pub struct DiagnosisSink<O> {
    out: O,
    form: Form,
    collector: Collector,
    start: Option<Start>,
    lost: u64,
    /// The first answer was given.
    answered: bool,
}

impl<O: Out> DiagnosisSink<O> {
    /// A sink that writes to `out`.
    pub fn new(out: O, form: Form) -> Self {
        Self { out, form, collector: Collector::default(), start: None, lost: 0, answered: false }
    }
}

impl<O: Out> DiagnosisSink<O> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.put(bytes, Weight::Must)?;
        Ok(())
    }
}

impl<O: Out> Sink for DiagnosisSink<O> {
    fn start(&mut self, start: &Start) -> io::Result<()> {
        self.start = Some(start.clone());
        let Form::Text(options) = self.form else { return Ok(()) };
        let mut page = Vec::new();
        text::start(&mut page, options, start)?;
        self.put(&page)?;
        self.out.flush()
    }

    fn event(&mut self, event: &Event) -> io::Result<Shown> {
        self.collector.take(event);
        Ok(Shown::Yes)
    }

    fn judges(&self) -> bool {
        true
    }

    fn judges_at_end(&self) -> bool {
        true
    }

    fn standing(&mut self, all: &[Standing]) -> io::Result<()> {
        self.collector.stand(all);
        if std::mem::replace(&mut self.answered, true) {
            return Ok(());
        }
        let found = self.collector.verdicts(0, &[]);
        let mut page = Vec::new();
        match self.form {
            Form::Text(options) => text::found(&mut page, options, &found)?,
            Form::Json => schema::found(&mut page, self.start.as_ref(), &found)?,
        }
        self.put(&page)?;
        self.out.flush()
    }

    fn lost(&mut self, lost: &Lost) -> io::Result<Shown> {
        self.lost += lost.count;
        Ok(Shown::Yes)
    }

    fn closing(&mut self) {
        self.out.closing();
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        let verdicts = self.collector.finish(summary);
        let mut page = Vec::new();
        match self.form {
            Form::Text(options) => text::diagnosis(&mut page, options, &verdicts, summary, self.lost)?,
            Form::Json => schema::diagnosis(&mut page, self.start.as_ref(), &verdicts, summary, self.lost)?,
        }
        self.put(&page)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
