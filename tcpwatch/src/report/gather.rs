//! What the page needs of a capture. Each table is bounded: what is beyond it is counted as "others".

use crate::capture::Host;
use crate::event::{Event, EventKind, Lost, OwnerInfo, Standing, Start};
use crate::verdict::Collector;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Columns of a plot. When time runs over the last one, two become one.
pub(super) const COLUMNS: usize = 240;
/// Rows of a table of processes, peers, listeners.
const ROWS: usize = 4_096;
/// Events of a cause that are told in full.
pub(super) const EXAMPLES: usize = 3;
const MILLISECOND: u64 = 1_000_000;

/// Time along a plot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Nanoseconds since 1970.
    pub(super) begin_ns: u64,
    /// Of a column.
    pub(super) width_ns: u64,
    /// Columns in use.
    pub(super) used: usize,
}

impl Axis {
    /// Of all columns in use.
    pub(super) fn end_ns(&self) -> u64 {
        self.begin_ns + self.width_ns * self.used as u64
    }
}

/// One value for each column.
pub(super) type Series = [u64; COLUMNS];

/// Counts by a key, of which there may be too many.
#[derive(Clone, Debug)]
pub(super) struct Counts<K> {
    rows: HashMap<K, u64>,
    pub(super) others: u64,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self { rows: HashMap::new(), others: 0 }
    }
}

impl<K: Eq + Hash + Ord + Clone> Counts<K> {
    fn add(&mut self, key: &K, count: u64) {
        if let Some(row) = self.rows.get_mut(key) {
            *row += count;
        } else if self.rows.len() < ROWS {
            self.rows.insert(key.clone(), count);
        } else {
            self.others += count;
        }
    }

    /// Not less than that.
    fn raise(&mut self, key: &K, count: u64) {
        if let Some(row) = self.rows.get_mut(key) {
            *row = (*row).max(count);
        }
    }

    fn sum(&self) -> u64 {
        self.rows.values().sum::<u64>() + self.others
    }

    /// The largest, and how many there are more and what they count.
    pub(super) fn top(&self, most: usize) -> (Vec<(&K, u64)>, usize, u64) {
        let mut rows: Vec<_> = self.rows.iter().map(|(key, count)| (key, *count)).collect();
        rows.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
        rows.retain(|(_, count)| *count > 0);
        let rest = rows.split_off(most.min(rows.len()));
        let count = rest.iter().map(|(_, count)| count).sum::<u64>() + self.others;
        (rows, rest.len(), count)
    }
}

/// Everything of one cause.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    pub(super) count: u64,
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
    pub(super) series: Box<Series>,
    pub(super) owners: Counts<String>,
    pub(super) peers: Counts<String>,
    pub(super) states: Counts<&'static str>,
    pub(super) sites: Counts<String>,
    /// The first, the one of which most is known, the last.
    pub(super) examples: Vec<Event>,
}

/// A listener over time.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) owner: Option<OwnerInfo>,
    pub(super) max: Option<u32>,
    /// Longest queue of each column, plus 1; 0: not known.
    pub(super) lengths: Box<Series>,
    pub(super) refused: Box<Series>,
    pub(super) total: u64,
}

/// What happened to a process.
#[derive(Clone, Debug, Default)]
pub(super) struct Process {
    pub(super) owner: Option<OwnerInfo>,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) refused: u64,
    pub(super) close_wait: u64,
    pub(super) causes: Counts<&'static str>,
}

/// Everything.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) file: String,
    pub(super) host: Host,
    pub(super) start: Option<Start>,
    pub(super) axis: Axis,
    pub(super) events: u64,
    pub(super) causes: BTreeMap<(EventKind, &'static str), Cause>,
    /// By namespace and address.
    pub(super) listeners: BTreeMap<(u32, String), Listener>,
    pub(super) processes: HashMap<(Option<u32>, u64, String), Process>,
    pub(super) other_processes: u64,
    pub(super) standing: Vec<Standing>,
    pub(super) lost: BTreeMap<String, u64>,
    pub(super) collector: Collector,
    last_ns: u64,
}

fn series() -> Box<Series> {
    Box::new([0; COLUMNS])
}

/// Two columns become one.
fn fold(series: &mut Series, join: impl Fn(u64, u64) -> u64) {
    for at in 0..COLUMNS / 2 {
        series[at] = join(series[2 * at], series[2 * at + 1]);
    }
    series[COLUMNS / 2..].fill(0);
}

/// How much an event tells.
fn weight(event: &Event) -> usize {
    let evidence = event.cause.as_ref().map_or(0, |cause| cause.evidence.len());
    2 * event.history.len()
        + evidence
        + usize::from(event.owner.is_some()) * 3
        + usize::from(event.packet.is_some())
}

impl Gathered {
    pub(super) fn new(file: String, host: Host) -> Self {
        Self {
            file,
            host,
            start: None,
            axis: Axis { begin_ns: 0, width_ns: 10 * MILLISECOND, used: 0 },
            events: 0,
            causes: BTreeMap::new(),
            listeners: BTreeMap::new(),
            processes: HashMap::new(),
            other_processes: 0,
            standing: Vec::new(),
            lost: BTreeMap::new(),
            collector: Collector::default(),
            last_ns: 0,
        }
    }

    pub(super) fn start(&mut self, start: &Start) {
        // A capture of several files says it in each.
        if self.start.is_none() {
            self.start = Some(start.clone());
            self.column(start.time_ns);
        }
    }

    /// The column of a moment; the plots grow with it.
    fn column(&mut self, time_ns: u64) -> usize {
        if self.axis.begin_ns == 0 {
            self.axis.begin_ns = time_ns;
        }
        self.last_ns = self.last_ns.max(time_ns);
        let since = time_ns.saturating_sub(self.axis.begin_ns);
        while since / self.axis.width_ns >= COLUMNS as u64 {
            self.axis.width_ns *= 2;
            self.axis.used = self.axis.used.div_ceil(2);
            for cause in self.causes.values_mut() {
                fold(&mut cause.series, |a, b| a + b);
            }
            for listener in self.listeners.values_mut() {
                fold(&mut listener.lengths, u64::max);
                fold(&mut listener.refused, |a, b| a + b);
            }
        }
        let at = usize::try_from(since / self.axis.width_ns).unwrap_or(COLUMNS - 1);
        self.axis.used = self.axis.used.max(at + 1);
        at
    }

    pub(super) fn event(&mut self, event: &Event) {
        let at = self.column(event.time_ns);
        self.collector.take(event);
        self.events += event.count;
        self.count(event, at);
        self.process(event);
        if event.kind == EventKind::ListenDrop {
            self.refused(event, at);
        }
    }

    fn count(&mut self, event: &Event, at: usize) {
        // What has no cause by its nature has a row of its own.
        let id = event.cause.as_ref().map_or(event.kind.name(), |cause| cause.id);
        let row = self.causes.entry((event.kind, id)).or_insert_with(|| Cause {
            count: 0,
            first_ns: event.time_ns,
            last_ns: event.time_ns,
            series: series(),
            owners: Counts::default(),
            peers: Counts::default(),
            states: Counts::default(),
            sites: Counts::default(),
            examples: Vec::new(),
        });
        row.last_ns = event.time_ns;
        // Of a leak the same sockets are told again and again: the most that was held.
        let leak = event.kind == EventKind::CloseWaitLeak;
        if leak {
            row.series[at] = row.series[at].max(event.count);
        } else {
            row.count += event.count;
            row.series[at] += event.count;
        }
        let count = if leak { 0 } else { event.count };
        let owner = event.owner.as_ref().map_or_else(|| "nobody is known".to_owned(), named);
        row.owners.add(&owner, count);
        if leak {
            row.owners.raise(&owner, event.count);
            row.count = row.owners.sum();
        }
        if let Some(remote) = event.remote {
            row.peers.add(&remote.addr.to_string(), count);
        }
        if let Some(state) = event.state {
            row.states.add(&state, count);
        }
        if let Some(site) = &event.site {
            row.sites.add(&site.to_string(), count);
        }
        match row.examples.len() {
            0..EXAMPLES => row.examples.push(event.clone()),
            _ if weight(event) > weight(&row.examples[1]) => row.examples[1] = event.clone(),
            _ => row.examples[EXAMPLES - 1] = event.clone(),
        }
    }

    fn process(&mut self, event: &Event) {
        let Some(owner) = &event.owner else { return };
        let (pid, start) = owner.identity();
        let key = (pid, start, owner.comm.to_string());
        if self.processes.len() >= ROWS && !self.processes.contains_key(&key) {
            self.other_processes += 1;
            return;
        }
        let row = self.processes.entry(key).or_default();
        if row.owner.is_none() {
            row.owner = Some(owner.clone());
        }
        match event.kind {
            EventKind::RstSent => row.sent += event.count,
            EventKind::RstReceived => row.received += event.count,
            EventKind::ListenDrop | EventKind::TwOverflow => row.refused += event.count,
            EventKind::CloseWaitLeak => row.close_wait = row.close_wait.max(event.count),
            _ => return,
        }
        if let Some(cause) = &event.cause {
            row.causes.add(&cause.id, event.count);
        }
    }

    fn listener(&mut self, netns: u32, local: &str) -> Option<&mut Listener> {
        let key = (netns, local.to_owned());
        if self.listeners.len() >= ROWS && !self.listeners.contains_key(&key) {
            return None;
        }
        Some(self.listeners.entry(key).or_insert_with(|| Listener {
            owner: None,
            max: None,
            lengths: series(),
            refused: series(),
            total: 0,
        }))
    }

    fn refused(&mut self, event: &Event, at: usize) {
        let netns = event.netns.unwrap_or(0);
        let stands = |name: &str| self.listeners.contains_key(&(netns, name.to_owned()));
        let Some(name) = event.listener(stands) else { return };
        let Some(row) = self.listener(netns, &name) else { return };
        row.total += event.count;
        row.refused[at] += event.count;
        row.owner = row.owner.take().or_else(|| event.owner.clone());
        if let Some(listen) = event.listen.filter(|listen| listen.queue == Some(crate::event::Queue::Accept))
        {
            row.max = Some(listen.max);
            row.lengths[at] = row.lengths[at].max(u64::from(listen.len) + 1);
        }
    }

    pub(super) fn stand(&mut self, all: &[Standing]) {
        self.collector.stand(all);
        let at = all.first().map_or(0, |one| self.column(one.time_ns));
        for one in all {
            for listener in &one.listeners {
                let Some(row) = self.listener(one.netns, &listener.local.to_string()) else { continue };
                row.owner = listener.owner.clone().or_else(|| row.owner.take());
                row.max = listener.max.or(row.max);
                row.lengths[at] = row.lengths[at].max(u64::from(listener.len) + 1);
            }
        }
        self.standing = all.to_vec();
    }

    pub(super) fn lost(&mut self, lost: &Lost) {
        self.column(lost.time_ns);
        *self.lost.entry(lost.hook.clone()).or_default() += lost.count;
    }
}

/// A process by its name and number.
pub(super) fn named(owner: &OwnerInfo) -> String {
    match &owner.container {
        Some(container) => format!("{} in container {container}", owner.named()),
        None => owner.named(),
    }
}
