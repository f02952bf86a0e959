//! Where finished events go. A sink sees values only; it knows no kernel.

pub mod diagnosis;
pub mod json;
pub mod out;
pub mod text;
pub mod time;

use crate::event::{Event, Lost, Standing, Start, Summary};
pub use out::{Out, Shown, Weight};
use std::io;

/// One way to show events. The calls come in the order of the life of a run: `start` once, anything, `summary` once.
pub trait Sink {
    /// Every hook is attached.
    fn start(&mut self, start: &Start) -> io::Result<()>;
    /// Shown as a whole, or not at all where the reader is too far behind.
    fn event(&mut self, event: &Event) -> io::Result<Shown>;
    /// Whether it makes something of [`Self::standing`], which costs a look at every namespace.
    fn judges(&self) -> bool {
        false
    }
    /// What the host looks like, after `start` and again before `summary`.
    fn standing(&mut self, _all: &[Standing]) -> io::Result<()> {
        Ok(())
    }
    /// Records found no room. Refused only where the reader has long taken nothing; to be said again then.
    fn lost(&mut self, lost: &Lost) -> io::Result<Shown>;
    /// The programs have stopped: what comes now is the rest, and nothing of what must be said is refused any more.
    fn closing(&mut self);
    /// The books, at the end.
    fn summary(&mut self, summary: &Summary) -> io::Result<()>;
    /// Called when no event waits: what was written so far is to be seen.
    fn flush(&mut self) -> io::Result<()>;
}

/// A leak is told once in a while, and is in no hook's books.
fn weight(event: &Event) -> Weight {
    if event.kind == crate::event::EventKind::CloseWaitLeak { Weight::Note } else { Weight::Event }
}
