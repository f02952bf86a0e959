//! Doing something inside a network namespace.

use super::Unseen;
use crate::host::Host;
use crate::host::netns::Namespace;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Calls `work` where `/proc/sys/net` and sockets are those of `namespace`, with the folder that holds its tables.
pub(super) fn within<T: Send>(
    host: &Host,
    namespace: &Namespace,
    work: impl FnOnce(&Path) -> T + Send,
) -> Result<T, Unseen> {
    if host.proc.own_netns() == Some(namespace.inode) {
        return Ok(work(&host.proc.root().join("self/net")));
    }
    let refused = |what: &str, error: io::Error| {
        let hint = if error.kind() == io::ErrorKind::PermissionDenied {
            " (it takes CAP_SYS_ADMIN and CAP_SYS_PTRACE)"
        } else {
            ""
        };
        Unseen::new(namespace, format_args!("cannot be {what}: {error}{hint}"))
    };
    let Some(path) = path(host, namespace) else {
        return Err(Unseen::new(namespace, "cannot be found: no process lives in it and it has no name"));
    };
    let file = File::open(path).map_err(|error| refused("opened", error))?;
    let inode = file.metadata().map_err(|error| refused("opened", error))?.ino();
    if inode != u64::from(namespace.inode) {
        let process = namespace.pid.map_or_else(String::new, |pid| format!(" of process {pid}"));
        return Err(Unseen::new(namespace, format_args!("is not that{process} any more")));
    }
    let files = host.proc.root().join("thread-self/net");
    let work = || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(work(&files))
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| refused("entered", error))?;
        let done = thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in it failed")));
        done.map_err(|error| refused("entered", error))
    })
}

/// A file that leads to the namespace.
fn path(host: &Host, namespace: &Namespace) -> Option<PathBuf> {
    if let Some(pid) = namespace.pid {
        return Some(host.proc.path(pid, "ns/net"));
    }
    let name = namespace.name.as_ref()?;
    host.netns_dirs().into_iter().map(|dir| dir.join(name)).find(|path| path.exists())
}
