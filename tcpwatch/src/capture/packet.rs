//! The packet of an event: IP and TCP headers, put together from what is known of the segment.
//!
//! Addresses, ports and the flags of the TCP header are those of the wire. Sequence and acknowledgement numbers are, where the
//! kernel had a segment at hand; the RST that answers a segment takes them from it as the kernel does
//! (`tcp_v4_send_reset()`, net/ipv4/tcp_ipv4.c; `nf_reject_ip_tcphdr_put()`, net/ipv4/netfilter/nf_reject_ipv4.c). Everything
//! else, such as the hop limit, the fragment id, the options and the payload, is not.

use super::block::Direction;
use crate::event::{Event, EventKind, PacketInfo};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const TCP: u8 = 6;
const TCP_HEADER: usize = 20;
/// Where Linux begins; the wire's is not known.
const HOP_LIMIT: u8 = 64;

/// A packet, of which the headers are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) direction: Direction,
    pub(super) headers: Vec<u8>,
    /// With the payload that is not there.
    pub(super) length: u32,
    /// What a reader has to know of it.
    pub(super) note: &'static str,
}

const SEGMENT: &str = "synthetic headers: addresses, ports, sequence numbers, flags and window are the segment's; hop limit, IP id, TCP options and payload are not known";
const ANSWER: &str = "synthetic headers: an RST as the kernel answers the segment that it had at hand; hop limit, IP id and TCP options are not known";
const BARE: &str = "synthetic headers: only addresses, ports and RST are known; sequence numbers stand at 0, the others are not known";

/// The RST that answers a segment.
fn answer(to: &PacketInfo) -> PacketInfo {
    let bare = PacketInfo { seq: 0, ack: 0, flags: RST, window: 0, len: 0 };
    if to.flags & ACK != 0 {
        return PacketInfo { seq: to.ack, ..bare };
    }
    let took = to.len + u32::from(to.flags & SYN != 0) + u32::from(to.flags & FIN != 0);
    PacketInfo { ack: to.seq.wrapping_add(took), flags: RST | ACK, ..bare }
}

/// `None`: the event is about no segment, or its addresses are not known.
pub(super) fn of(event: &Event) -> Option<Packet> {
    let bare = PacketInfo { seq: 0, ack: 0, flags: RST, window: 0, len: 0 };
    let (direction, segment, note) = match (event.kind, &event.packet) {
        (EventKind::RstSent, Some(drew)) => (Direction::Out, answer(drew), ANSWER),
        // `tcp_send_active_reset()` sets both flags.
        (EventKind::RstSent, None) => (Direction::Out, PacketInfo { flags: RST | ACK, ..bare }, BARE),
        (EventKind::RstReceived, None) => (Direction::In, bare, BARE),
        (EventKind::RstReceived | EventKind::ListenDrop | EventKind::Drop, Some(segment)) => {
            (Direction::In, *segment, SEGMENT)
        }
        (EventKind::Retransmit, Some(segment)) => (Direction::Out, *segment, SEGMENT),
        _ => return None,
    };
    let (local, remote) = event.local.zip(event.remote)?;
    let (from, to) = if direction == Direction::Out { (local, remote) } else { (remote, local) };
    let tcp = tcp(from.port, to.port, &segment);
    let headers = match (from.addr, to.addr) {
        (IpAddr::V4(from), IpAddr::V4(to)) => v4(from, to, &tcp, segment.len),
        (IpAddr::V6(from), IpAddr::V6(to)) => v6(from, to, &tcp, segment.len),
        _ => return None,
    };
    let length = u32::try_from(headers.len()).ok()?.saturating_add(segment.len);
    Some(Packet { direction, headers, length, note })
}

fn tcp(from: u16, to: u16, segment: &PacketInfo) -> [u8; TCP_HEADER] {
    let mut header = [0; TCP_HEADER];
    header[..2].copy_from_slice(&from.to_be_bytes());
    header[2..4].copy_from_slice(&to.to_be_bytes());
    header[4..8].copy_from_slice(&segment.seq.to_be_bytes());
    header[8..12].copy_from_slice(&segment.ack.to_be_bytes());
    // Five words long.
    header[12] = 5 << 4;
    header[13] = segment.flags;
    header[14..16].copy_from_slice(&segment.window.to_be_bytes());
    header
}

/// Behind the IP header, for its field; what does not fit there (a large offloaded segment) is 0, as on the wire.
fn behind(payload: u32, header: usize) -> [u8; 2] {
    let length = u64::from(payload) + header as u64;
    u16::try_from(length).unwrap_or(0).to_be_bytes()
}

fn v4(from: Ipv4Addr, to: Ipv4Addr, tcp: &[u8; TCP_HEADER], payload: u32) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    bytes[0] = 4 << 4 | 5;
    bytes[2..4].copy_from_slice(&behind(payload, 20 + TCP_HEADER));
    bytes[8] = HOP_LIMIT;
    bytes[9] = TCP;
    bytes[12..16].copy_from_slice(&from.octets());
    bytes[16..20].copy_from_slice(&to.octets());
    let sum = finish(sum(&bytes));
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    let pseudo = sum_of_ends(&from.octets(), &to.octets());
    bytes.extend_from_slice(&summed(tcp, pseudo, payload));
    bytes
}

fn v6(from: Ipv6Addr, to: Ipv6Addr, tcp: &[u8; TCP_HEADER], payload: u32) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes[0] = 6 << 4;
    bytes[4..6].copy_from_slice(&behind(payload, TCP_HEADER));
    bytes[6] = TCP;
    bytes[7] = HOP_LIMIT;
    bytes.extend_from_slice(&from.octets());
    bytes.extend_from_slice(&to.octets());
    let pseudo = sum_of_ends(&from.octets(), &to.octets());
    bytes.extend_from_slice(&summed(tcp, pseudo, payload));
    bytes
}

/// The header with its checksum, where there is no payload that would be part of it.
fn summed(tcp: &[u8; TCP_HEADER], ends: u32, payload: u32) -> [u8; TCP_HEADER] {
    let mut header = *tcp;
    if payload == 0 {
        let sum = finish(ends + u32::from(TCP) + TCP_HEADER as u32 + sum(tcp));
        header[16..18].copy_from_slice(&sum.to_be_bytes());
    }
    header
}

fn sum_of_ends(from: &[u8], to: &[u8]) -> u32 {
    sum(from) + sum(to)
}

/// RFC 1071. All lengths here are even, and small enough for 32 bits.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn finish(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Endpoint;

    fn event(kind: EventKind, local: &str, remote: &str, packet: Option<PacketInfo>) -> Event {
        let end = |text: &str| {
            let end: std::net::SocketAddr = text.parse().unwrap();
            Some(Endpoint { addr: end.ip(), port: end.port() })
        };
        Event { local: end(local), remote: end(remote), packet, ..Event::new(kind, 1, 2) }
    }

    /// What a receiver computes: all ones.
    fn is_whole(packet: &Packet) -> bool {
        let ip = if packet.headers[0] >> 4 == 4 { 20 } else { 40 };
        let (head, tcp) = packet.headers.split_at(ip);
        let ends = if ip == 20 { sum(&head[12..20]) } else { sum(&head[8..40]) };
        let header_is = ip == 40 || finish(sum(head)) == 0;
        header_is && finish(ends + u32::from(TCP) + TCP_HEADER as u32 + sum(tcp)) == 0
    }

    #[test]
    fn an_rst_answers_as_the_kernel_does() {
        let syn = PacketInfo { seq: 100, ack: 0, flags: SYN, window: 9, len: 0 };
        let packet = of(&event(EventKind::RstSent, "10.9.0.1:80", "10.9.0.2:4000", Some(syn))).unwrap();
        assert_eq!(packet.direction, Direction::Out);
        assert_eq!((packet.headers.len(), packet.length), (40, 40));
        assert_eq!(&packet.headers[12..20], &[10, 9, 0, 1, 10, 9, 0, 2]);
        assert_eq!(&packet.headers[20..24], &[0, 80, 0x0f, 0xa0], "ports, from local to remote");
        assert_eq!(&packet.headers[24..33], &[0, 0, 0, 0, 0, 0, 0, 101, 0x50], "acknowledges the SYN");
        assert_eq!(packet.headers[33], RST | ACK);
        assert!(is_whole(&packet));

        let data = PacketInfo { seq: 100, ack: 77, flags: ACK, window: 9, len: 10 };
        let packet = of(&event(EventKind::RstSent, "[fd09::1]:80", "[fd09::2]:4000", Some(data))).unwrap();
        assert_eq!((packet.headers.len(), packet.length), (60, 60));
        assert_eq!(
            &packet.headers[44..53],
            &[0, 0, 0, 77, 0, 0, 0, 0, 0x50],
            "begins where the peer expects"
        );
        assert_eq!(packet.headers[53], RST);
        assert!(is_whole(&packet));
    }

    #[test]
    fn what_came_in_is_what_came_in() {
        let data = PacketInfo { seq: 1, ack: 2, flags: ACK, window: 512, len: 1000 };
        let packet = of(&event(EventKind::Drop, "10.9.0.1:80", "10.9.0.2:4000", Some(data))).unwrap();
        assert_eq!(packet.direction, Direction::In);
        assert_eq!(&packet.headers[12..20], &[10, 9, 0, 2, 10, 9, 0, 1], "from the peer");
        assert_eq!((packet.headers.len(), packet.length), (40, 1040));
        assert_eq!(&packet.headers[2..4], &1040u16.to_be_bytes());
        assert_eq!(&packet.headers[36..38], &[0, 0], "no checksum over bytes that are not there");
    }

    #[test]
    fn what_is_not_known_is_said() {
        let packet = of(&event(EventKind::RstReceived, "10.9.0.1:80", "10.9.0.2:4000", None)).unwrap();
        assert!(packet.note.contains("only addresses"), "{}", packet.note);
        assert_eq!(packet.headers[33], RST);
        assert!(of(&event(EventKind::State, "10.9.0.1:80", "10.9.0.2:4000", None)).is_none());
        assert!(of(&event(EventKind::ListenDrop, "10.9.0.1:80", "10.9.0.2:4000", None)).is_none());
        assert!(of(&Event::new(EventKind::RstSent, 1, 2)).is_none(), "no addresses, no packet");
        assert!(of(&event(EventKind::RstSent, "10.9.0.1:80", "[fd09::2]:4000", None)).is_none());
    }

    #[test]
    fn a_segment_longer_than_a_packet_has_no_length() {
        let large = PacketInfo { seq: 1, ack: 2, flags: ACK, window: 512, len: 200_000 };
        let packet = of(&event(EventKind::Drop, "10.9.0.1:80", "10.9.0.2:4000", Some(large))).unwrap();
        assert_eq!((&packet.headers[2..4], packet.length), (&[0, 0][..], 200_040));
    }
}
