//! The sockets of a namespace, as far as they tell why connections are refused or leak.

use super::diag;
use super::tables::{self, Row, Stat};
use crate::event::Endpoint;
use crate::host::books::Counters;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use tcpwatch_common::state;

/// Listeners, and sockets in CLOSE_WAIT, that are kept one by one. Those beyond are only counted.
const KEPT: usize = 1 << 16;
/// Addresses that half-open requests are told apart by, in the whole namespace.
const REMOTES: usize = 4096;
/// Rows after which a listing is given up: ten times what a large host has.
const ROWS: u32 = 1 << 20;

/// Where the sockets were listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// By the kernel's socket diagnostics (netlink).
    Diag,
    /// From `/proc/PID/net`, which does not show the limit of an accept queue, and why.
    Tables { why: String },
}

/// The sockets of a namespace, apart from those that are established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sockets {
    pub source: Source,
    /// Every socket was listed. If not, there are more than are told here.
    pub complete: bool,
    pub listeners: Vec<Listener>,
    /// The peer has closed, the process has not. Not longer than 65,536; `counts` has them all.
    pub close_wait: Vec<Waiting>,
    /// Handshakes that wait for their last ACK, by local port.
    pub half_open: Vec<HalfOpen>,
    pub counts: Counts,
    /// TIME_WAIT sockets, to be held against `tcp_max_tw_buckets`.
    pub time_wait: Option<u32>,
    /// Sockets that nobody holds any more, on the whole host, to be held against `tcp_max_orphans`.
    pub orphans: Option<u32>,
}

/// A socket in LISTEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    pub local: Endpoint,
    pub inode: u64,
    pub uid: u32,
    /// Connections that wait for `accept()`.
    pub len: u32,
    /// So many may wait, and one more. `None` where only `/proc` could be read.
    pub max: Option<u32>,
}

/// A socket in CLOSE_WAIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub local: Endpoint,
    pub remote: Endpoint,
    /// 0: no process holds it.
    pub inode: u64,
    pub uid: u32,
    /// Bytes that arrived and were not read.
    pub unread: u32,
    /// The process has read the end too, so it knows that the peer closed.
    pub end_read: bool,
    /// Milliseconds since the last segment came from the peer: it closed no later than that. `None` from `/proc`.
    pub quiet_ms: Option<u32>,
}

/// The half-open requests of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpen {
    pub port: u16,
    pub requests: u32,
    /// Different remote addresses among them.
    pub remotes: u32,
    /// There may be more remote addresses than that: their number is bounded.
    pub at_least: bool,
}

/// Sockets by state. A state that is not here is not cheap to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By the kernel's own counter.
    pub established: Option<u32>,
    pub listen: u32,
    pub syn_sent: u32,
    pub syn_recv: u32,
    pub fin_wait1: u32,
    pub close_wait: u32,
    pub last_ack: u32,
    pub closing: u32,
}

impl Sockets {
    /// Those of the namespace that the calling thread is in; `files` is its folder of tables.
    pub(super) fn list(files: &Path) -> Self {
        let mut why = None;
        for _ in 0..diag::TRIES {
            let mut list = List::default();
            match diag::dump(diag::NOTEWORTHY, |row| list.take(row)) {
                Ok(diag::End::Whole) => return list.finish(Source::Diag, true, files),
                Ok(diag::End::Enough) => return list.finish(Source::Diag, false, files),
                // What has come may be double or missing.
                Ok(diag::End::Interrupted) => {}
                Err(error) => {
                    why = Some(format!("socket diagnostics failed: {error}"));
                    break;
                }
            }
        }
        let why = why.unwrap_or_else(|| "socket diagnostics were interrupted again and again".to_owned());
        Self::from_tables(files, why)
    }

    pub(super) fn from_tables(files: &Path, why: String) -> Self {
        let mut list = List::default();
        let whole = tables::each(files, |row| list.take(row));
        list.finish(Source::Tables { why }, whole, files)
    }
}

/// A listing under way.
#[derive(Default)]
struct List {
    rows: u32,
    listeners: Vec<Listener>,
    close_wait: Vec<Waiting>,
    half_open: BTreeMap<u16, HalfOpen>,
    remotes: HashSet<(u16, IpAddr)>,
    counts: Counts,
}

impl List {
    /// Takes a socket in; false when there were enough.
    fn take(&mut self, row: Row) -> bool {
        let Row { local, remote, inode, uid, .. } = row;
        let count = match row.state {
            state::LISTEN => {
                if self.listeners.len() < KEPT {
                    self.listeners.push(Listener { local, inode, uid, len: row.receive, max: row.send });
                }
                &mut self.counts.listen
            }
            state::CLOSE_WAIT => {
                if self.close_wait.len() < KEPT {
                    // The peer's FIN counts as one byte until it is read.
                    let (unread, end_read) = (row.receive.saturating_sub(1), row.receive == 0);
                    let quiet_ms = row.quiet_ms;
                    self.close_wait.push(Waiting { local, remote, inode, uid, unread, end_read, quiet_ms });
                }
                &mut self.counts.close_wait
            }
            state::SYN_RECV | state::NEW_SYN_RECV => {
                self.request(local.port, remote.addr);
                &mut self.counts.syn_recv
            }
            state::SYN_SENT => &mut self.counts.syn_sent,
            state::FIN_WAIT1 => &mut self.counts.fin_wait1,
            state::LAST_ACK => &mut self.counts.last_ack,
            state::CLOSING => &mut self.counts.closing,
            _ => return true,
        };
        *count += 1;
        self.rows += 1;
        self.rows < ROWS
    }

    fn request(&mut self, port: u16, remote: IpAddr) {
        let none = HalfOpen { port, requests: 0, remotes: 0, at_least: false };
        let half_open = self.half_open.entry(port).or_insert(none);
        half_open.requests += 1;
        if self.remotes.contains(&(port, remote)) {
            return;
        }
        if self.remotes.len() < REMOTES {
            self.remotes.insert((port, remote));
            half_open.remotes += 1;
        } else {
            half_open.at_least = true;
        }
    }

    fn finish(mut self, source: Source, complete: bool, files: &Path) -> Sockets {
        let stat = Stat::read(files);
        self.counts.established = current(files).map(|both| both.saturating_sub(self.counts.close_wait));
        Sockets {
            source,
            complete,
            listeners: self.listeners,
            close_wait: self.close_wait,
            half_open: self.half_open.into_values().collect(),
            counts: self.counts,
            time_wait: stat.time_wait,
            orphans: stat.orphans,
        }
    }
}

/// Sockets in ESTABLISHED or CLOSE_WAIT (RFC 4022 counts them as one).
fn current(files: &Path) -> Option<u32> {
    let snmp = std::fs::read_to_string(files.join("snmp")).ok()?;
    u32::try_from(Counters::parse(&snmp, "").get("TcpCurrEstab")?).ok()
}
