//! Multipath TCP: its sockets reset their subflows in ways of their own.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{PLAIN, PORT, Scenario, scenario};
use crate::actor::Actor;
use crate::expect::{Expect, Listen, Side};
use crate::packet::{ACK, SYN};
use crate::stage::{Conn, Stage, not_here};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario(
        "mptcp-close-unread",
        "an MPTCP socket is closed with unread data",
        PLAIN,
        &["mptcp-fastclose"],
        close_unread,
    ),
    scenario(
        "mptcp-linger-zero",
        "an MPTCP socket is closed with SO_LINGER 0",
        PLAIN,
        &["mptcp-fastclose"],
        linger_zero,
    ),
    scenario(
        "mptcp-join-refused",
        "MP_JOIN with a token that nobody gave out",
        PLAIN,
        &["listen-refused", "mptcp-emptcp", "mptcp-join-refused"],
        join_refused,
    ),
    scenario(
        "mptcp-reset-received",
        "an MPTCP subflow is reset by its peer",
        PLAIN,
        &["mptcp-subflow-reset"],
        reset_received,
    ),
];

fn listener(s: &mut Stage) -> Result<(Actor, i32)> {
    if !s.pair.server.has_sysctl("mptcp/enabled") {
        return Err(not_here("this kernel has no MPTCP"));
    }
    let srv = s.server("srv")?;
    let listener = srv.mptcp_socket(s.family.server_v6())?;
    srv.bind(listener, s.family.any(PORT))?;
    srv.listen(listener, 16)?;
    Ok((srv, listener))
}

/// The SYN asks to join a connection that does not exist.
fn join_refused(s: &mut Stage) -> Result<()> {
    let (srv, _) = listener(s)?;
    let raw = s.raw(0)?;
    let mut syn = raw.segment(SYN, 0);
    syn.options = vec![30, 12, 0x10, 1, 0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4];
    raw.inject(&syn)?;
    raw.take_rst()?;
    // Only newer kernels name a reason.
    let causes = ["mptcp-emptcp", "mptcp-join-refused"];
    let (cause, other) =
        if crate::sys::kernel_version() >= (6, 10) { (causes[0], causes[1]) } else { (causes[1], causes[0]) };
    s.others_name(&[other]);
    s.expect(Expect::rst_sent(raw.peer, raw.me).state("LISTEN").owner(&srv).cause(cause));
    let refused = Listen { stage: "syn", ..Listen::default() };
    s.expect(Expect::listen_drop(raw.peer, raw.me, refused).owner(&srv).cause("listen-refused"));
    s.counts(Side::Server, "MPJoinNoTokenFound", 1);
    Ok(())
}

/// MP_CAPABLE of version 1 (RFC 8684): the SYN offers, the SYN-ACK brings the server's key, the ACK both.
fn reset_received(s: &mut Stage) -> Result<()> {
    const CAPABLE: [u8; 2] = [1, 1];
    let (srv, listener) = listener(s)?;
    let mut raw = s.raw(0)?;
    let mut syn = raw.segment(SYN, 0);
    syn.options = [&[30, 4][..], &CAPABLE].concat();
    raw.inject(&syn)?;
    raw.seq = raw.seq.wrapping_add(1);
    let answer = raw.expect("SYN-ACK", |seen| seen.flags & (SYN | ACK) == SYN | ACK)?;
    let theirs = answer.option(30).filter(|option| option.len() >= 10).context("no key in the SYN-ACK")?;
    raw.ack = answer.seq.wrapping_add(1);
    let mut last = raw.segment(ACK, 0);
    last.options = [&[30, 20][..], &CAPABLE, b"our  key", &theirs[2..10]].concat();
    raw.inject(&last)?;
    srv.accept(listener)?;
    s.wait_counter(Side::Server, "MPCapableACKRX", 1)?;
    raw.rst()?;
    let reset = Expect::rst_received(Side::Server, raw.peer, raw.me, "ESTABLISHED");
    s.expect(reset.owner(&srv).cause("mptcp-subflow-reset"));
    s.counts(Side::Server, "EstabResets", 1);
    Ok(())
}

fn connected(s: &mut Stage) -> Result<(Actor, Actor, Conn)> {
    let (srv, listener) = listener(s)?;
    let cli = s.client("cli")?;
    let fd = cli.mptcp_socket(s.family.wire_v6())?;
    let client = cli.bind(fd, s.family.client(0))?;
    cli.connect(fd, s.family.server(PORT))?;
    let (accepted, _) = srv.accept(listener)?;
    let conn = Conn { listener, srv: accepted, cli: fd, server: s.family.server(PORT), client };
    s.wait_counter(Side::Server, "MPCapableACKRX", 1)?;
    Ok((srv, cli, conn))
}

/// The peer may answer a fast close with resets of its own and does so by version; only ours is certain.
fn expect_fast_close(s: &mut Stage, srv: &Actor, cli: &Actor, conn: &Conn) -> Result<()> {
    s.client_state(conn, None)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("ESTABLISHED")
            .owner(srv)
            .reason("TCP_ABORT_ON_CLOSE")
            .cause("mptcp-fastclose"),
    );
    let received = Expect::rst_received(Side::Client, conn.client, conn.server, "ESTABLISHED").owner(cli);
    s.expect(received.causes(&["mptcp-subflow-reset", "reset-by-peer"]).maybe());
    s.expect(
        Expect::rst_sent(conn.client, conn.server).at(Side::Client).owner(cli).causes(&["mptcp-*"]).maybe(),
    );
    s.counts(Side::Server, "MPFastcloseTx", 1);
    Ok(())
}

fn close_unread(s: &mut Stage) -> Result<()> {
    let (srv, cli, conn) = connected(s)?;
    cli.send(conn.cli, 10)?;
    s.wait_unread(&srv, conn.srv, 10)?;
    srv.close(conn.srv)?;
    expect_fast_close(s, &srv, &cli, &conn)
}

fn linger_zero(s: &mut Stage) -> Result<()> {
    let (srv, cli, conn) = connected(s)?;
    // Only data makes both sides sure that they talk MPTCP.
    cli.send(conn.cli, 5)?;
    srv.recv(conn.srv, 5)?;
    srv.linger(conn.srv, 0)?;
    srv.close(conn.srv)?;
    let over = Instant::now() + Duration::from_secs(8);
    while s.growth(Side::Server, "OutRsts")? == 0 && Instant::now() < over {
        sleep(Duration::from_millis(20));
    }
    if s.growth(Side::Server, "OutRsts")? == 0 && s.growth(Side::Server, "MPFastcloseTx")? == 0 {
        return Err(not_here("this kernel sends no RST when MPTCP lingers 0 s (seen on 6.18.15)"));
    }
    expect_fast_close(s, &srv, &cli, &conn)
}
