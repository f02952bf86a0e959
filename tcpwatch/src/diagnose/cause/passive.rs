//! RSTs that answer a segment.

use super::{Facts, Verdict, late, listen, reason, state};
use crate::event::{Cause, Certainty};
use tcpwatch_common::record::flag;
use tcpwatch_common::state::{CLOSE, LISTEN, SYN_RECV, SYN_SENT};

const FIN: u8 = 1;
const SYN: u8 = 2;
const ACK: u8 = 16;

pub(super) fn diagnose(facts: &Facts<'_>) -> Option<Cause> {
    let verdict = if !facts.has(flag::SOCKET) {
        Some(no_socket(facts))
    } else if state::is_minisock(facts.record) {
        Some(minisock(facts))
    } else {
        match facts.record.state {
            LISTEN => at_listener(facts),
            SYN_SENT => Some(in_syn_sent(facts)),
            // A child of TCP fast open, met by another SYN.
            SYN_RECV if facts.site.is("tcp_check_req") => Some(syn_in_handshake(facts)),
            SYN_RECV => Some(in_syn_recv(facts)),
            CLOSE => Some(closed(facts)),
            _ => None,
        }
    };
    verdict.map(|verdict| verdict.cause(facts))
}

/// Neither a connection nor a listener.
fn no_socket(facts: &Facts<'_>) -> Verdict {
    let flags = facts.record.packet.flags;
    let here = format!("no socket for {} in this network namespace", facts.local);
    if flags & SYN != 0 && flags & ACK == 0 {
        return Verdict::certain("closed-port").with([here, facts.segment()]);
    }
    if flags & SYN != 0 {
        let connecting = facts.has(flag::PAST) && late::last_state(&facts.record.past) == Some(SYN_SENT);
        return if connecting {
            Verdict::certain("forgotten-connect")
                .with(["the socket was closed while it waited in SYN_SENT".to_owned(), facts.segment()])
        } else {
            Verdict::possible("forgotten-connect").with([
                here,
                "tcpwatch saw no such connect: it may be older than tcpwatch, or the address is forged"
                    .to_owned(),
                facts.segment(),
            ])
        };
    }
    late::diagnose(facts).unwrap_or_else(|| {
        Verdict::possible("closed-port").with([
            here,
            "not a SYN, and no connection that ended lately had these addresses: it may have ended before tcpwatch \
             started"
                .to_owned(),
            facts.segment(),
        ])
    })
}

/// TIME_WAIT proper never answers with an RST: it is a FIN_WAIT2 whose process is gone.
fn minisock(facts: &Facts<'_>) -> Verdict {
    let packet = facts.record.packet;
    let what = if packet.flags & SYN != 0 {
        "a SYN for a new connection".to_owned()
    } else if packet.len > 0 {
        format!("{} bytes of data that nobody will read", packet.len)
    } else {
        "a segment beyond the end of what was received".to_owned()
    };
    Verdict::certain("data-after-close").with([
        format!("the socket is orphaned in {}, the peer sent {what}", facts.began_name()),
        facts.segment(),
    ])
}

fn at_listener(facts: &Facts<'_>) -> Option<Verdict> {
    let flags = facts.record.packet.flags;
    if facts.site.is("tcp_check_req") || facts.reason_is("INVALID_SYN") {
        return Some(if flags & SYN != 0 { syn_in_handshake(facts) } else { overflow(facts) });
    }
    let past = late::diagnose(facts);
    if facts.reason_is("TCP_FLAGS") {
        return Some(past.unwrap_or_else(|| {
            let what = if flags & FIN != 0 { "a FIN" } else { "an ACK" };
            Verdict::likely("stray-segment-to-listener").with([
                format!("{what} that fits no half-open request and no connection that ended lately"),
                facts.segment(),
            ])
        }));
    }
    // Without symbols on a kernel without reasons this may also be a full queue with tcp_abort_on_overflow.
    past.map(|mut verdict| {
        verdict.certainty = verdict.certainty.min(Certainty::Likely);
        verdict
    })
}

fn syn_in_handshake(facts: &Facts<'_>) -> Verdict {
    Verdict::certain("syn-in-handshake").with([
        "a half-open request with the same addresses was waiting for its last ACK".to_owned(),
        facts.segment(),
    ])
}

/// The last ACK got no socket. Memory, the route or an LSM can do that too, and look the same from here.
fn overflow(facts: &Facts<'_>) -> Verdict {
    let queue = &facts.record.listen;
    let mut evidence =
        vec!["a valid last ACK got no socket, and net.ipv4.tcp_abort_on_overflow=1".to_owned()];
    let known = facts.has(flag::LISTEN);
    let certainty = match known {
        true if listen::accept_full(queue) => Certainty::Certain,
        true => Certainty::Possible,
        false => Certainty::Likely,
    };
    if known {
        evidence.push(format!("accept queue {} of {}", queue.accept_len, queue.accept_max));
    }
    evidence.push(facts.segment());
    let fix = if known { listen::accept_fix(queue) } else { None };
    Verdict::new("accept-queue-overflow", certainty).with(evidence).fix(fix)
}

fn in_syn_sent(facts: &Facts<'_>) -> Verdict {
    let socket = &facts.record.socket;
    let why = if reason::acknowledges_syn(facts.record) {
        "its timestamp echoes what was never sent".to_owned()
    } else {
        format!(
            "it acknowledges {}, the SYN would be acknowledged by {}",
            facts.record.packet.ack, socket.snd_nxt
        )
    };
    Verdict::certain("bad-handshake-ack").with([format!("in SYN_SENT: {why}"), facts.segment()])
}

fn in_syn_recv(facts: &Facts<'_>) -> Verdict {
    let socket = &facts.record.socket;
    Verdict::certain("bad-handshake-ack").with([
        format!(
            "in SYN_RECV: it acknowledges {}, {} to {} would do",
            facts.record.packet.ack, socket.snd_una, socket.snd_nxt
        ),
        facts.segment(),
    ])
}

/// The socket was closed by this very segment.
fn closed(facts: &Facts<'_>) -> Verdict {
    let socket = &facts.record.socket;
    if facts.has(flag::DEAD) && socket.linger2 < 0 {
        return Verdict::certain("linger2-abort")
            .with([format!("orphaned, and TCP_LINGER2 is {}", socket.linger2), facts.segment()]);
    }
    if facts.began == Some(SYN_RECV) {
        return Verdict::likely("bad-handshake-ack")
            .with(["the first segment of a new connection was refused".to_owned(), facts.segment()]);
    }
    let who = if facts.has(flag::DEAD) {
        "the process had closed the socket"
    } else if socket.shutdown & 1 != 0 {
        "the process had shut the socket for reading, and still holds it"
    } else {
        "nobody will read any more"
    };
    let data = match facts.record.packet.len {
        0 => "the peer sent on".to_owned(),
        bytes => format!("the peer sent {bytes} bytes"),
    };
    Verdict::certain("data-after-close")
        .with([format!("{who} ({}), {data}", facts.began_name()), facts.segment()])
}
