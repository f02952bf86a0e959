//! The kernel's own counters per network namespace, and what tcpwatch explained held against them.

use super::netns;
use super::{Host, proc::Proc};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use tcpwatch_common::counters::NetnsCounters;

/// Every counter of one namespace by the name that `nstat` gives it: `TcpOutRsts`, `TcpExtListenDrops`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// From the texts of `/proc/PID/net/snmp` and `/proc/PID/net/netstat`: pairs of rows, names above values.
    pub fn parse(snmp: &str, netstat: &str) -> Self {
        let mut counters = BTreeMap::new();
        for text in [snmp, netstat] {
            let mut rows = text.lines();
            while let (Some(names), Some(values)) = (rows.next(), rows.next()) {
                let (Some((group, names)), Some((other, values))) =
                    (names.split_once(':'), values.split_once(':'))
                else {
                    continue;
                };
                if group != other {
                    continue;
                }
                for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
                    // A few are settings and may be negative (`TcpMaxConn`): they are no counters.
                    if let Ok(value) = value.parse() {
                        counters.insert(format!("{group}{name}"), value);
                    }
                }
            }
        }
        Self(counters)
    }

    /// `None` where this kernel has no such counter.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// Reads the counters of the namespace that a process lives in; `None` when it does not live in `netns` (any more).
    pub fn read(proc: &Proc, pid: u32, netns: u32) -> Option<Self> {
        let lives_there = || proc.netns(pid) == Some(netns);
        if !lives_there() {
            return None;
        }
        let snmp = fs::read_to_string(proc.path(pid, "net/snmp")).ok()?;
        let netstat = fs::read_to_string(proc.path(pid, "net/netstat")).ok()?;
        // The process may have moved, or its pid gone to another one, between the reads.
        lives_there().then(|| Self::parse(&snmp, &netstat))
    }
}

/// The counters that tcpwatch accounts for: the name in reports, the name here, what tcpwatch counted.
type Account = (&'static str, &'static str, fn(&NetnsCounters) -> u64);

const ACCOUNTS: [Account; 3] = [
    ("TcpOutRsts", "TcpOutRsts", |counters| counters.rst_sent),
    ("ListenDrops", "TcpExtListenDrops", |counters| counters.listen_drops),
    ("TCPTimeWaitOverflow", "TcpExtTCPTimeWaitOverflow", |counters| counters.tw_overflows),
];

/// One line of the reconciliation: since tcpwatch looked, the kernel counted so many and tcpwatch saw so many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Inode of the namespace.
    pub netns: u32,
    pub counter: &'static str,
    /// `None`: the namespace is gone, its counters cannot be reached, or the kernel has no such counter.
    pub kernel: Option<u64>,
    pub explained: u64,
}

impl Row {
    /// Nothing happened, and both sides say so.
    pub fn is_quiet(&self) -> bool {
        self.explained == 0 && self.kernel == Some(0)
    }

    /// Whether the books agree; `None` when the kernel's side is not known.
    pub fn is_balanced(&self) -> Option<bool> {
        self.kernel.map(|kernel| kernel == self.explained)
    }
}

/// The state of both sides' counters when tcpwatch began to hold them against each other.
#[derive(Debug)]
pub struct Books {
    host: Host,
    spaces: BTreeMap<u32, Space>,
    /// What the programs had counted by then.
    explained: BTreeMap<u32, NetnsCounters>,
}

#[derive(Debug, Default)]
struct Space {
    /// Where the counters stood. `None`: it was there at the start, but they could not be read, so that what they show
    /// later cannot be told from what was before.
    base: Option<Counters>,
    /// A process that lived there when last looked.
    pid: Option<u32>,
}

impl Books {
    /// Notes where the counters of every namespace stand: the kernel's, and right after them the programs' own, which have
    /// counted since each was attached.
    pub fn open(host: &Host, explained: impl FnOnce() -> Vec<(u32, NetnsCounters)>) -> Self {
        let read = |namespace: netns::Namespace| {
            let base = namespace.pid.and_then(|pid| Counters::read(&host.proc, pid, namespace.inode));
            (namespace.inode, Space { base, pid: namespace.pid })
        };
        let spaces = netns::list(host).into_iter().map(read).collect();
        Self { host: host.clone(), spaces, explained: explained().into_iter().collect() }
    }

    /// Holds tcpwatch's counts against the kernel's, for every namespace that either of them knows, by inode. A namespace
    /// that came after the start began at 0.
    ///
    /// Both sides move while they are read: on a busy host they may differ by what happened in these milliseconds.
    pub fn reconcile(&mut self, explained: &[(u32, NetnsCounters)]) -> Vec<Row> {
        let explained: BTreeMap<u32, &NetnsCounters> =
            explained.iter().map(|(netns, c)| (*netns, c)).collect();
        let mut now = self.read_known();
        self.find_others(&mut now);
        let inodes: BTreeSet<u32> = self.spaces.keys().chain(explained.keys()).copied().collect();
        let none = NetnsCounters::default();
        inodes
            .into_iter()
            .flat_map(|netns| {
                let ours = explained.get(&netns).copied().unwrap_or(&none);
                let ours_before = self.explained.get(&netns).unwrap_or(&none);
                let space = self.spaces.get(&netns);
                let now = now.get(&netns);
                ACCOUNTS.map(|(counter, name, count)| Row {
                    netns,
                    counter,
                    kernel: now.and_then(|now| grown(space?, now, name)),
                    explained: since(count(ours_before), count(ours)),
                })
            })
            .collect()
    }

    /// Asks the processes that are known to live somewhere.
    fn read_known(&self) -> BTreeMap<u32, Counters> {
        let known = self.spaces.iter().filter_map(|(inode, space)| Some((*inode, space.pid?)));
        known.filter_map(|(inode, pid)| Some((inode, Counters::read(&self.host.proc, pid, inode)?))).collect()
    }

    /// Looks for processes in the other namespaces, among them those that came after the start.
    fn find_others(&mut self, now: &mut BTreeMap<u32, Counters>) {
        for pid in self.host.proc.pids() {
            let Some(inode) = self.host.proc.netns(pid).filter(|inode| !now.contains_key(inode)) else {
                continue;
            };
            let Some(counters) = Counters::read(&self.host.proc, pid, inode) else { continue };
            now.insert(inode, counters);
            let from_zero = || Space { base: Some(Counters::default()), pid: None };
            self.spaces.entry(inode).or_insert_with(from_zero).pid = Some(pid);
        }
    }
}

/// How far a count of the programs has moved. Their table forgets the namespace that was quiet for longest when it is full,
/// and then counts from 0.
fn since(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

/// How far a counter has moved. A counter below its own past belongs to another namespace: the inode number was given
/// away again, and this one began at 0.
fn grown(space: &Space, now: &Counters, name: &str) -> Option<u64> {
    let base = space.base.as_ref()?;
    let restarted = ACCOUNTS.iter().any(|(_, name, _)| now.get(name) < base.get(name));
    let before = if restarted { 0 } else { base.get(name).unwrap_or(0) };
    now.get(name).map(|now| now - before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::{Process, Tree};

    fn counters(tree: &Tree, pid: u32, rsts: u64, drops: u64, overflows: u64) {
        tree.write(
            &format!("proc/{pid}/net/snmp"),
            &format!("Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: MaxConn OutRsts\nTcp: -1 {rsts}\n"),
        );
        tree.write(
            &format!("proc/{pid}/net/netstat"),
            &format!(
                "TcpExt: ListenOverflows ListenDrops TCPTimeWaitOverflow\nTcpExt: {drops} {drops} {overflows}\n\
                 IpExt: InNoRoutes\nIpExt: 7\n"
            ),
        );
    }

    fn space(tree: &Tree, pid: u32, netns: u32, rsts: u64) {
        tree.process(pid, &Process { netns, ..Process::PLAIN });
        counters(tree, pid, rsts, 0, 0);
    }

    fn rsts(rows: &[Row], netns: u32) -> &Row {
        rows.iter().find(|row| row.netns == netns && row.counter == "TcpOutRsts").unwrap()
    }

    #[test]
    fn counters_have_the_names_of_nstat() {
        let counters = Counters::parse(
            "Tcp: RtoMin MaxConn OutRsts\nTcp: 200 -1 15\n",
            "TcpExt: ListenDrops New\nTcpExt: 3\nIpExt: A\nOther: 5\n",
        );
        assert_eq!(counters.get("TcpOutRsts"), Some(15));
        assert_eq!(counters.get("TcpExtListenDrops"), Some(3));
        assert_eq!(counters.get("TcpMaxConn"), None, "no counter");
        assert_eq!(counters.get("TcpExtNew"), None, "a name without value");
        assert_eq!(counters.get("IpExtA"), None, "rows that do not belong together");
    }

    #[test]
    fn the_difference_since_the_start_is_held_against_what_was_explained() {
        let tree = Tree::new();
        tree.process(5, &Process { netns: 11, ..Process::PLAIN });
        counters(&tree, 5, 100, 20, 3);
        let mut books = Books::open(&tree.host(), Vec::new);
        counters(&tree, 5, 115, 21, 3);
        let ours = NetnsCounters { rst_sent: 15, listen_drops: 2, ..NetnsCounters::default() };
        let rows = books.reconcile(&[(11, ours)]);
        let row = |counter, kernel, explained| Row { netns: 11, counter, kernel: Some(kernel), explained };
        assert_eq!(
            rows,
            [row("TcpOutRsts", 15, 15), row("ListenDrops", 1, 2), row("TCPTimeWaitOverflow", 0, 0)]
        );
        assert_eq!(rows[0].is_balanced(), Some(true));
        assert_eq!(rows[1].is_balanced(), Some(false));
        assert!(rows[2].is_quiet());
    }

    #[test]
    fn what_the_programs_counted_before_the_books_opened_is_not_explained_twice() {
        let tree = Tree::new();
        space(&tree, 5, 11, 100);
        let ours = |rst_sent| NetnsCounters { rst_sent, ..NetnsCounters::default() };
        // The hooks were attached one by one, and the kernel had reset three connections before the last one held.
        let mut books = Books::open(&tree.host(), || vec![(11, ours(3)), (12, ours(9))]);
        counters(&tree, 5, 104, 0, 0);
        let rows = books.reconcile(&[(11, ours(7)), (13, ours(2))]);
        assert_eq!((rsts(&rows, 11).kernel, rsts(&rows, 11).explained), (Some(4), 4));
        assert_eq!(rsts(&rows, 13).explained, 2, "one that came later");
        let rows = books.reconcile(&[(11, ours(7)), (12, ours(1))]);
        assert_eq!(rsts(&rows, 12).explained, 1, "forgotten by the programs in the meantime");
    }

    #[test]
    fn the_programs_are_asked_right_after_the_kernel() {
        let tree = Tree::new();
        space(&tree, 5, 11, 100);
        let mut books = Books::open(&tree.host(), || {
            counters(&tree, 5, 150, 0, 0);
            Vec::new()
        });
        assert_eq!(rsts(&books.reconcile(&[]), 11).kernel, Some(50));
    }

    #[test]
    fn a_namespace_that_is_gone_has_no_kernel_side() {
        let tree = Tree::new();
        space(&tree, 5, 11, 100);
        let mut books = Books::open(&tree.host(), Vec::new);
        tree.remove("proc/5");
        let rows = books.reconcile(&[(11, NetnsCounters { rst_sent: 4, ..NetnsCounters::default() })]);
        assert_eq!((rsts(&rows, 11).kernel, rsts(&rows, 11).explained), (None, 4));
        assert_eq!(rsts(&rows, 11).is_balanced(), None);
        let rows = books.reconcile(&[(77, NetnsCounters::default())]);
        assert_eq!(rsts(&rows, 77).kernel, None, "one that came and went");
    }

    #[test]
    fn another_process_answers_when_the_first_is_gone() {
        let tree = Tree::new();
        space(&tree, 5, 11, 100);
        let mut books = Books::open(&tree.host(), Vec::new);
        tree.remove("proc/5");
        space(&tree, 6, 11, 107);
        assert_eq!(rsts(&books.reconcile(&[]), 11).kernel, Some(7));
        counters(&tree, 6, 109, 0, 0);
        assert_eq!(rsts(&books.reconcile(&[]), 11).kernel, Some(9));
    }

    #[test]
    fn a_new_namespace_counts_from_zero_even_if_nothing_was_explained() {
        let tree = Tree::new();
        space(&tree, 5, 11, 100);
        let mut books = Books::open(&tree.host(), Vec::new);
        space(&tree, 6, 12, 9);
        let rows = books.reconcile(&[]);
        assert_eq!((rsts(&rows, 12).kernel, rsts(&rows, 12).explained), (Some(9), 0));
    }

    #[test]
    fn a_namespace_that_nobody_lived_in_at_the_start_stays_unknown() {
        use std::os::unix::fs::MetadataExt;
        let tree = Tree::new();
        tree.write("run/netns/blue", "");
        let blue = fs::metadata(tree.root.join("run/netns/blue")).unwrap().ino();
        let blue = u32::try_from(blue).unwrap();
        let mut books = Books::open(&tree.host(), Vec::new);
        space(&tree, 6, blue, 500);
        assert_eq!(rsts(&books.reconcile(&[]), blue).kernel, None);
    }

    #[test]
    fn an_inode_given_away_again_does_not_count_backwards() {
        let tree = Tree::new();
        space(&tree, 5, 11, 100);
        let mut books = Books::open(&tree.host(), Vec::new);
        space(&tree, 5, 11, 8);
        assert_eq!(rsts(&books.reconcile(&[]), 11).kernel, Some(8));
    }

    #[test]
    fn the_running_kernel_has_these_counters() {
        let host = Host::live();
        let pid = host.proc.own_pid();
        let counters = Counters::read(&host.proc, pid, host.proc.netns(pid).unwrap()).unwrap();
        for (_, name, _) in ACCOUNTS {
            assert!(counters.get(name).is_some(), "{name}");
        }
    }
}
