//! What is freed goes back to the system. By itself glibc keeps for later what was needed once, and a start needs megabytes that
//! a run does not.

/// Has large blocks go back as soon as they are freed. To be called before there are threads.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: nobody else allocates meanwhile, and the value is one that this setting may have.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10) };
}

/// Gives back what lies free between blocks that are in use.
pub(crate) fn give_back_gaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks and touches only what is free.
    let _ = unsafe { libc::malloc_trim(0) };
}
