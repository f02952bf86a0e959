//! The actor's own side: reads acts from descriptor 0 and does them, until the channel closes.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use anyhow::{Context, Result};

use super::proto::{MESSAGE, Op, Reply};
use crate::sys;

/// No act takes longer, so that a scenario that went wrong ends by itself.
const LIMIT: Duration = Duration::from_secs(40);

/// Descriptor of the channel: it takes the place of standard input.
const CHANNEL: RawFd = 0;

/// Runs until the other end of the channel is closed, which happens too when the scenario program dies.
pub fn serve(comm: &str) -> Result<()> {
    sys::set_comm(comm);
    sys::ignore_children();
    let mut buffer = [0; MESSAGE];
    loop {
        let (len, passed) = sys::recv_message(CHANNEL, &mut buffer).context("reading an act")?;
        if len == 0 {
            return Ok(());
        }
        let op: Op = serde_json::from_slice(&buffer[..len]).context("parsing an act")?;
        let Some(reply) = act(op, passed) else { continue };
        let text = serde_json::to_vec(&reply).context("writing a reply")?;
        if sys::send_message(CHANNEL, &text, None, None).is_err() {
            return Ok(());
        }
    }
}

/// The reply, or nothing in a new child: its parent answers.
fn act(op: Op, passed: Option<RawFd>) -> Option<Reply> {
    if let Op::Fork { comm } = op {
        return fork(&comm, passed);
    }
    Some(perform(op).unwrap_or_else(|error| Reply {
        errno: error.raw_os_error().unwrap_or(libc::EIO),
        ..Reply::default()
    }))
}

fn value(value: impl Into<i64>) -> Reply {
    Reply { value: value.into(), ..Reply::default() }
}

fn timed_out() -> io::Error {
    io::Error::from_raw_os_error(libc::ETIME)
}

fn perform(op: Op) -> io::Result<Reply> {
    Ok(match op {
        Op::Socket { v6, mptcp } => {
            let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
            let protocol = if mptcp { libc::IPPROTO_MPTCP } else { libc::IPPROTO_TCP };
            value(sys::socket(domain, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, protocol)?)
        }
        Op::SetInt { fd, level, name, value: number } => {
            sys::set_option(fd, level, name, &number)?;
            Reply::default()
        }
        Op::Linger { fd, seconds } => {
            sys::set_linger(fd, seconds)?;
            Reply::default()
        }
        Op::Bind { fd, addr } => {
            sys::bind(fd, addr)?;
            Reply { local: Some(sys::names(fd)?.0), ..Reply::default() }
        }
        Op::Listen { fd, backlog } => {
            sys::listen(fd, backlog)?;
            Reply::default()
        }
        Op::Connect { fd, addr, wait } => {
            connect(fd, addr, wait)?;
            let (local, remote) = sys::names(fd)?;
            Reply { local: Some(local), remote, ..Reply::default() }
        }
        Op::Accept { fd, millis } => {
            if !sys::poll(fd, libc::POLLIN, Duration::from_millis(millis))? {
                return Err(timed_out());
            }
            let (new, remote) = sys::accept(fd)?;
            Reply {
                value: new.into(),
                local: Some(sys::names(new)?.0),
                remote: Some(remote),
                ..Reply::default()
            }
        }
        Op::Send { fd, len } => value(sys::send(fd, &vec![b'x'; len])? as i64),
        Op::Recv { fd, len } => {
            if !sys::poll(fd, libc::POLLIN, LIMIT)? {
                return Err(timed_out());
            }
            value(sys::recv(fd, &mut vec![0; len])? as i64)
        }
        Op::Shutdown { fd, how } => {
            sys::shutdown(fd, how)?;
            Reply::default()
        }
        Op::Close { fd } => {
            sys::close(fd)?;
            Reply::default()
        }
        Op::Disconnect { fd } => {
            sys::disconnect(fd)?;
            Reply::default()
        }
        Op::Names { fd } => {
            let (local, remote) = sys::names(fd)?;
            Reply { local: Some(local), remote, ..Reply::default() }
        }
        Op::Unread { fd } => value(sys::unread(fd)?),
        Op::AcceptQueue { fd } => value(sys::accept_queue(fd)?),
        Op::Error { fd } => {
            if !sys::poll(fd, 0, LIMIT)? {
                return Err(timed_out());
            }
            value(sys::socket_error(fd)?)
        }
        Op::Rename { comm } => {
            sys::set_comm(&comm);
            Reply::default()
        }
        Op::Inbox { name } => value(sys::inbox(&name)?),
        Op::PostFd { fd, inbox } => {
            let post = sys::socket_owned(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?;
            sys::send_message(std::os::fd::AsRawFd::as_raw_fd(&post), b"fd", Some(fd), Some(&inbox))?;
            Reply::default()
        }
        Op::TakeFd { inbox } => {
            let (_, passed) = sys::recv_message(inbox, &mut [0; 8])?;
            value(passed.ok_or_else(|| io::Error::other("no descriptor in the message"))?)
        }
        Op::Fork { .. } => return Err(io::Error::other("fork is handled before")),
    })
}

fn connect(fd: RawFd, addr: std::net::SocketAddr, wait: bool) -> io::Result<()> {
    match sys::connect(fd, addr) {
        Ok(()) => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    if !wait {
        return Ok(());
    }
    if !sys::poll(fd, libc::POLLOUT, LIMIT)? {
        return Err(timed_out());
    }
    match sys::socket_error(fd)? {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// The child takes the passed descriptor as its channel and is an actor from then on, with a copy of every
/// socket that the parent had.
fn fork(comm: &str, passed: Option<RawFd>) -> Option<Reply> {
    let Some(channel) = passed else {
        return Some(Reply { errno: libc::EINVAL, ..Reply::default() });
    };
    match sys::fork() {
        Ok(0) => {
            if sys::dup_onto(channel, CHANNEL).is_err() || sys::close(channel).is_err() {
                sys::exit_now(1);
            }
            sys::set_comm(comm);
            None
        }
        Ok(pid) => {
            let closed = sys::close(channel);
            Some(closed.map_or_else(
                |error| Reply { errno: error.raw_os_error().unwrap_or(libc::EIO), ..Reply::default() },
                |()| value(pid),
            ))
        }
        Err(error) => Some(Reply { errno: error.raw_os_error().unwrap_or(libc::EIO), ..Reply::default() }),
    }
}
