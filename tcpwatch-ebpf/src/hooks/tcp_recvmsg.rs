//! `tcp_recvmsg`: whoever reads has the descriptor, whoever made the socket.
//!
//! kernel: v5.10..  net/ipv4/tcp.c  `int tcp_recvmsg(struct sock *sk, ...)`: the other arguments changed four times

use super::entry;
use crate::context::Hooked;
use crate::kernel::sock::Sock;
use crate::owners;

entry!(handle, tcp_recvmsg_fentry, tcp_recvmsg_kprobe);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    let memory = owners::memory(Sock(context.arg(0)))?;
    // SAFETY: a map value just found.
    unsafe { owners::read(memory, context) };
    Some(())
}
