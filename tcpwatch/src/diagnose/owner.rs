//! Whose socket it was.

use super::site::Site;
use super::state;
use crate::event::{OwnerInfo, Reason};
use smol_str::SmolStr;
use tcpwatch_common::hook;
use tcpwatch_common::owner::{Owner, how};
use tcpwatch_common::record::{Record, flag, kind};

/// Timers that end orphans: who had the socket closed it long ago.
const ORPHAN_TIMERS: [&str; 2] = ["tcp_keepalive_timer", "tcp_out_of_resources"];

/// The owner of the socket that the event is about.
pub fn of(record: &Record, site: &Site<'_>, reason: Option<&Reason>) -> Option<OwnerInfo> {
    if matches!(record.hook, hook::NF_SEND_RESET | hook::NF_SEND_RESET6) {
        // The firewall asks no socket: at most somebody listens on the port.
        return info(&record.present.owner);
    }
    if record.flags & flag::DEAD != 0 && ORPHAN_TIMERS.iter().any(|timer| site.is(timer)) {
        return dead(&record.present.owner);
    }
    let past = record.flags & flag::PAST != 0;
    if state::is_listener(record) {
        // A segment of a handshake is the listener's; any other that ends up there belonged to a connection, if one
        // is remembered.
        let handshake = record.kind == kind::LISTEN_DROP || state::is_request(record, site, reason);
        if past && !handshake {
            return dead(&record.past.owner).or_else(|| info(&record.present.owner));
        }
        return info(&record.present.owner);
    }
    if record.flags & flag::SOCKET == 0
        || state::is_minisock(record) && !state::is_request(record, site, reason)
    {
        // Closed: nobody holds it any more.
        return if past { dead(&record.past.owner) } else { dead(&record.present.owner) };
    }
    info(&record.present.owner).or_else(|| {
        // Closed and destroyed within the same call.
        if past && record.state == tcpwatch_common::state::CLOSE { dead(&record.past.owner) } else { None }
    })
}

fn dead(owner: &Owner) -> Option<OwnerInfo> {
    info(owner).map(|info| OwnerInfo { how: how::name(how::DEAD).unwrap_or("dead"), ..info })
}

/// An owner in the language of events; `None` when nobody is known.
pub fn info(owner: &Owner) -> Option<OwnerInfo> {
    Some(OwnerInfo {
        how: how::name(owner.how)?,
        pid: (owner.pid != 0).then_some(owner.pid),
        comm: comm(&owner.comm),
        exe: None,
        uid: owner.uid,
        cgroup: None,
        container: None,
        start_ns: owner.start_ns,
        cgroup_id: owner.cgroup,
    })
}

/// A `task_struct.comm` as text.
pub fn comm(bytes: &[u8; 16]) -> SmolStr {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    match str::from_utf8(&bytes[..len]) {
        Ok(text) => SmolStr::new(text),
        Err(_) => SmolStr::new(String::from_utf8_lossy(&bytes[..len])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::samples::{self, frames, owner};
    use crate::diagnose::site::locate;
    use tcpwatch_common::state as states;

    fn named(record: &Record, stack: &[&'static str]) -> Option<(Option<u32>, &'static str)> {
        of(record, &locate(record, frames(stack)), None).map(|owner| (owner.pid, owner.how))
    }

    #[test]
    fn a_live_socket_belongs_to_who_has_it() {
        let mut record = samples::active(states::ESTABLISHED);
        record.present.owner = owner(812, how::ACCEPT);
        record.flags |= flag::PAST;
        record.past.owner = owner(1, how::CONNECT);
        assert_eq!(named(&record, &[]), Some((Some(812), "accept")));
        record.present.owner.how = how::NONE;
        assert_eq!(named(&record, &[]), None, "the past is another connection's");
    }

    #[test]
    fn a_destroyed_socket_had_an_owner() {
        let mut record = samples::active(states::CLOSE);
        record.flags |= flag::PAST;
        record.past.owner = owner(812, how::ACCEPT);
        assert_eq!(named(&record, &[]), Some((Some(812), "dead")));
    }

    #[test]
    fn a_segment_without_a_socket_finds_the_dead() {
        let mut record = samples::passive_without_socket(16);
        assert_eq!(named(&record, &[]), None);
        record.flags |= flag::PAST;
        record.past.owner = owner(812, how::CONNECT);
        assert_eq!(named(&record, &[]), Some((Some(812), "dead")));
        record.flags |= flag::SOCKET;
        record.state = states::FIN_WAIT2;
        assert_eq!(named(&record, &[]), Some((Some(812), "dead")), "a minisock");
    }

    #[test]
    fn at_a_listener_the_handshake_is_the_listeners_and_the_rest_the_deads() {
        let mut record = samples::at_listener(16);
        record.present.owner = owner(1, how::LISTEN);
        assert_eq!(named(&record, &["tcp_v4_send_reset", "tcp_v4_do_rcv"]), Some((Some(1), "listen")));
        record.flags |= flag::PAST;
        record.past.owner = owner(812, how::ACCEPT);
        assert_eq!(named(&record, &["tcp_v4_send_reset", "tcp_v4_do_rcv"]), Some((Some(812), "dead")));
        assert_eq!(named(&record, &["tcp_v4_send_reset", "tcp_check_req"]), Some((Some(1), "listen")));
        let drop = Record { kind: kind::LISTEN_DROP, hook: hook::TCP_CONN_REQUEST, ..record };
        assert_eq!(named(&drop, &[]), Some((Some(1), "listen")));
        let received = Record { kind: kind::RST_RECEIVED, hook: hook::TCP_CHECK_REQ, ..record };
        assert_eq!(named(&received, &[]), Some((Some(1), "listen")));
    }

    #[test]
    fn an_invisible_pid_is_null_and_a_full_comm_is_read() {
        let mut unseen = owner(0, how::PROC);
        unseen.comm = *b"sixteen-letters!";
        let info = info(&unseen).unwrap();
        assert_eq!((info.pid, info.comm.as_str(), info.how), (None, "sixteen-letters!", "proc"));
    }
}
