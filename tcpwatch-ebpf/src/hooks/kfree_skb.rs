//! Tracepoint `skb:kfree_skb`: a dropped segment. Attached when drops are asked for, and on hosts that let no function be
//! hooked for what it can tell in their stead: RSTs that are not obeyed, last ACKs that a full queue turned away.
//!
//! kernel: v5.10..  `(struct sk_buff *skb, void *location)`
//! kernel: v5.17..  a third argument, `enum skb_drop_reason reason`; v6.11.. a fourth, `struct sock *rx_sk`

use super::{rst_event, tracepoint};
use crate::context::Hooked;
use crate::emit::{self, Event};
use crate::hooks::tcp_syn_recv_sock::refused;
use crate::kernel::config::config;
use crate::kernel::skb::{RST, Segment, Skb};
use crate::kernel::sock::Sock;
use tcpwatch_common::config::deliver;
use tcpwatch_common::record::kind;
use tcpwatch_common::{hook, state};

tracepoint!(handle, kfree_skb);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    let skb = Skb(context.arg(0));
    let reason = if config!(drop_has_reason) == 1 { Some(context.arg(2) as u32) } else { None };
    let sock = if config!(drop_has_socket) == 1 { Sock(context.arg(3)) } else { Sock(0) };
    let segment = skb.segment()?;
    if config!(overflow_from_drops) == 1 && sock.exists() && reason == Some(config!(drop_listen_overflow)) {
        refused(context.context(), hook::KFREE_SKB, sock, skb, reason);
    }
    if config!(ignored_from_drops) != 0 && sock.exists() && segment.packet.flags & RST != 0 {
        ignored(context, sock, &segment, reason);
    }
    if config!(deliver) & deliver::DROP != 0 {
        dropped(context, skb, sock, &segment, reason);
    }
    Some(())
}

/// An accepted RST is freed without this tracepoint, so one that comes here and had a socket was not obeyed.
#[inline(always)]
fn ignored(context: &impl Hooked, sock: Sock, segment: &Segment, reason: Option<u32>) {
    let state = sock.state();
    if config!(ignored_from_drops) == 1 && (state == state::LISTEN || state == state::SYN_SENT) {
        // tcp_rcv_state_process and tcp_check_req are hooked.
        return;
    }
    let flow = segment.flow_of_receiver(sock.netns());
    let mut event = rst_event(kind::RST_IGNORED, hook::KFREE_SKB, flow, sock, state, Some(segment));
    event.reason = reason;
    emit::send(context.context(), &event);
}

#[inline(always)]
fn dropped(context: &impl Hooked, skb: Skb, sock: Sock, segment: &Segment, reason: Option<u32>) {
    emit::send(
        context.context(),
        &Event {
            kind: kind::DROP,
            hook: hook::KFREE_SKB,
            wanted: deliver::DROP,
            flow: segment.flow_of_receiver(skb.netns(sock)),
            sock,
            state: if sock.exists() { sock.state() } else { 0 },
            reason,
            packet: Some(segment.packet),
            listen: None,
            timewait: None,
            flags: 0,
        },
    );
}
