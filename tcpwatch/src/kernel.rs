//! What the running kernel is: its types, its hooks, its names.

pub mod btf;
pub mod census;
pub mod hooks;
pub mod names;
pub mod shape;
pub mod symbols;

/// The kernel's release, as `uname -r` says it.
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
