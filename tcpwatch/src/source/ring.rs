//! The ring buffer as user space reads it: through a window that moves along.
//!
//! aya's reader maps the whole ring, and twice, as the kernel lays it out: 8 MB of resident memory for a ring of 4. A window costs
//! two system calls for each of its lengths that is read, some ten microseconds in hundreds of records.

use crate::mapping::Mapping;
use anyhow::{Context, Result, bail};
use aya::maps::Map;
use rustix::param::page_size;
use std::os::fd::{AsFd, OwnedFd};

/// Bytes of the window: some hundred records.
const WINDOW: usize = 256 << 10;
/// Bytes before each record: its length, in the highest bits of which the kernel says what it is, and where its page is.
const HEADER: usize = 8;
/// A program is still writing the record (`BPF_RINGBUF_BUSY_BIT`).
const BUSY: u32 = 1 << 31;
/// A program gave the record up (`BPF_RINGBUF_DISCARD_BIT`).
const DISCARDED: u32 = 1 << 30;

/// The reader's end of a ring buffer.
#[derive(Debug)]
pub(super) struct Ring {
    ring: OwnedFd,
    /// The page with how far the reader is, counted in bytes since the beginning.
    reader: Mapping,
    /// The page with how far the programs are.
    writer: Mapping,
    read: u64,
    written: u64,
    /// Bytes of the ring, a power of two.
    size: usize,
    window: Option<Window>,
}

/// A part of the ring. Behind its end the ring lies a second time, so that no record is ever in two pieces.
#[derive(Debug)]
struct Window {
    first: usize,
    bytes: Mapping,
}

impl Ring {
    pub(super) fn new(map: &Map, size: u32) -> Result<Self> {
        let Map::RingBuf(map) = map else { bail!("the ring buffer is none") };
        let ring = map.fd().as_fd().try_clone_to_owned().context("cannot keep the ring buffer open")?;
        Self::of(ring, size as usize)
    }

    fn of(ring: OwnedFd, size: usize) -> Result<Self> {
        let page = page_size();
        let reader = Mapping::writable(&ring, 0, page).context("cannot read the ring buffer")?;
        let writer = Mapping::of(&ring, page, page).context("cannot read the ring buffer")?;
        let (read, written) = (reader.word(0), writer.word(0));
        Ok(Self { ring, reader, writer, read, written, size, window: None })
    }

    /// Hands out the next record, if there is one.
    pub(super) fn next(&mut self, take: impl FnOnce(&[u8])) -> Result<bool> {
        loop {
            if self.read == self.written {
                self.written = self.writer.word(0);
                if self.read == self.written {
                    return Ok(false);
                }
            }
            let at = usize::try_from(self.read).context("a ring buffer without end")? & (self.size - 1);
            let header = self.window(at, HEADER)?;
            let word = header.bytes.half(at - header.first);
            if word & BUSY != 0 {
                return Ok(false);
            }
            let length = (word & !(BUSY | DISCARDED)) as usize;
            if word & DISCARDED != 0 {
                self.pass(length);
                continue;
            }
            let record = self.window(at, HEADER + length)?;
            // SAFETY: the program is done with the record, and nobody writes there again before it is passed.
            take(unsafe { record.bytes.bytes(at - record.first + HEADER, length) });
            self.pass(length);
            return Ok(true);
        }
    }

    /// Gives the programs the place of a record back.
    fn pass(&mut self, length: usize) {
        self.read += (HEADER + length).next_multiple_of(8) as u64;
        // SAFETY: made to be written.
        unsafe { self.reader.set_word(0, self.read) };
    }

    /// A window in which `length` bytes lie from `at` on.
    fn window(&mut self, at: usize, length: usize) -> Result<&Window> {
        let covers =
            |window: &Window| at >= window.first && at + length <= window.first + window.bytes.length();
        let window = match self.window.take().filter(covers) {
            Some(window) => window,
            None => {
                let page = page_size();
                let first = at & !(page - 1);
                let least = at - first + length;
                if first + least > 2 * self.size {
                    bail!("a record of {length} bytes in a ring buffer of {}", self.size);
                }
                let bytes = least.max(WINDOW).min(2 * self.size - first);
                let bytes = Mapping::of(&self.ring, 2 * page + first, bytes)
                    .context("cannot read the ring buffer")?;
                Window { first, bytes }
            }
        };
        Ok(self.window.insert(window))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::io::pwrite;

    /// A file in which a ring lies as the kernel shows it, and where its end is.
    struct Fake {
        file: OwnedFd,
        size: usize,
        written: u64,
    }

    impl Fake {
        fn new(size: usize) -> Self {
            let file = memfd_create("ring", MemfdFlags::CLOEXEC).unwrap();
            ftruncate(&file, (2 * page_size() + 2 * size) as u64).unwrap();
            Self { file, size, written: 0 }
        }

        fn ring(&self) -> Ring {
            Ring::of(self.file.try_clone().unwrap(), self.size).unwrap()
        }

        /// Writes a record, into both copies of the ring.
        fn write(&mut self, flags: u32, bytes: &[u8]) {
            let mut record = (bytes.len() as u32 | flags).to_ne_bytes().to_vec();
            record.extend([0; 4]);
            record.extend(bytes);
            for (offset, byte) in record.iter().enumerate() {
                let at = (self.written as usize + offset) % self.size;
                for copy in [at, at + self.size] {
                    pwrite(&self.file, &[*byte], (2 * page_size() + copy) as u64).unwrap();
                }
            }
            self.written += record.len().next_multiple_of(8) as u64;
            pwrite(&self.file, &self.written.to_ne_bytes(), page_size() as u64).unwrap();
        }

        /// How far the reader is.
        fn read(&self) -> u64 {
            let mut word = [0; 8];
            rustix::io::pread(&self.file, &mut word, 0).unwrap();
            u64::from_ne_bytes(word)
        }
    }

    fn all(ring: &mut Ring) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while ring.next(|record| records.push(record.to_vec())).unwrap() {}
        records
    }

    #[test]
    fn records_come_in_order_and_their_places_are_given_back() {
        let mut fake = Fake::new(page_size());
        let mut ring = fake.ring();
        assert!(all(&mut ring).is_empty());
        fake.write(0, b"first");
        fake.write(DISCARDED, b"nothing");
        fake.write(0, b"second record");
        assert_eq!(all(&mut ring), [b"first".to_vec(), b"second record".to_vec()]);
        assert_eq!(fake.read(), fake.written);
        assert!(all(&mut ring).is_empty());
    }

    #[test]
    fn a_record_that_is_being_written_holds_up_those_behind_it() {
        let mut fake = Fake::new(page_size());
        let mut ring = fake.ring();
        fake.write(0, b"done");
        fake.write(BUSY, b"not yet");
        fake.write(0, b"later");
        assert_eq!(all(&mut ring), [b"done".to_vec()]);
        assert_eq!(fake.read(), 16);
        pwrite(&fake.file, &7_u32.to_ne_bytes(), (2 * page_size() + 16) as u64).unwrap();
        assert_eq!(all(&mut ring), [b"not yet".to_vec(), b"later".to_vec()]);
    }

    /// Rings shorter and longer than the window, read many times around, with records that lie across every border.
    #[test]
    fn the_window_moves_along() {
        for size in [page_size(), 4 * WINDOW] {
            let mut fake = Fake::new(size);
            let mut ring = fake.ring();
            let long = size / 3;
            for turn in 0..20_usize {
                let bytes: Vec<u8> = (0..long + turn).map(|at| (at + turn) as u8).collect();
                fake.write(0, &bytes);
                fake.write(0, &[turn as u8]);
                assert_eq!(all(&mut ring), [bytes, vec![turn as u8]]);
            }
            assert!(fake.written > 6 * size as u64);
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_an_error() {
        let mut fake = Fake::new(page_size());
        fake.write(0, b"short");
        let long = 3 * page_size() as u32;
        pwrite(&fake.file, &long.to_ne_bytes(), 2 * page_size() as u64).unwrap();
        assert!(fake.ring().next(|_| panic!("no record")).is_err());
    }
}
