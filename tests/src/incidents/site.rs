//! Incident D: a site cannot be reached now and then. The web server does not accept for a while, or somebody floods it.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::thread::{scope, sleep};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::clients::{Tally, visit};
use super::scene::Scene;
use super::truth::{Event, Truth};
use super::verdict::Verdict;
use crate::net::{RAW, RAW_MAC, SERVER_LINK, SERVER_MAC};
use crate::packet::{SYN, Segment};
use crate::raw::Raw;
use crate::sys;

/// What the site asks for with `listen()`; a full queue holds one more.
const BACKLOG: u64 = 8;
/// Who fills the queue but for three places.
const EARLY: usize = 6;
/// Handshakes that race for these places: as many as the queue of half-open connections takes without cookies.
const RACE: usize = 8;
/// Who comes when it is full.
const LATE: usize = 20;
/// Longer than the first retry of a SYN, shorter than the second.
const IMPATIENT: Duration = Duration::from_millis(1500);
const PATIENT: Duration = Duration::from_secs(60);

/// nginx with one worker and this backlog: pids of master and worker.
fn site(scene: &mut Scene<'_>, backlog: u64) -> Result<[i32; 2]> {
    let listen = scene.family.any(80);
    scene.nginx(
        true,
        &format!("server {{ listen {listen} backlog={backlog}; location / {{ return 200 \"done\\n\"; }} }}"),
    )
}

/// A worker that does nothing for a while, as one that waits for a disk or swaps.
struct Stopped(i32);

impl Stopped {
    fn new(pid: i32) -> Result<Self> {
        sys::signal(pid, libc::SIGSTOP).context("stopping the worker")?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(sys::signal(self.0, libc::SIGCONT));
    }
}

/// How those fared who came while the worker stood still.
#[derive(Default)]
struct Visits {
    early: Tally,
    race: Tally,
    late: Tally,
}

/// One pause of the worker. The queue fills, some come too late with the last ACK of their handshake and others with their SYN.
fn pause(scene: &Scene<'_>, worker: i32, visits: &Visits) -> Result<()> {
    let (elsewhere, site) = (scene.elsewhere(), scene.family.server(80));
    let stopped = Stopped::new(worker)?;
    let come = |tally: &Tally, patience: Duration| tally.note(&visit(elsewhere, site, patience)?);
    scope(|threads| -> Result<()> {
        let mut all: Vec<_> = (0..EARLY).map(|_| threads.spawn(|| come(&visits.early, PATIENT))).collect();
        scene.wait_queue(80, EARLY as u64)?;
        let before = scene.growth("ListenOverflows")?;
        // Their SYN-ACKs get lost, so all of them end their handshakes at once, when the SYN-ACKs are sent again.
        scene.pair.mute_server(true)?;
        all.extend((0..RACE).map(|_| threads.spawn(|| come(&visits.race, PATIENT))));
        let half_open = scene.wait_sockets(80, "SYN_RECV", RACE);
        scene.pair.mute_server(false)?;
        half_open?;
        scene.wait_growth("ListenOverflows", before + LOST_RACES / 2)?;
        scene.wait_queue(80, BACKLOG + 1)?;
        let late: Vec<_> = (0..LATE).map(|_| threads.spawn(|| come(&visits.late, IMPATIENT))).collect();
        for one in late {
            one.join().ok().context("a client panicked")??;
        }
        drop(stopped);
        all.into_iter().try_for_each(|one| one.join().ok().context("a client panicked")?)
    })
}

/// Two pauses, and good times between them.
fn pauses(scene: &mut Scene<'_>, backlog: u64) -> Result<([i32; 2], Visits)> {
    let pids = site(scene, backlog)?;
    scene.watch(&[])?;
    let visits = Visits::default();
    for _ in 0..2 {
        for _ in 0..10 {
            visit(scene.elsewhere(), scene.family.server(80), PATIENT)?.context("a visit in good times")?;
        }
        pause(scene, pids[1], &visits)?;
        sleep(Duration::from_millis(300));
    }
    ensure!(visits.early.served() == 2 * EARLY as u64, "who had a place was not served: {:?}", visits.early);
    ensure!(visits.late.timed_out() == 2 * LATE as u64, "who came to a full queue got in: {:?}", visits.late);
    Ok((pids, visits))
}

fn full(pids: &[i32], stage: &'static str, times: RangeInclusive<u64>, hook: &'static str) -> Event {
    Event::new("listen_drop", "accept-queue-full", times)
        .owner(pids, "nginx")
        .local_port(80)
        .stage(stage)
        .says("/listen/queue", "accept")
        .says("/listen/max", BACKLOG)
        .hook(hook)
}

/// Who lost the races for three places, at least: on two CPUs at once, one more gets in. A lost ACK is sent again with the data.
const LOST_RACES: u64 = 2 * (RACE - 4) as u64;
const TURNED_AWAY: u64 = 2 * LATE as u64;

/// What a diagnosis says about every site that does not accept.
fn overflow(pids: &[i32], causes: &[&'static str]) -> Verdict {
    Verdict::new(causes, "ListenDrops")
        .by(pids, "nginx")
        .at(80)
        .says(&["accept queue"])
        .overfull(BACKLOG)
        .says(&["dropped at the SYN", "the client tries again"])
}

/// Clients whose last ACK was dropped so often that the kernel forgot them: what they send then is answered with an RST.
const FORGOTTEN: (&str, RangeInclusive<u64>) = ("OutRsts", 0..=2 * RACE as u64);

/// The kernel drops; clients try again, and some wait in vain.
pub(super) fn slow(scene: &mut Scene<'_>) -> Result<Truth> {
    let (pids, visits) = pauses(scene, BACKLOG)?;
    ensure!(
        visits.race.served() + visits.race.reset() == 2 * RACE as u64,
        "who raced was neither served at last nor reset: {:?}",
        visits.race
    );
    Ok(Truth {
        events: vec![
            full(&pids, "syn", TURNED_AWAY..=3 * TURNED_AWAY, "tcp_conn_request"),
            full(&pids, "ack", LOST_RACES..=20 * LOST_RACES, "tcp_v4_syn_recv_sock"),
        ],
        counters: vec![("ListenOverflows", LOST_RACES + TURNED_AWAY..=u64::MAX), FORGOTTEN],
        verdict: overflow(&pids, &["accept-queue-full"]).says(&[
            "dropped at the last ACK",
            "the client believes to be connected",
            "backlog",
        ]),
    })
}

/// With `tcp_abort_on_overflow` the losers of the race are reset instead of being left alone.
pub(super) fn abort(scene: &mut Scene<'_>) -> Result<Truth> {
    scene.pair.server.sysctl("ipv4/tcp_abort_on_overflow", "1")?;
    let (pids, visits) = pauses(scene, BACKLOG)?;
    let lost = visits.race.reset();
    ensure!(lost >= LOST_RACES, "{LOST_RACES} should have been reset: {:?}", visits.race);
    // A SYN-ACK that was sent twice is acknowledged twice, and both are answered.
    let resets = lost..=4 * lost;
    Ok(Truth {
        events: vec![
            full(&pids, "syn", TURNED_AWAY..=3 * TURNED_AWAY, "tcp_conn_request"),
            full(&pids, "ack", lost..=2 * lost, "tcp_v4_syn_recv_sock").says("/listen/action", "reset"),
            Event::new("rst_sent", "accept-queue-overflow", lost..=4 * lost)
                .owner(&pids, "nginx")
                .local_port(80),
        ],
        counters: vec![("ListenOverflows", LOST_RACES + TURNED_AWAY..=u64::MAX), ("OutRsts", resets)],
        verdict: overflow(&pids, &["accept-queue-full"]).says(&[
            "ECONNRESET",
            "net.ipv4.tcp_abort_on_overflow=1",
            "sysctl -w net.ipv4.tcp_abort_on_overflow=0",
            "backlog",
        ]),
    })
}

/// nginx asks for its usual 511, and `somaxconn` makes 8 of it.
pub(super) fn somaxconn(scene: &mut Scene<'_>) -> Result<Truth> {
    scene.pair.server.sysctl("core/somaxconn", &BACKLOG.to_string())?;
    let (pids, _) = pauses(scene, 511)?;
    Ok(Truth {
        events: vec![
            full(&pids, "syn", TURNED_AWAY..=3 * TURNED_AWAY, "tcp_conn_request")
                .says("/listen/somaxconn", BACKLOG),
        ],
        counters: vec![("ListenOverflows", LOST_RACES + TURNED_AWAY..=u64::MAX), FORGOTTEN],
        verdict: overflow(&pids, &["accept-queue-full"]).says(&["sysctl -w net.core.somaxconn="]),
    })
}

const FLOOD_BACKLOG: u64 = 64;
/// SYNs from as many forged sources, more than the queue of half-open connections holds.
const FORGED: u16 = 400;

/// The host answers strangers through a router that never says a word.
fn flood(scene: &Scene<'_>) -> Result<()> {
    let family = scene.family;
    scene.host().ip(&format!("route add default via {} dev {SERVER_LINK}", family.addr(RAW)))?;
    let raw = Raw::new(scene.elsewhere(), SocketAddr::new(family.addr(RAW), 1), family.server(80))?;
    for number in 0..FORGED {
        let [high, low] = number.to_be_bytes();
        let source = if family.wire_v6() {
            std::net::IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 7, number + 1])
        } else {
            std::net::IpAddr::from([198, 18, high, low])
        };
        let port = 1024 + number.wrapping_mul(97) % 50_000;
        let syn = Segment { from: SocketAddr::new(source, port), ..raw.segment(SYN, 0) };
        raw.put(&syn.frame(RAW_MAC, SERVER_MAC))?;
    }
    Ok(())
}

/// A flood with cookies: nobody is turned away, and visitors are served throughout.
pub(super) fn cookies(scene: &mut Scene<'_>) -> Result<Truth> {
    let pids = site(scene, FLOOD_BACKLOG)?;
    scene.watch(&[])?;
    flood(scene)?;
    let least = u64::from(FORGED) - FLOOD_BACKLOG - 2;
    scene.wait_growth("SyncookiesSent", least)?;
    for _ in 0..5 {
        visit(scene.elsewhere(), scene.family.server(80), PATIENT)?.context("a visit during the flood")?;
    }
    Ok(Truth {
        events: vec![
            Event::new("listen_drop", "syn-cookies-sent", least..=u64::from(FORGED) + 5)
                .owner(&pids, "nginx")
                .local_port(80)
                .says("/listen/queue", "syn")
                .says("/listen/action", "cookie")
                .says("/listen/max", FLOOD_BACKLOG)
                .hook("tcp_conn_request"),
        ],
        verdict: Verdict::new(&["syn-cookies-sent"], "SyncookiesSent").by(&pids, "nginx").at(80).says(&[
            "flood",
            "cookie",
            if scene.family.wire_v6() { "2001:db8:" } else { "198.18." },
        ]),
        counters: vec![("SyncookiesSent", least..=u64::from(FORGED) + 5), ("ListenOverflows", 0..=0)],
    })
}

/// A flood without cookies: SYNs are dropped, those of visitors too.
pub(super) fn no_cookies(scene: &mut Scene<'_>) -> Result<Truth> {
    scene.pair.server.sysctl("ipv4/tcp_syncookies", "0")?;
    let pids = site(scene, FLOOD_BACKLOG)?;
    scene.watch(&[])?;
    flood(scene)?;
    let least = u64::from(FORGED) - FLOOD_BACKLOG - 2;
    scene.wait_growth("ListenDrops", least)?;
    let tally = Tally::default();
    for _ in 0..2 {
        tally.note(&visit(scene.elsewhere(), scene.family.server(80), IMPATIENT)?)?;
    }
    ensure!(tally.timed_out() == 2, "visitors got in although the queue is full: {tally:?}");
    let most = u64::from(FORGED) + 6;
    Ok(Truth {
        events: vec![
            Event::new("listen_drop", "syn-queue-full", least..=most)
                .owner(&pids, "nginx")
                .local_port(80)
                .says("/listen/queue", "syn")
                .says("/listen/action", "dropped")
                .says("/listen/max", FLOOD_BACKLOG)
                .hook("tcp_conn_request"),
        ],
        verdict: Verdict::new(&["syn-queue-full"], "ListenDrops")
            .by(&pids, "nginx")
            .at(80)
            .says(&["flood", "sysctl -w net.ipv4.tcp_syncookies=1"]),
        counters: vec![("ListenDrops", least..=most), ("ListenOverflows", 0..=0)],
    })
}
