//! tcpwatch's kernel programs.
//!
//! One file per kernel hook under `hooks/`, named after the kernel function or tracepoint. A hook reads its arguments,
//! asks `kernel/` for fields, `owners` for what is remembered, and hands the event to `emit`. It decides nothing that
//! user space can decide later from the record.
//!
//! The crate also compiles for the host, as an empty program, so that editors and lints need no BPF target.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
// Two additions in `tables.rs` are instructions that the language does not offer here.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    allow(unreachable_pub, reason = "a program has no outside; `pub(crate)` everywhere would only be noise")
)]

#[cfg(target_arch = "bpf")]
mod context;
#[cfg(target_arch = "bpf")]
mod emit;
#[cfg(target_arch = "bpf")]
mod hooks;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod owners;
#[cfg(target_arch = "bpf")]
mod storms;
#[cfg(target_arch = "bpf")]
mod tables;
#[cfg(target_arch = "bpf")]
mod words;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// Loops for ever, so that the verifier refuses any program from which a panic can be reached.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel grants `bpf_probe_read_kernel` and the stack helpers to GPL-compatible programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
