//! The user's filter, as the kernel programs evaluate it before a record is made.

mod expression;

pub use expression::{End, Expression, TESTS, Target, Test};

use crate::flow::Flow;
use crate::owner::Owner;
use zerocopy::{Immutable, IntoBytes, KnownLayout};

/// Every condition that is set must hold; 0 means "not set".
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Filter {
    /// 1 when any condition is set: the programs skip the rest otherwise.
    pub active: u32,
    /// Pid of the owner, in tcpwatch's pid namespace.
    pub pid: u32,
    pub netns: u32,
    /// Low and high half of the cgroup id: two words, so that what lies before it may be any number of words long.
    pub cgroup: [u32; 2],
    /// Families, ports and addresses.
    pub expression: Expression,
}

impl Filter {
    pub const NONE: Self = Self { active: 0, pid: 0, netns: 0, cgroup: [0; 2], expression: Expression::NONE };

    /// The halves of a cgroup id.
    pub const fn halves(cgroup: u64) -> [u32; 2] {
        [cgroup as u32, (cgroup >> 32) as u32]
    }

    /// Whether the connection is wanted, whoever owns it.
    #[inline(always)]
    pub fn admits_flow(&self, flow: &Flow) -> bool {
        (self.netns == 0 || self.netns == flow.netns) && self.expression.admits(flow)
    }

    /// Whether the owner matters.
    #[inline(always)]
    pub fn is_by_process(&self) -> bool {
        self.pid | self.cgroup[0] | self.cgroup[1] != 0
    }

    /// Whether the owner is wanted, whatever the connection.
    #[inline(always)]
    pub fn admits_process(&self, owner: &Owner) -> bool {
        if self.pid != 0 && self.pid != owner.pid {
            return false;
        }
        let wanted = u64::from(self.cgroup[0]) | u64::from(self.cgroup[1]) << 32;
        wanted == 0 || wanted == owner.cgroup
    }

    /// Whether an event of this flow and owner passes.
    #[inline(always)]
    pub fn admits_owner(&self, flow: &Flow, owner: &Owner) -> bool {
        self.active == 0 || self.admits_flow(flow) && self.admits_process(owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Addr;

    fn flow() -> Flow {
        Flow { local: Addr::v4(1), remote: Addr::v4(2), local_port: 80, remote_port: 40000, netns: 7 }
    }

    fn owner(pid: u32) -> Owner {
        Owner { pid, ..Owner::default() }
    }

    #[test]
    fn without_conditions_everything_passes() {
        assert!(Filter::NONE.admits_owner(&flow(), &owner(0)));
    }

    #[test]
    fn every_condition_must_hold() {
        let mut filter = Filter { active: 1, pid: 5, netns: 7, ..Filter::NONE };
        let test = Test::ports(End::Remote, 40000, 50000);
        filter.expression.put(test, Target::ADMIT, Target::REFUSE).unwrap();
        assert!(filter.admits_owner(&flow(), &owner(5)));
        assert!(!filter.admits_owner(&flow(), &owner(6)), "another pid");
        assert!(!filter.admits_owner(&Flow { netns: 8, ..flow() }, &owner(5)), "another namespace");
        assert!(!filter.admits_owner(&Flow { remote_port: 50001, ..flow() }, &owner(5)), "another port");
    }

    #[test]
    fn a_cgroup_is_compared_whole() {
        let cgroup = 7 << 32 | 9;
        let filter = Filter { active: 1, cgroup: Filter::halves(cgroup), ..Filter::NONE };
        for (other, admitted) in [(cgroup, true), (9, false), (7 << 32, false)] {
            let owner = Owner { cgroup: other, ..owner(5) };
            assert_eq!(filter.admits_owner(&flow(), &owner), admitted, "{other:#x}");
        }
    }
}
