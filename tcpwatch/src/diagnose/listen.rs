//! Which queue of a listener turned a connection away, told from the queues' lengths and from how far the segment came.

use super::site::Site;
use crate::event::{Certainty, ListenAction, ListenInfo, Queue, Stage};
use tcpwatch_common::hook;
use tcpwatch_common::record::{Listen, Record, flag, passed};

/// A `listen` object and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub info: ListenInfo,
    /// The cause's id.
    pub id: &'static str,
    pub certainty: Certainty,
    pub evidence: Vec<String>,
}

/// `None` when the record says nothing about a listener.
pub fn judge(record: &Record, site: &Site<'_>) -> Option<Verdict> {
    if record.flags & flag::LISTEN == 0 {
        return None;
    }
    if record.hook == hook::TCP_REQ_ERR {
        return Some(Verdict {
            info: info(&record.listen, None, Stage::Ack, ListenAction::Dropped),
            id: "listen-refused",
            certainty: Certainty::Certain,
            evidence: vec!["an ICMP error came back for the SYN-ACK".to_owned()],
        });
    }
    Some(if record.listen.stage == 0 { at_syn(record) } else { at_ack(record, site) })
}

/// Whether a SYN got so far ([`passed`]).
fn reached(record: &Record, bit: u8) -> bool {
    record.listen.passed & bit != 0
}

/// The kernel's own test: a queue of limit 2 holds 3.
pub(super) fn accept_full(listen: &Listen) -> bool {
    listen.accept_len > listen.accept_max
}

fn at_syn(record: &Record) -> Verdict {
    let listen = &record.listen;
    if reached(record, passed::COOKIE) {
        let evidence = vec![syn_queue(listen), format!("net.ipv4.tcp_syncookies={}", listen.syncookies)];
        let info = info(listen, Some(Queue::Syn), Stage::Syn, ListenAction::Cookie);
        return Verdict { info, id: "syn-cookies-sent", certainty: Certainty::Certain, evidence };
    }
    let dropped = |queue| info(listen, queue, Stage::Syn, ListenAction::Dropped);
    if !reached(record, passed::ALLOC) {
        // In the kernel's order: the SYN queue is asked first, and lets pass when cookies can be sent.
        let syn_full = listen.syn_len > listen.accept_max;
        if syn_full && listen.syncookies == 0 {
            return Verdict {
                info: dropped(Some(Queue::Syn)),
                id: "syn-queue-full",
                certainty: Certainty::Certain,
                evidence: vec![syn_queue(listen), "net.ipv4.tcp_syncookies=0".to_owned()],
            };
        }
        if accept_full(listen) {
            return Verdict {
                info: dropped(Some(Queue::Accept)),
                id: "accept-queue-full",
                certainty: Certainty::Certain,
                evidence: accept_evidence(listen),
            };
        }
        // Some kernels call the SYN queue full when it reaches its limit, others when it passes it. With cookies only
        // the accept queue can have refused the SYN, and it emptied since.
        let (queue, id) = if listen.syncookies == 0 {
            (Queue::Syn, "syn-queue-full")
        } else {
            (Queue::Accept, "accept-queue-full")
        };
        let evidence =
            vec![syn_queue(listen), accept_queue(listen), "dropped before a request was made".to_owned()];
        return Verdict { info: dropped(Some(queue)), id, certainty: Certainty::Likely, evidence };
    }
    if !reached(record, passed::ROUTE) {
        return Verdict {
            info: dropped(None),
            id: "listen-no-memory",
            certainty: Certainty::Likely,
            evidence: vec![
                "a request socket was asked for, and the work ended there".to_owned(),
                accept_queue(listen),
            ],
        };
    }
    let room = listen.max_syn_backlog.saturating_sub(listen.syn_len);
    if listen.syncookies == 0 && room < listen.max_syn_backlog / 4 {
        let mut last_quarter = dropped(Some(Queue::Syn));
        last_quarter.max = listen.max_syn_backlog;
        return Verdict {
            info: last_quarter,
            id: "syn-queue-full",
            certainty: Certainty::Likely,
            evidence: vec![
                format!(
                    "{} half-open connections: the last quarter of net.ipv4.tcp_max_syn_backlog={} is kept for hosts \
                     that proved themselves",
                    listen.syn_len, listen.max_syn_backlog
                ),
                "net.ipv4.tcp_syncookies=0".to_owned(),
            ],
        };
    }
    Verdict {
        info: dropped(None),
        id: "listen-refused",
        certainty: Certainty::Likely,
        evidence: vec!["a route was asked for, and the work ended there".to_owned(), accept_queue(listen)],
    }
}

fn at_ack(record: &Record, site: &Site<'_>) -> Verdict {
    let listen = &record.listen;
    // A cookie's ACK has no request that could be reset.
    let cookie =
        site.has("cookie_v4_check") || site.has("cookie_v6_check") || site.has("tcp_get_cookie_sock");
    let reset = listen.abort_on_overflow == 1 && !cookie;
    let action = if reset { ListenAction::Reset } else { ListenAction::Dropped };
    let mut evidence = Vec::new();
    let (queue, id, certainty) = if accept_full(listen) {
        evidence.extend(accept_evidence(listen));
        (Some(Queue::Accept), "accept-queue-full", Certainty::Certain)
    } else {
        evidence.push(accept_queue(listen));
        evidence.push("the queue has room: it was memory, the route, an LSM or BPF".to_owned());
        (None, "listen-refused", Certainty::Possible)
    };
    evidence.push(match action {
        ListenAction::Reset => "net.ipv4.tcp_abort_on_overflow=1: the client is reset".to_owned(),
        _ => "the last ACK of the handshake was dropped: the client believes to be connected, and its data are retried"
            .to_owned(),
    });
    Verdict { info: info(listen, queue, Stage::Ack, action), id, certainty, evidence }
}

fn info(listen: &Listen, queue: Option<Queue>, stage: Stage, action: ListenAction) -> ListenInfo {
    let len = if queue == Some(Queue::Syn) { listen.syn_len } else { listen.accept_len };
    // 0: not to be read.
    let somaxconn = (listen.somaxconn != 0).then_some(listen.somaxconn);
    // The kernel keeps only the smaller of the two.
    let backlog = somaxconn.and_then(|limit| (listen.accept_max < limit).then_some(listen.accept_max));
    ListenInfo { queue, stage, len, max: listen.accept_max, backlog, somaxconn, action }
}

fn accept_queue(listen: &Listen) -> String {
    format!("accept queue {} of {}", listen.accept_len, listen.accept_max)
}

fn syn_queue(listen: &Listen) -> String {
    format!("{} half-open connections of {}", listen.syn_len, listen.accept_max)
}

fn accept_evidence(listen: &Listen) -> Vec<String> {
    let mut evidence = vec![format!(
        "accept queue {} of {}: full when it is over the limit",
        listen.accept_len, listen.accept_max
    )];
    evidence.extend(limit(listen));
    evidence
}

/// Which of the two settings made the limit what it is.
fn limit(listen: &Listen) -> Option<String> {
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
pub(super) fn accept_fix(listen: &Listen) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::samples;
    use tcpwatch_common::{hook, record::kind};

    fn drop_at(stage: u8, passed: u8, change: impl Fn(&mut Listen)) -> Verdict {
        let mut record = samples::record(kind::LISTEN_DROP, hook::TCP_CONN_REQUEST);
        record.flags = flag::LISTEN;
        record.listen = Listen {
            accept_len: 0,
            accept_max: 128,
            syn_len: 0,
            max_syn_backlog: 512,
            somaxconn: 4096,
            syncookies: 1,
            abort_on_overflow: 0,
            stage,
            passed,
        };
        change(&mut record.listen);
        judge(&record, &Site::default()).unwrap()
    }

    #[test]
    fn a_full_accept_queue_drops_the_syn() {
        let verdict = drop_at(0, 0, |listen| listen.accept_len = 129);
        assert_eq!((verdict.id, verdict.certainty), ("accept-queue-full", Certainty::Certain));
        assert_eq!(verdict.info.queue, Some(Queue::Accept));
        assert_eq!((verdict.info.len, verdict.info.max), (129, 128));
        assert_eq!((verdict.info.backlog, verdict.info.somaxconn), (Some(128), Some(4096)));
        assert_eq!(verdict.info.action, ListenAction::Dropped);
    }

    #[test]
    fn a_limit_that_somaxconn_set_hides_the_backlog() {
        let verdict = drop_at(0, 0, |listen| {
            listen.accept_len = 129;
            listen.somaxconn = 128;
        });
        assert_eq!(verdict.info.backlog, None);
        assert!(verdict.evidence[1].contains("net.core.somaxconn=128"), "{:?}", verdict.evidence);
    }

    #[test]
    fn the_syn_queue_is_asked_first_and_only_without_cookies() {
        let both = |listen: &mut Listen| {
            listen.accept_len = 129;
            listen.syn_len = 129;
        };
        assert_eq!(drop_at(0, 0, both).id, "accept-queue-full");
        let verdict = drop_at(0, 0, |listen| {
            both(listen);
            listen.syncookies = 0;
        });
        assert_eq!((verdict.id, verdict.info.queue), ("syn-queue-full", Some(Queue::Syn)));
        assert_eq!(verdict.info.len, 129);
    }

    #[test]
    fn a_cookie_is_an_answer() {
        let verdict = drop_at(0, passed::ALLOC | passed::ROUTE | passed::SYNACK | passed::COOKIE, |_| {});
        assert_eq!((verdict.id, verdict.info.action), ("syn-cookies-sent", ListenAction::Cookie));
    }

    #[test]
    fn what_came_further_was_not_refused_by_a_queue() {
        let verdict = drop_at(0, passed::ALLOC, |_| {});
        assert_eq!((verdict.id, verdict.info.queue), ("listen-no-memory", None));
        let verdict = drop_at(0, passed::ALLOC | passed::ROUTE, |_| {});
        assert_eq!((verdict.id, verdict.info.queue), ("listen-refused", None));
        let verdict = drop_at(0, passed::ALLOC | passed::ROUTE, |listen| {
            listen.syncookies = 0;
            listen.syn_len = 400;
        });
        assert_eq!((verdict.id, verdict.info.max), ("syn-queue-full", 512), "the last quarter");
    }

    #[test]
    fn the_last_ack_is_dropped_or_reset() {
        let verdict = drop_at(1, 0, |listen| listen.accept_len = 129);
        assert_eq!((verdict.id, verdict.info.stage), ("accept-queue-full", Stage::Ack));
        assert_eq!(verdict.info.action, ListenAction::Dropped);
        let verdict = drop_at(1, 0, |listen| {
            listen.accept_len = 129;
            listen.abort_on_overflow = 1;
        });
        assert_eq!(verdict.info.action, ListenAction::Reset);
        let verdict = drop_at(1, 0, |_| {});
        assert_eq!((verdict.id, verdict.certainty), ("listen-refused", Certainty::Possible));
    }
}
