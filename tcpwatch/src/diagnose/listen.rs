//! Which queue of a listener turned a connection away, told from the queues' lengths and from how far the segment came.
//! Why it did so is for the catalogue to say.

use super::lately::Around;
use super::site::Site;
use crate::event::{ListenAction, ListenInfo, Pressure, Queue, Stage};
use tcpwatch_common::hook;
use tcpwatch_common::record::{Listen, Record, flag, passed};

/// What the listener did. `None` when the record says nothing about a listener.
pub fn judge(record: &Record, site: &Site<'_>) -> Option<ListenInfo> {
    if record.flags & flag::LISTEN == 0 {
        return None;
    }
    let listen = &record.listen;
    if record.hook == hook::TCP_REQ_ERR {
        return Some(info(listen, None, Stage::Ack, ListenAction::Dropped));
    }
    Some(if listen.stage == 0 { at_syn(listen) } else { at_ack(listen, site) })
}

/// Whether a SYN got so far ([`passed`]).
pub(super) fn reached(listen: &Listen, bit: u8) -> bool {
    listen.passed & bit != 0
}

/// The kernel's own test: a queue of limit 2 holds 3.
pub(super) fn accept_full(listen: &Listen) -> bool {
    listen.accept_len > listen.accept_max
}

/// The test of most kernels; some call the SYN queue full when it reaches its limit.
pub(super) fn syn_full(listen: &Listen) -> bool {
    listen.syn_len > listen.accept_max
}

/// Without cookies the last quarter of `tcp_max_syn_backlog` is kept for hosts that proved themselves.
pub(super) fn last_quarter(listen: &Listen) -> bool {
    let room = listen.max_syn_backlog.saturating_sub(listen.syn_len);
    listen.syncookies == 0 && room < listen.max_syn_backlog / 4
}

fn at_syn(listen: &Listen) -> ListenInfo {
    if reached(listen, passed::COOKIE) {
        return info(listen, Some(Queue::Syn), Stage::Syn, ListenAction::Cookie);
    }
    let dropped = |queue| info(listen, queue, Stage::Syn, ListenAction::Dropped);
    if !reached(listen, passed::ALLOC) {
        // In the kernel's order: the SYN queue is asked first, and lets pass when cookies can be sent.
        let syn = listen.syncookies == 0 && (syn_full(listen) || !accept_full(listen));
        return dropped(Some(if syn { Queue::Syn } else { Queue::Accept }));
    }
    if reached(listen, passed::ROUTE) && last_quarter(listen) {
        return ListenInfo { max: listen.max_syn_backlog, ..dropped(Some(Queue::Syn)) };
    }
    dropped(None)
}

fn at_ack(listen: &Listen, site: &Site<'_>) -> ListenInfo {
    // A cookie's ACK has no request that could be reset.
    let cookie =
        site.has("cookie_v4_check") || site.has("cookie_v6_check") || site.has("tcp_get_cookie_sock");
    let reset = listen.abort_on_overflow == 1 && !cookie;
    let action = if reset { ListenAction::Reset } else { ListenAction::Dropped };
    info(listen, accept_full(listen).then_some(Queue::Accept), Stage::Ack, action)
}

fn info(listen: &Listen, queue: Option<Queue>, stage: Stage, action: ListenAction) -> ListenInfo {
    let len = if queue == Some(Queue::Syn) { listen.syn_len } else { listen.accept_len };
    // 0: not to be read.
    let somaxconn = (listen.somaxconn != 0).then_some(listen.somaxconn);
    // The kernel keeps only the smaller of the two.
    let backlog = somaxconn.and_then(|limit| (listen.accept_max < limit).then_some(listen.accept_max));
    let max = listen.accept_max;
    ListenInfo { local: None, queue, stage, len, max, backlog, somaxconn, action, pressure: None }
}

/// A process that did not accept for so long while connections wait does not keep up, it has stopped.
pub(super) const IDLE_NS: u64 = 1_000_000_000;
/// A flood comes from many peers; fewer may be a few clients that try again and again.
const FLOOD_PEERS: usize = 16;

/// What makes the queue overflow. `None`: the evidence speaks for none.
pub fn pressure(record: &Record, info: &ListenInfo, around: &Around) -> Option<Pressure> {
    let listener = around.listener?;
    match info.queue? {
        Queue::Accept => {
            let idle_ns = idle_ns(record, around)?;
            Some(if idle_ns >= IDLE_NS { Pressure::SlowAccept } else { Pressure::Burst })
        }
        // While connections wait to be accepted, requests cannot leave their queue either.
        Queue::Syn if accept_full(&record.listen) => None,
        Queue::Syn => {
            let many = listener.peers >= FLOOD_PEERS;
            // Honest clients come to the end of their handshakes.
            let none_answers = listener.accepts.is_none_or(|accepts| accepts < listener.drops / 4);
            (many && none_answers).then_some(Pressure::SynFlood)
        }
    }
}

/// How long nobody called `accept()` on the listener, at least. `None` where that cannot be seen.
pub(super) fn idle_ns(record: &Record, around: &Around) -> Option<u64> {
    if !around.sees_accepts {
        return None;
    }
    let last_ns = match record.listener.last_accept_ns {
        // None since tcpwatch looks.
        0 => around.since_ns,
        last_ns => last_ns,
    };
    let idle_ns = record.mono_ns.saturating_sub(last_ns);
    // Just begun to look: nothing is known yet.
    (record.listener.last_accept_ns != 0 || idle_ns >= IDLE_NS).then_some(idle_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::samples;

    fn drop_at(stage: u8, passed: u8, change: impl Fn(&mut Listen)) -> ListenInfo {
        judge(&samples::listen_drop(stage, passed, change), &Site::default()).unwrap()
    }

    #[test]
    fn a_full_accept_queue_drops_the_syn() {
        let info = drop_at(0, 0, |listen| listen.accept_len = 129);
        assert_eq!((info.queue, info.action), (Some(Queue::Accept), ListenAction::Dropped));
        assert_eq!((info.len, info.max), (129, 128));
        assert_eq!((info.backlog, info.somaxconn), (Some(128), Some(4096)));
    }

    #[test]
    fn a_limit_that_somaxconn_set_hides_the_backlog() {
        let info = drop_at(0, 0, |listen| listen.somaxconn = 128);
        assert_eq!((info.backlog, info.somaxconn), (None, Some(128)));
    }

    #[test]
    fn the_syn_queue_is_asked_first_and_only_without_cookies() {
        let both = |listen: &mut Listen| {
            listen.accept_len = 129;
            listen.syn_len = 129;
        };
        assert_eq!(drop_at(0, 0, both).queue, Some(Queue::Accept));
        let info = drop_at(0, 0, |listen| {
            both(listen);
            listen.syncookies = 0;
        });
        assert_eq!((info.queue, info.len), (Some(Queue::Syn), 129));
    }

    #[test]
    fn a_queue_that_emptied_since_is_known_by_the_cookies() {
        assert_eq!(drop_at(0, 0, |_| {}).queue, Some(Queue::Accept));
        assert_eq!(drop_at(0, 0, |listen| listen.syncookies = 0).queue, Some(Queue::Syn));
    }

    #[test]
    fn a_cookie_is_an_answer() {
        let info = drop_at(0, passed::ALLOC | passed::ROUTE | passed::SYNACK | passed::COOKIE, |_| {});
        assert_eq!((info.queue, info.action), (Some(Queue::Syn), ListenAction::Cookie));
    }

    #[test]
    fn what_came_further_was_not_refused_by_a_queue() {
        assert_eq!(drop_at(0, passed::ALLOC, |_| {}).queue, None);
        assert_eq!(drop_at(0, passed::ALLOC | passed::ROUTE, |_| {}).queue, None);
        let info = drop_at(0, passed::ALLOC | passed::ROUTE, |listen| {
            listen.syncookies = 0;
            listen.syn_len = 400;
        });
        assert_eq!((info.queue, info.max), (Some(Queue::Syn), 512), "the last quarter");
    }

    #[test]
    fn the_last_ack_is_dropped_or_reset() {
        let full = |listen: &mut Listen| listen.accept_len = 129;
        let info = drop_at(1, 0, full);
        assert_eq!((info.stage, info.queue), (Stage::Ack, Some(Queue::Accept)));
        assert_eq!(info.action, ListenAction::Dropped);
        let info = drop_at(1, 0, |listen| {
            full(listen);
            listen.abort_on_overflow = 1;
        });
        assert_eq!(info.action, ListenAction::Reset);
        assert_eq!(drop_at(1, 0, |_| {}).queue, None);
    }
}
