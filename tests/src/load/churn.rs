//! Connections that come and go on loopback: both ends in this process, one after the other, so that nobody waits.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Limit, Options, Play, Workload, loopback};
use crate::net::Netns;
use crate::sys;

pub(super) const PORT: u16 = 7000;
/// Nobody listens here.
const CLOSED: u16 = 7001;
/// Destinations take turns, 127.0.1.1 to 127.0.1.250: sockets in TIME_WAIT hold a port for one of them only.
const HOSTS: u64 = 250;
/// Room in the TIME_WAIT table of the workload that overflows it.
const FEW: u64 = 100;
/// Backlog of the listener whose queue is kept full.
const SHORT: i32 = 8;

/// Address number `turn`.
pub(super) fn destination(turn: u64, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(127, 0, 1, (turn % HOSTS) as u8 + 1).into(), port)
}

/// A listener on all addresses.
pub(super) fn listener(port: u16, backlog: i32) -> Result<OwnedFd> {
    let fd = sys::socket_owned(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    sys::bind(fd.as_raw_fd(), SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
        .context("binding the listener")?;
    sys::listen(fd.as_raw_fd(), backlog)?;
    Ok(fd)
}

/// A connection, both ends.
pub(super) fn connection(listener: RawFd, turn: u64, port: u16) -> Result<(RawFd, RawFd)> {
    let to = destination(turn, port);
    let client = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0).context("making a socket")?;
    sys::connect(client, to).with_context(|| format!("connecting to {to}"))?;
    let (server, _) = sys::accept(listener).context("accepting a connection")?;
    Ok((client, server))
}

/// Workloads of connections on loopback.
pub(super) struct Churn {
    netns: Netns,
    workload: Workload,
    listener: OwnedFd,
    /// Connections that fill the queue, and stay.
    _full: Vec<OwnedFd>,
    turn: u64,
}

impl Churn {
    pub(super) fn new(options: &Options) -> Result<Self> {
        let netns = loopback()?;
        if options.workload == Workload::TwOverflow {
            netns.sysctl("ipv4/tcp_max_tw_buckets", &FEW.to_string())?;
        }
        let full = options.workload == Workload::AcceptOverflow;
        let (listener, full) = netns.enter(|| {
            let listener = listener(PORT, if full { SHORT } else { 4096 })?;
            let mut held = Vec::new();
            // The queue holds one more than its limit.
            for turn in 0..if full { SHORT as u64 + 1 } else { 0 } {
                let client = sys::socket_owned(libc::AF_INET, libc::SOCK_STREAM, 0)?;
                sys::connect(client.as_raw_fd(), destination(turn, PORT))
                    .context("filling the accept queue")?;
                held.push(client);
            }
            Ok((listener, held))
        })?;
        Ok(Self { netns, workload: options.workload, listener, _full: full, turn: 0 })
    }
}

/// One operation of a workload.
fn once(workload: Workload, listener: RawFd, turn: u64) -> Result<()> {
    match workload {
        Workload::ClosedPort => refused(destination(turn, CLOSED)),
        Workload::AcceptOverflow => unanswered(destination(turn, PORT)),
        _ => {
            let (client, server) = connection(listener, turn, PORT)?;
            if workload == Workload::Rst {
                sys::set_linger(client, 0)?;
            }
            sys::close(client)?;
            read_to_the_end(server)?;
            sys::close(server)?;
            Ok(())
        }
    }
}

/// One connect() that must fail.
fn refused(to: SocketAddr) -> Result<()> {
    let fd = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0).context("making a socket")?;
    let said = sys::connect(fd, to);
    sys::close(fd)?;
    match said {
        Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => Ok(()),
        other => bail!("connecting to the closed port {to}: {other:?} instead of ECONNREFUSED"),
    }
}

/// One connect() whose SYN finds a full queue; given up at once.
fn unanswered(to: SocketAddr) -> Result<()> {
    let fd =
        sys::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0).context("making a socket")?;
    let said = sys::connect(fd, to);
    sys::close(fd)?;
    match said {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        other => bail!("connecting to the full listener {to}: {other:?} instead of EINPROGRESS"),
    }
}

/// Until the peer's FIN or RST, which loopback has delivered already unless the kernel put it off.
fn read_to_the_end(fd: RawFd) -> Result<()> {
    let mut bytes = [0; 16];
    loop {
        match sys::recv(fd, &mut bytes) {
            Ok(0) => return Ok(()),
            Ok(more) => bail!("{more} bytes came that nobody sent"),
            Err(error) => match error.raw_os_error() {
                Some(libc::ECONNRESET) => return Ok(()),
                Some(libc::EAGAIN) if sys::poll(fd, libc::POLLIN, Duration::from_secs(5))? => {}
                _ => return Err(error).context("waiting for the peer's end"),
            },
        }
    }
}

impl Play for Churn {
    fn warm_up(&self) -> u64 {
        2000
    }

    fn play(&mut self, limit: &Limit) -> Result<u64> {
        let mut done = 0;
        while limit.more(done) {
            once(self.workload, self.listener.as_raw_fd(), self.turn)?;
            self.turn += 1;
            done += 1;
        }
        Ok(done)
    }

    fn netns(&self) -> &Netns {
        &self.netns
    }

    fn proof(&self, total: u64) -> (&'static str, u64) {
        match self.workload {
            Workload::Rst | Workload::ClosedPort => ("OutRsts", total),
            Workload::AcceptOverflow => ("ListenDrops", total),
            Workload::TwOverflow => ("TCPTimeWaitOverflow", total.saturating_sub(2 * FEW)),
            _ => ("PassiveOpens", total),
        }
    }
}
