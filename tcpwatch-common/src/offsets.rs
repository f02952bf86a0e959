//! Where the running kernel keeps the fields that the programs read.
//!
//! Rust eBPF has no CO-RE relocations, so user space looks each field up in the kernel's BTF and hands the byte offsets
//! over as read-only data; the verifier sees constants. A field that a kernel lacks is [`ABSENT`], an ordinary value.

use zerocopy::{Immutable, IntoBytes, KnownLayout};

/// The kernel has no such field.
pub const ABSENT: u32 = u32::MAX;

macro_rules! offsets {
    ($($(#[$doc:meta])* $field:ident $structure:literal $path:literal $need:ident;)*) => {
        /// Byte offset of each field from the start of its structure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct Offsets {
            $($(#[$doc])* pub $field: u32,)*
        }

        impl Offsets {
            pub const ABSENT: Self = Self { $($field: ABSENT),* };

            /// What to look up: the field's name here, the structure, the path of members, whether tcpwatch can
            /// do without.
            pub const FIELDS: &[Field] = &[$(Field {
                name: stringify!($field),
                structure: $structure,
                path: $path,
                required: matches!(Need::$need, Need::Required),
            }),*];

            /// Sets the field that [`Self::FIELDS`] lists at `index`.
            pub fn set(&mut self, index: usize, offset: u32) {
                let fields: &mut [&mut u32] = &mut [$(&mut self.$field),*];
                if let Some(field) = fields.get_mut(index) {
                    **field = offset;
                }
            }

            /// The value of the field that [`Self::FIELDS`] lists at `index`.
            pub fn get(&self, index: usize) -> u32 {
                [$(self.$field),*].get(index).copied().unwrap_or(ABSENT)
            }
        }
    };
}

enum Need {
    Required,
    Optional,
}

/// One row of [`Offsets::FIELDS`].
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub structure: &'static str,
    /// Members separated by dots; members of anonymous unions and structures are found by name.
    pub path: &'static str,
    pub required: bool,
}

offsets! {
    sock_daddr "sock_common" "skc_daddr" Required;
    sock_rcv_saddr "sock_common" "skc_rcv_saddr" Required;
    sock_dport "sock_common" "skc_dport" Required;
    sock_num "sock_common" "skc_num" Required;
    sock_prot "sock_common" "skc_prot" Required;
    sock_family "sock_common" "skc_family" Required;
    sock_state "sock_common" "skc_state" Required;
    sock_net "sock_common" "skc_net.net" Required;
    sock_v6_daddr "sock_common" "skc_v6_daddr" Optional;
    sock_v6_rcv_saddr "sock_common" "skc_v6_rcv_saddr" Optional;
    sock_flags "sock_common" "skc_flags" Required;
    /// Valid for a request socket only: the listener it belongs to.
    sock_listener "sock_common" "skc_listener" Required;
    /// Link back from the next one in its hash table, NULL while it is in none: of full sockets, minisocks and requests.
    sock_pprev "sock_common" "skc_node.pprev" Optional;
    sock_protocol "sock" "sk_protocol" Required;
    sock_socket "sock" "sk_socket" Required;
    sock_ack_backlog "sock" "sk_ack_backlog" Required;
    sock_max_ack_backlog "sock" "sk_max_ack_backlog" Required;
    sock_shutdown "sock" "sk_shutdown" Required;
    sock_lingertime "sock" "sk_lingertime" Optional;
    sock_err "sock" "sk_err" Optional;
    /// 1 while a process holds the socket's lock: then what happens to it happens in that process.
    sock_lock_owned "sock" "sk_lock.owned" Required;
    inet_sport "inet_sock" "inet_sport" Required;
    icsk_queue_qlen "inet_connection_sock" "icsk_accept_queue.qlen" Required;
    icsk_queue_young "inet_connection_sock" "icsk_accept_queue.young" Optional;
    icsk_retransmits "inet_connection_sock" "icsk_retransmits" Optional;
    icsk_probes_out "inet_connection_sock" "icsk_probes_out" Optional;
    icsk_user_timeout "inet_connection_sock" "icsk_user_timeout" Optional;
    tcp_snd_una "tcp_sock" "snd_una" Required;
    tcp_snd_nxt "tcp_sock" "snd_nxt" Required;
    tcp_rcv_nxt "tcp_sock" "rcv_nxt" Required;
    tcp_copied_seq "tcp_sock" "copied_seq" Optional;
    tcp_linger2 "tcp_sock" "linger2" Optional;
    tcp_bytes_received "tcp_sock" "bytes_received" Optional;
    tcp_bytes_sent "tcp_sock" "bytes_sent" Optional;
    /// Absent where MPTCP is not built in.
    tcp_is_mptcp "tcp_sock" "is_mptcp" Optional;
    /// Sequence number of our SYN-ACK, less one.
    request_snt_isn "tcp_request_sock" "snt_isn" Required;
    tw_substate "inet_timewait_sock" "tw_substate" Required;
    /// The live count is this minus one (since 6.1).
    tw_refcount "inet_timewait_death_row" "tw_refcount" Optional;
    /// The live count itself (before 6.1).
    tw_count "inet_timewait_death_row" "tw_count" Optional;
    tw_max_buckets "inet_timewait_death_row" "sysctl_max_tw_buckets" Required;
    /// Pointer to the counter of pages.
    proto_memory_allocated "proto" "memory_allocated" Optional;
    /// Pointer to three limits, each a long.
    proto_sysctl_mem "proto" "sysctl_mem" Optional;
    net_inum "net" "ns.inum" Required;
    net_abort_on_overflow "net" "ipv4.sysctl_tcp_abort_on_overflow" Optional;
    net_syncookies "net" "ipv4.sysctl_tcp_syncookies" Optional;
    net_max_syn_backlog "net" "ipv4.sysctl_max_syn_backlog" Optional;
    net_somaxconn "net" "core.sysctl_somaxconn" Optional;
    skb_head "sk_buff" "head" Required;
    skb_dev "sk_buff" "dev" Required;
    skb_dst "sk_buff" "_skb_refdst" Required;
    skb_protocol "sk_buff" "protocol" Required;
    skb_network_header "sk_buff" "network_header" Required;
    skb_transport_header "sk_buff" "transport_header" Required;
    dst_dev "dst_entry" "dev" Optional;
    dev_net "net_device" "nd_net.net" Required;
    rtable_type "rtable" "rt_type" Optional;
    rt6_flags "rt6_info" "rt6i_flags" Optional;
    socket_inode_number "socket_alloc" "vfs_inode.i_ino" Optional;
    task_group_leader "task_struct" "group_leader" Required;
    task_start_boottime "task_struct" "start_boottime" Required;
    task_flags "task_struct" "flags" Required;
    task_pid "task_struct" "pid" Required;
    task_tgid "task_struct" "tgid" Required;
    task_thread_pid "task_struct" "thread_pid" Optional;
    pid_level "pid" "level" Optional;
    pid_numbers "pid" "numbers" Optional;
    upid_nr "upid" "nr" Optional;
    upid_ns "upid" "ns" Optional;
    pid_namespace_inum "pid_namespace" "ns.inum" Optional;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_and_get_reach_the_field_of_the_row() {
        let mut offsets = Offsets::ABSENT;
        let row = Offsets::FIELDS.iter().position(|f| f.name == "tw_substate").unwrap();
        offsets.set(row, 140);
        assert_eq!(offsets.tw_substate, 140);
        assert_eq!(offsets.get(row), 140);
        assert_eq!(offsets.get(0), ABSENT);
    }
}
