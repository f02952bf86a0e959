//! What is remembered of sockets: their owner and their last states, alive and after their end.

use crate::context::Hooked;
use crate::kernel::config::config;
use crate::kernel::field::Structure;
use crate::kernel::sock::Sock;
use crate::kernel::task::{self, Current};
use crate::maps::{PORTS, SEEDS, STACKS};
use crate::{tables, words};
use aya_ebpf::bindings::BPF_F_USER_STACK;
use aya_ebpf::helpers::generated::bpf_get_stackid;
use tcpwatch_common::flow::{Flow, PortKey};
use tcpwatch_common::owner::{Life, Memory, Owner, PortOwner, STEPS, Step, how};
use tcpwatch_common::state;

static EMPTY_PORT: PortOwner =
    PortOwner { owner: Memory::EMPTY.owner, sockets: 0, pad: 0, accepts: 0, last_accept_ns: 0 };
const ANY: u64 = 0;

/// The memory of a live socket, `None` if there is none yet.
#[inline(always)]
pub fn find(sock: Sock) -> Option<*mut Memory> {
    // It is the first thing in a life.
    tables::live(sock).map(<*mut Life>::cast)
}

/// Which connection a live socket's entry is for; remote port 0 as long as that is not noted.
///
/// # Safety
/// `memory` must come from [`find`], [`memory`] or [`renew`].
#[inline(always)]
pub unsafe fn place(memory: *mut Memory) -> *mut Flow {
    // SAFETY: by contract it is the beginning of a `Life`.
    unsafe { &raw mut (*memory.cast::<Life>()).flow }
}

/// The memory of a socket, made and seeded when it is new.
#[inline(always)]
pub fn memory(sock: Sock) -> Option<*mut Memory> {
    match find(sock) {
        None => begin(sock),
        known => known,
    }
}

/// The memory of a socket that is not known yet, seeded.
#[inline(always)]
pub fn begin(sock: Sock) -> Option<*mut Memory> {
    let fresh = renew(sock)?;
    // SAFETY: a map value just found.
    unsafe { seed(sock, &raw mut (*fresh).owner) };
    Some(fresh)
}

/// An empty memory for a socket that begins a new life.
#[inline(always)]
pub fn renew(sock: Sock) -> Option<*mut Memory> {
    tables::live_anew(sock).map(<*mut Life>::cast)
}

/// Owner of a socket that was there before tcpwatch: by its inode, or, while nobody accepted it, by its listener's port.
///
/// # Safety
/// `owner` must be writable.
#[inline(always)]
pub unsafe fn seed(sock: Sock, owner: *mut Owner) {
    let inode = sock.inode();
    if inode != 0 {
        // SAFETY: written by user space before the programs were attached, never removed.
        if let Some(known) = unsafe { SEEDS.get(&inode) } {
            // SAFETY: by contract.
            unsafe { words::copy(owner, known) };
        }
    } else if sock.state() != state::LISTEN && !sock.is_dead() {
        // SAFETY: by contract.
        unsafe { inherit_from_port(sock.netns(), sock.local_port(true), owner) };
    }
}

/// The owner of the one listener on a port, as a child's.
///
/// # Safety
/// `owner` must be writable.
#[inline(always)]
pub unsafe fn inherit_from_port(netns: u32, port: u16, owner: *mut Owner) {
    let key = PortKey { netns, port: u32::from(port) };
    // SAFETY: a torn read would mix two owners of a port; `sockets` says 1 only when there is one.
    if let Some(listener) = unsafe { PORTS.get(&key) } {
        if listener.sockets == 1 && listener.owner.how != how::NONE {
            // SAFETY: by contract.
            unsafe {
                words::copy(owner, &raw const listener.owner);
                (*owner).how = how::LISTENER;
            }
        }
    }
}

/// The current process owns the socket. Nothing is written while it is known already, but, where it `closes` the socket, whether it
/// is exiting.
///
/// # Safety
/// `memory` must come from [`find`], [`memory`] or [`renew`].
#[inline(always)]
pub unsafe fn learn(memory: *mut Memory, how: u8, closes: bool) {
    // SAFETY: by contract.
    unsafe {
        if config!(typed_task) == 1 {
            let task = Current::typed();
            learn_from(|| task, memory, how, closes);
        } else {
            learn_from(Current::by_address, memory, how, closes);
        }
    }
}

/// [`learn`] from the task on this CPU, which is asked for where it is needed.
///
/// # Safety
/// As for [`learn`].
#[inline(always)]
unsafe fn learn_from<S: Structure>(
    task: impl Fn() -> Current<S>,
    memory: *mut Memory,
    how: u8,
    closes: bool,
) {
    // SAFETY: by contract.
    unsafe {
        if closes {
            (*memory).exiting = u8::from(task().is_exiting());
        }
        let owner = &raw mut (*memory).owner;
        let root_pid = Current::root_pid(&task);
        if (*owner).root_pid == root_pid && (*owner).how != how::NONE {
            // The same process: `accept` says more than what was inherited or found in /proc; a later read or write adds nothing.
            if (*owner).how == how::LISTENER {
                (*owner).how = how;
            }
            return;
        }
        if task::own(task(), root_pid, owner, how) {
            // What another process read from means nothing in this one.
            (*memory.cast::<Life>()).read_stack = 0;
        }
    }
}

/// A write by the current process.
///
/// # Safety
/// As for [`learn`].
#[inline(always)]
pub unsafe fn written(memory: *mut Memory) {
    // SAFETY: by contract.
    unsafe { learn(memory, how::IO, false) }
}

/// A read by the current process, from the user stack that it stands on.
///
/// # Safety
/// As for [`learn`].
#[inline(always)]
pub unsafe fn read(memory: *mut Memory, context: &impl Hooked) {
    // SAFETY: by contract.
    unsafe { learn(memory, how::IO, false) };
    if config!(read_stacks) != 0 {
        // SAFETY: the helper takes the program's own context and map; the memory is the beginning of a `Life`.
        unsafe {
            let id = bpf_get_stackid(context.context(), STACKS.as_ptr(), u64::from(BPF_F_USER_STACK));
            // Without a stack the one of an earlier read goes too: it is not where the process read last.
            (*memory.cast::<Life>()).read_stack = if id >= 0 { id as u32 + 1 } else { 0 };
        }
    }
}

/// The child waits in the listener's queue: until somebody accepts it, it belongs to whoever listens.
#[inline(always)]
pub fn inherit(listener: Sock, child: Sock) {
    if !child.exists() {
        return;
    }
    let Some(parent) = memory(listener) else { return };
    let Some(memory) = memory(child) else { return };
    // SAFETY: map values just found.
    unsafe {
        let known = (*memory).owner.how;
        if (*parent).owner.how != how::NONE && (known == how::NONE || known == how::LISTENER) {
            words::copy(&raw mut (*memory).owner, &raw const (*parent).owner);
            (*memory).owner.how = how::LISTENER;
        }
    }
}

/// An inherited owner is only true while the socket waits in the listener's queue. Once it has a descriptor, or had one,
/// somebody accepted it; if that was not seen, nobody is known.
///
/// # Safety
/// `owner` must be writable.
#[inline(always)]
pub unsafe fn expire_inherited(owner: *mut Owner, has_file: bool, dead: bool) {
    // SAFETY: by contract.
    unsafe {
        if (*owner).how == how::LISTENER && (has_file || dead) {
            words::zero(owner);
        }
    }
}

/// Adds a state to the history.
///
/// # Safety
/// `memory` must be a live map value.
#[inline(always)]
pub unsafe fn step(memory: *mut Memory, state: u8, at_ns: u64) {
    // SAFETY: by contract; the index is masked to the array's length.
    unsafe {
        let index = (*memory).step_count as usize & (STEPS - 1);
        (&raw mut (*memory).steps).cast::<Step>().add(index).write(Step::new(state, at_ns));
        (*memory).step_count += 1;
    }
}

/// Files a closed connection under its addresses, which are noted in its [`place`].
///
/// # Safety
/// `memory` must come from [`find`], [`memory`] or [`renew`].
#[inline(always)]
pub unsafe fn bury(memory: *mut Memory, sock: Sock<impl Structure>, old_state: u8, now: u64) -> Option<()> {
    // SAFETY: by contract.
    let flow = unsafe { *place(memory) };
    if flow.remote_port == 0 {
        return None;
    }
    let plot = tables::plot(&flow)?;
    // SAFETY: by contract, and the plot is the flow's.
    unsafe {
        sock.sum_up(memory, old_state);
        (*memory).end_state = old_state;
        (*memory).end_ns = now;
        tables::bury(memory, &flow, plot, now)
    }
}

/// What was known of an ended connection, and the addresses that its entry is for now.
#[inline(always)]
pub fn past(flow: &Flow) -> Option<(*mut Memory, *const Flow)> {
    let grave = tables::dead(flow)?;
    // SAFETY: a map value just found. The memory is the first thing in it.
    Some((grave.cast(), unsafe { &raw const (*grave).flow }))
}

/// Notes on a buried connection how its minisock ended, which may have gone on from FIN_WAIT2 to TIME_WAIT since the full socket left.
#[inline(always)]
pub fn note_minisock_end(flow: &Flow, substate: u8, end: u8, now: u64) {
    if let Some((memory, _)) = past(flow) {
        // SAFETY: a map value just found; plain stores.
        unsafe {
            (*memory).end = end;
            (*memory).end_state = substate;
            (*memory).end_ns = now;
        }
    }
}

/// A socket began (`sockets` +1) or ceased (-1) to listen on its port.
#[inline(always)]
pub fn listening(sock: Sock, memory: *mut Memory, begins: bool) {
    let key = PortKey { netns: sock.netns(), port: u32::from(sock.local_port(true)) };
    if PORTS.get_ptr_mut(&key).is_none() && begins {
        let _ = PORTS.insert(&key, &EMPTY_PORT, ANY);
    }
    let Some(port) = PORTS.get_ptr_mut(&key) else { return };
    // SAFETY: map values just found.
    unsafe {
        if begins {
            (*port).sockets += 1;
            words::copy(&raw mut (*port).owner, &raw const (*memory).owner);
        } else if (*port).sockets <= 1 {
            let _ = PORTS.remove(&key);
        } else {
            (*port).sockets -= 1;
            // One of several went, and which one stays is not known from here: nobody, rather than the wrong one.
            words::zero(&raw mut (*port).owner);
        }
    }
}

/// A process took a connection from the queue of a listener on this port.
#[inline(always)]
pub fn accepted(child: Sock, now: u64) {
    let key = PortKey { netns: child.netns(), port: u32::from(child.local_port(true)) };
    let Some(port) = PORTS.get_ptr_mut(&key) else { return };
    // SAFETY: a map value just found. Two CPUs that accept at the same moment may count as one, which is as good for a rate; the
    // target has no atomic addition.
    unsafe {
        (*port).accepts += 1;
        (*port).last_accept_ns = now;
    }
}
