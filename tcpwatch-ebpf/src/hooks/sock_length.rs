//! Tracepoints `sock:sock_send_length` and `sock:sock_recv_length`: use of a socket, for hosts that let no function be
//! hooked. They fire for every family, with `sock->sk`, of which nobody promises that it is there.
//!
//! kernel: v6.3..  `(struct sock *sk, int ret, int flags)`

use super::tracepoint;
use crate::context::Hooked;
use crate::kernel::field::field;
use crate::kernel::sock::Sock;
use crate::owners;
use tcpwatch_common::state;

tracepoint!(sent, sock_send_length);
tracepoint!(received, sock_recv_length);

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

#[inline(always)]
fn sent(context: &impl Hooked) -> Option<()> {
    owners::written(used(context)?);
    Some(())
}

#[inline(always)]
fn received(context: &impl Hooked) -> Option<()> {
    owners::read(used(context)?, context);
    Some(())
}

/// The socket, if it is of TCP and still open.
#[inline(always)]
fn used(context: &impl Hooked) -> Option<Sock> {
    let sock = Sock(context.arg(0));
    let family: u16 = field!(sock.0, sock_family);
    if (family != AF_INET && family != AF_INET6) || !sock.is_tcp() {
        return None;
    }
    // After the call: the socket may have been destroyed by then, and must not be remembered again.
    (sock.state() != state::CLOSE).then_some(sock)
}
