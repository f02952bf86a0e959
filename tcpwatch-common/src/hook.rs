//! Every kernel hook has a number, stable and never reused: records and counters carry it.

macro_rules! hooks {
    ($($(#[$doc:meta])* $id:ident = $n:literal $name:literal;)*) => {
        $($(#[$doc])* pub const $id: u8 = $n;)*

        /// How many counters there are: one past the highest number.
        pub const COUNT: usize = [$($n),*].len() + 1;

        /// Every hook with its kernel name.
        pub const ALL: &[(u8, &str)] = &[$(($n, $name)),*];
    };
}

hooks! {
    /// Tracepoint: an RST was sent (since 6.10 with reason, and also without a socket).
    TCP_SEND_RESET = 1 "tcp_send_reset";
    /// Answers a segment with an RST; needed before 6.10.
    TCP_V4_SEND_RESET = 2 "tcp_v4_send_reset";
    TCP_V6_SEND_RESET = 3 "tcp_v6_send_reset";
    /// Netfilter's `reject with tcp reset`.
    NF_SEND_RESET = 4 "nf_send_reset";
    NF_SEND_RESET6 = 5 "nf_send_reset6";
    /// An RST that the socket obeys.
    TCP_RESET = 6 "tcp_reset";
    /// Tracepoint beside it, for hosts without function hooks.
    TCP_RECEIVE_RESET = 7 "tcp_receive_reset";
    /// RSTs that are not obeyed.
    TCP_VALIDATE_INCOMING = 8 "tcp_validate_incoming";
    TCP_RCV_STATE_PROCESS = 9 "tcp_rcv_state_process";
    /// Half-open requests.
    TCP_CHECK_REQ = 10 "tcp_check_req";
    INET_CSK_REQSK_QUEUE_DROP = 11 "inet_csk_reqsk_queue_drop";
    /// TIME_WAIT minisocks.
    TCP_TIMEWAIT_STATE_PROCESS = 12 "tcp_timewait_state_process";
    INET_TWSK_DESCHEDULE_PUT = 13 "inet_twsk_deschedule_put";
    INET_TWSK_ALLOC = 14 "inet_twsk_alloc";
    TCP_TIME_WAIT = 15 "tcp_time_wait";
    INET_TWSK_KILL = 16 "inet_twsk_kill";
    /// The SYN side of a listener.
    TCP_CONN_REQUEST = 17 "tcp_conn_request";
    TCP_MAKE_SYNACK = 18 "tcp_make_synack";
    INET_CSK_REQSK_QUEUE_HASH_ADD = 19 "inet_csk_reqsk_queue_hash_add";
    INET_REQSK_ALLOC = 20 "inet_reqsk_alloc";
    TCP_V4_ROUTE_REQ = 21 "tcp_v4_route_req";
    TCP_V6_ROUTE_REQ = 22 "tcp_v6_route_req";
    /// The ACK side of a listener.
    TCP_V4_SYN_RECV_SOCK = 23 "tcp_v4_syn_recv_sock";
    TCP_V6_SYN_RECV_SOCK = 24 "tcp_v6_syn_recv_sock";
    /// Tracepoint: state transitions, and with them `connect()`, `listen()` and `close()`.
    INET_SOCK_SET_STATE = 25 "inet_sock_set_state";
    /// Tracepoint: the socket's last moment.
    TCP_DESTROY_SOCK = 26 "tcp_destroy_sock";
    /// Ownership.
    INET_CSK_ACCEPT = 27 "inet_csk_accept";
    INET_CSK_COMPLETE_HASHDANCE = 28 "inet_csk_complete_hashdance";
    INET_CSK_REQSK_QUEUE_ADD = 29 "inet_csk_reqsk_queue_add";
    INET_CHILD_FORGET = 30 "inet_child_forget";
    TCP_SENDMSG = 31 "tcp_sendmsg";
    TCP_RECVMSG = 32 "tcp_recvmsg";
    /// Tracepoints that tell of use where functions cannot be hooked.
    SOCK_SEND_LENGTH = 33 "sock_send_length";
    SOCK_RECV_LENGTH = 34 "sock_recv_length";
    TCP_RCV_SPACE_ADJUST = 35 "tcp_rcv_space_adjust";
    /// Tracepoint: dropped segments.
    KFREE_SKB = 36 "kfree_skb";
    /// Tracepoint: retransmissions.
    TCP_RETRANSMIT_SKB = 37 "tcp_retransmit_skb";
    /// An ICMP error ends a half-open request.
    TCP_REQ_ERR = 38 "tcp_req_err";
}

/// The kernel name of a hook.
pub fn name(id: u8) -> Option<&'static str> {
    ALL.iter().find(|(n, _)| *n == id).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_dense_enough_to_index_counters() {
        for (i, (id, name)) in ALL.iter().enumerate() {
            assert!((*id as usize) < COUNT, "{name} has no counter");
            assert!(ALL[..i].iter().all(|(other, _)| other != id), "{name} shares its number");
        }
    }
}
