//! Reads `/proc`. Every answer is an `Option`: a process may vanish between two reads, and that is normal.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// `/proc` shows start times in `USER_HZ` ticks, which has been 100 per second on every architecture Rust's standard library
/// knows but Alpha.
const NS_PER_TICK: u64 = 10_000_000;

/// A `/proc` tree.
#[derive(Clone, Debug)]
pub struct Proc {
    root: PathBuf,
    own_pid: u32,
    /// Nanoseconds which a time namespace adds to the start times shown here; 0 outside of one.
    boot_offset_ns: i64,
}

/// What `/proc/PID/stat` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub comm: [u8; 16],
    /// As `ps` shows it: `R`, `S`, `D`, `T`, …
    pub state: char,
    pub parent: u32,
    /// Ticks since boot.
    pub start: u64,
}

impl Proc {
    pub fn at(root: &Path, own_pid: u32) -> Self {
        let boot_offset_ns = fs::read_to_string(root.join("self/timens_offsets"))
            .ok()
            .and_then(|text| boot_offset(&text))
            .unwrap_or(0);
        Self { root: root.to_owned(), own_pid, boot_offset_ns }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// tcpwatch's own pid, in its own pid namespace.
    pub fn own_pid(&self) -> u32 {
        self.own_pid
    }

    /// A sentence when `/proc` belongs to another pid namespace than tcpwatch: then no pid of one means anything in the other.
    pub fn disagreement(&self) -> Option<String> {
        let shown = fs::read_link(self.root.join("self")).ok();
        let shown = shown.as_deref().and_then(Path::to_str);
        match shown {
            Some(pid) if pid.parse() == Ok(self.own_pid) => None,
            Some(pid) => Some(format!(
                "{} belongs to another pid namespace: it shows tcpwatch as process {pid}, its own pid is {}",
                self.root.display(),
                self.own_pid
            )),
            None => Some(format!("{} does not show tcpwatch itself: is it mounted?", self.root.display())),
        }
    }

    /// The start time as `/proc` shows it for a process whose `task_struct.start_boottime` is `start_ns`.
    pub fn ticks(&self, start_ns: u64) -> u64 {
        start_ns.saturating_add_signed(self.boot_offset_ns) / NS_PER_TICK
    }

    /// The other way; exact to 10 ms, and [`Self::ticks`] of it gives `ticks` again.
    pub fn start_ns(&self, ticks: u64) -> u64 {
        let ns = ticks.saturating_mul(NS_PER_TICK);
        if self.boot_offset_ns >= 0 {
            ns.saturating_sub(self.boot_offset_ns.unsigned_abs())
        } else {
            ns.saturating_add(self.boot_offset_ns.unsigned_abs())
        }
    }

    /// Every process there is, in the order of the directory.
    pub fn pids(&self) -> impl Iterator<Item = u32> + use<> {
        let entries = fs::read_dir(&self.root).ok();
        entries.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }

    /// `/proc/PID/WHAT`.
    pub fn path(&self, pid: u32, what: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(what)
    }

    pub fn stat(&self, pid: u32) -> Option<Stat> {
        // One read of a fixed size: this runs for every process of the host at start.
        let mut buffer = [0; 1024];
        let mut file = fs::File::open(self.path(pid, "stat")).ok()?;
        let length = file.read(&mut buffer).ok()?;
        parse_stat(&buffer[..length])
    }

    /// Effective uid, as seen from tcpwatch's user namespace.
    pub fn uid(&self, pid: u32) -> Option<u32> {
        self.status(pid, "Uid:")?.split_whitespace().nth(1)?.parse().ok()
    }

    /// The process a thread belongs to; a process belongs to itself. `/proc/TID` exists for every thread, though it is not listed.
    pub fn thread_group(&self, tid: u32) -> Option<u32> {
        self.status(tid, "Tgid:")?.trim().parse().ok()
    }

    fn status(&self, pid: u32, key: &str) -> Option<String> {
        let text = fs::read(self.path(pid, "status")).ok()?;
        let text = String::from_utf8_lossy(&text);
        text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned)
    }

    /// Inode of the network namespace of a process (of its main thread: others may have moved).
    pub fn netns(&self, pid: u32) -> Option<u32> {
        inode(&self.path(pid, "ns/net"))
    }

    /// Inode of tcpwatch's own network namespace, even if this `/proc` knows tcpwatch by another pid.
    pub fn own_netns(&self) -> Option<u32> {
        inode(&self.root.join("self/ns/net"))
    }

    /// Text of `/proc/PID/cgroup`.
    pub fn cgroup(&self, pid: u32) -> Option<String> {
        fs::read_to_string(self.path(pid, "cgroup")).ok()
    }
}

/// The inode in a link to `net:[4026531840]`.
fn inode(link: &Path) -> Option<u32> {
    let link = fs::read_link(link).ok()?;
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// The comm stands in parentheses and may itself hold spaces and parentheses, so the numbers begin after the last one.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|&byte| byte == b'(')?;
    let close = text.iter().rposition(|&byte| byte == b')')?;
    let mut comm = [0; 16];
    for (to, from) in comm[..15].iter_mut().zip(text.get(open + 1..close)?) {
        *to = *from;
    }
    // After the comm come state (field 3), parent (4) … start time (22).
    let mut fields = str::from_utf8(&text[close + 1..]).ok()?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some(Stat { comm, state, parent, start })
}

/// The `boottime` row of `timens_offsets`: seconds and nanoseconds, the seconds may be negative.
fn boot_offset(text: &str) -> Option<i64> {
    let mut fields = text.lines().find_map(|line| line.strip_prefix("boottime"))?.split_whitespace();
    let seconds: i64 = fields.next()?.parse().ok()?;
    let nanos: i64 = fields.next()?.parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Tree;

    #[test]
    fn a_comm_may_hold_spaces_and_parentheses() {
        let text = b"42 (a) (b c) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 99 99";
        let stat = parse_stat(text).unwrap();
        assert_eq!(&stat.comm[..8], b"a) (b c\0");
        assert_eq!((stat.state, stat.parent, stat.start), ('S', 7, 123_456));
    }

    #[test]
    fn a_cut_stat_is_no_answer() {
        for text in ["", "42", "42 (a", "42 (a)", "42 (a) S 7 1 2", ")42("] {
            assert_eq!(parse_stat(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn start_times_survive_a_time_namespace() {
        let tree = Tree::new();
        tree.write(
            "proc/self/timens_offsets",
            "monotonic           0         0\nboottime        -86400         5\n",
        );
        let proc = tree.host().proc;
        let start_ns = 200_000 * 1_000_000_000 + 7;
        assert_eq!(proc.ticks(start_ns), (200_000 - 86_400) * 100);
        let ticks = 12_345_678;
        assert_eq!(proc.ticks(proc.start_ns(ticks)), ticks);
    }

    #[test]
    fn a_foreign_proc_is_told() {
        let tree = Tree::new();
        tree.link("proc/self", "4711");
        assert!(tree.host().proc.disagreement().unwrap().contains("4711"));
        let tree = Tree::new();
        tree.link("proc/self", &Tree::OWN_PID.to_string());
        assert_eq!(tree.host().proc.disagreement(), None);
    }

    #[test]
    fn the_real_proc_knows_this_test() {
        let proc = crate::host::Host::live().proc;
        let own = proc.own_pid();
        assert!(proc.pids().any(|pid| pid == own));
        assert_eq!(proc.thread_group(own), Some(own));
        assert!(proc.stat(own).is_some_and(|stat| stat.start > 0));
        assert!(proc.netns(own).is_some());
    }
}
