//! Connections that are turned away: closed ports, a firewall, full accept queues, floods of SYNs.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use fastrand::Rng;

use super::super::plan::Kind;
use super::crowd::{Child, forsaken};
use super::{CLOSED, End, GUARDED, Player, Rest, Scene, ends, without_full_socket};
use crate::actor::Actor;
use crate::expect::{Expect, Listen, Side};
use crate::packet::{ACK, SYN};
use crate::raw::Raw;
use crate::sys;

/// A connect that is refused by `near`, where nobody may be. Gives the end that tried.
fn refused(p: &Player<'_>, actor: &Actor, side: Side, to: SocketAddr) -> Result<(End, u64)> {
    let stage = &p.scene.stage;
    let (fd, local) = match side {
        Side::Client => stage.client_socket(actor)?,
        Side::Server => {
            let fd = actor.socket(stage.family.server_v6())?;
            (fd, actor.bind(fd, stage.as_dialled(stage.family.server(0)))?)
        }
    };
    let since = sys::monotonic_ns();
    let dialled = if side == Side::Server { stage.as_dialled(to) } else { to };
    let errno = actor.connect_fails(fd, dialled)?;
    if errno != libc::ECONNREFUSED {
        bail!("connect ended with errno {errno} instead of ECONNREFUSED");
    }
    actor.close(fd)?;
    Ok((End::new(side, actor, fd, local, to), since))
}

fn other(side: Side) -> Side {
    match side {
        Side::Server => Side::Client,
        Side::Client => Side::Server,
    }
}

pub(super) fn closed_port<'p>(p: &'p Player<'_>, rng: &mut Rng) -> Result<Rest<'p>> {
    let port = CLOSED + rng.u16(..50);
    let server = rng.bool();
    Ok(Box::new(move || {
        let family = p.scene.stage.family;
        let (actor, side, to) = if server {
            (&p.cli, Side::Client, family.server(port))
        } else {
            (&p.own, Side::Server, family.client(port))
        };
        let (end, since) = refused(p, actor, side, to)?;
        let sent = Expect::rst_sent(to, end.local).at(other(side)).state("null").nobody();
        let sent = without_full_socket(sent.reason("NO_SOCKET").cause("closed-port"));
        p.scene.tell("closed-port", since, [to, end.local], vec![vec![sent, end.gets("SYN_SENT")]]);
        Ok(())
    }))
}

pub(super) fn rejected<'p>(p: &'p Player<'_>, rng: &mut Rng) -> Result<Rest<'p>> {
    let listening = rng.bool();
    if !p.scene.guarded {
        return Ok(Box::new(|| Ok(())));
    }
    Ok(Box::new(move || {
        let to = p.scene.stage.family.server(GUARDED + u16::from(listening));
        let (end, since) = refused(p, &p.cli, Side::Client, to)?;
        let sent = Expect::rst_sent(to, end.local).cause("firewall-reject").outside_tcp();
        let sent = if listening { sent.owner(&p.scene.master) } else { sent.nobody().state("null") };
        p.scene.tell("rejected", since, [to, end.local], vec![vec![sent, end.gets("SYN_SENT")]]);
        Ok(())
    }))
}

impl Scene<'_> {
    /// So many more drops are about to happen.
    fn announce_drops(&self, count: usize) {
        self.drops.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Waits until the kernel counted every drop that any player announced so far.
    fn wait_drops(&self) -> Result<()> {
        self.stage.wait_counter(Side::Server, "ListenDrops", self.drops.load(Ordering::Relaxed))
    }

    fn raw_state(&self, raw: &Raw) -> Result<Option<&'static str>> {
        self.stage.state(Side::Server, raw.peer.port(), raw.me.port())
    }
}

fn queue(queue: &'static str, stage: &'static str, action: &'static str, len: u64, backlog: u64) -> Listen {
    let (max, backlog) = (Some(backlog), Some(backlog));
    Listen { local: None, queue, stage, action, len: Some(len..=len), max, backlog, somaxconn: Some(4096) }
}

pub(super) fn accept_full<'p>(p: &'p Player<'_>, rng: &mut Rng) -> Result<Rest<'p>> {
    const ACT: &str = "accept-full";
    let port = p.scene.fresh_port();
    let backlog = rng.i32(1..=3);
    let listener = p.scene.stage.listener(&p.own, port, backlog)?;
    let mut children = Vec::new();
    // The queue holds one more than the backlog.
    for len in 1..=backlog + 1 {
        children.push(Child::connect(p, port)?);
        p.scene.stage.wait_queue(&p.own, listener, len)?;
    }
    let late = rng.usize(1..=3);
    let taken = rng.usize(..=children.len());
    Ok(Box::new(move || {
        p.scene.announce_drops(late);
        let mut raws = Vec::new();
        for _ in 0..late {
            let since = sys::monotonic_ns();
            let mut raw = p.scene.raw(port)?;
            raw.send(SYN, 0)?;
            raws.push((raw, since));
        }
        p.scene.wait_drops()?;
        let len = u64::try_from(backlog)?;
        for (raw, since) in raws {
            let drop = Expect::listen_drop(raw.peer, raw.me, queue("accept", "syn", "dropped", len + 1, len));
            let drop = drop.owner(&p.own).cause("accept-queue-full");
            p.scene.tell(ACT, since, [raw.peer, raw.me], vec![vec![drop]]);
        }
        let rest = children.split_off(taken);
        let mut links = Vec::new();
        for child in children {
            links.push(child.accepted(p, ACT, &p.own, listener)?);
        }
        p.own.close(listener)?;
        for child in rest {
            child.forsaken(p, ACT, &p.own)?;
        }
        for link in links {
            ends::close_both(p, &link)?;
        }
        Ok(())
    }))
}

/// A raw peer that was let in, and whose listener goes.
fn tell_forsaken(
    p: &Player<'_>,
    act: &'static str,
    raw: &Raw,
    since: u64,
    before: Vec<Expect>,
) -> Result<()> {
    raw.take_rst()?;
    let mut seen = before;
    seen.push(forsaken(raw.peer, raw.me, &p.own));
    p.scene.tell(act, since, [raw.peer, raw.me], vec![seen]);
    Ok(())
}

pub(super) fn accept_race<'p>(p: &'p Player<'_>, rng: &mut Rng) -> Result<Rest<'p>> {
    const ACT: &str = "accept-race";
    /// With this backlog the handshakes below are no flood, to which cookies would be the answer.
    const BACKLOG: usize = 4;
    let port = p.scene.fresh_port();
    let listener = p.scene.stage.listener(&p.own, port, BACKLOG as i32)?;
    let late = rng.usize(2..=3);
    let mut raws = Vec::new();
    for at in 0..BACKLOG + late {
        let since = sys::monotonic_ns();
        let mut raw = p.scene.raw(port)?;
        raw.half_open()?;
        if at < BACKLOG {
            raw.send(ACK, 0)?;
            p.scene.ledger.connected();
            p.scene.stage.wait_queue(&p.own, listener, i32::try_from(at)? + 1)?;
        }
        raws.push((raw, since));
    }
    let abort = p.scene.world.kind == Kind::Strict;
    Ok(Box::new(move || {
        // One place is left.
        p.scene.announce_drops(late - 1);
        for (raw, _) in &mut raws[BACKLOG..] {
            raw.send(ACK, 0)?;
        }
        p.scene.wait_drops()?;
        p.scene.stage.wait_queue(&p.own, listener, BACKLOG as i32 + 1)?;
        let mut inside = Vec::new();
        for (raw, since) in raws {
            if p.scene.raw_state(&raw)? == Some("ESTABLISHED") {
                inside.push((raw, since));
                continue;
            }
            let (len, action) = (BACKLOG as u64, if abort { "reset" } else { "dropped" });
            let full = queue("accept", "ack", action, len + 1, len);
            let drop = Expect::listen_drop(raw.peer, raw.me, full).owner(&p.own).cause("accept-queue-full");
            let mut seen = vec![drop];
            if abort {
                raw.take_rst()?;
                let sent = Expect::rst_sent(raw.peer, raw.me).owner(&p.own);
                seen.push(sent.state("NEW_SYN_RECV").reason("INVALID_SYN").cause("accept-queue-overflow"));
            }
            p.scene.tell(ACT, since, [raw.peer, raw.me], vec![seen]);
        }
        p.own.close(listener)?;
        for (raw, since) in &inside {
            tell_forsaken(p, ACT, raw, *since, Vec::new())?;
        }
        Ok(())
    }))
}

/// SYNs that nobody follows up. With cookies some of their senders turn out to be honest.
pub(super) fn syn_flood<'p>(p: &'p Player<'_>, rng: &mut Rng) -> Result<Rest<'p>> {
    const ACT: &str = "syn-flood";
    const BACKLOG: u64 = 2;
    let port = p.scene.fresh_port();
    let listener = p.scene.stage.listener(&p.own, port, BACKLOG as i32)?;
    let count = rng.usize(5..=8);
    let honest = rng.usize(..=2);
    let cookies = p.scene.world.kind != Kind::Strict;
    Ok(Box::new(move || {
        let before = p.scene.stage.growth(Side::Server, "ListenDrops")?;
        let mut raws = Vec::new();
        for _ in 0..count {
            let since = sys::monotonic_ns();
            let mut raw = p.scene.raw(port)?;
            if cookies {
                // The answer is there when the kernel has decided.
                raw.half_open()?;
            } else {
                raw.send(SYN, 0)?;
            }
            raws.push((raw, since));
        }
        let waiting = |raw: &Raw| Ok::<_, anyhow::Error>(p.scene.raw_state(raw)? == Some("SYN_RECV"));
        if !cookies {
            p.scene.stage.wait("every SYN to be taken or dropped", || {
                let mut taken = 0;
                for (raw, _) in &raws {
                    taken += usize::from(waiting(raw)?);
                }
                let dropped = p.scene.stage.growth(Side::Server, "ListenDrops")? - before;
                Ok(taken + usize::try_from(dropped)? == count)
            })?;
        }
        let mut turned = Vec::new();
        for (raw, since) in raws {
            if waiting(&raw)? {
                p.scene.tell(ACT, since, [raw.peer, raw.me], vec![Vec::new()]);
            } else {
                turned.push((raw, since));
            }
        }
        if turned.is_empty() {
            bail!("{count} SYNs did not fill a queue of {BACKLOG}");
        }
        let action = if cookies { "cookie" } else { "dropped" };
        // Kernels differ by one in how many they take.
        let full = Listen { len: Some(BACKLOG..=BACKLOG + 1), ..queue("syn", "syn", action, 0, BACKLOG) };
        let cause = if cookies { "syn-cookies-sent" } else { "syn-queue-full" };
        if !cookies {
            p.scene.announce_drops(turned.len());
        }
        let mut inside = Vec::new();
        for (mut raw, since) in turned {
            let seen = Expect::listen_drop(raw.peer, raw.me, full.clone()).owner(&p.own).cause(cause);
            if cookies && inside.len() < honest {
                raw.send(ACK, 0)?;
                p.scene.ledger.connected();
                inside.push((raw, since, seen));
                p.scene.stage.wait_queue(&p.own, listener, i32::try_from(inside.len())?)?;
            } else {
                p.scene.tell(ACT, since, [raw.peer, raw.me], vec![vec![seen]]);
            }
        }
        p.own.close(listener)?;
        for (raw, since, seen) in inside {
            tell_forsaken(p, ACT, &raw, since, vec![seen])?;
        }
        Ok(())
    }))
}
