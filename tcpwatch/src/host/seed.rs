//! The sockets that were there before tcpwatch: who holds which, and who listens on which port.
//!
//! A descriptor does not tell who made the socket, only who holds it. Of several holders the oldest is named: for a listener
//! that is the one that called `listen()` before it forked its workers (or systemd, which listens for the service it
//! activates). For a connection it is as good a guess as any, marked `how: proc` like everything here, and the kernel side
//! corrects it when somebody uses the socket.

use super::inet;
use super::netns::{self, Namespace};
use super::proc::{Proc, Stat};
use super::{Host, cgroup};
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use std::collections::HashMap;
use std::mem::MaybeUninit;
use tcpwatch_common::flow::PortKey;
use tcpwatch_common::owner::{Owner, PortOwner, how};

/// Inode of the initial pid namespace, the same on every kernel (`PROC_PID_INIT_INO`).
const INITIAL_PIDNS: &str = "pid:[4026531836]";

/// What was there.
#[derive(Debug, Default)]
pub struct Seed {
    /// Inode of a socket (of any kind: only the kernel side can tell TCP from the rest) and which of the owners holds it, by
    /// inode. They are many, and stay as long as the run.
    sockets: Vec<(u64, u32)>,
    owners: Vec<Owner>,
    /// Who listens on a port. The owner is empty where nobody is seen to hold the socket.
    pub ports: Vec<(PortKey, PortOwner)>,
    pub namespaces: Vec<Namespace>,
    /// Processes whose descriptors may not be read.
    pub unreadable: u32,
}

impl Seed {
    /// The sockets that were there and who holds them, by inode.
    pub fn sockets(&self) -> impl Iterator<Item = (u64, &Owner)> {
        self.sockets.iter().filter_map(|(inode, owner)| Some((*inode, self.owners.get(*owner as usize)?)))
    }

    /// Who held a socket.
    pub fn owner(&self, socket: u64) -> Option<&Owner> {
        let at = self.sockets.binary_search_by_key(&socket, |(inode, _)| *inode).ok()?;
        self.owners.get(self.sockets.get(at)?.1 as usize)
    }
}

/// How many sockets [`scan`] may find, with room for what comes meanwhile: what the namespaces say they have.
pub fn expected(host: &Host) -> u32 {
    /// No table needs to be larger: the rest is known as soon as somebody uses it.
    const MOST: u64 = 1 << 20;
    let used = |pid: u32| -> Option<u64> {
        let text = std::fs::read_to_string(host.proc.path(pid, "net/sockstat")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("sockets: used "))?.trim().parse().ok()
    };
    let all: u64 = netns::list(host).iter().filter_map(|space| used(space.pid?)).sum();
    u32::try_from((all + all / 4 + 1024).min(MOST)).unwrap_or(u32::MAX)
}

/// Looks at every process but tcpwatch. A few microseconds per descriptor: 100,000 sockets take a fraction of a second.
pub fn scan(host: &Host) -> Seed {
    let mut holders = Holders::new(host);
    for pid in host.proc.pids() {
        if pid != host.proc.own_pid() {
            holders.add(pid);
        }
    }
    let mut seed = holders.into_seed();
    seed.namespaces = netns::list(host);
    let mut ports = Ports::default();
    for namespace in &seed.namespaces {
        for (port, socket) in inet::listeners(host, namespace) {
            ports.add(PortKey { netns: namespace.inode, port: u32::from(port) }, seed.owner(socket).copied());
        }
    }
    seed.ports = ports.into_vec();
    seed
}

/// Who holds which socket.
struct Holders<'a> {
    host: &'a Host,
    processes: Vec<Process>,
    /// Each socket and the index of a process that holds it, as they were found.
    sockets: Vec<(u64, u32)>,
    unreadable: u32,
    initial_pidns: bool,
}

struct Process {
    owner: Owner,
    stat: Stat,
}

impl<'a> Holders<'a> {
    fn new(host: &'a Host) -> Self {
        let pidns = std::fs::read_link(host.proc.path(host.proc.own_pid(), "ns/pid"));
        let initial_pidns = pidns.is_ok_and(|link| link.as_os_str() == INITIAL_PIDNS);
        Self { host, processes: Vec::new(), sockets: Vec::new(), unreadable: 0, initial_pidns }
    }

    fn add(&mut self, pid: u32) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match openat(CWD, self.host.proc.path(pid, "fd"), flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
                self.unreadable += 1;
                return;
            }
            // It ended.
            Err(_) => return,
        };
        // Asked of a process with the first socket: most have none.
        let mut index = None;
        let mut names = [MaybeUninit::uninit(); 16 * 1024];
        let mut entries = RawDir::new(&dir, &mut names);
        while let Some(Ok(entry)) = entries.next() {
            let mut target = [MaybeUninit::uninit(); 64];
            let Ok((target, _)) = readlinkat_raw(&dir, entry.file_name(), &mut target) else { continue };
            let Some(socket) = socket_inode(target) else { continue };
            if index.is_none() {
                let Some(process) = self.ask(pid) else { return };
                index = u32::try_from(self.processes.len()).ok();
                self.processes.push(process);
            }
            self.sockets.extend(index.map(|index| (socket, index)));
        }
    }

    fn ask(&self, pid: u32) -> Option<Process> {
        let proc = &self.host.proc;
        let stat = proc.stat(pid)?;
        let owner = Owner {
            start_ns: proc.start_ns(stat.start),
            cgroup: proc.cgroup(pid).map_or(0, |text| cgroup::id(self.host.cgroup.as_deref(), &text)),
            pid,
            uid: proc.uid(pid)?,
            // From inside a pid namespace the initial one cannot be seen; 0 makes the kernel side look at the rest.
            root_pid: if self.initial_pidns { pid } else { 0 },
            how: how::PROC,
            pad: 0,
            pad2: 0,
            comm: stat.comm,
        };
        Some(Process { owner, stat })
    }

    /// Of several holders of a socket the oldest is left.
    fn into_seed(self) -> Seed {
        let Self { processes, mut sockets, unreadable, .. } = self;
        sockets.sort_unstable();
        sockets.dedup_by(|(socket, holder), (kept, oldest)| {
            let again = socket == kept;
            if again && older(&processes[*holder as usize], &processes[*oldest as usize]) {
                *oldest = *holder;
            }
            again
        });
        sockets.shrink_to_fit();
        let owners = processes.into_iter().map(|process| process.owner).collect();
        Seed { sockets, owners, unreadable, ..Seed::default() }
    }
}

/// Whether `a` started before `b`. A process often forks within the 10 ms that a start time is exact to; then the parent is
/// the older one, whatever the pids (they wrap around).
fn older(a: &Process, b: &Process) -> bool {
    if a.stat.start != b.stat.start {
        return a.stat.start < b.stat.start;
    }
    if a.owner.pid == b.stat.parent || b.owner.pid == a.stat.parent {
        return a.owner.pid == b.stat.parent;
    }
    a.owner.pid < b.owner.pid
}

/// The inode in `socket:[12345]`.
fn socket_inode(target: &[u8]) -> Option<u64> {
    str::from_utf8(target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?).ok()?.parse().ok()
}

#[derive(Default)]
struct Ports(HashMap<PortKey, PortOwner>);

impl Ports {
    fn add(&mut self, key: PortKey, owner: Option<Owner>) {
        let port = self.0.entry(key).or_default();
        port.sockets += 1;
        let Some(owner) = owner else { return };
        let is_first = port.owner.how == how::NONE;
        // Several sockets on one port: the process that was there first, to be the same on every run.
        if is_first || (owner.start_ns, owner.pid) < (port.owner.start_ns, port.owner.pid) {
            port.owner = owner;
        }
    }

    fn into_vec(self) -> Vec<(PortKey, PortOwner)> {
        let mut ports: Vec<_> = self.0.into_iter().collect();
        ports.sort_unstable_by_key(|(key, _)| (key.netns, key.port));
        ports
    }
}

/// A sentence for each thing that the scan could not see, with what to do about it as the last line.
pub fn notes(seed: &Seed, proc: &Proc) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(proc.disagreement().map(|sentence| {
        format!("{sentence}\nhint: mount a /proc of tcpwatch's own pid namespace, or start it with the host's (--pid=host)")
    }));
    if seed.unreadable > 0 {
        notes.push(format!(
            "the sockets of {} {} may not be read: who holds them shows when they are used\n\
             hint: run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
            seed.unreadable,
            if seed.unreadable == 1 { "process" } else { "processes" }
        ));
    }
    let nobody = seed.namespaces.iter().filter(|ns| ns.pid.is_none());
    let nobody: Vec<String> =
        nobody.map(|ns| ns.name.clone().unwrap_or_else(|| ns.inode.to_string())).collect();
    if !nobody.is_empty() {
        notes.push(format!(
            "no process lives in network namespace {}: its listeners and its counters are not known\n\
             hint: start a process there before tcpwatch, for instance `ip netns exec {} sleep infinity`",
            nobody.join(", "),
            nobody[0]
        ));
    }
    notes
}

#[cfg(test)]
mod tests;
