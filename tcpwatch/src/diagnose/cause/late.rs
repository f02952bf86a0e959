//! Segments for a connection that is no more: how it ended says why they draw an RST.

use super::{Facts, Verdict, span, state};
use crate::event::{Cause, Certainty};
use tcpwatch_common::owner::{Memory, end};
use tcpwatch_common::record::{TimeWait, flag};
use tcpwatch_common::state::{
    CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, SYN_RECV, SYN_SENT, TIME_WAIT, name,
};

/// What the past of the flow makes of a late segment; `None` without a past.
pub(super) fn diagnose(facts: &Facts<'_>) -> Option<Verdict> {
    if !facts.has(flag::PAST) {
        return None;
    }
    let past = &facts.record.past;
    let ago = if past.end_ns == 0 { None } else { facts.record.mono_ns.checked_sub(past.end_ns) };
    let ago = ago.map_or_else(|| "before".to_owned(), |ns| format!("{} before", span(ns)));
    let last = last_state(past);
    let segment = facts.segment();
    let named = |text: String| vec![text, segment.clone()];
    let late = |text: &str| Verdict::certain("late-segment").with(named(format!("{text} {ago}")));
    Some(match past.end {
        end::TW_REFUSED => {
            let mut evidence = vec![format!("its TIME_WAIT slot was refused {ago}")];
            evidence.extend(table(facts));
            evidence.extend(life(past, past.end_ns));
            evidence.push(segment);
            Verdict::certain("tw-bucket-overflow").with(evidence).fix(raise(facts))
        }
        end::RESET_SENT => late("this host had reset the connection"),
        end::RESET_RECEIVED => late("the peer had reset the connection"),
        // The minisock was there, and nobody saw it go: its time must have run out.
        end::FIN_WAIT2 => Verdict::likely("fin-wait2-timeout")
            .with(named(format!("orphaned in FIN_WAIT2 {ago}, and there is nothing left of it"))),
        end::TIME_WAIT => Verdict::likely("late-segment")
            .with(named(format!("it went to TIME_WAIT {ago}, and there is nothing left of it"))),
        end::TW_EXPIRED if past.end_state == FIN_WAIT2 => Verdict::certain("fin-wait2-timeout")
            .with(named(format!("its FIN_WAIT2 timer (tcp_fin_timeout) ran out {ago}"))),
        end::TW_EXPIRED => late("its TIME_WAIT ran out"),
        end::TW_KILLED => {
            late("its TIME_WAIT was cut short (an RST, a new connection on the same ports, or ss -K)")
        }
        _ => match last {
            // Nothing but a timer, or an ICMP error, ends these without a segment.
            Some(state @ (ESTABLISHED | CLOSE_WAIT | FIN_WAIT1)) => {
                Verdict::likely("connection-timed-out").with(vec![
                    format!("it went from {} to CLOSE {ago} without RST and without TIME_WAIT", text(state)),
                    segment,
                ])
            }
            Some(LAST_ACK) => {
                Verdict::likely("late-segment").with(named(format!("both sides had closed (LAST_ACK) {ago}")))
            }
            Some(SYN_SENT) => {
                Verdict::likely("late-segment").with(named(format!("its connect had ended {ago}")))
            }
            Some(SYN_RECV) => {
                Verdict::likely("late-segment").with(named(format!("its handshake had ended {ago}")))
            }
            // Refused a slot, expired or cut short: with no hook on TIME_WAIT any word would be a guess.
            Some(state @ (FIN_WAIT2 | CLOSING | TIME_WAIT)) => Verdict::new("unknown", Certainty::Unknown).with(vec![
                format!(
                    "the connection closed {ago} in {}; what became of its TIME_WAIT cannot be seen on this host \
                     (`tcpwatch doctor`): compare TCPTimeWaitOverflow and net.ipv4.tcp_fin_timeout",
                    text(state)
                ),
                segment,
            ]),
            _ => Verdict::possible("late-segment").with(named(format!("it had ended {ago}"))),
        },
    })
}

/// The state before the end.
pub(super) fn last_state(past: &Memory) -> Option<u8> {
    state::before_close(past).or((past.end_state != 0).then_some(past.end_state))
}

fn text(state: u8) -> &'static str {
    name(state).unwrap_or("an unknown state")
}

/// The moment of refusal itself.
pub(super) fn refused_now(facts: &Facts<'_>) -> Cause {
    let TimeWait { used, max, .. } = facts.record.timewait;
    let known = facts.has(flag::TIME_WAIT);
    let certainty = match known {
        true if used >= max => Certainty::Certain,
        // The same happens when the kernel has no memory for a slot; the counter may also have gone down since.
        true => Certainty::Possible,
        false => Certainty::Likely,
    };
    let mut evidence = Vec::new();
    evidence.extend(table(facts));
    if known && used < max {
        evidence.push("the table had room by then: the kernel may have had no memory for a slot".to_owned());
    }
    evidence.push(format!("in state {}; the peer's next segment will draw an RST", facts.began_name()));
    evidence.extend(state::connection(facts.record).and_then(|memory| life(memory, facts.record.mono_ns)));
    Verdict::new("tw-bucket-overflow", certainty).with(evidence).fix(raise(facts)).cause(facts)
}

/// How full the table is.
fn table(facts: &Facts<'_>) -> Option<String> {
    let TimeWait { used, max, .. } = facts.record.timewait;
    facts.has(flag::TIME_WAIT).then(|| filled(used, max))
}

pub(in crate::diagnose) fn filled(used: u32, max: u32) -> String {
    format!("{used} of {max} TIME_WAIT slots in use (net.ipv4.tcp_max_tw_buckets)")
}

/// How long the connection lived, and who closed first: short lives fill the table.
fn life(memory: &Memory, until_ns: u64) -> Option<String> {
    let first = memory.history().next()?.at_ns();
    let lived = until_ns.checked_sub(first).filter(|_| first != 0)?;
    let closed_first = memory.history().any(|step| step.state() == FIN_WAIT1);
    let who = if closed_first { ", and this side closed first" } else { "" };
    Some(format!("the connection lived for {}{who}", span(lived)))
}

/// The command, where the limit is known.
fn raise(facts: &Facts<'_>) -> Option<String> {
    facts.has(flag::TIME_WAIT).then(|| more(facts.record.timewait.max))
}

/// The command, with room for four times as many.
pub(in crate::diagnose) fn more(max: u32) -> String {
    let more = max.saturating_mul(4).max(65_536).checked_next_power_of_two().unwrap_or(max);
    format!(
        "sysctl -w net.ipv4.tcp_max_tw_buckets={more} (now {max}; a slot takes about 300 bytes), and keep connections \
         open longer so that fewer of them end"
    )
}
