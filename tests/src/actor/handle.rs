//! The scenario's side of an actor: one method for each act, with an error that says who failed at what.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::proto::{MESSAGE, Op, Reply};
use crate::net::Netns;
use crate::sys;

/// Longer than any act may take in the actor.
const LIMIT: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(5);

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A process under our command. Clones are the same process; it ends when the last clone is dropped.
#[derive(Clone)]
pub struct Actor(Arc<Inner>);

struct Inner {
    pid: i32,
    comm: String,
    channel: Mutex<OwnedFd>,
    /// `None` for the child of another actor, which ends when its channel closes.
    child: Mutex<Option<Child>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name that no other process has: the owner of an event is compared by name too.
fn unique(role: &str) -> String {
    format!("{role}-{:04x}", SERIAL.fetch_add(1, Ordering::Relaxed) + 0xa00)
}

impl Actor {
    /// Starts an actor in `netns`; its program is this one, under another verb.
    pub fn spawn(role: &str, netns: &Netns) -> Result<Self> {
        let comm = unique(role);
        let (ours, theirs) = sys::socket_pair().context("channel to an actor")?;
        let child = netns.enter(|| {
            Command::new("/proc/self/exe")
                .args(["actor", &comm])
                .stdin(Stdio::from(theirs))
                .stdout(Stdio::null())
                .spawn()
                .context("starting an actor")
        })?;
        let pid = i32::try_from(child.id()).context("pid of an actor")?;
        let actor =
            Self(Arc::new(Inner { pid, comm, channel: Mutex::new(ours), child: Mutex::new(Some(child)) }));
        // An answer proves that it has taken its name, too.
        actor.close_quietly(-1)?;
        Ok(actor)
    }

    pub fn pid(&self) -> i32 {
        self.0.pid
    }

    pub fn comm(&self) -> &str {
        &self.0.comm
    }

    /// One act and its answer; a failed act is not an error yet.
    fn ask_with(&self, op: &Op, passed: Option<&OwnedFd>) -> Result<Reply> {
        let channel = lock(&self.0.channel);
        let text = serde_json::to_vec(op)?;
        sys::send_message(channel.as_raw_fd(), &text, passed.map(AsRawFd::as_raw_fd), None)
            .with_context(|| format!("{} is gone, before {op:?}", self.0.comm))?;
        if !sys::poll(channel.as_raw_fd(), libc::POLLIN, LIMIT)? {
            bail!("{} did not answer {op:?}", self.0.comm);
        }
        let mut buffer = [0; MESSAGE];
        let (len, _) = sys::recv_message(channel.as_raw_fd(), &mut buffer)?;
        if len == 0 {
            bail!("{} ended instead of answering {op:?}", self.0.comm);
        }
        serde_json::from_slice(&buffer[..len]).context("reply of an actor")
    }

    /// One act, and whatever errno it ended with.
    pub fn attempt(&self, op: &Op) -> Result<Reply> {
        self.ask_with(op, None)
    }

    /// One act that has to succeed.
    fn ask(&self, op: &Op) -> Result<Reply> {
        let reply = self.attempt(op)?;
        match reply.errno {
            0 => Ok(reply),
            errno => bail!("{}: {op:?}: {}", self.0.comm, std::io::Error::from_raw_os_error(errno)),
        }
    }

    fn number(&self, op: &Op) -> Result<i32> {
        Ok(i32::try_from(self.ask(op)?.value)?)
    }

    pub fn socket(&self, v6: bool) -> Result<i32> {
        self.number(&Op::Socket { v6, mptcp: false })
    }

    /// A socket that asks for Multipath TCP.
    pub fn mptcp_socket(&self, v6: bool) -> Result<i32> {
        self.number(&Op::Socket { v6, mptcp: true })
    }

    pub fn set_int(&self, fd: i32, level: i32, name: i32, value: i32) -> Result<()> {
        self.ask(&Op::SetInt { fd, level, name, value }).map(drop)
    }

    pub fn set_tcp(&self, fd: i32, name: i32, value: i32) -> Result<()> {
        self.set_int(fd, libc::IPPROTO_TCP, name, value)
    }

    pub fn linger(&self, fd: i32, seconds: i32) -> Result<()> {
        self.ask(&Op::Linger { fd, seconds }).map(drop)
    }

    /// Binds, and gives the address with the port that the kernel chose.
    pub fn bind(&self, fd: i32, addr: SocketAddr) -> Result<SocketAddr> {
        self.ask(&Op::Bind { fd, addr })?.local.context("bind gave no address")
    }

    pub fn listen(&self, fd: i32, backlog: i32) -> Result<()> {
        self.ask(&Op::Listen { fd, backlog }).map(drop)
    }

    /// Connects and waits for the end of the handshake; gives the local end.
    pub fn connect(&self, fd: i32, addr: SocketAddr) -> Result<SocketAddr> {
        self.ask(&Op::Connect { fd, addr, wait: true })?.local.context("connect gave no address")
    }

    /// Sends the SYN and does not wait.
    pub fn connect_start(&self, fd: i32, addr: SocketAddr) -> Result<()> {
        self.ask(&Op::Connect { fd, addr, wait: false }).map(drop)
    }

    /// The errno that a connect ends with.
    pub fn connect_fails(&self, fd: i32, addr: SocketAddr) -> Result<i32> {
        Ok(self.attempt(&Op::Connect { fd, addr, wait: true })?.errno)
    }

    /// Accepts one connection: its socket and who connected.
    pub fn accept(&self, fd: i32) -> Result<(i32, SocketAddr)> {
        let reply = self.ask(&Op::Accept { fd, millis: 30_000 })?;
        Ok((i32::try_from(reply.value)?, reply.remote.context("accept gave no address")?))
    }

    /// The same, but nobody has to be waiting.
    pub fn accept_if_any(&self, fd: i32) -> Result<Option<(i32, SocketAddr)>> {
        let reply = self.attempt(&Op::Accept { fd, millis: 0 })?;
        match (reply.errno, reply.remote) {
            (0, Some(remote)) => Ok(Some((i32::try_from(reply.value)?, remote))),
            (libc::ETIME | libc::EAGAIN, _) => Ok(None),
            (errno, _) => bail!("accept: {}", std::io::Error::from_raw_os_error(errno)),
        }
    }

    pub fn send(&self, fd: i32, len: usize) -> Result<()> {
        let sent = self.ask(&Op::Send { fd, len })?.value;
        if sent != i64::try_from(len)? {
            bail!("{} sent {sent} of {len} bytes", self.0.comm);
        }
        Ok(())
    }

    /// Sends what the socket takes at once; gives how much that was.
    pub fn send_some(&self, fd: i32, len: usize) -> Result<i32> {
        self.number(&Op::Send { fd, len })
    }

    pub fn recv(&self, fd: i32, len: usize) -> Result<i32> {
        self.number(&Op::Recv { fd, len })
    }

    pub fn shutdown(&self, fd: i32, how: i32) -> Result<()> {
        self.ask(&Op::Shutdown { fd, how }).map(drop)
    }

    pub fn close(&self, fd: i32) -> Result<()> {
        self.ask(&Op::Close { fd }).map(drop)
    }

    fn close_quietly(&self, fd: i32) -> Result<()> {
        self.attempt(&Op::Close { fd }).map(drop)
    }

    pub fn disconnect(&self, fd: i32) -> Result<()> {
        self.ask(&Op::Disconnect { fd }).map(drop)
    }

    pub fn local(&self, fd: i32) -> Result<SocketAddr> {
        self.ask(&Op::Names { fd })?.local.context("no local address")
    }

    pub fn unread(&self, fd: i32) -> Result<i32> {
        self.number(&Op::Unread { fd })
    }

    pub fn accept_queue(&self, fd: i32) -> Result<i32> {
        self.number(&Op::AcceptQueue { fd })
    }

    /// Waits for the error of a socket.
    pub fn error(&self, fd: i32) -> Result<i32> {
        self.number(&Op::Error { fd })
    }

    /// Gives the process another name; [`Actor::comm`] stays what it was.
    pub fn rename(&self, role: &str) -> Result<String> {
        let comm = unique(role);
        self.ask(&Op::Rename { comm: comm.clone() })?;
        Ok(comm)
    }

    pub fn inbox(&self) -> Result<(i32, String)> {
        let name = format!("tcpwatch-{}", self.0.comm);
        Ok((self.number(&Op::Inbox { name: name.clone() })?, name))
    }

    /// Posts a copy of a descriptor to another actor's inbox.
    pub fn post_fd(&self, fd: i32, inbox: &str) -> Result<()> {
        self.ask(&Op::PostFd { fd, inbox: inbox.to_owned() }).map(drop)
    }

    pub fn take_fd(&self, inbox: i32) -> Result<i32> {
        self.number(&Op::TakeFd { inbox })
    }

    /// A child of this actor, with a copy of all its sockets.
    pub fn fork(&self, role: &str) -> Result<Self> {
        let comm = unique(role);
        let (ours, theirs) = sys::socket_pair()?;
        let reply = self.ask_with(&Op::Fork { comm: comm.clone() }, Some(&theirs))?;
        if reply.errno != 0 {
            bail!("{}: fork: {}", self.0.comm, std::io::Error::from_raw_os_error(reply.errno));
        }
        let child = Self(Arc::new(Inner {
            pid: i32::try_from(reply.value)?,
            comm,
            channel: Mutex::new(ours),
            child: Mutex::new(None),
        }));
        child.close_quietly(-1)?;
        Ok(child)
    }

    /// Kills the process and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        sys::signal(self.0.pid, libc::SIGKILL).context("killing an actor")?;
        self.gone()
    }

    /// Lets the process come to the end of its work, and waits until it is gone.
    pub fn exit(&self) -> Result<()> {
        sys::shutdown(lock(&self.0.channel).as_raw_fd(), libc::SHUT_RDWR).context("dismissing an actor")?;
        self.gone()
    }

    /// A process is gone when all its sockets are closed: its number goes last.
    fn gone(&self) -> Result<()> {
        if let Some(mut process) = lock(&self.0.child).take() {
            return process.wait().map(drop).context("waiting for an actor");
        }
        // Whoever forked it lets the kernel collect it.
        let end = Instant::now() + LIMIT;
        while sys::signal(self.0.pid, 0).is_ok() {
            if Instant::now() > end {
                bail!("{} does not end", self.0.comm);
            }
            sleep(PAUSE);
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(child) = self.child.get_mut().unwrap_or_else(PoisonError::into_inner) {
            // Gone already is fine too.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
