//! `inet_csk_reqsk_queue_add`: a child goes to a listener's queue, also from a cookie or to another listener of the same
//! port. (The compiler may have inlined it into `inet_csk_complete_hashdance`, which is hooked too.)
//!
//! kernel: v5.10..  net/ipv4/inet_connection_sock.c  `struct sock *inet_csk_reqsk_queue_add(struct sock *sk, struct request_sock *req, struct sock *child)`

use super::entry;
use crate::context::Hooked;
use crate::kernel::sock::Sock;
use crate::owners;

entry!(handle, inet_csk_reqsk_queue_add_fentry, inet_csk_reqsk_queue_add_kprobe);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    owners::inherit(Sock(context.arg(0)), Sock(context.arg(2)));
    Some(())
}
