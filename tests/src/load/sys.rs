//! The system calls of the load generator: cores, clocks, limits, and BPF programs by their numbers.
//!
//! The third part of this crate's `unsafe`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

fn check(value: libc::c_int) -> io::Result<libc::c_int> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Keeps the calling thread, and what it starts, on one core.
pub(super) fn pin(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: all-zero bytes are an empty set, and `core` lies within it.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        set
    };
    // SAFETY: the set lives through the call and its size is its type's.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) }).map(drop)
}

/// What this process spent on a CPU so far, user and system, all threads, in nanoseconds. Work that the kernel does in
/// its name right after a packet is in it; `getrusage` would round it.
pub(super) fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` has room for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Lets this process have as many descriptors as it may, and says how many those are.
pub(super) fn most_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for the result.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` lives through the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_max)
}

/// Ends with whoever started us, so that no tool outlives a crash of the harness.
pub(super) fn interrupt_with_parent() -> io::Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT) }).map(drop)
}

/// Commands of `bpf(2)`.
#[derive(Clone, Copy)]
enum Command {
    Load = 5,
    ProgramById = 13,
    Info = 15,
    OpenRawTracepoint = 17,
    EnableStats = 32,
}

/// A `union bpf_attr` as far as the commands here read it: 128 bytes, zero where nothing is said.
#[repr(C, align(8))]
struct Attr([u8; 128]);

impl Attr {
    fn new() -> Self {
        Self([0; 128])
    }

    fn u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn pointer<T>(mut self, at: usize, value: *const T) -> Self {
        self.0[at..at + 8].copy_from_slice(&(value as u64).to_ne_bytes());
        self
    }

    /// # Safety
    ///
    /// Every pointer in it must be good for what the command does with it.
    unsafe fn call(mut self, command: Command) -> io::Result<RawFd> {
        // SAFETY: the attributes live through the call, their size is their type's; for the rest the caller answers.
        let answer =
            unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_int, &raw mut self.0, 128_usize) };
        check(answer as libc::c_int)
    }

    /// The same for commands that make a descriptor.
    ///
    /// # Safety
    ///
    /// As above.
    unsafe fn open(self, command: Command) -> io::Result<OwnedFd> {
        // SAFETY: the caller answers for the pointers; the descriptor was just made and nobody else has it.
        unsafe { Ok(OwnedFd::from_raw_fd(self.call(command)?)) }
    }
}

/// The kernel takes the time of every run of a BPF program as long as the descriptor is open: nothing is left switched
/// on, however the program ends.
pub(super) fn enable_bpf_stats() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed; 0 stands for run times.
    unsafe { Attr::new().open(Command::EnableStats) }
}

/// What the kernel says of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProgramInfo {
    pub(super) name: String,
    pub(super) ns: u64,
    pub(super) runs: u64,
}

/// `None` when there is no such program any more.
pub(super) fn program_info(id: u32) -> io::Result<Option<ProgramInfo>> {
    const NAME: usize = 64;
    const RUN_TIME: usize = 192;
    const RUNS: usize = 200;
    // SAFETY: no pointers are passed.
    let fd = match unsafe { Attr::new().u32(0, id).open(Command::ProgramById) } {
        Ok(fd) => fd,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    // Zeroed: the kernel takes some fields as wishes for more, and these stay unasked.
    let mut info = [0_u64; 26];
    let size = size_of_val(&info) as u32;
    let attr = Attr::new().u32(0, fd.as_raw_fd() as u32).u32(4, size).pointer(8, &raw mut info);
    // SAFETY: the kernel writes at most `size` bytes to `info`, which has as many and lives through the call.
    unsafe { attr.call(Command::Info) }?;
    let bytes: Vec<u8> = info.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = bytes[NAME..NAME + 16].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Some(ProgramInfo {
        name: String::from_utf8_lossy(name).into_owned(),
        ns: info[RUN_TIME / 8],
        runs: info[RUNS / 8],
    }))
}

/// Attaches a program that does nothing to a tracepoint; it holds as long as both descriptors are open.
pub(super) fn empty_program(tracepoint: &str) -> io::Result<[OwnedFd; 2]> {
    const RAW_TRACEPOINT: u32 = 17;
    /// `r0 = 0; exit`: all that an empty program is, so that no compiler is needed for it.
    const NOTHING: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let mut attr = Attr::new()
        .u32(0, RAW_TRACEPOINT)
        .u32(4, NOTHING.len() as u32)
        .pointer(8, NOTHING.as_ptr())
        .pointer(16, c"GPL".as_ptr());
    for (slot, byte) in attr.0[48..63].iter_mut().zip(tracepoint.bytes()) {
        *slot = byte;
    }
    // SAFETY: the instructions are as many as said, the licence ends in zero, and both are constants.
    let program = unsafe { attr.open(Command::Load) }?;
    let name = std::ffi::CString::new(tracepoint)?;
    let attr = Attr::new().pointer(0, name.as_ptr()).u32(8, program.as_raw_fd() as u32);
    // SAFETY: the name ends in zero and lives through the call.
    let link = unsafe { attr.open(Command::OpenRawTracepoint) }?;
    Ok([program, link])
}
