//! What brings a host into trouble: a proxy that hangs, clients that knock, sockets that end in TIME_WAIT or with an RST.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::counters::sockets_in;
use crate::net::{Netns, Pair};
use crate::sys;

const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than the wait for the first retry of a SYN.
const KNOCK: Duration = Duration::from_millis(1300);

pub(super) fn listen(at: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(at).with_context(|| format!("listening on {at}"))
}

/// A server that answers each connection once and closes it, or one that says nothing and waits for the other end to close.
pub(super) struct Backend {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    pub(super) fn start(netns: &Netns, at: SocketAddr, answers: bool) -> Result<Self> {
        let listener = netns.enter(|| listen(at))?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                // A client that breaks off is its own affair.
                if let Ok((client, _)) = listener.accept() {
                    drop(serve(client, answers));
                } else {
                    sleep(Duration::from_millis(1));
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

fn serve(mut client: TcpStream, answers: bool) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 256];
    let length = client.read(&mut buffer)?;
    if answers && length > 0 {
        client.write_all(b"done\n")?;
    }
    Ok(())
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// The proxy of the incidents: serves so many, then accepts nobody and closes nothing.
pub(super) struct Proxy(Child);

impl Proxy {
    pub(super) fn start(pair: &Pair, listen: SocketAddr, backend: SocketAddr, count: usize) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["proxy", &listen.to_string(), &backend.to_string(), &count.to_string()]);
        command.stdin(Stdio::piped());
        sys::interrupt_with_us(&mut command);
        let child = pair.server.enter(|| command.spawn().context("starting the proxy"))?;
        let proxy = Self(child);
        let end = Instant::now() + PATIENCE;
        while sockets_in(&pair.server.proc_net("tcp")?, Some(listen.port()), None, "LISTEN") == 0 {
            ensure!(Instant::now() < end, "the proxy does not listen");
            sleep(Duration::from_millis(20));
        }
        Ok(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn connect(netns: &Netns, to: SocketAddr, patience: Duration) -> Result<TcpStream> {
    netns.enter(|| {
        let stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    })
}

/// One request, its answer, and the client goes.
pub(super) fn request(netns: &Netns, to: SocketAddr) -> Result<()> {
    let mut stream = connect(netns, to, PATIENCE)?;
    stream.write_all(b"hello\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    Ok(())
}

/// Comes once and goes soon. Whether it got in.
fn gets_in(netns: &Netns, to: SocketAddr) -> bool {
    let got_in = connect(netns, to, KNOCK).is_ok();
    sleep(Duration::from_millis(20));
    got_in
}

/// One client comes until the queue is full. Many at once race for the last place, and one more may get in.
pub(super) fn fill(netns: &Netns, to: SocketAddr) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while gets_in(netns, to) {
        ensure!(Instant::now() < end, "the queue is never full");
    }
    Ok(())
}

/// Comes again and again.
pub(super) fn knock(netns: &Netns, to: SocketAddr, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // Whether it gets in is for others to tell.
        gets_in(netns, to);
    }
}

/// Connects and closes first, so that the host has the socket in TIME_WAIT.
pub(super) fn close_first(netns: &Netns, to: SocketAddr, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let talk = || -> Result<()> {
            let mut stream = connect(netns, to, PATIENCE)?;
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new())?;
            Ok(())
        };
        // Without a slot in TIME_WAIT its end may be a reset one.
        drop(talk());
        sleep(Duration::from_millis(5));
    }
}

/// So many connections which the host accepts and ends with an RST.
pub(super) fn reset(pair: &Pair, listener: &TcpListener, at: SocketAddr, count: usize) -> Result<()> {
    let done = AtomicBool::new(false);
    listener.set_nonblocking(true)?;
    scope(|threads| {
        let server = threads.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => sys::set_linger(client.as_raw_fd(), 0)?,
                    Err(_) => sleep(Duration::from_micros(200)),
                }
            }
            Ok(())
        });
        let clients = threads.spawn(|| -> Result<()> {
            // The thread stays there: to go and come back for each takes longer than to connect.
            pair.client.stay()?;
            (0..count).try_for_each(|_| is_reset(at))
        });
        let clients = clients.join();
        done.store(true, Ordering::Relaxed);
        server.join().ok().context("the server panicked")??;
        clients.ok().context("the clients panicked")?
    })
}

fn is_reset(at: SocketAddr) -> Result<()> {
    // The RST may come before it is noticed that the connection stands.
    let ended = TcpStream::connect_timeout(&at, PATIENCE).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read(&mut [0])
    });
    let kind = ended.as_ref().map_err(io::Error::kind);
    ensure!(
        kind == Err(io::ErrorKind::ConnectionReset),
        "a connection ended with {ended:?} and was not reset"
    );
    Ok(())
}
