//! THE TABLE of causes: what `explain`, the documentation, metric labels and every verdict are derived from.
//!
//! Sentences may contain `{owner}`, `{local}`, `{remote}`, `{port}` and `{state}`; [`Spec::many`] contains `{count}`.

use crate::event::EventKind;

/// One cause.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Stable, kebab-case.
    pub id: &'static str,
    /// The events that it explains.
    pub events: &'static [EventKind],
    /// What happened, for one event. No full stop.
    pub summary: &'static str,
    /// The same for `{count}` of them.
    pub many: &'static str,
    /// What to change. `None` where there is nothing wrong with this host.
    pub fix: Option<&'static str>,
    /// Where the kernel decides.
    pub source: &'static str,
    /// The first kernel that does so, of those that tcpwatch supports.
    pub since: &'static str,
}

const RST_SENT: &[EventKind] = &[EventKind::RstSent];
const RST_RECEIVED: &[EventKind] = &[EventKind::RstReceived];
const RST: &[EventKind] = &[EventKind::RstSent, EventKind::RstReceived];
const LISTEN_DROP: &[EventKind] = &[EventKind::ListenDrop];

macro_rules! causes {
    ($($id:literal $events:expr, $since:literal, $source:literal
        one: $summary:literal
        many: $many:literal
        fix: $fix:expr;)*) => {
        /// Every cause, in the order of the documentation.
        pub const ALL: &[Spec] = &[$(Spec {
            id: $id,
            events: $events,
            summary: $summary,
            many: $many,
            fix: $fix,
            source: $source,
            since: $since,
        }),*];
    };
}

/// The page `docs/causes.md`.
pub fn page() -> String {
    let mut page = String::from(
        "# Causes\n\nEvery `cause.id` that an event can carry. The evidence, with its figures, comes with the event; a cause is \
         never given without.\n",
    );
    for spec in ALL {
        let events: Vec<&str> = spec.events.iter().map(|kind| kind.name()).collect();
        page.push_str(&format!("\n## {}\n\n{}.\n\n", spec.id, spec.summary));
        page.push_str(&format!("- Events: {}; from kernel {} on.\n", events.join(", "), spec.since));
        if !spec.source.is_empty() {
            page.push_str(&format!("- Kernel: `{}`.\n", spec.source));
        }
        if let Some(fix) = spec.fix {
            page.push_str(&format!("- What to change: {fix}.\n"));
        }
    }
    page
}

causes! {
    "closed-port" RST_SENT, "5.10", "net/ipv4/tcp_ipv4.c: tcp_v4_rcv, no_tcp_socket"
        one: "nobody listens on {local}"
        many: "{count} connection attempts met ports on which nobody listens"
        fix: Some("start the service, bind it to this address, or point the client elsewhere; `ss -ltnp` lists what listens");
    "tw-bucket-overflow" &[EventKind::RstSent, EventKind::TwOverflow], "5.10", "net/ipv4/tcp_minisocks.c: tcp_time_wait"
        one: "the socket of {owner} was refused its TIME_WAIT slot, because the table is full"
        many: "{count} events of connections that were refused their TIME_WAIT slot"
        fix: Some("raise net.ipv4.tcp_max_tw_buckets, and keep connections open longer so that fewer of them end");
    "fin-wait2-timeout" RST_SENT, "5.10", "net/ipv4/inet_timewait_sock.c: tw_timer_handler"
        one: "{owner} closed, waited in FIN_WAIT2 until tcp_fin_timeout ran out, and the peer sent after that"
        many: "{count} segments came for connections whose FIN_WAIT2 had timed out"
        fix: Some("make the peer close sooner, or raise net.ipv4.tcp_fin_timeout");
    "connection-timed-out" RST_SENT, "5.10", "net/ipv4/tcp_timer.c: tcp_write_err"
        one: "the kernel had given up the connection of {owner} in silence (ETIMEDOUT), and the peer sent after that"
        many: "{count} segments came for connections that the kernel had given up"
        fix: Some("look for loss between the hosts; net.ipv4.tcp_retries2 and TCP_USER_TIMEOUT say how long to try");
    "late-segment" RST_SENT, "5.10", "net/ipv4/tcp_ipv4.c: tcp_v4_rcv, no_tcp_socket"
        one: "the peer sent to a connection of {owner} that had ended before"
        many: "{count} segments came for connections that had ended before"
        fix: None;
    "data-after-close" RST_SENT, "5.10", "net/ipv4/tcp_input.c: tcp_rcv_state_process"
        one: "the peer went on sending after {owner} had closed the connection or shut it for reading"
        many: "{count} times the peer sent to a connection that was closed or shut for reading"
        fix: Some("let the application read until the peer's end of file before it closes");
    "linger2-abort" RST_SENT, "5.10", "net/ipv4/tcp.c: __tcp_close"
        one: "{owner} closed with TCP_LINGER2 negative, which means: do not wait in FIN_WAIT2, reset"
        many: "{count} connections were reset because TCP_LINGER2 is negative"
        fix: Some("remove the TCP_LINGER2 option from the application");
    "stray-segment-to-listener" RST_SENT, "5.10", "net/ipv4/tcp_input.c: tcp_rcv_state_process, LISTEN"
        one: "a segment that belongs to no connection and no handshake reached the listener on port {port}"
        many: "{count} segments without a connection reached listeners"
        fix: Some("if they come in number: a scan, a load balancer that moved flows, or connections that ended before tcpwatch started");
    "accept-queue-overflow" RST_SENT, "5.10", "net/ipv4/tcp_minisocks.c: tcp_check_req, listen_overflow"
        one: "the accept queue of {owner} on port {port} is full, and tcp_abort_on_overflow=1 turns that into a reset"
        many: "{count} clients were reset because the accept queue was full"
        fix: Some("make the application accept faster, raise its backlog and net.core.somaxconn, or set net.ipv4.tcp_abort_on_overflow=0");
    "syn-in-handshake" RST_SENT, "5.10", "net/ipv4/tcp_minisocks.c: tcp_check_req, embryonic_reset"
        one: "another SYN came in the middle of a handshake with port {port}"
        many: "{count} handshakes were met by another SYN"
        fix: Some("look for clients behind one address that share ports (NAT), or a middlebox that rewrites sequence numbers");
    "bad-handshake-ack" RST_SENT, "5.10", "net/ipv4/tcp_input.c: tcp_rcv_state_process, SYN_SENT and SYN_RECV"
        one: "a segment of the handshake with {remote} acknowledges or echoes what was never sent"
        many: "{count} handshakes were answered with impossible acknowledgments"
        fix: Some("look for a middlebox that rewrites sequence numbers or timestamps, or answers left from an earlier connection on the same ports");
    "forgotten-connect" RST_SENT, "5.10", "net/ipv4/tcp_ipv4.c: tcp_v4_rcv, no_tcp_socket"
        one: "{remote} answered a connect whose socket is gone"
        many: "{count} answers came for connects that had been given up"
        fix: Some("the client gives up before the server answers: raise its connect timeout, or find out why the server is slow");
    "listener-closed" RST_SENT, "5.10", "net/ipv4/inet_connection_sock.c: inet_csk_listen_stop"
        one: "{owner} closed its listener on port {port} while this connection waited to be accepted"
        many: "{count} connections waited to be accepted when their listener was closed"
        fix: Some("drain before closing: accept what waits, or hand the socket over; net.ipv4.tcp_migrate_req=1 moves them to another SO_REUSEPORT listener");
    "close-with-unread-data" RST_SENT, "5.10", "net/ipv4/tcp.c: __tcp_close"
        one: "{owner} closed the connection, or exited, with unread data in the receive queue"
        many: "{count} connections were closed with unread data"
        fix: Some("let the application read what the peer sent before it closes, or shutdown(SHUT_WR) and read until end of file");
    "linger-zero" RST_SENT, "5.10", "net/ipv4/tcp.c: __tcp_close, tcp_disconnect"
        one: "{owner} closed with SO_LINGER set to 0 seconds, which means: reset instead of FIN"
        many: "{count} connections were closed with SO_LINGER 0"
        fix: Some("remove SO_LINGER {1,0} from the application unless the reset is wanted");
    "disconnect" RST_SENT, "5.10", "net/ipv4/tcp.c: tcp_disconnect"
        one: "{owner} dissolved the connection with connect(AF_UNSPEC)"
        many: "{count} connections were dissolved with connect(AF_UNSPEC)"
        fix: Some("let the application shut the connection down before it uses the socket again");
    "socket-destroyed" RST_SENT, "5.10", "net/ipv4/tcp.c: tcp_abort"
        one: "the socket of {owner} was destroyed from outside (SOCK_DESTROY)"
        many: "{count} sockets were destroyed from outside"
        fix: Some("find out who runs `ss -K`, or a network agent that kills sockets");
    "keepalive-timeout" RST_SENT, "5.10", "net/ipv4/tcp_timer.c: tcp_keepalive_timer"
        one: "{remote} did not answer the keepalive probes of {owner}"
        many: "{count} peers did not answer keepalive probes"
        fix: Some("look whether the peer or the path is down, or a firewall forgot the idle connection; TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT set the pace");
    "orphan-limit" RST_SENT, "5.10", "net/ipv4/tcp.c: tcp_check_oom"
        one: "too many orphaned sockets: that of {owner} was reset"
        many: "{count} closed sockets were reset because there were too many orphans"
        fix: Some("raise net.ipv4.tcp_max_orphans, or find out why peers do not acknowledge the last data");
    "out-of-memory" RST_SENT, "5.10", "net/ipv4/tcp.c: tcp_check_oom"
        one: "TCP is out of memory: the orphaned socket of {owner} was reset"
        many: "{count} closed sockets were reset because TCP was out of memory"
        fix: Some("raise net.ipv4.tcp_mem, or find the sockets with full buffers: `ss -tnm`");
    "orphan-timeout" RST_SENT, "5.10", "net/ipv4/tcp_timer.c: tcp_keepalive_timer"
        one: "{owner} closed, and the peer did not close in turn before tcp_fin_timeout"
        many: "{count} orphaned connections ran out of time in FIN_WAIT2"
        fix: Some("make the peer close sooner, or raise net.ipv4.tcp_fin_timeout");
    "firewall-reject" RST_SENT, "5.10", "net/ipv4/netfilter/nf_reject_ipv4.c: nf_send_reset"
        one: "a firewall rule of this host rejected the segment from {remote} with a reset"
        many: "{count} segments were rejected by this host's firewall"
        fix: Some("find the rule: `nft list ruleset | grep -n reject`, `iptables-save | grep -n REJECT`");
    "mptcp-fastclose" RST, "5.15", "net/mptcp/protocol.c: mptcp_do_fastclose"
        one: "{owner} ended an MPTCP connection at once (unread data, SO_LINGER 0, disconnect or timeout)"
        many: "{count} MPTCP subflows were reset by a fast close"
        fix: Some("let the application read what the peer sent before it closes");
    "mptcp-subflow-reset" RST, "5.10", "net/mptcp/subflow.c: mptcp_subflow_reset"
        one: "a subflow of an MPTCP connection was reset"
        many: "{count} MPTCP subflows were reset"
        fix: None;
    "mptcp-join-refused" RST_SENT, "5.10", "net/mptcp/subflow.c: subflow_syn_recv_sock"
        one: "a segment that wanted to join an MPTCP connection was refused"
        many: "{count} attempts to join MPTCP connections were refused"
        fix: Some("see `ip mptcp limits` and `ip mptcp endpoint`");
    "mptcp-eunspec" RST, "6.10", "include/net/rstreason.h: MPTCP_RST_EUNSPEC"
        one: "an MPTCP subflow was reset without a special reason"
        many: "{count} MPTCP subflows were reset without a special reason"
        fix: None;
    "mptcp-emptcp" RST, "6.10", "include/net/rstreason.h: MPTCP_RST_EMPTCP"
        one: "an MPTCP subflow was reset because of an error in its MPTCP options"
        many: "{count} MPTCP subflows were reset because of errors in MPTCP options"
        fix: Some("look for a middlebox that changes TCP options");
    "mptcp-eresource" RST, "6.10", "include/net/rstreason.h: MPTCP_RST_ERESOURCE"
        one: "an MPTCP subflow was reset for lack of resources"
        many: "{count} MPTCP subflows were reset for lack of resources"
        fix: Some("see `ip mptcp limits`");
    "mptcp-eprohibit" RST, "6.10", "include/net/rstreason.h: MPTCP_RST_EPROHIBIT"
        one: "an MPTCP subflow was refused by policy"
        many: "{count} MPTCP subflows were refused by policy"
        fix: Some("see `ip mptcp limits` and `ip mptcp endpoint`");
    "mptcp-ewq2big" RST, "6.10", "include/net/rstreason.h: MPTCP_RST_EWQ2BIG"
        one: "an MPTCP subflow was reset because too much data waits on it"
        many: "{count} MPTCP subflows were reset because too much data waited on them"
        fix: None;
    "mptcp-ebadperf" RST, "6.10", "include/net/rstreason.h: MPTCP_RST_EBADPERF"
        one: "an MPTCP subflow was reset because it performs badly"
        many: "{count} MPTCP subflows were reset because they performed badly"
        fix: None;
    "mptcp-emiddlebox" RST, "6.10", "include/net/rstreason.h: MPTCP_RST_EMIDDLEBOX"
        one: "an MPTCP subflow was reset because a middlebox interferes"
        many: "{count} MPTCP subflows were reset because a middlebox interferes"
        fix: Some("look for a middlebox that changes TCP options or payload");
    "connection-refused" RST_RECEIVED, "5.10", "net/ipv4/tcp_input.c: tcp_reset"
        one: "{remote} refused the connect of {owner}: connect() fails with ECONNREFUSED"
        many: "{count} connects were refused"
        fix: Some("see whether the service at the other end runs and listens on this address, or a firewall there rejects");
    "reset-by-peer" RST_RECEIVED, "5.10", "net/ipv4/tcp_input.c: tcp_reset"
        one: "{remote} reset the connection of {owner}"
        many: "{count} connections were reset by their peers"
        fix: Some("the reason is at the other end: run tcpwatch there");
    "reset-after-peer-close" RST_RECEIVED, "5.10", "net/ipv4/tcp_input.c: tcp_reset"
        one: "{remote} had closed and then reset the connection of {owner}"
        many: "{count} connections were reset by peers that had closed before"
        fix: Some("the application went on sending after the peer had closed: read until end of file, then close");
    "reset-in-handshake" RST_RECEIVED, "5.10", "net/ipv4/tcp_minisocks.c: tcp_check_req"
        one: "{remote} gave up its connect to port {port} before the handshake was done"
        many: "{count} clients gave up in the middle of the handshake"
        fix: Some("port scans and health checks do this; so do clients whose connect timeout is short");
    "reset-in-time-wait" RST_RECEIVED, "5.10", "net/ipv4/tcp_minisocks.c: tcp_timewait_state_process"
        one: "{remote} reset a connection that {owner} had closed already"
        many: "{count} closed connections were reset by their peers"
        fix: None;
    "rst-ignored" RST_RECEIVED, "5.10", "net/ipv4/tcp_input.c: tcp_validate_incoming"
        one: "an RST from {remote} was not obeyed"
        many: "{count} RSTs were not obeyed"
        fix: Some("in number they are forged, or belong to earlier connections on the same ports");
    "accept-queue-full" LISTEN_DROP, "5.10", "net/ipv4/tcp_input.c: tcp_conn_request; net/ipv4/tcp_ipv4.c: tcp_v4_syn_recv_sock"
        one: "the accept queue of {owner} on port {port} is full"
        many: "{count} times a connection was turned away because the accept queue was full"
        fix: Some("make the application accept faster, and raise the smaller of its backlog and net.core.somaxconn");
    "syn-queue-full" LISTEN_DROP, "5.10", "net/ipv4/tcp_input.c: tcp_conn_request"
        one: "the queue of half-open connections of {owner} on port {port} is full"
        many: "{count} SYNs were dropped because the queue of half-open connections was full"
        fix: Some("set net.ipv4.tcp_syncookies=1; raise the backlog, net.core.somaxconn and net.ipv4.tcp_max_syn_backlog");
    "syn-cookies-sent" LISTEN_DROP, "5.10", "net/ipv4/tcp_input.c: tcp_conn_request"
        one: "the queue of half-open connections of {owner} on port {port} is full, a SYN cookie was sent instead"
        many: "{count} SYNs were answered with cookies"
        fix: Some("nothing is lost but TCP options; if this is no flood, raise the backlog and net.core.somaxconn");
    "syn-cookie-invalid" &[EventKind::ListenDrop, EventKind::RstSent], "5.10", "net/ipv4/syncookies.c: cookie_v4_check"
        one: "an ACK to port {port} carried no valid SYN cookie"
        many: "{count} ACKs carried no valid SYN cookie"
        fix: Some("cookies are good for two minutes; older ones and forged ones look alike");
    "listen-no-memory" LISTEN_DROP, "5.10", "net/ipv4/tcp_input.c: tcp_conn_request"
        one: "there was no memory for a connection to {owner} on port {port}"
        many: "{count} connections were turned away for lack of memory"
        fix: Some("see the memory limit of the cgroup, and `dmesg` for failed allocations");
    "listen-refused" LISTEN_DROP, "5.10", "net/ipv4/tcp_input.c: tcp_conn_request"
        one: "a connection to {owner} on port {port} was refused although its queues have room (no route back, LSM or BPF)"
        many: "{count} connections were refused although the queues had room"
        fix: Some("see `ip route get` to the client, rp_filter, the LSM's log and BPF programs on the cgroup");
    "close-wait-leak" &[EventKind::CloseWaitLeak], "5.10", "net/ipv4/tcp_input.c: tcp_fin"
        one: "{remote} closed, and {owner} has not closed in turn"
        many: "{count} sockets wait for their process to close them"
        fix: Some("the application must close a connection when it reads end of file; see what its threads wait for");
    "unknown" &EventKind::ALL, "5.10", ""
        one: "there is evidence for none of the known causes"
        many: "{count} events have no known cause"
        fix: None;
}

/// The cause of that id.
pub fn find(id: &str) -> Option<&'static Spec> {
    ALL.iter().find(|spec| spec.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_kebab_case_and_sorted_by_event() {
        for (i, spec) in ALL.iter().enumerate() {
            assert!(
                spec.id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
                "{}",
                spec.id
            );
            assert!(ALL[..i].iter().all(|other| other.id != spec.id), "{} twice", spec.id);
            assert!(!spec.events.is_empty(), "{}", spec.id);
        }
    }

    #[test]
    fn sentences_use_known_words_only() {
        let known = ["{owner}", "{local}", "{remote}", "{port}", "{state}"];
        for spec in ALL {
            let mut text = spec.summary.to_owned();
            for word in known {
                text = text.replace(word, "");
            }
            assert!(!text.contains(['{', '}']), "{}: {text}", spec.id);
            assert!(!spec.summary.ends_with('.') && !spec.many.ends_with('.'), "{}", spec.id);
            assert!(spec.many.contains("{count}"), "{}", spec.id);
        }
    }

    #[test]
    fn the_contract_is_complete() {
        let ids = "closed-port tw-bucket-overflow fin-wait2-timeout connection-timed-out late-segment data-after-close \
            linger2-abort stray-segment-to-listener accept-queue-overflow syn-in-handshake bad-handshake-ack \
            forgotten-connect listener-closed close-with-unread-data linger-zero disconnect socket-destroyed \
            keepalive-timeout orphan-limit out-of-memory orphan-timeout firewall-reject mptcp-fastclose \
            connection-refused reset-by-peer reset-after-peer-close reset-in-handshake reset-in-time-wait rst-ignored \
            accept-queue-full syn-queue-full syn-cookies-sent syn-cookie-invalid listen-no-memory listen-refused \
            close-wait-leak unknown";
        for id in ids.split_ascii_whitespace() {
            assert!(find(id).is_some(), "{id} is missing");
        }
    }
}
