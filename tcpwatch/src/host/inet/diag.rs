//! The kernel's socket diagnostics: a listing of TCP sockets over netlink, filtered by state in the kernel.
//!
//! Asking has the kernel load the module `tcp_diag` if it is not there, as `ss` does.

use super::tables::Row;
use crate::event::Endpoint;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How often to begin anew when sockets came and went meanwhile.
pub(super) const TRIES: u32 = 3;
/// The kernel answers while it is asked. Longer than any listing takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// The kernel fills 32 KiB at most at a time.
const BUFFER: usize = 64 * 1024;
/// Messages begin at multiples of this.
const ALIGN: usize = 4;

/// How a listing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    /// The caller wanted no more.
    Enough,
    /// The kernel says that the list changed while it was read.
    Interrupted,
}

/// Why there is no listing.
#[derive(Debug)]
pub(super) enum Failure {
    /// A call failed, or the kernel refused the request.
    Kernel(io::Error),
    /// The answer cannot be understood.
    Malformed(String),
    /// An answer longer than the kernel makes them.
    Cut { length: usize },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What a kernel without the module or without the feature says.
            Self::Kernel(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                f.write_str("the kernel has no module tcp_diag")
            }
            Self::Kernel(error) => error.fmt(f),
            Self::Malformed(why) => write!(f, "the kernel's answer cannot be understood: {why}"),
            Self::Cut { length } => write!(f, "the kernel's answer was cut off: it had {length} bytes"),
        }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Kernel(errno.into())
    }
}

/// Every state but ESTABLISHED and TIME_WAIT, in which sockets are many. Not FIN_WAIT2: that would bring the TIME_WAIT sockets that
/// stand for one.
pub(super) const NOTEWORTHY: StateFlags = StateFlags::LISTEN
    .union(StateFlags::SYN_RECV)
    .union(StateFlags::CLOSE_WAIT)
    .union(StateFlags::SYN_SENT)
    .union(StateFlags::FIN_WAIT1)
    .union(StateFlags::LAST_ACK)
    .union(StateFlags::CLOSING);

/// Hands out the TCP sockets of the namespace that the calling thread is in, IPv4 and IPv6, that are in one of these states,
/// until `take` says no.
pub(super) fn dump(states: StateFlags, mut take: impl FnMut(Row) -> bool) -> Result<End, Failure> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    let mut buffer = vec![0; BUFFER];
    for (sequence, family) in [(1, AF_INET), (2, AF_INET6)] {
        send(&socket, &request(family, states.clone(), sequence), SendFlags::empty())?;
        match answer(|buffer| receive(&socket, buffer), &mut buffer, sequence, &mut take) {
            Ok(End::Whole) => {}
            // A kernel without IPv6.
            Err(Failure::Kernel(error)) if family == AF_INET6 && is_absent(&error) => {}
            end => return end,
        }
    }
    Ok(End::Whole)
}

fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match recv(socket, &mut *buffer, RecvFlags::TRUNC) {
            Ok((_, length)) => return Ok(length),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn request(family: u8, states: StateFlags, sequence: u32) -> Vec<u8> {
    let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    let request =
        InetRequest { family, protocol: IPPROTO_TCP, extensions: ExtensionFlags::INFO, states, socket_id };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Reads an answer to its end. `receive` gives the length that a piece has, be it longer than the buffer.
fn answer(
    mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
    buffer: &mut [u8],
    sequence: u32,
    take: &mut impl FnMut(Row) -> bool,
) -> Result<End, Failure> {
    let mut interrupted = false;
    loop {
        let length = receive(buffer).map_err(Failure::Kernel)?;
        let mut rest = buffer.get(..length).ok_or(Failure::Cut { length })?;
        if rest.is_empty() {
            return Err(Failure::Malformed("it ends before it is done".to_owned()));
        }
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|error| Failure::Malformed(error.to_string()))?;
            // `deserialize` has refused a length below that of the header and beyond the rest.
            let length = usize::try_from(message.header.length).unwrap_or(rest.len()).max(ALIGN);
            rest = rest.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
            if message.header.sequence_number != sequence {
                continue;
            }
            interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) => {
                    let wants_more = take(row(&socket));
                    if !wants_more {
                        return Ok(End::Enough);
                    }
                }
                NetlinkPayload::Done(done) if done.code < 0 => return Err(refused(done.code)),
                NetlinkPayload::Done(_) if interrupted => return Ok(End::Interrupted),
                NetlinkPayload::Done(_) => return Ok(End::Whole),
                NetlinkPayload::Error(error) => return Err(refused(error.code.map_or(0, i32::from))),
                _ => {}
            }
        }
    }
}

fn refused(code: i32) -> Failure {
    Failure::Kernel(io::Error::from_raw_os_error(code.wrapping_neg()))
}

fn row(socket: &InetResponse) -> Row {
    let header = &socket.header;
    let id = &header.socket_id;
    Row {
        state: header.state,
        local: Endpoint { addr: id.source_address.to_canonical(), port: id.source_port },
        remote: Endpoint { addr: id.destination_address.to_canonical(), port: id.destination_port },
        inode: u64::from(header.inode),
        uid: header.uid,
        receive: header.recv_queue,
        send: Some(header.send_queue),
        quiet_ms: socket.nlas.iter().find_map(quiet),
    }
}

/// `tcpi_last_ack_recv` of `struct tcp_info`: milliseconds since a segment came that acknowledges, as all but a SYN do.
fn quiet(nla: &Nla) -> Option<u32> {
    const LAST_ACK_RECV: usize = 56;
    let Nla::TcpInfo(info) = nla else { return None };
    let bytes = info.get(LAST_ACK_RECV..LAST_ACK_RECV + size_of::<u32>())?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests;
