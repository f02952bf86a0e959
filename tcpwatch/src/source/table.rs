//! A table of sockets as user space reads it: an array of the kernel's, mapped a piece at a time.
//!
//! Not through the map's own calls, which are one system call an entry; and a piece at a time, so that the whole table never
//! counts as memory of this process.

use crate::mapping::Mapping;
use anyhow::{Context, Result, bail};
use aya::maps::{Map, MapData};
use rustix::param::page_size;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use zerocopy::{FromBytes, IntoBytes};

/// Pages of keys that are looked at together. As many entries as there are words in whole pages are whole pages, too: the size
/// of each is a multiple of eight.
const PIECE: usize = 4;

/// An array of entries, each a whole number of words.
pub(super) struct Table<T> {
    map: MapData,
    /// A word for each entry, 0 for a free one.
    keys: Option<MapData>,
    entries: usize,
    entry: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes> Table<T> {
    pub(super) fn new(map: Map, entries: u32) -> Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 8) };
        Ok(Self { map: array(map)?, keys: None, entries: entries as usize, entry: PhantomData })
    }

    /// A table whose keys lie in an array of their own: what nobody uses is not even looked at.
    pub(super) fn with_keys(map: Map, keys: Map, entries: u32) -> Result<Self> {
        Ok(Self { keys: Some(array(keys)?), ..Self::new(map, entries)? })
    }

    /// Hands out every entry as it is at that moment; free ones too, if there are no keys to tell them. The programs write
    /// meanwhile: an entry in their hands may come half old and half new.
    pub(super) fn each(&self, mut take: impl FnMut(&T)) -> Result<()> {
        let mut entry = T::new_zeroed();
        let piece = PIECE * page_size() / size_of::<u64>();
        for first in (0..self.entries).step_by(piece) {
            let count = piece.min(self.entries - first);
            let keys = match &self.keys {
                Some(keys) => Some(part::<u64>(keys, first, count)?),
                None => None,
            };
            let is_used = |at: usize| keys.as_ref().is_none_or(|keys| keys.word(at * size_of::<u64>()) != 0);
            let mut used = (0..count).filter(|at| is_used(*at)).peekable();
            if used.peek().is_none() {
                continue;
            }
            let entries = part::<T>(&self.map, first, count)?;
            for at in used {
                entries.copy(at * size_of::<T>(), entry.as_mut_bytes());
                take(&entry);
            }
        }
        Ok(())
    }
}

fn array(map: Map) -> Result<MapData> {
    match map {
        Map::Array(map) => Ok(map),
        _ => bail!("a table of sockets is no array"),
    }
}

fn part<T>(map: &MapData, first: usize, count: usize) -> Result<Mapping> {
    let (at, length) = (first * size_of::<T>(), count * size_of::<T>());
    Mapping::of(map.fd().as_fd(), at, length).context("cannot read a table of the kernel side")
}
