//! `tcp_v6_send_reset`: answers a segment with an RST. Before 6.10 the tracepoint is silent without a full socket, so
//! the function itself is hooked.
//!
//! kernel: v5.10..  net/ipv6/tcp_ipv6.c  `static void tcp_v6_send_reset(const struct sock *sk, struct sk_buff *skb)`
//! kernel: v6.10..  net/ipv6/tcp_ipv6.c  `static void tcp_v6_send_reset(const struct sock *sk, struct sk_buff *skb, enum sk_rst_reason reason)`

use super::entry;
use crate::context::Hooked;
use crate::hooks::tcp_v4_send_reset::answers;
use tcpwatch_common::hook;

entry!(handle, tcp_v6_send_reset_fentry, tcp_v6_send_reset_kprobe);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    answers(context, hook::TCP_V6_SEND_RESET)
}
