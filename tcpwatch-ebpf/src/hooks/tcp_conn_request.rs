//! `tcp_conn_request`: a SYN meets a listener. It returns 0 whatever it does, so what it did is told by the functions that
//! it called on the way.
//!
//! kernel: v5.10..  net/ipv4/tcp_input.c  `int tcp_conn_request(struct request_sock_ops *rsk_ops, const struct tcp_request_sock_ops *af_ops, struct sock *sk, struct sk_buff *skb)`

use super::entry;
use crate::context::Hooked;
use crate::emit::{self, Event};
use crate::kernel::skb::Skb;
use crate::kernel::sock::Sock;
use crate::maps::SYN;
use aya_ebpf::macros::{fexit, kretprobe};
use aya_ebpf::programs::{FExitContext, RetProbeContext};
use core::ffi::c_void;
use tcpwatch_common::config::deliver;
use tcpwatch_common::record::{kind, passed};
use tcpwatch_common::{hook, state};

entry!(handle, tcp_conn_request_fentry, tcp_conn_request_kprobe);

#[fexit]
pub fn tcp_conn_request_fexit(context: FExitContext) -> i32 {
    let _ = sealed(aya_ebpf::EbpfContext::as_ptr(&context));
    0
}

#[kretprobe]
pub fn tcp_conn_request_kretprobe(context: RetProbeContext) -> u32 {
    let _ = sealed(aya_ebpf::EbpfContext::as_ptr(&context));
    0
}

/// Takes down the SYN and the queues it meets. Bottom halves are off until the function ends, so the slot is its own.
#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    let slot = SYN.get_ptr_mut(0)?;
    let sock = Sock(context.arg(2));
    // SAFETY: a per-CPU map value.
    unsafe {
        (*slot).skb = context.arg(3);
        (*slot).listen = sock.listen(0);
        (*slot).sock = sock.0;
    }
    Some(())
}

/// One of the functions that `tcp_conn_request` calls was reached.
#[inline(always)]
pub fn reached(what: u8) {
    if let Some(slot) = SYN.get_ptr_mut(0) {
        // SAFETY: a per-CPU map value. Outside tcp_conn_request the bits are never looked at.
        unsafe { (*slot).listen.passed |= what };
    }
}

/// The SYN's fate is sealed.
#[inline(always)]
fn sealed(context: *mut c_void) -> Option<()> {
    let slot = SYN.get_ptr_mut(0)?;
    // SAFETY: a per-CPU map value.
    let syn = unsafe { *slot };
    if syn.sock == 0 {
        return None;
    }
    // SAFETY: as above.
    unsafe { (*slot).sock = 0 };
    let answered = syn.listen.passed & (passed::SYNACK | passed::HASHED) != 0;
    let cookie = syn.listen.passed & passed::COOKIE != 0;
    if answered && !cookie {
        return None;
    }
    let sock = Sock(syn.sock);
    let segment = Skb(syn.skb).segment()?;
    let flow = segment.flow_of_receiver(sock.netns());
    if !answered {
        emit::book(flow.netns, |row| row.listen_drops += 1);
    }
    let what = (kind::LISTEN_DROP, hook::TCP_CONN_REQUEST, deliver::LISTEN);
    let event = Event::begin(what, &flow, sock, state::LISTEN)?.packet(&segment.packet);
    emit::send(context, event.listen(&syn.listen));
    Some(())
}
