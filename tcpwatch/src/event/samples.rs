//! Parts of events, for the tests of what makes something of them.

use super::{Endpoint, OwnerInfo};
use std::net::SocketAddr;

/// `10.9.0.1:80`, `[fd09::1]:80`.
pub(crate) fn end(text: &str) -> Endpoint {
    let end: SocketAddr = text.parse().unwrap();
    Endpoint { addr: end.ip(), port: end.port() }
}

/// A process of which little is known. It began when its pid says.
pub(crate) fn owner(pid: u32, comm: &str) -> OwnerInfo {
    OwnerInfo {
        pid: Some(pid),
        comm: comm.into(),
        exe: None,
        uid: 0,
        cgroup: None,
        container: None,
        how: "accept",
        start_ns: u64::from(pid),
        cgroup_id: 0,
    }
}
