//! The records that cross the ring buffer. There are two shapes, told apart by their length: [`Record`] for everything
//! that needs explaining and the small [`StateRecord`] for state transitions, of which there are many.

use crate::flow::Flow;
use crate::owner::{Memory, Owner, STEPS};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What happened.
pub mod kind {
    pub const RST_SENT: u8 = 1;
    pub const RST_RECEIVED: u8 = 2;
    /// An RST that changed nothing.
    pub const RST_IGNORED: u8 = 3;
    pub const LISTEN_DROP: u8 = 4;
    pub const TW_OVERFLOW: u8 = 5;
    pub const DROP: u8 = 6;
    pub const STATE: u8 = 7;
    pub const RETRANSMIT: u8 = 8;
}

/// What of a [`Record`] is filled or true.
pub mod flag {
    /// `reason` holds a number of this kernel's `sk_rst_reason` (RST) or `skb_drop_reason` (drop).
    pub const REASON: u32 = 1;
    /// `packet` is filled.
    pub const PACKET: u32 = 1 << 1;
    /// There was a socket (of whatever kind); `state` is its state.
    pub const SOCKET: u32 = 1 << 2;
    /// A process held the socket's lock: it happened in that process, not in an interrupt.
    pub const OWNED: u32 = 1 << 3;
    /// `listen` is filled.
    pub const LISTEN: u32 = 1 << 4;
    /// `timewait` is filled.
    pub const TIME_WAIT: u32 = 1 << 5;
    /// `past` is what the table of the dead had under these addresses.
    pub const PAST: u32 = 1 << 6;
    /// `sk_socket` is not NULL: a process has, or is about to have, a descriptor.
    pub const HAS_FILE: u32 = 1 << 7;
    /// `SOCK_DEAD`: orphaned, no process can reach it any more.
    pub const DEAD: u32 = 1 << 8;
    /// An MPTCP subflow.
    pub const MPTCP: u32 = 1 << 9;
    /// `socket` is filled: it was a full socket.
    pub const FULL: u32 = 1 << 10;
    /// The minisock was removed by this RST (TIME_WAIT), or the request (NEW_SYN_RECV).
    pub const KILLED: u32 = 1 << 11;
    /// The last of its window that is told: what is like it is counted from now on, see [`crate::storm`].
    pub const SAMPLE: u32 = 1 << 12;
    /// `close()` with `SO_LINGER` 0 sent it, and no stack was taken: see [`super::closes_lingering`].
    pub const LINGERED: u32 = 1 << 13;
    /// Where the listener at hand is bound: to all addresses of IPv4, to all of IPv6 (and, unless `IPV6_V6ONLY`, of IPv4), to the one
    /// that was asked for. None of the three: not known.
    pub const ANY_V4: u32 = 1 << 14;
    pub const ANY_V6: u32 = 1 << 15;
    pub const ONE_ADDRESS: u32 = 1 << 16;
}

/// What of a SYN was done before its fate was sealed ([`Listen::passed`]).
pub mod passed {
    /// A request socket was asked for: neither queue refused the SYN.
    pub const ALLOC: u8 = 1;
    /// A route was asked for: there was memory.
    pub const ROUTE: u8 = 1 << 1;
    /// The request was hashed.
    pub const HASHED: u8 = 1 << 2;
    /// A SYN-ACK was built.
    pub const SYNACK: u8 = 1 << 3;
    /// … and it was a cookie.
    pub const COOKIE: u8 = 1 << 4;
}

/// The segment at hand, or the one that drew the RST.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Packet {
    pub seq: u32,
    pub ack: u32,
    /// Payload in bytes.
    pub len: u32,
    pub window: u16,
    /// Byte 13 of the TCP header: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128.
    pub flags: u8,
    /// Netfilter's hook number for a firewall's RST.
    pub nf_hook: u8,
}

/// A listener's queues at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Listen {
    /// Connections waiting for `accept()`.
    pub accept_len: u32,
    /// Limit of that queue: the smaller of backlog and somaxconn at `listen()`.
    pub accept_max: u32,
    /// Half-open requests.
    pub syn_len: u32,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub max_syn_backlog: u32,
    /// `net.core.somaxconn` now.
    pub somaxconn: u32,
    /// `net.ipv4.tcp_syncookies`.
    pub syncookies: u8,
    /// `net.ipv4.tcp_abort_on_overflow`.
    pub abort_on_overflow: u8,
    /// 0: at the SYN, 1: at the last ACK.
    pub stage: u8,
    /// Bits of [`passed`].
    pub passed: u8,
}

/// What a listener did lately, where a segment met one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Listener {
    /// Connections that `accept()` took from the listeners on this port, since tcpwatch looked.
    pub accepts: u64,
    /// When it took the last one, 0 if it took none yet.
    pub last_accept_ns: u64,
    /// Half-open requests whose SYN-ACK was sent only once: those of honest clients rarely get older.
    pub young: u32,
    pub pad: u32,
}

/// The TIME_WAIT table of the namespace at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TimeWait {
    pub used: u32,
    /// `net.ipv4.tcp_max_tw_buckets`.
    pub max: u32,
    /// The state it was to take over: TIME_WAIT or FIN_WAIT2.
    pub substate: u32,
    pub pad: u32,
}

/// What tells acts apart where the kernel gives no reason. Of full sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Socket {
    /// Bits of `enum sock_flags`.
    pub flags: u32,
    /// `TCP_LINGER2`, in jiffies; negative: RST at once.
    pub linger2: i32,
    /// `SO_LINGER`, in jiffies (valid with `SOCK_LINGER`).
    pub lingertime: u64,
    pub snd_una: u32,
    pub snd_nxt: u32,
    pub rcv_nxt: u32,
    pub copied_seq: u32,
    /// Bit 0: no more receiving, bit 1: no more sending.
    pub shutdown: u32,
    /// Pages that all TCP sockets of this host hold, and the third value of `net.ipv4.tcp_mem` that limits them.
    pub memory_used: u32,
    pub memory_max: u32,
    pub pad: u32,
    /// Payload that arrived, and payload that was sent, what was sent again included.
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

/// What ran on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Task {
    /// Pid (thread group id) in tcpwatch's own pid namespace, 0: the idle task or not visible.
    pub pid: u32,
    pub pad: u32,
    pub comm: [u8; 16],
}

/// Kernel stack frames kept of an event: enough to pass the interrupt that brought the segment.
pub const FRAMES: usize = 24;

/// Whether kind and state alone tell who called the function that sends the event, so that no stack is needed.
///
/// An established connection obeys an RST in `tcp_validate_incoming`, one that connects in `tcp_rcv_synsent_state_process`; in other
/// states more than one function calls `tcp_reset`, and not always for an RST.
///
/// kernel: v5.10.. net/ipv4/tcp_input.c
#[inline(always)]
pub const fn tells_caller(kind: u8, state: u8) -> bool {
    kind == kind::RST_RECEIVED && (state == crate::state::ESTABLISHED || state == crate::state::SYN_SENT)
}

/// `SOCK_LINGER` of `enum sock_flags`: the same number in every kernel from 5.10 on.
pub const SOCK_LINGER: u32 = 1 << 4;

/// Whether a closed socket alone tells that `close()` with `SO_LINGER` 0 sends its RST through `tcp_disconnect`, so that no stack is needed.
///
/// The reason is that of a socket that is disconnected in a state that calls for an RST. Both directions are shut, and the state before
/// says since when: whoever shuts the sending one of an established socket by `shutdown()` takes it out of that state under the same lock,
/// so `close()` did. Of the ways of `close()` to an RST one goes through `tcp_disconnect`. (`connect(AF_UNSPEC)` finds the socket open;
/// `SOCK_DESTROY` sends before it closes; a listener's children are not shut.)
///
/// kernel: v6.10.. net/ipv4/tcp.c `__tcp_close`, `tcp_disconnect`
#[inline(always)]
pub fn closes_lingering(tcp_state: u32, reason: u32, flags: u32, socket: &Socket, memory: &Memory) -> bool {
    let before = memory.steps[(memory.step_count as usize).wrapping_sub(2) % STEPS].state();
    let foreign = flags & (flag::PACKET | flag::MPTCP);
    flags & flag::REASON != 0
        && foreign == 0
        && reason == tcp_state
        && socket.shutdown == 3
        && socket.flags & SOCK_LINGER != 0
        && socket.lingertime == 0
        && memory.step_count >= 2
        && (before == crate::state::ESTABLISHED || before == crate::state::CLOSE_WAIT)
}

/// An event that needs explaining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Record {
    pub mono_ns: u64,
    /// Address of the socket: an identity while it lives, never shown.
    pub sock: u64,
    pub kind: u8,
    /// Which hook saw it, [`crate::hook`].
    pub hook: u8,
    /// State of the socket at the hook, 0 without one. For a TIME_WAIT minisock its substate.
    pub state: u8,
    pub pad: u8,
    /// Bits of [`flag`].
    pub flags: u32,
    pub reason: u32,
    /// Valid entries of `stack`.
    pub frames: u32,
    pub flow: Flow,
    pub task: Task,
    /// Owner, history and end of the socket at hand (of the listener, for a segment that met one).
    pub present: Memory,
    /// The same for the connection that had these addresses before.
    pub past: Memory,
    pub packet: Packet,
    pub listen: Listen,
    pub listener: Listener,
    pub timewait: TimeWait,
    pub socket: Socket,
    /// Return addresses, innermost first.
    pub stack: [u64; FRAMES],
}

/// A state transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StateRecord {
    pub mono_ns: u64,
    pub sock: u64,
    pub kind: u8,
    pub hook: u8,
    pub old_state: u8,
    pub new_state: u8,
    /// [`flag::OWNED`], [`flag::MPTCP`].
    pub flags: u32,
    /// When the old state was entered, 0 if that was before tcpwatch looked.
    pub since_ns: u64,
    pub flow: Flow,
    pub task: Task,
    pub owner: Owner,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::Step;
    use crate::state::{CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1};

    const TCP_STATE: u32 = 7;

    /// A socket that `close()` resets because it lingers for no time; `change` makes another one of it.
    fn closes(change: impl FnOnce(&mut u32, &mut u32, &mut Socket, &mut Memory)) -> bool {
        let (mut reason, mut flags) = (TCP_STATE, flag::REASON | flag::FULL | flag::OWNED);
        let mut socket = Socket { shutdown: 3, flags: SOCK_LINGER, ..Socket::default() };
        let mut memory = history(&[ESTABLISHED, CLOSE]);
        change(&mut reason, &mut flags, &mut socket, &mut memory);
        closes_lingering(TCP_STATE, reason, flags, &socket, &memory)
    }

    fn history(states: &[u8]) -> Memory {
        let mut memory = Memory::EMPTY;
        for state in states {
            memory.steps[memory.step_count as usize % STEPS] = Step::new(*state, 1);
            memory.step_count += 1;
        }
        memory
    }

    #[test]
    fn a_socket_tells_that_close_lingers_for_no_time() {
        assert!(closes(|_, _, _, _| {}));
        assert!(closes(|_, _, _, memory| *memory = history(&[ESTABLISHED, CLOSE_WAIT, CLOSE])));
        let long = [
            ESTABLISHED,
            ESTABLISHED,
            ESTABLISHED,
            ESTABLISHED,
            ESTABLISHED,
            ESTABLISHED,
            ESTABLISHED,
            ESTABLISHED,
            CLOSE,
        ];
        assert!(closes(|_, _, _, memory| *memory = history(&long)), "the ring of states wrapped");
    }

    #[test]
    fn whatever_else_could_have_done_it_takes_a_stack() {
        let others: [(&str, bool); 9] = [
            ("unread data, and an older kernel", closes(|reason, _, _, _| *reason = 8)),
            ("no reason", closes(|_, flags, _, _| *flags &= !flag::REASON)),
            ("an answer to a segment", closes(|_, flags, _, _| *flags |= flag::PACKET)),
            ("MPTCP", closes(|_, flags, _, _| *flags |= flag::MPTCP)),
            ("connect(AF_UNSPEC), a listener's child", closes(|_, _, socket, _| socket.shutdown = 1)),
            ("SO_LINGER not set", closes(|_, _, socket, _| socket.flags = 0)),
            ("SO_LINGER with a time", closes(|_, _, socket, _| socket.lingertime = 100)),
            ("shut before", closes(|_, _, _, memory| *memory = history(&[ESTABLISHED, FIN_WAIT1, CLOSE]))),
            ("older than the programs", closes(|_, _, _, memory| *memory = history(&[CLOSE]))),
        ];
        for (what, told) in others {
            assert!(!told, "{what}");
        }
    }
}
