//! Tracepoint `tcp:tcp_retransmit_skb`: attached only when retransmissions are asked for.
//!
//! kernel: v5.10..  `(const struct sock *sk, const struct sk_buff *skb)`
//! kernel: v6.17..  `(const struct sock *sk, const struct sk_buff *skb, int err)`

use super::tracepoint;
use crate::context::Hooked;
use crate::emit::{self, Event};
use crate::kernel::sock::Sock;
use tcpwatch_common::config::deliver;
use tcpwatch_common::hook;
use tcpwatch_common::record::kind;

tracepoint!(handle, tcp_retransmit_skb);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    let sock = Sock(context.arg(0));
    let state = sock.state();
    let what = (kind::RETRANSMIT, hook::TCP_RETRANSMIT_SKB, deliver::RETRANSMIT);
    emit::send(context.context(), Event::begin(what, &sock.flow(Sock::is_full(state)), sock, state)?);
    Some(())
}
