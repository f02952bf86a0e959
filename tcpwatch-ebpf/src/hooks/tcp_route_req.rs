//! `tcp_v4_route_req` and `tcp_v6_route_req`: a route for the SYN-ACK is asked for: there was memory for the request. Called
//! through `struct tcp_request_sock_ops`, so never inlined.
//!
//! kernel: v5.10..  net/ipv4/tcp_ipv4.c  `static struct dst_entry *tcp_v4_route_req(...)`: they changed twice, none is used
//! kernel: v5.10..  net/ipv6/tcp_ipv6.c  `static struct dst_entry *tcp_v6_route_req(...)`

use super::entry;
use crate::context::Hooked;
use crate::hooks::tcp_conn_request::reached;
use tcpwatch_common::record::passed;

entry!(handle, tcp_v4_route_req_fentry, tcp_v4_route_req_kprobe);
entry!(handle, tcp_v6_route_req_fentry, tcp_v6_route_req_kprobe);

#[inline(always)]
fn handle(_context: &impl Hooked) -> Option<()> {
    reached(passed::ROUTE);
    Some(())
}
