//! `tcp_check_req`, its end: an RST met a half-open request. `tcp_reset` is not called for those.
//!
//! kernel: v5.10..  net/ipv4/tcp_minisocks.c  `struct sock *tcp_check_req(struct sock *sk, struct sk_buff *skb, struct request_sock *req, bool fastopen, bool *req_stolen)`
//! kernel: v6.14..  net/ipv4/tcp_minisocks.c  `struct sock *tcp_check_req(struct sock *sk, struct sk_buff *skb, struct request_sock *req, bool fastopen, bool *req_stolen, enum skb_drop_reason *drop_reason)`

use super::{exit, was_removed};
use crate::context::Returned;
use crate::emit::{self, Event};
use crate::kernel::skb::{RST, Skb};
use crate::kernel::sock::Sock;
use crate::maps::REMOVED_REQUEST;
use tcpwatch_common::config::deliver;
use tcpwatch_common::hook;
use tcpwatch_common::record::{flag, kind};
use tcpwatch_common::state;

exit!(
    handle,
    hook::TCP_CHECK_REQ,
    args_tcp_check_req,
    tcp_check_req_fexit,
    tcp_check_req_kprobe,
    tcp_check_req_kretprobe
);

#[inline(always)]
fn handle(context: &impl Returned) -> Option<()> {
    if context.returned() != 0 {
        // A child was born, or the segment goes on to the listener, which tcp_rcv_state_process sees.
        return None;
    }
    let segment = Skb(context.arg(1)).segment()?;
    if segment.packet.flags & RST == 0 {
        return None;
    }
    let listener = Sock(context.arg(0));
    // The note may be about an earlier request at this address, which went the moment before; this one is still held here.
    let request = Sock(context.arg(2));
    let killed = was_removed(REMOVED_REQUEST, request) && request.is_unhashed();
    let kind = if killed { kind::RST_RECEIVED } else { kind::RST_IGNORED };
    let flow = segment.flow_of_receiver(listener.netns());
    // The listener stands in for the request: its owner is the one to know.
    let what = (kind, hook::TCP_CHECK_REQ, deliver::RST);
    let event = Event::begin(what, &flow, listener, state::LISTEN)?
        .packet(&segment.packet)
        .flags(if killed { flag::KILLED } else { 0 });
    emit::send(context.context(), event);
    Some(())
}
