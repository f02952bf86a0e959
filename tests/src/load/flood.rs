//! SYNs as fast as one core can send them: frames written to one end of a veth pair, from a million addresses behind it.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread::yield_now;

use anyhow::{Context, Result, bail};

use super::{Limit, Options, Play, SYSCTLS, Workload};
use crate::net::{CLIENT_LINK, Family, Netns, Pair, RAW, RAW_MAC, SERVER_LINK, SERVER_MAC};
use crate::packet::{ETH_V4, SYN, Segment};
use crate::sys;

const PORT: u16 = 7000;
/// Closed ports take turns in this range.
const CLOSED: (u16, u16) = (20_000, 30_000);
/// Sources: 10.128.0.0 and the 2^20 addresses from there on.
const SOURCES: u32 = 1 << 20;
const FIRST_SOURCE: u32 = u32::from_be_bytes([10, 128, 0, 0]);
/// As Linux sends: a listener without it would answer with another one.
const MSS: [u8; 4] = [2, 4, 5, 180];

const IP: usize = 14;
const TCP: usize = 34;

/// One frame that is written over and over.
struct Frame(Vec<u8>);

impl Frame {
    fn new() -> Self {
        let segment = Segment {
            from: SocketAddr::new(Ipv4Addr::from(FIRST_SOURCE).into(), 1024),
            to: Family::V4.server(PORT),
            seq: 0,
            ack: 0,
            flags: SYN,
            window: 64_240,
            options: MSS.to_vec(),
            payload: 0,
        };
        Self(segment.frame(RAW_MAC, SERVER_MAC))
    }

    /// Makes it the SYN of somebody else.
    fn readdress(&mut self, source: u32, from: u16, to: u16, seq: u32) {
        let frame = &mut self.0;
        frame[IP + 12..IP + 16].copy_from_slice(&source.to_be_bytes());
        frame[TCP..TCP + 2].copy_from_slice(&from.to_be_bytes());
        frame[TCP + 2..TCP + 4].copy_from_slice(&to.to_be_bytes());
        frame[TCP + 4..TCP + 8].copy_from_slice(&seq.to_be_bytes());
        frame[IP + 10..IP + 12].fill(0);
        let sum = fold(sum_of(&frame[IP..TCP]));
        frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
        frame[TCP + 16..TCP + 18].fill(0);
        // The addresses, the protocol and the length count, too.
        let pseudo = sum_of(&frame[IP + 12..TCP]) + 6 + (frame.len() - TCP) as u32;
        let sum = fold(pseudo + sum_of(&frame[TCP..]));
        frame[TCP + 16..TCP + 18].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Of an even number of bytes.
fn sum_of(bytes: &[u8]) -> u32 {
    bytes.as_chunks().0.iter().map(|two| u32::from(u16::from_be_bytes(*two))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// SYNs to closed ports, or to a listener whose handshakes nobody ends.
pub(super) struct Flood {
    pair: Pair,
    fd: OwnedFd,
    /// Nobody accepts: no handshake gets that far.
    listener: Option<OwnedFd>,
    cookies: u8,
    frame: Frame,
    turn: u64,
}

impl Flood {
    pub(super) fn new(options: &Options) -> Result<Self> {
        let pair = Pair::new()?;
        for (name, value) in SYSCTLS {
            pair.server.sysctl(name, value)?;
        }
        pair.server.sysctl("ipv4/tcp_syncookies", &options.cookies.to_string())?;
        // Everybody is behind the one neighbour whom no stack answers for.
        pair.server.ip(&format!("route add default via 10.9.0.{RAW} dev {SERVER_LINK}\n"))?;
        let listener = match options.workload {
            Workload::SynFlood => Some(pair.server.enter(|| {
                let fd = sys::socket_owned(libc::AF_INET, libc::SOCK_STREAM, 0)?;
                sys::bind(fd.as_raw_fd(), Family::V4.any(PORT)).context("binding the listener")?;
                sys::listen(fd.as_raw_fd(), 4096)?;
                Ok(fd)
            })?),
            _ => None,
        };
        let fd = pair.client.enter(|| {
            let index = sys::interface_index(CLIENT_LINK).context("the client's link")?;
            // Protocol 0: it sends, and hears nothing of the answers.
            sys::packet_socket(index, 0).context("opening a packet socket (AF_PACKET)")
        })?;
        // The frames need no queue of their own: the other end takes each before the next is written.
        sys::set_option(fd.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1_i32)?;
        debug_assert_eq!(Frame::new().0[12..14], ETH_V4.to_be_bytes());
        Ok(Self { pair, fd, listener, cookies: options.cookies, frame: Frame::new(), turn: 0 })
    }
}

impl Flood {
    /// Sends the frame. On a busy machine the kernel may put off what it does with frames until its queue is full: then
    /// this one was dropped, and is sent again.
    fn send(&self) -> Result<()> {
        for _ in 0..1_000_000 {
            match sys::send(self.fd.as_raw_fd(), &self.frame.0) {
                Ok(sent) if sent == self.frame.0.len() => return Ok(()),
                Ok(sent) => bail!("sent {sent} of {} bytes of a frame", self.frame.0.len()),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => yield_now(),
                Err(error) => return Err(error).context("sending a frame"),
            }
        }
        bail!("the kernel takes no more frames")
    }
}

impl Play for Flood {
    fn warm_up(&self) -> u64 {
        2000
    }

    fn play(&mut self, limit: &Limit) -> Result<u64> {
        let mut done = 0;
        while limit.more(done) {
            let turn = self.turn as u32;
            self.turn += 1;
            // An odd factor visits each source once before it begins again.
            let source = FIRST_SOURCE + (turn.wrapping_mul(0x9e37_79b1) & (SOURCES - 1));
            let from = 1024 + (turn % 60_000) as u16;
            let to = if self.listener.is_some() {
                PORT
            } else {
                CLOSED.0 + (turn % u32::from(CLOSED.1 - CLOSED.0)) as u16
            };
            self.frame.readdress(source, from, to, turn.wrapping_mul(64_007));
            self.send()?;
            done += 1;
        }
        Ok(done)
    }

    fn netns(&self) -> &Netns {
        &self.pair.server
    }

    fn proof(&self, total: u64) -> (&'static str, u64) {
        match (&self.listener, self.cookies) {
            (None, _) => ("OutRsts", total),
            // What fits into the queue is neither dropped nor answered with a cookie, and on a slow machine it runs out of
            // time there and makes room for others.
            (Some(_), 0) => ("ListenDrops", total / 10 * 9),
            (Some(_), _) => ("SyncookiesSent", total / 10 * 9),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_with_other_addresses_is_as_if_made_for_them() {
        let mut frame = Frame::new();
        frame.readdress(FIRST_SOURCE + 77, 4321, 22_222, 0xdead_beef);
        let read = Segment::read(&frame.0).unwrap();
        assert_eq!(read.from, "10.128.0.77:4321".parse().unwrap());
        assert_eq!((read.to.port(), read.seq, read.flags), (22_222, 0xdead_beef, SYN));
        assert_eq!(frame.0, read.frame(RAW_MAC, SERVER_MAC), "checksums included");
    }
}
