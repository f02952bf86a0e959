//! Tracepoints `sock:sock_send_length` and `sock:sock_recv_length`: use of a socket, for hosts that let no function be
//! hooked. They fire for every family, with `sock->sk`, of which nobody promises that it is there.
//!
//! kernel: v6.3..  `(struct sock *sk, int ret, int flags)`

use super::tracepoint;
use crate::context::Hooked;
use crate::kernel::field::field;
use crate::kernel::sock::Sock;
use crate::owners;
use tcpwatch_common::owner::Memory;
use tcpwatch_common::state;

tracepoint!(sent, sock_send_length);
tracepoint!(received, sock_recv_length);

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

#[inline(always)]
fn sent(context: &impl Hooked) -> Option<()> {
    let memory = used(context)?;
    // SAFETY: a map value just found.
    unsafe { owners::written(memory) };
    Some(())
}

#[inline(always)]
fn received(context: &impl Hooked) -> Option<()> {
    let memory = used(context)?;
    // SAFETY: a map value just found.
    unsafe { owners::read(memory, context) };
    Some(())
}

/// What is remembered of the socket, if it is of TCP.
#[inline(always)]
fn used(context: &impl Hooked) -> Option<*mut Memory> {
    let sock = Sock(context.arg(0));
    let family: u16 = field!(sock.0, sock_family);
    if family != AF_INET && family != AF_INET6 {
        return None;
    }
    // Only TCP's sockets are remembered: one that is known need not be asked what it is.
    if let Some(known) = owners::find(sock) {
        // Who still reads from what has ended owns nothing that would be told.
        // SAFETY: a map value just found.
        return (unsafe { (*known).end_ns } == 0).then_some(known);
    }
    // After the call: the socket may have been destroyed by then, and must not be remembered again.
    if !sock.is_tcp() || sock.state() == state::CLOSE {
        return None;
    }
    owners::begin(sock)
}
