//! What is wrong on this host: events gathered into verdicts, ranked by the harm they do. Pure: events in, verdicts out.
//!
//! A verdict stands for all events with one cause, of one program and one service in one network namespace. Verdicts that
//! explain each other are joined ([`together`]).

mod group;
mod standing;
mod together;

use crate::diagnose::catalog;
use crate::event::{Certainty, Endpoint, Event, EventKind, Lifetimes, OwnerInfo, Standing, Summary};
use group::{Group, Key};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

pub use crate::diagnose::catalog::Harm;

/// Verdicts that are kept apart; what comes beyond is counted in one verdict per cause.
const GROUPS: usize = 1_024;
/// RSTs received that wait for the other end.
const WAITING: usize = 4_096;
/// Flows of RSTs sent, kept to recognise their other end.
const FLOWS: usize = 16_384;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Id in the catalogue.
    pub cause: &'static str,
    /// Causes that are a part of it, or follow from it.
    pub with: Vec<&'static str>,
    pub certainty: Certainty,
    pub harm: Harm,
    /// Events it stands for; sockets, for a leak.
    pub count: u64,
    /// How many, what: no full stop.
    pub title: String,
    /// Processes, most events first.
    pub who: Vec<Party>,
    pub netns: Option<u32>,
    /// Sockets of this host that it is about: the listener, or the server that a client talks to.
    pub services: Vec<String>,
    /// Peers, most events first; some of them.
    pub peers: Vec<(IpAddr, u64)>,
    /// How many peers there are; at least, if `peers_more`.
    pub peer_count: usize,
    pub peers_more: bool,
    /// How it comes about, in a sentence each.
    pub why: Vec<String>,
    /// What that rests on, with figures.
    pub evidence: Vec<String>,
    /// What to change, best first.
    pub fix: Vec<String>,
    /// Nanoseconds since 1970; 0 for what was found and did not happen while tcpwatch watched.
    pub first_ns: u64,
    pub last_ns: u64,
}

/// A process that has a part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    pub owner: OwnerInfo,
    pub count: u64,
}

/// Everything that was gathered.
#[derive(Debug, Default)]
pub struct Collector {
    groups: HashMap<Key, Group>,
    /// By the flow of an RST sent: the verdict that has it.
    sent: HashMap<(Endpoint, Endpoint), Key>,
    /// RSTs received whose other end may yet turn out to be on this host: a segment is told of where it arrives before it is
    /// told of where it was sent.
    received: VecDeque<Event>,
    standing: Vec<Standing>,
}

impl Collector {
    /// Takes an event. Transitions and dropped segments are no verdicts.
    pub fn take(&mut self, event: &Event) {
        if matches!(event.kind, EventKind::State | EventKind::Drop | EventKind::Retransmit) {
            return;
        }
        if event.kind == EventKind::RstReceived {
            self.received.push_back(event.clone());
            if self.received.len() > WAITING
                && let Some(oldest) = self.received.pop_front()
            {
                self.settle(&oldest);
            }
        } else {
            self.add(event);
        }
    }

    /// An RST received is a part of the verdict about the one that was sent, where both ends of a connection are on this host.
    fn settle(&mut self, event: &Event) {
        let ends = event.remote.zip(event.local);
        let sent = ends.and_then(|ends| self.sent.get(&ends));
        match sent.and_then(|key| self.groups.get_mut(key)) {
            Some(group) => group.other_ends += event.count,
            None => self.add(event),
        }
    }

    fn add(&mut self, event: &Event) {
        let Some(cause) = &event.cause else { return };
        let mut key = Key::of(event, cause.id);
        if self.groups.len() >= GROUPS && !self.groups.contains_key(&key) {
            key = Key::rest(cause.id);
        }
        self.remember(event, &key);
        self.groups.entry(key).or_default().add(event);
    }

    /// What namespaces look like, at the start and, if it can be had, at the end: the last look counts.
    pub fn stand(&mut self, standing: &[Standing]) {
        self.standing = standing.to_vec();
    }

    fn remember(&mut self, event: &Event, key: &Key) {
        let (EventKind::RstSent, Some(local), Some(remote)) = (event.kind, event.local, event.remote) else {
            return;
        };
        if self.sent.len() >= FLOWS {
            self.sent.clear();
        }
        self.sent.insert((local, remote), key.clone());
    }

    /// The verdicts, most harm first.
    pub fn verdicts(&self, watched_ns: u64, lifetimes: &[Lifetimes]) -> Vec<Verdict> {
        let mut verdicts: Vec<Verdict> =
            self.groups.iter().map(|(key, group)| group.verdict(key, watched_ns)).collect();
        for verdict in &mut verdicts {
            together::lifetimes(verdict, lifetimes);
        }
        standing::judge(&self.standing, &mut verdicts);
        let mut verdicts = together::join(verdicts);
        sort(&mut verdicts);
        verdicts
    }

    /// The verdicts at the end of a run.
    pub fn finish(&mut self, summary: &Summary) -> Vec<Verdict> {
        for event in std::mem::take(&mut self.received) {
            self.settle(&event);
        }
        let mut verdicts = self.verdicts(summary.watched_ns, &summary.lifetimes);
        verdicts.extend(standing::unseen(&summary.netns, &verdicts));
        sort(&mut verdicts);
        verdicts
    }
}

fn sort(verdicts: &mut [Verdict]) {
    verdicts.sort_by(|a, b| {
        b.harm
            .cmp(&a.harm)
            .then_with(|| b.count.cmp(&a.count))
            .then_with(|| (a.cause, &a.services).cmp(&(b.cause, &b.services)))
    });
}

/// The harm of a cause.
fn harm(id: &str) -> Harm {
    catalog::find(id).map_or(Harm::Noise, |spec| spec.harm)
}

/// `nginx[812]`.
fn name(owner: &OwnerInfo) -> String {
    match owner.pid {
        Some(pid) => format!("{}[{pid}]", owner.comm),
        None => owner.comm.to_string(),
    }
}

#[cfg(test)]
mod tests;
