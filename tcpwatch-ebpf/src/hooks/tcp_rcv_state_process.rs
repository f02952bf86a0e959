//! `tcp_rcv_state_process`: an RST that meets a listener, or a connect that it does not answer, is ignored there.
//!
//! kernel: v5.10..  net/ipv4/tcp_input.c  `int tcp_rcv_state_process(struct sock *sk, struct sk_buff *skb)`
//! kernel: v6.12..  net/ipv4/tcp_input.c  `enum skb_drop_reason tcp_rcv_state_process(struct sock *sk, struct sk_buff *skb)`

use super::entry;
use crate::context::Hooked;
use crate::emit::{self, Event};
use crate::kernel::field::field;
use crate::kernel::skb::{ACK, RST, Skb};
use crate::kernel::sock::Sock;
use tcpwatch_common::config::deliver;
use tcpwatch_common::record::kind;
use tcpwatch_common::{hook, state};

entry!(handle, tcp_rcv_state_process_fentry, tcp_rcv_state_process_kprobe);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    let sock = Sock(context.arg(0));
    let state = sock.state();
    if state != state::LISTEN && state != state::SYN_SENT {
        return None;
    }
    let segment = Skb(context.arg(1)).segment()?;
    if segment.packet.flags & RST == 0 {
        return None;
    }
    if state == state::SYN_SENT && segment.packet.flags & ACK != 0 {
        let una: u32 = field!(sock.0, tcp_snd_una);
        let nxt: u32 = field!(sock.0, tcp_snd_nxt);
        // RFC 793: obeyed if it acknowledges the SYN, in the kernel's words after(ack, una) && !after(ack, nxt).
        let ack = segment.packet.ack;
        if (una.wrapping_sub(ack) as i32) < 0 && (nxt.wrapping_sub(ack) as i32) >= 0 {
            return None;
        }
    }
    let flow = segment.flow_of_receiver(sock.netns());
    let what = (kind::RST_IGNORED, hook::TCP_RCV_STATE_PROCESS, deliver::RST);
    let event = Event::begin(what, &flow, sock, state)?;
    emit::send(context.context(), event.packet(&segment.packet));
    Some(())
}
