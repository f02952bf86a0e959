//! `tcp_validate_incoming`, its end: it refused a segment. If that was an RST and the socket lives on, the RST was
//! ignored: out of window, or answered with a challenge ACK.
//!
//! kernel: v5.10..  net/ipv4/tcp_input.c  `static bool tcp_validate_incoming(struct sock *sk, struct sk_buff *skb, const struct tcphdr *th, int syn_inerr)`
//!
//! Not as a kretprobe: it runs with interrupts open when a process works off its backlog, so the arguments kept at its
//! start could be another call's.

use crate::context::{Exit, Returned};
use crate::emit::{self, Event};
use crate::kernel::config::config;
use crate::kernel::skb::{RST, Skb, tcp_flags};
use crate::kernel::sock::Sock;
use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use tcpwatch_common::config::deliver;
use tcpwatch_common::record::kind;
use tcpwatch_common::{hook, state};

#[fexit]
pub fn tcp_validate_incoming_fexit(context: FExitContext) -> i32 {
    let _ = handle(&Exit { context, args: config!(args_tcp_validate_incoming) });
    0
}

#[inline(always)]
fn handle(context: &impl Returned) -> Option<()> {
    if context.returned() & 1 != 0 || tcp_flags(context.arg(2)) & RST == 0 {
        return None;
    }
    let sock = Sock(context.arg(0));
    let state = sock.state();
    if state == state::CLOSE {
        // tcp_reset() was here.
        return None;
    }
    let segment = Skb(context.arg(1)).segment()?;
    let flow = sock.flow(true);
    let what = (kind::RST_IGNORED, hook::TCP_VALIDATE_INCOMING, deliver::RST);
    let event = Event::begin(what, &flow, sock, state)?;
    emit::send(context.context(), event.packet(&segment.packet));
    Some(())
}
