//! RSTs that this host decided to send: `close()`, a timer, `ss -K`.
//!
//! The function that called `tcp_send_active_reset` tells which act it was. Where the stack does not show it, the reason
//! and the socket's fields still tell most acts apart.

use super::evidence::{age, segment, task};
use super::{Harm, RST_SENT, Spec, counter, dropped, in_state, reset};
use crate::diagnose::cause::{Facts, Verdict};
use crate::diagnose::reason;
use crate::event::{Certainty, Text};
use tcpwatch_common::record::{SOCK_LINGER, flag};
use tcpwatch_common::state::{CLOSE, CLOSING, FIN_WAIT2, LAST_ACK};

pub(super) const CAUSES: &[Spec] = &[
    Spec {
        id: "close-with-unread-data",
        events: RST_SENT,
        summary: "{owner} closed the connection, or exited, with unread data in the receive queue",
        many: "{count} connections were closed with unread data",
        fix: Some(
            "let the application read what the peer sent before it closes, or shutdown(SHUT_WR) and read until end of file",
        ),
        evidence: "close() sent the RST for a socket that is not orphaned yet, or the reason TCP_ABORT_ON_CLOSE",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A1"],
        source: "net/ipv4/tcp.c: __tcp_close",
        since: "5.10",
        words: &[
            reset("TCP_ABORT_ON_CLOSE", "close(), exit or a signal with unread data"),
            dropped("QUEUE_PURGE", "unread data at close()"),
            in_state("ESTABLISHED", "a process closes it with unread data"),
            in_state("CLOSE_WAIT", "the process closes it with unread data"),
            counter("OutRsts", "processes close with unread data"),
            counter("EstabResets", "a process closed with unread data"),
            counter("TCPAbortOnClose", "close() or exit with unread data"),
        ],
        rule: Some(unread_data),
    },
    Spec {
        id: "linger-zero",
        events: RST_SENT,
        summary: "{owner} closed with SO_LINGER set to 0 seconds, which means: reset instead of FIN",
        many: "{count} connections were closed with SO_LINGER 0",
        fix: Some("remove SO_LINGER {1,0} from the application unless the reset is wanted"),
        evidence: "tcp_disconnect called by close(); likely where only the socket's SO_LINGER 0 and its closed ends speak",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A2", "A4"],
        source: "net/ipv4/tcp.c: __tcp_close, tcp_disconnect",
        since: "5.10",
        words: &[
            reset("TCP_STATE", "close() with SO_LINGER set to 0 seconds"),
            reset("TCP_DISCONNECT_WITH_DATA", "close() with SO_LINGER set to 0 seconds"),
            in_state("ESTABLISHED", "a process closes it with SO_LINGER 0"),
            counter("OutRsts", "processes close with SO_LINGER 0"),
            counter("EstabResets", "a process closed with SO_LINGER 0"),
            counter("TCPAbortOnData", "close() with SO_LINGER 0"),
        ],
        rule: Some(linger_zero),
    },
    Spec {
        id: "disconnect",
        events: RST_SENT,
        summary: "{owner} dissolved the connection with connect(AF_UNSPEC)",
        many: "{count} connections were dissolved with connect(AF_UNSPEC)",
        fix: Some("let the application shut the connection down before it uses the socket again"),
        evidence: "tcp_disconnect called by connect(); likely where only the socket speaks, whose ends are open",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A3", "A4"],
        source: "net/ipv4/tcp.c: tcp_disconnect",
        since: "5.10",
        words: &[
            reset("TCP_STATE", "connect(AF_UNSPEC)"),
            reset("TCP_DISCONNECT_WITH_DATA", "connect(AF_UNSPEC)"),
        ],
        rule: Some(disconnect),
    },
    Spec {
        id: "listener-closed",
        events: RST_SENT,
        summary: "the listener of {owner} on port {port} was closed while this connection waited to be accepted",
        many: "{count} connections waited to be accepted when their listener was closed",
        fix: Some(
            "drain before closing: accept what waits, or hand the socket over; net.ipv4.tcp_migrate_req=1 moves them to \
             another SO_REUSEPORT listener",
        ),
        evidence: "the kernel forgot a listener's child; likely where only the socket speaks: closed, not orphaned, without a \
                   descriptor",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A5", "A6", "A13"],
        source: "net/ipv4/inet_connection_sock.c: inet_csk_listen_stop",
        since: "5.10",
        words: &[
            reset("TCP_STATE", "a listener closed while connections waited to be accepted"),
            in_state("LISTEN", "it is closed while connections wait"),
            counter("TCPMigrateReqFailure", "the listener is closed while connections wait"),
        ],
        rule: Some(listener_closed),
    },
    Spec {
        id: "socket-destroyed",
        events: RST_SENT,
        summary: "the socket of {owner} was destroyed from outside (SOCK_DESTROY)",
        many: "{count} sockets were destroyed from outside",
        fix: Some("find out who runs `ss -K`, or a network agent that kills sockets"),
        evidence: "tcp_abort sent the RST; who ran it, and through what",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A12"],
        source: "net/ipv4/tcp.c: tcp_abort",
        since: "5.10",
        words: &[
            reset("TCP_STATE", "`ss -K`, SOCK_DESTROY, bpf_sock_destroy()"),
            in_state("ESTABLISHED", "somebody destroys it"),
        ],
        rule: Some(destroyed),
    },
    Spec {
        id: "keepalive-timeout",
        events: RST_SENT,
        summary: "{remote} did not answer the keepalive probes of {owner}",
        many: "{count} peers did not answer keepalive probes",
        fix: Some(
            "look whether the peer or the path is down, or a firewall forgot the idle connection; TCP_KEEPIDLE, TCP_KEEPINTVL \
             and TCP_KEEPCNT set the pace",
        ),
        evidence: "the keepalive timer sent the RST, or the reason TCP_KEEPALIVE_TIMEOUT",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A11"],
        source: "net/ipv4/tcp_timer.c: tcp_keepalive_timer",
        since: "5.10",
        words: &[
            reset("TCP_KEEPALIVE_TIMEOUT", "TCP_KEEPCNT probes, or TCP_USER_TIMEOUT, without an answer"),
            in_state("ESTABLISHED", "the peer is gone and keepalive finds out"),
            counter("TCPAbortOnTimeout", "keepalive probes went unanswered"),
        ],
        rule: Some(keepalive),
    },
    Spec {
        id: "linger2-abort",
        events: RST_SENT,
        summary: "{owner} closed with TCP_LINGER2 negative, which means: do not wait in FIN_WAIT2, reset",
        many: "{count} connections were reset because TCP_LINGER2 is negative",
        fix: Some("remove the TCP_LINGER2 option from the application"),
        evidence: "an orphan whose TCP_LINGER2 is negative was reset in FIN_WAIT2, by close() or by the segment that got it \
                   there",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A7", "P12"],
        source: "net/ipv4/tcp.c: __tcp_close",
        since: "5.10",
        words: &[
            reset("TCP_ABORT_ON_DATA", "close() with TCP_LINGER2 negative, once the FIN is acknowledged"),
            reset("TCP_ABORT_ON_LINGER", "close() in FIN_WAIT2 with TCP_LINGER2 negative"),
            in_state("FIN_WAIT2", "TCP_LINGER2 is negative"),
            counter("TCPAbortOnData", "TCP_LINGER2 is negative and the FIN is acknowledged"),
            counter("TCPAbortOnLinger", "close() in FIN_WAIT2 with TCP_LINGER2 negative"),
        ],
        rule: Some(linger2),
    },
    Spec {
        id: "orphan-limit",
        events: RST_SENT,
        summary: "too many orphaned sockets: that of {owner} was reset",
        many: "{count} closed sockets were reset because there were too many orphans",
        fix: Some("raise net.ipv4.tcp_max_orphans, or find out why peers do not acknowledge the last data"),
        evidence: "tcp_check_oom had an orphan reset while TCP's memory was within its limit; possible where that is not known",
        certainty: Certainty::Certain,
        harm: Harm::Refused,
        sites: &["A8", "A9"],
        source: "net/ipv4/tcp.c: tcp_check_oom",
        since: "5.10",
        words: &[
            reset("TCP_ABORT_ON_MEMORY", "more orphans than tcp_max_orphans"),
            in_state("FIN_WAIT1", "too many orphans"),
            counter("TCPAbortOnMemory", "more orphans than tcp_max_orphans"),
        ],
        rule: Some(orphan_limit),
    },
    Spec {
        id: "out-of-memory",
        events: RST_SENT,
        summary: "TCP is out of memory: the orphaned socket of {owner} was reset",
        many: "{count} closed sockets were reset because TCP was out of memory",
        fix: Some("raise net.ipv4.tcp_mem, or find the sockets with full buffers: `ss -tnm`"),
        evidence: "tcp_check_oom had an orphan reset while TCP's memory was over its limit",
        certainty: Certainty::Likely,
        harm: Harm::Refused,
        sites: &["A8", "A9"],
        source: "net/ipv4/tcp.c: tcp_check_oom",
        since: "5.10",
        words: &[
            reset("TCP_ABORT_ON_MEMORY", "more pages than tcp_mem"),
            in_state("FIN_WAIT1", "TCP is out of memory"),
            counter("TCPAbortOnMemory", "more pages than tcp_mem"),
        ],
        rule: Some(out_of_memory),
    },
    Spec {
        id: "orphan-timeout",
        events: RST_SENT,
        summary: "{owner} closed, and the peer did not close in turn before tcp_fin_timeout",
        many: "{count} orphaned connections ran out of time in FIN_WAIT2",
        fix: Some("make the peer close sooner, or raise net.ipv4.tcp_fin_timeout"),
        evidence: "the keepalive timer of an orphan in FIN_WAIT2 sent the RST",
        certainty: Certainty::Certain,
        harm: Harm::Broken,
        sites: &["A10"],
        source: "net/ipv4/tcp_timer.c: tcp_keepalive_timer",
        since: "5.10",
        words: &[
            reset("TCP_STATE", "an orphan's time in FIN_WAIT2 was up"),
            in_state("FIN_WAIT2", "time runs out and the kernel resets the peer"),
        ],
        rule: Some(orphan_timeout),
    },
];

/// Who called `tcp_send_active_reset`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// `tcp_disconnect`, for a child that nobody will accept any more.
    Listener,
    /// `tcp_disconnect`, for `close()`.
    DisconnectByClose,
    /// `tcp_disconnect`, for `connect()`.
    DisconnectByConnect,
    /// `tcp_disconnect`, for whom the stack does not show.
    Disconnect,
    Close,
    Abort,
    Keepalive,
    OutOfResources,
    /// No stack, or a function that no rule knows.
    Unknown,
}

/// `None` where it is no active RST.
fn caller(facts: &Facts<'_>) -> Option<Caller> {
    if !facts.active() {
        return None;
    }
    let site = facts.site;
    let under = |names: [&str; 2]| names.iter().any(|name| site.is_under(name));
    if facts.has(flag::LINGERED) {
        return Some(Caller::DisconnectByClose);
    }
    // A listener's children are disconnected through the same functions as everything else.
    if site.has("inet_child_forget") || site.has("inet_csk_listen_stop") {
        return Some(Caller::Listener);
    }
    Some(match site.function {
        Some("tcp_abort") => Caller::Abort,
        Some("tcp_disconnect") if under(["__tcp_close", "tcp_close"]) => Caller::DisconnectByClose,
        Some("tcp_disconnect") if under(["__inet_stream_connect", "inet_stream_connect"]) => {
            Caller::DisconnectByConnect
        }
        Some("tcp_disconnect") => Caller::Disconnect,
        Some("__tcp_close" | "tcp_close") => Caller::Close,
        Some("tcp_out_of_resources") => Caller::OutOfResources,
        Some("tcp_keepalive_timer") => Caller::Keepalive,
        _ => Caller::Unknown,
    })
}

/// The caller is not known, and the reason is that of half a dozen acts.
fn by_state(facts: &Facts<'_>, caller: Caller) -> bool {
    caller == Caller::Unknown && (facts.reason_is("TCP_STATE") || facts.reason_is("TCP_DISCONNECT_WITH_DATA"))
}

/// [`by_state`], for a socket closed before its RST was sent: by a listener that stops, `close()` or `connect()`.
fn closed_by_state(facts: &Facts<'_>, caller: Caller) -> bool {
    by_state(facts, caller) && facts.record.state == CLOSE
}

/// Neither a process nor `close()` has, or had, a hold of it: a child in the accept queue.
fn unaccepted(facts: &Facts<'_>) -> bool {
    !facts.has(flag::HAS_FILE) && !facts.orphan()
}

fn unread_data(facts: &Facts<'_>) -> Option<Verdict> {
    let certainty = match caller(facts)? {
        Caller::Close if !facts.orphan() => Certainty::Certain,
        Caller::Unknown => facts.told("TCP_ABORT_ON_CLOSE")?,
        _ => return None,
    };
    let bytes: Text = match reason::unread(facts.record) {
        0 => "bytes that arrived were never read".into(),
        bytes => format!("{bytes} bytes that arrived were never read").into(),
    };
    let exit = facts.site.has("do_exit").then_some("closed because the process ended (do_exit)");
    Some(
        Verdict::new(certainty)
            .with([bytes])
            .with([["closed in state ", facts.began_name()].concat()])
            .with(exit)
            .with(age(facts)),
    )
}

fn linger_zero(facts: &Facts<'_>) -> Option<Verdict> {
    let caller = caller(facts)?;
    let by_close = caller == Caller::DisconnectByClose;
    let certainty = if by_close {
        Certainty::Certain
    } else if disconnected(facts, caller) && facts.lingers_zero() && reason::is_shut(facts.record) {
        Certainty::Likely
    } else {
        return None;
    };
    let socket = &facts.record.socket;
    let path = "close() took the way that only SO_LINGER with time 0 opens (tcp_disconnect)";
    let option = socket.flags & SOCK_LINGER != 0;
    Some(
        Verdict::new(certainty)
            .with(by_close.then_some(path))
            .with(option.then(|| format!("SO_LINGER is set, time {}", socket.lingertime)))
            .with([["closed in state ", facts.began_name()].concat()])
            .with(unsent(facts))
            .with(age(facts)),
    )
}

/// Both sides had closed: then the kernel resets only what it has not sent.
fn unsent(facts: &Facts<'_>) -> Option<&'static str> {
    matches!(facts.began, Some(CLOSING | LAST_ACK)).then_some("data were still waiting to be sent")
}

/// `tcp_disconnect`, but for whom is not in the stack.
fn disconnected(facts: &Facts<'_>, caller: Caller) -> bool {
    caller == Caller::Disconnect || closed_by_state(facts, caller) && !unaccepted(facts)
}

fn disconnect(facts: &Facts<'_>) -> Option<Verdict> {
    let certainty = match caller(facts)? {
        Caller::DisconnectByConnect => Certainty::Certain,
        // close() shuts the socket first; connect(AF_UNSPEC) finds it open.
        caller if disconnected(facts, caller) && !reason::is_shut(facts.record) => Certainty::Likely,
        _ => return None,
    };
    let how = format!("tcp_disconnect in state {}, and not by close()", facts.began_name());
    Some(Verdict::new(certainty).with([how]).with(unsent(facts)).with(age(facts)))
}

fn listener_closed(facts: &Facts<'_>) -> Option<Verdict> {
    let certainty = match caller(facts)? {
        Caller::Listener => Certainty::Certain,
        caller if closed_by_state(facts, caller) && unaccepted(facts) => Certainty::Likely,
        _ => return None,
    };
    let site = facts.site;
    let how = if site.has("inet_csk_reqsk_queue_add") || site.has("inet_csk_complete_hashdance") {
        Some(
            "it was just done with its handshake when the listener went, or could not be moved to another"
                .to_owned(),
        )
    } else if site.has("tcp_abort") {
        Some(format!("the listener was destroyed from outside by {}", task(facts)))
    } else if site.has("inet_csk_listen_stop") {
        Some("inet_csk_listen_stop: the listener is being closed".to_owned())
    } else {
        None
    };
    Some(
        Verdict::new(certainty)
            .with(["the connection waited in the accept queue, nobody had accepted it"])
            .with(how)
            .with(age(facts)),
    )
}

fn destroyed(facts: &Facts<'_>) -> Option<Verdict> {
    let certainty = match caller(facts)? {
        Caller::Abort => Certainty::Certain,
        // A process holds it, and it is not closed yet: close() and connect() close it first.
        caller if by_state(facts, caller) && facts.record.state != CLOSE && facts.has(flag::OWNED) => {
            Certainty::Likely
        }
        _ => return None,
    };
    let how = if facts.site.has_prefix("tcp_diag_destroy") || facts.site.has_prefix("inet_diag") {
        "through sock_diag"
    } else if facts.site.has_prefix("bpf_") {
        "through BPF"
    } else {
        "through tcp_abort"
    };
    Some(
        Verdict::new(certainty)
            .with([format!("{} did it, {how}", task(facts)), format!("in state {}", facts.began_name())]),
    )
}

/// The timer of an orphan that waits for the peer's FIN, and not the one that probes.
fn waiting_orphan(facts: &Facts<'_>) -> bool {
    facts.orphan() && facts.record.state == FIN_WAIT2
}

fn keepalive(facts: &Facts<'_>) -> Option<Verdict> {
    let certainty = match caller(facts)? {
        Caller::Keepalive if !waiting_orphan(facts) => Certainty::Certain,
        Caller::Unknown => facts.told("TCP_KEEPALIVE_TIMEOUT")?,
        _ => return None,
    };
    Some(
        Verdict::new(certainty)
            .with(["keepalive probes went unanswered"])
            .with([["in state ", facts.began_name()].concat()])
            .with(keepalive_settings(facts))
            .with(age(facts)),
    )
}

/// When the kernel probes, unless the socket's own options say otherwise.
fn keepalive_settings(facts: &Facts<'_>) -> Option<String> {
    let settings = &facts.around.settings;
    let (time, interval, probes) =
        (settings.tcp_keepalive_time?, settings.tcp_keepalive_intvl?, settings.tcp_keepalive_probes?);
    Some(format!(
        "net.ipv4.tcp_keepalive_time={time}, tcp_keepalive_intvl={interval}, tcp_keepalive_probes={probes}, unless the \
         socket's own options (TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT) say otherwise"
    ))
}

fn orphan_timeout(facts: &Facts<'_>) -> Option<Verdict> {
    let certainty = match caller(facts)? {
        Caller::Keepalive if waiting_orphan(facts) => Certainty::Certain,
        caller if by_state(facts, caller) && waiting_orphan(facts) && !facts.has(flag::OWNED) => {
            Certainty::Likely
        }
        _ => return None,
    };
    let timer = "an orphan in FIN_WAIT2 whose timer ran out";
    Some(Verdict::new(certainty).with([timer]).with(age(facts)))
}

fn linger2(facts: &Facts<'_>) -> Option<Verdict> {
    let linger2 = facts.record.socket.linger2;
    if facts.linger2_abort() {
        let verdict = if facts.began.is_some() { Verdict::certain() } else { Verdict::likely() };
        return Some(verdict.with([format!("orphaned, and TCP_LINGER2 is {linger2}"), segment(facts)]));
    }
    let certainty = match caller(facts)? {
        Caller::Close if facts.orphan() && linger2 < 0 => Certainty::Certain,
        Caller::Unknown => facts.told("TCP_ABORT_ON_LINGER")?,
        _ => return None,
    };
    Some(
        Verdict::new(certainty)
            .with([format!("TCP_LINGER2 is {linger2}"), format!("in state {}", facts.began_name())]),
    )
}

/// `tcp_check_oom` asks two questions: are there too many orphans, and do sockets hold too much memory? The record has the
/// figures of the second one. `None`: it was not asked.
fn memory(facts: &Facts<'_>) -> Option<(Memory, Certainty)> {
    let asked = match caller(facts)? {
        Caller::Close if facts.orphan() && facts.record.socket.linger2 >= 0 => Certainty::Certain,
        Caller::OutOfResources => Certainty::Certain,
        Caller::Unknown => facts.told("TCP_ABORT_ON_MEMORY")?,
        _ => return None,
    };
    let socket = &facts.record.socket;
    let pages = format!("{} pages of net.ipv4.tcp_mem={} in use", socket.memory_used, socket.memory_max);
    let memory = match socket.memory_max {
        0 => Memory::Unread,
        max if socket.memory_used > max => Memory::Full(pages),
        _ => Memory::Free(pages),
    };
    Some((memory, asked))
}

enum Memory {
    Full(String),
    Free(String),
    /// The figures are not to be had on this kernel.
    Unread,
}

fn orphan_limit(facts: &Facts<'_>) -> Option<Verdict> {
    match memory(facts)? {
        (Memory::Full(_), _) => None,
        (Memory::Free(pages), asked) => {
            let limit =
                facts.around.settings.tcp_max_orphans.map_or_else(String::new, |limit| format!("={limit}"));
            Some(Verdict::new(asked).with([format!("{pages}, so it was net.ipv4.tcp_max_orphans{limit}")]))
        }
        (Memory::Unread, _) => Some(
            Verdict::possible().with([
                "net.ipv4.tcp_max_orphans or net.ipv4.tcp_mem: which of them, this kernel does not tell"
                    .to_owned(),
            ]),
        ),
    }
}

fn out_of_memory(facts: &Facts<'_>) -> Option<Verdict> {
    let (Memory::Full(pages), _) = memory(facts)? else { return None };
    // A socket with little to send passes this test, and then there were too many orphans as well.
    Some(Verdict::likely().with([pages]))
}
