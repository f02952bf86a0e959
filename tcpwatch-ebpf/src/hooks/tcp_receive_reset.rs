//! Tracepoint `tcp:tcp_receive_reset`, inside `tcp_reset`: for hosts that let no function be hooked. It has no segment on
//! any kernel, so user space tells the false calls by their caller.
//!
//! kernel: v5.10..  `(struct sock *sk)`, never NULL: the socket that obeys

use super::tracepoint;
use crate::context::Hooked;
use crate::hooks::tcp_reset::received;
use tcpwatch_common::hook;

tracepoint!(handle, tcp_receive_reset, tcp_receive_reset_typed);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    received(context, hook::TCP_RECEIVE_RESET, context.sock(0), None)
}
