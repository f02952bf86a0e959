//! What user space decides before the programs are loaded. Read-only for them, so that a branch that is off is not
//! even verified.

use crate::filter::Filter;
use crate::offsets::Offsets;
use zerocopy::{Immutable, IntoBytes, KnownLayout};

/// What of an event kind reaches user space.
pub mod deliver {
    pub const RST: u32 = 1;
    pub const LISTEN: u32 = 1 << 1;
    pub const TW: u32 = 1 << 2;
    pub const STATE: u32 = 1 << 3;
    pub const DROP: u32 = 1 << 4;
    pub const RETRANSMIT: u32 = 1 << 5;
    /// Sockets left in CLOSE_WAIT: found by user space, no program delivers them.
    pub const LEAK: u32 = 1 << 6;
}

/// Handed to the programs as one read-only global.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// Bits of [`deliver`].
    pub deliver: u32,
    /// 1: `tcp_send_reset` has a third argument, the reason, and fires without a socket too (6.10 and later).
    pub reset_tracepoint_complete: u32,
    /// 1: passive resets come through `tcp_v4_send_reset`/`tcp_v6_send_reset`; the tracepoint leaves them alone.
    pub reset_functions: u32,
    /// 1: `tcp_reset` has the segment as its second argument (5.13 and later).
    pub reset_has_skb: u32,
    /// 1: `kfree_skb` has a third argument, the reason.
    pub drop_has_reason: u32,
    /// 1: `kfree_skb` has a fourth argument, the socket that was to receive.
    pub drop_has_socket: u32,
    /// 1: RSTs that a connection does not obey are to be found among the dropped segments; 2: those that meet a listener
    /// or a connect too.
    pub ignored_from_drops: u32,
    /// 1: refused last ACKs are to be found among the dropped segments.
    pub overflow_from_drops: u32,
    /// 1: the user stack of each socket's last read is kept.
    pub read_stacks: u32,
    /// Number of `SKB_DROP_REASON_TCP_LISTEN_OVERFLOW` on this kernel, [`crate::offsets::ABSENT`] without.
    pub drop_listen_overflow: u32,
    /// Number of `SKB_DROP_REASON_TCP_RESET`, likewise.
    pub drop_tcp_reset: u32,
    /// Number of `SK_RST_REASON_TCP_STATE`, likewise.
    pub reset_tcp_state: u32,
    /// Arguments of the functions whose return value is read: it lies behind the last one.
    pub args_inet_csk_accept: u32,
    pub args_tcp_validate_incoming: u32,
    pub args_tcp_check_req: u32,
    pub args_tcp_timewait_state_process: u32,
    pub args_inet_twsk_alloc: u32,
    pub args_tcp_conn_request: u32,
    pub args_tcp_v4_syn_recv_sock: u32,
    pub args_tcp_v6_syn_recv_sock: u32,
    /// 1: addresses, ports and family lie in the first 20 bytes of a socket, in the order in which every kernel so far has them.
    pub socket_head: u32,
    /// 1: the task on the CPU can be had as what the verifier knows it for (5.11 and later).
    pub typed_task: u32,
    /// Sets of the table of the living, and of that of the dead: powers of two.
    pub live_lines: u32,
    pub dead_lines: u32,
    /// Kernel stack frames to take of an event, at most [`crate::record::FRAMES`].
    pub frames: u32,
    /// Events of one kind, port and peer network that are told in a window, of those that met no connection; 0: all of them.
    pub storm: u32,
    /// 1: the user is shown stacks, so that every event has one, not only those that are told by it.
    pub stacks: u32,
    /// Inode of tcpwatch's own pid namespace, 0 when it is the initial one: then no translation is needed.
    pub pidns: u32,
    pub offsets: Offsets,
    pub filter: Filter,
}

impl Config {
    pub const UNSET: Self = Self {
        deliver: 0,
        reset_tracepoint_complete: 0,
        reset_functions: 0,
        reset_has_skb: 0,
        drop_has_reason: 0,
        drop_has_socket: 0,
        ignored_from_drops: 0,
        overflow_from_drops: 0,
        read_stacks: 0,
        drop_listen_overflow: crate::offsets::ABSENT,
        drop_tcp_reset: crate::offsets::ABSENT,
        reset_tcp_state: crate::offsets::ABSENT,
        args_inet_csk_accept: 0,
        args_tcp_validate_incoming: 0,
        args_tcp_check_req: 0,
        args_tcp_timewait_state_process: 0,
        args_inet_twsk_alloc: 0,
        args_tcp_conn_request: 0,
        args_tcp_v4_syn_recv_sock: 0,
        args_tcp_v6_syn_recv_sock: 0,
        socket_head: 0,
        typed_task: 0,
        live_lines: 1,
        dead_lines: 1,
        frames: 0,
        storm: 0,
        stacks: 0,
        pidns: 0,
        offsets: Offsets::ABSENT,
        filter: Filter::NONE,
    };
}
