//! The places in the kernel where a connection is reset, turned away or given up. Every one of them has a cause, and a row
//! names those that it covers.

/// What becomes of a segment or a connection at one place.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The first letter names the [`GROUPS`] it belongs to.
    pub id: &'static str,
    /// The function that decides. Others may be compiled into it.
    pub function: &'static str,
    /// When it comes to that.
    pub when: &'static str,
}

/// What the letters stand for.
pub const GROUPS: &[(char, &str)] = &[
    ('A', "RSTs of the host's own accord (`tcp_send_active_reset`)"),
    ('P', "RSTs that answer a segment (`tcp_v4_send_reset`, `tcp_v6_send_reset`)"),
    ('F', "RSTs that do not pass TCP"),
    ('R', "RSTs received and obeyed"),
    ('I', "RSTs received and ignored"),
    ('S', "SYNs that a listener does not answer as usual"),
    ('L', "Last ACKs of a handshake that get no socket"),
    ('Q', "Connections that end in silence: the next segment draws an RST (P1, P3)"),
];

const fn place(id: &'static str, function: &'static str, when: &'static str) -> Place {
    Place { id, function, when }
}

/// Every place, by group.
pub const PLACES: &[Place] = &[
    place("A1", "__tcp_close", "close() while bytes in the receive queue are unread"),
    place("A2", "tcp_disconnect", "close() with SO_LINGER and time 0"),
    place("A3", "tcp_disconnect", "connect(AF_UNSPEC) on a connection"),
    place("A4", "tcp_disconnect", "one of these two in CLOSING or LAST_ACK while data wait to be sent"),
    place("A5", "inet_csk_listen_stop", "a listener closes, children wait to be accepted"),
    place(
        "A6",
        "inet_csk_complete_hashdance",
        "a child is done when its listener is gone, or cannot be moved to another",
    ),
    place("A7", "__tcp_close", "close() in FIN_WAIT2 with TCP_LINGER2 negative"),
    place("A8", "__tcp_close", "close() makes one orphan too many, or TCP is out of memory"),
    place("A9", "tcp_out_of_resources", "the same found when an orphan retransmits or probes"),
    place("A10", "tcp_keepalive_timer", "an orphan's time in FIN_WAIT2 is over"),
    place("A11", "tcp_keepalive_timer", "keepalive probes or TCP_USER_TIMEOUT ran out"),
    place("A12", "tcp_abort", "SOCK_DESTROY (`ss -K`) or bpf_sock_destroy"),
    place("A13", "tcp_abort", "the same on a listener: its children are reset"),
    place(
        "A14",
        "mptcp_do_fastclose",
        "MPTCP closes with unread data, SO_LINGER 0, by disconnect or timeout",
    ),
    place("A15", "mptcp_check_fastclose", "the peer's MP_FASTCLOSE: the remaining subflows are reset"),
    place("A16", "mptcp_subflow_reset", "a join failed, a mapping is corrupt, an MP_FAIL stayed unanswered"),
    place("A17", "subflow_check_data_avail", "a segment of a subflow has no mapping, or a wrong one"),
    place("P1", "tcp_v4_rcv", "no socket: a closed port, or a connection that is no more"),
    place("P2", "tcp_v4_rcv", "an orphan's minisock in FIN_WAIT2 gets data, or a SYN"),
    place("P3", "tcp_rcv_state_process", "an ACK or a FIN reaches a listener"),
    place("P4", "tcp_check_req", "… because its number does not fit the half-open request"),
    place("P5", "tcp_check_req", "a last ACK gets no socket, and tcp_abort_on_overflow is 1"),
    place("P6", "tcp_check_req", "a SYN meets a half-open request"),
    place("P7", "tcp_child_process", "a new child refuses its first segment"),
    place("P8", "tcp_child_process", "the child of a SYN cookie refuses its first segment"),
    place("P9", "tcp_rcv_synsent_state_process", "in SYN_SENT an ACK of what was never sent"),
    place("P10", "tcp_rcv_synsent_state_process", "in SYN_SENT the echo of a timestamp that was never sent"),
    place("P11", "tcp_rcv_state_process", "in SYN_RECV an ACK of what was never sent, or of too little"),
    place("P12", "tcp_rcv_state_process", "the ACK of an orphan's FIN, TCP_LINGER2 negative"),
    place("P13", "tcp_rcv_state_process", "the ACK of an orphan's FIN brings data"),
    place("P14", "tcp_rcv_state_process", "data for a socket that is closed or shut for reading"),
    place("P15", "subflow_v4_route_req", "MPTCP refuses a SYN"),
    place("P16", "subflow_syn_recv_sock", "MPTCP refuses a last ACK"),
    place("F1", "nf_send_reset", "a rule of netfilter rejects with a TCP reset"),
    place("R1", "tcp_reset", "in SYN_SENT: ECONNREFUSED"),
    place("R2", "tcp_reset", "in ESTABLISHED, FIN_WAIT1 or FIN_WAIT2: ECONNRESET"),
    place("R3", "tcp_reset", "in CLOSE_WAIT: EPIPE"),
    place("R4", "tcp_reset", "in LAST_ACK or CLOSING"),
    place("R5", "tcp_reset", "in SYN_RECV: a simultaneous open, or a child of TCP fast open"),
    place("R6", "tcp_check_req", "it ends a half-open request"),
    place("R7", "tcp_timewait_state_process", "it ends TIME_WAIT (tcp_rfc1337=0)"),
    place("R8", "tcp_timewait_state_process", "it ends the minisock of an orphan in FIN_WAIT2"),
    place("R9", "tcp_reset", "it ends a subflow of MPTCP"),
    place("I1", "tcp_validate_incoming", "in the window, not exact: answered with a challenge ACK"),
    place("I2", "tcp_validate_incoming", "outside the window"),
    place("I3", "tcp_rcv_synsent_state_process", "in SYN_SENT without ACK, or with a wrong one"),
    place("I4", "tcp_rcv_state_process", "at a listener"),
    place(
        "I5",
        "tcp_check_req",
        "at a half-open request: outside the window, or answered with a challenge ACK",
    ),
    place("I6", "tcp_timewait_state_process", "in TIME_WAIT: outside the window, or tcp_rfc1337=1"),
    place("S1", "tcp_conn_request", "the SYN queue is full, and cookies are off"),
    place("S2", "tcp_conn_request", "the accept queue is full"),
    place("S3", "tcp_conn_request", "no memory for a request"),
    place("S4", "tcp_conn_request", "no route back, or an LSM, BPF or MPTCP refuses"),
    place(
        "S5",
        "tcp_conn_request",
        "cookies are off, and the last quarter of tcp_max_syn_backlog is for known hosts",
    ),
    place("S6", "tcp_conn_request", "the options of TCP-AO or TCP-MD5 do not parse (from 6.7 on)"),
    place("S7", "tcp_conn_request", "the SYN queue is full: a cookie is sent"),
    place("L1", "tcp_v4_syn_recv_sock", "the accept queue is full, also for the ACK of a cookie"),
    place("L2", "tcp_v4_syn_recv_sock", "no memory, no route, or an LSM or BPF refuses"),
    place("L3", "cookie_v4_check", "the cookie is wrong or too old"),
    place("L4", "tcp_req_err", "ICMP says that the SYN-ACK cannot be delivered"),
    place("Q1", "tcp_write_err", "retransmissions, zero-window probes or TCP_USER_TIMEOUT ran out"),
    place("Q2", "tcp_time_wait", "the TIME_WAIT table is full, or there is no memory for a slot"),
    place("Q3", "tw_timer_handler", "the minisock of an orphan in FIN_WAIT2 expires"),
    place("Q4", "tcp_out_of_resources", "an orphan is given up without an RST"),
    place("Q5", "tcp_v4_err", "ICMP ends a handshake, or a connection with IP_RECVERR"),
    place("Q6", "inet_twsk_deschedule_put", "TIME_WAIT is cut short: an RST, a new connection, `ss -K`"),
    place("Q7", "reqsk_timer_handler", "a half-open request expires, or its listener goes"),
];

/// What looks alike and is none: no event, and no harm.
pub const HARMLESS: &[(&str, &str)] = &[
    ("tcp_check_req", "TCP_DEFER_ACCEPT swallows the bare last ACK and waits for data (TCPDeferAcceptDrop)"),
    ("tcp_conn_request", "a SYN comes twice: its request is there already"),
    ("tcp_check_req", "another CPU has the request: the segment is looked up again"),
    ("tcp_inbound_hash", "TCP-MD5 or TCP-AO do not match: the segment is dropped, no RST is sent"),
    (
        "tcp_validate_incoming",
        "a SYN, or an ACK of what was never sent, on a connection: answered with a challenge ACK",
    ),
];

#[cfg(test)]
mod tests {
    use super::super::all;
    use super::*;

    #[test]
    fn every_place_has_a_cause_and_every_cause_a_place() {
        for place in PLACES {
            let covered = all().any(|spec| spec.sites.contains(&place.id));
            assert!(covered, "{}: {} has no cause", place.id, place.when);
            assert!(GROUPS.iter().any(|(letter, _)| place.id.starts_with(*letter)), "{}", place.id);
        }
        for spec in all() {
            let known = |id: &&str| PLACES.iter().any(|place| place.id == *id);
            assert_eq!(spec.sites.iter().find(|id| !known(id)), None, "{}", spec.id);
            let placeless = ["close-wait-leak", "unknown"].contains(&spec.id);
            assert_eq!(spec.sites.is_empty(), placeless, "{}", spec.id);
        }
    }

    #[test]
    fn every_reset_site_of_the_kernel_is_there() {
        let numbered = |letter: char, last: u32| (1..=last).map(move |number| format!("{letter}{number}"));
        for id in numbered('A', 17).chain(numbered('P', 16)) {
            assert_eq!(PLACES.iter().filter(|place| place.id == id).count(), 1, "{id}");
        }
    }
}
