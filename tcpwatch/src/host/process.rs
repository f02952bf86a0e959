//! What is to be said about a process beyond what the kernel side noted: its program, its cgroup, its container.
//!
//! The kernel side names a process by pid and start time. A pid that was given away again is told by the start time, so an
//! answer is about the right process or there is none.

use super::cgroup::{self, Cgroups};
use super::{Host, proc::Proc};
use foldhash::{HashMap, HashMapExt};
use smol_str::SmolStr;
use std::path::Path;
use std::time::{Duration, Instant};
use tcpwatch_common::owner::Owner;

/// Processes remembered. One takes a kilobyte with what leads to it, so that these are two megabytes at most, however many come and
/// go; those that have events are few of a host's thousands.
const CAPACITY: usize = 2048;

/// After this long a live process is asked again: `exec` changes the program but neither pid nor start time. A process
/// that was not there is not looked for again sooner either.
const FRESH: Duration = Duration::from_secs(1);

/// What is known about the process behind an owner. `None` is "not known". Cheap to clone: the texts are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// Path of the program, as the process's own mount namespace has it.
    pub exe: Option<SmolStr>,
    /// The program's file was removed or replaced since it started, as an upgrade does.
    pub exe_deleted: bool,
    /// What it does, as `ps` shows it: `R`, `S`, `D`, `T`, …; some moments old.
    pub state: Option<char>,
    /// Path below the cgroup mount.
    pub cgroup: Option<SmolStr>,
    /// Id or name, see [`cgroup::container`].
    pub container: Option<SmolStr>,
}

/// The processes that were asked for, most lately used first to stay.
#[derive(Debug)]
pub struct Processes {
    proc: Proc,
    cgroups: Cgroups,
    known: HashMap<Identity, Entry>,
    capacity: usize,
}

/// Pid, start time in ticks, and the cgroup when it was learnt.
type Identity = (u32, u64, u64);

#[derive(Debug)]
struct Entry {
    /// `None`: it was not there.
    found: Option<Found>,
    described: Described,
    asked: Instant,
    used: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    exe: Option<SmolStr>,
    exe_deleted: bool,
    state: Option<char>,
    cgroup: Option<SmolStr>,
}

impl Processes {
    pub fn new(host: &Host) -> Self {
        Self {
            proc: host.proc.clone(),
            cgroups: Cgroups::new(host.cgroup.clone()),
            known: HashMap::new(),
            capacity: CAPACITY,
        }
    }

    /// Everything there is to say about an owner. Cgroup and container are still known when the process is gone, as long as
    /// its cgroup is there or was seen.
    pub fn describe(&mut self, owner: &Owner) -> Described {
        self.describe_at(owner, Instant::now())
    }

    /// The same, for who knows the time and asks often: one look into a table for a process that was asked for lately.
    pub fn describe_at(&mut self, owner: &Owner, now: Instant) -> Described {
        let identity = (owner.pid, self.proc.ticks(owner.start_ns), owner.cgroup);
        if let Some(entry) = self.known.get_mut(&identity)
            && now.saturating_duration_since(entry.asked) < FRESH
        {
            entry.used = now;
            return entry.described.clone();
        }
        // What a process was stays true after its end.
        let before = self.known.remove(&identity).and_then(|entry| entry.found);
        let found = look(&self.proc, identity).or(before);
        let by_id = self.cgroups.path(owner.cgroup, now);
        let described = put_together(found.as_ref(), by_id);
        if self.known.len() >= self.capacity {
            self.forget();
        }
        self.known.insert(identity, Entry { found, described: described.clone(), asked: now, used: now });
        described
    }

    /// Drops the half that was not used for longest: one pass now and then instead of a list to keep in order.
    fn forget(&mut self) {
        let mut used: Vec<Instant> = self.known.values().map(|entry| entry.used).collect();
        let middle = used.len() / 2;
        let (_, &mut median, _) = used.select_nth_unstable(middle);
        let mut excess = middle + 1;
        self.known.retain(|_, entry| {
            let drop = entry.used <= median && excess > 0;
            excess -= usize::from(drop);
            !drop
        });
    }
}

fn put_together(found: Option<&Found>, by_id: Option<&str>) -> Described {
    let by_pid = found.and_then(|found| found.cgroup.as_deref());
    let container = [by_id, by_pid].into_iter().flatten().find_map(cgroup::container);
    // The id is of the moment when the socket was made, so it goes first, but on a host with v1 containers it only says
    // that the process is in the root of the v2 tree.
    let cgroup = match (by_id, by_pid) {
        (Some(path), _) if path != "/" => Some(path),
        (by_id, by_pid) => by_pid.or(by_id),
    };
    Described {
        exe: found.and_then(|found| found.exe.clone()),
        exe_deleted: found.is_some_and(|found| found.exe_deleted),
        state: found.and_then(|found| found.state),
        cgroup: cgroup.map(SmolStr::new),
        container: container.map(SmolStr::new),
    }
}

fn look(proc: &Proc, (pid, start, _): Identity) -> Option<Found> {
    let is_same = || proc.stat(pid).is_some_and(|stat| stat.start == start);
    if pid == 0 || !is_same() {
        return None;
    }
    let exe = std::fs::read_link(proc.path(pid, "exe")).ok();
    let (exe, exe_deleted) = exe.as_deref().map(program).unzip();
    let cgroup = proc.cgroup(pid).and_then(|text| cgroup::own_path(&text).map(SmolStr::new));
    // The pid may have changed hands while the files were read.
    let now = proc.stat(pid).filter(|stat| stat.start == start)?;
    Some(Found { exe, exe_deleted: exe_deleted.unwrap_or(false), state: Some(now.state), cgroup })
}

/// The kernel marks a file that has no name any more with a suffix.
fn program(link: &Path) -> (SmolStr, bool) {
    let link = link.to_string_lossy();
    match link.strip_suffix(" (deleted)") {
        Some(path) => (path.into(), true),
        None => (link.into(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::{Process, Tree};

    const ID: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904b825dc642cb6eb9a060e54bf";

    fn owner(pid: u32, start_ns: u64) -> Owner {
        Owner { pid, start_ns, ..Owner::default() }
    }

    #[test]
    fn a_process_is_described_by_pid_and_start_time() {
        let tree = Tree::new();
        let cgroup = format!("0::/system.slice/docker-{ID}.scope\n");
        tree.process(42, &Process { start: 5000, cgroup: &cgroup, ..Process::PLAIN });
        let mut processes = Processes::new(&tree.host());
        let told = processes.describe(&owner(42, 50_000_000_000));
        assert_eq!(told.exe.as_deref(), Some("/usr/sbin/nginx"));
        assert!(!told.exe_deleted);
        assert_eq!(told.cgroup.as_deref(), Some(format!("/system.slice/docker-{ID}.scope").as_str()));
        assert_eq!(told.container.as_deref(), Some(ID));
        assert_eq!(processes.describe(&owner(42, 50_009_999_999)).exe, told.exe, "the same tick");
    }

    #[test]
    fn another_process_with_the_pid_is_not_described() {
        let tree = Tree::new();
        tree.process(42, &Process { start: 5000, ..Process::PLAIN });
        let mut processes = Processes::new(&tree.host());
        assert_eq!(processes.describe(&owner(42, 49_999_999_999)), Described::default());
        assert_eq!(processes.describe(&owner(42, 0)), Described::default());
        assert_eq!(processes.describe(&owner(43, 50_000_000_000)), Described::default());
        assert_eq!(processes.describe(&owner(0, 0)), Described::default());
    }

    #[test]
    fn a_replaced_program_keeps_its_path() {
        let tree = Tree::new();
        tree.process(42, &Process::PLAIN);
        tree.link("proc/42/exe", "/usr/sbin/nginx (deleted)");
        let told = Processes::new(&tree.host()).describe(&owner(42, 50_000_000_000));
        assert_eq!((told.exe.as_deref(), told.exe_deleted), (Some("/usr/sbin/nginx"), true));
    }

    #[test]
    fn what_was_known_outlives_the_process() {
        let tree = Tree::new();
        tree.process(42, &Process::PLAIN);
        let mut processes = Processes::new(&tree.host());
        let (owner, start) = (owner(42, 50_000_000_000), Instant::now());
        let told = processes.describe_at(&owner, start);
        tree.remove("proc/42");
        assert_eq!(processes.describe_at(&owner, start + 5 * FRESH), told);
    }

    #[test]
    fn absence_and_presence_are_both_asked_again_after_a_second() {
        let tree = Tree::new();
        let mut processes = Processes::new(&tree.host());
        let (owner, start) = (owner(42, 50_000_000_000), Instant::now());
        assert_eq!(processes.describe_at(&owner, start).exe, None);
        tree.process(42, &Process::PLAIN);
        assert_eq!(processes.describe_at(&owner, start + FRESH / 2).exe, None);
        assert_eq!(processes.describe_at(&owner, start + FRESH).exe.as_deref(), Some("/usr/sbin/nginx"));
        tree.link("proc/42/exe", "/usr/bin/python3");
        assert_eq!(processes.describe_at(&owner, start + 2 * FRESH).exe.as_deref(), Some("/usr/bin/python3"));
    }

    #[test]
    fn the_cgroup_of_the_socket_serves_when_the_process_is_gone() {
        use std::os::unix::fs::MetadataExt;
        let tree = Tree::new();
        tree.write("sys/fs/cgroup/cgroup.controllers", "");
        let path = format!("sys/fs/cgroup/docker/{ID}");
        tree.write(&format!("{path}/cgroup.procs"), "");
        let cgroup = std::fs::metadata(tree.root.join(path)).unwrap().ino();
        let told = Processes::new(&tree.host()).describe(&Owner { cgroup, ..owner(42, 1) });
        assert_eq!(told.exe, None);
        assert_eq!(told.container.as_deref(), Some(ID));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_used() {
        let tree = Tree::new();
        tree.process(7, &Process::PLAIN);
        let mut processes = Processes { capacity: 64, ..Processes::new(&tree.host()) };
        let mut now = Instant::now();
        for pid in 1000..2000 {
            now += Duration::from_micros(1);
            processes.describe_at(&owner(pid, 1), now);
            assert!(processes.describe_at(&owner(7, 50_000_000_000), now).exe.is_some());
            assert!(processes.known.len() <= 64);
        }
        tree.remove("proc/7");
        assert!(processes.describe_at(&owner(7, 50_000_000_000), now).exe.is_some());
    }
}
