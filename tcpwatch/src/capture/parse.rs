//! A line of `--json` back into what it was made of ([`crate::sink::json::schema`]).

use super::read::Said;
use crate::diagnose::catalog;
use crate::event::{
    Bytes, Cause, CauseCount, Certainty, Direction, Endpoint, Event, EventKind, Flags, HistoryStep,
    HookBooks, HookStatus, Lifetimes, ListenAction, ListenInfo, ListenerStanding, Lost, OwnerInfo,
    PacketInfo, Pressure, Queue, Reason, ReasonFrom, Reconciliation, Stage, Standing, Start, Summary, Tables,
    TaskContext, TaskInfo, TimeWaitInfo,
};
use crate::sink::{json::schema, time};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use smol_str::SmolStr;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use tcpwatch_common::counters::HookCounters;
use tcpwatch_common::{owner, state};

/// Why a line cannot be used.
#[derive(Debug)]
pub(super) enum Why {
    /// Its schema is of a later version.
    Newer(u64),
    Wrong(String),
}

impl From<serde_json::Error> for Why {
    fn from(error: serde_json::Error) -> Self {
        Self::Wrong(format!("an event that cannot be understood ({error})"))
    }
}

/// What every line has.
#[derive(Deserialize)]
struct Kind<'a> {
    event: &'a str,
    schema: Option<u64>,
}

pub(super) fn line(bytes: &[u8]) -> Result<Said, Why> {
    let kind: Kind<'_> = serde_json::from_slice(bytes)?;
    if let Some(schema) = kind.schema.filter(|schema| *schema > u64::from(schema::VERSION)) {
        return Err(Why::Newer(schema));
    }
    Ok(match kind.event {
        "start" => Said::Start(serde_json::from_slice::<StartLine>(bytes)?.into()),
        "lost" => Said::Lost(serde_json::from_slice::<LostLine>(bytes)?.into()),
        "summary" => Said::Summary(Box::new(serde_json::from_slice::<SummaryLine>(bytes)?.into())),
        "standing" => Said::Standing(serde_json::from_slice::<StandingLine>(bytes)?.into()),
        name => {
            let kind = one_of("event", name, EventKind::ALL, EventKind::name).map_err(Why::Wrong)?;
            Said::Event(Box::new(serde_json::from_slice::<EventLine>(bytes)?.event(kind)))
        }
    })
}

/// The value that has a name.
fn one_of<T: Copy>(
    what: &str,
    name: &str,
    all: impl IntoIterator<Item = T>,
    name_of: impl Fn(T) -> &'static str,
) -> Result<T, String> {
    let found = all.into_iter().find(|one| name_of(*one) == name);
    found.ok_or_else(|| format!("`{}` is no {what}", name.chars().take(40).collect::<String>()))
}

macro_rules! named {
    ($function:ident, $type:ty, $what:literal, [$($one:expr),+ $(,)?]) => {
        fn $function<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
            let name = Cow::<'de, str>::deserialize(deserializer)?;
            one_of($what, &name, [$($one),+], <$type>::name).map_err(D::Error::custom)
        }
    };
}

macro_rules! maybe_named {
    ($function:ident, $type:ty, $what:literal, [$($one:expr),+ $(,)?]) => {
        fn $function<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<$type>, D::Error> {
            let name = Option::<Cow<'de, str>>::deserialize(deserializer)?;
            let one = |name: Cow<'de, str>| one_of($what, &name, [$($one),+], <$type>::name);
            name.map(one).transpose().map_err(D::Error::custom)
        }
    };
}

named!(reason_from, ReasonFrom, "source of a reason", [ReasonFrom::Kernel, ReasonFrom::Inferred]);
named!(
    certainty,
    Certainty,
    "certainty",
    [Certainty::Unknown, Certainty::Possible, Certainty::Likely, Certainty::Certain]
);
named!(stage, Stage, "stage of a handshake", [Stage::Syn, Stage::Ack]);
named!(
    action,
    ListenAction,
    "action of a listener",
    [ListenAction::Dropped, ListenAction::Reset, ListenAction::Cookie]
);
named!(direction, Direction, "direction", [Direction::Outgoing, Direction::Incoming]);
maybe_named!(queue, Queue, "queue", [Queue::Accept, Queue::Syn]);
maybe_named!(context, TaskContext, "context of a task", [TaskContext::Process, TaskContext::Softirq]);
maybe_named!(
    pressure,
    Pressure,
    "pressure on a listener",
    [Pressure::SlowAccept, Pressure::Burst, Pressure::SynFlood]
);

/// Names that a later tcpwatch of the same schema may know and this one does not; more of them is no capture.
const NEW_NAMES: usize = 256;

/// A name that events have as a constant. It lives as long as the program.
fn constant(name: &str) -> Result<&'static str, String> {
    let states = (0..=u8::MAX).filter_map(state::name);
    let hows = (0..=u8::MAX).filter_map(owner::how::name);
    let ids = catalog::all().map(|spec| spec.id);
    if let Some(known) = states.chain(hows).chain(ids).find(|known| *known == name) {
        return Ok(known);
    }
    static NEW: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut new = NEW.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = new.get(name) {
        return Ok(known);
    }
    if new.len() >= NEW_NAMES || name.len() > 64 {
        return Err("too many names that no tcpwatch has".to_owned());
    }
    let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
    new.insert(kept);
    Ok(kept)
}

/// A [`constant`].
struct Name(&'static str);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<'de, str>::deserialize(deserializer)?;
        constant(&name).map(Self).map_err(D::Error::custom)
    }
}

fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    time::parse(&text).ok_or_else(|| D::Error::custom("a time that is none"))
}

fn flags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    Flags::parse(&text).map(|flags| flags.0).ok_or_else(|| D::Error::custom("TCP flags that are none"))
}

/// A JSON object as a list of pairs, in the order of the text.
struct Pairs<V>(Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Each<V> {
            type Value = Vec<(String, V)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Each(PhantomData)).map(Self)
    }
}

#[derive(Deserialize)]
struct End {
    addr: IpAddr,
    port: u16,
}

impl From<End> for Endpoint {
    fn from(end: End) -> Self {
        Self { addr: end.addr, port: end.port }
    }
}

#[derive(Deserialize)]
struct Owner {
    pid: Option<u32>,
    comm: SmolStr,
    exe: Option<SmolStr>,
    uid: u32,
    cgroup: Option<SmolStr>,
    container: Option<SmolStr>,
    how: Name,
    start_ns: Option<u64>,
}

impl From<Owner> for OwnerInfo {
    fn from(owner: Owner) -> Self {
        Self {
            pid: owner.pid,
            comm: owner.comm,
            exe: owner.exe,
            uid: owner.uid,
            cgroup: owner.cgroup,
            container: owner.container,
            how: owner.how.0,
            start_ns: owner.start_ns.unwrap_or(0),
            cgroup_id: 0,
        }
    }
}

#[derive(Deserialize)]
struct Task {
    pid: Option<u32>,
    comm: SmolStr,
    #[serde(deserialize_with = "context")]
    context: Option<TaskContext>,
}

#[derive(Deserialize)]
struct ReasonLine {
    name: SmolStr,
    #[serde(deserialize_with = "reason_from")]
    from: ReasonFrom,
}

#[derive(Deserialize)]
struct CauseLine {
    id: Name,
    #[serde(deserialize_with = "certainty")]
    certainty: Certainty,
    summary: String,
    evidence: Vec<String>,
    fix: Option<String>,
}

#[derive(Deserialize)]
struct Step {
    state: Name,
    for_us: Option<u64>,
}

#[derive(Deserialize)]
struct Listen {
    /// Captures of before it was told lack it.
    #[serde(default)]
    local: Option<End>,
    #[serde(deserialize_with = "queue")]
    queue: Option<Queue>,
    #[serde(deserialize_with = "stage")]
    stage: Stage,
    len: u32,
    max: u32,
    backlog: Option<u32>,
    somaxconn: Option<u32>,
    #[serde(deserialize_with = "action")]
    action: ListenAction,
    #[serde(deserialize_with = "pressure")]
    pressure: Option<Pressure>,
}

#[derive(Deserialize)]
struct Packet {
    seq: u32,
    ack: u32,
    #[serde(deserialize_with = "flags")]
    flags: u8,
    window: u16,
    len: u32,
}

#[derive(Deserialize)]
struct BytesLine {
    received: u64,
    sent: u64,
}

#[derive(Deserialize)]
struct TimeWait {
    used: u32,
    max: u32,
}

impl From<TimeWait> for TimeWaitInfo {
    fn from(table: TimeWait) -> Self {
        Self { used: table.used, max: table.max }
    }
}

#[derive(Deserialize)]
struct EventLine {
    #[serde(deserialize_with = "moment")]
    time: u64,
    mono_ns: u64,
    netns: Option<u32>,
    local: Option<End>,
    remote: Option<End>,
    state: Option<Name>,
    old_state: Option<Name>,
    new_state: Option<Name>,
    for_us: Option<u64>,
    owner: Option<Owner>,
    task: Option<Task>,
    reason: Option<ReasonLine>,
    cause: Option<CauseLine>,
    site: Option<SmolStr>,
    stack: Option<Vec<String>>,
    history: Vec<Step>,
    listen: Option<Listen>,
    timewait: Option<TimeWait>,
    packet: Option<Packet>,
    bytes: Option<BytesLine>,
    mptcp: bool,
    count: u64,
}

impl EventLine {
    fn event(self, kind: EventKind) -> Event {
        Event {
            kind,
            mono_ns: self.mono_ns,
            time_ns: self.time,
            netns: self.netns,
            local: self.local.map(Endpoint::from),
            remote: self.remote.map(Endpoint::from),
            state: self.state.map(|name| name.0),
            old_state: self.old_state.map(|name| name.0),
            new_state: self.new_state.map(|name| name.0),
            for_us: self.for_us,
            owner: self.owner.map(OwnerInfo::from),
            task: self.task.map(|task| TaskInfo { pid: task.pid, comm: task.comm, context: task.context }),
            reason: self.reason.map(|reason| Reason { name: reason.name, from: reason.from }),
            cause: self.cause.map(|cause| Cause {
                id: cause.id.0,
                certainty: cause.certainty,
                summary: cause.summary,
                evidence: cause.evidence.into_iter().map(Into::into).collect(),
                fix: cause.fix.map(Into::into),
            }),
            site: self.site,
            stack: self.stack,
            history: self
                .history
                .into_iter()
                .map(|step| HistoryStep { state: step.state.0, for_us: step.for_us })
                .collect(),
            listen: self.listen.map(|listen| ListenInfo {
                local: listen.local.map(Endpoint::from),
                queue: listen.queue,
                stage: listen.stage,
                len: listen.len,
                max: listen.max,
                backlog: listen.backlog,
                somaxconn: listen.somaxconn,
                action: listen.action,
                pressure: listen.pressure,
            }),
            timewait: self.timewait.map(TimeWaitInfo::from),
            packet: self.packet.map(|packet| PacketInfo {
                seq: packet.seq,
                ack: packet.ack,
                flags: packet.flags,
                window: packet.window,
                len: packet.len,
            }),
            bytes: self.bytes.map(|bytes| Bytes { received: bytes.received, sent: bytes.sent }),
            mptcp: self.mptcp,
            count: self.count,
        }
    }
}

#[derive(Deserialize)]
struct Hook {
    attached: Option<String>,
    why_not: Option<String>,
    sees: Option<String>,
}

#[derive(Deserialize)]
struct StartLine {
    #[serde(deserialize_with = "moment")]
    time: u64,
    mono_ns: u64,
    version: String,
    kernel: String,
    hooks: Pairs<Hook>,
}

impl From<StartLine> for Start {
    fn from(line: StartLine) -> Self {
        let hook = |(name, hook): (String, Hook)| HookStatus {
            name,
            attached: hook.attached.ok_or(hook.why_not.unwrap_or_default()),
            sees: hook.sees,
        };
        Self {
            mono_ns: line.mono_ns,
            time_ns: line.time,
            version: line.version,
            kernel: line.kernel,
            hooks: line.hooks.0.into_iter().map(hook).collect(),
        }
    }
}

#[derive(Deserialize)]
struct LostLine {
    #[serde(deserialize_with = "moment")]
    time: u64,
    mono_ns: u64,
    hook: String,
    count: u64,
}

impl From<LostLine> for Lost {
    fn from(line: LostLine) -> Self {
        Self { mono_ns: line.mono_ns, time_ns: line.time, hook: line.hook, count: line.count }
    }
}

#[derive(Deserialize)]
struct StandingLine {
    #[serde(deserialize_with = "moment")]
    time: u64,
    namespaces: Vec<Namespace>,
}

#[derive(Deserialize)]
struct Namespace {
    netns: u32,
    time_wait: Option<TimeWait>,
    refused_since_boot: Option<u64>,
    listeners: Vec<Listener>,
}

#[derive(Deserialize)]
struct Listener {
    local: End,
    owner: Option<Owner>,
    len: u32,
    max: Option<u32>,
}

impl From<StandingLine> for Vec<Standing> {
    fn from(line: StandingLine) -> Self {
        let listener = |listener: Listener| ListenerStanding {
            local: listener.local.into(),
            owner: listener.owner.map(OwnerInfo::from),
            len: listener.len,
            max: listener.max,
        };
        let namespace = |namespace: Namespace| Standing {
            netns: namespace.netns,
            time_ns: line.time,
            time_wait: namespace.time_wait.map(TimeWaitInfo::from),
            refused_since_boot: namespace.refused_since_boot,
            listeners: namespace.listeners.into_iter().map(listener).collect(),
        };
        line.namespaces.into_iter().map(namespace).collect()
    }
}

#[derive(Deserialize)]
struct Books {
    seen: u64,
    delivered: u64,
    filtered: u64,
    aggregated: u64,
    lost: u64,
    missed: u64,
}

#[derive(Deserialize)]
struct ReconciliationLine {
    netns: u32,
    counter: String,
    kernel: Option<u64>,
    explained: u64,
}

#[derive(Deserialize)]
struct LifetimesLine {
    owner: Option<Owner>,
    netns: u32,
    #[serde(deserialize_with = "direction")]
    direction: Direction,
    peer: Option<IpAddr>,
    port: u16,
    count: u64,
    under_1s: u64,
    closed_first: u64,
    median_us: u64,
    p90_us: u64,
    max_us: u64,
    bytes_received: u64,
    bytes_sent: u64,
}

#[derive(Deserialize)]
struct TablesLine {
    sockets: u32,
    sockets_seen: u64,
    sockets_forgotten: u64,
    ended: u32,
    ended_seen: u64,
    ended_forgotten: u64,
}

#[derive(Deserialize)]
struct SummaryLine {
    #[serde(deserialize_with = "moment")]
    time: u64,
    mono_ns: u64,
    watched_ns: u64,
    hooks: Pairs<Books>,
    reconciliation: Vec<ReconciliationLine>,
    causes: Pairs<u64>,
    lifetimes: Vec<LifetimesLine>,
    tables: TablesLine,
}

impl From<SummaryLine> for Summary {
    fn from(line: SummaryLine) -> Self {
        let hook = |(name, books): (String, Books)| HookBooks {
            name,
            counters: HookCounters {
                seen: books.seen,
                delivered: books.delivered,
                filtered: books.filtered,
                aggregated: books.aggregated,
                lost: books.lost,
            },
            missed: books.missed,
        };
        let TablesLine { sockets, sockets_seen, sockets_forgotten, ended, ended_seen, ended_forgotten } =
            line.tables;
        Self {
            mono_ns: line.mono_ns,
            time_ns: line.time,
            watched_ns: line.watched_ns,
            hooks: line.hooks.0.into_iter().map(hook).collect(),
            netns: line
                .reconciliation
                .into_iter()
                .map(|row| Reconciliation {
                    netns: row.netns,
                    counter: row.counter,
                    kernel: row.kernel,
                    explained: row.explained,
                })
                .collect(),
            causes: line.causes.0.into_iter().map(|(id, count)| CauseCount { id, count }).collect(),
            lifetimes: line.lifetimes.into_iter().map(lifetimes).collect(),
            tables: Tables { sockets, sockets_seen, sockets_forgotten, ended, ended_seen, ended_forgotten },
        }
    }
}

fn lifetimes(row: LifetimesLine) -> Lifetimes {
    Lifetimes {
        owner: row.owner.map(OwnerInfo::from),
        netns: row.netns,
        direction: row.direction,
        peer: row.peer,
        port: row.port,
        count: row.count,
        short: row.under_1s,
        closed_first: row.closed_first,
        median_us: row.median_us,
        p90_us: row.p90_us,
        max_us: row.max_us,
        bytes_received: row.bytes_received,
        bytes_sent: row.bytes_sent,
    }
}
