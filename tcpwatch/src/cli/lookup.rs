//! Names on the command line that stand for something on this host.

use super::{Error, values};
use crate::host::Host;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A process, by pid; `here`: one that exists.
pub(super) fn pid(host: &Host, here: bool, text: &str) -> Result<u32, Error> {
    let pid = values::whole(text).and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    let Some(pid) = pid else {
        return Err(Error::usage(format!("`{text}` is not a pid"), "a number, as `ps -e` shows it"));
    };
    if !here {
        return Ok(pid);
    }
    match host.proc.thread_group(pid) {
        Some(group) if group == pid => Ok(pid),
        // Events carry processes, never threads: the filter would match nothing, silently.
        Some(group) => Err(Error::failed(
            format!("{pid} is a thread of process {group}"),
            format!("watch the process: `-p {group}`"),
        )),
        None => Err(Error::failed(
            format!("no process with pid {pid}"),
            "`ps -e` lists them; in a container, pids are those of the container",
        )),
    }
}

/// Inode of a network namespace, from an inode, a path, `pid:PID` or a name that `ip netns` knows; unless it is
/// one from `here`, only an inode has a meaning.
pub(super) fn netns(host: &Host, here: bool, text: &str) -> Result<u32, Error> {
    if text.is_empty() {
        return Err(Error::usage("no network namespace in `--netns`", "an inode, a path, pid:PID or a name"));
    }
    if !here && values::whole(text).is_none() {
        return Err(Error::usage(
            format!("`{text}` means nothing in a capture"),
            "name the namespace by its inode, as events do in `netns`",
        ));
    }
    if let Some(process) = text.strip_prefix("pid:") {
        let process = pid(host, here, process)?;
        return host.proc.netns(process).ok_or_else(|| {
            Error::failed(
                format!("the network namespace of process {process} may not be read"),
                "run as root, or with CAP_SYS_PTRACE",
            )
        });
    }
    if let Some(inode) = values::whole(text) {
        return u32::try_from(inode).ok().filter(|inode| *inode > 0).ok_or_else(|| {
            Error::usage(
                format!("`{text}` is not the inode of a network namespace"),
                "`lsns -t net` lists them",
            )
        });
    }
    if text.contains('/') {
        return namespace_at(Path::new(text)).ok_or_else(|| {
            Error::failed(
                format!("no network namespace at {text}"),
                "a path as /run/netns/NAME or /proc/PID/ns/net",
            )
        });
    }
    let found = host.netns_dirs().into_iter().find_map(|dir| namespace_at(&dir.join(text)));
    found.ok_or_else(|| {
        Error::failed(
            format!("no network namespace named `{text}`"),
            "`ip netns` lists names, `lsns -t net` inodes",
        )
    })
}

/// A file that is a namespace says so in its file system; only tests have plain files there.
fn namespace_at(path: &Path) -> Option<u32> {
    const NSFS: u64 = 0x6e73_6673;
    let magic = rustix::fs::statfs(path).ok()?.f_type;
    if !cfg!(test) && u64::try_from(magic).ok()? != NSFS {
        return None;
    }
    // Every kind of namespace lives in this file system; the link in `/proc` tells which kind it is.
    if let Ok(link) = fs::read_link(path)
        && let Some((kind, _)) = link.to_str()?.split_once(":[")
        && kind != "net"
    {
        return None;
    }
    u32::try_from(fs::metadata(path).ok()?.ino()).ok()
}

/// Id of a cgroup v2, from the id or a path: below the mount, or as the file system has it.
pub(super) fn cgroup(host: &Host, text: &str) -> Result<u64, Error> {
    if let Some(id) = values::whole(text).filter(|id| *id > 0) {
        return Ok(id);
    }
    if text.is_empty() {
        return Err(Error::usage("no cgroup in `--cgroup`", "a path, as `systemd-cgls` shows it, or an id"));
    }
    let Some(mount) = &host.cgroup else {
        return Err(Error::failed(
            format!("cgroup {text} cannot be looked up: cgroup v2 is not mounted"),
            "mount -t cgroup2 none /sys/fs/cgroup, or filter by -p PID or --netns",
        ));
    };
    let below = mount.join(text.trim_start_matches('/'));
    let candidates: [PathBuf; 2] = [PathBuf::from(text), below];
    let is_cgroup = |path: &&PathBuf| path.starts_with(mount) && path.join("cgroup.procs").exists();
    let found = candidates.iter().find(is_cgroup).and_then(|path| fs::metadata(path).ok());
    found.map(|metadata| metadata.ino()).ok_or_else(|| {
        Error::failed(
            format!("no cgroup {text} below {}", mount.display()),
            "`systemd-cgls` or /proc/PID/cgroup show the paths",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Exit;
    use crate::host::fake::{Process, Tree};

    #[test]
    fn pids_must_be_processes() {
        let tree = Tree::new();
        tree.process(42, &Process::PLAIN);
        tree.write("proc/43/status", "Name:\tworker\nTgid:\t42\nPid:\t43\n");
        let host = tree.host();
        assert_eq!(pid(&host, true, "42"), Ok(42));
        for (text, what, hint, exit) in [
            ("44", "no process with pid 44", "ps -e", Exit::Failed),
            ("43", "43 is a thread of process 42", "-p 42", Exit::Failed),
            ("0", "not a pid", "ps -e", Exit::Usage),
            ("nginx", "not a pid", "ps -e", Exit::Usage),
            ("99999999999", "not a pid", "ps -e", Exit::Usage),
        ] {
            let error = pid(&host, true, text).unwrap_err();
            assert!(error.what.contains(what) && error.hint.contains(hint), "{text}: {error}");
            assert_eq!(error.exit, exit, "{text}");
        }
    }

    #[test]
    fn namespaces_have_four_names() {
        let tree = Tree::new();
        tree.process(42, &Process { netns: 77, ..Process::PLAIN });
        tree.write("run/netns/blue", "");
        let host = tree.host();
        let path = tree.root.join("run/netns/blue");
        let blue = u32::try_from(fs::metadata(&path).unwrap().ino()).unwrap();
        assert_eq!(netns(&host, true, "4026531840"), Ok(4_026_531_840));
        assert_eq!(netns(&host, true, "pid:42"), Ok(77));
        assert_eq!(netns(&host, true, "blue"), Ok(blue));
        assert_eq!(netns(&host, true, path.to_str().unwrap()), Ok(blue));
        for text in ["", "green", "pid:43", "pid:x", "0", "99999999999", "/no/such/file", "/proc/self/ns/mnt"]
        {
            assert!(netns(&host, true, text).is_err(), "{text}");
        }
        let live = Host::live();
        let own = live.proc.netns(live.proc.own_pid());
        assert_eq!(netns(&live, true, "/proc/self/ns/net").ok(), own);
    }

    #[test]
    fn a_capture_knows_numbers_only() {
        let host = Tree::new().host();
        assert_eq!(pid(&host, false, "44"), Ok(44));
        assert_eq!(netns(&host, false, "77"), Ok(77));
        for text in ["blue", "pid:44", "/run/netns/blue"] {
            assert!(netns(&host, false, text).unwrap_err().hint.contains("inode"), "{text}");
        }
    }

    #[test]
    fn cgroups_are_found_below_the_mount_and_by_full_path() {
        let tree = Tree::new();
        tree.write("sys/fs/cgroup/cgroup.controllers", "");
        tree.write("sys/fs/cgroup/a.slice/cgroup.procs", "");
        let host = tree.host();
        let full = tree.root.join("sys/fs/cgroup/a.slice");
        let inode = fs::metadata(&full).unwrap().ino();
        for text in ["/a.slice", "a.slice", "a.slice/", full.to_str().unwrap(), &inode.to_string()] {
            assert_eq!(cgroup(&host, text), Ok(inode), "{text}");
        }
        for text in ["", "/b.slice", "/tmp", "0"] {
            assert!(cgroup(&host, text).is_err(), "{text}");
        }
        assert!(cgroup(&Tree::new().host(), "/a.slice").unwrap_err().what.contains("not mounted"));
    }
}
