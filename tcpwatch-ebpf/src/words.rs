//! Copies and clearings, word by word.

/// Copies a value whose size and alignment are multiples of eight.
///
/// Plain assignment of 128 bytes becomes a call of `memmove`, which here is a loop over bytes that the verifier walks once
/// per byte and path. Volatile words stay the sixteen loads and stores that they are.
///
/// # Safety
/// `to` must be writable, `from` readable, both aligned to eight bytes.
#[inline(always)]
pub unsafe fn copy<T: Copy>(to: *mut T, from: *const T) {
    const { assert!(size_of::<T>() % 8 == 0 && align_of::<T>() == 8) };
    let mut i = 0;
    while i < size_of::<T>() / 8 {
        // SAFETY: by contract, and within the value.
        unsafe { to.cast::<u64>().add(i).write_volatile(from.cast::<u64>().add(i).read_volatile()) };
        i += 1;
    }
}

/// Clears a value whose size and alignment are multiples of eight, for the same reason.
///
/// # Safety
/// `value` must be writable and aligned to eight bytes; all zeroes must be a valid `T`.
#[inline(always)]
pub unsafe fn zero<T>(value: *mut T) {
    const { assert!(size_of::<T>() % 8 == 0 && align_of::<T>() == 8) };
    let mut i = 0;
    while i < size_of::<T>() / 8 {
        // SAFETY: by contract, and within the value.
        unsafe { value.cast::<u64>().add(i).write_volatile(0) };
        i += 1;
    }
}
