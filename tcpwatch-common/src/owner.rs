//! Who owns a socket, and what became of it: the values of the kernel-side tables.

use crate::flow::Flow;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How the owner is known. Kept as a number on the wire; [`how`] names them.
pub mod how {
    /// Nobody known.
    pub const NONE: u8 = 0;
    /// Called `connect()`.
    pub const CONNECT: u8 = 1;
    /// Called `accept()`.
    pub const ACCEPT: u8 = 2;
    /// Called `listen()`.
    pub const LISTEN: u8 = 3;
    /// Owns the listener whose queue the socket waits in.
    pub const LISTENER: u8 = 4;
    /// Used or closed the descriptor after somebody else had made the socket.
    pub const IO: u8 = 5;
    /// Held a descriptor in `/proc` when tcpwatch started.
    pub const PROC: u8 = 6;
    /// Had it until it was closed (set by user space for what comes from the table of the dead).
    pub const DEAD: u8 = 7;

    /// The name in events.
    pub const fn name(how: u8) -> Option<&'static str> {
        Some(match how {
            CONNECT => "connect",
            ACCEPT => "accept",
            LISTEN => "listen",
            LISTENER => "listener",
            IO => "io",
            PROC => "proc",
            DEAD => "dead",
            _ => return None,
        })
    }
}

/// A process that owns a socket. `how == NONE` means that nobody is known and every other field is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Owner {
    /// Start of the thread group's leader, nanoseconds since boot (`task_struct.start_boottime`): with the pid it names
    /// a process even after the pid was given away again.
    pub start_ns: u64,
    /// Cgroup v2 id of the process when it was learnt (the inode of its directory).
    pub cgroup: u64,
    /// Pid (thread group id) in tcpwatch's own pid namespace; 0 where the process is not visible from there.
    pub pid: u32,
    /// Effective uid in the initial user namespace.
    pub uid: u32,
    /// Pid in the initial pid namespace: only to see quickly whether a process is still the same one.
    pub root_pid: u32,
    /// One of [`how`].
    pub how: u8,
    pub pad: u8,
    pub pad2: u16,
    /// `task_struct.comm` when it was learnt.
    pub comm: [u8; 16],
}

/// How a connection ended, as far as the kernel's own acts told. Kept in the table of the dead.
pub mod end {
    pub const UNKNOWN: u8 = 0;
    /// `tcp_time_wait(TCP_TIME_WAIT)`: a TIME_WAIT minisock took over.
    pub const TIME_WAIT: u8 = 1;
    /// `tcp_time_wait(TCP_FIN_WAIT2)`: orphaned, a FIN_WAIT2 minisock took over.
    pub const FIN_WAIT2: u8 = 2;
    /// `inet_twsk_alloc()` returned NULL: no minisock, the socket vanished.
    pub const TW_REFUSED: u8 = 3;
    /// The minisock's timer ran out.
    pub const TW_EXPIRED: u8 = 4;
    /// The minisock was removed early: RST, reuse of the port pair, `SOCK_DESTROY`.
    pub const TW_KILLED: u8 = 5;
    /// This host sent an RST for it.
    pub const RESET_SENT: u8 = 6;
    /// The peer's RST was accepted.
    pub const RESET_RECEIVED: u8 = 7;
}

/// How many states of a socket are remembered: a connection passes at most six in its life.
pub const STEPS: usize = 8;

/// A state and the moment it was entered, in one word: the state in the top byte, nanoseconds below (2^56 ns are more
/// than two years of uptime).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Step(pub u64);

impl Step {
    const AT: u64 = (1 << 56) - 1;

    /// `at_ns` 0: entered before tcpwatch looked.
    #[inline(always)]
    pub const fn new(state: u8, at_ns: u64) -> Self {
        Self(((state as u64) << 56) | (at_ns & Self::AT))
    }

    #[inline(always)]
    pub const fn state(self) -> u8 {
        (self.0 >> 56) as u8
    }

    #[inline(always)]
    pub const fn at_ns(self) -> u64 {
        self.0 & Self::AT
    }
}

/// What is kept of a live socket, and under its addresses after its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Memory {
    pub owner: Owner,
    /// A ring of the last states; the next one goes to `step_count % STEPS`.
    pub steps: [Step; STEPS],
    pub step_count: u32,
    /// One of [`end`].
    pub end: u8,
    /// The state it was in when it ended.
    pub end_state: u8,
    /// 1: the FIN was sent with both directions shut, as `close()` does; `shutdown(SHUT_WR)` leaves the other one open.
    pub fin_by_close: u8,
    /// 1: its process was exiting when it closed, and did not close it by itself.
    pub exiting: u8,
    /// When it ended, 0 while it lives.
    pub end_ns: u64,
    /// Payload that arrived (`tcp_sock.bytes_received`), at the end.
    pub bytes_received: u64,
    /// Payload that was sent, what was sent again included (`tcp_sock.bytes_sent`), at the end.
    pub bytes_sent: u64,
    /// `TCP_USER_TIMEOUT` in milliseconds, 0 without one; at the end.
    pub user_timeout: u32,
    /// `sk_err` at the end: what the process is told, by number.
    pub error: u16,
    /// Retransmissions in a row (`icsk_retransmits`), at the end.
    pub retransmits: u8,
    /// Zero-window or keepalive probes in a row (`icsk_probes_out`), at the end.
    pub probes: u8,
}

impl Memory {
    /// For the kernel, which cannot build so much on its stack for every new socket.
    pub const EMPTY: Self = Self {
        owner: Owner {
            start_ns: 0,
            cgroup: 0,
            pid: 0,
            uid: 0,
            root_pid: 0,
            how: 0,
            pad: 0,
            pad2: 0,
            comm: [0; 16],
        },
        steps: [Step(0); STEPS],
        step_count: 0,
        end: 0,
        end_state: 0,
        fin_by_close: 0,
        exiting: 0,
        end_ns: 0,
        bytes_received: 0,
        bytes_sent: 0,
        user_timeout: 0,
        error: 0,
        retransmits: 0,
        probes: 0,
    };

    /// The remembered states, oldest first.
    pub fn history(&self) -> impl Iterator<Item = Step> + '_ {
        let count = self.step_count as usize;
        let first = count.saturating_sub(STEPS);
        (first..count).map(|i| self.steps[i % STEPS])
    }
}

/// How many frames of a user stack are kept, from the innermost on.
pub const USER_FRAMES: usize = 32;

/// A live socket: the value of the table of the living.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Life {
    pub memory: Memory,
    /// Filled when the socket enters CLOSE_WAIT, so that whoever goes through the table can say which connection it is; empty
    /// before, and when the socket is gone. (Its network namespace when it is made, where its listener is known.)
    pub flow: Flow,
    /// The user stack that the owner read from last: its id in the table of stacks, plus 1. 0: it has not read since tcpwatch
    /// looked, or the stack could not be kept.
    pub read_stack: u32,
    pub pad: u32,
    /// How many programs want this place for their socket; who finds that it is the only one may have it.
    pub claims: u64,
}

/// Who listens on a port: exact while one socket does, "several" otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PortOwner {
    pub owner: Owner,
    /// Listening sockets on this port; above 1 the owner is not one process's to claim.
    pub sockets: u32,
    pub pad: u32,
    /// Calls of `accept()` that took a connection from one of them, since tcpwatch looked.
    pub accepts: u64,
    /// When the last of them did, 0 before.
    pub last_accept_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_keeps_state_and_time() {
        let step = Step::new(8, 123_456_789_012_345);
        assert_eq!((step.state(), step.at_ns()), (8, 123_456_789_012_345));
    }

    #[test]
    fn history_is_oldest_first_after_the_ring_wrapped() {
        let mut memory = Memory::EMPTY;
        for i in 0..10u64 {
            memory.steps[(i % 8) as usize] = Step::new(1, i);
            memory.step_count += 1;
        }
        assert!(memory.history().map(Step::at_ns).eq(2..10));
    }
}
