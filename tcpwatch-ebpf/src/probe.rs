//! Programs with which user space finds out what this kernel lets it attach, before it decides how the real ones are to work
//! together. None of them does anything.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::EbpfContext;
    use aya_ebpf::macros::{btf_tracepoint, fentry, kprobe};
    use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, ProbeContext};

    #[fentry]
    fn probe_fentry(_context: FEntryContext) -> i32 {
        0
    }

    #[kprobe]
    fn probe_kprobe(_context: ProbeContext) -> u32 {
        0
    }

    /// Reads from the first argument of a tracepoint without asking whether it is NULL. It is loaded and never attached: it asks the
    /// verifier whether that knows of NULL.
    #[btf_tracepoint]
    fn probe_null(context: BtfTracePointContext) -> i32 {
        // SAFETY: it never runs.
        unsafe {
            let sock = context.as_ptr().cast::<u64>().read_volatile();
            (sock as *const u32).read_volatile();
        }
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
