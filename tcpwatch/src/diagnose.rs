//! Records to events: who, where, why. Pure functions, no I/O and no clock, so that every kernel's oddity is a test
//! written as values.

pub mod catalog;
pub mod cause;
pub mod listen;
pub mod owner;
pub mod reason;
#[cfg(test)]
pub(crate) mod samples;
pub mod site;
pub mod state;
pub mod words;

use crate::event::{
    Certainty, Endpoint, Event, EventKind, ListenInfo, PacketInfo, TaskContext, TaskInfo, TimeWaitInfo,
};
use crate::kernel::names::ReasonNames;
use crate::kernel::symbols::Symbols;
use site::Site;
use tcpwatch_common::flow::{Addr, Flow};
use tcpwatch_common::record::{Record, StateRecord, Task, flag, kind};
use tcpwatch_common::state as states;

/// What interpretation needs to know of the kernel and the user.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub names: &'a ReasonNames,
    pub symbols: &'a Symbols,
    /// Nanoseconds to add to the monotonic clock for nanoseconds since 1970.
    pub wall_offset_ns: i64,
    /// `-k`: keep the stack.
    pub want_stack: bool,
}

impl Context<'_> {
    fn wall_ns(&self, mono_ns: u64) -> u64 {
        mono_ns.saturating_add_signed(self.wall_offset_ns)
    }
}

/// Everything that is known of a record. `None`: no RST was received, the kernel only called the function that
/// usually means it; to be counted as filtered.
pub fn interpret(raw: &Record, ctx: &Context<'_>) -> Option<Event> {
    let frames = site::symbolise(raw, ctx.symbols);
    let site = site::locate(raw, frames);
    if site::is_false_reset(raw, &site) {
        return None;
    }
    let reason = reason::of(raw, &site, ctx.names);
    let began = state::began(raw, &site, reason.as_ref());
    let owner = owner::of(raw, &site, reason.as_ref());
    let task = task(&raw.task, site.context);
    let listen = (raw.kind == kind::LISTEN_DROP).then(|| listen::judge(raw, &site)).flatten();
    let kind = event_kind(raw.kind);
    let facts = cause::Facts {
        record: raw,
        kind,
        site: &site,
        reason: reason.as_ref(),
        began,
        owner: owner.as_ref(),
        task: Some(&task),
        listen,
        // A record knows nothing of the listener's past.
        window: None,
        local: endpoint(&raw.flow.local, raw.flow.local_port),
        remote: endpoint(&raw.flow.remote, raw.flow.remote_port),
    };
    let explained = !matches!(raw.kind, kind::DROP | kind::RETRANSMIT);
    let cause = explained.then(|| cause::diagnose(&facts));
    // A segment that merely met a listener was not turned away by its queues.
    let overflow = facts.answers_last_ack();
    let mut event = Event::new(kind, raw.mono_ns, ctx.wall_ns(raw.mono_ns));
    place(&mut event, &raw.flow);
    event.state = began.and_then(states::name);
    event.owner = owner;
    event.task = Some(task);
    event.reason = reason;
    event.cause = cause;
    event.site = site.function.map(str::to_owned);
    event.stack = ctx.want_stack.then(|| stack(&site));
    event.history =
        state::connection(raw).map(|memory| state::history(memory, raw.mono_ns)).unwrap_or_default();
    event.listen = listen.or_else(|| overflow.then(|| listener(raw)).flatten());
    event.timewait = timewait(raw);
    event.packet = packet(raw);
    event.mptcp = raw.flags & flag::MPTCP != 0;
    Some(event)
}

/// A state transition.
pub fn interpret_state(raw: &StateRecord, ctx: &Context<'_>) -> Event {
    let mut event = Event::new(EventKind::State, raw.mono_ns, ctx.wall_ns(raw.mono_ns));
    place(&mut event, &raw.flow);
    event.state = states::name(raw.old_state);
    event.old_state = states::name(raw.old_state);
    event.new_state = states::name(raw.new_state);
    event.for_us = (raw.since_ns != 0).then(|| raw.mono_ns.saturating_sub(raw.since_ns) / 1000);
    event.owner = owner::info(&raw.owner);
    event.task = Some(task(&raw.task, transition_context(raw)));
    event.mptcp = raw.flags & flag::MPTCP != 0;
    event
}

/// A socket is locked by the process that changes it; segments and timers find it unlocked.
fn transition_context(raw: &StateRecord) -> Option<TaskContext> {
    if raw.flags & flag::OWNED != 0 {
        return Some(TaskContext::Process);
    }
    let by_segment =
        [states::ESTABLISHED, states::SYN_RECV, states::FIN_WAIT2, states::CLOSE_WAIT, states::CLOSING];
    by_segment.contains(&raw.new_state).then_some(TaskContext::Softirq)
}

fn event_kind(kind: u8) -> EventKind {
    match kind {
        kind::RST_RECEIVED | kind::RST_IGNORED => EventKind::RstReceived,
        kind::LISTEN_DROP => EventKind::ListenDrop,
        kind::TW_OVERFLOW => EventKind::TwOverflow,
        kind::DROP => EventKind::Drop,
        kind::STATE => EventKind::State,
        kind::RETRANSMIT => EventKind::Retransmit,
        _ => EventKind::RstSent,
    }
}

fn place(event: &mut Event, flow: &Flow) {
    event.netns = (flow.netns != 0).then_some(flow.netns);
    event.local = Some(endpoint(&flow.local, flow.local_port));
    // A listener has no other side, a socket before connect() neither.
    let nobody = flow.remote_port == 0 && flow.remote.is_unspecified();
    event.remote = (!nobody).then(|| endpoint(&flow.remote, flow.remote_port));
}

fn endpoint(addr: &Addr, port: u16) -> Endpoint {
    Endpoint { addr: addr.ip(), port }
}

fn task(task: &Task, context: Option<TaskContext>) -> TaskInfo {
    TaskInfo { pid: (task.pid != 0).then_some(task.pid), comm: owner::comm(&task.comm), context }
}

fn stack(site: &Site<'_>) -> Vec<String> {
    site.frames.iter().map(|(name, offset)| format!("{name}+{offset:#x}")).collect()
}

/// The queues of a listener that answered with an RST.
fn listener(raw: &Record) -> Option<ListenInfo> {
    let mut info = listen::judge(raw, &Site::default())?;
    info.stage = crate::event::Stage::Ack;
    info.action = crate::event::ListenAction::Reset;
    Some(info)
}

fn timewait(raw: &Record) -> Option<TimeWaitInfo> {
    (raw.flags & flag::TIME_WAIT != 0)
        .then_some(TimeWaitInfo { used: raw.timewait.used, max: raw.timewait.max })
}

fn packet(raw: &Record) -> Option<PacketInfo> {
    let packet = raw.packet;
    (raw.flags & flag::PACKET != 0).then_some(PacketInfo {
        seq: packet.seq,
        ack: packet.ack,
        flags: packet.flags,
        window: packet.window,
        len: packet.len,
    })
}

/// Adds to an RST drawn by a refused connection how full the table was at the last refusal in its namespace, which the
/// pipeline remembers: the RST itself comes later and its record does not know.
pub fn recall_timewait(event: &mut Event, table: TimeWaitInfo) {
    let Some(cause) = event.cause.as_mut().filter(|cause| cause.id == "tw-bucket-overflow") else { return };
    if event.timewait.is_some() {
        return;
    }
    event.timewait = Some(table);
    // The reason says that the segment was late; this says that the table was full, and not that memory was short.
    if table.used >= table.max && event.reason.is_some() {
        cause.certainty = Certainty::Certain;
    }
    let at = cause.evidence.len().min(1);
    cause.evidence.insert(at, catalog::evidence::slots(table.used, table.max));
    cause.fix = Some(catalog::evidence::raise_tw_buckets(table.max));
}
