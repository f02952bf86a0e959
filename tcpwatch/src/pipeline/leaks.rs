//! Looks for sockets left in CLOSE_WAIT, now and then.

use super::clock::Clock;
use crate::diagnose::leak::{self, Before, Held, Holder, Leak, Since};
use crate::source::Live;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tcpwatch_common::filter::Filter;
use tcpwatch_common::owner::{Life, Step};

/// Between two looks: a quarter of the time after which a socket counts, within these bounds. A look walks the table of the
/// living, so it is not for every moment.
const SOONEST: Duration = Duration::from_millis(500);
const LATEST: Duration = Duration::from_secs(15);

/// What was told of a process, and when.
#[derive(Clone, Copy, Debug)]
struct Told {
    before: Before,
    at: Instant,
}

/// The watch over sockets in CLOSE_WAIT.
#[derive(Debug)]
pub(super) struct Leaks {
    filter: Filter,
    after: Duration,
    next: Instant,
    /// In CLOSE_WAIT since before tcpwatch looked.
    early: Vec<Held>,
    told: HashMap<Holder, Told>,
}

impl Leaks {
    pub(super) fn new(filter: Filter, after: Duration, early: Vec<Held>) -> Self {
        Self { filter, after, next: Instant::now(), early, told: HashMap::new() }
    }

    /// When it is time for a look: the leaks that are to be told now. One of each process, first when it is found and then
    /// each time that another `--close-wait-after` has passed.
    pub(super) fn due(&mut self, live: &Live) -> Vec<Leak> {
        let now = Instant::now();
        if now < self.next {
            return Vec::new();
        }
        self.next = now + (self.after / 4).clamp(SOONEST, LATEST);
        let mono_ns = Clock::read().mono_ns;
        let all = self.held(live);
        let after_ns = u64::try_from(self.after.as_nanos()).unwrap_or(u64::MAX);
        let leaks = leak::group(&all, mono_ns, after_ns);
        self.told.retain(|holder, _| leaks.iter().any(|(other, _)| other == holder));
        let mut due = Vec::new();
        for (holder, mut leak) in leaks {
            let told = self.told.get(&holder);
            if told.is_some_and(|told| now.saturating_duration_since(told.at) < self.after) {
                continue;
            }
            leak.before = told.map(|told| told.before);
            self.told.insert(holder, Told { before: Before { count: leak.count, at_ns: mono_ns }, at: now });
            due.push(leak);
        }
        due
    }

    /// Every socket in CLOSE_WAIT that the filter admits.
    fn held(&self, live: &Live) -> Vec<Held> {
        let seen = live.close_wait().into_iter().filter_map(|life: Life| {
            let since = life.memory.history().last().map(Step::at_ns)?;
            Some(Held { flow: life.flow, owner: life.memory.owner, since: Since::Exactly(since) })
        });
        let admitted = |held: &Held| self.filter.admits_owner(&held.flow, &held.owner);
        self.early.iter().copied().chain(seen).filter(admitted).collect()
    }
}
