//! Tracepoint `skb:kfree_skb`: a dropped segment. Attached when drops are asked for, and on hosts that let no function be
//! hooked for what it can tell in their stead: RSTs that are not obeyed, last ACKs that a full queue turned away.
//!
//! kernel: v5.10..  `(struct sk_buff *skb, void *location)`
//! kernel: v5.17..  `(struct sk_buff *skb, void *location, enum skb_drop_reason reason)`
//! kernel: v6.11..  `(struct sk_buff *skb, void *location, enum skb_drop_reason reason, struct sock *rx_sk)`
//! kernel: v7.2..  `(struct sk_buff *skb, void *location, enum skb_drop_reason reason, const struct sock *rx_sk)`

use super::tracepoint;
use crate::context::Hooked;
use crate::emit::{self, Event};
use crate::kernel::config::config;
use crate::kernel::skb::{RST, Skb};
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
    if config!(deliver) & deliver::DROP == 0 && !sock.exists() {
        // Nobody's segment, as most are that the host drops in the normal course of things.
        return None;
    }
    let segment = skb.segment()?;
    let state = if sock.exists() { sock.state() } else { 0 };
    let overflow =
        sock.exists() && reason == Some(config!(drop_listen_overflow)) && config!(overflow_from_drops) == 1;
    let (kind, wanted) = if overflow {
        (kind::LISTEN_DROP, deliver::LISTEN)
    } else if sock.exists() && segment.packet.flags & RST != 0 && stands_for_ignored(state, reason) {
        // An accepted RST is freed without this tracepoint, so one that comes here and had a socket was not obeyed.
        (kind::RST_IGNORED, deliver::RST)
    } else if config!(deliver) & deliver::DROP != 0 {
        (kind::DROP, deliver::DROP)
    } else {
        return None;
    };
    let flow = segment.flow_of_receiver(skb.netns(sock));
    let event = Event::begin((kind, hook::KFREE_SKB, wanted), &flow, sock, state)?
        .packet(&segment.packet)
        .reason(reason);
    if overflow {
        emit::book(flow.netns, |row| row.listen_drops += 1);
        event.listen(&sock.listen(1));
    }
    // At one place: it is most of what the verifier has to walk.
    emit::send(context.context(), event);
    Some(())
}

/// Whether this means that a socket did not obey an RST, and no other hook tells of it.
///
/// Minisocks free the segment whether they obey or not. So does a half-open request, for which the listener stands here: only
/// the listener itself gives the reason `TCP_RESET`.
#[inline(always)]
fn stands_for_ignored(state: u8, reason: Option<u32>) -> bool {
    let all = config!(ignored_from_drops) == 2;
    match state {
        state::TIME_WAIT | state::NEW_SYN_RECV => false,
        state::LISTEN => all && reason == Some(config!(drop_tcp_reset)),
        state::SYN_SENT => all,
        _ => config!(ignored_from_drops) != 0,
    }
}
