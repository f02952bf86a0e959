//! Records for tests.

use super::site::Frame;
use crate::event::{Reason, ReasonFrom};
use tcpwatch_common::flow::{Addr, Flow};
use tcpwatch_common::hook;
use tcpwatch_common::owner::{Memory, Owner, Step};
use tcpwatch_common::record::{Listen, Packet, Record, flag, kind};
use tcpwatch_common::state;
use zerocopy::FromZeros;

pub(crate) const NOW: u64 = 100_000_000_000;

pub(crate) fn record(kind: u8, hook: u8) -> Record {
    let mut record = Record::new_zeroed();
    record.mono_ns = NOW;
    record.kind = kind;
    record.hook = hook;
    record.flow = Flow {
        local: Addr::from_ip([10, 9, 0, 1].into()),
        remote: Addr::from_ip([10, 9, 0, 2].into()),
        local_port: 8080,
        remote_port: 54096,
        netns: 4026531840,
    };
    record
}

/// The host's own decision, about a full socket that has a file.
pub(crate) fn active(state: u8) -> Record {
    let mut record = record(kind::RST_SENT, hook::TCP_SEND_RESET);
    record.flags = flag::SOCKET | flag::FULL | flag::HAS_FILE;
    record.state = state;
    record
}

/// The answer to a segment with these flags.
pub(crate) fn passive_without_socket(flags: u8) -> Record {
    let mut record = record(kind::RST_SENT, hook::TCP_V4_SEND_RESET);
    record.flags = flag::PACKET;
    record.packet = Packet { seq: 1000, ack: 2000, len: 0, window: 512, flags, nf_hook: 0 };
    record
}

/// The answer to a segment that met a full socket.
pub(crate) fn passive(state: u8, flags: u8) -> Record {
    let mut record = passive_without_socket(flags);
    record.flags |= flag::SOCKET | flag::FULL;
    record.state = state;
    record
}

pub(crate) fn at_listener(flags: u8) -> Record {
    passive(state::LISTEN, flags)
}

/// A segment that a listener with room in both queues dropped, after `change`.
pub(crate) fn listen_drop(stage: u8, passed: u8, change: impl Fn(&mut Listen)) -> Record {
    let mut record = record(kind::LISTEN_DROP, hook::TCP_CONN_REQUEST);
    record.flags = flag::LISTEN;
    record.listen = Listen {
        accept_len: 0,
        accept_max: 128,
        syn_len: 0,
        max_syn_backlog: 512,
        somaxconn: 4096,
        syncookies: 1,
        abort_on_overflow: 0,
        stage,
        passed,
    };
    change(&mut record.listen);
    record
}

pub(crate) fn frames(names: &[&'static str]) -> Vec<Frame<'static>> {
    names.iter().map(|name| (*name, 5)).collect()
}

pub(crate) fn owner(pid: u32, how: u8) -> Owner {
    let mut comm = [0; 16];
    comm[..5].copy_from_slice(b"nginx");
    Owner { start_ns: 1, cgroup: 2, pid, uid: 33, root_pid: pid, how, pad: 0, pad2: 0, comm }
}

pub(crate) fn memory(steps: &[(u8, u64)]) -> Memory {
    let mut memory = Memory::EMPTY;
    for (i, (state, at_ns)) in steps.iter().enumerate() {
        memory.steps[i] = Step::new(*state, *at_ns);
        memory.step_count += 1;
    }
    memory
}

pub(crate) fn kernel_reason(name: &str) -> Reason {
    Reason { name: name.into(), from: ReasonFrom::Kernel }
}
