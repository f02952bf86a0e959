//! From a hook to user space: count, filter, reserve, fill in place, submit.

use crate::kernel::config::{config, filter};
use crate::kernel::field::Structure;
use crate::kernel::sock::Sock;
use crate::kernel::task;
use crate::maps::{CLOSED, COUNTERS, EVENT, EVENTS, FOUND, Found, NETNS_COUNTERS, PORTS};
use crate::storms;
use crate::{owners, tables, words};
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_ktime_get_ns};
use core::ffi::c_void;
use tcpwatch_common::counters::{HookCounters, NetnsCounters};
use tcpwatch_common::flow::{Flow, PortKey};
use tcpwatch_common::owner::Memory;
use tcpwatch_common::record::{
    FRAMES, Listen, Listener, Packet, Record, StateRecord, TimeWait, closes_lingering, flag, kind,
    tells_caller,
};
use tcpwatch_common::{hook, state};

/// A wake-up per record is what slows a host down; user space looks by the clock.
const QUIET: u64 = BPF_RB_NO_WAKEUP as u64;
const NO_COUNTERS: NetnsCounters =
    NetnsCounters { rst_sent: 0, listen_drops: 0, tw_overflows: 0, firewall_rsts: 0 };
static NO_COUNTERS_YET: NetnsCounters = NO_COUNTERS;
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// What a hook has to say. Parts that it has nothing to say of are zero and lack their bit in `flags`: plain values rather
/// than `Option`s, whose branches the verifier would have to walk in every combination.
#[repr(C)]
pub struct Event {
    /// Address of the socket at hand, 0 without one.
    pub sock: u64,
    /// When it happened, by [`now`]. The clock is read once for each event: it costs more than anything else that is done for all.
    pub at_ns: u64,
    pub kind: u8,
    pub hook: u8,
    /// State of the socket at the hook.
    pub state: u8,
    /// How the socket ends by what happens here (`owner::end`); 0 if it does not.
    pub ends: u8,
    /// Bit of `config::deliver` without which the event is not wanted at all.
    pub wanted: u32,
    /// Bits of `record::flag`.
    pub flags: u32,
    pub reason: u32,
    pub flow: Flow,
    pub packet: Packet,
    pub listen: Listen,
    pub timewait: TimeWait,
}

impl Event {
    /// Begins an event, in a place of the hook's own: the kernel does not enter a program that is at work on this CPU. Not on the
    /// stack, which it would fill by half; and what lies in a map the verifier knows nothing of, so that it walks what
    /// follows once, and not for each way in which an event comes about.
    #[inline(always)]
    pub fn begin(
        (kind, hook, wanted): (u8, u8, u32),
        flow: &Flow,
        sock: Sock<impl Structure>,
        state: u8,
    ) -> Option<&'static mut Self> {
        let place = EVENT.get_ptr_mut(u32::from(hook))?;
        // SAFETY: a per-CPU map value that nobody else uses until the program ends; all zeroes are a valid event.
        let event = unsafe {
            words::zero(place);
            &mut *place
        };
        event.sock = sock.0.address();
        event.at_ns = now();
        event.kind = kind;
        event.hook = hook;
        event.state = state;
        event.wanted = wanted;
        event.flow = *flow;
        Some(event)
    }

    #[inline(always)]
    pub fn packet(&mut self, packet: &Packet) -> &mut Self {
        self.packet = *packet;
        self.flags |= flag::PACKET;
        self
    }

    #[inline(always)]
    pub fn listen(&mut self, listen: &Listen) -> &mut Self {
        self.listen = *listen;
        self.flags |= flag::LISTEN | Sock(self.sock).bound();
        self
    }

    #[inline(always)]
    pub fn timewait(&mut self, timewait: &TimeWait) -> &mut Self {
        self.timewait = *timewait;
        self.flags |= flag::TIME_WAIT;
        self
    }

    #[inline(always)]
    pub fn reason(&mut self, reason: Option<u32>) -> &mut Self {
        if let Some(reason) = reason {
            self.reason = reason;
            self.flags |= flag::REASON;
        }
        self
    }

    #[inline(always)]
    pub fn ends(&mut self, end: u8) -> &mut Self {
        self.ends = end;
        self
    }

    #[inline(always)]
    pub fn flags(&mut self, flags: u32) -> &mut Self {
        self.flags |= flags;
        self
    }
}

#[inline(always)]
fn count(hook: u8, change: impl FnOnce(&mut HookCounters)) {
    if let Some(row) = COUNTERS.get_ptr_mut(u32::from(hook)) {
        // SAFETY: a per-CPU map value.
        change(unsafe { &mut *row });
    }
}

/// Whether user space has closed the books.
#[inline(always)]
fn is_closed() -> bool {
    // SAFETY: a map value. Volatile, because user space changes it while the program runs.
    CLOSED.get_ptr(0).is_some_and(|closed| unsafe { closed.read_volatile() } != 0)
}

/// Counts for a namespace, whatever the filter says.
#[inline(always)]
pub fn book(netns: u32, change: impl FnOnce(&mut NetnsCounters)) {
    let known = NETNS_COUNTERS.get_ptr_mut(&netns);
    let row = known.or_else(|| {
        let _ = NETNS_COUNTERS.insert(&netns, &NO_COUNTERS_YET, 0);
        NETNS_COUNTERS.get_ptr_mut(&netns)
    });
    if let Some(row) = row {
        // SAFETY: a per-CPU map value.
        change(unsafe { &mut *row });
    }
}

/// Sends an event that needs explaining.
#[inline(always)]
pub fn send(context: *mut c_void, event: &Event) {
    send_of(context, event, Sock(event.sock));
}

/// [`send`] with the socket as it is read best.
///
/// In stages, each a function of its own in the object too: the kernel grants 512 bytes of stack to all that call each other. What a
/// stage leaves to the next lies in maps.
#[inline(always)]
pub fn send_of(context: *mut c_void, event: &Event, sock: Sock<impl Structure>) {
    if !is_wanted(event) {
        return;
    }
    let by_process = filter().is_by_process();
    // Before it has cost anything. With a filter by process it is not known yet whether it is wanted.
    if config!(storm) != 0 && !by_process {
        storms::decide(event);
        // What ends a socket is noted there in any case.
        if storms::fate(event) == storms::COUNTED && event.ends == 0 {
            count(event.hook, |row| row.aggregated += 1);
            return;
        }
    }
    if !recall(event) {
        return;
    }
    if config!(storm) != 0 {
        if by_process {
            storms::decide(event);
        }
        if storms::fate(event) == storms::COUNTED {
            count(event.hook, |row| row.aggregated += 1);
            return;
        }
    }
    deliver(context, event, sock);
}

/// Counts an event, and asks the filter of its addresses.
#[inline(never)]
fn is_wanted(event: &Event) -> bool {
    if config!(deliver) & event.wanted == 0 || is_closed() {
        return false;
    }
    count(event.hook, |row| row.seen += 1);
    let filter = filter();
    // Here, where nothing else is known yet: further down the verifier would walk it once for each way that leads there.
    if filter.active != 0 && !filter.admits_flow(&event.flow) {
        count(event.hook, |row| row.filtered += 1);
        return false;
    }
    true
}

/// Reserves, fills and submits.
#[inline(never)]
fn deliver<S: Structure>(context: *mut c_void, event: &Event, sock: Sock<S>) {
    let Some(found) = FOUND.get_ptr(u32::from(event.hook)) else {
        count(event.hook, |row| row.lost += 1);
        return;
    };
    // Second: what was reserved must be submitted.
    let Some(mut entry) = EVENTS.reserve::<Record>(0) else {
        count(event.hook, |row| row.lost += 1);
        return;
    };
    let full = Sock::is_full(event.state);
    let sample = config!(storm) != 0 && storms::fate(event) == storms::SAMPLE;
    let wanted = config!(frames).min(FRAMES as u32) * 8;
    let (stacks, tcp_state) = (config!(stacks) != 0, config!(reset_tcp_state));
    let record = entry.as_mut_ptr();
    // SAFETY: reserved memory of the right size and alignment; every field is written before it is submitted.
    unsafe {
        fill(record, event, sock, event.flags | (*found).flags | bit(sample, flag::SAMPLE), full, found);
        // What not every event has comes last: after a branch the verifier walks everything twice.
        (*record).frames = 0;
        if !stacks && event.kind == kind::RST_SENT && event.state == state::CLOSE {
            let lingers = closes_lingering(
                tcp_state,
                (*record).reason,
                (*record).flags,
                &(*record).socket,
                &(*record).present,
            );
            (*record).flags |= bit(lingers, flag::LINGERED);
        }
        let told = tells_caller(event.kind, event.state) || (*record).flags & flag::LINGERED != 0;
        if stacks || !told {
            // The most expensive call of all.
            let bytes = bpf_get_stack(context, (&raw mut (*record).stack).cast(), wanted, 0);
            (*record).frames = if bytes > 0 { (bytes as u64 / 8) as u32 } else { 0 };
        }
    }
    entry.submit(QUIET);
    count(event.hook, |row| row.delivered += 1);
}

/// Gathers what is remembered, and asks the filter of processes.
#[inline(never)]
fn recall(event: &Event) -> bool {
    // A place of the hook's own: the kernel does not enter a program that is at work on this CPU.
    let Some(found) = FOUND.get_ptr_mut(u32::from(event.hook)) else {
        count(event.hook, |row| row.lost += 1);
        return false;
    };
    // SAFETY: a per-CPU map value.
    let flags = unsafe { gather(event, Sock::is_full(event.state), found) };
    let filter = filter();
    // SAFETY: as above.
    unsafe {
        (&raw mut (*found).flags).write_volatile(flags);
        if filter.active != 0 {
            let owner = if flags & flag::PAST != 0 { &(*found).past.owner } else { &(*found).present.owner };
            if !filter.admits_process(owner) {
                count(event.hook, |row| row.filtered += 1);
                return false;
            }
        }
    }
    true
}

/// Gathers what is remembered of the socket and of whoever had its addresses before, and notes there how it ends. Copies, so that
/// everything behind this has one place to read from, however it came there: the verifier walks it once. Gives flags.
///
/// # Safety
/// `found` must be writable.
#[inline(always)]
unsafe fn gather(event: &Event, full: bool, found: *mut Found) -> u32 {
    let closed = event.state == state::CLOSE;
    let mut known = false;
    let mut flags = 0;
    // SAFETY: by contract, and map values just found.
    unsafe {
        words::zero(&raw mut (*found).present);
        words::zero(&raw mut (*found).past);
        if event.sock != 0 && full {
            let present = &raw mut (*found).present;
            if let Some(memory) = owners::find(Sock(event.sock)) {
                words::copy(present, memory);
                known = true;
                if !closed && event.ends != 0 {
                    (*memory).end = event.ends;
                }
            } else if !closed {
                // A closed one was perhaps destroyed already: nothing to learn from it any more.
                owners::seed(Sock(event.sock), &raw mut (*present).owner);
                known = true;
            }
        }
        let asks = !known || event.state == state::LISTEN;
        // A closed socket was filed already.
        let tells = closed && event.ends != 0;
        if asks || tells {
            if let Some((memory, addresses)) = owners::past(&event.flow) {
                if asks {
                    let past = &raw mut (*found).past;
                    words::copy(past, memory);
                    // Another connection may have taken the entry meanwhile, from another CPU or in an interrupt.
                    flags = bit(tables::is_of(addresses, &event.flow), flag::PAST);
                }
                if tells {
                    (*memory).end = event.ends;
                    (*memory).end_ns = event.at_ns;
                }
            }
        }
    }
    flags
}

/// # Safety
/// `record` must be writable, `found` readable.
#[inline(always)]
unsafe fn fill(
    record: *mut Record,
    event: &Event,
    sock: Sock<impl Structure>,
    mut flags: u32,
    full: bool,
    found: *const Found,
) {
    // SAFETY: by contract.
    unsafe {
        (*record).mono_ns = event.at_ns;
        (*record).sock = event.sock;
        (*record).kind = event.kind;
        (*record).hook = event.hook;
        (*record).state = event.state;
        (*record).pad = 0;
        (*record).reason = event.reason;
        (*record).flow = event.flow;
        task::describe(&raw mut (*record).task);
        (*record).packet = event.packet;
        (*record).listen = event.listen;
        listener(event, &raw mut (*record).listener);
        (*record).timewait = event.timewait;
        words::copy(&raw mut (*record).present, &raw const (*found).present);
        words::copy(&raw mut (*record).past, &raw const (*found).past);
        if event.sock != 0 && full && sock.exists() {
            sock.details(&raw mut (*record).socket);
            let dead = sock.is_dead();
            let has_file = sock.has_file();
            flags |= flag::SOCKET
                | flag::FULL
                | bit(dead, flag::DEAD)
                | bit(has_file, flag::HAS_FILE)
                | bit(sock.owned(), flag::OWNED)
                | bit(sock.is_mptcp(), flag::MPTCP);
            owners::expire_inherited(&raw mut (*record).present.owner, has_file, dead);
        } else {
            words::zero(&raw mut (*record).socket);
            if event.hook == hook::NF_SEND_RESET || event.hook == hook::NF_SEND_RESET6 {
                // The firewall answers before any socket is looked for: who would have got the segment, at most.
                owners::inherit_from_port(
                    event.flow.netns,
                    event.flow.local_port,
                    &raw mut (*record).present.owner,
                );
            }
            flags |= bit(event.sock != 0, flag::SOCKET);
        }
        (*record).flags = flags;
    }
}

/// What the listener that the event is about did lately.
///
/// # Safety
/// `into` must be writable.
#[inline(always)]
unsafe fn listener(event: &Event, into: *mut Listener) {
    // SAFETY: by contract; `port` is a map value just found.
    unsafe {
        words::zero(into);
        if event.flags & flag::LISTEN == 0 {
            return;
        }
        (*into).young = Sock(event.sock).young_requests();
        let key = PortKey { netns: event.flow.netns, port: u32::from(event.flow.local_port) };
        if let Some(port) = PORTS.get_ptr(&key) {
            (*into).accepts = (*port).accepts;
            (*into).last_accept_ns = (*port).last_accept_ns;
        }
    }
}

/// `bits` if `yes`, without a branch.
#[inline(always)]
fn bit(yes: bool, bits: u32) -> u32 {
    u32::from(yes) * bits
}

/// Sends a state transition.
#[inline(always)]
pub fn send_state(
    hook: u8,
    sock: Sock<impl Structure>,
    flow: &Flow,
    old: u8,
    new: u8,
    (since_ns, at_ns): (u64, u64),
    flags: u32,
    memory: *const Memory,
) {
    if is_closed() {
        return;
    }
    count(hook, |row| row.seen += 1);
    // SAFETY: the caller's map value.
    if !filter().admits_owner(flow, unsafe { &(*memory).owner }) {
        count(hook, |row| row.filtered += 1);
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<StateRecord>(0) else {
        count(hook, |row| row.lost += 1);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved memory of the right size and alignment; every field is written.
    unsafe {
        (*record).mono_ns = at_ns;
        (*record).sock = sock.0.address();
        (*record).kind = kind::STATE;
        (*record).hook = hook;
        (*record).old_state = old;
        (*record).new_state = new;
        (*record).flags = flags;
        (*record).since_ns = since_ns;
        (*record).flow = *flow;
        task::describe(&raw mut (*record).task);
        words::copy(&raw mut (*record).owner, &raw const (*memory).owner);
    }
    entry.submit(QUIET);
    count(hook, |row| row.delivered += 1);
}
