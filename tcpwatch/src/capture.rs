//! Captures: events in a pcapng file that stock Wireshark opens, and the way back.
//!
//! A segment that tcpwatch knows of (an RST, a dropped segment) is a packet block: headers put together from what the kernel
//! had of it, the verdict as its comment. Everything else is a systemd journal export block. Each carries the event as the
//! line that `--json` prints, so that [`Reader`] gives back the same events; where it lies, [`block`] says.
//!
//! pcapng: <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html>. Integers are little-endian, times nanoseconds
//! since 1970 (UTC).

mod block;
mod packet;
mod parse;
mod read;
mod write;

pub use read::{Broken, Reader, Said};
pub use write::{CaptureSink, Host, Opener, Rotation, Unwritable};

/// How the application calls itself in a section's header; a file without it is not ours.
const APPLICATION: &str = "tcpwatch";

#[cfg(test)]
mod tests;
