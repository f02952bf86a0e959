//! Two empty programs with which user space finds out what this kernel lets it attach, before it decides how the real ones
//! are to work together.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::macros::{fentry, kprobe};
    use aya_ebpf::programs::{FEntryContext, ProbeContext};

    #[fentry]
    fn probe_fentry(_context: FEntryContext) -> i32 {
        0
    }

    #[kprobe]
    fn probe_kprobe(_context: ProbeContext) -> u32 {
        0
    }

    /// Loops for ever, so that the verifier refuses any program from which a panic can be reached.
    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 4] = *b"GPL\0";
}
