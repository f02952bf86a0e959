//! Tracepoint `tcp:tcp_send_reset`: an RST left, or is about to.
//!
//! kernel: v5.10..  `(const struct sock *sk, const struct sk_buff *skb)`, only with a full socket
//! kernel: v6.10..  `(const struct sock *sk, const struct sk_buff *skb__nullable, const enum sk_rst_reason reason)`
//!
//! `sk` may be NULL in the second form: the typed program goes where the verifier knows that (since 6.13), the raw one elsewhere. `skb` may
//! be NULL in both, and is taken as a number.

use super::tracepoint;
use crate::context::Hooked;
use crate::emit::{self, Event};
use crate::kernel::config::config;
use crate::kernel::field::Structure;
use crate::kernel::skb::{Segment, Skb};
use crate::kernel::sock::Sock;
use tcpwatch_common::config::deliver;
use tcpwatch_common::owner::end;
use tcpwatch_common::record::{flag, kind};
use tcpwatch_common::{hook, state};

tracepoint!(handle, tcp_send_reset, tcp_send_reset_typed);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    let sock = context.sock(0);
    let skb = Skb(context.arg(1));
    if skb.exists() && config!(reset_functions) == 1 {
        // Comes through tcp_v4_send_reset or tcp_v6_send_reset, which also see what this tracepoint is silent about.
        return None;
    }
    let reason = if config!(reset_tracepoint_complete) == 1 { Some(context.number(2) as u32) } else { None };
    let event = if skb.exists() {
        passive(hook::TCP_SEND_RESET, sock.by_address(), skb, &skb.segment()?, reason)?
    } else {
        active(sock, reason)?
    };
    emit::book(event.flow.netns, |row| row.rst_sent += 1);
    emit::send_of(context.context(), event, sock);
    Some(())
}

/// The host's own decision: `close()`, a timer, `ss -K`.
#[inline(always)]
fn active(sock: Sock<impl Structure>, reason: Option<u32>) -> Option<&'static mut Event> {
    if !sock.exists() {
        return None;
    }
    let state = sock.state();
    let flow = sock.flow(Sock::is_full(state));
    let event = Event::begin((kind::RST_SENT, hook::TCP_SEND_RESET, deliver::RST), &flow, sock, state)?;
    // It is closed already, or closes after the RST: tcp_abort(), a timer, MPTCP.
    Some(event.reason(reason).ends(end::RESET_SENT))
}

/// The answer to a segment.
#[inline(always)]
pub fn passive(
    hook: u8,
    sock: Sock,
    skb: Skb,
    segment: &Segment,
    reason: Option<u32>,
) -> Option<&'static mut Event> {
    let flow = segment.flow_of_receiver(skb.netns(sock));
    let mut state = if sock.exists() { sock.state() } else { 0 };
    let mut at = sock;
    if state == state::TIME_WAIT {
        // A minisock: the table of the dead knows more of it, and its substate is what `ss` shows.
        state = sock.tw_substate();
        at = Sock(0);
    }
    let event = Event::begin((kind::RST_SENT, hook, deliver::RST), &flow, at, state)?
        .packet(&segment.packet)
        .reason(reason)
        .flags(if sock.exists() { flag::SOCKET } else { 0 });
    if state == state::LISTEN {
        event.listen(&sock.listen(1));
    }
    if state == state::CLOSE {
        // The segment ended the socket; the next one finds nobody.
        event.ends(end::RESET_SENT);
    }
    Some(event)
}
