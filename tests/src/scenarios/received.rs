//! RSTs that come in, by the state of the socket that they hit, and those that it does not obey.

use anyhow::{Result, bail};

use super::{ALL, PLAIN, PORT, Scenario, scenario};
use crate::actor::Actor;
use crate::expect::{Expect, Side};
use crate::packet::{ACK, RST, SYN};
use crate::raw::Raw;
use crate::stage::Stage;

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("rst-in-syn-sent", "connect is refused", ALL, &["connection-refused"], in_syn_sent),
    scenario("rst-in-syn-recv", "simultaneous open is reset", PLAIN, &["reset-in-handshake"], in_syn_recv),
    scenario(
        "rst-in-half-open",
        "a half-open request is reset by the client",
        ALL,
        &["reset-in-handshake"],
        in_half_open,
    ),
    scenario("rst-in-established", "a connection is reset", ALL, &["reset-by-peer"], in_established),
    scenario(
        "rst-in-close-wait",
        "reset after the peer's FIN",
        PLAIN,
        &["reset-after-peer-close"],
        in_close_wait,
    ),
    scenario(
        "rst-in-fin-wait1",
        "reset before our FIN is acknowledged",
        PLAIN,
        &["reset-by-peer"],
        in_fin_wait1,
    ),
    scenario(
        "rst-in-fin-wait2",
        "reset after our FIN is acknowledged",
        PLAIN,
        &["reset-by-peer"],
        in_fin_wait2,
    ),
    scenario(
        "rst-in-closing",
        "reset when both FINs crossed",
        PLAIN,
        &["reset-after-peer-close"],
        in_closing,
    ),
    scenario(
        "rst-in-last-ack",
        "reset of a closed socket that waits for its last ACK",
        PLAIN,
        &["reset-after-peer-close"],
        in_last_ack,
    ),
    scenario(
        "rst-in-time-wait",
        "TIME_WAIT is ended by an RST",
        PLAIN,
        &["reset-in-time-wait"],
        in_time_wait,
    ),
    scenario(
        "rst-in-fin-wait2-minisock",
        "a FIN_WAIT2 minisock is ended by an RST",
        PLAIN,
        &["reset-in-time-wait"],
        in_minisock,
    ),
    scenario(
        "rst-ignored-inexact",
        "in the window, not exact: answered with a challenge ACK",
        PLAIN,
        &["rst-ignored"],
        inexact,
    ),
    scenario("rst-ignored-out-of-window", "outside of the window", PLAIN, &["rst-ignored"], out_of_window),
    scenario("rst-ignored-listener", "an RST at a listener", PLAIN, &["rst-ignored"], at_listener),
    scenario(
        "rst-ignored-syn-sent",
        "an RST without ACK in SYN_SENT",
        PLAIN,
        &["rst-ignored"],
        syn_sent_no_ack,
    ),
    scenario(
        "rst-ignored-syn-sent-ack",
        "an RST with an impossible ACK in SYN_SENT",
        PLAIN,
        &["rst-ignored"],
        syn_sent_bad_ack,
    ),
    scenario(
        "rst-ignored-time-wait",
        "TIME_WAIT with tcp_rfc1337 1",
        PLAIN,
        &["rst-ignored"],
        time_wait_rfc1337,
    ),
    scenario(
        "rst-half-open-inexact",
        "inexact RST at a half-open request: newer kernels ignore it",
        PLAIN,
        &["reset-in-handshake", "rst-ignored"],
        half_open_inexact,
    ),
];

/// The raw peer's RST hits the server's socket in this state.
fn hits(s: &mut Stage, raw: &Raw, owner: &Actor, state: &'static str) -> Expect {
    let hit = Expect::rst_received(Side::Server, raw.peer, raw.me, state).owner(owner);
    s.expect(hit.clone());
    hit
}

/// The owner of the socket sees this errno.
fn sees(actor: &Actor, fd: i32, errno: i32) -> Result<()> {
    match actor.error(fd)? {
        got if got == errno => Ok(()),
        got => bail!("the socket has errno {got}, not {errno}"),
    }
}

fn in_syn_sent(s: &mut Stage) -> Result<()> {
    let (con, fd, _, mut raw) = s.connecting()?;
    raw.take_syn()?;
    raw.rst()?;
    sees(&con, fd, libc::ECONNREFUSED)?;
    hits(s, &raw, &con, "SYN_SENT");
    s.counts(Side::Server, "AttemptFails", 1);
    Ok(())
}

fn in_syn_recv(s: &mut Stage) -> Result<()> {
    let (con, fd, _, mut raw) = s.connecting()?;
    raw.take_syn()?;
    raw.send(SYN, 0)?;
    raw.expect("SYN-ACK of a simultaneous open", |seen| seen.flags & (SYN | ACK) == SYN | ACK)?;
    raw.rst()?;
    sees(&con, fd, libc::ECONNRESET)?;
    hits(s, &raw, &con, "SYN_RECV");
    s.counts(Side::Server, "AttemptFails", 1);
    Ok(())
}

fn half_open(s: &mut Stage) -> Result<(Actor, Raw)> {
    let srv = s.server("srv")?;
    s.listener(&srv, PORT, 16)?;
    let mut raw = s.raw(0)?;
    raw.half_open()?;
    Ok((srv, raw))
}

fn in_half_open(s: &mut Stage) -> Result<()> {
    let (srv, raw) = half_open(s)?;
    raw.rst()?;
    hits(s, &raw, &srv, "NEW_SYN_RECV");
    s.counts(Side::Server, "EmbryonicRsts", 1);
    Ok(())
}

fn in_established(s: &mut Stage) -> Result<()> {
    let (srv, _, fd, raw) = s.raw_client()?;
    raw.rst()?;
    sees(&srv, fd, libc::ECONNRESET)?;
    hits(s, &raw, &srv, "ESTABLISHED");
    s.counts(Side::Server, "EstabResets", 1);
    Ok(())
}

fn in_close_wait(s: &mut Stage) -> Result<()> {
    let (srv, _, fd, mut raw) = s.raw_client()?;
    raw.fin()?;
    s.raw_state(&raw, Some("CLOSE_WAIT"))?;
    raw.rst()?;
    sees(&srv, fd, libc::EPIPE)?;
    hits(s, &raw, &srv, "CLOSE_WAIT");
    s.counts(Side::Server, "EstabResets", 1);
    Ok(())
}

fn in_fin_wait1(s: &mut Stage) -> Result<()> {
    let (srv, _, fd, raw) = s.raw_client()?;
    srv.shutdown(fd, libc::SHUT_WR)?;
    s.raw_state(&raw, Some("FIN_WAIT1"))?;
    raw.rst()?;
    sees(&srv, fd, libc::ECONNRESET)?;
    hits(s, &raw, &srv, "FIN_WAIT1");
    Ok(())
}

fn in_fin_wait2(s: &mut Stage) -> Result<()> {
    let (srv, _, fd, mut raw) = s.raw_client()?;
    srv.shutdown(fd, libc::SHUT_WR)?;
    raw.take_fin()?;
    raw.send(ACK, 0)?;
    s.raw_state(&raw, Some("FIN_WAIT2"))?;
    raw.rst()?;
    sees(&srv, fd, libc::ECONNRESET)?;
    hits(s, &raw, &srv, "FIN_WAIT2");
    Ok(())
}

fn in_closing(s: &mut Stage) -> Result<()> {
    let (srv, _, fd, mut raw) = s.raw_client()?;
    srv.shutdown(fd, libc::SHUT_WR)?;
    s.raw_state(&raw, Some("FIN_WAIT1"))?;
    raw.fin()?;
    s.raw_state(&raw, Some("CLOSING"))?;
    raw.rst()?;
    sees(&srv, fd, libc::ECONNRESET)?;
    hits(s, &raw, &srv, "CLOSING");
    Ok(())
}

fn in_last_ack(s: &mut Stage) -> Result<()> {
    let (srv, _, fd, mut raw) = s.raw_client()?;
    raw.fin()?;
    s.raw_state(&raw, Some("CLOSE_WAIT"))?;
    srv.close(fd)?;
    s.raw_state(&raw, Some("LAST_ACK"))?;
    raw.rst()?;
    s.raw_state(&raw, None)?;
    hits(s, &raw, &srv, "LAST_ACK");
    Ok(())
}

/// The server closed first and the raw peer after it.
fn time_wait(s: &mut Stage) -> Result<(Actor, Raw)> {
    let (srv, _, fd, mut raw) = s.raw_client()?;
    srv.close(fd)?;
    raw.take_fin()?;
    raw.fin()?;
    s.raw_state(&raw, Some("TIME_WAIT"))?;
    Ok((srv, raw))
}

fn in_time_wait(s: &mut Stage) -> Result<()> {
    let (srv, raw) = time_wait(s)?;
    raw.rst()?;
    s.raw_state(&raw, None)?;
    hits(s, &raw, &srv, "TIME_WAIT");
    Ok(())
}

fn in_minisock(s: &mut Stage) -> Result<()> {
    let (srv, _, fd, mut raw) = s.raw_client()?;
    srv.close(fd)?;
    raw.take_fin()?;
    raw.send(ACK, 0)?;
    s.raw_state(&raw, Some("FIN_WAIT2"))?;
    raw.rst()?;
    s.raw_state(&raw, None)?;
    let hit = Expect::rst_received(Side::Server, raw.peer, raw.me, "FIN_WAIT2");
    s.expect(hit.owner(&srv).dead().cause("reset-in-time-wait").needs_hook());
    Ok(())
}

/// The same RST, and the socket does not care.
fn ignored(s: &mut Stage, raw: &Raw, owner: &Actor, state: &'static str) {
    let seen = Expect::rst_received(Side::Server, raw.peer, raw.me, state).owner(owner);
    let seen = seen.cause("rst-ignored").needs_hook();
    s.expect(if state == "ESTABLISHED" { seen.ignored() } else { seen });
}

/// An RST `ahead` of where the receiver expects the next byte.
fn rst_ahead(raw: &Raw, ahead: u32) -> Result<()> {
    let mut rst = raw.segment(RST | ACK, 0);
    rst.seq = rst.seq.wrapping_add(ahead);
    raw.inject(&rst)
}

/// The socket is alive: it acknowledges data.
fn alive(raw: &mut Raw) -> Result<()> {
    raw.data(10)?;
    let seq = raw.seq;
    raw.expect("ACK of data", |seen| seen.flags & (ACK | RST) == ACK && seen.ack == seq).map(drop)
}

fn inexact(s: &mut Stage) -> Result<()> {
    let (srv, _, _, mut raw) = s.raw_client()?;
    rst_ahead(&raw, 5)?;
    raw.expect("challenge ACK", |seen| seen.flags & (ACK | RST) == ACK)?;
    alive(&mut raw)?;
    ignored(s, &raw, &srv, "ESTABLISHED");
    s.counts(Side::Server, "TCPChallengeACK", 1);
    Ok(())
}

fn out_of_window(s: &mut Stage) -> Result<()> {
    let (srv, _, _, mut raw) = s.raw_client()?;
    rst_ahead(&raw, 50_000_000)?;
    alive(&mut raw)?;
    ignored(s, &raw, &srv, "ESTABLISHED");
    s.counts(Side::Server, "TCPChallengeACK", 0);
    Ok(())
}

fn at_listener(s: &mut Stage) -> Result<()> {
    let srv = s.server("srv")?;
    s.listener(&srv, PORT, 16)?;
    let raw = s.raw(0)?;
    raw.inject(&raw.segment(RST, 0))?;
    ignored(s, &raw, &srv, "LISTEN");
    Ok(())
}

/// Still in SYN_SENT after it: the connect can be answered and succeeds.
fn answered(s: &mut Stage, con: &Actor, raw: &mut Raw) -> Result<()> {
    raw.send(SYN | ACK, 0)?;
    raw.expect("last ACK of the handshake", |seen| seen.flags & (SYN | ACK | RST) == ACK)?;
    s.raw_state(raw, Some("ESTABLISHED"))?;
    ignored(s, raw, con, "SYN_SENT");
    Ok(())
}

fn syn_sent_no_ack(s: &mut Stage) -> Result<()> {
    let (con, _, _, mut raw) = s.connecting()?;
    raw.take_syn()?;
    raw.inject(&raw.segment(RST, 0))?;
    answered(s, &con, &mut raw)
}

fn syn_sent_bad_ack(s: &mut Stage) -> Result<()> {
    let (con, _, _, mut raw) = s.connecting()?;
    raw.take_syn()?;
    let mut rst = raw.segment(RST | ACK, 0);
    rst.ack = rst.ack.wrapping_add(500);
    raw.inject(&rst)?;
    answered(s, &con, &mut raw)
}

fn time_wait_rfc1337(s: &mut Stage) -> Result<()> {
    s.pair.server.sysctl("ipv4/tcp_rfc1337", "1")?;
    let (srv, raw) = time_wait(s)?;
    raw.rst()?;
    // A repeated FIN is acknowledged: proof that TIME_WAIT is still there, after the RST went through.
    let mut fin = raw.segment(ACK | crate::packet::FIN, 0);
    fin.seq = fin.seq.wrapping_sub(1);
    raw.inject(&fin)?;
    raw.expect("ACK from TIME_WAIT", |seen| seen.flags & (ACK | RST | crate::packet::FIN) == ACK)?;
    s.raw_state(&raw, Some("TIME_WAIT"))?;
    ignored(s, &raw, &srv, "TIME_WAIT");
    Ok(())
}

/// Kernels from 7.1 on, and point releases before, answer with a challenge ACK and keep the request.
fn half_open_inexact(s: &mut Stage) -> Result<()> {
    let (srv, raw) = half_open(s)?;
    rst_ahead(&raw, 5)?;
    let mut challenged = false;
    s.wait("a challenge ACK or the end of the request", || {
        let answer =
            raw.next(std::time::Duration::from_millis(50), |seen| seen.flags & (SYN | ACK | RST) == ACK)?;
        challenged |= answer.is_some();
        Ok(challenged || s.growth(Side::Server, "EmbryonicRsts")? > 0)
    })?;
    if challenged {
        ignored(s, &raw, &srv, "NEW_SYN_RECV");
        s.others_name(&["reset-in-handshake"]);
        s.counts(Side::Server, "EmbryonicRsts", 0);
    } else {
        hits(s, &raw, &srv, "NEW_SYN_RECV");
        s.others_name(&["rst-ignored"]);
    }
    Ok(())
}
