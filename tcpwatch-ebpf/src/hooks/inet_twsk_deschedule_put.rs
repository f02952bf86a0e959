//! `inet_twsk_deschedule_put`: a minisock is removed before its time, by an RST, by a new connection on the same ports, or
//! by `ss -K`.
//!
//! kernel: v5.10..  net/ipv4/inet_timewait_sock.c  `void inet_twsk_deschedule_put(struct inet_timewait_sock *tw)`

use super::{entry, note_removed};
use crate::context::Hooked;
use crate::emit;
use crate::kernel::sock::Sock;
use crate::maps::REMOVED_TIMEWAIT;
use crate::owners;
use tcpwatch_common::owner::end;

entry!(handle, inet_twsk_deschedule_put_fentry, inet_twsk_deschedule_put_kprobe);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    let minisock = Sock(context.arg(0));
    note_removed(REMOVED_TIMEWAIT, minisock);
    owners::note_minisock_end(&minisock.flow(false), minisock.tw_substate(), end::TW_KILLED, emit::now());
    Some(())
}
