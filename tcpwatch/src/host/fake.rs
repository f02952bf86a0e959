//! A file tree for tests that looks like a host: processes, sockets, namespaces.

use super::Host;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) struct Tree {
    pub(crate) root: PathBuf,
}

/// One process of a [`Tree`].
pub(crate) struct Process<'a> {
    pub(crate) comm: &'a str,
    pub(crate) parent: u32,
    /// Ticks since boot.
    pub(crate) start: u64,
    pub(crate) netns: u32,
    /// Text of its `cgroup` file.
    pub(crate) cgroup: &'a str,
    /// What its descriptors point to.
    pub(crate) files: &'a [&'a str],
}

impl Process<'_> {
    pub(crate) const PLAIN: Self =
        Self { comm: "nginx", parent: 1, start: 5000, netns: 4_026_531_840, cgroup: "0::/\n", files: &[] };
}

impl Tree {
    pub(crate) const OWN_PID: u32 = 999;

    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tcpwatch-host-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(root.join("proc")).unwrap();
        Self { root }
    }

    pub(crate) fn host(&self) -> Host {
        Host::at(&self.root, Self::OWN_PID)
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(target, path).unwrap();
    }

    pub(crate) fn remove(&self, path: &str) {
        fs::remove_dir_all(self.root.join(path)).unwrap();
    }

    pub(crate) fn process(&self, pid: u32, process: &Process) {
        let Process { comm, parent, start, netns, cgroup, files } = process;
        self.write(
            &format!("proc/{pid}/stat"),
            &format!("{pid} ({comm}) S {parent} 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 {start} 99 99\n"),
        );
        self.write(
            &format!("proc/{pid}/status"),
            &format!("Name:\t{comm}\nTgid:\t{pid}\nPid:\t{pid}\nUid:\t0\t33\t33\t33\nGid:\t0\t0\t0\t0\n"),
        );
        self.write(&format!("proc/{pid}/cgroup"), cgroup);
        self.link(&format!("proc/{pid}/exe"), &format!("/usr/sbin/{comm}"));
        self.link(&format!("proc/{pid}/ns/net"), &format!("net:[{netns}]"));
        fs::create_dir_all(self.root.join(format!("proc/{pid}/fd"))).unwrap();
        for (fd, target) in files.iter().enumerate() {
            self.link(&format!("proc/{pid}/fd/{fd}"), target);
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}
