//! A table of sockets as user space reads it: an array of the kernel's, mapped a piece at a time.
//!
//! Not through the map's own calls, which are one system call an entry; and a piece at a time, so that the whole table never
//! counts as memory of this process.

use anyhow::{Context, Result, bail};
use aya::maps::{Map, MapData};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use zerocopy::{FromBytes, IntoBytes};

/// Entries of a piece: whole pages of up to 64 KiB, whatever an entry's size.
const PIECE: usize = 8192;

/// An array of entries, each a whole number of words.
pub(super) struct Table<T> {
    map: MapData,
    entries: usize,
    entry: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes> Table<T> {
    pub(super) fn new(map: Map, entries: u32) -> Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 8) };
        let Map::Array(map) = map else { bail!("a table of sockets is no array") };
        Ok(Self { map, entries: entries as usize, entry: PhantomData })
    }

    /// Hands out every entry as it is at that moment, free ones too. The programs write meanwhile: an entry in their hands may
    /// come half old and half new.
    pub(super) fn each(&self, mut take: impl FnMut(&T)) -> Result<()> {
        let mut entry = T::new_zeroed();
        for first in (0..self.entries).step_by(PIECE) {
            let count = PIECE.min(self.entries - first);
            let piece = Piece::map(&self.map, first * size_of::<T>(), count * size_of::<T>())
                .context("cannot read a table of the kernel side")?;
            for at in 0..count {
                piece.copy(at * size_of::<T>(), entry.as_mut_bytes());
                take(&entry);
            }
        }
        Ok(())
    }
}

/// Some pages of a map. Taken out of memory when dropped.
struct Piece {
    start: *mut c_void,
    length: usize,
}

impl Piece {
    fn map(map: &MapData, offset: usize, length: usize) -> rustix::io::Result<Self> {
        let length = length.next_multiple_of(page_size());
        let offset = offset as u64;
        // SAFETY: a mapping of its own, at a place that the kernel chooses, only to be read.
        let start = unsafe {
            mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, map.fd().as_fd(), offset)?
        };
        Ok(Self { start, length })
    }

    /// Copies `into.len()` bytes, a multiple of eight, word by word: programs write there, so each word is read once.
    fn copy(&self, at: usize, into: &mut [u8]) {
        assert!(at.is_multiple_of(8) && at + into.len() <= self.length);
        for (word, bytes) in into.chunks_exact_mut(8).enumerate() {
            // SAFETY: within the mapping, which begins at a page and lives as long as `self`.
            let value = unsafe { self.start.byte_add(at + word * 8).cast::<u64>().read_volatile() };
            bytes.copy_from_slice(&value.to_ne_bytes());
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: what `map` mapped; nothing points into it any more.
        // It cannot fail for a mapping that is there.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}
