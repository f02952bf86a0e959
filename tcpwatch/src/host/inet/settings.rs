//! The settings of TCP that decide whether a connection is kept, refused or given up.

use crate::host::Host;
use std::fs;
use std::str::FromStr;

/// What `/proc/sys/net` says. `None`: this kernel has no such setting, or it is not readable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// TIME_WAIT sockets at most.
    pub tcp_max_tw_buckets: Option<u32>,
    /// Seconds in FIN_WAIT2 for a socket that nobody holds any more.
    pub tcp_fin_timeout: Option<u32>,
    /// Sockets that nobody holds any more, at most: one number for the whole host.
    pub tcp_max_orphans: Option<u32>,
    /// The longest accept queue, whatever `listen()` asks for.
    pub somaxconn: Option<u32>,
    /// Half-open requests per listener.
    pub tcp_max_syn_backlog: Option<u32>,
    /// 0 never, 1 when the queue is full, 2 always.
    pub tcp_syncookies: Option<u32>,
    /// Whether the last ACK of a handshake is answered by an RST when the accept queue is full.
    pub tcp_abort_on_overflow: Option<u32>,
    /// Retransmissions before a connection is given up.
    pub tcp_retries2: Option<u32>,
    pub tcp_syn_retries: Option<u32>,
    pub tcp_synack_retries: Option<u32>,
    /// Seconds of silence before the first probe.
    pub tcp_keepalive_time: Option<u32>,
    /// Seconds between probes.
    pub tcp_keepalive_intvl: Option<u32>,
    pub tcp_keepalive_probes: Option<u32>,
    /// 0 never, 1 for any peer, 2 on loopback.
    pub tcp_tw_reuse: Option<u32>,
    /// Whether TIME_WAIT ignores an RST.
    pub tcp_rfc1337: Option<u32>,
    /// Whether the requests of a listener that closes go to its neighbour (since 5.14).
    pub tcp_migrate_req: Option<u32>,
    /// Pages for TCP: relaxed below the first, pressed above the second, none above the third. One for the whole host.
    pub tcp_mem: Option<[u64; 3]>,
    pub ip_local_port_range: Option<(u16, u16)>,
}

impl Settings {
    /// Those of the namespace that the calling thread is in.
    pub(super) fn read(host: &Host) -> Self {
        let number = |name: &str| numbers(host, name).map(|[value]| value);
        Self {
            tcp_max_tw_buckets: number("ipv4/tcp_max_tw_buckets"),
            tcp_fin_timeout: number("ipv4/tcp_fin_timeout"),
            somaxconn: number("core/somaxconn"),
            tcp_max_syn_backlog: number("ipv4/tcp_max_syn_backlog"),
            tcp_syncookies: number("ipv4/tcp_syncookies"),
            tcp_abort_on_overflow: number("ipv4/tcp_abort_on_overflow"),
            tcp_retries2: number("ipv4/tcp_retries2"),
            tcp_syn_retries: number("ipv4/tcp_syn_retries"),
            tcp_synack_retries: number("ipv4/tcp_synack_retries"),
            tcp_keepalive_time: number("ipv4/tcp_keepalive_time"),
            tcp_keepalive_intvl: number("ipv4/tcp_keepalive_intvl"),
            tcp_keepalive_probes: number("ipv4/tcp_keepalive_probes"),
            tcp_tw_reuse: number("ipv4/tcp_tw_reuse"),
            tcp_rfc1337: number("ipv4/tcp_rfc1337"),
            tcp_migrate_req: number("ipv4/tcp_migrate_req"),
            ip_local_port_range: numbers(host, "ipv4/ip_local_port_range").map(|[low, high]| (low, high)),
            ..Self::of_the_host(host)
        }
    }

    /// Those that hold for every namespace, but are shown in the initial one alone.
    pub(super) fn of_the_host(host: &Host) -> Self {
        Self {
            tcp_max_orphans: numbers(host, "ipv4/tcp_max_orphans").map(|[value]| value),
            tcp_mem: numbers(host, "ipv4/tcp_mem"),
            ..Self::default()
        }
    }

    /// With what holds for the whole host, where the namespace does not show it.
    pub(super) fn or(self, host: Self) -> Self {
        Self {
            tcp_max_orphans: self.tcp_max_orphans.or(host.tcp_max_orphans),
            tcp_mem: self.tcp_mem.or(host.tcp_mem),
            ..self
        }
    }
}

/// Exactly so many numbers, or nothing.
fn numbers<T: FromStr, const COUNT: usize>(host: &Host, name: &str) -> Option<[T; COUNT]> {
    let text = fs::read_to_string(host.proc.root().join("sys/net").join(name)).ok()?;
    let values: Option<Vec<T>> = text.split_whitespace().map(|value| value.parse().ok()).collect();
    values?.try_into().ok()
}
