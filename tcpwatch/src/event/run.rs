//! What is said about a run as a whole: its start, its losses, its books at the end.

use super::{Endpoint, OwnerInfo, TimeWaitInfo};
use std::net::IpAddr;
use tcpwatch_common::counters::HookCounters;

/// How one hook was attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookStatus {
    /// The kernel's name of the function or tracepoint.
    pub name: String,
    /// `fentry`, `kprobe`, …; the reason why not.
    pub attached: Result<String, String>,
    /// What cannot be seen without it.
    pub sees: Option<String>,
}

/// The first event: every hook is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub mono_ns: u64,
    /// Nanoseconds since 1970 (UTC).
    pub time_ns: u64,
    /// tcpwatch's own version.
    pub version: String,
    /// The kernel's release.
    pub kernel: String,
    pub hooks: Vec<HookStatus>,
}

/// A network namespace as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its inode.
    pub netns: u32,
    /// When it was looked at: nanoseconds since 1970 (UTC).
    pub time_ns: u64,
    pub time_wait: Option<TimeWaitInfo>,
    /// What the kernel counted as `TCPTimeWaitOverflow` since the namespace began.
    pub refused_since_boot: Option<u64>,
    pub listeners: Vec<ListenerStanding>,
}

/// A listener as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerStanding {
    pub local: Endpoint,
    pub owner: Option<OwnerInfo>,
    /// Connections that wait to be accepted.
    pub len: u32,
    /// How many may: one more than that.
    pub max: Option<u32>,
}

/// Records that found no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub mono_ns: u64,
    /// Nanoseconds since 1970 (UTC).
    pub time_ns: u64,
    pub hook: String,
    /// Since the last such event.
    pub count: u64,
}

/// The account of one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookBooks {
    pub name: String,
    pub counters: HookCounters,
    /// Runs that the kernel left out because the hook's program was already at work on that CPU, interrupted. What they
    /// would have seen is in no other figure.
    pub missed: u64,
}

/// One counter of the kernel held against what tcpwatch saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconciliation {
    /// Inode of the network namespace.
    pub netns: u32,
    /// `TcpOutRsts`, `ListenDrops`, …
    pub counter: String,
    /// How far it grew while tcpwatch watched; `None` where it cannot be read.
    pub kernel: Option<u64>,
    /// How much of it tcpwatch explained.
    pub explained: u64,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// A process of this host.
    Outgoing,
    /// The peer.
    Incoming,
}

impl Direction {
    /// The value in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Outgoing => "outgoing",
            Self::Incoming => "incoming",
        }
    }
}

/// How long the connections of a process to a service lived, of those that ended lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    pub owner: Option<OwnerInfo>,
    /// Inode of the network namespace.
    pub netns: u32,
    pub direction: Direction,
    /// Of outgoing ones the server.
    pub peer: Option<IpAddr>,
    /// Of the service: the remote port of outgoing ones, the local port of incoming ones.
    pub port: u16,
    pub count: u64,
    /// Those that lived for less than a second.
    pub short: u64,
    /// Those that this side closed first: they took a TIME_WAIT slot here, or were refused one.
    pub closed_first: u64,
    /// Microseconds from ESTABLISHED to CLOSE.
    pub median_us: u64,
    pub p90_us: u64,
    pub max_us: u64,
    /// Payload of all of them.
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

/// How far the tables of sockets held what they were to remember.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Entries for live sockets.
    pub sockets: u32,
    /// Live sockets that were remembered.
    pub sockets_seen: u64,
    /// Those that made room for others, or for which there was none.
    pub sockets_forgotten: u64,
    /// Entries for ended connections.
    pub ended: u32,
    /// Connections that ended.
    pub ended_seen: u64,
    /// Those that made room for others, or for which there was none.
    pub ended_forgotten: u64,
}

/// How often a cause was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CauseCount {
    pub id: String,
    pub count: u64,
}

/// The last event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub mono_ns: u64,
    /// Nanoseconds since 1970 (UTC).
    pub time_ns: u64,
    /// How long tcpwatch watched, nanoseconds.
    pub watched_ns: u64,
    pub hooks: Vec<HookBooks>,
    pub netns: Vec<Reconciliation>,
    /// Most frequent first.
    pub causes: Vec<CauseCount>,
    /// Most connections first.
    pub lifetimes: Vec<Lifetimes>,
    pub tables: Tables,
}
