//! Records to events: who, where, why. Pure functions, no I/O and no clock, so that every kernel's oddity is a test
//! written as values.

pub mod catalog;
pub mod cause;
pub mod lately;
pub mod leak;
pub mod lifetimes;
pub mod listen;
pub mod owner;
pub mod reason;
#[cfg(test)]
pub(crate) mod samples;
pub mod site;
pub mod state;
pub mod words;

use crate::event::{
    Bytes, Endpoint, Event, EventKind, HistoryStep, ListenInfo, PacketInfo, TaskContext, TaskInfo,
    TimeWaitInfo,
};
use crate::kernel::names::ReasonNames;
use crate::kernel::symbols::Symbols;
use lately::Around;
use leak::Leak;
use site::Site;
use smol_str::SmolStr;
use std::cell::OnceCell;
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
    /// Of the record at hand.
    pub around: Around,
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
    let listen = (raw.kind == kind::LISTEN_DROP).then(|| queues(raw, &site, ctx)).flatten();
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
        around: &ctx.around,
        local: endpoint(&raw.flow.local, raw.flow.local_port),
        remote: endpoint(&raw.flow.remote, raw.flow.remote_port),
        sort: OnceCell::new(),
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
    event.site = site.function.map(SmolStr::new);
    event.stack = ctx.want_stack.then(|| stack(&site));
    event.history =
        state::connection(raw).map(|memory| state::history(memory, raw.mono_ns)).unwrap_or_default();
    event.listen = listen.or_else(|| overflow.then(|| listener(raw, ctx)).flatten());
    event.timewait = timewait(raw).or_else(|| facts_table(&event, ctx));
    event.bytes = bytes(raw);
    event.packet = packet(raw);
    event.mptcp = raw.flags & flag::MPTCP != 0;
    Some(event)
}

/// An event of which nothing is known but that it happened, of a kind of record.
pub fn bare(kind: u8, netns: u32) -> Event {
    let mut event = Event::new(event_kind(kind), 0, 0);
    event.netns = (netns != 0).then_some(netns);
    event
}

/// What the listener did, and why.
fn queues(raw: &Record, site: &Site<'_>, ctx: &Context<'_>) -> Option<ListenInfo> {
    let info = listen::judge(raw, site)?;
    Some(ListenInfo { local: bound(raw), pressure: listen::pressure(raw, &info, &ctx.around), ..info })
}

/// Where the listener is bound.
fn bound(raw: &Record) -> Option<Endpoint> {
    let places = endpoint(&raw.flow.local, raw.flow.local_port).listeners();
    let flags = [flag::ONE_ADDRESS, flag::ANY_V4, flag::ANY_V6];
    flags.iter().zip(places).find(|(flag, _)| raw.flags & **flag != 0).map(|(_, place)| place)
}

/// For an RST drawn by a connection that was refused its slot: the table at the last refusal, because the RST itself comes
/// later and its record does not know.
fn facts_table(event: &Event, ctx: &Context<'_>) -> Option<TimeWaitInfo> {
    event.cause.as_ref().filter(|cause| cause.id == "tw-bucket-overflow")?;
    let table = ctx.around.namespace?.table?;
    Some(TimeWaitInfo { used: table.used, max: table.max })
}

/// What the connection carried so far, or until its end.
fn bytes(raw: &Record) -> Option<Bytes> {
    let live = raw.flags & flag::FULL != 0 && !state::is_listener(raw);
    let (received, sent) = if live {
        (raw.socket.bytes_received, raw.socket.bytes_sent)
    } else {
        let past = state::connection(raw).filter(|_| raw.kind != kind::LISTEN_DROP)?;
        (past.bytes_received, past.bytes_sent)
    };
    Some(Bytes { received, sent })
}

/// A process that holds sockets which its peers closed.
pub fn leaked(leak: &Leak, mono_ns: u64, time_ns: u64) -> Event {
    let mut event = Event::new(EventKind::CloseWaitLeak, mono_ns, time_ns);
    event.netns = (leak.netns != 0).then_some(leak.netns);
    event.local = Some(leak.local);
    event.remote = Some(leak.remote);
    event.state = states::name(states::CLOSE_WAIT);
    event.history = vec![HistoryStep { state: "CLOSE_WAIT", for_us: Some(leak.oldest_ns / 1_000) }];
    event.owner.clone_from(&leak.owner);
    event.cause = Some(catalog::leaked(leak, mono_ns));
    event.count = leak.count;
    event.stack.clone_from(&leak.stack);
    event
}

/// Adds to an event about a process that should work and does not, that it cannot: `state` is what `ps` shows of its owner.
pub fn at_a_halt(event: &mut Event, state: char) {
    if !matches!(event.kind, EventKind::ListenDrop | EventKind::CloseWaitLeak) {
        return;
    }
    let (Some(owner), Some(cause)) = (&event.owner, &mut event.cause) else { return };
    let (name, pid) = (cause::name_owner(owner), owner.pid.unwrap_or(0));
    let text = match state {
        'T' => {
            format!("{name} is stopped (state T: SIGSTOP or job control); `kill -CONT {pid}` lets it go on")
        }
        't' => format!("{name} is stopped by a debugger (state t)"),
        'D' => {
            format!("{name} waits in the kernel (state D), mostly for a disk or NFS: `cat /proc/{pid}/stack`")
        }
        'Z' => format!("{name} has ended, and its parent has not noticed (state Z)"),
        _ => return,
    };
    cause.evidence.insert(0, text.into());
}

/// The command that makes the TIME_WAIT table larger.
pub fn more_slots(max: u32) -> String {
    catalog::raise_tw_buckets(max)
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
fn listener(raw: &Record, ctx: &Context<'_>) -> Option<ListenInfo> {
    let mut info = queues(raw, &Site::default(), ctx)?;
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
