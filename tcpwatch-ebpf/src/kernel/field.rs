//! One field of a kernel structure.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use tcpwatch_common::offsets::ABSENT;

/// Reads the field at `offset` of the structure at `base`; `None` where the kernel lacks it or the address is bad.
///
/// `bpf_probe_read_kernel` survives any address, so a stale or wrong pointer costs an answer, never the host.
#[inline(always)]
pub fn read<T: Copy>(base: u64, offset: u32) -> Option<T> {
    if base == 0 || offset == ABSENT {
        return None;
    }
    // SAFETY: the helper checks the address itself; `T` is an integer or an array of them, valid for any bytes.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// [`read`], or zero.
#[inline(always)]
pub fn read_or_zero<T: Copy + Default>(base: u64, offset: u32) -> T {
    read(base, offset).unwrap_or_default()
}

/// Reads the field that the named offset stands for.
macro_rules! field {
    ($base:expr, $offset:ident) => {
        $crate::kernel::field::read($base, $crate::kernel::config::config!(offsets.$offset))
    };
}
pub(crate) use field;

/// [`field!`], or zero.
macro_rules! field_or_zero {
    ($base:expr, $offset:ident) => {
        $crate::kernel::field::read_or_zero($base, $crate::kernel::config::config!(offsets.$offset))
    };
}
pub(crate) use field_or_zero;
