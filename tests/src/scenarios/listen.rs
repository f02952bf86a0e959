//! Connections that the host turned away: full queues, cookies, no way back; and strays at a listener.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use anyhow::{Result, bail};

use super::{ALL, PLAIN, PORT, Scenario, scenario};
use crate::actor::Actor;
use crate::expect::{Expect, Listen, Side};
use crate::packet::{ACK, SYN};
use crate::raw::Raw;
use crate::stage::Stage;

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario(
        "accept-full-syn",
        "a SYN meets a full accept queue",
        ALL,
        &["accept-queue-full"],
        accept_full_syn,
    ),
    scenario(
        "accept-full-somaxconn",
        "the same, and somaxconn set the limit, not the backlog",
        PLAIN,
        &["accept-queue-full"],
        somaxconn,
    ),
    scenario(
        "accept-full-ack",
        "the last ACK meets a full accept queue",
        ALL,
        &["accept-queue-full"],
        accept_full_ack,
    ),
    scenario(
        "accept-full-ack-abort",
        "the same with tcp_abort_on_overflow 1",
        ALL,
        &["accept-queue-full", "accept-queue-overflow"],
        accept_full_ack_abort,
    ),
    scenario("syn-queue-full", "SYN queue full, cookies off", PLAIN, &["syn-queue-full"], syn_queue_full),
    scenario(
        "syn-queue-last-quarter",
        "SYN backlog nearly full, cookies off: unknown peers",
        PLAIN,
        &["syn-queue-full"],
        last_quarter,
    ),
    scenario("syn-cookies", "SYN queue full, cookies on", PLAIN, &["syn-cookies-sent"], syn_cookies),
    scenario("cookie-invalid", "an ACK with a wrong cookie", PLAIN, &["syn-cookie-invalid"], cookie_invalid),
    scenario(
        "accept-full-cookie",
        "the ACK of a good cookie meets a full accept queue",
        PLAIN,
        &["accept-queue-full"],
        accept_full_cookie,
    ),
    scenario(
        "icmp-ends-handshake",
        "ICMP says that the SYN-ACK cannot be delivered",
        PLAIN,
        &["listen-refused"],
        icmp_ends_handshake,
    ),
    scenario(
        "listen-refused",
        "a SYN from where no route leads back",
        PLAIN,
        &["listen-refused"],
        listen_refused,
    ),
    scenario(
        "stray-ack",
        "an ACK of no connection at a listener",
        ALL,
        &["stray-segment-to-listener"],
        stray_ack,
    ),
    scenario(
        "firewall-reject",
        "nftables rejects with tcp reset, nobody listens",
        PLAIN,
        &["connection-refused", "firewall-reject"],
        reject_nobody,
    ),
    scenario(
        "firewall-reject-listener",
        "the same in front of a listener",
        PLAIN,
        &["connection-refused", "firewall-reject"],
        reject_listener,
    ),
];

/// A listener, and raw peers that fill its accept queue to `len`.
fn filled(s: &mut Stage, backlog: i32, len: u16) -> Result<(Actor, i32)> {
    filled_at(s, s.family.any(PORT), backlog, len)
}

fn filled_at(s: &mut Stage, at: SocketAddr, backlog: i32, len: u16) -> Result<(Actor, i32)> {
    let srv = s.server("srv")?;
    let listener = s.listener_at(&srv, at, backlog)?;
    for number in 0..len {
        s.raw(number)?.open()?;
    }
    s.wait_queue(&srv, listener, i32::from(len))?;
    Ok((srv, listener))
}

fn queue(
    queue: &'static str,
    stage: &'static str,
    action: &'static str,
    len: RangeInclusive<u64>,
    max: u64,
) -> Listen {
    Listen {
        local: None,
        queue,
        stage,
        action,
        len: Some(len),
        max: Some(max),
        backlog: Some(max),
        somaxconn: Some(4096),
    }
}

/// The queue holds one more than the backlog.
fn accept_full_syn(s: &mut Stage) -> Result<()> {
    let (srv, _) = filled(s, 1, 2)?;
    let mut late = s.raw(9)?;
    late.send(SYN, 0)?;
    s.expect(
        Expect::listen_drop(late.peer, late.me, queue("accept", "syn", "dropped", 2..=2, 1))
            .owner(&srv)
            .cause("accept-queue-full"),
    );
    s.counts(Side::Server, "ListenOverflows", 1);
    Ok(())
}

fn somaxconn(s: &mut Stage) -> Result<()> {
    s.pair.server.sysctl("core/somaxconn", "2")?;
    // Bound to the one address, as not every server is to all.
    let at = s.family.server(PORT);
    let (srv, _) = filled_at(s, at, 50, 3)?;
    let mut late = s.raw(9)?;
    late.send(SYN, 0)?;
    let full = Listen {
        local: Some(at),
        // Where the kernel keeps it, the number that the program asked for is gone: only the limit is left.
        backlog: None,
        somaxconn: Some(2),
        ..queue("accept", "syn", "dropped", 3..=3, 2)
    };
    s.expect(Expect::listen_drop(late.peer, late.me, full).owner(&srv).cause("accept-queue-full"));
    s.counts(Side::Server, "ListenOverflows", 1);
    Ok(())
}

/// Three handshakes race for the last place: one gets in, two come too late.
fn race(s: &mut Stage) -> Result<(Actor, [Raw; 2])> {
    let (srv, listener) = filled(s, 4, 4)?;
    let mut raws = [s.raw(10)?, s.raw(11)?, s.raw(12)?];
    for raw in &mut raws {
        raw.half_open()?;
    }
    for raw in &mut raws {
        raw.send(ACK, 0)?;
    }
    s.wait_queue(&srv, listener, 5)?;
    s.wait_counter(Side::Server, "ListenOverflows", 2)?;
    let [_, one, two] = raws;
    Ok((srv, [one, two]))
}

fn accept_full_ack(s: &mut Stage) -> Result<()> {
    let (srv, late) = race(s)?;
    for raw in late {
        s.expect(
            Expect::listen_drop(raw.peer, raw.me, queue("accept", "ack", "dropped", 5..=5, 4))
                .owner(&srv)
                .cause("accept-queue-full"),
        );
    }
    s.counts(Side::Server, "ListenOverflows", 2);
    Ok(())
}

fn accept_full_ack_abort(s: &mut Stage) -> Result<()> {
    s.pair.server.sysctl("ipv4/tcp_abort_on_overflow", "1")?;
    let (srv, late) = race(s)?;
    for raw in late {
        raw.take_rst()?;
        s.expect(
            Expect::listen_drop(raw.peer, raw.me, queue("accept", "ack", "reset", 5..=5, 4))
                .owner(&srv)
                .cause("accept-queue-full"),
        );
        s.expect(
            Expect::rst_sent(raw.peer, raw.me)
                .state("NEW_SYN_RECV")
                .owner(&srv)
                .reason("INVALID_SYN")
                .cause("accept-queue-overflow")
                .site(&["tcp_check_req"]),
        );
    }
    s.counts(Side::Server, "ListenOverflows", 2);
    s.counts(Side::Server, "EmbryonicRsts", 2);
    Ok(())
}

const FLOOD: u16 = 8;

/// SYNs that nobody ever follows up. Kernels differ by one in how many they take before the queue is full, so
/// the counter says which of them, in their order, met a full queue.
fn flood(s: &mut Stage, backlog: i32, counter: &str) -> Result<(Actor, Vec<Raw>)> {
    let srv = s.server("srv")?;
    s.listener(&srv, PORT, backlog)?;
    let mut late = Vec::new();
    for number in 0..FLOOD {
        let mut raw = s.raw(number)?;
        raw.send(SYN, 0)?;
        late.push(raw);
    }
    s.wait(&format!("{counter} to grow"), || Ok(s.growth(Side::Server, counter)? > 0))?;
    // All SYNs went over one link in order: when the counter rests, all of them have been dealt with.
    let mut before = 0;
    s.wait("the flood to be over", || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let now = s.growth(Side::Server, counter)?;
        Ok(std::mem::replace(&mut before, now) == now)
    })?;
    late.drain(..usize::from(FLOOD) - usize::try_from(before)?);
    Ok((srv, late))
}

fn syn_queue_full(s: &mut Stage) -> Result<()> {
    s.pair.server.sysctl("ipv4/tcp_syncookies", "0")?;
    let (srv, late) = flood(s, 2, "ListenDrops")?;
    let remotes: Vec<_> = late.iter().map(|raw| raw.me).collect();
    s.counts(Side::Server, "TCPReqQFullDrop", remotes.len() as u64);
    s.expect(
        Expect::listen_drop(late[0].peer, late[0].me, queue("syn", "syn", "dropped", 2..=3, 2))
            .remotes(remotes)
            .owner(&srv)
            .cause("syn-queue-full"),
    );
    Ok(())
}

/// With cookies off the last quarter of `tcp_max_syn_backlog` is kept for peers that are known.
fn last_quarter(s: &mut Stage) -> Result<()> {
    s.pair.server.sysctl("ipv4/tcp_syncookies", "0")?;
    s.pair.server.sysctl("ipv4/tcp_max_syn_backlog", "4")?;
    let (srv, late) = flood(s, 64, "ListenDrops")?;
    let remotes: Vec<_> = late.iter().map(|raw| raw.me).collect();
    s.counts(Side::Server, "TCPReqQFullDrop", 0);
    let full = Listen { max: None, backlog: None, len: None, ..queue("syn", "syn", "dropped", 0..=0, 0) };
    s.expect(
        Expect::listen_drop(late[0].peer, late[0].me, full)
            .remotes(remotes)
            .owner(&srv)
            .cause("syn-queue-full"),
    );
    Ok(())
}

fn syn_cookies(s: &mut Stage) -> Result<()> {
    let (srv, late) = flood(s, 2, "SyncookiesSent")?;
    let remotes: Vec<_> = late.iter().map(|raw| raw.me).collect();
    s.counts(Side::Server, "SyncookiesSent", remotes.len() as u64);
    s.expect(
        Expect::listen_drop(late[0].peer, late[0].me, queue("syn", "syn", "cookie", 2..=3, 2))
            .remotes(remotes)
            .owner(&srv)
            .cause("syn-cookies-sent"),
    );
    Ok(())
}

/// Cookies are checked only while the listener lately sent some: with 2 it always does.
fn cookie_invalid(s: &mut Stage) -> Result<()> {
    s.pair.server.sysctl("ipv4/tcp_syncookies", "2")?;
    let srv = s.server("srv")?;
    let listener = s.listener(&srv, PORT, 16)?;
    let mut good = s.raw(0)?;
    good.open()?;
    s.wait_queue(&srv, listener, 1)?;
    let mut bad = s.raw(1)?;
    bad.ack = 0x1234_5678;
    bad.send(ACK, 0)?;
    bad.take_rst()?;
    let sent = Listen { len: None, ..queue("syn", "syn", "cookie", 0..=0, 16) };
    s.expect(Expect::listen_drop(good.peer, good.me, sent).owner(&srv).cause("syn-cookies-sent").maybe());
    s.expect(
        Expect::rst_sent(bad.peer, bad.me)
            .state("LISTEN")
            .owner(&srv)
            .reason("TCP_FLAGS")
            .cause("syn-cookie-invalid")
            .weakly(&["stray-segment-to-listener"]),
    );
    // The kernel counts no drop for it; the RST is the whole answer.
    s.counts(Side::Server, "SyncookiesFailed", 1);
    Ok(())
}

/// Two cookies are out when there is room for one.
fn accept_full_cookie(s: &mut Stage) -> Result<()> {
    s.pair.server.sysctl("ipv4/tcp_syncookies", "2")?;
    let srv = s.server("srv")?;
    let listener = s.listener(&srv, PORT, 0)?;
    let (mut first, mut late) = (s.raw(0)?, s.raw(1)?);
    for raw in [&mut first, &mut late] {
        raw.half_open()?;
        let sent = Listen { queue: "syn", stage: "syn", action: "cookie", ..Listen::default() };
        let cookie = Expect::listen_drop(raw.peer, raw.me, sent);
        s.expect(cookie.owner(&srv).cause("syn-cookies-sent").maybe());
    }
    first.send(ACK, 0)?;
    s.wait_queue(&srv, listener, 1)?;
    late.send(ACK, 0)?;
    s.expect(
        Expect::listen_drop(late.peer, late.me, queue("accept", "ack", "dropped", 1..=1, 0))
            .owner(&srv)
            .cause("accept-queue-full"),
    );
    s.counts(Side::Server, "SyncookiesSent", 2);
    s.counts(Side::Server, "ListenOverflows", 1);
    Ok(())
}

/// No stage or queue fits, but the kernel counts it as a drop of the listener.
fn icmp_ends_handshake(s: &mut Stage) -> Result<()> {
    let srv = s.server("srv")?;
    s.listener(&srv, PORT, 16)?;
    let mut raw = s.raw(0)?;
    let answer = raw.half_open()?;
    raw.refuse(&answer)?;
    s.raw_state(&raw, None)?;
    let gone = Listen { action: "dropped", ..Listen::default() };
    s.expect(Expect::listen_drop(raw.peer, raw.me, gone).owner(&srv).cause("listen-refused"));
    Ok(())
}

fn listen_refused(s: &mut Stage) -> Result<()> {
    let srv = s.server("srv")?;
    s.listener(&srv, PORT, 16)?;
    let mut raw = s.raw(0)?;
    let far: std::net::IpAddr =
        if s.family.wire_v6() { [0xfd55, 0, 0, 0, 0, 0, 0, 1].into() } else { [10, 55, 0, 1].into() };
    raw.me.set_ip(far);
    raw.send(SYN, 0)?;
    let refused = Listen { stage: "syn", action: "dropped", ..Listen::default() };
    s.expect(Expect::listen_drop(raw.peer, raw.me, refused).owner(&srv).cause("listen-refused"));
    s.counts(Side::Server, "ListenOverflows", 0);
    Ok(())
}

fn stray_ack(s: &mut Stage) -> Result<()> {
    let srv = s.server("srv")?;
    s.listener(&srv, PORT, 16)?;
    let mut raw = s.raw(0)?;
    raw.ack = 0x2222_2222;
    raw.send(ACK, 0)?;
    raw.take_rst()?;
    s.expect(
        Expect::rst_sent(raw.peer, raw.me)
            .state("LISTEN")
            .owner(&srv)
            .reason("TCP_FLAGS")
            .cause("stray-segment-to-listener"),
    );
    Ok(())
}

/// A firewall that refuses in the name of the server, and a connect that meets it.
fn reject(s: &mut Stage, listening: bool) -> Result<()> {
    let (srv, cli) = s.both()?;
    if listening {
        s.listener(&srv, PORT, 16)?;
    }
    s.reject(&PORT.to_string())?;
    let (fd, client) = s.client_socket(&cli)?;
    let server = s.family.server(PORT);
    let errno = cli.connect_fails(fd, server)?;
    if errno != libc::ECONNREFUSED {
        bail!("connect ended with errno {errno} instead of ECONNREFUSED");
    }
    let sent = Expect::rst_sent(server, client)
        .cause("firewall-reject")
        .site(&["nf_send_reset", "nf_send_reset6"])
        .outside_tcp();
    s.expect(if listening { sent.owner(&srv) } else { sent.nobody().state("null") });
    s.expect(Expect::rst_received(Side::Client, client, server, "SYN_SENT").owner(&cli));
    s.counts(Side::Server, "OutRsts", 0);
    Ok(())
}

fn reject_nobody(s: &mut Stage) -> Result<()> {
    reject(s, false)
}

fn reject_listener(s: &mut Stage) -> Result<()> {
    reject(s, true)
}
