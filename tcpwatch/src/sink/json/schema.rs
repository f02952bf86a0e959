//! The public shape of events, version 1: keys are added here, never renamed. Apart from the inner types, so that a change
//! of those cannot change what other programs read.

use crate::event;
use crate::sink::time::rfc3339;
use serde::{Serialize, Serializer};

/// Version of this schema, in `start`.
pub const VERSION: u32 = 1;

/// Any event about a connection or a listener.
#[derive(Debug, Serialize)]
pub struct Event<'a> {
    event: Word,
    #[serde(serialize_with = "moment")]
    time: u64,
    mono_ns: u64,
    netns: Option<u32>,
    local: Option<Endpoint>,
    remote: Option<Endpoint>,
    state: Option<Word>,
    /// This and the next two of `state` events only, and there even if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    old_state: Option<Option<Word>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_state: Option<Option<Word>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    for_us: Option<Option<u64>>,
    owner: Option<Owner<'a>>,
    task: Option<Task<'a>>,
    reason: Option<Reason<'a>>,
    cause: Option<Cause<'a>>,
    site: Option<&'a str>,
    /// With `-k` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<&'a [String]>,
    #[serde(serialize_with = "steps")]
    history: &'a [event::HistoryStep],
    listen: Option<Listen>,
    timewait: Option<TimeWait>,
    packet: Option<Packet>,
    bytes: Option<Bytes>,
    mptcp: bool,
    count: u64,
}

/// A word of this schema's own. To a serializer it is what an `enum` without values is, so that nothing in it needs escaping.
#[derive(Clone, Copy, Debug)]
struct Word(&'static str);

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit_variant("Word", 0, self.0)
    }
}

#[derive(Debug, Serialize)]
struct Endpoint {
    addr: std::net::IpAddr,
    port: u16,
}

#[derive(Debug, Serialize)]
pub(in crate::sink) struct Owner<'a> {
    pid: Option<u32>,
    comm: &'a str,
    exe: Option<&'a str>,
    uid: u32,
    cgroup: Option<&'a str>,
    container: Option<&'a str>,
    how: Word,
    start_ns: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Task<'a> {
    pid: Option<u32>,
    comm: &'a str,
    context: Option<Word>,
}

#[derive(Debug, Serialize)]
struct Reason<'a> {
    name: &'a str,
    from: Word,
}

#[derive(Debug, Serialize)]
struct Cause<'a> {
    id: Word,
    certainty: Word,
    summary: &'a str,
    evidence: &'a [event::Text],
    fix: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct HistoryStep {
    state: Word,
    for_us: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Listen {
    local: Option<Endpoint>,
    queue: Option<&'static str>,
    stage: &'static str,
    len: u32,
    max: u32,
    backlog: Option<u32>,
    somaxconn: Option<u32>,
    action: &'static str,
    pressure: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct TimeWait {
    used: u32,
    max: u32,
}

#[derive(Debug, Serialize)]
struct Packet {
    seq: u32,
    ack: u32,
    #[serde(serialize_with = "flags")]
    flags: u8,
    window: u16,
    len: u32,
}

#[derive(Debug, Serialize)]
struct Bytes {
    received: u64,
    sent: u64,
}

fn moment<S: Serializer>(time_ns: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(rfc3339(*time_ns).as_str())
}

/// `SYN|ACK`.
fn flags<S: Serializer>(flags: &u8, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&event::Flags(*flags))
}

fn steps<S: Serializer>(history: &[event::HistoryStep], serializer: S) -> Result<S::Ok, S::Error> {
    serializer
        .collect_seq(history.iter().map(|step| HistoryStep { state: Word(step.state), for_us: step.for_us }))
}

fn endpoint(endpoint: &event::Endpoint) -> Endpoint {
    Endpoint { addr: endpoint.addr, port: endpoint.port }
}

impl<'a> From<&'a event::Event> for Event<'a> {
    fn from(event: &'a event::Event) -> Self {
        let is_transition = event.kind == event::EventKind::State;
        Self {
            event: Word(event.kind.name()),
            time: event.time_ns,
            mono_ns: event.mono_ns,
            netns: event.netns,
            local: event.local.as_ref().map(endpoint),
            remote: event.remote.as_ref().map(endpoint),
            state: event.state.map(Word),
            old_state: is_transition.then_some(event.old_state.map(Word)),
            new_state: is_transition.then_some(event.new_state.map(Word)),
            for_us: is_transition.then_some(event.for_us),
            owner: event.owner.as_ref().map(Owner::from),
            task: event.task.as_ref().map(|task| Task {
                pid: task.pid,
                comm: &task.comm,
                context: task.context.map(|context| Word(context.name())),
            }),
            reason: event
                .reason
                .as_ref()
                .map(|reason| Reason { name: &reason.name, from: Word(reason.from.name()) }),
            cause: event.cause.as_ref().map(Cause::from),
            site: event.site.as_deref(),
            stack: event.stack.as_deref(),
            history: &event.history,
            listen: event.listen.as_ref().map(Listen::from),
            timewait: event.timewait.map(|table| TimeWait { used: table.used, max: table.max }),
            packet: event.packet.as_ref().map(Packet::from),
            bytes: event.bytes.map(|bytes| Bytes { received: bytes.received, sent: bytes.sent }),
            mptcp: event.mptcp,
            count: event.count,
        }
    }
}

impl<'a> From<&'a event::OwnerInfo> for Owner<'a> {
    fn from(owner: &'a event::OwnerInfo) -> Self {
        // Taken apart, so that a new field is a decision.
        let event::OwnerInfo { pid, comm, exe, uid, cgroup, container, how, start_ns, cgroup_id: _ } = owner;
        Self {
            pid: *pid,
            comm,
            exe: exe.as_deref(),
            uid: *uid,
            cgroup: cgroup.as_deref(),
            container: container.as_deref(),
            how: Word(how),
            start_ns: (*start_ns != 0).then_some(*start_ns),
        }
    }
}

impl<'a> From<&'a event::Cause> for Cause<'a> {
    fn from(cause: &'a event::Cause) -> Self {
        Self {
            id: Word(cause.id),
            certainty: Word(cause.certainty.name()),
            summary: &cause.summary,
            evidence: &cause.evidence,
            fix: cause.fix.as_deref(),
        }
    }
}

impl From<&event::ListenInfo> for Listen {
    fn from(listen: &event::ListenInfo) -> Self {
        Self {
            local: listen.local.as_ref().map(endpoint),
            queue: listen.queue.map(event::Queue::name),
            stage: listen.stage.name(),
            len: listen.len,
            max: listen.max,
            backlog: listen.backlog,
            somaxconn: listen.somaxconn,
            action: listen.action.name(),
            pressure: listen.pressure.map(event::Pressure::name),
        }
    }
}

impl From<&event::PacketInfo> for Packet {
    fn from(packet: &event::PacketInfo) -> Self {
        Self { seq: packet.seq, ack: packet.ack, flags: packet.flags, window: packet.window, len: packet.len }
    }
}

/// A list of pairs as a JSON object, in the list's order.
fn object<'a, S, T, V>(
    list: &'a [T],
    serializer: S,
    pair: impl Fn(&'a T) -> (&'a str, V),
) -> Result<S::Ok, S::Error>
where
    S: Serializer,
    V: Serialize,
{
    serializer.collect_map(list.iter().map(pair))
}

/// The first line.
#[derive(Debug, Serialize)]
pub struct Start<'a> {
    event: &'static str,
    #[serde(serialize_with = "moment")]
    time: u64,
    mono_ns: u64,
    schema: u32,
    version: &'a str,
    kernel: &'a str,
    #[serde(serialize_with = "hooks")]
    hooks: &'a [event::HookStatus],
}

#[derive(Debug, Serialize)]
struct Hook<'a> {
    attached: Option<&'a str>,
    why_not: Option<&'a str>,
    sees: Option<&'a str>,
}

fn hooks<S: Serializer>(hooks: &[event::HookStatus], serializer: S) -> Result<S::Ok, S::Error> {
    object(hooks, serializer, |hook| {
        let attached = hook.attached.as_deref();
        let entry = Hook {
            attached: attached.ok(),
            why_not: attached.err().map(String::as_str),
            sees: hook.sees.as_deref(),
        };
        (hook.name.as_str(), entry)
    })
}

impl<'a> From<&'a event::Start> for Start<'a> {
    fn from(start: &'a event::Start) -> Self {
        Self {
            event: "start",
            time: start.time_ns,
            mono_ns: start.mono_ns,
            schema: VERSION,
            version: &start.version,
            kernel: &start.kernel,
            hooks: &start.hooks,
        }
    }
}

/// The namespaces of the host as they stand. Only captures have it.
#[derive(Debug, Serialize)]
pub struct Standing<'a> {
    event: &'static str,
    #[serde(serialize_with = "moment")]
    time: u64,
    namespaces: Vec<Namespace<'a>>,
}

#[derive(Debug, Serialize)]
struct Namespace<'a> {
    netns: u32,
    time_wait: Option<TimeWait>,
    refused_since_boot: Option<u64>,
    listeners: Vec<Listener<'a>>,
}

#[derive(Debug, Serialize)]
struct Listener<'a> {
    local: Endpoint,
    owner: Option<Owner<'a>>,
    len: u32,
    max: Option<u32>,
}

impl<'a> Standing<'a> {
    /// Of this moment.
    pub fn new(all: &'a [event::Standing], time_ns: u64) -> Self {
        let listener = |listener: &'a event::ListenerStanding| Listener {
            local: endpoint(&listener.local),
            owner: listener.owner.as_ref().map(Owner::from),
            len: listener.len,
            max: listener.max,
        };
        let namespace = |one: &'a event::Standing| Namespace {
            netns: one.netns,
            time_wait: one.time_wait.map(|table| TimeWait { used: table.used, max: table.max }),
            refused_since_boot: one.refused_since_boot,
            listeners: one.listeners.iter().map(listener).collect(),
        };
        Self { event: "standing", time: time_ns, namespaces: all.iter().map(namespace).collect() }
    }
}

/// Records that found no room.
#[derive(Debug, Serialize)]
pub struct Lost<'a> {
    event: &'static str,
    #[serde(serialize_with = "moment")]
    time: u64,
    mono_ns: u64,
    hook: &'a str,
    count: u64,
}

impl<'a> From<&'a event::Lost> for Lost<'a> {
    fn from(lost: &'a event::Lost) -> Self {
        Self { event: "lost", time: lost.time_ns, mono_ns: lost.mono_ns, hook: &lost.hook, count: lost.count }
    }
}

/// The last line.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    event: &'static str,
    #[serde(serialize_with = "moment")]
    time: u64,
    mono_ns: u64,
    watched_ns: u64,
    #[serde(serialize_with = "books")]
    hooks: &'a [event::HookBooks],
    reconciliation: Vec<Reconciliation<'a>>,
    #[serde(serialize_with = "causes")]
    causes: &'a [event::CauseCount],
    lifetimes: Vec<Lifetimes<'a>>,
    tables: Tables,
}

#[derive(Debug, Serialize)]
struct Counters {
    seen: u64,
    delivered: u64,
    filtered: u64,
    aggregated: u64,
    lost: u64,
    missed: u64,
}

#[derive(Debug, Serialize)]
pub(in crate::sink) struct Reconciliation<'a> {
    netns: u32,
    counter: &'a str,
    kernel: Option<u64>,
    explained: u64,
}

/// How long the connections of a process to a service lived, of those that ended lately.
#[derive(Debug, Serialize)]
pub struct Lifetimes<'a> {
    owner: Option<Owner<'a>>,
    netns: u32,
    direction: &'static str,
    peer: Option<std::net::IpAddr>,
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

impl<'a> From<&'a event::Lifetimes> for Lifetimes<'a> {
    fn from(row: &'a event::Lifetimes) -> Self {
        Self {
            owner: row.owner.as_ref().map(Owner::from),
            netns: row.netns,
            direction: row.direction.name(),
            peer: row.peer,
            port: row.port,
            count: row.count,
            under_1s: row.short,
            closed_first: row.closed_first,
            median_us: row.median_us,
            p90_us: row.p90_us,
            max_us: row.max_us,
            bytes_received: row.bytes_received,
            bytes_sent: row.bytes_sent,
        }
    }
}

/// The tables of sockets.
#[derive(Debug, Serialize)]
struct Tables {
    sockets: u32,
    sockets_seen: u64,
    sockets_forgotten: u64,
    ended: u32,
    ended_seen: u64,
    ended_forgotten: u64,
}

impl From<&event::Tables> for Tables {
    fn from(tables: &event::Tables) -> Self {
        Self {
            sockets: tables.sockets,
            sockets_seen: tables.sockets_seen,
            sockets_forgotten: tables.sockets_forgotten,
            ended: tables.ended,
            ended_seen: tables.ended_seen,
            ended_forgotten: tables.ended_forgotten,
        }
    }
}

fn books<S: Serializer>(hooks: &[event::HookBooks], serializer: S) -> Result<S::Ok, S::Error> {
    object(hooks, serializer, |hook| {
        let tcpwatch_common::counters::HookCounters { seen, delivered, filtered, aggregated, lost } =
            hook.counters;
        (hook.name.as_str(), Counters { seen, delivered, filtered, aggregated, lost, missed: hook.missed })
    })
}

fn causes<S: Serializer>(causes: &[event::CauseCount], serializer: S) -> Result<S::Ok, S::Error> {
    object(causes, serializer, |cause| (cause.id.as_str(), cause.count))
}

impl<'a> From<&'a event::Reconciliation> for Reconciliation<'a> {
    fn from(row: &'a event::Reconciliation) -> Self {
        Self { netns: row.netns, counter: &row.counter, kernel: row.kernel, explained: row.explained }
    }
}

impl<'a> From<&'a event::Summary> for Summary<'a> {
    fn from(summary: &'a event::Summary) -> Self {
        Self {
            event: "summary",
            time: summary.time_ns,
            mono_ns: summary.mono_ns,
            watched_ns: summary.watched_ns,
            hooks: &summary.hooks,
            reconciliation: summary.netns.iter().map(Reconciliation::from).collect(),
            causes: &summary.causes,
            lifetimes: summary.lifetimes.iter().map(Lifetimes::from).collect(),
            tables: Tables::from(&summary.tables),
        }
    }
}
