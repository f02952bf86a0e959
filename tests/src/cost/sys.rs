//! The system calls of a debugger that stands beside one thread: it stops at each system call, looks, and goes on.
//!
//! The fourth part of this crate's `unsafe`.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

fn check(value: libc::c_long) -> io::Result<libc::c_long> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// The program of this command stops before its first instruction and is debugged by the thread that starts it.
pub(super) fn debugged(command: &mut Command) {
    let asked = || {
        // SAFETY: the request takes numbers only.
        check(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }).map(drop)
    };
    // SAFETY: between fork and exec nothing happens but one system call.
    unsafe { command.pre_exec(asked) };
}

/// Why a program stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// At the start of a system call, or at its end.
    Call,
    /// Something that is no signal to it: the one that comes with its first instruction.
    Began,
    /// A signal, which it is to get.
    Signal(i32),
    /// It ended, with what a shell would call its status.
    End(i32),
}

impl Stop {
    fn of(status: i32) -> Self {
        /// What `PTRACE_O_TRACESYSGOOD` adds, so that a system call is told from a signal.
        const CALL: i32 = libc::SIGTRAP | 0x80;
        if libc::WIFEXITED(status) {
            Self::End(libc::WEXITSTATUS(status))
        } else if libc::WIFSIGNALED(status) {
            Self::End(128 + libc::WTERMSIG(status))
        } else {
            match libc::WSTOPSIG(status) {
                CALL => Self::Call,
                libc::SIGTRAP => Self::Began,
                signal => Self::Signal(signal),
            }
        }
    }
}

/// Waits for the next stop of a debugged program, or for its end.
pub(super) fn wait(pid: i32) -> io::Result<Stop> {
    let mut status = 0;
    loop {
        // SAFETY: `status` has room for the result.
        match check(unsafe { libc::waitpid(pid, &raw mut status, 0) }.into()) {
            Ok(_) => return Ok(Stop::of(status)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// From its first stop on: system calls are told from signals, and it does not outlive us.
pub(super) fn hold(pid: i32) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    // SAFETY: the request takes numbers only.
    check(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, libc::c_long::from(options)) }).map(drop)
}

/// Lets it go on to the start or the end of its next system call; `signal` reaches it, 0: none.
pub(super) fn go_on(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: the request takes numbers only.
    check(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, libc::c_long::from(signal)) }).map(drop)
}

/// The system call at which a program stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Start { number: u64, args: [u64; 6], stack: u64 },
    End { value: i64 },
}

/// The same on every architecture, since 5.3.
pub(super) fn call(pid: i32) -> io::Result<Option<Call>> {
    // `struct ptrace_syscall_info`: what it is, two registers, then what belongs to it.
    let mut info = [0_u64; 11];
    let size = size_of_val(&info);
    // SAFETY: the kernel writes at most `size` bytes to `info`, which has as many and lives through the call.
    check(unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, &raw mut info) })?;
    let [what, _, stack, first, args @ ..] = info;
    Ok(match what.to_ne_bytes()[0] {
        libc::PTRACE_SYSCALL_INFO_ENTRY => {
            let [a, b, c, d, e, f, _] = args;
            Some(Call::Start { number: first, args: [a, b, c, d, e, f], stack })
        }
        libc::PTRACE_SYSCALL_INFO_EXIT => Some(Call::End { value: first.cast_signed() }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn a_program_is_followed_from_its_first_call_to_its_end() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exit 7"]).stdin(Stdio::null());
        debugged(&mut command);
        let pid = command.spawn().unwrap().id() as i32;
        assert_eq!(wait(pid).unwrap(), Stop::Began);
        hold(pid).unwrap();
        let mut calls = Vec::new();
        loop {
            go_on(pid, 0).unwrap();
            match wait(pid).unwrap() {
                Stop::Call => calls.push(call(pid).unwrap().unwrap()),
                Stop::End(status) => break assert_eq!(status, 7),
                other => panic!("{other:?}"),
            }
        }
        let last = calls.last().unwrap();
        let ended = libc::SYS_exit_group as u64;
        assert!(matches!(last, Call::Start { number, args: [7, ..], .. } if *number == ended), "{last:?}");
        assert!(calls.iter().any(|call| matches!(call, Call::End { value } if *value >= 0)));
    }
}
