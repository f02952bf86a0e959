//! RSTs that a handshake draws when it goes wrong in a way that no honest stack would do: raw peers do it.

use anyhow::Result;

use super::closing::NO_SOCKET_SITES;
use super::{ALL, PLAIN, PORT, Scenario, scenario};
use crate::actor::Actor;
use crate::expect::{Expect, Side};
use crate::packet::{ACK, SYN};
use crate::raw::Raw;
use crate::stage::Stage;

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario(
        "syn-in-handshake",
        "a second SYN, with another number, meets a half-open request",
        ALL,
        &["syn-in-handshake"],
        second_syn,
    ),
    scenario(
        "bad-last-ack",
        "the last ACK of a handshake has an impossible number",
        PLAIN,
        &["stray-segment-to-listener"],
        bad_last_ack,
    ),
    scenario(
        "bad-synack",
        "SYN_SENT gets a SYN-ACK with an impossible number",
        ALL,
        &["bad-handshake-ack"],
        bad_synack,
    ),
    scenario(
        "bad-synack-timestamp",
        "SYN_SENT gets a SYN-ACK that echoes a timestamp never sent",
        PLAIN,
        &["bad-handshake-ack"],
        bad_timestamp,
    ),
    scenario(
        "bad-ack-syn-recv",
        "simultaneous open, then an ACK of what was never sent",
        PLAIN,
        &["bad-handshake-ack"],
        bad_simultaneous,
    ),
    scenario(
        "fastopen-second-syn",
        "another SYN meets the child of TCP fast open",
        PLAIN,
        &["syn-in-handshake"],
        fast_open_syn,
    ),
    scenario(
        "fastopen-bad-ack",
        "the child of TCP fast open gets an ACK of what was never sent",
        PLAIN,
        &["bad-handshake-ack"],
        fast_open_ack,
    ),
    scenario(
        "forgotten-connect",
        "a SYN-ACK for a connect that was closed",
        ALL,
        &["forgotten-connect"],
        forgotten_close,
    ),
    scenario(
        "forgotten-connect-killed",
        "a SYN-ACK for a connect whose process was killed",
        PLAIN,
        &["forgotten-connect"],
        forgotten_kill,
    ),
];

fn second_syn(s: &mut Stage) -> Result<()> {
    let srv = s.server("srv")?;
    s.listener(&srv, PORT, 16)?;
    let mut raw = s.raw(0)?;
    raw.half_open()?;
    raw.seq = raw.seq.wrapping_add(5);
    raw.inject(&raw.segment(SYN, 0))?;
    raw.take_rst()?;
    s.expect(
        Expect::rst_sent(raw.peer, raw.me)
            .state("NEW_SYN_RECV")
            .owner(&srv)
            .reason("INVALID_SYN")
            .cause("syn-in-handshake")
            .site(&["tcp_check_req"]),
    );
    s.counts(Side::Server, "EmbryonicRsts", 1);
    s.counts(Side::Server, "AttemptFails", 1);
    Ok(())
}

/// The request does not want it, so the segment falls through to the listener.
fn bad_last_ack(s: &mut Stage) -> Result<()> {
    let srv = s.server("srv")?;
    s.listener(&srv, PORT, 16)?;
    let mut raw = s.raw(0)?;
    raw.half_open()?;
    raw.ack = raw.ack.wrapping_add(77);
    raw.send(ACK, 0)?;
    raw.take_rst()?;
    s.expect(
        Expect::rst_sent(raw.peer, raw.me)
            .states(&["LISTEN", "NEW_SYN_RECV"])
            .owner(&srv)
            .reason("TCP_FLAGS")
            .cause("stray-segment-to-listener"),
    );
    Ok(())
}

fn expect_bad(
    s: &mut Stage,
    con: &Actor,
    raw: &Raw,
    state: &'static str,
    reason: &'static str,
) -> Result<()> {
    raw.take_rst()?;
    s.expect(
        Expect::rst_sent(raw.peer, raw.me).state(state).owner(con).reason(reason).cause("bad-handshake-ack"),
    );
    Ok(())
}

fn bad_synack(s: &mut Stage) -> Result<()> {
    let (con, _, _, mut raw) = s.connecting()?;
    raw.take_syn()?;
    raw.ack = raw.ack.wrapping_add(100);
    raw.inject(&raw.segment(SYN | ACK, 0))?;
    expect_bad(s, &con, &raw, "SYN_SENT", "TCP_INVALID_ACK_SEQUENCE")
}

fn bad_timestamp(s: &mut Stage) -> Result<()> {
    let (con, _, _, mut raw) = s.connecting()?;
    let sent = raw.take_syn()?.timestamp().unwrap_or_default();
    let mut answer = raw.segment(SYN | ACK, 0);
    answer.options = vec![1, 1, 8, 10, 0, 0, 0, 1];
    answer.options.extend(sent.wrapping_add(50_000_000).to_be_bytes());
    raw.inject(&answer)?;
    s.counts(Side::Server, "PAWSActive", 1);
    expect_bad(s, &con, &raw, "SYN_SENT", "TCP_RFC7323_PAWS")
}

/// Both sides sent a SYN: a full socket is in SYN_RECV, without any listener.
fn bad_simultaneous(s: &mut Stage) -> Result<()> {
    let (con, _, _, mut raw) = s.connecting()?;
    raw.take_syn()?;
    raw.send(SYN, 0)?;
    raw.expect("SYN-ACK of a simultaneous open", |seen| seen.flags & (SYN | ACK) == SYN | ACK)?;
    raw.ack = raw.ack.wrapping_add(1000);
    raw.inject(&raw.segment(ACK, 0))?;
    expect_bad(s, &con, &raw, "SYN_RECV", "TCP_ACK_UNSENT_DATA")
}

/// A SYN with data, which a listener takes without a cookie: the child is a full socket at once, in SYN_RECV.
fn fast_open(s: &mut Stage) -> Result<(Actor, Raw)> {
    const SERVER: u32 = 2;
    const WITHOUT_COOKIE: u32 = 0x200;
    const EVERY_LISTENER: u32 = 0x400;
    let bits = SERVER | WITHOUT_COOKIE | EVERY_LISTENER;
    s.pair.server.sysctl("ipv4/tcp_fastopen", &bits.to_string())?;
    let srv = s.server("srv")?;
    let listener = s.listener(&srv, PORT, 16)?;
    let mut raw = s.raw(0)?;
    raw.send(SYN, 10)?;
    let all = raw.seq;
    let answer =
        raw.expect("SYN-ACK of the data", |seen| seen.flags & (SYN | ACK) == SYN | ACK && seen.ack == all)?;
    raw.ack = answer.seq.wrapping_add(1);
    s.wait_queue(&srv, listener, 1)?;
    s.counts(Side::Server, "TCPFastOpenPassive", 1);
    Ok((srv, raw))
}

fn fast_open_syn(s: &mut Stage) -> Result<()> {
    let (srv, mut raw) = fast_open(s)?;
    raw.seq = raw.seq.wrapping_add(5);
    raw.inject(&raw.segment(SYN, 0))?;
    raw.take_rst()?;
    s.expect(
        Expect::rst_sent(raw.peer, raw.me)
            .state("SYN_RECV")
            .owner(&srv)
            .reason("INVALID_SYN")
            .cause("syn-in-handshake")
            .site(&["tcp_check_req"]),
    );
    Ok(())
}

fn fast_open_ack(s: &mut Stage) -> Result<()> {
    let (srv, mut raw) = fast_open(s)?;
    raw.ack = raw.ack.wrapping_add(1000);
    raw.inject(&raw.segment(ACK, 0))?;
    expect_bad(s, &srv, &raw, "SYN_RECV", "TCP_ACK_UNSENT_DATA")
}

fn forgotten(s: &mut Stage, end: impl FnOnce(&Actor, i32) -> Result<()>) -> Result<()> {
    let (con, fd, local, mut raw) = s.connecting()?;
    raw.take_syn()?;
    end(&con, fd)?;
    s.wait_state(Side::Server, local.port(), raw.me.port(), None)?;
    raw.inject(&raw.segment(SYN | ACK, 0))?;
    raw.take_rst()?;
    s.expect(
        Expect::rst_sent(raw.peer, raw.me)
            .state("null")
            .owner(&con)
            .dead()
            .reason("NO_SOCKET")
            .cause("forgotten-connect")
            .site(NO_SOCKET_SITES),
    );
    Ok(())
}

fn forgotten_close(s: &mut Stage) -> Result<()> {
    forgotten(s, |con, fd| con.close(fd))
}

fn forgotten_kill(s: &mut Stage) -> Result<()> {
    forgotten(s, |con, _| con.kill())
}
