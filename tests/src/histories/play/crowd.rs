//! Who takes others along when it goes: workers and listeners; and addresses that are used again.

use std::net::SocketAddr;

use anyhow::Result;
use fastrand::Rng;

use super::{End, Link, Player, Rest, ends};
use crate::actor::Actor;
use crate::expect::{Expect, Side};
use crate::sys;

/// How a process ends.
#[derive(Clone, Copy)]
pub(super) enum Death {
    Kill,
    Exit,
}

impl Death {
    pub(super) fn by_chance(rng: &mut Rng) -> Self {
        if rng.bool() { Self::Kill } else { Self::Exit }
    }

    pub(super) fn strike(self, actor: &Actor) -> Result<()> {
        match self {
            Self::Kill => actor.kill(),
            Self::Exit => actor.exit(),
        }
    }
}

/// How many short ends there are.
pub(super) const WAYS: u8 = 4;

/// The one in which the other end acts.
pub(super) const PEER_RESETS: u8 = 2;

/// A short end for connections whose story is another.
pub(super) fn finish(p: &Player<'_>, link: &Link, way: u8) -> Result<()> {
    match way {
        0 => ends::closes_unread(p, link),
        1 => ends::lingers_zero(p, link),
        PEER_RESETS => ends::lingers_zero(p, &link.clone().turned()),
        _ => ends::close_both(p, link),
    }
}

/// The addresses of a connection that just ended, for another process of the client and any of the server's.
pub(super) fn reused<'p>(p: &'p Player<'_>, rng: &mut Rng) -> Result<Rest<'p>> {
    let first = p.connect("reused", &p.desk, &p.own, &p.cli, None)?;
    let ways = [rng.u8(..WAYS), rng.u8(..WAYS)];
    // The client's TIME_WAIT would keep the port, so it must not be the first to close.
    let turn = [rng.bool() && ways[0] < 3, rng.bool()];
    Ok(Box::new(move || {
        let first = if turn[0] { first.turned() } else { first };
        finish(p, &first, ways[0])?;
        let port = p.conn(&first).client.port();
        let second = p.connect("reused", &p.desk, &p.own, &p.scene.guest, Some(port))?;
        let second = if turn[1] { second.turned() } else { second };
        finish(p, &second, ways[1])
    }))
}

/// In which state a connection is when its process dies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Idle,
    Unread,
    Linger,
    PeerShut,
    PeerShutUnread,
    Shut,
    /// Idle, and the peer goes on sending.
    Answered,
}

const STATES: [State; 7] = [
    State::Idle,
    State::Unread,
    State::Linger,
    State::PeerShut,
    State::PeerShutUnread,
    State::Shut,
    State::Answered,
];

fn bring(p: &Player<'_>, link: &Link, state: State) -> Result<()> {
    match state {
        State::Idle | State::Answered => Ok(()),
        State::Unread => ends::feed(p, link),
        State::Linger => link.near.actor.linger(link.near.fd, 0),
        State::PeerShut => ends::far_shuts(p, link),
        State::PeerShutUnread => {
            ends::feed(p, link)?;
            ends::far_shuts(p, link)
        }
        State::Shut => ends::near_shuts(p, link, libc::SHUT_WR),
    }
}

/// The process is dead: what becomes of this connection of its.
fn mourn(p: &Player<'_>, link: &Link, state: State) -> Result<()> {
    let (near, far) = (&link.near, &link.far);
    let seen = match state {
        State::Unread => vec![ends::unread(near, "ESTABLISHED"), far.gets("ESTABLISHED")],
        State::PeerShutUnread => vec![ends::unread(near, "CLOSE_WAIT"), far.gets("FIN_WAIT2")],
        State::Linger => vec![ends::lingers(near, "ESTABLISHED"), far.gets("ESTABLISHED")],
        State::Answered => {
            p.scene.wait_state(far, Some("CLOSE_WAIT"))?;
            p.scene.wait_state(near, Some("FIN_WAIT2"))?;
            far.send(10)?;
            vec![ends::after_close(near), far.gets("CLOSE_WAIT")]
        }
        State::Idle | State::Shut => return ends::far_follows(p, link),
        State::PeerShut => {
            // The far end was the first to close, and is the one in TIME_WAIT.
            far.is_at_end()?;
            far.close()?;
            ends::gone(p, link)?;
            p.tell_ways(link, ends::orderly_ways(&link.clone().turned()));
            return Ok(());
        }
    };
    far.is_reset()?;
    p.tell(link, seen);
    Ok(())
}

pub(super) fn worker_end(
    p: &Player<'_>,
    link: &Link,
    state: State,
    dies: impl FnOnce() -> Result<()>,
) -> Result<()> {
    bring(p, link, state)?;
    dies()?;
    mourn(p, link, state)
}

pub(super) fn worker_dies<'p>(p: &'p Player<'_>, rng: &mut Rng) -> Result<Rest<'p>> {
    let victim = p.scene.master.fork("vic")?;
    let mut links = Vec::new();
    for _ in 0..rng.usize(2..=4) {
        let link = p.connect("worker-dies", &p.scene.desk, &victim, &p.cli, None)?;
        let state = STATES[rng.usize(..STATES.len())];
        bring(p, &link, state)?;
        links.push((link, state));
    }
    let sibling = &p.scene.workers[rng.usize(..p.scene.workers.len())];
    let other = p.connect("worker-dies", &p.scene.desk, sibling, &p.cli, None)?;
    let death = Death::by_chance(rng);
    let way = rng.u8(..WAYS);
    Ok(Box::new(move || {
        death.strike(&victim)?;
        for (link, state) in &links {
            mourn(p, link, *state)?;
        }
        // The sibling's connection does not know of it.
        other.far.send(20)?;
        other.near.actor.recv(other.near.fd, 20)?;
        finish(p, &other, way)
    }))
}

/// A connection that nobody accepts: its server's end belongs to the listener's process.
pub(super) struct Child {
    pub(super) since: u64,
    pub(super) server: SocketAddr,
    pub(super) client: End,
}

impl Child {
    pub(super) fn connect(p: &Player<'_>, port: u16) -> Result<Self> {
        let stage = &p.scene.stage;
        let server = stage.family.server(port);
        let (fd, local) = stage.client_socket(&p.cli)?;
        let since = sys::monotonic_ns();
        p.cli.connect(fd, server)?;
        p.scene.ledger.connected();
        let client = End::new(Side::Client, &p.cli, fd, local, server);
        Ok(Self { since, server, client })
    }

    /// The listener went away.
    pub(super) fn forsaken(self, p: &Player<'_>, act: &'static str, owner: &Actor) -> Result<()> {
        self.client.is_reset()?;
        let sent = forsaken(self.server, self.client.local, owner);
        let seen = vec![sent, self.client.gets("ESTABLISHED")];
        p.scene.tell(act, self.since, [self.server, self.client.local], vec![seen]);
        Ok(())
    }

    /// It is accepted after all.
    pub(super) fn accepted(
        self,
        p: &Player<'_>,
        act: &'static str,
        actor: &Actor,
        listener: i32,
    ) -> Result<Link> {
        let (fd, remote) = actor.accept(listener)?;
        if remote != self.client.local {
            anyhow::bail!("accepted {remote} instead of {}", self.client.local);
        }
        let near = End::new(Side::Server, actor, fd, self.server, remote);
        p.scene.wait_state(&near, Some("ESTABLISHED"))?;
        Ok(Link { act, since: self.since, near, far: self.client })
    }
}

/// The RST of a connection that waited for accept.
pub(super) fn forsaken(server: SocketAddr, client: SocketAddr, owner: &Actor) -> Expect {
    let sent = Expect::rst_sent(server, client).owner(owner);
    sent.state("ESTABLISHED").reason("TCP_STATE").cause("listener-closed")
}

pub(super) fn listener_closed<'p>(p: &'p Player<'_>, rng: &mut Rng) -> Result<Rest<'p>> {
    let port = p.scene.fresh_port();
    let death = rng.bool().then(|| Death::by_chance(rng));
    let owner = match death {
        Some(_) => Actor::spawn("lst", &p.scene.stage.pair.server)?,
        None => p.own.clone(),
    };
    let listener = p.scene.stage.listener(&owner, port, 16)?;
    let mut children = Vec::new();
    for _ in 0..rng.i32(1..=4) {
        children.push(Child::connect(p, port)?);
    }
    p.scene.stage.wait_queue(&owner, listener, i32::try_from(children.len())?)?;
    // Data that nobody read makes no difference here.
    if rng.bool() {
        children[0].client.send(10)?;
    }
    Ok(Box::new(move || {
        match death {
            Some(death) => death.strike(&owner)?,
            None => owner.close(listener)?,
        }
        for child in children {
            child.forsaken(p, "listener-closed", &owner)?;
        }
        Ok(())
    }))
}
