//! The workloads: what is played, which tools are measured under it, and what the page says.

use super::tools::{ALL, COUNT, LIMIT, PRINTF, RESETS, TCPSTATES, TCPWATCH};

/// One workload of `tcpwatch-load`.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    /// For `tcpwatch-load play`.
    pub(super) args: &'static [&'static str],
    pub(super) title: &'static str,
    /// What is played, in a sentence.
    pub(super) about: &'static str,
    /// What one operation is called.
    pub(super) unit: &'static str,
    /// So many operations; `None`: as many as go in the time.
    pub(super) count: Option<u64>,
    /// At least fifteen pairs instead of seven.
    pub(super) headline: bool,
    pub(super) tools: &'static [&'static str],
    /// The kernel's counter that one operation moves by one, and the event of tcpwatch's that stands for it.
    pub(super) counter: &'static str,
    pub(super) event: Option<&'static str>,
}

const MILLION: u64 = 1_000_000;

pub(super) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "fin",
        args: &["fin"],
        title: "Connections closed by FIN",
        about: "A client connects, the server accepts; the client closes, the server reads to the end and closes. Nothing goes \
                wrong: in the default mode tcpwatch has nothing to say.",
        unit: "connection",
        count: None,
        headline: true,
        tools: &[LIMIT, TCPWATCH, ALL, TCPSTATES, PRINTF, COUNT],
        counter: "PassiveOpens",
        event: None,
    },
    Workload {
        name: "rst",
        args: &["rst"],
        title: "Connections closed by RST",
        about: "The same, but the client closes with SO_LINGER 0. tcpwatch delivers two events for each connection, the RST sent \
                and the RST received, each with owner, history and cause.",
        unit: "connection",
        count: None,
        headline: true,
        tools: &[LIMIT, TCPWATCH, ALL, TCPSTATES, PRINTF, RESETS, COUNT],
        counter: "OutRsts",
        event: Some("rst_sent"),
    },
    Workload {
        name: "closed-port",
        args: &["closed-port"],
        title: "connect() to a closed port",
        about: "A socket, a connect() that is refused, a close(). Two events each: the RST sent, the RST received.",
        unit: "connect",
        count: None,
        headline: false,
        tools: &[LIMIT, TCPWATCH, RESETS],
        counter: "OutRsts",
        event: Some("rst_sent"),
    },
    Workload {
        name: "syn-closed",
        args: &["syn-closed"],
        title: "A million SYNs to closed ports",
        about: "Frames with SYNs from 2^20 addresses, over a veth pair, as fast as one core can write them. The kernel answers \
                each with an RST.",
        unit: "SYN",
        count: Some(MILLION),
        headline: false,
        tools: &[LIMIT, TCPWATCH],
        counter: "OutRsts",
        event: Some("rst_sent"),
    },
    Workload {
        name: "syn-flood",
        args: &["syn-flood", "--cookies", "0"],
        title: "SYN flood, without cookies",
        about: "A million SYNs from 2^20 addresses to one listener; no handshake is finished. The queue of half-open connections \
                is full at once, the rest is dropped.",
        unit: "SYN",
        count: Some(MILLION),
        headline: false,
        tools: &[LIMIT, TCPWATCH],
        counter: "ListenDrops",
        event: Some("listen_drop"),
    },
    Workload {
        name: "syn-flood-cookies",
        args: &["syn-flood", "--cookies", "1"],
        title: "SYN flood, with cookies",
        about: "The same with `tcp_syncookies=1`: nearly every SYN is answered with a cookie.",
        unit: "SYN",
        count: Some(MILLION),
        headline: false,
        tools: &[LIMIT, TCPWATCH],
        counter: "SyncookiesSent",
        event: Some("listen_drop"),
    },
    Workload {
        name: "accept-overflow",
        args: &["accept-overflow"],
        title: "A full accept queue",
        about: "connect() to a listener that never accepts and whose queue is full: the SYN is dropped. The client gives up at once.",
        unit: "connect",
        count: None,
        headline: false,
        tools: &[LIMIT, TCPWATCH],
        counter: "ListenDrops",
        event: Some("listen_drop"),
    },
    Workload {
        name: "tw-overflow",
        args: &["tw-overflow"],
        title: "A full TIME_WAIT table",
        about: "As with FIN, but only 100 sockets may be in TIME_WAIT: all others are refused their slot.",
        unit: "connection",
        count: None,
        headline: false,
        tools: &[LIMIT, TCPWATCH],
        counter: "TCPTimeWaitOverflow",
        event: Some("tw_overflow"),
    },
    Workload {
        name: "bulk",
        args: &["bulk"],
        title: "Bulk transfer",
        about: "One connection; 32 KiB are sent and read, over and over.",
        unit: "transfer",
        count: None,
        headline: false,
        tools: &[LIMIT, TCPWATCH, ALL, TCPSTATES],
        counter: "OutSegs",
        event: None,
    },
];

/// Beside the workloads: how long tools take to start, and what they hold beside open connections.
pub(super) const START: &str = "start";
pub(super) const IDLE: &str = "idle";

/// Tools whose start is measured, and tools whose memory beside open connections is.
pub(super) const STARTED: &[&str] = &[TCPWATCH, ALL, TCPSTATES, PRINTF];
pub(super) const HELD: &[&str] = &[TCPWATCH, TCPSTATES, PRINTF];

pub(super) fn find(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}
