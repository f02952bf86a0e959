//! One run: what is attached, what is known, and the loop over both.
//!
//! It runs at its own pace. Records wait in the kernel's ring buffer and are drained in batches by the clock, so that no event
//! wakes anybody up on the host that is being watched.

mod report;

use super::clock::Clock;
use super::leaks::Leaks;
use super::owners::{complete, describe, name_owners};
use super::standing;
use super::stop::Stop;
use super::storms::Storms;
use super::{is_closed_pipe, told};
use crate::cli::{Attach, Exit, WatchOptions};
use crate::decode::{Raw, decode};
use crate::diagnose::lately::{Around, Lately};
use crate::diagnose::leak::Holder;
use crate::diagnose::{self, Context as Meaning, lifetimes};
use crate::event::{self, CauseCount, Event, HookBooks, Reconciliation, Start, Summary, Tables};
use crate::host::books::Books;
use crate::host::inet;
use crate::host::netns::Namespace;
use crate::host::preflight::{self, HookStatus};
use crate::host::process::Processes;
use crate::host::{Host, seed};
use crate::kernel::hooks::Rung;
use crate::kernel::shape::Shape;
use crate::kernel::symbols::Symbols;
use crate::recording::Recorder;
use crate::sink::{Shown, Sink};
use crate::source::{Live, Settings};
use anyhow::{Result, bail};
use foldhash::{HashMap, HashMapExt};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tcpwatch_common::config::deliver;
use tcpwatch_common::counters::HookCounters;
use tcpwatch_common::hook;

/// Between two looks at an empty ring buffer: short enough to find the process of a short command still alive.
const PACE: Duration = Duration::from_millis(20);
/// Records drained, and time spent on them, before signals, clocks and leaks are looked at again. What a record needs from
/// the host (its process, the settings of its namespace) can take milliseconds where both are new.
const BATCH: usize = 4096;
const TURN: Duration = Duration::from_millis(100);
/// Records between two looks at the clock, which takes a tenth of what a record does.
const CLOCK_PACE: u32 = 8;
/// Between two looks at what was lost.
const LOSS_PACE: Duration = Duration::from_secs(1);
/// Longer than any program runs, unless its task has to wait for a CPU in the middle of it.
const SETTLE: Duration = Duration::from_millis(10);
/// How often to wait that long for a program that is in the middle of its account.
const SETTLE_TRIES: u32 = 100;
/// How long to look at namespaces before the records are drained again: a fraction of what the ring buffer holds.
const LOOK_ON: Duration = Duration::from_millis(100);
/// Rows of lifetimes in the summary.
const LIFETIMES: usize = 50;

/// Whether the ring buffer was found empty.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drained {
    All,
    Partly,
}

/// A run: everything between the kernel and the sink.
pub(super) struct Run {
    live: Live,
    shape: Shape,
    symbols: Symbols,
    processes: Processes,
    books: Books,
    started: Instant,
    shown: u64,
    causes: HashMap<&'static str, u64>,
    /// Nanoseconds of the monotonic clock between which every hook was attached.
    since: u64,
    until: u64,
    /// Records that are not shown, by hook: calls of `tcp_reset` that were no RSTs, what came while hooks were missing, and
    /// what came after the last event that `-c` asked for.
    unshown: BTreeMap<u8, u64>,
    /// Events for which the reader had no room, by hook: lost like those for which the ring buffer had none.
    untaken: BTreeMap<u8, u64>,
    malformed: u64,
    /// Losses that were told, of either kind.
    lost: BTreeMap<u8, u64>,
    recorder: Option<Recorder>,
    lately: Lately,
    storms: Storms,
    /// Calls of `accept()` are seen.
    sees_accepts: bool,
    /// Ended connections that made room for others, when last looked.
    forgotten: u64,
    /// Runs of the programs that the kernel had left out, when last looked.
    missed: u64,
    /// `None`: leaks were not asked for.
    leaks: Option<Leaks>,
    /// Leaks that the reader is still to be told of, the latest of each process.
    untold: VecDeque<(Holder, Event)>,
    /// Settings of the namespaces that have events.
    settings: inet::Cache,
    host: Host,
    /// Namespaces that there was no time for at the start.
    rest: Vec<Namespace>,
    /// Who held what when tcpwatch started.
    seed: seed::Seed,
}

impl Run {
    pub(super) fn start(
        options: &WatchOptions,
        host: &Host,
        sink: &mut dyn Sink,
        stop: &Stop,
    ) -> Result<Self> {
        let facts = preflight::Facts::read(host, options.btf.is_some());
        let findings = preflight::judge(&facts);
        if let Some(fatal) = findings.iter().find(|finding| finding.fatal && !finding.ok) {
            bail!("{}: {}\nhint: {}", fatal.what, fatal.effect, fatal.hint);
        }
        let shape = Shape::load(options.btf.as_deref())?;
        let settings = Settings {
            deliver: options.deliver,
            filter: options.filter,
            buffer: options.buffer,
            sockets: options.sockets,
            ended: options.ended,
            seeds: seed::expected(host),
            storm: options.storm,
            stacks: options.stack,
            read_stacks: options.stack && options.deliver & deliver::LEAK != 0,
            only: match options.attach {
                Attach::Auto => None,
                Attach::Fentry => Some(Rung::Fentry),
                Attach::Kprobe => Some(Rung::Kprobe),
                Attach::Tracepoint | Attach::Raw => Some(Rung::Tracepoint),
            },
            // Who wants breakpoints alone wants what a host without types of its own grants.
            typed: !matches!(options.attach, Attach::Kprobe | Attach::Raw),
            stop: Arc::clone(&stop.asked),
        };
        let mut live = Live::start(&shape, &settings)?;
        let books = Books::open(host, || live.netns_counters());
        if let Some(note) = live.unexpected() {
            eprintln!("tcpwatch: {note}");
        }
        let seed = seed::scan(host);
        live.seed(&seed)?;
        for note in seed::notes(&seed, &host.proc) {
            eprintln!("tcpwatch: {note}");
        }
        let now = Clock::read();
        let start = Start {
            mono_ns: now.mono_ns,
            time_ns: now.wall_ns,
            version: crate::VERSION.to_owned(),
            kernel: crate::kernel::release(),
            hooks: live.status().iter().map(status).collect(),
        };
        let mut run = Self {
            sees_accepts: live.is_attached(hook::INET_CSK_ACCEPT),
            live,
            shape,
            symbols: Symbols::none(),
            processes: Processes::new(host),
            books,
            started: Instant::now(),
            shown: 0,
            causes: HashMap::new(),
            since: now.mono_ns,
            until: u64::MAX,
            unshown: BTreeMap::new(),
            untaken: BTreeMap::new(),
            malformed: 0,
            lost: BTreeMap::new(),
            recorder: Recorder::from_environment()?,
            lately: Lately::default(),
            storms: Storms::new(),
            forgotten: 0,
            missed: 0,
            leaks: None,
            untold: VecDeque::new(),
            settings: inet::Cache::new(host),
            rest: Vec::new(),
            host: host.clone(),
            seed,
        };
        let greeted = run.greet(&start, options, sink);
        // Not sooner: on the same core it would keep the hooks and the first line waiting.
        run.symbols = Symbols::load();
        match greeted {
            Err(error) if !is_closed_pipe(&error) => Err(told(error)),
            _ => Ok(run),
        }
    }

    /// The first answer: what is attached, and what is wrong already.
    fn greet(&mut self, start: &Start, options: &WatchOptions, sink: &mut dyn Sink) -> Result<()> {
        sink.start(start)?;
        // At once: whoever waits for it need not wait for the rest.
        sink.flush()?;
        let leaks = options.deliver & deliver::LEAK != 0;
        if leaks || sink.judges() {
            let look = standing::look(&self.host, &self.seed, options.filter.netns);
            let standing::Look { mut standing, close_wait, unseen, rest } = look;
            for why in &unseen {
                eprintln!("tcpwatch: {why}");
            }
            self.name(&mut standing);
            self.rest = rest;
            if leaks {
                let leaks = Leaks::new(&self.host, options.filter, options.close_wait_after, close_wait);
                self.leaks = Some(leaks);
            }
            self.report_leaks(sink)?;
            sink.standing(&standing)?;
            sink.flush()?;
        }
        Ok(())
    }

    pub(super) async fn watch(
        mut self,
        options: &WatchOptions,
        sink: &mut dyn Sink,
        mut stop: Stop,
    ) -> Result<Exit> {
        let deadline = options.duration.map(|duration| self.started + duration);
        let mut next_loss = Instant::now() + LOSS_PACE;
        let mut looked = Instant::now();
        loop {
            // Until the names of the kernel's functions are read the first records wait, so that everything else goes on meanwhile.
            let drained = if self.symbols.ready() { self.drain(options, sink)? } else { Drained::All };
            for name in self.live.attach_late() {
                eprintln!("tcpwatch: {name} is attached now: its module was loaded");
            }
            self.look_on();
            self.report_leaks(sink)?;
            if sink.looks_again().is_some_and(|pace| looked.elapsed() >= pace) {
                sink.standing(&self.standing(options))?;
                looked = Instant::now();
            }
            if Instant::now() >= next_loss {
                self.report_storms(options, sink, false)?;
                self.report_losses(sink)?;
                next_loss = Instant::now() + LOSS_PACE;
            }
            sink.flush()?;
            if sink.over() || options.count.is_some_and(|count| self.shown >= count) {
                break;
            }
            let wait = match deadline {
                Some(deadline) if Instant::now() >= deadline => break,
                Some(deadline) => PACE.min(deadline - Instant::now()),
                None => PACE,
            };
            let wait = if drained == Drained::Partly { Duration::ZERO } else { wait };
            tokio::select! {
                biased;
                _ = stop.signals.called() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.close(options, sink)
    }

    fn drain(&mut self, options: &WatchOptions, sink: &mut dyn Sink) -> Result<Drained> {
        let until = Instant::now() + TURN;
        let attached = self.since..=self.until;
        let around = self.around();
        let Self {
            live,
            shape,
            symbols,
            processes,
            causes,
            unshown,
            untaken,
            malformed,
            lately,
            storms,
            shown,
            recorder,
            settings,
            ..
        } = self;
        let clock = Clock::read();
        let meaning = Meaning {
            names: &shape.reasons,
            symbols,
            wall_offset_ns: clock.offset_ns(),
            want_stack: options.stack,
            around,
        };
        let limit = options
            .count
            .map_or(BATCH, |count| BATCH.min(usize::try_from(count.saturating_sub(*shown)).unwrap_or(BATCH)));
        let mut written = Ok(());
        let mut recorded = Ok(());
        let now = Cell::new(Instant::now());
        let mut count = 0_u32;
        let mut go_on = || {
            if count.is_multiple_of(CLOCK_PACE) {
                now.set(Instant::now());
            }
            count += 1;
            now.get() < until
        };
        let drained = live.drain(limit, &mut go_on, |bytes| {
            if written.is_err() {
                return;
            }
            if let Some(recorder) = recorder
                && let Err(error) = recorder.take(bytes, symbols)
            {
                recorded = Err(error);
            }
            let (hook, event) = match decode(bytes) {
                Ok(Raw::Event(record)) if !attached.contains(&record.mono_ns) => {
                    *unshown.entry(record.hook).or_default() += 1;
                    return;
                }
                Ok(Raw::State(record)) if !attached.contains(&record.mono_ns) => {
                    *unshown.entry(record.hook).or_default() += 1;
                    return;
                }
                Ok(Raw::Event(record)) => {
                    lately.note(record);
                    storms.note(record);
                    let resident = (record.present.owner.pid != 0).then_some(record.present.owner.pid);
                    let settings = settings.settings_at(record.flow.netns, resident, now.get());
                    let settings = settings.unwrap_or_default();
                    let around = Around { settings, ..lately.around(record, &meaning.around) };
                    match diagnose::interpret(record, &Meaning { around, ..meaning }) {
                        Some(event) => (record.hook, event),
                        None => {
                            *unshown.entry(record.hook).or_default() += 1;
                            return;
                        }
                    }
                }
                Ok(Raw::State(record)) => (record.hook, diagnose::interpret_state(record, &meaning)),
                Err(_) => {
                    *malformed += 1;
                    return;
                }
            };
            let event = complete(event, processes, now.get());
            match sink.event(&event) {
                Ok(Shown::Yes) => {
                    if let Some(cause) = &event.cause {
                        *causes.entry(cause.id).or_default() += event.count;
                    }
                    *shown += 1;
                }
                Ok(Shown::No) => *untaken.entry(hook).or_default() += 1,
                Err(error) => written = Err(error),
            }
        });
        written?;
        recorded?;
        let drained = drained?;
        // With a limit of 0 nothing more is wanted.
        Ok(if drained || limit == 0 { Drained::All } else { Drained::Partly })
    }

    /// Looks at more of the namespaces that there was no time for at the start.
    fn look_on(&mut self) {
        let Some(leaks) = self.leaks.as_mut().filter(|_| !self.rest.is_empty()) else { return };
        let until = Instant::now() + LOOK_ON;
        let mut look = standing::Look::default();
        while let Some(namespace) = self.rest.pop() {
            look.at(&self.host, &namespace, &self.seed);
            if Instant::now() > until {
                break;
            }
        }
        leaks.add_early(look.close_wait);
        for why in look.unseen {
            eprintln!("tcpwatch: {why}");
        }
    }

    /// What the host looks like now, with the owners of listeners.
    fn standing(&mut self, options: &WatchOptions) -> Vec<event::Standing> {
        let mut standing = standing::look(&self.host, &self.seed, options.filter.netns).standing;
        self.name(&mut standing);
        standing
    }

    /// Whose listeners these are: of those that are younger than the run, the programs know it.
    fn name(&mut self, all: &mut [event::Standing]) {
        for one in &mut *all {
            for listener in one.listeners.iter_mut().filter(|listener| listener.owner.is_none()) {
                let known = self.live.listens(one.netns, listener.local.port);
                listener.owner = known.and_then(|owner| diagnose::owner::info(&owner));
            }
        }
        name_owners(all, &mut self.processes);
    }

    /// What is known around every event.
    fn around(&self) -> Around {
        Around {
            sees_accepts: self.sees_accepts,
            since_ns: self.since,
            forgotten: self.forgotten,
            missed: self.missed,
            ..Around::default()
        }
    }

    /// Everything in the ring: shown as far as `-c` allows, counted in any case.
    fn empty(&mut self, options: &WatchOptions, sink: &mut dyn Sink) -> Result<()> {
        while self.drain(options, sink)? == Drained::Partly {}
        let Self { live, unshown, malformed, .. } = self;
        live.drain(usize::MAX, &mut || true, |bytes| match decode(bytes) {
            Ok(Raw::Event(record)) => *unshown.entry(record.hook).or_default() += 1,
            Ok(Raw::State(record)) => *unshown.entry(record.hook).or_default() += 1,
            Err(_) => *malformed += 1,
        })?;
        Ok(())
    }

    /// How long the connections lived that ended lately, as far as the filter admits them.
    fn lifetimes(&mut self, options: &WatchOptions) -> Result<Vec<event::Lifetimes>> {
        let mut admitted = lifetimes::Gathered::default();
        self.live.ended(|flow, memory| {
            if options.filter.admits_owner(flow, &memory.owner) {
                admitted.add(flow, memory);
            }
        })?;
        let mut rows = admitted.rows(LIFETIMES);
        for owner in rows.iter_mut().filter_map(|row| row.owner.as_mut()) {
            describe(owner, &mut self.processes, Instant::now());
        }
        Ok(rows)
    }

    fn tables(&self) -> Tables {
        let (sizes, counters) = (self.live.sizes(), self.live.tables());
        Tables {
            sockets: sizes.sockets,
            sockets_seen: counters.live_added,
            sockets_forgotten: counters.live_forgotten,
            ended: sizes.ended,
            ended_seen: counters.dead_added,
            ended_forgotten: counters.dead_forgotten,
        }
    }

    /// The counters, once the programs at work on other CPUs have finished.
    fn settle(&self) -> Result<Vec<(u8, HookCounters)>> {
        for _ in 0..SETTLE_TRIES {
            std::thread::sleep(SETTLE);
            let counters = self.live.counters()?;
            if counters.iter().all(|(_, row)| row.balanced()) {
                return Ok(counters);
            }
        }
        self.live.counters()
    }

    /// Has the programs stop, so that nothing moves any more; then what is left in the ring, then the books. The programs are
    /// taken off last, when the summary is out: that can take seconds.
    fn close(mut self, options: &WatchOptions, sink: &mut dyn Sink) -> Result<Exit> {
        let watched = self.started.elapsed();
        self.until = Clock::read().mono_ns;
        let explained = self.live.netns_counters();
        let reconciled = self.books.reconcile(&explained);
        if sink.judges() {
            sink.standing(&self.standing(options))?;
        }
        let missed: BTreeMap<u8, u64> = self.live.missed().into_iter().collect();
        self.live.close()?;
        sink.closing();
        self.empty(options, sink)?;
        let counters = self.settle()?;
        self.empty(options, sink)?;
        self.report_storms(options, sink, true)?;
        self.report_losses(sink)?;
        self.tell_leaks(sink)?;
        let lost = counters.iter().map(|(_, row)| row.lost).sum::<u64>()
            + self.untaken.values().sum::<u64>()
            + missed.values().sum::<u64>()
            + self.malformed;
        let clock = Clock::read();
        let mut causes: Vec<CauseCount> = self
            .causes
            .iter()
            .map(|(id, count)| CauseCount { id: (*id).to_owned(), count: *count })
            .collect();
        causes.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.id.cmp(&b.id)));
        let summary = Summary {
            mono_ns: clock.mono_ns,
            time_ns: clock.wall_ns,
            watched_ns: u64::try_from(watched.as_nanos()).unwrap_or(u64::MAX),
            hooks: counters
                .into_iter()
                .filter(|(id, row)| row.seen != 0 || missed.contains_key(id))
                .map(|(id, mut row)| {
                    // These were handed over all the same.
                    let of = |all: &BTreeMap<u8, u64>| all.get(&id).copied().unwrap_or(0);
                    let (unshown, untaken) = (of(&self.unshown), of(&self.untaken));
                    row.delivered = row.delivered.saturating_sub(unshown + untaken);
                    row.filtered += unshown;
                    row.lost += untaken;
                    HookBooks {
                        name: hook::name(id).unwrap_or("unnamed").to_owned(),
                        counters: row,
                        missed: missed.get(&id).copied().unwrap_or(0),
                    }
                })
                .collect(),
            netns: reconciled
                .into_iter()
                .filter(|row| options.filter.netns == 0 || row.netns == options.filter.netns)
                .filter(|row| row.explained != 0 || row.kernel.is_some_and(|count| count != 0))
                .map(|row| Reconciliation {
                    netns: row.netns,
                    counter: row.counter.to_owned(),
                    kernel: row.kernel,
                    explained: row.explained,
                })
                .collect(),
            causes,
            lifetimes: self.lifetimes(options)?,
            tables: self.tables(),
        };
        if let Some(recorder) = self.recorder.take() {
            recorder.finish()?;
        }
        sink.summary(&summary)?;
        sink.flush()?;
        if self.malformed != 0 {
            eprintln!("tcpwatch: {} records could not be read: please report this as a bug", self.malformed);
        }
        Ok(if options.strict && lost != 0 { Exit::Lost } else { Exit::Ok })
    }
}

fn status(hook: &HookStatus) -> event::HookStatus {
    let refused = || {
        let tried: Vec<String> = hook.tried.iter().map(|(how, why)| format!("{how}: {why}")).collect();
        tried.join("; ")
    };
    event::HookStatus {
        name: hook.name.clone(),
        attached: hook.attached.clone().ok_or_else(refused),
        sees: hook.attached.is_none().then(|| hook.loses.clone()),
    }
}
