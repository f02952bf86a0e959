//! The state in which the act began, and the states before it.

use super::site::Site;
use crate::event::{HistoryStep, Reason};
use tcpwatch_common::owner::{Memory, STEPS, Step, end};
use tcpwatch_common::record::{Record, flag};
use tcpwatch_common::{hook, state};

/// Whether the socket at hand is one of the small ones: TIME_WAIT, or a half-open request.
pub fn is_minisock(record: &Record) -> bool {
    record.flags & flag::SOCKET != 0 && record.flags & flag::FULL == 0
}

/// Whether a segment met a listener.
pub fn is_listener(record: &Record) -> bool {
    record.flags & flag::SOCKET != 0 && record.state == state::LISTEN
}

/// Whether it is about a half-open request, for which the hooks have its listener at hand.
pub fn is_request(record: &Record, site: &Site<'_>, reason: Option<&Reason>) -> bool {
    record.state == state::NEW_SYN_RECV
        || matches!(record.hook, hook::TCP_CHECK_REQ | hook::INET_CSK_REQSK_QUEUE_DROP)
        || is_listener(record)
            // tcp_check_req is the only one that gives this reason.
            && (site.is("tcp_check_req") || reason.is_some_and(|reason| reason.name == "INVALID_SYN"))
}

/// What is remembered of the connection that the event is about; `None` when it is about a listener or nothing is
/// remembered.
pub fn connection(record: &Record) -> Option<&Memory> {
    let known = |memory: &Memory| memory.step_count > 0 || memory.owner.how != 0;
    if !is_listener(record) && known(&record.present) {
        return Some(&record.present);
    }
    (record.flags & flag::PAST != 0).then_some(&record.past)
}

/// The last state before CLOSE.
pub fn before_close(memory: &Memory) -> Option<u8> {
    memory.history().map(Step::state).filter(|state| *state != state::CLOSE).last()
}

/// The state before the end.
pub fn last(memory: &Memory) -> Option<u8> {
    before_close(memory).or((memory.end_state != 0).then_some(memory.end_state))
}

/// The state before `close()`, which on its way to CLOSE may have sent a FIN first.
fn before_closing(memory: &Memory) -> Option<u8> {
    /// A FIN sent earlier than this was sent by `shutdown(SHUT_RDWR)`, which shuts both directions too.
    const SAME_CALL_NS: u64 = 1_000_000_000;
    let (mut before, mut last) = (None, None);
    for step in memory.history().filter(|step| step.state() != state::CLOSE) {
        (before, last) = (last, Some(step));
    }
    let (Some(before), Some(last)) = (before, last) else { return before_close(memory) };
    let in_passing = memory.fin_by_close == 1
        && matches!(last.state(), state::FIN_WAIT1 | state::LAST_ACK)
        && memory.end_ns.saturating_sub(last.at_ns()) < SAME_CALL_NS;
    Some(if in_passing { before.state() } else { last.state() })
}

/// The state when the act began. Inside `close()` the kernel has set CLOSE before it sends the RST, so CLOSE itself is
/// never the answer.
pub fn began(record: &Record, site: &Site<'_>, reason: Option<&Reason>) -> Option<u8> {
    if record.flags & flag::SOCKET == 0 {
        return None;
    }
    if is_request(record, site, reason) {
        return Some(state::NEW_SYN_RECV);
    }
    match record.state {
        0 => None,
        state::CLOSE => connection(record).and_then(|memory| {
            if site.is("__tcp_close") { before_closing(memory) } else { before_close(memory) }
        }),
        state => Some(state),
    }
}

/// The states of the connection, oldest first, each until the next one and the last until `now_ns`.
pub fn history(memory: &Memory, now_ns: u64) -> Vec<HistoryStep> {
    let mut history = Vec::with_capacity(STEPS + 1);
    let mut steps = memory.history().peekable();
    let mut closed = None;
    while let Some(step) = steps.next() {
        let next = steps.peek();
        if step.state() == state::CLOSE && next.is_none() {
            closed = Some(step);
            break;
        }
        let until = next.map_or(now_ns, |next| next.at_ns());
        push(&mut history, step.state(), step.at_ns(), until);
    }
    // The full socket closed; its minisock lived on.
    if let Some(closed) = closed {
        let (substate, until) = match memory.end {
            end::TIME_WAIT => (state::TIME_WAIT, now_ns),
            end::FIN_WAIT2 => (state::FIN_WAIT2, now_ns),
            end::TW_EXPIRED | end::TW_KILLED => (memory.end_state, memory.end_ns),
            _ => return history,
        };
        if substate == state::FIN_WAIT2 && history.last().is_some_and(|last| last.state == "FIN_WAIT2") {
            if let Some(last) = history.last_mut() {
                last.for_us = last.for_us.map(|us| us + until.saturating_sub(closed.at_ns()) / 1000);
            }
        } else if matches!(substate, state::TIME_WAIT | state::FIN_WAIT2) {
            push(&mut history, substate, closed.at_ns(), until);
        }
    }
    history
}

fn push(history: &mut Vec<HistoryStep>, number: u8, from_ns: u64, until_ns: u64) {
    let Some(name) = state::name(number) else { return };
    let for_us = (from_ns != 0 && until_ns != 0).then(|| until_ns.saturating_sub(from_ns) / 1000);
    history.push(HistoryStep { state: name, for_us });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::samples::{self, frames, memory};
    use crate::diagnose::site::locate;
    use tcpwatch_common::record::kind;

    fn began_at(record: &Record, stack: &[&'static str]) -> Option<&'static str> {
        began(record, &locate(record, frames(stack)), None).and_then(state::name)
    }

    #[test]
    fn close_is_replaced_by_the_state_before_it() {
        let mut record = samples::active(state::CLOSE);
        record.present =
            memory(&[(state::ESTABLISHED, 1_000), (state::CLOSE_WAIT, 5_000), (state::CLOSE, 9_000)]);
        assert_eq!(began_at(&record, &[]), Some("CLOSE_WAIT"));
        record.past = record.present;
        record.present = Memory::EMPTY;
        assert_eq!(began_at(&record, &[]), None, "the past counts only with its flag");
        record.flags |= flag::PAST;
        assert_eq!(began_at(&record, &[]), Some("CLOSE_WAIT"));
    }

    #[test]
    fn other_states_stand() {
        assert_eq!(began_at(&samples::active(state::ESTABLISHED), &[]), Some("ESTABLISHED"));
        assert_eq!(began_at(&samples::passive_without_socket(16), &[]), None);
        let mut minisock = samples::passive_without_socket(16);
        minisock.flags |= flag::SOCKET;
        minisock.state = state::FIN_WAIT2;
        assert_eq!(began_at(&minisock, &[]), Some("FIN_WAIT2"));
    }

    #[test]
    fn a_listener_listens_unless_a_request_is_meant() {
        let record = samples::at_listener(16);
        assert_eq!(began_at(&record, &["tcp_v4_send_reset", "tcp_v4_do_rcv"]), Some("LISTEN"));
        assert_eq!(began_at(&record, &["tcp_v4_send_reset", "tcp_check_req"]), Some("NEW_SYN_RECV"));
        let reason = samples::kernel_reason("INVALID_SYN");
        assert_eq!(began(&record, &Site::default(), Some(&reason)), Some(state::NEW_SYN_RECV));
        let record = Record { kind: kind::RST_RECEIVED, hook: hook::TCP_CHECK_REQ, ..record };
        assert_eq!(began_at(&record, &[]), Some("NEW_SYN_RECV"));
    }

    #[test]
    fn history_is_oldest_first_with_what_is_known() {
        let memory =
            memory(&[(state::ESTABLISHED, 0), (state::FIN_WAIT1, 2_000_000), (state::CLOSE, 5_000_000)]);
        let expected = vec![
            HistoryStep { state: "ESTABLISHED", for_us: None },
            HistoryStep { state: "FIN_WAIT1", for_us: Some(3_000) },
        ];
        assert_eq!(history(&memory, 9_000_000), expected);
    }

    #[test]
    fn the_last_state_lasts_until_now() {
        let memory = memory(&[(state::SYN_SENT, 1_000_000)]);
        assert_eq!(history(&memory, 4_000_000), vec![HistoryStep { state: "SYN_SENT", for_us: Some(3_000) }]);
    }

    #[test]
    fn a_minisock_lives_on() {
        let steps = [(state::FIN_WAIT1, 1_000_000), (state::FIN_WAIT2, 2_000_000), (state::CLOSE, 3_000_000)];
        let mut dead = memory(&steps);
        dead.end = end::TIME_WAIT;
        assert_eq!(history(&dead, 9_000_000)[2], HistoryStep { state: "TIME_WAIT", for_us: Some(6_000) });
        dead.end = end::FIN_WAIT2;
        let states = history(&dead, 9_000_000);
        assert_eq!(states.len(), 2);
        assert_eq!(states[1], HistoryStep { state: "FIN_WAIT2", for_us: Some(7_000) });
        dead.end = end::TW_EXPIRED;
        dead.end_state = state::TIME_WAIT;
        dead.end_ns = 5_000_000;
        assert_eq!(history(&dead, 9_000_000)[2], HistoryStep { state: "TIME_WAIT", for_us: Some(2_000) });
    }

    #[test]
    fn a_fin_sent_in_passing_is_part_of_the_close() {
        let mut past = memory(&[
            (state::ESTABLISHED, 1_000),
            (state::FIN_WAIT1, 2_000_000_000),
            (state::CLOSE, 2_000_100_000),
        ]);
        past.end_ns = 2_000_100_000;
        past.fin_by_close = 1;
        assert_eq!(before_closing(&past), Some(state::ESTABLISHED));
        past.fin_by_close = 0;
        assert_eq!(before_closing(&past), Some(state::FIN_WAIT1), "shutdown() had sent it");
    }
}
