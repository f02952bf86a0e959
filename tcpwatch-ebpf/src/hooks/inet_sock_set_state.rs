//! Tracepoint `sock:inet_sock_set_state`: every transition of a full socket, and with them who connected, listened and
//! closed: those transitions happen in the process that caused them.
//!
//! kernel: v5.10..  `(const struct sock *sk, const int oldstate, const int newstate)`, never NULL: its state was just read

use super::tracepoint;
use crate::context::Hooked;
use crate::emit;
use crate::kernel::config::config;
use crate::kernel::field::Structure;
use crate::kernel::sock::Sock;
use crate::{owners, tables};
use tcpwatch_common::config::deliver;
use tcpwatch_common::hook;
use tcpwatch_common::owner::{Memory, Step, how};
use tcpwatch_common::record::flag;
use tcpwatch_common::state::{
    CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, LAST_ACK, LISTEN, SYN_RECV, SYN_SENT,
};

tracepoint!(handle, inet_sock_set_state, inet_sock_set_state_typed);

#[inline(always)]
fn handle(context: &impl Hooked) -> Option<()> {
    let sock = context.sock(0);
    let old = context.number(1) as u8;
    let new = context.number(2) as u8;
    // This runs for every step of every connection of the host, so nothing is read that is not needed.
    let memory = memory(sock, old, new)?;
    let now = emit::now();
    let deliver_states = config!(deliver) & deliver::STATE != 0;
    // SAFETY: `memory` is a map value just found.
    unsafe {
        if (*memory).step_count == 0 && !begins(old, new) {
            // In this state since before tcpwatch looked.
            owners::step(memory, old, 0);
        }
        attribute(sock, memory, old, new);
        let since_ns = if deliver_states { since(memory, old) } else { 0 };
        owners::step(memory, new, now);
        if new == FIN_WAIT1 || new == LAST_ACK {
            (*memory).fin_by_close = u8::from(sock.is_shut());
        }
        let ends = new == CLOSE && old != LISTEN;
        // A connection that was closed in order has its place already: noted while it still had its port, which costs less to read.
        if new == CLOSE_WAIT
            || new == FIN_WAIT1
            || deliver_states
            || (ends && (*owners::place(memory)).remote_port == 0)
        {
            *owners::place(memory) = sock.flow_in(netns(sock, memory), true);
        }
        if ends {
            if (*memory).owner.how == how::LISTENER {
                owners::expire_inherited(&raw mut (*memory).owner, sock.has_file(), sock.is_dead());
            }
            owners::bury(memory, sock, old, now);
        }
        if deliver_states {
            let mut flags = if sock.owned() { flag::OWNED } else { 0 };
            if sock.is_mptcp() {
                flags |= flag::MPTCP;
            }
            let flow = owners::place(memory);
            emit::send_state(
                hook::INET_SOCK_SET_STATE,
                sock,
                &*flow,
                old,
                new,
                (since_ns, now),
                flags,
                memory,
            );
        }
    }
    Some(())
}

/// Whether a new life begins at this address: a socket that leaves CLOSE, or a child (cloned while its listener listened).
#[inline(always)]
fn begins(old: u8, new: u8) -> bool {
    (old == CLOSE && new != CLOSE) || (old == LISTEN && new == SYN_RECV)
}

/// What is remembered of the socket, made where that is its place. Only TCP's sockets are remembered, so only unknown ones are
/// asked what they are: MPTCP and SCTP pass through here too.
#[inline(always)]
fn memory(sock: Sock<impl Structure>, old: u8, new: u8) -> Option<*mut Memory> {
    if !begins(old, new) {
        // The memory is the first thing in a life.
        if let Some(known) = tables::live_soon(sock.by_address()) {
            return Some(known.cast());
        }
    }
    if !sock.is_tcp() {
        return None;
    }
    let sock = sock.by_address();
    if begins(old, new) { owners::renew(sock) } else { owners::memory(sock) }
}

/// Who did it, where the transition tells.
///
/// # Safety
/// `memory` must be a live map value.
#[inline(always)]
unsafe fn attribute(sock: Sock<impl Structure>, memory: *mut Memory, old: u8, new: u8) {
    // SAFETY: by contract.
    unsafe {
        let how = if old == CLOSE && new == SYN_SENT {
            how::CONNECT
        } else if new == LISTEN {
            how::LISTEN
        } else if old != LISTEN && closes(sock, old, new) && sock.owned() {
            how::IO
        } else {
            how::NONE
        };
        // At one place: it is the longest part of the program.
        if how != how::NONE {
            owners::learn(memory, how, how == how::IO);
        }
        if new == LISTEN || (old == LISTEN && new == CLOSE) {
            owners::listening(sock.by_address(), memory, new == LISTEN);
        } else if old == LISTEN && new == SYN_RECV {
            let netns = sock.netns();
            (*owners::place(memory)).netns = netns;
            owners::inherit_from_port(netns, sock.local_port(true), &raw mut (*memory).owner);
        }
    }
}

/// A process closes (or shuts down) its socket here. `ss -K` also holds the lock when it ends a socket, but does not shut
/// it first.
#[inline(always)]
fn closes(sock: Sock<impl Structure>, old: u8, new: u8) -> bool {
    match new {
        FIN_WAIT1 => old == ESTABLISHED || old == SYN_RECV,
        LAST_ACK => true,
        // An orphan, as most are by then, is told by what costs less to read.
        CLOSE => old != SYN_SENT && !sock.is_dead() && sock.is_shut() && sock.has_file(),
        _ => false,
    }
}

/// The socket's network namespace, from its place where that was looked up before.
///
/// # Safety
/// `memory` must be a live map value.
#[inline(always)]
unsafe fn netns(sock: Sock<impl Structure>, memory: *mut Memory) -> u32 {
    // SAFETY: by contract.
    let known = unsafe { (*owners::place(memory)).netns };
    if known == 0 { sock.netns() } else { known }
}

/// When the socket entered the state that it leaves; 0 if that was not seen.
///
/// # Safety
/// `memory` must be a live map value.
#[inline(always)]
unsafe fn since(memory: *mut Memory, old: u8) -> u64 {
    // SAFETY: by contract; the index is masked to the array's length.
    unsafe {
        let count = (*memory).step_count;
        if count == 0 {
            return 0;
        }
        let index = (count - 1) as usize & (tcpwatch_common::owner::STEPS - 1);
        let last = (&raw const (*memory).steps).cast::<Step>().add(index).read();
        if last.state() == old { last.at_ns() } else { 0 }
    }
}
