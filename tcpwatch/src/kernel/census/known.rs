//! THE TABLE of callers: which functions of the kernel send an RST, obey one, or ask for a TIME_WAIT slot, and to which of
//! the catalogue's sites that belongs. The sites lead to the causes.
//!
//! Rows name functions of all kernels that are supported; where a compiler inlined one, the row of the function around
//! it stands beside. Calls through pointers cannot be seen in the text: the variables that hold these pointers are
//! found, and who calls through them is said here, from the source.

use super::scan::How;

/// What a target is for, and with it the heading it stands under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Sends,
    Takes,
    Replaces,
}

impl Role {
    pub fn heading(self) -> &'static str {
        match self {
            Self::Sends => "What sends RSTs",
            Self::Takes => "What obeys an RST",
            Self::Replaces => "What puts a socket into TIME_WAIT",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Sends => "sends",
            Self::Takes => "obeys",
            Self::Replaces => "time_wait",
        }
    }
}

/// Whether a kernel without the function can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Every kernel has it.
    Always,
    /// Every kernel that has this other function.
    With(&'static str),
    /// A module, or a kernel that has no such feature.
    Never,
}

/// A function whose callers are counted.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    pub role: Role,
    pub need: Need,
    /// What it does. No full stop.
    pub does: &'static str,
    pub callers: &'static [Known],
}

/// Who leads to it, and to what that leads.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub how: How,
    /// The function that calls, or the variable that holds the pointer.
    pub name: &'static str,
    /// Where it stands in the kernel's source.
    pub source: &'static str,
    /// For a pointer, from the source: the functions that call through it.
    pub through: &'static [&'static str],
    pub meaning: Meaning,
}

/// What happens at the calls of one function.
#[derive(Clone, Copy, Debug)]
pub enum Meaning {
    /// The catalogue's sites.
    Sites(&'static [&'static str]),
    /// Nothing that the catalogue must know, and why. No full stop.
    Aside(&'static str),
}

use Meaning::{Aside, Sites};

impl Meaning {
    pub fn sites(self) -> &'static [&'static str] {
        match self {
            Sites(sites) => sites,
            Aside(_) => &[],
        }
    }
}

const fn call(name: &'static str, source: &'static str, meaning: Meaning) -> Known {
    Known { how: How::Call, name, source, through: &[], meaning }
}

const fn pointer(
    name: &'static str,
    source: &'static str,
    through: &'static [&'static str],
    meaning: Meaning,
) -> Known {
    Known { how: How::Pointer, name, source, through, meaning }
}

const TCP: &str = "net/ipv4/tcp.c";
const INPUT: &str = "net/ipv4/tcp_input.c";
const IPV4: &str = "net/ipv4/tcp_ipv4.c";
const IPV6: &str = "net/ipv6/tcp_ipv6.c";
const MINISOCKS: &str = "net/ipv4/tcp_minisocks.c";
const TIMER: &str = "net/ipv4/tcp_timer.c";
const BRIDGE: &str = "net/bridge/netfilter/nft_reject_bridge.c";
const NETDEV: &str = "net/netfilter/nft_reject_netdev.c";
const MPTCP_OPTIONS: &str = "net/mptcp/options.c";
const MPTCP_PROTOCOL: &str = "net/mptcp/protocol.c";
const MPTCP_SUBFLOW: &str = "net/mptcp/subflow.c";

/// A segment that met no socket, a FIN_WAIT2 whose process is gone, or a child just born.
const ARRIVAL: Meaning = Sites(&["P1", "P2", "P7"]);
/// A segment that met a listener, or a socket that will not have it.
const SOCKET: Meaning = Sites(&["P3", "P4", "P8", "P9", "P10", "P11", "P12", "P13", "P14"]);
const REQUEST: Meaning = Sites(&["P5", "P6", "P15"]);
const JOIN: Meaning = Sites(&["P5", "P6", "P16"]);
const CLOSE: Meaning = Sites(&["A1", "A7", "A8"]);
const DISCONNECT: Meaning = Sites(&["A2", "A3", "A4", "A5", "A6", "A13"]);
const RESOURCES: Meaning = Sites(&["A9"]);
const KEEPALIVE: Meaning = Sites(&["A10", "A11"]);
const ABORT: Meaning = Sites(&["A12"]);
const FASTCLOSE: Meaning = Sites(&["A14"]);
const PEER_FASTCLOSE: Meaning = Sites(&["A15"]);
const SUBFLOW: Meaning = Sites(&["A16"]);
const MAPPING: Meaning = Sites(&["A17"]);
const FIREWALL: Meaning = Sites(&["F1"]);
const OBEYED: Meaning = Sites(&["R2", "R3", "R4", "R5", "R9"]);
/// In SYN_SENT; and the call for data after `shutdown()`, where no RST was received.
const REFUSED: Meaning = Sites(&["R1", "P14"]);
const FASTOPEN: Meaning = Sites(&["R5"]);
const NO_SLOT: Meaning = Sites(&["Q2"]);

const ACK_ONLY: Meaning = Aside("sends an ACK, no RST");
const COUNTED: Meaning = Aside("counted by its own callers");
const BESIDE: Meaning = Aside("a bridge's or device's firewall: passes this host's stack by and is not seen");
const OTHER: Meaning = Aside("DCCP, not TCP");

/// Every target, in the order of the page.
pub const TARGETS: &[Target] = &[
    Target {
        name: "tcp_v4_send_reset",
        role: Role::Sends,
        need: Need::Always,
        does: "answers an IPv4 segment with an RST",
        callers: &[
            call("tcp_v4_rcv", IPV4, ARRIVAL),
            call("tcp_v4_do_rcv", IPV4, SOCKET),
            pointer("tcp_request_sock_ops", IPV4, &["tcp_check_req", "subflow_v4_route_req"], REQUEST),
            pointer(
                "mptcp_subflow_v4_request_sock_ops",
                MPTCP_SUBFLOW,
                &["tcp_check_req", "subflow_syn_recv_sock"],
                JOIN,
            ),
            pointer(
                "mptcp_subflow_request_sock_ops",
                MPTCP_SUBFLOW,
                &["tcp_check_req", "subflow_syn_recv_sock"],
                JOIN,
            ),
        ],
    },
    Target {
        name: "tcp_v6_send_reset",
        role: Role::Sends,
        need: Need::With("tcp_v6_rcv"),
        does: "answers an IPv6 segment with an RST",
        callers: &[
            call("tcp_v6_rcv", IPV6, ARRIVAL),
            call("tcp_v6_do_rcv", IPV6, SOCKET),
            pointer("tcp6_request_sock_ops", IPV6, &["tcp_check_req", "subflow_v6_route_req"], REQUEST),
            pointer(
                "mptcp_subflow_v6_request_sock_ops",
                MPTCP_SUBFLOW,
                &["tcp_check_req", "subflow_syn_recv_sock"],
                JOIN,
            ),
        ],
    },
    Target {
        name: "tcp_send_active_reset",
        role: Role::Sends,
        need: Need::Always,
        does: "ends a connection with an RST",
        callers: &[
            call("__tcp_close", TCP, CLOSE),
            call("tcp_disconnect", TCP, DISCONNECT),
            call("tcp_abort", TCP, ABORT),
            call("tcp_out_of_resources", TIMER, RESOURCES),
            call("tcp_keepalive_timer", TIMER, KEEPALIVE),
            call("mptcp_do_fastclose", MPTCP_PROTOCOL, FASTCLOSE),
            call("mptcp_check_fastclose", MPTCP_PROTOCOL, PEER_FASTCLOSE),
            call("mptcp_worker", MPTCP_PROTOCOL, PEER_FASTCLOSE),
            call("mptcp_subflow_reset", MPTCP_SUBFLOW, COUNTED),
            call("subflow_check_data_avail", MPTCP_SUBFLOW, MAPPING),
            call("mptcp_subflow_data_available", MPTCP_SUBFLOW, MAPPING),
        ],
    },
    Target {
        name: "mptcp_subflow_reset",
        role: Role::Sends,
        need: Need::Never,
        does: "ends a subflow of MPTCP with an RST",
        callers: &[
            call("mptcp_dss_corruption", MPTCP_PROTOCOL, SUBFLOW),
            call("__mptcp_move_skbs_from_subflow", MPTCP_PROTOCOL, SUBFLOW),
            call("mptcp_update_infinite_map", MPTCP_PROTOCOL, SUBFLOW),
            call("mptcp_sendmsg_frag", MPTCP_PROTOCOL, SUBFLOW),
            call("__mptcp_flush_join_list", MPTCP_PROTOCOL, SUBFLOW),
            call("mptcp_release_cb", MPTCP_PROTOCOL, SUBFLOW),
            call("mptcp_mp_fail_no_response", MPTCP_PROTOCOL, SUBFLOW),
            call("mptcp_worker", MPTCP_PROTOCOL, SUBFLOW),
            call("subflow_finish_connect", MPTCP_SUBFLOW, SUBFLOW),
            call("check_fully_established", MPTCP_OPTIONS, SUBFLOW),
            call("mptcp_incoming_options", MPTCP_OPTIONS, SUBFLOW),
        ],
    },
    Target {
        name: "ip_send_unicast_reply",
        role: Role::Sends,
        need: Need::Always,
        does: "sends an IPv4 segment without a socket",
        callers: &[
            call("tcp_v4_send_reset", IPV4, COUNTED),
            call("tcp_v4_send_ack", IPV4, ACK_ONLY),
            call("tcp_v4_timewait_ack", IPV4, ACK_ONLY),
            call("tcp_v4_reqsk_send_ack", IPV4, ACK_ONLY),
            call("tcp_v4_rcv", IPV4, ACK_ONLY),
        ],
    },
    Target {
        name: "tcp_v6_send_response",
        role: Role::Sends,
        need: Need::With("tcp_v6_rcv"),
        does: "sends an IPv6 segment without a socket",
        callers: &[
            call("tcp_v6_send_reset", IPV6, COUNTED),
            call("tcp_v6_send_ack", IPV6, ACK_ONLY),
            call("tcp_v6_timewait_ack", IPV6, ACK_ONLY),
            call("tcp_v6_reqsk_send_ack", IPV6, ACK_ONLY),
            call("tcp_v6_rcv", IPV6, ACK_ONLY),
        ],
    },
    Target {
        name: "nf_send_reset",
        role: Role::Sends,
        need: Need::Never,
        does: "rejects an IPv4 segment",
        callers: &[
            call("reject_tg", "net/ipv4/netfilter/ipt_REJECT.c", FIREWALL),
            call("nft_reject_ipv4_eval", "net/ipv4/netfilter/nft_reject_ipv4.c", FIREWALL),
            call("nft_reject_inet_eval", "net/netfilter/nft_reject_inet.c", FIREWALL),
        ],
    },
    Target {
        name: "nf_send_reset6",
        role: Role::Sends,
        need: Need::Never,
        does: "rejects an IPv6 segment",
        callers: &[
            call("reject_tg6", "net/ipv6/netfilter/ip6t_REJECT.c", FIREWALL),
            call("nft_reject_ipv6_eval", "net/ipv6/netfilter/nft_reject_ipv6.c", FIREWALL),
            call("nft_reject_inet_eval", "net/netfilter/nft_reject_inet.c", FIREWALL),
        ],
    },
    Target {
        name: "nf_reject_skb_v4_tcp_reset",
        role: Role::Sends,
        need: Need::Never,
        does: "makes an RST for an IPv4 frame",
        callers: &[
            call("nft_reject_br_send_v4_tcp_reset", BRIDGE, BESIDE),
            call("nft_reject_bridge_eval", BRIDGE, BESIDE),
            call("nft_reject_netdev_send_v4_tcp_reset", NETDEV, BESIDE),
            call("nft_reject_netdev_eval", NETDEV, BESIDE),
        ],
    },
    Target {
        name: "nf_reject_skb_v6_tcp_reset",
        role: Role::Sends,
        need: Need::Never,
        does: "makes an RST for an IPv6 frame",
        callers: &[
            call("nft_reject_br_send_v6_tcp_reset", BRIDGE, BESIDE),
            call("nft_reject_bridge_eval", BRIDGE, BESIDE),
            call("nft_reject_netdev_send_v6_tcp_reset", NETDEV, BESIDE),
            call("nft_reject_netdev_eval", NETDEV, BESIDE),
        ],
    },
    Target {
        name: "nf_reject_ip_tcphdr_put",
        role: Role::Sends,
        need: Need::Never,
        does: "writes the header of a rejecting IPv4 segment",
        callers: &[
            call("nf_send_reset", "net/ipv4/netfilter/nf_reject_ipv4.c", COUNTED),
            call("nf_reject_skb_v4_tcp_reset", "net/ipv4/netfilter/nf_reject_ipv4.c", COUNTED),
            call("nft_reject_br_send_v4_tcp_reset", BRIDGE, BESIDE),
            call("nft_reject_bridge_eval", BRIDGE, BESIDE),
        ],
    },
    Target {
        name: "nf_reject_ip6_tcphdr_put",
        role: Role::Sends,
        need: Need::Never,
        does: "writes the header of a rejecting IPv6 segment",
        callers: &[
            call("nf_send_reset6", "net/ipv6/netfilter/nf_reject_ipv6.c", COUNTED),
            call("nf_reject_skb_v6_tcp_reset", "net/ipv6/netfilter/nf_reject_ipv6.c", COUNTED),
            call("nft_reject_br_send_v6_tcp_reset", BRIDGE, BESIDE),
            call("nft_reject_bridge_eval", BRIDGE, BESIDE),
        ],
    },
    Target {
        name: "tcp_reset",
        role: Role::Takes,
        need: Need::Always,
        does: "ends the connection that an RST hit",
        callers: &[
            call("tcp_validate_incoming", INPUT, OBEYED),
            call("tcp_rcv_synsent_state_process", INPUT, REFUSED),
            call("tcp_rcv_state_process", INPUT, REFUSED),
            call("tcp_check_req", MINISOCKS, FASTOPEN),
        ],
    },
    Target {
        name: "tcp_time_wait",
        role: Role::Replaces,
        need: Need::Always,
        does: "asks for a slot",
        callers: &[
            call("__tcp_close", TCP, NO_SLOT),
            call("tcp_fin", INPUT, NO_SLOT),
            call("tcp_data_queue", INPUT, NO_SLOT),
            call("tcp_rcv_state_process", INPUT, NO_SLOT),
            call("tcp_keepalive_timer", TIMER, NO_SLOT),
        ],
    },
    Target {
        name: "inet_twsk_alloc",
        role: Role::Replaces,
        need: Need::Always,
        does: "grants or refuses the slot",
        callers: &[
            call("tcp_time_wait", MINISOCKS, COUNTED),
            call("dccp_time_wait", "net/dccp/minisocks.c", OTHER),
        ],
    },
];
