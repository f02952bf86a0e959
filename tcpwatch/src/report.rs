//! `tcpwatch report`: a capture as one page of HTML, for whoever was not there.
//!
//! [`gather`] takes what the capture says and keeps a bounded part of it, so that a million events make no longer page than a
//! thousand; [`page`] writes it, with the drawings of [`plot`]. The page asks for nothing: no script, no font, no image from elsewhere.

mod gather;
mod page;
mod plot;

use crate::capture::Host;
use crate::event::{Event, Lost, Standing, Start, Summary};
use crate::sink::{Out, Shown, Sink, Weight};
use gather::Gathered;
use std::io;

/// Gathers a capture, and writes the page at its end.
pub struct ReportSink<O> {
    out: O,
    gathered: Gathered,
}

impl<O: Out> ReportSink<O> {
    /// A sink whose page goes to `out`. `file` is the name of the capture, `host` where it was written.
    pub fn new(out: O, file: String, host: Host) -> Self {
        Self { out, gathered: Gathered::new(file, host) }
    }
}

impl<O: Out> Sink for ReportSink<O> {
    fn start(&mut self, start: &Start) -> io::Result<()> {
        self.gathered.start(start);
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<Shown> {
        self.gathered.event(event);
        Ok(Shown::Yes)
    }

    fn judges(&self) -> bool {
        true
    }

    fn judges_at_end(&self) -> bool {
        true
    }

    fn standing(&mut self, all: &[Standing]) -> io::Result<()> {
        self.gathered.stand(all);
        Ok(())
    }

    fn lost(&mut self, lost: &Lost) -> io::Result<Shown> {
        self.gathered.lost(lost);
        Ok(Shown::Yes)
    }

    fn closing(&mut self) {
        self.out.closing();
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        let page = page::page(&mut self.gathered, summary);
        self.out.put(page.as_bytes(), Weight::Must)?;
        self.out.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests;
