//! What crosses the border between tcpwatch's kernel programs and its user space.
//!
//! Rules of the wire, kept by every type here:
//!
//! - Fixed size, `#[repr(C)]`, integers and arrays of integers only: no `bool`, no `enum`, no `Option`, so that any
//!   bytes are a valid value and user space decodes without `unsafe`.
//! - Padding is a named field, an integer: an array of bytes would be cleared by a call of `memset` in the kernel. [`layout`] asserts every size at compile time.
//! - Integers are in the host's byte order, ports too. An address is four words *exactly as they lie in the
//!   packet* (network byte order in memory); IPv4 is written as IPv4-mapped IPv6, so that one key serves both.
//! - Times are nanoseconds of `CLOCK_MONOTONIC`, as `bpf_ktime_get_ns()` gives them.
//! - Zero means "not known" only where the field says so; otherwise a bit in `flags` says what is present.
//! - Enum numbers of the kernel (reset reasons, drop reasons) stay raw here: only user space, which read the running
//!   kernel's BTF, can name them.
#![no_std]
// One computation in `table.rs` must stay as it is written.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod config;
pub mod counters;
pub mod filter;
pub mod flow;
pub mod hook;
pub mod layout;
pub mod offsets;
pub mod owner;
pub mod record;
pub mod state;
pub mod storm;
pub mod table;
#[cfg(feature = "user")]
mod user;
