//! RSTs that this host decided to send: `close()`, a timer, `ss -K`.

use super::{Facts, Verdict, reason, state};
use crate::event::{Cause, Certainty};
use tcpwatch_common::owner::Step;
use tcpwatch_common::record::flag;
use tcpwatch_common::state::{CLOSE, FIN_WAIT2};

pub(super) fn diagnose(facts: &Facts<'_>) -> Option<Cause> {
    let site = facts.site;
    let dead = facts.has(flag::DEAD);
    let verdict = match site.function {
        // Looked at first: a listener's children are disconnected through the same functions as everything else.
        Some(_) if site.has("inet_child_forget") || site.has("inet_csk_listen_stop") => {
            listener_closed(facts)
        }
        Some("tcp_abort") => destroyed(facts),
        Some("tcp_disconnect") if site.is_under("__tcp_close") || site.is_under("tcp_close") => {
            linger_zero(facts)
        }
        Some("tcp_disconnect")
            if site.is_under("__inet_stream_connect") || site.is_under("inet_stream_connect") =>
        {
            disconnect(facts, Certainty::Certain)
        }
        Some("tcp_disconnect") => return disconnected(facts).map(|verdict| verdict.cause(facts)),
        Some("__tcp_close" | "tcp_close") if !dead => unread(facts),
        Some("__tcp_close" | "tcp_close") if facts.record.socket.linger2 < 0 => linger2(facts),
        Some("__tcp_close" | "tcp_close" | "tcp_out_of_resources") => memory(facts),
        Some("tcp_keepalive_timer") if dead && facts.record.state == FIN_WAIT2 => orphan_timeout(facts),
        Some("tcp_keepalive_timer") => keepalive(facts),
        _ => return by_reason(facts).map(|verdict| verdict.cause(facts)),
    };
    Some(verdict.cause(facts))
}

/// Without the caller, the reason and the socket's fields still tell most acts apart.
fn by_reason(facts: &Facts<'_>) -> Option<Verdict> {
    let dead = facts.has(flag::DEAD);
    let name = facts.reason.map(|reason| reason.name.as_str())?;
    let kernel = facts.reason.is_some_and(|reason| reason.from == crate::event::ReasonFrom::Kernel);
    let mut verdict = match name {
        "TCP_ABORT_ON_CLOSE" => unread(facts),
        "TCP_ABORT_ON_LINGER" => linger2(facts),
        "TCP_ABORT_ON_MEMORY" => memory(facts),
        "TCP_KEEPALIVE_TIMEOUT" => keepalive(facts),
        "TCP_STATE" | "TCP_DISCONNECT_WITH_DATA" => return state_only(facts, dead),
        _ => return None,
    };
    // These reasons have one meaning each.
    if kernel && !matches!(verdict.id, "orphan-limit" | "out-of-memory") {
        verdict.certainty = Certainty::Certain;
    }
    Some(verdict)
}

/// `TCP_STATE` means half a dozen acts.
fn state_only(facts: &Facts<'_>, dead: bool) -> Option<Verdict> {
    if facts.record.state != CLOSE {
        if facts.has(flag::OWNED) {
            return Some(destroyed(facts));
        }
        return (dead && facts.record.state == FIN_WAIT2).then(|| orphan_timeout(facts));
    }
    if !facts.has(flag::HAS_FILE) && !dead {
        return Some(listener_closed(facts));
    }
    disconnected(facts)
}

/// `tcp_disconnect`, but by whom is not in the stack.
fn disconnected(facts: &Facts<'_>) -> Option<Verdict> {
    let socket = &facts.record.socket;
    let lingers = socket.flags & reason::SOCK_LINGER != 0 && socket.lingertime == 0;
    if lingers && reason::is_shut(facts.record) {
        let mut verdict = linger_zero(facts);
        verdict.certainty = Certainty::Likely;
        return Some(verdict);
    }
    // close() shuts the socket first; connect(AF_UNSPEC) finds it open.
    (!reason::is_shut(facts.record)).then(|| disconnect(facts, Certainty::Likely))
}

fn listener_closed(facts: &Facts<'_>) -> Verdict {
    let site = facts.site;
    let mut evidence = vec!["the connection waited in the accept queue, nobody had accepted it".to_owned()];
    if site.has("inet_csk_reqsk_queue_add") || site.has("inet_csk_complete_hashdance") {
        evidence.push("it was just done with its handshake when the listener went".to_owned());
    } else if site.has("tcp_abort") {
        evidence.push(format!("the listener was destroyed from outside by {}", task(facts)));
    } else if site.has("inet_csk_listen_stop") {
        evidence.push("inet_csk_listen_stop: the listener is being closed".to_owned());
    }
    evidence.extend(age(facts));
    Verdict::by_path("listener-closed", facts).with(evidence)
}

fn destroyed(facts: &Facts<'_>) -> Verdict {
    let how = if facts.site.has_prefix("tcp_diag_destroy") || facts.site.has_prefix("inet_diag") {
        "through sock_diag"
    } else if facts.site.has_prefix("bpf_") {
        "through BPF"
    } else {
        "through tcp_abort"
    };
    let evidence = vec![format!("{} did it, {how}", task(facts)), format!("in state {}", facts.began_name())];
    Verdict::by_path("socket-destroyed", facts).with(evidence)
}

fn linger_zero(facts: &Facts<'_>) -> Verdict {
    let socket = &facts.record.socket;
    let mut evidence = Vec::new();
    if facts.site.is_under("__tcp_close") {
        evidence
            .push("close() took the way that only SO_LINGER with time 0 opens (tcp_disconnect)".to_owned());
    }
    if socket.flags & reason::SOCK_LINGER != 0 {
        evidence.push(format!("SO_LINGER is set, time {}", socket.lingertime));
    }
    evidence.push(format!("closed in state {}", facts.began_name()));
    evidence.extend(age(facts));
    Verdict::by_path("linger-zero", facts).with(evidence)
}

fn disconnect(facts: &Facts<'_>, certainty: Certainty) -> Verdict {
    let mut evidence = vec![format!("tcp_disconnect in state {}, and not by close()", facts.began_name())];
    evidence.extend(age(facts));
    Verdict::new("disconnect", certainty).with(evidence)
}

fn unread(facts: &Facts<'_>) -> Verdict {
    let mut evidence = Vec::new();
    match reason::unread(facts.record) {
        0 => evidence.push("bytes that arrived were never read".to_owned()),
        bytes => evidence.push(format!("{bytes} bytes that arrived were never read")),
    }
    evidence.push(format!("closed in state {}", facts.began_name()));
    if facts.site.has("do_exit") {
        evidence.push("closed because the process ended (do_exit)".to_owned());
    }
    evidence.extend(age(facts));
    Verdict::by_path("close-with-unread-data", facts).with(evidence)
}

fn linger2(facts: &Facts<'_>) -> Verdict {
    let evidence = vec![
        format!("TCP_LINGER2 is {}", facts.record.socket.linger2),
        format!("in state {}", facts.began_name()),
    ];
    Verdict::by_path("linger2-abort", facts).with(evidence)
}

/// `tcp_check_oom` asks two questions; the socket's record has the figures of the second one.
fn memory(facts: &Facts<'_>) -> Verdict {
    let socket = &facts.record.socket;
    if socket.memory_max == 0 {
        return Verdict::possible("orphan-limit").with([
            "net.ipv4.tcp_max_orphans or net.ipv4.tcp_mem: which of them, this kernel does not tell"
                .to_owned(),
        ]);
    }
    let pages = format!("{} pages of net.ipv4.tcp_mem={} in use", socket.memory_used, socket.memory_max);
    if socket.memory_used > socket.memory_max {
        Verdict::certain("out-of-memory").with([pages])
    } else {
        Verdict::certain("orphan-limit").with([format!("{pages}, so it was net.ipv4.tcp_max_orphans")])
    }
}

fn orphan_timeout(facts: &Facts<'_>) -> Verdict {
    let mut evidence = vec!["an orphan in FIN_WAIT2 whose timer ran out".to_owned()];
    evidence.extend(age(facts));
    Verdict::by_path("orphan-timeout", facts).with(evidence)
}

fn keepalive(facts: &Facts<'_>) -> Verdict {
    let mut evidence = vec!["keepalive probes went unanswered".to_owned()];
    evidence.push(format!("in state {}", facts.began_name()));
    evidence.extend(age(facts));
    Verdict::by_path("keepalive-timeout", facts).with(evidence)
}

/// How old the connection was.
fn age(facts: &Facts<'_>) -> Option<String> {
    let first =
        state::connection(facts.record)?.history().next().map(Step::at_ns).filter(|at_ns| *at_ns != 0)?;
    let lived = facts.record.mono_ns.checked_sub(first)?;
    Some(format!("the connection was {} old", super::span(lived)))
}

/// The current task.
fn task(facts: &Facts<'_>) -> String {
    match facts.task {
        Some(task) => match task.pid {
            Some(pid) => format!("{}[{pid}]", task.comm),
            None => task.comm.clone(),
        },
        None => "an unknown task".to_owned(),
    }
}
