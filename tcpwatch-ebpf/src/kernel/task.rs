//! The task on this CPU. Whether it means anything is for the caller to know.

use super::config::config;
use super::field::{Structure, Typed, field};
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_task, bpf_get_current_task_btf,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid};
use tcpwatch_common::owner::Owner;
use tcpwatch_common::record::Task;

/// `PF_KTHREAD`: a kernel thread owns no socket that a process made.
const PF_KTHREAD: u32 = 0x0020_0000;
/// `PF_EXITING`: the process is ending, by itself or by a signal.
const PF_EXITING: u32 = 0x4;
/// Depth to which pid namespaces nest (`MAX_PID_NS_LEVEL` is 32; nobody has seen more than a few).
const PID_LEVELS: u32 = 8;

/// Thread group id in the initial pid namespace.
#[inline(always)]
fn root_pid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// The `struct task_struct` on this CPU.
#[derive(Clone, Copy)]
pub struct Current<S>(S);

impl Current<u64> {
    #[inline(always)]
    pub fn by_address() -> Self {
        // SAFETY: the helper has no preconditions.
        Self(unsafe { bpf_get_current_task() })
    }
}

impl Current<Typed> {
    /// Only where the configuration says that the kernel has the helper.
    #[inline(always)]
    pub fn typed() -> Self {
        // SAFETY: the helper has no preconditions, and the verifier knows what it returns.
        Self(unsafe { Typed::new(bpf_get_current_task_btf() as u64) })
    }
}

impl<S: Structure> Current<S> {
    /// Thread group id in the initial pid namespace.
    #[inline(always)]
    pub fn root_pid(task: impl FnOnce() -> Self) -> u32 {
        if S::CALLS { root_pid() } else { field!(task().0, task_tgid) }
    }

    #[inline(always)]
    pub fn is_exiting(self) -> bool {
        self.flags() & PF_EXITING != 0
    }

    #[inline(always)]
    fn flags(self) -> u32 {
        field!(self.0, task_flags)
    }

    /// Address of the thread group's leader.
    #[inline(always)]
    fn leader(self) -> u64 {
        field!(self.0.address(), task_group_leader)
    }

    /// When the thread group's leader started.
    #[inline(always)]
    fn started(self, root_pid: u32) -> u64 {
        if !S::CALLS {
            let pid: u32 = field!(self.0, task_pid);
            if pid == root_pid {
                // It leads, and is at hand.
                return field!(self.0, task_start_boottime);
            }
        }
        field!(self.leader(), task_start_boottime)
    }
}

/// Thread group id in tcpwatch's own pid namespace; 0 for a process that is not visible from there.
#[inline(always)]
fn pid(root_pid: u32, leader: impl FnOnce() -> u64) -> u32 {
    let namespace = config!(pidns);
    if namespace == 0 {
        return root_pid;
    }
    let pid: u64 = field!(leader(), task_thread_pid);
    let level: u32 = field!(pid, pid_level);
    let numbers = pid + u64::from(config!(offsets.pid_numbers));
    let mut i = 0;
    while i < PID_LEVELS {
        if i > level {
            break;
        }
        // `struct upid { int nr; struct pid_namespace *ns; }`
        let number = numbers + u64::from(i) * 16;
        let ns: u64 = field!(number, upid_ns);
        let inum: u32 = field!(ns, pid_namespace_inum);
        if inum == namespace {
            return field!(number, upid_nr);
        }
        i += 1;
    }
    0
}

#[inline(always)]
fn comm(into: *mut [u8; 16]) {
    // SAFETY: 16 writable bytes; on failure the helper zeroes them.
    unsafe { bpf_get_current_comm(into.cast(), 16) };
}

/// Writes the task into a record.
///
/// # Safety
/// `into` must be writable.
#[inline(always)]
pub unsafe fn describe(into: *mut Task) {
    // SAFETY: by contract.
    unsafe {
        (*into).pid = pid(root_pid(), || Current::by_address().leader());
        (*into).pad = 0;
        comm(&raw mut (*into).comm);
    }
}

/// Writes the task, whose [`root_pid`] is known, into a table as the owner of a socket; false for a kernel thread, which owns none.
///
/// # Safety
/// `into` must be writable.
#[inline(always)]
pub unsafe fn own(task: Current<impl Structure>, root_pid: u32, into: *mut Owner, how: u8) -> bool {
    if task.flags() & PF_KTHREAD != 0 {
        return false;
    }
    // SAFETY: by contract; the helpers have no preconditions.
    unsafe {
        (*into).start_ns = task.started(root_pid);
        (*into).cgroup = bpf_get_current_cgroup_id();
        (*into).pid = pid(root_pid, || task.leader());
        (*into).uid = bpf_get_current_uid_gid() as u32;
        (*into).root_pid = root_pid;
        (*into).pad = 0;
        (*into).pad2 = 0;
        comm(&raw mut (*into).comm);
        (*into).how = how;
    }
    true
}
