//! What a scenario knows to be true about an event, in the words of the JSON contract.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use crate::actor::Actor;

/// Which of the two namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Server,
    Client,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Client => "client",
        })
    }
}

/// Who the owner of the socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Unchecked,
    Nobody,
    Is { pid: i32, comm: String },
}

/// The `listen` object; `None` is not compared.
#[derive(Clone, Debug, Default)]
pub struct Listen {
    /// Where the listener is bound.
    pub local: Option<SocketAddr>,
    pub queue: &'static str,
    pub stage: &'static str,
    pub action: &'static str,
    pub len: Option<RangeInclusive<u64>>,
    pub max: Option<u64>,
    pub backlog: Option<u64>,
    pub somaxconn: Option<u64>,
}

/// One event, or several alike. Empty lists are not compared; several entries mean that any of them is right.
#[derive(Clone, Debug)]
pub struct Expect {
    pub event: &'static str,
    pub side: Side,
    pub local: SocketAddr,
    pub remotes: Vec<SocketAddr>,
    pub times: RangeInclusive<u64>,
    /// `"null"` stands for no state.
    pub states: Vec<&'static str>,
    pub owner: Owner,
    pub hows: Vec<&'static str>,
    pub reason: Option<&'static str>,
    pub causes: Vec<&'static str>,
    /// What a host that grants tracepoints alone may say instead: it saw less of what came before.
    pub weak_causes: Vec<&'static str>,
    /// How many sockets one event stands for at most; one at least stands for all of them.
    pub sockets: Option<u64>,
    pub sites: Vec<&'static str>,
    pub listen: Option<Listen>,
    /// Used and limit of the TIME_WAIT table.
    pub timewait: Option<(u64, u64)>,
    /// Name of the task that ran, where it is the one who did it.
    pub task: Option<&'static str>,
    /// Only a hook inside a kernel function can see it: a host that grants tracepoints alone may miss it.
    pub needs_hook: bool,
    /// An RST that a connection did not obey.
    pub ignored: bool,
    /// No counter of the books knows it: the segment never passes the TCP stack, or another one counts it.
    pub outside_tcp: bool,
}

impl Expect {
    pub fn new(event: &'static str, side: Side, local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            event,
            side,
            local,
            remotes: vec![remote],
            times: 1..=1,
            states: Vec::new(),
            owner: Owner::Unchecked,
            hows: Vec::new(),
            reason: None,
            causes: Vec::new(),
            weak_causes: Vec::new(),
            sockets: None,
            sites: Vec::new(),
            listen: None,
            timewait: None,
            task: None,
            needs_hook: matches!(event, "listen_drop" | "tw_overflow"),
            ignored: false,
            outside_tcp: false,
        }
    }

    /// The server's RST on a connection.
    pub fn rst_sent(local: SocketAddr, remote: SocketAddr) -> Self {
        Self::new("rst_sent", Side::Server, local, remote)
    }

    /// An RST that reached a socket in this state of the server's or the client's.
    pub fn rst_received(side: Side, local: SocketAddr, remote: SocketAddr, state: &'static str) -> Self {
        let causes = match state {
            "SYN_SENT" => vec!["connection-refused"],
            "NEW_SYN_RECV" | "SYN_RECV" => vec!["reset-in-handshake"],
            "CLOSE_WAIT" | "LAST_ACK" | "CLOSING" => vec!["reset-after-peer-close"],
            "TIME_WAIT" => vec!["reset-in-time-wait"],
            _ => vec!["reset-by-peer"],
        };
        let seen = Self::new("rst_received", side, local, remote).state(state).causes(&causes);
        // The tracepoint fires for full sockets only.
        Self { needs_hook: matches!(state, "NEW_SYN_RECV" | "TIME_WAIT"), ..seen }
    }

    pub fn listen_drop(local: SocketAddr, remote: SocketAddr, listen: Listen) -> Self {
        Self { listen: Some(listen), ..Self::new("listen_drop", Side::Server, local, remote) }
    }

    /// A process holds so many sockets that their peers closed. It is told again and again while they are there.
    pub fn leak(local: SocketAddr, remotes: Vec<SocketAddr>) -> Self {
        const AGAIN: u64 = 1_000;
        let sockets = remotes.len() as u64;
        let first = Self::new("close_wait_leak", Side::Server, local, remotes[0]);
        // The first look may find only some of them old enough; then all are told at once.
        Self { remotes, times: sockets..=sockets * AGAIN, sockets: Some(sockets), ..first }
            .state("CLOSE_WAIT")
            .cause("close-wait-leak")
    }

    pub fn at(self, side: Side) -> Self {
        Self { side, ..self }
    }

    pub fn state(self, state: &'static str) -> Self {
        self.states(&[state])
    }

    pub fn states(self, states: &[&'static str]) -> Self {
        Self { states: states.to_vec(), ..self }
    }

    pub fn owner(self, actor: &Actor) -> Self {
        Self { owner: Owner::Is { pid: actor.pid(), comm: actor.comm().to_owned() }, ..self }
    }

    pub fn nobody(self) -> Self {
        Self { owner: Owner::Nobody, ..self }
    }

    pub fn how(self, hows: &[&'static str]) -> Self {
        Self { hows: hows.to_vec(), ..self }
    }

    /// The owner had it until the socket was closed.
    pub fn dead(self) -> Self {
        self.how(&["dead"])
    }

    pub fn reason(self, name: &'static str) -> Self {
        Self { reason: Some(name), ..self }
    }

    pub fn cause(self, id: &'static str) -> Self {
        self.causes(&[id])
    }

    pub fn causes(self, ids: &[&'static str]) -> Self {
        Self { causes: ids.to_vec(), ..self }
    }

    pub fn weakly(self, ids: &[&'static str]) -> Self {
        Self { weak_causes: ids.to_vec(), ..self }
    }

    pub fn site(self, functions: &[&'static str]) -> Self {
        Self { sites: functions.to_vec(), ..self }
    }

    pub fn task(self, comm: &'static str) -> Self {
        Self { task: Some(comm), ..self }
    }

    pub fn times(self, times: RangeInclusive<u64>) -> Self {
        Self { times, ..self }
    }

    /// Several events that differ in the peer only, and may come as one with a count.
    pub fn remotes(self, remotes: Vec<SocketAddr>) -> Self {
        let count = remotes.len() as u64;
        Self { remotes, times: count..=count, ..self }
    }

    /// It may be reported, but whoever does not is not wrong.
    pub fn maybe(self) -> Self {
        let most = *self.times.end();
        self.times(0..=most)
    }

    pub fn ignored(self) -> Self {
        Self { ignored: true, ..self }
    }

    pub fn needs_hook(self) -> Self {
        Self { needs_hook: true, ..self }
    }

    pub fn outside_tcp(self) -> Self {
        Self { outside_tcp: true, ..self }.needs_hook()
    }

    /// The kernel counter that has to grow with it.
    pub fn counter(&self) -> Option<&'static str> {
        match (self.event, &self.listen) {
            _ if self.outside_tcp => None,
            ("rst_sent", _) => Some("OutRsts"),
            ("listen_drop", Some(listen)) if listen.action != "cookie" => Some("ListenDrops"),
            ("tw_overflow", _) => Some("TCPTimeWaitOverflow"),
            _ => None,
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remote = self.remotes.first().map_or_else(String::new, ToString::to_string);
        write!(f, "{} at the {}, {} → {remote}", self.event, self.side, self.local)?;
        if self.remotes.len() > 1 {
            write!(f, " and {} more", self.remotes.len() - 1)?;
        }
        if let Some(state) = self.states.first() {
            write!(f, ", {state}")?;
        }
        if let Some(reason) = self.reason {
            write!(f, ", {reason}")?;
        }
        if let Owner::Is { pid, comm } = &self.owner {
            write!(f, ", owner {comm}/{pid}")?;
        }
        Ok(())
    }
}
