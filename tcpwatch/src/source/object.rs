//! The compiled kernel programs, embedded by `build.rs`.

use aya::include_bytes_aligned;

/// The programs.
pub(super) static PROGRAMS: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tcpwatch-ebpf"));

/// Two empty programs that find out what the kernel grants.
pub(super) static PROBE: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tcpwatch-probe"));
