//! `inet_csk_complete_hashdance`: a handshake is complete, the child goes to the listener's queue.
//!
//! kernel: v5.10..  net/ipv4/inet_connection_sock.c  `struct sock *inet_csk_complete_hashdance(struct sock *sk, struct sock *child, struct request_sock *req, bool own_req)`

use super::entry;
use crate::context::Hooked;
use crate::kernel::sock::Sock;
use crate::owners;

entry!(handle, inet_csk_complete_hashdance_fentry, inet_csk_complete_hashdance_kprobe);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    owners::inherit(Sock(context.arg(0)), Sock(context.arg(1)));
    Some(())
}
