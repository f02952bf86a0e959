//! One field of a kernel structure.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use core::mem::MaybeUninit;
use tcpwatch_common::offsets::ABSENT;

/// Reads `T` at an address; zero where that cannot be read.
///
/// `bpf_probe_read_kernel` survives any address, so a stale or wrong pointer costs an answer, never the host. The helper
/// zeroes the destination when it fails, so there is nothing to decide here: a branch per field would double the states
/// that the verifier has to walk.
#[inline(always)]
pub fn at<T: Copy>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the destination is large enough, and the helper writes all of it. `T` is an integer or an array of them, valid
    // for any bytes.
    unsafe {
        let _ = bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _);
        value.assume_init()
    }
}

/// Reads the field at `offset` of the structure at `base`; zero where the kernel lacks it or the address is bad.
#[inline(always)]
pub fn read<T: Copy + Default>(base: u64, offset: u32) -> T {
    if offset == ABSENT {
        return T::default();
    }
    at(base + u64::from(offset))
}

/// Reads the field that the named offset stands for.
macro_rules! field {
    ($base:expr, $offset:ident) => {
        $crate::kernel::field::read($base, $crate::kernel::config::config!(offsets.$offset))
    };
}
pub(crate) use field;

/// Whether this kernel has the field: a constant for the verifier.
macro_rules! has_field {
    ($offset:ident) => {
        $crate::kernel::config::config!(offsets.$offset) != tcpwatch_common::offsets::ABSENT
    };
}
pub(crate) use has_field;
