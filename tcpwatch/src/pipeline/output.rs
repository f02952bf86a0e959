//! Standard output behind a queue of limited length. A thread of its own writes, so that a reader who takes nothing holds
//! up nobody but this thread: not the drain, not the clock, not the signals. What finds no room in the queue is refused as
//! a whole and counted as lost.
//!
//! Blocking writes, because `O_NONBLOCK` would be a property of the pipe or terminal itself and change it under other programs.

use crate::sink::{Out, Shown, Weight};
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of events that may wait for the reader: some ten thousand, as many as the ring buffer holds of the small ones.
const LIMIT: usize = 8 << 20;
/// What notes may fill beyond that: a line about losses a second for a quarter of an hour and more.
const NOTES: usize = 256 << 10;
/// Handed to the writer at once, so that under load neither lock nor wake-up costs an event much.
const CHUNK: usize = 64 << 10;
/// Written at once: a reader who takes that much is seen to read. A file takes chunks as they are, which costs it half as much.
const PIECE: usize = 16 << 10;
/// Chunks kept for the next ones.
const SPARE: usize = 4;
/// At the end, when nothing can be missed any more, events wait for room until the reader took nothing for this long.
const STALLED: Duration = Duration::from_secs(1);
/// Once the run was told to end: a reader who takes nothing for this long is not coming back.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether the reader took something, or the run was told to end.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Bytes handed over and not yet written.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// The writer has a chunk in hand.
    busy: bool,
    /// Threads that wait for a change.
    waiters: usize,
    /// Bytes that the reader took so far.
    taken: u64,
    /// No more chunks will come.
    ended: bool,
    /// The writer has gone, and why if it failed.
    done: bool,
    failed: Option<Failed>,
}

/// An error that can be given more than once.
#[derive(Clone, Copy, Debug)]
struct Failed {
    kind: io::ErrorKind,
    code: Option<i32>,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self { kind: error.kind(), code: error.raw_os_error() }
    }
}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        failed.code.map_or_else(|| Self::from(failed.kind), Self::from_raw_os_error)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, or until there was none for so long; `None`: however long it takes.
    fn wait<'a>(&self, mut state: MutexGuard<'a, State>, limit: Option<Duration>) -> MutexGuard<'a, State> {
        state.waiters += 1;
        let mut state = match limit {
            Some(limit) => self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0,
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.waiters -= 1;
        state
    }

    /// Lets go of the state, and then wakes up who waits for a change of it: sooner, they would wait for the state itself. Mostly
    /// nobody does, and to wake up nobody is a system call too.
    fn tell(&self, state: MutexGuard<'_, State>) {
        let waiters = state.waiters;
        drop(state);
        if waiters > 0 {
            self.changed.notify_all();
        }
    }

    /// The writer's work.
    fn write(&self, out: &mut (impl Write + AsFd)) {
        let is_file = fstat(&*out).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
        let piece = if is_file { usize::MAX } else { PIECE };
        loop {
            let mut state = self.lock();
            let mut chunk = loop {
                if let Some(chunk) = state.chunks.pop_front() {
                    break chunk;
                }
                if state.ended {
                    state.done = true;
                    return self.tell(state);
                }
                state.busy = false;
                state = self.wait(state, None);
            };
            state.busy = true;
            drop(state);
            if let Err(error) = self.write_chunk(out, &chunk, piece) {
                let mut state = self.lock();
                state.failed = Some(error.into());
                state.done = true;
                state.chunks.clear();
                return self.tell(state);
            }
            chunk.clear();
            let mut state = self.lock();
            if state.spare.len() < SPARE && chunk.capacity() <= 2 * CHUNK {
                state.spare.push(chunk);
            }
        }
    }

    fn write_chunk(&self, out: &mut (impl Write + AsFd), mut bytes: &[u8], piece: usize) -> io::Result<()> {
        while !bytes.is_empty() {
            match out.write(&bytes[..bytes.len().min(piece)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = &bytes[count..];
                    self.waiting.fetch_sub(count, Ordering::Relaxed);
                    let mut state = self.lock();
                    state.taken += count as u64;
                    self.tell(state);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody else made the pipe or terminal so.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(out, PollFlags::OUT)], None)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The end of the output that the run holds, to see it through.
#[derive(Debug)]
pub(super) struct Output(Arc<Shared>);

/// The end of it that a sink holds.
#[derive(Debug)]
pub(super) struct Queue {
    shared: Arc<Shared>,
    /// What was not handed over yet.
    chunk: Vec<u8>,
    closing: bool,
    /// The reader was waited for in vain.
    stalled: bool,
}

/// A thread that writes to standard output, and what leads to it.
pub(super) fn stdout() -> Result<(Output, Queue)> {
    let fd = io::stdout().as_fd().try_clone_to_owned().context("cannot use standard output")?;
    queue(File::from(fd))
}

/// The same for another file.
pub(super) fn queue(mut out: impl Write + AsFd + Send + 'static) -> Result<(Output, Queue)> {
    let shared = Arc::new(Shared::default());
    let writer = Arc::clone(&shared);
    std::thread::Builder::new()
        .name("output".to_owned())
        .spawn(move || writer.write(&mut out))
        .context("cannot start the thread that writes")?;
    let queue = Queue {
        shared: Arc::clone(&shared),
        chunk: Vec::with_capacity(CHUNK),
        closing: false,
        stalled: false,
    };
    Ok((Output(shared), queue))
}

impl Output {
    /// No more will come; what there is will be written.
    pub(super) fn end(&self) {
        let mut state = self.0.lock();
        state.ended = true;
        self.0.tell(state);
    }

    /// All of it is written, and well.
    pub(super) fn is_done(&self) -> bool {
        let state = self.0.lock();
        state.done && state.failed.is_none()
    }

    /// Waits until the reader has everything, however long it takes. Once `told` to end, only as long as it reads.
    pub(super) fn finish(self, told: &AtomicBool) -> io::Result<()> {
        self.end();
        let mut state = self.0.lock();
        let (mut taken, mut since) = (state.taken, Instant::now());
        while !state.done {
            if state.taken != taken || !told.load(Ordering::Relaxed) {
                (taken, since) = (state.taken, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                let text = format!("the reader took nothing for {} s", PATIENCE.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            state = self.0.wait(state, Some(LOOK));
        }
        state.failed.map_or(Ok(()), |failed| Err(failed.into()))
    }
}

impl Queue {
    /// Bytes that the reader has not taken.
    fn len(&self) -> usize {
        self.chunk.len() + self.shared.waiting.load(Ordering::Relaxed)
    }

    fn has_room(&self, bytes: usize, weight: Weight) -> bool {
        let limit = match weight {
            Weight::Event => LIMIT,
            Weight::Note if !self.closing => LIMIT + NOTES,
            Weight::Note | Weight::Must => return true,
        };
        self.len() + bytes <= limit
    }

    /// Gives what there is to the writer.
    fn hand_over(&mut self, shared: &Shared, mut state: MutexGuard<'_, State>) {
        let next = state.spare.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK));
        let chunk = std::mem::replace(&mut self.chunk, next);
        self.shared.waiting.fetch_add(chunk.len(), Ordering::Relaxed);
        state.chunks.push_back(chunk);
        shared.tell(state);
    }

    /// Until there is room, or the reader has taken nothing for too long. True: there is.
    fn wait_for_room(&mut self, bytes: usize) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        let (mut taken, mut since) = (state.taken, Instant::now());
        while !self.has_room(bytes, Weight::Event) {
            if state.taken != taken {
                (taken, since) = (state.taken, Instant::now());
            }
            if state.done || since.elapsed() > STALLED {
                self.stalled = true;
                return false;
            }
            state = shared.wait(state, Some(LOOK));
        }
        true
    }
}

impl Out for Queue {
    fn put(&mut self, bytes: &[u8], weight: Weight) -> io::Result<Shown> {
        if !self.has_room(bytes.len(), weight)
            && (!self.closing || self.stalled || !self.wait_for_room(bytes.len()))
        {
            return Ok(Shown::No);
        }
        if !self.chunk.is_empty() && self.chunk.len() + bytes.len() > CHUNK {
            let shared = Arc::clone(&self.shared);
            let state = shared.lock();
            if let Some(failed) = state.failed {
                return Err(failed.into());
            }
            self.hand_over(&shared, state);
        }
        self.chunk.extend_from_slice(bytes);
        Ok(Shown::Yes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let state = shared.lock();
        if let Some(failed) = state.failed {
            return Err(failed.into());
        }
        // A writer that is busy gets whole chunks only: many small ones would take more room than their bytes.
        let at_once = self.closing || !state.busy && state.chunks.is_empty();
        if at_once && !self.chunk.is_empty() {
            self.hand_over(&shared, state);
        }
        Ok(())
    }

    fn closing(&mut self) {
        self.closing = true;
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.closing = true;
        // Whether it failed is for `Output::finish` to say.
        drop(self.flush());
    }
}

#[cfg(test)]
mod tests;
