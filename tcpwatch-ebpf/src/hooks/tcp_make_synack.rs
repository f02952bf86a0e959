//! `tcp_make_synack`: a SYN-ACK is built, perhaps a cookie.
//!
//! kernel: v5.10..  net/ipv4/tcp_output.c  `struct sk_buff *tcp_make_synack(const struct sock *sk, struct dst_entry *dst, struct request_sock *req, struct tcp_fastopen_cookie *foc, enum tcp_synack_type synack_type, struct sk_buff *syn_skb)`

use super::entry;
use crate::context::Hooked;
use crate::hooks::tcp_conn_request::reached;
use tcpwatch_common::record::passed;

/// `TCP_SYNACK_COOKIE`
const COOKIE: u64 = 2;

entry!(handle, tcp_make_synack_fentry, tcp_make_synack_kprobe);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    let kind = context.arg(4) & 0xffff_ffff;
    reached(if kind == COOKIE { passed::SYNACK | passed::COOKIE } else { passed::SYNACK });
    Some(())
}
