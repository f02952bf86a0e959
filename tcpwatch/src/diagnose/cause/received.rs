//! RSTs from the peer.

use super::{Facts, Verdict, reason};
use crate::event::Cause;
use tcpwatch_common::record::flag;
use tcpwatch_common::state::{
    CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, LISTEN, NEW_SYN_RECV, SYN_RECV,
    SYN_SENT, TIME_WAIT,
};

const ACK: u8 = 16;

/// An RST that ended something.
pub(super) fn obeyed(facts: &Facts<'_>) -> Option<Cause> {
    let minisock = super::state::is_minisock(facts.record);
    let began = facts.began?;
    let mut evidence = vec![format!("it met the socket in {}", facts.began_name())];
    let (id, errno) = match began {
        SYN_SENT => ("connection-refused", Some("ECONNREFUSED")),
        NEW_SYN_RECV | SYN_RECV => ("reset-in-handshake", None),
        TIME_WAIT => ("reset-in-time-wait", None),
        FIN_WAIT2 if minisock => ("reset-in-time-wait", None),
        _ if facts.has(flag::MPTCP) => ("mptcp-subflow-reset", None),
        CLOSE_WAIT => ("reset-after-peer-close", Some("EPIPE")),
        LAST_ACK | CLOSING => ("reset-after-peer-close", Some("ECONNRESET")),
        ESTABLISHED | FIN_WAIT1 | FIN_WAIT2 => ("reset-by-peer", Some("ECONNRESET")),
        _ => return None,
    };
    evidence.push(match errno {
        Some(_) if facts.has(flag::DEAD) => "the process had closed the socket: it sees no error".to_owned(),
        Some(errno) => format!("the process sees {errno}"),
        None => "no process sees an error".to_owned(),
    });
    if id == "mptcp-subflow-reset" {
        evidence.pop();
        evidence.push("an MPTCP subflow: the connection may live on over others".to_owned());
    }
    if facts.has(flag::PACKET) {
        evidence.push(facts.segment());
    }
    Some(Verdict::certain(id).with(evidence).cause(facts))
}

/// An RST that changed nothing.
pub(super) fn ignored(facts: &Facts<'_>) -> Cause {
    let mut evidence = vec![why(facts)];
    if let Some(reason) = facts.reason {
        evidence.push(format!("dropped with {}", reason.name));
    }
    if facts.has(flag::PACKET) {
        evidence.push(facts.segment());
    }
    Verdict::certain("rst-ignored").with(evidence).cause(facts)
}

fn why(facts: &Facts<'_>) -> String {
    let (packet, socket) = (&facts.record.packet, &facts.record.socket);
    match facts.began {
        Some(SYN_SENT) if packet.flags & ACK == 0 => {
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
        _ if super::state::is_minisock(facts.record) => {
            "the orphan's FIN_WAIT2 met it outside its window".to_owned()
        }
        _ if !facts.has(flag::FULL) || !facts.has(flag::PACKET) => "the socket refused it".to_owned(),
        _ if facts.reason_is("TCP_RESET") => challenge(packet.seq, socket.rcv_nxt),
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

fn challenge(seq: u32, expected: u32) -> String {
    format!(
        "in the window but not exact (seq {seq}, expected {expected}): answered with a challenge ACK (RFC 5961)"
    )
}
