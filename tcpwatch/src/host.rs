//! What this host knows about the processes, containers and namespaces behind the sockets: everything that is read from
//! `/proc`, `/sys` and `/run`, never from the kernel's memory.
//!
//! All paths hang on a root, so that tests run on a tree of their own making.

pub mod books;
pub mod cgroup;
pub mod descriptors;
pub mod inet;
pub mod netns;
pub mod preflight;
pub mod proc;
pub mod process;
pub mod seed;
pub mod user_stack;

#[cfg(test)]
pub(crate) mod fake;

use proc::Proc;
use std::path::{Path, PathBuf};

/// Where to look. Cheap to clone; holds no open files.
#[derive(Clone, Debug)]
pub struct Host {
    /// `/`, or the top of a test's tree.
    pub root: PathBuf,
    pub proc: Proc,
    /// Where the cgroup v2 tree is mounted, `None` on a host that has only v1.
    pub cgroup: Option<PathBuf>,
}

impl Host {
    /// The host tcpwatch runs on.
    pub fn live() -> Self {
        Self::at(Path::new("/"), std::process::id())
    }

    /// A host whose file tree begins at `root`, seen by a process with the id `own_pid`.
    pub fn at(root: &Path, own_pid: u32) -> Self {
        Self {
            root: root.to_owned(),
            proc: Proc::at(&root.join("proc"), own_pid),
            cgroup: cgroup::mount(&root.join("sys/fs/cgroup")),
        }
    }

    /// Whether it is the one that tcpwatch runs on.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Directories in which `ip netns` keeps the namespaces that have a name.
    pub fn netns_dirs(&self) -> [PathBuf; 2] {
        [self.root.join("run/netns"), self.root.join("var/run/netns")]
    }
}
