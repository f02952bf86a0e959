//! Sentences of evidence that several rules share.

use crate::diagnose::cause::Facts;
use crate::diagnose::{lately, listen, state};
use crate::event::Flags;
use std::fmt::{self, Write as _};
use tcpwatch_common::owner::{Memory, Step};
use tcpwatch_common::record::{Listen, TimeWait, flag};
use tcpwatch_common::state::FIN_WAIT1;

/// `17 ms`, `3.2 s`: nanoseconds, short, as a reader takes them in.
#[derive(Clone, Copy)]
pub(super) struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, tenths, unit) = match self.0 {
            ns @ 0..1_000_000 => (ns / 1_000, None, " us"),
            ns @ 1_000_000..1_000_000_000 => (ns / 1_000_000, None, " ms"),
            ns @ 1_000_000_000..100_000_000_000 => (ns / 1_000_000_000, Some(ns / 100_000_000 % 10), " s"),
            ns => (ns / 1_000_000_000, None, " s"),
        };
        f.write_str(itoa::Buffer::new().format(number))?;
        if let Some(tenths) = tenths {
            write!(f, ".{tenths}")?;
        }
        f.write_str(unit)
    }
}

pub(super) const fn span(ns: u64) -> Span {
    Span(ns)
}

/// The segment at hand.
pub(super) fn segment(facts: &Facts<'_>) -> String {
    let packet = facts.record.packet;
    let mut text = format!("segment {} seq {} ack {}", Flags(packet.flags), packet.seq, packet.ack);
    if packet.len > 0 {
        let _ = write!(text, ", {} bytes", packet.len);
    }
    text
}

/// How old the connection was.
pub(super) fn age(facts: &Facts<'_>) -> Option<String> {
    let first =
        state::connection(facts.record)?.history().next().map(Step::at_ns).filter(|at_ns| *at_ns != 0)?;
    let lived = facts.record.mono_ns.checked_sub(first)?;
    Some(format!("the connection was {} old", span(lived)))
}

/// How long the connection lived, and who closed first: short lives fill the TIME_WAIT table.
pub(super) fn life(memory: &Memory, until_ns: u64) -> Option<String> {
    let first = memory.history().next()?.at_ns();
    let lived = until_ns.checked_sub(first).filter(|_| first != 0)?;
    let closed_first = memory.history().any(|step| step.state() == FIN_WAIT1);
    let who = if closed_first { ", and this side closed first" } else { "" };
    Some(format!("the connection lived for {}{who}", span(lived)))
}

/// The current task.
pub(super) fn task(facts: &Facts<'_>) -> String {
    match facts.task {
        Some(task) => match task.pid {
            Some(pid) => format!("{}[{pid}]", task.comm),
            None => task.comm.to_string(),
        },
        None => "an unknown task".to_owned(),
    }
}

/// The TIME_WAIT table at the moment, or at the last refusal in this namespace.
pub(super) fn timewait(facts: &Facts<'_>) -> Option<TimeWait> {
    let now = facts.has(flag::TIME_WAIT).then_some(facts.record.timewait);
    now.or_else(|| facts.around.namespace?.table)
}

/// How full the TIME_WAIT table is.
pub(super) fn table(facts: &Facts<'_>) -> Option<String> {
    let TimeWait { used, max, .. } = timewait(facts)?;
    Some(format!("{used} of {max} TIME_WAIT slots in use (net.ipv4.tcp_max_tw_buckets)"))
}

/// How often slots were refused lately.
pub(super) fn refusals(facts: &Facts<'_>) -> Option<String> {
    let namespace = facts.around.namespace.filter(|namespace| namespace.refusals > 1)?;
    Some(format!("{} refusals in the last {}", namespace.refusals, span(namespace.over_ns)))
}

/// `1.8 s`; `None` when it is not known.
pub(super) fn since(facts: &Facts<'_>, at_ns: u64) -> Option<Span> {
    (at_ns != 0).then(|| span(facts.record.mono_ns.saturating_sub(at_ns)))
}

/// Why a connection that ended lately may not be remembered: how far back memory goes, and its gaps.
pub(super) fn horizon(facts: &Facts<'_>) -> String {
    let missed = match facts.around.missed {
        0 => String::new(),
        missed => format!(", or in one of {missed} moments in which the kernel left out tcpwatch's programs"),
    };
    let horizon = match (facts.around.since_ns, facts.around.forgotten) {
        (0, _) => "it may have ended before tcpwatch started".to_owned(),
        (since_ns, 0) => format!(
            "it may have ended before tcpwatch started, {} ago",
            span(facts.record.mono_ns.saturating_sub(since_ns))
        ),
        (_, forgotten) => format!(
            "it may be among the {forgotten} or more that made room for others in the table (--ended)"
        ),
    };
    horizon + &missed
}

/// A setting of the namespace as `sysctl` shows it.
pub(super) fn setting(name: &str, value: Option<u32>) -> Option<String> {
    value.map(|value| format!("net.ipv4.{name}={value}"))
}

/// What the connection carried.
pub(super) fn carried(memory: &Memory) -> Option<String> {
    let (received, sent) = (memory.bytes_received, memory.bytes_sent);
    (received + sent != 0).then(|| format!("it had carried {received} bytes in and {sent} bytes out"))
}

/// `sk_err` by the name that a process sees.
pub(super) fn errno(error: u16) -> String {
    let name = match i32::from(error) {
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::ECONNRESET => "ECONNRESET",
        libc::ECONNABORTED => "ECONNABORTED",
        libc::EPIPE => "EPIPE",
        libc::EPROTO => "EPROTO",
        libc::EACCES => "EACCES",
        other => return format!("error {other}"),
    };
    name.to_owned()
}

/// What a listener's process does with what waits.
pub(super) fn accepting(facts: &Facts<'_>) -> Option<String> {
    let listener = &facts.record.listener;
    let idle_ns = listen::idle_ns(facts.record, facts.around)?;
    let since = span(idle_ns);
    Some(
        match (
            listener.last_accept_ns,
            facts.around.listener.and_then(|lately| lately.accepts.zip(Some(lately))),
        ) {
            (0, _) => format!("nobody called accept() on this port for {since} or longer"),
            (_, _) if idle_ns >= listen::IDLE_NS => {
                format!("the last accept() on this port was {since} before")
            }
            (_, Some((accepts, lately))) => format!(
                "accept() took {accepts} connections in the last {}, the last one {since} before",
                span(lately.over_ns)
            ),
            (_, None) => format!("the last accept() on this port was {since} before"),
        },
    )
}

/// From how many peers the connections come that were turned away lately.
pub(super) fn crowd(facts: &Facts<'_>) -> Option<String> {
    let lately = facts.around.listener.filter(|lately| lately.drops > 1)?;
    let peers = match lately.peers {
        peers if peers >= lately::MANY => format!("{peers} peers or more"),
        1 => "one peer".to_owned(),
        peers => format!("{peers} peers"),
    };
    Some(format!("{} in the last {}, from {peers}", lately.drops, span(lately.over_ns)))
}

/// How many requests are old: honest clients answer the first SYN-ACK, those of a flood none.
pub(super) fn young(facts: &Facts<'_>) -> Option<String> {
    let (all, young) = (facts.record.listen.syn_len, facts.record.listener.young);
    let old = all.checked_sub(young).filter(|old| *old > 0)?;
    Some(format!("{old} of {all} half-open connections did not answer a repeated SYN-ACK either"))
}

/// The command that makes the TIME_WAIT table four times as large.
pub(in crate::diagnose) fn raise_tw_buckets(max: u32) -> String {
    let more = max.saturating_mul(4).max(65_536).checked_next_power_of_two().unwrap_or(max);
    format!(
        "sysctl -w net.ipv4.tcp_max_tw_buckets={more} (at once, until a reboot; now {max}; a slot takes about 300 bytes), and \
         keep connections open longer so that fewer of them end"
    )
}

pub(super) fn accept_queue(listen: &Listen) -> String {
    format!("accept queue {} of {}", listen.accept_len, listen.accept_max)
}

pub(super) fn syn_queue(listen: &Listen) -> String {
    format!("{} half-open connections of {}", listen.syn_len, listen.accept_max)
}

/// Which of the two settings made the accept queue's limit what it is.
pub(super) fn accept_limit(listen: &Listen) -> Option<String> {
    let (max, somaxconn) = (listen.accept_max, listen.somaxconn);
    match somaxconn {
        0 => None,
        _ if max < somaxconn => Some(format!(
            "the limit is the backlog given to listen(); net.core.somaxconn={somaxconn} allows more"
        )),
        _ => Some(format!(
            "the limit is net.core.somaxconn={somaxconn}, the backlog given to listen() is no smaller"
        )),
    }
}

/// What to change for a full accept queue.
pub(super) fn raise_accept_queue(listen: &Listen) -> Option<String> {
    let (max, somaxconn) = (listen.accept_max, listen.somaxconn);
    match somaxconn {
        0 => None,
        _ if max < somaxconn => Some(format!(
            "raise the backlog in the application's listen() (now {max}), up to net.core.somaxconn={somaxconn}; if the \
             queue still fills, it accepts too slowly"
        )),
        _ => Some(format!(
            "sysctl -w net.core.somaxconn={}, then restart the service so that it calls listen() again; if the queue \
             still fills, it accepts too slowly",
            somaxconn.saturating_mul(4).min(65_535).max(somaxconn)
        )),
    }
}
