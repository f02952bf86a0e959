//! RSTs from the peer, told apart by the state that they meet.

use super::evidence::segment;
use super::{Harm, RST_RECEIVED, Spec, counter, dropped, in_state};
use crate::diagnose::cause::{ACK, Facts, Verdict};
use crate::diagnose::reason;
use crate::event::{Certainty, Text};
use tcpwatch_common::record::{flag, kind};
use tcpwatch_common::state::{
    CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, LISTEN, NEW_SYN_RECV, SYN_RECV,
    SYN_SENT, TIME_WAIT,
};

pub(super) const CAUSES: &[Spec] = &[
    Spec {
        id: "connection-refused",
        events: RST_RECEIVED,
        summary: "{remote} refused the connect of {owner}: connect() fails with ECONNREFUSED",
        many: "{count} connects were refused",
        fix: Some(
            "see whether the service at the other end runs and listens on this address, or a firewall there rejects",
        ),
        evidence: "the RST ended a socket in SYN_SENT",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["R1"],
        source: "net/ipv4/tcp_input.c: tcp_reset",
        since: "5.10",
        words: &[
            in_state("SYN_SENT", "the server answers with an RST"),
            counter("AttemptFails", "a server refused the connect()"),
        ],
        rule: Some(|facts| {
            let connecting = facts.began == Some(SYN_SENT);
            (facts.obeyed() && connecting).then(|| ended(facts, error(facts, "ECONNREFUSED")))
        }),
    },
    Spec {
        id: "reset-by-peer",
        events: RST_RECEIVED,
        summary: "{remote} reset the connection of {owner}",
        many: "{count} connections were reset by their peers",
        fix: Some("the reason is at the other end, or with a firewall in between: run tcpwatch there"),
        evidence: "the RST ended a socket whose peer had not closed: ESTABLISHED, FIN_WAIT1 or FIN_WAIT2",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["R2"],
        source: "net/ipv4/tcp_input.c: tcp_reset",
        since: "5.10",
        words: &[in_state("ESTABLISHED", "the peer resets it"), counter("EstabResets", "the peer reset it")],
        rule: Some(|facts| {
            let open = matches!(facts.began?, ESTABLISHED | FIN_WAIT1 | FIN_WAIT2);
            (ends_connection(facts) && open).then(|| ended(facts, error(facts, "ECONNRESET")))
        }),
    },
    Spec {
        id: "reset-after-peer-close",
        events: RST_RECEIVED,
        summary: "{remote} had closed and then reset the connection of {owner}",
        many: "{count} connections were reset by peers that had closed before",
        fix: Some(
            "the application went on sending after the peer had closed: read until end of file, then close",
        ),
        evidence: "the RST ended a socket whose peer had sent its FIN: CLOSE_WAIT, LAST_ACK or CLOSING",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["R3", "R4"],
        source: "net/ipv4/tcp_input.c: tcp_reset",
        since: "5.10",
        words: &[
            in_state("CLOSE_WAIT", "the process sends, and the peer answers with an RST"),
            in_state("LAST_ACK", "the peer resets it"),
            in_state("CLOSING", "the peer resets it"),
            counter("EstabResets", "the peer closed and then reset it"),
        ],
        rule: Some(|facts| {
            let errno = match facts.began? {
                CLOSE_WAIT => "EPIPE",
                LAST_ACK | CLOSING => "ECONNRESET",
                _ => return None,
            };
            ends_connection(facts).then(|| ended(facts, error(facts, errno)))
        }),
    },
    Spec {
        id: "reset-in-handshake",
        events: RST_RECEIVED,
        summary: "{remote} gave up its connect to port {port} before the handshake was done",
        many: "{count} clients gave up in the middle of the handshake",
        fix: Some("port scans and health checks do this; so do clients whose connect timeout is short"),
        evidence: "the RST ended a half-open request, or a child in SYN_RECV",
        certainty: Certainty::Certain,
        harm: Harm::Noise,
        sites: &["R5", "R6"],
        source: "net/ipv4/tcp_minisocks.c: tcp_check_req",
        since: "5.10",
        words: &[
            in_state("SYN_RECV", "the client resets it"),
            in_state("NEW_SYN_RECV", "the client resets it"),
            counter("AttemptFails", "a client gave up in the middle of the handshake"),
            counter("EmbryonicRsts", "a client reset its own connect"),
        ],
        rule: Some(|facts| {
            let half_open = matches!(facts.began?, NEW_SYN_RECV | SYN_RECV);
            (facts.obeyed() && half_open).then(|| ended(facts, UNHEARD))
        }),
    },
    Spec {
        id: "reset-in-time-wait",
        events: RST_RECEIVED,
        summary: "{remote} reset a connection that {owner} had closed already",
        many: "{count} closed connections were reset by their peers",
        fix: None,
        evidence: "the RST ended a minisock in TIME_WAIT or in an orphan's FIN_WAIT2",
        certainty: Certainty::Certain,
        harm: Harm::Noise,
        sites: &["R7", "R8"],
        source: "net/ipv4/tcp_minisocks.c: tcp_timewait_state_process",
        since: "5.10",
        words: &[in_state("TIME_WAIT", "the peer resets it")],
        rule: Some(|facts| (facts.obeyed() && facts.waits_out()).then(|| ended(facts, UNHEARD))),
    },
    Spec {
        id: "rst-ignored",
        events: RST_RECEIVED,
        summary: "an RST from {remote} was not obeyed",
        many: "{count} RSTs were not obeyed",
        fix: Some("in number they are forged, or belong to earlier connections on the same ports"),
        evidence: "the RST changed nothing; which of the kernel's tests it failed, with the figures",
        certainty: Certainty::Certain,
        harm: Harm::Noise,
        sites: &["I1", "I2", "I3", "I4", "I5", "I6"],
        source: "net/ipv4/tcp_input.c: tcp_validate_incoming",
        since: "5.10",
        words: &[
            dropped("TCP_INVALID_SEQUENCE", "an RST from outside the window"),
            dropped("TCP_INVALID_ACK_SEQUENCE", "an RST that does not acknowledge the SYN"),
            dropped("TCP_RESET", "an RST with inexact number"),
            in_state("SYN_SENT", "an RST does not acknowledge the SYN"),
            counter("TCPChallengeACK", "an RST was not exact, and was not obeyed"),
        ],
        rule: Some(ignored),
    },
];

/// It ended a connection of plain TCP: the subflows of MPTCP have a row of their own.
fn ends_connection(facts: &Facts<'_>) -> bool {
    facts.obeyed() && !facts.waits_out() && !facts.has(flag::MPTCP)
}

fn ended(facts: &Facts<'_>, effect: impl Into<Text>) -> Verdict {
    // tcp_reset() also ends a connection that gets data when it is shut for reading. Such calls are told by the segment or
    // the stack; where neither is to be had, they look like an RST.
    let seen = facts.has(flag::PACKET) || !facts.no_path() || facts.record.socket.shutdown & 1 == 0;
    let verdict = if seen { Verdict::certain() } else { Verdict::likely() };
    verdict
        .with([["it met the socket in ", facts.began_name()].concat()])
        .with([effect])
        .with(facts.has(flag::PACKET).then(|| segment(facts)))
}

fn error(facts: &Facts<'_>, errno: &'static str) -> Text {
    if facts.orphan() {
        "the process had closed the socket: it sees no error".into()
    } else {
        ["the process sees ", errno].concat().into()
    }
}

const UNHEARD: &str = "no process sees an error";

fn ignored(facts: &Facts<'_>) -> Option<Verdict> {
    if facts.record.kind != kind::RST_IGNORED {
        return None;
    }
    Some(
        Verdict::certain()
            .with([why(facts)])
            .with(facts.reason.map(|reason| format!("dropped with {}", reason.name)))
            .with(facts.has(flag::PACKET).then(|| segment(facts))),
    )
}

/// The test that it failed.
fn why(facts: &Facts<'_>) -> String {
    let (packet, socket) = (&facts.record.packet, &facts.record.socket);
    match facts.began {
        Some(SYN_SENT) if !facts.segment_is(ACK) => {
            "in SYN_SENT an RST must acknowledge the SYN, this one has no ACK".to_owned()
        }
        Some(SYN_SENT) => {
            format!("in SYN_SENT an RST must acknowledge the SYN ({}), not {}", socket.snd_nxt, packet.ack)
        }
        Some(LISTEN) => "a listener ignores RSTs".to_owned(),
        Some(NEW_SYN_RECV) => {
            "a half-open request met it outside its window, or answered with a challenge ACK".to_owned()
        }
        Some(TIME_WAIT) => "TIME_WAIT met it outside its window, or net.ipv4.tcp_rfc1337=1".to_owned(),
        _ if facts.minisock() => "the orphan's FIN_WAIT2 met it outside its window".to_owned(),
        _ if !facts.has(flag::FULL | flag::PACKET) => "the socket refused it".to_owned(),
        _ if facts.reason_is("TCP_RESET") => format!(
            "in the window but not exact (seq {}, expected {}): answered with a challenge ACK (RFC 5961)",
            packet.seq, socket.rcv_nxt
        ),
        _ if facts.reason.is_some() || reason::after(socket.rcv_nxt, packet.seq) => {
            format!("outside the window: seq {}, expected {}", packet.seq, socket.rcv_nxt)
        }
        _ => format!(
            "seq {} is {} beyond the expected {}: answered with a challenge ACK, or outside the window",
            packet.seq,
            packet.seq.wrapping_sub(socket.rcv_nxt),
            socket.rcv_nxt
        ),
    }
}
