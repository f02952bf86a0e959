//! `inet_child_forget`: the listener goes away and its waiting children with it, also children older than tcpwatch.
//!
//! kernel: v5.10..  net/ipv4/inet_connection_sock.c  `static void inet_child_forget(struct sock *sk, struct request_sock *req, struct sock *child)`

use super::entry;
use crate::context::Hooked;
use crate::kernel::sock::Sock;
use crate::owners;

entry!(handle, inet_child_forget_fentry, inet_child_forget_kprobe);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    owners::inherit(Sock(context.arg(0)), Sock(context.arg(2)));
    Some(())
}
