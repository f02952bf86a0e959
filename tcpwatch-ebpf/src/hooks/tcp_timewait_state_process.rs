//! `tcp_timewait_state_process`, its end: an RST met a TIME_WAIT or FIN_WAIT2 minisock.
//!
//! kernel: v5.10..  net/ipv4/tcp_minisocks.c  `enum tcp_tw_status tcp_timewait_state_process(struct inet_timewait_sock *tw, struct sk_buff *skb, const struct tcphdr *th)`
//! kernel: v6.12..  net/ipv4/tcp_minisocks.c  `enum tcp_tw_status tcp_timewait_state_process(struct inet_timewait_sock *tw, struct sk_buff *skb, const struct tcphdr *th, u32 *tw_isn)`
//! kernel: v6.14..  net/ipv4/tcp_minisocks.c  `enum tcp_tw_status tcp_timewait_state_process(struct inet_timewait_sock *tw, struct sk_buff *skb, const struct tcphdr *th, u32 *tw_isn, enum skb_drop_reason *drop_reason)`

use super::{exit, was_removed};
use crate::context::Returned;
use crate::emit::{self, Event};
use crate::kernel::skb::{RST, Skb, tcp_flags};
use crate::kernel::sock::Sock;
use crate::maps::REMOVED_TIMEWAIT;
use tcpwatch_common::config::deliver;
use tcpwatch_common::hook;
use tcpwatch_common::record::{flag, kind};

exit!(
    handle,
    hook::TCP_TIMEWAIT_STATE_PROCESS,
    args_tcp_timewait_state_process,
    tcp_timewait_state_process_fexit,
    tcp_timewait_state_process_kprobe,
    tcp_timewait_state_process_kretprobe
);

#[inline(always)]
fn handle(context: &impl Returned) -> Option<()> {
    if tcp_flags(context.arg(2)) & RST == 0 {
        return None;
    }
    let minisock = Sock(context.arg(0));
    let segment = Skb(context.arg(1)).segment()?;
    // The note may be about an earlier minisock at this address. One that is removed is in no table; its memory keeps that even
    // when it is given back at once (SLAB_TYPESAFE_BY_RCU).
    let killed = was_removed(REMOVED_TIMEWAIT, minisock) && minisock.is_unhashed();
    let kind = if killed { kind::RST_RECEIVED } else { kind::RST_IGNORED };
    let flow = segment.flow_of_receiver(minisock.netns());
    let state = minisock.tw_substate();
    let what = (kind, hook::TCP_TIMEWAIT_STATE_PROCESS, deliver::RST);
    let event = Event::begin(what, &flow, Sock(0), state)?
        .packet(&segment.packet)
        .flags(flag::SOCKET | if killed { flag::KILLED } else { 0 });
    emit::send(context.context(), event);
    Some(())
}
