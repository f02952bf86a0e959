//! The system calls that make a host odd: namespaces, mounts, privileges, the kernel's list of BPF objects.
//!
//! The second part of this crate's `unsafe`; everything runs in a process with one thread unless it says otherwise.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

fn check(value: libc::c_int) -> io::Result<libc::c_int> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// A mount namespace of our own, from which nothing comes back to the host.
pub(crate) fn own_mounts() -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    mount(None, "/", None, libc::MS_REC | libc::MS_PRIVATE)
}

/// The next child is process 1 of a pid namespace of its own.
pub(super) fn own_pids() -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::unshare(libc::CLONE_NEWPID) }).map(drop)
}

/// Children of the calling thread are born in the pid namespace that `fd` stands for.
pub(super) fn enter_pids(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::setns(fd.as_raw_fd(), libc::CLONE_NEWPID) }).map(drop)
}

fn mount(source: Option<&str>, target: &str, kind: Option<&str>, flags: libc::c_ulong) -> io::Result<()> {
    let text = |text: Option<&str>| text.map(CString::new).transpose();
    let (source, target, kind) = (text(source)?, CString::new(target)?, text(kind)?);
    let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    // SAFETY: all strings end in zero and live through the call; a null pointer stands for "none".
    check(unsafe { libc::mount(pointer(&source), target.as_ptr(), pointer(&kind), flags, ptr::null()) })
        .map(drop)
}

pub(crate) fn bind(source: &str, target: &str) -> io::Result<()> {
    mount(Some(source), target, None, libc::MS_BIND)
}

pub(crate) fn mount_new(kind: &str, target: &str) -> io::Result<()> {
    mount(Some("none"), target, Some(kind), 0)
}

pub(super) fn unmount(target: &str) -> io::Result<()> {
    let target = CString::new(target)?;
    // SAFETY: the string ends in zero and lives through the call.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// What the next program of this process may have at most. Root gets all of it, so this alone decides.
pub(super) fn drop_capability(number: u32) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) }).map(drop)
}

/// Whether the kernel knows a capability of this number and it was not dropped.
pub(super) fn may_have_capability(number: u32) -> bool {
    // SAFETY: no pointers are passed.
    unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) == 1 }
}

/// Becomes an ordinary user for good.
pub(super) fn become_user(id: u32) -> io::Result<()> {
    // SAFETY: no groups are passed, so no pointer is read.
    check(unsafe { libc::setgroups(0, ptr::null()) })?;
    // SAFETY: no pointers are passed.
    check(unsafe { libc::setresgid(id, id, id) })?;
    // SAFETY: no pointers are passed.
    check(unsafe { libc::setresuid(id, id, id) }).map(drop)
}

/// Ends with the process that started this one.
pub(super) fn die_with_parent() -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }).map(drop)
}

/// A signal that does nothing here; handlers do not pass to the next program, this does, so the child undoes it.
pub(super) fn ignore(signal: i32, ignored: bool) {
    let action = if ignored { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: both are valid dispositions.
    unsafe { libc::signal(signal, action) };
}

/// Becomes the program behind an open file: a user who may not walk the path to it can still be it.
pub(super) fn become_program(program: &OwnedFd, args: &[String]) -> io::Result<()> {
    let args = args.iter().map(|arg| CString::new(arg.as_str())).collect::<Result<Vec<_>, _>>()?;
    let pairs = std::env::vars().map(|(name, value)| CString::new(format!("{name}={value}")));
    let env = pairs.collect::<Result<Vec<_>, _>>()?;
    let pointers =
        |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>();
    let (args_at, env_at) = (pointers(&args), pointers(&env));
    // SAFETY: both arrays end in null, their strings in zero, and all of it lives through the call.
    check(unsafe { libc::fexecve(program.as_raw_fd(), args_at.as_ptr(), env_at.as_ptr()) }).map(drop)
}

/// Waits for a child to end; gives what a shell would call its status.
pub(super) fn wait(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` has room for the result.
        match check(unsafe { libc::waitpid(pid, &raw mut status, 0) }) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) })
}

/// A pipe: the end to read, the end to write. Both close on exec.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for the two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: both were just made and nobody else has them.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// What the kernel can be asked to list, with the command of `bpf(2)` that does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Object {
    Program = 11,
    Map = 12,
    Link = 31,
}

/// The first BPF object of a kind whose id is higher; `None` when there is none.
pub(super) fn next_object(kind: Object, id: u32) -> io::Result<Option<u32>> {
    #[repr(C, align(8))]
    struct Attr {
        start: u32,
        next: u32,
        flags: u32,
        pad: u32,
    }
    let mut attr = Attr { start: id, next: 0, flags: 0, pad: 0 };
    let size = size_of::<Attr>();
    // SAFETY: `attr` is what these commands read and write, `size` is its size, and it lives through the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, kind as libc::c_int, &raw mut attr, size) };
    if answer == 0 {
        return Ok(Some(attr.next));
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOENT) { Ok(None) } else { Err(error) }
}
