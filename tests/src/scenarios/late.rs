//! Segments that come when their connection is over: FIN_WAIT2, TIME_WAIT and sockets that died in silence.

use anyhow::{Result, bail};

use super::closing::NO_SOCKET_SITES;
use super::{ALL, PLAIN, Scenario, scenario};
use crate::actor::Actor;
use crate::expect::{Expect, Side};
use crate::packet::{ACK, FIN, SYN};
use crate::stage::{Conn, Stage};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario(
        "data-after-close",
        "data for a closed socket that waits in FIN_WAIT2 (minisock)",
        ALL,
        &["data-after-close", "reset-after-peer-close"],
        after_close,
    ),
    scenario(
        "data-after-close-full",
        "the same with tcp_fin_timeout 120: a full orphan",
        PLAIN,
        &["data-after-close", "reset-after-peer-close"],
        after_close_full,
    ),
    scenario(
        "data-after-shutdown",
        "data after shutdown(SHUT_RDWR), socket still held",
        ALL,
        &["data-after-close", "reset-after-peer-close"],
        after_shutdown,
    ),
    scenario(
        "data-with-last-ack",
        "data in the segment that acknowledges our FIN",
        PLAIN,
        &["data-after-close"],
        with_last_ack,
    ),
    scenario(
        "syn-at-fin-wait2",
        "a new SYN meets a FIN_WAIT2 minisock",
        PLAIN,
        &["data-after-close"],
        syn_at_fin_wait2,
    ),
    scenario(
        "tw-refused-server",
        "TIME_WAIT table full, the server closes, listener still there",
        ALL,
        &["reset-after-peer-close", "tw-bucket-overflow"],
        refused_server,
    ),
    scenario(
        "tw-refused-worker",
        "the same, and a worker had accepted the connection",
        PLAIN,
        &["reset-after-peer-close", "tw-bucket-overflow"],
        refused_worker,
    ),
    scenario(
        "tw-refused-client",
        "TIME_WAIT table full, the client closes: nobody listens",
        PLAIN,
        &["reset-after-peer-close", "tw-bucket-overflow"],
        refused_client,
    ),
    scenario(
        "fin-wait2-expired",
        "data after FIN_WAIT2 timed out, listener still there",
        PLAIN,
        &["fin-wait2-timeout", "reset-after-peer-close"],
        fin_wait2_listener,
    ),
    scenario(
        "fin-wait2-expired-nobody",
        "the same after the listener is gone",
        PLAIN,
        &["fin-wait2-timeout", "reset-after-peer-close"],
        fin_wait2_nobody,
    ),
    scenario(
        "orphan-timeout",
        "orphan's FIN_WAIT2 timer with nothing to wait for",
        PLAIN,
        &["orphan-timeout", "reset-after-peer-close"],
        orphan_timeout,
    ),
    scenario(
        "user-timeout",
        "TCP_USER_TIMEOUT kills in silence, late data meets the listener",
        PLAIN,
        &["connection-timed-out", "reset-by-peer"],
        user_timeout,
    ),
    scenario(
        "user-timeout-nobody",
        "the same after the listener is gone",
        PLAIN,
        &["connection-timed-out", "reset-by-peer"],
        user_timeout_nobody,
    ),
    scenario(
        "late-after-linger2",
        "the ACK of our FIN comes twice, TCP_LINGER2 -1: the first one ends the socket",
        PLAIN,
        &["linger2-abort", "late-segment"],
        late_after_linger2,
    ),
    scenario(
        "late-after-reset",
        "data after the server reset the connection",
        PLAIN,
        &["late-segment", "linger-zero"],
        late_after_reset,
    ),
];

/// The kernel functions that answer a segment which a found socket refuses.
const DO_RCV: &[&str] = &["tcp_v4_do_rcv", "tcp_v6_do_rcv", "tcp_rcv_state_process"];

/// The server closes and gets its FIN acknowledged; the client holds its end open.
///
/// An ACK that comes while `close()` still runs would leave a full socket in FIN_WAIT2 instead of a minisock. So
/// the client is not heard until the call is over, and the FIN is sent once more.
fn half_closed(s: &Stage, srv: &Actor, conn: &Conn) -> Result<()> {
    s.pair.mute_client(true)?;
    srv.close(conn.srv)?;
    s.pair.mute_client(false)?;
    s.client_state(conn, Some("CLOSE_WAIT"))?;
    let (server, client) = (conn.server.port(), conn.client.port());
    s.wait("the FIN to be acknowledged", || Ok(s.state(Side::Server, server, client)? != Some("FIN_WAIT1")))
}

fn after_close(s: &mut Stage) -> Result<()> {
    let (srv, cli, conn) = s.play()?;
    half_closed(s, &srv, &conn)?;
    s.server_state(&conn, Some("FIN_WAIT2"))?;
    cli.send(conn.cli, 10)?;
    s.client_state(&conn, None)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("FIN_WAIT2")
            .owner(&srv)
            .dead()
            .reason("TCP_TIMEWAIT_SOCKET")
            .cause("data-after-close")
            .site(NO_SOCKET_SITES),
    );
    s.client_gets(&cli, &conn, "CLOSE_WAIT");
    Ok(())
}

fn after_close_full(s: &mut Stage) -> Result<()> {
    s.pair.server.sysctl("ipv4/tcp_fin_timeout", "120")?;
    let (srv, cli, conn) = s.play()?;
    half_closed(s, &srv, &conn)?;
    s.server_state(&conn, Some("FIN_WAIT2"))?;
    cli.send(conn.cli, 10)?;
    s.client_state(&conn, None)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("FIN_WAIT2")
            .owner(&srv)
            .dead()
            .reason("TCP_ABORT_ON_DATA")
            .cause("data-after-close")
            .site(DO_RCV),
    );
    s.client_gets(&cli, &conn, "CLOSE_WAIT");
    s.counts(Side::Server, "TCPAbortOnData", 1);
    Ok(())
}

fn after_shutdown(s: &mut Stage) -> Result<()> {
    let (srv, cli, conn) = s.play()?;
    srv.shutdown(conn.srv, libc::SHUT_RDWR)?;
    s.server_state(&conn, Some("FIN_WAIT2"))?;
    s.client_state(&conn, Some("CLOSE_WAIT"))?;
    cli.send(conn.cli, 10)?;
    s.client_state(&conn, None)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("FIN_WAIT2")
            .owner(&srv)
            .reason("TCP_ABORT_ON_DATA")
            .cause("data-after-close")
            .site(DO_RCV),
    );
    s.client_gets(&cli, &conn, "CLOSE_WAIT");
    s.counts(Side::Server, "TCPAbortOnData", 1);
    Ok(())
}

fn with_last_ack(s: &mut Stage) -> Result<()> {
    let (srv, _, fd, mut raw) = s.raw_client()?;
    srv.close(fd)?;
    raw.take_fin()?;
    raw.data(10)?;
    raw.take_rst()?;
    s.expect(
        Expect::rst_sent(raw.peer, raw.me)
            .states(&["FIN_WAIT1", "FIN_WAIT2"])
            .owner(&srv)
            .dead()
            .reason("TCP_ABORT_ON_DATA")
            .cause("data-after-close")
            .site(DO_RCV),
    );
    s.counts(Side::Server, "TCPAbortOnData", 1);
    Ok(())
}

fn syn_at_fin_wait2(s: &mut Stage) -> Result<()> {
    let (srv, _, fd, mut raw) = s.raw_client()?;
    srv.close(fd)?;
    raw.take_fin()?;
    raw.send(ACK, 0)?;
    s.raw_state(&raw, Some("FIN_WAIT2"))?;
    // In the window: outside of it the minisock would only acknowledge.
    raw.seq = raw.seq.wrapping_add(100);
    raw.inject(&raw.segment(SYN, 0))?;
    raw.take_rst()?;
    s.expect(
        Expect::rst_sent(raw.peer, raw.me)
            .state("FIN_WAIT2")
            .owner(&srv)
            .dead()
            .reason("TCP_TIMEWAIT_SOCKET")
            .cause("data-after-close")
            .site(NO_SOCKET_SITES),
    );
    Ok(())
}

/// Room for two in the TIME_WAIT table of the server's namespace, and both places taken.
fn fill_timewait(s: &mut Stage, srv: &Actor, cli: &Actor, listener: i32) -> Result<()> {
    s.pair.server.sysctl("ipv4/tcp_max_tw_buckets", "2")?;
    for _ in 0..2 {
        let conn = s.connection(srv, listener, cli)?;
        half_closed(s, srv, &conn)?;
        s.server_state(&conn, Some("FIN_WAIT2"))?;
    }
    Ok(())
}

/// The refusal itself, and the RST that the client's FIN draws because of it.
fn expect_refusal(s: &mut Stage, owner: &Actor, cli: &Actor, conn: &Conn) -> Result<()> {
    half_closed(s, owner, conn)?;
    s.wait_counter(Side::Server, "TCPTimeWaitOverflow", 1)?;
    cli.close(conn.cli)?;
    s.client_state(conn, None)?;
    let refused = Expect::new("tw_overflow", Side::Server, conn.server, conn.client)
        .states(&["FIN_WAIT2", "FIN_WAIT1"])
        .owner(owner)
        .cause("tw-bucket-overflow");
    s.expect(Expect { timewait: Some((2, 2)), ..refused });
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("LISTEN")
            .owner(owner)
            .dead()
            .reason("TCP_FLAGS")
            .cause("tw-bucket-overflow")
            .site(DO_RCV),
    );
    s.client_gets(cli, conn, "LAST_ACK");
    Ok(())
}

fn refused_server(s: &mut Stage) -> Result<()> {
    let (srv, cli) = s.both()?;
    let listener = s.listener(&srv, super::PORT, 16)?;
    fill_timewait(s, &srv, &cli, listener)?;
    let conn = s.connection(&srv, listener, &cli)?;
    expect_refusal(s, &srv, &cli, &conn)
}

fn refused_worker(s: &mut Stage) -> Result<()> {
    let (master, cli) = s.both()?;
    let listener = s.listener(&master, super::PORT, 16)?;
    fill_timewait(s, &master, &cli, listener)?;
    let worker = master.fork("wrk")?;
    s.keep(&worker);
    let conn = s.connection(&worker, listener, &cli)?;
    expect_refusal(s, &worker, &cli, &conn)
}

fn refused_client(s: &mut Stage) -> Result<()> {
    s.pair.client.sysctl("ipv4/tcp_max_tw_buckets", "0")?;
    let (srv, cli, conn) = s.play()?;
    // As in `half_closed`: its FIN is lost once, so that the ACK cannot come while close() runs.
    s.pair.mute_client(true)?;
    cli.close(conn.cli)?;
    s.pair.mute_client(false)?;
    s.server_state(&conn, Some("CLOSE_WAIT"))?;
    s.wait_counter(Side::Client, "TCPTimeWaitOverflow", 1)?;
    srv.close(conn.srv)?;
    s.server_state(&conn, None)?;
    let refused = Expect::new("tw_overflow", Side::Client, conn.client, conn.server)
        .states(&["FIN_WAIT2", "FIN_WAIT1"])
        .owner(&cli)
        .cause("tw-bucket-overflow");
    s.expect(Expect { timewait: Some((0, 0)), ..refused });
    s.expect(
        Expect::rst_sent(conn.client, conn.server)
            .at(Side::Client)
            .state("null")
            .owner(&cli)
            .dead()
            .reason("NO_SOCKET")
            .cause("tw-bucket-overflow")
            .site(NO_SOCKET_SITES),
    );
    s.expect(Expect::rst_received(Side::Server, conn.server, conn.client, "LAST_ACK").owner(&srv));
    Ok(())
}

/// A late segment of the client meets the listener, or nobody if that is gone.
fn expect_late(s: &mut Stage, srv: &Actor, conn: &Conn, listener: bool, cause: &'static str) {
    let late = Expect::rst_sent(conn.server, conn.client).owner(srv).cause(cause);
    s.expect(if listener {
        late.state("LISTEN").reason("TCP_FLAGS").site(DO_RCV)
    } else {
        late.state("null").reason("NO_SOCKET").site(NO_SOCKET_SITES)
    });
}

fn fin_wait2_expires(s: &mut Stage, listener: bool) -> Result<()> {
    s.pair.server.sysctl("ipv4/tcp_fin_timeout", "1")?;
    let (srv, cli, conn) = s.play()?;
    if !listener {
        srv.close(conn.listener)?;
    }
    half_closed(s, &srv, &conn)?;
    s.server_state(&conn, None)?;
    cli.send(conn.cli, 10)?;
    s.client_state(&conn, None)?;
    expect_late(s, &srv, &conn, listener, "fin-wait2-timeout");
    s.client_gets(&cli, &conn, "CLOSE_WAIT");
    Ok(())
}

fn fin_wait2_listener(s: &mut Stage) -> Result<()> {
    fin_wait2_expires(s, true)
}

fn fin_wait2_nobody(s: &mut Stage) -> Result<()> {
    fin_wait2_expires(s, false)
}

/// Above 60 s the orphan stays a full socket for the rest, then would become a minisock for 60 s more. The
/// setting is lowered in between, so when the timer fires there is nothing left to wait for.
fn orphan_timeout(s: &mut Stage) -> Result<()> {
    s.pair.server.sysctl("ipv4/tcp_fin_timeout", "63")?;
    let (srv, cli, conn) = s.play()?;
    half_closed(s, &srv, &conn)?;
    s.server_state(&conn, Some("FIN_WAIT2"))?;
    s.pair.server.sysctl("ipv4/tcp_fin_timeout", "10")?;
    s.client_state(&conn, None)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("FIN_WAIT2")
            .owner(&srv)
            .dead()
            .reason("TCP_STATE")
            .cause("orphan-timeout")
            .site(&["tcp_keepalive_timer"]),
    );
    s.client_gets(&cli, &conn, "CLOSE_WAIT");
    Ok(())
}

fn user_times_out(s: &mut Stage, listener: bool) -> Result<()> {
    let (srv, cli, conn) = s.play()?;
    if !listener {
        srv.close(conn.listener)?;
    }
    srv.set_tcp(conn.srv, libc::TCP_USER_TIMEOUT, 800)?;
    s.pair.mute_client(true)?;
    srv.send(conn.srv, 10)?;
    let errno = srv.error(conn.srv)?;
    if errno != libc::ETIMEDOUT {
        bail!("the socket ended with errno {errno} instead of ETIMEDOUT");
    }
    s.server_state(&conn, None)?;
    s.pair.mute_client(false)?;
    cli.send(conn.cli, 10)?;
    cli.error(conn.cli)?;
    expect_late(s, &srv, &conn, listener, "connection-timed-out");
    s.client_gets(&cli, &conn, "ESTABLISHED");
    s.counts(Side::Server, "TCPAbortOnTimeout", 1);
    Ok(())
}

fn user_timeout(s: &mut Stage) -> Result<()> {
    user_times_out(s, true)
}

fn user_timeout_nobody(s: &mut Stage) -> Result<()> {
    user_times_out(s, false)
}

fn late_after_reset(s: &mut Stage) -> Result<()> {
    let (srv, _, fd, mut raw) = s.raw_client()?;
    srv.linger(fd, 0)?;
    srv.close(fd)?;
    raw.take_rst()?;
    raw.send(ACK | FIN, 0)?;
    raw.take_rst()?;
    let rst = Expect::rst_sent(raw.peer, raw.me).owner(&srv);
    s.expect(rst.clone().state("ESTABLISHED").reason("TCP_STATE").cause("linger-zero"));
    s.expect(rst.state("LISTEN").dead().reason("TCP_FLAGS").cause("late-segment").site(DO_RCV));
    Ok(())
}

fn late_after_linger2(s: &mut Stage) -> Result<()> {
    let (srv, _, fd, mut raw) = s.raw_client()?;
    srv.set_tcp(fd, libc::TCP_LINGER2, -1)?;
    srv.close(fd)?;
    raw.take_fin()?;
    for _ in 0..2 {
        raw.send(ACK, 0)?;
        raw.take_rst()?;
    }
    let rst = Expect::rst_sent(raw.peer, raw.me).owner(&srv).dead();
    let abort = rst.clone().states(&["FIN_WAIT1", "FIN_WAIT2"]).reason("TCP_ABORT_ON_DATA");
    s.expect(abort.cause("linger2-abort"));
    s.expect(rst.state("LISTEN").reason("TCP_FLAGS").cause("late-segment").site(DO_RCV));
    Ok(())
}
