//! One test per way to a cause, numbered as the kernel's reset sites are in the project's kernel notes.

use crate::diagnose::lately::{self, Around};
use crate::diagnose::samples::{self, NOW, frames, memory, owner};
use crate::diagnose::{Context, interpret, site};
use crate::event::{Cause, Certainty, Event, EventKind, TimeWaitInfo};
use crate::kernel::names::ReasonNames;
use crate::kernel::symbols::Symbols;
use tcpwatch_common::hook;
use tcpwatch_common::owner::{end, how};
use tcpwatch_common::record::{Record, TimeWait, flag, kind};
use tcpwatch_common::state::{
    CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, LISTEN, SYN_RECV, SYN_SENT, TIME_WAIT,
};

mod exclusive;
mod listener;
mod mptcp;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A record through the whole stage, its stack given as names. `None` as names: the kernel hides its symbols.
fn event(record: &Record, stack: &[&'static str], reason: Option<&str>) -> Event {
    event_around(record, stack, reason, Around::default())
}

fn event_around(record: &Record, stack: &[&'static str], reason: Option<&str>, around: Around) -> Event {
    let mut text = String::new();
    let mut record = *record;
    for (i, name) in stack.iter().enumerate() {
        let addr = 0x1000 * (i as u64 + 1);
        text.push_str(&format!("{addr:016x} t {name}\n"));
        record.stack[i] = addr + 5;
    }
    record.frames = stack.len() as u32;
    let mut names = Vec::new();
    if let Some(reason) = reason {
        record.flags |= flag::REASON;
        record.reason = 1;
        names.push((1, reason.to_owned()));
    }
    let names = ReasonNames::new(names.clone(), names);
    let symbols = Symbols::parse(text.as_bytes()).unwrap();
    let ctx = Context { names: &names, symbols: &symbols, wall_offset_ns: 0, want_stack: false, around };
    interpret(&record, &ctx).unwrap()
}

fn cause(record: &Record, stack: &[&'static str], reason: Option<&str>) -> Cause {
    event(record, stack, reason).cause.unwrap()
}

/// Cause and certainty by an old kernel's stack, then by a new kernel that hides its symbols.
fn both(record: &Record, stack: &[&'static str], reason: &str) -> [(&'static str, Certainty); 2] {
    [cause(record, stack, None), cause(record, &[], Some(reason))].map(|cause| (cause.id, cause.certainty))
}

/// A full socket that closed from a state.
fn closing(flags: u32, before: u8) -> Record {
    let mut record = samples::active(CLOSE);
    record.flags = flag::SOCKET | flag::FULL | flags;
    record.present = memory(&[(before, NOW - 5_000_000), (CLOSE, NOW - 1_000)]);
    record.present.owner = owner(812, how::ACCEPT);
    record
}

const FILE: u32 = flag::HAS_FILE | flag::OWNED;
const CERTAIN: Certainty = Certainty::Certain;
const LIKELY: Certainty = Certainty::Likely;
const POSSIBLE: Certainty = Certainty::Possible;

#[test]
fn a1_close_with_unread_data() {
    let mut record = closing(FILE, ESTABLISHED);
    record.socket.shutdown = 3;
    record.socket.rcv_nxt = 110;
    record.socket.copied_seq = 100;
    let stack = ["tcp_send_active_reset", "__tcp_close", "tcp_close", "inet_release"];
    let id = "close-with-unread-data";
    assert_eq!(both(&record, &stack, "TCP_ABORT_ON_CLOSE"), [(id, CERTAIN), (id, CERTAIN)]);
    let event = event(&record, &stack, None);
    assert_eq!(event.state, Some("ESTABLISHED"));
    let cause = event.cause.unwrap();
    assert_eq!(cause.evidence[0], "10 bytes that arrived were never read");
    assert_eq!(cause.evidence[2], "the connection was 5 ms old");
    assert!(cause.summary.starts_with("nginx[812] closed"), "{}", cause.summary);
}

#[test]
fn a2_linger_zero() {
    let mut record = closing(FILE, ESTABLISHED);
    record.socket.shutdown = 3;
    record.socket.flags = 1 << 4;
    let stack = ["tcp_send_active_reset", "tcp_disconnect", "__tcp_close", "tcp_close"];
    assert_eq!(both(&record, &stack, "TCP_STATE"), [("linger-zero", CERTAIN), ("linger-zero", LIKELY)]);
}

#[test]
fn a2_linger_zero_without_a_stack() {
    let mut record = closing(FILE | flag::LINGERED, ESTABLISHED);
    record.socket.shutdown = 3;
    record.socket.flags = 1 << 4;
    let event = event(&record, &[], Some("TCP_STATE"));
    assert_eq!(event.site.as_deref(), Some("tcp_disconnect"));
    let cause = event.cause.unwrap();
    assert_eq!((cause.id, cause.certainty), ("linger-zero", CERTAIN));
}

#[test]
fn a3_a4_disconnect() {
    let stack = ["tcp_send_active_reset", "tcp_disconnect", "__inet_stream_connect", "inet_stream_connect"];
    let record = closing(FILE, ESTABLISHED);
    assert_eq!(both(&record, &stack, "TCP_STATE"), [("disconnect", CERTAIN), ("disconnect", LIKELY)]);
    let mut record = closing(FILE, LAST_ACK);
    let unsent = cause(&record, &stack, Some("TCP_DISCONNECT_WITH_DATA"));
    assert_eq!((unsent.id, &*unsent.evidence[1]), ("disconnect", "data were still waiting to be sent"));
    assert_eq!(event(&record, &stack, None).reason.unwrap().name, "TCP_DISCONNECT_WITH_DATA");
    record.socket.shutdown = 3;
    record.socket.flags = 1 << 4;
    let stack = ["tcp_send_active_reset", "tcp_disconnect", "__tcp_close", "tcp_close"];
    let id = "linger-zero";
    assert_eq!(both(&record, &stack, "TCP_DISCONNECT_WITH_DATA"), [(id, CERTAIN), (id, LIKELY)]);
}

#[test]
fn a5_a6_a13_listener_closed() {
    let record = closing(0, ESTABLISHED);
    let ways: [&[&str]; 3] = [
        &["inet_csk_listen_stop", "__tcp_close"],
        &["inet_csk_reqsk_queue_add", "inet_csk_complete_hashdance", "tcp_check_req", "tcp_v4_rcv"],
        &["inet_csk_listen_stop", "tcp_abort", "tcp_diag_destroy"],
    ];
    for way in ways {
        let mut stack = vec!["tcp_send_active_reset", "tcp_disconnect", "inet_child_forget"];
        stack.extend(way);
        assert_eq!(
            both(&record, &stack, "TCP_STATE"),
            [("listener-closed", CERTAIN), ("listener-closed", LIKELY)]
        );
    }
}

#[test]
fn a7_linger2() {
    let mut record = closing(flag::DEAD | flag::OWNED, FIN_WAIT2);
    record.socket.linger2 = -1;
    let stack = ["tcp_send_active_reset", "__tcp_close"];
    let id = "linger2-abort";
    assert_eq!(both(&record, &stack, "TCP_ABORT_ON_LINGER"), [(id, CERTAIN), (id, CERTAIN)]);
}

#[test]
fn a8_a9_orphans_or_memory() {
    let close = ["tcp_send_active_reset", "__tcp_close"];
    let timer = ["tcp_send_active_reset", "tcp_out_of_resources", "tcp_retransmit_timer", "call_timer_fn"];
    let orphan = Record { flags: flag::SOCKET | flag::FULL | flag::DEAD, ..samples::active(FIN_WAIT1) };
    for (record, stack) in [(closing(flag::DEAD, FIN_WAIT1), &close[..]), (orphan, &timer[..])] {
        let id = "orphan-limit";
        assert_eq!(both(&record, stack, "TCP_ABORT_ON_MEMORY"), [(id, POSSIBLE), (id, POSSIBLE)]);
        let known = [(3, 80, "orphan-limit", CERTAIN), (90, 80, "out-of-memory", LIKELY)];
        for (used, max, id, certainty) in known {
            let mut record = record;
            record.socket.memory_used = used;
            record.socket.memory_max = max;
            assert_eq!(both(&record, stack, "TCP_ABORT_ON_MEMORY"), [(id, certainty); 2]);
        }
        let mut unseen = record;
        unseen.socket.memory_max = 80;
        assert_eq!(cause(&unseen, &[], None).certainty, LIKELY, "neither path nor reason");
    }
}

#[test]
fn a10_a11_timers() {
    let stack = ["tcp_send_active_reset", "tcp_keepalive_timer", "call_timer_fn"];
    let orphan = Record { flags: flag::SOCKET | flag::FULL | flag::DEAD, ..samples::active(FIN_WAIT2) };
    assert_eq!(both(&orphan, &stack, "TCP_STATE"), [("orphan-timeout", CERTAIN), ("orphan-timeout", LIKELY)]);
    let id = "keepalive-timeout";
    let idle = samples::active(ESTABLISHED);
    assert_eq!(both(&idle, &stack, "TCP_KEEPALIVE_TIMEOUT"), [(id, CERTAIN), (id, CERTAIN)]);
    assert_eq!(event(&idle, &stack, None).state, Some("ESTABLISHED"));
}

#[test]
fn a12_destroyed_names_who_did_it_and_who_had_it() {
    let mut record = samples::active(ESTABLISHED);
    record.flags |= flag::OWNED;
    record.present.owner = owner(812, how::CONNECT);
    record.task.pid = 99;
    record.task.comm[..2].copy_from_slice(b"ss");
    let stack = ["tcp_send_active_reset", "tcp_abort", "tcp_diag_destroy", "inet_diag_cmd_exact"];
    assert_eq!(
        both(&record, &stack, "TCP_STATE"),
        [("socket-destroyed", CERTAIN), ("socket-destroyed", LIKELY)]
    );
    let event = event(&record, &stack, None);
    assert_eq!(event.owner.and_then(|owner| owner.pid), Some(812));
    assert_eq!(event.cause.unwrap().evidence[0], "ss[99] did it, through sock_diag");
}

/// The answer to a segment of a connection that ended so.
fn late(at: &Record, end: u8, steps: &[(u8, u64)]) -> Record {
    let mut record = *at;
    record.flags |= flag::PAST;
    record.past = memory(steps);
    record.past.owner = owner(812, how::ACCEPT);
    record.past.end = end;
    record.past.end_state = steps.iter().rev().find(|(state, _)| *state != CLOSE).map_or(0, |step| step.0);
    record.past.end_ns = NOW - 12_000_000;
    record
}

const RCV: [&str; 3] = ["tcp_v4_send_reset", "tcp_v4_rcv", "ip_protocol_deliver_rcu"];
const LISTENER: [&str; 3] = ["tcp_v4_send_reset", "tcp_v4_do_rcv", "tcp_v4_rcv"];

#[test]
fn p1a_closed_port() {
    let record = samples::passive_without_socket(SYN);
    assert_eq!(both(&record, &RCV, "NO_SOCKET"), [("closed-port", CERTAIN), ("closed-port", CERTAIN)]);
    let event = event(&record, &RCV, None);
    assert_eq!((event.state, event.owner), (None, None));
    assert_eq!(cause(&samples::passive_without_socket(ACK), &RCV, None).certainty, POSSIBLE);
    let reused = late(&record, end::TW_REFUSED, &[(ESTABLISHED, 1), (CLOSE, 2)]);
    assert_eq!(cause(&reused, &RCV, None).id, "closed-port", "a SYN is not late");
}

#[test]
fn p1b_and_p3_late_segments_by_how_it_ended() {
    type Row = (u8, &'static [(u8, u64)], &'static str, Certainty);
    const FULL: [(u8, u64); 4] = [(ESTABLISHED, 1), (FIN_WAIT1, 2), (FIN_WAIT2, 3), (CLOSE, 4)];
    let table: [Row; 12] = [
        (end::TW_REFUSED, &FULL, "tw-bucket-overflow", LIKELY),
        (end::TW_EXPIRED, &FULL, "fin-wait2-timeout", CERTAIN),
        (end::FIN_WAIT2, &FULL, "fin-wait2-timeout", LIKELY),
        (end::TIME_WAIT, &FULL, "late-segment", LIKELY),
        (end::TW_KILLED, &FULL, "late-segment", CERTAIN),
        (end::RESET_SENT, &FULL, "late-segment", CERTAIN),
        (end::RESET_RECEIVED, &FULL, "late-segment", CERTAIN),
        (end::UNKNOWN, &[(ESTABLISHED, 1), (CLOSE, 2)], "connection-timed-out", LIKELY),
        (end::UNKNOWN, &[(CLOSE_WAIT, 1), (CLOSE, 2)], "connection-timed-out", LIKELY),
        (end::UNKNOWN, &[(FIN_WAIT1, 1), (CLOSE, 2)], "connection-timed-out", LIKELY),
        (end::UNKNOWN, &[(LAST_ACK, 1), (CLOSE, 2)], "late-segment", LIKELY),
        (end::UNKNOWN, &FULL, "unknown", Certainty::Unknown),
    ];
    for (how_it_ended, steps, id, certainty) in table {
        let alone = late(&samples::passive_without_socket(FIN | ACK), how_it_ended, steps);
        let at_listener = late(&samples::at_listener(FIN | ACK), how_it_ended, steps);
        let expected = [(id, certainty); 2];
        assert_eq!(both(&alone, &RCV, "NO_SOCKET"), expected, "nobody, {how_it_ended}");
        assert_eq!(both(&at_listener, &LISTENER, "TCP_FLAGS"), expected, "listener, {how_it_ended}");
        let owner = event(&at_listener, &LISTENER, None).owner.unwrap();
        assert_eq!((owner.pid, owner.how), (Some(812), "dead"));
    }
}

#[test]
fn an_expired_time_wait_is_no_fin_wait2_timeout() {
    let mut record =
        late(&samples::passive_without_socket(ACK), end::TW_EXPIRED, &[(ESTABLISHED, 1), (CLOSE, 2)]);
    record.past.end_state = TIME_WAIT;
    assert_eq!(cause(&record, &RCV, None).id, "late-segment");
}

#[test]
fn p1c_forgotten_connect() {
    let answer = samples::passive_without_socket(SYN | ACK);
    assert_eq!(cause(&answer, &RCV, None).certainty, POSSIBLE);
    let known = late(&answer, end::UNKNOWN, &[(SYN_SENT, 1), (CLOSE, 2)]);
    assert_eq!(both(&known, &RCV, "NO_SOCKET"), [("forgotten-connect", CERTAIN); 2]);
}

#[test]
fn p2_data_after_close() {
    let mut record = samples::passive_without_socket(ACK);
    record.flags |= flag::SOCKET;
    record.state = FIN_WAIT2;
    record.packet.len = 7;
    assert_eq!(both(&record, &RCV, "TCP_TIMEWAIT_SOCKET"), [("data-after-close", CERTAIN); 2]);
    let seen = event(&record, &RCV, None);
    assert_eq!(seen.state, Some("FIN_WAIT2"));
    assert!(seen.cause.unwrap().evidence[0].contains("7 bytes"));
    record.packet.flags = SYN;
    let again = cause(&record, &RCV, None);
    assert_eq!((again.id, again.certainty), ("data-after-close", CERTAIN));
    assert!(again.fix.unwrap().contains("use more ports"));
}

#[test]
fn p3_stray() {
    let mut record = samples::at_listener(ACK);
    record.present.owner = owner(1, how::LISTEN);
    let id = "stray-segment-to-listener";
    assert_eq!(both(&record, &LISTENER, "TCP_FLAGS"), [(id, LIKELY); 2]);
    assert_eq!(cause(&record, &[], None).id, "unknown", "it may be a full queue");
    // Where something was not seen, it may be the end of a connection that is not known for that reason.
    let around = Around { since_ns: 1, missed: 4, ..Around::default() };
    let stray = event_around(&record, &LISTENER, Some("TCP_FLAGS"), around).cause.unwrap();
    assert_eq!((stray.id, stray.certainty), (id, POSSIBLE));
    assert!(stray.evidence[0].contains("4 moments in which the kernel left out"), "{:?}", stray.evidence);
}

#[test]
fn p3_a_cookie_that_is_none() {
    let ack = samples::at_listener(ACK);
    let sent = |ago_ns| lately::Listener { cookie_age_ns: ago_ns, ..lately::Listener::default() };
    let at = |record: &Record, listener| {
        let around = Around { listener: Some(listener), ..Around::default() };
        event_around(record, &LISTENER, Some("TCP_FLAGS"), around).cause.unwrap()
    };
    let id = |record: &Record, ago_ns| {
        let cause = at(record, sent(ago_ns));
        (cause.id, cause.certainty)
    };
    assert_eq!(id(&ack, Some(3_000_000_000)), ("syn-cookie-invalid", LIKELY));
    let evidence = at(&ack, sent(Some(3_000_000_000))).evidence;
    assert!(evidence[0].starts_with("this listener sent a SYN cookie 3.0 s before"), "{evidence:?}");
    let stray = ("stray-segment-to-listener", LIKELY);
    assert_eq!(id(&ack, None), stray, "it sent none that is still good");
    assert_eq!(id(&samples::at_listener(FIN | ACK), Some(1)), stray, "the end of another connection");
    let known = late(&ack, end::RESET_SENT, &[(ESTABLISHED, 1), (CLOSE, 2)]);
    assert_eq!(id(&known, Some(1)).0, "late-segment");
}

#[test]
fn p5_p6_in_the_handshake() {
    let stack = ["tcp_v4_send_reset", "tcp_check_req", "tcp_v4_rcv"];
    let mut ack = samples::at_listener(ACK);
    assert_eq!(both(&ack, &stack, "INVALID_SYN"), [("accept-queue-overflow", LIKELY); 2]);
    ack.flags |= flag::LISTEN;
    ack.listen.accept_len = 6;
    ack.listen.accept_max = 5;
    ack.listen.somaxconn = 4096;
    ack.listen.abort_on_overflow = 1;
    assert_eq!(both(&ack, &stack, "INVALID_SYN"), [("accept-queue-overflow", CERTAIN); 2]);
    let event = event(&ack, &stack, None);
    assert_eq!(event.state, Some("NEW_SYN_RECV"));
    assert_eq!(event.listen.and_then(|listen| listen.backlog), Some(5));
    assert!(event.cause.unwrap().fix.unwrap().contains("now 5"));
    let syn = samples::at_listener(SYN);
    assert_eq!(both(&syn, &stack, "INVALID_SYN"), [("syn-in-handshake", CERTAIN); 2]);
}

#[test]
fn p7_to_p11_bad_handshake() {
    let mut record = samples::passive(SYN_SENT, SYN | ACK);
    record.socket.snd_una = 500;
    record.socket.snd_nxt = 501;
    let id = "bad-handshake-ack";
    let stack = ["tcp_v4_send_reset", "tcp_v4_do_rcv", "tcp_v4_rcv"];
    for (state, ack, reason) in [
        (SYN_SENT, 400, "TCP_INVALID_ACK_SEQUENCE"),
        (SYN_SENT, 501, "TCP_RFC7323_PAWS"),
        (SYN_RECV, 400, "TCP_OLD_ACK"),
        (SYN_RECV, 600, "TCP_ACK_UNSENT_DATA"),
    ] {
        record.state = state;
        record.packet.ack = ack;
        assert_eq!(both(&record, &stack, reason), [(id, CERTAIN); 2], "{reason}");
        assert_eq!(event(&record, &stack, None).reason.unwrap().name, reason);
    }
    let mut child = samples::passive(CLOSE, ACK);
    child.present = memory(&[(SYN_RECV, 1), (CLOSE, 2)]);
    assert_eq!(cause(&child, &RCV, None).id, id, "P7");
    child.present = memory(&[]);
    let unseen = cause(&child, &RCV, None);
    assert_eq!(
        (unseen.id, unseen.certainty),
        ("data-after-close", LIKELY),
        "where it came from is not known"
    );
    let cookie = samples::at_listener(ACK);
    for reason in ["TCP_OLD_ACK", "TCP_ACK_UNSENT_DATA"] {
        let refused = cause(&cookie, &stack, Some(reason));
        assert_eq!((refused.id, refused.certainty), (id, LIKELY), "P8 from 7.2 on");
    }
}

#[test]
fn p12_to_p14_after_close() {
    let stack = ["tcp_v4_send_reset", "tcp_v4_do_rcv", "tcp_v4_rcv"];
    // Destroyed in the same call: what is known of it lies with the dead.
    let mut orphan = late(&samples::passive(CLOSE, ACK), end::UNKNOWN, &[(FIN_WAIT2, 1), (CLOSE, NOW)]);
    orphan.flags |= flag::DEAD;
    assert_eq!(both(&orphan, &stack, "TCP_ABORT_ON_DATA"), [("data-after-close", CERTAIN); 2]);
    let seen = event(&orphan, &stack, None);
    assert_eq!(seen.state, Some("FIN_WAIT2"));
    assert_eq!(seen.owner.map(|owner| owner.how), Some("dead"));
    orphan.socket.linger2 = -1;
    assert_eq!(both(&orphan, &stack, "TCP_ABORT_ON_DATA"), [("linger2-abort", CERTAIN); 2]);
    orphan.past = memory(&[(LAST_ACK, 1), (CLOSE, NOW)]);
    assert_eq!(cause(&orphan, &stack, None).id, "data-after-close", "TCP_LINGER2 is for FIN_WAIT2");
    let mut shut = samples::passive(CLOSE, ACK);
    shut.present = memory(&[(FIN_WAIT2, 1), (CLOSE, NOW)]);
    shut.present.owner = owner(812, how::CONNECT);
    shut.socket.shutdown = 3;
    let seen = event(&shut, &stack, None);
    assert_eq!(seen.cause.as_ref().map(|cause| cause.id), Some("data-after-close"));
    assert_eq!(seen.owner.map(|owner| owner.how), Some("connect"), "the process still holds it");
}

#[test]
fn a_firewall_names_hook_and_engine() {
    let mut record = samples::record(kind::RST_SENT, hook::NF_SEND_RESET);
    record.flags = flag::PACKET;
    record.packet.flags = SYN;
    record.packet.nf_hook = 1;
    let cause = cause(&record, &["nf_send_reset", "nft_reject_inet_eval", "nft_do_chain"], None);
    assert_eq!((cause.id, cause.certainty), ("firewall-reject", CERTAIN));
    assert_eq!(cause.evidence[..2], ["nf_send_reset at netfilter's INPUT", "the rule is one of nftables"]);
}

#[test]
fn received_by_the_state_it_hits() {
    let table = [
        (SYN_SENT, "connection-refused"),
        (SYN_RECV, "reset-in-handshake"),
        (ESTABLISHED, "reset-by-peer"),
        (FIN_WAIT1, "reset-by-peer"),
        (FIN_WAIT2, "reset-by-peer"),
        (CLOSE_WAIT, "reset-after-peer-close"),
        (LAST_ACK, "reset-after-peer-close"),
    ];
    for (state, id) in table {
        let mut record = samples::passive(state, RST);
        record.kind = kind::RST_RECEIVED;
        record.hook = hook::TCP_RESET;
        let cause = cause(&record, &["tcp_reset", "tcp_validate_incoming"], None);
        assert_eq!((cause.id, cause.certainty), (id, CERTAIN));
    }
    let mut minisock = samples::passive_without_socket(RST);
    minisock.kind = kind::RST_RECEIVED;
    minisock.hook = hook::TCP_TIMEWAIT_STATE_PROCESS;
    minisock.flags |= flag::SOCKET;
    for state in [TIME_WAIT, FIN_WAIT2] {
        assert_eq!(cause(&Record { state, ..minisock }, &[], None).id, "reset-in-time-wait");
    }
    let mut request = samples::at_listener(RST);
    request.kind = kind::RST_RECEIVED;
    request.hook = hook::TCP_CHECK_REQ;
    request.present.owner = owner(1, how::LISTEN);
    let event = event(&request, &[], None);
    assert_eq!((event.state, event.owner.map(|owner| owner.how)), (Some("NEW_SYN_RECV"), Some("listen")));
    assert_eq!(event.cause.unwrap().id, "reset-in-handshake");
}

#[test]
fn what_only_the_tracepoint_saw_may_be_no_rst() {
    let mut record = samples::active(FIN_WAIT2);
    record.kind = kind::RST_RECEIVED;
    record.hook = hook::TCP_RECEIVE_RESET;
    assert_eq!(cause(&record, &[], None).certainty, CERTAIN);
    record.socket.shutdown = 3;
    assert_eq!(cause(&record, &[], None).certainty, LIKELY, "data after shutdown() call tcp_reset() too");
    assert_eq!(cause(&record, &["tcp_reset", "tcp_validate_incoming"], None).certainty, CERTAIN);
}

#[test]
fn a_false_reset_is_no_event() {
    let mut record = samples::active(FIN_WAIT2);
    record.kind = kind::RST_RECEIVED;
    record.hook = hook::TCP_RESET;
    let located = site::locate(&record, frames(&["tcp_reset", "tcp_rcv_state_process"]));
    assert!(site::is_false_reset(&record, &located));
}

#[test]
fn ignored_says_why() {
    let mut record = samples::passive(ESTABLISHED, RST);
    record.kind = kind::RST_IGNORED;
    record.hook = hook::TCP_VALIDATE_INCOMING;
    record.socket.rcv_nxt = 995;
    let text = |record: &Record, reason| {
        let cause = cause(record, &[], reason);
        assert_eq!((cause.id, cause.certainty), ("rst-ignored", CERTAIN));
        cause.evidence[0].clone()
    };
    assert!(text(&record, None).contains("challenge ACK"));
    record.socket.rcv_nxt = 5000;
    assert!(text(&record, None).starts_with("outside the window"));
    record.state = LISTEN;
    assert_eq!(text(&record, None), "a listener ignores RSTs");
    record.state = SYN_SENT;
    assert!(text(&record, None).contains("no ACK"));
    record.hook = hook::KFREE_SKB;
    record.state = ESTABLISHED;
    assert!(text(&record, Some("TCP_RESET")).contains("RFC 5961"));
}

#[test]
fn a_refused_time_wait_has_figures_and_a_command() {
    let mut record = samples::record(kind::TW_OVERFLOW, hook::INET_TWSK_ALLOC);
    record.flags = flag::SOCKET | flag::FULL | flag::TIME_WAIT;
    record.state = FIN_WAIT2;
    record.timewait.used = 5000;
    record.timewait.max = 5000;
    record.present =
        memory(&[(ESTABLISHED, NOW - 17_000_000), (FIN_WAIT1, NOW - 2_000), (FIN_WAIT2, NOW - 1_000)]);
    let full = cause(&record, &["inet_twsk_alloc", "tcp_time_wait", "tcp_fin"], None);
    assert_eq!((full.id, full.certainty), ("tw-bucket-overflow", CERTAIN));
    assert_eq!(full.evidence[0], "5000 of 5000 TIME_WAIT slots in use (net.ipv4.tcp_max_tw_buckets)");
    assert_eq!(full.evidence[2], "the connection lived for 17 ms, and this side closed first");
    assert!(
        full.fix
            .unwrap()
            .starts_with("sysctl -w net.ipv4.tcp_max_tw_buckets=65536 (at once, until a reboot; now 5000")
    );
    record.timewait.used = 10;
    assert_eq!(cause(&record, &[], None).certainty, POSSIBLE, "no memory looks the same");
}

#[test]
fn a_late_segment_recalls_how_full_the_table_was() {
    let steps = [(ESTABLISHED, NOW - 40_000_000), (FIN_WAIT1, NOW - 13_000_000), (CLOSE, NOW - 12_000_000)];
    let record = late(&samples::passive_without_socket(FIN | ACK), end::TW_REFUSED, &steps);
    let table = TimeWait { used: 5000, max: 5000, substate: 6, pad: 0 };
    let namespace = lately::Namespace { refusals: 412, over_ns: 8_000_000_000, table: Some(table) };
    let event = event_around(&record, &RCV, None, Around { namespace: Some(namespace), ..Around::default() });
    assert_eq!(event.timewait, Some(TimeWaitInfo { used: 5000, max: 5000 }));
    let cause = event.cause.unwrap();
    assert_eq!(cause.certainty, CERTAIN, "memory was not short");
    assert!(cause.evidence[1].starts_with("5000 of 5000"), "{:?}", cause.evidence);
    assert_eq!(cause.evidence[2], "412 refusals in the last 8.0 s");
    assert_eq!(cause.evidence[3], "the connection lived for 28 ms, and this side closed first");
    assert!(cause.fix.unwrap().starts_with("sysctl -w"));
}

#[test]
fn without_evidence_it_is_unknown_and_says_what_there_is() {
    let record = samples::active(ESTABLISHED);
    let cause = cause(&record, &["tcp_send_active_reset", "a_new_function"], Some("A_NEW_REASON"));
    assert_eq!((cause.id, cause.certainty), ("unknown", Certainty::Unknown));
    assert_eq!(cause.evidence, ["reason A_NEW_REASON (kernel)", "decided in a_new_function"]);
}

#[test]
fn a_process_at_a_halt_is_said_where_it_should_work() {
    let told = |kind, state| {
        let mut event = Event::new(kind, 1, 1);
        event.owner = crate::diagnose::owner::info(&owner(387, how::LISTEN));
        event.cause = Some(Cause {
            id: "accept-queue-full",
            certainty: CERTAIN,
            summary: String::new(),
            evidence: vec!["figures".into()],
            fix: None,
        });
        crate::diagnose::at_a_halt(&mut event, state);
        event.cause.unwrap().evidence
    };
    let stopped = told(EventKind::ListenDrop, 'T');
    assert!(stopped[0].starts_with("nginx[387] is stopped") && stopped[0].contains("kill -CONT 387"));
    assert!(told(EventKind::CloseWaitLeak, 'D')[0].contains("/proc/387/stack"));
    assert_eq!(told(EventKind::ListenDrop, 'S'), ["figures"], "it sleeps: that says nothing");
    assert_eq!(told(EventKind::RstSent, 'T'), ["figures"], "it need not work for that");
}
