//! Resets on demand: one namespace with nothing but a loopback, a server and clients in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::actor::Actor;
use crate::net::Netns;

/// Nobody listens here.
pub(super) const CLOSED: u16 = 9;

pub(super) struct Ground {
    pub(super) netns: Netns,
    pub(super) srv: Actor,
    pub(super) cli: Actor,
}

/// An RST that a client provoked on purpose.
pub(super) struct Reset {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
}

pub(super) fn loopback(v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
}

impl Ground {
    pub(super) fn new() -> Result<Self> {
        let netns = Netns::new()?;
        netns.run("ip", &["link", "set", "lo", "up"], "")?;
        let (srv, cli) = (Actor::spawn("hsrv", &netns)?, Actor::spawn("hcli", &netns)?);
        Ok(Self { netns, srv, cli })
    }

    /// The namespace as `--netns` takes it.
    pub(super) fn inode(&self) -> String {
        self.netns.inode().to_string()
    }

    /// A listener of the server, reachable over both families.
    pub(super) fn listen(&self, port: u16) -> Result<i32> {
        let fd = self.srv.socket(true)?;
        self.srv.bind(fd, SocketAddr::new([0u16; 8].into(), port))?;
        self.srv.listen(fd, 64)?;
        Ok(fd)
    }

    /// `cli` connects and closes with SO_LINGER 0: two events, an RST sent by it and one received by the server.
    pub(super) fn reset_by(&self, cli: &Actor, listener: i32, port: u16, v6: bool) -> Result<Reset> {
        self.reset_at(cli, listener, SocketAddr::new(loopback(v6), port))
    }

    /// The same with another address of the loopback; the client's is always the usual one.
    pub(super) fn reset_at(&self, cli: &Actor, listener: i32, server: SocketAddr) -> Result<Reset> {
        let fd = cli.socket(server.is_ipv6())?;
        cli.bind(fd, SocketAddr::new(loopback(server.is_ipv6()), 0))?;
        let client = cli.connect(fd, server)?;
        let (accepted, _) = self.srv.accept(listener)?;
        cli.linger(fd, 0)?;
        cli.close(fd)?;
        self.srv.error(accepted)?;
        self.srv.close(accepted)?;
        Ok(Reset { client, server })
    }

    pub(super) fn reset(&self, listener: i32, port: u16) -> Result<Reset> {
        self.reset_by(&self.cli, listener, port, false)
    }

    /// The server closes with unread data: two events, an RST sent by it and one received by the client.
    pub(super) fn close_unread(&self, listener: i32, port: u16) -> Result<Reset> {
        let fd = self.cli.socket(false)?;
        let client = self.cli.connect(fd, SocketAddr::new(loopback(false), port))?;
        let (accepted, _) = self.srv.accept(listener)?;
        self.cli.send(fd, 10)?;
        let end = Instant::now() + Duration::from_secs(20);
        while self.srv.unread(accepted)? < 10 {
            ensure!(Instant::now() < end, "the data did not arrive");
        }
        self.srv.close(accepted)?;
        self.cli.error(fd)?;
        self.cli.close(fd)?;
        Ok(Reset { client, server: SocketAddr::new(loopback(false), port) })
    }

    /// One connection to a port that nobody listens on, from a thread that is in the namespace.
    pub(super) fn refuse(port: u16) {
        // What becomes of it is for tcpwatch to say.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, port)));
    }

    /// Connections to a closed port from this thread, as fast as it goes, until `enough` of the number so far.
    pub(super) fn storm(&self, mut enough: impl FnMut(usize) -> bool) -> Result<usize> {
        self.netns.enter(|| {
            let mut count = 0;
            while !enough(count) {
                ensure!(TcpStream::connect((Ipv4Addr::LOCALHOST, CLOSED)).is_err(), "somebody listens");
                count += 1;
            }
            Ok(count)
        })
    }
}

/// An end of an event as the JSON shows it.
pub(super) fn end(event: &Value, side: &str) -> Option<SocketAddr> {
    let end = &event[side];
    let port = u16::try_from(end["port"].as_u64()?).ok()?;
    Some(SocketAddr::new(end["addr"].as_str()?.parse().ok()?, port))
}

/// The one event of this kind between these ends.
pub(super) fn only<'a>(
    events: &'a [Value],
    kind: &str,
    local: SocketAddr,
    remote: SocketAddr,
) -> Result<&'a Value> {
    let fits = |event: &&Value| {
        event["event"] == kind && end(event, "local") == Some(local) && end(event, "remote") == Some(remote)
    };
    let found: Vec<_> = events.iter().filter(fits).collect();
    ensure!(found.len() == 1, "{} events {kind} {local} → {remote} and not one", found.len());
    Ok(found[0])
}

/// The owner must be this process.
pub(super) fn owned_by(event: &Value, pid: Option<i32>, comm: &str) -> Result<()> {
    let owner = &event["owner"];
    ensure!(owner["comm"] == comm, "its owner is {owner} and not {comm}");
    ensure!(owner["pid"].as_i64() == pid.map(i64::from), "its owner is {owner} and not process {pid:?}");
    Ok(())
}
