//! Closing when the TIME_WAIT table may be full. Whether it was is not planned: the kernel's own table of sockets tells.

use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;

use super::{End, Link, Player, Rest, TIGHT_FIN_TIMEOUT, ends, late};
use crate::expect::Expect;

/// How the far end goes on.
#[derive(Clone, Copy)]
enum Then {
    Close,
    Send,
    /// When FIN_WAIT2 is over, if the near end has it.
    SendLate,
}

pub(super) fn begin<'p>(p: &'p Player<'_>, link: Link, rng: &mut Rng) -> Result<Rest<'p>> {
    let then = [Then::Close, Then::Close, Then::Close, Then::Send, Then::SendLate][rng.usize(..5)];
    Ok(Box::new(move || {
        let (near, far) = (&link.near, &link.far);
        let started = Instant::now();
        near.close()?;
        p.scene.stage.wait("the FIN to arrive", || Ok(p.scene.state(far)? != Some("ESTABLISHED")))?;
        let mut state = None;
        p.scene.stage.wait("the FIN to be acknowledged", || {
            state = p.scene.state(near)?;
            Ok(state != Some("FIN_WAIT1"))
        })?;
        // On a machine that stood still the timer may have been faster than we are.
        let in_time = || started.elapsed() < Duration::from_secs(TIGHT_FIN_TIMEOUT) * 3 / 4;
        let refused = state.is_none();
        let mut expired = refused && !in_time();
        if let (Then::SendLate, false) = (then, refused) {
            p.scene.wait_state(near, None)?;
            if p.scene.state(far)?.is_none() {
                // The socket itself waited in FIN_WAIT2, and its timer has another way to end it.
                far.close()?;
                let sent = near.sends().state("FIN_WAIT2").dead().reason("TCP_STATE").cause("orphan-timeout");
                p.tell(&link, vec![sent, far.gets("CLOSE_WAIT")]);
                return Ok(());
            }
            expired = true;
        }
        let got = match then {
            Then::Close => {
                far.close()?;
                far.gets("LAST_ACK")
            }
            Then::Send | Then::SendLate => {
                far.send_if_alive(10)?;
                far.is_reset()?;
                far.gets("CLOSE_WAIT")
            }
        };
        p.scene.wait_state(far, None)?;
        // A FIN that was sent twice is acknowledged twice: then the second ACK already draws an RST, and what the far end does
        // meanwhile may draw another.
        let turned_away = vec![
            refusal(near),
            late(near, "tw-bucket-overflow").times(1..=2),
            got.clone().states(&["LAST_ACK", "CLOSE_WAIT"]),
        ];
        // Possible where it was seen in FIN_WAIT2 too: that is set before the place in the table is asked for. The kernel's own count
        // of refusals is held against the way that is taken.
        let mut ways = vec![turned_away];
        match (then, refused) {
            (_, true) | (Then::SendLate, false) => {}
            (Then::Send, false) => {
                ways.push(vec![ends::after_close(near), got.clone()]);
                expired = !in_time();
            }
            (Then::Close, false) if p.scene.state(near)?.is_some() => ways = ends::orderly_ways(&link),
            (Then::Close, false) => {
                // The socket itself waited in FIN_WAIT2. It needs its place only now, and the peer's FIN was answered.
                ways.push(vec![Expect { states: vec!["FIN_WAIT2", "TIME_WAIT"], ..refusal(near) }]);
                expired = !in_time();
            }
        }
        if expired {
            ways.push(vec![late(near, "fin-wait2-timeout"), got]);
        }
        p.tell_ways(&link, ways);
        Ok(())
    }))
}

fn refusal(end: &End) -> Expect {
    let refused = end.is_its(Expect::new("tw_overflow", end.side, end.local, end.remote));
    refused.states(&["FIN_WAIT2", "FIN_WAIT1"]).cause("tw-bucket-overflow")
}
