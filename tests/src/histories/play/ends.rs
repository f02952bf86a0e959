//! Ends of a connection between two real processes, by the way one of them, or both at once, lets go of it.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;

use super::{End, Link, Player, Rest, late, without_full_socket};
use crate::expect::{Expect, Side};
use crate::stage::not_here;

/// Bytes that are sent to nobody's joy.
const BYTES: i32 = 10;

pub(super) fn feed(p: &Player<'_>, link: &Link) -> Result<()> {
    link.far.send(BYTES as usize)?;
    p.scene.wait_unread(&link.near, BYTES)
}

/// The far end closes its direction; both know it.
pub(super) fn far_shuts(p: &Player<'_>, link: &Link) -> Result<()> {
    link.far.shutdown(libc::SHUT_WR)?;
    p.scene.wait_state(&link.near, Some("CLOSE_WAIT"))?;
    p.scene.wait_state(&link.far, Some("FIN_WAIT2"))
}

/// The near end closes its direction; both know it.
pub(super) fn near_shuts(p: &Player<'_>, link: &Link, how: i32) -> Result<()> {
    link.near.shutdown(how)?;
    p.scene.wait_state(&link.near, Some("FIN_WAIT2"))?;
    p.scene.wait_state(&link.far, Some("CLOSE_WAIT"))
}

/// Both let go at the same time, as far as two processes can.
fn at_once(one: impl FnOnce() -> Result<()> + Send, two: impl FnOnce() -> Result<()>) -> Result<()> {
    std::thread::scope(|scope| {
        let other = scope.spawn(one);
        let mine = two();
        other.join().unwrap_or_else(|_| Err(anyhow::anyhow!("an actor's thread panicked")))?;
        mine
    })
}

pub(super) fn gone(p: &Player<'_>, link: &Link) -> Result<()> {
    p.scene.stage.wait("both ends to be gone", || {
        let over =
            |end: &End| Ok::<_, anyhow::Error>(matches!(p.scene.state(end)?, None | Some("TIME_WAIT")));
        Ok(over(&link.near)? && over(&link.far)?)
    })
}

/// The near end closes, the far one sees it and follows: an orderly end.
pub(super) fn close_both(p: &Player<'_>, link: &Link) -> Result<()> {
    link.near.close()?;
    far_follows(p, link)
}

/// The far end sees that the other one closed.
pub(super) fn far_follows(p: &Player<'_>, link: &Link) -> Result<()> {
    link.far.is_at_end()?;
    link.far.close()?;
    gone(p, link)?;
    p.tell_ways(link, orderly_ways(link));
    Ok(())
}

/// Nothing may be seen of an orderly end. But a FIN that is slow to be acknowledged is sent again, TIME_WAIT acknowledges both,
/// and for the second ACK nobody is there any more.
pub(super) fn orderly_ways(link: &Link) -> Vec<Vec<Expect>> {
    let second = vec![late(&link.far, "late-segment"), link.near.gets("TIME_WAIT").dead()];
    vec![Vec::new(), second]
}

pub(super) fn orderly<'p>(p: &'p Player<'_>, link: Link, rng: &mut Rng) -> Result<Rest<'p>> {
    for _ in 0..rng.u8(..3) {
        link.near.send(100)?;
        link.far.actor.recv(link.far.fd, 100)?;
        link.far.send(200)?;
        p.scene.wait_unread(&link.near, 200)?;
        link.near.actor.recv(link.near.fd, 200)?;
    }
    Ok(Box::new(move || close_both(p, &link)))
}

pub(super) fn both_close<'p>(p: &'p Player<'_>, link: Link) -> Result<Rest<'p>> {
    Ok(Box::new(move || {
        at_once(|| link.far.close(), || link.near.close())?;
        gone(p, &link)?;
        // Either FIN may be the one that comes late.
        let mut ways = orderly_ways(&link);
        ways.extend(orderly_ways(&link.clone().turned()).split_off(1));
        p.tell_ways(&link, ways);
        Ok(())
    }))
}

pub(super) fn unread(end: &End, state: &'static str) -> Expect {
    end.sends().state(state).reason("TCP_ABORT_ON_CLOSE").cause("close-with-unread-data")
}

pub(super) fn lingers(end: &End, state: &'static str) -> Expect {
    end.sends().state(state).reason("TCP_STATE").cause("linger-zero")
}

/// The end of [`close_unread`] for others to use: what is not read is there already.
pub(super) fn closes_unread(p: &Player<'_>, link: &Link) -> Result<()> {
    feed(p, link)?;
    link.near.close()?;
    link.far.is_reset()?;
    p.tell(link, vec![unread(&link.near, "ESTABLISHED"), link.far.gets("ESTABLISHED")]);
    Ok(())
}

/// The same for a close without a word.
pub(super) fn lingers_zero(p: &Player<'_>, link: &Link) -> Result<()> {
    link.near.actor.linger(link.near.fd, 0)?;
    link.near.close()?;
    link.far.is_reset()?;
    p.tell(link, vec![lingers(&link.near, "ESTABLISHED"), link.far.gets("ESTABLISHED")]);
    Ok(())
}

pub(super) fn close_unread<'p>(p: &'p Player<'_>, link: Link, rng: &mut Rng) -> Result<Rest<'p>> {
    // Some of it read before, so that the reader is known by that too.
    if rng.bool() {
        link.far.send(50)?;
        link.near.actor.recv(link.near.fd, 50)?;
    }
    Ok(Box::new(move || closes_unread(p, &link)))
}

pub(super) fn unread_close_wait<'p>(p: &'p Player<'_>, link: Link, rng: &mut Rng) -> Result<Rest<'p>> {
    link.far.send(BYTES as usize)?;
    let held = rng.bool();
    if held {
        far_shuts(p, &link)?;
    } else {
        link.far.close()?;
        p.scene.wait_state(&link.near, Some("CLOSE_WAIT"))?;
        p.scene.wait_state(&link.far, Some("FIN_WAIT2"))?;
    }
    Ok(Box::new(move || {
        link.near.close()?;
        let got = link.far.gets("FIN_WAIT2");
        let got = if held {
            link.far.is_reset()?;
            got
        } else {
            p.scene.wait_state(&link.far, None)?;
            // Most often there is no more than a minisock; an ACK that came during close() leaves the socket.
            got.dead().causes(&["reset-in-time-wait", "reset-by-peer"]).needs_hook()
        };
        p.tell(&link, vec![unread(&link.near, "CLOSE_WAIT"), got]);
        Ok(())
    }))
}

pub(super) fn unread_fin_wait2<'p>(p: &'p Player<'_>, link: Link) -> Result<Rest<'p>> {
    near_shuts(p, &link, libc::SHUT_WR)?;
    feed(p, &link)?;
    Ok(Box::new(move || {
        link.near.close()?;
        link.far.is_reset()?;
        p.tell(&link, vec![unread(&link.near, "FIN_WAIT2"), link.far.gets("CLOSE_WAIT")]);
        Ok(())
    }))
}

pub(super) fn linger_zero<'p>(p: &'p Player<'_>, link: Link) -> Result<Rest<'p>> {
    Ok(Box::new(move || lingers_zero(p, &link)))
}

pub(super) fn linger_zero_close_wait<'p>(p: &'p Player<'_>, link: Link) -> Result<Rest<'p>> {
    far_shuts(p, &link)?;
    link.near.actor.linger(link.near.fd, 0)?;
    Ok(Box::new(move || {
        link.near.close()?;
        link.far.is_reset()?;
        p.tell(&link, vec![lingers(&link.near, "CLOSE_WAIT"), link.far.gets("FIN_WAIT2")]);
        Ok(())
    }))
}

pub(super) fn disconnect<'p>(p: &'p Player<'_>, link: Link) -> Result<Rest<'p>> {
    Ok(Box::new(move || {
        link.near.actor.disconnect(link.near.fd)?;
        link.far.is_reset()?;
        link.near.close()?;
        let sent = link.near.sends().state("ESTABLISHED").reason("TCP_STATE").cause("disconnect");
        p.tell(&link, vec![sent, link.far.gets("ESTABLISHED")]);
        Ok(())
    }))
}

pub(super) fn data_after_shutdown<'p>(p: &'p Player<'_>, link: Link) -> Result<Rest<'p>> {
    near_shuts(p, &link, libc::SHUT_RDWR)?;
    Ok(Box::new(move || {
        link.far.send(BYTES as usize)?;
        link.far.is_reset()?;
        link.near.close()?;
        let sent = link.near.sends().state("FIN_WAIT2").reason("TCP_ABORT_ON_DATA").cause("data-after-close");
        p.tell(&link, vec![sent, link.far.gets("CLOSE_WAIT")]);
        Ok(())
    }))
}

/// A minisock or, if the ACK came during close(), still the socket: the kernel gives two reasons for the same cause.
pub(super) fn after_close(end: &End) -> Expect {
    without_full_socket(end.sends().state("FIN_WAIT2").dead().cause("data-after-close"))
}

pub(super) fn data_after_close<'p>(p: &'p Player<'_>, link: Link) -> Result<Rest<'p>> {
    link.near.close()?;
    p.scene.wait_state(&link.far, Some("CLOSE_WAIT"))?;
    p.scene.wait_state(&link.near, Some("FIN_WAIT2"))?;
    Ok(Box::new(move || {
        link.far.send(BYTES as usize)?;
        link.far.is_reset()?;
        p.tell(&link, vec![after_close(&link.near), link.far.gets("CLOSE_WAIT")]);
        Ok(())
    }))
}

pub(super) fn linger2_fin_wait2<'p>(p: &'p Player<'_>, link: Link) -> Result<Rest<'p>> {
    link.near.actor.set_tcp(link.near.fd, libc::TCP_LINGER2, -1)?;
    near_shuts(p, &link, libc::SHUT_WR)?;
    Ok(Box::new(move || {
        link.near.close()?;
        link.far.is_reset()?;
        let sent = link.near.sends().state("FIN_WAIT2").reason("TCP_ABORT_ON_LINGER").cause("linger2-abort");
        p.tell(&link, vec![sent, link.far.gets("CLOSE_WAIT")]);
        Ok(())
    }))
}

/// The ACK of the FIN comes during close() or after it: two sites, one cause.
pub(super) fn linger2_close<'p>(p: &'p Player<'_>, link: Link) -> Result<Rest<'p>> {
    link.near.actor.set_tcp(link.near.fd, libc::TCP_LINGER2, -1)?;
    Ok(Box::new(move || {
        link.near.close()?;
        link.far.is_reset()?;
        let sent = |reason| {
            link.near.sends().states(&["FIN_WAIT1", "FIN_WAIT2"]).reason(reason).cause("linger2-abort")
        };
        let got = link.far.gets("CLOSE_WAIT");
        // A FIN that was sent twice is acknowledged twice, the second time to nobody; and that RST finds nobody either.
        let mut again = vec![late(&link.near, "late-segment").maybe()];
        if link.far.side == Side::Server {
            again.push(at_listener(&link.far));
        }
        let ways = ["TCP_ABORT_ON_LINGER", "TCP_ABORT_ON_DATA"]
            .map(|reason| [vec![sent(reason), got.clone()], again.clone()].concat());
        p.tell_ways(&link, ways.into());
        Ok(())
    }))
}

pub(super) fn destroyed<'p>(p: &'p Player<'_>, link: Link) -> Result<Rest<'p>> {
    let here = link.near.local.port();
    let there = link.near.remote.port();
    Ok(Box::new(move || {
        let (port, peer) = (format!(":{here}"), format!(":{there}"));
        let filter = ["state", "established", "sport", "=", &port, "dport", "=", &peer];
        let done = p.scene.stage.ss_destroy(link.near.side, &filter).and_then(|()| {
            // `ss` may not be able to and say nothing of it.
            let alive = p.scene.state(&link.near)?.is_some();
            if alive { Err(not_here("`ss -K` did nothing (INET_DIAG_DESTROY is off)")) } else { Ok(()) }
        });
        if let Err(error) = done {
            let lack = error.downcast::<crate::stage::NotHere>()?;
            p.scene.ledger.leave_out(link.act, &lack.to_string());
            return close_both(p, &link);
        }
        link.far.is_reset()?;
        link.near.close()?;
        let sent =
            link.near.sends().state("ESTABLISHED").reason("TCP_STATE").cause("socket-destroyed").task("ss");
        p.tell(&link, vec![sent, link.far.gets("ESTABLISHED")]);
        Ok(())
    }))
}

/// After both acted at once: what crossed on the way has arrived, whoever it finds there.
const CROSSING: Duration = Duration::from_millis(100);

/// An RST that meets the listener, because the server's socket is gone; if it gets there at all. It is about that socket.
fn at_listener(server: &End) -> Expect {
    let met = Expect::rst_received(Side::Server, server.local, server.remote, "LISTEN");
    server.is_its(met).cause("rst-ignored").needs_hook().maybe()
}

/// Both close by force at once. Who is first resets the other; or both do, and the RSTs meet no socket.
pub(super) fn race_linger_zero<'p>(p: &'p Player<'_>, link: Link) -> Result<Rest<'p>> {
    for end in [&link.near, &link.far] {
        end.actor.linger(end.fd, 0)?;
    }
    Ok(Box::new(move || {
        at_once(|| link.far.close(), || link.near.close())?;
        p.scene.wait_state(&link.near, None)?;
        p.scene.wait_state(&link.far, None)?;
        sleep(CROSSING);
        let (near, far) = (lingers(&link.near, "ESTABLISHED"), lingers(&link.far, "ESTABLISHED"));
        let server = if link.near.side == Side::Server { &link.near } else { &link.far };
        p.tell_ways(
            &link,
            vec![
                vec![near.clone(), link.far.gets("ESTABLISHED")],
                vec![far.clone(), link.near.gets("ESTABLISHED")],
                vec![near, far, at_listener(server)],
            ],
        );
        Ok(())
    }))
}

/// Data comes before close(), then it is not read; or after it, then nobody is there for it.
pub(super) fn race_data<'p>(p: &'p Player<'_>, link: Link) -> Result<Rest<'p>> {
    Ok(Box::new(move || {
        at_once(|| link.far.send(BYTES as usize), || link.near.close())?;
        link.far.is_reset()?;
        sleep(CROSSING);
        let after = |reason, states: &[&'static str]| {
            link.near.sends().states(states).reason(reason).cause("data-after-close")
        };
        let (full, waiting) = (["FIN_WAIT1", "FIN_WAIT2"], ["FIN_WAIT2"]);
        let minisock = without_full_socket(after("TCP_TIMEWAIT_SOCKET", &waiting));
        let mut overtaken = vec![
            after("TCP_ABORT_ON_DATA", &full),
            link.far.gets("ESTABLISHED"),
            // Two CPUs changed the order: the FIN comes after the RST, and is answered in kind.
            late(&link.far, "late-segment"),
        ];
        if link.near.side == Side::Server {
            overtaken.push(at_listener(&link.near));
        }
        // The same: the ACK of the FIN comes after the data that ended the socket.
        let ack = || late(&link.near, "late-segment").maybe();
        p.tell_ways(
            &link,
            vec![
                vec![unread(&link.near, "ESTABLISHED"), link.far.gets("ESTABLISHED")],
                vec![after("TCP_ABORT_ON_DATA", &full), link.far.gets("CLOSE_WAIT"), ack()],
                vec![minisock, link.far.gets("CLOSE_WAIT"), ack()],
                overtaken,
            ],
        );
        Ok(())
    }))
}
