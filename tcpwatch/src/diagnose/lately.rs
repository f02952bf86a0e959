//! What happened lately around an event, on its listener and in its namespace: kept while records pass, handed to the rules
//! as values. No clock: the records carry the time.

use crate::host::inet::Settings;
use std::collections::{HashMap, HashSet};
use tcpwatch_common::flow::PortKey;
use tcpwatch_common::record::{Record, TimeWait, flag, kind, passed};

/// Half of the time that counts as lately.
const HALF_NS: u64 = 5_000_000_000;
/// Listeners and namespaces that are kept.
const LISTENERS: usize = 256;
const NAMESPACES: usize = 4_096;
/// Peers that are told apart in half a window: more than this is many, however many.
pub const MANY: usize = 512;
/// A SYN cookie is good for this long (`MAX_SYNCOOKIE_AGE`, two minutes).
const COOKIE_NS: u64 = 120_000_000_000;

/// A listener in the last seconds, up to and with the event at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    /// Connections that it turned away or answered with cookies.
    pub drops: u64,
    /// Peers among them, told apart by address, at least; more than [`MANY`] are not counted.
    pub peers: usize,
    /// The time that these figures cover.
    pub over_ns: u64,
    /// Connections that were accepted in that time; `None` without the hook or with too little to compare.
    pub accepts: Option<u64>,
    /// How long ago the last SYN cookie was sent, if it could still come back.
    pub cookie_age_ns: Option<u64>,
}

/// A namespace in the last seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Sockets that were refused their TIME_WAIT slot.
    pub refusals: u64,
    /// The time that the figure covers.
    pub over_ns: u64,
    /// The table at the last refusal.
    pub table: Option<TimeWait>,
}

/// What is known around an event that its record does not say: a value, made anew for each record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around {
    pub listener: Option<Listener>,
    pub namespace: Option<Namespace>,
    /// Calls of `accept()` are seen on this host.
    pub sees_accepts: bool,
    /// Since when tcpwatch watches, on the monotonic clock.
    pub since_ns: u64,
    /// Ended connections that had to make room for others.
    pub forgotten: u64,
    /// Runs of tcpwatch's own programs that the kernel left out: what happened in them was not seen.
    pub missed: u64,
    /// Of the record's namespace, some seconds old at most; every one `None` where they are not to be had.
    pub settings: Settings,
}

/// Everything that is kept.
#[derive(Debug, Default)]
pub struct Lately {
    listeners: HashMap<PortKey, Window>,
    namespaces: HashMap<u32, Refusals>,
}

#[derive(Debug, Default)]
struct Window {
    halves: Halves<Half>,
    cookie_ns: Option<u64>,
    /// Time and value of the accept counter, when first seen in either half.
    accepts: Halves<Option<(u64, u64)>>,
    accepts_now: u64,
}

#[derive(Debug, Default)]
struct Half {
    drops: u64,
    peers: HashSet<[u32; 4]>,
}

#[derive(Debug, Default)]
struct Refusals {
    counts: Halves<u64>,
    table: Option<TimeWait>,
}

/// The current half of a window and the one before.
#[derive(Debug, Default)]
struct Halves<T> {
    since_ns: u64,
    now: T,
    before: T,
    /// Whether there was a half before.
    full: bool,
}

impl<T: Default> Halves<T> {
    /// The current half at that time.
    fn at(&mut self, ns: u64) -> &mut T {
        if self.since_ns == 0 {
            self.since_ns = ns;
        }
        let age = ns.saturating_sub(self.since_ns);
        if age >= 2 * HALF_NS {
            self.before = T::default();
            self.now = T::default();
            self.since_ns = ns;
            // Quiet for so long that nothing of it is lately.
            self.full = true;
        } else if age >= HALF_NS {
            self.before = std::mem::take(&mut self.now);
            self.since_ns += HALF_NS;
            self.full = true;
        }
        &mut self.now
    }

    /// The time that both halves cover.
    fn over_ns(&self, ns: u64) -> u64 {
        let before = if self.full { HALF_NS } else { 0 };
        before + ns.saturating_sub(self.since_ns)
    }
}

impl Lately {
    /// Takes a record down. Call it before the record is interpreted: it counts itself.
    pub fn note(&mut self, record: &Record) {
        let ns = record.mono_ns;
        if record.kind == kind::TW_OVERFLOW {
            if self.namespaces.len() >= NAMESPACES && !self.namespaces.contains_key(&record.flow.netns) {
                self.namespaces.clear();
            }
            let namespace = self.namespaces.entry(record.flow.netns).or_default();
            *namespace.counts.at(ns) += 1;
            if record.flags & flag::TIME_WAIT != 0 {
                namespace.table = Some(record.timewait);
            }
        }
        if record.flags & flag::LISTEN == 0 {
            return;
        }
        let key = key(record);
        if self.listeners.len() >= LISTENERS && !self.listeners.contains_key(&key) {
            // The quietest go: half of them at once rather than a list to keep in order.
            let mut seen: Vec<u64> = self.listeners.values().map(|window| window.halves.since_ns).collect();
            let middle = seen.len() / 2;
            let (_, &mut median, _) = seen.select_nth_unstable(middle);
            self.listeners.retain(|_, window| window.halves.since_ns > median);
        }
        let window = self.listeners.entry(key).or_default();
        if record.kind == kind::LISTEN_DROP {
            let half = window.halves.at(ns);
            half.drops += 1;
            if half.peers.len() < MANY {
                half.peers.insert(record.flow.remote.0);
            }
            if record.listen.passed & passed::COOKIE != 0 {
                window.cookie_ns = Some(ns);
            }
        }
        window.accepts.at(ns).get_or_insert((ns, record.listener.accepts));
        window.accepts_now = record.listener.accepts;
    }

    /// Everything that is known around a record, on top of what is the same for all of them.
    pub fn around(&self, record: &Record, of_all: &Around) -> Around {
        Around { listener: self.listener(record), namespace: self.namespace(record), ..*of_all }
    }

    /// The listener that a record is about; `None` if it is about none, or nothing was noted of it.
    pub fn listener(&self, record: &Record) -> Option<Listener> {
        if record.flags & flag::LISTEN == 0 {
            return None;
        }
        let window = self.listeners.get(&key(record))?;
        let ns = record.mono_ns;
        let Half { drops, peers } = &window.halves.now;
        let before = &window.halves.before;
        let first = window.accepts.before.or(window.accepts.now);
        // Too short a time says nothing about a rate.
        let accepts = first
            .filter(|(at, _)| record.listener.last_accept_ns != 0 && ns.saturating_sub(*at) >= HALF_NS / 5);
        Some(Listener {
            drops: drops + before.drops,
            peers: peers.len().max(before.peers.len()),
            over_ns: window.halves.over_ns(ns),
            accepts: accepts.map(|(_, count)| window.accepts_now.saturating_sub(count)),
            cookie_age_ns: window.cookie_ns.map(|at| ns.saturating_sub(at)).filter(|age| *age < COOKIE_NS),
        })
    }

    /// The namespace that a record is about; `None` if nothing was refused there.
    pub fn namespace(&self, record: &Record) -> Option<Namespace> {
        let Refusals { counts, table } = self.namespaces.get(&record.flow.netns)?;
        Some(Namespace {
            refusals: counts.now + counts.before,
            over_ns: counts.over_ns(record.mono_ns),
            table: *table,
        })
    }
}

fn key(record: &Record) -> PortKey {
    PortKey { netns: record.flow.netns, port: u32::from(record.flow.local_port) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::samples;
    use tcpwatch_common::flow::Addr;
    use tcpwatch_common::hook;

    const SECOND: u64 = 1_000_000_000;

    fn drop_at(ns: u64, peer: u32, accepts: u64) -> Record {
        let mut record = samples::record(kind::LISTEN_DROP, hook::TCP_CONN_REQUEST);
        record.mono_ns = ns;
        record.flags = flag::LISTEN;
        record.flow.remote = Addr::v4(peer);
        record.listener.accepts = accepts;
        record.listener.last_accept_ns = 1;
        record
    }

    fn after(records: &[Record]) -> (Lately, Record) {
        let mut lately = Lately::default();
        records.iter().for_each(|record| lately.note(record));
        (lately, records[records.len() - 1])
    }

    #[test]
    fn a_listener_has_its_drops_peers_and_accepts() {
        let drops: Vec<Record> =
            (0..40).map(|i| drop_at(SECOND + i * SECOND / 10, (i % 4) as u32, 100 + i)).collect();
        let (lately, last) = after(&drops);
        let listener = lately.listener(&last).unwrap();
        assert_eq!((listener.drops, listener.peers, listener.accepts), (40, 4, Some(39)));
        assert_eq!(listener.over_ns, 39 * SECOND / 10);
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let (lately, last) = after(&[drop_at(SECOND, 1, 0), drop_at(30 * SECOND, 2, 0)]);
        let listener = lately.listener(&last).unwrap();
        assert_eq!((listener.drops, listener.peers), (1, 1));
        assert_eq!(listener.accepts, None, "one sample is no rate");
    }

    #[test]
    fn a_window_is_at_most_two_halves() {
        let drops: Vec<Record> = (0..60).map(|i| drop_at(SECOND + i * SECOND, 1, i)).collect();
        let (lately, last) = after(&drops);
        let listener = lately.listener(&last).unwrap();
        assert!(listener.over_ns <= 2 * HALF_NS && listener.over_ns >= HALF_NS, "{}", listener.over_ns);
        assert!((5..=10).contains(&listener.drops), "{}", listener.drops);
    }

    #[test]
    fn cookies_can_come_back_for_two_minutes() {
        let mut cookie = drop_at(SECOND, 1, 0);
        cookie.listen.passed = passed::COOKIE;
        let (lately, _) = after(&[cookie]);
        let age = |at: u64| lately.listener(&drop_at(at, 1, 0)).unwrap().cookie_age_ns;
        assert_eq!(age(100 * SECOND), Some(99 * SECOND));
        assert_eq!(age(130 * SECOND), None);
    }

    #[test]
    fn refusals_are_counted_by_namespace() {
        let mut refused = samples::record(kind::TW_OVERFLOW, hook::INET_TWSK_ALLOC);
        refused.flags = flag::TIME_WAIT;
        refused.timewait = TimeWait { used: 50, max: 50, substate: 6, pad: 0 };
        let (lately, last) = after(&[refused, refused, refused]);
        let namespace = lately.namespace(&last).unwrap();
        assert_eq!((namespace.refusals, namespace.table.map(|table| table.max)), (3, Some(50)));
        let mut elsewhere = last;
        elsewhere.flow.netns += 1;
        assert_eq!(lately.namespace(&elsewhere), None);
    }

    #[test]
    fn a_flood_of_listeners_and_peers_stays_bounded() {
        let mut lately = Lately::default();
        for i in 0..2_000u64 {
            let mut record = drop_at(SECOND + i, i as u32, 0);
            record.flow.local_port = (i % 1_000) as u16;
            lately.note(&record);
            record.flow.local_port = 80;
            lately.note(&record);
        }
        assert!(lately.listeners.len() <= LISTENERS);
        let peers = lately.listeners.values().map(|window| window.halves.now.peers.len()).max();
        assert!(peers.is_some_and(|peers| peers <= MANY));
    }
}
