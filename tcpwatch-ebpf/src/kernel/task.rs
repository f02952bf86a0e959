//! The task on this CPU. Whether it means anything is for the caller to know.

use super::config::config;
use super::field::field;
use aya_ebpf::helpers::generated::{bpf_get_current_comm, bpf_get_current_task};
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
pub fn root_pid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

#[inline(always)]
fn current() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task() }
}

#[inline(always)]
pub fn is_kernel_thread() -> bool {
    let flags: u32 = field!(current(), task_flags);
    flags & PF_KTHREAD != 0
}

#[inline(always)]
pub fn is_exiting() -> bool {
    let flags: u32 = field!(current(), task_flags);
    flags & PF_EXITING != 0
}

/// Thread group id in tcpwatch's own pid namespace; 0 for a process that is not visible from there.
#[inline(always)]
pub fn pid() -> u32 {
    let namespace = config!(pidns);
    if namespace == 0 {
        return root_pid();
    }
    let leader: u64 = field!(current(), task_group_leader);
    let pid: u64 = field!(leader, task_thread_pid);
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
        (*into).pid = pid();
        (*into).pad = 0;
        comm(&raw mut (*into).comm);
    }
}

/// Writes the task into a table as the owner of a socket.
///
/// # Safety
/// `into` must be writable.
#[inline(always)]
pub unsafe fn own(into: *mut Owner, how: u8) {
    let leader: u64 = field!(current(), task_group_leader);
    let start_ns = field!(leader, task_start_boottime);
    // SAFETY: by contract; the helpers have no preconditions.
    unsafe {
        (*into).start_ns = start_ns;
        (*into).cgroup = aya_ebpf::helpers::generated::bpf_get_current_cgroup_id();
        (*into).pid = pid();
        (*into).uid = bpf_get_current_uid_gid() as u32;
        (*into).root_pid = root_pid();
        (*into).pad = 0;
        (*into).pad2 = 0;
        comm(&raw mut (*into).comm);
        (*into).how = how;
    }
}
