//! `inet_twsk_kill`: the end of a minisock. Its timer ran out, unless `inet_twsk_deschedule_put` was there first.
//!
//! kernel: v5.10..  net/ipv4/inet_timewait_sock.c  `static void inet_twsk_kill(struct inet_timewait_sock *tw)`

use super::entry;
use crate::context::Hooked;
use crate::emit;
use crate::kernel::sock::Sock;
use crate::owners;
use tcpwatch_common::owner::end;

entry!(handle, inet_twsk_kill_fentry, inet_twsk_kill_kprobe);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    let minisock = Sock(context.arg(0));
    let flow = minisock.flow(false);
    let (memory, _) = owners::past(&flow)?;
    // SAFETY: a map value just found.
    let known = unsafe { (*memory).end };
    if known == end::TIME_WAIT || known == end::FIN_WAIT2 {
        owners::note_minisock_end(&flow, minisock.tw_substate(), end::TW_EXPIRED, emit::now());
    }
    Some(())
}
