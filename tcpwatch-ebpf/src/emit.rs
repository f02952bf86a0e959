//! From a hook to user space: count, filter, reserve, fill in place, submit.

use crate::kernel::config::{config, filter};
use crate::kernel::sock::Sock;
use crate::kernel::task;
use crate::maps::{CLOSED, COUNTERS, DEAD, EVENTS, NETNS_COUNTERS, PORTS};
use crate::owners;
use crate::words;
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_ktime_get_ns};
use core::ffi::c_void;
use core::mem::MaybeUninit;
use tcpwatch_common::counters::{HookCounters, NetnsCounters};
use tcpwatch_common::flow::{Flow, PortKey};
use tcpwatch_common::owner::Memory;
use tcpwatch_common::record::{FRAMES, Listen, Listener, Packet, Record, StateRecord, TimeWait, flag, kind};
use tcpwatch_common::{hook, state};

/// A wake-up per record is what slows a host down; user space looks by the clock.
const QUIET: u64 = BPF_RB_NO_WAKEUP as u64;
const NO_COUNTERS: NetnsCounters =
    NetnsCounters { rst_sent: 0, listen_drops: 0, tw_overflows: 0, firewall_rsts: 0 };
static NO_COUNTERS_YET: NetnsCounters = NO_COUNTERS;
static NO_MEMORY: Memory = Memory::EMPTY;
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// What a hook has to say. Parts that it has nothing to say of are zero and lack their bit in `flags`: plain values rather
/// than `Option`s, whose branches the verifier would have to walk in every combination.
#[repr(C)]
pub struct Event {
    /// The socket at hand, 0 without one.
    pub sock: Sock,
    pub kind: u8,
    pub hook: u8,
    /// State of the socket at the hook.
    pub state: u8,
    pad: u8,
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
    /// Begins an event in the caller's own storage: moving it about would take more stack than there is.
    #[inline(always)]
    pub fn begin<'a>(
        storage: &'a mut MaybeUninit<Self>,
        (kind, hook, wanted): (u8, u8, u32),
        flow: &Flow,
        sock: Sock,
        state: u8,
    ) -> &'a mut Self {
        // SAFETY: all zeroes are a valid event, and every byte is written.
        let event = unsafe {
            words::zero(storage.as_mut_ptr());
            storage.assume_init_mut()
        };
        event.sock = sock;
        event.kind = kind;
        event.hook = hook;
        event.state = state;
        event.wanted = wanted;
        event.flow = *flow;
        event
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
        self.flags |= flag::LISTEN;
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
    if NETNS_COUNTERS.get_ptr_mut(&netns).is_none() {
        let _ = NETNS_COUNTERS.insert(&netns, &NO_COUNTERS_YET, 0);
    }
    if let Some(row) = NETNS_COUNTERS.get_ptr_mut(&netns) {
        // SAFETY: a per-CPU map value.
        change(unsafe { &mut *row });
    }
}

/// Sends an event that needs explaining.
///
/// A function of its own in the object too: with a hook's own variables it would not fit into the 512 bytes of stack.
#[inline(never)]
pub fn send(context: *mut c_void, event: &Event) {
    if config!(deliver) & event.wanted == 0 || is_closed() {
        return;
    }
    count(event.hook, |row| row.seen += 1);
    let filter = filter();
    // Here, where nothing else is known yet: further down the verifier would walk it once for each way that leads there.
    if filter.active != 0 && !filter.admits_flow(&event.flow) {
        count(event.hook, |row| row.filtered += 1);
        return;
    }
    let full = Sock::is_full(event.state);
    // Pointers that are always good rather than `Option`s: older verifiers refuse the undefined half of a `None` that the
    // compiler moves about.
    let mut present = &raw const NO_MEMORY;
    let mut past = &raw const NO_MEMORY;
    let mut flags = event.flags;
    let mut known = false;
    if event.sock.exists() && full {
        // A closed one was perhaps destroyed already: nothing to learn from it any more.
        let kept =
            if event.state == state::CLOSE { owners::find(event.sock) } else { owners::memory(event.sock) };
        if let Some(memory) = kept {
            present = memory.cast_const();
            known = true;
        }
    }
    if !known || event.state == state::LISTEN {
        if let Some(memory) = DEAD.get_ptr_mut(&event.flow) {
            past = memory.cast_const();
            flags |= flag::PAST;
        }
    }
    if filter.active != 0 {
        let owner = if flags & flag::PAST != 0 { past } else { present };
        // SAFETY: a map value, or read-only data.
        if !filter.admits_process(unsafe { &(*owner).owner }) {
            count(event.hook, |row| row.filtered += 1);
            return;
        }
    }
    let Some(mut entry) = EVENTS.reserve::<Record>(0) else {
        count(event.hook, |row| row.lost += 1);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved memory of the right size and alignment; every field is written before it is submitted.
    unsafe { fill(record, event, flags, full, present, past) };
    // SAFETY: as above.
    unsafe {
        let bytes = bpf_get_stack(context, (&raw mut (*record).stack).cast(), (FRAMES * 8) as u32, 0);
        (*record).frames = if bytes > 0 { (bytes as u64 / 8) as u32 } else { 0 };
    }
    entry.submit(QUIET);
    count(event.hook, |row| row.delivered += 1);
}

/// # Safety
/// `record` must be writable, `present` and `past` readable.
#[inline(always)]
unsafe fn fill(
    record: *mut Record,
    event: &Event,
    mut flags: u32,
    full: bool,
    present: *const Memory,
    past: *const Memory,
) {
    // SAFETY: by contract.
    unsafe {
        (*record).mono_ns = now();
        (*record).sock = event.sock.0;
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
        words::copy(&raw mut (*record).present, present);
        words::copy(&raw mut (*record).past, past);
        if event.sock.exists() && full {
            event.sock.details(&raw mut (*record).socket);
            let dead = event.sock.is_dead();
            let has_file = event.sock.socket() != 0;
            flags |= flag::SOCKET
                | flag::FULL
                | bit(dead, flag::DEAD)
                | bit(has_file, flag::HAS_FILE)
                | bit(event.sock.owned(), flag::OWNED)
                | bit(event.sock.is_mptcp(), flag::MPTCP);
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
            flags |= bit(event.sock.exists(), flag::SOCKET);
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
        (*into).young = event.sock.young_requests();
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
    sock: Sock,
    flow: &Flow,
    old: u8,
    new: u8,
    since_ns: u64,
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
        (*record).mono_ns = now();
        (*record).sock = sock.0;
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
