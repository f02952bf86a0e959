//! The books: what each hook saw and what became of it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Per hook and CPU. At any moment `seen = delivered + filtered + aggregated + lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HookCounters {
    /// Times the thing happened that the hook reports (not how often the hook ran).
    pub seen: u64,
    /// Records handed to user space.
    pub delivered: u64,
    /// Rejected by the user's filter.
    pub filtered: u64,
    /// Counted without a record of its own.
    pub aggregated: u64,
    /// No room in the ring buffer.
    pub lost: u64,
}

impl HookCounters {
    pub fn balanced(&self) -> bool {
        self.seen == self.delivered + self.filtered + self.aggregated + self.lost
    }

    pub fn add(&mut self, other: &Self) {
        let Self { seen, delivered, filtered, aggregated, lost } = other;
        self.seen += seen;
        self.delivered += delivered;
        self.filtered += filtered;
        self.aggregated += aggregated;
        self.lost += lost;
    }
}

/// Per network namespace and CPU, whatever the filter: what the kernel's own counters are held against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NetnsCounters {
    /// RSTs that passed the TCP stack: `TcpOutRsts`.
    pub rst_sent: u64,
    /// Connections turned away at a listener: `ListenDrops`.
    pub listen_drops: u64,
    /// Sockets that were refused their TIME_WAIT slot: `TCPTimeWaitOverflow`.
    pub tw_overflows: u64,
    /// RSTs made by the firewall: in no counter of the kernel.
    pub firewall_rsts: u64,
}

impl NetnsCounters {
    pub fn add(&mut self, other: &Self) {
        let Self { rst_sent, listen_drops, tw_overflows, firewall_rsts } = other;
        self.rst_sent += rst_sent;
        self.listen_drops += listen_drops;
        self.tw_overflows += tw_overflows;
        self.firewall_rsts += firewall_rsts;
    }
}

/// How the tables of sockets fill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TableCounters {
    /// Sockets that came into the table of the living.
    pub live_added: u64,
    /// Sockets that left it because they were destroyed.
    pub live_removed: u64,
    /// Sockets that made room for others, or for which there was none.
    pub live_forgotten: u64,
    /// Connections that came into the table of the dead; nothing but room for others takes them out again.
    pub dead_added: u64,
    /// Connections that made room for others, or for which there was none.
    pub dead_forgotten: u64,
    /// The piece of the log of the dead that this CPU writes to, plus 1; 0 for none.
    pub dead_chunk: u32,
    /// Entries that it has left there.
    pub dead_left: u32,
    /// The tick in which the entries began that the last piece taken by this CPU had, plus 1: what is older was written over. 0 as long
    /// as nothing was.
    pub dead_since: u32,
    pub pad: u32,
}

impl TableCounters {
    /// Adds another CPU's row.
    pub fn add(&mut self, other: &Self) {
        // Where a CPU writes is nothing to add up.
        let Self { live_added, live_removed, live_forgotten, dead_added, dead_forgotten, .. } = other;
        self.live_added += live_added;
        self.live_removed += live_removed;
        self.live_forgotten += live_forgotten;
        self.dead_added += dead_added;
        self.dead_forgotten += dead_forgotten;
    }
}
