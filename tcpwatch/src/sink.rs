//! Where finished events go. A sink sees values only; it knows no kernel.

pub mod diagnosis;
pub mod json;
pub mod out;
pub mod text;
pub mod time;

use crate::event::{Event, Lost, Standing, Start, Summary};
pub use out::{Out, Shown, Weight};
use std::io;
use std::time::Duration;

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
    /// Whether all it shows is shown by [`Self::summary`], so that a capture without books needs one put together.
    fn judges_at_end(&self) -> bool {
        false
    }
    /// How often it wants [`Self::standing`].
    fn looks_again(&self) -> Option<Duration> {
        None
    }
    /// Whoever looks at it has seen enough.
    fn over(&self) -> bool {
        false
    }
    /// How many times as fast as it happened a capture is to be shown; `None`: at once.
    fn plays_at(&self) -> Option<f64> {
        None
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

/// Two sinks that are shown the same. What the first has no room for the second does not see, so that the first, a capture,
/// never has less than was shown.
pub struct Both<A>(pub A, pub Box<dyn Sink>);

impl<A: Sink> Sink for Both<A> {
    fn start(&mut self, start: &Start) -> io::Result<()> {
        self.0.start(start)?;
        self.1.start(start)
    }

    fn event(&mut self, event: &Event) -> io::Result<Shown> {
        match self.0.event(event)? {
            Shown::Yes => self.1.event(event),
            Shown::No => Ok(Shown::No),
        }
    }

    fn judges(&self) -> bool {
        self.0.judges() || self.1.judges()
    }

    fn judges_at_end(&self) -> bool {
        self.1.judges_at_end()
    }

    fn looks_again(&self) -> Option<Duration> {
        self.1.looks_again()
    }

    fn over(&self) -> bool {
        self.1.over()
    }

    fn plays_at(&self) -> Option<f64> {
        self.1.plays_at()
    }

    fn standing(&mut self, all: &[Standing]) -> io::Result<()> {
        self.0.standing(all)?;
        self.1.standing(all)
    }

    fn lost(&mut self, lost: &Lost) -> io::Result<Shown> {
        match self.0.lost(lost)? {
            Shown::Yes => self.1.lost(lost),
            Shown::No => Ok(Shown::No),
        }
    }

    fn closing(&mut self) {
        self.0.closing();
        self.1.closing();
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        self.0.summary(summary)?;
        self.1.summary(summary)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        self.1.flush()
    }
}

/// A leak is told once in a while, and is in no hook's books.
pub(crate) fn weight(event: &Event) -> Weight {
    if event.kind == crate::event::EventKind::CloseWaitLeak { Weight::Note } else { Weight::Event }
}
