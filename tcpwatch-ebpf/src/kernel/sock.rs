//! Sockets: full ones, TIME_WAIT minisocks and half-open requests, which share `struct sock_common`.

use super::config::config;
use super::field::{Structure, at, field, has_field};
use crate::words;
use tcpwatch_common::flow::{Addr, Flow};
use tcpwatch_common::owner::Memory;
use tcpwatch_common::record::{Listen, Socket, TimeWait, flag};
use tcpwatch_common::state;
use tcpwatch_common::table::any;

const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
/// `enum sock_flags`: the same number in every kernel from 5.10 on.
const SOCK_DEAD: u64 = 1 << 0;
/// The peer's FIN came.
const SOCK_DONE: u64 = 1 << 1;
/// `SHUTDOWN_MASK`: both directions.
const SHUTDOWN_BOTH: u8 = 3;

/// A kernel socket: by its address, 0 is none, or as a [`Structure`] that costs less to read.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Sock<S = u64>(pub S);

impl<S: Structure> Sock<S> {
    #[inline(always)]
    pub fn exists(self) -> bool {
        self.0.exists()
    }

    /// The same by its address: to look it up, and for what not every socket has.
    #[inline(always)]
    pub fn by_address(self) -> Sock {
        Sock(self.0.address())
    }

    #[inline(always)]
    pub fn state(self) -> u8 {
        field!(self.0, sock_state)
    }

    /// TCP proper: MPTCP and SCTP sockets pass through the same tracepoints.
    #[inline(always)]
    pub fn is_tcp(self) -> bool {
        let protocol: u16 = field!(self.0, sock_protocol);
        protocol == IPPROTO_TCP
    }

    #[inline(always)]
    pub fn netns(self) -> u32 {
        net_inum(field!(self.0.address(), sock_net))
    }

    /// The local port in host byte order.
    ///
    /// `tcp_set_state(TCP_CLOSE)` gives the port back (`skc_num` becomes 0) before it tells anyone; a full socket still
    /// has it as `inet_sport`.
    #[inline(always)]
    pub fn local_port(self, full: bool) -> u16 {
        let num: u16 = field!(self.0, sock_num);
        if num == 0 && full {
            return self.0.tcp().map_or(0, |tcp| u16::from_be(field!(tcp, inet_sport)));
        }
        num
    }

    #[inline(always)]
    pub fn flow(self, full: bool) -> Flow {
        self.flow_in(self.netns(), full)
    }

    /// [`Self::flow`] where the network namespace is known.
    #[inline(always)]
    pub fn flow_in(self, netns: u32, full: bool) -> Flow {
        if S::CALLS && config!(socket_head) == 1 {
            return self.flow_by_head(netns, full);
        }
        let family: u16 = field!(self.0, sock_family);
        let (local, remote) = if family == AF_INET6 {
            self.v6()
        } else {
            (Addr::v4(field!(self.0, sock_rcv_saddr)), Addr::v4(field!(self.0, sock_daddr)))
        };
        Flow {
            local,
            remote,
            local_port: self.local_port(full),
            remote_port: u16::from_be(field!(self.0, sock_dport)),
            netns,
        }
    }

    /// [`Self::flow_in`] where `struct sock_common` begins as it does in every kernel so far: its first 20 bytes in one read.
    #[inline(always)]
    fn flow_by_head(self, netns: u32, full: bool) -> Flow {
        let [daddr, rcv_saddr, _, ports, family]: [u32; 5] = self.0.words(0);
        let (local, remote) =
            if family as u16 == AF_INET6 { self.v6() } else { (Addr::v4(rcv_saddr), Addr::v4(daddr)) };
        let num = (ports >> 16) as u16;
        Flow {
            local,
            remote,
            local_port: if num == 0 { self.local_port(full) } else { num },
            remote_port: u16::from_be(ports as u16),
            netns,
        }
    }

    /// Local and remote address of IPv6; of another family where the kernel has no IPv6.
    #[inline(always)]
    fn v6(self) -> (Addr, Addr) {
        let (local, remote) = (config!(offsets.sock_v6_rcv_saddr), config!(offsets.sock_v6_daddr));
        if !has_field!(sock_v6_rcv_saddr) || !has_field!(sock_v6_daddr) {
            return (Addr::default(), Addr::default());
        }
        (Addr(self.0.words(local)), Addr(self.0.words(remote)))
    }

    /// Orphaned: no process can reach it any more. Full sockets only.
    #[inline(always)]
    pub fn is_dead(self) -> bool {
        let flags: u64 = field!(self.0, sock_flags);
        flags & SOCK_DEAD != 0
    }

    /// `sk_socket` is not NULL: what a descriptor leads to. Full sockets only.
    #[inline(always)]
    pub fn has_file(self) -> bool {
        let socket: u64 = field!(self.0.address(), sock_socket);
        socket != 0
    }

    /// A process holds the lock, so what happens happens in that process.
    #[inline(always)]
    pub fn owned(self) -> bool {
        let owned: i32 = field!(self.0, sock_lock_owned);
        owned != 0
    }

    /// `close()` (or `shutdown()` both ways) came to it.
    #[inline(always)]
    pub fn is_shut(self) -> bool {
        self.shutdown() & SHUTDOWN_BOTH == SHUTDOWN_BOTH
    }

    /// Bit 0: no more receiving, bit 1: no more sending. (A bitfield in no kernel from 5.10 on.)
    #[inline(always)]
    fn shutdown(self) -> u8 {
        field!(self.0, sock_shutdown)
    }

    #[inline(always)]
    pub fn is_mptcp(self) -> bool {
        let flag: u8 = field!(self.0.address(), tcp_is_mptcp);
        flag & 1 != 0
    }

    /// What a socket had done, and why it ended, at its end, when it was in `old`. `sk_err` is set before the state changes.
    ///
    /// # Safety
    /// `into` must be writable, and empty.
    #[inline(always)]
    pub unsafe fn sum_up(self, into: *mut Memory, old: u8) {
        let Some(tcp) = self.0.tcp() else { return };
        let bytes = (payload_received(tcp, field!(self.0, sock_flags)), field!(tcp, tcp_bytes_sent));
        let error: i32 = field!(self.0, sock_err);
        // SAFETY: by contract.
        unsafe {
            (*into).bytes_received = bytes.0;
            (*into).bytes_sent = bytes.1;
            (*into).error = error as u16;
        }
        // Most connections end in these two states without an error: nothing was tried in vain.
        if error == 0 && (old == state::FIN_WAIT2 || old == state::LAST_ACK) {
            return;
        }
        let user_timeout = field!(tcp, icsk_user_timeout);
        let tried = (field!(tcp, icsk_retransmits), field!(tcp, icsk_probes_out));
        // SAFETY: by contract.
        unsafe {
            (*into).user_timeout = user_timeout;
            (*into).retransmits = tried.0;
            (*into).probes = tried.1;
        }
    }

    /// What tells acts apart on kernels that give no reason.
    ///
    /// # Safety
    /// `into` must be writable.
    #[inline(always)]
    pub unsafe fn details(self, into: *mut Socket) {
        let Some(tcp) = self.0.tcp() else {
            // SAFETY: by contract.
            unsafe { words::zero(into) };
            return;
        };
        let flags: u64 = field!(self.0, sock_flags);
        let details = (
            field!(tcp, tcp_linger2),
            field!(self.0, sock_lingertime),
            field!(tcp, tcp_snd_una),
            field!(tcp, tcp_snd_nxt),
            field!(tcp, tcp_rcv_nxt),
            field!(tcp, tcp_copied_seq),
        );
        let prot: u64 = field!(self.0.address(), sock_prot);
        let used: u64 = at(field!(prot, proto_memory_allocated));
        let max: u64 = at(u64::wrapping_add(field!(prot, proto_sysctl_mem), 2 * 8));
        let bytes = (payload_received(tcp, flags), field!(tcp, tcp_bytes_sent));
        // SAFETY: by contract.
        unsafe {
            (*into).flags = flags as u32;
            (*into).linger2 = details.0;
            (*into).lingertime = details.1;
            (*into).snd_una = details.2;
            (*into).snd_nxt = details.3;
            (*into).rcv_nxt = details.4;
            (*into).copied_seq = details.5;
            (*into).shutdown = u32::from(self.shutdown());
            (*into).memory_used = used as u32;
            (*into).memory_max = max as u32;
            (*into).pad = 0;
            (*into).bytes_received = bytes.0;
            (*into).bytes_sent = bytes.1;
        }
    }
}

impl Sock {
    /// Neither a minisock nor a request: what lies behind `sock_common` may be read.
    #[inline(always)]
    pub fn is_full(state: u8) -> bool {
        state != state::TIME_WAIT && state != state::NEW_SYN_RECV && state != 0
    }

    /// Inode of the socket, as `/proc/PID/fd` shows it; 0 without one.
    #[inline(always)]
    pub fn inode(self) -> u64 {
        let socket: u64 = field!(self.0, sock_socket);
        field!(socket, socket_inode_number)
    }

    #[inline(always)]
    pub fn tw_substate(self) -> u8 {
        field!(self.0, tw_substate)
    }

    /// The listener's queues and the settings of its namespace, at the SYN (stage 0) or at the last ACK (1).
    #[inline(always)]
    pub fn listen(self, stage: u8) -> Listen {
        let net: u64 = field!(self.0, sock_net);
        Listen {
            accept_len: field!(self.0, sock_ack_backlog),
            accept_max: field!(self.0, sock_max_ack_backlog),
            syn_len: field!(self.0, icsk_queue_qlen),
            max_syn_backlog: field!(net, net_max_syn_backlog),
            somaxconn: field!(net, net_somaxconn),
            syncookies: field!(net, net_syncookies),
            abort_on_overflow: field!(net, net_abort_on_overflow),
            stage,
            passed: 0,
        }
    }

    /// In no hash table any more: a request or minisock that was removed. Where that cannot be told, it may be.
    #[inline(always)]
    pub fn is_unhashed(self) -> bool {
        let pprev: u64 = field!(self.0, sock_pprev);
        pprev == 0
    }

    /// Where a listener is bound, as bits of `record::flag`. Without a branch, which would be two ways for the verifier to walk what follows.
    ///
    /// kernel: v5.10.. net/ipv6/af_inet6.c `__inet6_bind`: a wildcard of IPv6 leaves `sk_rcv_saddr` 0 too
    #[inline(always)]
    pub fn bound(self) -> u32 {
        let family: u16 = field!(self.0, sock_family);
        let v4: u32 = field!(self.0, sock_rcv_saddr);
        let v6: [u64; 2] = field!(self.0, sock_v6_rcv_saddr);
        let not_v6 = any(u64::from(family ^ AF_INET6));
        let one = any(u64::from(v4) | (v6[0] | v6[1]) & !not_v6);
        let place = [flag::ONE_ADDRESS, flag::ANY_V4, flag::ANY_V6].map(u64::from);
        let bound = one & place[0] | !one & (not_v6 & place[1] | !not_v6 & place[2]);
        // Nothing is known of a socket that cannot be read.
        (bound & any(family.into())) as u32
    }

    /// Half-open requests that are young, of a listener.
    #[inline(always)]
    pub fn young_requests(self) -> u32 {
        field!(self.0, icsk_queue_young)
    }
}

/// Payload that arrived. The kernel counts the FIN's place in the sequence as well, and marks that it came.
///
/// kernel: v5.10.. net/ipv4/tcp_input.c `tcp_rcv_nxt_update`, `tcp_fin`
#[inline(always)]
fn payload_received(tcp: impl Structure, flags: u64) -> u64 {
    let counted: u64 = field!(tcp, tcp_bytes_received);
    // 0 where this kernel's count is not known.
    counted.saturating_sub(u64::from(flags & SOCK_DONE != 0))
}

/// Inode number of a network namespace by `struct net`.
#[inline(always)]
pub fn net_inum(net: u64) -> u32 {
    field!(net, net_inum)
}

/// The TIME_WAIT table of a namespace by its `struct inet_timewait_death_row`.
#[inline(always)]
pub fn death_row(row: u64, substate: u32) -> TimeWait {
    // Since 6.1 a refcount, which the namespace itself holds once.
    let used: u32 = if has_field!(tw_refcount) {
        u32::saturating_sub(field!(row, tw_refcount), 1)
    } else {
        field!(row, tw_count)
    };
    TimeWait { used, max: field!(row, tw_max_buckets), substate, pad: 0 }
}
