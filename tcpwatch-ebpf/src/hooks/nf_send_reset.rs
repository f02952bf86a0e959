//! `nf_send_reset` and `nf_send_reset6`: netfilter's `reject with tcp reset`. The RST never passes the TCP stack: no
//! tracepoint and no TCP counter sees it.
//!
//! kernel: v5.10..  net/ipv4/netfilter/nf_reject_ipv4.c  `void nf_send_reset(struct net *net, struct sock *sk, struct sk_buff *oldskb, int hook)`
//! kernel: v5.10..  net/ipv6/netfilter/nf_reject_ipv6.c  `void nf_send_reset6(struct net *net, struct sock *sk, struct sk_buff *oldskb, int hook)`

use super::entry;
use crate::context::Hooked;
use crate::emit::{self, Event};
use crate::kernel::skb::{RST, Skb};
use crate::kernel::sock::{Sock, net_inum};
use tcpwatch_common::config::deliver;
use tcpwatch_common::hook;
use tcpwatch_common::record::kind;

entry!(handle_v4, nf_send_reset_fentry, nf_send_reset_kprobe);
entry!(handle_v6, nf_send_reset6_fentry, nf_send_reset6_kprobe);

#[inline(always)]
fn handle_v4(context: &impl Hooked) -> Option<()> {
    handle(context, hook::NF_SEND_RESET)
}

#[inline(always)]
fn handle_v6(context: &impl Hooked) -> Option<()> {
    handle(context, hook::NF_SEND_RESET6)
}

#[inline(always)]
fn handle(context: &impl Hooked, hook: u8) -> Option<()> {
    let skb = Skb(context.arg(2));
    let mut segment = skb.segment()?;
    if segment.packet.flags & RST != 0 {
        return None;
    }
    segment.packet.nf_hook = context.arg(3) as u8;
    let flow = segment.flow_of_receiver(net_inum(context.arg(0)));
    emit::book(flow.netns, |row| row.firewall_rsts += 1);
    let event = Event::begin((kind::RST_SENT, hook, deliver::RST), &flow, Sock(0), 0)?;
    emit::send(context.context(), event.packet(&segment.packet));
    Some(())
}
