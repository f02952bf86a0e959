//! `inet_csk_reqsk_queue_hash_add`: the half-open request enters the table.
//!
//! kernel: v5.10..  net/ipv4/inet_connection_sock.c  `void inet_csk_reqsk_queue_hash_add(struct sock *sk, struct request_sock *req, unsigned long timeout)`
//! kernel: v6.1..  net/ipv4/inet_connection_sock.c  `bool inet_csk_reqsk_queue_hash_add(struct sock *sk, struct request_sock *req, unsigned long timeout)`
//! kernel: v6.19..  net/ipv4/inet_connection_sock.c  `bool inet_csk_reqsk_queue_hash_add(struct sock *sk, struct request_sock *req)`

use super::entry;
use crate::context::Hooked;
use crate::hooks::tcp_conn_request::reached;
use tcpwatch_common::record::passed;

entry!(handle, inet_csk_reqsk_queue_hash_add_fentry, inet_csk_reqsk_queue_hash_add_kprobe);

#[inline(always)]
fn handle(_context: &impl Hooked) -> Option<()> {
    reached(passed::HASHED);
    Some(())
}
