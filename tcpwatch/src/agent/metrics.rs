//! Figures, as Prometheus takes them (OpenMetrics). What a series is kept by is bounded: a process or a listener beyond
//! `max-series` is counted as `other`, so that nothing grows with what happens on the host.

#[cfg(test)]
pub(super) mod tests;

use crate::event::{Event, EventKind, Lost, OwnerInfo, Standing, Start};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const OTHER: &str = "other";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reset {
    direction: &'static str,
    cause: String,
    /// The kernel function that decided.
    site: String,
    process: String,
    container: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Refused {
    listener: String,
    cause: String,
    queue: &'static str,
    action: &'static str,
    process: String,
    container: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Listener {
    listener: String,
    netns: u32,
    process: String,
    container: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Netns {
    netns: u32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Process {
    process: String,
    container: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    event: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Hook {
    hook: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Export {
    signal: &'static str,
    outcome: &'static str,
}

/// What became of a log record that was meant for the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The collector has it.
    Delivered,
    /// The collector turned it away.
    Rejected,
    /// It found no room in the queue, or the agent ended before the collector answered.
    Spilled,
}

type Seconds = Gauge<f64, AtomicU64>;

/// A process, by pid and start, in a namespace.
type Holder = (Option<u32>, u64, u32);

/// What is not a figure but decides about them.
#[derive(Debug, Default)]
struct State {
    resets: HashSet<(String, String)>,
    refused: HashSet<(String, String, String)>,
    time_waits: HashSet<(String, String)>,
    listeners: HashSet<(String, String, String)>,
    /// Sockets in CLOSE_WAIT by process: of each pid in each namespace how many, and when that was told.
    leaks: HashMap<(String, String), HashMap<Holder, (u64, Instant)>>,
    info: Option<(String, String)>,
}

/// All figures.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Mutex<Registry>,
    state: Mutex<State>,
    max_series: usize,
    resets: Family<Reset, Counter>,
    refused: Family<Refused, Counter>,
    time_wait_refused: Family<Process, Counter>,
    close_wait: Family<Process, Gauge>,
    queue: Family<Listener, Gauge>,
    limit: Family<Listener, Gauge>,
    time_wait: Family<Netns, Gauge>,
    time_wait_limit: Family<Netns, Gauge>,
    events: Family<Kind, Counter>,
    lost: Family<Hook, Counter>,
    attached: Family<Hook, Gauge>,
    unwritten: Counter,
    reloads: Family<Outcome, Counter>,
    exported: Family<Outcome, Counter>,
    exports: Family<Export, Counter>,
    export_queue: Gauge,
    lag: Seconds,
    started: Seconds,
}

/// Whether a key has a place among those that are kept, or gets one.
fn admits<K: Eq + Hash>(known: &mut HashSet<K>, key: K, most: usize) -> bool {
    known.contains(&key) || known.len() < most && known.insert(key)
}

fn names(owner: Option<&OwnerInfo>) -> (String, String) {
    let process = owner.map(|owner| owner.comm.to_string()).unwrap_or_default();
    let container =
        owner.and_then(|owner| owner.container.as_ref()).map(ToString::to_string).unwrap_or_default();
    (process, container)
}

impl Metrics {
    pub(super) fn new(max_series: usize) -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("tcpwatch")),
            state: Mutex::default(),
            max_series: max_series.max(1),
            resets: Family::default(),
            refused: Family::default(),
            time_wait_refused: Family::default(),
            close_wait: Family::default(),
            queue: Family::default(),
            limit: Family::default(),
            time_wait: Family::default(),
            time_wait_limit: Family::default(),
            events: Family::default(),
            lost: Family::default(),
            attached: Family::default(),
            unwritten: Counter::default(),
            reloads: Family::default(),
            exported: Family::default(),
            exports: Family::default(),
            export_queue: Gauge::default(),
            lag: Seconds::default(),
            started: Seconds::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = lock(&self.registry);
        let all = &mut *registry;
        all.register(
            "resets",
            "TCP RSTs sent and received, by cause and owner of the socket",
            self.resets.clone(),
        );
        all.register(
            "listen_drops",
            "Connections that a listener turned away, by cause",
            self.refused.clone(),
        );
        all.register(
            "time_wait_refused",
            "Sockets that were refused a TIME_WAIT slot, by owner",
            self.time_wait_refused.clone(),
        );
        all.register(
            "close_wait_sockets",
            "Sockets left in CLOSE_WAIT for longer than close-wait-after, by owner",
            self.close_wait.clone(),
        );
        all.register("listen_queue_length", "Connections that wait to be accepted", self.queue.clone());
        all.register("listen_queue_limit", "How many may wait, and one more", self.limit.clone());
        all.register(
            "time_wait_sockets",
            "TIME_WAIT slots in use, by network namespace",
            self.time_wait.clone(),
        );
        all.register(
            "time_wait_limit",
            "TIME_WAIT slots there are (net.ipv4.tcp_max_tw_buckets)",
            self.time_wait_limit.clone(),
        );
        all.register("events", "Events that were seen, by kind", self.events.clone());
        all.register("events_lost", "Events that found no room, by hook", self.lost.clone());
        all.register(
            "hook_attached",
            "Whether a hook is attached: what it sees is missing otherwise",
            self.attached.clone(),
        );
        all.register("journal_entries_lost", "Entries that the journal did not take", self.unwritten.clone());
        all.register("config_reloads", "How often the configuration was read again", self.reloads.clone());
        all.register(
            "otlp_log_records",
            "Log records for the collector, by what became of them",
            self.exported.clone(),
        );
        all.register("otlp_exports", "Requests to the collector, by signal", self.exports.clone());
        all.register(
            "otlp_queue_length",
            "Log records that wait for the collector",
            self.export_queue.clone(),
        );
        all.register_with_unit(
            "lag",
            "How long after it happened the latest event was counted",
            Unit::Seconds,
            self.lag.clone(),
        );
        all.register_with_unit(
            "start_time",
            "When the hooks were attached, since 1970",
            Unit::Seconds,
            self.started.clone(),
        );
    }

    /// The page that is scraped.
    pub(super) fn page(&self) -> Result<String, std::fmt::Error> {
        let mut page = String::new();
        encode(&mut page, &lock(&self.registry))?;
        Ok(page)
    }

    /// The same in the older format (text, 0.0.4), for whoever does not ask for the new one: a family has the name that its series have,
    /// and there are neither units nor an end.
    pub(super) fn plain_page(&self) -> Result<String, std::fmt::Error> {
        Ok(plain(&self.page()?))
    }

    pub(super) fn start(&self, start: &Start) {
        self.attached.clear();
        for hook in &start.hooks {
            self.attached
                .get_or_create(&Hook { hook: hook.name.clone() })
                .set(i64::from(hook.attached.is_ok()));
        }
        self.started.set(start.time_ns as f64 / 1e9);
        let mut state = lock(&self.state);
        if state.info.is_none() {
            state.info = Some((start.version.clone(), start.kernel.clone()));
            let labels = vec![("version", start.version.clone()), ("kernel", start.kernel.clone())];
            lock(&self.registry).register(
                "build",
                "What it is, and on which kernel it runs",
                Info::new(labels),
            );
        }
    }

    pub(super) fn event(&self, event: &Event) {
        self.events.get_or_create(&Kind { event: event.kind.name() }).inc_by(event.count);
        let now = crate::sink::time::now_ns();
        self.lag.set(now.saturating_sub(event.time_ns) as f64 / 1e9);
        let cause = event.cause.as_ref().map_or("", |cause| cause.id).to_owned();
        let (process, container) = names(event.owner.as_ref());
        match event.kind {
            EventKind::RstSent | EventKind::RstReceived => {
                let mut state = lock(&self.state);
                let known = admits(&mut state.resets, (process.clone(), container.clone()), self.max_series);
                drop(state);
                let (process, container) = bounded(known, process, container);
                self.resets
                    .get_or_create(&Reset {
                        direction: if event.kind == EventKind::RstSent { "sent" } else { "received" },
                        cause,
                        site: event.site.as_ref().map(ToString::to_string).unwrap_or_default(),
                        process,
                        container,
                    })
                    .inc_by(event.count);
            }
            EventKind::ListenDrop => self.refuse(event, cause, process, container),
            EventKind::TwOverflow => {
                let mut state = lock(&self.state);
                let known =
                    admits(&mut state.time_waits, (process.clone(), container.clone()), self.max_series);
                drop(state);
                let (process, container) = bounded(known, process, container);
                self.time_wait_refused.get_or_create(&Process { process, container }).inc_by(event.count);
            }
            EventKind::CloseWaitLeak => self.leak(event, process, container),
            EventKind::Drop | EventKind::State | EventKind::Retransmit => {}
        }
    }

    fn refuse(&self, event: &Event, cause: String, process: String, container: String) {
        let mut state = lock(&self.state);
        // Where it is bound, so that it has one name here and among the queues, whatever address clients asked for.
        let listener = event.listener(|_| false).unwrap_or_default();
        let key = (listener.clone(), process.clone(), container.clone());
        let known = admits(&mut state.refused, key, self.max_series);
        drop(state);
        let (process, container) = bounded(known, process, container);
        self.refused
            .get_or_create(&Refused {
                listener: if known { listener } else { OTHER.to_owned() },
                cause,
                queue: event.listen.and_then(|listen| listen.queue).map_or("", |queue| queue.name()),
                action: event.listen.map_or("", |listen| listen.action.name()),
                process,
                container,
            })
            .inc_by(event.count);
    }

    /// The event says how many sockets one process holds; of several with one name the sum is shown.
    fn leak(&self, event: &Event, process: String, container: String) {
        let mut state = lock(&self.state);
        let mut key = (process, container);
        if !state.leaks.contains_key(&key) && state.leaks.len() >= self.max_series {
            key = (OTHER.to_owned(), String::new());
        }
        let holder = event.owner.as_ref().map_or((None, 0), OwnerInfo::identity);
        let told = (event.count, Instant::now());
        state.leaks.entry(key).or_default().insert((holder.0, holder.1, event.netns.unwrap_or(0)), told);
        self.show_leaks(&state);
    }

    fn show_leaks(&self, state: &State) {
        let _page = lock(&self.registry);
        self.close_wait.clear();
        for ((process, container), holders) in &state.leaks {
            let sum = holders.values().map(|(count, _)| count).sum::<u64>();
            let labels = Process { process: process.clone(), container: container.clone() };
            self.close_wait.get_or_create(&labels).set(i64::try_from(sum).unwrap_or(i64::MAX));
        }
    }

    /// A leak that is told no more has ended.
    pub(super) fn sweep(&self, keeps: Duration) {
        let mut state = lock(&self.state);
        let before: usize = state.leaks.values().map(HashMap::len).sum();
        for holders in state.leaks.values_mut() {
            holders.retain(|_, (_, told)| told.elapsed() < keeps);
        }
        state.leaks.retain(|_, holders| !holders.is_empty());
        if state.leaks.values().map(HashMap::len).sum::<usize>() != before {
            self.show_leaks(&state);
        }
    }

    pub(super) fn standing(&self, all: &[Standing]) {
        let mut state = lock(&self.state);
        // Nobody is to see a page on which half of them are missing.
        let _page = lock(&self.registry);
        self.queue.clear();
        self.limit.clear();
        self.time_wait.clear();
        self.time_wait_limit.clear();
        for one in all {
            let netns = Netns { netns: one.netns };
            if let Some(table) = one.time_wait {
                self.time_wait.get_or_create(&netns).set(i64::from(table.used));
                self.time_wait_limit.get_or_create(&netns).set(i64::from(table.max));
            }
            for listener in &one.listeners {
                let (process, container) = names(listener.owner.as_ref());
                let local = listener.local.to_string();
                let key = (format!("{} {local}", one.netns), process.clone(), container.clone());
                // A gauge of others would be the sum of what has nothing to do with each other: those are left out.
                if !admits(&mut state.listeners, key, self.max_series) {
                    continue;
                }
                let labels = Listener { listener: local, netns: one.netns, process, container };
                self.queue.get_or_create(&labels).set(i64::from(listener.len));
                if let Some(max) = listener.max {
                    self.limit.get_or_create(&labels).set(i64::from(max));
                }
            }
        }
        if state.listeners.len() >= self.max_series {
            // Those that have gone make room.
            state.listeners.clear();
        }
    }

    pub(super) fn lost(&self, lost: &Lost) {
        self.lost.get_or_create(&Hook { hook: lost.hook.clone() }).inc_by(lost.count);
    }

    pub(super) fn unwritten(&self) {
        self.unwritten.inc();
    }

    pub(super) fn exported(&self, what: Delivery, count: u64) {
        let outcome = match what {
            Delivery::Delivered => "delivered",
            Delivery::Rejected => "rejected",
            Delivery::Spilled => "spilled",
        };
        self.exported.get_or_create(&Outcome { outcome }).inc_by(count);
    }

    pub(super) fn export(&self, signal: &'static str, well: bool) {
        let outcome = if well { "success" } else { "failure" };
        self.exports.get_or_create(&Export { signal, outcome }).inc();
    }

    pub(super) fn export_queue(&self, length: usize) {
        self.export_queue.set(i64::try_from(length).unwrap_or(i64::MAX));
    }

    pub(super) fn reloaded(&self, well: bool) {
        let outcome = if well { "success" } else { "failure" };
        self.reloads.get_or_create(&Outcome { outcome }).inc();
    }
}

fn plain(page: &str) -> String {
    // HELP stands in front of TYPE, which tells what the family is called.
    let types: HashMap<&str, &str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let named = |family: &str| match types.get(family).copied() {
        Some("counter") => format!("{family}_total"),
        Some("info") => format!("{family}_info"),
        _ => family.to_owned(),
    };
    let mut plain = String::with_capacity(page.len());
    for line in page.lines() {
        if let Some((family, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            plain += &format!("# HELP {} {help}\n", named(family));
        } else if let Some((family, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let kind = if kind == "info" { "gauge" } else { kind };
            plain += &format!("# TYPE {} {kind}\n", named(family));
        } else if !line.starts_with('#') {
            plain += line;
            plain.push('\n');
        }
    }
    plain
}

fn bounded(known: bool, process: String, container: String) -> (String, String) {
    if known { (process, container) } else { (OTHER.to_owned(), String::new()) }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
