//! How long connections live, by the process that had them and where they went: whether a pool pools.
//!
//! Taken from the table of connections that ended lately, so it costs nothing while they live.

use super::owner;
use crate::event::{Direction, Lifetimes};
use std::collections::HashMap;
use std::net::IpAddr;
use tcpwatch_common::flow::Flow;
use tcpwatch_common::owner::{Memory, Owner, Step};
use tcpwatch_common::state::{CLOSE, ESTABLISHED, FIN_WAIT1, SYN_RECV, SYN_SENT};

/// Shorter than this, a connection served one request, or none.
pub const SHORT_NS: u64 = 1_000_000_000;

/// Connections that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    pid: u32,
    start_ns: u64,
    netns: u32,
    direction: Direction,
    /// Of outgoing ones; clients are as many as there are.
    peer: Option<IpAddr>,
    /// Of the service.
    port: u16,
}

#[derive(Debug)]
struct Group {
    owner: Owner,
    ages_ns: Vec<u64>,
    closed_first: u64,
    received: u64,
    sent: u64,
}

/// Ended connections, gathered one by one.
#[derive(Debug, Default)]
pub struct Gathered(HashMap<Key, Group>);

impl Gathered {
    pub fn add(&mut self, flow: &Flow, memory: &Memory) {
        let Some((direction, age_ns)) = life(memory) else { return };
        let outgoing = direction == Direction::Outgoing;
        let key = Key {
            pid: memory.owner.pid,
            start_ns: memory.owner.start_ns,
            netns: flow.netns,
            direction,
            peer: outgoing.then(|| flow.remote.ip()),
            port: if outgoing { flow.remote_port } else { flow.local_port },
        };
        let group = self.0.entry(key).or_insert_with(|| Group {
            owner: memory.owner,
            ages_ns: Vec::new(),
            closed_first: 0,
            received: 0,
            sent: 0,
        });
        group.ages_ns.push(age_ns);
        group.closed_first += u64::from(memory.history().any(|step| step.state() == FIN_WAIT1));
        group.received += memory.bytes_received;
        group.sent += memory.bytes_sent;
    }

    /// The rows with most connections, at most `limit`.
    pub fn rows(self, limit: usize) -> Vec<Lifetimes> {
        let mut rows: Vec<Lifetimes> = self.0.into_iter().map(|(key, group)| row(key, group)).collect();
        rows.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (a.netns, a.port).cmp(&(b.netns, b.port))));
        rows.truncate(limit);
        rows
    }
}

/// Who opened it, and how long it was established. `None` for what was refused, and for what is older than tcpwatch.
fn life(memory: &Memory) -> Option<(Direction, u64)> {
    let direction = match memory.history().next()?.state() {
        SYN_SENT => Direction::Outgoing,
        SYN_RECV => Direction::Incoming,
        _ => return None,
    };
    let at = |state: u8| memory.history().find(|step| step.state() == state).map(Step::at_ns);
    let age_ns = at(CLOSE)?.checked_sub(at(ESTABLISHED)?)?;
    Some((direction, age_ns))
}

fn row(key: Key, mut group: Group) -> Lifetimes {
    let ages = &mut group.ages_ns;
    ages.sort_unstable();
    let us = |ns: u64| ns / 1_000;
    // The nearest rank: of one age, it is that age.
    let rank = |percent: usize| ages.get((ages.len() - 1) * percent / 100).copied().map_or(0, us);
    Lifetimes {
        owner: owner::info(&group.owner),
        netns: key.netns,
        direction: key.direction,
        peer: key.peer,
        port: key.port,
        count: ages.len() as u64,
        short: ages.iter().filter(|age| **age < SHORT_NS).count() as u64,
        closed_first: group.closed_first,
        median_us: rank(50),
        p90_us: rank(90),
        max_us: rank(100),
        bytes_received: group.received,
        bytes_sent: group.sent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::samples::{self, memory};
    use tcpwatch_common::hook;
    use tcpwatch_common::owner::how;
    use tcpwatch_common::record::kind;

    const MS: u64 = 1_000_000;

    fn summarise(ended: impl IntoIterator<Item = (Flow, Memory)>) -> Vec<Lifetimes> {
        let mut gathered = Gathered::default();
        ended.into_iter().for_each(|(flow, memory)| gathered.add(&flow, &memory));
        gathered.rows(10)
    }

    fn ended(remote_port: u16, begins: u8, age_ms: u64, closes: u8) -> (Flow, Memory) {
        let flow = Flow { remote_port, ..samples::record(kind::RST_SENT, hook::TCP_SEND_RESET).flow };
        let steps =
            [(begins, MS), (ESTABLISHED, 2 * MS), (closes, (2 + age_ms) * MS), (CLOSE, (2 + age_ms) * MS)];
        let mut memory = memory(&steps);
        memory.owner = samples::owner(812, how::CONNECT);
        memory.bytes_sent = 10;
        (flow, memory)
    }

    #[test]
    fn connections_are_grouped_by_process_and_service() {
        let mut all: Vec<_> = (1..=9).map(|ms| ended(6379, SYN_SENT, ms, FIN_WAIT1)).collect();
        all.push(ended(6379, SYN_SENT, 5_000, FIN_WAIT1));
        all.push(ended(50_000, SYN_RECV, 3, tcpwatch_common::state::LAST_ACK));
        all.push(ended(50_001, SYN_RECV, 4, tcpwatch_common::state::LAST_ACK));
        let rows = summarise(all);
        assert_eq!(rows.len(), 2, "clients are not told apart");
        let pool = &rows[0];
        assert_eq!((pool.count, pool.port, pool.direction), (10, 6379, Direction::Outgoing));
        assert_eq!((pool.median_us, pool.max_us), (5_000, 5_000_000));
        assert_eq!((pool.short, pool.closed_first, pool.bytes_sent), (9, 10, 100));
        assert_eq!(pool.owner.as_ref().and_then(|owner| owner.pid), Some(812));
        assert_eq!((rows[1].count, rows[1].port, rows[1].closed_first), (2, 8080, 0));
    }

    #[test]
    fn what_never_was_established_has_no_age() {
        let mut refused = ended(6379, SYN_SENT, 1, CLOSE);
        refused.1 = memory(&[(SYN_SENT, MS), (CLOSE, 2 * MS)]);
        let mut old = ended(6379, SYN_SENT, 1, CLOSE);
        old.1 = memory(&[(ESTABLISHED, 0), (CLOSE, 2 * MS)]);
        assert_eq!(summarise([refused, old]), []);
    }
}
