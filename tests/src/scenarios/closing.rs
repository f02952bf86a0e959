//! RSTs that a process causes by the way it closes: the active resets.

use anyhow::{Result, bail};

use super::{ALL, PLAIN, Scenario, scenario};
use crate::expect::{Expect, Side};
use crate::stage::{PORT, Stage, not_here};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario(
        "closed-port",
        "connect to a port where nobody listens",
        PLAIN,
        &["closed-port", "connection-refused"],
        closed_port,
    ),
    scenario(
        "close-unread",
        "close with unread data",
        ALL,
        &["close-with-unread-data", "reset-by-peer"],
        close_unread,
    ),
    scenario(
        "close-unread-close-wait",
        "close with unread data after the peer closed",
        PLAIN,
        &["close-with-unread-data"],
        unread_close_wait,
    ),
    scenario(
        "sigkill-unread",
        "a killed process leaves unread data",
        PLAIN,
        &["close-with-unread-data", "reset-by-peer"],
        sigkill_unread,
    ),
    scenario("linger-zero", "close with SO_LINGER 0", ALL, &["linger-zero", "reset-by-peer"], linger_zero),
    scenario(
        "linger-zero-close-wait",
        "close with SO_LINGER 0 after the peer closed",
        PLAIN,
        &["linger-zero"],
        linger_close_wait,
    ),
    scenario(
        "linger-zero-last-ack",
        "SO_LINGER 0 in LAST_ACK with unsent data",
        PLAIN,
        &["linger-zero"],
        linger_last_ack,
    ),
    scenario(
        "disconnect",
        "connect to AF_UNSPEC on a connected socket",
        PLAIN,
        &["disconnect", "reset-by-peer"],
        disconnect,
    ),
    scenario(
        "linger2-fin-wait2",
        "TCP_LINGER2 -1, close in FIN_WAIT2",
        PLAIN,
        &["linger2-abort", "reset-after-peer-close"],
        linger2_fin_wait2,
    ),
    scenario(
        "linger2-established",
        "TCP_LINGER2 -1, close from ESTABLISHED",
        PLAIN,
        &["linger2-abort", "reset-after-peer-close"],
        linger2_established,
    ),
    scenario(
        "ss-kill",
        "`ss -K` destroys an established socket",
        PLAIN,
        &["reset-by-peer", "socket-destroyed"],
        ss_kill,
    ),
    scenario(
        "listener-closed",
        "close a listener with three connections waiting",
        ALL,
        &["listener-closed", "reset-by-peer"],
        listener_closed,
    ),
    scenario(
        "listener-sigkill",
        "kill a listener's process, connections waiting",
        PLAIN,
        &["listener-closed", "reset-by-peer"],
        listener_sigkill,
    ),
    scenario(
        "ss-kill-listener",
        "`ss -K` destroys a listener with connections waiting",
        PLAIN,
        &["listener-closed", "reset-by-peer"],
        ss_kill_listener,
    ),
    scenario(
        "keepalive-timeout",
        "keepalive probes stay unanswered",
        PLAIN,
        &["keepalive-timeout", "reset-by-peer"],
        keepalive_timeout,
    ),
    scenario(
        "keepalive-user-timeout",
        "TCP_USER_TIMEOUT ends the keepalive probes",
        PLAIN,
        &["keepalive-timeout", "reset-by-peer"],
        keepalive_user_timeout,
    ),
];

const RECEIVERS: &[&str] = &["tcp_v4_rcv", "tcp_v6_rcv"];
pub(super) const NO_SOCKET_SITES: &[&str] = RECEIVERS;

fn closed_port(s: &mut Stage) -> Result<()> {
    let cli = s.client("cli")?;
    let (fd, client) = s.client_socket(&cli)?;
    let server = s.family.server(PORT);
    let errno = cli.connect_fails(fd, server)?;
    if errno != libc::ECONNREFUSED {
        bail!("connect ended with errno {errno} instead of ECONNREFUSED");
    }
    s.expect(
        Expect::rst_sent(server, client)
            .state("null")
            .nobody()
            .reason("NO_SOCKET")
            .cause("closed-port")
            .site(NO_SOCKET_SITES),
    );
    s.expect(Expect::rst_received(Side::Client, client, server, "SYN_SENT").owner(&cli));
    s.counts(Side::Client, "AttemptFails", 1);
    Ok(())
}

fn close_unread(s: &mut Stage) -> Result<()> {
    let (srv, cli, conn) = s.play()?;
    cli.send(conn.cli, 10)?;
    s.wait_unread(&srv, conn.srv, 10)?;
    srv.close(conn.srv)?;
    cli.error(conn.cli)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("ESTABLISHED")
            .owner(&srv)
            .reason("TCP_ABORT_ON_CLOSE")
            .cause("close-with-unread-data")
            .site(&["__tcp_close"]),
    );
    s.client_gets(&cli, &conn, "ESTABLISHED");
    s.counts(Side::Server, "TCPAbortOnClose", 1);
    Ok(())
}

fn unread_close_wait(s: &mut Stage) -> Result<()> {
    let (srv, _, fd, mut raw) = s.raw_client()?;
    raw.data(10)?;
    raw.fin()?;
    s.raw_state(&raw, Some("CLOSE_WAIT"))?;
    srv.close(fd)?;
    raw.take_rst()?;
    s.expect(
        Expect::rst_sent(raw.peer, raw.me)
            .state("CLOSE_WAIT")
            .owner(&srv)
            .reason("TCP_ABORT_ON_CLOSE")
            .cause("close-with-unread-data")
            .site(&["__tcp_close"]),
    );
    s.counts(Side::Server, "TCPAbortOnClose", 1);
    Ok(())
}

fn sigkill_unread(s: &mut Stage) -> Result<()> {
    let (srv, cli, conn) = s.play()?;
    cli.send(conn.cli, 10)?;
    s.wait_unread(&srv, conn.srv, 10)?;
    srv.kill()?;
    cli.error(conn.cli)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("ESTABLISHED")
            .owner(&srv)
            .reason("TCP_ABORT_ON_CLOSE")
            .cause("close-with-unread-data")
            .site(&["__tcp_close"]),
    );
    s.client_gets(&cli, &conn, "ESTABLISHED");
    s.counts(Side::Server, "TCPAbortOnClose", 1);
    Ok(())
}

fn linger_zero(s: &mut Stage) -> Result<()> {
    let (srv, cli, conn) = s.play()?;
    srv.linger(conn.srv, 0)?;
    srv.close(conn.srv)?;
    cli.error(conn.cli)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("ESTABLISHED")
            .owner(&srv)
            .reason("TCP_STATE")
            .cause("linger-zero")
            .site(&["tcp_disconnect"]),
    );
    s.client_gets(&cli, &conn, "ESTABLISHED");
    s.counts(Side::Server, "TCPAbortOnData", 1);
    Ok(())
}

fn linger_close_wait(s: &mut Stage) -> Result<()> {
    let (srv, _, fd, mut raw) = s.raw_client()?;
    raw.fin()?;
    s.raw_state(&raw, Some("CLOSE_WAIT"))?;
    srv.linger(fd, 0)?;
    srv.close(fd)?;
    raw.take_rst()?;
    s.expect(
        Expect::rst_sent(raw.peer, raw.me)
            .state("CLOSE_WAIT")
            .owner(&srv)
            .reason("TCP_STATE")
            .cause("linger-zero")
            .site(&["tcp_disconnect"]),
    );
    s.counts(Side::Server, "TCPAbortOnData", 1);
    Ok(())
}

/// A closed window keeps data unsent, so the FIN waits behind it; then the close by force. Older kernels believe
/// a smaller window only from a segment that is newer than the handshake, hence the byte before.
fn linger_last_ack(s: &mut Stage) -> Result<()> {
    let (srv, _, fd, mut raw) = s.raw_client()?;
    raw.data(1)?;
    srv.recv(fd, 1)?;
    raw.window = 0;
    raw.fin()?;
    s.raw_state(&raw, Some("CLOSE_WAIT"))?;
    srv.send(fd, 2000)?;
    srv.shutdown(fd, libc::SHUT_WR)?;
    s.raw_state(&raw, Some("LAST_ACK"))?;
    srv.linger(fd, 0)?;
    srv.close(fd)?;
    raw.take_rst()?;
    s.expect(
        Expect::rst_sent(raw.peer, raw.me)
            .state("LAST_ACK")
            .owner(&srv)
            .reason("TCP_DISCONNECT_WITH_DATA")
            .cause("linger-zero")
            .site(&["tcp_disconnect"]),
    );
    Ok(())
}

fn disconnect(s: &mut Stage) -> Result<()> {
    let (srv, cli, conn) = s.play()?;
    srv.disconnect(conn.srv)?;
    cli.error(conn.cli)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("ESTABLISHED")
            .owner(&srv)
            .reason("TCP_STATE")
            .cause("disconnect")
            .site(&["tcp_disconnect"]),
    );
    s.client_gets(&cli, &conn, "ESTABLISHED");
    Ok(())
}

fn linger2_fin_wait2(s: &mut Stage) -> Result<()> {
    let (srv, cli, conn) = s.play()?;
    srv.set_tcp(conn.srv, libc::TCP_LINGER2, -1)?;
    srv.shutdown(conn.srv, libc::SHUT_WR)?;
    s.server_state(&conn, Some("FIN_WAIT2"))?;
    srv.close(conn.srv)?;
    s.client_state(&conn, None)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("FIN_WAIT2")
            .owner(&srv)
            .reason("TCP_ABORT_ON_LINGER")
            .cause("linger2-abort")
            .site(&["__tcp_close"]),
    );
    s.client_gets(&cli, &conn, "CLOSE_WAIT");
    s.counts(Side::Server, "TCPAbortOnLinger", 1);
    Ok(())
}

fn linger2_established(s: &mut Stage) -> Result<()> {
    let (srv, cli, conn) = s.play()?;
    srv.set_tcp(conn.srv, libc::TCP_LINGER2, -1)?;
    // The ACK of the FIN has to come when close() is over.
    s.pair.mute_client(true)?;
    srv.close(conn.srv)?;
    s.pair.mute_client(false)?;
    s.client_state(&conn, None)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .states(&["FIN_WAIT1", "FIN_WAIT2"])
            .owner(&srv)
            .dead()
            .reason("TCP_ABORT_ON_DATA")
            .cause("linger2-abort"),
    );
    s.client_gets(&cli, &conn, "CLOSE_WAIT");
    s.counts(Side::Server, "TCPAbortOnData", 1);
    Ok(())
}

fn ss_kill(s: &mut Stage) -> Result<()> {
    let (srv, cli, conn) = s.play()?;
    let (port, peer) = (format!(":{PORT}"), format!(":{}", conn.client.port()));
    s.ss_destroy(Side::Server, &["state", "established", "sport", "=", &port, "dport", "=", &peer])?;
    if s.state(Side::Server, PORT, conn.client.port())?.is_some() {
        return Err(not_here("`ss -K` did nothing (INET_DIAG_DESTROY is off)"));
    }
    cli.error(conn.cli)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("ESTABLISHED")
            .owner(&srv)
            .reason("TCP_STATE")
            .cause("socket-destroyed")
            .site(&["tcp_abort"])
            .task("ss"),
    );
    s.client_gets(&cli, &conn, "ESTABLISHED");
    Ok(())
}

/// Three connections that wait for an accept that never comes.
pub(super) fn waiting(s: &mut Stage) -> Result<Waiting> {
    let (srv, cli) = s.both()?;
    let listener = s.listener(&srv, PORT, 16)?;
    let mut children = Vec::new();
    for _ in 0..3 {
        children.push(s.connect(&cli)?);
    }
    s.wait_queue(&srv, listener, 3)?;
    Ok(Waiting { srv, cli, listener, children })
}

pub(super) struct Waiting {
    pub(super) srv: crate::actor::Actor,
    pub(super) cli: crate::actor::Actor,
    pub(super) listener: i32,
    pub(super) children: Vec<(i32, std::net::SocketAddr)>,
}

impl Waiting {
    /// Each child was reset because its listener went away.
    pub(super) fn expect_resets(&self, s: &mut Stage, causes: &[&'static str]) -> Result<()> {
        let server = s.family.server(PORT);
        for (fd, client) in &self.children {
            self.cli.error(*fd)?;
            s.expect(
                Expect::rst_sent(server, *client)
                    .state("ESTABLISHED")
                    .owner(&self.srv)
                    .reason("TCP_STATE")
                    .causes(causes),
            );
            s.expect(Expect::rst_received(Side::Client, *client, server, "ESTABLISHED").owner(&self.cli));
        }
        Ok(())
    }
}

fn listener_closed(s: &mut Stage) -> Result<()> {
    let waiting = waiting(s)?;
    waiting.srv.close(waiting.listener)?;
    waiting.expect_resets(s, &["listener-closed"])
}

fn listener_sigkill(s: &mut Stage) -> Result<()> {
    let waiting = waiting(s)?;
    waiting.srv.kill()?;
    waiting.expect_resets(s, &["listener-closed"])
}

fn ss_kill_listener(s: &mut Stage) -> Result<()> {
    let waiting = waiting(s)?;
    let port = format!(":{PORT}");
    s.ss_destroy(Side::Server, &["state", "listening", "sport", "=", &port])?;
    if s.state(Side::Server, PORT, 0)?.is_some() {
        return Err(not_here("`ss -K` did nothing (INET_DIAG_DESTROY is off)"));
    }
    waiting.expect_resets(s, &["listener-closed"])
}

fn keepalive(s: &mut Stage, probes: i32, user_timeout: Option<i32>) -> Result<()> {
    let (srv, cli, conn) = s.play()?;
    srv.set_tcp(conn.srv, libc::TCP_KEEPIDLE, 1)?;
    srv.set_tcp(conn.srv, libc::TCP_KEEPINTVL, 1)?;
    srv.set_tcp(conn.srv, libc::TCP_KEEPCNT, probes)?;
    if let Some(millis) = user_timeout {
        srv.set_tcp(conn.srv, libc::TCP_USER_TIMEOUT, millis)?;
    }
    s.pair.mute_client(true)?;
    srv.set_int(conn.srv, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    cli.error(conn.cli)?;
    s.expect(
        Expect::rst_sent(conn.server, conn.client)
            .state("ESTABLISHED")
            .owner(&srv)
            .reason("TCP_KEEPALIVE_TIMEOUT")
            .cause("keepalive-timeout")
            .site(&["tcp_keepalive_timer"]),
    );
    s.client_gets(&cli, &conn, "ESTABLISHED");
    s.counts(Side::Server, "TCPAbortOnTimeout", 1);
    Ok(())
}

fn keepalive_timeout(s: &mut Stage) -> Result<()> {
    keepalive(s, 2, None)
}

fn keepalive_user_timeout(s: &mut Stage) -> Result<()> {
    keepalive(s, 9, Some(1000))
}
