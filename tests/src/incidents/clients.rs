//! The clients of an incident: threads in a namespace that speak just enough HTTP and redis, and remember how each try ended.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::net::Netns;
use crate::sys;

/// A client that waits longer than this has found the host unreachable.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many tries ended in which way.
#[derive(Default, Debug)]
pub(super) struct Tally {
    pub(super) served: AtomicU64,
    pub(super) reset: AtomicU64,
    pub(super) timed_out: AtomicU64,
}

impl Tally {
    pub(super) fn note(&self, outcome: &io::Result<()>) -> Result<()> {
        let counter = match outcome {
            Ok(()) => &self.served,
            Err(error) => match error.kind() {
                // Not connected any more is what a reset leaves to a late `shutdown()`.
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected => {
                    &self.reset
                }
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => &self.timed_out,
                _ => return Err(io::Error::new(error.kind(), error.to_string()).into()),
            },
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub(super) fn reset(&self) -> u64 {
        self.reset.load(Ordering::Relaxed)
    }

    pub(super) fn timed_out(&self) -> u64 {
        self.timed_out.load(Ordering::Relaxed)
    }
}

pub(super) fn connect(netns: &Netns, to: SocketAddr, limit: Duration) -> Result<io::Result<TcpStream>> {
    netns.enter(|| {
        let stream = TcpStream::connect_timeout(&to, limit);
        if let Ok(stream) = &stream {
            stream.set_read_timeout(Some(limit))?;
            stream.set_write_timeout(Some(limit))?;
            stream.set_nodelay(true)?;
        }
        Ok(stream)
    })
}

/// Reads until the text ends with `end`.
fn read_to(stream: &mut TcpStream, end: &[u8]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while !text.ends_with(end) {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => text.extend(&buffer[..length]),
        }
    }
    Ok(text)
}

/// One request on a connection that stays open. Answers end in a line feed, and nothing else in them does twice.
pub(super) fn get(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: site\r\n\r\n")?;
    read_to(stream, b"done\n").map(drop)
}

/// Requests over one connection until told to stop.
pub(super) fn browse(netns: &Netns, to: SocketAddr, stop: &AtomicBool) -> Result<u64> {
    let mut stream = connect(netns, to, PATIENCE)?.context("connecting to the web server")?;
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        get(&mut stream).context("a request")?;
        count += 1;
    }
    Ok(count)
}

/// One connection, one request, like a visitor; with what it took.
pub(super) fn visit(netns: &Netns, to: SocketAddr, patience: Duration) -> Result<io::Result<()>> {
    Ok(connect(netns, to, patience)?.and_then(|mut stream| get(&mut stream)))
}

/// A report that makes redis busy for 50 ms at a time, until told to stop: it serves nobody else meanwhile.
pub(super) fn report(netns: &Netns, to: SocketAddr, stop: &AtomicBool) -> Result<()> {
    let mut stream = connect(netns, to, PATIENCE)?.context("connecting to redis")?;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(b"DEBUG SLEEP 0.05\r\n").context("a command for redis")?;
        read_to(&mut stream, b"\r\n").context("an answer of redis")?;
    }
    Ok(())
}

/// Fills the list that workers pop from, in one command.
pub(super) fn push_jobs(netns: &Netns, to: SocketAddr, count: usize) -> Result<()> {
    let mut stream = connect(netns, to, PATIENCE)?.context("connecting to redis")?;
    let command = format!("RPUSH jobs{}\r\n", " job".repeat(count));
    stream.write_all(command.as_bytes()).context("filling the list")?;
    let answer = read_to(&mut stream, b"\r\n").context("redis's answer to a full list")?;
    ensure!(
        answer == format!(":{count}\r\n").as_bytes(),
        "redis answered {}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}

/// One pop over a connection of its own, as a worker does it: pop, say goodbye, work on the job, then end the connection
/// properly and see whether it ended well.
pub(super) fn pop(netns: &Netns, to: SocketAddr, work: Duration) -> Result<io::Result<()>> {
    let talk = |mut stream: TcpStream| -> io::Result<()> {
        stream.write_all(b"LPOP jobs\r\nQUIT\r\n")?;
        read_to(&mut stream, b"+OK\r\n")?;
        sleep(work);
        stream.shutdown(Shutdown::Write)?;
        // The answer to our FIN is here at once, or within what the network takes.
        sys::poll(stream.as_raw_fd(), libc::POLLERR, Duration::from_millis(50))?;
        stream.take_error()?.map_or(Ok(()), Err)
    };
    Ok(connect(netns, to, PATIENCE)?.and_then(talk))
}
