//! `inet_reqsk_alloc`: memory for a half-open request is asked for: neither queue refused the SYN.
//!
//! kernel: v5.10..  net/ipv4/tcp_input.c  `struct request_sock *inet_reqsk_alloc(const struct request_sock_ops *ops, struct sock *sk_listener, bool attach_listener)`

use super::entry;
use crate::context::Hooked;
use crate::hooks::tcp_conn_request::reached;
use tcpwatch_common::record::passed;

entry!(handle, inet_reqsk_alloc_fentry, inet_reqsk_alloc_kprobe);

#[inline(always)]
fn handle(_context: &impl Hooked) -> Option<()> {
    reached(passed::ALLOC);
    Some(())
}
