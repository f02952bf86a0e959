//! `inet_csk_accept`, its end: a process took a connection from the queue.
//!
//! kernel: v5.10..  net/ipv4/inet_connection_sock.c  `struct sock *inet_csk_accept(struct sock *sk, int flags, int *err, bool kern)`
//! kernel: v6.10..  `struct sock *inet_csk_accept(struct sock *sk, struct proto_accept_arg *arg)`

use crate::context::{Exit, Returned};
use crate::emit;
use crate::kernel::config::config;
use crate::kernel::sock::Sock;
use crate::owners;
use aya_ebpf::macros::{fexit, kretprobe};
use aya_ebpf::programs::{FExitContext, RetProbeContext};
use tcpwatch_common::owner::how;

#[fexit]
pub fn inet_csk_accept_fexit(context: FExitContext) -> i32 {
    accepted(Sock(Exit { context, args: config!(args_inet_csk_accept) }.returned()));
    0
}

#[kretprobe]
pub fn inet_csk_accept_kretprobe(context: RetProbeContext) -> u32 {
    accepted(Sock(context.ret()));
    0
}

#[inline(always)]
fn accepted(sock: Sock) {
    if !sock.exists() {
        return;
    }
    if let Some(memory) = owners::memory(sock) {
        // SAFETY: a map value just found.
        unsafe { owners::learn(memory, how::ACCEPT, false) };
    }
    owners::accepted(sock, emit::now());
}
