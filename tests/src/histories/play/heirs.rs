//! Whose socket it is, where that is not simply who made it: posted, inherited and orphaned sockets, renamed processes, shared ports.

use std::sync::PoisonError;

use anyhow::{Context, Result};
use fastrand::Rng;

use super::crowd::{Child, Death, PEER_RESETS, State, WAYS, finish, worker_end};
use super::{Desk, End, Player, Rest};
use crate::actor::Actor;
use crate::expect::{Expect, Side};
use crate::packet::ACK;
use crate::sys;

/// Whether the new owner reads before the end, and which end it is. No hook shows who holds a descriptor: whoever neither reads, writes
/// nor closes before the peer's RST comes is not known to tcpwatch.
fn touches(rng: &mut Rng, hard: bool) -> (bool, u8) {
    let (reads, way) = (rng.bool(), rng.u8(..WAYS));
    (reads || (way == PEER_RESETS && !hard), way)
}

pub(super) fn passed<'p>(p: &'p Player<'_>, rng: &mut Rng, hard: bool) -> Result<Rest<'p>> {
    let mut link = p.connect("passed", &p.desk, &p.own, &p.cli, None)?;
    let heir = &p.scene.heir;
    {
        let inbox = p.scene.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        p.own.post_fd(link.near.fd, &inbox.1)?;
        let fd = heir.take_fd(inbox.0)?;
        p.own.close(link.near.fd)?;
        link.near = End { actor: heir.clone(), fd, ..link.near };
    }
    let (reads, way) = touches(rng, hard);
    if reads {
        link.far.send(5)?;
        heir.recv(link.near.fd, 5)?;
    }
    Ok(Box::new(move || finish(p, &link, way)))
}

/// The child is there only while the act is at its end: it inherits copies of all sockets that its parent holds.
pub(super) fn inherited<'p>(p: &'p Player<'_>, rng: &mut Rng) -> Result<Rest<'p>> {
    let mut link = p.connect("inherited", &p.desk, &p.own, &p.cli, None)?;
    let (death, dies, way) = (Death::by_chance(rng), rng.bool(), rng.u8(..WAYS));
    Ok(Box::new(move || {
        let kid = p.own.fork("kid")?;
        p.own.close(link.near.fd)?;
        link.far.send(5)?;
        kid.recv(link.near.fd, 5)?;
        link.near.actor = kid.clone();
        if dies {
            worker_end(p, &link, if way == 0 { State::Unread } else { State::Idle }, || death.strike(&kid))
        } else {
            finish(p, &link, way)?;
            kid.exit()
        }
    }))
}

/// Who accepted is dead, and it had a child that never touched the socket.
pub(super) fn orphaned<'p>(p: &'p Player<'_>, rng: &mut Rng, hard: bool) -> Result<Rest<'p>> {
    let parent = Actor::spawn("par", &p.scene.stage.pair.server)?;
    let port = p.scene.fresh_port();
    let listener = p.scene.stage.listener(&parent, port, 4)?;
    let desk = Desk { port, listener, busy: std::sync::Mutex::default() };
    let mut link = p.connect("orphaned", &desk, &parent, &p.cli, None)?;
    let kid = parent.fork("kid")?;
    Death::by_chance(rng).strike(&parent)?;
    link.near.actor = kid.clone();
    let (reads, way) = touches(rng, hard);
    if reads {
        link.far.send(5)?;
        kid.recv(link.near.fd, 5)?;
    }
    Ok(Box::new(move || {
        finish(p, &link, way)?;
        kid.exit()
    }))
}

/// Workers take names of their own when they are at work already.
pub(super) fn renamed<'p>(p: &'p Player<'_>, rng: &mut Rng) -> Result<Rest<'p>> {
    let worker = p.scene.master.fork("one")?;
    let mut link = p.connect("renamed", &p.scene.desk, &worker, &p.cli, None)?;
    link.near.name = Some(worker.rename("two")?);
    let (reads, way) = (rng.bool(), rng.u8(..WAYS));
    if reads {
        link.far.send(5)?;
        worker.recv(link.near.fd, 5)?;
    }
    Ok(Box::new(move || {
        finish(p, &link, way)?;
        worker.exit()
    }))
}

/// Two processes share a port. The kernel chooses, and accept tells whom.
pub(super) fn shared<'p>(p: &'p Player<'_>, rng: &mut Rng) -> Result<Rest<'p>> {
    const ACT: &str = "shared-port";
    let port = p.scene.fresh_port();
    let mut doors = Vec::new();
    for actor in [&p.own, &p.scene.heir] {
        let fd = actor.socket(p.scene.stage.family.server_v6())?;
        actor.set_int(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        actor.bind(fd, p.scene.stage.family.any(port))?;
        actor.listen(fd, 8)?;
        doors.push((actor, fd));
    }
    let ways: Vec<u8> = (0..rng.u8(2..=4)).map(|_| rng.u8(..WAYS)).collect();
    let waits = rng.bool();
    Ok(Box::new(move || {
        for way in ways {
            let child = Child::connect(p, port)?;
            let door = chosen(p, &doors)?;
            let link = child.accepted(p, ACT, doors[door].0, doors[door].1)?;
            finish(p, &link, way)?;
        }
        let last = if waits { Some(Child::connect(p, port)?) } else { None };
        let door = if waits { Some(chosen(p, &doors)?) } else { None };
        for (actor, fd) in &doors {
            actor.close(*fd)?;
        }
        if let Some((child, door)) = last.zip(door) {
            child.forsaken(p, ACT, doors[door].0)?;
        }
        Ok(())
    }))
}

/// In whose queue the connection waits.
fn chosen(p: &Player<'_>, doors: &[(&Actor, i32)]) -> Result<usize> {
    let mut found = None;
    p.scene.stage.wait("one of two to have it", || {
        for (at, (actor, fd)) in doors.iter().enumerate() {
            if actor.accept_queue(*fd)? > 0 {
                found = Some(at);
            }
        }
        Ok(found.is_some())
    })?;
    found.context("nobody has it")
}

/// The client gives up before anybody accepted.
pub(super) fn reset_in_queue<'p>(p: &'p Player<'_>, rng: &mut Rng) -> Result<Rest<'p>> {
    const ACT: &str = "reset-in-queue";
    let port = p.scene.fresh_port();
    let listener = p.scene.stage.listener(&p.own, port, 4)?;
    let child = Child::connect(p, port)?;
    p.scene.stage.wait_queue(&p.own, listener, 1)?;
    let accepts = rng.bool();
    Ok(Box::new(move || {
        let (client, server) = (&child.client, child.server);
        client.actor.linger(client.fd, 0)?;
        client.close()?;
        let near = End::new(Side::Server, &p.own, -1, server, client.local);
        p.scene.wait_state(&near, None)?;
        let sent = client.sends().state("ESTABLISHED").reason("TCP_STATE").cause("linger-zero");
        let seen = vec![sent, near.gets("ESTABLISHED")];
        p.scene.tell(ACT, child.since, [server, client.local], vec![seen]);
        if accepts {
            let (fd, _) = p.own.accept(listener)?;
            p.own.close(fd)?;
        }
        p.own.close(listener)
    }))
}

/// The last step of a handshake finds the listener gone.
pub(super) fn handshake_forsaken<'p>(p: &'p Player<'_>) -> Result<Rest<'p>> {
    let port = p.scene.fresh_port();
    let listener = p.scene.stage.listener(&p.own, port, 4)?;
    let since = sys::monotonic_ns();
    let mut raw = p.scene.raw(port)?;
    raw.half_open()?;
    Ok(Box::new(move || {
        p.own.close(listener)?;
        raw.send(ACK, 0)?;
        raw.take_rst()?;
        let sent = Expect::rst_sent(raw.peer, raw.me).owner(&p.own).cause("listener-closed");
        p.scene.tell("handshake-forsaken", since, [raw.peer, raw.me], vec![vec![sent]]);
        Ok(())
    }))
}
