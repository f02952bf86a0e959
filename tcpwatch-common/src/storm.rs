//! Storms: what comes faster than anybody reads is counted by kind, listener and network of the peer, and told in full only so often.
//!
//! Time runs in windows. In each of them the first few events of a key are delivered, and the others are counted. So there is
//! nothing to switch on or off: detail comes back with the first window that is calm enough.

use crate::flow::Flow;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How much of an event a key tells apart, from what is common to the most events on.
pub mod level {
    /// Events of one kind in a namespace.
    pub const KIND: u8 = 0;
    /// … on one local port.
    pub const PORT: u8 = 1;
    /// … with peers in one network.
    pub const PEER: u8 = 2;
    pub const COUNT: usize = 3;
}

/// Shift from the limit of the level [`level::PEER`] to that of each level: no single network can use up its port's share, and no
/// single port that of its kind.
pub const SHARES: [u32; level::COUNT] = [3, 2, 0];

/// Shift from the limit of segments that met no connection, of which anybody can send as many as the wire carries, to that of what
/// befell a connection, of which each costs its peer a handshake.
pub const CONNECTIONS: u32 = 6;

/// Places of the table of storms: an index fits into 12 bits.
pub const SLOTS: u32 = 4096;
/// What was counted at so many places lies in one value: the kernel sets values of its CPUs aside one by one, a microsecond each.
pub const COUNTS: u32 = 64;

/// The value and the word in it that count for a place.
#[inline(always)]
pub fn count_of(slot: u32) -> (u32, usize) {
    (slot / COUNTS, (slot % COUNTS) as usize)
}

/// The window that a moment lies in: each is 67 ms long.
#[inline(always)]
pub const fn window(now_ns: u64) -> u32 {
    (now_ns >> 26) as u32
}

/// Windows for which a place is kept after something was counted there: five seconds.
pub const KEPT: u32 = 75;

/// Events in a window for so many in a second; at least one.
pub const fn per_window(per_second: u32) -> u32 {
    let events = ((per_second as u64) << 26) / 1_000_000_000;
    if events == 0 { 1 } else { events as u32 }
}

/// What events are counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Key {
    /// Network namespace, local port (0 above [`level::PORT`]), kind, hook.
    pub place: u64,
    /// Reason, packet flags, stage, state and level.
    pub what: u64,
    /// Network of the peer, of level [`level::PEER`]: the /24 of an IPv4 address below `0xffff << 32`, the /64 of an IPv6 one.
    pub network: u64,
}

/// What tells events apart beside their addresses.
#[derive(Clone, Copy, Debug)]
pub struct What {
    pub kind: u8,
    pub hook: u8,
    pub state: u8,
    /// Of the segment, 0 without.
    pub packet_flags: u8,
    /// Of the handshake, for what befalls a listener: `record::Listen::stage`.
    pub stage: u8,
    pub reason: u32,
}

impl Key {
    /// The key of an event at a level.
    #[inline(always)]
    pub const fn new(level: u8, flow: &Flow, what: &What) -> Self {
        let port = if level >= level::PORT { flow.local_port } else { 0 };
        Self {
            place: (flow.netns as u64) << 32
                | (port as u64) << 16
                | (what.kind as u64) << 8
                | what.hook as u64,
            what: (what.reason as u64) << 32
                | (what.packet_flags as u64) << 24
                | (what.stage as u64) << 16
                | (what.state as u64) << 8
                | level as u64,
            network: if level >= level::PEER { network(flow) } else { 0 },
        }
    }

    pub const fn level(&self) -> u8 {
        self.what as u8
    }

    pub const fn netns(&self) -> u32 {
        (self.place >> 32) as u32
    }

    pub const fn local_port(&self) -> u16 {
        (self.place >> 16) as u16
    }

    pub const fn kind(&self) -> u8 {
        (self.place >> 8) as u8
    }

    /// The two places where it may lie.
    #[inline(always)]
    pub const fn slots(&self) -> (u32, u32) {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut hash = self.place.wrapping_mul(ODD) ^ self.what;
        hash = (hash ^ hash >> 29).wrapping_mul(ODD) ^ self.network;
        hash = (hash ^ hash >> 31).wrapping_mul(ODD);
        ((hash >> 52) as u32 & (SLOTS - 1), (hash >> 36) as u32 & (SLOTS - 1))
    }
}

/// The network of a flow's peer.
#[inline(always)]
const fn network(flow: &Flow) -> u64 {
    let words = &flow.remote.0;
    if flow.remote.is_v4() {
        0xffff << 32 | (u32::from_be(words[3]) & 0xffff_ff00) as u64
    } else {
        (u32::from_be(words[0]) as u64) << 32 | u32::from_be(words[1]) as u64
    }
}

/// A place of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Slot {
    pub key: Key,
    /// The window that `admitted` is about.
    pub window: u32,
    /// Events of that window that were let through.
    pub admitted: u32,
    /// The window in which something was counted last; 0: never. For [`KEPT`] windows nobody else gets the place, so that user
    /// space knows whose count it is when it looks.
    pub counted: u32,
    pub pad: u32,
    /// How many programs want this place for their key; who finds that it is the only one may have it.
    pub claims: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Addr;
    use core::net::IpAddr;

    extern crate std;

    const WHAT: What = What { kind: 1, hook: 2, state: 3, packet_flags: 4, stage: 5, reason: 6 };

    fn flow(remote: &str, local_port: u16) -> Flow {
        let remote = Addr::from_ip(remote.parse::<IpAddr>().unwrap());
        Flow { remote, local: remote, local_port, remote_port: 9, netns: 77 }
    }

    #[test]
    fn a_level_tells_apart_what_it_is_for() {
        let key = |level, remote, port| Key::new(level, &flow(remote, port), &WHAT);
        assert_eq!(key(level::PEER, "192.0.2.1", 80), key(level::PEER, "192.0.2.200", 80));
        assert_ne!(key(level::PEER, "192.0.2.1", 80), key(level::PEER, "192.0.3.1", 80));
        assert_eq!(key(level::PORT, "192.0.2.1", 80), key(level::PORT, "192.0.3.1", 80));
        assert_ne!(key(level::PORT, "192.0.2.1", 80), key(level::PORT, "192.0.2.1", 81));
        assert_eq!(key(level::KIND, "192.0.2.1", 80), key(level::KIND, "fd00::1", 81));
        assert_eq!(key(level::PEER, "fd00::1", 80), key(level::PEER, "fd00::ffff:1", 80));
        assert_ne!(key(level::PEER, "fd00::1", 80), key(level::PEER, "fd00:0:0:1::1", 80));
        let other = What { reason: 7, ..WHAT };
        assert_ne!(key(level::KIND, "192.0.2.1", 80), Key::new(level::KIND, &flow("192.0.2.1", 80), &other));
        let one = key(level::PEER, "192.0.2.1", 80);
        assert_eq!((one.level(), one.netns(), one.local_port(), one.kind()), (level::PEER, 77, 80, 1));
    }

    #[test]
    fn keys_spread() {
        let mut counts = [0u32; SLOTS as usize];
        for port in 0..SLOTS as u16 {
            let (first, second) = Key::new(level::PORT, &flow("192.0.2.1", port), &WHAT).slots();
            counts[first as usize] += 1;
            counts[second as usize] += 1;
        }
        assert!(counts.iter().all(|count| *count <= 12), "{:?}", counts.iter().max());
    }

    #[test]
    fn a_limit_is_at_least_one_event() {
        assert_eq!([0, 1, 1000, 15_000].map(per_window), [1, 1, 67, 1006]);
    }
}
