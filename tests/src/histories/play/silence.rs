//! Nothing of the client is heard for a while: what has a timer gives up, what has none lives on.

use anyhow::{Result, bail};
use fastrand::Rng;

use super::{Link, Player, Rest, ends, late};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    Keepalive,
    /// The user timeout ends the probes.
    KeepaliveUser,
    /// The user timeout ends the retransmissions, without an RST.
    UserTimeout,
    None,
}

const PATIENCES: [Patience; 4] =
    [Patience::Keepalive, Patience::KeepaliveUser, Patience::UserTimeout, Patience::None];

fn prepare(link: &Link, patience: Patience) -> Result<()> {
    let set = |name, value| link.near.actor.set_tcp(link.near.fd, name, value);
    match patience {
        Patience::Keepalive | Patience::KeepaliveUser => {
            set(libc::TCP_KEEPIDLE, 1)?;
            set(libc::TCP_KEEPINTVL, 1)?;
            let user = patience == Patience::KeepaliveUser;
            set(libc::TCP_KEEPCNT, if user { 9 } else { 2 })?;
            if user {
                set(libc::TCP_USER_TIMEOUT, 1000)?;
            }
            Ok(())
        }
        Patience::UserTimeout => set(libc::TCP_USER_TIMEOUT, 800),
        Patience::None => Ok(()),
    }
}

/// In the silence: the timers start.
fn provoke(link: &Link, patience: Patience) -> Result<()> {
    match patience {
        Patience::Keepalive | Patience::KeepaliveUser => {
            link.near.actor.set_int(link.near.fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)
        }
        Patience::UserTimeout => link.near.send(10),
        Patience::None => Ok(()),
    }
}

pub(super) fn begin<'p>(p: &'p Player<'_>, rng: &mut Rng) -> Result<Rest<'p>> {
    let mut links = Vec::new();
    for _ in 0..rng.usize(3..=6) {
        // The server's side acts: only the other one can be made silent.
        let at = rng.usize(..p.scene.workers.len());
        let link = p.connect("silence", &p.scene.desk, &p.scene.workers[at], &p.cli, None)?;
        let patience = PATIENCES[rng.usize(..PATIENCES.len())];
        prepare(&link, patience)?;
        links.push((link, patience));
    }
    Ok(Box::new(move || {
        p.scene.stage.pair.mute_client(true)?;
        for (link, patience) in &links {
            provoke(link, *patience)?;
        }
        for (link, patience) in &links {
            match patience {
                Patience::Keepalive | Patience::KeepaliveUser => link.far.is_reset()?,
                Patience::UserTimeout => {
                    let errno = link.near.actor.error(link.near.fd)?;
                    if errno != libc::ETIMEDOUT {
                        bail!("the socket ended with errno {errno} instead of ETIMEDOUT");
                    }
                    p.scene.wait_state(&link.near, None)?;
                }
                Patience::None => {}
            }
        }
        p.scene.stage.pair.mute_client(false)?;
        for (link, patience) in &links {
            let seen = match patience {
                Patience::Keepalive | Patience::KeepaliveUser => {
                    let sent = link.near.sends().state("ESTABLISHED").reason("TCP_KEEPALIVE_TIMEOUT");
                    vec![sent.cause("keepalive-timeout"), link.far.gets("ESTABLISHED")]
                }
                Patience::UserTimeout => {
                    link.far.send(10)?;
                    link.far.is_reset()?;
                    // The process still held the dead socket, or it does not matter any more.
                    let late = late(&link.near, "connection-timed-out");
                    let late = crate::expect::Expect { hows: Vec::new(), ..late };
                    vec![late, link.far.gets("ESTABLISHED")]
                }
                Patience::None => {
                    ends::close_both(p, link)?;
                    continue;
                }
            };
            p.tell(link, seen);
            link.near.close()?;
        }
        Ok(())
    }))
}
