//! Addresses, ports and the network namespace they mean something in.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IP address as four words in packet order; IPv4 as `::ffff:a.b.c.d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Addr(pub [u32; 4]);

/// `::ffff` of an IPv4-mapped address, as it lies in memory.
const V4_MAPPED: u32 = 0xffff_u32.to_be();

impl Addr {
    /// From the 32-bit word of an IPv4 header, untouched.
    #[inline(always)]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, V4_MAPPED, word])
    }

    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == V4_MAPPED
    }

    /// `0.0.0.0` or `::`.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[3] == 0 && (self.0[2] == 0 || self.0[2] == V4_MAPPED)
    }

    /// The address as Rust's type; a mapped one becomes IPv4 again.
    pub fn ip(&self) -> core::net::IpAddr {
        let mut bytes = [0u8; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(self.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        core::net::Ipv6Addr::from(bytes).to_canonical()
    }

    pub fn from_ip(ip: core::net::IpAddr) -> Self {
        let v6 = match ip {
            core::net::IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            core::net::IpAddr::V6(v6) => v6,
        };
        let bytes = v6.octets();
        let word = |i: usize| u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

/// One direction-free connection as this host's socket sees it: for an RST sent, `local` is the sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow {
    pub local: Addr,
    pub remote: Addr,
    /// Host byte order.
    pub local_port: u16,
    /// Host byte order.
    pub remote_port: u16,
    /// Inode number of the network namespace.
    pub netns: u32,
}

/// A listening port in its namespace, whatever the address: the key by which an un-accepted child finds its listener
/// where no hook tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PortKey {
    pub netns: u32,
    /// Host byte order.
    pub port: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    #[test]
    fn ipv4_survives_the_mapped_form() {
        let ip = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
        let addr = Addr::from_ip(ip);
        assert!(addr.is_v4());
        assert_eq!(addr, Addr::v4(u32::from_ne_bytes([10, 9, 0, 1])));
        assert_eq!(addr.ip(), ip);
    }

    #[test]
    fn ipv6_keeps_its_bytes() {
        let ip = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 9, 0, 0, 0, 1));
        assert!(!Addr::from_ip(ip).is_v4());
        assert_eq!(Addr::from_ip(ip).ip(), ip);
    }

    #[test]
    fn wildcards_of_both_families_are_unspecified() {
        assert!(Addr::default().is_unspecified());
        assert!(Addr::v4(0).is_unspecified());
        assert!(!Addr::from_ip(IpAddr::V6(Ipv6Addr::LOCALHOST)).is_unspecified());
    }
}
