//! `inet_twsk_alloc`, its end: no minisock was to be had. The socket vanishes, and the peer's next segment draws an RST.
//!
//! kernel: v5.10..  net/ipv4/inet_timewait_sock.c  `struct inet_timewait_sock *inet_twsk_alloc(const struct sock *sk, struct inet_timewait_death_row *dr, const int state)`

use crate::context::{Exit, Hooked, Returned};
use crate::emit::{self, Event};
use crate::kernel::config::config;
use crate::kernel::sock::{Sock, death_row};
use crate::owners;
use aya_ebpf::macros::{fexit, kprobe};
use aya_ebpf::programs::{FExitContext, ProbeContext};
use tcpwatch_common::config::deliver;
use tcpwatch_common::hook;
use tcpwatch_common::owner::end;
use tcpwatch_common::record::{TimeWait, kind};

#[fexit]
pub fn inet_twsk_alloc_fexit(context: FExitContext) -> i32 {
    let exit = Exit { context, args: config!(args_inet_twsk_alloc) };
    if exit.returned() == 0 {
        let _ = refused(&exit, death_row(exit.arg(1), exit.arg(2) as u32));
    }
    0
}

/// At the function's start, with the function's own question. A kretprobe would know the answer but not, for certain, the
/// arguments: the function also runs with interrupts open.
#[kprobe]
pub fn inet_twsk_alloc_kprobe(context: ProbeContext) -> u32 {
    let table = death_row(Hooked::arg(&context, 1), Hooked::arg(&context, 2) as u32);
    if table.used >= table.max {
        let _ = refused(&context, table);
    }
    0
}

#[inline(always)]
fn refused(context: &impl Hooked, table: TimeWait) -> Option<()> {
    let sock = Sock(context.arg(0));
    let flow = sock.flow(true);
    emit::book(flow.netns, |row| row.tw_overflows += 1);
    let what = (kind::TW_OVERFLOW, hook::INET_TWSK_ALLOC, deliver::TW);
    let event = Event::begin(what, &flow, sock, sock.state())?;
    emit::send(context.context(), event.timewait(&table));
    let memory = owners::memory(sock)?;
    // SAFETY: a map value just found; a plain store.
    unsafe { (*memory).end = end::TW_REFUSED };
    Some(())
}
