//! The user's filter, as the kernel programs evaluate it before a record is made.

use crate::flow::Flow;
use crate::owner::Owner;
use zerocopy::{Immutable, IntoBytes, KnownLayout};

/// How many ports `-L` and `-D` take each.
pub const PORTS: usize = 8;

/// Every condition that is set must hold; 0 means "not set".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Filter {
    /// 1 when any condition is set: the programs skip the rest otherwise.
    pub active: u32,
    /// Pid of the owner, in tcpwatch's pid namespace.
    pub pid: u32,
    /// 4 or 6.
    pub family: u32,
    pub netns: u32,
    /// Low and high half of the cgroup id: two words, so that what lies before it may be any number of words long.
    pub cgroup: [u32; 2],
    pub local_ports: [u16; PORTS],
    pub remote_ports: [u16; PORTS],
}

impl Filter {
    pub const NONE: Self = Self {
        active: 0,
        pid: 0,
        family: 0,
        netns: 0,
        cgroup: [0; 2],
        local_ports: [0; PORTS],
        remote_ports: [0; PORTS],
    };

    /// The halves of a cgroup id.
    pub const fn halves(cgroup: u64) -> [u32; 2] {
        [cgroup as u32, (cgroup >> 32) as u32]
    }

    /// Whether an event of this flow and owner passes.
    #[inline(always)]
    pub fn admits(&self, flow: &Flow, pid: u32, cgroup: u64) -> bool {
        if self.active == 0 {
            return true;
        }
        if self.pid != 0 && self.pid != pid {
            return false;
        }
        let wanted = u64::from(self.cgroup[0]) | u64::from(self.cgroup[1]) << 32;
        if wanted != 0 && wanted != cgroup {
            return false;
        }
        if self.netns != 0 && self.netns != flow.netns {
            return false;
        }
        if self.family == 4 && !flow.local.is_v4() || self.family == 6 && flow.local.is_v4() {
            return false;
        }
        listed(&self.local_ports, flow.local_port) && listed(&self.remote_ports, flow.remote_port)
    }

    /// [`Self::admits`] for an owner.
    #[inline(always)]
    pub fn admits_owner(&self, flow: &Flow, owner: &Owner) -> bool {
        self.admits(flow, owner.pid, owner.cgroup)
    }
}

/// An empty list admits every port; the entries before the first 0 count.
#[inline(always)]
fn listed(ports: &[u16; PORTS], port: u16) -> bool {
    if ports[0] == 0 {
        return true;
    }
    let mut found = false;
    let mut i = 0;
    while i < PORTS {
        found |= ports[i] != 0 && ports[i] == port;
        i += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Addr;

    fn flow() -> Flow {
        Flow { local: Addr::v4(1), remote: Addr::v4(2), local_port: 80, remote_port: 40000, netns: 7 }
    }

    #[test]
    fn without_conditions_everything_passes() {
        assert!(Filter::NONE.admits(&flow(), 0, 0));
    }

    #[test]
    fn every_condition_must_hold() {
        let filter = Filter { active: 1, pid: 5, local_ports: [80, 443, 0, 0, 0, 0, 0, 0], ..Filter::NONE };
        assert!(filter.admits(&flow(), 5, 0));
        assert!(!filter.admits(&flow(), 6, 0), "another pid");
        assert!(!filter.admits(&Flow { local_port: 8080, ..flow() }, 5, 0), "another port");
        assert!(filter.admits(&Flow { local_port: 443, ..flow() }, 5, 0));
    }

    #[test]
    fn families_are_told_by_the_mapped_prefix() {
        let filter = Filter { active: 1, family: 6, ..Filter::NONE };
        assert!(!filter.admits(&flow(), 0, 0));
        assert!(filter.admits(&Flow { local: Addr([1, 0, 0, 1]), ..flow() }, 0, 0));
    }
}
