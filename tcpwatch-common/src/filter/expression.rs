//! The expression of a filter: tests of a flow's ends that jump forward, evaluated alike by the kernel programs and by
//! user space.

use crate::flow::{Addr, Flow};
use zerocopy::{Immutable, IntoBytes, KnownLayout};

/// How many tests fit: of the families and ports that have options, and of what is typed behind these.
pub const TESTS: usize = 84;

/// Which end of a flow a test looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    Local = 0,
    Remote = 1,
}

/// Where evaluation goes on: at a test that was put before, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target(u8);

impl Target {
    pub const ADMIT: Self = Self(u8::MAX);
    pub const REFUSE: Self = Self(u8::MAX - 1);
}

// An index is never taken for an outcome.
const _: () = assert!(TESTS < Target::REFUSE.0 as usize);

/// Whether one end's address lies in a network and its port in a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Test {
    network: Addr,
    mask: Addr,
    first_port: u16,
    /// Ports that follow the first.
    more_ports: u16,
    end: u8,
    hit: u8,
    miss: u8,
    pad: u8,
}

impl Test {
    /// Every port at an address that is `network` where `mask` has ones.
    pub const fn network(end: End, network: Addr, mask: Addr) -> Self {
        Self {
            network,
            mask,
            first_port: 0,
            more_ports: u16::MAX,
            end: end as u8,
            hit: Target::REFUSE.0,
            miss: Target::REFUSE.0,
            pad: 0,
        }
    }

    /// Ports from `first` to `last`, which is not below it, at any address.
    pub const fn ports(end: End, first: u16, last: u16) -> Self {
        let any = Addr([0; 4]);
        Self { first_port: first, more_ports: last.wrapping_sub(first), ..Self::network(end, any, any) }
    }

    #[inline(always)]
    fn holds(&self, flow: &Flow) -> bool {
        let (addr, port) = if self.end == End::Local as u8 {
            (&flow.local, flow.local_port)
        } else {
            (&flow.remote, flow.remote_port)
        };
        // All words at once: each branch more is one more for the verifier to walk both ways. And what is compared with a
        // constant is never the flow itself but a difference: of the flow the verifier would keep in mind how each comparison
        // came out, and walk all that follows once for every such memory.
        let differs = (addr.0[0] ^ self.network.0[0]) & self.mask.0[0]
            | (addr.0[1] ^ self.network.0[1]) & self.mask.0[1]
            | (addr.0[2] ^ self.network.0[2]) & self.mask.0[2]
            | (addr.0[3] ^ self.network.0[3]) & self.mask.0[3];
        differs == 0 && port.wrapping_sub(self.first_port) <= self.more_ports
    }
}

/// Tests in the order of evaluation, at the end of their room: each jumps to one behind it or ends the evaluation, so that it
/// always ends. To the verifier the tests and their jumps are constants, and all that differs between two ways through them is
/// the place reached: the work grows with the number of tests and not with the number of ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Expression {
    count: u32,
    tests: [Test; TESTS],
}

impl Expression {
    /// Admits everything.
    pub const NONE: Self =
        Self { count: 0, tests: [Test::network(End::Local, Addr([0; 4]), Addr([0; 4])); TESTS] };

    /// Puts a test before those that are there; evaluation begins at the one that was put last. `None`: no room is left.
    pub fn put(&mut self, test: Test, hit: Target, miss: Target) -> Option<Target> {
        let at = TESTS.checked_sub(self.count as usize + 1)?;
        let room = self.tests.get_mut(at)?;
        *room = Test { hit: hit.0, miss: miss.0, ..test };
        self.count += 1;
        u8::try_from(at).ok().map(Target)
    }

    /// Tests in use.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[inline(always)]
    pub(super) fn admits(&self, flow: &Flow) -> bool {
        if self.count == 0 {
            return true;
        }
        let mut at = TESTS.wrapping_sub(self.count as usize);
        while at < TESTS {
            let test = &self.tests[at];
            at = usize::from(if test.holds(flow) { test.hit } else { test.miss });
        }
        at == usize::from(Target::ADMIT.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    const ALL: Addr = Addr([u32::MAX; 4]);

    fn v4(last: u8) -> Addr {
        Addr::from_ip(IpAddr::V4(Ipv4Addr::new(10, 9, 0, last)))
    }

    fn flow() -> Flow {
        Flow { local: v4(1), remote: v4(2), local_port: 80, remote_port: 40000, netns: 7 }
    }

    fn alone(test: Test) -> bool {
        let mut expression = Expression::NONE;
        expression.put(test, Target::ADMIT, Target::REFUSE).unwrap();
        expression.admits(&flow())
    }

    #[test]
    fn each_end_has_its_address_and_its_port() {
        assert!(alone(Test::network(End::Local, v4(1), ALL)));
        assert!(!alone(Test::network(End::Remote, v4(1), ALL)));
        assert!(alone(Test::network(End::Remote, v4(2), ALL)));
        assert!(alone(Test::ports(End::Local, 80, 80)));
        assert!(!alone(Test::ports(End::Remote, 80, 80)));
        assert!(alone(Test::ports(End::Remote, 40000, 40000)));
    }

    #[test]
    fn the_bounds_of_a_range_belong_to_it() {
        for (first, last, holds) in [
            (79, 79, false),
            (79, 80, true),
            (80, 81, true),
            (81, 90, false),
            (0, 65535, true),
            (81, 65535, false),
            (0, 79, false),
        ] {
            assert_eq!(alone(Test::ports(End::Local, first, last)), holds, "{first}-{last}");
        }
    }

    #[test]
    fn a_mask_leaves_bits_out_in_every_word() {
        let end = |addr: &str| Addr::from_ip(addr.parse::<Ipv6Addr>().unwrap().into());
        let remote = end("fd00:1:2:3:4:5:6:7");
        for (network, mask, holds) in [
            ("::", "::", true),
            ("fd00::", "ffff::", true),
            ("fd01::", "ffff::", false),
            ("fd00:1:2:3::", "ffff:ffff:ffff:ffff::", true),
            ("fd00:1:2:4::", "ffff:ffff:ffff:ffff::", false),
            ("::4:5:6:0", "0:0:0:0:ffff:ffff:ffff:0", true),
            ("::6:8", "::ffff:ffff", false),
        ] {
            let test = Test::network(End::Remote, end(network), end(mask));
            assert_eq!(test.holds(&Flow { remote, ..flow() }), holds, "{network} {mask}");
        }
    }

    #[test]
    fn jumps_lead_through_and_and_or() {
        // local port 80 and (remote 10.9.0.3 or remote 10.9.0.2)
        let mut expression = Expression::NONE;
        let (admit, refuse) = (Target::ADMIT, Target::REFUSE);
        let second = expression.put(Test::network(End::Remote, v4(2), ALL), admit, refuse).unwrap();
        let first = expression.put(Test::network(End::Remote, v4(3), ALL), admit, second).unwrap();
        expression.put(Test::ports(End::Local, 80, 80), first, refuse).unwrap();
        assert!(expression.admits(&flow()));
        assert!(expression.admits(&Flow { remote: v4(3), ..flow() }));
        assert!(!expression.admits(&Flow { remote: v4(4), ..flow() }));
        assert!(!expression.admits(&Flow { local_port: 81, ..flow() }));
        assert_eq!(expression.len(), 3);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut expression = Expression::NONE;
        let test = Test::ports(End::Local, 1, 1);
        let mut next = Target::REFUSE;
        for _ in 0..TESTS {
            next = expression.put(test, Target::ADMIT, next).unwrap();
        }
        assert_eq!(expression.put(test, Target::ADMIT, next), None);
        assert!(!expression.admits(&flow()));
        assert!(expression.admits(&Flow { local_port: 1, ..flow() }));
    }
}
