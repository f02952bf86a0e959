//! What a peer without a stack does to a process: RSTs in every state, strays, handshakes that go wrong.

use anyhow::{Result, bail};

use super::super::plan::Act;
use super::{Player, Rest, without_full_socket};
use crate::actor::Actor;
use crate::expect::{Expect, Side};
use crate::packet::{ACK, FIN, RST, SYN};
use crate::raw::Raw;
use crate::sys;

/// A raw peer and what it does.
struct Stranger<'p> {
    p: &'p Player<'p>,
    act: &'static str,
    since: u64,
    raw: Raw,
}

impl Stranger<'_> {
    fn gets(&self, state: &'static str) -> Expect {
        Expect::rst_received(Side::Server, self.raw.peer, self.raw.me, state).owner(&self.p.own)
    }

    fn sends(&self) -> Expect {
        Expect::rst_sent(self.raw.peer, self.raw.me).owner(&self.p.own)
    }

    fn wait(&self, state: Option<&str>) -> Result<()> {
        let (local, remote) = (self.raw.peer.port(), self.raw.me.port());
        self.p.scene.stage.wait_state(Side::Server, local, remote, state)
    }

    fn tell(&self, seen: Vec<Expect>) {
        let ends = [self.raw.peer, self.raw.me];
        self.p.scene.tell(self.act, self.since, ends, vec![seen]);
    }

    /// Its connection, accepted.
    fn accepted(&mut self) -> Result<i32> {
        self.raw.open()?;
        let (fd, remote) = self.p.own.accept(self.p.desk.listener)?;
        if remote != self.raw.me {
            bail!("accepted {remote} instead of {}", self.raw.me);
        }
        self.p.scene.ledger.connected();
        Ok(fd)
    }

    /// The process connects to it; its SYN has come.
    fn dialled(&mut self) -> Result<i32> {
        let (stage, own) = (&self.p.scene.stage, &self.p.own);
        self.raw.peer.set_port(0);
        let fd = own.socket(stage.family.server_v6())?;
        own.connect_start(fd, stage.as_dialled(self.raw.me))?;
        self.raw.take_syn()?;
        Ok(fd)
    }

    /// It resets, and the process sees this errno.
    fn resets(&self, fd: i32, errno: i32) -> Result<()> {
        self.raw.rst()?;
        sees(&self.p.own, fd, errno)
    }
}

fn sees(actor: &Actor, fd: i32, errno: i32) -> Result<()> {
    let got = actor.error(fd)?;
    if got != errno {
        bail!("the socket has errno {got}, not {errno}");
    }
    actor.close(fd)
}

pub(super) fn begin<'p>(p: &'p Player<'_>, act: Act) -> Result<Rest<'p>> {
    let since = sys::monotonic_ns();
    let mut s = Stranger { p, act: act.name(), since, raw: p.scene.raw(p.desk.port)? };
    match act {
        Act::RstEstablished => {
            let fd = s.accepted()?;
            Ok(Box::new(move || {
                s.resets(fd, libc::ECONNRESET)?;
                s.tell(vec![s.gets("ESTABLISHED")]);
                Ok(())
            }))
        }
        Act::RstCloseWait => {
            let fd = s.accepted()?;
            s.raw.fin()?;
            s.wait(Some("CLOSE_WAIT"))?;
            Ok(Box::new(move || {
                s.resets(fd, libc::EPIPE)?;
                s.tell(vec![s.gets("CLOSE_WAIT")]);
                Ok(())
            }))
        }
        Act::RstFinWait2 => {
            let fd = s.accepted()?;
            p.own.shutdown(fd, libc::SHUT_WR)?;
            s.raw.take_fin()?;
            s.raw.send(ACK, 0)?;
            s.wait(Some("FIN_WAIT2"))?;
            Ok(Box::new(move || {
                s.resets(fd, libc::ECONNRESET)?;
                s.tell(vec![s.gets("FIN_WAIT2")]);
                Ok(())
            }))
        }
        Act::RstSynSent => {
            let fd = s.dialled()?;
            Ok(Box::new(move || {
                s.resets(fd, libc::ECONNREFUSED)?;
                s.tell(vec![s.gets("SYN_SENT")]);
                Ok(())
            }))
        }
        Act::RstHalfOpen => {
            s.raw.half_open()?;
            Ok(Box::new(move || {
                s.raw.rst()?;
                s.wait(None)?;
                s.tell(vec![s.gets("NEW_SYN_RECV")]);
                Ok(())
            }))
        }
        Act::RstIgnored => {
            let fd = s.accepted()?;
            Ok(Box::new(move || {
                let mut rst = s.raw.segment(RST | ACK, 0);
                rst.seq = rst.seq.wrapping_add(5);
                s.raw.inject(&rst)?;
                s.raw.expect("challenge ACK", |seen| seen.flags & (ACK | RST) == ACK)?;
                s.resets(fd, libc::ECONNRESET)?;
                let ignored = s.gets("ESTABLISHED").cause("rst-ignored").needs_hook().ignored();
                s.tell(vec![ignored, s.gets("ESTABLISHED")]);
                Ok(())
            }))
        }
        Act::LateAfterReset => {
            let fd = s.accepted()?;
            Ok(Box::new(move || {
                p.own.linger(fd, 0)?;
                p.own.close(fd)?;
                s.raw.take_rst()?;
                s.raw.send(ACK | FIN, 0)?;
                s.raw.take_rst()?;
                let late = s.sends().state("LISTEN").dead().reason("TCP_FLAGS").cause("late-segment");
                let reset = s.sends().state("ESTABLISHED").reason("TCP_STATE").cause("linger-zero");
                s.tell(vec![reset, late]);
                Ok(())
            }))
        }
        Act::StrayAck => {
            s.raw.ack = 0x2222_2222;
            Ok(Box::new(move || {
                s.raw.send(ACK, 0)?;
                s.raw.take_rst()?;
                let stray = s.sends().state("LISTEN").reason("TCP_FLAGS");
                s.tell(vec![stray.cause("stray-segment-to-listener")]);
                Ok(())
            }))
        }
        Act::SynInHandshake => {
            s.raw.half_open()?;
            Ok(Box::new(move || {
                s.raw.seq = s.raw.seq.wrapping_add(5);
                s.raw.inject(&s.raw.segment(SYN, 0))?;
                s.raw.take_rst()?;
                let sent = s.sends().state("NEW_SYN_RECV").reason("INVALID_SYN");
                s.tell(vec![sent.cause("syn-in-handshake")]);
                Ok(())
            }))
        }
        Act::Forgotten => {
            let fd = s.dialled()?;
            Ok(Box::new(move || {
                p.own.close(fd)?;
                s.wait(None)?;
                s.raw.inject(&s.raw.segment(SYN | ACK, 0))?;
                s.raw.take_rst()?;
                let sent = s.sends().state("null").dead().reason("NO_SOCKET").cause("forgotten-connect");
                s.tell(vec![without_full_socket(sent)]);
                Ok(())
            }))
        }
        // Not acts of a stranger.
        _ => bail!("{} needs no raw peer", act.name()),
    }
}
