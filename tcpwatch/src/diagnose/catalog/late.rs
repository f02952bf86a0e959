//! Segments for a connection that is no more: how it ended says why they draw an RST.

use super::evidence::{
    carried, errno, life, raise_tw_buckets, refusals, segment, setting, since, span, table, timewait,
};
use super::{Harm, RST_SENT, Spec, counter, dropped, in_state, reset};
use crate::diagnose::cause::{Facts, Verdict, name_owner};
use crate::diagnose::state;
use crate::event::{Certainty, EventKind};
use tcpwatch_common::owner::{Memory, end};
use tcpwatch_common::record::{TimeWait, flag, kind};
use tcpwatch_common::state::{
    CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, SYN_RECV, SYN_SENT, TIME_WAIT, name,
};

pub(super) const CAUSES: &[Spec] = &[
    Spec {
        id: "tw-bucket-overflow",
        events: &[EventKind::RstSent, EventKind::TwOverflow],
        summary: "the socket of {owner} was refused its TIME_WAIT slot, because the table is full",
        many: "{count} events come from connections that were refused their TIME_WAIT slot",
        fix: Some(
            "raise net.ipv4.tcp_max_tw_buckets, and keep connections open longer so that fewer of them end",
        ),
        evidence: "the kernel refused the slot; certain where the table is seen to be full",
        certainty: Certainty::Certain,
        harm: Harm::Refused,
        sites: &["P1", "P3", "Q2"],
        source: "net/ipv4/tcp_minisocks.c: tcp_time_wait",
        since: "5.10",
        words: &[
            reset("NO_SOCKET", "a segment for a connection that was refused its TIME_WAIT slot"),
            reset("TCP_FLAGS", "a segment for a connection that was refused its TIME_WAIT slot"),
            dropped("TCP_FLAGS", "the same, and the connection was refused its TIME_WAIT slot"),
            in_state("FIN_WAIT2", "the FIN comes and TIME_WAIT has no room"),
            in_state("TIME_WAIT", "there are as many as net.ipv4.tcp_max_tw_buckets allows"),
            in_state("CLOSING", "it ends and TIME_WAIT has no room"),
            counter("OutRsts", "connections were refused their TIME_WAIT slot, and late segments follow"),
            counter("TCPTimeWaitOverflow", "the table is full, or there is no memory"),
        ],
        rule: Some(tw_bucket_overflow),
    },
    Spec {
        id: "fin-wait2-timeout",
        events: RST_SENT,
        summary: "{owner} closed, waited in FIN_WAIT2 until tcp_fin_timeout ran out, and the peer sent after that",
        many: "{count} segments came for connections whose FIN_WAIT2 had timed out",
        fix: Some("make the peer close sooner, or raise net.ipv4.tcp_fin_timeout"),
        evidence: "a late segment of a connection that was orphaned in FIN_WAIT2; certain where its timer was seen to expire",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["P1", "P3", "Q3"],
        source: "net/ipv4/inet_timewait_sock.c: tw_timer_handler",
        since: "5.10",
        words: &[
            reset("NO_SOCKET", "a segment after the orphan's FIN_WAIT2 ran out"),
            reset("TCP_FLAGS", "a segment after the orphan's FIN_WAIT2 ran out"),
            in_state("FIN_WAIT2", "time runs out and the peer sends later"),
            counter("TWKilled", "FIN_WAIT2 runs out early, and the peer sends later"),
        ],
        rule: Some(fin_wait2_timeout),
    },
    Spec {
        id: "connection-timed-out",
        events: RST_SENT,
        summary: "the kernel had given up the connection of {owner} in silence (ETIMEDOUT), and the peer sent after that",
        many: "{count} segments came for connections that the kernel had given up",
        fix: Some(
            "look for loss between the hosts; net.ipv4.tcp_retries2 and TCP_USER_TIMEOUT say how long to try",
        ),
        evidence: "a late segment of a connection that closed without RST and without TIME_WAIT; certain where its error was \
                   ETIMEDOUT",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["P1", "P3", "Q1", "Q4", "Q5"],
        source: "net/ipv4/tcp_timer.c: tcp_write_err",
        since: "5.10",
        words: &[
            reset("NO_SOCKET", "a segment for a connection that the kernel gave up in silence"),
            reset("TCP_FLAGS", "a segment for a connection that the kernel gave up in silence"),
            in_state("ESTABLISHED", "the peer is gone and retransmissions run out: it goes in silence"),
            in_state("FIN_WAIT1", "the peer never acknowledges: it goes in silence"),
            counter("EstabResets", "retransmissions ran out"),
            counter("TCPAbortOnTimeout", "anything else ran out, and the peer sends after that"),
        ],
        rule: Some(connection_timed_out),
    },
    Spec {
        id: "late-segment",
        events: RST_SENT,
        summary: "the peer sent to a connection of {owner} that had ended before",
        many: "{count} segments came for connections that had ended before",
        fix: None,
        evidence: "the segment's addresses are those of a connection that ended lately; how and when it did",
        certainty: Certainty::Certain,
        harm: Harm::Noise,
        sites: &["P1", "P3", "Q5", "Q6"],
        source: "net/ipv4/tcp_ipv4.c: tcp_v4_rcv, no_tcp_socket",
        since: "5.10",
        words: &[
            reset("NO_SOCKET", "a segment for a connection that ended in another way"),
            reset("TCP_FLAGS", "a segment for a connection that ended in another way"),
            dropped("NO_SOCKET", "the connection ended before"),
            in_state("LAST_ACK", "a segment comes after it has gone"),
        ],
        rule: Some(late_segment),
    },
];

fn tw_bucket_overflow(facts: &Facts<'_>) -> Option<Verdict> {
    if facts.record.kind == kind::TW_OVERFLOW {
        return Some(refused_now(facts));
    }
    let past = facts.ended().filter(|past| past.end == end::TW_REFUSED)?;
    Some(
        at_best(facts, if full(facts) { Certainty::Certain } else { Certainty::Likely })
            .with([format!("its TIME_WAIT slot was refused {}{}", ago(facts, past), by(past))])
            .with(table(facts))
            .with(refusals(facts))
            .with(life(past, past.end_ns))
            .with(carried(past))
            .with([segment(facts)])
            .fix(raise(facts)),
    )
}

/// The table has no room. Where that is not seen, the kernel may have had no memory for a slot.
fn full(facts: &Facts<'_>) -> bool {
    timewait(facts).is_some_and(|TimeWait { used, max, .. }| used >= max)
}

/// The moment of refusal itself.
fn refused_now(facts: &Facts<'_>) -> Verdict {
    let TimeWait { used, max, .. } = facts.record.timewait;
    let known = facts.has(flag::TIME_WAIT);
    let certainty = match known {
        true if full(facts) => Certainty::Certain,
        // The counter may also have gone down since.
        true => Certainty::Possible,
        false => Certainty::Likely,
    };
    let room = "the table had room by then: the kernel may have had no memory for a slot";
    Verdict::new(certainty)
        .with(table(facts))
        .with(refusals(facts))
        .with((known && used < max).then_some(room))
        .with([format!("in state {}; the peer's next segment will draw an RST", facts.began_name())])
        .with(state::connection(facts.record).and_then(|memory| life(memory, facts.record.mono_ns)))
        .fix(raise(facts))
}

/// The command, where the limit is known.
fn raise(facts: &Facts<'_>) -> Option<String> {
    timewait(facts).map(|table| raise_tw_buckets(table.max))
}

fn fin_wait2_timeout(facts: &Facts<'_>) -> Option<Verdict> {
    let past = facts.ended()?;
    let ago = ago(facts, past);
    let (certainty, what) = match past.end {
        // The minisock was there, and nobody saw it go: its time must have run out.
        end::FIN_WAIT2 => {
            (Certainty::Likely, format!("orphaned in FIN_WAIT2 {ago}, and there is nothing left of it"))
        }
        end::TW_EXPIRED if past.end_state == FIN_WAIT2 => {
            (Certainty::Certain, format!("its FIN_WAIT2 timer (tcp_fin_timeout) ran out {ago}"))
        }
        _ => return None,
    };
    Some(
        at_best(facts, certainty)
            .with([what])
            .with(setting("tcp_fin_timeout", facts.around.settings.tcp_fin_timeout))
            .with(closed(facts, past))
            .with(carried(past))
            .with([segment(facts)]),
    )
}

fn connection_timed_out(facts: &Facts<'_>) -> Option<Verdict> {
    let past = facts.ended()?;
    let certainty = given_up(past)?;
    let state = state::last(past).map_or("an unknown state", text);
    let went = format!(
        "it went from {state} to CLOSE {} without RST and without TIME_WAIT{}",
        ago(facts, past),
        if past.error == 0 { String::new() } else { format!(", with {}", errno(past.error)) }
    );
    Some(
        at_best(facts, certainty)
            .with([went])
            .with(tried(past))
            .with(setting("tcp_retries2", facts.around.settings.tcp_retries2))
            .with(carried(past))
            .with([segment(facts)]),
    )
}

/// The kernel gave the connection up: how sure that is.
fn given_up(past: &Memory) -> Option<Certainty> {
    let last = unseen_end(past)?;
    match i32::from(past.error) {
        // tcp_write_err() alone sets it, or the last ICMP error instead.
        libc::ETIMEDOUT => Some(Certainty::Certain),
        libc::EHOSTUNREACH | libc::ENETUNREACH => Some(Certainty::Likely),
        // By its process or by SOCK_DESTROY: no timer.
        libc::ECONNABORTED | libc::ECONNRESET => None,
        // Nothing but a timer, or an ICMP error, ends these without a segment.
        _ => matches!(last, Some(ESTABLISHED | CLOSE_WAIT | FIN_WAIT1)).then_some(Certainty::Likely),
    }
}

/// What the kernel had tried.
fn tried(past: &Memory) -> Option<String> {
    let limit = match past.user_timeout {
        0 => String::new(),
        ms => format!("; TCP_USER_TIMEOUT was {ms} ms"),
    };
    match (past.retransmits, past.probes) {
        (0, 0) => (past.user_timeout != 0).then(|| format!("TCP_USER_TIMEOUT was {} ms", past.user_timeout)),
        (0, probes) => Some(format!(
            "{probes} probes went unanswered: the peer's window was closed, or keepalive asked{limit}"
        )),
        (retransmits, _) => Some(format!("{retransmits} retransmissions in a row went unanswered{limit}")),
    }
}

fn late_segment(facts: &Facts<'_>) -> Option<Verdict> {
    let past = facts.ended()?;
    let ago = ago(facts, past);
    let (certainty, what) = match past.end {
        end::RESET_SENT => (Certainty::Certain, format!("this host had reset the connection {ago}")),
        end::RESET_RECEIVED => (Certainty::Certain, format!("the peer had reset the connection {ago}")),
        end::TIME_WAIT => {
            (Certainty::Likely, format!("it went to TIME_WAIT {ago}, and there is nothing left of it"))
        }
        end::TW_EXPIRED if past.end_state != FIN_WAIT2 => {
            (Certainty::Certain, format!("its TIME_WAIT ran out {ago}"))
        }
        end::TW_KILLED => (
            Certainty::Certain,
            format!(
                "its TIME_WAIT was cut short (an RST, a new connection on the same ports, or ss -K) {ago}"
            ),
        ),
        _ => match unseen_end(past)? {
            _ if given_up(past).is_some() => return None,
            _ if past.error == libc::ECONNABORTED as u16 => {
                (Certainty::Likely, format!("it was destroyed from outside (ss -K) {ago}"))
            }
            Some(LAST_ACK) => (Certainty::Likely, format!("both sides had closed (LAST_ACK) {ago}")),
            Some(SYN_SENT) => (Certainty::Likely, format!("its connect had ended {ago}")),
            Some(SYN_RECV) => (Certainty::Likely, format!("its handshake had ended {ago}")),
            Some(FIN_WAIT2 | CLOSING | TIME_WAIT) => return None,
            _ => (Certainty::Possible, format!("it had ended {ago}")),
        },
    };
    Some(
        at_best(facts, certainty)
            .with([what])
            .with(closed(facts, past))
            .with(carried(past))
            .with([segment(facts)]),
    )
}

/// For `unknown`: refused a slot, expired or cut short. With no hook on TIME_WAIT any word would be a guess.
pub(super) fn unseen(facts: &Facts<'_>) -> Option<String> {
    let past = facts.ended()?;
    let Some(state @ (FIN_WAIT2 | CLOSING | TIME_WAIT)) = unseen_end(past)? else { return None };
    if given_up(past).is_some() {
        return None;
    }
    Some(format!(
        "the connection closed {} in {}; what became of its TIME_WAIT cannot be seen on this host (`tcpwatch doctor`): \
         compare TCPTimeWaitOverflow and net.ipv4.tcp_fin_timeout",
        ago(facts, past),
        text(state)
    ))
}

/// The last state of a connection whose end no hook saw; `None` where one did.
fn unseen_end(past: &Memory) -> Option<Option<u8>> {
    let seen = [
        end::TW_REFUSED,
        end::RESET_SENT,
        end::RESET_RECEIVED,
        end::FIN_WAIT2,
        end::TIME_WAIT,
        end::TW_EXPIRED,
        end::TW_KILLED,
    ];
    (!seen.contains(&past.end)).then(|| state::last(past))
}

/// That certain, unless the listener may have answered a last ACK of its own: without symbols, on a kernel without
/// reasons, a full queue with `tcp_abort_on_overflow` looks the same.
fn at_best(facts: &Facts<'_>, certainty: Certainty) -> Verdict {
    let ambiguous = facts.answers_stray() && !facts.reason_is("TCP_FLAGS");
    Verdict::new(if ambiguous { certainty.min(Certainty::Likely) } else { certainty })
}

fn ago(facts: &Facts<'_>, past: &Memory) -> String {
    let ago = if past.end_ns == 0 { None } else { facts.record.mono_ns.checked_sub(past.end_ns) };
    ago.map_or_else(|| "before".to_owned(), |ns| format!("{} before", span(ns)))
}

/// By whom it had been closed, where the owner is known: ` by nginx[812] in FIN_WAIT2`.
fn by(past: &Memory) -> String {
    let state = match past.end_state {
        0 => String::new(),
        state => format!(" in {}", text(state)),
    };
    match crate::diagnose::owner::info(&past.owner) {
        Some(owner) => format!("; {} had closed it{state}", name_owner(&owner)),
        None => state,
    }
}

/// When its process had closed it: the first step of a close that the process itself took.
fn closed(facts: &Facts<'_>, past: &Memory) -> Option<String> {
    let step = past.history().find(|step| matches!(step.state(), FIN_WAIT1 | LAST_ACK))?;
    let ago = since(facts, step.at_ns())?;
    let owner = crate::diagnose::owner::info(&past.owner)?;
    let how = if past.exiting == 1 { "ended" } else { "closed it" };
    Some(format!("{} had {how} {ago} before", name_owner(&owner)))
}

fn text(state: u8) -> &'static str {
    name(state).unwrap_or("an unknown state")
}
