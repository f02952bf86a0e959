//! Thin safe wrappers over the system calls that the standard library does not offer.
//!
//! All `unsafe` of this crate is here, in `hosts/sys.rs`, in `load/sys.rs` and in `cost/sys.rs`, so that a reader can check it in one sitting.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// What a system call returned, as a result: negative means that `errno` tells why.
fn check(value: libc::c_int) -> io::Result<libc::c_int> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

fn check_len(value: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::Error::last_os_error())
}

fn len_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

pub fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<RawFd> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })
}

/// The same, owned: closed when dropped.
pub fn socket_owned(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let fd = socket(domain, kind, protocol)?;
    // SAFETY: the descriptor was just made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Two ends of a message channel; both close on exec.
pub fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for the two descriptors.
    check(unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr())
    })?;
    // SAFETY: both were just made and nobody else has them.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

pub fn close(fd: RawFd) -> io::Result<()> {
    // SAFETY: actors keep descriptors as plain numbers; a wrong one gives EBADF.
    check(unsafe { libc::close(fd) }).map(drop)
}

pub fn dup_onto(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::dup2(from, to) }).map(drop)
}

fn encode(addr: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero bytes are a valid `sockaddr_storage`.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    match addr {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: `sockaddr_storage` is large and aligned enough for every address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            (storage, len_of::<libc::sockaddr_in>())
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            (storage, len_of::<libc::sockaddr_in6>())
        }
    }
}

/// The address as people write it: an IPv4 address mapped into IPv6 becomes plain IPv4.
fn decode(storage: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is what the kernel wrote.
            let raw = unsafe { (&raw const *storage).cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Ok(SocketAddr::new(IpAddr::V4(ip), u16::from_be(raw.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that this is what the kernel wrote.
            let raw = unsafe { (&raw const *storage).cast::<libc::sockaddr_in6>().read() };
            let ip = IpAddr::V6(Ipv6Addr::from(raw.sin6_addr.s6_addr)).to_canonical();
            Ok(SocketAddr::new(ip, u16::from_be(raw.sin6_port)))
        }
        family => Err(io::Error::other(format!("address family {family}"))),
    }
}

pub fn bind(fd: RawFd, addr: SocketAddr) -> io::Result<()> {
    let (storage, len) = encode(addr);
    // SAFETY: the address lives through the call and `len` is its true length.
    check(unsafe { libc::bind(fd, (&raw const storage).cast(), len) }).map(drop)
}

pub fn connect(fd: RawFd, addr: SocketAddr) -> io::Result<()> {
    let (storage, len) = encode(addr);
    // SAFETY: as in `bind`.
    check(unsafe { libc::connect(fd, (&raw const storage).cast(), len) }).map(drop)
}

/// `connect()` with the family that means "nobody": the socket forgets its peer.
pub fn disconnect(fd: RawFd) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `sockaddr_storage`; AF_UNSPEC is 0.
    let storage: libc::sockaddr_storage = unsafe { zeroed() };
    // SAFETY: as in `bind`.
    check(unsafe { libc::connect(fd, (&raw const storage).cast(), len_of::<libc::sockaddr_in>()) }).map(drop)
}

pub fn listen(fd: RawFd, backlog: i32) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::listen(fd, backlog) }).map(drop)
}

pub fn accept(fd: RawFd) -> io::Result<(RawFd, SocketAddr)> {
    // SAFETY: all-zero bytes are a valid `sockaddr_storage`.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let mut len = len_of::<libc::sockaddr_storage>();
    // SAFETY: `storage` has room for `len` bytes and both live through the call.
    let new = check(unsafe {
        libc::accept4(fd, (&raw mut storage).cast(), &raw mut len, libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
    })?;
    Ok((new, decode(&storage)?))
}

/// The two ends of a socket; the peer is `None` while there is none.
pub fn names(fd: RawFd) -> io::Result<(SocketAddr, Option<SocketAddr>)> {
    type Getter = unsafe extern "C" fn(RawFd, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;
    let get = |getter: Getter| {
        // SAFETY: all-zero bytes are a valid `sockaddr_storage`.
        let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
        let mut len = len_of::<libc::sockaddr_storage>();
        // SAFETY: `storage` has room for `len` bytes and both live through the call.
        check(unsafe { getter(fd, (&raw mut storage).cast(), &raw mut len) })?;
        decode(&storage)
    };
    Ok((get(libc::getsockname)?, get(libc::getpeername).ok()))
}

pub fn set_option<T>(fd: RawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: `value` lives through the call and its size is its type's.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const *value).cast(), len_of::<T>()) }).map(drop)
}

pub fn set_linger(fd: RawFd, seconds: i32) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: seconds })
}

/// The pending error of a socket as a number, 0 for none; reading it clears it.
pub fn socket_error(fd: RawFd) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    let mut len = len_of::<libc::c_int>();
    // SAFETY: `value` has room for `len` bytes.
    check(unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut value).cast(), &raw mut len)
    })?;
    Ok(value)
}

/// Length of a listener's accept queue: the kernel shows it in a field that has another use elsewhere.
pub fn accept_queue(fd: RawFd) -> io::Result<u32> {
    // SAFETY: all-zero bytes are a valid `tcp_info`.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let mut len = len_of::<libc::tcp_info>();
    // SAFETY: `info` has room for `len` bytes.
    check(unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut len)
    })?;
    Ok(info.tcpi_unacked)
}

/// Bytes that wait to be read.
pub fn unread(fd: RawFd) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    check(unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut value) })?;
    Ok(value)
}

pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of the slice.
    check_len(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) })
}

pub fn recv(fd: RawFd, bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of the slice.
    check_len(unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), 0) })
}

pub fn shutdown(fd: RawFd, how: i32) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::shutdown(fd, how) }).map(drop)
}

/// Waits until `fd` is ready for `events`; false when the time is over.
pub fn poll(fd: RawFd, events: i16, limit: Duration) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one entry, and the count says so.
    match check(unsafe { libc::poll(&raw mut entry, 1, millis) }) {
        Ok(ready) => Ok(ready > 0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// Room for one control message with one descriptor, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 32]);

fn unix_address(name: &str) -> (libc::sockaddr_un, libc::socklen_t) {
    // SAFETY: all-zero bytes are a valid `sockaddr_un`.
    let mut addr: libc::sockaddr_un = unsafe { zeroed() };
    addr.sun_family = libc::AF_UNIX as libc::sa_family_t;
    // The name starts after a zero byte: an abstract address, which leaves no file behind.
    for (slot, byte) in addr.sun_path[1..].iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    let used = size_of::<libc::sa_family_t>() + 1 + name.len();
    (addr, used as libc::socklen_t)
}

/// A datagram socket under an abstract name: descriptors are posted to it.
pub fn inbox(name: &str) -> io::Result<RawFd> {
    let fd = socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?;
    let (addr, len) = unix_address(name);
    // SAFETY: the address lives through the call and `len` is its true length.
    check(unsafe { libc::bind(fd, (&raw const addr).cast(), len) })?;
    Ok(fd)
}

/// Sends one message, with a descriptor if given; `to` is an abstract address for unconnected sockets.
pub fn send_message(fd: RawFd, bytes: &[u8], passed: Option<RawFd>, to: Option<&str>) -> io::Result<()> {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 32]);
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let mut address;
    if let Some(name) = to {
        let (addr, len) = unix_address(name);
        address = addr;
        message.msg_name = (&raw mut address).cast();
        message.msg_namelen = len;
    }
    if let Some(descriptor) = passed {
        message.msg_control = (&raw mut control).cast();
        // SAFETY: CMSG_* only compute sizes and places inside `control`, which is larger than needed.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as usize;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(descriptor);
        }
    }
    // SAFETY: everything that `message` points to lives through the call.
    check_len(unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL) }).map(drop)
}

/// Receives one message and the descriptor that came with it. Zero bytes mean that the other end is gone.
pub fn recv_message(fd: RawFd, bytes: &mut [u8]) -> io::Result<(usize, Option<RawFd>)> {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 32]);
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>();
    // SAFETY: everything that `message` points to lives through the call.
    let read = check_len(unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_CMSG_CLOEXEC) })?;
    // SAFETY: the kernel wrote valid control messages and their total length.
    let passed = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
            None
        } else {
            Some(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned())
        }
    };
    Ok((read, passed))
}

/// Splits this process. Only for processes with one thread, which every actor is.
pub fn fork() -> io::Result<libc::pid_t> {
    // SAFETY: actors have one thread, so no lock can be left held by another one.
    check(unsafe { libc::fork() })
}

/// Lets the kernel collect dead children, so that none stays as a zombie.
pub fn ignore_children() {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

pub fn exit_now(status: i32) -> ! {
    // SAFETY: ends the process; nothing is left to be cleaned up by exit handlers.
    unsafe { libc::_exit(status) }
}

/// Names this process; `/proc/PID/comm` and every tracer show it. At most 15 bytes are kept.
pub fn set_comm(name: &str) {
    let mut bytes = [0u8; 16];
    for (slot, byte) in bytes.iter_mut().zip(name.bytes().take(15)) {
        *slot = byte;
    }
    // SAFETY: PR_SET_NAME reads a string that ends in zero, at most 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) };
}

pub fn signal(pid: i32, number: i32) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::kill(pid, number) }).map(drop)
}

/// The program will be interrupted when the thread that starts it is gone, so that none outlives a crash of ours. And it can be: a shell
/// starts what runs in the background with that signal ignored, and who ignores a signal bequeaths that.
pub fn interrupt_with_us(command: &mut Command) {
    let ask = || {
        // SAFETY: one system call with numbers only, which is allowed between fork and exec.
        if unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: one system call with numbers only, which is allowed between fork and exec.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT) }).map(drop)
    };
    // SAFETY: the closure does nothing but these system calls; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(ask) };
}

/// Puts the calling thread into a network namespace of its own.
pub fn new_netns() -> io::Result<()> {
    // SAFETY: no pointers are passed; only this thread changes its namespace.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// Puts the calling thread into the network namespace that `fd` stands for.
pub fn enter_netns(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::setns(fd.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

pub fn interface_index(name: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: the string ends in zero and lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

fn link_address(index: u32, protocol: u16) -> libc::sockaddr_ll {
    // SAFETY: all-zero bytes are a valid `sockaddr_ll`.
    let mut addr: libc::sockaddr_ll = unsafe { zeroed() };
    addr.sll_family = libc::AF_PACKET as u16;
    addr.sll_protocol = protocol.to_be();
    addr.sll_ifindex = index as i32;
    addr
}

/// A socket that reads and writes whole Ethernet frames on one interface.
pub fn packet_socket(index: u32, protocol: u16) -> io::Result<OwnedFd> {
    let fd = socket_owned(libc::AF_PACKET, libc::SOCK_RAW, i32::from(protocol.to_be()))?;
    let addr = link_address(index, protocol);
    // SAFETY: the address lives through the call and its size is its type's.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len_of::<libc::sockaddr_ll>()) })?;
    Ok(fd)
}

/// The clock that kernel tracers stamp their events with.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` has room for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Major and minor number of the running kernel.
pub fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
