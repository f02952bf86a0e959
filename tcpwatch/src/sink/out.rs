//! Where the bytes of a sink go: whole pieces, each of which is taken or refused.

use std::io::{self, Write};

/// How much room a piece may claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// One of many: refused where there is no room for all of it, and counted by whoever made it.
    Event,
    /// What is said now and then, of losses above all: it has room beyond what events may fill.
    Note,
    /// The first words and the last: taken in any case.
    Must,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The reader gets all of it.
    Yes,
    /// The reader gets nothing of it: what it was sent before it has not taken yet.
    No,
}

/// An output that knows what it can hold.
pub trait Out {
    /// Takes all of the bytes or none.
    fn put(&mut self, bytes: &[u8], weight: Weight) -> io::Result<Shown>;
    /// What was taken is to be seen; waits for nobody.
    fn flush(&mut self) -> io::Result<()>;
    /// Nothing happens any more that could be missed: from now on a reader who is slow, but reads, is waited for.
    fn closing(&mut self) {}
}

/// A writer takes everything, as slowly as it likes.
impl<W: Write> Out for W {
    fn put(&mut self, bytes: &[u8], _weight: Weight) -> io::Result<Shown> {
        self.write_all(bytes)?;
        Ok(Shown::Yes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Write::flush(self)
    }
}
