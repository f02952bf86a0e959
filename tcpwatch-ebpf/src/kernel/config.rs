//! What user space decided before loading.

use tcpwatch_common::config::Config;
use tcpwatch_common::filter::Filter;

/// Overwritten by the loader, then frozen: the verifier treats each field as a constant.
#[unsafe(no_mangle)]
pub static CONFIG: Config = Config::UNSET;

/// Reads one field of [`CONFIG`].
///
/// Volatile, or the compiler would take the value that the loader is about to replace.
macro_rules! config {
    ($($path:tt)+) => {
        // SAFETY: a plain read of initialised read-only data.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::config::CONFIG.$($path)+) }
    };
}
pub(crate) use config;

/// The user's filter, where it lies: a copy of it would take stack that the deepest program does not have.
#[inline(always)]
pub fn filter() -> &'static Filter {
    // Opaque, or the compiler would take the value that the loader is about to replace.
    let filter = core::hint::black_box(&raw const CONFIG.filter);
    // SAFETY: initialised read-only data.
    unsafe { &*filter }
}
