//! `tcp_reset`: the socket obeys an RST. Also called, falsely, for data that arrives after `shutdown()`: told apart by
//! the segment's RST bit, and where the function has no segment by the caller, in user space.
//!
//! kernel: v5.10..  net/ipv4/tcp_input.c  `void tcp_reset(struct sock *sk)`
//! kernel: v5.13..  net/ipv4/tcp_input.c  `void tcp_reset(struct sock *sk, struct sk_buff *skb)`

use super::entry;
use crate::context::Hooked;
use crate::emit::{self, Event};
use crate::kernel::config::config;
use crate::kernel::field::Structure;
use crate::kernel::skb::{RST, Segment, Skb};
use crate::kernel::sock::Sock;
use tcpwatch_common::config::deliver;
use tcpwatch_common::hook;
use tcpwatch_common::owner::end;
use tcpwatch_common::record::kind;

entry!(handle, tcp_reset_fentry, tcp_reset_kprobe);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    let sock = Sock(context.arg(0));
    if config!(reset_has_skb) == 1 {
        let segment = Skb(context.arg(1)).segment()?;
        if segment.packet.flags & RST == 0 {
            return None;
        }
        received(context, hook::TCP_RESET, sock, Some(&segment))
    } else {
        received(context, hook::TCP_RESET, sock, None)
    }
}

/// An RST that the socket obeys. Still in its old state.
#[inline(always)]
pub fn received(
    context: &impl Hooked,
    hook: u8,
    sock: Sock<impl Structure>,
    segment: Option<&Segment>,
) -> Option<()> {
    let state = sock.state();
    let flow = sock.flow(Sock::is_full(state));
    let event = Event::begin((kind::RST_RECEIVED, hook, deliver::RST), &flow, sock, state)?;
    if let Some(segment) = segment {
        event.packet(&segment.packet);
    }
    emit::send_of(context.context(), event.ends(end::RESET_RECEIVED), sock);
    Some(())
}
