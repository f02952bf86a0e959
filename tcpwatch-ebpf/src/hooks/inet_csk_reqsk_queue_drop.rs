//! `inet_csk_reqsk_queue_drop`: a half-open request is removed. Says nothing itself; the end of `tcp_check_req` asks.
//!
//! kernel: v5.10..  net/ipv4/inet_connection_sock.c  `bool inet_csk_reqsk_queue_drop(struct sock *sk, struct request_sock *req)`

use super::{entry, note_removed};
use crate::context::Hooked;
use crate::kernel::sock::Sock;
use crate::maps::REMOVED_REQUEST;

entry!(handle, inet_csk_reqsk_queue_drop_fentry, inet_csk_reqsk_queue_drop_kprobe);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    note_removed(REMOVED_REQUEST, Sock(context.arg(1)));
    Some(())
}
