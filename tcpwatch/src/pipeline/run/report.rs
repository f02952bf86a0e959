//! What a run tells by the clock, beside what the records say: leaks, storms, losses.

use super::super::clock::Clock;
use super::super::owners::complete;
use super::super::storms::{Due, stand_for};
use super::Run;
use crate::cli::WatchOptions;
use crate::diagnose::lately::{Around, Lately};
use crate::diagnose::{self, Context as Meaning};
use crate::event::{Event, Lost};
use crate::host::inet;
use crate::sink::{Shown, Sink};
use anyhow::Result;
use std::time::Instant;
use tcpwatch_common::hook;

impl Run {
    /// Processes that hold sockets in CLOSE_WAIT, as events.
    pub(super) fn report_leaks(&mut self, sink: &mut dyn Sink) -> Result<()> {
        let Some(leaks) = &mut self.leaks else { return Ok(()) };
        let due = leaks.due(&self.live)?;
        let clock = Clock::read();
        for (holder, leak) in due {
            let event = diagnose::leaked(&leak, clock.mono_ns, clock.wall_ns);
            self.untold.retain(|(other, _)| *other != holder);
            self.untold.push_back((holder, complete(event, &mut self.processes, Instant::now())));
        }
        self.tell_leaks(sink)
    }

    pub(super) fn tell_leaks(&mut self, sink: &mut dyn Sink) -> Result<()> {
        while let Some((_, event)) = self.untold.front() {
            if sink.event(event)? == Shown::No {
                break;
            }
            if let Some(cause) = &event.cause {
                *self.causes.entry(cause.id).or_default() += 1;
            }
            self.shown += 1;
            self.untold.pop_front();
        }
        Ok(())
    }

    /// What the kernel side only counted since the last look, as events that stand for many.
    pub(super) fn report_storms(
        &mut self,
        options: &WatchOptions,
        sink: &mut dyn Sink,
        at_the_end: bool,
    ) -> Result<()> {
        let due = self.storms.due(&self.live, at_the_end)?;
        if due.is_empty() {
            return Ok(());
        }
        let clock = Clock::read();
        let meaning = Meaning {
            names: &self.shape.reasons,
            symbols: &self.symbols,
            wall_offset_ns: clock.offset_ns(),
            want_stack: options.stack,
            around: self.around(),
        };
        for due in due {
            if options.count.is_some_and(|count| self.shown >= count) {
                break;
            }
            // A sample is missing where the ring buffer had no room for it. One comes in the next window, unless there is none.
            let explained = explain(&due, &meaning, &mut self.settings, &self.lately);
            let bare = || diagnose::bare(due.storm.key.kind(), due.storm.key.netns());
            let Some(mut event) = explained.or_else(|| at_the_end.then(bare)) else { continue };
            stand_for(&mut event, &due);
            (event.mono_ns, event.time_ns) = (clock.mono_ns, clock.wall_ns);
            let event = complete(event, &mut self.processes, Instant::now());
            if sink.event(&event)? == Shown::Yes {
                if let Some(cause) = &event.cause {
                    *self.causes.entry(cause.id).or_default() += event.count;
                }
                self.shown += 1;
                self.storms.told(&due);
            }
        }
        Ok(())
    }

    /// Losses since the last look, as events.
    pub(super) fn report_losses(&mut self, sink: &mut dyn Sink) -> Result<()> {
        let clock = Clock::read();
        self.forgotten = self.live.tables().dead_forgotten;
        self.missed = self.live.missed().iter().map(|(_, missed)| missed).sum();
        for (id, counters) in self.live.counters()? {
            let all = counters.lost + self.untaken.get(&id).copied().unwrap_or(0);
            let told = self.lost.entry(id).or_default();
            if all <= *told {
                continue;
            }
            let lost = Lost {
                mono_ns: clock.mono_ns,
                time_ns: clock.wall_ns,
                hook: hook::name(id).unwrap_or("unnamed").to_owned(),
                count: all - *told,
            };
            if sink.lost(&lost)? == Shown::Yes {
                *told = all;
            }
        }
        Ok(())
    }
}

/// What is known of the event that stands for a storm.
fn explain(due: &Due, meaning: &Meaning<'_>, settings: &mut inet::Cache, lately: &Lately) -> Option<Event> {
    let sample = due.sample.as_ref().filter(|_| meaning.symbols.ready())?;
    let resident = (sample.present.owner.pid != 0).then_some(sample.present.owner.pid);
    let settings = settings.settings(sample.flow.netns, resident).unwrap_or_default();
    let around = Around { settings, ..lately.around(sample, &meaning.around) };
    diagnose::interpret(sample, &Meaning { around, ..*meaning })
}
