//! Incident C: a proxy hangs. It closes nothing that its peers closed and accepts nobody any more, at 0 % CPU.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::thread::{scope, sleep};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::clients::{Tally, connect, get, visit};
use super::scene::Scene;
use super::truth::{Event, Truth};
use super::verdict::Verdict;
use crate::sys;

/// Its name as every tool shows it.
const COMM: &str = "proxy";
const PORT: u16 = 8080;
const BACKLOG: u64 = 16;
/// Connections that it has served when it hangs; each of them has a twin towards the backend.
const SERVED: usize = 20;
/// Who comes after that, and their patience: longer than the wait for the SYN's first retry.
const LATE: usize = 40;
const LEAK_AFTER: &str = "2s";
const PATIENCE: Duration = Duration::from_millis(1300);

/// `tcpwatch-scenario proxy LISTEN BACKEND COUNT`: relays one request and one answer on each of so many connections, keeps them
/// open for more, and then waits for something that never comes, as with a lock that nobody gives back.
pub fn serve(listen: SocketAddr, backend: SocketAddr, count: usize) -> Result<()> {
    sys::set_comm(COMM);
    let domain = if listen.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let socket: OwnedFd = sys::socket_owned(domain, libc::SOCK_STREAM, 0)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    sys::bind(fd, listen).with_context(|| format!("binding to {listen}"))?;
    sys::listen(fd, BACKLOG as i32)?;
    let listener = TcpListener::from(socket);
    let mut kept = Vec::new();
    for _ in 0..count {
        let (mut client, _) = listener.accept().context("accepting")?;
        let mut upstream = TcpStream::connect(backend).with_context(|| format!("connecting to {backend}"))?;
        let mut buffer = [0; 4096];
        let length = client.read(&mut buffer)?;
        upstream.write_all(&buffer[..length])?;
        let length = upstream.read(&mut buffer)?;
        client.write_all(&buffer[..length])?;
        kept.push((client, upstream));
    }
    // Whoever started it holds the other end and says nothing.
    std::io::stdin().read_exact(&mut [0])?;
    drop(kept);
    Ok(())
}

/// The process; killed at the end.
struct Proxy(Child);

impl Proxy {
    fn start(scene: &Scene<'_>, listen: SocketAddr, backend: SocketAddr) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["proxy", &listen.to_string(), &backend.to_string(), &SERVED.to_string()]);
        command.stdin(Stdio::piped());
        sys::interrupt_with_us(&mut command);
        let child = scene.host().enter(|| command.spawn().context("starting the proxy"))?;
        let proxy = Self(child);
        scene.wait_sockets(PORT, "LISTEN", 1)?;
        Ok(proxy)
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(super) fn play(scene: &mut Scene<'_>) -> Result<Truth> {
    let backend = scene.family.client(80);
    let listen = format!("server {{ listen {}; keepalive_timeout 1s; ", scene.family.any(80));
    scene.nginx(false, &(listen + "location / { return 200 \"done\\n\"; } }"))?;
    let proxy = Proxy::start(scene, scene.family.any(PORT), backend)?;
    let pid = proxy.pid();
    scene.keep(proxy);
    scene.watch(&["--close-wait-after", LEAK_AFTER])?;
    let site = scene.family.server(PORT);
    let elsewhere = scene.elsewhere();
    // The good days: everybody is served. Then it hangs, and they go.
    let mut served = Vec::new();
    for _ in 0..SERVED {
        let mut client = connect(elsewhere, site, PATIENCE)?.context("connecting to the proxy")?;
        get(&mut client).context("a request through the proxy")?;
        served.push(client);
    }
    drop(served);
    scene.wait_sockets(PORT, "CLOSE_WAIT", SERVED)?;
    scene.wait("the backend's connections in CLOSE_WAIT", || {
        Ok(scene.sockets_to(80, "CLOSE_WAIT")? >= SERVED)
    })?;
    let tally = Tally::default();
    scope(|threads| -> Result<()> {
        let late = || tally.note(&visit(elsewhere, site, PATIENCE)?);
        let late: Vec<_> = (0..LATE).map(|_| threads.spawn(late)).collect();
        late.into_iter().try_for_each(|one| one.join().ok().context("a client panicked")?)
    })?;
    ensure!(tally.timed_out() == LATE as u64, "the proxy served somebody although it hangs: {tally:?}");
    // The kernel holds these, and who left them is not the proxy alone: it never accepted them.
    let queued = BACKLOG + 1;
    scene.wait_sockets(PORT, "CLOSE_WAIT", SERVED + queued as usize)?;
    // A leak is one when it lasts.
    sleep(Duration::from_secs(4));
    let turned_away = LATE as u64 - queued;
    // On two CPUs at once, one more gets in.
    let drops = turned_away - 1..=4 * turned_away;
    Ok(Truth {
        events: vec![
            Event::new("close_wait_leak", "close-wait-leak", 2 * SERVED as u64..=u64::MAX)
                .owner(&[pid], COMM),
            Event::new("listen_drop", "accept-queue-full", drops.clone())
                .owner(&[pid], COMM)
                .local_port(PORT)
                .says("/listen/queue", "accept")
                .says("/listen/max", BACKLOG)
                .says("/listen/backlog", BACKLOG)
                .hook("tcp_conn_request"),
        ],
        verdict: Verdict::new(&["close-wait-leak"], "ListenDrops")
            .likely()
            // The connections of its clients and its own to the backend, but not those that it never accepted.
            .more(SERVED as u64..=2 * SERVED as u64)
            .by(&[pid], COMM)
            .at(PORT)
            .says(&["CLOSE_WAIT", "accept-queue-full", "threads wait for"])
            .overfull(BACKLOG)
            .says(&[&format!("/proc/{pid}/task"), &format!(":{PORT}")]),
        counters: vec![("ListenOverflows", drops), ("OutRsts", 0..=0)],
    })
}
