//! What the players know: who did what to which addresses, when, and what has to be seen of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::expect::{Expect, Side};
use crate::judge::BOOKS;

/// One act on one pair of addresses.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    pub(super) act: &'static str,
    /// Which pair of namespaces.
    pub(super) pair: usize,
    /// Both ends, in any order.
    pub(super) ends: [SocketAddr; 2],
    /// Kernel time between which the players acted. The same addresses are used again only after that.
    pub(super) since: u64,
    pub(super) until: u64,
    /// What has to be seen. Several lists where two processes acted at once and the kernel's order is not known: exactly one of
    /// them holds. An empty list is an orderly end, of which nothing may be seen.
    pub(super) ways: Vec<Vec<Expect>>,
}

impl Truth {
    /// The least and the most that each counter of the books may have grown on one side.
    pub(super) fn due(&self, side: Side) -> [(u64, u64); 3] {
        BOOKS.map(|name| {
            let in_each_way = |pick: fn(&Expect) -> u64| {
                self.ways.iter().map(move |way| {
                    let ours = way.iter().filter(|one| one.side == side && one.counter() == Some(name));
                    ours.map(pick).sum::<u64>()
                })
            };
            let least = in_each_way(|one| *one.times.start()).min();
            let most = in_each_way(|one| *one.times.end()).max();
            (least.unwrap_or(0), most.unwrap_or(0))
        })
    }
}

/// Everything that the players of one pair of namespaces wrote down.
#[derive(Default)]
pub(super) struct Ledger(Mutex<Pages>);

#[derive(Default)]
pub(super) struct Pages {
    pub(super) truths: Vec<Truth>,
    /// Handshakes that came to their end.
    pub(super) connections: u64,
    /// Acts that this kernel cannot play, and why.
    pub(super) left_out: BTreeSet<String>,
}

impl Ledger {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, truth: Truth) {
        self.pages().truths.push(truth);
    }

    pub(super) fn connected(&self) {
        self.pages().connections += 1;
    }

    pub(super) fn leave_out(&self, act: &str, why: &str) {
        self.pages().left_out.insert(format!("{act}: {why}"));
    }

    pub(super) fn take(self) -> Pages {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_of_several_ways_have_bounds() {
        let ends = ["10.9.0.1:80".parse().unwrap(), "10.9.0.2:4000".parse().unwrap()];
        let server = Expect::rst_sent(ends[0], ends[1]);
        let client = Expect::rst_sent(ends[1], ends[0]).at(Side::Client);
        let ways = vec![vec![server.clone()], vec![client.clone()], vec![server, client]];
        let truth = Truth { act: "race", pair: 0, ends, since: 0, until: 9, ways };
        assert_eq!(truth.due(Side::Server)[0], (0, 1));
        assert_eq!(truth.due(Side::Client)[0], (0, 1));
        assert_eq!(truth.due(Side::Client)[1], (0, 0));
    }
}
