//! Where finished events go. A sink sees values only; it knows no kernel.

pub mod diagnosis;
pub mod json;
pub mod text;
pub mod time;

use crate::event::{Event, Lost, Standing, Start, Summary};
use std::io;

/// One way to show events. The calls come in the order of the life of a run: `start` once, anything, `summary` once.
pub trait Sink {
    /// Every hook is attached.
    fn start(&mut self, start: &Start) -> io::Result<()>;
    fn event(&mut self, event: &Event) -> io::Result<()>;
    /// Whether it makes something of [`Self::standing`], which costs a look at every namespace.
    fn judges(&self) -> bool {
        false
    }
    /// What the host looks like, after `start` and again before `summary`.
    fn standing(&mut self, _all: &[Standing]) -> io::Result<()> {
        Ok(())
    }
    /// Records found no room.
    fn lost(&mut self, lost: &Lost) -> io::Result<()>;
    /// The books, at the end.
    fn summary(&mut self, summary: &Summary) -> io::Result<()>;
    /// Called when no event waits: what was written so far is to be seen.
    fn flush(&mut self) -> io::Result<()>;
}
