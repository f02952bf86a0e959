//! From a hook to user space: count, filter, reserve, fill in place, submit.

use crate::kernel::config::{config, filter};
use crate::kernel::sock::Sock;
use crate::kernel::task;
use crate::maps::{COUNTERS, DEAD, EVENTS, NETNS_COUNTERS};
use crate::owners;
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_ktime_get_ns};
use core::ffi::c_void;
use tcpwatch_common::counters::{HookCounters, NetnsCounters};
use tcpwatch_common::flow::Flow;
use tcpwatch_common::owner::Memory;
use tcpwatch_common::record::{FRAMES, Listen, Packet, Record, Socket, StateRecord, TimeWait, flag, kind};
use tcpwatch_common::state;

/// A wake-up per record is what slows a host down; user space looks by the clock.
const QUIET: u64 = BPF_RB_NO_WAKEUP as u64;
const NO_COUNTERS: NetnsCounters = NetnsCounters { rst_sent: 0, listen_drops: 0, tw_overflows: 0, firewall_rsts: 0 };
static NO_COUNTERS_YET: NetnsCounters = NO_COUNTERS;
static NO_MEMORY: Memory = Memory::EMPTY;

#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// What a hook has to say.
pub struct Event {
    pub kind: u8,
    pub hook: u8,
    /// Bit of `config::deliver` without which the event is not wanted at all.
    pub wanted: u32,
    pub flow: Flow,
    /// The socket at hand, 0 without one.
    pub sock: Sock,
    /// Its state at the hook.
    pub state: u8,
    pub reason: Option<u32>,
    pub packet: Option<Packet>,
    pub listen: Option<Listen>,
    pub timewait: Option<TimeWait>,
    /// Further bits of `record::flag`.
    pub flags: u32,
}

#[inline(always)]
fn count(hook: u8, change: impl FnOnce(&mut HookCounters)) {
    if let Some(row) = COUNTERS.get_ptr_mut(u32::from(hook)) {
        // SAFETY: a per-CPU map value.
        change(unsafe { &mut *row });
    }
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
    if config!(deliver) & event.wanted == 0 {
        return;
    }
    count(event.hook, |row| row.seen += 1);
    let full = Sock::is_full(event.state);
    let present = if !event.sock.exists() || !full {
        None
    } else if event.state == state::CLOSE {
        // Perhaps destroyed already: nothing to learn from it any more.
        owners::find(event.sock)
    } else {
        owners::memory(event.sock)
    };
    let past = if present.is_none() || event.state == state::LISTEN { DEAD.get_ptr_mut(&event.flow) } else { None };
    let filter = filter();
    if filter.active != 0 {
        let owner = match (past, present) {
            (Some(memory), _) | (None, Some(memory)) => memory.cast_const(),
            (None, None) => &raw const NO_MEMORY,
        };
        // SAFETY: a map value, or read-only data.
        if !filter.admits_owner(&event.flow, unsafe { &(*owner).owner }) {
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
    unsafe { fill(record, event, full, present, past) };
    // SAFETY: as above.
    unsafe {
        let bytes = bpf_get_stack(context, (&raw mut (*record).stack).cast(), (FRAMES * 8) as u32, 0);
        (*record).frames = if bytes > 0 { (bytes as u64 / 8) as u32 } else { 0 };
    }
    entry.submit(QUIET);
    count(event.hook, |row| row.delivered += 1);
}

/// # Safety
/// `record` must be writable, `present` and `past` live map values.
#[inline(always)]
unsafe fn fill(record: *mut Record, event: &Event, full: bool, present: Option<*mut Memory>, past: Option<*mut Memory>) {
    let mut flags = event.flags;
    // SAFETY: by contract.
    unsafe {
        (*record).mono_ns = now();
        (*record).sock = event.sock.0;
        (*record).kind = event.kind;
        (*record).hook = event.hook;
        (*record).state = event.state;
        (*record).pad = 0;
        (*record).reason = match event.reason {
            Some(reason) => {
                flags |= flag::REASON;
                reason
            }
            None => 0,
        };
        (*record).flow = event.flow;
        task::describe(&raw mut (*record).task);
        (*record).packet = match event.packet {
            Some(packet) => {
                flags |= flag::PACKET;
                packet
            }
            None => Packet { seq: 0, ack: 0, len: 0, window: 0, flags: 0, nf_hook: 0 },
        };
        (*record).listen = match event.listen {
            Some(listen) => {
                flags |= flag::LISTEN;
                listen
            }
            None => Listen {
                accept_len: 0,
                accept_max: 0,
                syn_len: 0,
                max_syn_backlog: 0,
                somaxconn: 0,
                syncookies: 0,
                abort_on_overflow: 0,
                stage: 0,
                passed: 0,
            },
        };
        (*record).timewait = match event.timewait {
            Some(timewait) => {
                flags |= flag::TIME_WAIT;
                timewait
            }
            None => TimeWait { used: 0, max: 0, substate: 0, pad: 0 },
        };
        (*record).present = *present.map_or(&raw const NO_MEMORY, <*mut Memory>::cast_const);
        (*record).past = match past {
            Some(memory) => {
                flags |= flag::PAST;
                *memory
            }
            None => NO_MEMORY,
        };
        let mut details = Socket {
            flags: 0,
            linger2: 0,
            lingertime: 0,
            snd_una: 0,
            snd_nxt: 0,
            rcv_nxt: 0,
            copied_seq: 0,
            shutdown: 0,
            pad: [0; 7],
        };
        if event.sock.exists() {
            flags |= flag::SOCKET;
            if full {
                flags |= flag::FULL;
                details = event.sock.details();
                let dead = event.sock.is_dead();
                let has_file = event.sock.socket() != 0;
                if dead {
                    flags |= flag::DEAD;
                }
                if has_file {
                    flags |= flag::HAS_FILE;
                }
                if event.sock.owned() {
                    flags |= flag::OWNED;
                }
                if event.sock.is_mptcp() {
                    flags |= flag::MPTCP;
                }
                owners::expire_inherited(&raw mut (*record).present.owner, has_file, dead);
            }
        }
        (*record).socket = details;
        (*record).flags = flags;
    }
}

/// Sends a state transition.
#[inline(always)]
pub fn send_state(hook: u8, sock: Sock, flow: &Flow, old: u8, new: u8, since_ns: u64, flags: u32, memory: *const Memory) {
    count(hook, |row| row.seen += 1);
    let filter = filter();
    // SAFETY: the caller's map value.
    if filter.active != 0 && !filter.admits_owner(flow, unsafe { &(*memory).owner }) {
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
        (*record).owner = (*memory).owner;
    }
    entry.submit(QUIET);
    count(hook, |row| row.delivered += 1);
}
