//! `tcp_sendmsg`: whoever writes has the descriptor, whoever made the socket.
//!
//! kernel: v5.10..  net/ipv4/tcp.c  `int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)`

use super::entry;
use crate::context::Hooked;
use crate::kernel::sock::Sock;
use crate::owners;

entry!(handle, tcp_sendmsg_fentry, tcp_sendmsg_kprobe);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    let memory = owners::memory(Sock(context.arg(0)))?;
    // SAFETY: a map value just found.
    unsafe { owners::written(memory) };
    Some(())
}
