//! Sockets that nobody closes: found by watching, not told from one record.

use super::evidence::span;
use super::{Harm, Spec, in_state};
use crate::diagnose::cause::{NOBODY, Verdict, name_owner};
use crate::diagnose::leak::{Leak, Service, Unread};
use crate::event::{Cause, Certainty, EventKind};

pub(super) const CAUSES: &[Spec] = &[CLOSE_WAIT_LEAK];

const CLOSE_WAIT_LEAK: Spec = Spec {
    id: "close-wait-leak",
    events: &[EventKind::CloseWaitLeak],
    summary: "{remote} closed, and {owner} has not closed in turn",
    many: "{count} sockets wait for their process to close them",
    fix: Some(
        "the application must close a connection when it reads end of file; see what its threads wait for",
    ),
    evidence: "sockets that a process holds have been in CLOSE_WAIT for longer than --close-wait-after; a process may also do so \
               on purpose, to send on",
    certainty: Certainty::Likely,
    harm: Harm::Refused,
    sites: &[],
    source: "net/ipv4/tcp_input.c: tcp_fin",
    since: "5.10",
    words: &[in_state("CLOSE_WAIT", "the process holds it")],
    rule: None,
};

/// The cause of a leak.
pub(in crate::diagnose) fn leaked(leak: &Leak, now_ns: u64) -> Cause {
    let owner = leak.owner.as_ref().map_or_else(|| NOBODY.to_owned(), name_owner);
    let summary = match leak.count {
        1 => format!("{} closed, and {owner} has not closed in turn", leak.remote),
        count => format!("{owner} holds {count} connections that their peers have closed"),
    };
    let oldest = span(leak.oldest_ns);
    let age = match (leak.at_least, leak.count) {
        (false, 1) => format!("in CLOSE_WAIT for {oldest}"),
        (true, 1) => format!("in CLOSE_WAIT for {oldest} or longer: it was before tcpwatch looked"),
        (false, _) => format!("the oldest, with {}, is in CLOSE_WAIT for {oldest}", leak.remote),
        (true, _) => format!("the oldest, with {}, is in CLOSE_WAIT for {oldest} or longer", leak.remote),
    };
    Verdict::likely()
        .with([age])
        .with(services(leak))
        .with(peers(leak))
        .with(unread(leak))
        .with(growth(leak, now_ns))
        .with(descriptors(leak))
        .fix(remedy(leak))
        .say(&CLOSE_WAIT_LEAK, summary)
}

/// What the connections are for.
fn services(leak: &Leak) -> Option<String> {
    const NAMED: usize = 4;
    if leak.count < 2 {
        return None;
    }
    let one = |(service, count): &(Service, u64)| match service {
        Service::Own(local) => format!("{count} of clients of {local}"),
        Service::Server(remote) => format!("{count} that it had opened to {remote}"),
    };
    let named: Vec<String> = leak.services.iter().take(NAMED).map(one).collect();
    let rest = match leak.services.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and those of {more} more services"),
    };
    Some(format!("{}{rest}", named.join(", ")))
}

/// Who closed first.
fn peers(leak: &Leak) -> Option<String> {
    if leak.count < 2 {
        return None;
    }
    let named: Vec<String> = leak.peers.iter().map(|(addr, count)| format!("{addr} ({count})")).collect();
    let rest = match leak.peer_count.saturating_sub(leak.peers.len()) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    Some(format!("closed by {}{rest}", named.join(", ")))
}

/// Whether the process knows that its peers closed.
fn unread(leak: &Leak) -> Option<String> {
    let Unread { read_to_the_end: read, not_read, bytes } = leak.unread?;
    Some(match (read, not_read) {
        (_, 0) => "it has read the end of file of all of them, so it knows, and does not close".to_owned(),
        (0, _) => format!(
            "it has not read to the end of any of them, {bytes} bytes wait: it does not look at them any more"
        ),
        _ => format!(
            "of {read} it has read the end of file and does not close; of {not_read} it has not, {bytes} bytes wait there"
        ),
    })
}

/// By whether it forgot to close, or does not work at all.
fn remedy(leak: &Leak) -> Option<String> {
    let Unread { read_to_the_end: read, not_read, .. } = leak.unread?;
    let pid = leak
        .owner
        .as_ref()
        .and_then(|owner| owner.pid)
        .map_or_else(|| "PID".to_owned(), |pid| pid.to_string());
    Some(if read >= not_read {
        "correct the application: where read() returns 0 it must close the descriptor, on every path (errors, timeouts, pools); \
         a restart helps until then"
            .to_owned()
    } else {
        format!(
            "the process does not read: see what its threads wait for (`cat /proc/{pid}/task/*/stack`, `gdb -p {pid} -batch -ex \
             'thread apply all bt'`), usually a lock, a full pool or a backend without timeout; a restart frees the sockets"
        )
    })
}

/// What became of the figure since it was told last.
fn growth(leak: &Leak, now_ns: u64) -> Option<String> {
    let before = leak.before?;
    let ago = span(now_ns.saturating_sub(before.at_ns));
    Some(match leak.count.cmp(&before.count) {
        std::cmp::Ordering::Greater => format!("{} more than {ago} before", leak.count - before.count),
        std::cmp::Ordering::Less => format!("{} fewer than {ago} before", before.count - leak.count),
        std::cmp::Ordering::Equal => format!("as many as {ago} before"),
    })
}

/// How far the process is from its limit of descriptors.
fn descriptors(leak: &Leak) -> Option<String> {
    let (used, limit) = leak.descriptors?;
    Some(format!(
        "{used} of {limit} descriptors in use (RLIMIT_NOFILE): at the limit accept() fails with EMFILE"
    ))
}
