//! The stage of one scenario: its namespaces, its actors, what it expects, and the waiting for it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::actor::Actor;
use crate::counters::{Counters, socket_state};
use crate::expect::{Expect, Side};
use crate::judge::BOOKS;
use crate::net::{Family, Netns, Pair, RAW};
use crate::raw::Raw;
use crate::sys;

/// The port of every listener. One number in all namespaces: whoever mixes namespaces up is found out.
pub const PORT: u16 = 8080;

/// No wait takes longer. Emulated machines are slow; a real failure may take its time to be seen.
const LIMIT: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(20);
/// After the act: time for a second event that should not be there.
const CALM: Duration = Duration::from_millis(250);

/// Why a scenario cannot be played on this kernel at all.
#[derive(Debug)]
pub struct NotHere(pub String);

impl fmt::Display for NotHere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotHere {}

pub fn not_here(why: impl Into<String>) -> anyhow::Error {
    NotHere(why.into()).into()
}

/// Holds early scenarios until tcpwatch watches, and the rest to a number that the machine can bear.
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

struct GateState {
    /// Early scenarios that have not yet come to the point where tcpwatch has to watch.
    preparing: usize,
    open: bool,
    free: usize,
}

impl Gate {
    pub fn new(early: usize, slots: usize) -> Self {
        let state = GateState { preparing: early, open: false, free: slots };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn wait_until(&self, ready: impl Fn(&GateState) -> bool, then: impl FnOnce(&mut GateState)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !ready(&state) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        then(&mut state);
        self.changed.notify_all();
    }

    /// An early scenario is prepared, or will never be.
    pub fn prepared(&self) {
        self.wait_until(|_| true, |state| state.preparing = state.preparing.saturating_sub(1));
    }

    pub fn wait_prepared(&self) {
        self.wait_until(|state| state.preparing == 0, |_| ());
    }

    pub fn open(&self) {
        self.wait_until(|_| true, |state| state.open = true);
    }

    pub fn enter(&self) {
        self.wait_until(|state| state.free > 0, |state| state.free -= 1);
    }

    pub fn leave(&self) {
        self.wait_until(|_| true, |state| state.free += 1);
    }

    fn wait_open(&self) {
        self.wait_until(|state| state.open, |_| ());
    }
}

/// A connection between two actors: descriptors and addresses of both ends.
#[derive(Clone, Copy)]
pub struct Conn {
    pub listener: i32,
    pub srv: i32,
    pub cli: i32,
    pub server: SocketAddr,
    pub client: SocketAddr,
}

/// Everything that one scenario needs for one address family.
pub struct Stage<'a> {
    pub family: Family,
    pub pair: Pair,
    gate: &'a Gate,
    early: bool,
    actors: Vec<Actor>,
    pub expects: Vec<Expect>,
    /// Causes that kernels unlike this one lead to.
    others: Vec<&'static str>,
    counters: Vec<(Side, &'static str, u64)>,
    before: [Counters; 2],
    /// Kernel time from which on events are ours.
    pub since: u64,
}

impl<'a> Stage<'a> {
    pub fn new(family: Family, gate: &'a Gate, early: bool) -> Result<Self> {
        let pair = Pair::new()?;
        let before = [pair.server.counters()?, pair.client.counters()?];
        let (actors, expects, others, counters) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let since = sys::monotonic_ns();
        Ok(Self { family, pair, gate, early, actors, expects, others, counters, before, since })
    }

    /// From here on tcpwatch watches; what came before it has not seen. Only for early scenarios.
    pub fn tcpwatch_starts(&mut self) -> Result<()> {
        if !self.early {
            bail!("this scenario is not listed as early");
        }
        self.early = false;
        self.gate.prepared();
        self.gate.leave();
        self.gate.wait_open();
        self.gate.enter();
        self.before = [self.pair.server.counters()?, self.pair.client.counters()?];
        self.since = sys::monotonic_ns();
        Ok(())
    }

    /// The scenario ended before it came to that point.
    pub fn early_is_over(&mut self) {
        if std::mem::take(&mut self.early) {
            self.gate.prepared();
        }
    }

    pub fn netns(&self, side: Side) -> &Netns {
        match side {
            Side::Server => &self.pair.server,
            Side::Client => &self.pair.client,
        }
    }

    fn actor(&mut self, role: &str, side: Side) -> Result<Actor> {
        let actor = Actor::spawn(role, self.netns(side))?;
        self.actors.push(actor.clone());
        Ok(actor)
    }

    pub fn server(&mut self, role: &str) -> Result<Actor> {
        self.actor(role, Side::Server)
    }

    pub fn client(&mut self, role: &str) -> Result<Actor> {
        self.actor(role, Side::Client)
    }

    pub fn both(&mut self) -> Result<(Actor, Actor)> {
        Ok((self.server("srv")?, self.client("cli")?))
    }

    /// The same for those who hold them as long as they need them.
    pub fn both_now(&self) -> Result<(Actor, Actor)> {
        Ok((Actor::spawn("srv", &self.pair.server)?, Actor::spawn("cli", &self.pair.client)?))
    }

    /// Keeps an actor until the end, so that its exit is not part of what is watched.
    pub fn keep(&mut self, actor: &Actor) {
        self.actors.push(actor.clone());
    }

    /// A listener of `actor` on all addresses.
    pub fn listener(&self, actor: &Actor, port: u16, backlog: i32) -> Result<i32> {
        self.listener_at(actor, self.family.any(port), backlog)
    }

    /// The same on one address.
    pub fn listener_at(&self, actor: &Actor, at: SocketAddr, backlog: i32) -> Result<i32> {
        let fd = actor.socket(self.family.server_v6())?;
        actor.set_int(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        actor.bind(fd, at)?;
        actor.listen(fd, backlog)?;
        Ok(fd)
    }

    /// A bound socket of the client, and its address.
    pub fn client_socket(&self, cli: &Actor) -> Result<(i32, SocketAddr)> {
        let fd = cli.socket(self.family.wire_v6())?;
        let addr = cli.bind(fd, self.family.client(0))?;
        Ok((fd, addr))
    }

    /// The client connects; nobody accepts yet.
    pub fn connect(&self, cli: &Actor) -> Result<(i32, SocketAddr)> {
        let (fd, addr) = self.client_socket(cli)?;
        cli.connect(fd, self.family.server(PORT))?;
        Ok((fd, addr))
    }

    /// A connection on a listener that is there already.
    pub fn connection(&self, srv: &Actor, listener: i32, cli: &Actor) -> Result<Conn> {
        let (fd, client) = self.connect(cli)?;
        let (accepted, remote) = srv.accept(listener)?;
        if remote != client {
            bail!("accepted {remote} instead of {client}");
        }
        Ok(Conn { listener, srv: accepted, cli: fd, server: self.family.server(PORT), client })
    }

    /// A listener and a connection on it.
    pub fn connected(&self, srv: &Actor, cli: &Actor) -> Result<Conn> {
        let listener = self.listener(srv, PORT, 16)?;
        self.connection(srv, listener, cli)
    }

    /// Server and client, connected.
    pub fn play(&mut self) -> Result<(Actor, Actor, Conn)> {
        let (srv, cli) = self.both()?;
        let conn = self.connected(&srv, &cli)?;
        Ok((srv, cli, conn))
    }

    /// A raw peer of the server; `number` gives it a port of its own.
    pub fn raw(&self, number: u16) -> Result<Raw> {
        let me = SocketAddr::new(self.family.addr(RAW), 20_000 + number);
        Raw::new(&self.pair.client, me, self.family.server(PORT))
    }

    /// A server that accepted a raw peer's connection.
    pub fn raw_client(&mut self) -> Result<(Actor, i32, i32, Raw)> {
        let srv = self.server("srv")?;
        let listener = self.listener(&srv, PORT, 16)?;
        let mut raw = self.raw(0)?;
        raw.open()?;
        let (fd, _) = srv.accept(listener)?;
        Ok((srv, listener, fd, raw))
    }

    /// A process in the server's namespace that sent a SYN to a raw peer, which has not looked yet.
    pub fn connecting(&mut self) -> Result<(Actor, i32, SocketAddr, Raw)> {
        let actor = self.server("con")?;
        let mut raw = self.raw(0)?;
        raw.peer.set_port(0);
        let fd = actor.socket(self.family.server_v6())?;
        actor.connect_start(fd, self.as_dialled(raw.me))?;
        let local = actor.local(fd)?;
        Ok((actor, fd, local, raw))
    }

    /// An address as the server's sockets have to be told it: IPv6 sockets take IPv4 addresses in a dress of theirs.
    pub fn as_dialled(&self, addr: SocketAddr) -> SocketAddr {
        match addr {
            SocketAddr::V4(v4) if self.family == Family::Mapped => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            other => other,
        }
    }

    /// `ss -K` in a namespace.
    pub fn ss_destroy(&self, side: Side, filter: &[&str]) -> Result<()> {
        let args = [&["-K", "-t", "-n"], filter].concat();
        match self.netns(side).run("ss", &args, "") {
            Err(error) if format!("{error:#}").contains("not supported") => {
                Err(not_here("this kernel cannot destroy sockets (INET_DIAG_DESTROY)"))
            }
            other => other.map(drop),
        }
    }

    /// A firewall that refuses connections to this port, or set of ports, in the name of the server.
    pub fn reject(&self, ports: &str) -> Result<()> {
        let rules = format!(
            "add table inet guard\n\
             add chain inet guard input {{ type filter hook input priority 0; }}\n\
             add rule inet guard input tcp dport {ports} reject with tcp reset\n"
        );
        self.pair.server.run("nft", &["-f", "-"], &rules).map(drop).map_err(|error| {
            let text = format!("{error:#}");
            // Anything else would be a fault of ours, which must not pass as a lack of the kernel.
            if ["starting nft", "not supported", "No such file"].iter().any(|lack| text.contains(lack)) {
                return not_here(format!("no nftables with reject here: {text}"));
            }
            error
        })
    }

    pub fn expect(&mut self, mut expect: Expect) {
        let any = self.family.any(expect.local.port());
        if let Some(listen) = &mut expect.listen {
            listen.local.get_or_insert(any);
        }
        self.expects.push(expect);
    }

    /// Other kernels do something else, for which these causes are named.
    pub fn others_name(&mut self, causes: &[&'static str]) {
        self.others.extend(causes);
    }

    /// Holds the causes that the scenario declares against those that it came to expect. Where several would do, or
    /// an event may be missing, none is sure to have been provoked.
    pub fn hold_causes(&self, declared: &[&'static str]) -> Result<()> {
        let sure = self.expects.iter().filter(|one| *one.times.start() > 0 && one.causes.len() == 1);
        let expected: BTreeSet<&str> =
            sure.flat_map(|one| &one.causes).chain(&self.others).copied().collect();
        let declared: BTreeSet<&str> = declared.iter().copied().collect();
        if expected != declared {
            bail!("it declares the causes {declared:?}, and expects {expected:?}");
        }
        Ok(())
    }

    /// The RST of the server reaches the client's socket, which is in this state.
    pub fn client_gets(&mut self, cli: &Actor, conn: &Conn, state: &'static str) {
        self.expect(Expect::rst_received(Side::Client, conn.client, conn.server, state).owner(cli));
    }

    /// A counter of the kernel has to grow by exactly this.
    pub fn counts(&mut self, side: Side, name: &'static str, growth: u64) {
        self.counters.push((side, name, growth));
    }

    pub fn growth(&self, side: Side, name: &str) -> Result<u64> {
        Ok(self.netns(side).counters()?.since(&self.before[side as usize], name))
    }

    /// Polls until `ready`; an error says what was waited for and how the kernel's books stand.
    pub fn wait(&self, what: &str, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while !ready()? {
            if Instant::now() > end {
                bail!("waited in vain for {what}");
            }
            sleep(PAUSE);
        }
        Ok(())
    }

    /// How the kernel's counters stand, for messages.
    pub fn books(&self) -> Result<String> {
        let grown = |side: Side| {
            Ok::<_, anyhow::Error>(self.netns(side).counters()?.grown(&self.before[side as usize]))
        };
        Ok(format!("server: {}; client: {}", grown(Side::Server)?, grown(Side::Client)?))
    }

    pub fn wait_counter(&self, side: Side, name: &str, growth: u64) -> Result<()> {
        self.wait(&format!("{name}+{growth} at the {side}"), || Ok(self.growth(side, name)? >= growth))
    }

    /// The state in which the kernel lists the socket with these ports; `None` when it is gone.
    pub fn state(&self, side: Side, local: u16, remote: u16) -> Result<Option<&'static str>> {
        let netns = self.netns(side);
        let v4 = socket_state(&netns.proc_net("tcp")?, local, remote);
        if v4.is_some() {
            return Ok(v4);
        }
        Ok(socket_state(&netns.proc_net("tcp6").unwrap_or_default(), local, remote))
    }

    pub fn wait_state(&self, side: Side, local: u16, remote: u16, state: Option<&str>) -> Result<()> {
        let what = format!("{local} → {remote} of the {side} to be {}", state.unwrap_or("gone"));
        self.wait(&what, || Ok(self.state(side, local, remote)? == state))
    }

    pub fn server_state(&self, conn: &Conn, state: Option<&str>) -> Result<()> {
        self.wait_state(Side::Server, conn.server.port(), conn.client.port(), state)
    }

    pub fn client_state(&self, conn: &Conn, state: Option<&str>) -> Result<()> {
        self.wait_state(Side::Client, conn.client.port(), conn.server.port(), state)
    }

    /// The server's end of a raw peer's connection.
    pub fn raw_state(&self, raw: &Raw, state: Option<&str>) -> Result<()> {
        self.wait_state(Side::Server, raw.peer.port(), raw.me.port(), state)
    }

    /// Waits until so many bytes can be read.
    pub fn wait_unread(&self, actor: &Actor, fd: i32, len: i32) -> Result<()> {
        self.wait(&format!("{len} unread bytes"), || Ok(actor.unread(fd)? >= len))
    }

    pub fn wait_queue(&self, actor: &Actor, listener: i32, len: i32) -> Result<()> {
        self.wait(&format!("{len} waiting for accept"), || Ok(actor.accept_queue(listener)? >= len))
    }

    /// The least and the most that each counter of the books may have grown on one side.
    fn due(&self, side: Side) -> [(u64, u64); 3] {
        BOOKS.map(|name| {
            let ours = self.expects.iter().filter(|one| one.side == side && one.counter() == Some(name));
            ours.fold((0, 0), |sum, one| (sum.0 + one.times.start(), sum.1 + one.times.end()))
        })
    }

    /// The act is over: the kernel's counters must come to show it, and nothing more than it.
    pub fn settle(&mut self) -> Result<[[u64; 3]; 2]> {
        let both = [Side::Server, Side::Client];
        let reached = || -> Result<bool> {
            for side in both {
                let now = self.netns(side).counters()?;
                let before = &self.before[side as usize];
                let short = |name: &str, growth: u64| now.since(before, name) < growth;
                if BOOKS.iter().zip(self.due(side)).any(|(name, (least, _))| short(name, least))
                    || self.counters.iter().any(|(at, name, growth)| *at == side && short(name, *growth))
                {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let end = Instant::now() + LIMIT;
        while !reached()? && Instant::now() < end {
            sleep(PAUSE);
        }
        sleep(CALM);
        let mut wrong = Vec::new();
        let mut kernel = [[0; 3]; 2];
        for side in both {
            let now = self.netns(side).counters()?;
            let before = &self.before[side as usize];
            for (at, (name, (least, most))) in BOOKS.iter().zip(self.due(side)).enumerate() {
                let growth = now.since(before, name);
                kernel[side as usize][at] = growth;
                if growth < least || growth > most {
                    wrong.push(format!("{name} of the {side} grew by {growth}, not by {least}..{most}"));
                }
            }
            for (_, name, growth) in self.counters.iter().filter(|(at, _, _)| *at == side) {
                let got = now.since(before, name);
                if got != *growth {
                    wrong.push(format!("{name} of the {side} grew by {got}, not by {growth}"));
                }
            }
        }
        if !wrong.is_empty() {
            bail!("it did not happen as planned: {}", wrong.join("; "));
        }
        Ok(kernel)
    }

    /// Ends the actors; what their exit causes is nobody's business any more.
    pub fn dismiss(&mut self) {
        self.actors.clear();
    }
}
