//! Sockets that are older than tcpwatch: what it did not see being made, it has to find out.

use anyhow::Result;

use super::{PLAIN, PORT, Scenario, When};
use crate::expect::{Expect, Listen, Side};
use crate::packet::SYN;
use crate::stage::Stage;

pub(super) const SCENARIOS: &[Scenario] = &[
    early(
        "old-socket",
        "a connection older than tcpwatch is closed with unread data",
        &["close-with-unread-data", "reset-by-peer"],
        old_socket,
    ),
    early(
        "old-socket-reset",
        "a connection older than tcpwatch is reset by its peer",
        &["reset-by-peer"],
        old_socket_reset,
    ),
    early(
        "old-listener",
        "a new connection on a listener older than tcpwatch",
        &["linger-zero", "reset-by-peer"],
        old_listener,
    ),
    early(
        "old-listener-closed",
        "a listener older than tcpwatch closes, old and new children wait",
        &["listener-closed", "reset-by-peer"],
        old_closed,
    ),
    early(
        "old-listener-full",
        "the accept queue of a listener older than tcpwatch is full",
        &["accept-queue-full"],
        old_full,
    ),
    early(
        "old-close-wait",
        "sockets that the peer closed before tcpwatch came, and nobody closes",
        &["close-wait-leak"],
        old_close_wait,
    ),
    early(
        "old-prefork",
        "master and worker older than tcpwatch; the worker accepts later",
        &["linger-zero", "reset-by-peer"],
        old_prefork,
    ),
];

const fn early(
    name: &'static str,
    about: &'static str,
    causes: &'static [&'static str],
    play: fn(&mut Stage) -> Result<()>,
) -> Scenario {
    Scenario { name, about, families: PLAIN, when: When::Early, causes, play }
}

fn old_socket(s: &mut Stage) -> Result<()> {
    let (srv, cli, conn) = s.play()?;
    s.tcpwatch_starts()?;
    cli.send(conn.cli, 10)?;
    s.wait_unread(&srv, conn.srv, 10)?;
    srv.close(conn.srv)?;
    cli.error(conn.cli)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("ESTABLISHED")
            .owner(&srv)
            .how(&["proc"])
            .reason("TCP_ABORT_ON_CLOSE")
            .cause("close-with-unread-data"),
    );
    // The client sent after tcpwatch came, so it may be known by that.
    let received = Expect::rst_received(Side::Client, conn.client, conn.server, "ESTABLISHED");
    s.expect(received.owner(&cli).how(&["proc", "io"]));
    Ok(())
}

fn old_socket_reset(s: &mut Stage) -> Result<()> {
    let (srv, _, fd, raw) = s.raw_client()?;
    s.tcpwatch_starts()?;
    raw.rst()?;
    srv.error(fd)?;
    s.expect(Expect::rst_received(Side::Server, raw.peer, raw.me, "ESTABLISHED").owner(&srv).how(&["proc"]));
    Ok(())
}

fn old_close_wait(s: &mut Stage) -> Result<()> {
    let (srv, cli) = s.both()?;
    let remotes = super::owner::half_closed(s, &srv, &cli)?;
    s.tcpwatch_starts()?;
    super::owner::outlast_a_leak();
    s.expect(Expect::leak(remotes.0, remotes.1).owner(&srv).how(&["proc"]));
    Ok(())
}

fn old_listener(s: &mut Stage) -> Result<()> {
    let (srv, cli) = s.both()?;
    let listener = s.listener(&srv, PORT, 16)?;
    s.tcpwatch_starts()?;
    let conn = s.connection(&srv, listener, &cli)?;
    srv.linger(conn.srv, 0)?;
    srv.close(conn.srv)?;
    cli.error(conn.cli)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("ESTABLISHED")
            .owner(&srv)
            .reason("TCP_STATE")
            .cause("linger-zero"),
    );
    s.client_gets(&cli, &conn, "ESTABLISHED");
    Ok(())
}

fn old_closed(s: &mut Stage) -> Result<()> {
    let mut waiting = super::closing::waiting(s)?;
    s.tcpwatch_starts()?;
    waiting.children.push(s.connect(&waiting.cli)?);
    s.wait_queue(&waiting.srv, waiting.listener, 4)?;
    waiting.srv.close(waiting.listener)?;
    waiting.expect_resets(s, &["listener-closed"])
}

fn old_full(s: &mut Stage) -> Result<()> {
    let srv = s.server("srv")?;
    let listener = s.listener(&srv, PORT, 1)?;
    for number in 0..2 {
        s.raw(number)?.open()?;
    }
    s.wait_queue(&srv, listener, 2)?;
    s.tcpwatch_starts()?;
    let mut late = s.raw(9)?;
    late.send(SYN, 0)?;
    let full = Listen {
        local: None,
        queue: "accept",
        stage: "syn",
        action: "dropped",
        len: Some(2..=2),
        max: Some(1),
        ..Listen::default()
    };
    s.expect(
        Expect::listen_drop(late.peer, late.me, full).owner(&srv).how(&["proc"]).cause("accept-queue-full"),
    );
    s.counts(Side::Server, "ListenOverflows", 1);
    Ok(())
}

/// Both processes hold the listener when tcpwatch looks around; only the accept tells whose a connection is.
fn old_prefork(s: &mut Stage) -> Result<()> {
    let (master, cli) = s.both()?;
    let listener = s.listener(&master, PORT, 16)?;
    let worker = master.fork("wrk")?;
    s.keep(&worker);
    s.tcpwatch_starts()?;
    let conn = s.connection(&worker, listener, &cli)?;
    worker.linger(conn.srv, 0)?;
    worker.close(conn.srv)?;
    cli.error(conn.cli)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("ESTABLISHED")
            .owner(&worker)
            .reason("TCP_STATE")
            .cause("linger-zero"),
    );
    s.client_gets(&cli, &conn, "ESTABLISHED");
    Ok(())
}
