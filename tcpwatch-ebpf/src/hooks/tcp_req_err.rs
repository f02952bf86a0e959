//! `tcp_req_err`: an ICMP error ends a half-open request, which the kernel counts among the listener's drops.
//!
//! kernel: v5.10..  net/ipv4/tcp_ipv4.c  `void tcp_req_err(struct sock *sk, u32 seq, bool abort)`

use super::entry;
use crate::context::Hooked;
use crate::emit::{self, Event};
use crate::kernel::field::field;
use crate::kernel::sock::Sock;
use tcpwatch_common::config::deliver;
use tcpwatch_common::record::kind;
use tcpwatch_common::{hook, state};

entry!(handle, tcp_req_err_fentry, tcp_req_err_kprobe);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    let request = Sock(context.arg(0));
    let sent: u32 = field!(request.0, request_snt_isn);
    // The function's own questions: does the error quote our SYN-ACK, and is it a hard one?
    if context.arg(1) as u32 != sent || context.arg(2) & 1 == 0 {
        return None;
    }
    let listener = Sock(field!(request.0, sock_listener));
    let flow = request.flow(false);
    emit::book(flow.netns, |row| row.listen_drops += 1);
    let what = (kind::LISTEN_DROP, hook::TCP_REQ_ERR, deliver::LISTEN);
    let event = Event::begin(what, &flow, listener, state::LISTEN)?;
    emit::send(context.context(), event.listen(&listener.listen(1)));
    Some(())
}
