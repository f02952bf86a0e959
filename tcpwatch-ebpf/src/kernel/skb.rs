//! Segments: addresses, ports and flags from the packet itself, which never lies about the peer (a listener's socket
//! says `0.0.0.0`).

use super::field::{at, field, has_field};
use super::sock::{Sock, net_inum};
use tcpwatch_common::flow::{Addr, Flow};
use tcpwatch_common::record::Packet;

pub const RST: u8 = 4;
pub const ACK: u8 = 16;

const IPPROTO_TCP: u8 = 6;
const IPV6_HEADER: u64 = 40;
/// A header offset that was never set (`~0` in a `u16`).
const UNSET: u16 = u16::MAX;
/// `struct dst_entry` pointers carry flags in their low bits (`SKB_DST_NOREF`).
const DST_POINTER: u64 = !7;
/// `enum` of route types: an address of this host.
const RTN_LOCAL: u16 = 2;
/// `RTF_LOCAL` of an IPv6 route.
const RTF_LOCAL: u32 = 0x8000_0000;
/// `htons(ETH_P_IP)` as it lies in memory.
const ETH_P_IP: u16 = 0x0800_u16.to_be();

/// A parsed TCP segment.
#[derive(Clone, Copy)]
pub struct Segment {
    pub source: Addr,
    pub destination: Addr,
    pub source_port: u16,
    pub destination_port: u16,
    pub packet: Packet,
}

impl Segment {
    /// The flow as the receiver of the segment sees it.
    #[inline(always)]
    pub fn flow_of_receiver(&self, netns: u32) -> Flow {
        Flow {
            local: self.destination,
            remote: self.source,
            local_port: self.destination_port,
            remote_port: self.source_port,
            netns,
        }
    }
}

/// A kernel packet buffer by its address; 0 is none.
#[derive(Clone, Copy)]
pub struct Skb(pub u64);

impl Skb {
    #[inline(always)]
    pub fn exists(self) -> bool {
        self.0 != 0
    }

    /// The Ethernet protocol says IPv4.
    #[inline(always)]
    pub fn is_ipv4(self) -> bool {
        let protocol: u16 = field!(self.0, skb_protocol);
        protocol == ETH_P_IP
    }

    /// Reads the headers. `None` for anything that is not TCP over IPv4 or IPv6.
    ///
    /// The TCP header is found from the IP header where that is possible: netfilter's early hooks and the drop
    /// tracepoint see buffers whose transport header is not set yet.
    #[inline(always)]
    pub fn segment(self) -> Option<Segment> {
        let head: u64 = field!(self.0, skb_head);
        let network: u16 = field!(self.0, skb_network_header);
        let ip = head + u64::from(network);
        // Five words: all of an IPv4 header without options, and enough of an IPv6 one to tell.
        let header: [u32; 5] = at(ip);
        let first = u32::from_be(header[0]);
        let (source, destination, tcp, end) = if first >> 28 == 4 {
            if (u32::from_be(header[2]) >> 16) as u8 != IPPROTO_TCP {
                return None;
            }
            let bytes = u64::from(first >> 24 & 15) * 4;
            (Addr::v4(header[3]), Addr::v4(header[4]), ip + bytes, ip + u64::from(first & 0xffff))
        } else if first >> 28 == 6 {
            let second = u32::from_be(header[1]);
            let transport: u16 = field!(self.0, skb_transport_header);
            let tcp = if (second >> 8) as u8 == IPPROTO_TCP {
                ip + IPV6_HEADER
            } else if transport != UNSET && transport > network {
                // Extension headers lie between; the kernel has walked them.
                head + u64::from(transport)
            } else {
                return None;
            };
            (Addr(at(ip + 8)), Addr(at(ip + 24)), tcp, ip + IPV6_HEADER + u64::from(second >> 16))
        } else {
            return None;
        };
        let header: [u32; 4] = at(tcp);
        let ports = u32::from_be(header[0]);
        let word = u32::from_be(header[3]);
        let start = tcp + u64::from(word >> 28) * 4;
        Some(Segment {
            source,
            destination,
            source_port: (ports >> 16) as u16,
            destination_port: ports as u16,
            packet: Packet {
                seq: u32::from_be(header[1]),
                ack: u32::from_be(header[2]),
                len: end.saturating_sub(start) as u32,
                window: word as u16,
                flags: (word >> 16) as u8,
                nf_hook: 0,
            },
        })
    }

    /// The namespace: of the socket where there is one, else of the device or the route that brought the segment.
    #[inline(always)]
    pub fn netns(self, sock: Sock) -> u32 {
        if sock.exists() {
            return sock.netns();
        }
        let mut device: u64 = field!(self.0, skb_dev);
        if device == 0 {
            device = field!(self.dst(), dst_dev);
        }
        net_inum(field!(device, dev_net))
    }

    #[inline(always)]
    fn dst(self) -> u64 {
        let reference: u64 = field!(self.0, skb_dst);
        reference & DST_POINTER
    }

    /// Whether the kernel answers it with an RST although no socket wants it: only if the route says that the
    /// destination is this host (`tcp_v4_send_reset`, `tcp_v6_send_reset`). True where the route cannot be read.
    #[inline(always)]
    pub fn is_for_this_host(self) -> bool {
        if self.is_ipv4() {
            let kind: u16 = field!(self.dst(), rtable_type);
            !has_field!(rtable_type) || kind == RTN_LOCAL
        } else {
            let flags: u32 = field!(self.dst(), rt6_flags);
            !has_field!(rt6_flags) || flags & RTF_LOCAL != 0
        }
    }
}

/// The flag byte of a `struct tcphdr`.
#[inline(always)]
pub fn tcp_flags(header: u64) -> u8 {
    // The layout of the wire, not of the kernel: byte 13 in every version.
    at(header + 13)
}
