//! Addresses, networks and ports of a filter: from text to tests of one end.

use super::tree::Tree;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tcpwatch_common::filter::{End, Test};
use tcpwatch_common::flow::Addr;

/// What a text is not, and what to do about it.
pub(super) type Not = (String, String);

/// An address and the bits of it that count; IPv4 as `::ffff:a.b.c.d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: u128,
    mask: u128,
}

/// Bits before the address in an IPv4-mapped one.
const MAPPED_BITS: u8 = 96;
/// `::ffff:0:0/96`, which is all of IPv4.
pub(super) const IPV4: Network = Network { address: 0xffff_0000_0000, mask: ones(MAPPED_BITS) };

/// Ports with a name, as IANA has them: those that TCP is used for, on hosts that may lack a list of their own.
const SERVICES: [(&str, u16); 31] = [
    ("ftp-data", 20),
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("http", 80),
    ("kerberos", 88),
    ("pop3", 110),
    ("sunrpc", 111),
    ("imap", 143),
    ("imap2", 143),
    ("bgp", 179),
    ("ldap", 389),
    ("https", 443),
    ("microsoft-ds", 445),
    ("submissions", 465),
    ("submission", 587),
    ("ldaps", 636),
    ("domain-s", 853),
    ("rsync", 873),
    ("imaps", 993),
    ("pop3s", 995),
    ("ms-sql-s", 1433),
    ("nfs", 2049),
    ("mysql", 3306),
    ("postgresql", 5432),
    ("amqp", 5672),
    ("redis", 6379),
    ("syslog-tls", 6514),
    ("http-alt", 8080),
];

/// The first `bits` of an address.
const fn ones(bits: u8) -> u128 {
    if bits == 0 { 0 } else { u128::MAX << (128 - bits) }
}

impl Network {
    pub(super) fn host(ip: IpAddr) -> Self {
        Self { address: bits(ip), mask: u128::MAX }
    }

    pub(super) fn is_v4(&self) -> bool {
        self.address & IPV4.mask == IPV4.address && self.mask & IPV4.mask == IPV4.mask
    }

    /// Whether an end lies in it. A network of IPv6 holds no IPv4, however short its prefix is.
    pub(super) fn test(&self, end: End) -> Tree {
        let addr = |bits: u128| Addr::from_ip(IpAddr::V6(Ipv6Addr::from_bits(bits)));
        let test = Tree::Test(Test::network(end, addr(self.address), addr(self.mask)));
        if self.mixes() { IPV4.test(end).not().and(test) } else { test }
    }

    fn mixes(&self) -> bool {
        !self.is_v4() && IPV4.address & self.mask == self.address & self.mask
    }

    /// Tests that it takes for one end.
    pub(super) fn cost(&self) -> usize {
        1 + usize::from(self.mixes())
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

pub(super) fn host(text: &str) -> Result<Network, Not> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Network::host(ip));
    }
    let hint = if text.contains('/') || is_dotted(text) {
        format!("a network is `net {text}`")
    } else if text.contains('%') {
        "leave the interface away: link-local addresses are compared without it".to_owned()
    } else {
        format!("names are not looked up; `getent ahosts {text}` may tell the address")
    };
    Err((format!("`{text}` is not an address"), hint))
}

/// Digits and dots that do not make an address.
fn is_dotted(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// `10.0.0.0/8`, `10`, `192.168.1`, `fd00::/8`; without a length as many bits as were given. With `mask` for IPv4.
pub(super) fn net(text: &str, mask: Option<&str>) -> Result<Network, Not> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let no_net = || {
        (
            format!("`{text}` is not a network"),
            "for instance `net 10.0.0.0/8`, `net 10` or `net fd00::/8`".into(),
        )
    };
    let (address, given, before) = match address.parse::<Ipv6Addr>() {
        Ok(v6) => (v6.to_bits(), 128, 0),
        Err(_) => {
            let (address, given) = dotted(address).ok_or_else(no_net)?;
            (bits(address.into()), given, MAPPED_BITS)
        }
    };
    let mask = match (mask, length) {
        (None, None) => ones(before + given),
        (None, Some(length)) => {
            let length = length.parse().ok().filter(|length| *length <= 128 - before);
            let length: u8 = length.ok_or_else(|| {
                (format!("`{text}` has no prefix length from 0 to {}", 128 - before), no_net().1)
            })?;
            ones(before + length)
        }
        (Some(mask), None) if before == MAPPED_BITS => {
            let mask: Ipv4Addr = mask.parse().map_err(|_| {
                (format!("`{mask}` is not a mask"), "for instance `mask 255.255.0.0`".to_owned())
            })?;
            IPV4.mask | u128::from(mask.to_bits())
        }
        (Some(_), _) => {
            return Err((
                format!("`{text}` takes no mask"),
                "a prefix length, as in `net 10.0.0.0/8`, or a mask, for IPv4 alone".to_owned(),
            ));
        }
    };
    if address & !mask != 0 {
        let network = Ipv6Addr::from_bits(address & mask).to_canonical();
        let bits = u8::try_from(mask.leading_ones()).unwrap_or(128);
        let hint = if ones(bits) == mask {
            format!("the network is `net {network}/{}`", bits - before)
        } else {
            format!("the network is `net {network}` with this mask")
        };
        return Err((format!("`{text}` has bits set behind its network"), hint));
    }
    Ok(Network { address, mask })
}

/// One to four numbers with dots between, and how many bits they are.
fn dotted(text: &str) -> Option<(Ipv4Addr, u8)> {
    let mut octets = [0; 4];
    let mut given = 0;
    for part in text.split('.') {
        let digits = part.bytes().all(|byte| byte.is_ascii_digit());
        *octets.get_mut(usize::from(given))? = part.parse().ok().filter(|_| digits)?;
        given += 1;
    }
    Some((octets.into(), given * 8))
}

pub(super) fn port(text: &str) -> Result<u16, Not> {
    let named = || SERVICES.iter().find(|(name, _)| *name == text).map(|(_, port)| *port);
    number(text).or_else(named).ok_or_else(|| {
        let hint = if text.contains('-') {
            format!("a range is `portrange {text}`")
        } else {
            "a number up to 65535, or a common name as `https`; no commas: `port 80 or 443`".to_owned()
        };
        (format!("`{text}` is not a port"), hint)
    })
}

fn number(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// In either order, as tcpdump takes it.
pub(super) fn range(text: &str) -> Result<(u16, u16), Not> {
    let ends = text.split_once('-').and_then(|(one, other)| number(one).zip(number(other)));
    let (one, other) = ends.ok_or_else(|| {
        (format!("`{text}` is not a range of ports"), "two numbers, as in `portrange 8000-8099`".to_owned())
    })?;
    Ok((one.min(other), one.max(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_service() {
        let page = include_str!("../../../../docs/filter.md");
        let named: Vec<String> = SERVICES.iter().map(|(name, port)| format!("`{name}` {port}")).collect();
        assert!(page.contains(&format!("Ports with names: {}.\n", named.join(", "))), "{}", named.join(", "));
    }

    #[test]
    fn networks_of_ipv6_that_would_hold_ipv4_are_told_apart() {
        for (text, mixes) in [
            ("::/0", true),
            ("::/80", true),
            ("::/81", false),
            ("::fffe:0:0/95", true),
            ("::ffff:0:0/96", false),
            ("fd00::/8", false),
            ("8000::/1", false),
        ] {
            assert_eq!(net(text, None).unwrap().mixes(), mixes, "{text}");
        }
        assert!(!net("0.0.0.0/0", None).unwrap().mixes());
    }
}
