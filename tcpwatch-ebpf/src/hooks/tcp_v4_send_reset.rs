//! `tcp_v4_send_reset`: answers a segment with an RST. Before 6.10 the tracepoint is silent without a full socket, so
//! the function itself is hooked.
//!
//! kernel: v5.10..  net/ipv4/tcp_ipv4.c  `static void tcp_v4_send_reset(const struct sock *sk, struct sk_buff *skb)`
//! kernel: v6.10..  net/ipv4/tcp_ipv4.c  `static void tcp_v4_send_reset(const struct sock *sk, struct sk_buff *skb, enum sk_rst_reason reason)`

use super::entry;
use crate::context::Hooked;
use crate::emit;
use crate::hooks::tcp_send_reset::passive;
use crate::kernel::skb::{RST, Skb};
use crate::kernel::sock::Sock;
use tcpwatch_common::hook;

entry!(handle, tcp_v4_send_reset_fentry, tcp_v4_send_reset_kprobe);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    answers(context, hook::TCP_V4_SEND_RESET)
}

/// The function is about to answer the segment, unless its own first questions say no: never an RST with an RST, and without a
/// socket only for this host's addresses.
#[inline(always)]
pub fn answers(context: &impl Hooked, hook: u8) -> Option<()> {
    let sock = Sock(context.arg(0));
    let skb = Skb(context.arg(1));
    let segment = skb.segment()?;
    if segment.packet.flags & RST != 0 || (!sock.exists() && !skb.is_for_this_host()) {
        return None;
    }
    let event = passive(hook, sock, skb, &segment, None)?;
    emit::book(event.flow.netns, |row| row.rst_sent += 1);
    emit::send(context.context(), event);
    Some(())
}
