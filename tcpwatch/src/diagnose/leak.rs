//! Sockets that a process holds although the peer closed long ago: grouped by process, with what can be said about them.

use super::owner;
use crate::event::{Endpoint, OwnerInfo};
use std::collections::HashMap;
use std::net::IpAddr;
use tcpwatch_common::flow::Flow;
use tcpwatch_common::owner::{Owner, how};

/// Peers that are named.
const PEERS: usize = 3;

/// A socket in CLOSE_WAIT.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub flow: Flow,
    pub owner: Owner,
    pub since: Since,
    /// Id of the user stack of its last read, where there is one.
    pub read_stack: Option<u32>,
}

/// When the peer closed, on the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The transition was seen.
    Exactly(u64),
    /// It was in CLOSE_WAIT by then.
    Before(u64),
}

impl Since {
    pub fn ns(self) -> u64 {
        match self {
            Self::Exactly(ns) | Self::Before(ns) => ns,
        }
    }
}

/// The sockets of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// `None`: held by a process that tcpwatch may not look into.
    pub owner: Option<OwnerInfo>,
    pub netns: u32,
    pub count: u64,
    /// Of the oldest one.
    pub local: Endpoint,
    pub remote: Endpoint,
    pub oldest_ns: u64,
    /// The transition of the oldest was not seen: it is at least so old.
    pub at_least: bool,
    /// Id of the user stack of its last read.
    pub read_stack: Option<u32>,
    /// That stack in words, innermost frame first; `None` when nobody wants it.
    pub stack: Option<Vec<String>>,
    /// Who closed first, most frequent first, and how often; some of them.
    pub peers: Vec<(IpAddr, u64)>,
    /// How many peers there are in all.
    pub peer_count: usize,
    /// What the connections are for, most frequent first: its listener, or the server that it connected to.
    pub services: Vec<(Service, u64)>,
    /// By process, the figure of the look before.
    pub before: Option<Before>,
    /// Descriptors that the process has, and how many it may have.
    pub descriptors: Option<(u64, u64)>,
    /// How far the process has read; `None` where that is not seen.
    pub unread: Option<Unread>,
    /// The sockets.
    pub flows: Vec<Flow>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Of clients that came to this socket.
    Own(Endpoint),
    /// Opened by the process, to this server.
    Server(Endpoint),
}

impl Service {
    fn of(one: &Held) -> Self {
        let flow = &one.flow;
        // Of a socket that is older than tcpwatch nothing tells but the ports: services have the lower one, nearly always.
        let opened =
            one.owner.how == how::CONNECT || one.owner.how == how::PROC && flow.remote_port < flow.local_port;
        if opened {
            Self::Server(Endpoint { addr: flow.remote.ip(), port: flow.remote_port })
        } else {
            Self::Own(Endpoint { addr: flow.local.ip(), port: flow.local_port })
        }
    }
}

/// What a process made of the peers' last bytes, by socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// It read the end of file, so it knows that the peer closed.
    pub read_to_the_end: u64,
    /// It did not.
    pub not_read: u64,
    /// Payload that waits to be read.
    pub bytes: u64,
}

/// An earlier look at the same process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    pub count: u64,
    pub at_ns: u64,
}

/// A process in a namespace: a process may have sockets in several.
pub type Holder = (u32, u32, u64);

/// The leaks among what is held: sockets older than `after_ns`, by process, most sockets first.
pub fn group(held: &[Held], now_ns: u64, after_ns: u64) -> Vec<(Holder, Leak)> {
    let old = held.iter().filter(|one| now_ns.saturating_sub(one.since.ns()) >= after_ns);
    let mut groups: HashMap<Holder, Vec<&Held>> = HashMap::new();
    for one in old {
        let holder = (one.flow.netns, one.owner.pid, one.owner.start_ns);
        groups.entry(holder).or_default().push(one);
    }
    let mut leaks: Vec<(Holder, Leak)> =
        groups.into_iter().filter_map(|(holder, sockets)| Some((holder, leak(&sockets, now_ns)?))).collect();
    leaks.sort_by(|(a, x), (b, y)| y.count.cmp(&x.count).then_with(|| a.cmp(b)));
    leaks
}

fn leak(sockets: &[&Held], now_ns: u64) -> Option<Leak> {
    let oldest = sockets.iter().min_by_key(|one| (one.since.ns(), one.flow.remote_port))?;
    let mut peers: HashMap<IpAddr, u64> = HashMap::new();
    for one in sockets {
        *peers.entry(one.flow.remote.ip()).or_default() += 1;
    }
    let mut peers: Vec<(IpAddr, u64)> = peers.into_iter().collect();
    peers.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut services: HashMap<Service, u64> = HashMap::new();
    for one in sockets {
        *services.entry(Service::of(one)).or_default() += 1;
    }
    let mut services: Vec<(Service, u64)> = services.into_iter().collect();
    services.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let peer_count = peers.len();
    peers.truncate(PEERS);
    let flow = &oldest.flow;
    Some(Leak {
        owner: owner::info(&oldest.owner),
        netns: flow.netns,
        count: sockets.len() as u64,
        local: Endpoint { addr: flow.local.ip(), port: flow.local_port },
        remote: Endpoint { addr: flow.remote.ip(), port: flow.remote_port },
        oldest_ns: now_ns.saturating_sub(oldest.since.ns()),
        at_least: matches!(oldest.since, Since::Before(_)),
        read_stack: oldest.read_stack,
        stack: None,
        peers,
        peer_count,
        services,
        before: None,
        descriptors: None,
        unread: None,
        flows: sockets.iter().map(|one| one.flow).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::samples;
    use tcpwatch_common::flow::Addr;
    use tcpwatch_common::hook;
    use tcpwatch_common::record::kind;

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 1_000 * SECOND;

    fn held(pid: u32, peer: u32, age: u64) -> Held {
        let mut flow = samples::record(kind::STATE, hook::INET_SOCK_SET_STATE).flow;
        flow.remote = Addr::v4(peer.to_be());
        Held {
            flow,
            owner: samples::owner(pid, how::ACCEPT),
            since: Since::Exactly(NOW - age * SECOND),
            read_stack: u32::try_from(age).ok(),
        }
    }

    #[test]
    fn one_leak_per_process_with_its_oldest_socket() {
        let mut all = vec![held(1, 1, 61), held(1, 2, 300), held(1, 2, 100), held(2, 9, 70), held(2, 9, 59)];
        all[1].flow.remote_port = 777;
        let leaks = group(&all, NOW, 60 * SECOND);
        let figures: Vec<_> = leaks.iter().map(|(holder, leak)| (holder.1, leak.count)).collect();
        assert_eq!(figures, [(1, 3), (2, 1)], "a socket of 59 s is none yet");
        let first = &leaks[0].1;
        assert_eq!((first.oldest_ns, first.remote.port, first.at_least), (300 * SECOND, 777, false));
        assert_eq!(first.read_stack, Some(300));
        assert_eq!(first.peers, [("0.0.0.2".parse().unwrap(), 2), ("0.0.0.1".parse().unwrap(), 1)]);
    }

    #[test]
    fn sockets_that_nobody_is_seen_to_hold_are_a_leak_too() {
        let mut one = held(0, 1, 100);
        one.owner = Owner::default();
        one.since = Since::Before(NOW - 100 * SECOND);
        let leaks = group(&[one], NOW, 60 * SECOND);
        assert_eq!((leaks[0].1.owner.clone(), leaks[0].1.at_least), (None, true));
    }

    #[test]
    fn nothing_old_is_no_leak() {
        assert_eq!(group(&[held(1, 1, 5)], NOW, 60 * SECOND), []);
    }
}
