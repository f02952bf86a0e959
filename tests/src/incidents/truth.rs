//! What is true about an incident, held against what tcpwatch said and what the kernel counted.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::scene::Seen;
use super::verdict::{self, Verdict};
use crate::judge::books;

/// So many events of another cause are shown when some are missing.
const SHOWN: usize = 3;

/// What an incident knows about itself.
pub(super) struct Truth {
    pub(super) events: Vec<Event>,
    pub(super) counters: Vec<(&'static str, RangeInclusive<u64>)>,
    /// What leads the diagnosis.
    pub(super) verdict: Verdict,
}

/// A kind of event that has to be there so many times.
pub(super) struct Event {
    event: &'static str,
    cause: &'static str,
    times: RangeInclusive<u64>,
    owner: Option<(Vec<i32>, String)>,
    local_port: Option<u16>,
    remote_port: Option<u16>,
    stage: Option<&'static str>,
    /// What else the event has to say: a JSON pointer and its value.
    says: Vec<(&'static str, Value)>,
    /// Without this hook nobody can see it.
    hook: Option<&'static str>,
}

impl Event {
    pub(super) fn new(event: &'static str, cause: &'static str, times: RangeInclusive<u64>) -> Self {
        let (owner, local_port, remote_port, stage) = (None, None, None, None);
        Self { event, cause, times, owner, local_port, remote_port, stage, says: Vec::new(), hook: None }
    }

    /// Each of them belongs to one of these processes.
    pub(super) fn owner(mut self, pids: &[i32], comm: &str) -> Self {
        self.owner = Some((pids.to_vec(), comm.to_owned()));
        self
    }

    pub(super) fn local_port(mut self, port: u16) -> Self {
        self.local_port = Some(port);
        self
    }

    pub(super) fn remote_port(mut self, port: u16) -> Self {
        self.remote_port = Some(port);
        self
    }

    /// Only those at this stage of a handshake.
    pub(super) fn stage(mut self, stage: &'static str) -> Self {
        self.stage = Some(stage);
        self
    }

    pub(super) fn says(mut self, pointer: &'static str, value: impl Into<Value>) -> Self {
        self.says.push((pointer, value.into()));
        self
    }

    pub(super) fn hook(mut self, name: &'static str) -> Self {
        self.hook = Some(name);
        self
    }

    fn is_like(&self, event: &Value) -> bool {
        let port = |side: &str, wanted: Option<u16>| {
            wanted.is_none_or(|port| event[side]["port"].as_u64() == Some(port.into()))
        };
        event["event"] == self.event
            && event["cause"]["id"] == self.cause
            && self.stage.is_none_or(|stage| event["listen"]["stage"] == stage)
            && port("local", self.local_port)
            && port("remote", self.remote_port)
    }

    /// What is wrong with the events of this kind.
    fn judge(&self, seen: &Seen) -> Vec<String> {
        let like: Vec<_> = seen.events.iter().filter(|event| self.is_like(event)).collect();
        let times = sum(&like);
        let named = format!("{} with cause {}", self.event, self.cause);
        let mut wrong = Vec::new();
        if !self.times.contains(&times) {
            wrong.push(format!(
                "{times} events {named}, not {}; there were: {}",
                range(&self.times),
                kinds(&seen.events)
            ));
            let others =
                seen.events.iter().filter(|event| event["event"] == self.event && !self.is_like(event));
            wrong.extend(others.take(SHOWN).map(|event| format!("instead: {event}")));
        }
        if let Some((pids, comm)) = &self.owner {
            let theirs = |event: &&&Value| {
                let owner = &event["owner"];
                owner["comm"] == comm.as_str()
                    && owner["pid"].as_i64().is_some_and(|pid| pids.iter().any(|one| i64::from(*one) == pid))
            };
            let others: Vec<_> = like.iter().filter(|event| !theirs(event)).collect();
            if let Some(first) = others.first() {
                wrong.push(format!(
                    "{} of {times} events {named} do not belong to {comm} {pids:?}; the first to {}",
                    others.len(),
                    first["owner"]
                ));
            }
        }
        for (pointer, value) in &self.says {
            let other = like.iter().find(|event| event.pointer(pointer) != Some(value));
            if let Some(other) = other {
                wrong.push(format!(
                    "an event {named} says {:?} at {pointer}, not {value}",
                    other.pointer(pointer)
                ));
            }
        }
        wrong
    }
}

/// How many happenings these events stand for.
fn sum(events: &[&Value]) -> u64 {
    events.iter().map(|event| event["count"].as_u64().unwrap_or(1)).sum()
}

pub(super) fn range(range: &RangeInclusive<u64>) -> String {
    match (range.start(), *range.end()) {
        (start, u64::MAX) => format!("at least {start}"),
        (start, end) if *start == end => format!("{start}"),
        (start, end) => format!("{start} to {end}"),
    }
}

/// All kinds of events with their numbers, for messages.
pub(super) fn kinds(events: &[Value]) -> String {
    let mut kinds = std::collections::BTreeMap::<_, u64>::new();
    for event in events {
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let kind = (word(&event["event"]), word(&event["cause"]["id"]), word(&event["owner"]["comm"]));
        *kinds.entry(kind).or_default() += event["count"].as_u64().unwrap_or(1);
    }
    let kinds =
        kinds.iter().map(|((event, cause, comm), count)| format!("{count} {event} {cause} of {comm}"));
    kinds.collect::<Vec<_>>().join(", ")
}

impl Truth {
    /// Everything that is wrong; and what could not be judged, because this host does not grant a hook.
    pub(super) fn judge(&self, seen: &Seen) -> (Vec<String>, Vec<String>) {
        let (mut wrong, mut unseen) = (Vec::new(), Vec::new());
        for (name, growth) in &self.counters {
            let grown = seen.growth(name);
            if !growth.contains(&grown) {
                wrong.push(format!("the kernel's {name} grew by {grown}, not by {}", range(growth)));
            }
        }
        for event in &self.events {
            match event.hook.filter(|hook| !attached(&seen.start, hook)) {
                Some(hook) => unseen.push(format!("{} needs {hook}", event.event)),
                None => wrong.extend(event.judge(seen)),
            }
        }
        for (name, said) in crate::judge::BOOKS.iter().zip(books(seen.events.iter())) {
            let kernel = seen.grown(name);
            if said > *kernel.end() || said < *kernel.start() && unseen.is_empty() {
                wrong.push(format!("the kernel counted {name} {}, the events say {said}", range(&kernel)));
            }
        }
        wrong.extend(verdict::books(seen, unseen.is_empty()));
        wrong.extend(if unseen.is_empty() { self.verdict.judge(seen) } else { verdict::honest(seen) });
        (wrong, unseen)
    }
}

fn attached(start: &Value, hook: &str) -> bool {
    start["hooks"][hook]["attached"].is_string()
}
