//! What the screen shows: counts by cause, listener and process, and the latest events. Bounded, however much happens.

use crate::cli::Wanted;
use crate::event::{Event, EventKind, Lost, OwnerInfo, Standing, Start};
use smol_str::SmolStr;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Events kept to be looked at.
const KEPT: usize = 10_000;
/// Processes, causes and listeners kept. The one that was seen longest ago makes room.
const ROWS: usize = 2_000;
/// Seconds of a trend.
pub(super) const TREND: usize = 60;
/// Seconds that a rate is taken over.
const RATE: usize = 10;
const SECOND: u64 = 1_000_000_000;

/// Counts of the last seconds.
#[derive(Clone, Debug)]
pub(super) struct Trend {
    counts: [u64; TREND],
    /// The second that the newest count is for.
    second: u64,
}

impl Default for Trend {
    fn default() -> Self {
        Self { counts: [0; TREND], second: 0 }
    }
}

impl Trend {
    fn add(&mut self, second: u64, count: u64) {
        self.move_to(second);
        let age = usize::try_from(self.second.saturating_sub(second)).unwrap_or(usize::MAX);
        if age < TREND {
            self.counts[TREND - 1 - age] += count;
        }
    }

    fn move_to(&mut self, second: u64) {
        let by = usize::try_from(second.saturating_sub(self.second)).unwrap_or(usize::MAX).min(TREND);
        self.counts.rotate_left(by % TREND);
        self.counts[TREND - by..].fill(0);
        self.second = self.second.max(second);
    }

    /// Oldest first, as seen from a second.
    pub(super) fn at(&self, second: u64) -> [u64; TREND] {
        let mut moved = self.clone();
        moved.move_to(second);
        moved.counts
    }

    /// A second, over the last ten that are over.
    pub(super) fn rate(&self, second: u64) -> f64 {
        let counts = self.at(second);
        counts[TREND - 1 - RATE..TREND - 1].iter().sum::<u64>() as f64 / RATE as f64
    }
}

/// What happened for one reason.
#[derive(Clone, Debug)]
pub(super) struct CauseRow {
    pub(super) id: &'static str,
    pub(super) kind: EventKind,
    pub(super) count: u64,
    pub(super) trend: Trend,
    pub(super) last: Arc<Event>,
}

/// What happened to one process.
#[derive(Clone, Debug)]
pub(super) struct ProcessRow {
    pub(super) pid: Option<u32>,
    pub(super) comm: SmolStr,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) refused: u64,
    /// Sockets left in CLOSE_WAIT, when last told.
    pub(super) close_wait: u64,
    pub(super) trend: Trend,
    pub(super) last: Arc<Event>,
}

impl ProcessRow {
    pub(super) fn total(&self) -> u64 {
        self.sent + self.received + self.refused + self.close_wait
    }
}

/// A listener, as it stands and as events tell.
#[derive(Clone, Debug, Default)]
pub(super) struct ListenerRow {
    pub(super) netns: u32,
    pub(super) local: String,
    pub(super) owner: Option<OwnerInfo>,
    pub(super) len: u32,
    pub(super) max: Option<u32>,
    pub(super) peak: u32,
    pub(super) refused: u64,
    pub(super) trend: Trend,
    /// Lengths of the queue, one for each look.
    pub(super) lengths: VecDeque<u64>,
    stands: bool,
}

/// Totals of the run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) events: u64,
    pub(super) lost: u64,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) start: Option<Start>,
    pub(super) host: String,
    pub(super) totals: Totals,
    pub(super) trend: Trend,
    pub(super) events: VecDeque<Arc<Event>>,
    causes: HashMap<(EventKind, &'static str), CauseRow>,
    processes: HashMap<(Option<u32>, u64, SmolStr), ProcessRow>,
    listeners: HashMap<(u32, String), ListenerRow>,
    /// Nanoseconds since 1970 of the latest thing that is known.
    pub(super) now_ns: u64,
    first_ns: u64,
    filter: Wanted,
    /// Events that the filter does not want, of those kept.
    unwanted: VecDeque<Arc<Event>>,
}

fn second(time_ns: u64) -> u64 {
    time_ns / SECOND
}

impl Model {
    pub(super) fn second(&self) -> u64 {
        second(self.now_ns)
    }

    /// How long it watches, in seconds.
    pub(super) fn watched(&self) -> u64 {
        second(self.now_ns.saturating_sub(self.first_ns))
    }

    pub(super) fn tick(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
    }

    pub(super) fn start(&mut self, start: Start, host: String) {
        self.first_ns = start.time_ns;
        self.tick(start.time_ns);
        self.start = Some(start);
        self.host = host;
    }

    pub(super) fn lost(&mut self, lost: &Lost) {
        self.tick(lost.time_ns);
        self.totals.lost += lost.count;
    }

    pub(super) fn event(&mut self, event: &Arc<Event>) {
        self.tick(event.time_ns);
        if self.first_ns == 0 {
            self.first_ns = event.time_ns;
        }
        self.totals.events += amount(event);
        let place = if self.filter.admits(event) { &mut self.events } else { &mut self.unwanted };
        place.push_back(Arc::clone(event));
        if place.len() > KEPT {
            place.pop_front();
        }
        if self.filter.admits(event) {
            self.count(event);
        }
    }

    fn count(&mut self, event: &Arc<Event>) {
        let at = second(event.time_ns);
        self.trend.add(at, amount(event));
        if let Some(cause) = &event.cause {
            make_room(&mut self.causes, |row| row.last.time_ns);
            let row = self.causes.entry((event.kind, cause.id)).or_insert_with(|| CauseRow {
                id: cause.id,
                kind: event.kind,
                count: 0,
                trend: Trend::default(),
                last: Arc::clone(event),
            });
            row.count += amount(event);
            row.trend.add(at, amount(event));
            row.last = Arc::clone(event);
        }
        if let Some(owner) = &event.owner {
            make_room(&mut self.processes, |row| row.last.time_ns);
            let (pid, start) = owner.identity();
            let key = (pid, start, owner.comm.clone());
            let row = self.processes.entry(key).or_insert_with(|| ProcessRow {
                pid: owner.pid,
                comm: owner.comm.clone(),
                sent: 0,
                received: 0,
                refused: 0,
                close_wait: 0,
                trend: Trend::default(),
                last: Arc::clone(event),
            });
            match event.kind {
                EventKind::RstSent => row.sent += event.count,
                EventKind::RstReceived => row.received += event.count,
                EventKind::ListenDrop | EventKind::TwOverflow => row.refused += event.count,
                EventKind::CloseWaitLeak => row.close_wait = event.count,
                _ => {}
            }
            row.trend.add(at, amount(event));
            row.last = Arc::clone(event);
        }
        if event.kind == EventKind::ListenDrop {
            self.refused(event, at);
        }
    }

    /// A listener turned somebody away.
    fn refused(&mut self, event: &Event, at: u64) {
        let netns = event.netns.unwrap_or(0);
        let stands = |name: &str| self.listeners.get(&(netns, name.to_owned())).is_some_and(|row| row.stands);
        let Some(name) = event.listener(stands) else { return };
        make_room(&mut self.listeners, |row| row.trend.second);
        let row = self.listeners.entry((netns, name.clone())).or_insert_with(|| ListenerRow {
            netns,
            local: name,
            ..ListenerRow::default()
        });
        row.refused += event.count;
        row.trend.add(at, event.count);
        if row.owner.is_none() {
            row.owner.clone_from(&event.owner);
        }
        if let Some(listen) = event.listen.filter(|listen| listen.queue == Some(crate::event::Queue::Accept))
        {
            row.len = listen.len;
            row.max = Some(listen.max);
            row.peak = row.peak.max(listen.len);
        }
    }

    pub(super) fn standing(&mut self, all: &[Standing]) {
        self.listeners.values_mut().for_each(|row| row.stands = false);
        for one in all {
            for listener in &one.listeners {
                let local = listener.local.to_string();
                make_room(&mut self.listeners, |row| row.trend.second);
                let row = self.listeners.entry((one.netns, local.clone())).or_insert_with(|| ListenerRow {
                    netns: one.netns,
                    local,
                    ..ListenerRow::default()
                });
                row.owner = listener.owner.clone().or(row.owner.take());
                row.len = listener.len;
                row.max = listener.max.or(row.max);
                row.peak = row.peak.max(listener.len);
                row.stands = true;
                row.lengths.push_back(u64::from(listener.len));
                if row.lengths.len() > TREND {
                    row.lengths.pop_front();
                }
            }
        }
        // A listener that has gone stays only if something happened to it.
        self.listeners.retain(|_, row| row.stands || row.refused > 0);
    }

    /// From now on only this, of what is kept and of what comes.
    pub(super) fn set_filter(&mut self, filter: Wanted) {
        self.filter = filter;
        let mut all: Vec<_> = self.events.drain(..).chain(self.unwanted.drain(..)).collect();
        all.sort_by_key(|event| event.mono_ns);
        self.causes.clear();
        self.processes.clear();
        self.trend = Trend::default();
        for row in self.listeners.values_mut() {
            (row.refused, row.trend) = (0, Trend::default());
        }
        for event in all {
            if self.filter.admits(&event) {
                self.count(&event);
                self.events.push_back(event);
            } else {
                self.unwanted.push_back(event);
            }
        }
    }

    /// Most at present first, then most in all.
    pub(super) fn causes(&self) -> Vec<&CauseRow> {
        let now = self.second();
        let mut rows: Vec<_> = self.causes.values().map(|row| (lately(&row.trend, now), row)).collect();
        rows.sort_by(|(a_rate, a), (b_rate, b)| {
            b_rate.cmp(a_rate).then(b.count.cmp(&a.count)).then(a.id.cmp(b.id)).then(a.kind.cmp(&b.kind))
        });
        rows.into_iter().map(|(_, row)| row).collect()
    }

    pub(super) fn processes(&self) -> Vec<&ProcessRow> {
        let now = self.second();
        let mut rows: Vec<_> = self.processes.values().map(|row| (lately(&row.trend, now), row)).collect();
        rows.sort_by(|(a_rate, a), (b_rate, b)| {
            let more = b_rate.cmp(a_rate).then(b.total().cmp(&a.total()));
            more.then_with(|| a.comm.cmp(&b.comm)).then(a.pid.cmp(&b.pid))
        });
        rows.into_iter().map(|(_, row)| row).collect()
    }

    /// Those that turn somebody away first, then the fullest.
    pub(super) fn listeners(&self) -> Vec<&ListenerRow> {
        let mut rows: Vec<_> = self.listeners.values().collect();
        rows.sort_by(|a, b| {
            let more = b.refused.cmp(&a.refused).then(b.len.cmp(&a.len)).then(b.peak.cmp(&a.peak));
            more.then_with(|| a.local.cmp(&b.local)).then(a.netns.cmp(&b.netns))
        });
        rows
    }
}

/// How much happened: the sockets of a leak are held, told again and again.
fn amount(event: &Event) -> u64 {
    if event.kind == EventKind::CloseWaitLeak { 1 } else { event.count }
}

/// Of the last ten seconds.
fn lately(trend: &Trend, now: u64) -> u64 {
    trend.at(now)[TREND - RATE..].iter().sum()
}

fn make_room<K: Clone + Eq + std::hash::Hash, V>(rows: &mut HashMap<K, V>, age: impl Fn(&V) -> u64) {
    if rows.len() < ROWS {
        return;
    }
    let oldest = rows.iter().min_by_key(|(_, row)| age(row)).map(|(key, _)| key.clone());
    if let Some(key) = oldest {
        rows.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::view::tests::{crowd, drop_at, leak};

    #[test]
    fn a_trend_forgets_what_is_older_than_a_minute() {
        let mut trend = Trend::default();
        trend.add(100, 5);
        trend.add(103, 7);
        trend.add(101, 2);
        let counts = trend.at(103);
        assert_eq!(counts[TREND - 4..], [5, 2, 0, 7]);
        assert_eq!(trend.at(160)[2], 7);
        assert_eq!(trend.at(1_000).iter().sum::<u64>(), 0);
        trend.add(30, 9);
        assert_eq!(trend.at(103).iter().sum::<u64>(), 14, "too late to be counted");
        assert!((trend.rate(104) - 1.4).abs() < 1e-9);
    }

    #[test]
    fn a_refused_connection_belongs_to_the_listener_on_all_addresses() {
        let mut model = Model::default();
        crowd(&mut model);
        let before = model.listeners().len();
        model.event(&Arc::new(drop_at("10.9.0.1:80", 3)));
        let rows = model.listeners();
        assert_eq!(rows.len(), before);
        let row = rows.iter().find(|row| row.local == "0.0.0.0:80").unwrap();
        assert!(row.refused >= 3, "{row:?}");
    }

    #[test]
    fn a_filter_counts_anew_and_takes_nothing_away() {
        let mut model = Model::default();
        crowd(&mut model);
        let (events, causes) = (model.events.len(), model.causes().len());
        model.set_filter(Wanted::parse("nginx").unwrap());
        assert!(model.events.len() < events && !model.events.is_empty());
        assert!(model.processes().iter().all(|row| row.comm == "nginx"));
        model.set_filter(Wanted::default());
        assert_eq!((model.events.len(), model.causes().len()), (events, causes));
    }

    #[test]
    fn a_leak_stands_for_what_is_held_now() {
        let mut model = Model::default();
        model.event(&Arc::new(leak(40)));
        model.event(&Arc::new(leak(12)));
        assert_eq!(model.processes()[0].close_wait, 12);
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut model = Model::default();
        for number in 0..3 * KEPT as u32 {
            let mut event = leak(1);
            event.owner.as_mut().unwrap().pid = Some(number);
            model.event(&Arc::new(event));
        }
        assert_eq!(model.events.len(), KEPT);
        assert!(model.processes.len() <= ROWS);
    }
}
