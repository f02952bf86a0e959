//! The tables of sockets: places in arrays, found by hash ([`tcpwatch_common::table`]).
//!
//! Several CPUs look and write at once and there is no lock. A place is written by whoever claims it alone; whoever does not
//! get it takes another place or none. What is read is held against its key, so that nothing is told of another connection.

use crate::emit;
use crate::kernel::config::config;
use crate::kernel::sock::Sock;
use crate::maps::{DEAD, DEAD_CHUNKS, DEAD_KEYS, DEAD_NEXT, LIVE, LIVE_KEYS, TABLES};
use crate::words;
use core::arch::asm;
use tcpwatch_common::counters::TableCounters;
use tcpwatch_common::flow::Flow;
use tcpwatch_common::owner::{Life, Memory};
use tcpwatch_common::table::{
    self, CHUNK, DeadLine, Grave, HASH, at_of_key, is_before, key_of_dead, oldest, place, set_of_flow,
    sets_of_socket,
};

/// Pieces of the log that a CPU looks at before it gives up.
const TRIES: u32 = 4;

/// Adds to a word that other CPUs add to as well. The target's own atomics stop at loads and stores; this instruction is in
/// every kernel.
///
/// # Safety
/// `word` must be writable.
#[inline(always)]
unsafe fn add(word: *mut u64, value: u64) {
    // SAFETY: by contract.
    unsafe {
        asm!(
            "lock *(u64 *)({word} + 0) += {value}",
            word = in(reg) word,
            value = in(reg) value,
            options(nostack),
        );
    }
}

/// [`add`] for half a word.
///
/// # Safety
/// `word` must be writable.
#[inline(always)]
pub unsafe fn add_half(word: *mut u32, value: u64) {
    // SAFETY: by contract.
    unsafe {
        asm!(
            "lock *(u32 *)({word} + 0) += {value}",
            word = in(reg) word,
            value = in(reg) value,
            options(nostack),
        );
    }
}

/// Claims a place; false if somebody else is at it. What was claimed must be [`release`]d.
///
/// # Safety
/// `claims` must be a word of a map value.
#[inline(always)]
pub unsafe fn claim(claims: *mut u64) -> bool {
    // SAFETY: by contract. The addition is a barrier too: of several that claim at once at most one reads 1.
    unsafe {
        add(claims, 1);
        if claims.read_volatile() == 1 {
            return true;
        }
        release(claims);
    }
    false
}

/// # Safety
/// As for [`claim`].
#[inline(always)]
pub unsafe fn release(claims: *mut u64) {
    // SAFETY: by contract.
    unsafe { add(claims, u64::MAX) }
}

#[inline(always)]
fn count(change: impl FnOnce(&mut TableCounters)) {
    if let Some(row) = TABLES.get_ptr_mut(0) {
        // SAFETY: a per-CPU map value.
        change(unsafe { &mut *row });
    }
}

/// A key of a line.
///
/// # Safety
/// `line` must be a map value.
#[inline(always)]
unsafe fn key<const WAYS: usize>(line: *mut [u64; WAYS], way: u32) -> *mut u64 {
    // SAFETY: by contract; masked to the line's length.
    unsafe { line.cast::<u64>().add(way as usize & (WAYS - 1)) }
}

/// The entry of a live socket.
#[inline(always)]
pub fn live(sock: Sock) -> Option<*mut Life> {
    let (first, second) = sets_of_socket(sock.0, config!(live_lines));
    match live_in(first, sock) {
        None => live_in(second, sock),
        found => found,
    }
}

#[inline(always)]
fn live_in(set: u32, sock: Sock) -> Option<*mut Life> {
    let line = LIVE_KEYS.get_ptr(set)?;
    // SAFETY: a map value.
    let way = place(unsafe { &*line }, sock.0, u64::MAX);
    if way == table::LIVE {
        return None;
    }
    LIVE.get_ptr_mut(set * table::LIVE + way)
}

/// [`live`] for the program that runs most often and does little else: with branches it is done sooner, mostly at the first of
/// the places, and the verifier has more to walk.
#[inline(always)]
pub fn live_soon(sock: Sock) -> Option<*mut Life> {
    let (first, second) = sets_of_socket(sock.0, config!(live_lines));
    match live_soon_in(first, sock) {
        None => live_soon_in(second, sock),
        found => found,
    }
}

#[inline(always)]
fn live_soon_in(set: u32, sock: Sock) -> Option<*mut Life> {
    let line = LIVE_KEYS.get_ptr(set)?;
    let mut way = 0;
    while way < table::LIVE {
        // SAFETY: a map value, and within it. Volatile, or the compiler would read all of the line first.
        if unsafe { line.cast::<u64>().add(way as usize).read_volatile() } == sock.0 {
            return LIVE.get_ptr_mut(set * table::LIVE + way);
        }
        way += 1;
    }
    None
}

/// An empty entry for a socket that begins a new life.
#[inline(always)]
pub fn live_anew(sock: Sock) -> Option<*mut Life> {
    count(|row| row.live_added += 1);
    if let Some(known) = live_soon(sock) {
        // The end of whoever had this address before was not seen.
        // SAFETY: a map value.
        unsafe { clear(known) };
        return Some(known);
    }
    let (first, second) = sets_of_socket(sock.0, config!(live_lines));
    let mut set = first;
    let mut way = free_in(first)?;
    if way >= table::LIVE_WELL_FILLED {
        let other = free_in(second)?;
        if other < way {
            set = second;
            way = other;
        }
    }
    let mut occupant = 0;
    if way == table::LIVE {
        // Both sets are full: anybody's place.
        count(|row| row.live_forgotten += 1);
        way = (emit::now() >> 8) as u32 & (table::LIVE - 1);
        // SAFETY: a map value.
        occupant = unsafe { key(LIVE_KEYS.get_ptr_mut(set)?, way).read_volatile() };
    }
    settle(set, way, occupant, sock)
}

/// The first free place of a set, [`table::LIVE`] without.
#[inline(always)]
fn free_in(set: u32) -> Option<u32> {
    // SAFETY: a map value.
    Some(place(unsafe { &*LIVE_KEYS.get_ptr(set)? }, 0, u64::MAX))
}

/// Takes a place, if it is still `occupant`'s, or free (0).
#[inline(always)]
fn settle(set: u32, way: u32, occupant: u64, sock: Sock) -> Option<*mut Life> {
    let line = LIVE_KEYS.get_ptr_mut(set)?;
    let life = LIVE.get_ptr_mut(set * table::LIVE + way)?;
    // SAFETY: map values.
    unsafe {
        let claims = &raw mut (*life).claims;
        if !claim(claims) {
            return None;
        }
        let key = key(line, way);
        let mine = key.read_volatile() == occupant;
        if mine {
            // First the entry, then what leads to it.
            clear(life);
            key.write_volatile(sock.0);
        }
        release(claims);
        mine.then_some(life)
    }
}

/// # Safety
/// `life` must be a map value.
#[inline(always)]
unsafe fn clear(life: *mut Life) {
    // SAFETY: by contract.
    unsafe {
        words::zero(&raw mut (*life).memory);
        (*life).flow.remote_port = 0;
        (*life).flow.netns = 0;
        (*life).read_stack = 0;
    }
}

/// A socket is destroyed.
#[inline(always)]
pub fn live_remove(sock: Sock) {
    let (first, second) = sets_of_socket(sock.0, config!(live_lines));
    if remove_from(first, sock).is_none() {
        remove_from(second, sock);
    }
}

#[inline(always)]
fn remove_from(set: u32, sock: Sock) -> Option<()> {
    let line = LIVE_KEYS.get_ptr_mut(set)?;
    // SAFETY: a map value.
    let way = place(unsafe { &*line }, sock.0, u64::MAX);
    if way == table::LIVE {
        return None;
    }
    let life = LIVE.get_ptr_mut(set * table::LIVE + way)?;
    // SAFETY: map values.
    unsafe {
        let claims = &raw mut (*life).claims;
        // Who else wants it gives it to another socket.
        if claim(claims) {
            let key = key(line, way);
            if key.read_volatile() == sock.0 {
                key.write_volatile(0);
                // User space goes through the entries without looking at the keys.
                (*life).flow.remote_port = 0;
            }
            release(claims);
        }
    }
    count(|row| row.live_removed += 1);
    Some(())
}

/// The entry of an ended connection.
#[inline(always)]
pub fn dead(flow: &Flow) -> Option<*mut Grave> {
    let (set, hash) = set_of_flow(flow, config!(dead_lines));
    let line = DEAD_KEYS.get_ptr(set)?;
    // SAFETY: a map value.
    let way = place(unsafe { &*line }, u64::from(hash), HASH);
    if way == table::DEAD {
        return None;
    }
    // SAFETY: a map value, and within it.
    let key = unsafe { key(line.cast_mut(), way).read_volatile() };
    let grave = DEAD.get_ptr_mut(at_of_key(key))?;
    // SAFETY: a map value.
    unsafe { is_of(&raw const (*grave).flow, flow) }.then_some(grave)
}

/// Whether an entry is (still) that of a connection.
///
/// # Safety
/// `entry` must be readable.
#[inline(always)]
pub unsafe fn is_of(entry: *const Flow, flow: &Flow) -> bool {
    let (a, b) = (entry.cast::<u32>(), (&raw const *flow).cast::<u32>());
    let mut differs = 0;
    let mut i = 0;
    while i < size_of::<Flow>() / 4 {
        // SAFETY: by contract, and within both.
        differs |= unsafe { a.add(i).read_volatile() ^ b.add(i).read_volatile() };
        i += 1;
    }
    differs == 0
}

/// Where an ended connection is to be found.
#[derive(Clone, Copy)]
pub struct Plot {
    line: *mut DeadLine,
    hash: u32,
}

/// Looks up where an ended connection is to be found, and has its line of the index fetched: other work can be done until
/// [`bury`] needs it.
#[inline(always)]
pub fn plot(flow: &Flow) -> Option<Plot> {
    let (set, hash) = set_of_flow(flow, config!(dead_lines));
    let line = DEAD_KEYS.get_ptr_mut(set)?;
    // SAFETY: a map value.
    unsafe { key(line, 0).read_volatile() };
    Some(Plot { line, hash })
}

/// Files an ended connection; the oldest makes room.
///
/// # Safety
/// `memory` must be readable, and `plot` that of `flow`.
#[inline(always)]
pub unsafe fn bury(memory: *const Memory, flow: &Flow, plot: Plot, now: u64) -> Option<()> {
    let tick = table::tick(now);
    let row = TABLES.get_ptr_mut(0)?;
    // SAFETY: a per-CPU map value, which no other program than this one writes this part of; by contract.
    unsafe {
        (*row).dead_added += 1;
        if (*row).dead_left == 0 && !next_chunk(row, tick) {
            (*row).dead_forgotten += 1;
            return None;
        }
        let at = (*row).dead_chunk * CHUNK - (*row).dead_left;
        (*row).dead_left -= 1;
        let grave = DEAD.get_ptr_mut(at)?;
        // Nobody is to take the one for the other meanwhile: whoever reads asks for the addresses before and after.
        (*grave).flow.netns = 0;
        words::copy(&raw mut (*grave).memory, memory);
        (*grave).flow = *flow;
        let known = place(&*plot.line, u64::from(plot.hash), HASH);
        let way = if known == table::DEAD { oldest(&*plot.line, tick) } else { known };
        let key = key(plot.line, way);
        let old = key.read_volatile();
        key.write_volatile(key_of_dead(plot.hash, at, tick));
        // Most of what makes room in the index was written over in the log long ago: nothing is to be noted there, and nobody waits
        // for that memory.
        if old == 0 || ((*row).dead_since != 0 && is_before(old, (*row).dead_since)) {
            return Some(());
        }
        let chunk = DEAD_CHUNKS.get_ptr_mut(at_of_key(old) / CHUNK)?;
        if !(*chunk).is_newer_than(old) {
            // Nothing leads to that entry any more. It is forgotten, unless the addresses are the same.
            (*chunk).gone += 1;
            (*row).dead_forgotten += u64::from(known == table::DEAD);
        }
    }
    Some(())
}

/// Gives this CPU another piece of the log, the one that was left alone for longest; false if others are at all that it looks at.
///
/// # Safety
/// `row` must be this CPU's.
#[inline(never)]
unsafe fn next_chunk(row: *mut TableCounters, tick: u64) -> bool {
    let Some(next) = DEAD_NEXT.get_ptr_mut(0) else { return false };
    // SAFETY: by contract, and map values.
    unsafe {
        if let Some(done) = DEAD_CHUNKS.get_ptr_mut((*row).dead_chunk.wrapping_sub(1)) {
            release(&raw mut (*done).claims);
            (*row).dead_chunk = 0;
        }
        let mut number = next.read_volatile();
        let mut tries = 0;
        while tries < TRIES {
            let chunk = match DEAD_CHUNKS.get_ptr_mut(number) {
                Some(chunk) => chunk,
                None => {
                    number = 0;
                    let Some(first) = DEAD_CHUNKS.get_ptr_mut(0) else { return false };
                    first
                }
            };
            number += 1;
            if claim(&raw mut (*chunk).claims) {
                next.write_volatile(number);
                let forgotten = CHUNK.saturating_sub((*chunk).gone);
                (*row).dead_forgotten += u64::from((*chunk).since != 0) * u64::from(forgotten);
                (*chunk).gone = 0;
                (*row).dead_since = (*chunk).since;
                (*chunk).since = tick as u32 + 1;
                (*row).dead_chunk = number;
                (*row).dead_left = CHUNK;
                return true;
            }
            tries += 1;
        }
    }
    false
}
