//! `tcp_v4_syn_recv_sock` and `tcp_v6_syn_recv_sock`, their end: the last ACK of a handshake got no socket. Every NULL that
//! they return was counted as `ListenDrops`.
//!
//! kernel: v5.10..  net/ipv4/tcp_ipv4.c  `struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)`
//! kernel: v5.10..  net/ipv6/tcp_ipv6.c  `static struct sock *tcp_v6_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)`
//! kernel: v6.19..  net/ipv4/tcp_ipv4.c  `struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req, ...)`, also in some 6.18 releases
//! kernel: v6.19..  net/ipv6/tcp_ipv6.c  `struct sock *tcp_v6_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req, ...)`

use super::exit;
use crate::context::Returned;
use crate::emit::{self, Event};
use crate::kernel::skb::Skb;
use crate::kernel::sock::Sock;
use tcpwatch_common::config::deliver;
use tcpwatch_common::record::kind;
use tcpwatch_common::{hook, state};

exit!(
    handle_v4,
    hook::TCP_V4_SYN_RECV_SOCK,
    args_tcp_v4_syn_recv_sock,
    tcp_v4_syn_recv_sock_fexit,
    tcp_v4_syn_recv_sock_kprobe,
    tcp_v4_syn_recv_sock_kretprobe
);
exit!(
    handle_v6,
    hook::TCP_V6_SYN_RECV_SOCK,
    args_tcp_v6_syn_recv_sock,
    tcp_v6_syn_recv_sock_fexit,
    tcp_v6_syn_recv_sock_kprobe,
    tcp_v6_syn_recv_sock_kretprobe
);

#[inline(always)]
fn handle_v4(context: &impl Returned) -> Option<()> {
    handle(context, hook::TCP_V4_SYN_RECV_SOCK)
}

#[inline(always)]
fn handle_v6(context: &impl Returned) -> Option<()> {
    // An IPv4 segment on an IPv6 listener went through the v4 function, which told of it.
    if Skb(context.arg(1)).is_ipv4() { None } else { handle(context, hook::TCP_V6_SYN_RECV_SOCK) }
}

#[inline(always)]
fn handle(context: &impl Returned, hook: u8) -> Option<()> {
    if context.returned() != 0 {
        return None;
    }
    let (listener, skb) = (Sock(context.arg(0)), Skb(context.arg(1)));
    let segment = skb.segment()?;
    let flow = segment.flow_of_receiver(listener.netns());
    emit::book(flow.netns, |row| row.listen_drops += 1);
    let what = (kind::LISTEN_DROP, hook, deliver::LISTEN);
    let event = Event::begin(what, &flow, listener, state::LISTEN)?
        .packet(&segment.packet)
        .listen(&listener.listen(1));
    emit::send(context.context(), event);
    Some(())
}
