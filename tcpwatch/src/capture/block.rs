//! The blocks of a pcapng file, as bytes.
//!
//! `pcap-parser` reads them back. Its own way to write them is not used: for a dozen integers it would bring the whole of
//! `futures` into the binary.

/// Block types.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const JOURNAL_EXPORT: u32 = 9;

/// Options of every block.
const END: u16 = 0;
const COMMENT: u16 = 1;

/// The option of a packet block that has the event as JSON. The highest bit says "for local use": other programs pass over it.
/// What is longer than one option holds goes on in the next one.
pub(super) const EVENT: u16 = 0x8057;
/// The same in a journal export block.
pub(super) const EVENT_FIELD: &str = "TCPWATCH_EVENT";
/// Longest value of an option.
const LONGEST: usize = 0xfff0;

/// Link type of every interface: packets begin with the IP header (`LINKTYPE_RAW`).
const RAW: u16 = 101;

/// Which way a packet went, for `epb_flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    In = 1,
    Out = 2,
}

/// Writes a block: its type, its length before and after what `fill` writes.
fn block(out: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    fill(out);
    pad(out, start);
    // No block is longer than an event, of which each part is bounded.
    let length = u32::try_from(out.len() - start + 4).unwrap_or(u32::MAX).to_le_bytes();
    out[start + 4..start + 8].copy_from_slice(&length);
    out.extend_from_slice(&length);
}

fn pad(out: &mut Vec<u8>, start: usize) {
    let over = (out.len() - start) % 4;
    out.resize(out.len() + (4 - over) % 4, 0);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(LONGEST)];
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(0).to_le_bytes());
    let start = out.len();
    out.extend_from_slice(value);
    pad(out, start);
}

fn end_of_options(out: &mut Vec<u8>) {
    option(out, END, &[]);
}

/// Seconds since 1970 as a block has them, in nanoseconds: two halves, the upper one first.
fn time(out: &mut Vec<u8>, time_ns: u64) {
    out.extend_from_slice(&((time_ns >> 32) as u32).to_le_bytes());
    out.extend_from_slice(&(time_ns as u32).to_le_bytes());
}

/// The first block of a file.
pub(super) fn section(out: &mut Vec<u8>, hardware: &str, system: &str, application: &str, comment: &str) {
    block(out, SECTION_HEADER, |out| {
        out.extend_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
        out.extend_from_slice(&1u16.to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        // How long the section is, is not known: it is being written.
        out.extend_from_slice(&u64::MAX.to_le_bytes());
        for (code, text) in [(COMMENT, comment), (2, hardware), (3, system), (4, application)] {
            if !text.is_empty() {
                option(out, code, text.as_bytes());
            }
        }
        end_of_options(out);
    });
}

/// Interfaces are numbered in the order in which they are described.
pub(super) fn interface(out: &mut Vec<u8>, name: &str, description: &str) {
    block(out, INTERFACE_DESCRIPTION, |out| {
        out.extend_from_slice(&RAW.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        // No limit to the length of a packet.
        out.extend_from_slice(&[0; 4]);
        option(out, 2, name.as_bytes());
        option(out, 3, description.as_bytes());
        // Time in nanoseconds.
        option(out, 9, &[9]);
        end_of_options(out);
    });
}

/// A packet of which `bytes` are there, and `length` were.
pub(super) struct Packet<'a> {
    pub(super) interface: u32,
    pub(super) time_ns: u64,
    pub(super) direction: Direction,
    pub(super) bytes: &'a [u8],
    pub(super) length: u32,
    pub(super) comment: &'a str,
    /// The event as JSON.
    pub(super) event: &'a [u8],
}

pub(super) fn packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    block(out, ENHANCED_PACKET, |out| {
        out.extend_from_slice(&packet.interface.to_le_bytes());
        time(out, packet.time_ns);
        out.extend_from_slice(&u32::try_from(packet.bytes.len()).unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&packet.length.to_le_bytes());
        let start = out.len();
        out.extend_from_slice(packet.bytes);
        pad(out, start);
        option(out, COMMENT, packet.comment.as_bytes());
        option(out, 2, &(packet.direction as u32).to_le_bytes());
        for part in packet.event.chunks(LONGEST) {
            option(out, EVENT, part);
        }
        end_of_options(out);
    });
}

/// What happened without a packet, as `journalctl -o export` would give it.
pub(super) fn journal(out: &mut Vec<u8>, time_ns: u64, mono_ns: u64, message: &str, event: &[u8]) {
    block(out, JOURNAL_EXPORT, |out| {
        let mut field = |name: &str, value: &[u8]| {
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            out.extend_from_slice(value);
            out.push(b'\n');
        };
        field("__REALTIME_TIMESTAMP", (time_ns / 1_000).to_string().as_bytes());
        field("__MONOTONIC_TIMESTAMP", (mono_ns / 1_000).to_string().as_bytes());
        field("SYSLOG_IDENTIFIER", super::APPLICATION.as_bytes());
        // A field of text is one line.
        field("MESSAGE", message.replace(['\n', '\r'], " ").as_bytes());
        field(EVENT_FIELD, event);
    });
}

/// What was seen on an interface until then, and what of it is not in the file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Statistics {
    pub(super) seen: u64,
    pub(super) filtered: u64,
    pub(super) delivered: u64,
    pub(super) lost: u64,
}

pub(super) fn statistics(out: &mut Vec<u8>, interface: u32, time_ns: u64, of: Statistics) {
    block(out, INTERFACE_STATISTICS, |out| {
        out.extend_from_slice(&interface.to_le_bytes());
        time(out, time_ns);
        let accepted = of.seen.saturating_sub(of.filtered);
        for (code, count) in [(4, of.seen), (5, of.lost), (6, accepted), (8, of.delivered)] {
            option(out, code, &count.to_le_bytes());
        }
        end_of_options(out);
    });
}
