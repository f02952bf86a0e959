//! Looks for sockets left in CLOSE_WAIT, now and then.

use super::clock::Clock;
use super::standing::flow;
use crate::diagnose::leak::{self, Before, Held, Holder, Leak, Since, Unread};
use crate::host::descriptors::Descriptors;
use crate::host::inet::{self, Waiting};
use crate::host::{Host, netns, user_stack};
use crate::source::Live;
use anyhow::Result;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};
use tcpwatch_common::filter::Filter;
use tcpwatch_common::flow::Flow;
use tcpwatch_common::owner::{Life, Step, how};

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
    host: Host,
    filter: Filter,
    after: Duration,
    next: Instant,
    /// In CLOSE_WAIT since before tcpwatch looked, by inode.
    early: Vec<(u64, Held)>,
    told: HashMap<Holder, Told>,
}

impl Leaks {
    pub(super) fn new(host: &Host, filter: Filter, after: Duration, early: Vec<(u64, Held)>) -> Self {
        Self { host: host.clone(), filter, after, next: Instant::now(), early, told: HashMap::new() }
    }

    /// More sockets that may have been there before tcpwatch.
    pub(super) fn add_early(&mut self, early: Vec<(u64, Held)>) {
        self.early.extend(early);
    }

    /// When it is time for a look: the leaks that are to be told now. One of each process, first when it is found and then
    /// each time that another `--close-wait-after` has passed.
    pub(super) fn due(&mut self, live: &Live) -> Result<Vec<(Holder, Leak)>> {
        let now = Instant::now();
        if now < self.next {
            return Ok(Vec::new());
        }
        self.next = now + (self.after / 4).clamp(SOONEST, LATEST);
        let mono_ns = Clock::read().mono_ns;
        let mut sockets = Sockets::default();
        self.drop_closed(&mut sockets);
        let after_ns = u64::try_from(self.after.as_nanos()).unwrap_or(u64::MAX);
        let mut all = self.held(live)?;
        all.retain(|held| mono_ns.saturating_sub(held.since.ns()) >= after_ns);
        sockets.drop_unaccepted(&self.host, &mut all);
        let leaks = leak::group(&all, mono_ns, after_ns);
        self.told.retain(|holder, _| leaks.iter().any(|(other, _)| other == holder));
        let mut due = Vec::new();
        for (holder, mut leak) in leaks {
            let told = self.told.get(&holder);
            if told.is_some_and(|told| now.saturating_duration_since(told.at) < self.after) {
                continue;
            }
            leak.before = told.map(|told| told.before);
            leak.descriptors = leak
                .owner
                .as_ref()
                .and_then(|owner| Descriptors::of(&self.host.proc, owner.pid?))
                .map(|descriptors| (u64::from(descriptors.used), descriptors.limit));
            leak.unread = sockets.unread(&self.host, &leak);
            leak.stack = live.keeps_read_stacks().then(|| self.stack(live, &leak).unwrap_or_default());
            self.told.insert(holder, Told { before: Before { count: leak.count, at_ns: mono_ns }, at: now });
            due.push((holder, leak));
        }
        Ok(due)
    }

    /// Of the sockets that were there before tcpwatch, those that are not in CLOSE_WAIT any more.
    fn drop_closed(&mut self, sockets: &mut Sockets) {
        let spaces: HashSet<u32> = self.early.iter().map(|(_, held)| held.flow.netns).collect();
        for netns in spaces {
            // A look that failed says nothing.
            let Some(there) = sockets.of(&self.host, netns) else { continue };
            let there: HashSet<u64> = there.iter().map(|waiting| waiting.inode).collect();
            self.early.retain(|(inode, held)| held.flow.netns != netns || there.contains(inode));
        }
    }

    /// Where the process read the oldest socket last.
    fn stack(&self, live: &Live, leak: &Leak) -> Option<Vec<String>> {
        let owner = leak.owner.as_ref()?;
        let addresses = live.read_stack(leak.read_stack?)?;
        user_stack::frames(&self.host.proc, owner.pid?, owner.start_ns, &addresses)
    }

    /// Every socket in CLOSE_WAIT that the filter admits.
    fn held(&self, live: &Live) -> Result<Vec<Held>> {
        let seen = live.close_wait()?.into_iter().filter_map(|life: Life| {
            let since = life.memory.history().last().map(Step::at_ns)?;
            Some(Held {
                flow: life.flow,
                owner: life.memory.owner,
                since: Since::Exactly(since),
                read_stack: life.read_stack.checked_sub(1),
            })
        });
        let seen: Vec<Held> = seen.collect();
        // A namespace that was looked at late shows sockets whose transition was seen, too.
        let known: HashSet<Flow> = seen.iter().map(|held| held.flow).collect();
        let early = self.early.iter().map(|(_, held)| *held).filter(|held| !known.contains(&held.flow));
        let admitted = |held: &Held| self.filter.admits_owner(&held.flow, &held.owner);
        Ok(early.chain(seen.iter().copied()).filter(admitted).collect())
    }
}

/// The sockets in CLOSE_WAIT as the kernel lists them now, by namespace; each is asked for once a look.
#[derive(Default)]
struct Sockets(BTreeMap<u32, Option<Vec<Waiting>>>);

impl Sockets {
    /// `None`: the namespace cannot be looked at now, or not all of it was seen.
    fn of(&mut self, host: &Host, netns: u32) -> Option<&[Waiting]> {
        let look = || {
            let namespace = netns::list(host).into_iter().find(|namespace| namespace.inode == netns)?;
            let view = inet::look(host, &namespace).ok()?;
            view.sockets.complete.then_some(view.sockets.close_wait)
        };
        self.0.entry(netns).or_insert_with(look).as_deref()
    }

    /// What waits in a listener's queue has no descriptor yet: nobody could close it, and it is no leak.
    fn drop_unaccepted(&mut self, host: &Host, held: &mut Vec<Held>) {
        let inherited = |one: &Held| one.owner.how == how::LISTENER;
        let spaces: HashSet<u32> =
            held.iter().filter(|one| inherited(one)).map(|one| one.flow.netns).collect();
        for netns in spaces {
            let Some(listed) = self.of(host, netns) else { continue };
            let queued = listed.iter().filter(|waiting| waiting.inode == 0);
            let queued: HashSet<Flow> = queued.map(|waiting| flow(waiting, netns)).collect();
            held.retain(|one| !inherited(one) || !queued.contains(&one.flow));
        }
    }

    /// How far the process has read its sockets.
    fn unread(&mut self, host: &Host, leak: &Leak) -> Option<Unread> {
        let flows: HashSet<&Flow> = leak.flows.iter().collect();
        let mut sum = Unread::default();
        for waiting in self.of(host, leak.netns)? {
            if flows.contains(&flow(waiting, leak.netns)) {
                sum.read_to_the_end += u64::from(waiting.end_read);
                sum.not_read += u64::from(!waiting.end_read);
                sum.bytes += u64::from(waiting.unread);
            }
        }
        (sum.read_to_the_end + sum.not_read > 0).then_some(sum)
    }
}
