//! Connections that stay: a great many that are silent, and one that carries data.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::churn::{PORT, connection, listener};
use super::{Limit, Options, Play, loopback};
use crate::net::Netns;
use crate::sys::{self, interrupt_with_us};

/// Connections that are held when nobody says otherwise.
const HELD: u64 = 100_000;

/// Many connections, none of which does anything, in as many processes as the limit of descriptors asks for. They are
/// there before the clock runs.
pub(super) struct Idle {
    netns: Netns,
    count: u64,
    holders: Vec<Child>,
}

impl Idle {
    pub(super) fn new(options: &Options) -> Result<Self> {
        let netns = loopback()?;
        let count = options.count.unwrap_or(HELD);
        // Both ends of a connection, and a few that every process has.
        let each = super::sys::most_descriptors()?.saturating_sub(64) / 2;
        if each == 0 {
            bail!("this process may have next to no descriptors\nhint: raise `ulimit -n`");
        }
        let mut idle = Self { netns, count, holders: Vec::new() };
        for (number, first) in (0..count).step_by(each as usize).enumerate() {
            let port = PORT + number as u16;
            let holder = idle.netns.enter(|| hold_elsewhere(each.min(count - first), port))?;
            idle.holders.push(holder);
        }
        Ok(idle)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            // The end of its input is its end.
            drop(holder.stdin.take());
            let _ = holder.wait();
        }
    }
}

/// Another process with connections of its own, which are there when this comes back.
fn hold_elsewhere(count: u64, port: u16) -> Result<Child> {
    let program = std::env::current_exe().context("finding our own program")?;
    let mut start = Command::new(program);
    start.args(["hold".to_owned(), count.to_string(), port.to_string()]);
    interrupt_with_us(&mut start);
    let mut child =
        start.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting a process")?;
    let mut line = String::new();
    let out = child.stdout.take().context("a process without output")?;
    BufReader::new(out).read_line(&mut line)?;
    if line.trim() != "ready" {
        let _ = child.wait();
        bail!("a process could not hold {count} connections: its words are above");
    }
    Ok(child)
}

/// Holds connections, both ends, until standard input ends.
pub fn hold(count: u64, port: u16) -> Result<()> {
    super::sys::most_descriptors()?;
    let listener = listener(port, 4096)?;
    for turn in 0..count {
        // Both ends stay open until the process ends.
        connection(listener.as_raw_fd(), turn, port)?;
    }
    super::say("ready")?;
    super::wait_for_end()
}

impl Play for Idle {
    fn warm_up(&self) -> u64 {
        0
    }

    /// Sleeps; the connections count as played.
    fn play(&mut self, limit: &Limit) -> Result<u64> {
        if limit.count == 0 {
            return Ok(0);
        }
        sleep(limit.end.saturating_duration_since(Instant::now()));
        Ok(self.count)
    }

    fn netns(&self) -> &Netns {
        &self.netns
    }

    fn proof(&self, total: u64) -> (&'static str, u64) {
        ("CurrEstab", 2 * total)
    }
}

/// Bytes that are sent before they are read: less than any window, so that neither end ever waits for the other.
const PIECE: usize = 32 << 10;

/// One connection; what is sent is read at once.
pub(super) struct Bulk {
    netns: Netns,
    client: RawFd,
    server: RawFd,
    _listener: OwnedFd,
    bytes: Vec<u8>,
}

impl Bulk {
    pub(super) fn new() -> Result<Self> {
        let netns = loopback()?;
        let (listener, (client, server)) = netns.enter(|| {
            let listener = listener(PORT, 1)?;
            let both = connection(listener.as_raw_fd(), 0, PORT)?;
            Ok((listener, both))
        })?;
        Ok(Self { netns, client, server, _listener: listener, bytes: vec![0; PIECE] })
    }

    fn once(&mut self) -> Result<()> {
        let mut sent = 0;
        while sent < PIECE {
            sent += sys::send(self.client, &self.bytes[sent..]).context("sending")?;
        }
        let mut read = 0;
        while read < PIECE {
            read += match sys::recv(self.server, &mut self.bytes) {
                Ok(0) => bail!("the connection ended"),
                Ok(more) => more,
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                    if !sys::poll(self.server, libc::POLLIN, Duration::from_secs(5))? {
                        bail!("{read} of {PIECE} bytes came");
                    }
                    0
                }
                Err(error) => return Err(error).context("receiving"),
            };
        }
        Ok(())
    }
}

impl Play for Bulk {
    fn warm_up(&self) -> u64 {
        2000
    }

    fn play(&mut self, limit: &Limit) -> Result<u64> {
        let mut done = 0;
        while limit.more(done) {
            self.once()?;
            done += 1;
        }
        Ok(done)
    }

    fn netns(&self) -> &Netns {
        &self.netns
    }

    fn proof(&self, total: u64) -> (&'static str, u64) {
        // A piece fits into one segment of loopback, or into two.
        ("OutSegs", total)
    }

    fn bytes(&self) -> u64 {
        PIECE as u64
    }
}
