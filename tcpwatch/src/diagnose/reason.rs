//! The reason in the kernel's words: its own where it gives one, else the one that a newer kernel would give.

use super::site::Site;
use super::state;
use crate::event::{Reason, ReasonFrom};
use crate::kernel::names::ReasonNames;
use smol_str::{SmolStr, format_smolstr};
use tcpwatch_common::hook;
use tcpwatch_common::record::{Record, flag, kind};
use tcpwatch_common::state::{CLOSE, CLOSING, FIN_WAIT2, LAST_ACK, LISTEN, SYN_RECV, SYN_SENT};

/// `SOCK_KEEPOPEN` of `enum sock_flags`: the same bit in every kernel from 5.10 on.
const SOCK_KEEPOPEN: u32 = 1 << 3;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// The reason of an event, `None` where neither the kernel nor the evidence gives one.
pub fn of(record: &Record, site: &Site<'_>, names: &ReasonNames) -> Option<Reason> {
    if record.flags & flag::REASON != 0 {
        let known = match record.hook {
            hook::KFREE_SKB => names.drop_reason(record.reason),
            _ => names.reset(record.reason),
        };
        // A number that the kernel's BTF does not name is still what the kernel said.
        let name = known.map_or_else(|| format_smolstr!("#{}", record.reason), SmolStr::new);
        return Some(Reason { name, from: ReasonFrom::Kernel });
    }
    if record.kind != kind::RST_SENT || matches!(record.hook, hook::NF_SEND_RESET | hook::NF_SEND_RESET6) {
        return None;
    }
    let name = if record.flags & flag::PACKET == 0 { active(record, site) } else { passive(record, site) };
    name.map(|name| Reason { name: SmolStr::new_static(name), from: ReasonFrom::Inferred })
}

/// The host's own decision (`tcp_send_active_reset`).
fn active(record: &Record, site: &Site<'_>) -> Option<&'static str> {
    let has = |bit: u32| record.flags & bit != 0;
    match site.function {
        Some(caller) if caller.starts_with("mptcp_") || caller.starts_with("__mptcp_") => {
            // The code that mptcp_subflow_reset sends lies in a structure of its own.
            let fast = site.has("mptcp_do_fastclose") || caller.starts_with("__mptcp_");
            fast.then_some("TCP_ABORT_ON_CLOSE")
        }
        Some(caller) if caller.starts_with("subflow_") => None,
        Some("tcp_abort" | "inet_child_forget" | "inet_csk_listen_stop") => Some("TCP_STATE"),
        Some("tcp_disconnect") => Some(disconnect(record)),
        Some("tcp_keepalive_timer") if has(flag::DEAD) && record.state == FIN_WAIT2 => Some("TCP_STATE"),
        Some("tcp_keepalive_timer") => Some("TCP_KEEPALIVE_TIMEOUT"),
        Some("tcp_out_of_resources") => Some("TCP_ABORT_ON_MEMORY"),
        Some("__tcp_close" | "tcp_close") if !has(flag::DEAD) => Some("TCP_ABORT_ON_CLOSE"),
        Some("__tcp_close" | "tcp_close") if record.socket.linger2 < 0 => Some("TCP_ABORT_ON_LINGER"),
        Some("__tcp_close" | "tcp_close") => Some("TCP_ABORT_ON_MEMORY"),
        // A caller that nobody has met: no rule applies.
        Some(_) => None,
        None => active_without_site(record),
    }
}

fn disconnect(record: &Record) -> &'static str {
    match state::connection(record).and_then(state::before_close) {
        Some(CLOSING | LAST_ACK) => "TCP_DISCONNECT_WITH_DATA",
        _ => "TCP_STATE",
    }
}

/// Without a stack the socket's own fields tell most acts apart.
fn active_without_site(record: &Record) -> Option<&'static str> {
    let has = |bit: u32| record.flags & bit != 0;
    if has(flag::MPTCP) {
        return None;
    }
    let keepopen = record.socket.flags & SOCK_KEEPOPEN != 0;
    match record.state {
        CLOSE if has(flag::DEAD) && record.socket.linger2 < 0 => Some("TCP_ABORT_ON_LINGER"),
        CLOSE if has(flag::DEAD) => Some("TCP_ABORT_ON_MEMORY"),
        // A listener's child that nobody accepted.
        CLOSE if !has(flag::HAS_FILE) => Some("TCP_STATE"),
        CLOSE if is_shut(record) && unread(record) > 0 => Some("TCP_ABORT_ON_CLOSE"),
        CLOSE => Some(disconnect(record)),
        _ if has(flag::OWNED) => Some("TCP_STATE"),
        FIN_WAIT2 if has(flag::DEAD) => Some("TCP_STATE"),
        _ if has(flag::DEAD) => Some("TCP_ABORT_ON_MEMORY"),
        _ if keepopen => Some("TCP_KEEPALIVE_TIMEOUT"),
        _ => None,
    }
}

/// `close()` shuts the socket before anything else; `connect(AF_UNSPEC)` does not.
pub(super) fn is_shut(record: &Record) -> bool {
    record.socket.shutdown & 3 == 3
}

/// Bytes in the receive queue that nobody read. A FIN counts one in sequence numbers and is taken off.
pub(super) fn unread(record: &Record) -> u32 {
    let span = record.socket.rcv_nxt.wrapping_sub(record.socket.copied_seq);
    // More than any receive buffer holds: one of the two was not to be read.
    if span > 1 << 30 {
        return 0;
    }
    let before = state::connection(record).and_then(state::before_close);
    let fin = matches!(before, Some(tcpwatch_common::state::CLOSE_WAIT | CLOSING | LAST_ACK));
    span.saturating_sub(u32::from(fin))
}

/// The answer to a segment (`tcp_v4_send_reset`, `tcp_v6_send_reset`).
fn passive(record: &Record, site: &Site<'_>) -> Option<&'static str> {
    if record.flags & flag::SOCKET == 0 {
        return Some("NO_SOCKET");
    }
    if state::is_minisock(record) {
        return Some("TCP_TIMEWAIT_SOCKET");
    }
    if site.has_prefix("subflow_") {
        // A refused MPTCP join: the code travels in the segment's extension.
        return None;
    }
    let segment = record.packet;
    match record.state {
        LISTEN => at_listener(record, site),
        SYN_SENT if segment.flags & ACK != 0 && !acknowledges_syn(record) => Some("TCP_INVALID_ACK_SEQUENCE"),
        SYN_SENT => Some("TCP_RFC7323_PAWS"),
        SYN_RECV if site.is("tcp_check_req") => Some("INVALID_SYN"),
        SYN_RECV if after(segment.ack, record.socket.snd_nxt) => Some("TCP_ACK_UNSENT_DATA"),
        SYN_RECV => Some("TCP_OLD_ACK"),
        CLOSE => Some("TCP_ABORT_ON_DATA"),
        _ => None,
    }
}

fn at_listener(record: &Record, site: &Site<'_>) -> Option<&'static str> {
    let flags = record.packet.flags;
    if site.is("tcp_check_req") || flags & SYN != 0 && flags & ACK == 0 {
        return Some("INVALID_SYN");
    }
    if site.function.is_some() {
        return Some("TCP_FLAGS");
    }
    // A last ACK that a full queue answers with an RST looks like any other ACK here.
    let listen = record.listen;
    let filled = record.flags & flag::LISTEN != 0;
    match (filled, listen.abort_on_overflow) {
        (true, 0) => Some("TCP_FLAGS"),
        (true, _) if listen.accept_len <= listen.accept_max => Some("TCP_FLAGS"),
        _ => None,
    }
}

/// The kernel's own test in SYN_SENT.
pub(super) fn acknowledges_syn(record: &Record) -> bool {
    after(record.packet.ack, record.socket.snd_una) && !after(record.packet.ack, record.socket.snd_nxt)
}

/// `a` lies behind `b` in the sequence space.
pub(super) fn after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::samples::{self, frames, memory};
    use crate::diagnose::site::locate;
    use tcpwatch_common::state::{CLOSE_WAIT, ESTABLISHED, FIN_WAIT1};

    fn inferred(record: &Record, stack: &[&'static str]) -> Option<SmolStr> {
        let reason = of(record, &locate(record, frames(stack)), &ReasonNames::default());
        assert!(reason.as_ref().is_none_or(|reason| reason.from == ReasonFrom::Inferred));
        reason.map(|reason| reason.name)
    }

    fn closing(flags: u32, before: u8) -> Record {
        let mut record = samples::active(CLOSE);
        record.flags = flag::SOCKET | flag::FULL | flags;
        record.present = memory(&[(before, 1_000), (CLOSE, 2_000)]);
        record
    }

    /// One row of KERNEL.md §2.1 each.
    #[test]
    fn active_resets_by_their_caller() {
        let linger2 = |mut record: Record| {
            record.socket.linger2 = -1;
            record
        };
        let file = flag::HAS_FILE | flag::OWNED;
        let timer = flag::FULL | flag::SOCKET;
        let at = |state: u8, flags: u32| Record { flags, ..samples::active(state) };
        let table: [(&str, Record, &[&str], Option<&str>); 17] = [
            ("A1", closing(file, ESTABLISHED), &["__tcp_close", "tcp_close"], Some("TCP_ABORT_ON_CLOSE")),
            ("A2", closing(file, ESTABLISHED), &["tcp_disconnect", "__tcp_close"], Some("TCP_STATE")),
            (
                "A3",
                closing(file, ESTABLISHED),
                &["tcp_disconnect", "__inet_stream_connect"],
                Some("TCP_STATE"),
            ),
            (
                "A4",
                closing(file, LAST_ACK),
                &["tcp_disconnect", "__tcp_close"],
                Some("TCP_DISCONNECT_WITH_DATA"),
            ),
            ("A5", closing(0, ESTABLISHED), &["tcp_disconnect", "inet_child_forget"], Some("TCP_STATE")),
            (
                "A6",
                closing(0, ESTABLISHED),
                &["tcp_disconnect", "inet_child_forget", "inet_csk_reqsk_queue_add", "tcp_check_req"],
                Some("TCP_STATE"),
            ),
            ("A7", linger2(closing(flag::DEAD, FIN_WAIT2)), &["__tcp_close"], Some("TCP_ABORT_ON_LINGER")),
            ("A8", closing(flag::DEAD, FIN_WAIT1), &["__tcp_close"], Some("TCP_ABORT_ON_MEMORY")),
            (
                "A9",
                at(FIN_WAIT1, timer | flag::DEAD),
                &["tcp_out_of_resources", "tcp_retransmit_timer", "call_timer_fn"],
                Some("TCP_ABORT_ON_MEMORY"),
            ),
            (
                "A10",
                at(FIN_WAIT2, timer | flag::DEAD),
                &["tcp_keepalive_timer", "call_timer_fn"],
                Some("TCP_STATE"),
            ),
            (
                "A11",
                at(ESTABLISHED, timer | flag::HAS_FILE),
                &["tcp_keepalive_timer", "call_timer_fn"],
                Some("TCP_KEEPALIVE_TIMEOUT"),
            ),
            ("A12", at(ESTABLISHED, timer | file), &["tcp_abort", "tcp_diag_destroy"], Some("TCP_STATE")),
            (
                "A13",
                closing(0, ESTABLISHED),
                &["tcp_disconnect", "inet_child_forget", "inet_csk_listen_stop", "tcp_abort"],
                Some("TCP_STATE"),
            ),
            (
                "A14",
                at(ESTABLISHED, timer | flag::MPTCP),
                &["mptcp_do_fastclose", "__mptcp_close"],
                Some("TCP_ABORT_ON_CLOSE"),
            ),
            ("A15", at(ESTABLISHED, timer | flag::MPTCP), &["mptcp_check_fastclose", "mptcp_worker"], None),
            ("A16", at(ESTABLISHED, timer | flag::MPTCP), &["mptcp_subflow_reset", "mptcp_worker"], None),
            ("A17", at(ESTABLISHED, timer | flag::MPTCP), &["subflow_check_data_avail"], None),
        ];
        for (row, record, callers, expected) in table {
            let mut stack = vec!["tcp_send_active_reset"];
            stack.extend(callers);
            assert_eq!(inferred(&record, &stack).as_deref(), expected, "{row}");
        }
    }

    #[test]
    fn active_resets_without_symbols() {
        let file = flag::HAS_FILE | flag::OWNED;
        let mut unread = closing(file, CLOSE_WAIT);
        unread.socket.shutdown = 3;
        unread.socket.rcv_nxt = 100;
        unread.socket.copied_seq = 90;
        assert_eq!(inferred(&unread, &[]).as_deref(), Some("TCP_ABORT_ON_CLOSE"));
        assert_eq!(super::unread(&unread), 9, "the FIN is no byte");
        unread.socket.copied_seq = 99;
        assert_eq!(inferred(&unread, &[]).as_deref(), Some("TCP_STATE"), "all was read: SO_LINGER");
        assert_eq!(inferred(&closing(0, ESTABLISHED), &[]).as_deref(), Some("TCP_STATE"), "a child");
        assert_eq!(inferred(&closing(flag::DEAD, FIN_WAIT1), &[]).as_deref(), Some("TCP_ABORT_ON_MEMORY"));
        let mut timer = samples::active(ESTABLISHED);
        assert_eq!(inferred(&timer, &[]), None);
        timer.socket.flags = SOCK_KEEPOPEN;
        assert_eq!(inferred(&timer, &[]).as_deref(), Some("TCP_KEEPALIVE_TIMEOUT"));
        timer.flags |= flag::OWNED;
        assert_eq!(inferred(&timer, &[]).as_deref(), Some("TCP_STATE"), "ss -K holds the lock");
    }

    /// One row of KERNEL.md §2.2 each.
    #[test]
    fn answers_to_segments() {
        let sequence = |mut record: Record, ack: u32| {
            record.socket.snd_una = 500;
            record.socket.snd_nxt = 501;
            record.packet.ack = ack;
            record
        };
        let minisock = Record { flags: flag::PACKET | flag::SOCKET, ..samples::passive(FIN_WAIT2, ACK) };
        let table: [(&str, Record, &[&str], Option<&str>); 17] = [
            ("P1a", samples::passive_without_socket(SYN), &["tcp_v4_rcv"], Some("NO_SOCKET")),
            ("P1b", samples::passive_without_socket(ACK), &["tcp_v4_rcv"], Some("NO_SOCKET")),
            ("P1c", samples::passive_without_socket(SYN | ACK), &["tcp_v4_rcv"], Some("NO_SOCKET")),
            ("P2", minisock, &["tcp_v4_rcv"], Some("TCP_TIMEWAIT_SOCKET")),
            ("P3", samples::at_listener(ACK), &["tcp_v4_do_rcv"], Some("TCP_FLAGS")),
            ("P4", samples::at_listener(ACK), &["tcp_v4_do_rcv", "tcp_v4_rcv"], Some("TCP_FLAGS")),
            ("P5", samples::at_listener(ACK), &["tcp_check_req"], Some("INVALID_SYN")),
            ("P6", samples::at_listener(SYN), &["tcp_check_req"], Some("INVALID_SYN")),
            (
                "P7",
                sequence(samples::passive(SYN_RECV, ACK), 600),
                &["tcp_v4_rcv"],
                Some("TCP_ACK_UNSENT_DATA"),
            ),
            ("P8", sequence(samples::passive(SYN_RECV, ACK), 400), &["tcp_v4_do_rcv"], Some("TCP_OLD_ACK")),
            (
                "P9",
                sequence(samples::passive(SYN_SENT, SYN | ACK), 500),
                &["tcp_v4_do_rcv"],
                Some("TCP_INVALID_ACK_SEQUENCE"),
            ),
            (
                "P10",
                sequence(samples::passive(SYN_SENT, SYN | ACK), 501),
                &["tcp_v4_do_rcv"],
                Some("TCP_RFC7323_PAWS"),
            ),
            ("P11", sequence(samples::passive(SYN_RECV, ACK), 500), &["tcp_v4_do_rcv"], Some("TCP_OLD_ACK")),
            ("P12", samples::passive(CLOSE, ACK), &["tcp_v4_do_rcv"], Some("TCP_ABORT_ON_DATA")),
            ("P14", samples::passive(CLOSE, ACK), &["tcp_v4_do_rcv"], Some("TCP_ABORT_ON_DATA")),
            ("P15", samples::at_listener(SYN), &["subflow_v4_route_req"], None),
            ("P16", samples::at_listener(ACK), &["subflow_syn_recv_sock", "tcp_check_req"], None),
        ];
        for (row, record, callers, expected) in table {
            let mut stack = vec!["tcp_v4_send_reset"];
            stack.extend(callers);
            assert_eq!(inferred(&record, &stack).as_deref(), expected, "{row}");
        }
    }

    #[test]
    fn an_ack_at_a_listener_is_ambiguous_without_symbols() {
        let mut record = samples::at_listener(ACK);
        assert_eq!(inferred(&record, &[]), None);
        record.flags |= flag::LISTEN;
        assert_eq!(inferred(&record, &[]).as_deref(), Some("TCP_FLAGS"), "no abort_on_overflow");
        record.listen.abort_on_overflow = 1;
        record.listen.accept_len = 1;
        assert_eq!(inferred(&record, &[]), None, "full");
    }

    #[test]
    fn the_kernels_own_word_is_taken() {
        let reset = vec![(14, "SK_RST_REASON_TCP_STATE".to_owned())];
        let drop = vec![(14, "SKB_DROP_REASON_OTHERHOST".to_owned())];
        let names = ReasonNames::new(reset, drop);
        let mut record = samples::active(CLOSE);
        record.flags |= flag::REASON;
        record.reason = 14;
        assert_eq!(of(&record, &Site::default(), &names), Some(samples::kernel_reason("TCP_STATE")));
        record.reason = 99;
        assert_eq!(of(&record, &Site::default(), &names), Some(samples::kernel_reason("#99")));
        record.kind = kind::DROP;
        record.hook = hook::KFREE_SKB;
        record.reason = 14;
        assert_eq!(of(&record, &Site::default(), &names), Some(samples::kernel_reason("OTHERHOST")));
    }

    #[test]
    fn a_firewall_gives_none() {
        let record = samples::record(kind::RST_SENT, hook::NF_SEND_RESET);
        assert_eq!(inferred(&record, &[]), None);
    }
}
