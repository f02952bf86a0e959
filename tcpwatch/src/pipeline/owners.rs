//! What the host knows of the processes in an event: the last stage before a sink.

use crate::diagnose;
use crate::event::{self, Event, OwnerInfo};
use crate::host::process::Processes;
use std::time::Instant;
use tcpwatch_common::owner::Owner;

/// What the host knows and the record does not: the owner's program and container, and whether it can work at all.
pub(super) fn complete(mut event: Event, processes: &mut Processes, now: Instant) -> Event {
    let state = event.owner.as_mut().and_then(|owner| describe(owner, processes, now));
    if let Some(state) = state {
        diagnose::at_a_halt(&mut event, state);
    }
    event
}

pub(super) fn name_owners(all: &mut [event::Standing], processes: &mut Processes) {
    let now = Instant::now();
    let listeners = all.iter_mut().flat_map(|standing| &mut standing.listeners);
    listeners.filter_map(|listener| listener.owner.as_mut()).for_each(|owner| {
        describe(owner, processes, now);
    });
}

/// Fills in what is known of a process; gives what it does just now.
pub(super) fn describe(owner: &mut OwnerInfo, processes: &mut Processes, now: Instant) -> Option<char> {
    let described = processes.describe_at(&wire(owner), now);
    owner.exe = described.exe;
    owner.cgroup = described.cgroup;
    owner.container = described.container;
    described.state
}

/// The owner as the process table takes it.
fn wire(owner: &OwnerInfo) -> Owner {
    Owner {
        start_ns: owner.start_ns,
        cgroup: owner.cgroup_id,
        pid: owner.pid.unwrap_or(0),
        uid: owner.uid,
        ..Owner::default()
    }
}
