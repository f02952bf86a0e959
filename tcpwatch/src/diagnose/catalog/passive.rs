//! RSTs that answer a segment.

use super::evidence::{errno, horizon, segment};
use super::{Harm, RST_SENT, Spec, counter, dropped, in_state, reset};
use crate::diagnose::cause::{ACK, Facts, SYN, Verdict};
use crate::diagnose::{reason, state};
use crate::event::Certainty;
use tcpwatch_common::owner::Memory;
use tcpwatch_common::record::flag;
use tcpwatch_common::state::{CLOSE, SYN_RECV, SYN_SENT};

pub(super) const CAUSES: &[Spec] = &[
    Spec {
        id: "closed-port",
        events: RST_SENT,
        summary: "nobody listens on {local}",
        many: "{count} connection attempts met ports on which nobody listens",
        fix: Some(
            "start the service, bind it to this address, or point the client elsewhere; `ss -ltnp` lists what listens",
        ),
        evidence: "a SYN found no socket; possible only for another segment of which no connection is remembered",
        certainty: Certainty::Certain,
        harm: Harm::Noise,
        sites: &["P1", "Q7"],
        source: "net/ipv4/tcp_ipv4.c: tcp_v4_rcv, no_tcp_socket",
        since: "5.10",
        words: &[
            reset("NO_SOCKET", "a SYN to a port on which nobody listens"),
            dropped("NO_SOCKET", "nobody listens on the port"),
            counter("OutRsts", "nobody listens on a port: scans are most of it on many hosts"),
        ],
        rule: Some(closed_port),
    },
    Spec {
        id: "forgotten-connect",
        events: RST_SENT,
        summary: "{remote} answered a connect whose socket is gone",
        many: "{count} answers came for connects that had been given up",
        fix: Some(
            "the client gives up before the server answers: raise its connect timeout, or find out why the server is slow",
        ),
        evidence: "a SYN-ACK found no socket; certain where the connect is remembered",
        certainty: Certainty::Certain,
        harm: Harm::Noise,
        sites: &["P1", "Q5"],
        source: "net/ipv4/tcp_ipv4.c: tcp_v4_rcv, no_tcp_socket",
        since: "5.10",
        words: &[
            reset("NO_SOCKET", "a SYN-ACK for a connect() that was given up"),
            in_state("SYN_SENT", "the client gives up before the answer comes"),
        ],
        rule: Some(forgotten_connect),
    },
    Spec {
        id: "data-after-close",
        events: RST_SENT,
        summary: "the peer went on sending after {owner} had closed the connection or shut it for reading",
        many: "{count} segments came for connections that were closed or shut for reading",
        fix: Some("let the application read until the peer's end of file before it closes"),
        evidence: "a segment met an orphan's minisock in FIN_WAIT2, or closed the socket that it met",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["P2", "P13", "P14"],
        source: "net/ipv4/tcp_input.c: tcp_rcv_state_process",
        since: "5.10",
        words: &[
            reset("TCP_ABORT_ON_DATA", "data after close(), or after shutdown() for reading"),
            reset("TCP_TIMEWAIT_SOCKET", "data or a SYN for a socket that was closed and waits in FIN_WAIT2"),
            dropped("TCP_ABORT_ON_DATA", "data after close() or shutdown()"),
            in_state("FIN_WAIT1", "the peer sends data, which nobody will read"),
            in_state("FIN_WAIT2", "the peer sends data instead of closing"),
            counter("OutRsts", "peers send to sockets that were closed"),
            counter("TCPAbortOnData", "data after close() or shutdown()"),
        ],
        rule: Some(data_after_close),
    },
    Spec {
        id: "syn-in-handshake",
        events: RST_SENT,
        summary: "another SYN came in the middle of a handshake with port {port}",
        many: "{count} SYNs came in the middle of a handshake",
        fix: Some(
            "look for clients behind one address that share ports (NAT), or a middlebox that rewrites sequence numbers",
        ),
        evidence: "a SYN met a half-open request of the same addresses",
        certainty: Certainty::Certain,
        harm: Harm::Noise,
        sites: &["P6"],
        source: "net/ipv4/tcp_minisocks.c: tcp_check_req, embryonic_reset",
        since: "5.10",
        words: &[
            reset("INVALID_SYN", "another SYN, with another number, in the middle of a handshake"),
            in_state("SYN_RECV", "another SYN comes"),
            in_state("NEW_SYN_RECV", "another SYN comes"),
            counter("AttemptFails", "another SYN came in the middle of a handshake"),
            counter("EmbryonicRsts", "another SYN came in the middle of a handshake"),
        ],
        rule: Some(syn_in_handshake),
    },
    Spec {
        id: "bad-handshake-ack",
        events: RST_SENT,
        summary: "a segment of the handshake with {remote} acknowledges or echoes what was never sent",
        many: "{count} handshakes were answered with impossible acknowledgments",
        fix: Some(
            "look for a middlebox that rewrites sequence numbers or timestamps, or answers left from an earlier connection on \
             the same ports",
        ),
        evidence: "a socket in SYN_SENT or SYN_RECV refused a segment; the numbers that do not fit",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["P7", "P8", "P9", "P10", "P11"],
        source: "net/ipv4/tcp_input.c: tcp_rcv_state_process, SYN_SENT and SYN_RECV",
        since: "5.10",
        words: &[
            reset("NOT_SPECIFIED", "the first segment of a connection that was just accepted was refused"),
            reset("TCP_INVALID_ACK_SEQUENCE", "an answer in SYN_SENT acknowledges a wrong number"),
            reset("TCP_RFC7323_PAWS", "a SYN-ACK echoes a wrong timestamp"),
            reset("TCP_TOO_OLD_ACK", "an ACK in SYN_RECV is too old"),
            reset("TCP_ACK_UNSENT_DATA", "an ACK in SYN_RECV acknowledges too much"),
            reset("TCP_OLD_ACK", "an ACK in SYN_RECV does not cover the SYN"),
            dropped("TCP_INVALID_ACK_SEQUENCE", "a wrong answer to the SYN"),
            in_state("SYN_SENT", "the answer does not fit the SYN"),
            in_state("SYN_RECV", "an ACK acknowledges what was never sent"),
            counter("PAWSActive", "a SYN-ACK echoes a wrong timestamp"),
        ],
        rule: Some(bad_handshake_ack),
    },
];

/// Where there was no socket.
fn here(facts: &Facts<'_>) -> String {
    format!("no socket for {} in this network namespace", facts.local)
}

fn closed_port(facts: &Facts<'_>) -> Option<Verdict> {
    if !facts.answers_nobody() {
        return None;
    }
    if facts.segment_is(SYN) {
        let opens = !facts.segment_is(ACK);
        return opens.then(|| Verdict::certain().with([here(facts), segment(facts)]));
    }
    facts.ended().is_none().then(|| {
        Verdict::possible().with([
            here(facts),
            format!("not a SYN, and no connection that ended lately had these addresses: {}", horizon(facts)),
            segment(facts),
        ])
    })
}

fn forgotten_connect(facts: &Facts<'_>) -> Option<Verdict> {
    if !facts.answers_nobody() || !facts.segment_is(SYN) || !facts.segment_is(ACK) {
        return None;
    }
    let connecting = facts.has(flag::PAST) && state::last(&facts.record.past) == Some(SYN_SENT);
    Some(if connecting {
        Verdict::certain().with([gave_up(&facts.record.past), segment(facts)])
    } else {
        Verdict::possible().with([
            here(facts),
            "tcpwatch saw no such connect: it may be older than tcpwatch, or the address is forged"
                .to_owned(),
            segment(facts),
        ])
    })
}

/// How the connect ended.
fn gave_up(past: &Memory) -> String {
    match past.error {
        0 => "the socket was closed while it waited in SYN_SENT".to_owned(),
        error => format!("the connect had failed with {} while it waited in SYN_SENT", errno(error)),
    }
}

/// The first segment of a listener's new child: closed by it, the child comes from SYN_RECV.
fn newborn(facts: &Facts<'_>) -> bool {
    facts.began == Some(SYN_RECV)
}

fn data_after_close(facts: &Facts<'_>) -> Option<Verdict> {
    if facts.passive() && facts.minisock() {
        return Some(after_orphan(facts));
    }
    // The socket was closed by this very segment.
    if !facts.answers_in(CLOSE) || facts.linger2_abort() || newborn(facts) {
        return None;
    }
    let (certainty, who) = if facts.orphan() {
        (Certainty::Certain, "the process had closed the socket")
    } else if facts.record.socket.shutdown & 1 != 0 {
        (Certainty::Certain, "the process had shut the socket for reading, and still holds it")
    } else {
        // A child that refuses its first segment looks like this too.
        (Certainty::Likely, "nobody will read any more")
    };
    let data = match facts.record.packet.len {
        0 => "the peer sent on".to_owned(),
        bytes => format!("the peer sent {bytes} bytes"),
    };
    Some(Verdict::new(certainty).with([format!("{who} ({}), {data}", facts.began_name()), segment(facts)]))
}

/// TIME_WAIT proper never answers with an RST: it is a FIN_WAIT2 whose process is gone.
fn after_orphan(facts: &Facts<'_>) -> Verdict {
    let again = "the peer began a new connection from a port whose last one it never closed: let it close, or use more ports";
    let what = if facts.segment_is(SYN) {
        "a SYN for a new connection".to_owned()
    } else if facts.record.packet.len > 0 {
        format!("{} bytes of data that nobody will read", facts.record.packet.len)
    } else {
        "a segment beyond the end of what was received".to_owned()
    };
    Verdict::certain()
        .with([
            format!("the socket is orphaned in {}, the peer sent {what}", facts.began_name()),
            segment(facts),
        ])
        .fix(facts.segment_is(SYN).then_some(again))
}

fn syn_in_handshake(facts: &Facts<'_>) -> Option<Verdict> {
    // Of the full sockets only a child of TCP fast open has a request.
    let request =
        facts.answers_request() && facts.segment_is(SYN) || facts.answers_in(SYN_RECV) && checked(facts);
    request.then(|| {
        let certainty = if facts.mptcp_may_refuse() { Certainty::Possible } else { Certainty::Certain };
        Verdict::new(certainty)
            .with(["a half-open request with the same addresses was waiting for its last ACK"])
            .with([segment(facts)])
    })
}

fn checked(facts: &Facts<'_>) -> bool {
    facts.site.is("tcp_check_req")
}

fn bad_handshake_ack(facts: &Facts<'_>) -> Option<Verdict> {
    let socket = &facts.record.socket;
    let ack = facts.record.packet.ack;
    let (certainty, what) = if facts.answers_in(SYN_SENT) {
        let why = if reason::acknowledges_syn(facts.record) {
            "its timestamp echoes what was never sent".to_owned()
        } else {
            format!("it acknowledges {ack}, the SYN would be acknowledged by {}", socket.snd_nxt)
        };
        (Certainty::Certain, format!("in SYN_SENT: {why}"))
    } else if facts.answers_in(SYN_RECV) && !checked(facts) {
        let range = format!("{} to {} would do", socket.snd_una, socket.snd_nxt);
        (Certainty::Certain, format!("in SYN_RECV: it acknowledges {ack}, {range}"))
    } else if facts.answers_in(CLOSE) && !facts.linger2_abort() && newborn(facts) {
        (Certainty::Likely, "the first segment of a new connection was refused".to_owned())
    } else if facts.answers_cookie() {
        (Certainty::Likely, "the new child of a SYN cookie refused the segment that made it".to_owned())
    } else {
        return None;
    };
    Some(Verdict::new(certainty).with([what, segment(facts)]))
}
