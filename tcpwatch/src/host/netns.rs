//! The network namespaces of the host, found through the processes that live in them and the names `ip netns` gave them.

use super::Host;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// A network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// What the kernel side calls it by.
    pub inode: u32,
    /// A process in it. `None`: it is held by a name, a descriptor or a socket alone, and its files in `/proc` cannot be
    /// read: neither its listeners nor its counters.
    pub pid: Option<u32>,
    /// As `ip netns` knows it.
    pub name: Option<String>,
}

/// Every namespace that a process lives in or that has a name, by inode. A process whose namespace may not be read
/// (another user's, without `CAP_SYS_PTRACE`) counts for none.
pub fn list(host: &Host) -> Vec<Namespace> {
    let mut found = BTreeMap::new();
    // tcpwatch goes first: the one process that is sure to be there as long as its namespace is asked for.
    for pid in std::iter::once(host.proc.own_pid()).chain(host.proc.pids()) {
        if let Some(inode) = host.proc.netns(pid) {
            found.entry(inode).or_insert_with(|| Namespace { inode, pid: Some(pid), name: None });
        }
    }
    for dir in host.netns_dirs() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            // A bind mount of the namespace: the inode of what is mounted, not of the directory entry.
            let Some(inode) = fs::metadata(entry.path()).ok().and_then(|m| u32::try_from(m.ino()).ok())
            else {
                continue;
            };
            let namespace = found.entry(inode).or_insert_with(|| Namespace { inode, ..Namespace::default() });
            namespace.name.get_or_insert_with(|| entry.file_name().to_string_lossy().into_owned());
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::{Process, Tree};

    #[test]
    fn namespaces_are_found_by_process_and_by_name() {
        let tree = Tree::new();
        tree.process(Tree::OWN_PID, &Process { netns: 11, ..Process::PLAIN });
        tree.process(5, &Process { netns: 11, ..Process::PLAIN });
        tree.process(6, &Process { netns: 12, ..Process::PLAIN });
        tree.write("run/netns/blue", "");
        let blue = fs::metadata(tree.root.join("run/netns/blue")).unwrap().ino();
        tree.process(7, &Process { netns: u32::try_from(blue).unwrap(), ..Process::PLAIN });
        tree.write("var/run/netns/empty", "");
        let found = list(&tree.host());
        assert_eq!(found.len(), 4);
        let of = |inode: u64| found.iter().find(|ns| u64::from(ns.inode) == inode).unwrap();
        assert_eq!(of(11).pid, Some(Tree::OWN_PID), "its own process first");
        assert_eq!(of(12).pid, Some(6));
        assert_eq!((of(blue).pid, of(blue).name.as_deref()), (Some(7), Some("blue")));
        let empty = fs::metadata(tree.root.join("var/run/netns/empty")).unwrap().ino();
        assert_eq!((of(empty).pid, of(empty).name.as_deref()), (None, Some("empty")));
    }
}
