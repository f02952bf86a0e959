//! The tables in `/proc/PID/net`: what the kernel shows of a namespace without netlink.

use crate::event::Endpoint;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// A socket, as far as both netlink and the tables show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// A number of [`tcpwatch_common::state`].
    pub(crate) state: u8,
    pub(crate) local: Endpoint,
    pub(crate) remote: Endpoint,
    /// 0 for a half-open request.
    pub(crate) inode: u64,
    pub(crate) uid: u32,
    /// Of a listener: connections in its accept queue; else bytes that were not read yet.
    pub(crate) receive: u32,
    /// Milliseconds since the last segment came; `None` where that is not told.
    pub(crate) quiet_ms: Option<u32>,
    /// Of a listener: the limit of its accept queue; else bytes that were not acknowledged yet. The tables do not show it
    /// for listeners.
    pub(crate) send: Option<u32>,
}

impl Row {
    /// A line of `tcp` or `tcp6`: `sl local remote state tx:rx timer:when retransmits uid timeout inode …`. The heading is
    /// none.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ').filter(|field| !field.is_empty());
        let local = endpoint(fields.nth(1)?)?;
        let remote = endpoint(fields.next()?)?;
        let state = u8::try_from(number(fields.next()?, 16)?).ok()?;
        let (send, receive) = pair(fields.next()?)?;
        let uid = u32::try_from(number(fields.nth(2)?, 10)?).ok()?;
        let inode = number(fields.nth(1)?, 10)?;
        let send = u32::try_from(number(send, 16)?).ok()?;
        Some(Self {
            state,
            local,
            remote,
            inode,
            uid,
            receive: u32::try_from(number(receive, 16)?).ok()?,
            quiet_ms: None,
            send: (state != tcpwatch_common::state::LISTEN).then_some(send),
        })
    }
}

/// `0100007F:1F90`: each four bytes of the address as a number of this machine's byte order.
fn endpoint(field: &[u8]) -> Option<Endpoint> {
    let (address, port) = pair(field)?;
    let port = u16::try_from(number(port, 16)?).ok()?;
    let mut bytes = [0; 16];
    if address.len() % 8 != 0 || address.len() > 32 {
        return None;
    }
    for (word, digits) in bytes.chunks_exact_mut(4).zip(address.chunks_exact(8)) {
        word.copy_from_slice(&u32::try_from(number(digits, 16)?).ok()?.to_ne_bytes());
    }
    let addr = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        32 => IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical(),
        _ => return None,
    };
    Some(Endpoint { addr, port })
}

fn pair(field: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = field.iter().position(|&byte| byte == b':')?;
    Some((&field[..colon], &field[colon + 1..]))
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(str::from_utf8(digits).ok()?, radix).ok()
}

/// Hands out every socket in `tcp` and `tcp6` until `take` has enough; false if it had, or if a table could not be read to
/// its end. A host without IPv6 has no second table.
pub(super) fn each(files: &Path, mut take: impl FnMut(Row) -> bool) -> bool {
    let Ok(v4) = File::open(files.join("tcp")) else { return false };
    let tables = [Some(v4), File::open(files.join("tcp6")).ok()];
    for table in tables.into_iter().flatten() {
        for line in BufReader::with_capacity(64 * 1024, table).split(b'\n') {
            let Ok(line) = line else { return false };
            if Row::parse(&line).is_some_and(|row| !take(row)) {
                return false;
            }
        }
    }
    true
}

/// What `sockstat` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stat {
    /// TIME_WAIT sockets of the namespace.
    pub(super) time_wait: Option<u32>,
    /// Sockets of the whole host that nobody holds any more.
    pub(super) orphans: Option<u32>,
}

impl Stat {
    pub(super) fn read(files: &Path) -> Self {
        fs::read_to_string(files.join("sockstat")).map(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// `TCP: inuse 5 orphan 0 tw 3 alloc 7 mem 1`.
    pub(super) fn parse(text: &str) -> Self {
        let row = text.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
        let value = |name: &str| {
            let mut words = row.split_whitespace();
            words.find(|word| *word == name)?;
            words.next()?.parse().ok()
        };
        Self { time_wait: value("tw"), orphans: value("orphan") }
    }
}
