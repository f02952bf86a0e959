//! Tracepoint `tcp:tcp_destroy_sock`: the socket's memory may be given to another one from now on.
//!
//! kernel: v5.10..  `(struct sock *sk)`

use super::tracepoint;
use crate::context::Hooked;
use crate::kernel::sock::Sock;
use crate::tables;

tracepoint!(handle, tcp_destroy_sock);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    tables::live_remove(Sock(context.arg(0)));
    Some(())
}
