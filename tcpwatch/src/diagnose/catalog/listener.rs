//! Connections that a listener turned away, with an RST or in silence.

use super::evidence::{
    accept_limit, accept_queue, accepting, crowd, horizon, raise_accept_queue, segment, span, syn_queue,
    young,
};
use super::{Harm, LISTEN_DROP, RST_SENT, Spec, counter, dropped, in_state, reset};
use crate::diagnose::cause::{ACK, FIN, Facts, SYN, Verdict};
use crate::diagnose::listen::{self, accept_full, reached, syn_full};
use crate::event::{Certainty, ListenAction, ListenInfo, Pressure, Queue, Stage};
use tcpwatch_common::hook;
use tcpwatch_common::record::{flag, passed};

pub(super) const CAUSES: &[Spec] = &[
    Spec {
        id: "accept-queue-overflow",
        events: RST_SENT,
        summary: "the accept queue of {owner} on port {port} is full, and tcp_abort_on_overflow=1 turns that into a reset",
        many: "{count} clients were reset because an accept queue was full",
        fix: Some(
            "make the application accept faster, raise its backlog and net.core.somaxconn, or set \
             net.ipv4.tcp_abort_on_overflow=0",
        ),
        evidence: "a listener answered a valid last ACK with an RST; certain where the accept queue is seen to be full",
        certainty: Certainty::Certain,
        harm: Harm::Refused,
        sites: &["P5"],
        source: "net/ipv4/tcp_minisocks.c: tcp_check_req, listen_overflow",
        since: "5.10",
        words: &[
            reset("INVALID_SYN", "the last ACK finds the accept queue full, and tcp_abort_on_overflow=1"),
            dropped("TCP_LISTEN_OVERFLOW", "the same, and tcp_abort_on_overflow=1"),
            in_state("LISTEN", "the same, with tcp_abort_on_overflow=1"),
            counter("EmbryonicRsts", "a last ACK met a full accept queue, with tcp_abort_on_overflow=1"),
            counter("ListenOverflows", "a last ACK does, with tcp_abort_on_overflow=1"),
        ],
        rule: Some(overflow),
    },
    Spec {
        id: "accept-queue-full",
        events: LISTEN_DROP,
        summary: "the accept queue of {owner} on port {port} is full",
        many: "{count} segments of handshakes were dropped because an accept queue was full",
        fix: Some(
            "make the application accept faster, and raise the smaller of its backlog and net.core.somaxconn",
        ),
        evidence: "a SYN or a last ACK was dropped; certain where the accept queue is seen to be over its limit",
        certainty: Certainty::Certain,
        harm: Harm::Refused,
        sites: &["S2", "L1"],
        source: "net/ipv4/tcp_input.c: tcp_conn_request; net/ipv4/tcp_ipv4.c: tcp_v4_syn_recv_sock",
        since: "5.10",
        words: &[
            dropped("NO_SOCKET", "a valid SYN cookie comes back and the accept queue is full"),
            dropped("TCP_LISTEN_OVERFLOW", "the accept queue is full"),
            in_state("SYN_RECV", "the accept queue is full, the last ACK is dropped and the request stays"),
            in_state("LISTEN", "the accept queue is full"),
            in_state("NEW_SYN_RECV", "the accept queue is full, the last ACK is dropped"),
            counter("ListenOverflows", "a SYN or a last ACK finds the accept queue full"),
            counter("ListenDrops", "the accept queue is full"),
            counter("TCPReqQFullDoCookies", "the accept queue is full, too"),
        ],
        rule: Some(accept_queue_full),
    },
    Spec {
        id: "syn-queue-full",
        events: LISTEN_DROP,
        summary: "the queue of half-open connections of {owner} on port {port} is full",
        many: "{count} SYNs were dropped because a queue of half-open connections was full",
        fix: Some(
            "set net.ipv4.tcp_syncookies=1; raise the backlog, net.core.somaxconn and net.ipv4.tcp_max_syn_backlog",
        ),
        evidence: "a SYN was dropped while cookies are off; certain where the queue is seen to be over its limit",
        certainty: Certainty::Certain,
        harm: Harm::Refused,
        sites: &["S1", "S5"],
        source: "net/ipv4/tcp_input.c: tcp_conn_request",
        since: "5.10",
        words: &[
            in_state("SYN_RECV", "the queue of requests is full"),
            in_state("LISTEN", "the queue of half-open requests is full"),
            counter("ListenDrops", "the queue of half-open requests is full"),
            counter("TCPReqQFullDrop", "the queue is full, and cookies are off"),
        ],
        rule: Some(syn_queue_full),
    },
    Spec {
        id: "syn-cookies-sent",
        events: LISTEN_DROP,
        summary: "the queue of half-open connections of {owner} on port {port} is full, a SYN cookie was sent instead",
        many: "{count} SYNs were answered with cookies",
        fix: Some(
            "nothing is lost but TCP options; if this is no flood, raise the backlog and net.core.somaxconn",
        ),
        evidence: "the SYN was answered with a cookie",
        certainty: Certainty::Certain,
        harm: Harm::Warning,
        sites: &["S7"],
        source: "net/ipv4/tcp_input.c: tcp_conn_request",
        since: "5.10",
        words: &[
            counter("TCPReqQFullDoCookies", "a cookie is sent"),
            counter("SyncookiesSent", "the queue is full, and cookies are on"),
        ],
        rule: Some(cookies_sent),
    },
    Spec {
        id: "stray-segment-to-listener",
        events: RST_SENT,
        summary: "a segment that belongs to no connection and no handshake reached the listener on port {port}",
        many: "{count} segments without a connection reached listeners",
        fix: Some(
            "if they come in number: a scan, a load balancer that moved flows, or connections that ended before tcpwatch \
             started",
        ),
        evidence: "a listener answered a segment that is no SYN, and neither a request nor a past connection has its addresses",
        certainty: Certainty::Likely,
        harm: Harm::Noise,
        sites: &["P3", "P4", "Q7"],
        source: "net/ipv4/tcp_input.c: tcp_rcv_state_process, LISTEN",
        since: "5.10",
        words: &[
            reset("TCP_FLAGS", "anything else that belongs nowhere: a scan, flows moved by a load balancer"),
            dropped("TCP_FLAGS", "a late segment of an old connection meets the listener"),
            in_state("LISTEN", "a segment comes that belongs to no connection"),
        ],
        rule: Some(stray_segment),
    },
    Spec {
        id: "syn-cookie-invalid",
        events: RST_SENT,
        summary: "an ACK to port {port} carried no valid SYN cookie",
        many: "{count} ACKs carried no valid SYN cookie",
        fix: Some("cookies are good for two minutes; older ones and forged ones look alike"),
        evidence: "a listener that sent SYN cookies within the last two minutes answered an ACK, and neither a request nor a \
                   past connection has its addresses",
        certainty: Certainty::Likely,
        harm: Harm::Noise,
        sites: &["P3", "L3"],
        source: "net/ipv4/syncookies.c: cookie_v4_check",
        since: "5.10",
        words: &[
            reset("TCP_FLAGS", "the ACK of a SYN cookie that is not valid, or not any more"),
            dropped("TCP_FLAGS", "the ACK of a SYN cookie that is not valid"),
            counter("SyncookiesFailed", "an ACK to a listener is no valid cookie"),
        ],
        rule: Some(cookie_invalid),
    },
    Spec {
        id: "listen-no-memory",
        events: LISTEN_DROP,
        summary: "there was no memory for a connection to {owner} on port {port}",
        many: "{count} connections were turned away for lack of memory",
        fix: Some("see the memory limit of the cgroup, and `dmesg` for failed allocations"),
        evidence: "a SYN was dropped between the request for a socket and the request for a route",
        certainty: Certainty::Likely,
        harm: Harm::Refused,
        sites: &["S3"],
        source: "net/ipv4/tcp_input.c: tcp_conn_request",
        since: "5.10",
        words: &[counter("ListenDrops", "there is no memory")],
        rule: Some(no_memory),
    },
    Spec {
        id: "listen-refused",
        events: LISTEN_DROP,
        summary: "a connection to {owner} on port {port} was refused although its queues have room (no route back, LSM or BPF)",
        many: "{count} connections were refused although the queues had room",
        fix: Some(
            "see `ip route get` to the client, rp_filter, the LSM's log and BPF programs on the cgroup",
        ),
        evidence: "a SYN or a last ACK was dropped while both queues had room; certain where an ICMP error ended the request",
        certainty: Certainty::Certain,
        harm: Harm::Refused,
        sites: &["S4", "S6", "L2", "L4"],
        source: "net/ipv4/tcp_input.c: tcp_conn_request",
        since: "5.10",
        words: &[
            dropped("TCP_LISTEN_OVERFLOW", "the queue has room: no memory, no route, an LSM or BPF refuses"),
            counter("ListenDrops", "no route back, an LSM, BPF, an ICMP error"),
        ],
        rule: Some(refused),
    },
];

/// The last ACK got no socket. Memory, the route or an LSM can do that too, and look the same from here.
fn overflow(facts: &Facts<'_>) -> Option<Verdict> {
    if !facts.answers_last_ack() {
        return None;
    }
    let queue = &facts.record.listen;
    let known = facts.has(flag::LISTEN);
    let certainty = match known {
        true if accept_full(queue) => Certainty::Certain,
        true => Certainty::Possible,
        false => Certainty::Likely,
    };
    Some(
        Verdict::new(certainty)
            .with(["a valid last ACK got no socket, and net.ipv4.tcp_abort_on_overflow=1"])
            .with(known.then(|| accept_queue(queue)))
            .with(accepting(facts))
            .with([segment(facts)])
            .fix(if known { remedy(facts) } else { None }),
    )
}

fn accept_queue_full(facts: &Facts<'_>) -> Option<Verdict> {
    let info = facts.listen.filter(|info| info.queue == Some(Queue::Accept))?;
    let listen = &facts.record.listen;
    let verdict = if accept_full(listen) {
        Verdict::certain()
            .with([format!("{}: full when it is over the limit", accept_queue(listen))])
            .with(accept_limit(listen))
    } else {
        // With cookies only the accept queue can have refused the SYN, and it emptied since.
        emptied(facts)
    };
    Some(verdict.with(accepting(facts)).with(crowd(facts)).with(outcome(&info)).fix(remedy(facts)))
}

/// What to change, by what makes the queue overflow.
fn remedy(facts: &Facts<'_>) -> Option<String> {
    let raise = raise_accept_queue(&facts.record.listen);
    let info = facts.listen.or_else(|| listen::judge(facts.record, facts.site))?;
    match listen::pressure(facts.record, &info, facts.around) {
        Some(Pressure::SlowAccept) => Some(format!(
            "find out why the process does not call accept() (stopped, stuck, or all its workers busy): a longer queue only \
             lets clients wait longer{}",
            raise.map(|raise| format!("; then {raise}")).unwrap_or_default()
        )),
        Some(Pressure::Burst) => {
            raise.map(|raise| format!("the process accepts, the queue is too short for a burst: {raise}"))
        }
        Some(Pressure::SynFlood) | None => raise,
    }
}

/// What to change under a SYN flood.
fn flood(facts: &Facts<'_>) -> Option<String> {
    facts.listen.filter(|info| info.pressure == Some(Pressure::SynFlood))?;
    let cookies = match facts.record.listen.syncookies {
        0 => "sysctl -w net.ipv4.tcp_syncookies=1: then honest clients are served all the same; and ",
        _ => "cookies serve honest clients all the same (they lose TCP options at most); to save the work, ",
    };
    Some(format!(
        "{cookies}drop the sources before they come here (upstream filter, nftables `ct count`, synproxy); a longer queue is of \
         no use against a SYN flood"
    ))
}

fn syn_queue_full(facts: &Facts<'_>) -> Option<Verdict> {
    let dropped = |info: &ListenInfo| info.queue == Some(Queue::Syn) && info.action == ListenAction::Dropped;
    facts.listen.filter(dropped)?;
    let listen = &facts.record.listen;
    let off = "net.ipv4.tcp_syncookies=0".to_owned();
    let verdict = if reached(listen, passed::ALLOC) {
        let quarter = format!(
            "{} half-open connections: the last quarter of net.ipv4.tcp_max_syn_backlog={} is kept for hosts that proved \
             themselves",
            listen.syn_len, listen.max_syn_backlog
        );
        Verdict::likely().with([quarter, off])
    } else if syn_full(listen) {
        Verdict::certain().with([syn_queue(listen), off])
    } else {
        emptied(facts)
    };
    Some(verdict.with(young(facts)).with(crowd(facts)).fix(flood(facts)))
}

/// A queue refused a SYN, and has room by now.
fn emptied(facts: &Facts<'_>) -> Verdict {
    let listen = &facts.record.listen;
    Verdict::likely().with([
        syn_queue(listen),
        accept_queue(listen),
        "dropped before a request was made".to_owned(),
    ])
}

fn cookies_sent(facts: &Facts<'_>) -> Option<Verdict> {
    facts.listen.filter(|info| info.action == ListenAction::Cookie)?;
    let listen = &facts.record.listen;
    Some(
        Verdict::certain()
            .with([syn_queue(listen), format!("net.ipv4.tcp_syncookies={}", listen.syncookies)])
            .with(crowd(facts))
            .fix(flood(facts)),
    )
}

/// An ACK or a FIN of nothing that is known. Without this reason it may also be a last ACK that met a full queue, with
/// `tcp_abort_on_overflow`.
fn stray(facts: &Facts<'_>) -> bool {
    facts.answers_stray() && facts.reason_is("TCP_FLAGS") && facts.ended().is_none()
}

fn stray_segment(facts: &Facts<'_>) -> Option<Verdict> {
    (stray(facts) && cookie_age(facts).is_none()).then(|| {
        let gaps = facts.around.missed != 0 || facts.around.forgotten != 0;
        let certainty =
            if facts.mptcp_may_refuse() || gaps { Certainty::Possible } else { Certainty::Likely };
        let what = if facts.segment_is(FIN) { "a FIN" } else { "an ACK" };
        Verdict::new(certainty).with([
            format!(
                "{what} that fits no half-open request and no connection that ended lately: {}",
                horizon(facts)
            ),
            segment(facts),
        ])
    })
}

/// How long ago the listener that answers an ACK of nothing sent a cookie: the ACK may have been meant for it.
fn cookie_age(facts: &Facts<'_>) -> Option<u64> {
    let last = facts.segment_is(ACK) && !facts.segment_is(SYN | FIN);
    facts.around.listener.filter(|_| stray(facts) && last)?.cookie_age_ns
}

fn cookie_invalid(facts: &Facts<'_>) -> Option<Verdict> {
    let age = cookie_age(facts)?;
    // An ACK of nothing at all looks the same.
    Some(Verdict::likely().with([
        format!(
            "this listener sent a SYN cookie {} before, and the ACK fits none that is still good",
            span(age)
        ),
        segment(facts),
    ]))
}

/// The SYN passed the queues, and there was no request socket to ask a route for.
fn lacked_memory(facts: &Facts<'_>, info: &ListenInfo) -> bool {
    info.queue.is_none() && info.stage == Stage::Syn && !reached(&facts.record.listen, passed::ROUTE)
}

fn no_memory(facts: &Facts<'_>) -> Option<Verdict> {
    facts.listen.filter(|info| lacked_memory(facts, info))?;
    Some(Verdict::likely().with([
        "a request socket was asked for, and the work ended there (before 5.11 an LSM's refusal looks the same)".to_owned(),
        accept_queue(&facts.record.listen),
    ]))
}

fn refused(facts: &Facts<'_>) -> Option<Verdict> {
    let info = facts.listen.filter(|info| info.queue.is_none() && !lacked_memory(facts, info))?;
    let queue = accept_queue(&facts.record.listen);
    Some(if facts.record.hook == hook::TCP_REQ_ERR {
        Verdict::certain().with(["an ICMP error came back for the SYN-ACK"])
    } else if info.stage == Stage::Syn {
        Verdict::likely().with(["a route was asked for, and the work ended there".to_owned(), queue])
    } else {
        Verdict::possible()
            .with([queue, "the queue has room: it was memory, the route, an LSM or BPF".to_owned()])
            .with(outcome(&info))
    })
}

/// What the client makes of it, at the last ACK.
fn outcome(info: &ListenInfo) -> Option<String> {
    let text = match (info.stage, info.action) {
        (Stage::Syn, _) => return None,
        (Stage::Ack, ListenAction::Reset) => "net.ipv4.tcp_abort_on_overflow=1: the client is reset",
        (Stage::Ack, _) => {
            "the last ACK of the handshake was dropped: the client believes to be connected, and its data are retried"
        }
    };
    Some(text.to_owned())
}
