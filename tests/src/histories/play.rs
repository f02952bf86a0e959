//! Plays a world of the plan: its processes, its players, and what they do to each other's connections.
//!
//! Every act has two halves. The first brings the connection to where it shall end, the second ends it. A player holds a few acts
//! that are half done and ends them in random order, beside the other players: so ends of all kinds meet on the same workers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use fastrand::Rng;

use super::plan::{Act, Deed, Kind, World};
use super::truth::{Ledger, Truth};
use crate::actor::Actor;
use crate::actor::proto::Op;
use crate::expect::{Expect, Owner, Side};
use crate::net::RAW;
use crate::raw::Raw;
use crate::stage::{Conn, Stage};
use crate::sys;

mod crowd;
mod ends;
mod frames;
mod heirs;
mod queues;
mod silence;
mod timewait;

/// The port of the workers, and of every player's own listener from here on.
const WEB: u16 = 8080;
/// Nobody listens on these.
const CLOSED: u16 = 9000;
/// The firewall rejects what comes to this one, where nobody listens, and to the next, where somebody does.
const GUARDED: u16 = 9100;
/// Listeners of one act, each on a port of its own.
const FRESH: u16 = 10_000;
/// Raw peers' ports; the kernel takes its own from 32768 on.
const RAW_PORTS: u16 = 20_000;
/// Addresses that raw peers share.
const RAW_HOSTS: u16 = 4;

/// Half-done acts that a player holds at most.
const HAND: usize = 3;
/// Seconds that FIN_WAIT2 lasts where the TIME_WAIT table is small: places come free while the others play.
pub(super) const TIGHT_FIN_TIMEOUT: u64 = 2;

/// The second half of an act.
type Rest<'p> = Box<dyn FnOnce() -> Result<()> + 'p>;

/// A listener on which several players connect. Whoever connects also accepts before the next one may, so that everybody gets
/// the connection that is his.
struct Desk {
    port: u16,
    listener: i32,
    busy: Mutex<()>,
}

/// A pair of namespaces while it is played in.
pub(super) struct Scene<'w> {
    pub(super) stage: Stage<'w>,
    pub(super) world: &'w World,
    pub(super) number: usize,
    pub(super) ledger: Ledger,
    /// Listens and forks, and never accepts: its children inherit no connection.
    master: Actor,
    workers: Vec<Actor>,
    desk: Desk,
    /// Other processes to hand things to.
    heir: Actor,
    guest: Actor,
    /// Whether there is a firewall that rejects.
    guarded: bool,
    fresh: AtomicU16,
    raws: AtomicU16,
    /// Drops at listeners that the players are sure to cause.
    drops: AtomicU64,
    /// Where the heir gets descriptors, and under which name.
    inbox: Mutex<(i32, String)>,
}

/// One end of a connection.
#[derive(Clone)]
struct End {
    side: Side,
    actor: Actor,
    /// Its name, where it is not the one that the process was born with.
    name: Option<String>,
    fd: i32,
    local: SocketAddr,
    remote: SocketAddr,
}

/// A connection and the act that it is for. `near` is the end that acts; the kernel does not care which side that is.
#[derive(Clone)]
struct Link {
    act: &'static str,
    since: u64,
    near: End,
    far: End,
}

/// Who plays: two processes of his own, and those that all share.
struct Player<'w> {
    scene: &'w Scene<'w>,
    own: Actor,
    cli: Actor,
    desk: Desk,
}

impl End {
    fn new(side: Side, actor: &Actor, fd: i32, local: SocketAddr, remote: SocketAddr) -> Self {
        Self { side, actor: actor.clone(), name: None, fd, local, remote }
    }

    fn is_its(&self, expect: Expect) -> Expect {
        let comm = self.name.as_deref().unwrap_or(self.actor.comm()).to_owned();
        Expect { owner: Owner::Is { pid: self.actor.pid(), comm }, ..expect }
    }

    /// It sends an RST.
    fn sends(&self) -> Expect {
        self.is_its(Expect::rst_sent(self.local, self.remote).at(self.side))
    }

    /// An RST reaches it in this state.
    fn gets(&self, state: &'static str) -> Expect {
        self.is_its(Expect::rst_received(self.side, self.local, self.remote, state))
    }

    fn close(&self) -> Result<()> {
        self.actor.close(self.fd)
    }

    fn send(&self, len: usize) -> Result<()> {
        self.actor.send(self.fd, len)
    }

    /// The same where an RST may have come before.
    fn send_if_alive(&self, len: usize) -> Result<()> {
        match self.actor.attempt(&Op::Send { fd: self.fd, len })?.errno {
            0 | libc::EPIPE | libc::ECONNRESET => Ok(()),
            errno => Err(std::io::Error::from_raw_os_error(errno)).context("sending to who may be gone"),
        }
    }

    fn shutdown(&self, how: i32) -> Result<()> {
        self.actor.shutdown(self.fd, how)
    }

    /// Waits until an RST ended it, then lets go of it.
    fn is_reset(&self) -> Result<()> {
        self.actor.error(self.fd)?;
        self.close()
    }

    /// Waits for the peer's FIN, behind all data.
    fn is_at_end(&self) -> Result<()> {
        while self.actor.recv(self.fd, 4096)? > 0 {}
        Ok(())
    }
}

impl Link {
    fn ends(&self) -> [SocketAddr; 2] {
        [self.near.local, self.near.remote]
    }
}

impl<'w> Scene<'w> {
    /// Sets it up. What the kernel cannot do is written down, and its acts are left out.
    pub(super) fn new(mut stage: Stage<'w>, world: &'w World, number: usize) -> Result<Self> {
        let acts = world.players.iter().map(Vec::len).sum::<usize>();
        // Namespaces inherit limits; here only a tight world may come to one.
        let buckets = if world.kind == Kind::Tight { (acts / 5).max(2).to_string() } else { "200000".into() };
        for netns in [&stage.pair.server, &stage.pair.client] {
            netns.sysctl("ipv4/tcp_max_tw_buckets", &buckets)?;
            if world.kind == Kind::Tight {
                netns.sysctl("ipv4/tcp_fin_timeout", &TIGHT_FIN_TIMEOUT.to_string())?;
            }
        }
        if world.kind == Kind::Strict {
            stage.pair.server.sysctl("ipv4/tcp_abort_on_overflow", "1")?;
            stage.pair.server.sysctl("ipv4/tcp_syncookies", "0")?;
        }
        let master = stage.server("mst")?;
        let desk = Desk { port: WEB, listener: stage.listener(&master, WEB, 128)?, busy: Mutex::default() };
        let ledger = Ledger::default();
        let guarded = world.kind == Kind::Plain && guard(&stage, &master, &ledger)?;
        let mut workers = Vec::new();
        for _ in 0..2 {
            let worker = master.fork("wrk")?;
            stage.keep(&worker);
            workers.push(worker);
        }
        let (heir, guest) = (stage.server("hei")?, stage.client("gst")?);
        let inbox = Mutex::new(heir.inbox()?);
        let (fresh, raws, drops) = (AtomicU16::new(FRESH), AtomicU16::new(0), AtomicU64::new(0));
        Ok(Self {
            stage,
            world,
            number,
            ledger,
            master,
            workers,
            desk,
            heir,
            guest,
            guarded,
            fresh,
            raws,
            drops,
            inbox,
        })
    }

    /// All players act, side by side.
    pub(super) fn play(&self, deadline: Option<Instant>) -> Result<()> {
        let mut players = Vec::new();
        for number in 0..self.world.players.len() {
            let (own, cli) = self.stage.both_now()?;
            let port = WEB + 1 + u16::try_from(number)?;
            let listener = self.stage.listener(&own, port, 64)?;
            let desk = Desk { port, listener, busy: Mutex::default() };
            players.push(Player { scene: self, own, cli, desk });
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = players
                .iter()
                .zip(&self.world.players)
                .map(|(player, deeds)| scope.spawn(|| player.play(deeds, deadline)))
                .collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(_) => bail!("a player panicked"),
            })
        })
    }

    /// The players are gone; what is left are the namespaces and what was written down.
    pub(super) fn close(self) -> (Stage<'w>, Ledger) {
        (self.stage, self.ledger)
    }

    fn state(&self, end: &End) -> Result<Option<&'static str>> {
        self.stage.state(end.side, end.local.port(), end.remote.port())
    }

    fn wait_state(&self, end: &End, state: Option<&str>) -> Result<()> {
        self.stage.wait_state(end.side, end.local.port(), end.remote.port(), state)
    }

    fn wait_unread(&self, end: &End, len: i32) -> Result<()> {
        self.stage.wait_unread(&end.actor, end.fd, len)
    }

    fn fresh_port(&self) -> u16 {
        self.fresh.fetch_add(1, Ordering::Relaxed)
    }

    /// A raw peer with addresses that nobody had before.
    fn raw(&self, port: u16) -> Result<Raw> {
        let number = self.raws.fetch_add(1, Ordering::Relaxed);
        let host = self.stage.family.addr(RAW + u8::try_from(number % RAW_HOSTS)?);
        let me = SocketAddr::new(host, RAW_PORTS + number);
        Raw::new(&self.stage.pair.client, me, self.stage.family.server(port))
    }

    /// What happened between these ends since then, and is over.
    fn tell(&self, act: &'static str, since: u64, ends: [SocketAddr; 2], ways: Vec<Vec<Expect>>) {
        let until = sys::monotonic_ns();
        self.ledger.tell(Truth { act, pair: self.number, ends, since, until, ways });
    }
}

/// A firewall for two ports, the second with a listener behind it.
fn guard(stage: &Stage<'_>, master: &Actor, ledger: &Ledger) -> Result<bool> {
    stage.listener(master, GUARDED + 1, 16)?;
    let ports = format!("{{ {GUARDED}, {} }}", GUARDED + 1);
    match stage.reject(&ports) {
        Ok(()) => Ok(true),
        Err(error) => match error.downcast::<crate::stage::NotHere>() {
            Ok(lack) => {
                ledger.leave_out(Act::Rejected.name(), &lack.to_string());
                Ok(false)
            }
            Err(error) => Err(error),
        },
    }
}

impl<'w> Player<'w> {
    fn play(&self, deeds: &[Deed], deadline: Option<Instant>) -> Result<()> {
        let mut order = Rng::with_seed(deeds.first().map_or(0, |deed| deed.seed));
        let mut hand: Vec<(Deed, Rest<'_>)> = Vec::new();
        let mut deeds = deeds.iter();
        loop {
            let next = deeds.next().filter(|_| deadline.is_none_or(|deadline| Instant::now() < deadline));
            if let Some(deed) = next {
                let what = || format!("{} (seed {})", deed.act.name(), deed.seed);
                let rest = self.begin(*deed).with_context(what)?;
                hand.push((*deed, rest));
            }
            if hand.is_empty() {
                return Ok(());
            }
            if next.is_none() || hand.len() >= HAND || order.u8(..3) == 0 {
                let (deed, rest) = hand.swap_remove(order.usize(..hand.len()));
                rest().with_context(|| format!("{} (seed {})", deed.act.name(), deed.seed))?;
            }
        }
    }

    fn begin<'p>(&'p self, deed: Deed) -> Result<Rest<'p>> {
        let mut rng = Rng::with_seed(deed.seed);
        let (rng, act) = (&mut rng, deed.act.name());
        match deed.act {
            Act::Orderly => ends::orderly(self, self.link(act, rng)?, rng),
            Act::BothClose => ends::both_close(self, self.link(act, rng)?),
            Act::CloseUnread => ends::close_unread(self, self.link(act, rng)?, rng),
            Act::UnreadCloseWait => ends::unread_close_wait(self, self.link(act, rng)?, rng),
            Act::UnreadFinWait2 => ends::unread_fin_wait2(self, self.link(act, rng)?),
            Act::LingerZero => ends::linger_zero(self, self.link(act, rng)?),
            Act::LingerZeroCloseWait => ends::linger_zero_close_wait(self, self.link(act, rng)?),
            Act::Disconnect => ends::disconnect(self, self.link(act, rng)?),
            Act::DataAfterShutdown => ends::data_after_shutdown(self, self.link(act, rng)?),
            Act::DataAfterClose => ends::data_after_close(self, self.link(act, rng)?),
            Act::Linger2FinWait2 => ends::linger2_fin_wait2(self, self.link(act, rng)?),
            Act::Linger2Close => ends::linger2_close(self, self.link(act, rng)?),
            Act::SocketDestroyed => ends::destroyed(self, self.link(act, rng)?),
            Act::RaceLingerZero => ends::race_linger_zero(self, self.link(act, rng)?),
            Act::RaceData => ends::race_data(self, self.link(act, rng)?),
            Act::Passed => heirs::passed(self, rng, deed.hard),
            Act::Inherited => heirs::inherited(self, rng),
            Act::Orphaned => heirs::orphaned(self, rng, deed.hard),
            Act::Renamed => heirs::renamed(self, rng),
            Act::Shared => heirs::shared(self, rng),
            Act::ResetInQueue => heirs::reset_in_queue(self, rng),
            Act::HandshakeForsaken => heirs::handshake_forsaken(self),
            Act::Reused => crowd::reused(self, rng),
            Act::WorkerDies => crowd::worker_dies(self, rng),
            Act::ListenerClosed => crowd::listener_closed(self, rng),
            Act::ClosedPort => queues::closed_port(self, rng),
            Act::Rejected => queues::rejected(self, rng),
            Act::AcceptFull => queues::accept_full(self, rng),
            Act::AcceptRace => queues::accept_race(self, rng),
            Act::SynFlood => queues::syn_flood(self, rng),
            Act::RstEstablished
            | Act::RstCloseWait
            | Act::RstFinWait2
            | Act::RstSynSent
            | Act::RstHalfOpen
            | Act::RstIgnored
            | Act::LateAfterReset
            | Act::StrayAck
            | Act::SynInHandshake
            | Act::Forgotten => frames::begin(self, deed.act),
            Act::TimeWait => timewait::begin(self, self.link(act, rng)?, rng),
            Act::Silence => silence::begin(self, rng),
        }
    }

    /// A connection whose acting end, server process and listener are chosen by chance.
    fn link(&self, act: &'static str, rng: &mut Rng) -> Result<Link> {
        let server = rng.bool();
        let link = match rng.usize(..self.scene.workers.len() + 1) {
            0 => self.connect(act, &self.desk, &self.own, &self.cli, None)?,
            at => self.connect(act, &self.scene.desk, &self.scene.workers[at - 1], &self.cli, None)?,
        };
        Ok(if server { link } else { link.turned() })
    }

    /// A connection that `acceptor` has and that acts at the server's side. With `from` the client takes this port once more.
    fn connect(
        &self,
        act: &'static str,
        desk: &Desk,
        acceptor: &Actor,
        client: &Actor,
        from: Option<u16>,
    ) -> Result<Link> {
        let stage = &self.scene.stage;
        let server = stage.family.server(desk.port);
        let (fd, local) = match from {
            None => stage.client_socket(client)?,
            Some(port) => {
                let fd = client.socket(stage.family.wire_v6())?;
                client.set_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
                (fd, client.bind(fd, stage.family.client(port))?)
            }
        };
        let busy = desk.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let since = sys::monotonic_ns();
        client.connect(fd, server)?;
        let (accepted, remote) = acceptor.accept(desk.listener)?;
        drop(busy);
        if remote != local {
            bail!("accepted {remote} instead of {local}");
        }
        self.scene.ledger.connected();
        let near = End::new(Side::Server, acceptor, accepted, server, remote);
        let far = End::new(Side::Client, client, fd, local, server);
        Ok(Link { act, since, near, far })
    }

    /// The same for helpers that speak of connections.
    fn conn(&self, link: &Link) -> Conn {
        let (srv, cli) = match link.near.side {
            Side::Server => (&link.near, &link.far),
            Side::Client => (&link.far, &link.near),
        };
        Conn { listener: -1, srv: srv.fd, cli: cli.fd, server: srv.local, client: cli.local }
    }

    /// What has to be seen of a connection that is over.
    fn tell(&self, link: &Link, expects: Vec<Expect>) {
        self.tell_ways(link, vec![expects]);
    }

    fn tell_ways(&self, link: &Link, ways: Vec<Vec<Expect>>) {
        self.scene.tell(link.act, link.since, link.ends(), ways);
    }
}

impl Link {
    /// The other side acts.
    fn turned(self) -> Self {
        Self { near: self.far, far: self.near, ..self }
    }
}

/// Several have to be seen here and kernels before 6.10 tell of it by a hook alone, as there is no full socket.
fn without_full_socket(expect: Expect) -> Expect {
    if sys::kernel_version() < (6, 10) { expect.needs_hook() } else { expect }
}

/// A late segment meets the listener, where the socket was the server's, or nobody.
fn late(end: &End, cause: &'static str) -> Expect {
    let late = end.sends().dead().cause(cause);
    match end.side {
        Side::Server => late.state("LISTEN").reason("TCP_FLAGS"),
        Side::Client => late.state("null").reason("NO_SOCKET"),
    }
}
