//! How many descriptors a process has open, and how many it may have: a process at its limit cannot `accept()` any more.

use super::proc::Proc;
use std::fs;
use std::path::Path;

/// Device number of a file system that is procfs (`include/uapi/linux/magic.h`).
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// The descriptors of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    pub used: u32,
    /// The soft limit, `u64::MAX` without one. A process that lowered it may have more open than that.
    pub limit: u64,
}

impl Descriptors {
    /// `None`: the process is gone, or on a kernel before 6.2 its descriptors may not be counted.
    pub fn of(proc: &Proc, pid: u32) -> Option<Self> {
        let limits = fs::read_to_string(proc.path(pid, "limits")).ok()?;
        Some(Self { used: used(&proc.path(pid, "fd"))?, limit: limit(&limits)? })
    }
}

/// Since 6.2 the size of the directory is the number, to be had without reading it and without privilege.
fn used(dir: &Path) -> Option<u32> {
    let size = fs::metadata(dir).ok()?.len();
    let counts =
        size > 0 && rustix::fs::statfs(dir).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(PROC_SUPER_MAGIC));
    let used = if counts { size } else { fs::read_dir(dir).ok()?.count() as u64 };
    u32::try_from(used).ok()
}

/// The first number after the name; the hard limit comes next.
fn limit(limits: &str) -> Option<u64> {
    let soft =
        limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;
    use crate::host::fake::{Process, Tree};

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
        Max processes             7823                 7823                 processes \n\
        Max open files            1024                 524288               files     \n";

    #[test]
    fn descriptors_are_counted_where_the_directory_has_no_count() {
        let tree = Tree::new();
        tree.process(5, &Process { files: &["socket:[1]", "/dev/null", "socket:[2]"], ..Process::PLAIN });
        tree.write("proc/5/limits", LIMITS);
        assert_eq!(Descriptors::of(&tree.host().proc, 5), Some(Descriptors { used: 3, limit: 1024 }));
        assert_eq!(Descriptors::of(&tree.host().proc, 6), None);
    }

    #[test]
    fn a_limit_may_be_none() {
        assert_eq!(limit(LIMITS), Some(1024));
        assert_eq!(
            limit("Max open files            unlimited            unlimited   files\n"),
            Some(u64::MAX)
        );
        assert_eq!(limit("Max open files\n"), None);
        assert_eq!(limit(""), None);
    }

    #[test]
    fn the_own_descriptors_grow_with_each_file() {
        let proc = Host::live().proc;
        let before = Descriptors::of(&proc, proc.own_pid()).unwrap();
        // Other tests open and close files meanwhile, but not two hundred.
        let files: Vec<_> = (0..200).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let with = Descriptors::of(&proc, proc.own_pid()).unwrap();
        assert!(with.used >= before.used + 100, "{before:?} and then {with:?}");
        assert!(u64::from(with.used) <= with.limit);
        drop(files);
    }
}
