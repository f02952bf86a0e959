//! Whose socket it is, where that is not simply who made it: workers, siblings, passed and inherited descriptors.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{ALL, PLAIN, PORT, Scenario, scenario};
use crate::actor::Actor;
use crate::expect::{Expect, Listen, Side};
use crate::packet::{ACK, RST, SYN};
use crate::stage::{Conn, Stage, not_here};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario(
        "connect-owner",
        "the connecting side resets: the owner is who connected",
        PLAIN,
        &["close-with-unread-data", "reset-by-peer"],
        connect_owner,
    ),
    scenario(
        "prefork",
        "a master listens, each of two workers accepts and resets",
        PLAIN,
        &["close-with-unread-data", "reset-by-peer"],
        prefork,
    ),
    scenario(
        "fork-inherit",
        "the parent accepts, its child uses the socket",
        PLAIN,
        &["close-with-unread-data", "reset-by-peer"],
        fork_inherit,
    ),
    scenario(
        "scm-rights",
        "a socket passed on to another process, which reads and closes",
        PLAIN,
        &["close-with-unread-data", "reset-by-peer"],
        scm_rights,
    ),
    scenario(
        "scm-rights-close",
        "the same, and the other process only closes",
        PLAIN,
        &["linger-zero", "reset-by-peer"],
        scm_rights_close,
    ),
    scenario(
        "reuseport",
        "two processes share a port, each resets what it accepted",
        PLAIN,
        &["close-with-unread-data", "reset-by-peer"],
        reuseport,
    ),
    scenario(
        "reuseport-migrated",
        "a sibling inherits what waits at a closed listener, and closes too",
        PLAIN,
        &["listener-closed", "reset-by-peer"],
        reuseport_migrated,
    ),
    scenario(
        "reuseport-drop",
        "the one of two siblings with the full queue turns away",
        PLAIN,
        &["accept-queue-full", "stray-segment-to-listener"],
        reuseport_drop,
    ),
    scenario(
        "close-wait-leak",
        "a process does not close what its peers closed",
        ALL,
        &["close-wait-leak"],
        close_wait_leak,
    ),
];

/// The server resets by closing with unread data.
fn unread(s: &mut Stage, conn: &Conn, owner: &Actor, cli: &Actor) -> Result<()> {
    cli.send(conn.cli, 10)?;
    s.wait_unread(owner, conn.srv, 10)?;
    owner.close(conn.srv)?;
    cli.error(conn.cli)?;
    expect_unread(s, conn, owner, cli);
    Ok(())
}

fn expect_unread(s: &mut Stage, conn: &Conn, owner: &Actor, cli: &Actor) {
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("ESTABLISHED")
            .owner(owner)
            .reason("TCP_ABORT_ON_CLOSE")
            .cause("close-with-unread-data"),
    );
    s.client_gets(cli, conn, "ESTABLISHED");
}

fn connect_owner(s: &mut Stage) -> Result<()> {
    let (srv, cli, conn) = s.play()?;
    srv.send(conn.srv, 10)?;
    s.wait_unread(&cli, conn.cli, 10)?;
    cli.close(conn.cli)?;
    srv.error(conn.srv)?;
    s.expect(
        Expect::rst_sent(conn.client, conn.server)
            .at(Side::Client)
            .state("ESTABLISHED")
            .owner(&cli)
            .how(&["connect", "io"])
            .reason("TCP_ABORT_ON_CLOSE")
            .cause("close-with-unread-data"),
    );
    s.expect(Expect::rst_received(Side::Server, conn.server, conn.client, "ESTABLISHED").owner(&srv));
    Ok(())
}

fn prefork(s: &mut Stage) -> Result<()> {
    let (master, cli) = s.both()?;
    let listener = s.listener(&master, PORT, 16)?;
    for role in ["one", "two"] {
        let worker = master.fork(role)?;
        s.keep(&worker);
        let conn = s.connection(&worker, listener, &cli)?;
        unread(s, &conn, &worker, &cli)?;
    }
    Ok(())
}

fn fork_inherit(s: &mut Stage) -> Result<()> {
    let (parent, cli, conn) = s.play()?;
    let child = parent.fork("kid")?;
    s.keep(&child);
    parent.close(conn.srv)?;
    cli.send(conn.cli, 5)?;
    child.recv(conn.srv, 5)?;
    unread(s, &conn, &child, &cli)
}

/// A socket that `first` accepted now belongs to `second` alone.
fn pass(s: &mut Stage) -> Result<(Actor, Actor, Conn)> {
    let (first, cli, mut conn) = s.play()?;
    let second = s.server("snd")?;
    let (inbox, name) = second.inbox()?;
    first.post_fd(conn.srv, &name)?;
    let passed = second.take_fd(inbox)?;
    first.close(conn.srv)?;
    conn.srv = passed;
    Ok((second, cli, conn))
}

fn scm_rights(s: &mut Stage) -> Result<()> {
    let (second, cli, conn) = pass(s)?;
    cli.send(conn.cli, 5)?;
    second.recv(conn.srv, 5)?;
    unread(s, &conn, &second, &cli)
}

fn scm_rights_close(s: &mut Stage) -> Result<()> {
    let (second, cli, conn) = pass(s)?;
    second.linger(conn.srv, 0)?;
    second.close(conn.srv)?;
    cli.error(conn.cli)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("ESTABLISHED")
            .owner(&second)
            .reason("TCP_STATE")
            .cause("linger-zero"),
    );
    s.client_gets(&cli, &conn, "ESTABLISHED");
    Ok(())
}

fn shared_listener(s: &Stage, actor: &Actor, backlog: i32) -> Result<i32> {
    let fd = actor.socket(s.family.server_v6())?;
    actor.set_int(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    actor.bind(fd, s.family.any(PORT))?;
    actor.listen(fd, backlog)?;
    Ok(fd)
}

/// The kernel chooses by a hash of the addresses; who really got a connection is asked by accept.
fn reuseport(s: &mut Stage) -> Result<()> {
    let (one, cli) = s.both()?;
    let two = s.server("sib")?;
    let listeners =
        [(one.clone(), shared_listener(s, &one, 64)?), (two.clone(), shared_listener(s, &two, 64)?)];
    let mut accepted = [0, 0];
    // With so many, the chance that one gets all of them is one in 32,768.
    for _ in 0..16 {
        let (fd, client) = s.connect(&cli)?;
        let mut taken = None;
        s.wait("one of two to accept", || {
            for (at, (actor, listener)) in listeners.iter().enumerate() {
                if let Some((srv, remote)) = actor.accept_if_any(*listener)? {
                    if remote != client {
                        bail!("accepted {remote} instead of {client}");
                    }
                    taken = Some((at, srv));
                }
            }
            Ok(taken.is_some())
        })?;
        let (at, srv) = taken.context("nobody accepted")?;
        accepted[at] += 1;
        let (owner, listener) = &listeners[at];
        let conn = Conn { listener: *listener, srv, cli: fd, server: s.family.server(PORT), client };
        unread(s, &conn, owner, &cli)?;
    }
    if accepted.contains(&0) {
        bail!("one of the two listeners got no connection: {accepted:?}");
    }
    Ok(())
}

/// With `tcp_migrate_req` no connection is lost when the first of them closes.
fn reuseport_migrated(s: &mut Stage) -> Result<()> {
    // Releases of 5.10 have the setting, to no effect.
    if crate::sys::kernel_version() < (5, 14) {
        return Err(not_here("this kernel moves no connection from one listener to another (before 5.14)"));
    }
    s.pair.server.sysctl("ipv4/tcp_migrate_req", "1")?;
    let (one, cli) = s.both()?;
    let two = s.server("sib")?;
    let listeners = [shared_listener(s, &one, 64)?, shared_listener(s, &two, 64)?];
    let mut children = Vec::new();
    for _ in 0..16 {
        children.push(s.connect(&cli)?);
    }
    s.wait("16 waiting for accept", || {
        Ok(one.accept_queue(listeners[0])? + two.accept_queue(listeners[1])? == 16)
    })?;
    one.close(listeners[0])?;
    s.wait_queue(&two, listeners[1], 16)?;
    two.close(listeners[1])?;
    let server = s.family.server(PORT);
    for (fd, client) in children {
        cli.error(fd)?;
        s.expect(
            Expect::rst_sent(server, client)
                .state("ESTABLISHED")
                .owner(&two)
                .reason("TCP_STATE")
                .cause("listener-closed"),
        );
        s.expect(Expect::rst_received(Side::Client, client, server, "ESTABLISHED").owner(&cli));
    }
    Ok(())
}

/// One sibling has room for one connection, the other for many: who turns a SYN away is no question. The same
/// addresses then lead a stray ACK to the same sibling.
fn reuseport_drop(s: &mut Stage) -> Result<()> {
    let wide = s.server("wid")?;
    let narrow = s.server("nar")?;
    shared_listener(s, &wide, 64)?;
    shared_listener(s, &narrow, 0)?;
    for number in 0..64 {
        let mut raw = s.raw(number)?;
        raw.send(SYN, 0)?;
        let mut answer = None;
        s.wait("an answer or a drop", || {
            answer = raw.next(Duration::from_millis(20), |seen| seen.flags & SYN != 0)?;
            Ok(answer.is_some() || s.growth(Side::Server, "ListenDrops")? > 0)
        })?;
        if let Some(answer) = answer {
            raw.ack = answer.seq.wrapping_add(1);
            raw.send(ACK, 0)?;
            let (me, peer) = (raw.me.port(), raw.peer.port());
            s.wait_state(Side::Server, peer, me, Some("ESTABLISHED"))?;
            continue;
        }
        let full = Listen {
            local: None,
            queue: "accept",
            stage: "syn",
            action: "dropped",
            len: Some(1..=1),
            max: Some(0),
            ..Listen::default()
        };
        s.expect(Expect::listen_drop(raw.peer, raw.me, full).owner(&narrow).cause("accept-queue-full"));
        raw.inject(&raw.segment(ACK, 0))?;
        raw.expect("RST", |seen| seen.flags & RST != 0)?;
        s.expect(
            Expect::rst_sent(raw.peer, raw.me)
                .state("LISTEN")
                .owner(&narrow)
                .reason("TCP_FLAGS")
                .cause("stray-segment-to-listener"),
        );
        return Ok(());
    }
    bail!("64 connections and none met the narrow listener twice")
}

/// Three connections that the client closes and the server keeps; their server's end, and the clients' ends.
pub(super) fn half_closed(s: &Stage, srv: &Actor, cli: &Actor) -> Result<(SocketAddr, Vec<SocketAddr>)> {
    let listener = s.listener(srv, PORT, 16)?;
    let conns = [0; 3].map(|_| s.connection(srv, listener, cli));
    let conns = conns.into_iter().collect::<Result<Vec<Conn>>>()?;
    for conn in &conns {
        cli.close(conn.cli)?;
        s.server_state(conn, Some("CLOSE_WAIT"))?;
    }
    Ok((conns[0].server, conns.iter().map(|conn| conn.client).collect()))
}

/// The time that makes a leak (`--close-wait-after`) twice, and the pauses between two looks for one. Nothing can be waited for: that
/// nothing happens in this time is what it is about.
pub(super) fn outlast_a_leak() {
    std::thread::sleep(Duration::from_secs(14));
}

fn close_wait_leak(s: &mut Stage) -> Result<()> {
    let (srv, cli) = s.both()?;
    let (server, clients) = half_closed(s, &srv, &cli)?;
    outlast_a_leak();
    s.expect(Expect::leak(server, clients).owner(&srv));
    Ok(())
}
