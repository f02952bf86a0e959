//! A peer without a kernel behind it: we write its segments ourselves, so it can do what no stack would do.
//!
//! It sits in the client's namespace under an address that nobody there has, so no stack answers for it.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::net::{CLIENT_LINK, Netns, RAW_MAC, SERVER_MAC};
use crate::packet::{ACK, ETH_V4, ETH_V6, FIN, PSH, RST, SYN, Segment};
use crate::sys;

const LIMIT: Duration = Duration::from_secs(20);
/// Bytes of frames that may wait to be read.
const HEARING: i32 = 8 << 20;
/// First sequence number of every raw peer. Any would do; a fixed one makes failures repeat.
const ISN: u32 = 0x1000_0000;

/// One end of one connection, and where it stands.
pub struct Raw {
    fd: OwnedFd,
    pub me: SocketAddr,
    pub peer: SocketAddr,
    /// Next sequence number to send.
    pub seq: u32,
    /// Next sequence number that we expect.
    pub ack: u32,
    pub window: u16,
}

impl Raw {
    pub fn new(netns: &Netns, me: SocketAddr, peer: SocketAddr) -> Result<Self> {
        let protocol = if me.is_ipv4() { ETH_V4 } else { ETH_V6 };
        let fd = netns.enter(|| {
            let index = sys::interface_index(CLIENT_LINK).context("the client's link")?;
            let fd = sys::packet_socket(index, protocol).context("opening a packet socket (AF_PACKET)")?;
            // It hears everything on the link, and what finds no room is lost.
            sys::set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &HEARING)?;
            Ok(fd)
        })?;
        Ok(Self { fd, me, peer, seq: ISN, ack: 0, window: 60_000 })
    }

    /// A segment at the place where the connection stands.
    pub fn segment(&self, flags: u8, payload: usize) -> Segment {
        Segment {
            from: self.me,
            to: self.peer,
            seq: self.seq,
            ack: if flags & ACK == 0 { 0 } else { self.ack },
            flags,
            window: self.window,
            options: Vec::new(),
            payload,
        }
    }

    /// Sends any segment, without moving on.
    pub fn inject(&self, segment: &Segment) -> Result<()> {
        self.put(&segment.frame(RAW_MAC, SERVER_MAC))
    }

    /// Tells the server that a segment of its cannot be delivered.
    pub fn refuse(&self, segment: &Segment) -> Result<()> {
        self.put(&segment.unreachable(RAW_MAC, SERVER_MAC))
    }

    /// Sends a frame as it is.
    pub fn put(&self, frame: &[u8]) -> Result<()> {
        let sent = sys::send(self.fd.as_raw_fd(), frame).context("sending a frame")?;
        if sent != frame.len() {
            bail!("sent {sent} of {} bytes of a frame", frame.len());
        }
        Ok(())
    }

    /// Sends a segment and moves on by its length.
    pub fn send(&mut self, flags: u8, payload: usize) -> Result<()> {
        let segment = self.segment(flags, payload);
        self.inject(&segment)?;
        self.seq = self.seq.wrapping_add(segment.len());
        Ok(())
    }

    pub fn data(&mut self, len: usize) -> Result<()> {
        self.send(ACK | PSH, len)
    }

    pub fn fin(&mut self) -> Result<()> {
        self.send(ACK | FIN, 0)
    }

    /// An RST where the receiver expects the next byte: the only one that it has to obey.
    pub fn rst(&self) -> Result<()> {
        self.inject(&self.segment(RST | ACK, 0))
    }

    /// The next segment for us that `wanted` likes, if one comes in time.
    pub fn next(&self, limit: Duration, wanted: impl Fn(&Segment) -> bool) -> Result<Option<Segment>> {
        let end = Instant::now() + limit;
        let mut frame = vec![0; 70_000];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if !sys::poll(self.fd.as_raw_fd(), libc::POLLIN, left)? && left.is_zero() {
                return Ok(None);
            }
            if !sys::poll(self.fd.as_raw_fd(), libc::POLLIN, Duration::ZERO)? {
                continue;
            }
            let len = match sys::recv(self.fd.as_raw_fd(), &mut frame) {
                Ok(len) => len,
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => continue,
                Err(error) => return Err(error).context("receiving a frame"),
            };
            let Some(segment) = Segment::read(&frame[..len]) else { continue };
            let ours = segment.to == self.me && segment.from.ip() == self.peer.ip();
            if ours && (self.peer.port() == 0 || segment.from.port() == self.peer.port()) && wanted(&segment)
            {
                return Ok(Some(segment));
            }
        }
    }

    /// The same, but it has to come.
    pub fn expect(&self, what: &str, wanted: impl Fn(&Segment) -> bool) -> Result<Segment> {
        self.next(LIMIT, wanted)?.with_context(|| format!("no {what} came to {}", self.me))
    }

    /// Our SYN, and the answer to it; not yet the last step.
    pub fn half_open(&mut self) -> Result<Segment> {
        self.send(SYN, 0)?;
        let answer = self.expect("SYN-ACK", |seen| seen.flags & (SYN | ACK | RST) == SYN | ACK)?;
        self.ack = answer.seq.wrapping_add(1);
        Ok(answer)
    }

    /// The whole handshake.
    pub fn open(&mut self) -> Result<()> {
        self.half_open()?;
        self.send(ACK, 0)
    }

    /// Waits for a SYN to us and remembers who sent it.
    pub fn take_syn(&mut self) -> Result<Segment> {
        let syn = self.expect("SYN", |seen| seen.flags & (SYN | ACK) == SYN)?;
        self.peer = syn.from;
        self.ack = syn.seq.wrapping_add(1);
        Ok(syn)
    }

    /// Answers a SYN that came, so that the other side is connected.
    pub fn answer_syn(&mut self) -> Result<()> {
        self.take_syn()?;
        self.send(SYN | ACK, 0)?;
        self.expect("last ACK of the handshake", |seen| seen.flags & (SYN | ACK) == ACK).map(drop)
    }

    /// Waits for a FIN and moves past it, without a word.
    pub fn take_fin(&mut self) -> Result<()> {
        let fin = self.expect("FIN", |seen| seen.flags & FIN != 0)?;
        self.ack = fin.seq.wrapping_add(fin.len());
        Ok(())
    }

    /// Waits for an RST.
    pub fn take_rst(&self) -> Result<Segment> {
        self.expect("RST", |seen| seen.flags & RST != 0)
    }
}
