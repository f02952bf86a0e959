//! Tracepoint `tcp:tcp_rcv_space_adjust`: a process copied data out of the socket. For hosts that let no function be hooked
//! and are older than `sock_recv_length`.
//!
//! kernel: v5.10..  `(struct sock *sk)`, under the socket's lock

use super::tracepoint;
use crate::context::Hooked;
use crate::kernel::sock::Sock;
use crate::owners;

tracepoint!(handle, tcp_rcv_space_adjust);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    let sock = Sock(context.arg(0));
    // Strparser users read in softirq; only a process holds the lock.
    if sock.owned() {
        let memory = owners::memory(sock)?;
        // SAFETY: a map value just found.
        unsafe { owners::read(memory, context) };
    }
    Some(())
}
