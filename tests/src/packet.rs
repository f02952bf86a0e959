//! TCP segments in Ethernet frames, built and read by hand: pure functions over bytes.

use std::net::{IpAddr, SocketAddr};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

pub const ETH_V4: u16 = 0x0800;
pub const ETH_V6: u16 = 0x86dd;
const TCP: u8 = 6;
const ICMP_V4: u8 = 1;
const ICMP_V6: u8 = 58;

/// One TCP segment. `options` is padded to a multiple of four when written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: usize,
}

impl Segment {
    /// What the first option of this kind holds behind its length.
    pub fn option(&self, wanted: u8) -> Option<&[u8]> {
        let mut rest = self.options.as_slice();
        while let Some((&kind, tail)) = rest.split_first() {
            match kind {
                0 => return None,
                1 => rest = tail,
                _ => {
                    let len = usize::from(*tail.first()?).max(2);
                    if kind == wanted {
                        return rest.get(2..len);
                    }
                    rest = rest.get(len..)?;
                }
            }
        }
        None
    }

    /// The value field of the timestamps option, if the segment has one.
    pub fn timestamp(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.option(8)?.get(..4)?.try_into().ok()?))
    }

    /// Sequence numbers that the segment takes.
    pub fn len(&self) -> u32 {
        let flags = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        u32::try_from(self.payload).unwrap_or(u32::MAX).wrapping_add(flags)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The whole frame with its checksums.
    pub fn frame(&self, from_mac: [u8; 6], to_mac: [u8; 6]) -> Vec<u8> {
        ethernet(from_mac, to_mac, &packet(self.from.ip(), self.to.ip(), TCP, &self.tcp()))
    }

    /// A frame in which the receiver of this segment complains that it cannot be delivered, in the way that ends a
    /// handshake: host unreachable, or port unreachable with IPv6.
    pub fn unreachable(&self, from_mac: [u8; 6], to_mac: [u8; 6]) -> Vec<u8> {
        let (v6, from, to) = (self.from.is_ipv6(), self.to.ip(), self.from.ip());
        let mut icmp = if v6 { vec![1, 4] } else { vec![3, 1] };
        icmp.extend([0; 6]);
        icmp.extend(packet(self.from.ip(), self.to.ip(), TCP, &self.tcp()));
        // The checksum of ICMP covers the addresses in IPv6 only.
        let start = if v6 { pseudo_sum(from, to, ICMP_V6, icmp.len()) } else { 0 };
        let sum = checksum(start, &icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        ethernet(from_mac, to_mac, &packet(from, to, if v6 { ICMP_V6 } else { ICMP_V4 }, &icmp))
    }

    fn tcp(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut tcp = Vec::with_capacity(20 + options.len() + self.payload);
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([(((20 + options.len()) / 4) << 4) as u8, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(options);
        tcp.resize(tcp.len() + self.payload, b'r');
        let sum = checksum(pseudo_sum(self.from.ip(), self.to.ip(), TCP, tcp.len()), &tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        tcp
    }

    /// Reads a frame; `None` for anything but TCP over plain IP headers.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let kind = u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?);
        let ip = frame.get(14..)?;
        let (from, to, tcp): (IpAddr, IpAddr, &[u8]) = match kind {
            ETH_V4 if *ip.get(9)? == TCP => {
                let header = usize::from(ip[0] & 15) * 4;
                let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
                let from: [u8; 4] = ip.get(12..16)?.try_into().ok()?;
                let to: [u8; 4] = ip.get(16..20)?.try_into().ok()?;
                (from.into(), to.into(), ip.get(header..total)?)
            }
            ETH_V6 if *ip.get(6)? == TCP => {
                let total = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
                let from: [u8; 16] = ip.get(8..24)?.try_into().ok()?;
                let to: [u8; 16] = ip.get(24..40)?.try_into().ok()?;
                (from.into(), to.into(), ip.get(40..total)?)
            }
            _ => return None,
        };
        let half = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
        let header = usize::from(*tcp.get(12)? >> 4) * 4;
        Some(Self {
            from: SocketAddr::new(from, half(0)?),
            to: SocketAddr::new(to, half(2)?),
            seq: word(4)?,
            ack: word(8)?,
            flags: *tcp.get(13)?,
            window: half(14)?,
            options: tcp.get(20..header)?.to_vec(),
            payload: tcp.len().checked_sub(header)?,
        })
    }
}

/// An IP packet around a payload.
fn packet(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip;
    if let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) {
        ip = vec![0x45, 0];
        ip.extend(((20 + payload.len()) as u16).to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        ip.extend(from.octets());
        ip.extend(to.octets());
        let sum = checksum(0, &ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        ip = vec![0x60, 0, 0, 0];
        ip.extend((payload.len() as u16).to_be_bytes());
        ip.extend([protocol, 64]);
        ip.extend(octets(from));
        ip.extend(octets(to));
    }
    ip.extend(payload);
    ip
}

fn ethernet(from: [u8; 6], to: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let kind = if packet[0] >> 4 == 4 { ETH_V4 } else { ETH_V6 };
    [&to, &from, kind.to_be_bytes().as_slice(), packet].concat()
}

/// What the addresses and the length add to a checksum.
fn pseudo_sum(from: IpAddr, to: IpAddr, protocol: u8, len: usize) -> u32 {
    sum_of(&octets(from)) + sum_of(&octets(to)) + u32::from(protocol) + len as u32
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn sum_of(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two.get(1).copied().unwrap_or(0))).sum()
}

/// The Internet checksum of `bytes`, on top of a partial sum.
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = start + sum_of(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(v6: bool) -> Segment {
        let (from, to) =
            if v6 { ("[fd09::4d]:4000", "[fd09::1]:80") } else { ("10.9.0.77:4000", "10.9.0.1:80") };
        Segment {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            seq: 0xdead_beef,
            ack: 7,
            flags: SYN | ACK,
            window: 1000,
            options: vec![1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 0, 9],
            payload: 3,
        }
    }

    #[test]
    fn a_frame_reads_back() {
        for v6 in [false, true] {
            let segment = sample(v6);
            let frame = segment.frame([1; 6], [2; 6]);
            assert_eq!(Segment::read(&frame), Some(segment));
        }
    }

    #[test]
    fn checksums_add_up() {
        let segment = sample(false);
        let frame = segment.frame([1; 6], [2; 6]);
        assert_eq!(checksum(0, &frame[14..34]), 0, "a right header sums up to zero");
        let tcp = &frame[34..];
        assert_eq!(checksum(pseudo_sum(segment.from.ip(), segment.to.ip(), TCP, tcp.len()), tcp), 0);
        let error = segment.unreachable([1; 6], [2; 6]);
        assert_eq!(checksum(0, &error[34..]), 0);
        assert_eq!(&error[42..], &frame[14..], "the complaint quotes the packet");
    }

    #[test]
    fn timestamps_are_found() {
        assert_eq!(sample(false).timestamp(), Some(0x102));
        assert_eq!(Segment { options: vec![2, 4, 5, 180, 0, 8], ..sample(true) }.timestamp(), None);
    }

    #[test]
    fn short_frames_are_no_segments() {
        let frame = sample(true).frame([1; 6], [2; 6]);
        for len in 0..frame.len() - 3 {
            assert_eq!(Segment::read(&frame[..len]), None);
        }
    }
}
