//! The list of hooks. Each file is named after the kernel function or tracepoint that it hooks.
//!
//! A function hook has up to four programs: `NAME_fentry` or `NAME_fexit` where the kernel grants it, `NAME_kprobe` and
//! `NAME_kretprobe` otherwise. User space tries them in this order.

mod inet_child_forget;
mod inet_csk_accept;
mod inet_csk_complete_hashdance;
mod inet_csk_reqsk_queue_add;
mod inet_csk_reqsk_queue_drop;
mod inet_csk_reqsk_queue_hash_add;
mod inet_reqsk_alloc;
mod inet_sock_set_state;
mod inet_twsk_alloc;
mod inet_twsk_deschedule_put;
mod inet_twsk_kill;
mod kfree_skb;
mod nf_send_reset;
mod sock_length;
mod tcp_check_req;
mod tcp_conn_request;
mod tcp_destroy_sock;
mod tcp_make_synack;
mod tcp_rcv_space_adjust;
mod tcp_rcv_state_process;
mod tcp_receive_reset;
mod tcp_recvmsg;
mod tcp_req_err;
mod tcp_reset;
mod tcp_retransmit_skb;
mod tcp_route_req;
mod tcp_send_reset;
mod tcp_sendmsg;
mod tcp_syn_recv_sock;
mod tcp_time_wait;
mod tcp_timewait_state_process;
mod tcp_v4_send_reset;
mod tcp_v6_send_reset;
mod tcp_validate_incoming;

use crate::emit;
use crate::kernel::sock::Sock;
use crate::maps::{REMOVED, Removed};

/// Both ways to hook the start of a function: `entry!(handler, fentry program, kprobe program)`.
macro_rules! entry {
    ($handle:path, $fentry:ident, $kprobe:ident) => {
        #[aya_ebpf::macros::fentry]
        pub fn $fentry(context: aya_ebpf::programs::FEntryContext) -> i32 {
            let _ = $handle(&context);
            0
        }

        #[aya_ebpf::macros::kprobe]
        pub fn $kprobe(context: aya_ebpf::programs::ProbeContext) -> u32 {
            let _ = $handle(&context);
            0
        }
    };
}
pub(crate) use entry;

/// Both ways to hook the end of a function whose arguments are needed too: `exit!(handler, hook, argument count in
/// the configuration, fexit program, kprobe program, kretprobe program)`.
macro_rules! exit {
    ($handle:path, $hook:expr, $args:ident, $fexit:ident, $kprobe:ident, $kretprobe:ident) => {
        #[aya_ebpf::macros::fexit]
        pub fn $fexit(context: aya_ebpf::programs::FExitContext) -> i32 {
            let _ = $handle(&$crate::context::Exit { context, args: $crate::kernel::config::config!($args) });
            0
        }

        #[aya_ebpf::macros::kprobe]
        pub fn $kprobe(context: aya_ebpf::programs::ProbeContext) -> u32 {
            $crate::context::stash(&context, $hook);
            0
        }

        #[aya_ebpf::macros::kretprobe]
        pub fn $kretprobe(context: aya_ebpf::programs::RetProbeContext) -> u32 {
            if let Some(call) = $crate::context::Return::new(context, $hook) {
                let _ = $handle(&call);
            }
            0
        }
    };
}
pub(crate) use exit;

/// A raw tracepoint: `tracepoint!(handler, program)`. For what runs often also a program that knows the types of its arguments, which
/// costs less and which not every kernel grants: `tracepoint!(handler, program, typed program)`.
macro_rules! tracepoint {
    ($handle:path, $program:ident, $typed:ident) => {
        $crate::hooks::tracepoint!($handle, $program);

        #[aya_ebpf::macros::btf_tracepoint]
        pub fn $typed(context: aya_ebpf::programs::BtfTracePointContext) -> i32 {
            let _ = $handle(&$crate::context::TypedTracepoint(context));
            0
        }
    };
    ($handle:path, $program:ident) => {
        #[aya_ebpf::macros::raw_tracepoint]
        pub fn $program(context: aya_ebpf::programs::RawTracePointContext) -> i32 {
            let _ = $handle(&context);
            0
        }
    };
}
pub(crate) use tracepoint;

/// Notes that a request or minisock was removed just now on this CPU.
#[inline(always)]
fn note_removed(row: u32, sock: Sock) {
    if let Some(slot) = REMOVED.get_ptr_mut(row) {
        // SAFETY: a per-CPU map value.
        unsafe { *slot = Removed { sock: sock.0, at_ns: emit::now() } };
    }
}

/// Whether [`note_removed`] noted this socket a moment ago: in the function whose end asks. Older notes may be about
/// another socket at the same address.
#[inline(always)]
fn was_removed(row: u32, sock: Sock) -> bool {
    const MOMENT_NS: u64 = 100_000_000;
    let Some(slot) = REMOVED.get_ptr_mut(row) else { return false };
    // SAFETY: a per-CPU map value.
    let removed = unsafe { *slot };
    if removed.sock != sock.0 {
        return false;
    }
    // SAFETY: as above.
    unsafe { (*slot).sock = 0 };
    emit::now() - removed.at_ns < MOMENT_NS
}
