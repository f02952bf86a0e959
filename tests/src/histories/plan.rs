//! The plan of a history: which acts, in which pairs of namespaces, by how many players. A pure function of the seed.

use fastrand::Rng;

use crate::net::Family;

/// One thing that can happen to a connection, or to the processes and queues around it. Where two ends are alike, the seed of the
/// act says which of them does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Act {
    /// One end closes, then the other; nothing may be seen.
    Orderly,
    /// Both close at once; nothing may be seen.
    BothClose,
    CloseUnread,
    /// The peer closed its direction, or everything, before.
    UnreadCloseWait,
    /// Its own direction is closed already.
    UnreadFinWait2,
    LingerZero,
    LingerZeroCloseWait,
    Disconnect,
    DataAfterShutdown,
    DataAfterClose,
    Linger2FinWait2,
    Linger2Close,
    SocketDestroyed,
    ClosedPort,
    /// A socket posted to another process.
    Passed,
    /// A socket that a forked child took over.
    Inherited,
    /// The process that accepted is dead, and a child of its that never used the socket has it alone.
    Orphaned,
    /// The process took another name meanwhile.
    Renamed,
    /// Two processes listen on one port.
    Shared,
    /// Reset by the client before anybody accepted it.
    ResetInQueue,
    /// The listener goes away between SYN-ACK and ACK.
    HandshakeForsaken,
    /// The same addresses at once again, by another process and with another end.
    Reused,
    /// A forked worker dies with several connections in different states; its sibling's lives on.
    WorkerDies,
    ListenerClosed,
    Rejected,
    RaceLingerZero,
    /// Data and `close()` at once.
    RaceData,
    RstEstablished,
    RstCloseWait,
    RstFinWait2,
    RstSynSent,
    RstHalfOpen,
    /// A RST that is not exact, then one that is.
    RstIgnored,
    LateAfterReset,
    StrayAck,
    SynInHandshake,
    Forgotten,
    /// SYNs meet a full accept queue.
    AcceptFull,
    /// Last steps of handshakes race for the last place in the accept queue.
    AcceptRace,
    SynFlood,
    /// One end closes when the TIME_WAIT table may be full.
    TimeWait,
    /// Several connections while nothing comes back: keepalive and user timeouts.
    Silence,
}

impl Act {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Orderly => "orderly",
            Self::BothClose => "both-close",
            Self::CloseUnread => "close-unread",
            Self::UnreadCloseWait => "unread-close-wait",
            Self::UnreadFinWait2 => "unread-fin-wait2",
            Self::LingerZero => "linger-zero",
            Self::LingerZeroCloseWait => "linger-zero-close-wait",
            Self::Disconnect => "disconnect",
            Self::DataAfterShutdown => "data-after-shutdown",
            Self::DataAfterClose => "data-after-close",
            Self::Linger2FinWait2 => "linger2-fin-wait2",
            Self::Linger2Close => "linger2-close",
            Self::SocketDestroyed => "socket-destroyed",
            Self::ClosedPort => "closed-port",
            Self::Passed => "passed",
            Self::Inherited => "inherited",
            Self::Orphaned => "orphaned",
            Self::Renamed => "renamed",
            Self::Shared => "shared-port",
            Self::ResetInQueue => "reset-in-queue",
            Self::HandshakeForsaken => "handshake-forsaken",
            Self::Reused => "reused",
            Self::WorkerDies => "worker-dies",
            Self::ListenerClosed => "listener-closed",
            Self::Rejected => "rejected",
            Self::RaceLingerZero => "race-linger-zero",
            Self::RaceData => "race-data",
            Self::RstEstablished => "rst-established",
            Self::RstCloseWait => "rst-close-wait",
            Self::RstFinWait2 => "rst-fin-wait2",
            Self::RstSynSent => "rst-syn-sent",
            Self::RstHalfOpen => "rst-half-open",
            Self::RstIgnored => "rst-ignored",
            Self::LateAfterReset => "late-after-reset",
            Self::StrayAck => "stray-ack",
            Self::SynInHandshake => "syn-in-handshake",
            Self::Forgotten => "forgotten-connect",
            Self::AcceptFull => "accept-full",
            Self::AcceptRace => "accept-race",
            Self::SynFlood => "syn-flood",
            Self::TimeWait => "time-wait",
            Self::Silence => "silence",
        }
    }
}

/// What kind of host the pair's server is. Each kind has settings that would spoil the others' acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As hosts are: cookies on, a full accept queue drops.
    Plain,
    /// `tcp_abort_on_overflow` 1, cookies off.
    Strict,
    /// Room for a few sockets in the TIME_WAIT tables of both sides.
    Tight,
    /// The way from the client to the server is cut for a while.
    Mute,
}

impl Kind {
    /// Acts and how often each comes. Orderly ends are the most frequent on every host.
    fn acts(self) -> &'static [(Act, u32)] {
        match self {
            Self::Plain => &[
                (Act::Orderly, 12),
                (Act::BothClose, 3),
                (Act::CloseUnread, 8),
                (Act::UnreadCloseWait, 4),
                (Act::UnreadFinWait2, 3),
                (Act::LingerZero, 6),
                (Act::LingerZeroCloseWait, 4),
                (Act::Disconnect, 4),
                (Act::DataAfterShutdown, 4),
                (Act::DataAfterClose, 6),
                (Act::Linger2FinWait2, 3),
                (Act::Linger2Close, 3),
                (Act::SocketDestroyed, 2),
                (Act::ClosedPort, 4),
                (Act::Passed, 5),
                (Act::Inherited, 4),
                (Act::Orphaned, 3),
                (Act::Shared, 3),
                (Act::ResetInQueue, 3),
                (Act::Reused, 5),
                (Act::WorkerDies, 5),
                (Act::ListenerClosed, 3),
                (Act::Rejected, 2),
                (Act::RaceLingerZero, 4),
                (Act::RaceData, 4),
                (Act::RstEstablished, 3),
                (Act::RstCloseWait, 2),
                (Act::RstFinWait2, 2),
                (Act::RstSynSent, 2),
                (Act::RstHalfOpen, 2),
                (Act::RstIgnored, 2),
                (Act::LateAfterReset, 2),
                (Act::StrayAck, 2),
                (Act::SynInHandshake, 1),
                (Act::Forgotten, 2),
                (Act::AcceptFull, 2),
                (Act::AcceptRace, 1),
                (Act::SynFlood, 1),
            ],
            Self::Strict => &[
                (Act::Orderly, 3),
                (Act::CloseUnread, 2),
                (Act::AcceptRace, 2),
                (Act::SynFlood, 1),
                (Act::AcceptFull, 1),
                (Act::ListenerClosed, 1),
                (Act::WorkerDies, 1),
            ],
            Self::Tight => &[(Act::TimeWait, 10), (Act::LingerZero, 1), (Act::CloseUnread, 1)],
            Self::Mute => &[(Act::Silence, 1)],
        }
    }
}

/// What tcpwatch is known to tell wrong, on plain hosts, and only if asked for.
const HARD: &[(Act, u32)] = &[(Act::Renamed, 4), (Act::HandshakeForsaken, 4)];

/// One act of one player; all that is left open in it follows from its seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deed {
    pub(super) act: Act,
    pub(super) seed: u64,
    /// Also in ways that tcpwatch is known to tell wrong.
    pub(super) hard: bool,
}

/// One pair of namespaces: its players act at the same time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct World {
    pub(super) kind: Kind,
    pub(super) family: Family,
    pub(super) players: Vec<Vec<Deed>>,
}

/// Shares of the acts, and how many players have them. Silence is slow, so it comes in a fixed number.
const SHARES: [(Kind, usize, usize); 3] = [(Kind::Plain, 70, 3), (Kind::Tight, 22, 2), (Kind::Strict, 8, 1)];
const SILENCES: usize = 2;

/// The plan of a history of about `count` acts. Every kind of host is there for every family, but for IPv6 sockets that talk IPv4:
/// they have a plain one.
pub(super) fn plan(seed: u64, count: usize, families: &[Family], hard: bool) -> Vec<World> {
    let mut rng = Rng::with_seed(seed);
    let full = families.iter().filter(|family| **family != Family::Mapped).count().max(1);
    let mut worlds = Vec::new();
    for &family in families {
        for (kind, share, players) in SHARES {
            if family == Family::Mapped && kind != Kind::Plain {
                continue;
            }
            let weight = if families.contains(&Family::Mapped) && kind == Kind::Plain {
                // The mapped host takes half as many as each of the others.
                let whole = 2 * full + 1;
                if family == Family::Mapped { (1, whole) } else { (2, whole) }
            } else {
                (1, full)
            };
            let acts = (count * share * weight.0).div_ceil(100 * weight.1).max(players);
            worlds.push(World { kind, family, players: deal(&mut rng, kind, hard, acts, players) });
        }
        if family != Family::Mapped {
            worlds.push(World {
                kind: Kind::Mute,
                family,
                players: deal(&mut rng, Kind::Mute, hard, SILENCES, 1),
            });
        }
    }
    worlds
}

/// Each act once, in random order, then by weight; dealt out in turn.
fn deal(rng: &mut Rng, kind: Kind, hard: bool, count: usize, players: usize) -> Vec<Vec<Deed>> {
    let more = if hard && kind == Kind::Plain { HARD } else { &[] };
    let acts = [kind.acts(), more].concat();
    let mut first: Vec<Act> = acts.iter().map(|(act, _)| *act).collect();
    rng.shuffle(&mut first);
    let all: u32 = acts.iter().map(|(_, weight)| weight).sum();
    let mut hands = vec![Vec::new(); players];
    for number in 0..count {
        let act = first.pop().unwrap_or_else(|| {
            let mut at = rng.u32(..all);
            let chosen = acts.iter().find(|(_, weight)| {
                let here = at < *weight;
                at = at.wrapping_sub(*weight);
                here
            });
            chosen.map_or(acts[0].0, |(act, _)| *act)
        });
        hands[number % players].push(Deed { act, seed: rng.u64(..), hard });
    }
    hands
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const FAMILIES: [Family; 3] = [Family::V4, Family::V6, Family::Mapped];

    fn acts(worlds: &[World]) -> Vec<Act> {
        worlds.iter().flat_map(|world| world.players.iter().flatten()).map(|deed| deed.act).collect()
    }

    #[test]
    fn a_seed_always_gives_the_same_plan() {
        assert_eq!(plan(7, 200, &FAMILIES, false), plan(7, 200, &FAMILIES, false));
        assert_ne!(plan(7, 200, &FAMILIES, false), plan(8, 200, &FAMILIES, false));
    }

    #[test]
    fn the_count_is_kept_and_every_act_comes() {
        for seed in 0..20 {
            let all = acts(&plan(seed, 300, &FAMILIES, false));
            assert!((300..330).contains(&all.len()), "{} acts", all.len());
            let seen: HashSet<Act> = all.into_iter().collect();
            for kind in [Kind::Plain, Kind::Strict, Kind::Tight, Kind::Mute] {
                for (act, _) in kind.acts() {
                    assert!(seen.contains(act), "seed {seed} has no {act:?}");
                }
            }
        }
    }

    #[test]
    fn hard_acts_come_only_if_asked_for() {
        let is_hard = |act: &Act| HARD.iter().any(|(hard, _)| hard == act);
        assert!(!acts(&plan(1, 500, &FAMILIES, false)).iter().any(is_hard));
        assert!(acts(&plan(1, 500, &FAMILIES, true)).iter().any(is_hard));
    }

    #[test]
    fn names_are_unique() {
        let acts: HashSet<Act> = [Kind::Plain, Kind::Strict, Kind::Tight, Kind::Mute]
            .iter()
            .flat_map(|kind| kind.acts().iter().map(|(act, _)| *act))
            .collect();
        let names: HashSet<&str> = acts.iter().map(|act| act.name()).collect();
        assert_eq!(names.len(), acts.len());
    }

    #[test]
    fn few_acts_leave_no_player_without() {
        assert!(
            plan(1, 1, &[Family::V6], false)
                .iter()
                .all(|world| world.players.iter().all(|hand| !hand.is_empty()))
        );
    }
}
