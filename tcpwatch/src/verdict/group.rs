//! The events of one verdict, summed up as they come.

use super::{Party, Verdict, harm, name};
use crate::diagnose::catalog;
use crate::event::{
    Cause, Certainty, Endpoint, Event, EventKind, ListenAction, ListenInfo, OwnerInfo, Pressure, Queue,
    Stage, TimeWaitInfo,
};
use smol_str::SmolStr;
use std::collections::HashMap;
use std::net::IpAddr;

/// Peers and processes that are told apart.
const TOLD_APART: usize = 512;
/// Of them, how many a verdict names.
const NAMED: usize = 5;

/// What events of one verdict have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    cause: &'static str,
    netns: Option<u32>,
    /// Name of the program: the workers of one service are one party to the reader.
    program: Option<SmolStr>,
    /// Port of the service, whichever side it is on.
    port: Option<u16>,
}

impl Key {
    pub(super) fn of(event: &Event, cause: &'static str) -> Self {
        let program = event.owner.as_ref().map(|owner| owner.comm.clone());
        // A full table has no port, and a process that does not close leaks sockets of all its services.
        let anywhere = matches!(cause, "tw-bucket-overflow" | "close-wait-leak");
        let port = if anywhere { None } else { service(event).map(|(port, _)| port) };
        Self { cause, netns: event.netns, program, port }
    }

    /// Where there are too many verdicts to be told apart.
    pub(super) fn rest(cause: &'static str) -> Self {
        Self { cause, netns: None, program: None, port: None }
    }
}

/// Port and address of the service that a connection belongs to: ours if we accepted, theirs if we connected.
fn service(event: &Event) -> Option<(u16, Endpoint)> {
    let local = event.local?;
    let connected = match event.owner.as_ref().map(|owner| owner.how) {
        Some("connect") => Some(true),
        Some("accept" | "listen" | "listener") => Some(false),
        _ => match event.history.first().map(|step| step.state) {
            Some("SYN_SENT") => Some(true),
            Some("SYN_RECV" | "LISTEN" | "NEW_SYN_RECV") => Some(false),
            _ => None,
        },
    };
    let Some(remote) = event.remote else { return Some((local.port, local)) };
    // Nothing tells: services have the lower port, nearly always.
    let theirs = connected.unwrap_or(remote.port < local.port && event.listen.is_none());
    Some(if theirs { (remote.port, remote) } else { (local.port, local) })
}

/// The events of one verdict.
#[derive(Debug, Default)]
pub(super) struct Group {
    kinds: HashMap<EventKind, u64>,
    who: HashMap<(Option<u32>, u64), (OwnerInfo, u64)>,
    services: HashMap<Endpoint, u64>,
    peers: HashMap<IpAddr, u64>,
    peers_more: bool,
    states: HashMap<&'static str, u64>,
    actions: HashMap<(Stage, ListenAction), u64>,
    pressures: HashMap<Pressure, u64>,
    longest: u32,
    listen: Option<ListenInfo>,
    timewait: Option<TimeWaitInfo>,
    /// The latest of those with the best evidence.
    example: Option<Event>,
    first_ns: u64,
    last_ns: u64,
    /// RSTs that were also received on this host, at the other end.
    pub(super) other_ends: u64,
    /// Sockets of each leaking process at the last look.
    leaking: HashMap<(Option<u32>, u64), u64>,
}

impl Group {
    pub(super) fn add(&mut self, event: &Event) {
        *self.kinds.entry(event.kind).or_default() += event.count;
        if let Some(owner) = &event.owner {
            let identity = owner.identity();
            if self.who.len() < TOLD_APART || self.who.contains_key(&identity) {
                let party = self.who.entry(identity).or_insert_with(|| (owner.clone(), 0));
                party.1 += event.count;
            }
        }
        if let Some((_, service)) = service(event)
            && (self.services.len() < TOLD_APART || self.services.contains_key(&service))
        {
            *self.services.entry(service).or_default() += event.count;
        }
        if let Some(peer) = event.remote.map(|remote| remote.addr) {
            if self.peers.len() < TOLD_APART || self.peers.contains_key(&peer) {
                *self.peers.entry(peer).or_default() += event.count;
            } else {
                self.peers_more = true;
            }
        }
        // The RSTs that follow a refusal meet whatever is there.
        let follows = event.kind == EventKind::RstSent && self.kinds.contains_key(&EventKind::TwOverflow);
        if let Some(state) = event.state.filter(|_| !follows) {
            *self.states.entry(state).or_default() += event.count;
        }
        if let Some(listen) = &event.listen {
            *self.actions.entry((listen.stage, listen.action)).or_default() += event.count;
            if let Some(pressure) = listen.pressure {
                *self.pressures.entry(pressure).or_default() += event.count;
            }
            self.longest = self.longest.max(listen.len);
            self.listen = Some(*listen);
        }
        self.timewait = event.timewait.or(self.timewait);
        if event.kind == EventKind::CloseWaitLeak {
            // The same sockets are told again and again.
            let identity = event.owner.as_ref().map_or((None, 0), |owner| owner.identity());
            self.leaking.insert(identity, event.count);
        }
        if self.first_ns == 0 {
            self.first_ns = event.time_ns;
        }
        self.last_ns = event.time_ns;
        let sure = |event: &Event| event.cause.as_ref().map_or(Certainty::Unknown, |cause| cause.certainty);
        // A refusal itself says more than the RST that follows from it.
        let rank = |event: &Event| (event.kind != EventKind::RstSent, sure(event));
        if self.example.as_ref().is_none_or(|old| rank(event) >= rank(old)) {
            self.example = Some(event.clone());
        }
    }

    fn total(&self) -> u64 {
        if !self.leaking.is_empty() {
            return self.leaking.values().sum();
        }
        // A refusal and the RST that it leads to are one loss.
        match self.kinds.get(&EventKind::TwOverflow) {
            Some(refusals) => *refusals,
            None => self.kinds.values().sum(),
        }
    }

    pub(super) fn verdict(&self, key: &Key, watched_ns: u64) -> Verdict {
        let count = self.total();
        let example = self.example.as_ref();
        let cause = example.and_then(|event| event.cause.as_ref());
        let title = self.title(key, count, cause);
        let mut why: Vec<String> =
            cause.map(|cause| cause.summary.clone()).filter(|why| *why != title).into_iter().collect();
        why.extend(self.pressure());
        let mut who: Vec<Party> =
            self.who.values().map(|(owner, count)| Party { owner: owner.clone(), count: *count }).collect();
        who.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.owner.pid.cmp(&b.owner.pid)));
        who.truncate(NAMED);
        let mut peers: Vec<(IpAddr, u64)> = self.peers.iter().map(|(addr, count)| (*addr, *count)).collect();
        peers.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let peer_count = peers.len();
        peers.truncate(NAMED);
        let mut services: Vec<(&Endpoint, &u64)> = self.services.iter().collect();
        services.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.to_string().cmp(&b.0.to_string())));
        Verdict {
            cause: key.cause,
            with: Vec::new(),
            certainty: cause.map_or(Certainty::Unknown, |cause| cause.certainty),
            harm: harm(key.cause),
            count,
            who,
            netns: key.netns,
            services: services.iter().take(NAMED).map(|(service, _)| service.to_string()).collect(),
            peers,
            peer_count,
            peers_more: self.peers_more,
            why,
            title,
            evidence: self.evidence(count, watched_ns),
            fix: cause.and_then(|cause| cause.fix.as_deref()).map(str::to_owned).into_iter().collect(),
            first_ns: self.first_ns,
            last_ns: self.last_ns,
        }
    }

    /// How many, and what.
    fn title(&self, key: &Key, count: u64, cause: Option<&Cause>) -> String {
        let spec = catalog::find(key.cause);
        if let Some(refusals) = self.kinds.get(&EventKind::TwOverflow).filter(|refusals| **refusals > 1) {
            let who = key.program.as_deref().map_or_else(String::new, |program| format!(" of {program}"));
            let drawn = match self.kinds.get(&EventKind::RstSent) {
                Some(resets) => format!(", and {resets} RSTs of this host followed"),
                None => String::new(),
            };
            return format!(
                "{refusals} sockets{who} were refused their TIME_WAIT slot, the table is full{drawn}"
            );
        }
        match (cause, spec) {
            (Some(cause), _) if count == 1 && self.leaking.is_empty() => cause.summary.clone(),
            (_, Some(spec)) => spec.many.replace("{count}", &count.to_string()),
            _ => format!("{count} events of {}", key.cause),
        }
    }

    fn evidence(&self, count: u64, watched_ns: u64) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(line) = self.rate(count, watched_ns) {
            lines.push(line);
        }
        if self.kinds.contains_key(&EventKind::TwOverflow)
            && let Some(resets) = self.kinds.get(&EventKind::RstSent)
        {
            lines.push(format!(
                "the peers' next segments found no socket, and this host answered with an RST {resets} times so far: the \
                 peers see 'Connection reset by peer' or lose what they had just sent"
            ));
        }
        lines.extend(self.queue());
        if let Some(line) = self.states(count) {
            lines.push(line);
        }
        if self.other_ends > 0 {
            lines.push(format!(
                "{} of the RSTs were received on this host too, at the other end",
                self.other_ends
            ));
        }
        if let Some(event) = &self.example {
            let ends = match (event.local, event.remote) {
                (Some(local), Some(remote)) => format!("{local} with {remote}"),
                _ => "addresses unknown".to_owned(),
            };
            if event.kind != EventKind::CloseWaitLeak && count > 1 {
                lines.push(format!("the last one, {ends}:"));
            }
            lines.extend(
                event
                    .cause
                    .iter()
                    .flat_map(|cause| cause.evidence.iter().map(|text| text.clone().into_owned())),
            );
        }
        lines
    }

    fn rate(&self, count: u64, watched_ns: u64) -> Option<String> {
        const SECOND: u64 = 1_000_000_000;
        if count < 2 || !self.leaking.is_empty() {
            return None;
        }
        let seconds = watched_ns / SECOND;
        Some(match (seconds, count / seconds.max(1)) {
            (0, _) => format!("{count} in less than a second"),
            (_, 0) => format!("{count} in {seconds} s"),
            (_, rate) => format!("{count} in {seconds} s, {rate} a second"),
        })
    }

    /// What the listener did, in all.
    fn queue(&self) -> Vec<String> {
        let Some(listen) = &self.listen else { return Vec::new() };
        let mut lines = Vec::new();
        if let Some(queue) = listen.queue {
            let which = if queue == Queue::Accept { "accept queue" } else { "half-open connections" };
            lines.push(format!("{which}: up to {} of {}", self.longest, listen.max));
        }
        let words = |(stage, action): &(Stage, ListenAction)| match (stage, action) {
            (Stage::Syn, ListenAction::Dropped) => {
                "dropped at the SYN: the client tries again, after 1, 3, 7 s"
            }
            (Stage::Ack, ListenAction::Dropped) => {
                "dropped at the last ACK: the client believes to be connected and waits for an answer"
            }
            (_, ListenAction::Reset) => "reset: the client sees ECONNRESET",
            (_, ListenAction::Cookie) => "answered with a SYN cookie: nothing is lost but TCP options",
        };
        let mut actions: Vec<_> = self.actions.iter().collect();
        actions.sort();
        lines.extend(actions.iter().map(|(act, count)| format!("{count} {}", words(act))));
        lines
    }

    /// What makes the queue overflow, by most of the events.
    fn pressure(&self) -> Option<String> {
        let (pressure, count) = self.pressures.iter().max_by_key(|(_, count)| **count)?;
        let text = match pressure {
            Pressure::SlowAccept => {
                "the process does not call accept(): it is stopped, stuck, or all its workers are busy"
            }
            Pressure::Burst => {
                "the process accepts; more connections come at once than its queue holds: a burst"
            }
            Pressure::SynFlood => {
                "half-open connections of many peers, and none gets on: a SYN flood, not a slow process"
            }
        };
        let all: u64 = self.actions.values().sum();
        Some(if *count == all { text.to_owned() } else { format!("{text} ({count} of {all} times)") })
    }

    /// The states that it happened in, when there are several.
    fn states(&self, count: u64) -> Option<String> {
        let refused = self.kinds.contains_key(&EventKind::TwOverflow);
        if self.states.is_empty() || self.states.len() < 2 && !refused || count < 2 {
            return None;
        }
        let mut states: Vec<_> = self.states.iter().collect();
        states.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        let states: Vec<String> = states.iter().map(|(state, count)| format!("{state} {count}")).collect();
        Some(format!("states: {}", states.join(", ")))
    }
}

/// The processes in a sentence.
pub(super) fn names(who: &[Party]) -> String {
    let names: Vec<String> = who.iter().map(|party| name(&party.owner)).collect();
    names.join(", ")
}
