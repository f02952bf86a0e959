//! `tcp_time_wait`: the socket gives way to a minisock, if there is room for one.
//!
//! kernel: v5.10..  net/ipv4/tcp_minisocks.c  `void tcp_time_wait(struct sock *sk, int state, int timeo)`

use super::entry;
use crate::context::Hooked;
use crate::kernel::sock::Sock;
use crate::owners;
use tcpwatch_common::owner::end;
use tcpwatch_common::state;

entry!(handle, tcp_time_wait_fentry, tcp_time_wait_kprobe);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    let memory = owners::memory(Sock(context.arg(0)))?;
    let substate = context.arg(1) as u8;
    // SAFETY: a map value just found; a plain store.
    unsafe { (*memory).end = if substate == state::FIN_WAIT2 { end::FIN_WAIT2 } else { end::TIME_WAIT } };
    Some(())
}
