//! Which events are told and which only counted ([`tcpwatch_common::storm`]).

use crate::emit::Event;
use crate::kernel::config::config;
use crate::kernel::sock::Sock;
use crate::maps::{DECIDING, Deciding, STORM_COUNTS, STORMS};
use crate::tables::{add_half, claim, release};
use tcpwatch_common::state;
use tcpwatch_common::storm::{CONNECTIONS, KEPT, Key, SHARES, Slot, What, count_of, level, window};

/// What becomes of an event: it is told …
pub const TOLD: u32 = 0;
/// … as the last for now of those like it …
pub const SAMPLE: u32 = 1;
/// … or was counted.
pub const COUNTED: u32 = 2;

/// No place: an index behind the table.
const NONE: u32 = u32::MAX;

/// What [`decide`] decided.
#[inline(always)]
pub fn fate(event: &Event) -> u32 {
    let Some(at) = DECIDING.get_ptr(u32::from(event.hook)) else { return TOLD };
    // SAFETY: a map value.
    unsafe { (&raw const (*at).fate).read_volatile() }
}

/// Decides what becomes of an event, and counts it at its key's place if it is not told.
///
/// The levels are asked from the coarsest to the finest, and only what all of them admit uses their shares up. A flood from everywhere
/// is so turned away at its port, before a million networks take places in the table; one from a single network at that network.
///
/// Everything that it finds out on the way lies in a map and not in variables: what the verifier reads from there it knows nothing
/// of, so that it walks what follows once and not for each way that leads there.
#[inline(never)]
pub fn decide(event: &Event) {
    // A place of the hook's own: the kernel does not enter a program that is at work on this CPU.
    let Some(at) = DECIDING.get_ptr_mut(u32::from(event.hook)) else { return };
    let mut limit = config!(storm);
    if event.sock != 0 && Sock::is_full(event.state) && event.state != state::LISTEN {
        limit <<= CONNECTIONS;
    }
    // SAFETY: a per-CPU map value.
    unsafe {
        (&raw mut (*at).limit).write_volatile(limit);
        (&raw mut (*at).window).write_volatile(window(event.at_ns));
        (&raw mut (*at).fate).write_volatile(TOLD);
        find(event, at, level::KIND);
        if is_used_up(at, level::KIND) {
            return counted(at, level::KIND);
        }
        find(event, at, level::PORT);
        if is_used_up(at, level::PORT) {
            return counted(at, level::PORT);
        }
        find(event, at, level::PEER);
        if is_used_up(at, level::PEER) {
            return counted(at, level::PEER);
        }
        admit(at, level::KIND);
        admit(at, level::PORT);
        admit(at, level::PEER);
    }
}

/// # Safety
/// `at` must be a map value.
#[inline(always)]
unsafe fn place(at: *mut Deciding, level: u8) -> *mut u32 {
    // SAFETY: by contract; masked to the array's length.
    unsafe { (&raw mut (*at).slots).cast::<u32>().add(level as usize & 3) }
}

/// Notes the place of an event's key; [`NONE`] where both that it may have are others'.
///
/// # Safety
/// `at` must be a map value.
#[inline(always)]
unsafe fn find(event: &Event, at: *mut Deciding, level: u8) {
    let what = What {
        kind: event.kind,
        hook: event.hook,
        state: event.state,
        packet_flags: event.packet.flags,
        stage: event.listen.stage,
        reason: event.reason,
    };
    let key = Key::new(level, &event.flow, &what);
    let (first, second) = key.slots();
    // SAFETY: by contract, and map values.
    unsafe {
        let slot = place(at, level);
        slot.write_volatile(first);
        let (Some(a), Some(b)) = (STORMS.get_ptr_mut(first), STORMS.get_ptr_mut(second)) else { return };
        if is_of(a, &key) {
            return;
        }
        slot.write_volatile(second);
        if is_of(b, &key) {
            return;
        }
        let window = (&raw const (*at).window).read_volatile();
        if settle(b, &key, window) {
            return;
        }
        slot.write_volatile(if settle(a, &key, window) { first } else { NONE });
    }
}

/// # Safety
/// `slot` must be a map value.
#[inline(always)]
unsafe fn is_of(slot: *mut Slot, key: &Key) -> bool {
    // SAFETY: by contract.
    let found = unsafe { (&raw const (*slot).key).read_volatile() };
    (found.place ^ key.place) | (found.what ^ key.what) | (found.network ^ key.network) == 0
}

/// Takes a place that nobody has used in this window or the one before, and that user space has looked at since.
///
/// # Safety
/// `slot` must be a map value.
#[inline(always)]
unsafe fn settle(slot: *mut Slot, key: &Key, window: u32) -> bool {
    // SAFETY: by contract.
    unsafe {
        let used = (&raw const (*slot).window).read_volatile();
        let counted = (&raw const (*slot).counted).read_volatile();
        if window.wrapping_sub(used) < 2 || (counted != 0 && window.wrapping_sub(counted) <= KEPT) {
            return false;
        }
        let claims = &raw mut (*slot).claims;
        if !claim(claims) {
            return false;
        }
        let mine = (&raw const (*slot).window).read_volatile() == used;
        if mine {
            (*slot).admitted = 0;
            (&raw mut (*slot).key).write_volatile(*key);
            (&raw mut (*slot).window).write_volatile(window);
        }
        release(claims);
        mine
    }
}

/// Whether a key has had its share of this window.
///
/// # Safety
/// `at` must be a map value.
#[inline(always)]
unsafe fn is_used_up(at: *mut Deciding, level: u8) -> bool {
    // SAFETY: by contract, and map values.
    unsafe {
        let Some(slot) = STORMS.get_ptr(place(at, level).read_volatile()) else { return false };
        let limit = (&raw const (*at).limit).read_volatile() << SHARES[level as usize];
        (&raw const (*slot).window).read_volatile() == (&raw const (*at).window).read_volatile()
            && (&raw const (*slot).admitted).read_volatile() >= limit
    }
}

/// Uses up a part of the share. Several CPUs at once may take a few more than there are.
///
/// # Safety
/// `at` must be a map value.
#[inline(always)]
unsafe fn admit(at: *mut Deciding, level: u8) {
    // SAFETY: by contract, and map values.
    unsafe {
        let Some(slot) = STORMS.get_ptr_mut(place(at, level).read_volatile()) else { return };
        let window = (&raw const (*at).window).read_volatile();
        let admitted = &raw mut (*slot).admitted;
        if (&raw const (*slot).window).read_volatile() != window {
            (&raw mut (*slot).window).write_volatile(window);
            admitted.write_volatile(0);
        }
        add_half(admitted, 1);
        if admitted.read_volatile() == (&raw const (*at).limit).read_volatile() << SHARES[level as usize] {
            (&raw mut (*at).fate).write_volatile(SAMPLE);
        }
    }
}

/// One that is not told.
///
/// # Safety
/// `at` must be a map value.
#[inline(always)]
unsafe fn counted(at: *mut Deciding, level: u8) {
    // SAFETY: by contract, and map values, the last of this CPU.
    unsafe {
        let slot = place(at, level).read_volatile();
        let (line, word) = count_of(slot);
        let (Some(slot), Some(counts)) = (STORMS.get_ptr_mut(slot), STORM_COUNTS.get_ptr_mut(line)) else {
            return;
        };
        *counts.cast::<u64>().add(word) += 1;
        let window = (&raw const (*at).window).read_volatile();
        let counted = &raw mut (*slot).counted;
        // Not written to while it says so already: all CPUs read this line.
        if counted.read_volatile() != window {
            counted.write_volatile(window);
        }
        (&raw mut (*at).fate).write_volatile(COUNTED);
    }
}
