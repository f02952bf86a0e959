//! Who listens in a namespace, and nothing else: for the start, which waits for it.

use super::diag::{self, End};
use super::enter;
use super::tables::Row;
use crate::host::Host;
use crate::host::netns::Namespace;
use netlink_packet_sock_diag::inet::StateFlags;
use std::fs::File;
use std::io::Read;
use tcpwatch_common::state;

/// Port and inode of every listener. Empty where the namespace shows nothing of itself.
///
/// The kernel has a table of its own for listeners. Over netlink it looks into no other, while the tables in `/proc` show
/// connections too, so that even an empty one takes it through the places of all namespaces' connections: milliseconds.
pub fn listeners(host: &Host, namespace: &Namespace) -> Vec<(u16, u64)> {
    let inside = enter::within(host, namespace, |_| {
        for _ in 0..diag::TRIES {
            let mut found = Vec::new();
            let end = diag::dump(StateFlags::LISTEN, |row| {
                found.push((row.local.port, row.inode));
                true
            });
            match end {
                Ok(End::Whole | End::Enough) => return Some(found),
                // What has come may be double or missing.
                Ok(End::Interrupted) => {}
                Err(_) => return None,
            }
        }
        None
    });
    if let Ok(Some(found)) = inside {
        return found;
    }
    let mut found = Vec::new();
    for table in ["net/tcp", "net/tcp6"] {
        if let Some(file) = namespace.pid.and_then(|pid| File::open(host.proc.path(pid, table)).ok()) {
            of_table(file, |port, inode| found.push((port, inode)));
        }
    }
    found
}

/// Calls `each` with port and inode of every listener in a `/proc/PID/net/tcp` or `tcp6`.
///
/// The kernel lists all listeners before the first connection, so reading ends with the first read that brings no listener:
/// formatting 100,000 connections would cost it more than everything else here. It gives a page of rows at a time: with less there are no
/// more, and to ask would make it look through the whole table of connections once more, milliseconds of an empty one.
fn of_table(mut table: impl Read, mut each: impl FnMut(u16, u64)) {
    /// More than a row takes, and the smallest page.
    const ROW: usize = 256;
    const PAGE: usize = 4096;
    let mut buffer = vec![0; 64 * 1024];
    let mut filled = 0;
    loop {
        let read = match table.read(&mut buffer[filled..]) {
            Ok(read) if read > 0 => read,
            _ => return,
        };
        filled += read;
        let is_all = read + ROW < PAGE;
        let complete = buffer[..filled].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let (mut rows, mut listening) = (0, 0);
        for row in buffer[..complete].split(|&byte| byte == b'\n') {
            let Some(row) = Row::parse(row) else { continue };
            if row.state == state::LISTEN {
                listening += 1;
                each(row.local.port, row.inode);
            } else {
                rows += 1;
            }
        }
        if is_all || (listening == 0 && rows > 0) {
            return;
        }
        buffer.copy_within(complete..filled, 0);
        filled -= complete;
        if filled == buffer.len() {
            // No row is that long: this is no such table.
            return;
        }
    }
}

#[cfg(test)]
mod tests;
