//! Pages of the kernel's in the memory of this process: the one place where they are pointed at.
//!
//! The kernel puts each page of a mapped BPF map into memory at once, and as long as it is mapped it counts as memory of this
//! process. So what is large is mapped a piece at a time.

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;
use std::ffi::c_void;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Some pages of a file of the kernel's. Taken out of memory when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: *mut c_void,
    length: usize,
}

// SAFETY: pages of a mapping belong to the process, not to a thread of it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps whole pages of a BPF map that can only be read. The offset is one of a page.
    pub(crate) fn of(map: impl AsFd, offset: usize, length: usize) -> rustix::io::Result<Self> {
        Self::with(ProtFlags::READ, MapFlags::SHARED, map, offset, length)
    }

    /// Maps whole pages that can be written, too.
    pub(crate) fn writable(map: impl AsFd, offset: usize, length: usize) -> rustix::io::Result<Self> {
        Self::with(ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, map, offset, length)
    }

    /// Maps the beginning of a file that is never written.
    pub(crate) fn constant(file: impl AsFd, length: usize) -> rustix::io::Result<Self> {
        Self::with(ProtFlags::READ, MapFlags::PRIVATE, file, 0, length)
    }

    fn with(
        access: ProtFlags,
        flags: MapFlags,
        file: impl AsFd,
        offset: usize,
        length: usize,
    ) -> rustix::io::Result<Self> {
        let length = length.next_multiple_of(page_size());
        // SAFETY: a mapping of its own, at a place that the kernel chooses.
        let start = unsafe { mmap(std::ptr::null_mut(), length, access, flags, file, offset as u64)? };
        Ok(Self { start, length })
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Copies `into.len()` bytes, a multiple of eight, word by word: programs write there, so each word is read once.
    pub(crate) fn copy(&self, at: usize, into: &mut [u8]) {
        assert!(at.is_multiple_of(8) && at + into.len() <= self.length);
        for (word, bytes) in into.chunks_exact_mut(8).enumerate() {
            // SAFETY: within the mapping, which begins at a page and lives as long as `self`.
            let value = unsafe { self.start.byte_add(at + word * 8).cast::<u64>().read_volatile() };
            bytes.copy_from_slice(&value.to_ne_bytes());
        }
    }

    /// The word at a multiple of eight, and everything that was written before it.
    pub(crate) fn word(&self, at: usize) -> u64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.length);
        // SAFETY: within the mapping, aligned, and whoever else writes there does it word by word.
        let word = unsafe { AtomicU64::from_ptr(self.start.byte_add(at).cast()) };
        // Not `Acquire` itself: of memory that cannot be written only relaxed loads are sound.
        let value = word.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        value
    }

    /// The half of a word at a multiple of four, and everything that was written before it.
    pub(crate) fn half(&self, at: usize) -> u32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.length);
        // SAFETY: as above.
        let half = unsafe { AtomicU32::from_ptr(self.start.byte_add(at).cast()) };
        let value = half.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        value
    }

    /// Writes the word at a multiple of eight, after everything that was read before.
    ///
    /// # Safety
    ///
    /// The mapping was made by [`Self::writable`].
    pub(crate) unsafe fn set_word(&self, at: usize, value: u64) {
        assert!(at.is_multiple_of(8) && at + 8 <= self.length);
        // SAFETY: within the mapping, aligned, and it may be written, says the caller.
        let word = unsafe { AtomicU64::from_ptr(self.start.byte_add(at).cast()) };
        word.store(value, Ordering::Release);
    }

    /// Some bytes as they are.
    ///
    /// # Safety
    ///
    /// Nobody writes there as long as the bytes are borrowed.
    pub(crate) unsafe fn bytes(&self, at: usize, length: usize) -> &[u8] {
        assert!(at <= self.length && length <= self.length - at);
        // SAFETY: within the mapping, which lives as long as `self`; nobody writes there, says the caller.
        unsafe { std::slice::from_raw_parts(self.start.byte_add(at).cast(), length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: what `with` mapped; nothing points into it any more.
        // It cannot fail for a mapping that is there.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}
