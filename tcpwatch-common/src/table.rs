//! The shape of the tables of sockets: sets of few places, found by a hash, whose keys lie in one line of the CPU's cache.
//!
//! The kernel's own hash tables take a lock, a list of free entries and a copy of the key for each change; a socket's whole
//! life in them costs more than everything else tcpwatch does with it. Here a change is a handful of stores.

use crate::flow::Flow;
use crate::owner::Memory;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Places of a set of live sockets.
pub const LIVE: u32 = 8;
/// A live socket goes into the first of its two sets until this many of its places are taken, then into the one with more room.
/// So nobody has to make room for another as long as the table is half full at most (played with sockets that come and go at
/// random; at seven tenths it is one in 200).
pub const LIVE_WELL_FILLED: u32 = 6;
/// Places of a set of the index to ended connections. Each connection has only one set to be in, in which the oldest makes room.
pub const DEAD: u32 = 8;
/// Ended connections that a CPU writes one after the other before it takes another piece of the log: 6 KB, so that the
/// processor fetches what comes next by itself, and nobody waits for memory that nobody has touched for seconds.
pub const CHUNK: u32 = 32;
/// Most entries of a table: what the bits of the hash can tell apart.
const MOST: u32 = 1 << 22;

/// The keys of a set, 0 where a place is free.
pub type LiveLine = [u64; LIVE as usize];
pub type DeadLine = [u64; DEAD as usize];

/// How many entries a table has that is to hold at least so many: a power of two.
pub const fn entries(wanted: u32) -> u32 {
    if wanted <= DEAD {
        DEAD
    } else if wanted >= MOST {
        MOST
    } else {
        wanted.next_power_of_two()
    }
}

/// 2^64 divided by the golden ratio: multiplying by it spreads the low bits over the high ones.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The two sets that a live socket may be in, by its address.
#[inline(always)]
pub const fn sets_of_socket(address: u64, lines: u32) -> (u32, u32) {
    // Sockets lie at multiples of a cache line.
    let hash = (address >> 6).wrapping_mul(GOLDEN);
    let mask = lines - 1;
    ((hash >> 44) as u32 & mask, (hash >> 24) as u32 & mask)
}

/// Places of the index for each entry of the log: one connection in 20 loses its place to another of its set shortly before its
/// entry is written over. More places would be more memory to wait for.
const ROOM: u32 = 2;

/// How many sets the index to a log of so many entries has.
pub const fn dead_lines(entries: u32) -> u32 {
    entries / DEAD * ROOM
}

/// Bits of a key of an ended connection, from the lowest: of the hash of its addresses, of its place in the log, of the tick.
const HASH_BITS: u32 = 22;
const AT_BITS: u32 = 22;
const TICK_BITS: u32 = 64 - HASH_BITS - AT_BITS;
/// The bits of a key that are the hash.
pub const HASH: u64 = (1 << HASH_BITS) - 1;
const AT: u64 = (1 << AT_BITS) - 1;
const TICK: u64 = (1 << TICK_BITS) - 1;

/// The set that an ended connection is in, and the hash for its key, which is never 0.
#[inline(always)]
pub const fn set_of_flow(flow: &Flow, lines: u32) -> (u32, u32) {
    let (local, remote) = (&flow.local.0, &flow.remote.0);
    let ports = (flow.local_port as u64) << 16 | flow.remote_port as u64;
    let mut hash = (flow.netns as u64) << 32 | ports;
    hash = hash.wrapping_mul(GOLDEN) ^ ((local[3] as u64) << 32 | remote[3] as u64);
    hash = (hash ^ hash >> 29).wrapping_mul(GOLDEN) ^ ((local[2] as u64) << 32 | remote[2] as u64);
    hash = (hash ^ hash >> 31).wrapping_mul(GOLDEN) ^ ((local[1] as u64) << 32 | remote[1] as u64);
    hash = (hash ^ hash >> 30).wrapping_mul(GOLDEN) ^ ((local[0] as u64) << 32 | remote[0] as u64);
    hash = (hash ^ hash >> 28).wrapping_mul(GOLDEN);
    ((hash >> 40) as u32 & (lines - 1), (hash & HASH) as u32 | 1)
}

/// The time in units of 67 ms, cut to the bits that a key has for it: it begins anew every 19 hours, and what is older than
/// half of that may be taken for younger. All that this decides is who makes room.
#[inline(always)]
pub const fn tick(now_ns: u64) -> u64 {
    now_ns >> 26 & TICK
}

/// The key of an ended connection, with the hash from [`set_of_flow`].
#[inline(always)]
pub const fn key_of_dead(hash: u32, at: u32, tick: u64) -> u64 {
    tick << (HASH_BITS + AT_BITS) | (at as u64) << HASH_BITS | hash as u64
}

/// The place in the log that a key leads to.
#[inline(always)]
pub const fn at_of_key(key: u64) -> u32 {
    (key >> HASH_BITS & AT) as u32
}

/// A piece of the log of ended connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Chunk {
    /// How many CPUs want to write here; who finds that it is the only one may.
    pub claims: u64,
    /// The tick in which the last one began, plus 1; 0: nobody has written here yet.
    pub since: u32,
    /// Entries of it that no key leads to any more.
    pub gone: u32,
}

impl Chunk {
    /// Whether what a key led to has made room since, or is about to.
    #[inline(always)]
    pub const fn is_newer_than(&self, key: u64) -> bool {
        is_before(key, self.since)
    }
}

/// Whether a key was made before a tick, given plus 1 as [`Chunk::since`] is.
#[inline(always)]
pub const fn is_before(key: u64, since: u32) -> bool {
    let since = (since as u64).wrapping_sub(1);
    (key >> (HASH_BITS + AT_BITS)).wrapping_sub(since) & TICK > TICK / 2
}

/// All ones if the highest bit is set, else 0.
///
/// In assembler, because the compiler would make branches of what is computed with such masks, and each branch doubles the ways
/// that the verifier has to walk. Not by one arithmetic shift: since 6.18 the verifier itself goes two ways there.
#[inline(always)]
#[cfg(target_arch = "bpf")]
fn mask(mut value: u64) -> u64 {
    // SAFETY: a shift of a register.
    unsafe { core::arch::asm!("{0} >>= 63", inout(reg) value, options(pure, nomem, nostack)) };
    0u64.wrapping_sub(value)
}

#[inline(always)]
#[cfg(not(target_arch = "bpf"))]
const fn mask(value: u64) -> u64 {
    (value as i64 >> 63) as u64
}

/// All ones if any bit is set, else 0, without a branch.
#[inline(always)]
pub fn any(word: u64) -> u64 {
    mask(word | 0u64.wrapping_sub(word))
}

/// The first place of a line whose key differs in none of these bits; their number without.
#[inline(always)]
pub fn place<const WAYS: usize>(line: &[u64; WAYS], key: u64, bits: u64) -> u32 {
    let mut found = WAYS as u64;
    let mut way = WAYS;
    while way > 0 {
        way -= 1;
        let differs = (line[way] ^ key) & bits;
        let keep = any(differs);
        found = way as u64 ^ ((found ^ way as u64) & keep);
    }
    found as u32
}

/// The place of a line whose key is the oldest, by [`key_of_dead`], or that is free.
#[inline(always)]
pub fn oldest(line: &DeadLine, tick: u64) -> u32 {
    let mut best = 0u64;
    let mut way = 0;
    while way < line.len() {
        let key = line[way];
        let free = !any(key);
        let age = tick.wrapping_sub(key >> (HASH_BITS + AT_BITS)) & TICK | free & TICK;
        let rank = age << 3 | way as u64;
        let more = best.wrapping_sub(rank);
        best = best.wrapping_sub(more & mask(more));
        way += 1;
    }
    best as u32 & (DEAD - 1)
}

/// An ended connection: an entry of the log of the dead. Never removed, only overwritten; all zeroes while nobody was in it.
/// Three lines of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Grave {
    /// First, so that a pointer to the entry is one to it.
    pub memory: Memory,
    pub flow: Flow,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Addr;

    extern crate std;

    fn flow(port: u16) -> Flow {
        Flow { local: Addr::v4(1), remote: Addr::v4(2), local_port: port, remote_port: 40_000, netns: 7 }
    }

    #[test]
    fn a_key_is_found_where_it_lies_and_nowhere_else() {
        let mut line: DeadLine = [11, 12, 13, 0, 15, 16, 17, 18];
        assert_eq!(place(&line, 11, u64::MAX), 0);
        assert_eq!(place(&line, 18, u64::MAX), 7);
        assert_eq!(place(&line, 0, u64::MAX), 3, "a free place");
        assert_eq!(place(&line, 14, u64::MAX), DEAD);
        line[5] = key_of_dead(77, 3, 9);
        assert_eq!(place(&line, 77, HASH), 5, "whatever the time and place");
        line[2] = 77;
        assert_eq!(place(&line, 77, HASH), 2, "the first of two");
    }

    #[test]
    fn a_key_keeps_what_it_was_made_of() {
        let key = key_of_dead(0x2a_bcde, 0x31_2345, 0xf_edcb);
        assert_eq!((key & HASH, at_of_key(key), key >> 44), (0x2a_bcde, 0x31_2345, 0xf_edcb));
        assert!(u64::from(MOST) <= AT + 1, "every place of the largest log has a number");
    }

    #[test]
    fn the_oldest_goes_and_free_places_first() {
        let now = 11;
        let at = |tick: u64| key_of_dead(5, 77, tick);
        let line = [at(9), at(8), at(3), at(7), at(4), at(5), at(6), at(10)];
        assert_eq!(oldest(&line, now), 2);
        assert_eq!(oldest(&[at(9), at(8), at(3), at(7), 0, at(5), at(6), at(10)], now), 4);
        assert!(oldest(&[0; 8], now) < DEAD);
        assert!(oldest(&[at(1); 8], now) < DEAD);
        // The clock began anew between the third and the others.
        assert_eq!(oldest(&[at(1), at(2), at(TICK - 1), at(3), at(4), at(5), at(6), at(7)], now), 2);
    }

    #[test]
    fn a_chunk_that_was_begun_anew_has_left_its_old_entries() {
        let key = |ns: u64| key_of_dead(5, 77, tick(ns));
        let begun = |ns: u64| Chunk { since: tick(ns) as u32 + 1, ..Chunk::default() };
        let second = 1_000_000_000;
        assert!(!begun(5 * second).is_newer_than(key(5 * second)));
        assert!(!begun(5 * second).is_newer_than(key(3600 * second)));
        assert!(begun(5 * second).is_newer_than(key(4 * second)));
        let wrap = (TICK + 1) << 26;
        assert!(begun(wrap + second).is_newer_than(key(wrap - second)));
        assert!(!begun(wrap - second).is_newer_than(key(wrap + second)));
    }

    /// The rule of the kernel side, played: who is in the log is found, but for few that were to go soon anyway.
    #[test]
    fn the_index_has_room_for_the_log() {
        let entries = 4096u32;
        let lines = dead_lines(entries);
        let mut index = std::vec![[0u64; DEAD as usize]; lines as usize];
        let (mut lost, mut early) = (0, 0);
        for number in 0..40_000u32 {
            let flow = Flow { remote: Addr::v4(number.to_be()), ..flow((number % 97) as u16) };
            let (set, hash) = set_of_flow(&flow, lines);
            let now = u64::from(number);
            let way = oldest(&index[set as usize], now) as usize;
            let victim = index[set as usize][way];
            let age = now - (victim >> 44);
            if victim != 0 && age < u64::from(entries) {
                lost += 1;
                early += u32::from(age < u64::from(entries) / 2);
            }
            index[set as usize][way] = key_of_dead(hash, number % entries, now);
        }
        assert!(lost < 2_400, "{lost} of 40,000 lose their place too soon");
        assert!(early < 80, "{early} of 40,000 much too soon");
    }

    #[test]
    fn tables_have_a_power_of_two() {
        assert_eq!([1, 8, 9, 65_536, 65_537, u32::MAX].map(entries), [8, 8, 16, 65_536, 131_072, MOST]);
    }

    #[test]
    fn flows_spread_and_every_part_of_them_counts() {
        let lines = 1024;
        let mut counts = [0u32; 1024];
        for i in 0..8192u32 {
            let flow = Flow { remote: Addr::v4(i.to_be()), ..flow((i % 97) as u16) };
            counts[set_of_flow(&flow, lines).0 as usize] += 1;
        }
        assert!(counts.iter().all(|count| (0..=28).contains(count)), "{:?}", counts.iter().max());
        let base = flow(80);
        let others = [
            Flow { netns: 8, ..base },
            Flow { local_port: 81, ..base },
            Flow { remote_port: 40_001, ..base },
            Flow { local: Addr([1, 0, 0, 1]), ..base },
            Flow { remote: Addr([0, 1, 0, 2]), ..base },
            Flow { local: base.remote, remote: base.local, ..base },
        ];
        for other in others {
            assert_ne!(set_of_flow(&other, lines), set_of_flow(&base, lines), "{other:?}");
        }
    }

    #[test]
    fn sockets_spread_over_both_choices() {
        let lines = 1024;
        let mut counts = [[0u32; 1024]; 2];
        for i in 0..8192u64 {
            let (first, second) = sets_of_socket(0xffff_8881_0000_0000 + i * 2368 / 64 * 64, lines);
            counts[0][first as usize] += 1;
            counts[1][second as usize] += 1;
        }
        for counts in counts {
            assert!(counts.iter().all(|count| *count <= 28), "{:?}", counts.iter().max());
        }
    }

    /// The rule of the kernel side, played: half full, nobody has to make room.
    #[test]
    fn half_a_table_of_live_sockets_is_held_whole() {
        let lines = 1024;
        let mut table = std::vec![[0u64; LIVE as usize]; lines as usize];
        // Like `sk`: slabs of objects, given out and back in no order.
        let address = |number: u64| 0xffff_8881_0000_0000 + (number * 0x9e37 % 65_521) * 2368 / 64 * 64;
        let free = |line: &LiveLine| place(line, 0, u64::MAX);
        let mut alive = std::collections::VecDeque::new();
        for number in 0..40_000 {
            let socket = address(number);
            let (first, second) = sets_of_socket(socket, lines);
            let (a, b) = (free(&table[first as usize]), free(&table[second as usize]));
            let (set, way) = if a < LIVE_WELL_FILLED || a <= b { (first, a) } else { (second, b) };
            assert!(way < LIVE, "socket {number} finds no place beside {}", alive.len());
            table[set as usize][way as usize] = socket;
            alive.push_back((set, way));
            if alive.len() == (lines * LIVE / 2) as usize {
                let gone = (number.wrapping_mul(GOLDEN) >> 40) as usize % alive.len();
                let (set, way) = alive.swap_remove_back(gone).unwrap();
                table[set as usize][way as usize] = 0;
            }
        }
    }
}
