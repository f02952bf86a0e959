//! Control groups: from the id that the kernel gives to a path, from a path to the container.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A miss walks the tree again, but no more often than this: ids of cgroups that are gone miss every time.
const PAUSE: Duration = Duration::from_secs(1);

/// Paths kept. Cgroups that are gone stay known until this many are; a full host has some thousands alive.
const CAPACITY: usize = 16_384;

/// Where cgroup v2 is mounted below `/sys/fs/cgroup`: there itself, in `unified` on a hybrid host, or nowhere.
pub fn mount(root: &Path) -> Option<PathBuf> {
    // Only a v2 tree has this file at its top.
    let is_v2 = |dir: &PathBuf| dir.join("cgroup.controllers").exists();
    [root.to_owned(), root.join("unified")].into_iter().find(is_v2)
}

/// From a cgroup v2 id (the inode of the directory) to the path below the mount.
#[derive(Debug)]
pub struct Cgroups {
    mount: Option<PathBuf>,
    paths: HashMap<u64, String>,
    walked: Option<Instant>,
}

impl Cgroups {
    pub fn new(mount: Option<PathBuf>) -> Self {
        Self { mount, paths: HashMap::new(), walked: None }
    }

    /// The path of the cgroup, `/` for the root. `now` decides whether a miss may look again.
    pub fn path(&mut self, id: u64, now: Instant) -> Option<&str> {
        if id == 0 {
            return None;
        }
        let rested = self.walked.is_none_or(|walked| now.saturating_duration_since(walked) >= PAUSE);
        if !self.paths.contains_key(&id) && rested {
            self.walk(now);
        }
        self.paths.get(&id).map(String::as_str)
    }

    fn walk(&mut self, now: Instant) {
        self.walked = Some(now);
        let Some(mount) = &self.mount else { return };
        if self.paths.len() >= CAPACITY {
            self.paths.clear();
        }
        if let Ok(metadata) = fs::metadata(mount) {
            self.paths.insert(metadata.ino(), "/".to_owned());
        }
        // The inode comes with the directory entry, so that a walk costs no call per cgroup but the one that lists it.
        let mut open = vec![(mount.clone(), String::new())];
        while let Some((dir, path)) = open.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                let path = format!("{path}/{}", entry.file_name().to_string_lossy());
                if self.paths.len() < CAPACITY {
                    self.paths.insert(entry.ino(), path.clone());
                }
                open.push((entry.path(), path));
            }
        }
    }
}

/// The cgroup v2 id of a process from the text of its `/proc/PID/cgroup`, 0 where it has none.
pub fn id(mount: Option<&Path>, text: &str) -> u64 {
    let path = v2(text).filter(|path| !outside(path));
    let (Some(mount), Some(path)) = (mount, path) else { return 0 };
    fs::metadata(mount.join(path.trim_start_matches('/'))).map_or(0, |metadata| metadata.ino())
}

/// The path that says most about a process, from the text of its `/proc/PID/cgroup`: the v2 path, or on hosts where v2 is
/// mounted but the containers live in the v1 trees, the path there.
pub fn own_path(text: &str) -> Option<&str> {
    let v1 = || ["name=systemd", "memory", "pids", "cpu"].into_iter().find_map(|name| v1(text, name));
    match v2(text) {
        Some("/") => v1().or(Some("/")),
        Some(path) => Some(path),
        None => v1().or_else(|| text.lines().next()?.splitn(3, ':').nth(2)),
    }
}

fn v2(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(undeleted)
}

/// Path in a v1 hierarchy, if it is more than the root.
fn v1<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut rows = text.lines().map(|line| line.splitn(3, ':'));
    rows.find_map(|mut row| {
        let _hierarchy = row.next()?;
        row.next()?.split(',').any(|controller| controller == name).then_some(())?;
        row.next().map(undeleted).filter(|path| *path != "/")
    })
}

/// The kernel marks a cgroup that was removed under its last process.
fn undeleted(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path)
}

/// Above the root of tcpwatch's cgroup namespace: the path leads nowhere below the mount.
fn outside(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// The container a cgroup path belongs to: the id for docker, containerd, CRI-O, podman and Kubernetes, the name for LXC
/// and systemd-nspawn. `None` for services, sessions and the host itself.
pub fn container(path: &str) -> Option<&str> {
    // Containers may nest, and their own services live below them: the innermost one is what the process is in.
    let mut found = None;
    let mut parent = "";
    let mut in_pod = false;
    for part in path.split('/') {
        in_pod |= part.starts_with("kubepods");
        found = named(part, parent, in_pod).or(found);
        parent = part;
    }
    found
}

fn named<'a>(part: &'a str, parent: &str, in_pod: bool) -> Option<&'a str> {
    if let Some(scope) = part.strip_suffix(".scope") {
        // `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`, `libpod-ID.scope`. The id has no dash; a
        // conmon's own scope (`crio-conmon-ID`) is the runtime's, not the container's.
        if let Some((runtime, id)) = scope.rsplit_once('-')
            && is_id(id)
            && !runtime.ends_with("conmon")
        {
            return Some(id);
        }
        if let Some(machine) = scope.strip_prefix("machine-") {
            return Some(machine);
        }
    }
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some(name);
    }
    if parent == "lxc" || parent == "lxc.payload" {
        return Some(part);
    }
    // containerd on cgroupfs with a namespace in front: `/system.slice:docker:ID`, `kubepods-….slice:cri-containerd:ID`.
    if let Some((_, id)) = part.rsplit_once(':')
        && is_id(id)
    {
        return Some(id);
    }
    // cgroupfs driver: `/docker/ID`, `/kubepods/burstable/podUID/ID`, `/libpod_parent/libpod-ID`.
    if is_id(part)
        && (in_pod || matches!(parent, "docker" | "containerd" | "podman" | "default" | "k8s.io" | "moby"))
    {
        return Some(part);
    }
    part.strip_prefix("libpod-").filter(|id| is_id(id))
}

/// The uid of the Kubernetes pod that a cgroup path belongs to, as the API has it.
pub fn pod(path: &str) -> Option<String> {
    // cgroupfs driver: `/kubepods/burstable/podUID/ID`; systemd driver: `kubepods-burstable-podU_I_D.slice`, where a dash would
    // name a parent. A pod that a kubelet runs from its own files has a uid of 32 hex digits without dashes.
    let is_uid = |uid: &str| {
        let digits = uid.bytes().filter(u8::is_ascii_hexdigit).count();
        let dashes = uid.bytes().filter(|byte| *byte == b'-').count();
        digits == 32 && digits + dashes == uid.len() && matches!(dashes, 0 | 4)
    };
    path.split(['/', ':']).rev().find_map(|part| {
        let part = part.strip_suffix(".slice").unwrap_or(part);
        let uid = match part.strip_prefix("pod") {
            Some(uid) => uid,
            None => part.split_once("kubepods")?.1.rsplit_once("-pod")?.1,
        };
        let uid = uid.replace('_', "-");
        is_uid(&uid).then_some(uid)
    })
}

/// Container ids are 64 hex digits; some runtimes shorten to 32.
fn is_id(text: &str) -> bool {
    matches!(text.len(), 32 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Tree;

    const ID: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904b825dc642cb6eb9a060e54bf";

    #[test]
    fn containers_are_found_in_the_paths_of_every_runtime() {
        let pod = "kubepods-burstable-pod1c0ff33d_0000_4000_8000_000000000001.slice";
        for (path, id) in [
            (format!("/system.slice/docker-{ID}.scope"), Some(ID)),
            (format!("/docker/{ID}"), Some(ID)),
            (format!("/docker/{ID}/init.scope"), Some(ID)),
            (format!("/system.slice/docker-{ID}.scope/system.slice/nginx.service"), Some(ID)),
            (format!("/kubepods.slice/kubepods-burstable.slice/{pod}/cri-containerd-{ID}.scope"), Some(ID)),
            (format!("/kubepods.slice/kubepods-burstable.slice/{pod}/crio-{ID}.scope"), Some(ID)),
            (format!("/kubepods.slice/{pod}/crio-conmon-{ID}.scope"), None),
            (format!("/kubepods/burstable/pod1c0ff33d-0000-4000-8000-000000000001/{ID}"), Some(ID)),
            (format!("/system.slice/containerd.service/{pod}:cri-containerd:{ID}"), Some(ID)),
            (
                format!(
                    "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"
                ),
                Some(ID),
            ),
            (format!("/machine.slice/libpod-{ID}.scope"), Some(ID)),
            (format!("/machine.slice/libpod-conmon-{ID}.scope"), None),
            (format!("/libpod_parent/libpod-{ID}"), Some(ID)),
            (format!("/default/{ID}"), Some(ID)),
            ("/lxc.payload.web1/system.slice/nginx.service".into(), Some("web1")),
            ("/lxc/web1/init.scope".into(), Some("web1")),
            ("/machine.slice/machine-build.scope/payload".into(), Some("build")),
            // A container inside a container: the inner one.
            (format!("/lxc.payload.web1/docker/{ID}"), Some(ID)),
            ("/".into(), None),
            ("/system.slice/nginx.service".into(), None),
            ("/user.slice/user-1000.slice/session-3.scope".into(), None),
            ("/system.slice/docker.service".into(), None),
            (format!("/user.slice/{ID}"), None),
            ("/system.slice/docker-0123.scope".into(), None),
            ("/init.scope".into(), None),
            ("".into(), None),
        ] {
            assert_eq!(container(&path), id, "{path}");
        }
    }

    #[test]
    fn a_pod_is_found_with_either_driver() {
        let uid = "1c0ff33d-0000-4000-8000-000000000001";
        let slice = "kubepods-burstable-pod1c0ff33d_0000_4000_8000_000000000001.slice";
        for (path, expected) in [
            (
                format!("/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-{ID}.scope"),
                Some(uid),
            ),
            (
                format!("/kubepods.slice/kubepods-pod{}.slice/crio-{ID}.scope", uid.replace('-', "_")),
                Some(uid),
            ),
            (format!("/kubelet-kubepods-pod{}.slice/{ID}", uid.replace('-', "_")), Some(uid)),
            (format!("/kubepods/burstable/pod{uid}/{ID}"), Some(uid)),
            (format!("/kubepods/pod{}/{ID}", &ID[..32]), Some(&ID[..32])),
            (format!("/system.slice/containerd.service/{slice}:cri-containerd:{ID}"), Some(uid)),
            (format!("/system.slice/docker-{ID}.scope"), None),
            ("/machine.slice/podman-1.scope".into(), None),
            ("/kubepods/podx/y".into(), None),
            ("".into(), None),
        ] {
            assert_eq!(pod(&path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn the_path_comes_from_the_hierarchy_that_says_most() {
        for (text, path) in [
            ("0::/system.slice/nginx.service\n", Some("/system.slice/nginx.service")),
            ("0::/\n", Some("/")),
            ("4:memory:/docker/abc\n1:name=systemd:/\n0::/\n", Some("/docker/abc")),
            ("4:memory:/x\n1:name=systemd:/docker/abc\n", Some("/docker/abc")),
            ("3:cpu,cpuacct:/a:b\n", Some("/a:b")),
            ("3:freezer:/z\n", Some("/z")),
            ("0::/gone.service (deleted)\n", Some("/gone.service")),
            ("", None),
        ] {
            assert_eq!(own_path(text), path, "{text:?}");
        }
    }

    #[test]
    fn ids_become_paths_and_a_miss_does_not_walk_at_once() {
        let tree = Tree::new();
        tree.write("sys/fs/cgroup/cgroup.controllers", "");
        tree.write("sys/fs/cgroup/system.slice/a.service/cgroup.procs", "");
        let mount = tree.root.join("sys/fs/cgroup");
        let mut cgroups = Cgroups::new(tree.host().cgroup);
        let inode = |path: &str| fs::metadata(mount.join(path)).unwrap().ino();
        let start = Instant::now();
        assert_eq!(cgroups.path(inode("system.slice/a.service"), start), Some("/system.slice/a.service"));
        assert_eq!(cgroups.path(inode(""), start), Some("/"));

        tree.write("sys/fs/cgroup/new.slice/cgroup.procs", "");
        let new = inode("new.slice");
        assert_eq!(cgroups.path(new, start + PAUSE / 2), None, "looked again too soon");
        assert_eq!(cgroups.path(new, start + PAUSE), Some("/new.slice"));
        tree.remove("sys/fs/cgroup/new.slice");
        assert_eq!(cgroups.path(1, start + 3 * PAUSE), None);
        assert_eq!(cgroups.path(new, start + 3 * PAUSE), Some("/new.slice"), "what is gone stays known");
        assert_eq!(cgroups.path(0, start), None);
    }

    #[test]
    fn an_id_is_the_inode_of_the_directory() {
        let tree = Tree::new();
        tree.write("sys/fs/cgroup/unified/cgroup.controllers", "");
        tree.write("sys/fs/cgroup/unified/a.slice/cgroup.procs", "");
        let mount = tree.host().cgroup;
        assert_eq!(mount, Some(tree.root.join("sys/fs/cgroup/unified")), "a hybrid host");
        let inode = fs::metadata(tree.root.join("sys/fs/cgroup/unified/a.slice")).unwrap().ino();
        assert_eq!(id(mount.as_deref(), "0::/a.slice\n"), inode);
        assert_eq!(id(mount.as_deref(), "0::/../b.slice\n"), 0, "above the cgroup namespace");
        assert_eq!(id(mount.as_deref(), "1:memory:/a.slice\n"), 0);
        assert_eq!(id(None, "0::/a.slice\n"), 0);
    }
}
