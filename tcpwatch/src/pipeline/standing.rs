//! What namespaces look like before the first event, and again at the end.

use super::clock::Clock;
use crate::diagnose::leak::{Held, Since};
use crate::diagnose::owner;
use crate::event::{Endpoint, ListenerStanding, Standing, TimeWaitInfo};
use crate::host::books::Counters;
use crate::host::inet::{self, View, Waiting};
use crate::host::netns::{self, Namespace};
use crate::host::{Host, seed::Seed};
use std::time::{Duration, Instant};
use tcpwatch_common::flow::{Addr, Flow};

/// The first answer may take this long. The table of connections is one for all namespaces, so that on a host with many of
/// both each look costs tens of milliseconds.
const PATIENCE: Duration = Duration::from_millis(800);

/// One look at the host.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) standing: Vec<Standing>,
    /// Sockets in CLOSE_WAIT, and their inodes.
    pub(super) close_wait: Vec<(u64, Held)>,
    /// What could not be looked at, a sentence each.
    pub(super) unseen: Vec<String>,
    /// What there was no time for.
    pub(super) rest: Vec<Namespace>,
}

/// Looks at every namespace, `only` at that one if it is not 0.
pub(super) fn look(host: &Host, seed: &Seed, only: u32) -> Look {
    let until = Instant::now() + PATIENCE;
    let mut look = Look::default();
    let wanted = |namespace: &Namespace| only == 0 || namespace.inode == only;
    for namespace in netns::list(host).into_iter().filter(wanted) {
        if Instant::now() > until {
            look.rest.push(namespace);
            continue;
        }
        look.at(host, &namespace, seed);
    }
    look
}

impl Look {
    /// Looks at one namespace.
    pub(super) fn at(&mut self, host: &Host, namespace: &Namespace, seed: &Seed) {
        match inet::look(host, namespace) {
            Ok(view) => self.add(host, namespace, &view, seed),
            Err(unseen) => self.unseen.push(unseen.why),
        }
    }

    fn add(&mut self, host: &Host, namespace: &Namespace, view: &View, seed: &Seed) {
        let now = Clock::read();
        let owner = |inode: u64| seed.owner(inode).copied().unwrap_or_default();
        let limit = view.settings.tcp_max_tw_buckets;
        let counters = namespace.pid.and_then(|pid| Counters::read(&host.proc, pid, namespace.inode));
        self.standing.push(Standing {
            netns: view.netns,
            time_ns: now.wall_ns,
            time_wait: view.sockets.time_wait.zip(limit).map(|(used, max)| TimeWaitInfo { used, max }),
            refused_since_boot: counters.and_then(|counters| counters.get("TcpExtTCPTimeWaitOverflow")),
            listeners: view
                .sockets
                .listeners
                .iter()
                .map(|listener| ListenerStanding {
                    local: listener.local,
                    owner: owner::info(&owner(listener.inode)),
                    len: listener.len,
                    max: listener.max,
                })
                .collect(),
        });
        // Without an inode nobody holds it: it waits to be accepted, and that is no leak.
        let held = view.sockets.close_wait.iter().filter(|waiting| waiting.inode != 0);
        self.close_wait.extend(held.map(|waiting| {
            let quiet_ns = u64::from(waiting.quiet_ms.unwrap_or(0)) * 1_000_000;
            let held = Held {
                flow: flow(waiting, view.netns),
                owner: owner(waiting.inode),
                since: Since::Before(now.mono_ns.saturating_sub(quiet_ns)),
                read_stack: None,
            };
            (waiting.inode, held)
        }));
    }
}

pub(super) fn flow(waiting: &Waiting, netns: u32) -> Flow {
    let Waiting { local, remote, .. } = waiting;
    let addr = |end: &Endpoint| Addr::from_ip(end.addr);
    Flow { local: addr(local), remote: addr(remote), local_port: local.port, remote_port: remote.port, netns }
}
